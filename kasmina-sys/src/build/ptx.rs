//! What the compiler's PTX says of each kernel: whether bulk-tensor instructions are in it, and whether it takes a tensor map.
//!
//! The assembler's statistics do not name instructions, and the disassembler is not among the toolkit's Python packages. But
//! nvcc keeps the PTX of every architecture, machine code included, when asked to, and these instructions cannot be
//! optimised away after it: they have effects.

use std::collections::{BTreeMap, BTreeSet};

use super::signature::{Signature, parameter_bytes};
use crate::arch::{Arch, CodeKind};

/// A kernel's use of tensor maps, in the code for one architecture. Functions that it calls count as part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorUse {
    /// The kernel's name as the linker sees it.
    pub function: String,
    /// The machine code or PTX.
    pub arch: Arch,
    /// Whether a parameter holds a tensor map: at least 128 bytes by value, aligned to at least 64. Nothing else is aligned
    /// so in practice, and a struct with a map inside is. One of exactly 128 bytes that the kernel reads is data to it, since
    /// a map is opaque.
    pub takes_map: bool,
    /// Copies from global to shared memory through a map, `cp.async.bulk.tensor`.
    pub loads: u32,
    /// Copies and reductions from shared to global memory through a map.
    pub stores: u32,
    /// Changes of a map, `tensormap.replace`.
    pub edits: u32,
}

impl TensorUse {
    /// Whether bulk-tensor instructions are in it.
    pub fn is_bulk(&self) -> bool {
        self.loads > 0 || self.stores > 0
    }
}

/// The kernels that should move data through tensor maps and, in code for an architecture of `archs` that can (9.0 and later,
/// PTX included), do not or are not there at all: an `#if` that excludes an architecture by mistake compiles without a word.
///
/// A kernel is one of those if bulk-tensor instructions are in it for any architecture; or if its name has `bulk_tensor` in
/// it, for kernels that get their map by address; or if it takes a map by value, and does not edit maps instead. One that
/// edits maps may be absent: `tensormap.replace` is in architecture-specific code alone.
pub fn without_bulk_tensor<'a>(archs: &[Arch], kernels: &'a [TensorUse]) -> Vec<(&'a str, Arch)> {
    let mut names: Vec<&str> = Vec::new();
    for kernel in kernels {
        if !names.contains(&kernel.function.as_str()) {
            names.push(&kernel.function);
        }
    }
    let mut found = Vec::new();
    for name in names {
        let codes: Vec<_> = kernels.iter().filter(|kernel| kernel.function == name).collect();
        let edits = codes.iter().any(|code| code.edits > 0);
        let should = name.contains("bulk_tensor")
            || codes.iter().any(|code| code.is_bulk())
            || (codes.iter().all(|code| code.takes_map) && !edits);
        for &arch in archs.iter().filter(|arch| should && arch.capability.major >= 9) {
            let does = match codes.iter().find(|code| code.arch == arch) {
                Some(code) => code.is_bulk(),
                None => edits,
            };
            if !does {
                found.push((name, arch));
            }
        }
    }
    found
}

/// The PTX of one architecture.
#[derive(Debug)]
pub(super) struct Module {
    /// As its `.target` line names it: `sm_90a`.
    pub(super) target: String,
    kernels: Vec<String>,
    functions: BTreeMap<String, Function>,
}

/// Counts of one body, and every name in it that might be a function's.
#[derive(Debug, Default)]
struct Function {
    /// Bytes of each parameter; `None` where one was not understood.
    parameters: Option<Vec<u32>>,
    takes_map: bool,
    loads: u32,
    stores: u32,
    edits: u32,
    names: BTreeSet<String>,
}

/// The `.target` of the PTX that code for `arch` is made from.
pub(super) fn target(arch: Arch) -> String {
    let number = u32::from(arch.capability.major) * 10 + u32::from(arch.capability.minor);
    let suffix = if arch.kind == CodeKind::SpecificCubin { "a" } else { "" };
    format!("sm_{number}{suffix}")
}

impl Module {
    /// Reads a PTX file; `None` for text that is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let tokens = tokens(text);
        let mut at = Cursor { tokens: &tokens };
        let mut module =
            Self { target: String::new(), kernels: Vec::new(), functions: BTreeMap::new() };
        while let Some(token) = at.next() {
            match token {
                ".target" => module.target = at.next()?.to_owned(),
                ".entry" | ".func" => module.function(token == ".entry", &mut at)?,
                // A variable's initial values.
                "{" => drop(at.until_closing("{", "}")),
                _ => {}
            }
        }
        (!module.target.is_empty()).then_some(module)
    }

    /// Takes in what follows `.entry` or `.func`: a definition, or a declaration that ends in `;`.
    fn function(&mut self, is_kernel: bool, at: &mut Cursor<'_>) -> Option<()> {
        let mut name = at.next()?;
        if name == "(" {
            // What it returns.
            at.until_closing("(", ")");
            name = at.next()?;
        }
        let mut map = None;
        let mut bytes = Some(Vec::new());
        loop {
            match at.next()? {
                "(" => {
                    let list = at.until_closing("(", ")");
                    let parameters =
                        list.split(|token| *token == ",").filter(|one| !one.is_empty());
                    map = parameters.clone().find_map(Parameter::with_room_for_a_map);
                    bytes = parameters.map(parameter_bytes).collect();
                }
                "{" => break,
                ";" => return Some(()),
                _ => {}
            }
        }
        let body = at.until_closing("{", "}");
        let mut function = Function { parameters: bytes, ..Function::default() };
        body.iter().for_each(|token| function.count(token));
        function.takes_map = map.is_some_and(|map| !(map.bytes == MAP_BYTES && map.is_read(body)));
        if is_kernel {
            self.kernels.push(name.to_owned());
        }
        self.functions.insert(name.to_owned(), function);
        Some(())
    }

    /// The kernels' names, in the order of the file.
    pub(super) fn kernels(&self) -> &[String] {
        &self.kernels
    }

    /// What every kernel takes, in code for `arch`; a kernel with a parameter that was not understood is left out.
    pub(super) fn signatures(&self, arch: Arch) -> Vec<Signature> {
        let signature = |name: &String| {
            let parameter_bytes = self.functions.get(name)?.parameters.clone()?;
            Some(Signature { function: name.clone(), arch, parameter_bytes })
        };
        self.kernels.iter().filter_map(signature).collect()
    }

    /// Every kernel's use of tensor maps, in code for `arch`.
    pub(super) fn uses(&self, arch: Arch) -> Vec<TensorUse> {
        self.kernels.iter().map(|name| self.use_of(name, arch)).collect()
    }

    /// Sums over every function whose name can be reached, since calls are not always inlined. A name counts wherever it
    /// stands in a body, so taking an address does; only tables of functions in global memory go unseen.
    fn use_of(&self, kernel: &str, arch: Arch) -> TensorUse {
        let mut sum = TensorUse {
            function: kernel.to_owned(),
            arch,
            takes_map: self.functions.get(kernel).is_some_and(|function| function.takes_map),
            loads: 0,
            stores: 0,
            edits: 0,
        };
        let mut seen = BTreeSet::from([kernel]);
        let mut open = vec![kernel];
        while let Some(function) = open.pop().and_then(|name| self.functions.get(name)) {
            sum.loads += function.loads;
            sum.stores += function.stores;
            sum.edits += function.edits;
            for name in function.names.iter().filter(|name| self.functions.contains_key(*name)) {
                if seen.insert(name) {
                    open.push(name);
                }
            }
        }
        sum
    }
}

impl Function {
    fn count(&mut self, token: &str) {
        let is_name = |c: char| c == '_' || c == '$' || c.is_ascii_alphabetic();
        if token.starts_with("cp.async.bulk.tensor.")
            || token.starts_with("cp.reduce.async.bulk.tensor.")
        {
            // `<operation>.2d.<to>.<from>…`: where it goes to comes first.
            let to_shared = token.find(".shared::").unwrap_or(usize::MAX);
            if to_shared < token.find(".global").unwrap_or(usize::MAX) {
                self.loads += 1;
            } else {
                self.stores += 1;
            }
        } else if token.starts_with("tensormap.replace.") {
            self.edits += 1;
        } else if token.starts_with(is_name) {
            self.names.insert(token.to_owned());
        }
    }
}

/// Size of a tensor map.
const MAP_BYTES: u64 = 128;

/// A parameter by value, `.param .align 64 .b8 name[128]`.
struct Parameter<'a> {
    name: &'a str,
    bytes: u64,
}

impl<'a> Parameter<'a> {
    fn with_room_for_a_map(tokens: &[&'a str]) -> Option<Self> {
        let [before @ .., name, "[", bytes, "]"] = tokens else { return None };
        let at = before.iter().position(|token| *token == ".align")?;
        let align: u64 = before.get(at + 1)?.parse().ok()?;
        let bytes: u64 = bytes.parse().ok()?;
        (align >= 64 && bytes >= MAP_BYTES).then_some(Self { name, bytes })
    }

    /// Whether an instruction loads from it, `ld.param.u32 %r1, [name+16];`.
    fn is_read(&self, body: &[&str]) -> bool {
        let is_own = |token: &str| token.split('+').next() == Some(self.name);
        body.split(|token| *token == ";").any(|instruction| {
            instruction.iter().any(|token| token.starts_with("ld.param."))
                && instruction.windows(2).any(|pair| pair[0] == "[" && is_own(pair[1]))
        })
    }
}

/// Words and single punctuation marks, without comments and strings.
fn tokens(text: &str) -> Vec<&str> {
    const MARKS: &[char] = &['(', ')', '{', '}', '[', ']', ',', ';', '='];
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else { break };
        let skip_past = |end: &str, from: usize| {
            rest[from..].find(end).map_or("", |at| &rest[from + at + end.len()..])
        };
        if rest.starts_with("//") {
            rest = skip_past("\n", 2);
        } else if rest.starts_with("/*") {
            rest = skip_past("*/", 2);
        } else if first == '"' {
            rest = skip_past("\"", 1);
        } else if MARKS.contains(&first) {
            let (mark, after) = rest.split_at(1);
            tokens.push(mark);
            rest = after;
        } else {
            let ends = |c: char| c.is_whitespace() || MARKS.contains(&c) || c == '"';
            let (word, after) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
            tokens.push(word);
            rest = after;
        }
    }
    tokens
}

struct Cursor<'a> {
    tokens: &'a [&'a str],
}

impl<'a> Cursor<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    /// What stands before the mark that closes the one just read, nested pairs included; the mark is consumed.
    fn until_closing(&mut self, open: &str, close: &str) -> &'a [&'a str] {
        let tokens = self.tokens;
        let mut depth = 1usize;
        for (at, token) in tokens.iter().enumerate() {
            depth += usize::from(*token == open);
            depth -= usize::from(*token == close);
            if depth == 0 {
                self.tokens = &tokens[at + 1..];
                return &tokens[..at];
            }
        }
        self.tokens = &[];
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // As nvcc 13.0.88 writes it for a kernel with a map as parameter whose load was not inlined, cut down.
    const PTX: &str = r#"
//
// Generated by NVIDIA NVVM Compiler
//
.version 9.0
.target sm_90a
.address_size 64

.global .align 4 .b8 table[8] = {1, 2, 3, 4};
.shared .align 128 .b8 _ZZ1kE1t[4096];
.extern .func (.param .b32 func_retval0) vprintf (.param .b64 a, .param .b64 b) ;

.func _Z4loadPv(
	.param .b64 _Z4loadPv_param_0
)
{
	// begin inline asm
	cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r1], [%rd1, {%r3, %r4}], [%r2];
	// end inline asm
	ret;
}
.visible .entry k(
	.param .align 128 .b8 k_param_0[128],
	.param .u64 k_param_1
)
.maxntid 256, 1, 1
{
	{ // callseq 0, 0
	call.uni
	_Z4loadPv,
	(
	param0
	);
	} // callseq 0
	@%p1 cp.async.bulk.tensor.1d.global.shared::cta.bulk_group [%rd1, {%r1}], [%r2];
	cp.reduce.async.bulk.tensor.1d.global.shared::cta.add.bulk_group [%rd1, {%r1}], [%r2];
	cp.async.bulk.prefetch.tensor.1d.L2.global.tile [%rd1, {%r1}];
	cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd1], %r2, [%r3];
	ret;
}
.visible .entry plain(
	.param .align 16 .b8 plain_param_0[256],
	.param .u64 .ptr .global .align 128 plain_param_1
)
{
	/* cp.async.bulk.tensor.2d.shared::cluster.global */
	tensormap.replace.tile.global_address.global.b1024.b64 [%rd1], %rd2;
	ret;
}
"#;

    const SM_90A: Arch = Arch::new(9, 0, CodeKind::SpecificCubin);
    const COMPUTE_90: Arch = Arch::new(9, 0, CodeKind::Ptx);
    const SM_80: Arch = Arch::new(8, 0, CodeKind::Cubin);

    fn kernel(function: &str, arch: Arch) -> TensorUse {
        let function = function.to_owned();
        TensorUse { function, arch, takes_map: false, loads: 0, stores: 0, edits: 0 }
    }

    #[test]
    fn instructions_are_counted_through_calls_and_comments_are_not() {
        let module = Module::parse(PTX).expect("it is PTX");
        assert_eq!(module.target, target(SM_90A));
        assert_eq!(
            module.uses(SM_90A),
            [
                TensorUse { takes_map: true, loads: 1, stores: 2, ..kernel("k", SM_90A) },
                TensorUse { edits: 1, ..kernel("plain", SM_90A) },
            ]
        );
    }

    #[test]
    fn signatures_are_the_bytes_of_each_parameter() {
        let module = Module::parse(PTX).expect("it is PTX");
        let signature = |function: &str, bytes: &[u32]| Signature {
            function: function.to_owned(),
            arch: SM_90A,
            parameter_bytes: bytes.to_vec(),
        };
        let expected = [signature("k", &[128, 8]), signature("plain", &[256, 8])];
        assert_eq!(module.signatures(SM_90A), expected);
        let odd = ".target sm_90\n.entry none() { ret; }\n.entry odd(.param .novelty a) { ret; }";
        let module = Module::parse(odd).expect("it is PTX");
        assert_eq!(module.signatures(SM_90A), [signature("none", &[])]);
    }

    #[test]
    fn a_parameter_of_a_maps_size_that_is_read_is_data() {
        let takes_map = |parameter: &str, body: &str| {
            let text =
                format!(".target sm_90\n.entry k(.param .u64 a, {parameter}) {{ {body} ret; }}");
            Module::parse(&text).expect("it is PTX").uses(COMPUTE_90)[0].takes_map
        };
        let map = ".param .align 128 .b8 p[128]";
        assert!(takes_map(map, ""));
        assert!(takes_map(map, "prefetch.param.tensormap [p]; ld.param.u64 %rd1, [a];"));
        assert!(takes_map(map, "ld.param.u64 %rd1, [p2+8];"));
        assert!(!takes_map(map, "ld.param.v2.u32 {%r1, %r2}, [p+16];"));
        // A struct with more than a map in it has other things to read.
        assert!(takes_map(".param .align 64 .b8 p[192]", "ld.param.u32 %r1, [p+128];"));
        assert!(!takes_map(".param .align 16 .b8 p[128]", ""));
        assert!(!takes_map(".param .align 64 .b8 p[64]", ""));
        assert!(!takes_map(".param .u64 .ptr .global .align 128 p", ""));
    }

    #[test]
    fn functions_that_call_one_another_are_counted_once() {
        let ring = ".target sm_90\n.func a() { call b; cp.async.bulk.tensor.1d.shared::cta.global [x], [y]; }\n\
                    .func b() { call a; }\n.visible .entry k() { call a; call b; }";
        let module = Module::parse(ring).expect("it is PTX");
        assert_eq!(module.uses(COMPUTE_90), [TensorUse { loads: 1, ..kernel("k", COMPUTE_90) }]);
    }

    #[test]
    fn targets_are_named_as_ptx_names_them() {
        let names = Arch::DEFAULT.map(target);
        assert_eq!(names, ["sm_80", "sm_90a", "sm_100", "sm_120", "sm_80", "sm_90"]);
    }

    #[test]
    fn a_tma_kernel_needs_its_instructions_from_9_0_on_and_others_need_none() {
        let takes_map = TensorUse { takes_map: true, ..kernel("k", SM_90A) };
        let loads = TensorUse { loads: 1, ..kernel("k", SM_90A) };
        let edits = TensorUse { edits: 1, ..takes_map.clone() };
        let names = |kernels: &[TensorUse]| {
            let archs: Vec<Arch> = kernels.iter().map(|kernel| kernel.arch).collect();
            let found = without_bulk_tensor(&archs, kernels);
            found.into_iter().map(|(_, arch)| arch.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&[kernel("k", SM_90A), kernel("k", SM_80)]), [""; 0]);
        assert_eq!(names(std::slice::from_ref(&takes_map)), ["sm_90a"]);
        assert_eq!(names(&[TensorUse { arch: SM_80, ..takes_map.clone() }]), [""; 0]);
        assert_eq!(names(&[TensorUse { stores: 1, ..takes_map.clone() }]), [""; 0]);
        assert_eq!(names(&[kernel("_Z13k_bulk_tensorv", COMPUTE_90)]), ["compute_90"]);
        // Present for one architecture and lost for another.
        assert_eq!(
            names(&[loads.clone(), kernel("k", COMPUTE_90), kernel("k", SM_80)]),
            ["compute_90"]
        );
        let other = [
            loads.clone(),
            TensorUse { arch: COMPUTE_90, ..loads.clone() },
            kernel("other", SM_90A),
        ];
        assert_eq!(names(&other), [""; 0]);
        // Not there at all, which is right only for one that edits.
        let archs = [SM_90A, COMPUTE_90, SM_80];
        let found = without_bulk_tensor(&archs, std::slice::from_ref(&loads));
        assert_eq!(found, [("k", COMPUTE_90)]);
        let both = [TensorUse { edits: 1, ..loads.clone() }];
        assert_eq!(without_bulk_tensor(&archs, &both), []);
        // Reads the bytes for one architecture: they are data, whatever became of the rest.
        let data = kernel("k", COMPUTE_90);
        assert_eq!(names(&[takes_map.clone(), data]), [""; 0]);
        // Edits a map where it can (`tensormap.replace` is not in plain 9.0), and moves no data.
        let idle = TensorUse { takes_map: true, ..kernel("k", COMPUTE_90) };
        assert_eq!(names(&[edits.clone(), idle.clone()]), [""; 0]);
        // Does both for one architecture, and nothing for the other.
        assert_eq!(names(&[TensorUse { loads: 1, ..edits }, idle]), ["compute_90"]);
    }

    proptest! {
        #[test]
        fn damaged_text_never_panics(cut in 0usize..2000, junk in "[{}()\\[\\]\"/*;. a-z]{0,6}") {
            let at = cut.min(PTX.len());
            let _ = Module::parse(&format!("{}{junk}{}", &PTX[..at], &PTX[at..]));
            let _ = Module::parse(&PTX[..at]);
        }
    }
}
