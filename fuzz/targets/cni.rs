//! Any bytes as what a container runtime says on standard input: read or refused, field by field. The readers are the helper's, not
//! the library's; they are built in here from where they are, without the command line.

#![no_main]
#![allow(dead_code)]

use std::collections::BTreeSet;

use kport::spec;
use libfuzzer_sys::fuzz_target;

#[path = "../../src/cli"]
mod cli {
    pub mod args {
        /// What of the command line a configuration may say otherwise.
        #[derive(Clone)]
        pub struct Global {
            pub backend: Option<kport::session::Backend>,
            pub state_dir: Option<std::path::PathBuf>,
            pub timeout: std::time::Duration,
        }
    }
    pub mod cni {
        pub mod code;
        pub mod environment;
        pub mod fields;
        pub mod mapping;
        pub mod network;
        pub mod previous;
    }
}

use cli::cni::network::{Network, Version};
use cli::cni::{mapping, previous};

fuzz_target!(|bytes: &[u8]| {
    let Ok(network) = Network::read(bytes) else { return };
    _ = network.overrides();
    _ = network.valid_attachments();
    if let Some(result) = network.previous() {
        _ = previous::addresses(result, "eth0");
        for version in Version::ALL {
            _ = previous::as_version(result, version).to_string();
        }
    }
    let Ok(publishing) = network.publishing() else { return };
    let Ok(mappings) = network.mappings(publishing.place) else { return };
    let mappings: BTreeSet<_> = mappings.into_iter().collect();
    if let Ok(Some(made)) = mapping::spec(&mappings) {
        assert_eq!(spec::parse(&made.to_string()).expect("what is written out can be read"), made);
    }
});
