//! A stand-in for pfctl(8), with its own rules and states: one for each test, for any number of processes at once.
//!
//! Its source is `tests/suite/support/pfctl.rs`. cargo builds no program for tests that it does not also install, so
//! rustc compiles it, once for each version of the source.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

/// What the real one prints when another load has begun.
pub const BUSY: &str = "pfctl: DIOCADDRULE: Device busy\n";

/// The main ruleset of the README.
pub const MAIN: &str = "\
nat-anchor \"kport/*\"
rdr-anchor \"kport/*\"
block in log all
pass out all
anchor \"kport/*\"
";

/// A fault.
#[derive(Clone, Copy, Debug)]
pub enum Fault<'a> {
    /// It does nothing, does not read its input, prints this on standard error, and exits with this status.
    Say(i32, &'a str),
    /// It does its work, and prints this on standard error.
    Warn(&'a str),
    /// It does its work this many milliseconds later.
    Slow(u64),
    /// It does nothing, and does not exit.
    Hang,
    /// It does its work, and does not exit.
    HangLate,
    /// It reads its input, and dies by SIGABRT before its work.
    Abort,
    /// It does its work, and dies by SIGABRT before it prints anything.
    AbortLate,
    /// It prints without end.
    Huge,
    /// It does its work, and leaves a process, for this many seconds, that keeps its outputs open.
    Orphan(u64),
    /// It prints on standard error what it was given: directory, environment, descriptors (Linux); and exits with 1.
    Describe,
}

/// A stand-in and its state, which is removed with the value.
pub struct Pfctl {
    dir: TempDir,
}

impl Pfctl {
    /// A stand-in with [`MAIN`] loaded, and pf enabled.
    pub fn new() -> Pfctl {
        let made = Pfctl { dir: tempfile::tempdir().expect("a directory") };
        symlink(compiled(), made.program()).expect("link the stand-in");
        fs::create_dir(made.dir.path().join("anchors")).expect("a directory");
        made.put("", MAIN);
        made
    }

    /// A stand-in that only prints these recordings of the real one.
    pub fn replay(recordings: &[&str]) -> Pfctl {
        let made = Pfctl::new();
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/standin/recordings");
        made.write("replay", &format!("{}\n{}\n", dir.display(), recordings.join("\n")));
        made
    }

    /// Its path.
    pub fn program(&self) -> PathBuf {
        self.dir.path().join("pfctl")
    }

    /// A fault at each call whose arguments, joined by blanks, contain `part` (`-f -` is a load).
    pub fn fault(&self, part: &str, fault: Fault<'_>) {
        self.faults(part, u64::MAX, 100, fault);
    }

    /// A fault at the first `times` of these calls, and at `percent` of them. Earlier faults come first.
    pub fn faults(&self, part: &str, times: u64, percent: u64, fault: Fault<'_>) {
        let (what, detail) = match fault {
            Fault::Say(status, text) => ("say", format!("{status} {text}")),
            Fault::Warn(text) => ("warn", text.to_owned()),
            Fault::Slow(milliseconds) => ("slow", milliseconds.to_string()),
            Fault::Hang => ("hang", String::new()),
            Fault::HangLate => ("hang-late", String::new()),
            Fault::Abort => ("abort", String::new()),
            Fault::AbortLate => ("abort-late", String::new()),
            Fault::Huge => ("huge", String::new()),
            Fault::Describe => ("describe", String::new()),
            Fault::Orphan(seconds) => ("orphan", seconds.to_string()),
        };
        let line = format!("{part}\t{times}\t{percent}\t{what}\t{}\n", detail.replace('\n', "\\n"));
        let before = self.read("faults").unwrap_or_default();
        self.write("faults", &(before + &line));
    }

    /// Removes the faults.
    pub fn heal(&self) {
        _ = fs::remove_file(self.dir.path().join("faults"));
    }

    /// The rules of an anchor, as they were loaded; `""` is the main ruleset.
    pub fn rules(&self, anchor: &str) -> Option<String> {
        self.read(&format!("anchors/{}", encode(anchor)))
    }

    /// Adds rules, as another program would, in the form for loading or for printing.
    pub fn put(&self, anchor: &str, rules: &str) {
        self.write(&format!("anchors/{}", encode(anchor)), rules);
    }

    /// Removes an anchor's rules.
    pub fn remove(&self, anchor: &str) {
        _ = fs::remove_file(self.dir.path().join(format!("anchors/{}", encode(anchor))));
    }

    /// Sets the states: the labels of each, joined by blanks.
    pub fn set_states(&self, states: &[&str]) {
        self.write("states", &states.iter().map(|labels| format!("{labels}\n")).collect::<String>());
    }

    /// The remaining states.
    pub fn states(&self) -> Vec<String> {
        self.read("states").unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Sets the eight numbers that `-sl` prints for each rule with a label.
    pub fn set_counters(&self, counters: &str) {
        self.write("counters", counters);
    }

    /// Sets the tables of the main ruleset: one line each, the name and its contents.
    pub fn set_tables(&self, tables: &str) {
        self.write("tables", tables);
    }

    /// Sets the tables of an anchor, likewise.
    pub fn set_tables_of(&self, anchor: &str, tables: &str) {
        self.write(&format!("tables-{}", encode(anchor)), tables);
    }

    /// Sets the skipped interfaces, joined by blanks.
    pub fn set_skip(&self, interfaces: &str) {
        self.write("skip", interfaces);
    }

    /// Disables pf.
    pub fn disable(&self) {
        self.write("disabled", "");
    }

    /// Enables it again.
    pub fn enable(&self) {
        std::fs::remove_file(self.dir.path().join("disabled")).expect("it was disabled");
    }

    /// Prints as FreeBSD 14 does.
    pub fn old(&self) {
        self.write("release", "14");
    }

    /// The arguments of every call so far, joined by blanks.
    pub fn calls(&self) -> Vec<String> {
        self.read("calls").unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.dir.path().join(name)).ok()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).expect("write the stand-in's state");
    }
}

fn encode(anchor: &str) -> String {
    if anchor.is_empty() { "%".to_owned() } else { anchor.replace('%', "%25").replace('/', "%2F") }
}

fn compiled() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let mut hasher = DefaultHasher::new();
        include_str!("pfctl.rs").hash(&mut hasher);
        let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pfctl-{:016x}", hasher.finish()));
        if !made.exists() {
            // other test programs may compile it at the same time
            let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
            let new = dir.path().join("pfctl");
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/support/pfctl.rs");
            let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
            let status = Command::new(rustc)
                .args(["--edition=2024", "--crate-name=pfctl", "-Copt-level=1", "-Cstrip=symbols", "-o"])
                .args([&new, &source])
                .status()
                .expect("run rustc");
            assert!(status.success(), "the stand-in does not compile");
            fs::rename(new, &made).expect("keep the stand-in");
        }
        made
    })
}
