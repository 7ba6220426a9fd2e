//! Index entries of the records: names that have all data, by port (claims), by target, by jid.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use super::{JAILS, Lock, Record, Store, anchors};
use crate::error::{Error, Result};
use crate::files::{mark, names_in};
use crate::name::Anchor;
use crate::net::{Place, PortRange, Protocol};

/// A claim of another jail that may overlap a redirect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    pub anchor: Anchor,
    pub ports: PortRange,
    pub place: Place,
}

impl Store {
    /// Removes the entries of the record `gone` that are not those of `kept`, of the same jail. A left-over entry only costs
    /// reading a record, so failures are not reported.
    pub fn release(&self, _lock: &Lock, gone: &Record, kept: Option<&Record>) {
        let kept = kept.map(entries).unwrap_or_default();
        let mut folders = BTreeSet::new();
        for entry in entries(gone).difference(&kept) {
            let path = self.dir.join(entry);
            _ = fs::remove_file(&path);
            folders.extend(path.parent().map(Path::to_owned));
        }
        for folder in folders {
            // only an empty one is removed
            _ = fs::remove_dir(folder);
        }
    }

    /// The claims in one of the [`claim_folders`]. One may be out of date; check its record.
    pub fn claims(&self, folder: &str) -> Result<Vec<Claim>> {
        Ok(names_in(&self.dir.join(folder))?.iter().filter_map(|name| Claim::read(name)).collect())
    }

    /// The anchors whose records may have `address` as a target of redirects.
    pub fn leading_to(&self, address: IpAddr) -> Result<Vec<Anchor>> {
        self.anchors_in(&format!("targets/{address}"))
    }

    /// The anchors whose records may be of the jail with this jid.
    pub fn of_jid(&self, jid: i32) -> Result<Vec<Anchor>> {
        self.anchors_in(&format!("jids/{jid}"))
    }

    /// The anchors without a record that pf had at the first transaction of this boot, or of a new state directory.
    pub fn unrecorded(&self) -> Result<Vec<Anchor>> {
        self.anchors_in(UNRECORDED)
    }

    fn anchors_in(&self, dir: &str) -> Result<Vec<Anchor>> {
        Ok(anchors(names_in(&self.dir.join(dir))?, ""))
    }

    /// Removes what earlier boots and killed processes have left: records of another boot than `boot`, partly written files,
    /// and entries without a record. Entries of an anchor stay if `holds` reports that pf has something in it: they show who
    /// has the ports.
    ///
    /// What cannot be removed only costs reading a record, so failures are not reported. `read` is what the caller has read.
    pub fn sweep(
        &self,
        _lock: &Lock,
        boot: &str,
        read: &BTreeMap<Anchor, Record>,
        holds: &mut dyn FnMut(&Anchor) -> bool,
    ) {
        let jails = self.dir.join(JAILS);
        let mut recorded = vec![];
        for name in names_in(&jails).unwrap_or_default() {
            if name.strip_suffix(".json.tmp").is_some_and(|child| Anchor::from_child(child).is_some()) {
                _ = fs::remove_file(jails.join(&name));
            }
            recorded.extend(name.strip_suffix(".json").and_then(Anchor::from_child));
        }
        // the entries of an anchor's record; `None` if all of them stay
        let mut explained = |anchor: &Anchor| match read
            .get(anchor)
            .map_or_else(|| self.get(anchor), |known| Ok(Some(known.clone())))
        {
            Ok(Some(record)) if record.boot == boot => Some(entries(&record)),
            Ok(old) => {
                if old.is_some() {
                    _ = fs::remove_file(self.record_path(anchor));
                }
                (!holds(anchor)).then(BTreeSet::new)
            }
            Err(_) => None,
        };
        let mut known: BTreeMap<Anchor, Option<BTreeSet<String>>> =
            recorded.into_iter().map(|anchor| (anchor.clone(), explained(&anchor))).collect();
        let ports = Protocol::ALL.map(|protocol| format!("ports/{protocol}"));
        for base in ports.into_iter().chain(["targets".to_owned(), "jids".to_owned()]) {
            for folder in names_in(&self.dir.join(&base)).unwrap_or_default() {
                let dir = format!("{base}/{folder}");
                let mut empty = true;
                for file in names_in(&self.dir.join(&dir)).unwrap_or_default() {
                    // a claim ends with its anchor, the other entries are the anchor
                    let child = file.splitn(3, '@').last().unwrap_or_default();
                    let Some(anchor) = Anchor::from_child(child) else {
                        empty = false;
                        continue;
                    };
                    let wanted = known.entry(anchor).or_insert_with_key(&mut explained);
                    let entry = format!("{dir}/{file}");
                    match wanted.as_ref().is_some_and(|wanted| !wanted.contains(&entry)) {
                        true => _ = fs::remove_file(self.dir.join(entry)),
                        false => empty = false,
                    }
                }
                if empty {
                    _ = fs::remove_dir(self.dir.join(dir));
                }
            }
        }
        for anchor in self.unrecorded().unwrap_or_default() {
            if self.has(&anchor) || !holds(&anchor) {
                _ = fs::remove_file(self.dir.join(UNRECORDED).join(anchor.child()));
            }
        }
    }

    /// [`Store::sweep`], in the first transaction of a boot or of a new state directory. `children` reads the names of kport's
    /// anchors that have rules: those without a record are noted, since their ports are in use. If it fails, the next transaction
    /// tries again.
    pub fn sweep_after_boot(
        &self,
        lock: &Lock,
        boot: &str,
        holds: &mut dyn FnMut(&Anchor) -> bool,
        children: impl FnOnce() -> Result<Vec<String>>,
    ) -> Result<()> {
        if lock.boot() == boot {
            return Ok(());
        }
        self.sweep(lock, boot, &BTreeMap::new(), holds);
        let Ok(children) = children() else { return Ok(()) };
        for anchor in children.iter().filter_map(|child| Anchor::from_child(child)) {
            if !self.has(&anchor) {
                let path = self.dir.join(UNRECORDED).join(anchor.child());
                mark(&path).map_err(|e| Error::io(format_args!("create {}", path.display()), &e))?;
            }
        }
        lock.set_boot(boot);
        Ok(())
    }
}

/// The folder of the names of anchors without a record.
const UNRECORDED: &str = "unrecorded";
/// A claim is an entry of each of its blocks, unless there are more than these.
const WIDE_BLOCKS: usize = 16;

/// The blocks of 64 ports.
fn blocks(ports: PortRange) -> RangeInclusive<u16> {
    (ports.first() >> 6)..=(ports.last() >> 6)
}

/// The folder of the claims on ports of a block; without one, of those over more than [`WIDE_BLOCKS`].
fn claim_folder(protocol: Protocol, block: Option<u16>) -> String {
    match block {
        Some(block) => format!("ports/{protocol}/{block}"),
        None => format!("ports/{protocol}/wide"),
    }
}

/// The folders of all claims that may overlap these ports.
pub fn claim_folders(protocol: Protocol, ports: PortRange) -> impl Iterator<Item = String> {
    let all = std::iter::once(None).chain(blocks(ports).map(Some));
    all.map(move |block| claim_folder(protocol, block))
}

impl Claim {
    /// A claim from its file's name.
    fn read(name: &str) -> Option<Claim> {
        let mut parts = name.splitn(3, '@');
        let (ports, place, child) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Claim { anchor: Anchor::from_child(child)?, ports: ports.parse().ok()?, place: place.parse().ok()? })
    }
}

/// The paths of all entries of a record, below the state directory.
pub(super) fn entries(record: &Record) -> BTreeSet<String> {
    let anchor = record.jail.anchor();
    let child = anchor.child();
    let mut made = BTreeSet::new();
    for claim in record.claims() {
        let file = format!("{}@{}@{child}", claim.host, claim.place);
        if blocks(claim.host).len() > WIDE_BLOCKS {
            made.insert(format!("{}/{file}", claim_folder(claim.protocol, None)));
        } else {
            made.extend(blocks(claim.host).map(|b| format!("{}/{file}", claim_folder(claim.protocol, Some(b)))));
        }
    }
    let targets = record.possible().flat_map(|p| &p.redirects).map(|r| r.target);
    made.extend(targets.map(|target| format!("targets/{target}/{child}")));
    made.extend(record.jid.map(|jid| format!("jids/{jid}/{child}")));
    made
}
