//! What other jails have published: each claim folder and each record is read at most once in a transaction.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use crate::conflict;
use crate::error::{Error, Problem, Result};
use crate::host::Interfaces;
use crate::name::{Anchor, JailName};
use crate::net::{Family, Protocol};
use crate::pf::Firewall;
use crate::publication::Redirect;
use crate::store::{Block, Claim, Record, Store};

/// The records of other jails, as far as needed.
pub(super) struct Others<'a> {
    firewall: &'a dyn Firewall,
    store: &'a Store,
    /// The current boot: records of another one are ignored.
    boot: String,
    blocks: RefCell<HashMap<Block, Rc<[Claim]>>>,
    owners: RefCell<HashMap<Anchor, Rc<Owner>>>,
}

/// Who made a claim.
enum Owner {
    /// A jail, by its record.
    Jail(Neighbour),
    /// Nobody: the claim is left over from a removed record, and pf has nothing in the anchor.
    Nobody,
    /// There is no record, but pf has rules in the anchor.
    Unrecorded,
    /// There is a record that cannot be read.
    Unreadable(Error),
}

/// Another jail, and what it has published.
pub(super) struct Neighbour {
    pub(super) jail: JailName,
    pub(super) jid: Option<i32>,
    targets: Vec<IpAddr>,
    /// Of each protocol and family, sorted by the first port, with the number of ports of the widest one.
    claims: HashMap<(Protocol, Family), (Vec<Redirect>, u16)>,
}

impl Neighbour {
    fn new(record: &Record) -> Neighbour {
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
        Neighbour { jail: record.jail.clone(), jid: record.jid, targets, claims }
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
    pub(super) fn new(firewall: &'a dyn Firewall, store: &'a Store, boot: &str) -> Others<'a> {
        let (blocks, owners) = Default::default();
        Others { firewall, store, boot: boot.to_owned(), blocks, owners }
    }

    /// Whether a redirect of the jail `own`, with this jid, takes what another jail has published.
    pub(super) fn check(
        &self,
        own: &Anchor,
        jid: Option<i32>,
        redirect: &Redirect,
        interfaces: Interfaces<'_>,
    ) -> Result<Option<Problem>> {
        for block in Block::of(redirect.protocol, redirect.host) {
            for claim in self.claims(block)?.iter() {
                let near = claim.ports.overlaps(redirect.host) && claim.anchor != *own;
                if !near || !interfaces.overlap(claim.place, redirect.place) {
                    continue;
                }
                match &*self.owner(&claim.anchor)? {
                    Owner::Jail(neighbour) => {
                        let owner = neighbour.jail.mention();
                        let mut near = neighbour.near(redirect).iter();
                        let Some(problem) =
                            near.find_map(|theirs| conflict::with_jail(redirect, &owner, theirs, interfaces))
                        else {
                            continue;
                        };
                        let remedy = match jid {
                            Some(_) if neighbour.jid == jid => {
                                format!("it is the same jail under an earlier name: unpublish {owner} first")
                            }
                            _ => problem.remedy,
                        };
                        return Ok(Some(Problem { remedy, ..problem }));
                    }
                    Owner::Nobody => {}
                    Owner::Unrecorded => {
                        return Ok(Some(Problem {
                            seen: format!(
                                "{} {} on {} is in anchor {}, which has no record",
                                redirect.protocol, claim.ports, claim.place, claim.anchor
                            ),
                            remedy: "kport gc clears it".to_owned(),
                        }));
                    }
                    Owner::Unreadable(error) => {
                        return Err(error.clone().and("publish or unpublish its jail again to correct that"));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Another jail that has `address` as a target of its redirects.
    pub(super) fn leading_to(&self, own: &Anchor, address: IpAddr) -> Result<Option<JailName>> {
        for anchor in self.store.leading_to(address)? {
            if anchor == *own {
                continue;
            }
            if let Owner::Jail(neighbour) = &*self.owner(&anchor)?
                && neighbour.targets.contains(&address)
            {
                return Ok(Some(neighbour.jail.clone()));
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

    fn owner(&self, anchor: &Anchor) -> Result<Rc<Owner>> {
        if let Some(known) = self.owners.borrow().get(anchor) {
            return Ok(Rc::clone(known));
        }
        let owner = Rc::new(match self.store.get(anchor) {
            Ok(Some(record)) if record.boot == self.boot => Owner::Jail(Neighbour::new(&record)),
            Ok(_) if self.firewall.loaded(anchor)?.is_empty() => Owner::Nobody,
            Ok(_) => Owner::Unrecorded,
            Err(error) => Owner::Unreadable(error),
        });
        self.owners.borrow_mut().insert(anchor.clone(), Rc::clone(&owner));
        Ok(owner)
    }
}
