//! The only way to load rules into an anchor.
//!
//! The order is enforced by the types: rules can be added to a transaction that has begun, each is sent right after the
//! redirect address that belongs to it, a committed transaction no longer exists, and one that is dropped rolls back. On any
//! error, and after a kill at any instruction, the anchor is unchanged: until the commit only the inactive copy of its
//! rulesets is written, and the next DIOCXBEGIN discards what is left in it (pf_begin_rules).

use std::thread;
use std::time::Duration;

use zerocopy::FromZeros;

use super::encode;
use super::kernel::{Call, Failure, Kernel, NEW_TAG};
use super::layout::*;
use super::netlink::Command;
use crate::deadline::Deadline;
use crate::name::Anchor;
use crate::rule::{Member, Rule};

/// An open transaction over the nat, rdr and filter rulesets of one anchor.
#[must_use = "a transaction that is not committed rolls back"]
pub struct Load<'k, K: Kernel> {
    kernel: &'k K,
    rulesets: [PfiocTransE; 3],
    /// how many rules were added to each
    counts: [u32; 3],
    open: bool,
    // the arguments of each call, created once for all rules
    address: PfiocPooladdr,
    rule: PfiocRule,
}

impl<'k, K: Kernel> Load<'k, K> {
    /// DIOCXBEGIN.
    pub fn begin(kernel: &'k K, anchor: &Anchor) -> Result<Self, Failure> {
        let mut rulesets = encode::LOADED.map(|kind| PfiocTransE {
            rs_num: encode::number(kind),
            anchor: field(anchor.path()),
            ticket: 0,
        });
        kernel.call(Call::XBegin(&mut rulesets)).map_err(|failure| failure.about(anchor))?;
        let mut rule = PfiocRule::new_zeroed();
        rule.anchor = field(anchor.path());
        Ok(Load { kernel, rulesets, counts: [0; 3], open: true, address: PfiocPooladdr::new_zeroed(), rule })
    }

    /// Adds each of the rules that `rule` expands to. A duplicate is skipped, as pfctl(8) does.
    pub fn add(&mut self, rule: &Rule) -> Result<(), Failure> {
        let ruleset = encode::ruleset(rule);
        self.rule.ticket = self.rulesets[ruleset].ticket;
        for member in rule.matches().members() {
            let new = self.send(rule, member).map_err(|failure| failure.about(format_args!("rule: {rule}")))?;
            self.counts[ruleset] += u32::from(new);
        }
        Ok(())
    }

    /// Whether it was new.
    fn send(&mut self, rule: &Rule, member: Member<'_>) -> Result<bool, Failure> {
        // also before a rule without an address: every rule takes what is in the buffer, and it is checked for all
        // (pf_ioctl_addrule)
        self.address.zero();
        self.kernel.call(Call::BeginAddrs(&mut self.address))?;
        self.rule.pool_ticket = self.address.ticket;
        if encode::target(rule, &mut self.address) {
            self.kernel.call(Call::AddAddr(&mut self.address))?;
        }
        encode::rule(rule, member, &mut self.rule.rule);
        let mut added = self.hand_over(rule);
        if added.as_ref().is_err_and(Failure::is_busy) {
            // the memory for a tag may be short for a moment
            added = self.hand_over(rule);
        }
        match added {
            Err(Failure { errno: libc::EEXIST, .. }) => Ok(false),
            // the kernel returns this for a bad rule, and also for an anchor that another program has cleared since
            // DIOCXBEGIN: the commit of nothing removed it (pf_ioctl_addrule, pf_remove_if_empty_kruleset)
            Err(failure) if failure.errno == libc::EINVAL && self.anchor_is_gone() => {
                Err(Failure { errno: libc::EBUSY, ..failure })
            }
            Err(failure) if failure.is_busy() && self.lacks_only_a_tag() => Err(Failure { call: NEW_TAG, ..failure }),
            other => other.map(|()| true),
        }
    }

    /// Adds the rule that is encoded.
    fn hand_over(&mut self, rule: &Rule) -> Result<(), Failure> {
        match rule {
            // by netlink: a rule without a source would be a panic of the kernel, so it is added only after its source
            Rule::AfTo { address_of, .. } => self
                .kernel
                .ask(Command::AddAddr, &encode::source(self.rule.pool_ticket, *address_of))
                .and_then(|_| self.kernel.ask(Command::AddRule, &encode::af_to(&self.rule)))
                .map(drop),
            _ => self.kernel.call(Call::AddRule(&mut self.rule)),
        }
    }

    /// The kernel returns EBUSY for tickets that are out of date and, after that check, for a tag without a number
    /// (pf_ioctl_addrule, tagname2tag). Tickets only grow, so if the rule is accepted without its tag, they were right. The
    /// rule is discarded with the transaction.
    fn lacks_only_a_tag(&mut self) -> bool {
        let PfRule { tagname, match_tagname, .. } = &mut self.rule.rule;
        let tagged = *tagname != [0; NAME_SIZE] || *match_tagname != [0; NAME_SIZE];
        (*tagname, *match_tagname) = ([0; NAME_SIZE], [0; NAME_SIZE]);
        let taken = |result| matches!(result, Ok(()) | Err(Failure { errno: libc::EEXIST, .. }));
        tagged && taken(self.kernel.call(Call::AddRule(&mut self.rule)))
    }

    fn anchor_is_gone(&self) -> bool {
        let mut request = PfiocRule::new_zeroed();
        request.anchor = self.rule.anchor;
        matches!(self.kernel.call(Call::GetRules(&mut request)), Err(Failure { errno: libc::EINVAL, .. }))
    }

    /// DIOCXCOMMIT: the anchor has exactly these rules, from one packet to the next. Returns for each ruleset the number of
    /// rules and its new ticket (pf_commit_rules).
    pub fn commit(mut self) -> Result<[(u32, u32); 3], Failure> {
        self.kernel.call(Call::XCommit(&mut self.rulesets))?;
        self.open = false;
        Ok([0, 1, 2].map(|n| (self.counts[n], self.rulesets[n].ticket)))
    }
}

impl<K: Kernel> Drop for Load<'_, K> {
    fn drop(&mut self) {
        if self.open {
            // if this fails, the rest stays in the inactive copy, which is not evaluated and which the next load discards
            _ = self.kernel.call(Call::XRollback(&mut self.rulesets));
        }
    }
}

/// One attempt to make `rules` the contents of the anchor; see [`Load::commit`].
pub fn load<K: Kernel>(kernel: &K, anchor: &Anchor, rules: &[Rule]) -> Result<[(u32, u32); 3], Failure> {
    let mut transaction = Load::begin(kernel, anchor)?;
    for rule in rules {
        transaction.add(rule)?;
    }
    transaction.commit()
}

/// The failure of a load of these rules, if it is that pf has no number left for a tag. It is never committed.
pub fn out_of_tags<K: Kernel>(kernel: &K, anchor: &Anchor, rules: &[Rule]) -> Option<Failure> {
    let mut transaction = Load::begin(kernel, anchor).ok()?;
    let failure = rules.iter().find_map(|rule| transaction.add(rule).err())?;
    (failure.call == NEW_TAG).then_some(failure)
}

/// Repeats `attempt` as long as pf is busy, until the deadline. The buffer for redirect addresses is shared by the whole
/// host, so any program that loads rules at the same time causes EBUSY in the next call here: the pause is short, grows, and
/// differs for each process.
pub fn retry_while_busy<T>(deadline: Deadline, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    const LONGEST_PAUSE: u64 = 50_000;
    let mut most = 500;
    loop {
        match attempt() {
            Err(failure) if failure.is_busy() => {
                if deadline.passed() {
                    return Err(failure);
                }
                let pause = Duration::from_micros(fastrand::u64(most / 4..=most));
                thread::sleep(pause.min(deadline.remaining()));
                most = (most * 2).min(LONGEST_PAUSE);
            }
            done => return done,
        }
    }
}
