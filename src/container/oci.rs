//! A hook of an OCI runtime, such as ocijail. The ports to publish are in the container's annotations, so one hook serves all
//! containers.
//!
//! The runtime gives the container's state. The ports of a container that has stopped are removed, those of any other are
//! published, so the same hook is used for `prestart` (or `createRuntime`) and for `poststop`.

use serde_json::{Map, Value};

use super::Program;
use super::code::Failure;
use super::fields::field;
use super::settings::{Overrides, Publishing};
use crate::error::{Error, Kind, Result};
use crate::managers::{Identity, jid};
use crate::name::JailName;
use crate::publication;
use crate::publisher::{Outcome, Publisher, Request};
use crate::spec;

/// Specs, as on a command line.
const PUBLISH: &str = "io.kport.publish";
/// A JSON object: `publish`, a list of specs, and the options that the CNI plugin has.
const PUBLISH_JSON: &str = "io.kport.publish.json";
/// The container's addresses, for a runtime that runs the hook before the jail has any.
const ADDRESS: &str = "io.kport.address";
/// Of ocijail: the parent of the container's jail (ocijail/create.cpp).
const PARENT_JAIL: &str = "org.freebsd.parentJail";
/// Of ocijail: the jid of the container's jail (ocijail/main.cpp).
const JID: &str = "org.freebsd.jail.jid";

/// The maximum length of a state, in bytes: it has the annotations of a container, which are a few lines.
pub const MAX_STATE: usize = 1 << 20;

/// The state of a container, as defined by the runtime specification.
#[derive(Clone, Debug)]
pub struct State(Value);

impl State {
    /// # Errors
    ///
    /// [`Kind::Argument`] for what is not JSON.
    pub fn parse(json: &str) -> Result<State> {
        serde_json::from_str(json).map(State).map_err(|e| not_a_state(&e.to_string()))
    }

    /// Whether the container has stopped.
    pub fn has_stopped(&self) -> bool {
        self.0["status"] == "stopped"
    }

    /// Returns the jail of the container.
    ///
    /// # Errors
    ///
    /// [`Kind::Argument`] without an id, and for an invalid jid.
    pub fn identity(&self) -> Result<Identity> {
        let id = self.0["id"].as_str().ok_or_else(|| not_a_state("it has no id"))?;
        let name = match self.0["annotations"][PARENT_JAIL].as_str() {
            Some(parent) => format!("{parent}.{id}"),
            None => id.to_owned(),
        };
        let number = self.0["annotations"][JID].as_str().map(|text| jid(JID, text)).transpose()?;
        Ok(Identity { name: Some(name), jid: number, ..Identity::by("the OCI state") })
    }

    fn jail(&self) -> Result<(JailName, Option<i32>)> {
        let identity = self.identity()?;
        Ok((identity.name.unwrap_or_default().parse()?, identity.jid))
    }

    /// An annotation; `None` for an empty one.
    fn annotation(&self, name: &str) -> Option<&str> {
        self.0["annotations"][name].as_str().filter(|text| !text.trim().is_empty())
    }
}

fn not_a_state(why: &str) -> Error {
    Error::new(Kind::Argument, format!("standard input is not the state of an OCI runtime: {why}"))
}

/// Publishes the ports in the annotations of a container, if there are any.
///
/// # Errors
///
/// [`Kind::Argument`] for annotations that cannot be read; those of [`Publisher::publish`].
pub fn start(state: &State, program: &dyn Program) -> Result<()> {
    let (jail, jid) = state.jail()?;
    let Some(wanted) = Wanted::read(&jail, state)? else { return Ok(()) };
    let mut request = Request::new(jail, spec::parse(&wanted.specs)?);
    request.jid = jid;
    request.addresses = wanted.addresses;
    request.force = wanted.publishing.force;
    request.allow_inert = wanted.publishing.allow_inert;
    request.options = wanted.publishing.options;
    change(program, wanted.overrides, |publisher| publisher.publish(&request))
}

/// Removes the ports of a container with annotations of kport; ports that were published otherwise stay.
///
/// # Errors
///
/// Those of [`Publisher::unpublish`].
pub fn stop(state: &State, program: &dyn Program) -> Result<()> {
    let (jail, jid) = state.jail()?;
    if state.annotation(PUBLISH).is_none() && state.annotation(PUBLISH_JSON).is_none() {
        return Ok(());
    }
    // the ports are removed even if the options are invalid
    let wanted = Wanted::read(&jail, state).ok().flatten();
    let overrides = wanted.map(|wanted| wanted.overrides).unwrap_or_default();
    change(program, overrides, |publisher| publisher.unpublish(&jail, jid))
}

fn change(
    program: &dyn Program,
    overrides: Overrides,
    act: impl FnOnce(&Publisher<'_>) -> Result<Outcome>,
) -> Result<()> {
    let session = program.session(overrides)?;
    let outcome = act(&session.publisher(program.observer())?)?;
    program.report(&session, &outcome);
    Ok(())
}

/// The request in the annotations.
struct Wanted {
    specs: String,
    addresses: Vec<std::net::IpAddr>,
    publishing: Publishing,
    overrides: Overrides,
}

impl Wanted {
    /// `None` for a container without annotations of kport.
    fn read(jail: &JailName, state: &State) -> Result<Option<Wanted>> {
        let (text, json) = (state.annotation(PUBLISH), state.annotation(PUBLISH_JSON));
        if text.is_none() && json.is_none() {
            return Ok(None);
        }
        let wrong = |why: String| Error::new(Kind::Argument, format!("annotation {PUBLISH_JSON}: {why}"));
        let failed = |failure: Failure| wrong(failure.details);
        let fields: Map<String, Value> = match json {
            Some(json) => serde_json::from_str(json).map_err(|e| wrong(e.to_string()))?,
            None => Map::new(),
        };
        let mut specs: Vec<String> = text.map(str::to_owned).into_iter().collect();
        specs.extend(field::<Vec<String>>(&fields, "publish").map_err(failed)?.unwrap_or_default());
        if fields.contains_key("place") {
            return Err(wrong("place: give it in each spec, as in em0:8080:80".to_owned()));
        }
        let publishing = Publishing::read(&fields, |key| key == "publish").map_err(failed)?;
        let addresses = state.annotation(ADDRESS).unwrap_or_default();
        let addresses: Result<Vec<_>> =
            addresses.split_whitespace().map(|word| publication::address(jail, word)).collect();
        let addresses = addresses.map_err(|e| e.context(format_args!("annotation {ADDRESS}")))?;
        let overrides = Overrides::read(&fields).unwrap_or_default();
        Ok(Some(Wanted { specs: specs.join(" "), addresses, publishing, overrides }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::Played;
    use super::*;

    fn state(annotations: Value) -> State {
        State(json!({ "id": "blue", "status": "created", "annotations": annotations }))
    }

    #[test]
    fn the_jail_of_a_state() {
        let json = r#"{"ociVersion":"1.0.2","id":"c0ffee","status":"created","pid":17,"bundle":"/b",
            "annotations":{"org.freebsd.parentJail":"pod","org.freebsd.jail.jid":"9"}}"#;
        let identity = State::parse(json).unwrap().identity().unwrap();
        assert_eq!((identity.name.as_deref(), identity.jid), (Some("pod.c0ffee"), Some(9)));
        let identity = State::parse(r#"{"id":"c0ffee"}"#).unwrap().identity().unwrap();
        assert_eq!((identity.name.as_deref(), identity.jid), (Some("c0ffee"), None));
        for json in
            ["nonsense", "", "{}", "[]", "7", r#"{"id":7}"#, r#"{"id":"a","annotations":{"org.freebsd.jail.jid":"x"}}"#]
        {
            let error = State::parse(json).and_then(|state| state.identity()).unwrap_err();
            assert_eq!(error.kind(), Kind::Argument, "{json}");
        }
    }

    #[test]
    fn from_start_to_stop() {
        let played = Played::new();
        let ports = state(json!({ PUBLISH: "em0:8080:80", PUBLISH_JSON: r#"{ "publish": ["em0:53:53/udp"] }"# }));
        start(&ports, &played).unwrap();
        let lines = ["blue tcp port 8080 of em0 -> 10.88.0.5 port 80", "blue udp port 53 of em0 -> 10.88.0.5 port 53"];
        assert_eq!(played.published(), lines);
        // a container without annotations is ignored
        start(&state(json!({})), &played).unwrap();
        stop(&state(json!({})), &played).unwrap();
        assert_eq!(played.published(), lines);
        // annotations that are no longer valid
        stop(&state(json!({ PUBLISH_JSON: "{" })), &played).unwrap();
        assert_eq!(played.published(), [""; 0]);
    }

    #[test]
    fn a_start_fails_for_annotations_that_are_not_valid() {
        let played = Played::new();
        for (annotations, kind) in [
            (json!({ PUBLISH: "80/tpc" }), Kind::Spec),
            (json!({ PUBLISH_JSON: r#"{ "publish": ["80"], "sorces": [] }"# }), Kind::Argument),
            (json!({ PUBLISH_JSON: r#"{ "publish": ["80"], "place": "em0" }"# }), Kind::Argument),
            (json!({ PUBLISH: "80", ADDRESS: "nowhere" }), Kind::Argument),
            (json!({ PUBLISH: "80", ADDRESS: "127.0.0.1" }), Kind::Argument),
        ] {
            assert_eq!(start(&state(annotations.clone()), &played).unwrap_err().kind(), kind, "{annotations}");
        }
        assert_eq!(played.published(), [""; 0]);
    }
}
