//! The cost of a publish with the native backend, with a fake kernel that accepts everything: rules built, encoded and
//! passed in one transaction. For comparison, the cost of starting another program: one start is the minimum of a pfctl
//! backend, six is what Bastille needs for one rule.
//!
//! The goal was a publish a hundred times faster than one spawn (0.74 ms). One mapping is (3.4 us, 220 times); ten are
//! 44 times faster, a hundred 3 times: each mapping is five rules of 3 kB, about 0.14 us each to fill and pass, so that
//! a hundred mappings take 69 us before the first rule is built. Submitting allocates nothing; building makes five
//! lists for each mapping.
//!
//! The fake kernel only returns tickets and accepts calls, so that time and allocations are the backend's own.

use std::cell::Cell;
use std::process::{Command, Stdio};
use std::time::Duration;

use divan::{AllocProfiler, Bencher, black_box};
use kport::deadline::Deadline;
use kport::net::{PortRange, Protocol};
use kport::options::Options;
use kport::pf::Firewall;
use kport::pf::native::Native;
use kport::pf::native::kernel::{Call, Failure, Kernel};
use kport::publication::{Publication, Redirect};
use kport::rule::Rule;
use kport::rules::rules;

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

const MAPPINGS: [u16; 3] = [1, 10, 100];

#[derive(Default)]
struct Willing {
    ticket: Cell<u32>,
}

impl Kernel for Willing {
    fn call(&self, call: Call<'_>) -> Result<(), Failure> {
        self.ticket.set(self.ticket.get() + 1);
        match call {
            Call::XBegin(rulesets) => rulesets.iter_mut().for_each(|ruleset| ruleset.ticket = self.ticket.get()),
            Call::BeginAddrs(address) => address.ticket = self.ticket.get(),
            Call::AddAddr(address) => _ = black_box(address),
            Call::AddRule(rule) => _ = black_box(rule),
            Call::XCommit(rulesets) => _ = black_box(rulesets),
            other => return Err(Failure::new(other.name(), libc::ENODEV)),
        }
        Ok(())
    }
}

fn publication(mappings: u16) -> Publication {
    let redirect = |n: u16| Redirect {
        af_to: false,
        place: "em0".parse().unwrap(),
        protocol: Protocol::Tcp,
        host: PortRange::new(8000 + n, 8000 + n).unwrap(),
        target: "10.0.0.2".parse().unwrap(),
        jail: PortRange::new(80 + n, 80 + n).unwrap(),
    };
    Publication {
        jail: "web".parse().unwrap(),
        redirects: (0..mappings).map(redirect).collect(),
        options: Options::default(),
        via: Default::default(),
        answers: vec![],
    }
}

fn native(kernel: &Willing) -> Native<&Willing> {
    Native::over(kernel, Deadline::after(Duration::from_secs(3600)))
}

/// From typed rules to the commit: the number of allocations must not grow with the mappings.
#[divan::bench(name = "submit, against the fake kernel", args = MAPPINGS)]
fn submit(bencher: Bencher<'_, '_>, mappings: u16) {
    let (kernel, publication) = (Willing::default(), publication(mappings));
    let (native, anchor) = (native(&kernel), publication.jail.anchor());
    let rules: Vec<Rule> = rules(&publication);
    bencher.bench_local(|| native.replace(black_box(&anchor), black_box(&rules)).expect("everything is accepted"));
}

/// From mappings to the commit.
#[divan::bench(name = "build and submit, against the fake kernel", args = MAPPINGS)]
fn build_and_submit(bencher: Bencher<'_, '_>, mappings: u16) {
    let (kernel, publication) = (Willing::default(), publication(mappings));
    let native = native(&kernel);
    bencher.bench_local(|| {
        let anchor = black_box(&publication).jail.anchor();
        native.replace(&anchor, &rules(&publication)).expect("everything is accepted")
    });
}

/// A program that does nothing, several times in a row.
#[divan::bench(name = "spawn /usr/bin/true", args = [1, 6], sample_count = 50, sample_size = 1)]
fn spawn(times: u32) {
    for _ in 0..times {
        let status = Command::new("/usr/bin/true").env_clear().stdin(Stdio::null()).status();
        assert!(status.is_ok_and(|status| status.success()));
    }
}
