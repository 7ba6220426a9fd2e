//! A program that checks or reads something: its output, or its errors.

use std::io;
use std::path::Path;

use super::{End, run};
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result, Setting};

/// Runs a program, on a file if one is given. `None` if there is no such program; else its output or its errors.
pub(crate) fn output_of(
    program: &Path,
    arguments: &[&str],
    file: Option<&Path>,
    deadline: Deadline,
) -> Result<Option<std::result::Result<String, String>>> {
    let failed = |error: io::Error| Error::io(format_args!("run {}", program.display()), &error);
    // it runs in another directory
    let file = file.map(std::path::absolute).transpose().map_err(failed)?;
    let named = match file.as_ref().map(|file| file.to_str().ok_or(file)).transpose() {
        Ok(named) => named,
        Err(file) => return Err(Error::new(Kind::Argument, format!("{}: the name is not UTF-8", file.display()))),
    };
    let arguments: Vec<&str> = arguments.iter().copied().chain(named).collect();
    let program = std::path::absolute(program).map_err(failed)?;
    let output = match run(&program, &arguments, b"", None, None, deadline) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        output => output.map_err(failed)?,
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().take(3).collect();
    match output.end {
        End::Exit(0) => Ok(Some(Ok(String::from_utf8_lossy(&output.stdout).into_owned()))),
        End::Exit(_) => Ok(Some(Err(lines.join("; ")))),
        End::TimedOut => {
            Err(Error::new(Kind::Busy, format!("{} was not done in time, and was killed", program.display()))
                .remedy("give more time with", Setting::Timeout))
        }
        End::Signal(_) | End::Unknown | End::TooMuch => Err(Error::new(
            Kind::System,
            format!("{} ended with {:?}: {}", program.display(), output.end, lines.join("; ")),
        )),
    }
}
