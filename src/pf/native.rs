//! The native backend: pf(4) by its device, without a child process.
//!
//! Rules go in as structs (DIOCADDRULE, which FreeBSD 14 and 15 both take), everything for which 15 left no struct as
//! nvlists. All of it but [`ioctl`] is ordinary code that any system can run against a stand-in for the kernel.

pub mod encode;
mod foreign;
#[allow(unsafe_code)]
pub mod ioctl;
pub mod kernel;
pub mod layout;
pub mod nv;
mod read;
pub mod transaction;

use std::time::Instant;

use once_cell::sync::OnceCell;
use zerocopy::FromZeros;

use self::encode::Ruleset;
use self::ioctl::Device;
use self::kernel::{Call, Failure, Kernel, Nv};
use self::layout::PfiocRule;
use super::pfctl::{self, Pfctl};
use super::{Counters, Firewall, ForeignRedirect, Loaded, LoadedRule, Status};
use crate::error::{Error, Kind, Result};
use crate::name::{Anchor, Label, PARENT, Table};
use crate::rule::Rule;

/// pf by its device, or by whatever stands in for it.
#[derive(Debug)]
pub struct Native<K = Device> {
    kernel: K,
    deadline: Instant,
}

impl Native {
    /// The backend, where this kernel has all that it needs; otherwise the reason, for `-v` and for an explicit
    /// `--backend native`. The kernel is asked once for each process. `deadline` bounds every operation.
    pub fn probe(deadline: Instant) -> Result<Native> {
        static PROBED: OnceCell<()> = OnceCell::new();
        let kernel = Device::open()?;
        PROBED.get_or_try_init(|| probe(&kernel))?;
        Ok(Native { kernel, deadline })
    }
}

/// Whether the kernel knows the calls that differ between releases. Changes nothing.
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
        Err(failure) => Err(failure.into()),
        Ok(()) => Err(Error::new(Kind::Unsupported, "DIOCADDRULE: this kernel takes a rule that is none")),
    }
}

impl<K: Kernel> Native<K> {
    /// The backend over a kernel that need not be probed.
    pub fn over(kernel: K, deadline: Instant) -> Native<K> {
        Native { kernel, deadline }
    }

    /// pf's limit of anchors (0 is none); `None` where the kernel has no such limit (before 15).
    pub fn anchor_limit(&self) -> Result<Option<u32>> {
        Ok(read::anchor_limit(&self.kernel)?)
    }

    /// An operation that is done again while pf is busy.
    fn patiently<T>(&self, attempt: impl FnMut() -> std::result::Result<T, Failure>) -> Result<T> {
        Ok(transaction::patiently(self.deadline, attempt)?)
    }
}

impl<K: Kernel> Firewall for Native<K> {
    fn name(&self) -> &'static str {
        "native"
    }

    fn replace(&self, anchor: &Anchor, rules: &[Rule]) -> Result<()> {
        self.patiently(|| transaction::load(&self.kernel, anchor, rules))
    }

    fn anchors(&self) -> Result<Vec<String>> {
        self.patiently(|| {
            let mut anchors = Vec::new();
            for child in read::children(&self.kernel, PARENT)? {
                // one that was rolled back stays, empty, until the next load
                if read::holds_rules(&self.kernel, &format!("{PARENT}/{child}"))? {
                    anchors.push(child);
                }
            }
            Ok(anchors)
        })
    }

    fn loaded(&self, anchor: &Anchor) -> Result<Loaded> {
        self.patiently(|| {
            let mut translations = 0;
            for ruleset in [Ruleset::Nat, Ruleset::Rdr] {
                translations += read::count(&self.kernel, anchor.path(), ruleset)?.0 as usize;
            }
            let rules = read::rules(&self.kernel, anchor.path(), Ruleset::Filter)?;
            let rules: std::result::Result<Vec<_>, _> = rules.iter().map(|held| loaded(&held.rule)).collect();
            let rules = rules.map_err(|malformed| read::unreadable("DIOCGETRULENV", &malformed))?;
            Ok(Loaded { translations, rules })
        })
    }

    fn kill_states(&self, labels: &[Label]) -> Result<u64> {
        labels.iter().map(|label| Ok(read::kill_states(&self.kernel, label.as_str())?)).sum()
    }

    fn status(&self) -> Result<Status> {
        self.patiently(|| {
            let calls = |ruleset| -> std::result::Result<bool, Failure> {
                Ok(read::rules(&self.kernel, "", ruleset)?.iter().any(foreign::calls_kport))
            };
            Ok(Status {
                enabled: read::running(&self.kernel)?,
                nat_anchor: calls(Ruleset::Nat)?,
                rdr_anchor: calls(Ruleset::Rdr)?,
                anchor: calls(Ruleset::Filter)?,
            })
        })
    }

    fn foreign_redirects(&self) -> Result<Vec<ForeignRedirect>> {
        self.patiently(|| foreign::redirects(&self.kernel))
    }

    fn has_table(&self, table: &Table) -> Result<bool> {
        Ok(read::has_table(&self.kernel, table.as_str())?)
    }

    fn rulesets(&self) -> Result<Vec<(String, String)>> {
        // it knows how to write the rules of its kernel
        Pfctl::new(pfctl::PROGRAM, self.deadline).rulesets()
    }

    fn anchors_of_all(&self) -> Result<(usize, Option<usize>)> {
        Pfctl::new(pfctl::PROGRAM, self.deadline).anchors_of_all()
    }
}

/// What kport looks at in a rule (pf_krule_to_nvrule in sys/netpfil/pf/pf_nv.c).
fn loaded(rule: &nv::List) -> std::result::Result<LoadedRule, nv::Malformed> {
    let sum = |name| rule.numbers(name).map(|both| both.iter().fold(0u64, |sum, one| sum.saturating_add(*one)));
    Ok(LoadedRule {
        labels: rule.strings("labels")?.iter().filter(|label| !label.is_empty()).cloned().collect(),
        counters: Counters {
            evaluations: rule.number("evaluations")?,
            packets: sum("packets")?,
            bytes: sum("bytes")?,
            states: rule.number("states_tot")?,
        },
    })
}
