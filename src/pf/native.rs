//! The native backend: pf(4) through its device.
//!
//! Rules are written as structs (DIOCADDRULE, which FreeBSD 14 and 15 both accept), everything for which 15 has no struct as
//! nvlists. All of it except [`ioctl`] is ordinary code that runs on any system with a stand-in for the kernel.
//!
//! It does not start a child process: the rules of others are also decoded from the kernel's reply, by nvlist, and on 15 by
//! [netlink], which has more fields.

mod compare;
mod decode;
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
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use once_cell::race::OnceBox;
use zerocopy::FromZeros;

use self::ioctl::Device;
use self::kernel::{Call, Failure, Kernel, Nv};
use self::layout::PfiocRule;
pub use self::memory::Memory;
use self::memory::{CacheFile, Run};
use super::{Counters, Firewall, ForeignRedirect, Loaded, Rulesets, States, Status};
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::name::{Anchor, PARENT, Table};
use crate::net::Protocol;
use crate::pfconf::Conf;
use crate::pfconf::path::{self, Called};
use crate::pfconf::rule::{self, Action, RuleKind};
use crate::rule::Rule;

/// pf through its device, or through a stand-in for it.
pub struct Native<K = Device> {
    kernel: K,
    deadline: Cell<Deadline>,
    memory: Memory,
    /// where the memory is kept for later processes
    cache: Option<CacheFile>,
    /// the run of pf that the memory is about, from the last status
    run: RefCell<Option<Run>>,
    /// the main ruleset when it was last read
    main: RefCell<Option<Arc<Conf>>>,
}

impl Native {
    /// The backend, if this kernel has all that it needs; otherwise the reason, for `-v` and for an explicit `--backend
    /// native`. The kernel is probed once for each process. `deadline` limits every operation.
    #[cfg_attr(not(target_os = "freebsd"), allow(unreachable_code, reason = "there is no device"))]
    pub fn probe(deadline: Deadline) -> Result<Native> {
        // nobody waits for another thread: a child that was forked meanwhile does not have it
        static PROBED: AtomicBool = AtomicBool::new(false);
        static MEMORY: OnceBox<Memory> = OnceBox::new();
        let kernel = Device::open()?;
        if !PROBED.load(Ordering::Relaxed) {
            probe(&kernel)?;
            PROBED.store(true, Ordering::Relaxed);
        }
        Ok(Native::over(kernel, deadline).with_memory(MEMORY.get_or_init(Box::default)))
    }
}

/// The interfaces and groups that pf skips (`set skip on`), read through its device; `None` if this system's kernel does not
/// report them, but pfctl(8) may. It costs far less than a run of pfctl(8), and reads all interfaces of the host as that
/// does.
pub fn skipped() -> Option<Vec<String>> {
    read::skipped(&Device::open().ok()?).ok()?
}

/// The error of loading these rules if pf has no number left for one of their tags. Nothing is loaded.
pub fn out_of_tags(anchor: &Anchor, rules: &[Rule]) -> Option<Error> {
    transaction::out_of_tags(&Device::open().ok()?, anchor, rules).map(Error::from)
}

/// Whether the kernel has the calls that differ between releases. Changes nothing. A caller that may only read pf gets the
/// error when it tries to change something.
pub fn probe<K: Kernel>(kernel: &K) -> Result<()> {
    // no room for a reply: only its length is returned (pf_getstatus in sys/netpfil/pf/pf_ioctl.c)
    let mut status = Nv { buffer: vec![], length: 0 };
    kernel.call(Call::GetStatus(&mut status))?;
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
    /// The backend over a kernel that need not be probed, with a memory of its own.
    pub fn over(kernel: K, deadline: Deadline) -> Native<K> {
        Native {
            kernel,
            deadline: Cell::new(deadline),
            memory: Memory::default(),
            cache: None,
            run: RefCell::new(None),
            main: RefCell::new(None),
        }
    }

    /// The same, with the memory of another backend in this process.
    #[must_use]
    pub fn with_memory(self, memory: &Memory) -> Native<K> {
        Native { memory: memory.clone(), ..self }
    }

    /// The same, and what it learns of the main rulesets is left in a file for later processes; `boot` is the current boot,
    /// from [`Host::boot_id`](crate::host::Host::boot_id).
    #[must_use]
    pub fn with_cache(self, path: PathBuf, boot: String) -> Native<K> {
        Native { cache: Some(CacheFile { path, boot }), ..self }
    }

    /// The interfaces and groups that pf skips, like [`skipped`].
    #[cfg(feature = "internals")]
    pub fn skipped(&self) -> Result<Option<Vec<String>>> {
        Ok(read::skipped(&self.kernel)?)
    }

    /// An operation that is repeated while pf is busy.
    fn retry_while_busy<T>(&self, attempt: impl FnMut() -> std::result::Result<T, Failure>) -> Result<T> {
        Ok(transaction::retry_while_busy(self.deadline.get(), attempt)?)
    }

    /// Whether pf is enabled.
    fn enabled(&self) -> std::result::Result<bool, Failure> {
        let status = read::status(&self.kernel)?;
        self.run.replace(Some(Run { hostid: status.hostid, checksum: status.checksum }));
        Ok(status.enabled)
    }

    /// The run of pf, read once.
    fn run(&self) -> std::result::Result<Run, Failure> {
        if self.run.borrow().is_none() {
            self.enabled()?;
        }
        Ok(self.run.borrow().clone().unwrap_or_default())
    }

    /// The main ruleset with the anchors in its braces: read only if it is not the one that was read before. Its settings are
    /// those of that time.
    fn main(&self) -> std::result::Result<Arc<Conf>, Failure> {
        let run = self.run()?;
        let main = match self.remembered(&run)? {
            Some(main) => main,
            None => {
                let mut stamps = vec![];
                let rulesets = rulesets::with_braces(&self.kernel, "", &mut stamps)?;
                let main = Arc::new(Conf { rulesets, ..Conf::default() });
                // different rules with the same checksum are not from a load
                if self.memory.main(&run).is_none_or(|(_, before)| before.rulesets == main.rulesets) {
                    if let Some(cache) = &self.cache {
                        memory::leave(cache, &run, &stamps, &main);
                    }
                    self.memory.learn(&run, stamps, Arc::clone(&main));
                }
                main
            }
        };
        self.main.replace(Some(Arc::clone(&main)));
        Ok(main)
    }

    /// The main ruleset that this process, or an earlier one, remembers, if pf still has it.
    fn remembered(&self, run: &Run) -> std::result::Result<Option<Arc<Conf>>, Failure> {
        for file in [None, self.cache.as_ref()] {
            if let Some(file) = file {
                self.memory.read(run, file);
            }
            let Some((stamps, main)) = self.memory.main(run) else { continue };
            let mut same = true;
            for (path, stamps) in stamps {
                same = same && read::every_stamp(&self.kernel, &path)? == stamps;
            }
            if same {
                return Ok(Some(main));
            }
        }
        Ok(None)
    }

    /// `main` with the current settings of pf, which have no ticket.
    fn settled(&self, main: Arc<Conf>) -> std::result::Result<Arc<Conf>, Failure> {
        let syncookies = read::syncookies(&self.kernel)?;
        let (skip, unread) = match read::skipped(&self.kernel)? {
            Some(skip) => (skip, vec![]),
            None => (vec![], vec!["set skip: this kernel's struct pfi_kif differs".to_owned()]),
        };
        if (main.syncookies, &main.skip, &main.unread) == (syncookies, &skip, &unread) {
            return Ok(main);
        }
        let settled = Arc::new(Conf { rulesets: main.rulesets.clone(), skip, syncookies, unread, ..Conf::default() });
        self.memory.settle(&self.run()?, &main, Arc::clone(&settled));
        self.main.replace(Some(Arc::clone(&settled)));
        Ok(settled)
    }

    /// The anchors that rules of `anchor` call.
    fn called(&self, anchor: &str, rules: &[rule::Rule]) -> std::result::Result<Vec<String>, Failure> {
        let mut called = vec![];
        for rule in rules {
            if let Action::Call(_, call) = &rule.action {
                let call = Called::resolve(anchor, call);
                called.extend(call.anchors(|parent| read::children(&self.kernel, parent))?);
            }
        }
        Ok(called)
    }

    /// The tables of an anchor with these names.
    fn add_tables(&self, anchor: &str, names: &BTreeSet<String>, conf: &mut Conf) -> std::result::Result<(), Failure> {
        for name in names {
            if let Some(table) = read::table(&self.kernel, anchor, name)? {
                conf.tables.insert(name.clone(), table);
            }
        }
        Ok(())
    }

    /// The rules of each anchor of kport that is not empty, as far as the number of rules in its rulesets shows.
    fn counts(&self) -> std::result::Result<Vec<(String, [u32; 3])>, Failure> {
        let mut found = Vec::new();
        for child in read::children(&self.kernel, PARENT)? {
            let counts = read::stamps(&self.kernel, &format!("{PARENT}/{child}"))?.map(|(count, _)| count);
            // one that was rolled back remains, empty, until the next load
            if counts != [0; 3] {
                found.push((child, counts));
            }
        }
        Ok(found)
    }

    fn loaded_once(&self, anchor: &str) -> std::result::Result<Loaded, Failure> {
        let mut translations = 0;
        for ruleset in [RuleKind::Nat, RuleKind::Rdr] {
            translations += read::count(&self.kernel, anchor, ruleset)?.0 as usize;
        }
        let rules = read::rules(&self.kernel, anchor, RuleKind::Filter)?;
        let filters: std::result::Result<Vec<_>, _> = rules.iter().map(|rule| counters(&rule.rule)).collect();
        let filters = filters.map_err(|malformed| read::unreadable("DIOCGETRULENV", &malformed))?;
        Ok(Loaded { translations, filters })
    }
}

/// What the search for redirects reads from the kernel.
struct Asked<'n, K> {
    native: &'n Native<K>,
    main: Arc<Conf>,
}

impl<K: Kernel> super::foreign::RulesetReader for Asked<'_, K> {
    type Error = Failure;

    /// EBUSY if a ruleset was loaded again meanwhile. Anchors other than those in the main ruleset's braces are read each
    /// time: the tickets of one that was removed and created again start at the beginning.
    fn each(
        &self,
        anchor: &str,
        kind: RuleKind,
        show: &mut dyn FnMut(&rule::Rule),
    ) -> std::result::Result<(), Failure> {
        if let Some(rules) = self.main.rulesets.get(anchor) {
            rules.iter().filter(|rule| rule.action.kind() == kind).for_each(show);
            return Ok(());
        }
        let kernel = &self.native.kernel;
        let rules = rulesets::rules(kernel, anchor, kind, read::count(kernel, anchor, kind)?)?;
        rules.iter().for_each(show);
        Ok(())
    }

    fn children(&self, anchor: &str) -> std::result::Result<Vec<String>, Failure> {
        read::children(&self.native.kernel, anchor)
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

    fn replace(&self, anchor: &Anchor, rules: &[Rule]) -> Result<()> {
        let stamps = self.retry_while_busy(|| transaction::load(&self.kernel, anchor, rules))?;
        if let Some(run) = &*self.run.borrow() {
            self.memory.loaded(run, anchor.path(), stamps, rules);
        }
        Ok(())
    }

    fn clear(&self, anchor: &Anchor) -> Result<bool> {
        let stamps = self.retry_while_busy(|| read::stamps(&self.kernel, anchor.path()))?;
        let there = stamps.iter().any(|(count, _)| *count > 0);
        if there {
            self.replace(anchor, &[])?;
        }
        Ok(there)
    }

    fn anchors(&self) -> Result<Vec<String>> {
        let counts = self.retry_while_busy(|| self.counts())?;
        Ok(counts.into_iter().map(|(child, _)| child).collect())
    }

    fn loaded(&self, anchor: &Anchor) -> Result<Loaded> {
        self.retry_while_busy(|| self.loaded_once(anchor.path()))
    }

    fn loaded_all(&self, counters: bool) -> Result<BTreeMap<String, Loaded>> {
        let mut all = BTreeMap::new();
        for (child, [nat, rdr, filter]) in self.retry_while_busy(|| self.counts())? {
            let loaded = match counters {
                true => self.retry_while_busy(|| self.loaded_once(&format!("{PARENT}/{child}")))?,
                false => {
                    Loaded { translations: (nat + rdr) as usize, filters: vec![Counters::default(); filter as usize] }
                }
            };
            all.insert(child, loaded);
        }
        Ok(all)
    }

    fn holds(&self, anchor: &Anchor, rules: &[Rule]) -> Result<bool> {
        self.retry_while_busy(|| {
            let run = self.run()?;
            let stamps = read::stamps(&self.kernel, anchor.path())?;
            if self.memory.holds(&run, anchor.path(), &stamps, rules) {
                return Ok(true);
            }
            let holds = compare::holds(&self.kernel, anchor.path(), &stamps, rules)?;
            if holds {
                self.memory.loaded(&run, anchor.path(), stamps, rules);
            }
            Ok(holds)
        })
    }

    fn unchanged(&self, anchor: &Anchor, rules: &[Rule]) -> Result<Option<Status>> {
        // the status first: it tells which run of pf it is
        let status = self.status()?;
        Ok(self.holds(anchor, rules)?.then_some(status))
    }

    fn kill_states(&self, states: &[States]) -> Result<u64> {
        let kill = |states: &States| {
            // before 15 the kernel compares the destination before the redirect only (its pf_killstates_row has no
            // psk_nat): then only those of udp are ended, since its next packet makes a new state by the rules
            let own = |protocol| Ok::<_, Error>(protocol == Protocol::Udp || read::is_15(&self.kernel)?);
            match states {
                States::ToHost { protocol, .. } if !own(*protocol)? => Ok(0),
                _ => Ok(read::kill_states(&self.kernel, states)?),
            }
        };
        states.iter().map(kill).sum()
    }

    fn status(&self) -> Result<Status> {
        self.retry_while_busy(|| {
            let enabled = self.enabled()?;
            let [nat_anchor, rdr_anchor, anchor] = self.main()?.calls_kport();
            Ok(Status { enabled, nat_anchor, rdr_anchor, anchor })
        })
    }

    fn foreign_redirects(&self) -> Result<Vec<ForeignRedirect>> {
        self.retry_while_busy(|| super::foreign::redirects(&Asked { native: self, main: self.main()? }))
    }

    fn has_table(&self, table: &Table) -> Result<bool> {
        Ok(read::has_table(&self.kernel, table.as_str())?)
    }

    /// If an anchor is called, those in its braces are also listed by their own paths, since they may have tables.
    fn rulesets(&self) -> Result<Rulesets> {
        let main = self.retry_while_busy(|| self.settled(self.main()?))?;
        let mut found: Vec<(String, Conf)> = vec![];
        let mut seen = BTreeSet::from([String::new()]);
        let mut waiting = VecDeque::from([String::new()]);
        while let Some(path) = waiting.pop_front() {
            if !found.is_empty() && self.deadline.get().passed() {
                let why = format!("the time is up after the rules of {} anchors", found.len() - 1);
                return Err(Error::new(Kind::Busy, why));
            }
            let (conf, called) = self.retry_while_busy(|| {
                let rules = match main.rulesets.get(&path) {
                    Some(rules) => rules.clone(),
                    None => rulesets::rules_of_all(&self.kernel, &path)?,
                };
                let called = self.called(&path, &rules)?;
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
            main.ether = match read::ether_rules(&self.kernel)? {
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
            let seen = self.main.borrow().clone();
            self.settled(seen.map_or_else(|| self.main(), Ok)?)
        })
    }
}

/// The counters of a rule (pf_krule_to_nvrule in sys/netpfil/pf/pf_nv.c).
fn counters(rule: &nv::List) -> std::result::Result<Counters, nv::Malformed> {
    let sum = |name| rule.numbers(name).map(|both| both.iter().fold(0u64, |sum, one| sum.saturating_add(*one)));
    Ok(Counters {
        evaluations: rule.number("evaluations")?,
        packets: sum("packets")?,
        bytes: sum("bytes")?,
        states: rule.number("states_tot")?,
    })
}
