//! Adds the lines of kport setup to a file, and finds them again by a mark. Every other byte of the file stays.

use std::ops::Range;

use crate::readiness::end_of_path;

/// The end of a line that kport has added.
pub const MARK: &str = "# kport setup";

/// The end of the first of them, if the line before it had no newline: a newline is added, and removed with kport's lines.
const MARK_AND_NEWLINE: &str = "# kport setup (and the newline before)";

/// The end of the first of them, if there was no file: it is removed with kport's lines.
const MARK_AND_FILE: &str = "# kport setup (and the file)";

/// The ends of added lines.
const MARKS: [&str; 3] = [MARK, MARK_AND_NEWLINE, MARK_AND_FILE];

/// The end of a line that called kport's anchors by wildcard.
const TURNED: &str = "# kport setup (was \"kport/*\")";

/// The file without these bytes, each `/*` of a call by wildcard, and with a mark at the end of their lines.
pub fn turned(text: &[u8], wildcards: &[Range<usize>]) -> Vec<u8> {
    let mut made = vec![];
    let mut start = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let end = start + line.len();
        match wildcards.iter().find(|at| (start..end).contains(&at.start)) {
            None => made.extend(line),
            Some(at) => {
                let words = line.trim_ascii_end();
                made.extend(&text[start..at.start]);
                made.extend(&text[at.end..start + words.len()]);
                // what kport has added goes with the mark that it has
                if !MARKS.iter().any(|mark| words.ends_with(mark.as_bytes())) {
                    made.extend(format!(" {TURNED}").bytes());
                }
                made.extend(&line[words.len()..]);
            }
        }
        start = end;
    }
    made
}

/// The file with the wildcards of lines that [`turned`] has marked.
pub fn turned_back(text: &[u8]) -> Vec<u8> {
    let mut made = vec![];
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let words = line.trim_ascii_end();
        let call = words.strip_suffix(TURNED.as_bytes()).and_then(|call| call.strip_suffix(b" "));
        match call.and_then(|call| Some((call, end_of_path(call)?))) {
            Some((call, at)) => made.extend([&call[..at], b"/*", &call[at..], &line[words.len()..]].concat()),
            None => made.extend(line),
        }
    }
    made
}

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
    use std::slice;

    use super::*;

    #[test]
    fn a_call_by_wildcard_is_turned_and_turned_back() {
        for (text, made) in [
            ("anchor \"kport/*\"", "anchor \"kport\" # kport setup (was \"kport/*\")"),
            ("x\n\tanchor kport/* # mine\r\ny", "x\n\tanchor kport # mine # kport setup (was \"kport/*\")\r\ny"),
            ("anchor '/kport/*' on { em0 }  \n", "anchor '/kport' on { em0 } # kport setup (was \"kport/*\")  \n"),
        ] {
            let at = text.find("/*").unwrap();
            assert_eq!(String::from_utf8(turned(text.as_bytes(), slice::from_ref(&(at..at + 2)))).unwrap(), made);
            assert_eq!(String::from_utf8(turned_back(made.as_bytes())).unwrap(), text);
        }
        // a line that kport has added is removed as a whole
        let own = b"anchor \"kport/*\" # kport setup\n";
        assert_eq!(turned(own, slice::from_ref(&(13..15))), b"anchor \"kport\" # kport setup\n");
        for edited in ["# kport setup (was \"kport/*\")\n", "block all # kport setup (was \"kport/*\")\n"] {
            assert_eq!(turned_back(edited.as_bytes()), edited.as_bytes());
        }
    }

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
