//! A stand-in for pfctl(8), with rules and states of its own: one for each test, any number of processes at once.
//!
//! Its source is `tests/suite/support/pfctl.rs`. cargo builds no program for tests that it does not also release, so rustc makes
//! it, once for each text of the source.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

/// What the real one writes when somebody else has begun a load.
pub const BUSY: &str = "pfctl: DIOCADDRULE: Device busy\n";

/// The main ruleset that the README asks for.
pub const MAIN: &str = "\
nat-anchor \"kport/*\"
rdr-anchor \"kport/*\"
block in log all
pass out all
anchor \"kport/*\"
";

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Fault<'a> {
    /// It does nothing, does not even read its input, says this on standard error, and leaves with this status.
    Say(i32, &'a str),
    /// It does its work, and says this on standard error.
    Warn(&'a str),
    /// It does its work this many milliseconds later.
    Slow(u64),
    /// It does nothing, and stays.
    Hang,
    /// It does its work, and stays.
    HangLate,
    /// It reads its input, and dies by SIGABRT before its work.
    Abort,
    /// It does its work, and dies by SIGABRT before it can say so.
    AbortLate,
    /// It writes without end.
    Huge,
    /// It does its work, and leaves a process behind, for this many seconds, that keeps its outputs open.
    Orphan(u64),
    /// It says on standard error what it was given: directory, environment, descriptors (Linux); and leaves with 1.
    Describe,
}

/// A stand-in, and what it knows. Gone with the value.
pub struct Pfctl {
    dir: TempDir,
}

impl Pfctl {
    /// One that has [`MAIN`] loaded, and pf enabled.
    pub fn new() -> Pfctl {
        let made = Pfctl { dir: tempfile::tempdir().expect("a directory") };
        symlink(compiled(), made.program()).expect("link the stand-in");
        fs::create_dir(made.dir.path().join("anchors")).expect("a directory");
        made.put("", MAIN);
        made
    }

    /// One that answers with recordings of the real one, these, and with nothing else.
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

    /// A fault at each call whose arguments, with a blank between them, contain `part` (`-f -` is a load).
    pub fn fault(&self, part: &str, fault: Fault<'_>) {
        self.faults(part, u64::MAX, 100, fault);
    }

    /// The same for the first `times` calls, and for `percent` of them. Earlier faults come first.
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

    /// No more faults.
    pub fn heal(&self) {
        _ = fs::remove_file(self.dir.path().join("faults"));
    }

    /// What an anchor holds, as it was loaded; `""` is the main ruleset.
    pub fn rules(&self, anchor: &str) -> Option<String> {
        self.read(&format!("anchors/{}", encode(anchor)))
    }

    /// Puts rules there, as another program would, as they are loaded or as they are printed.
    pub fn put(&self, anchor: &str, rules: &str) {
        self.write(&format!("anchors/{}", encode(anchor)), rules);
    }

    /// Takes them away.
    pub fn remove(&self, anchor: &str) {
        _ = fs::remove_file(self.dir.path().join(format!("anchors/{}", encode(anchor))));
    }

    /// The states that there are: the labels of each, with a blank between them.
    pub fn set_states(&self, states: &[&str]) {
        self.write("states", &states.iter().map(|labels| format!("{labels}\n")).collect::<String>());
    }

    /// The states that are left.
    pub fn states(&self) -> Vec<String> {
        self.read("states").unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// The eight numbers that `-sl` shows for each rule with a label.
    pub fn set_counters(&self, counters: &str) {
        self.write("counters", counters);
    }

    /// The tables of the main ruleset: a line each, the name and what it holds.
    pub fn set_tables(&self, tables: &str) {
        self.write("tables", tables);
    }

    /// The tables of an anchor, likewise.
    pub fn set_tables_of(&self, anchor: &str, tables: &str) {
        self.write(&format!("tables-{}", encode(anchor)), tables);
    }

    /// The interfaces that are skipped, with a blank between them.
    pub fn set_skip(&self, interfaces: &str) {
        self.write("skip", interfaces);
    }

    /// How many anchors there may be.
    pub fn set_anchor_limit(&self, limit: usize) {
        self.write("anchor-limit", &limit.to_string());
    }

    /// pf is off.
    pub fn disable(&self) {
        self.write("disabled", "");
    }

    /// Answers as FreeBSD 14 does.
    pub fn old(&self) {
        self.write("release", "14");
    }

    /// The arguments of every call so far, with a blank between them.
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
            // other test programs may be at it as well
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
