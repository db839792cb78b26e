//! The translation of a preprocessed source: asm statements, kernels and shared variables are replaced, all else stays as it is.

use super::asm;
use super::declarations::{self, Replacement};
use super::tokens::{Kind, Source};

/// What is wrong in a source, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) place: String,
    pub(super) reason: String,
}

/// A source as plain C++, with its lines' numbers, and the kernels that it defines.
#[derive(Debug)]
pub(super) struct Rewritten {
    pub(super) code: String,
    pub(super) kernels: Vec<String>,
}

/// Translates a source.
pub(super) fn rewrite(text: &str) -> Result<Rewritten, Wrong> {
    let source = Source::new(text);
    let mut changes: Vec<Replacement> = Vec::new();
    let (mut at, mut slots, mut kernels) = (0, 0, Vec::new());
    while at < source.tokens.len() {
        if source.kind(at) != Some(Kind::Word) {
            at += 1;
            continue;
        }
        let wrong = |reason: String| Wrong { place: source.place(at), reason };
        match source.text(at) {
            // The system's headers and the simulator's own, whose asm is the host's, write `__asm__`.
            "asm" => {
                let (by, end) = asm::statement(&source, at).map_err(wrong)?;
                changes.push(Replacement { first: at, end, by });
                at = end;
            }
            "__global__" => {
                let (name, replacements) = declarations::kernel(&source, at).map_err(wrong)?;
                kernels.extend(name.map(str::to_owned));
                changes.extend(replacements);
                at += 1;
            }
            word @ ("extern" | "__shared__")
                if word == "__shared__" || source.text(at + 1) == "__shared__" =>
            {
                let change = declarations::shared(&source, at, slots).map_err(wrong)?;
                slots += 1;
                at = change.end;
                changes.push(change);
            }
            _ => at += 1,
        }
    }
    Ok(Rewritten { code: apply(&source, changes), kernels })
}

fn apply(source: &Source, mut changes: Vec<Replacement>) -> String {
    changes.sort_by_key(|change| change.first);
    let (mut out, mut at) = (String::with_capacity(source.text.len() * 2), 0);
    for change in changes {
        let begin = source.tokens[change.first].at.start;
        let end = source.tokens[change.end - 1].at.end;
        out.push_str(&source.text[at..begin]);
        out.push_str(&change.by);
        // What follows stays on its line. Line markers within, of arguments that span several lines, are dropped: the next one
        // behind comes with its own number.
        let lines = source.text[begin..end].matches('\n').count();
        out.extend(std::iter::repeat_n('\n', lines));
        at = end;
    }
    out.push_str(&source.text[at..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        rewrite(text).expect("it can be translated").code
    }

    #[test]
    fn a_kernel_becomes_a_function_with_an_entry() {
        let text = "extern \"C\" __global__ void __launch_bounds__(256, 2) f(const __grid_constant__ P p, int* x)\n{ a[0] = {1}; }\n";
        assert_eq!(
            code(text),
            "extern \"C\"  void  f(const  P &p, int* x)\n{ a[0] = {1}; } \
             static const ::ksim::Registration ksim_entry_f(::ksim::Kernel<&f>::entry(\"f\", 256, 2, 0));\n"
        );
    }

    #[test]
    fn shared_variables_become_references() {
        let text = "__shared__ __align__(16) Team<2, 3>::Slots slots[kN][2], more; extern __shared__ __attribute__((aligned(128))) uint8_t all[];";
        assert_eq!(
            code(text),
            "struct ksim_slot_0 { __align__(16) Team<2, 3>::Slots slots[kN][2], more; }; auto& slots = ::ksim::slot<ksim_slot_0>().slots; auto& more = ::ksim::slot<ksim_slot_0>().more; \
             struct ksim_slot_1 { __attribute__((aligned(128))) uint8_t all[1]; }; \
             auto* const all = ::ksim::dynamic<std::remove_extent_t<decltype(ksim_slot_1::all)>, alignof(ksim_slot_1)>();"
        );
    }

    #[test]
    fn an_error_names_the_place() {
        let text = "# 7 \"k.cu\"\nvoid f()\n{ asm(\"wgmma.fence;\" : : ); }\n";
        let wrong = rewrite(text).unwrap_err();
        assert_eq!(wrong.place, "k.cu:8");
        assert!(wrong.reason.contains("wgmma.fence"), "{}", wrong.reason);
    }
}
