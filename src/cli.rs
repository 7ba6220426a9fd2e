//! What is the helper's alone: its arguments, and how it shows what the library says.

pub mod args;
pub mod cni;
pub mod hook;
pub mod show;
pub mod trace;

use std::ffi::OsString;
use std::path::Path;

/// The command line with what the name of the program says in front: a container runtime gives its plugins no arguments.
pub fn command_line(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut line: Vec<OsString> = arguments.into_iter().collect();
    let name = line.first().and_then(|program| Path::new(program).file_name()?.to_str());
    if name.is_some_and(|name| cni::NAMES.contains(&name)) {
        line.insert(1, "cni".into());
    }
    line
}
