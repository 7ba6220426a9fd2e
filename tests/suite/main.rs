//! The tests, one program: `cargo test --test suite NAME` runs those whose path has NAME in it, such as `publish::`.

mod abi;
mod attack;
mod c;
mod cli;
mod cni;
mod doctor;
mod faces;
mod grammar;
mod header;
mod import;
mod install;
mod layers;
mod man;
mod managers;
mod native;
mod packaging;
mod packets;
mod pfctl;
mod publish;
mod reach;
mod rules;
mod sequences;
mod setup;
mod support;
mod trace;
mod transaction;
