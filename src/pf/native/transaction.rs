//! The only way to load rules into an anchor.
//!
//! The order is enforced by the types: rules can be added to a transaction that has begun, each is sent right after the
//! redirect address that belongs to it, a committed transaction no longer exists, and one that is dropped rolls back. On any
//! error, and after a kill at any instruction, the anchor is unchanged: until the commit only the inactive copy of its
//! rulesets is written, and the next DIOCXBEGIN discards what is left in it (pf_begin_rules).

use zerocopy::FromZeros;

use super::encode::{self, NUMBERS};
use super::kernel::{Answer, Call, Failure, Kernel, NEW_TAG};
use super::layout::*;
use super::netlink::Command;
use super::read::Stamp;
use crate::name::Anchor;
use crate::pfconf;
use crate::rule::Rule;

/// One ruleset of a transaction that has not begun.
pub(super) fn element(anchor: &str, rs_num: i32) -> PfiocTransE {
    PfiocTransE { rs_num, anchor: field(anchor), ticket: 0 }
}

/// An open transaction over the nat, rdr and filter rulesets of anchors.
#[must_use = "a transaction that is not committed rolls back"]
pub struct Load<'k> {
    kernel: &'k dyn Kernel,
    /// those of each anchor; none after the commit
    rulesets: Vec<[PfiocTransE; 3]>,
    /// how many rules were added to each
    counts: Vec<[u32; 3]>,
    /// whether the buffer for redirect addresses was ours, and empty, after the last rule
    has_buffer: bool,
    // the arguments of each call, created once for all rules
    address: PfiocPooladdr,
    rule: PfiocRule,
}

impl<'k> Load<'k> {
    /// DIOCXBEGIN.
    pub fn begin(kernel: &'k dyn Kernel, anchors: &[&str]) -> Answer<Load<'k>> {
        let mut rulesets: Vec<_> = anchors.iter().map(|anchor| NUMBERS.map(|number| element(anchor, number))).collect();
        kernel.call(Call::XBegin(rulesets.as_flattened_mut()))?;
        let counts = vec![[0; 3]; anchors.len()];
        let (address, rule) = (PfiocPooladdr::new_zeroed(), PfiocRule::new_zeroed());
        Ok(Load { kernel, rulesets, counts, has_buffer: false, address, rule })
    }

    /// Adds each of the rules that `rule` expands to, to the first anchor. A duplicate is skipped, as pfctl(8) does.
    pub fn add(&mut self, rule: &Rule) -> Answer<()> {
        let ruleset = encode::ruleset(rule);
        self.select(0, ruleset);
        for member in rule.matches().members() {
            encode::rule(rule, member, &mut self.rule.rule);
            match self.put(Some(rule)) {
                Ok(()) => self.counts[0][ruleset] += 1,
                Err(Failure { errno: libc::EEXIST, .. }) => {}
                Err(failure) => return Err(self.explained(failure).about(format_args!("rule: {rule}"))),
            }
        }
        Ok(())
    }

    /// Adds a call to a ruleset of an anchor, both by their index.
    pub(super) fn call(&mut self, anchor: usize, ruleset: usize, call: &pfconf::rule::Rule) -> Answer<()> {
        self.select(anchor, ruleset);
        encode::call(call, &mut self.rule);
        self.put(None).map_err(|failure| failure.about(format_args!("call: {call}")))?;
        self.counts[anchor][ruleset] += 1;
        Ok(())
    }

    fn select(&mut self, anchor: usize, ruleset: usize) {
        let PfiocTransE { anchor, ticket, .. } = self.rulesets[anchor][ruleset];
        (self.rule.anchor, self.rule.ticket) = (anchor, ticket);
    }

    /// Adds the rule that is encoded, with its address. Every rule takes what is in the buffer, so the buffer must be ours also for
    /// one without an address (pf_ioctl_addrule). It stays so until another program begins to use it.
    fn put(&mut self, rule: Option<&Rule>) -> Answer<()> {
        match self.try_put(rule) {
            // another program has used the buffer meanwhile, or the memory for a tag was short for a moment
            Err(failure) if failure.is_busy() => self.try_put(rule),
            done => done,
        }
    }

    fn try_put(&mut self, rule: Option<&Rule>) -> Answer<()> {
        self.address.zero();
        if !std::mem::take(&mut self.has_buffer) {
            self.kernel.call(Call::BeginAddrs(&mut self.address))?;
            self.rule.pool_ticket = self.address.ticket;
        }
        self.address.ticket = self.rule.pool_ticket;
        if rule.is_some_and(|rule| encode::target(rule, &mut self.address)) {
            self.kernel.call(Call::AddAddr(&mut self.address))?;
        }
        match rule {
            // by netlink: a rule without a source would be a panic of the kernel, so it is added only after its source
            Some(Rule::AfTo { address_of, .. }) => {
                self.kernel.ask(Command::AddAddr, &encode::source(self.rule.pool_ticket, *address_of))?;
                self.kernel.ask(Command::AddRule, &encode::af_to(&self.rule))?;
            }
            _ => self.kernel.call(Call::AddRule(&mut self.rule))?,
        }
        self.has_buffer = true;
        Ok(())
    }

    /// The failure to add a rule, by what is behind it.
    fn explained(&mut self, failure: Failure) -> Failure {
        match failure.errno {
            // the kernel returns this for a bad rule, and also for an anchor that another program has cleared since
            // DIOCXBEGIN: the commit of nothing removed it (pf_ioctl_addrule, pf_remove_if_empty_kruleset)
            libc::EINVAL if self.anchor_is_gone() => Failure { errno: libc::EBUSY, ..failure },
            libc::EBUSY if self.lacks_only_a_tag() => Failure { call: NEW_TAG, ..failure },
            _ => failure,
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

    /// DIOCXCOMMIT: the anchors have exactly these rules, from one packet to the next. Returns for each ruleset the number of
    /// rules and its new ticket (pf_commit_rules).
    pub fn commit(mut self) -> Answer<Vec<[Stamp; 3]>> {
        self.kernel.call(Call::XCommit(self.rulesets.as_flattened_mut()))?;
        let rulesets = std::mem::take(&mut self.rulesets);
        let both = self.counts.iter().zip(&rulesets);
        Ok(both.map(|(counts, rulesets)| [0, 1, 2].map(|n| (counts[n], rulesets[n].ticket))).collect())
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        if !self.rulesets.is_empty() {
            // if this fails, the rest stays in the inactive copy, which is not evaluated and which the next load discards
            _ = self.kernel.call(Call::XRollback(self.rulesets.as_flattened_mut()));
        }
    }
}

/// One attempt to make `rules` the contents of the anchor; returns its new stamps.
pub fn load(kernel: &dyn Kernel, anchor: &Anchor, rules: &[Rule]) -> Answer<[Stamp; 3]> {
    let mut transaction = Load::begin(kernel, &[anchor.path()]).map_err(|failure| failure.about(anchor))?;
    for rule in rules {
        transaction.add(rule)?;
    }
    Ok(transaction.commit()?.pop().unwrap_or_default())
}

/// The failure of a load of these rules, if it is that pf has no number left for a tag. It is never committed.
pub fn out_of_tags(kernel: &dyn Kernel, anchor: &Anchor, rules: &[Rule]) -> Option<Failure> {
    let mut transaction = Load::begin(kernel, &[anchor.path()]).ok()?;
    let failure = rules.iter().find_map(|rule| transaction.add(rule).err())?;
    (failure.call == NEW_TAG).then_some(failure)
}
