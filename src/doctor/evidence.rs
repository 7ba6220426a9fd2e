//! The facts of the host, of pf and of the records, each read once.

use std::path::Path;
use std::sync::Arc;

use once_cell::unsync::OnceCell;

use super::ManagerFiles;
use crate::error::{Error, Result};
use crate::host::{Host, HostInterface};
use crate::managers;
use crate::options::Options;
use crate::pf::{Firewall, Rulesets, Status};
use crate::pfconf::Conf;
use crate::publication::{Publication, Redirect};
use crate::readiness::{MainRuleset, Surroundings};
use crate::store::{Record, Store};
use crate::trace::{Release, World};

/// What is read once.
pub(super) struct Evidence<'a> {
    pub(super) host: &'a dyn Host,
    pub(super) firewall: &'a dyn Firewall,
    pub(super) store: Result<Store>,
    pub(super) interfaces: Result<Vec<HostInterface>>,
    pub(super) status: Result<Status>,
    /// By path; the main ruleset's is empty.
    pub(super) rulesets: Result<Rulesets>,
    /// `None` for a host from a file.
    pub(super) files: Option<ManagerFiles<'a>>,
    /// What is published; records of an earlier boot and those that cannot be read are omitted.
    pub(super) records: Vec<Record>,
    judged: OnceCell<MainRuleset<'a>>,
}

impl<'a> Evidence<'a> {
    pub(super) fn ask(
        host: &'a dyn Host,
        firewall: &'a dyn Firewall,
        store: Result<Store>,
        files: Option<ManagerFiles<'a>>,
    ) -> Evidence<'a> {
        let (boot, mut records) = (host.boot_id(), vec![]);
        if let (Ok(boot), Ok(store)) = (&boot, &store) {
            let anchors = store.anchors().unwrap_or_default();
            records = anchors.iter().filter_map(|anchor| store.get(anchor).ok()?).collect();
            records.retain(|record: &Record| record.boot == *boot);
        }
        let interfaces = host.interfaces();
        let mut rulesets = firewall.rulesets(false);
        if let (Ok(rulesets), Ok(interfaces), Some(files)) = (&mut rulesets, &interfaces, files) {
            name_by_file(rulesets, interfaces, &managers::main_ruleset(files.root));
        }
        Evidence {
            host,
            firewall,
            store,
            interfaces,
            status: firewall.status(),
            rulesets,
            files,
            records,
            judged: OnceCell::new(),
        }
    }

    pub(super) fn publications(&self) -> impl Iterator<Item = &Publication> + Clone {
        self.records.iter().flat_map(|record| &record.publications)
    }

    pub(super) fn redirects(&self) -> impl Iterator<Item = (&Publication, &Redirect)> {
        self.publications().flat_map(|publication| publication.redirects.iter().map(move |r| (publication, r)))
    }

    pub(super) fn interfaces(&self) -> Result<&[HostInterface]> {
        self.interfaces.as_deref().map_err(Error::clone)
    }

    pub(super) fn surroundings(&self) -> Result<Surroundings<'a>> {
        Ok(Surroundings { host: self.host, interfaces: self.interfaces()?.into() })
    }

    /// The main ruleset, judged once for each class of mappings, whichever checks ask.
    pub(super) fn judged(&self) -> Result<&MainRuleset<'a>> {
        self.judged.get_or_try_init(|| {
            let rulesets = self.rulesets.clone().unwrap_or_default();
            MainRuleset::new(self.surroundings()?, None, move || Ok(rulesets.clone()))
        })
    }

    pub(super) fn main(&self) -> Option<&Conf> {
        let (_, conf) = self.rulesets.as_ref().ok()?.iter().find(|(path, _)| path.is_empty())?;
        Some(conf)
    }

    /// The first jail that publishes with such options, for messages.
    pub(super) fn jail_with(&self, has: impl Fn(&Options) -> bool) -> Option<String> {
        self.publications().find(|publication| has(&publication.options)).map(|publication| publication.jail.mention())
    }
}

/// Names the rules of the main ruleset as the file has them that pfctl(8) has loaded, as far as they are the same.
fn name_by_file(rulesets: &mut Rulesets, interfaces: &[HostInterface], file: &Path) {
    let Some((_, main)) = rulesets.iter_mut().find(|(path, _)| path.is_empty()) else { return };
    // the administrator's file may be another one, or not be readable
    let Ok(file) = Conf::of_file(file) else { return };
    let world = World::new(Release::default(), interfaces.to_vec());
    *main = Arc::new(world.named_by(main, &file));
}
