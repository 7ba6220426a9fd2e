//! Claims: which records to look at for a port. Each is an empty file whose name says all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{Lock, Store};
use crate::error::{Error, Result};
use crate::files::{names_in, touch};
use crate::name::Anchor;
use crate::net::{Place, PortRange, Protocol};
use crate::publication::Redirect;

/// A claim of another jail that may overlap a redirect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The anchor that made it.
    pub anchor: Anchor,
    /// The ports.
    pub ports: PortRange,
    /// Where.
    pub place: Place,
}

impl Store {
    /// Makes the claims of a record.
    pub(super) fn claim(&self, anchor: &Anchor, redirects: &[Redirect]) -> Result<()> {
        for claim in claim_paths(redirects) {
            let path = self.dir.join(&claim.dir).join(claim.file(anchor));
            touch(&path).map_err(|e| Error::io(format_args!("make {}", path.display()), &e))?;
        }
        Ok(())
    }

    /// Drops the claims of `gone` that nothing in `kept` needs. A claim that stays behind costs a look at a record, no
    /// more, so failures are not reported.
    pub fn release(&self, _lock: &Lock, anchor: &Anchor, gone: &[Redirect], kept: &[Redirect]) {
        let kept = claim_paths(kept);
        for claim in claim_paths(gone).difference(&kept) {
            let dir = self.dir.join(&claim.dir);
            _ = fs::remove_file(dir.join(claim.file(anchor)));
            // only an empty one goes
            _ = fs::remove_dir(dir);
        }
    }

    /// The claims of other anchors on a port of `ports`. A claim may be out of date; its record tells.
    pub fn claims(&self, own: &Anchor, protocol: Protocol, ports: PortRange) -> Result<BTreeSet<Claim>> {
        let base = self.dir.join("ports").join(protocol.name());
        let mut found = BTreeSet::new();
        let mut look = |dir: &Path| -> Result<()> {
            for name in names_in(dir)? {
                if let Some(claim) = Claim::read(&name)
                    && claim.anchor != *own
                    && claim.ports.overlaps(ports)
                {
                    found.insert(claim);
                }
            }
            Ok(())
        };
        look(&base.join(WIDE))?;
        for block in blocks(ports) {
            look(&base.join(block.to_string()))?;
        }
        Ok(found)
    }

    /// Drops one claim that is out of date.
    pub fn drop_claim(&self, _lock: &Lock, protocol: Protocol, claim: &Claim) {
        let base = self.dir.join("ports").join(protocol.name());
        let name = file_name(claim.ports, claim.place, &claim.anchor);
        for folder in folders(claim.ports) {
            _ = fs::remove_file(base.join(&folder).join(&name));
            _ = fs::remove_dir(base.join(folder));
        }
    }

    /// Removes what earlier boots and killed runs have left: records of another boot than `boot`, files half written, and
    /// claims that no record explains. The claims on an anchor of which `holds` says that pf has something in it stay: they
    /// tell who has the ports.
    ///
    /// What cannot be removed costs a look at a record, no more, so failures are not reported.
    pub fn sweep(&self, _lock: &Lock, boot: &str, holds: &mut dyn FnMut(&Anchor) -> bool) {
        let jails = self.dir.join("jails");
        for name in names_in(&jails).unwrap_or_default() {
            if name.strip_suffix(".json.tmp").is_some_and(|child| Anchor::from_child(child).is_some()) {
                _ = fs::remove_file(jails.join(name));
            }
        }
        let mut wanted: BTreeMap<Anchor, Option<BTreeSet<ClaimPath>>> = BTreeMap::new();
        // the claims that an anchor's record explains; `None` where all of them stay
        let mut explained = |anchor: &Anchor| match self.get(anchor) {
            Ok(Some(record)) if record.boot == boot => Some(claim_paths(&record.claims())),
            Ok(old) => {
                if old.is_some() {
                    _ = fs::remove_file(self.record_path(anchor));
                }
                (!holds(anchor)).then(BTreeSet::new)
            }
            Err(_) => None,
        };
        for anchor in self.anchors().unwrap_or_default() {
            let claims = explained(&anchor);
            wanted.insert(anchor, claims);
        }
        for protocol in Protocol::ALL {
            let base = format!("ports/{}", protocol.name());
            for folder in names_in(&self.dir.join(&base)).unwrap_or_default() {
                let dir = format!("{base}/{folder}");
                for name in names_in(&self.dir.join(&dir)).unwrap_or_default() {
                    let Some(Claim { anchor, ports, place }) = Claim::read(&name) else { continue };
                    let claims = wanted.entry(anchor.clone()).or_insert_with(|| explained(&anchor));
                    let path = ClaimPath { dir: dir.clone(), ports, place };
                    if claims.as_ref().is_some_and(|claims| !claims.contains(&path)) {
                        _ = fs::remove_file(self.dir.join(&dir).join(name));
                    }
                }
                // only an empty one goes
                _ = fs::remove_dir(self.dir.join(dir));
            }
        }
    }

    /// [`Store::sweep`], in the first transaction of a boot.
    pub fn sweep_after_boot(&self, lock: &Lock, boot: &str, holds: &mut dyn FnMut(&Anchor) -> bool) {
        if !lock.is_of_boot(boot) {
            self.sweep(lock, boot, holds);
            lock.set_boot(boot);
        }
    }
}

/// The folder of the claims over more than [`WIDE_BLOCKS`] blocks.
const WIDE: &str = "wide";
/// 2^6 ports are a block.
const BLOCK_BITS: u16 = 6;
/// A claim is written into each of its blocks, unless there are more than these.
const WIDE_BLOCKS: usize = 16;

fn blocks(ports: PortRange) -> std::ops::RangeInclusive<u16> {
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

/// Where a claim stands.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct ClaimPath {
    dir: String,
    ports: PortRange,
    place: Place,
}

impl ClaimPath {
    fn file(&self, anchor: &Anchor) -> String {
        file_name(self.ports, self.place, anchor)
    }
}

fn file_name(ports: PortRange, place: Place, anchor: &Anchor) -> String {
    format!("{ports}@{place}@{}", anchor.child())
}

/// The folders in which a claim stands, below that of its protocol.
fn folders(ports: PortRange) -> Vec<String> {
    if blocks(ports).len() > WIDE_BLOCKS {
        return vec![WIDE.to_owned()];
    }
    blocks(ports).map(|block| block.to_string()).collect()
}

fn claim_paths(redirects: &[Redirect]) -> BTreeSet<ClaimPath> {
    let mut paths = BTreeSet::new();
    for redirect in redirects {
        let (ports, place) = (redirect.host, redirect.place);
        for folder in folders(ports) {
            paths.insert(ClaimPath { dir: format!("ports/{}/{folder}", redirect.protocol), ports, place });
        }
    }
    paths
}
