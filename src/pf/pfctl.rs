//! pf through pfctl(8), the program that always fits its kernel.
//!
//! Its output was seen on FreeBSD 15.1, and read in sbin/pfctl of 14. Its exit status means little: `-s` exits with 0
//! even if the anchor is missing or the kernel refused, so standard error decides.
//!
//! Running it costs far more than what it does, so one run does as much as possible: pfctl(8) shows before it loads
//! (main in sbin/pfctl/pfctl.c). How many runs each command takes is in tests/suite/budget.rs.

mod braces;
mod run;
mod states;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::calls::{self, Change, Entry};
use crate::child::{self, End, Lines};
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result, error, quoted};
use crate::files;
use crate::name::{Anchor, NODES, PARENT, Table};
use crate::net::Interface;
use crate::pf::{
    AllCalls, Counters, Firewall, ForeignRedirect, Loaded, Rulesets, States, Status, compare_one_by_one, foreign,
    one_by_one,
};
use crate::pfconf::nested::{self, ByChild, Children};
use crate::pfconf::rule::{Action, Origin, RuleKind};
use crate::pfconf::{self, Conf, address, flat, path};
use crate::rule::{self, Rule};
use braces::{Call, RulesetPath};
pub use run::{Invocation, is_without_device};
use run::{Ran, enabled, labelled};
use states::{Incoming, label};

pub const PROGRAM: &str = "/sbin/pfctl";

/// The pauses between two tries while pf is busy: from this one, doubled each time, to the longest; each is shortened
/// at random so that two waiting processes do not collide again.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// The part of a load's time that is kept for checking the result if the load ends abnormally.
const VERIFY_TIME: Duration = Duration::from_secs(1);

pub struct Pfctl {
    program: PathBuf,
    deadline: Cell<Deadline>,
    seen: RefCell<Seen>,
    helpers: Helpers,
    lock: RefCell<Option<OwnedFd>>,
}

/// What this transaction has read, for its later steps: [`Firewall::foreign_redirects`] and [`Firewall::rulesets`] start again,
/// [`Firewall::replace`] reads whether pf is enabled.
#[derive(Default)]
struct Seen {
    /// By anchor, and `-sn` or `-sr`.
    rules: BTreeMap<(String, &'static str), Arc<Conf>>,
    enabled: Option<bool>,
    /// The calls of kport's anchors in the main ruleset, from the list of all jails.
    calls: String,
}

/// Called after each run of the program.
pub type Trace = dyn Fn(&Invocation<'_>) + Send + Sync;
pub type Names = dyn Fn() -> Option<Vec<String>> + Send + Sync;
pub type Called = dyn Fn(Option<&[Entry]>) -> Option<Vec<Entry>> + Send + Sync;
pub type OutOfTags = dyn Fn(&Anchor, &[Rule]) -> Option<Error> + Send + Sync;

/// What is called beside the program: all but `trace` to learn what would need more runs, or what it does not print.
#[derive(Default)]
pub struct Helpers {
    pub trace: Option<Box<Trace>>,
    pub skipped: Option<Box<Names>>,
    /// The anchors directly below `kport`.
    pub anchors: Option<Box<Names>>,
    /// What the anchor `kport` calls ([`Firewall::called`]).
    pub called: Option<Box<Called>>,
    /// The error of loading rules into an anchor if pf has no number left for a tag, so that another try cannot help. Asked after a
    /// load for which pf was busy: pfctl prints the same for both.
    pub out_of_tags: Option<Box<OutOfTags>>,
}

impl Pfctl {
    /// `program` is an absolute path; no call lasts longer than `deadline`.
    pub fn new(program: impl Into<PathBuf>, deadline: Deadline) -> Pfctl {
        Pfctl {
            program: program.into(),
            deadline: Cell::new(deadline),
            seen: RefCell::default(),
            helpers: Helpers::default(),
            lock: RefCell::new(None),
        }
    }

    #[must_use]
    pub fn with(self, helpers: Helpers) -> Pfctl {
        Pfctl { helpers, ..self }
    }

    fn run(&self, arguments: &[&str], input: &str, lines: Option<&mut Lines<'_>>) -> Result<Ran> {
        if !self.program.is_absolute() {
            return Err(error!(Argument, "{} is not an absolute path", self.program.display()));
        }
        let start = Instant::now();
        let lock = self.lock.borrow();
        let keep = lock.as_ref().map(AsFd::as_fd);
        let made = child::run(&self.program, arguments, input.as_bytes(), keep, lines, self.deadline.get());
        if let Some(trace) = &self.helpers.trace {
            let (output, took) = (made.as_ref(), start.elapsed());
            trace(&Invocation { program: &self.program, arguments, input, output, took });
        }
        made.map(Ran::from).map_err(|error| {
            let run = format!("run {}", self.program.display());
            match error.kind() {
                // a path that the user gave; without pf(4) the usual one is missing
                io::ErrorKind::NotFound if self.program != Path::new(PROGRAM) => {
                    error!(Argument, "{run}: not found; give the path of pfctl(8)")
                }
                io::ErrorKind::NotFound => {
                    let why = format!("{run}: not found: this host has no pf(4), or it is not installed");
                    error.raw_os_error().into_iter().fold(Error::new(Kind::Unavailable, why), Error::with_errno)
                }
                _ => Error::io(run, &error),
            }
        })
    }

    /// Runs pfctl, again while another program holds pf or removes what it reads.
    fn call(&self, doing: &str, arguments: &[&str], input: &str) -> Result<Ran> {
        self.again(doing, || self.run(arguments, input, None))
    }

    fn again(&self, doing: &str, mut run: impl FnMut() -> Result<Ran>) -> Result<Ran> {
        let deadline = self.deadline.get();
        let mut pause = PAUSE;
        let mut tries = 0;
        let mut took = Duration::ZERO;
        loop {
            let start = Instant::now();
            // no run that can only be cut off
            if deadline.remaining() <= took {
                let why = match tries {
                    0 => "the time is up".to_owned(),
                    _ => format!(
                        "\"Device busy\" {tries} times until the time was up: another program loads pf rules all the time \
                         (a jail manager, pfctl(8), a loop of `service pf reload`); try again, or with more time"
                    ),
                };
                return Err(error!(Busy, "{doing}: {why}"));
            }
            let ran = run()?;
            // part of the output: an anchor was removed while -sA listed all of them, which tells nothing about the
            // others (pfctl_walk_anchors in sbin/pfctl/pfctl.c exits with 1); or this one was just removed
            let cut = !ran.stdout.is_empty() && !ran.said.is_empty() && ran.says_only_gone();
            if !ran.is_busy() && !cut {
                return Ok(ran);
            }
            tries += 1;
            took = start.elapsed();
            sleep(pause.mul_f64(0.25 + 0.75 * fastrand::f64()).min(deadline.remaining()));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The output of `pfctl -s`; empty for an anchor that does not exist.
    fn show(&self, anchor: &str, what: &[&str]) -> Result<String> {
        self.shown(anchor, what, |arguments| self.run(arguments, "", None))
    }

    /// The same, for what is printed of all jails together, which has no limit: each line is read as it comes.
    fn show_nested(&self, what: &[&str]) -> Result<Option<ByChild>> {
        let mut children = Children::default();
        let last = self.shown("*", what, |arguments| {
            // another try starts again
            children = Children::default();
            let line = &mut |line: &[u8]| children.line(&String::from_utf8_lossy(line));
            let mut ran = self.run(arguments, "", Some(line))?;
            // another try would not find what nodes call either
            if children.nodes && ran.says_only_gone() {
                ran.said.clear();
            }
            Ok(ran)
        })?;
        children.line(&last);
        self.seen.borrow_mut().calls += &children.main;
        Ok(children.finish())
    }

    /// What `run` leaves of the output of `pfctl -s`.
    fn shown(&self, anchor: &str, what: &[&str], mut run: impl FnMut(&[&str]) -> Result<Ran>) -> Result<String> {
        let mut arguments = vec!["-q"];
        if !anchor.is_empty() {
            arguments.extend(["-a", anchor]);
        }
        arguments.extend(what);
        let doing = match anchor {
            "" => format!("pfctl {}", what.join(" ")),
            _ => format!("pfctl {} in anchor {}", what.join(" "), quoted(anchor)),
        };
        let ran = self.again(&doing, || run(&arguments))?;
        let is_gone = !anchor.is_empty() && !ran.said.is_empty() && ran.says_only_gone();
        // without the status, half a line is the sign of a sudden end
        let is_whole = ran.said.is_empty() && ran.stdout.last().is_none_or(|last| *last == b'\n');
        match ran.end {
            End::Exit(_) | End::Unknown if is_gone => Ok(String::new()),
            End::Exit(0) | End::Unknown if is_whole => Ok(String::from_utf8_lossy(&ran.stdout).into_owned()),
            _ => Err(ran.explain(&doing, "")),
        }
    }

    /// Kills the states with this label, or the one with this key, and returns how many. `on`: only those created there.
    fn kill(&self, on: Option<Interface>, what: &str, which: &str) -> Result<u64> {
        let doing = format!("kill the states of {which}");
        let on = on.map(|on| on.to_string());
        let mut arguments: Vec<&str> = on.iter().flat_map(|on| ["-i", on.as_str()]).collect();
        // no -q: it also silences the number
        arguments.extend(["-k", what, "-k", which]);
        let ran = self.call(&doing, &arguments, "")?;
        let number = |line: &String| line.strip_prefix("killed ")?.strip_suffix(" states")?.parse().ok();
        let killed = if let [line] = &ran.said[..] { number(line).filter(|_| ran.is_done()) } else { None };
        killed.ok_or_else(|| ran.explain(&doing, ""))
    }

    /// Kills states by their addresses, which `-k` cannot: they are found in the list of all, and killed one by one.
    fn kill_listed(&self, states: &[&States]) -> Result<u64> {
        if states.is_empty() {
            return Ok(0);
        }
        // with -vv also where a state was created
        let parts = states.iter().any(|states| states.jail.is_some());
        let mut found = vec![];
        let last = self.shown("", if parts { &["-ss", "-vv"] } else { &["-ss"] }, |arguments| {
            found.clear();
            let line = &mut |line: &[u8]| Incoming::line(&mut found, &String::from_utf8_lossy(line));
            self.run(arguments, "", Some(line))
        })?;
        Incoming::line(&mut found, &last);
        let mut killed = 0;
        for state in found.into_iter().flatten() {
            if let Some(states) = states.iter().find(|states| state.is_of(states)) {
                killed += self.kill(states.on, "key", &state.key)?;
            }
        }
        Ok(killed)
    }

    fn enabled(&self) -> Result<bool> {
        let doing = "read whether pf is enabled";
        let ran = self.call(doing, &["-s", "Running"], "")?;
        match (ran.end, ran.stdout.trim_ascii()) {
            (End::Exit(0) | End::Unknown, b"Enabled") => Ok(true),
            (End::Exit(1) | End::Unknown, b"Disabled") => Ok(false),
            _ => Err(ran.explain(doing, "")),
        }
    }

    fn rules(&self, anchor: &str, what: &str) -> Result<Conf> {
        Ok(Conf::of_output(&self.show(anchor, &[what, "-P"])?))
    }

    /// Those that this transaction has read, or else reads now.
    fn known(&self, anchor: &str, what: &'static str) -> Result<Arc<Conf>> {
        let which = (anchor.to_owned(), what);
        if let Some(known) = self.seen.borrow().rules.get(&which) {
            return Ok(Arc::clone(known));
        }
        let read = Arc::new(self.rules(anchor, what)?);
        self.seen.borrow_mut().rules.insert(which, Arc::clone(&read));
        Ok(read)
    }

    /// `set skip on`, which `-sr` does not print.
    fn skipped(&self) -> Result<Vec<String>> {
        if let Some(names) = self.helpers.skipped.as_ref().and_then(|skipped| skipped()) {
            return Ok(names);
        }
        let shown = self.show("", &["-v", "-sI"])?;
        Ok(shown.lines().filter_map(|line| line.strip_suffix(" (skip)")).map(str::to_owned).collect())
    }

    /// The named tables that an anchor has, each with its contents.
    fn tables(&self, anchor: &str, named: &BTreeSet<&str>) -> Result<BTreeMap<String, address::Table>> {
        // also those that pfctl creates itself, for lists: __automatic_a2508139_0
        let is_name = |name: &&&str| name.trim_start_matches('_').parse::<Table>().is_ok();
        let named: Vec<&str> = named.iter().filter(is_name).copied().collect();
        if named.is_empty() {
            return Ok(BTreeMap::new());
        }
        let shown = self.show(anchor, &["-sT"])?;
        let there = named.into_iter().filter(|table| shown.lines().any(|name| name == *table));
        let one = |table: &str| {
            let held = self.show(anchor, &["-t", table, "-T", "show"])?;
            Ok((table.to_owned(), address::Table::of_output(&held)))
        };
        there.map(one).collect()
    }

    /// The rules of one kind in an anchor, with the calls in its braces among its own.
    fn rules_of(&self, anchor: &str, kind: RuleKind) -> Result<Vec<pfconf::rule::Rule>> {
        let what = if kind == RuleKind::Filter { "-sr" } else { "-sn" };
        let shown = self.known(anchor, what)?;
        let of_kind =
            |rule: &&pfconf::rule::Rule| rule.action.kind() == kind && !matches!(rule.action, Action::Call(..));
        let mut rules: Vec<_> = shown.rulesets.values().flatten().filter(of_kind).cloned().collect();
        let at = RulesetPath { path: anchor.to_owned(), read_as: anchor.to_owned() };
        for call in self.calls(&at, &shown, "", &[kind])? {
            let action = Action::Call(kind, format!("/{}", call.called));
            rules.push(pfconf::rule::Rule::new(Origin::default(), action));
        }
        Ok(rules)
    }

    fn children(&self, anchor: &str) -> Result<Vec<String>> {
        // -v: also names that begin with "_"
        let listed = self.show(anchor, &["-v", "-sA"])?;
        let below = if anchor.is_empty() { String::new() } else { format!("{anchor}/") };
        let paths = listed.lines().filter_map(|line| line.strip_prefix("  ")?.strip_prefix(below.as_str()));
        // 15 lists anchors at any depth
        Ok(paths.filter(|name| !name.is_empty() && !name.contains('/')).map(str::to_owned).collect())
    }

    /// Loads the calls of these entries in one run. They are in the ruleset of `kport`, without nodes, since pfctl(8) loads one
    /// anchor in a run.
    fn load_calls(&self, all: &[Entry]) -> Result<()> {
        let text: String = calls::flat(all).iter().map(|call| format!("{call}\n")).collect();
        let doing = format!("load anchor {PARENT}");
        let ran = self.call(&doing, &["-q", "-o", "none", "-a", PARENT, "-f", "-"], &text)?;
        // else it may have loaded them or not: pf shows
        match ran.is_good() || ran.is_done() && calls::same(&self.read_calls(None)?, all) {
            true => Ok(()),
            false => Err(ran.explain(&doing, &text)),
        }
    }

    /// What pf calls: read through its device, or else by two runs for each ruleset.
    fn read_calls(&self, among: Option<&[Entry]>) -> Result<Vec<Entry>> {
        if let Some(called) = self.helpers.called.as_ref().and_then(|called| called(among)) {
            return Ok(called);
        }
        let mut read = |path: &str| -> Result<Vec<calls::Call>> {
            let mut shown = self.rules(path, "-sn")?;
            shown.append(&self.rules(path, "-sr")?);
            Ok(calls::Call::of_rules(shown.rules()))
        };
        calls::led_to(among, &mut read)
    }
}

const OF_NAT: &[RuleKind] = &[RuleKind::Nat, RuleKind::Rdr, RuleKind::Binat];
const OF_FILTER: &[RuleKind] = &[RuleKind::Filter];

fn are(shown: &Conf, kinds: &[RuleKind], wanted: &[pfconf::rule::Rule]) -> bool {
    let same = |kind| {
        let of_kind = |rule: &&pfconf::rule::Rule| rule.action.kind() == kind;
        shown.rules().iter().filter(of_kind).eq(wanted.iter().filter(of_kind))
    };
    shown.unread.is_empty() && kinds.iter().all(|kind| same(*kind))
}

/// Whether these are the filter rules of `wanted`, with the labels of either backend.
fn are_filters(shown: &Conf, mut wanted: Vec<pfconf::rule::Rule>) -> bool {
    are(shown, OF_FILTER, &wanted) || {
        // native loads rules with the first label only
        wanted.iter_mut().for_each(|rule| rule.labels.truncate(1));
        are(shown, OF_FILTER, &wanted)
    }
}

impl Firewall for Pfctl {
    fn name(&self) -> &'static str {
        "pfctl"
    }

    fn runs_pfctl(&self) -> bool {
        true
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
        // -o none: the optimizer would merge rules and create tables
        let mut arguments = vec!["-q", "-o", "none", "-a", anchor.path()];
        // what a publish reads next
        let status = self.seen.borrow().rules.contains_key(&(String::new(), "-sr"));
        if status {
            arguments.extend(["-s", "info"]);
        }
        arguments.extend(["-f", "-"]);
        let deadline = self.deadline.get();
        self.deadline.set(deadline.reserving(VERIFY_TIME, 4));
        let ran = self.again(&doing, || {
            let ran = self.run(&arguments, &text, None)?;
            match &self.helpers.out_of_tags {
                Some(out_of_tags) if ran.is_busy() => {
                    out_of_tags(anchor, rules).map_or(Ok(ran), |error| Err(error.context(&doing)))
                }
                _ => Ok(ran),
            }
        });
        self.deadline.set(deadline);
        let ran = ran?;
        self.seen.borrow_mut().enabled = if status { enabled(&ran.stdout) } else { None };
        if ran.is_good() {
            return Ok(());
        }
        let error = ran.explain(&doing, &text);
        // this exit is before the commit, or because of it
        if matches!(ran.end, End::Exit(status) if status != 0) {
            return Err(error);
        }
        // it may have committed or not: the anchor shows
        match self.holds(anchor, rules) {
            Ok(true) => Ok(()),
            Ok(false) => Err(error.and("the anchor holds what it held before")),
            // not Busy, which means that nothing was changed
            Err(second) => Err(error!(System, "{error}; what the anchor holds now is unknown ({second})")),
        }
    }

    fn call(&self, change: Option<&Change>, all: &mut AllCalls<'_>) -> Result<bool> {
        // nothing was published
        if change.is_some_and(|change| *change == Change::default()) {
            return Ok(false);
        }
        let all = all()?;
        if change.is_none() && calls::same(&self.read_calls(None)?, &all) {
            return Ok(false);
        }
        self.load_calls(&all).map(|()| true)
    }

    fn called(&self, among: Option<&[Entry]>, _: bool) -> Result<Option<Vec<Entry>>> {
        self.read_calls(among).map(Some)
    }

    /// An anchor whose load was cut off may be in the list although it is empty; loading or clearing it again corrects
    /// that.
    fn anchors(&self) -> Result<Vec<String>> {
        if let Some(names) = self.helpers.anchors.as_ref().and_then(|anchors| anchors()) {
            return Ok(names);
        }
        let listed = self.show(PARENT, &["-sA"])?;
        let children = listed.lines().filter_map(|line| line.trim_start().strip_prefix(PARENT)?.strip_prefix('/'));
        // 14 lists one level, 15 all levels
        let made: BTreeSet<&str> = children.filter(|name| !name.contains('/') && *name != NODES).collect();
        Ok(made.into_iter().map(str::to_owned).collect())
    }

    fn clear(&self, anchor: &Anchor) -> Result<bool> {
        let doing = format!("clear anchor {anchor}");
        // show the rules, then load nothing
        let arguments = ["-q", "-a", anchor.path(), "-sr", "-f", "-"];
        // it matters only whether there are rules
        let ran = self.again(&doing, || self.run(&arguments, "", Some(&mut |_| ())))?;
        match ran.end {
            End::Exit(0) if ran.says_only_gone() => {}
            End::Exit(0 | 1) | End::Unknown if !ran.said.is_empty() => return Err(ran.explain(&doing, "")),
            // it may have committed or not
            _ if self.holds(anchor, &[])? => {}
            _ => return Err(ran.explain(&doing, "")),
        }
        Ok(!ran.stdout.is_empty())
    }

    fn loaded(&self, anchor: &Anchor, counters: bool) -> Result<Loaded> {
        let translations = self.show(anchor.path(), translations(counters))?;
        Ok(Loaded { translations: nested::counters(&translations), filters: self.filter_counters(anchor)?.len() })
    }

    fn filter_counters(&self, anchor: &Anchor) -> Result<Vec<Counters>> {
        let counted = |line: &str| {
            labelled(line).ok_or_else(|| {
                error!(System, "pfctl -sl in anchor {anchor}: {} is not a line of labels and counters", quoted(line))
            })
        };
        self.show(anchor.path(), &["-sl"])?.lines().map(counted).collect()
    }

    fn holds(&self, anchor: &Anchor, rules: &[Rule]) -> Result<bool> {
        let own = flat(rules);
        Ok(are_filters(&self.rules(anchor.path(), "-sr")?, own.clone())
            && are(&self.rules(anchor.path(), "-sn")?, OF_NAT, &own))
    }

    /// Three runs if the main ruleset calls kport's anchors, and more for those that are not called.
    fn compare(&self, wanted: &[(Anchor, Vec<Rule>)]) -> Result<(Vec<bool>, Vec<String>)> {
        let both = (self.show_nested(&["-sn", "-P"])?, self.show_nested(&["-sr", "-P"])?);
        let (Some(translations), Some(filters)) = both else { return compare_one_by_one(self, wanted) };
        let holds = wanted.iter().map(|(anchor, rules)| {
            let shown = |found: &ByChild| {
                let rules = found.iter().filter(|(child, _)| child == anchor.child()).flat_map(|(_, rules)| rules);
                Conf::of_output(&rules.map(|(text, _)| format!("{text}\n")).collect::<String>())
            };
            let own = flat(rules);
            let are_shown = are(&shown(&translations), OF_NAT, &own) && are_filters(&shown(&filters), own);
            // what is not called is not shown
            if are_shown { Ok(true) } else { self.holds(anchor, rules) }
        });
        let holds = holds.collect::<Result<_>>()?;
        let shown = translations.into_iter().chain(filters).filter(|(_, rules)| !rules.is_empty());
        let mut anchors: BTreeSet<String> = shown.map(|(child, _)| child).collect();
        for child in self.anchors()? {
            let path = format!("{PARENT}/{child}");
            let is_known = anchors.contains(&child) || wanted.iter().any(|(anchor, _)| anchor.child() == child);
            if !is_known && (!self.show(&path, &["-sn"])?.is_empty() || !self.show(&path, &["-sr"])?.is_empty()) {
                anchors.insert(child);
            }
        }
        Ok((holds, anchors.into_iter().collect()))
    }

    /// Two runs: the anchor's pass rules, and whether pf is enabled. A load gives an anchor all of its rules or none,
    /// and the main ruleset was read when the jail was published: `kport doctor` reads it again.
    fn unchanged(&self, anchor: &Anchor, rules: &[Rule]) -> Result<Option<Status>> {
        if !are(&self.rules(anchor.path(), "-sr")?, OF_FILTER, &flat(rules)) {
            return Ok(None);
        }
        Ok(Some(Status { enabled: self.enabled()?, nat_anchor: true, rdr_anchor: true, anchor: true }))
    }

    /// Two runs if the main ruleset calls kport's anchors: pfctl(8) shows everything that is called.
    fn loaded_all(&self, _: &[Anchor], counters: bool) -> Result<BTreeMap<String, Loaded>> {
        let both = (self.show_nested(translations(counters))?, self.show_nested(&["-sr", "-P"])?);
        let (Some(translations), Some(filters)) = both else { return one_by_one(self, counters) };
        let mut all: BTreeMap<String, Loaded> = BTreeMap::new();
        for (child, translations) in translations {
            all.entry(child).or_default().translations =
                translations.into_iter().map(|(_, counters)| counters).collect();
        }
        for (child, filters) in filters {
            all.entry(child).or_default().filters = filters.len();
        }
        all.retain(|_, loaded| !loaded.is_empty());
        Ok(all)
    }

    fn kill_states(&self, states: &[States]) -> Result<u64> {
        let listed: Vec<&States> = states.iter().filter(|states| label(states).is_none()).collect();
        let mut killed = self.kill_listed(&listed)?;
        for label in states.iter().filter_map(label) {
            killed += self.kill(None, "label", label.as_str())?;
        }
        Ok(killed)
    }

    fn status(&self) -> Result<Status> {
        let enabled = self.seen.borrow_mut().enabled.take();
        let enabled = enabled.map_or_else(|| self.enabled(), Ok)?;
        let listed = std::mem::take(&mut self.seen.borrow_mut().calls);
        let calls = |what| {
            let seen = self.seen.borrow().rules.get(&(String::new(), what)).cloned();
            Ok::<_, Error>(match seen.filter(|_| listed.is_empty()) {
                Some(seen) => seen.calls_kport(),
                None if listed.is_empty() => Conf::of_output(&self.show("", &[what])?).calls_kport(),
                None => Conf::of_output(&listed).calls_kport(),
            })
        };
        let ([nat_anchor, rdr_anchor, _], [.., anchor]) = (calls("-sn")?, calls("-sr")?);
        Ok(Status { enabled, nat_anchor, rdr_anchor, anchor })
    }

    fn foreign_redirects(&self) -> Result<Vec<ForeignRedirect>> {
        self.seen.take();
        foreign::redirects(|anchor, kind| self.rules_of(anchor, kind), |anchor| self.children(anchor))
    }

    fn has_table(&self, table: &Table) -> Result<bool> {
        // without -v: active tables only
        Ok(self.show("", &["-sT"])?.lines().any(|name| name == table.as_str()))
    }

    fn rulesets(&self, own: bool) -> Result<Rulesets> {
        self.seen.take();
        let mut read: Vec<(String, Conf)> = Vec::new();
        let mut seen = BTreeSet::from([String::new()]);
        let mut todo = VecDeque::from([RulesetPath::default()]);
        while let Some(at) = todo.pop_front() {
            let mut conf = Conf::default();
            for (what, kinds) in [("-sn", OF_NAT), ("-sr", OF_FILTER)] {
                let shown = self.known(&at.path, what)?;
                for Call { called, read_as } in self.calls(&at, &shown, "", kinds)? {
                    if !own && path::is_own(&called.path) {
                        continue;
                    }
                    let children = match called.children {
                        true => self.children(&called.path)?,
                        false => vec![String::new()],
                    };
                    let at = RulesetPath { path: called.path, read_as: read_as.path };
                    let reached = children.iter().map(|child| at.below(child, child));
                    todo.extend(reached.filter(|at| seen.insert(at.read_as.clone())));
                }
                conf.append(&shown);
            }
            // kport's rules use the tables of the main ruleset
            if !at.path.is_empty() && !path::is_own(&at.path) {
                conf.tables = self.tables(&at.path, &conf.named_tables())?;
            }
            read.push((at.read_as, conf));
        }
        let named = read.iter().flat_map(|(_, conf)| conf.named_tables()).collect();
        let (skip, tables) = (self.skipped()?, self.tables("", &named)?);
        if let Some((_, main)) = read.first_mut() {
            (main.skip, main.tables) = (skip, tables);
        }
        Ok(read.into_iter().map(|(path, conf)| (path, Arc::new(conf))).collect())
    }

    fn main_ruleset(&self) -> Result<Arc<Conf>> {
        let mut main = (*self.known("", "-sn")?).clone();
        main.append(&*self.known("", "-sr")?);
        main.skip = self.skipped()?;
        Ok(Arc::new(main))
    }
}

/// How the translation rules are shown, with their counters or without.
fn translations(counters: bool) -> &'static [&'static str] {
    if counters { &["-sn", "-P", "-v"] } else { &["-sn", "-P"] }
}
