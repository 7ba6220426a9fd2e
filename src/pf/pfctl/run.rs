//! One run of pfctl(8), as `-v` prints it.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::child::{End, Output};

/// One run of the program, for `-v`. As text: the command, the time and the exit on the first line, then a line for
/// each line of input (`<`), output (`>`) and standard error (`!`).
pub struct Invocation<'a> {
    pub(super) program: &'a Path,
    pub(super) arguments: &'a [&'a str],
    pub(super) input: &'a str,
    pub(super) output: std::result::Result<&'a Output, &'a io::Error>,
    pub(super) took: Duration,
}

impl fmt::Display for Invocation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.display())?;
        for argument in self.arguments {
            write!(f, " {argument}")?;
        }
        write!(f, ": {:.1} ms, ", self.took.as_secs_f64() * 1e3)?;
        match self.output {
            Err(error) => write!(f, "not started: {error}")?,
            Ok(output) => match output.end {
                End::Exit(status) => write!(f, "exit status {status}")?,
                End::Signal(signal) => write!(f, "killed by signal {signal}")?,
                End::Unknown => f.write_str("exit status unknown")?,
                End::TimedOut => f.write_str("not finished in time, killed")?,
                End::TooMuch => f.write_str("too much output, killed")?,
            },
        }
        let (stdout, stderr) = self.output.map_or((&[][..], &[][..]), |output| (&output.stdout, &output.stderr));
        let texts = [(self.input.as_bytes(), '<'), (stdout, '>'), (stderr, '!')];
        for (text, mark) in texts {
            for line in String::from_utf8_lossy(text).lines() {
                // an anchor or a label may contain anything; a terminal must not interpret it
                write!(f, "\n  {mark} {}", line.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'"))?;
            }
        }
        Ok(())
    }
}
