//! Just enough of Rust's syntax to find names: no comments, no literals, tokens.

/// The text with comments and literals blanked out; everything else stays where it was.
pub(super) fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let length = comment(&bytes[at..])
            .or_else(|| raw_string(bytes, at))
            .or_else(|| string(&bytes[at..]))
            .or_else(|| character(&text[at..]));
        match length {
            Some(length) => {
                out.extend(bytes[at..at + length].iter().map(|b| if *b == b'\n' { b'\n' } else { b' ' }));
                at += length;
            }
            None => {
                let next = (at + 1..).find(|i| text.is_char_boundary(*i)).unwrap();
                out.extend(&bytes[at..next]);
                at = next;
            }
        }
    }
    String::from_utf8(out).unwrap()
}

/// Words (names, keywords, numbers) and `::`; every other character by itself.
pub(super) fn tokens(code: &str) -> Vec<&str> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if word(first) {
            rest.find(|c| !word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

fn comment(rest: &[u8]) -> Option<usize> {
    if rest.starts_with(b"//") {
        return Some(rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with(b"/*") {
        return None;
    }
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    Some(at)
}

/// `r"…"`, `r#"…"#` and so on; the letters before the `r` of `br` and `cr` are left as they are.
fn raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes[at..].strip_prefix(b"r")?;
    let before = at.checked_sub(1).map_or(b' ', |i| bytes[i]);
    let hashes = rest.iter().take_while(|b| **b == b'#').count();
    if rest.get(hashes) != Some(&b'"')
        || (before.is_ascii_alphanumeric() && !matches!(before, b'b' | b'c'))
        || before == b'_'
    {
        return None;
    }
    let mut end = vec![b'"'];
    end.resize(hashes + 1, b'#');
    let content = &rest[hashes + 1..];
    let length = content.windows(end.len()).position(|w| w == end).unwrap_or(content.len());
    Some((1 + hashes + 1 + length + end.len()).min(bytes.len() - at))
}

fn string(rest: &[u8]) -> Option<usize> {
    let content = rest.strip_prefix(b"\"")?;
    let mut at = 0;
    while at < content.len() && content[at] != b'"' {
        at += if content[at] == b'\\' { 2 } else { 1 };
    }
    Some((at + 2).min(rest.len()))
}

/// `'x'` and `'\n'`, not the `'a` of a lifetime.
fn character(rest: &str) -> Option<usize> {
    let content = rest.strip_prefix('\'')?;
    let mut chars = content.char_indices();
    let (_, first) = chars.next()?;
    if first == '\\' {
        // The character behind the backslash may be a quote itself.
        chars.next()?;
        return chars.find(|(_, c)| *c == '\'').map(|(i, _)| i + 2);
    }
    chars.next().filter(|(_, c)| *c == '\'').map(|(i, _)| i + 2)
}

#[cfg(test)]
mod tests {
    use super::{code, tokens};

    #[test]
    fn comments_and_literals_are_blank_and_the_rest_stays() {
        // Where it is blank, `expected` has one `_` for each byte.
        for (text, expected) in [
            ("a // unsafe\nb", "a _________\nb"),
            ("a /* x /* y */ z */ b", "a _________________ b"),
            ("f(\"a \\\" unsafe\", b)", "f(_____________, b)"),
            ("r#\"a \" b\"# c", "__________ c"),
            ("br\"x\" c", "b____ c"),
            ("var\"x\"", "var___"),
            ("r#type c", "r#type c"),
            ("&'a str, '\\'', 'é', '\"' x", "&'a str, ____, ____, ___ x"),
            ("'x: loop {}", "'x: loop {}"),
        ] {
            assert_eq!(code(text), expected.replace('_', " "), "{text}");
        }
        assert_eq!(code("\"a\nb\"").matches('\n').count(), 1, "lines stay lines");
    }

    #[test]
    fn words_and_paths_become_tokens() {
        let expected = ["use", "crate", "::", "a_1", "::", "{", "b", ",", "c", "}", ";"];
        assert_eq!(tokens("use crate::a_1::{b,  c};\n"), expected);
        assert_eq!(tokens(" a : b "), ["a", ":", "b"]);
        assert_eq!(tokens(""), [""; 0]);
    }
}
