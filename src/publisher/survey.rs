//! What is read before a publish changes anything: the facts of the host and of pf, and what other jails have published. Each fact,
//! claim folder and record is read at most once in a transaction, and only when needed; which jails run, each time.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Arguments;
use std::hash::Hash;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::SystemTime;

use once_cell::unsync::OnceCell;

use super::{Observer, Publisher, Request};
use crate::conflict;
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Problem, Result, Setting, error};
use crate::host::{ANSWER_TIME, Behind, Host, HostInterface, Interfaces, Jail, Jails, Listener};
use crate::name::{Anchor, JailName};
use crate::net::{Family, Interface, PerFamily};
use crate::pf::{self, Firewall, ForeignRedirect};
use crate::publication::Redirect;
use crate::store::{Claim, Record, Store, claim_folders};

/// How long a jail may take from its prestart hook until it exists, in seconds: mounts, other hooks. After that, `gc`
/// considers the jail gone, if its jid was not recorded.
pub(super) const STARTING: u64 = 60;

pub(super) struct Survey<'a> {
    /// For facts that must be current: a sysctl, one jail.
    pub(super) host: &'a dyn Host,
    pub(super) firewall: &'a dyn Firewall,
    pub(super) store: &'a Store,
    pub(super) deadline: Deadline,
    pub(super) observer: &'a dyn Observer,
    /// The current boot: records of another one are ignored.
    pub(super) boot: String,
    pub(super) notes: RefCell<Vec<String>>,
    known: Known,
}

#[derive(Default)]
struct Known {
    interfaces: OnceCell<Vec<HostInterface>>,
    listeners: OnceCell<Vec<Listener>>,
    foreign: OnceCell<Vec<ForeignRedirect>>,
    defaults: PerFamily<OnceCell<Option<Interface>>>,
    jails: OnceCell<Jails>,
    /// A jid, and what the jail has reported.
    asked: OnceCell<(i32, Result<Vec<IpAddr>>)>,
    claims: RefCell<HashMap<String, Rc<[Claim]>>>,
    owners: RefCell<HashMap<Anchor, Rc<Claimant>>>,
    /// What pf holds in kport's anchors that have no record.
    unrecorded: OnceCell<Vec<(Anchor, ForeignRedirect)>>,
    outdated: RefCell<BTreeMap<Anchor, Outdated>>,
}

/// What is in the way of a publication and has no owner: it is removed before the publication is loaded, and noted.
#[derive(Clone)]
pub(super) struct Outdated {
    pub(super) record: Option<Record>,
    pub(super) note: String,
}

impl Outdated {
    /// What is left of a jail that is gone.
    pub(super) fn gone(record: &Record) -> Outdated {
        Outdated { record: Some(record.clone()), note: format!("{} is gone: unpublished", record.mention()) }
    }

    pub(super) fn unrecorded(anchor: &Anchor) -> Outdated {
        Outdated { record: None, note: format!("anchor {anchor} had no record: cleared") }
    }
}

enum Claimant {
    /// Another jail.
    Jail(Box<Record>),
    /// Nobody: the claim is left over from a removed record, and pf has nothing in the anchor.
    Nobody,
    /// There is no record, but pf has rules in the anchor.
    Unrecorded,
}

impl<'a> Survey<'a> {
    pub(super) fn new(publisher: &'a Publisher<'_>) -> Result<Survey<'a>> {
        let Publisher { host, firewall, ref store, deadline, observer } = *publisher;
        let (boot, notes, known) = (host.boot_id()?, RefCell::default(), Known::default());
        Ok(Survey { host, firewall, store, deadline, observer, boot, notes, known })
    }

    pub(super) fn note(&self, text: String) {
        self.notes.borrow_mut().push(text);
    }

    /// Fails when the time is up: for loops before anything is changed.
    pub(super) fn in_time(&self) -> Result<()> {
        self.time_is_up(format_args!(", and nothing was changed; try again")).map_or(Ok(()), Err)
    }

    /// Calls `change` for each thing, and collects the errors. False if the time was up before the last one.
    pub(super) fn each<T>(
        &self, what: &str, things: &[T], errors: &mut Vec<Error>, mut change: impl FnMut(&T) -> Result<()>,
    ) -> bool {
        for (done, thing) in things.iter().enumerate() {
            let of = things.len();
            let and = format_args!(" after {done} of {of} {what}; the others are unchanged: kport apply again");
            if let Some(error) = self.time_is_up(and) {
                errors.push(error);
                return false;
            }
            errors.extend(change(thing).err());
        }
        true
    }

    fn time_is_up(&self, and: Arguments<'_>) -> Option<Error> {
        let error = || error!(Busy, "the time is up{and}");
        self.deadline.passed().then(|| error().remedy("give more time with", Setting::Timeout))
    }

    /// Asks the jail of the requests for its addresses, before anybody waits for this call: its root may delay the answer, and the
    /// question is a fork of the calling process.
    pub(super) fn ask(&self, requests: &[Request]) {
        if let Some(request) = requests.iter().find(|request| request.addresses.is_empty() && !request.no_jail)
            && let Ok(Some(jail)) = self.host.running(request.jail.as_str())
            && jail.vnet
        {
            _ = self.reported_by(&jail);
        }
    }

    /// The addresses that a jail with its own network stack reports; it is asked once.
    pub(super) fn reported_by(&self, jail: &Jail) -> Result<Vec<IpAddr>> {
        let ask = || self.host.vnet_addresses(jail, self.deadline.sooner(ANSWER_TIME).remaining());
        match self.known.asked.get_or_init(|| (jail.jid, ask())) {
            (jid, found) if *jid == jail.jid => found.clone(),
            // it was started again meanwhile
            _ => ask(),
        }
    }

    pub(super) fn places(&self) -> Result<Interfaces<'_>> {
        self.known.interfaces.get_or_try_init(|| self.host.interfaces()).map(|all| Interfaces(all))
    }

    pub(super) fn jails(&self) -> Result<&Jails> {
        self.known.jails.get_or_try_init(|| self.host.jails())
    }

    /// The sockets of the host, rules of the administrator and other tools' rules that have the ports of a redirect.
    pub(super) fn held_by_host(&self, redirect: &Redirect) -> Result<Vec<Problem>> {
        let places = self.places()?;
        let listeners = self.known.listeners.get_or_try_init(|| self.host.listeners())?;
        let sockets = listeners.iter().filter_map(|listener| conflict::with_listener(redirect, listener, places));
        let foreign = self.known.foreign.get_or_try_init(|| self.firewall.foreign_redirects())?;
        let foreign = foreign.iter().filter_map(|foreign| conflict::with_foreign(redirect, foreign, places));
        Ok(sockets.chain(foreign).collect())
    }

    /// Whether nobody else has the ports of a redirect.
    pub(super) fn is_free(&self, own: &Record, redirect: &Redirect) -> Result<bool> {
        Ok(self.held_by_others(own, redirect, false)?.is_none() && self.held_by_host(redirect)?.is_empty())
    }

    /// Whether a redirect of `own` takes what another jail has published. What is left of a jail that is gone is
    /// [outdated](Survey::outdated), and so is an anchor without a record, with `force`.
    pub(super) fn held_by_others(&self, own: &Record, redirect: &Redirect, force: bool) -> Result<Option<Problem>> {
        let interfaces = self.places()?;
        for folder in claim_folders(redirect.protocol, redirect.host) {
            let claims = once(&self.known.claims, &folder, || Ok(self.store.claims(&folder)?.into()))?;
            for claim in claims.iter() {
                let near = claim.ports.overlaps(redirect.host) && !claim.anchor.is_of(&own.jail);
                if !near || !interfaces.overlap(claim.place, redirect.place) {
                    continue;
                }
                match &*self.owner(&claim.anchor)? {
                    Claimant::Jail(record) => {
                        let claims = record.claims();
                        let theirs = claims.iter().filter(|theirs| conflict::overlap(redirect, theirs, interfaces));
                        let Some(theirs) = theirs.min_by_key(|claim| claim.host.first()) else { continue };
                        if self.is_outdated(record)? {
                            continue;
                        }
                        let owner = record.mention();
                        let Problem { seen, mut remedy } = conflict::with_jail(redirect, &owner, theirs);
                        if record.jid.is_some() && record.jid == own.jid {
                            remedy = format!("it is the same jail under an earlier name: unpublish {owner} first");
                        } else if !self.runs(record)? {
                            remedy += &format!("; {owner} is not running; if it is not starting, run kport apply");
                        }
                        return Ok(Some(Problem { seen, remedy }));
                    }
                    Claimant::Nobody => {}
                    Claimant::Unrecorded => {
                        if let problem @ Some(_) = self.take_over(&claim.anchor, redirect, force) {
                            return Ok(problem);
                        }
                    }
                }
            }
        }
        for (anchor, held) in self.unrecorded()? {
            if !anchor.is_of(&own.jail)
                && conflict::with_foreign(redirect, held, interfaces).is_some()
                && let problem @ Some(_) = self.take_over(anchor, redirect, force)
            {
                return Ok(problem);
            }
        }
        Ok(None)
    }

    /// A record with the current time and boot, of which nothing is published yet.
    pub(super) fn new_record(&self, jail: &JailName) -> Result<Record> {
        Ok(Record {
            version: Record::VERSION,
            boot: self.boot.clone(),
            jail: jail.clone(),
            jid: None,
            earlier_jid: None,
            path: None,
            reported: BTreeSet::new(),
            no_jail: false,
            since: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            uptime: self.host.uptime()?,
            mapping_labels: self.firewall.labels_mappings(),
            publications: vec![],
            replaces: vec![],
            requested: vec![],
        })
    }

    pub(super) fn readable(&self, jail: &JailName) -> Option<Record> {
        self.store.get(&jail.anchor()).ok()?.filter(|record| record.boot == self.boot)
    }

    /// Whether the jail of a record may still be starting: it did not exist when it was published, just now.
    pub(super) fn is_starting(&self, record: &Record) -> Result<bool> {
        Ok(record.jid.is_none() && !record.no_jail && self.age(record)? < STARTING)
    }

    pub(super) fn age(&self, record: &Record) -> Result<u64> {
        Ok(self.host.uptime()?.saturating_sub(record.uptime))
    }

    /// Whether the jail of a record is gone: it is not running, and not starting.
    pub(super) fn is_gone(&self, record: &Record) -> Result<bool> {
        let Some(jid) = record.jid else {
            return Ok(!record.no_jail
                && self.host.running(record.jail.as_str())?.is_none()
                && !self.is_starting(record)?);
        };
        let Some(there) = self.host.jail(&jid.to_string())?.filter(|there| is_of(record, there)) else {
            return Ok(true);
        };
        if there.name == record.jail.as_str() {
            return Ok(false);
        }
        // a jail with a record by its name is not this one, renamed
        let Ok(name) = there.name.parse::<JailName>() else { return Ok(false) };
        let own = self.store.get(&name.anchor())?;
        Ok(own.is_some_and(|own| own.boot == record.boot && own.jid == Some(jid)))
    }

    /// The name by which a jail has published, if it differs from `jail` because the jail was renamed. `jid` is the jid that the
    /// caller knows, possibly of a jail that is gone. `None` for a jail with a record by its name.
    pub(super) fn earlier_name(&self, jail: &JailName, jid: Option<i32>) -> Result<Option<JailName>> {
        // what is wrong with an existing record is reported elsewhere
        if self.store.has(&jail.anchor()) {
            return Ok(None);
        }
        let there = self.host.running(jail.as_str())?;
        let number = match (&there, jid) {
            (Some(there), _) => there.jid,
            // a jail of another name has the jid now
            (None, Some(jid)) if self.host.jail(&jid.to_string())?.is_some_and(|there| !there.dying) => {
                return Ok(None);
            }
            (None, Some(jid)) => jid,
            (None, None) => return Ok(None),
        };
        for anchor in self.store.of_jid(number)? {
            if let Ok(Some(record)) = self.store.get(&anchor)
                && record.boot == self.boot
                && record.jid == Some(number)
                && there.as_ref().is_none_or(|there| is_of(&record, there))
            {
                return Ok(Some(record.jail));
            }
        }
        Ok(None)
    }

    pub(super) fn outdated(&self) -> BTreeMap<Anchor, Outdated> {
        self.known.outdated.borrow().clone()
    }

    /// Whether a jail runs that a record was published for: this start or, about to publish, the next one.
    fn runs(&self, record: &Record) -> Result<bool> {
        if record.no_jail {
            return Ok(true);
        }
        let restarted = self.host.running(record.jail.as_str())?.is_some();
        Ok(restarted || record.jid.is_some() && !self.is_gone(record)?)
    }

    /// Whether the ports of a record are to be removed: those of a jail that has run and is gone, for one.
    fn is_outdated(&self, record: &Record) -> Result<bool> {
        let anchor = record.jail.anchor();
        if self.known.outdated.borrow().contains_key(&anchor) {
            return Ok(true);
        }
        let outdated = record.path.is_some() && !self.runs(record)?;
        if outdated {
            self.known.outdated.borrow_mut().insert(anchor, Outdated::gone(record));
        }
        Ok(outdated)
    }

    fn take_over(&self, anchor: &Anchor, redirect: &Redirect, force: bool) -> Option<Problem> {
        if force {
            self.known.outdated.borrow_mut().insert(anchor.clone(), Outdated::unrecorded(anchor));
            return None;
        }
        let Redirect { protocol, host, place, .. } = redirect;
        let seen = format!("{protocol} {host} on {place} is in anchor {anchor}, which has no record");
        Some(Problem::new(seen, "kport apply clears it"))
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
        self.known.unrecorded.get_or_try_init(read).map(Vec::as_slice)
    }

    /// Another jail that has `address` as a target of its redirects, and does not share it with the jail `own`. For a target
    /// that is not a jail, `jail` is `None`, and others of the kind do not count. If the administrator vouches for the
    /// address, those that only report it do not count either.
    pub(super) fn leading_to(
        &self, own: &JailName, jail: Option<&Jail>, address: IpAddr, vouched: bool,
    ) -> Result<Option<String>> {
        let found = self.all_leading_to(own, jail, address)?;
        Ok(found.iter().find(|record| !vouched || !record.reported.contains(&address)).map(Record::mention))
    }

    /// The administrator or the kernel says that `address` is that of `own`, which is `jail` or not a jail: what others have
    /// published with it, because they report it, is to be removed.
    pub(super) fn disprove(&self, own: &JailName, jail: Option<&Jail>, address: IpAddr) -> Result<()> {
        for record in self.all_leading_to(own, jail, address)? {
            if record.reported.contains(&address) {
                let (anchor, jail) = (record.jail.anchor(), record.jail.mention());
                let note = format!("{jail} has reported {address}, which is not its address: unpublished");
                self.known.outdated.borrow_mut().insert(anchor, Outdated { record: Some(record), note });
            }
        }
        Ok(())
    }

    fn all_leading_to(&self, own: &JailName, jail: Option<&Jail>, address: IpAddr) -> Result<Vec<Record>> {
        // whether the jail of a record may have the addresses of this one as well
        let shares = |record: &Record, jail| {
            let name = record.jid.map_or(record.jail.to_string(), |jid| jid.to_string());
            Ok::<_, Error>(self.host.jail(&name)?.is_some_and(|there| there.shares_addresses_with(jail)))
        };
        let mut found = vec![];
        for anchor in self.store.leading_to(address)? {
            // what is wrong with a record is an error where its ports are needed
            if !anchor.is_of(own)
                && let Ok(owner) = self.owner(&anchor)
                && let Claimant::Jail(record) = &*owner
                && record.possible().flat_map(|p| &p.redirects).any(|r| r.target == address)
                && !(jail.is_none() && record.no_jail)
                && !self.is_outdated(record)?
                && !jail.map_or(Ok(false), |jail| shares(record, jail))?
            {
                found.push((**record).clone());
            }
        }
        Ok(found)
    }

    fn owner(&self, anchor: &Anchor) -> Result<Rc<Claimant>> {
        once(&self.known.owners, anchor, || {
            let record = self.store.get(anchor);
            let record = record.map_err(|error| error.and("publish or unpublish its jail again to correct that"))?;
            Ok(Rc::new(match record {
                Some(record) if record.boot == self.boot => Claimant::Jail(Box::new(record)),
                _ if self.firewall.loaded(anchor, false)?.is_empty() => Claimant::Nobody,
                _ => Claimant::Unrecorded,
            }))
        })
    }
}

/// With the default routes read once: they are needed for each mapping without a place, and for each port that `auto` tries.
impl Host for Survey<'_> {
    fn behind(&self) -> Result<Behind<'_>> {
        Ok(Behind::Host(self.host))
    }

    fn gateway(&self, family: Family) -> Result<Option<Interface>> {
        let read = || {
            let interface = self.host.gateway(family)?;
            if let Some(interface) = interface {
                self.observer.detail(&format!("gateway interface for {family}: {interface}"));
            }
            Ok(interface)
        };
        self.known.defaults.of(family).get_or_try_init(read).copied()
    }
}

/// What is known by this key; else what `read` returns.
fn once<K: Clone + Eq + Hash, V: ?Sized>(
    known: &RefCell<HashMap<K, Rc<V>>>, key: &K, read: impl FnOnce() -> Result<Rc<V>>,
) -> Result<Rc<V>> {
    if let Some(known) = known.borrow().get(key) {
        return Ok(Rc::clone(known));
    }
    let new = read()?;
    known.borrow_mut().insert(key.clone(), Rc::clone(&new));
    Ok(new)
}

/// The interface of the default route. A family without a default route has that of the other family: "the gateway interface
/// of the host".
pub(crate) fn gateway(host: &dyn Host, family: Family) -> Result<Interface> {
    for family in [family, family.other()] {
        if let Some(interface) = host.gateway(family)? {
            return Ok(interface);
        }
    }
    let why = "the host has no default route, so it has no gateway interface; name one in the spec: em0:8080:80";
    Err(Error::new(Kind::Unavailable, why).remedy("or with", Setting::Gateway))
}

/// Whether a jail is the one that a record was published for, possibly renamed since (jail(8) can rename a running jail). A new name is
/// at the same depth, and the path of a jail cannot be changed. A jid alone does not show it: root of a jail with `children.max` chooses
/// the jids of the jails in it, and may take that of a jail that is gone.
pub(super) fn is_of(record: &Record, there: &Jail) -> bool {
    let depth = |name: &str| name.matches('.').count();
    let known = record.path.as_deref().filter(|path| !path.is_empty() && !there.path.is_empty());
    let same_path = known.is_none_or(|path| path == there.path);
    !there.dying
        && record.jid == Some(there.jid)
        && (there.name == record.jail.as_str() || depth(&there.name) == depth(record.jail.as_str()) && same_path)
}
