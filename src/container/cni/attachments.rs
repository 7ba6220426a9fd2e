//! Which attachments of which networks a jail's publication is made of.
//!
//! A runtime adds and removes one network of a container at a time, and gives each the same mappings; kport publishes a
//! jail's ports once. So the attachments are kept, a [document](Documents) for each jail, and what is published follows from it.
//! It is written before a publication, and cleaned up after its end: a kill in between leaves an attachment too many, which the
//! runtime's `DEL` removes. A `DEL` without `CNI_NETNS` finds its jail there.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::environment::Attached;
use super::mapping::PortMapping;
use crate::error::{Error, Kind, Result};
use crate::name::{Anchor, JailName};
use crate::options::Options;
use crate::session::Session;
use crate::store::Documents;

/// The folder of the documents.
const FOLDER: &str = "cni";

/// One network of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub network: String,
    pub container: String,
    pub interface: String,
    /// Those that the container has on this network.
    pub addresses: Vec<IpAddr>,
    pub mappings: BTreeSet<PortMapping>,
    pub options: Options,
}

impl Attachment {
    /// Whether this is what the runtime means by a container, an interface and a network.
    pub fn is(&self, network: &str, attached: &Attached) -> bool {
        self.network == network && self.container == attached.container && self.interface == attached.interface
    }
}

/// The attachments of one jail, in the order in which they were added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachments {
    version: u32,
    /// As in the record: those of another boot do not count.
    pub boot: String,
    pub jail: JailName,
    /// The number of the jail when one was added, if it was known.
    pub jid: Option<i32>,
    pub list: Vec<Attachment>,
}

impl Attachments {
    const VERSION: u32 = 1;

    pub fn none(jail: JailName, jid: Option<i32>, boot: String) -> Attachments {
        Attachments { version: Attachments::VERSION, boot, jail, jid, list: vec![] }
    }

    /// The addresses on all networks, the first network's first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.list.iter().flat_map(|attachment| &attachment.addresses).copied().collect()
    }

    /// The mappings of all networks.
    pub fn mappings(&self) -> BTreeSet<PortMapping> {
        self.list.iter().flat_map(|attachment| &attachment.mappings).copied().collect()
    }
}

/// What the documents hold.
#[derive(Debug, Default)]
pub struct Found {
    pub list: Vec<Attachments>,
    /// Whose documents could not be read; they are removed now.
    pub damaged: Vec<Anchor>,
    /// The same for a person.
    pub notes: Vec<String>,
}

/// The attachments of every jail, and the lock over them.
pub struct Files(Documents);

impl Files {
    /// Waits for the lock until the session's time is up.
    pub fn lock(session: &Session) -> Result<Files> {
        Ok(Files(session.store()?.documents(FOLDER, session.deadline())?))
    }

    /// The attachments of every jail.
    pub fn all(&self) -> Result<Found> {
        let mut found = Found::default();
        for anchor in self.0.anchors()? {
            let read: serde_json::Result<Attachments> = serde_json::from_slice(&self.0.get(&anchor)?);
            match read {
                Ok(read) if read.version == Attachments::VERSION && read.jail.anchor() == anchor => {
                    found.list.push(read);
                }
                other => {
                    let why = other.err().map_or_else(|| "of another jail or version".to_owned(), |e| e.to_string());
                    // its ports are still in pf and in the record: kport list, kport gc
                    self.0.remove(&anchor)?;
                    let path = self.0.path(&anchor);
                    found.notes.push(format!("{} was not one of kport's ({why}): removed", path.display()));
                    found.damaged.push(anchor);
                }
            }
        }
        Ok(found)
    }

    /// Writes the attachments of a jail as a whole or not at all; no attachments are no document.
    pub fn put(&self, attachments: &Attachments) -> Result<()> {
        let anchor = attachments.jail.anchor();
        if attachments.list.is_empty() {
            return self.0.remove(&anchor);
        }
        let bytes =
            serde_json::to_vec(attachments).map_err(|e| Error::new(Kind::Internal, format!("attachments: {e}")))?;
        self.0.put(&anchor, &bytes)
    }
}
