//! What the assembler says of each kernel: registers, shared memory, spills.

use crate::arch::Arch;

/// One function of the device, compiled for one architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// The function's name as the linker sees it.
    pub function: String,
    /// The machine code.
    pub arch: Arch,
    /// Registers of one thread; `None` for a function that is called and not launched.
    pub registers: Option<u32>,
    /// Shared memory that the function declares, bytes.
    pub shared_bytes: u32,
    /// Stack of one thread, bytes.
    pub stack_bytes: u32,
    /// Bytes stored when registers ran out.
    pub spill_stores: u32,
    /// Bytes loaded again.
    pub spill_loads: u32,
}

impl Resources {
    /// Whether registers ran out.
    pub fn spills(&self) -> bool {
        self.spill_stores > 0 || self.spill_loads > 0
    }
}

/// Reads the output of `nvcc -Xptxas -v`. Lines of other kinds are passed over; PTX has no entry, since no machine code is made.
pub fn parse_resources(output: &str) -> Vec<Resources> {
    let mut found: Vec<Resources> = Vec::new();
    let mut arch = None;
    let mut current: Option<usize> = None;
    for line in output.lines() {
        let line = line
            .strip_prefix("ptxas info")
            .map_or(line, |rest| rest.trim_start_matches([' ', ':']));
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("Compiling entry function '") {
            arch = rest.rsplit('\'').nth(1).and_then(|name| name.parse::<Arch>().ok());
        } else if let Some(name) = line.strip_prefix("Function properties for ") {
            current = arch.map(|arch| {
                found.push(Resources {
                    function: name.trim().to_owned(),
                    arch,
                    registers: None,
                    shared_bytes: 0,
                    stack_bytes: 0,
                    spill_stores: 0,
                    spill_loads: 0,
                });
                found.len() - 1
            });
        } else if let Some(at) = current {
            let entry = &mut found[at];
            for part in line.split(',') {
                let mut words = part.split_whitespace();
                let first = words.next();
                // "Used 12 registers", else "1024 bytes smem" and the like.
                let (number, unit) = if first == Some("Used") {
                    (words.next(), words.collect::<Vec<_>>().join(" "))
                } else {
                    (first, words.collect::<Vec<_>>().join(" "))
                };
                let Some(number) = number.and_then(|text| text.parse::<u32>().ok()) else {
                    continue;
                };
                match unit.as_str() {
                    "registers" => entry.registers = Some(number),
                    "bytes smem" => entry.shared_bytes = number,
                    "bytes stack frame" => entry.stack_bytes = number,
                    "bytes spill stores" => entry.spill_stores = number,
                    "bytes spill loads" => entry.spill_loads = number,
                    _ => {}
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::CodeKind;

    // As nvcc 13.0.88 writes it.
    const OUTPUT: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'kasmina_probe' for 'sm_80'
ptxas info    : Function properties for kasmina_probe
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, used 0 barriers, 376 bytes cmem[0]
ptxas info    : Compile time = 2.328 ms
ptxas info    : Compiling entry function '_Z4tileIfEvPKT_' for 'sm_90a'
ptxas info    : Function properties for _Z4tileIfEvPKT_
    512 bytes stack frame, 40 bytes spill stores, 44 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 512 bytes cumulative stack size, 1024 bytes smem
";

    #[test]
    fn each_kernel_and_architecture_is_a_row() {
        let rows = parse_resources(OUTPUT);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].function, "kasmina_probe");
        assert_eq!((rows[0].registers, rows[0].spills()), (Some(12), false));
        assert_eq!(
            rows[1],
            Resources {
                function: "_Z4tileIfEvPKT_".into(),
                arch: Arch::new(9, 0, CodeKind::SpecificCubin),
                registers: Some(255),
                shared_bytes: 1024,
                stack_bytes: 512,
                spill_stores: 40,
                spill_loads: 44,
            }
        );
        assert!(rows[1].spills());
    }

    #[test]
    fn other_text_gives_no_rows() {
        assert!(parse_resources("").is_empty());
        assert!(
            parse_resources("nvcc fatal   : Unsupported gpu architecture 'compute_1'").is_empty()
        );
        assert!(
            parse_resources("ptxas info    : Function properties for x\n 1 bytes stack frame")
                .is_empty()
        );
    }
}
