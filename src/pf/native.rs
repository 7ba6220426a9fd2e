//! The native backend: pf(4) by its device.
//!
//! Rules go in as structs (DIOCADDRULE, which FreeBSD 14 and 15 both take), everything for which 15 left no struct as
//! nvlists. All of it but [`ioctl`] is ordinary code that any system can run against a stand-in for the kernel.
//!
//! What publishes, unpublishes and lists starts no child process. What needs every rule of the host as text does:
//! [`Firewall::rulesets`] and [`Firewall::anchors_of_all`], for `kport trace` and `kport doctor`, run pfctl(8), which knows how
//! to write the rules of its kernel.

mod compare;
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
use super::foreign::Called;
use super::pfctl::{self, Pfctl};
use super::{Counters, Firewall, ForeignRedirect, Loaded, States, Status};
use crate::error::{Error, Kind, Result};
use crate::name::{Anchor, PARENT, Table};
use crate::rule::Rule;

/// pf by its device, or by whatever stands in for it.
pub struct Native<K = Device> {
    kernel: K,
    deadline: Instant,
    /// who writes rules as text
    pfctl: Pfctl,
}

impl Native {
    /// The backend, where this kernel has all that it needs; otherwise the reason, for `-v` and for an explicit
    /// `--backend native`. The kernel is asked once for each process. `deadline` bounds every operation.
    pub fn probe(deadline: Instant) -> Result<Native> {
        static PROBED: OnceCell<()> = OnceCell::new();
        let kernel = Device::open()?;
        PROBED.get_or_try_init(|| probe(&kernel))?;
        Ok(Native { kernel, deadline, pfctl: Pfctl::new(pfctl::PROGRAM, deadline) })
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
        Native { kernel, deadline, pfctl: Pfctl::new(pfctl::PROGRAM, deadline) }
    }

    /// The same, and this is the pfctl(8) to run where rules are needed as text.
    #[must_use]
    pub fn with_pfctl(self, pfctl: Pfctl) -> Native<K> {
        Native { pfctl, ..self }
    }

    /// pf's limit of anchors (0 is none); `None` where the kernel has no such limit (before 15).
    pub fn anchor_limit(&self) -> Result<Option<u32>> {
        Ok(read::anchor_limit(&self.kernel)?)
    }

    /// An operation that is done again while pf is busy.
    fn retry_while_busy<T>(&self, attempt: impl FnMut() -> std::result::Result<T, Failure>) -> Result<T> {
        Ok(transaction::retry_while_busy(self.deadline, attempt)?)
    }
}

impl<K: Kernel> Firewall for Native<K> {
    fn name(&self) -> &'static str {
        "native"
    }

    fn replace(&self, anchor: &Anchor, rules: &[Rule]) -> Result<()> {
        self.retry_while_busy(|| transaction::load(&self.kernel, anchor, rules))
    }

    fn anchors(&self) -> Result<Vec<String>> {
        self.retry_while_busy(|| {
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
        self.retry_while_busy(|| {
            let mut translations = 0;
            for ruleset in [Ruleset::Nat, Ruleset::Rdr] {
                translations += read::count(&self.kernel, anchor.path(), ruleset)?.0 as usize;
            }
            let rules = read::rules(&self.kernel, anchor.path(), Ruleset::Filter)?;
            let filters: std::result::Result<Vec<_>, _> = rules.iter().map(|rule| counters(&rule.rule)).collect();
            let filters = filters.map_err(|malformed| read::unreadable("DIOCGETRULENV", &malformed))?;
            Ok(Loaded { translations, filters })
        })
    }

    fn holds(&self, anchor: &Anchor, rules: &[Rule]) -> Result<bool> {
        self.retry_while_busy(|| compare::holds(&self.kernel, anchor.path(), rules))
    }

    fn labels_mappings(&self) -> bool {
        // a struct has room for one label
        false
    }

    fn kill_states(&self, states: &[States]) -> Result<u64> {
        states.iter().map(|states| Ok(read::kill_states(&self.kernel, states)?)).sum()
    }

    fn status(&self) -> Result<Status> {
        self.retry_while_busy(|| {
            let calls = |ruleset| -> std::result::Result<bool, Failure> {
                let rules = read::rules(&self.kernel, "", ruleset)?;
                Ok(rules.iter().any(|rule| Called::resolve("", &rule.anchor_call).is_kport()))
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
        self.retry_while_busy(|| super::foreign::redirects(&foreign::Rulesets(&self.kernel)))
    }

    fn has_table(&self, table: &Table) -> Result<bool> {
        Ok(read::has_table(&self.kernel, table.as_str())?)
    }

    fn rulesets(&self) -> Result<Vec<(String, String)>> {
        self.pfctl.rulesets()
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
