//! Adds the lines of kport setup to a file, and finds them again by a mark. Every other byte of the file stays.

/// The end of a line that kport has added.
pub const MARK: &str = "# kport setup";

/// The end of the first of them, if the line before it had no newline: a newline is added, and removed with kport's lines.
const MARK_AND_NEWLINE: &str = "# kport setup (and the newline before)";

/// The end of the first of them, if there was no file: it is removed with kport's lines.
const MARK_AND_FILE: &str = "# kport setup (and the file)";

const MARKS: [&str; 3] = [MARK, MARK_AND_NEWLINE, MARK_AND_FILE];

/// The end of a line that called kport's anchors by wildcard.
const TURNED: &str = "# kport setup (was \"kport/*\")";

/// The file without these bytes, each `/*` of a call by wildcard, and with a mark at the end of their lines.
pub fn turned(text: &[u8], wildcards: &[std::ops::Range<usize>]) -> Vec<u8> {
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
        match call.and_then(|call| Some((call, crate::readiness::end_of_path(call)?))) {
            Some((call, at)) => made.extend([&call[..at], b"/*", &call[at..], &line[words.len()..]].concat()),
            None => made.extend(line),
        }
    }
    made
}

/// The lines of a new file, with a mark that it is one.
pub fn with_file(text: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(text).replacen(MARK, MARK_AND_FILE, 1).into_bytes()
}

pub fn has_file(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| line.ends_with(MARK_AND_FILE.as_bytes()))
}

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
