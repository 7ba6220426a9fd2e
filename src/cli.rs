//! What is the helper's alone: its arguments, and how it shows what the library says.

pub mod args;
pub mod hook;
pub mod show;
pub mod trace;
