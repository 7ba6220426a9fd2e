//! pf by way of pfctl(8): the program that always fits its kernel.
//!
//! What it answers was seen on FreeBSD 15.1 and read in sbin/pfctl for 14. Its exit status says little: `-s` leaves with 0
//! though the anchor is missing or the kernel refused, so what it writes to standard error decides.
//!
//! A run costs far more than what it does, so one run does what it can: pfctl(8) shows before it loads (main in
//! sbin/pfctl/pfctl.c). Publishing takes three: the main ruleset's translation and filter rules, the load, which says as well
//! whether pf is enabled; and a fourth where nobody else says which interfaces are skipped ([`Pfctl::skips_from`]), since pfctl
//! shows one thing a run. The same again takes two, unpublishing two, a list of all jails two.

mod braces;
mod nested;
mod run;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::child::{self, End, Output};
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result, quoted};
use crate::files;
use crate::name::{Anchor, Label, PARENT, Table};
use crate::net::Interface;
use crate::pf::foreign::{self, Found, Ruleset};
use crate::pf::{self, Counters, Firewall, ForeignRedirect, Loaded, States, Status};
use crate::rule::{self, Rule};
use braces::{Call, Place, Shown};
pub use run::Run;

/// Where FreeBSD has pfctl(8).
pub const PROGRAM: &str = "/sbin/pfctl";

/// The pauses between two tries while pf is busy: from this, doubled each time, to the longest, each of them shortened at
/// random so that two who wait do not meet again.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Of the time that a load has, what is kept for verifying the result if it ends strangely.
const VERIFY_TIME: Duration = Duration::from_secs(1);

/// The program pfctl(8).
pub struct Pfctl {
    program: PathBuf,
    deadline: Cell<Deadline>,
    seen: RefCell<Seen>,
    trace: Option<Box<Trace>>,
    skips: Option<Box<Skips>>,
    /// A copy of the host-wide lock's descriptor.
    lock: RefCell<Option<OwnedFd>>,
}

/// What this transaction has read on its way, for the questions at its end: [`Firewall::foreign_redirects`] begins anew and reads the
/// main ruleset, [`Firewall::replace`] whether pf is enabled.
#[derive(Default)]
struct Seen {
    /// What `-sn` shows, by anchor: rdr rules and binat rules.
    translations: BTreeMap<String, String>,
    filter: Option<String>,
    enabled: Option<bool>,
}

/// What sees every run of the program.
pub type Trace = dyn Fn(&Run<'_>) + Send + Sync;

/// What tells the interfaces and groups that pf does not look at (`set skip on`); `None` where it cannot.
pub type Skips = dyn Fn() -> Option<Vec<String>> + Send + Sync;

impl Pfctl {
    /// `program` is an absolute path, [`PROGRAM`] unless a test knows better; no call lasts longer than to `deadline`.
    pub fn new(program: impl Into<PathBuf>, deadline: Deadline) -> Pfctl {
        Pfctl {
            program: program.into(),
            deadline: Cell::new(deadline),
            seen: RefCell::default(),
            trace: None,
            skips: None,
            lock: RefCell::new(None),
        }
    }

    /// The same, and `trace` sees every run.
    #[must_use]
    pub fn traced(mut self, trace: Box<Trace>) -> Pfctl {
        self.trace = Some(trace);
        self
    }

    /// The same, and `skips` is asked which interfaces pf does not look at, before a run of pfctl is spent on that.
    #[must_use]
    pub fn skips_from(mut self, skips: Box<Skips>) -> Pfctl {
        self.skips = Some(skips);
        self
    }

    fn run(&self, arguments: &[&str], input: &str, deadline: Deadline) -> Result<Output> {
        if !self.program.is_absolute() {
            return Err(Error::new(Kind::Argument, format!("{} is no absolute path", self.program.display())));
        }
        let start = Instant::now();
        let lock = self.lock.borrow();
        let made = child::run(&self.program, arguments, input.as_bytes(), lock.as_ref().map(AsFd::as_fd), deadline);
        if let Some(trace) = &self.trace {
            let (output, took) = (made.as_ref(), start.elapsed());
            trace(&Run { program: &self.program, arguments, input, output, took });
        }
        made.map_err(|error| {
            let run = format!("run {}", self.program.display());
            match error.kind() {
                // a path that somebody chose; without pf(4) there is none at the usual one
                io::ErrorKind::NotFound if self.program != Path::new(PROGRAM) => {
                    Error::new(Kind::Argument, format!("{run}: not found; give the path of pfctl(8)"))
                }
                io::ErrorKind::NotFound => {
                    let why = format!("{run}: not found: this host has no pf(4), or it is not installed");
                    error.raw_os_error().into_iter().fold(Error::new(Kind::Unavailable, why), Error::with_errno)
                }
                _ => Error::io(run, &error),
            }
        })
    }

    /// Runs pfctl, again and again while another program holds pf or takes away what it looks at, up to `deadline`.
    fn call(&self, doing: &str, arguments: &[&str], input: &str, deadline: Deadline) -> Result<Output> {
        let mut pause = PAUSE;
        let mut tries = 0;
        let mut took = Duration::ZERO;
        loop {
            let start = Instant::now();
            // no try that can only be cut off
            if deadline.remaining() <= took {
                let why = match tries {
                    0 => "the time is up".to_owned(),
                    _ => format!(
                        "\"Device busy\" {tries} times until the time was up: another program loads pf rules all the time \
                         (a jail manager, pfctl(8), a loop of `service pf reload`); try again, or with more time"
                    ),
                };
                return Err(Error::new(Kind::Busy, format!("{doing}: {why}")));
            }
            let output = self.run(arguments, input, deadline)?;
            let said = complaints(&output);
            // pf_ioctl.c: a ticket that is out of date, since somebody else began a load; rules of other anchors count too
            let busy = said.iter().any(|line| line.ends_with("Device busy"));
            // the beginning of an answer: an anchor below went while -sA was on its way through all of them, and that is
            // no word about the others (pfctl_walk_anchors in sbin/pfctl/pfctl.c leaves with 1); or this one just went
            let cut = !output.stdout.is_empty() && !said.is_empty() && said.iter().all(|line| gone(line));
            if !busy && !cut {
                return Ok(output);
            }
            tries += 1;
            took = start.elapsed();
            sleep(pause.mul_f64(0.25 + 0.75 * fastrand::f64()).min(deadline.remaining()));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// What `pfctl -s` prints; nothing for an anchor that is not there.
    fn show(&self, anchor: &str, what: &[&str]) -> Result<String> {
        let mut arguments = vec!["-q"];
        if !anchor.is_empty() {
            arguments.extend(["-a", anchor]);
        }
        arguments.extend(what);
        let doing = match anchor {
            "" => format!("pfctl {}", what.join(" ")),
            _ => format!("pfctl {} in anchor {}", what.join(" "), quoted(anchor)),
        };
        let output = self.call(&doing, &arguments, "", self.deadline.get())?;
        let complaints = complaints(&output);
        match output.end {
            End::Exit(_) | End::Unknown
                if !anchor.is_empty() && !complaints.is_empty() && complaints.iter().all(|line| gone(line)) =>
            {
                Ok(String::new())
            }
            // with the status lost, half a line is the sign of a sudden end
            End::Exit(0) | End::Unknown
                if complaints.is_empty() && output.stdout.last().is_none_or(|last| *last == b'\n') =>
            {
                Ok(String::from_utf8_lossy(&output.stdout).into_owned())
            }
            _ => Err(explain(&doing, &output, "")),
        }
    }

    /// Kills the states with this label, and says how many.
    fn kill(&self, label: &Label) -> Result<u64> {
        let doing = format!("kill the states of {label}");
        // no -q: the number is among what that silences
        let output = self.call(&doing, &["-k", "label", "-k", label.as_str()], "", self.deadline.get())?;
        match (output.end, complaints(&output).as_slice()) {
            (End::Exit(0) | End::Unknown, [line]) => {
                line.strip_prefix("killed ").and_then(|rest| rest.strip_suffix(" states")).and_then(|n| n.parse().ok())
            }
            _ => None,
        }
        .ok_or_else(|| explain(&doing, &output, ""))
    }

    fn enabled(&self) -> Result<bool> {
        let doing = "ask whether pf is enabled";
        let output = self.call(doing, &["-s", "Running"], "", self.deadline.get())?;
        match (output.end, output.stdout.trim_ascii()) {
            (End::Exit(0) | End::Unknown, b"Enabled") => Ok(true),
            (End::Exit(1) | End::Unknown, b"Disabled") => Ok(false),
            _ => Err(explain(doing, &output, "")),
        }
    }

    /// `set skip on`, which `-sr` does not print.
    fn skipped(&self) -> Result<String> {
        let names = match self.skips.as_ref().and_then(|skips| skips()) {
            Some(names) => names,
            None => {
                let shown = self.show("", &["-v", "-sI"])?;
                shown.lines().filter_map(|line| line.strip_suffix(" (skip)")).map(str::to_owned).collect()
            }
        };
        // no packet of a trace passes an interface with a name that kport does not know
        let names = names.iter().filter(|name| name.parse::<Interface>().is_ok());
        Ok(names.map(|name| format!("set skip on \"{name}\"\n")).collect())
    }

    /// The tables that these rules name, those of them that an anchor has, each with what it holds.
    fn tables<'a>(&self, anchor: &str, rules: impl Iterator<Item = &'a str>) -> Result<String> {
        // also those that pfctl makes itself, of lists: __automatic_a2508139_0
        let named: BTreeSet<&str> = rules
            .flat_map(|text| text.split([' ', ',', '\n']))
            .filter_map(|word| word.strip_prefix('<')?.strip_suffix('>'))
            .filter(|name| name.trim_start_matches('_').parse::<Table>().is_ok())
            .collect();
        if named.is_empty() {
            return Ok(String::new());
        }
        let shown = self.show(anchor, &["-sT"])?;
        let mut text = String::new();
        for table in named.iter().filter(|table| shown.lines().any(|name| name == **table)) {
            let held = self.show(anchor, &["-t", table, "-T", "show"])?;
            let held: Vec<&str> = held.split_ascii_whitespace().collect();
            let list = if held.is_empty() { String::new() } else { format!(" {{ {} }}", held.join(" ")) };
            text += &format!("table <{table}> persist{list}\n");
        }
        Ok(text)
    }
}

impl foreign::Reader for Pfctl {
    type Error = Error;

    fn read(&self, anchor: &str, ruleset: Ruleset) -> Result<Vec<Found>> {
        let (what, keyword) = match ruleset {
            Ruleset::Rdr => ("-sn", "rdr-anchor"),
            Ruleset::Binat => ("-sn", "binat-anchor"),
            Ruleset::Filter => ("-sr", "anchor"),
        };
        let known = match ruleset {
            Ruleset::Rdr | Ruleset::Binat => self.seen.borrow().translations.get(anchor).cloned(),
            Ruleset::Filter => None,
        };
        let shown = known.map_or_else(|| self.show(anchor, &[what, "-P"]), Ok)?;
        let read = Shown::read(&shown);
        let at = Place { path: anchor.to_owned(), read_as: anchor.to_owned() };
        let calls = self.calls(&at, &read, &[keyword])?;
        let mut found: Vec<Found> = calls.into_iter().map(|call| Found::Call(format!("/{}", call.called))).collect();
        // `-sn` shows both
        let of_ruleset = |line: &&&str| (ruleset == Ruleset::Binat) == line.starts_with("binat");
        let redirects = read.lines.iter().filter(of_ruleset).filter_map(|line| foreign::redirect(anchor, line));
        found.extend(redirects.map(Found::Redirect));
        let mut seen = self.seen.borrow_mut();
        match ruleset {
            Ruleset::Rdr | Ruleset::Binat => _ = seen.translations.insert(anchor.to_owned(), shown),
            Ruleset::Filter if anchor.is_empty() => seen.filter = Some(shown),
            Ruleset::Filter => {}
        }
        Ok(found)
    }

    fn children(&self, anchor: &str) -> Result<Vec<String>> {
        // -v: also those that begin with "_"
        let listed = self.show(anchor, &["-v", "-sA"])?;
        let below = if anchor.is_empty() { String::new() } else { format!("{anchor}/") };
        let paths = listed.lines().filter_map(|line| line.strip_prefix("  ")?.strip_prefix(below.as_str()));
        // 15 lists those at any depth
        Ok(paths.filter(|name| !name.is_empty() && !name.contains('/')).map(str::to_owned).collect())
    }
}

impl Firewall for Pfctl {
    fn name(&self) -> &'static str {
        "pfctl"
    }

    fn remembers(&self) -> bool {
        false
    }

    fn set_deadline(&self, deadline: Deadline) {
        self.deadline.set(deadline);
    }

    fn locked(&self, lock: BorrowedFd<'_>) {
        // without a copy the lock ends with this process
        *self.lock.borrow_mut() = files::above_stdio(|| lock.try_clone_to_owned()).ok();
    }

    fn replace(&self, anchor: &Anchor, rules: &[Rule]) -> Result<()> {
        let text = rule::text(rules);
        let doing = format!("load anchor {anchor}");
        // -o none: the optimizer would merge rules and make tables
        let mut arguments = vec!["-q", "-o", "none", "-a", anchor.path()];
        // what a publish will ask next
        let status = self.seen.borrow().filter.is_some();
        if status {
            arguments.extend(["-s", "info"]);
        }
        arguments.extend(["-f", "-"]);
        let output = self.call(&doing, &arguments, &text, self.deadline.get().reserving(VERIFY_TIME, 4))?;
        self.seen.borrow_mut().enabled = if status { enabled(&output.stdout) } else { None };
        let error = match output.end {
            End::Exit(0) if complaints(&output).is_empty() => return Ok(()),
            // it leaves so before the commit, or because of it
            End::Exit(status) if status != 0 => return Err(explain(&doing, &output, &text)),
            _ => explain(&doing, &output, &text),
        };
        // it may have come as far as the commit, or not: the anchor tells
        match self.holds(anchor, rules) {
            Ok(true) => Ok(()),
            Ok(false) => Err(error.and("the anchor holds what it held before")),
            // not Busy, which says that nothing was changed
            Err(second) => {
                Err(Error::new(Kind::System, format!("{error}; what the anchor holds now is not known ({second})")))
            }
        }
    }

    /// An anchor whose load was cut off may be among them though it holds nothing: loading it again, or nothing into it,
    /// sets that right.
    fn anchors(&self) -> Result<Vec<String>> {
        let listed = self.show(PARENT, &["-sA"])?;
        let children = listed.lines().filter_map(|line| line.trim_start().strip_prefix(PARENT)?.strip_prefix('/'));
        // 14 lists one level, 15 all of them
        let made: BTreeSet<&str> = children.filter(|name| !name.contains('/')).collect();
        Ok(made.into_iter().map(str::to_owned).collect())
    }

    fn clear(&self, anchor: &Anchor) -> Result<bool> {
        let doing = format!("clear anchor {anchor}");
        // what there was, and then nothing
        let arguments = ["-q", "-a", anchor.path(), "-sr", "-f", "-"];
        let output = self.call(&doing, &arguments, "", self.deadline.get())?;
        let complaints = complaints(&output);
        match output.end {
            End::Exit(0) if complaints.iter().all(|line| gone(line)) => {}
            End::Exit(0 | 1) | End::Unknown if !complaints.is_empty() => {
                let error = explain(&doing, &output, "");
                // DIOCXBEGIN failed, so pf is there, and the anchor may hold what it held
                return Err(match complaints.iter().any(|line| line.contains("pfctl_rules")) {
                    true => Error::new(Kind::System, error.to_string()),
                    false => error,
                });
            }
            // it may have come as far as the commit, or not
            _ if self.holds(anchor, &[])? => {}
            _ => return Err(explain(&doing, &output, "")),
        }
        Ok(!output.stdout.is_empty())
    }

    fn loaded(&self, anchor: &Anchor) -> Result<Loaded> {
        let listed = self.show(anchor.path(), &["-sl"])?;
        let filters = listed
            .lines()
            .map(|line| {
                counters(line).ok_or_else(|| {
                    let why =
                        format!("pfctl -sl in anchor {anchor}: {} is no line of labels and counters", quoted(line));
                    Error::new(Kind::System, why)
                })
            })
            .collect::<Result<_>>()?;
        Ok(Loaded { translations: self.show(anchor.path(), &["-sn", "-P"])?.lines().count(), filters })
    }

    fn holds(&self, anchor: &Anchor, rules: &[Rule]) -> Result<bool> {
        for (what, passes) in [("-sr", true), ("-sn", false)] {
            let found: BTreeSet<_> = self.show(anchor.path(), &[what, "-P"])?.lines().map(normal).collect();
            if found != normal_of(rules, passes) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Two runs: the anchor's pass rules, and whether pf is enabled. A load gives an anchor all of its rules or none, and what the
    /// main ruleset says was seen when the jail was published: `kport doctor` looks again.
    fn unchanged(&self, anchor: &Anchor, rules: &[Rule]) -> Result<Option<Status>> {
        let found: BTreeSet<_> = self.show(anchor.path(), &["-sr", "-P"])?.lines().map(normal).collect();
        if found != normal_of(rules, true) {
            return Ok(None);
        }
        Ok(Some(Status { enabled: self.enabled()?, nat_anchor: true, rdr_anchor: true, anchor: true }))
    }

    /// Two runs, where the main ruleset calls kport's anchors: pfctl(8) walks through all that is called.
    fn loaded_all(&self, counters: bool) -> Result<BTreeMap<String, Loaded>> {
        let translations = self.show("*", &["-sn", "-P"])?;
        let Some(translations) = nested::children(&translations) else { return pf::one_by_one(self) };
        let filters = match counters {
            true => self.show("*", &["-sr", "-P", "-v"])?,
            false => self.show("*", &["-sr", "-P"])?,
        };
        let Some(mut filters) = nested::children(&filters) else { return pf::one_by_one(self) };
        let mut all: BTreeMap<String, Loaded> = BTreeMap::new();
        for (child, lines) in translations {
            all.entry(child).or_default().translations = lines.len();
        }
        for (child, lines) in &mut filters {
            all.entry(mem::take(child)).or_default().filters = lines.iter().map(|line| line.counters).collect();
        }
        all.retain(|_, loaded| !loaded.is_empty());
        Ok(all)
    }

    fn kill_states(&self, states: &[States]) -> Result<u64> {
        let kill = |states: &States| match states {
            States::Jail { label } | States::Mapping { label, .. } => self.kill(label),
        };
        states.iter().map(kill).sum()
    }

    fn status(&self) -> Result<Status> {
        let (enabled, nat, filter) = {
            let mut seen = self.seen.borrow_mut();
            (seen.enabled.take(), seen.translations.get("").cloned(), seen.filter.clone())
        };
        let enabled = enabled.map_or_else(|| self.enabled(), Ok)?;
        let nat = nat.map_or_else(|| self.show("", &["-sn"]), Ok)?;
        let filter = filter.map_or_else(|| self.show("", &["-sr"]), Ok)?;
        let calls = |text: &str, keyword| !pf::calls_of_kport(text, keyword).is_empty();
        Ok(Status {
            enabled,
            nat_anchor: calls(&nat, "nat-anchor"),
            rdr_anchor: calls(&nat, "rdr-anchor"),
            anchor: calls(&filter, "anchor"),
        })
    }

    fn foreign_redirects(&self) -> Result<Vec<ForeignRedirect>> {
        self.seen.take();
        foreign::redirects(self)
    }

    fn has_table(&self, table: &Table) -> Result<bool> {
        // without -v: only those that are active
        Ok(self.show("", &["-sT"])?.lines().any(|name| name == table.as_str()))
    }

    fn rulesets(&self) -> Result<Vec<(String, String)>> {
        let mut read = Vec::new();
        let mut seen = BTreeSet::from([String::new()]);
        let mut todo = VecDeque::from([Place::default()]);
        while let Some(at) = todo.pop_front() {
            let mut text = String::new();
            for (what, keywords) in [("-sn", &["nat-anchor", "rdr-anchor"][..]), ("-sr", &["anchor"])] {
                let shown = self.show(&at.path, &[what, "-P"])?;
                for Call { called, read_as } in self.calls(&at, &Shown::read(&shown), keywords)? {
                    let children = match called.children {
                        true => foreign::Reader::children(self, &called.path)?,
                        false => vec![String::new()],
                    };
                    let at = Place { path: called.path, read_as: read_as.path };
                    let reached = children.iter().map(|child| at.below(child, child));
                    todo.extend(reached.filter(|at| seen.insert(at.read_as.clone())));
                }
                text += &shown;
            }
            // kport's rules name those of the main ruleset
            if !at.path.is_empty() && !foreign::is_own(&at.path) {
                text = self.tables(&at.path, std::iter::once(text.as_str()))? + &text;
            }
            read.push((at.read_as, text));
        }
        let settings = self.skipped()? + &self.tables("", read.iter().map(|(_, text)| text.as_str()))?;
        if let Some((_, main)) = read.first_mut() {
            main.insert_str(0, &settings);
        }
        Ok(read)
    }

    fn main_ruleset(&self) -> Result<String> {
        let (nat, filter) = {
            let seen = self.seen.borrow();
            (seen.translations.get("").cloned(), seen.filter.clone())
        };
        let nat = nat.map_or_else(|| self.show("", &["-sn", "-P"]), Ok)?;
        let filter = filter.map_or_else(|| self.show("", &["-sr", "-P"]), Ok)?;
        Ok(self.skipped()? + &nat + &filter)
    }

    fn anchors_of_all(&self) -> Result<(usize, Option<usize>)> {
        let anchors = self.show("", &["-v", "-sA"])?.lines().count();
        // "anchors       hard limit      512": new in 15, and 0 is none
        let limits = self.show("", &["-sm"])?;
        let limit = |line: &str| {
            let [what, "hard", "limit", number] = line.split_whitespace().collect::<Vec<_>>()[..] else { return None };
            number.parse().ok().filter(|number| what == "anchors" && *number > 0)
        };
        Ok((anchors, limits.lines().find_map(limit)))
    }
}

/// What the first line of `-s info` says (print_status in sbin/pfctl/pfctl_parser.c).
fn enabled(shown: &[u8]) -> Option<bool> {
    let rest = shown.strip_prefix(b"Status: ")?;
    [(&b"Enabled"[..], true), (b"Disabled", false)]
        .into_iter()
        .find_map(|(word, is)| rest.starts_with(word).then_some(is))
}

/// The lines of standard error that mean something.
fn complaints(output: &Output) -> Vec<String> {
    // pfctl_test_altqsupport in sbin/pfctl/pfctl.c, with -v
    const NOTICES: [&str; 2] = ["No ALTQ support in kernel", "ALTQ related functions disabled"];
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty() && !NOTICES.contains(line))
        .map(str::to_owned)
        .collect()
}

/// Whether a line says that there is no such anchor, or none any more. 14 and 15 have words of their own for it, and
/// `-sn` others than `-sr`. The kernel says EINVAL to DIOCGETRULES and ENOENT to the others (pf_ioctl.c, pf_nl.c), for
/// which `-sA` of 14 has no words: it knows EINVAL only (pfctl_show_anchors in its sbin/pfctl/pfctl.c).
fn gone(line: &str) -> bool {
    let line = line.strip_prefix("pfctl: ").unwrap_or(line);
    const CALLS: [&str; 5] = ["DIOCGETRULES", "DIOCGETRULE", "DIOCGETRULENV", "DIOCGETRULESETS", "DIOCGETRULESET"];
    const REASONS: [&str; 2] = ["Invalid argument", "No such file or directory"];
    line == "Anchor does not exist."
        || (line.starts_with("Anchor '") && line.ends_with("' not found."))
        || line.split_once(": ").is_some_and(|(call, reason)| CALLS.contains(&call) && REASONS.contains(&reason))
}

/// `kport:web kport:web:tcp:8080 0 0 0 0 0 0 0 0`: labels, then evaluations, packets, bytes, packets and bytes in, packets
/// and bytes out, states created (pfctl_show_rules in sbin/pfctl/pfctl.c).
fn counters(line: &str) -> Option<Counters> {
    const NUMBERS: usize = 8;
    let words: Vec<&str> = line.split(' ').collect();
    let (labels, numbers) = words.split_at_checked(words.len().checked_sub(NUMBERS)?)?;
    let numbers: Vec<u64> = numbers.iter().map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let [evaluations, packets, bytes, .., states] = numbers[..] else { return None };
    (!labels.is_empty()).then_some(Counters { evaluations, packets, bytes, states })
}

/// The pass rules, or the other ones, as [`normal`] has them.
fn normal_of(rules: &[Rule], passes: bool) -> BTreeSet<Vec<String>> {
    let of_kind = |rule: &&Rule| matches!(rule, Rule::Pass { .. }) == passes;
    rules.iter().filter(of_kind).flat_map(Rule::expand).map(|rule| normal(&rule.to_string())).collect()
}

/// A rule's words without those that pfctl(8) adds or leaves out when it prints (print_rule in sbin/pfctl/pfctl_parser.c), in
/// an order of their own: where the tag and the labels stand is not the same in every release.
fn normal(rule: &str) -> Vec<String> {
    // what pfctl(8) adds to limits, each a word and a number
    const COMPUTED: [&str; 3] = ["adaptive.start", "adaptive.end", "src.track"];
    let bare = rule.split_ascii_whitespace().map(|word| word.replace(['"', ',', '(', ')'], ""));
    let mut behind = false;
    let given = bare.filter(|word| {
        let skipped = behind || COMPUTED.contains(&word.as_str());
        behind = skipped && !behind;
        !skipped
    });
    let mut words: Vec<String> = given
        .filter(|word| !matches!(word.as_str(), "=" | "flags" | "S/SA" | "round-robin"))
        .map(|word| {
            // a network of one address is printed as the address, and that of all as any
            let whole = if word.contains(':') { "/128" } else { "/32" };
            match word.as_str() {
                "0.0.0.0/0" | "::/0" => "any".to_owned(),
                other => other.strip_suffix(whole).unwrap_or(other).to_owned(),
            }
        })
        .collect();
    words.sort_unstable();
    words
}

/// The error for a run that did not do what it should. `rules` is what it was given to load.
fn explain(doing: &str, output: &Output, rules: &str) -> Error {
    let said = complaints(output);
    let said = if said.is_empty() { "nothing".to_owned() } else { quoted(&said.join(" / ")) };
    let (kind, why) = match output.end {
        End::TimedOut => (
            Kind::Busy,
            format!(
                "pfctl was not done when the time was up, and was killed (it said {said}); try again with more time"
            ),
        ),
        End::Signal(signal) => (
            Kind::System,
            format!(
                "pfctl was killed by signal {signal} (it said {said}); see dmesg(8) for the reason, then try again"
            ),
        ),
        End::TooMuch => {
            (Kind::System, "pfctl printed more than 16 MiB, and was killed; is it the real one?".to_owned())
        }
        End::Exit(_) | End::Unknown => reason(output, rules),
    };
    Error::new(kind, format!("{doing}: {why}"))
}

/// Whether pfctl(8) printed that there is no /dev/pf: pf.ko is not loaded, or devfs(5) hides the device.
pub fn is_without_device(printed: &str) -> bool {
    printed.contains("/dev/pf: No such file")
}

/// What the words of pfctl(8) mean, and what to do.
fn reason(output: &Output, rules: &str) -> (Kind, String) {
    let lines = complaints(output);
    let has = |part: &str| lines.iter().any(|line| line.contains(part));
    let said = quoted(&lines.join(" / "));
    if lines.is_empty() {
        return match output.end {
            End::Exit(status) => (Kind::System, format!("pfctl left with exit status {status} and said nothing")),
            _ => {
                let why = "pfctl's exit status is lost (the calling program ignores SIGCHLD or reaps every child)";
                (Kind::System, why.to_owned())
            }
        };
    }
    if let Some(line) = lines.iter().find(|line| line.starts_with("stdin:")) {
        return (Kind::Internal, refused(line, rules));
    }
    let (kind, remedy) = if lines.iter().any(|line| is_without_device(line)) {
        (Kind::Unavailable, "pf is not loaded: `kldload pf`; inside a jail: it needs vnet and a devfs rule for /dev/pf")
    } else if has("/dev/pf: Permission denied") || has("/dev/pf: Operation not permitted") {
        (Kind::Permission, "only root may use pf: run this as root")
    } else if has("Failed to open netlink") {
        (Kind::Unavailable, "pfctl cannot talk to the kernel: `kldload netlink`, or reboot after an upgrade")
    } else if has("Operation not permitted") || has("Permission denied") {
        (Kind::Permission, "pf lets nobody change rules here: run as root, with kern.securelevel below 3")
    } else if has("Inappropriate ioctl") || has("Operation not supported by device") {
        // not Unavailable: pf may be there and hold rules
        (Kind::System, "pfctl and the kernel are of different releases: finish the upgrade and reboot")
    } else if has("usage:") || has("Unknown show modifier") {
        (Kind::Unsupported, "this pfctl does not know the command; kport needs FreeBSD 14 or later")
    } else if has("pfctl_rules") && !has("strlcpy") {
        // DIOCXBEGIN failed, and pfctl keeps the reason for itself
        (
            Kind::Unavailable,
            "pf refused to begin: see `pfctl -sm` for the limit of anchors, raise it with `set limit anchors`",
        )
    } else if has("Cannot allocate memory") || has("No buffer space") {
        (Kind::System, "the kernel is out of memory: free some, or try again")
    } else if has("strlcpy") || has("anchor names beginning") || has("Syntax error") {
        (Kind::Internal, "a defect in kport: please report it")
    } else {
        (Kind::System, "not an answer that kport knows: run `pfctl -vnf /etc/pf.conf` and see `dmesg`")
    };
    (kind, format!("pfctl said {said}: {remedy}"))
}

/// `stdin:2: syntax error`, with the line that was sent.
fn refused(line: &str, rules: &str) -> String {
    let (number, why) = line.trim_start_matches("stdin:").split_once(':').unwrap_or(("?", line));
    let sent = number.parse::<usize>().ok().and_then(|n| rules.lines().nth(n.checked_sub(1)?)).unwrap_or("");
    let why = why.trim();
    format!(
        "pfctl refused line {number}, `{sent}`: {why}: a defect in kport, or a pfctl that it does not know; please report it"
    )
}
