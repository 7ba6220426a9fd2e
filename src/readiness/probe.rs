//! The packets with which a redirect is tried, and what becomes of them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::proof::{Entrance, Possible};
use crate::publication::{Publication, Redirect};
use crate::rules;
use crate::trace::{Party, Trace, World};

/// A packet to try a redirect with.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    /// The redirect alone, so that a thousand mappings do not each evaluate those of the others.
    pub(super) publication: Publication,
    pub(super) redirect: Redirect,
    pub(super) sender: Party,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    /// For a packet from outside.
    pub(super) entrance: Option<Entrance>,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} to {}", self.publication.jail.mention(), self.sender, self.redirect)
    }
}

impl Probe {
    pub(super) fn possible(&self) -> Option<Possible> {
        self.entrance.map(|entrance| Possible { entrance, required: true })
    }

    /// The path of the packet in a world, with the rules that should be there, so that missing rules are not a reason.
    pub(super) fn traced(&self, world: &World) -> Trace {
        let mut loaded = world.clone();
        loaded.load(self.publication.jail.anchor().path(), &rules::rules(&self.publication));
        loaded.trace(&self.sender, self.redirect.protocol, self.from, self.to)
    }

    /// The same from another source.
    pub(super) fn sent_by(&self, source: IpAddr) -> Probe {
        Probe { from: SocketAddr::new(source, self.from.port()), ..self.clone() }
    }
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    Arrives,
    Depends(String),
    /// With the reason.
    Lost(String),
}

/// What becomes of the packets of a class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Judged {
    /// Of each packet.
    pub(super) outcomes: Vec<Outcome>,
    pub(super) notes: Vec<String>,
}

impl Judged {
    pub(super) fn is_silent(&self) -> bool {
        self.notes.is_empty() && self.outcomes.iter().all(|outcome| *outcome == Outcome::Arrives)
    }

    /// Whether a text names the mapping that was tried, and so is not about the others of its class.
    pub(super) fn names(&self, Probe { publication, redirect, to, .. }: &Probe) -> bool {
        let parts = [
            publication.jail.to_string(),
            redirect.target.to_string(),
            redirect.jail.first().to_string(),
            to.port().to_string(),
        ];
        let texts = self.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Arrives => None,
            Outcome::Depends(text) | Outcome::Lost(text) => Some(text),
        });
        texts.chain(&self.notes).any(|text| parts.iter().any(|part| text.contains(part)))
    }
}
