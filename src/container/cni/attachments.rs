//! Which attachments of which networks a jail's publication is made of.
//!
//! A runtime adds and removes one network of a container at a time, and gives each the same mappings; kport publishes a
//! jail's ports once. So the attachments are kept, a file for each jail, `cni/NAME.json` in the state directory, NAME being
//! its anchor's name, and what is published follows from the file. It is written before a publication and cleaned up after
//! the end of one: a kill in between leaves an attachment too many, which the runtime's `DEL` takes away. It also tells a `DEL` that comes without
//! `CNI_NETNS` which jail it means.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use kport::error::{Error, Kind, Result};
use kport::files;
use kport::name::{Anchor, JailName};
use kport::options::Options;
use kport::session::Session;
use kport::store::{Lock, Store};
use serde::{Deserialize, Serialize};

use super::environment::Attached;
use super::mapping::PortMapping;

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
    /// As in the record: those of another boot are none any more.
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

/// What the files hold.
#[derive(Debug, Default)]
pub struct Found {
    pub list: Vec<Attachments>,
    /// Whose files were none of kport's; they are gone now.
    pub damaged: Vec<Anchor>,
    /// The same for a person.
    pub notes: Vec<String>,
}

/// The files of the attachments, and the lock over them.
pub struct Files {
    dir: PathBuf,
    _lock: Lock,
}

impl Files {
    /// Waits for the lock until the session's time is up. It is taken before the publisher's own, never the other way round.
    pub fn lock(session: &Session) -> Result<Files> {
        let store = Store::open(&session.store()?.dir().join("cni"))?;
        Ok(Files { dir: store.dir().to_owned(), _lock: store.lock(session.deadline())? })
    }

    fn path(&self, anchor: &Anchor) -> PathBuf {
        self.dir.join(format!("{}.json", anchor.child()))
    }

    /// The attachments of every jail.
    pub fn all(&self) -> Result<Found> {
        let mut found = Found::default();
        for name in files::names_in(&self.dir)? {
            let Some(anchor) = name.strip_suffix(".json").and_then(Anchor::from_child) else { continue };
            let path = self.path(&anchor);
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(e) => return Err(Error::io(format_args!("read {}", path.display()), &e)),
            };
            let read: serde_json::Result<Attachments> = serde_json::from_slice(&bytes);
            match read {
                Ok(read) if read.version == Attachments::VERSION && read.jail.anchor() == anchor => {
                    found.list.push(read)
                }
                other => {
                    let why = other.err().map_or_else(|| "of another jail or version".to_owned(), |e| e.to_string());
                    // what it said is in pf and in the record still: kport list, kport gc
                    self.remove(&anchor)?;
                    found.notes.push(format!("{} was not one of kport's ({why}): removed", path.display()));
                    found.damaged.push(anchor);
                }
            }
        }
        Ok(found)
    }

    /// Writes the attachments of a jail in whole or not at all; none is no file.
    pub fn put(&self, attachments: &Attachments) -> Result<()> {
        let anchor = attachments.jail.anchor();
        if attachments.list.is_empty() {
            return self.remove(&anchor);
        }
        let bytes =
            serde_json::to_vec(attachments).map_err(|e| Error::new(Kind::Internal, format!("attachments: {e}")))?;
        files::replace_file(&self.path(&anchor), &bytes)
    }

    fn remove(&self, anchor: &Anchor) -> Result<()> {
        let path = self.path(anchor);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format_args!("remove {}", path.display()), &e))
            }
            _ => Ok(()),
        }
    }
}
