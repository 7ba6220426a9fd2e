//! Build script: the name that the shared library carries.
fn main() {}
