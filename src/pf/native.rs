//! The native backend: pf(4) through its device.
//!
//! Rules are written as structs (DIOCADDRULE, which FreeBSD 14 and 15 both accept), everything for which 15 has no struct as
//! nvlists. All of it except [`ioctl`] is ordinary code that runs on any system with a stand-in for the kernel.
//!
//! It does not start a child process: the rules of others are also decoded from the kernel's reply, by nvlist, and on 15 by
//! [netlink], which has more fields.

mod calls;
pub mod decode;
pub mod descriptor;
pub mod encode;
#[allow(unsafe_code)]
pub mod ioctl;
pub mod kernel;
pub mod layout;
mod memory;
pub mod netlink;
pub mod nv;
mod read;
mod rulesets;
pub mod session;
pub mod transaction;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use zerocopy::FromZeros;

use self::calls::Ruleset;
use self::encode::{EVERY, LOADED};
use self::ioctl::Device;
use self::kernel::{Answer, Call, Failure, Kernel, Nv};
use self::layout::PfiocRule;
use self::memory::{Main, Memory, Settings};
use self::netlink::{Attributes, Command};
use self::read::{RulesetAt, Run, Stamp};
use super::{AllCalls, Counters, Firewall, ForeignRedirect, Loaded, Rulesets, States, Status, foreign};
use crate::calls::{self as calling, Block, Change, Entry};
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result, error};
use crate::name::{Anchor, NODES, PARENT, Table};
use crate::net::Protocol;
use crate::pfconf::path::{self, Called};
use crate::pfconf::rule::{self, Action, RuleKind};
use crate::pfconf::{Conf, flat};
use crate::rule::{Count, Rule};

pub struct Native<K = Device> {
    kernel: K,
    deadline: Cell<Deadline>,
    memory: Memory,
    /// the run of pf that the memory is about, from the last status
    run: RefCell<Option<Run>>,
    /// whether pf was enabled when an operation began: the end of a list need not read the status again
    enabled: Cell<Option<bool>>,
    /// the main ruleset when its tickets were last read
    main: RefCell<Option<Main>>,
    settings: RefCell<Option<Settings>>,
}

impl Native {
    /// The backend, if this kernel has all that it needs; otherwise the reason, for `-v` and for an explicit `--backend
    /// native`. The kernel is probed once for each process. `deadline` limits every operation.
    #[cfg_attr(not(target_os = "freebsd"), allow(unreachable_code, reason = "there is no device"))]
    pub fn probe(deadline: Deadline) -> Result<Native> {
        // nobody waits for another thread: a child that was forked meanwhile does not have it
        static PROBED: AtomicBool = AtomicBool::new(false);
        let kernel = Device::open()?;
        if !PROBED.load(Ordering::Relaxed) {
            probe(&kernel)?;
            PROBED.store(true, Ordering::Relaxed);
        }
        Ok(Native::over(kernel, deadline))
    }
}

/// The interfaces and groups that pf skips (`set skip on`), read through its device; `None` if this system's kernel does not
/// report them, but pfctl(8) may. It costs far less than a run of pfctl(8), and reads all interfaces of the host as that
/// does.
pub fn skipped() -> Option<Vec<String>> {
    read::skipped(&Device::open().ok()?).ok()?
}

/// The anchors directly below `kport` but the nodes' parent, read through this system's device; `None` if they cannot be read.
pub fn anchors() -> Option<Vec<String>> {
    let mut names = read::children(&Device::open().ok()?, PARENT).ok()?;
    names.retain(|name| name != NODES);
    Some(names)
}

/// What the anchor `kport` calls ([`Firewall::called`]), read through this system's device; `None` if it cannot be read.
pub fn called(among: Option<&[Entry]>) -> Option<Vec<Entry>> {
    let device = Device::open().ok()?;
    calling::led_to(among, &mut |path| Ok::<_, Failure>(calling::Call::of_rules(&rulesets::calls(&device, path)?))).ok()
}

/// The error of loading these rules if pf has no number left for one of their tags. Nothing is loaded.
pub fn out_of_tags(anchor: &Anchor, rules: &[Rule]) -> Option<Error> {
    transaction::out_of_tags(&Device::open().ok()?, anchor, rules).map(Error::from)
}

/// Whether the kernel has the calls that differ between releases. Changes nothing. A caller that may only read pf gets the
/// error when it tries to change something.
pub fn probe(kernel: &dyn Kernel) -> Result<()> {
    // a list that is none, for a call that came with DIOCGETSTATUSNV in 14; that itself takes as long as the load of a jail's rules,
    // whether its answer is read or not
    let mut none = Nv { buffer: vec![], length: 0 };
    match kernel.call(Call::GetEtherRules(&mut none)) {
        Err(failure) if failure.errno != libc::EBADMSG => return Err(failure.into()),
        _ => {}
    }
    // a rule that no release accepts: the type of its address and the ICMP type of its answer do not exist. It is checked
    // before its ticket is, and rejected with EINVAL (pf_check_rule_addr, pf_ioctl_addrule); a kernel without the struct
    // returns ENODEV
    let mut rule = PfiocRule::new_zeroed();
    rule.rule.src.addr.kind = u8::MAX;
    rule.rule.return_icmp = u16::MAX;
    match kernel.call(Call::AddRule(&mut rule)) {
        Err(Failure { errno: libc::EINVAL, .. }) => Ok(()),
        // a descriptor for reading, kern.securelevel 3: checked before the call itself is (pfioctl)
        Err(Failure { errno: libc::EACCES | libc::EPERM, .. }) => Ok(()),
        Err(failure) => Err(failure.into()),
        Ok(()) => Err(Error::new(Kind::Unsupported, "DIOCADDRULE: this kernel takes a rule that is none")),
    }
}

impl<K: Kernel> Native<K> {
    /// The backend over a kernel that need not be probed.
    pub fn over(kernel: K, deadline: Deadline) -> Native<K> {
        Native {
            kernel,
            deadline: Cell::new(deadline),
            memory: Memory::default(),
            run: RefCell::default(),
            enabled: Cell::default(),
            main: RefCell::default(),
            settings: RefCell::default(),
        }
    }

    /// What it learns is left in files of this directory, for later processes; `boot` is the current boot, from
    /// [`Host::boot_id`](crate::host::Host::boot_id).
    #[must_use]
    pub fn with_cache(self, dir: PathBuf, boot: String) -> Native<K> {
        Native { memory: Memory::new(dir, boot), ..self }
    }

    /// Repeats `attempt` as long as pf is busy, until the deadline. The buffer for redirect addresses is shared by the whole
    /// host, so any program that loads rules at the same time causes EBUSY in the next call here: the pause is short, grows, and
    /// differs for each process.
    fn retry_while_busy<T>(&self, mut attempt: impl FnMut() -> Answer<T>) -> Result<T> {
        const LONGEST_PAUSE: u64 = 50_000;
        let deadline = self.deadline.get();
        let mut most = 500;
        loop {
            match self.kernel.renew().and_then(|()| attempt()) {
                Err(failure) if failure.is_busy() && !deadline.passed() => {
                    let pause = Duration::from_micros(fastrand::u64(most / 4..=most));
                    thread::sleep(pause.min(deadline.remaining()));
                    most = (most * 2).min(LONGEST_PAUSE);
                }
                done => return Ok(done?),
            }
        }
    }

    fn enabled(&self) -> Answer<bool> {
        let (enabled, run) = read::status(self)?;
        self.run.replace(Some(run));
        Ok(enabled)
    }

    fn run(&self) -> Answer<Run> {
        if self.run.borrow().is_none() {
            self.enabled.set(Some(self.enabled()?));
        }
        Ok(self.run.borrow().clone().unwrap_or_default())
    }

    /// The main ruleset with the anchors in its braces: read only if it is not the one that is remembered.
    fn main(&self) -> Answer<Main> {
        let run = self.run()?;
        let known = self.main.take().filter(|main| main.run == run).or_else(|| self.memory.main(&run));
        if let Some(main) = &known {
            let mut same = true;
            for (path, stamps) in &main.stamps {
                same = same && read::stamps(self, path, EVERY)? == *stamps;
            }
            if same {
                self.main.replace(known.clone());
                return Ok(main.clone());
            }
        }
        self.read_main(&run, known.as_ref())
    }

    fn read_main(&self, run: &Run, before: Option<&Main>) -> Answer<Main> {
        let (rulesets, stamps) = rulesets::main(self)?;
        let main = Main::new(run, stamps, Conf { rulesets, ..Conf::default() });
        // different rules with the same checksum are not from a load: each time they are read again
        let is_loaded = before.is_none_or(|before| before.is(&main) || self.memory.rules(before) == main.conf);
        if is_loaded {
            self.memory.learn(&main);
        }
        self.main.replace(is_loaded.then(|| main.clone()));
        Ok(main)
    }

    /// The current settings of pf, which have no ticket.
    fn settings(&self) -> Answer<Settings> {
        let syncookies = read::syncookies(self)?;
        let (skip, unread) = match read::skipped(self)? {
            Some(skip) => (skip, vec![]),
            None => (vec![], vec!["set skip: this kernel's struct pfi_kif differs".to_owned()]),
        };
        Ok(Settings { skip, syncookies, unread })
    }

    fn settled(&self, main: Main, settings: Settings) -> Answer<Arc<Conf>> {
        let rules = match self.memory.rules(&main) {
            Some(rules) => rules,
            // what is found about it from here on is about what is read now
            None => self.read_main(&self.run()?, Some(&main))?.conf.unwrap_or_default(),
        };
        let Settings { skip, syncookies, unread } = settings;
        Ok(Arc::new(Conf { rulesets: rules.rulesets.clone(), skip, syncookies, unread, ..Conf::default() }))
    }

    /// The main ruleset whose tickets were last read.
    fn seen(&self) -> Answer<Main> {
        let seen = self.main.borrow().clone();
        seen.map_or_else(|| self.main(), Ok)
    }

    /// The anchors that rules of `anchor` call.
    fn called(&self, anchor: &str, rules: &[rule::Rule], own: bool) -> Answer<Vec<String>> {
        let mut called = vec![];
        for rule in rules {
            if let Action::Call(_, call) = &rule.action
                && let call = Called::resolve(anchor, call)
                && (own || !path::is_own(&call.path))
            {
                called.extend(call.anchors(|parent| read::children(self, parent))?);
            }
        }
        Ok(called)
    }

    fn add_tables(&self, anchor: &str, names: &BTreeSet<String>, conf: &mut Conf) -> Answer<()> {
        for name in names {
            if let Some(table) = read::table(self, anchor, name)? {
                conf.tables.insert(name.clone(), table);
            }
        }
        Ok(())
    }

    fn holds_now(&self, anchor: &Anchor, rules: &[Rule], by_tickets: bool) -> Result<bool> {
        self.retry_while_busy(|| {
            let run = self.run()?;
            let stamps = read::stamps(self, anchor.path(), LOADED)?;
            if by_tickets && self.memory.holds(&run, anchor, &stamps, rules) {
                return Ok(true);
            }
            let holds = rulesets::holds(self, anchor.path(), stamps, &flat(rules))?;
            if holds {
                self.memory.loaded(&run, anchor, stamps, rules);
            }
            Ok(holds)
        })
    }

    /// Changes the tree of calls, if pf has what is remembered of the part that changes; otherwise `None`.
    fn change_calls(&self, change: &Change) -> Answer<Option<bool>> {
        let run = self.run()?;
        let mut seen = BTreeMap::new();
        let load = |node: Option<&Block>| {
            let path = calling::path(node);
            let stamps = read::stamps(self, &path, LOADED).map_err(Some)?;
            seen.insert(node.copied(), stamps);
            self.memory.calls(&run, &path, &stamps).ok_or(None)
        };
        let new = match calling::change(load, &change.removed, &change.added) {
            Ok(new) => new,
            Err(None) => return Ok(None),
            Err(Some(failure)) => return Err(failure),
        };
        let changed = new.into_iter().filter(|(_, old, new)| old != new).map(|(node, old, new)| {
            let stamps = seen.get(&node).copied().unwrap_or_default();
            Ruleset::new(calling::path(node.as_ref()), &old, &new, stamps)
        });
        let mut changed: Vec<Ruleset> = changed.collect();
        // those without a difference first: if this is cut off, the tickets of another one are not those that are remembered
        changed.sort_by_key(|ruleset| ruleset.differences() > 0);
        let same = changed.partition_point(|ruleset| ruleset.differences() == 0);
        self.give(&run, &mut changed, |rulesets| calls::change(self, &mut rulesets[same..]))?;
        Ok(Some(same < changed.len()))
    }

    /// Gives rulesets their calls by `how`, and remembers them. The tickets of a node begin again if it is removed: what is remembered
    /// of it goes before that, in case of a kill after it.
    fn give(&self, run: &Run, rulesets: &mut [Ruleset], how: impl FnOnce(&mut [Ruleset]) -> Answer<()>) -> Answer<()> {
        for ruleset in rulesets.iter().filter(|ruleset| ruleset.is_node_that_comes_or_goes()) {
            self.memory.forget_calls(&ruleset.path);
        }
        how(rulesets)?;
        for Ruleset { path, stamps, items, .. } in rulesets {
            self.memory.learn_calls(run, path, *stamps, items);
        }
        Ok(())
    }

    /// Makes the tree of calls that of these entries. Without `by_tickets`, the calls that pf has are read.
    fn make_calls(&self, all: &[Entry], by_tickets: bool) -> Answer<bool> {
        let run = self.run()?;
        let wanted = calling::whole(all).into_iter().map(|(node, items)| (calling::path(node.as_ref()), items));
        let mut wanted: BTreeMap<String, _> = wanted.collect();
        let nodes = format!("{PARENT}/{NODES}");
        for name in read::children(self, &nodes)? {
            wanted.entry(format!("{nodes}/{name}")).or_default();
        }
        let mut changed = vec![];
        for (path, items) in wanted {
            let stamps = read::stamps(self, &path, LOADED)?;
            let known = self.memory.calls(&run, &path, &stamps).is_some_and(|known| known == items);
            let same = match by_tickets && !items.is_empty() {
                true => known,
                false => rulesets::holds(self, &path, stamps, &calling::calls(path != PARENT, &items))?,
            };
            match same {
                false => changed.push(Ruleset::new(path, &[], &items, stamps)),
                true if known => {}
                true => self.memory.learn_calls(&run, &path, stamps, &items),
            }
        }
        if !changed.is_empty() {
            self.give(&run, &mut changed, |rulesets| calls::load(self, rulesets))?;
        }
        Ok(!changed.is_empty())
    }

    /// The number of rules of each anchor of kport that is not empty.
    fn counts(&self, recorded: &[Anchor]) -> Answer<BTreeMap<String, Loaded>> {
        let mut found = BTreeMap::new();
        for anchor in recorded {
            let stamps = read::stamps(self, anchor.path(), LOADED)?;
            if stamps != [(0, 0); 3] {
                found.insert(anchor.child().to_owned(), uncounted(stamps));
            }
        }
        // the nodes' own parent holds no rules
        let nodes = read::number_of_children(self, &format!("{PARENT}/{NODES}"))? > 0;
        let mut known: Vec<&str> = found.keys().map(String::as_str).chain(nodes.then_some(NODES)).collect();
        known.sort_unstable();
        for child in read::other_children(self, PARENT, &known)? {
            let stamps = read::stamps(self, &format!("{PARENT}/{child}"), LOADED)?;
            found.insert(child, uncounted(stamps));
        }
        // one that was rolled back remains, empty, until the next load
        found.retain(|_, loaded| !loaded.is_empty());
        Ok(found)
    }

    fn loaded_once(&self, anchor: &str, counters: bool) -> Answer<Loaded> {
        let stamps = read::stamps(self, anchor, LOADED)?;
        let mut loaded = uncounted(stamps);
        if counters {
            // what nat rules count is not used
            let [(nat, _), rdr, _] = stamps;
            loaded.translations.truncate(nat as usize);
            loaded.translations.append(&mut self.counters(anchor, RuleKind::Rdr, rdr)?);
        }
        Ok(loaded)
    }

    /// The counters of each rule (pf_krule_to_nvrule in sys/netpfil/pf/pf_nv.c).
    fn counters(&self, anchor: &str, kind: RuleKind, stamp: Stamp) -> Answer<Vec<Counters>> {
        let counters = |at: &RulesetAt<'_>| {
            let rule = read::rule(self, at)?;
            let sum = |name| rule.numbers(name).map(|both| both.iter().fold(0u64, |sum, one| sum.saturating_add(*one)));
            Ok(Counters { packets: sum("packets")?, bytes: sum("bytes")?, states: rule.number("states_tot")? })
        };
        read::each(anchor, kind, stamp, counters).collect()
    }
}

/// The kernel until the deadline: after it, no rule is read.
impl<K: Kernel> Kernel for Native<K> {
    fn call(&self, call: Call<'_>) -> Answer<()> {
        match matches!(call, Call::GetRule(_)) && self.deadline.get().passed() {
            true => Err(Failure::new(call.name(), libc::ETIMEDOUT)),
            false => self.kernel.call(call),
        }
    }

    fn ask(&self, command: Command, request: &Attributes) -> Answer<Vec<u8>> {
        match command == Command::Rule && self.deadline.get().passed() {
            true => Err(Failure::new(command.name(), libc::ETIMEDOUT)),
            false => self.kernel.ask(command, request),
        }
    }
}

impl<K: Kernel> Firewall for Native<K> {
    fn name(&self) -> &'static str {
        "native"
    }

    fn labels_mappings(&self) -> bool {
        // a struct has room for one label
        false
    }

    fn set_deadline(&self, deadline: Deadline) {
        self.deadline.set(deadline);
    }

    fn locked(&self, _lock: BorrowedFd<'_>) {
        self.enabled.set(None);
    }

    fn replace(&self, anchor: &Anchor, rules: &[Rule]) -> Result<()> {
        self.enabled.set(None);
        let stamps = self.retry_while_busy(|| transaction::load(self, anchor, rules))?;
        if rules.is_empty() {
            self.memory.cleared(anchor);
        } else if let Some(run) = &*self.run.borrow() {
            self.memory.loaded(run, anchor, stamps, rules);
        }
        Ok(())
    }

    fn clear(&self, anchor: &Anchor) -> Result<bool> {
        let stamps = self.retry_while_busy(|| read::stamps(self, anchor.path(), LOADED))?;
        let there = stamps.iter().any(|(count, _)| *count > 0);
        if there {
            self.replace(anchor, &[])?;
        }
        Ok(there)
    }

    fn call(&self, change: Option<&Change>, all: &mut AllCalls<'_>) -> Result<bool> {
        if let Some(change) = change
            && let Some(changed) = self.retry_while_busy(|| self.change_calls(change))?
        {
            return Ok(changed);
        }
        let all = all()?;
        self.retry_while_busy(|| self.make_calls(&all, change.is_some()))
    }

    /// As remembered, if pf has the tickets of that; otherwise the calls are read.
    fn called(&self, among: Option<&[Entry]>, thorough: bool) -> Result<Option<Vec<Entry>>> {
        self.retry_while_busy(|| {
            let run = self.run()?;
            let mut read = |path: &str| {
                let stamps = read::stamps(self, path, LOADED)?;
                match self.memory.calls(&run, path, &stamps).filter(|_| !thorough) {
                    Some(items) => Ok(calling::Call::of_items(path != PARENT, &items).collect()),
                    None => Ok(calling::Call::of_rules(&rulesets::calls(self, path)?)),
                }
            };
            calling::led_to(among, &mut read).map(Some)
        })
    }

    fn anchors(&self) -> Result<Vec<String>> {
        Ok(self.retry_while_busy(|| self.counts(&[]))?.into_keys().collect())
    }

    fn loaded(&self, anchor: &Anchor, counters: bool) -> Result<Loaded> {
        self.enabled.set(None);
        self.retry_while_busy(|| self.loaded_once(anchor.path(), counters))
    }

    fn filter_counters(&self, anchor: &Anchor) -> Result<Vec<Counters>> {
        let (anchor, kind) = (anchor.path(), RuleKind::Filter);
        self.retry_while_busy(|| {
            let [stamp] = read::stamps(self, anchor, [kind])?;
            self.counters(anchor, kind, stamp)
        })
    }

    fn loaded_all(&self, recorded: &[Anchor], counters: bool) -> Result<BTreeMap<String, Loaded>> {
        self.enabled.set(None);
        let mut all = self.retry_while_busy(|| self.counts(recorded))?;
        for (child, loaded) in all.iter_mut().filter(|_| counters) {
            *loaded = self.retry_while_busy(|| self.loaded_once(&format!("{PARENT}/{child}"), true))?;
        }
        Ok(all)
    }

    fn holds(&self, anchor: &Anchor, rules: &[Rule]) -> Result<bool> {
        self.holds_now(anchor, rules, false)
    }

    /// By the tickets and numbers of rules at its last load, if they are known: see [`memory`].
    fn still_holds(&self, anchor: &Anchor, rules: &[Rule]) -> Result<bool> {
        self.holds_now(anchor, rules, true)
    }

    fn kill_states(&self, states: &[States]) -> Result<u64> {
        self.kernel.renew()?;
        let table = read::StateTable::read(self, states)?;
        let mut killed = 0;
        for states in states.iter().filter(|states| table.as_ref().is_none_or(|table| table.may_have(states))) {
            // before 15 the kernel compares the destination before the redirect only (its pf_killstates_row has no
            // psk_nat): then only those of udp are ended, since its next packet makes a new state by the rules
            let needs_15 = states.jail.is_none() && !matches!(states.ports, Some((Protocol::Udp, _)));
            if !needs_15 || read::is_15(self)? {
                killed += read::kill_states(self, states)?;
            }
        }
        Ok(killed)
    }

    fn status(&self) -> Result<Status> {
        self.retry_while_busy(|| {
            let enabled = self.enabled.take().map_or_else(|| self.enabled(), Ok)?;
            Ok(Status::of(enabled, &self.main()?.outline))
        })
    }

    fn foreign_redirects(&self) -> Result<Vec<ForeignRedirect>> {
        self.retry_while_busy(|| {
            let main = self.main()?.outline;
            let rules = |anchor: &str, kind| match main.rulesets.get(anchor) {
                Some(rules) => Ok(rules.iter().filter(|rule| rule.action.kind() == kind).cloned().collect()),
                // each time: the tickets of an anchor that was removed and created again start at the beginning
                None => {
                    let [stamp] = read::stamps(self, anchor, [kind])?;
                    rulesets::rules(self, anchor, kind, stamp)
                }
            };
            foreign::redirects(rules, |anchor| read::children(self, anchor))
        })
    }

    fn has_table(&self, table: &Table) -> Result<bool> {
        self.kernel.renew()?;
        Ok(read::addresses(self, "", table.as_str(), &mut [])?.is_some())
    }

    /// If an anchor is called, those in its braces are also listed by their own paths, since they may have tables.
    fn rulesets(&self, own: bool) -> Result<Rulesets> {
        let main = self.retry_while_busy(|| self.settled(self.main()?, self.settings()?))?;
        let mut found: Vec<(String, Conf)> = vec![];
        let mut seen = BTreeSet::from([String::new()]);
        let mut waiting = VecDeque::from([String::new()]);
        while let Some(path) = waiting.pop_front() {
            if !found.is_empty() && self.deadline.get().passed() {
                return Err(error!(Busy, "the time is up after the rules of {} anchors", found.len() - 1));
            }
            let (conf, called) = self.retry_while_busy(|| {
                let rules = match main.rulesets.get(&path) {
                    Some(rules) => rules.clone(),
                    None => rulesets::rules_of_all(self, &path, read::stamps(self, &path, EVERY)?)?,
                };
                let called = self.called(&path, &rules, own)?;
                let rulesets = BTreeMap::from([(String::new(), rules)]);
                let mut conf = Conf { rulesets, ..Conf::default() };
                // kport's rules name those of the main ruleset
                if !path.is_empty() && !path::is_own(&path) {
                    let names = conf.named_tables().into_iter().map(str::to_owned).collect();
                    self.add_tables(&path, &names, &mut conf)?;
                }
                Ok((conf, called))
            })?;
            waiting.extend(called.into_iter().filter(|path| seen.insert(path.clone())));
            found.push((path, conf));
        }
        let named = found.iter().flat_map(|(_, conf)| conf.named_tables()).map(str::to_owned).collect();
        let main = self.retry_while_busy(|| {
            let mut main = (*main).clone();
            self.add_tables("", &named, &mut main)?;
            main.ether = match read::ether_rules(self)? {
                0 => vec![],
                1 => vec!["one rule".to_owned()],
                many => vec![format!("{many} rules")],
            };
            Ok(main)
        })?;
        if let Some((_, first)) = found.first_mut() {
            *first = main;
        }
        Ok(found.into_iter().map(|(path, conf)| (path, Arc::new(conf))).collect())
    }

    fn main_ruleset(&self) -> Result<Arc<Conf>> {
        self.retry_while_busy(|| {
            let known = self.settings.borrow().clone();
            self.settled(self.seen()?, known.map_or_else(|| self.settings(), Ok)?)
        })
    }

    fn kept(&self) -> Result<Option<String>> {
        let (main, settings) = self.retry_while_busy(|| Ok((self.seen()?, self.settings()?)))?;
        self.settings.replace(Some(settings.clone()));
        Ok(main.found.filter(|(with, _)| *with == settings).map(|(_, found)| found))
    }

    fn keep(&self, found: &str) {
        if let (Some(main), Some(settings)) = (&mut *self.main.borrow_mut(), &*self.settings.borrow()) {
            main.found = Some((settings.clone(), found.to_owned()));
            self.memory.keep(main);
        }
    }
}

/// The rules of rulesets with these stamps, in the order of [`LOADED`].
fn uncounted([(nat, _), (rdr, _), (filter, _)]: [Stamp; 3]) -> Loaded {
    Loaded::uncounted(Count { translations: (nat + rdr) as usize, filters: filter as usize })
}
