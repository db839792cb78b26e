//! The text of asm statements: PTX, parsed as far as the kernels use it, and turned into calls of `include/ksim_ptx.h`.

/// What instructions' names begin with, of all that the simulator has: each is a template of `ksim_ptx.h`.
const ROOTS: [&str; 52] = [
    "abs",
    "add",
    "atom.add",
    "bar.arrive",
    "bar.red",
    "bar.sync",
    "cp.async",
    "cp.async.bulk",
    "cp.async.bulk.commit_group",
    "cp.async.bulk.prefetch",
    "cp.async.bulk.prefetch.tensor",
    "cp.async.bulk.tensor",
    "cp.async.bulk.wait_group",
    "cp.async.commit_group",
    "cp.async.mbarrier.arrive",
    "cp.async.wait_all",
    "cp.async.wait_group",
    "cp.reduce.async.bulk",
    "cp.reduce.async.bulk.tensor",
    "createpolicy",
    "cvt",
    "fence.mbarrier_init",
    "fence.proxy",
    "griddepcontrol",
    "ld",
    "max",
    "mbarrier.arrive",
    "mbarrier.expect_tx",
    "mbarrier.init",
    "mbarrier.inval",
    "mbarrier.test_wait",
    "mbarrier.try_wait",
    "min",
    "mma.sync",
    "mov",
    "prefetch",
    "rcp",
    "selp",
    "set.ge",
    "set.le",
    "setp.ne",
    "st",
    "tensormap.cp_fenceproxy",
    "tensormap.replace",
    // Declarations within a statement.
    ".reg .b16",
    ".reg .b32",
    ".reg .b64",
    ".reg .f32",
    ".reg .pred",
    ".reg .u32",
    ".reg .u64",
    ".reg .s32",
];

/// One instruction or declaration: its name with modifiers, and its operands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    name: String,
    operands: Vec<String>,
}

/// The instructions of a statement, without the braces around them.
pub(super) fn instructions(text: &str) -> Result<Vec<Instruction>, String> {
    let mut found = Vec::new();
    for statement in text.split(';') {
        let mut rest = statement.trim();
        while let Some(inner) = rest.strip_prefix('{').or_else(|| rest.strip_prefix('}')) {
            rest = inner.trim_start();
        }
        if rest.is_empty() {
            continue;
        }
        let (name, operands) = if let Some(declared) = rest.strip_prefix(".reg") {
            let (kind, names) = declared
                .trim_start()
                .split_once(char::is_whitespace)
                .ok_or_else(|| format!("`{rest}` declares nothing"))?;
            (format!(".reg {kind}"), names)
        } else {
            let (name, operands) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            (name.to_owned(), operands)
        };
        found.push(Instruction { name, operands: split_operands(operands) });
    }
    Ok(found)
}

/// At commas outside of braces and brackets.
fn split_operands(text: &str) -> Vec<String> {
    let (mut parts, mut depth, mut part) = (Vec::new(), 0i32, String::new());
    for character in text.chars() {
        match character {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part).trim().to_owned());
                continue;
            }
            _ => {}
        }
        part.push(character);
    }
    if !part.trim().is_empty() {
        parts.push(part.trim().to_owned());
    }
    parts
}

/// The call that stands for an instruction of a statement with this many operands.
pub(super) fn emit(instruction: &Instruction, operands: usize) -> Result<String, String> {
    let name = instruction.name.as_str();
    if let Some(kind) = name.strip_prefix(".reg .") {
        return declare(kind, instruction);
    }
    let root = ROOTS
        .into_iter()
        .filter(|root| {
            name.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
        .max_by_key(|root| root.len())
        .ok_or_else(|| format!("the simulator has no instruction `{name}`"))?;
    let modifiers = name[root.len()..].trim_start_matches('.');
    let arguments: Result<Vec<String>, String> =
        instruction.operands.iter().map(|operand| argument(operand, operands)).collect();
    Ok(format!(
        "::ksim::ptx::{}<\"{modifiers}\">({}); ",
        root.replace('.', "_"),
        arguments?.join(", ")
    ))
}

fn declare(kind: &str, instruction: &Instruction) -> Result<String, String> {
    let register = match kind {
        "b16" => "uint16_t",
        "b32" | "u32" | "s32" => "uint32_t",
        "b64" | "u64" => "uint64_t",
        "f32" => "float",
        "pred" => "bool",
        _ => return Err(format!("the simulator has no register of type .{kind}")),
    };
    let names: Vec<String> =
        instruction.operands.iter().map(|name| format!("ksim_r_{name}{{}}")).collect();
    Ok(format!("[[maybe_unused]] {register} {}; ", names.join(", ")))
}

fn argument(text: &str, operands: usize) -> Result<String, String> {
    let within = |open: char, close: char| {
        text.strip_prefix(open).and_then(|rest| rest.strip_suffix(close)).map(str::trim)
    };
    if let Some(special) = text.strip_prefix("%%") {
        return Ok(format!("::ksim::ptx::special::{special}()"));
    }
    if let Some(number) = text.strip_prefix('%') {
        return match number.parse::<usize>() {
            Ok(number) if number < operands => Ok(format!("ksim_{number}")),
            _ => Err(format!("the statement has no operand {text}")),
        };
    }
    if let Some(inner) = within('[', ']') {
        let parts = split_operands(inner);
        let parts: Result<Vec<String>, String> =
            parts.iter().map(|part| argument(part, operands)).collect();
        return match parts?.as_slice() {
            [address] => Ok(format!("::ksim::ptx::address({address})")),
            [map, coordinates] => Ok(format!("::ksim::ptx::place({map}, {coordinates})")),
            _ => Err(format!("`{text}` is no address that the simulator knows")),
        };
    }
    if let Some(inner) = within('{', '}') {
        let parts: Result<Vec<String>, String> =
            split_operands(inner).iter().map(|part| argument(part, operands)).collect();
        return Ok(format!("::ksim::ptx::several({})", parts?.join(", ")));
    }
    if text == "_" {
        return Ok("::ksim::ptx::Sink{}".to_owned());
    }
    if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        return text
            .parse::<f64>()
            .map(|_| text.to_owned())
            .map_err(|_| format!("`{text}` is no number that the simulator knows"));
    }
    if text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !text.is_empty() {
        return Ok(format!("ksim_r_{text}"));
    }
    Err(format!("`{text}` is no operand that the simulator knows"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_with_registers_of_its_own_becomes_calls() {
        let text = "{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }";
        let calls: String =
            instructions(text).unwrap().iter().map(|one| emit(one, 3).unwrap()).collect();
        assert_eq!(
            calls,
            "[[maybe_unused]] bool ksim_r_p{}; \
             ::ksim::ptx::mbarrier_try_wait<\"parity.shared.b64\">(ksim_r_p, ::ksim::ptx::address(ksim_1), ksim_2); \
             ::ksim::ptx::selp<\"u32\">(ksim_0, 1, 0, ksim_r_p); "
        );
    }

    #[test]
    fn vectors_maps_and_special_registers_are_operands() {
        assert_eq!(
            argument("[%6, {%0, %1}]", 9).unwrap(),
            "::ksim::ptx::place(ksim_6, ::ksim::ptx::several(ksim_0, ksim_1))"
        );
        assert_eq!(argument("%%globaltimer", 1).unwrap(), "::ksim::ptx::special::globaltimer()");
        assert!(argument("%3", 3).is_err());
    }

    #[test]
    fn an_unknown_instruction_is_named() {
        let instruction = &instructions("wgmma.fence.sync.aligned;").unwrap()[0];
        assert!(emit(instruction, 0).unwrap_err().contains("`wgmma.fence.sync.aligned`"));
    }

    #[test]
    fn every_root_is_a_template_of_the_header() {
        let header = include_str!("../../include/ksim_ptx.h");
        for root in ROOTS.into_iter().filter(|root| !root.starts_with('.')) {
            let name = format!("void {}(", root.replace('.', "_"));
            assert!(header.contains(&name), "{root} is not in the header");
        }
    }
}
