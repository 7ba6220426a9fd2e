//! A hook of an OCI runtime, such as ocijail. The ports to publish are in the container's annotations, so one hook serves all
//! containers.
//!
//! An image can carry annotations, and whoever starts a container chooses them: they ask for ports, and nothing else. Which ports and
//! places a container may have is [`Allowed`] by the arguments of the hook, which the administrator writes.
//!
//! The runtime gives the container's state. The ports of a container that has stopped are removed, those of any other are
//! published, so the same hook is used for `prestart` (or `createRuntime`) and for `poststop`.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::{Overrides, Program};
use crate::error::{self, Error, Setting, error, quoted};
use crate::managers::{Identity, jid};
use crate::net::{Place, PortRange};
use crate::publisher::{AUTO_RANGE, Outcome, Publisher, Request};
use crate::spec::{self, HostPorts, Mapping, Spec};

/// Specs, as on a command line.
const PUBLISH: &str = "io.kport.publish";
/// The prefix of kport's annotations.
const OURS: &str = "io.kport.";
/// Of ocijail: the parent of the container's jail (ocijail/create.cpp).
const PARENT_JAIL: &str = "org.freebsd.parentJail";
/// Of ocijail: the jid of the container's jail (ocijail/main.cpp).
const JID: &str = "org.freebsd.jail.jid";

/// The maximum length of a state that is read, in bytes. It has the annotations of a container.
const MAX_STATE: u64 = 64 << 20;

/// The state of a container, as defined by the runtime specification.
#[derive(Clone, Debug, Default)]
pub struct State {
    id: Value,
    status: Value,
    annotations: BTreeMap<String, Value>,
    /// Why the document is not a state, or not all of one; the fields are then those before that point.
    broken: Option<String>,
}

impl State {
    /// Reads one JSON document, and nothing after it; `None` if there is none.
    pub fn read(from: impl Read) -> Option<State> {
        let mut state = None;
        let mut from = serde_json::Deserializer::from_reader(from.take(MAX_STATE));
        let read = from.deserialize_map(Fields(&mut state));
        if let Err(error) = read
            && (state.is_some() || !error.is_eof())
        {
            state.get_or_insert_default().broken = Some(error.to_string());
        }
        state
    }

    /// Whether the container has stopped.
    pub fn has_stopped(&self) -> bool {
        self.status == "stopped"
    }

    /// Returns the jail of the container.
    ///
    /// # Errors
    ///
    /// `Kind::Argument` for what is not a whole state, without an id, and for an invalid jid.
    pub fn identity(&self) -> error::Result<Identity> {
        if let Some(why) = &self.broken {
            return Err(not_a_state(why));
        }
        let number = self.annotations.get(JID).and_then(Value::as_str).map(|text| jid(JID, text)).transpose()?;
        Ok(Identity { name: Some(self.name()?), jid: number, ..Identity::by("the OCI state") })
    }

    fn name(&self) -> error::Result<String> {
        let id = self.id.as_str().ok_or_else(|| not_a_state(self.broken.as_deref().unwrap_or("it has no id")))?;
        Ok(match self.annotations.get(PARENT_JAIL).and_then(Value::as_str) {
            Some(parent) => format!("{parent}.{id}"),
            None => id.to_owned(),
        })
    }

    /// The names of kport's annotations.
    fn ours(&self) -> impl Iterator<Item = &str> {
        self.annotations.keys().map(String::as_str).filter(|name| name.starts_with(OURS))
    }

    /// The ports that the container asks for; `None` if it has no annotation of kport.
    fn wanted(&self) -> error::Result<Option<Spec>> {
        if let Some(other) = self.ours().find(|name| *name != PUBLISH) {
            return Err(error!(
                Permission,
                "annotation {}: a container can only ask for ports, with {PUBLISH}",
                quoted(other)
            ));
        }
        match self.annotations.get(PUBLISH) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(specs)) if specs.trim().is_empty() => Ok(None),
            Some(Value::String(specs)) => {
                spec::parse(specs).map(Some).map_err(|error| error.context(format_args!("annotation {PUBLISH}")))
            }
            Some(_) => Err(error!(Argument, "annotation {PUBLISH} is not a string")),
        }
    }
}

/// Fills in the fields of a state as they come.
struct Fields<'a>(&'a mut Option<State>);

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let state = self.0.insert(State::default());
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "id" => state.id = map.next_value()?,
                "status" => state.status = map.next_value()?,
                "annotations" => state.annotations = map.next_value::<Option<_>>()?.unwrap_or_default(),
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

/// What the annotations of a container may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The ports of the host.
    pub ports: Vec<PortRange>,
    /// The places, as written in a spec. A spec without a place, for the gateway interface, is always allowed.
    pub places: Vec<Place>,
}

impl Allowed {
    fn check(&self, mapping: &Mapping) -> error::Result<()> {
        let refuse = |why: String| Err(error!(Permission, "annotation {PUBLISH}: {mapping}: {why}"));
        let ports = match mapping.host {
            HostPorts::Fixed(ports) => ports,
            HostPorts::Auto => AUTO_RANGE,
        };
        if !self.ports.iter().any(|allowed| allowed.contains(ports.first()) && allowed.contains(ports.last())) {
            let ranges: Vec<String> = self.ports.iter().map(PortRange::to_string).collect();
            return refuse(format!(
                "containers may have the ports {}; the administrator can add --allow-ports {ports} to the arguments of the hook",
                ranges.join(", ")
            ));
        }
        match mapping.place {
            Some(place) if !self.places.contains(&place) => refuse(format!(
                "containers may not name {place}; the administrator can add --allow-place {place} to the arguments of the hook"
            )),
            _ => Ok(()),
        }
    }
}

fn not_a_state(why: &str) -> Error {
    error!(Argument, "standard input is not the state of an OCI runtime: {why}")
}

/// Publishes the ports in the annotations of a container, if there are any and all are allowed.
///
/// # Errors
///
/// `Kind::Spec` for annotations that cannot be read, `Kind::Permission` for what is not allowed; those of
/// [`Publisher::publish`].
pub fn start(state: &State, allowed: &Allowed, program: &dyn Program) -> error::Result<()> {
    let Identity { name, jid, .. } = state.identity()?;
    let jail = name.unwrap_or_default().parse()?;
    let Some(spec) = state.wanted()? else { return Ok(()) };
    spec.mappings().iter().try_for_each(|mapping| allowed.check(mapping))?;
    let mut request = Request::new(jail, spec);
    request.jid = jid;
    change(program, |publisher| publisher.publish(&request))
}

/// Removes the ports of a container with annotations of kport; ports that were published otherwise stay. Nothing but the id must
/// be valid, and the state may be cut: it is then unknown whether it has such annotations.
///
/// # Errors
///
/// Those of [`Publisher::unpublish`].
pub fn stop(state: &State, program: &dyn Program) -> error::Result<()> {
    if state.broken.is_none() && state.ours().next().is_none() {
        return Ok(());
    }
    let jail = state.name()?.parse()?;
    let jid = state.identity().ok().and_then(|identity| identity.jid);
    change(program, |publisher| publisher.unpublish(&jail, jid))
}

fn change(program: &dyn Program, act: impl FnOnce(&Publisher<'_>) -> error::Result<Outcome>) -> error::Result<()> {
    let change = || {
        let session = program.session(Overrides::default())?;
        let outcome = act(&session.publisher(program.observer())?)?;
        program.report(&session, &outcome);
        Ok(())
    };
    // the arguments of the hook have those of the helper itself, and none about the ports
    let words = |setting| {
        let known = matches!(setting, Setting::Backend | Setting::StateDir | Setting::Timeout);
        known.then(|| format!("{setting} in the arguments of the hook"))
    };
    change().map_err(|error: Error| error.in_words(words))
}
