//! The native backend: pf(4) by its device.
//!
//! Rules go in as structs (DIOCADDRULE, which FreeBSD 14 and 15 both take), everything for which 15 left no struct as
//! nvlists. All of it but [`ioctl`] is ordinary code that any system can run against a stand-in for the kernel.
//!
//! What loads, clears, lists and ends states starts no child process. What needs rules of others as text does:
//! [`Firewall::rulesets`] and [`Firewall::anchors_of_all`], for `kport trace` and `kport doctor`, and
//! [`Firewall::main_ruleset`], once for each main ruleset that was loaded, run pfctl(8), which knows how to write the rules of
//! its kernel.

mod compare;
pub mod descriptor;
pub mod encode;
mod foreign;
#[allow(unsafe_code)]
pub mod ioctl;
pub mod kernel;
pub mod layout;
mod memory;
pub mod nv;
mod read;
pub mod transaction;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use once_cell::sync::OnceCell;
use zerocopy::FromZeros;

use self::encode::Ruleset;
use self::ioctl::Device;
use self::kernel::{Call, Failure, Kernel, Nv};
use self::layout::PfiocRule;
pub use self::memory::Memory;
use self::memory::{CacheFile, Learnt};
use super::foreign::{Called, Found};
use super::pfctl::{self, Pfctl};
use super::{Counters, Firewall, ForeignRedirect, Loaded, States, Status};
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result};
use crate::name::{Anchor, PARENT, Table};
use crate::rule::Rule;

/// pf by its device, or by whatever stands in for it.
pub struct Native<K = Device> {
    kernel: K,
    deadline: Cell<Deadline>,
    /// who writes rules as text
    pfctl: Pfctl,
    memory: Memory,
    /// where the memory outlives the process
    cache: Option<CacheFile>,
    /// the run of pf that the memory is about, as the last status said
    since: Cell<Option<u64>>,
    /// the stamps of the main rulesets at the last look
    main_stamps: Cell<[Option<(u32, u32)>; 4]>,
}

impl Native {
    /// The backend, where this kernel has all that it needs; otherwise the reason, for `-v` and for an explicit
    /// `--backend native`. The kernel is asked once for each process. `deadline` bounds every operation.
    pub fn probe(deadline: Deadline) -> Result<Native> {
        static PROBED: OnceCell<()> = OnceCell::new();
        static MEMORY: OnceCell<Memory> = OnceCell::new();
        let kernel = Device::open()?;
        PROBED.get_or_try_init(|| probe(&kernel))?;
        let memory = MEMORY.get_or_init(Memory::default).clone();
        Ok(Native {
            kernel,
            deadline: Cell::new(deadline),
            pfctl: Pfctl::new(pfctl::PROGRAM, deadline),
            memory,
            cache: None,
            since: Cell::new(None),
            main_stamps: Cell::default(),
        })
    }
}

/// The interfaces and groups that pf does not look at (`set skip on`), by its device; `None` where this system's kernel does not
/// tell, and pfctl(8) may. It costs far less than a run of pfctl(8), and goes through all interfaces of the host as that does.
pub fn skipped() -> Option<Vec<String>> {
    read::skipped(&Device::open().ok()?).ok()?
}

/// Whether the kernel knows the calls that differ between releases. Changes nothing. Whoever may only read pf learns that a
/// change is refused when he makes one.
pub fn probe<K: Kernel>(kernel: &K) -> Result<()> {
    // no room for a reply: only its length is told (pf_getstatus in sys/netpfil/pf/pf_ioctl.c)
    let mut status = Nv { buffer: vec![], length: 0 };
    kernel.call(Call::GetStatus(&mut status))?;
    // a rule that no release takes: the type of its address and the ICMP type of its answer do not exist. It is looked
    // at before its ticket is, and refused with EINVAL (pf_check_rule_addr, pf_ioctl_addrule); a kernel that does not
    // know the struct says ENODEV
    let mut rule = PfiocRule::new_zeroed();
    rule.rule.src.addr.kind = u8::MAX;
    rule.rule.return_icmp = u16::MAX;
    match kernel.call(Call::AddRule(&mut rule)) {
        Err(Failure { errno: libc::EINVAL, .. }) => Ok(()),
        // a descriptor for reading, kern.securelevel 3: looked at before the call itself is (pfioctl)
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
            pfctl: Pfctl::new(pfctl::PROGRAM, deadline),
            memory: Memory::default(),
            cache: None,
            since: Cell::new(None),
            main_stamps: Cell::default(),
        }
    }

    /// The same, and this is the pfctl(8) to run where rules are needed as text.
    #[must_use]
    pub fn with_pfctl(self, pfctl: Pfctl) -> Native<K> {
        Native { pfctl, ..self }
    }

    /// The same, with the memory of another one in this process.
    #[must_use]
    pub fn with_memory(self, memory: &Memory) -> Native<K> {
        Native { memory: memory.clone(), ..self }
    }

    /// The same, and what it learns of the main rulesets is left in a file for the processes behind it; `boot` is the boot of
    /// now, as [`Host::boot_id`](crate::host::Host::boot_id) says it.
    #[must_use]
    pub fn with_cache(self, path: PathBuf, boot: String) -> Native<K> {
        Native { cache: Some(CacheFile { path, boot }), ..self }
    }

    /// The interfaces and groups that pf does not look at, like [`skipped`].
    pub fn skipped(&self) -> Result<Option<Vec<String>>> {
        Ok(read::skipped(&self.kernel)?)
    }

    /// pf's limit of anchors (0 is none); `None` where the kernel has no such limit (before 15).
    pub fn anchor_limit(&self) -> Result<Option<u32>> {
        Ok(read::anchor_limit(&self.kernel)?)
    }

    /// An operation that is done again while pf is busy.
    fn retry_while_busy<T>(&self, attempt: impl FnMut() -> std::result::Result<T, Failure>) -> Result<T> {
        Ok(transaction::retry_while_busy(self.deadline.get(), attempt)?)
    }

    /// Whether pf is enabled.
    fn enabled(&self) -> std::result::Result<bool, Failure> {
        let (enabled, since) = read::status(&self.kernel)?;
        self.since.set(Some(since));
        Ok(enabled)
    }

    /// The run of pf, asked for once.
    fn since(&self) -> std::result::Result<u64, Failure> {
        if self.since.get().is_none() {
            self.enabled()?;
        }
        Ok(self.since.get().unwrap_or(0))
    }

    /// What a main ruleset says that concerns kport: read only where it is not the one that was read before.
    fn main(&self, ruleset: Ruleset) -> std::result::Result<Vec<Found>, Failure> {
        let since = self.since()?;
        let stamp = read::count(&self.kernel, "", ruleset)?;
        let mut stamps = self.main_stamps.get();
        stamps[ruleset as usize] = Some(stamp);
        self.main_stamps.set(stamps);
        if let Some(found) = self.memory.main(since, ruleset, stamp) {
            return Ok(found);
        }
        if let Some(cache) = &self.cache {
            self.memory.read(since, cache);
            if let Some(found) = self.memory.main(since, ruleset, stamp) {
                return Ok(found);
            }
        }
        let found = foreign::read(&self.kernel, "", ruleset, stamp)?;
        self.memory.learn(since, ruleset, Learnt { stamp, found: found.clone() });
        if let Some(cache) = &self.cache {
            self.memory.write(since, cache);
        }
        Ok(found)
    }

    /// The stamps of the main rulesets, as this transaction has seen them last.
    fn main_stamps(&self) -> std::result::Result<[(u32, u32); 3], Failure> {
        match self.main_stamps.get() {
            [Some(nat), Some(rdr), Some(filter), _] => Ok([nat, rdr, filter]),
            _ => read::stamps(&self.kernel, ""),
        }
    }

    /// What each anchor of kport's that holds something holds, as far as its rulesets' numbers of rules tell.
    fn counts(&self) -> std::result::Result<Vec<(String, [u32; 3])>, Failure> {
        let mut found = Vec::new();
        for child in read::children(&self.kernel, PARENT)? {
            let counts = read::stamps(&self.kernel, &format!("{PARENT}/{child}"))?.map(|(count, _)| count);
            // one that was rolled back stays, empty, until the next load
            if counts != [0; 3] {
                found.push((child, counts));
            }
        }
        Ok(found)
    }

    fn loaded_once(&self, anchor: &str) -> std::result::Result<Loaded, Failure> {
        let mut translations = 0;
        for ruleset in [Ruleset::Nat, Ruleset::Rdr] {
            translations += read::count(&self.kernel, anchor, ruleset)?.0 as usize;
        }
        let rules = read::rules(&self.kernel, anchor, Ruleset::Filter)?;
        let filters: std::result::Result<Vec<_>, _> = rules.iter().map(|rule| counters(&rule.rule)).collect();
        let filters = filters.map_err(|malformed| read::unreadable("DIOCGETRULENV", &malformed))?;
        Ok(Loaded { translations, filters })
    }
}

/// What the search for redirects asks of the kernel.
struct Rulesets<'n, K>(&'n Native<K>);

impl<K: Kernel> super::foreign::Reader for Rulesets<'_, K> {
    type Error = Failure;

    /// EBUSY where a ruleset was loaded anew meanwhile. Anchors are read each time: the tickets of one that was removed and made
    /// again start anew.
    fn read(&self, anchor: &str, ruleset: super::foreign::Ruleset) -> std::result::Result<Vec<Found>, Failure> {
        let ruleset = match ruleset {
            super::foreign::Ruleset::Rdr => Ruleset::Rdr,
            super::foreign::Ruleset::Binat => Ruleset::Binat,
            super::foreign::Ruleset::Filter => Ruleset::Filter,
        };
        if anchor.is_empty() {
            return self.0.main(ruleset);
        }
        foreign::read(&self.0.kernel, anchor, ruleset, read::count(&self.0.kernel, anchor, ruleset)?)
    }

    fn children(&self, anchor: &str) -> std::result::Result<Vec<String>, Failure> {
        read::children(&self.0.kernel, anchor)
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
        self.pfctl.set_deadline(deadline);
    }

    fn replace(&self, anchor: &Anchor, rules: &[Rule]) -> Result<()> {
        let stamps = self.retry_while_busy(|| transaction::load(&self.kernel, anchor, rules))?;
        if let Some(since) = self.since.get() {
            self.memory.loaded(since, anchor.path(), stamps, rules);
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
            let since = self.since()?;
            let stamps = read::stamps(&self.kernel, anchor.path())?;
            if self.memory.holds(since, anchor.path(), &stamps, rules) {
                return Ok(true);
            }
            let holds = compare::holds(&self.kernel, anchor.path(), &stamps, rules)?;
            if holds {
                self.memory.loaded(since, anchor.path(), stamps, rules);
            }
            Ok(holds)
        })
    }

    fn unchanged(&self, anchor: &Anchor, rules: &[Rule]) -> Result<Option<Status>> {
        // the status first: it says which run of pf it is
        let status = self.status()?;
        Ok(self.holds(anchor, rules)?.then_some(status))
    }

    fn kill_states(&self, states: &[States]) -> Result<u64> {
        states.iter().map(|states| Ok(read::kill_states(&self.kernel, states)?)).sum()
    }

    fn status(&self) -> Result<Status> {
        self.retry_while_busy(|| {
            let enabled = self.enabled()?;
            let calls = |ruleset| -> std::result::Result<bool, Failure> {
                let is_kport = |found: &Found| match found {
                    Found::Call(call) => Called::resolve("", call).is_kport(),
                    Found::Redirect(_) => false,
                };
                Ok(self.main(ruleset)?.iter().any(is_kport))
            };
            Ok(Status {
                enabled,
                nat_anchor: calls(Ruleset::Nat)?,
                rdr_anchor: calls(Ruleset::Rdr)?,
                anchor: calls(Ruleset::Filter)?,
            })
        })
    }

    fn foreign_redirects(&self) -> Result<Vec<ForeignRedirect>> {
        self.retry_while_busy(|| super::foreign::redirects(&Rulesets(self)))
    }

    fn has_table(&self, table: &Table) -> Result<bool> {
        Ok(read::has_table(&self.kernel, table.as_str())?)
    }

    fn rulesets(&self) -> Result<Vec<(String, String)>> {
        self.pfctl.rulesets()
    }

    /// Written by pfctl(8), once for each ruleset that was loaded. What it does not have is what was loaded by another means than
    /// `pfctl -f`: an interface that was skipped since.
    fn main_ruleset(&self) -> Result<String> {
        let (since, stamps) = self.retry_while_busy(|| Ok((self.since()?, self.main_stamps()?)))?;
        if let Some(text) = self.memory.text(since, &stamps) {
            return Ok(text);
        }
        // a host without pfctl(8) works by this backend as well
        let text = self.pfctl.main_ruleset().map_err(|error| Error::new(Kind::Unsupported, error.to_string()))?;
        self.memory.learn_text(since, stamps, text.clone());
        if let Some(cache) = &self.cache {
            self.memory.write(since, cache);
        }
        Ok(text)
    }

    fn anchors_of_all(&self) -> Result<(usize, Option<usize>)> {
        self.pfctl.anchors_of_all()
    }
}

/// What a rule has counted (pf_krule_to_nvrule in sys/netpfil/pf/pf_nv.c).
fn counters(rule: &nv::List) -> std::result::Result<Counters, nv::Malformed> {
    let sum = |name| rule.numbers(name).map(|both| both.iter().fold(0u64, |sum, one| sum.saturating_add(*one)));
    Ok(Counters {
        evaluations: rule.number("evaluations")?,
        packets: sum("packets")?,
        bytes: sum("bytes")?,
        states: rule.number("states_tot")?,
    })
}
