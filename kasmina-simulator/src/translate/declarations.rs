//! `__global__` functions and `__shared__` variables.

use super::tokens::{Kind, Source};

/// A piece of the text that something else takes the place of: tokens `first` up to, and without, `end`.
#[derive(Debug)]
pub(super) struct Replacement {
    pub(super) first: usize,
    pub(super) end: usize,
    pub(super) by: String,
}

/// Takes away the words of a kernel's head that C++ does not have, and puts an entry of the image's table behind its body. Answers the
/// kernel's name where it has a body.
pub(super) fn kernel<'a>(
    source: &Source<'a>,
    keyword: usize,
) -> Result<(Option<&'a str>, Vec<Replacement>), String> {
    let mut changes = vec![remove(keyword, keyword + 1)];
    let (mut bounds, mut registers) = (["1024".to_owned(), "0".to_owned()], "0".to_owned());
    let mut at = keyword + 1;
    let (name, open) = loop {
        match source.text(at) {
            word @ ("__launch_bounds__" | "__maxnreg__") => {
                let close = source.closing(at + 1).ok_or("launch bounds without an end")?;
                let values = source.split(at + 2, close, ",");
                for (i, value) in values.iter().take(2).enumerate() {
                    let value = source.between(value.start, value.end).to_owned();
                    if word == "__maxnreg__" {
                        registers = value;
                    } else {
                        bounds[i] = value;
                    }
                }
                changes.push(remove(at, close + 1));
                at = close + 1;
            }
            "" | ";" | "{" => return Err("a __global__ function without a name".to_owned()),
            "(" if source.kind(at - 1) == Some(Kind::Word) => break (source.text(at - 1), at),
            _ => at += 1,
        }
    };
    let close = source.closing(open).ok_or("a parameter list without an end")?;
    for parameter in source.split(open + 1, close, ",") {
        if let Some(word) = parameter.clone().find(|&i| source.text(i) == "__grid_constant__") {
            changes.push(remove(word, word + 1));
            let name = parameter.end - 1;
            if source.kind(name) != Some(Kind::Word) {
                let text = source.between(parameter.start, parameter.end);
                return Err(format!("`{text}` is no parameter that the simulator knows"));
            }
            changes.push(Replacement {
                first: name,
                end: name + 1,
                by: format!("&{}", source.text(name)),
            });
        }
    }
    let defines = source.text(close + 1) == "{";
    if defines {
        let end = source.closing(close + 1).ok_or("a kernel without an end")?;
        let [threads, blocks] = bounds;
        changes.push(Replacement {
            first: end,
            end: end + 1,
            by: format!(
                "}} static const ::ksim::Registration ksim_entry_{name}(::ksim::Kernel<&{name}>::entry(\"{name}\", {threads}, {blocks}, {registers}));"
            ),
        });
    }
    Ok((defines.then_some(name), changes))
}

/// A shared variable, from `first` (its `extern`, or the word `__shared__`) to its semicolon, as a reference or a pointer into the
/// block's shared memory. `number` is the declaration's own.
pub(super) fn shared(source: &Source, first: usize, number: usize) -> Result<Replacement, String> {
    let dynamic = source.text(first) == "extern";
    let begin = if dynamic { first + 2 } else { first + 1 };
    let mut end = begin;
    while source.text(end) != ";" {
        end = match source.text(end) {
            "" => return Err("a shared variable without an end".to_owned()),
            "(" | "[" | "{" => source.closing(end).ok_or("a bracket without an end")? + 1,
            "=" => return Err("a shared variable with an initial value".to_owned()),
            _ => end + 1,
        };
    }
    let names = declared_names(source, begin, end)?;
    let declaration = source.between(begin, end);
    let slot = format!("ksim_slot_{number}");
    let by = if dynamic {
        let [name] = names[..] else {
            return Err("several dynamic shared variables in one declaration".to_owned());
        };
        let (element, name) = (source.between(begin, name + 1), source.text(name));
        format!(
            "struct {slot} {{ {element}[1]; }}; \
             auto* const {name} = ::ksim::dynamic<std::remove_extent_t<decltype({slot}::{name})>, alignof({slot})>();"
        )
    } else {
        let mut by = format!("struct {slot} {{ {declaration}; }};");
        for name in names.into_iter().map(|name| source.text(name)) {
            by += &format!(" auto& {name} = ::ksim::slot<{slot}>().{name};");
        }
        by
    };
    Ok(Replacement { first, end: end + 1, by: by.replace('\n', " ") })
}

/// The tokens of the names that are declared: of each declarator the last word outside of brackets.
fn declared_names(source: &Source, begin: usize, end: usize) -> Result<Vec<usize>, String> {
    let (mut names, mut name, mut at, mut depth) = (Vec::new(), None, begin, 0usize);
    while at < end {
        match source.text(at) {
            "(" | "{" | "[" => at = source.closing(at).ok_or("a bracket without an end")?,
            "<" => depth += 1,
            ">" => depth = depth.saturating_sub(1),
            "," if depth == 0 => names.push(name.take().ok_or("a shared variable without a name")?),
            _ if depth == 0 && source.kind(at) == Some(Kind::Word) => name = Some(at),
            _ => {}
        }
        at += 1;
    }
    names.push(name.ok_or("a shared variable without a name")?);
    Ok(names)
}

fn remove(first: usize, end: usize) -> Replacement {
    Replacement { first, end, by: String::new() }
}
