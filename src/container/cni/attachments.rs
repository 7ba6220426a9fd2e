//! The attachments of a jail to networks, from which its publication follows.
//!
//! A runtime adds and removes one network of a container at a time, and gives each the same mappings; kport publishes a
//! jail's ports once. So the attachments are stored, in a [document](Documents) for each jail, and determine what is
//! published. It is written before a publication, and cleaned up afterwards: a kill in between leaves an extra attachment, which
//! the runtime's `DEL` removes. A `DEL` without `CNI_NETNS` finds its jail there.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::input::{Attachment, PortMapping};
use crate::error::{Error, Kind, Result};
use crate::name::{Anchor, JailName};
use crate::session::Session;
use crate::store::Documents;

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

/// What every version of a document has.
#[derive(Deserialize)]
struct Form {
    version: u32,
}

/// The attachments of every jail, and the lock over their documents.
pub struct Files {
    documents: Documents,
    pub list: Vec<Attachments>,
    /// The documents that could not be read: [`Kind::Unsupported`] for one of another version, which another kport can read.
    /// They are not changed.
    pub unread: Vec<(Anchor, Error)>,
}

impl Files {
    /// Waits for the lock until the time-out of the session.
    pub fn lock(session: &Session) -> Result<Files> {
        let documents = session.store()?.documents("cni", session.deadline())?;
        let mut files = Files { documents, list: vec![], unread: vec![] };
        for anchor in files.documents.anchors()? {
            match files.read(&anchor, &files.documents.get(&anchor)?) {
                Ok(read) => files.list.push(read),
                Err(error) => files.unread.push((anchor, error)),
            }
        }
        Ok(files)
    }

    fn read(&self, anchor: &Anchor, bytes: &[u8]) -> Result<Attachments> {
        let path = self.documents.path(anchor);
        let damaged =
            |why: String| Error::new(Kind::System, format!("{} is not a file of kport: {why}", path.display()));
        let Form { version } = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if version != Attachments::VERSION {
            let why = format!(
                "{} is of version {version}, and this kport supports only version {}: use the kport that wrote it",
                path.display(),
                Attachments::VERSION
            );
            return Err(Error::new(Kind::Unsupported, why));
        }
        let read: Attachments = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if read.jail.anchor() != *anchor {
            return Err(damaged(format!("it is of {}", read.jail.mention())));
        }
        Ok(read)
    }

    /// Removes the document of a jail.
    pub fn remove(&self, anchor: &Anchor) -> Result<()> {
        self.documents.remove(anchor)
    }

    /// Writes the attachments of a jail as a whole or not at all; without attachments the document is removed.
    pub fn put(&self, attachments: &Attachments) -> Result<()> {
        let anchor = attachments.jail.anchor();
        if attachments.list.is_empty() {
            return self.remove(&anchor);
        }
        let bytes =
            serde_json::to_vec(attachments).map_err(|e| Error::new(Kind::Internal, format!("attachments: {e}")))?;
        self.documents.put(&anchor, &bytes)
    }
}
