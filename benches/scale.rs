//! How the cost of kport grows: parsing, rules, publish and unpublish with 1 to 10,000 published jails, list, and the
//! start of the helper. `cargo bench --bench scale`
//!
//! The publisher uses the simulator in a directory under /tmp, with a host from memory: this measures kport and the
//! file system, not pf(4). `list` is also measured without the simulator's files.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use kport::deadline::Deadline;
use kport::error::Result;
use kport::host::Fixed;
use kport::name::{Anchor, Table};
use kport::options::Options;
use kport::pf::files::Sim;
use kport::pf::{Counters, Firewall, ForeignRedirect, Loaded, Rulesets, States, Status};
use kport::publication::{self, Publication, Targets};
use kport::publisher::{Listed, Liveness, Publisher, Request, Unobserved};
use kport::rule::{self, Rule};
use kport::store::Store;
use kport::{rules, spec};

fn main() {
    divan::main();
}

const JAILS: [usize; 4] = [1, 100, 1_000, 10_000];

#[divan::bench(args = ["8080", "8080:80/udp", "em1:8080:80", "8000-8010:9000-9010", "[2001:db8::1]:8000-8010:9000/tcp,udp"])]
fn parse_one(bencher: Bencher<'_, '_>, text: &str) {
    bencher.counter(ItemsCount::new(1_usize)).bench(|| spec::parse(black_box(text)).unwrap());
}

#[divan::bench]
fn parse_a_thousand(bencher: Bencher<'_, '_>) {
    let text: String = (0..1000).map(|i| format!("em0:{}:{}/udp ", 8000 + i, 80 + i)).collect();
    bencher.counter(ItemsCount::new(1000_usize)).bench(|| spec::parse(black_box(&text)).unwrap());
}

#[divan::bench(args = [1, 10, 1000])]
fn rules_of_a_jail(bencher: Bencher<'_, '_>, mappings: usize) {
    let text: Vec<String> = (0..mappings).map(|i| format!("{}:{}", 8000 + i, 80 + i)).collect();
    let spec = spec::parse(&text.join(" ")).unwrap();
    bencher.counter(ItemsCount::new(mappings)).bench(|| {
        let jail: kport::name::JailName = "web".parse().unwrap();
        let targets = Targets::choose(&jail, &["10.0.0.2".parse().unwrap()]).unwrap();
        let redirects = publication::redirects(&jail, &spec, &targets, |_| "em0".parse()).unwrap();
        let publication = Publication::new(jail, redirects, Options::default(), |_| Ok(None)).unwrap();
        rule::text(&rules::rules(&publication))
    });
}

/// A state directory with this number of jails published, each with its own port; created once for each number.
struct Host {
    dir: tempfile::TempDir,
    host: Fixed,
}

impl Host {
    fn with(jails: usize) -> &'static Host {
        static HOSTS: [LazyLock<Host>; JAILS.len()] = [
            LazyLock::new(|| Host::new(JAILS[0])),
            LazyLock::new(|| Host::new(JAILS[1])),
            LazyLock::new(|| Host::new(JAILS[2])),
            LazyLock::new(|| Host::new(JAILS[3])),
        ];
        &HOSTS[JAILS.iter().position(|n| *n == jails).unwrap()]
    }

    fn new(jails: usize) -> Host {
        let host = Fixed { boot_id: "bench".into(), ..Fixed::default() };
        let made = Host { dir: tempfile::Builder::new().prefix("kport").tempdir_in("/tmp").unwrap(), host };
        made.run(|publisher| {
            for i in 0..jails {
                publisher.publish(&request(&format!("jail{i}"), i)).unwrap();
            }
        });
        made
    }

    fn run<T>(&self, act: impl FnOnce(&Publisher<'_>) -> T) -> T {
        self.run_on(&Sim::new(self.dir.path()), act)
    }

    fn run_on<T>(&self, firewall: &dyn Firewall, act: impl FnOnce(&Publisher<'_>) -> T) -> T {
        let store = Store::open(self.dir.path()).unwrap();
        let deadline = Deadline::after(Duration::from_secs(600));
        act(&Publisher::new(&self.host, firewall, store, deadline, &Unobserved))
    }

    fn spawn(&self, bencher: Bencher<'_, '_>, command: &[&str]) {
        let played = self.dir.path().join("host.json");
        std::fs::write(&played, r#"{ "boot_id": "bench" }"#).unwrap();
        let [dir, played] = [self.dir.path(), &played].map(|path| path.to_str().unwrap());
        let global = ["--backend", "sim", "--state-dir", dir, "--host", played];
        let arguments = [&global, command].concat();
        bencher.bench_local(|| spawn(Path::new(env!("CARGO_BIN_EXE_kport")), &arguments));
    }
}

/// A port and an address of its own for each number.
fn request(jail: &str, i: usize) -> Request {
    let mut request = Request::new(jail.parse().unwrap(), format!("em0:{}:80", 10_000 + i).parse().unwrap());
    request.addresses = vec![std::net::Ipv4Addr::from(0x0a00_0000 + u32::try_from(i).unwrap() + 2).into()];
    request
}

#[divan::bench(args = JAILS)]
fn publish(bencher: Bencher<'_, '_>, jails: usize) {
    let host = Host::with(jails);
    let new = request("another", 30_000);
    host.run(|publisher| {
        bencher
            .with_inputs(|| _ = publisher.unpublish(&new.jail, None).unwrap())
            .bench_local_values(|()| publisher.publish(&new).unwrap());
        publisher.unpublish(&new.jail, None).unwrap();
    });
}

/// Many mappings of one jail, in the port ranges of all the others, on another interface: linear in the mappings, and
/// independent of the number of jails.
fn publish_many(bencher: Bencher<'_, '_>, jails: usize, spec: &str) {
    let host = Host::with(jails);
    let many = Request { spec: spec.parse().unwrap(), ..request("another", 30_000) };
    host.run(|publisher| {
        bencher
            .with_inputs(|| _ = publisher.unpublish(&many.jail, None).unwrap())
            .bench_local_values(|()| publisher.publish(&many).unwrap());
        publisher.unpublish(&many.jail, None).unwrap();
    });
}

#[divan::bench(args = JAILS, sample_count = 10, sample_size = 1)]
fn publish_a_thousand_ports(bencher: Bencher<'_, '_>, jails: usize) {
    let spec: String = (10_000..11_000).map(|port| format!("em1:{port}:80 ")).collect();
    publish_many(bencher, jails, &spec);
}

#[divan::bench(args = JAILS, sample_count = 10, sample_size = 1)]
fn publish_a_hundred_ranges(bencher: Bencher<'_, '_>, jails: usize) {
    let spec: String = (0..100).map(|i| 10_000 + 50 * i).map(|p| format!("em1:{p}-{}:{p} ", p + 49)).collect();
    publish_many(bencher, jails, &spec);
}

#[divan::bench(args = JAILS)]
fn unpublish(bencher: Bencher<'_, '_>, jails: usize) {
    let host = Host::with(jails);
    let new = request("another", 30_000);
    host.run(|publisher| {
        bencher
            .with_inputs(|| _ = publisher.publish(&new).unwrap())
            .bench_local_values(|()| publisher.unpublish(&new.jail, None).unwrap());
    });
}

/// Publishing the same ports again: the cost of a hook for ports that are already published.
#[divan::bench(args = JAILS)]
fn publish_the_same_again(bencher: Bencher<'_, '_>, jails: usize) {
    let host = Host::with(jails);
    let same = request("jail0", 0);
    host.run(|publisher| bencher.bench_local(|| publisher.publish(&same).unwrap()));
}

/// A request for a port that another jail has published: a conflict.
#[divan::bench(args = JAILS)]
fn refuse_a_conflict(bencher: Bencher<'_, '_>, jails: usize) {
    let host = Host::with(jails);
    let taken = request("another", jails / 2);
    host.run(|publisher| bencher.bench_local(|| publisher.publish(&taken).unwrap_err()));
}

/// A firewall with one stored answer, for one list.
#[derive(Default)]
struct Answers(Cell<BTreeMap<String, Loaded>>);

impl Firewall for Answers {
    fn name(&self) -> &'static str {
        "answers"
    }

    fn loaded_all(&self, _: &[Anchor], _: bool) -> Result<BTreeMap<String, Loaded>> {
        Ok(self.0.take())
    }

    fn replace(&self, _: &Anchor, _: &[Rule]) -> Result<()> {
        unreachable!()
    }

    fn clear(&self, _: &Anchor) -> Result<bool> {
        unreachable!()
    }

    fn anchors(&self) -> Result<Vec<String>> {
        unreachable!()
    }

    fn loaded(&self, _: &Anchor, _: bool) -> Result<Loaded> {
        unreachable!()
    }

    fn filter_counters(&self, _: &Anchor) -> Result<Vec<Counters>> {
        unreachable!()
    }

    fn holds(&self, _: &Anchor, _: &[Rule]) -> Result<bool> {
        unreachable!()
    }

    fn kill_states(&self, _: &[States]) -> Result<u64> {
        unreachable!()
    }

    fn status(&self) -> Result<Status> {
        Ok(Status { enabled: true, nat_anchor: true, rdr_anchor: true, anchor: true })
    }

    fn foreign_redirects(&self) -> Result<Vec<ForeignRedirect>> {
        unreachable!()
    }

    fn has_table(&self, _: &Table) -> Result<bool> {
        unreachable!()
    }

    fn rulesets(&self, _: bool) -> Result<Rulesets> {
        unreachable!()
    }
}

/// The cost of a list without that of the firewall.
fn list_with(bencher: Bencher<'_, '_>, jails: usize, list: impl Fn(&Publisher<'_>) -> Vec<Listed>) {
    let host = Host::with(jails);
    let answer = Sim::new(host.dir.path()).loaded_all(&[], true).unwrap();
    let firewall = Answers::default();
    host.run_on(&firewall, |publisher| {
        bencher.with_inputs(|| firewall.0.set(answer.clone())).bench_local_values(|()| {
            let listed = list(publisher);
            assert!(listed.len() == jails && listed.iter().all(|listed| listed.liveness == Liveness::Live));
            listed
        });
    });
}

#[divan::bench(args = JAILS, sample_count = 20, sample_size = 1)]
fn list_off_the_kernel(bencher: Bencher<'_, '_>, jails: usize) {
    list_with(bencher, jails, |publisher| publisher.list(None).unwrap());
}

#[divan::bench(args = JAILS, sample_count = 20, sample_size = 1)]
fn list_off_the_kernel_with_counters(bencher: Bencher<'_, '_>, jails: usize) {
    list_with(bencher, jails, |publisher| publisher.list_with_counters(None).unwrap());
}

/// With the simulator in its directory: one more file for each jail.
#[divan::bench(args = JAILS, sample_count = 20, sample_size = 1)]
fn list_by_the_simulator(bencher: Bencher<'_, '_>, jails: usize) {
    let host = Host::with(jails);
    host.run(|publisher| bencher.bench_local(|| publisher.list(None).unwrap()));
}

/// The helper with the simulator: from its start to the last line.
#[divan::bench(args = JAILS, sample_count = 20, sample_size = 1)]
fn helper_list(bencher: Bencher<'_, '_>, jails: usize) {
    Host::with(jails).spawn(bencher, &["list"]);
}

#[divan::bench(args = JAILS, sample_count = 20, sample_size = 1)]
fn helper_list_json(bencher: Bencher<'_, '_>, jails: usize) {
    Host::with(jails).spawn(bencher, &["list", "--json"]);
}

/// The helper as built by cargo for benchmarks, with a command that uses no files.
#[divan::bench(sample_count = 200, sample_size = 1)]
fn helper_start(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| spawn(Path::new(env!("CARGO_BIN_EXE_kport")), &["parse", "8080:80"]));
}

/// The cost of starting any program here.
#[divan::bench(sample_count = 200, sample_size = 1)]
fn helper_start_baseline_true(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| spawn(Path::new("/bin/true"), &[]));
}

fn spawn(program: &Path, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).status().unwrap();
    assert!(status.success());
}
