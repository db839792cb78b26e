//! asm statements: their text, operands and the C++ that stands for them.

use super::ptx;
use super::tokens::{Kind, Source};

/// An operand: its constraint and the expression.
#[derive(Debug)]
struct Operand<'a> {
    constraint: String,
    expression: &'a str,
}

impl Operand<'_> {
    fn is_out(&self) -> bool {
        self.constraint.starts_with(['=', '+'])
    }

    /// The type of the register that the constraint's letter names.
    fn register(&self) -> Result<&'static str, String> {
        Ok(match self.constraint.trim_start_matches(['=', '+', '&']) {
            "h" => "uint16_t",
            "r" => "uint32_t",
            "l" => "uint64_t",
            "f" => "float",
            "d" => "double",
            "n" => "constant",
            other => return Err(format!("no register is known for the constraint \"{other}\"")),
        })
    }
}

/// The statement at `keyword` as C++, and the token behind its closing parenthesis.
pub(super) fn statement(source: &Source, keyword: usize) -> Result<(String, usize), String> {
    let mut open = keyword + 1;
    while matches!(source.text(open), "volatile" | "__volatile__") {
        open += 1;
    }
    if source.text(open) != "(" {
        return Err("an asm without an operand list in parentheses".to_owned());
    }
    let close = source.closing(open).ok_or("an asm without an end")?;
    let parts = sections(source, open + 1, close);
    let text = string_of(source, parts[0].clone())?;
    let mut operands = Vec::new();
    for part in parts.iter().skip(1).take(2) {
        if part.is_empty() {
            continue;
        }
        for one in source.split(part.start, part.end, ",") {
            operands.push(operand(source, one)?);
        }
    }
    Ok((emit(&text, &operands)?, close + 1))
}

/// The ranges that colons outside of brackets separate; `::` is two of them here, but part of a name in an expression, which is
/// always in parentheses.
fn sections(source: &Source, first: usize, end: usize) -> Vec<std::ops::Range<usize>> {
    source.split(first, end, ":")
}

fn string_of(source: &Source, tokens: std::ops::Range<usize>) -> Result<String, String> {
    let mut whole = String::new();
    for index in tokens {
        if source.kind(index) != Some(Kind::Text) {
            return Err(format!("`{}` in the text of an asm", source.text(index)));
        }
        let inner = source.text(index).trim_start_matches('"').trim_end_matches('"');
        let mut characters = inner.chars();
        while let Some(character) = characters.next() {
            whole.push(match character {
                '\\' => match characters.next() {
                    Some('n' | 't') => ' ',
                    other => return Err(format!("the escape {other:?} in the text of an asm")),
                },
                other => other,
            });
        }
    }
    Ok(whole)
}

fn operand<'a>(source: &Source<'a>, tokens: std::ops::Range<usize>) -> Result<Operand<'a>, String> {
    let open = tokens.start + 1;
    if source.kind(tokens.start) != Some(Kind::Text) || source.text(open) != "(" {
        let text = source.between(tokens.start, tokens.end);
        return Err(format!("`{text}` is no operand of an asm"));
    }
    let close = source.closing(open).ok_or("an operand without an end")?;
    Ok(Operand {
        constraint: source.text(tokens.start).trim_matches('"').to_owned(),
        expression: source.between(open + 1, close),
    })
}

fn emit(text: &str, operands: &[Operand]) -> Result<String, String> {
    let instructions = ptx::instructions(text)?;
    if instructions.is_empty() {
        // A fence for the compiler: it may not move or forget what the operands name, and none is moved here.
        return Ok("((void)0)".to_owned());
    }
    let mut code = String::from("do { ");
    for (i, operand) in operands.iter().enumerate() {
        let (register, expression) = (operand.register()?, operand.expression);
        code += &if !operand.is_out() {
            match register {
                "constant" => format!("constexpr auto ksim_{i} = ({expression}); "),
                _ => format!("{register} ksim_{i} = ::ksim::ptx::in<{register}>({expression}); "),
            }
        } else if operand.constraint.starts_with('+') {
            format!(
                "auto& ksim_to_{i} = ({expression}); {register} ksim_{i} = ::ksim::ptx::in<{register}>(ksim_to_{i}); "
            )
        } else {
            format!("auto& ksim_to_{i} = ({expression}); {register} ksim_{i}{{}}; ")
        };
    }
    for instruction in &instructions {
        code += &ptx::emit(instruction, operands.len())?;
    }
    for (i, operand) in operands.iter().enumerate() {
        if operand.is_out() {
            code += &format!("::ksim::ptx::out(ksim_to_{i}, ksim_{i}); ");
        }
        code += &format!("(void)ksim_{i}; ");
    }
    code += "} while (0)";
    Ok(code.replace('\n', " "))
}
