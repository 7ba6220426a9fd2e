//! The attachments of a jail to networks, from which its publication follows.
//!
//! A runtime adds and removes one network of a container at a time, and gives each the same mappings; kport publishes a
//! jail's ports once. So the attachments are stored, in a [document](Documents) for each jail, and determine what is
//! published. It is written before a publication, and cleaned up afterwards: a kill in between leaves an extra attachment, which
//! the runtime's `DEL` removes. A `DEL` without `CNI_NETNS` finds its jail there.

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

/// The directory of the documents.
const FOLDER: &str = "cni";

/// One network of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub network: String,
    pub container: String,
    pub interface: String,
    /// The addresses of the container on this network.
    pub addresses: Vec<IpAddr>,
    pub mappings: BTreeSet<PortMapping>,
    pub options: Options,
}

impl Attachment {
    /// Whether this is the attachment of a container, an interface and a network.
    pub fn is(&self, network: &str, attached: &Attached) -> bool {
        self.network == network && self.container == attached.container && self.interface == attached.interface
    }
}

/// The attachments of one jail, in the order in which they were added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachments {
    version: u32,
    /// As in the records: those of another boot do not count.
    pub boot: String,
    pub jail: JailName,
    /// The jid when one was added, if it was known.
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

/// The contents of the documents.
#[derive(Debug, Default)]
pub struct Stored {
    pub list: Vec<Attachments>,
    /// The jails whose documents could not be read, and were removed.
    pub damaged: Vec<Anchor>,
    /// Notes about these for the user.
    pub notes: Vec<String>,
}

/// The attachments of every jail, and the lock over them.
pub struct Files(Documents);

impl Files {
    /// Waits for the lock until the time-out of the session.
    pub fn lock(session: &Session) -> Result<Files> {
        Ok(Files(session.store()?.documents(FOLDER, session.deadline())?))
    }

    /// The attachments of every jail.
    pub fn all(&self) -> Result<Stored> {
        let mut found = Stored::default();
        for anchor in self.0.anchors()? {
            let read: serde_json::Result<Attachments> = serde_json::from_slice(&self.0.get(&anchor)?);
            match read {
                Ok(read) if read.version == Attachments::VERSION && read.jail.anchor() == anchor => {
                    found.list.push(read);
                }
                other => {
                    let why = other.err().map_or_else(|| "of another jail or version".to_owned(), |e| e.to_string());
                    // its ports are still in pf and in the records: kport list, kport gc
                    self.0.remove(&anchor)?;
                    let path = self.0.path(&anchor);
                    found.notes.push(format!("{} is not a file of kport ({why}) and was removed", path.display()));
                    found.damaged.push(anchor);
                }
            }
        }
        Ok(found)
    }

    /// Writes the attachments of a jail as a whole or not at all; without attachments the document is removed.
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
