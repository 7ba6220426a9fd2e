//! Index entries of the records: names that have all data, by port (claims), by target, by jid.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;

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
        let mut dirs = BTreeSet::new();
        for entry in entries(gone).difference(&kept) {
            let dir = self.dir.join(&entry.dir);
            _ = fs::remove_file(dir.join(&entry.file));
            dirs.insert(dir);
        }
        for dir in dirs {
            // only an empty one is removed
            _ = fs::remove_dir(dir);
        }
    }

    /// The claims on ports of a block. One may be out of date; check its record.
    pub fn claims(&self, block: Block) -> Result<Vec<Claim>> {
        Ok(names_in(&self.dir.join(block.dir()))?.iter().filter_map(|name| Claim::read(name)).collect())
    }

    /// The anchors whose records may have `address` as a target of redirects.
    pub fn leading_to(&self, address: IpAddr) -> Result<Vec<Anchor>> {
        self.anchors_in(&target_dir(address))
    }

    /// The anchors whose records may be of the jail with this jid.
    pub fn of_jid(&self, jid: i32) -> Result<Vec<Anchor>> {
        self.anchors_in(&jid_dir(jid))
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
    /// What cannot be removed only costs reading a record, so failures are not reported.
    ///
    /// `records` is what the caller has read.
    pub fn sweep(
        &self,
        _lock: &Lock,
        boot: &str,
        records: &BTreeMap<Anchor, Record>,
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
        let read =
            |anchor: &Anchor| records.get(anchor).map_or_else(|| self.get(anchor), |known| Ok(Some(known.clone())));
        // the entries of an anchor's record; `None` if all of them stay
        let mut explained = |anchor: &Anchor| match read(anchor) {
            Ok(Some(record)) if record.boot == boot => Some(entries(&record)),
            Ok(old) => {
                if old.is_some() {
                    _ = fs::remove_file(self.record_path(anchor));
                }
                (!holds(anchor)).then(BTreeSet::new)
            }
            Err(_) => None,
        };
        let mut known: BTreeMap<Anchor, Option<BTreeSet<Entry>>> = BTreeMap::new();
        for anchor in recorded {
            let entries = explained(&anchor);
            known.insert(anchor, entries);
        }
        let ports = Protocol::ALL.map(|protocol| format!("ports/{protocol}"));
        for base in ports.into_iter().chain(["targets".to_owned(), "jids".to_owned()]) {
            for folder in names_in(&self.dir.join(&base)).unwrap_or_default() {
                let dir = format!("{base}/{folder}");
                let path = self.dir.join(&dir);
                let mut empty = true;
                for file in names_in(&path).unwrap_or_default() {
                    // a claim ends with its anchor, the other entries are the anchor
                    let child = file.splitn(3, '@').last().unwrap_or_default();
                    let Some(anchor) = Anchor::from_child(child) else {
                        empty = false;
                        continue;
                    };
                    let wanted = known.entry(anchor.clone()).or_insert_with(|| explained(&anchor));
                    let entry = Entry { dir: dir.clone(), file };
                    match wanted.as_ref().is_some_and(|wanted| !wanted.contains(&entry)) {
                        true => _ = fs::remove_file(path.join(entry.file)),
                        false => empty = false,
                    }
                }
                if empty {
                    _ = fs::remove_dir(path);
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
/// The folder of the claims over more than [`WIDE_BLOCKS`] blocks.
const WIDE: &str = "wide";
/// 2^6 ports are a block.
const BLOCK_BITS: u16 = 6;
/// A claim is written to each of its blocks, unless there are more than these.
const WIDE_BLOCKS: usize = 16;

/// A folder of claims: those on one block of ports, or those over more than `WIDE_BLOCKS` blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    protocol: Protocol,
    /// `None` for the wide ones.
    number: Option<u16>,
}

impl Block {
    /// The blocks with all claims that may overlap `ports`.
    pub fn of(protocol: Protocol, ports: PortRange) -> impl Iterator<Item = Block> {
        let numbers = std::iter::once(None).chain(numbers(ports).map(Some));
        numbers.map(move |number| Block { protocol, number })
    }

    fn dir(self) -> String {
        match self.number {
            None => format!("ports/{}/{WIDE}", self.protocol),
            Some(number) => format!("ports/{}/{number}", self.protocol),
        }
    }
}

fn numbers(ports: PortRange) -> std::ops::RangeInclusive<u16> {
    (ports.first() >> BLOCK_BITS)..=(ports.last() >> BLOCK_BITS)
}

impl Claim {
    /// A claim from its file's name.
    fn read(name: &str) -> Option<Claim> {
        let mut parts = name.splitn(3, '@');
        let (ports, place, child) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Claim { anchor: Anchor::from_child(child)?, ports: ports.parse().ok()?, place: place.parse().ok()? })
    }
}

/// A name that points to a record.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) dir: String,
    pub(super) file: String,
}

fn target_dir(address: IpAddr) -> String {
    format!("targets/{address}")
}

fn jid_dir(jid: i32) -> String {
    format!("jids/{jid}")
}

/// All entries of a record.
pub(super) fn entries(record: &Record) -> BTreeSet<Entry> {
    let anchor = record.jail.anchor();
    let mut made = BTreeSet::new();
    for claim in record.claims() {
        let (protocol, ports) = (claim.protocol, claim.host);
        let file = format!("{ports}@{}@{}", claim.place, anchor.child());
        if numbers(ports).len() > WIDE_BLOCKS {
            made.insert(Entry { dir: Block { protocol, number: None }.dir(), file });
        } else {
            for number in numbers(ports) {
                let dir = Block { protocol, number: Some(number) }.dir();
                made.insert(Entry { dir, file: file.clone() });
            }
        }
    }
    let targets: BTreeSet<IpAddr> = record.possible().flat_map(|p| &p.redirects).map(|r| r.target).collect();
    made.extend(targets.into_iter().map(|target| Entry { dir: target_dir(target), file: anchor.child().to_owned() }));
    made.extend(record.jid.map(|jid| Entry { dir: jid_dir(jid), file: anchor.child().to_owned() }));
    made
}
