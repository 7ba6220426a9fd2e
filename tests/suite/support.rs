//! What several tests share.
#![allow(dead_code)]

pub mod around;
pub mod cc;
pub mod fake_kernel;
pub mod input;
pub mod offsets;
pub mod pfctl;
pub mod rig;
pub mod schema;
pub mod standin;
pub mod world;
