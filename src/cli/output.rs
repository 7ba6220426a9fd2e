//! The output of the helper: results go to standard output, everything else to standard error. Control characters are escaped:
//! names of jails and of files may come from others.

use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use crate::error::{Error, Result, printable};
use crate::publisher::{Observer, Outcome, Phase};
use crate::session::Session;
use clap::error::ContextValue;

/// A line on standard error, written by one call.
pub fn complain(what: &dyn Display) {
    _ = io::stderr().write_all(format!("kport: {}\n", lines(&what.to_string())).as_bytes());
}

/// Prints the notes of a change, and a notice if no packet is redirected.
pub fn outcome(session: &Session, outcome: &Outcome, quiet: bool) {
    if outcome.changed {
        session.notice().iter().for_each(|notice| complain(notice));
    }
    outcome.notes.iter().filter(|_| !quiet).for_each(|note| complain(note));
}

/// Prints clap's help and version on standard output, and its errors on standard error. Returns the text.
pub fn usage(mut error: clap::Error) -> String {
    // it has words of the command line: a newline in one of them must not look like one of clap's
    let shown: Vec<_> = error
        .context()
        .filter_map(|(kind, value)| match value {
            ContextValue::String(text) => Some((kind, ContextValue::String(printable(text).into_owned()))),
            ContextValue::Strings(texts) => {
                let texts = texts.iter().map(|text| printable(text).into_owned());
                Some((kind, ContextValue::Strings(texts.collect())))
            }
            _ => None,
        })
        .collect();
    for (kind, value) in shown {
        error.insert(kind, value);
    }
    let text = lines(&error.render().to_string());
    // there is no other place to report a failure
    _ = match error.use_stderr() {
        true => io::stderr().write_all(text.as_bytes()),
        false => io::stdout().write_all(text.as_bytes()),
    };
    text
}

/// A JSON document. Characters that do not print have JSON's escapes, so a reader gets the same value.
pub fn document(value: &serde_json::Value) -> String {
    let mut text = String::new();
    for c in format!("{value:#}").chars() {
        if matches!(c, ' '..='~' | '\n') || printable(c.encode_utf8(&mut [0; 4])) == c.to_string() {
            text.push(c);
        } else {
            // outside of its strings, a document has no such character
            for unit in c.encode_utf16(&mut [0; 2]) {
                _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text.push('\n');
    text
}

/// Lines of text, each of characters that print.
fn lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// Quotes a word for the shell.
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.,:/@%+=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Lines of text on standard output.
pub fn print(text: &str) -> Result<()> {
    raw(lines(text).as_bytes()).map(|_| ())
}

/// Prints a table: on a terminal it replaces the last one, else it follows it. Returns false if the reader is gone.
pub fn redraw(text: &str) -> Result<bool> {
    // home, and clear
    let before = if io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    raw(format!("{before}{}", lines(text)).as_bytes())
}

/// Writes standard output unchanged: only for kport's own text. Returns false if the reader is gone.
pub fn raw(bytes: &[u8]) -> Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // the reader has closed the pipe
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Error::io("write to standard output", &e)),
        Ok(()) => Ok(true),
    }
}

/// `-v`: the phases of a transaction on standard error, each with the time since the start.
pub struct Shown {
    verbose: u8,
    start: Instant,
}

impl Shown {
    pub fn new(verbose: u8) -> Shown {
        Shown { verbose, start: Instant::now() }
    }

    pub fn line(&self, text: &str) {
        complain(&format_args!("{:8.3} ms  {text}", self.start.elapsed().as_secs_f64() * 1e3));
    }
}

impl Observer for Shown {
    fn phase(&self, phase: Phase) -> Result<()> {
        if self.verbose > 0 {
            self.line(phase.name());
        }
        Ok(())
    }

    fn waiting(&self, why: &str) {
        if self.verbose > 0 {
            self.line(&format!("waiting: {why}"));
        }
    }

    fn detail(&self, text: &str) {
        if self.verbose > 1 {
            self.line(text);
        }
    }
}
