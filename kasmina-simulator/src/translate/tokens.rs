//! A preprocessed source as tokens: as much of C++'s lexing as the translation needs, with every byte of the text kept.

use std::ops::Range;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name or a keyword.
    Word,
    /// A number, with its digit separators and suffix.
    Number,
    /// A string in double quotes, prefix included.
    Text,
    /// A character in single quotes.
    Character,
    /// One character of punctuation.
    Mark,
}

/// A token and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: Range<usize>,
}

/// All tokens but line markers and white space.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let (mut at, mut line_start) = (0, true);
    while let Some(&byte) = bytes.get(at) {
        let begin = at;
        let kind = match byte {
            b'\n' => {
                line_start = true;
                at += 1;
                continue;
            }
            b' ' | b'\t' | b'\r' | 0x0b | 0x0c => {
                at += 1;
                continue;
            }
            b'#' if line_start => {
                while bytes.get(at).is_some_and(|&byte| byte != b'\n') {
                    at += 1;
                }
                continue;
            }
            b'"' => {
                at = after_quoted(bytes, at, b'"');
                Kind::Text
            }
            b'\'' => {
                at = after_quoted(bytes, at, b'\'');
                Kind::Character
            }
            b'0'..=b'9' => {
                at = after_number(bytes, at);
                Kind::Number
            }
            _ if is_word(byte) => {
                while bytes.get(at).is_some_and(|&byte| is_word(byte)) {
                    at += 1;
                }
                if bytes.get(at) == Some(&b'"') {
                    at = after_string(bytes, begin, at);
                    Kind::Text
                } else {
                    Kind::Word
                }
            }
            _ => {
                at += 1;
                Kind::Mark
            }
        };
        line_start = false;
        found.push(Token { kind, at: begin..at });
    }
    found
}

fn is_word(byte: u8) -> bool {
    byte == b'_' || byte == b'$' || byte.is_ascii_alphanumeric() || byte >= 0x80
}

fn after_quoted(bytes: &[u8], open: usize, quote: u8) -> usize {
    let mut at = open + 1;
    while let Some(&byte) = bytes.get(at) {
        at += if byte == b'\\' { 2 } else { 1 };
        if byte == quote {
            break;
        }
    }
    at.min(bytes.len())
}

/// A string with a prefix that begins at `prefix`: R"…(…)…" reaches to its own end.
fn after_string(bytes: &[u8], prefix: usize, open: usize) -> usize {
    if bytes.get(open - 1) != Some(&b'R') || open - prefix > 3 {
        return after_quoted(bytes, open, b'"');
    }
    let Some(length) = bytes[open + 1..].iter().position(|&byte| byte == b'(') else {
        return bytes.len();
    };
    let mut end = vec![b')'];
    end.extend_from_slice(&bytes[open + 1..open + 1 + length]);
    end.push(b'"');
    let inside = open + 1 + length;
    bytes[inside..]
        .windows(end.len())
        .position(|window| window == end)
        .map_or(bytes.len(), |position| inside + position + end.len())
}

fn after_number(bytes: &[u8], begin: usize) -> usize {
    let mut at = begin + 1;
    while let Some(&byte) = bytes.get(at) {
        let exponent = matches!(bytes[at - 1], b'e' | b'E' | b'p' | b'P');
        let separator = byte == b'\'' && bytes.get(at + 1).is_some_and(u8::is_ascii_alphanumeric);
        if is_word(byte) || byte == b'.' || separator || (exponent && matches!(byte, b'+' | b'-')) {
            at += 1;
        } else {
            break;
        }
    }
    at
}

/// The tokens of a source, to be walked through.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    pub(super) tokens: Vec<Token>,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, tokens: tokens(text) }
    }

    /// The text of a token; empty past the end.
    pub(super) fn text(&self, index: usize) -> &'a str {
        self.tokens.get(index).map_or("", |token| &self.text[token.at.clone()])
    }

    pub(super) fn kind(&self, index: usize) -> Option<Kind> {
        self.tokens.get(index).map(|token| token.kind)
    }

    /// The text from one token up to, and without, another.
    pub(super) fn between(&self, first: usize, end: usize) -> &'a str {
        if first >= end {
            return "";
        }
        match (self.tokens.get(first), self.tokens.get(end - 1)) {
            (Some(first), Some(last)) => &self.text[first.at.start..last.at.end],
            _ => "",
        }
    }

    /// The token that closes the bracket at `open`.
    pub(super) fn closing(&self, open: usize) -> Option<usize> {
        let mut depth = 0usize;
        for index in open..self.tokens.len() {
            if self.kind(index) == Some(Kind::Mark) {
                match self.text(index) {
                    "(" | "[" | "{" => depth += 1,
                    ")" | "]" | "}" => {
                        depth = depth.checked_sub(1)?;
                        if depth == 0 {
                            return Some(index);
                        }
                    }
                    _ => {}
                }
            }
        }
        None
    }

    /// The ranges of tokens between `first` and `end` that a mark outside of all brackets separates.
    pub(super) fn split(&self, first: usize, end: usize, mark: &str) -> Vec<Range<usize>> {
        let (mut parts, mut begin, mut depth) = (Vec::new(), first, 0usize);
        for index in first..end {
            if self.kind(index) != Some(Kind::Mark) {
                continue;
            }
            match self.text(index) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                found if found == mark && depth == 0 => {
                    parts.push(begin..index);
                    begin = index + 1;
                }
                _ => {}
            }
        }
        parts.push(begin..end);
        parts
    }

    /// File and line of a token, by the preprocessor's line markers.
    pub(super) fn place(&self, index: usize) -> String {
        let end = self.tokens.get(index).map_or(self.text.len(), |token| token.at.start);
        let (mut file, mut line) = ("", 0u32);
        for text in self.text[..end].split_inclusive('\n') {
            let marker = text.strip_prefix("# ").and_then(|rest| rest.split_once(' '));
            if let Some((number, rest)) = marker
                && let Ok(number) = number.parse::<u32>()
            {
                line = number.saturating_sub(1);
                file = rest.trim_start_matches('"').split('"').next().unwrap_or("");
            } else if text.ends_with('\n') {
                line += 1;
            }
        }
        format!("{file}:{}", line + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_strings_and_markers_are_told_apart() {
        let text = "# 12 \"a.cu\" 2\nx = 2'000'000 + 'c' + R\"x(a \" )\" )x\" \"b\\\"\" 1e-5f;\n";
        let source = Source::new(text);
        let words: Vec<&str> = (0..source.tokens.len()).map(|index| source.text(index)).collect();
        let expected = [
            "x",
            "=",
            "2'000'000",
            "+",
            "'c'",
            "+",
            "R\"x(a \" )\" )x\"",
            "\"b\\\"\"",
            "1e-5f",
            ";",
        ];
        assert_eq!(words, expected);
        assert_eq!(source.place(2), "a.cu:12");
    }
}
