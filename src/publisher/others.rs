//! What other jails have published: each claim folder and each record is read at most once in a transaction.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::Rc;

use once_cell::unsync::OnceCell;

use super::identity::is_gone;
use crate::conflict;
use crate::error::{Error, Problem, Result};
use crate::host::{Host, Interfaces, Jail};
use crate::name::Anchor;
use crate::net::{Family, Protocol};
use crate::pf::{self, Firewall, ForeignRedirect};
use crate::publication::Redirect;
use crate::store::{Block, Claim, Record, Store};

/// The records of other jails, as far as needed.
pub(super) struct Others<'a> {
    host: &'a dyn Host,
    firewall: &'a dyn Firewall,
    store: &'a Store,
    /// The current boot: records of another one are ignored.
    boot: String,
    blocks: RefCell<HashMap<Block, Rc<[Claim]>>>,
    owners: RefCell<HashMap<Anchor, Rc<Claimant>>>,
    /// What pf holds in kport's anchors that have no record.
    unrecorded: OnceCell<Vec<(Anchor, ForeignRedirect)>>,
    outdated: RefCell<BTreeMap<Anchor, Outdated>>,
}

/// What is in the way of a publication and has no owner: it is removed before the publication is loaded.
#[derive(Clone)]
pub(super) enum Outdated {
    /// The record of a jail that is gone.
    Gone(Box<Record>),
    /// The record of a jail that has published with this address, which is another one's.
    Disproved(Box<Record>, IpAddr),
    /// An anchor without a record.
    Unrecorded,
}

/// Who made a claim.
enum Claimant {
    /// A jail, by its record.
    Jail(Box<Neighbour>),
    /// Nobody: the claim is left over from a removed record, and pf has nothing in the anchor.
    Nobody,
    /// There is no record, but pf has rules in the anchor.
    Unrecorded,
    /// There is a record that cannot be read.
    Unreadable(Error),
}

/// Another jail, and what it has published.
struct Neighbour {
    record: Record,
    targets: Vec<IpAddr>,
    /// Of each protocol and family, sorted by the first port, with the number of ports of the widest one.
    claims: HashMap<(Protocol, Family), (Vec<Redirect>, u16)>,
}

impl Neighbour {
    fn new(record: Record) -> Neighbour {
        let mut claims: HashMap<(Protocol, Family), (Vec<Redirect>, u16)> = HashMap::new();
        for claim in record.claims() {
            let (list, widest) = claims.entry((claim.protocol, claim.family())).or_default();
            list.push(claim);
            *widest = claim.host.count().max(*widest);
        }
        for (list, _) in claims.values_mut() {
            list.sort_by_key(|claim| claim.host.first());
        }
        let targets = record.possible().flat_map(|p| &p.redirects).map(|r| r.target).collect();
        Neighbour { record, targets, claims }
    }

    /// The claims that may overlap a redirect.
    fn near(&self, redirect: &Redirect) -> &[Redirect] {
        let Some((list, widest)) = self.claims.get(&(redirect.protocol, redirect.family())) else { return &[] };
        let low = redirect.host.first().saturating_sub(widest - 1);
        let from = list.partition_point(|claim| claim.host.first() < low);
        let to = list.partition_point(|claim| claim.host.first() <= redirect.host.last());
        &list[from..to]
    }
}

impl<'a> Others<'a> {
    pub(super) fn new(host: &'a dyn Host, firewall: &'a dyn Firewall, store: &'a Store, boot: &str) -> Others<'a> {
        let (blocks, owners, outdated) = Default::default();
        Others { host, firewall, store, boot: boot.to_owned(), blocks, owners, unrecorded: OnceCell::new(), outdated }
    }

    /// What was in the way, and is to be removed first.
    pub(super) fn outdated(&self) -> BTreeMap<Anchor, Outdated> {
        self.outdated.borrow().clone()
    }

    /// Whether a redirect of the jail `own`, with this jid, takes what another jail has published. What is left of a jail
    /// that is gone is [outdated](Others::outdated), and so is an anchor without a record, with `force`.
    pub(super) fn check(
        &self,
        own: &Anchor,
        jid: Option<i32>,
        redirect: &Redirect,
        interfaces: Interfaces<'_>,
        force: bool,
    ) -> Result<Option<Problem>> {
        for block in Block::of(redirect.protocol, redirect.host) {
            for claim in self.claims(block)?.iter() {
                let near = claim.ports.overlaps(redirect.host) && claim.anchor != *own;
                if !near || !interfaces.overlap(claim.place, redirect.place) {
                    continue;
                }
                match &*self.owner(&claim.anchor)? {
                    Claimant::Jail(neighbour) => {
                        let owner = neighbour.record.mention();
                        let with = |theirs| conflict::with_jail(redirect, &owner, theirs, interfaces);
                        let Some(problem) = neighbour.near(redirect).iter().find_map(with) else { continue };
                        if self.is_outdated(&neighbour.record)? {
                            continue;
                        }
                        let remedy = match neighbour.record.jid {
                            Some(theirs) if jid == Some(theirs) => {
                                format!("it is the same jail under an earlier name: unpublish {owner} first")
                            }
                            _ if !self.runs(&neighbour.record)? => {
                                format!(
                                    "{}; {owner} is not running; if it is not starting, run kport apply",
                                    problem.remedy
                                )
                            }
                            _ => problem.remedy,
                        };
                        return Ok(Some(Problem { remedy, ..problem }));
                    }
                    Claimant::Nobody => {}
                    Claimant::Unrecorded => match self.take_over(&claim.anchor, redirect, force) {
                        None => {}
                        problem => return Ok(problem),
                    },
                    Claimant::Unreadable(error) => {
                        return Err(error.clone().and("publish or unpublish its jail again to correct that"));
                    }
                }
            }
        }
        for (anchor, held) in self.unrecorded()? {
            if anchor != own && conflict::with_foreign(redirect, held, interfaces).is_some() {
                match self.take_over(anchor, redirect, force) {
                    None => {}
                    problem => return Ok(problem),
                }
            }
        }
        Ok(None)
    }

    /// Whether a jail runs that a record was published for: this start or, about to publish, the next one.
    fn runs(&self, record: &Record) -> Result<bool> {
        if record.no_jail {
            return Ok(true);
        }
        let restarted = self.host.running(record.jail.as_str())?.is_some();
        Ok(restarted || record.jid.is_some() && !is_gone(self.host, self.store, record)?)
    }

    /// Whether the ports of a record are to be removed: those of a jail that has run and is gone, for one.
    fn is_outdated(&self, record: &Record) -> Result<bool> {
        if self.outdated.borrow().contains_key(&record.jail.anchor()) {
            return Ok(true);
        }
        let outdated = record.path.is_some() && !self.runs(record)?;
        if outdated {
            self.outdated.borrow_mut().insert(record.jail.anchor(), Outdated::Gone(Box::new(record.clone())));
        }
        Ok(outdated)
    }

    /// Whether the jail of a record may have the addresses of another one as well.
    fn share(&self, record: &Record, jail: &Jail) -> Result<bool> {
        let name = record.jid.map_or(record.jail.to_string(), |jid| jid.to_string());
        Ok(self.host.jail(&name)?.is_some_and(|there| there.shares_addresses_with(jail)))
    }

    fn take_over(&self, anchor: &Anchor, redirect: &Redirect, force: bool) -> Option<Problem> {
        if force {
            self.outdated.borrow_mut().insert(anchor.clone(), Outdated::Unrecorded);
            return None;
        }
        let Redirect { protocol, host, place, .. } = redirect;
        Some(Problem {
            seen: format!("{protocol} {host} on {place} is in anchor {anchor}, which has no record"),
            remedy: "kport apply clears it".to_owned(),
        })
    }

    fn unrecorded(&self) -> Result<&[(Anchor, ForeignRedirect)]> {
        let read = || {
            let mut anchors = self.store.unrecorded()?;
            // those that were published since have one
            anchors.retain(|anchor| !self.store.has(anchor));
            if anchors.is_empty() {
                return Ok(vec![]);
            }
            let rulesets = self.firewall.rulesets(true)?;
            let held = |anchor: Anchor| {
                let conf = rulesets.iter().find(|(path, _)| path == anchor.path()).map(|(_, conf)| conf);
                let redirects = conf.map(|conf| pf::foreign::own(anchor.path(), conf)).unwrap_or_default();
                redirects.into_iter().map(move |held| (anchor.clone(), held))
            };
            Ok(anchors.into_iter().flat_map(held).collect())
        };
        self.unrecorded.get_or_try_init(read).map(Vec::as_slice)
    }

    /// Another jail that has `address` as a target of its redirects, and does not share it with the jail `own`. For a target
    /// that is not a jail, `jail` is `None`, and others of the kind do not count. If the administrator vouches for the
    /// address, those that only report it do not count either.
    pub(super) fn leading_to(
        &self,
        own: &Anchor,
        jail: Option<&Jail>,
        address: IpAddr,
        vouched: bool,
    ) -> Result<Option<String>> {
        let counts = |record: &Record| !vouched || !record.reported.contains(&address);
        self.find_leading_to(own, jail, address, |record| counts(record).then(|| record.mention()))
    }

    /// The administrator or the kernel says that `address` is that of `own`, which is `jail` or not a jail: what others have
    /// published with it, because they report it, is to be removed.
    pub(super) fn disprove(&self, own: &Anchor, jail: Option<&Jail>, address: IpAddr) -> Result<()> {
        let disproved = |record: &Record| {
            if record.reported.contains(&address) {
                let outdated = Outdated::Disproved(Box::new(record.clone()), address);
                self.outdated.borrow_mut().insert(record.jail.anchor(), outdated);
            }
            None::<()>
        };
        self.find_leading_to(own, jail, address, disproved).map(|_| ())
    }

    /// Looks for a record of another jail that has `address` as a target of its redirects, and does not share it with the
    /// jail `own`.
    fn find_leading_to<T>(
        &self,
        own: &Anchor,
        jail: Option<&Jail>,
        address: IpAddr,
        find: impl Fn(&Record) -> Option<T>,
    ) -> Result<Option<T>> {
        for anchor in self.store.leading_to(address)? {
            if anchor == *own {
                continue;
            }
            if let Claimant::Jail(neighbour) = &*self.owner(&anchor)?
                && neighbour.targets.contains(&address)
                && !(jail.is_none() && neighbour.record.no_jail)
                && !self.is_outdated(&neighbour.record)?
                && !jail.map_or(Ok(false), |jail| self.share(&neighbour.record, jail))?
                && let Some(found) = find(&neighbour.record)
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn claims(&self, block: Block) -> Result<Rc<[Claim]>> {
        if let Some(known) = self.blocks.borrow().get(&block) {
            return Ok(Rc::clone(known));
        }
        let read: Rc<[Claim]> = self.store.claims(block)?.into();
        self.blocks.borrow_mut().insert(block, Rc::clone(&read));
        Ok(read)
    }

    fn owner(&self, anchor: &Anchor) -> Result<Rc<Claimant>> {
        if let Some(known) = self.owners.borrow().get(anchor) {
            return Ok(Rc::clone(known));
        }
        let owner = Rc::new(match self.store.get(anchor) {
            Ok(Some(record)) if record.boot == self.boot => Claimant::Jail(Box::new(Neighbour::new(record))),
            Ok(_) if self.firewall.loaded(anchor, false)?.is_empty() => Claimant::Nobody,
            Ok(_) => Claimant::Unrecorded,
            Err(error) => Claimant::Unreadable(error),
        });
        self.owners.borrow_mut().insert(anchor.clone(), Rc::clone(&owner));
        Ok(owner)
    }
}
