//! The helper for shell hooks.
fn main() {}
