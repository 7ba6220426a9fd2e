//! What is the helper's alone: its arguments, and how it shows what the library says.
//!
//! A command is a variant of [`args::Command`] with its arguments, and a function of the module of its group: `change`
//! (publish, unpublish, restore, gc), `inspect` (parse, rules, list, help,
//! completions), `metrics`, `diagnose` (doctor), `trace`, `setup`, `import`, `container` (cni, oci-hook). All
//! of them find the firewall by `session`, print by `output`, and lay out what they print by `show`.

pub mod args;
pub mod change;
pub mod container;
pub mod diagnose;
pub mod help;
pub mod hook;
pub mod import;
pub mod inspect;
pub mod metrics;
pub mod output;
pub mod request;
pub mod session;
pub mod setup;
pub mod show;
pub mod trace;
pub mod traffic;
pub mod watch;
