//! Where the helper writes: results to standard output, everything else to standard error.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Instant;

use kport::error::{Error, Result};
use kport::publisher::{Observer, Phase};

/// A line on standard error.
pub fn complain(what: &dyn Display) {
    // what cannot be printed has nobody to read it
    _ = writeln!(io::stderr(), "kport: {what}");
}

/// A JSON document.
pub fn document(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

/// Text on standard output.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // whoever read it has seen enough
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(Error::io("write to standard output", &e)),
        Ok(()) => Ok(()),
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

    fn detail(&self, text: &str) {
        if self.verbose > 1 {
            self.line(text);
        }
    }
}
