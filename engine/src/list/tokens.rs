//! Splits lines into words and comments, for all formats.

/// The line without its comment. `#`, `;` or `//` starts one, at the start or after white space.
pub fn without_comment(line: &[u8]) -> &[u8] {
    // Nearly all lines end here: memchr compares many bytes at a time.
    if memchr::memchr3(b'#', b';', b'/', line).is_none() {
        return line;
    }
    let is_mark = |at: usize| b"#;".contains(&line[at]) || line[at..].starts_with(b"//");
    let starts = |at: usize| is_mark(at) && (at == 0 || line[at - 1].is_ascii_whitespace());
    match (0..line.len()).find(|&at| starts(at)) {
        Some(at) => &line[..at],
        None => line,
    }
}

/// The first word, empty if there is none, and the rest.
pub fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let text = text.trim_ascii_start();
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    text.split_at(end)
}

/// The parts before and after the first `separator`.
pub fn split_once(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&byte| byte == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

/// Whether a word looks like the name of a configuration option or section.
pub fn is_option(word: &[u8]) -> bool {
    word.first().is_some_and(u8::is_ascii_lowercase)
        && word.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
}

/// The name relative to `parent`, in any case. Empty if it is `parent` itself, `None` if it is not
/// below it.
pub fn strip_parent<'a>(text: &'a [u8], parent: &[u8]) -> Option<&'a [u8]> {
    let (own, end) = text.split_at(text.len().checked_sub(parent.len())?);
    if !end.eq_ignore_ascii_case(parent) {
        return None;
    }
    if own.is_empty() || parent.is_empty() { Some(own) } else { own.strip_suffix(b".") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_starts_at_a_word() {
        assert_eq!(without_comment(b"a.example # b"), b"a.example ");
        assert_eq!(without_comment(b"a.example#b"), b"a.example#b");
        assert_eq!(without_comment(b"#"), b"");
        assert_eq!(without_comment(b"a.example ; b"), b"a.example ");
        assert_eq!(without_comment(b"a.example\t// b"), b"a.example\t");
        assert_eq!(without_comment(b"https://a.example/b;c"), b"https://a.example/b;c");
    }

    #[test]
    fn a_parent_is_stripped_at_a_dot() {
        assert_eq!(strip_parent(b"a.b.RPZ.example", b"rpz.example"), Some(&b"a.b"[..]));
        assert_eq!(strip_parent(b"rpz.example", b"rpz.example"), Some(&b""[..]));
        assert_eq!(strip_parent(b"xrpz.example", b"rpz.example"), None);
        assert_eq!(strip_parent(b"example", b"rpz.example"), None);
        assert_eq!(strip_parent(b"a.b", b""), Some(&b"a.b"[..]));
    }
}
