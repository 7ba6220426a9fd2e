//! kport(8). All of it is in the library, which alone sees its own modules.

use std::process::ExitCode;

fn main() -> ExitCode {
    kport::cli()
}
