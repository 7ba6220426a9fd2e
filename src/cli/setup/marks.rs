//! Adds the lines of kport setup to a file, and finds them again by a mark. Every other byte of the file stays.

/// The end of a line that kport has added.
pub const MARK: &str = "# kport setup";

/// The end of the first of them, if the line before it had no newline: a newline is added, and removed with kport's lines.
const MARK_AND_NEWLINE: &str = "# kport setup (and the newline before)";

/// The end of the first of them, if there was no file: it is removed with kport's lines.
const MARK_AND_FILE: &str = "# kport setup (and the file)";

/// Marks the lines of a new file.
pub fn with_file(mut text: Vec<u8>) -> Vec<u8> {
    if let Some(end) = text.iter().position(|byte| *byte == b'\n')
        && text[..end].ends_with(MARK.as_bytes())
    {
        text.splice(end - MARK.len()..end, MARK_AND_FILE.bytes());
    }
    text
}

/// Whether kport has created the file.
pub fn has_file(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| line.ends_with(MARK_AND_FILE.as_bytes()))
}

/// Adds lines to a file.
pub fn add<'a>(text: &mut Vec<u8>, lines: impl IntoIterator<Item = &'a str>) {
    let mut mark = MARK;
    for line in lines {
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
            mark = MARK_AND_NEWLINE;
        }
        text.extend(format!("{line} {mark}\n").bytes());
        mark = MARK;
    }
}

/// The file without kport's lines: those with the mark that are `ours` without it.
pub fn removed(text: &[u8], ours: impl Fn(&str) -> bool) -> Vec<u8> {
    let mut left = vec![];
    let mut joined = None;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let words = std::str::from_utf8(line).unwrap_or_default().trim_end();
        let of = |mark: &str| words.strip_suffix(mark).is_some_and(|line| ours(line.trim_end()));
        if of(MARK_AND_NEWLINE) {
            joined = Some(left.len());
        } else if !of(MARK) && !of(MARK_AND_FILE) {
            left.extend(line);
        }
    }
    // lines that were added since start on a new line
    if joined == Some(left.len()) && left.ends_with(b"\n") {
        left.pop();
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_removed() {
        for text in [&b""[..], b"a\n", b"a", b"\n", b"caf\xe9 # \xff\r\n", b"\r\n\xe9"] {
            let mut made = text.to_owned();
            add(&mut made, ["x", "y"]);
            assert!(made.ends_with(b"\ny # kport setup\n") && made.starts_with(text), "{made:?}");
            assert_eq!(removed(&made, |line| line == "x" || line == "y"), text);
            made.extend(b"more");
            let ends = if text.is_empty() || text.ends_with(b"\n") { &b""[..] } else { b"\n" };
            assert_eq!(removed(&made, |line| line == "x" || line == "y"), [text, ends, b"more"].concat());
        }
        let mut made = vec![];
        add(&mut made, ["x", "y"]);
        assert!(!has_file(&made));
        let made = with_file(made);
        assert_eq!(made, b"x # kport setup (and the file)\ny # kport setup\n");
        assert!(has_file(&made) && removed(&made, |line| line == "x" || line == "y").is_empty());
        assert_eq!(with_file(b"".to_vec()), b"");
        assert_eq!(removed(b"z # kport setup\nx\n", |line| line == "x"), b"z # kport setup\nx\n");
    }
}
