//! `kport oci-hook`: a hook of an OCI runtime, such as ocijail. What is to be published stands in the container's annotations,
//! so that one hook serves all containers.
//!
//! The runtime gives the container's state on standard input. A container that has stopped is unpublished, one that has not is
//! published, so that the same hook stands under `prestart` (or `createRuntime`) and under `poststop`.

use kport::error::{Error, Kind, Result};
use kport::name::JailName;
use kport::publication;
use kport::publisher::{Outcome, Publisher, Request};
use kport::spec;
use serde_json::{Map, Value};

use super::args::Global;
use super::cni::{Failure, Publishing, overrides, publishing, words};
use super::hook;
use super::output::{Shown, complain};
use super::session::session;

/// Specs, as on a command line.
const PUBLISH: &str = "io.kport.publish";
/// A JSON object: `publish`, a list of specs, and the options that the CNI plugin has.
const PUBLISH_JSON: &str = "io.kport.publish.json";
/// The container's addresses, for a runtime whose jail has none yet when the hook runs.
const ADDRESS: &str = "io.kport.address";

/// Fails where nothing was published that should be; a container that stops always can.
pub fn run(global: &Global) -> Result<()> {
    let text = match hook::read_state(&std::io::stdin()) {
        Ok(Some(text)) => text,
        Ok(None) => {
            let why = "no OCI state on standard input: oci-hook is for the configuration of a container runtime";
            return Err(Error::new(Kind::Argument, why));
        }
        Err(error) => return Err(error),
    };
    let state: Value = serde_json::from_str(&text).unwrap_or_default();
    if state["status"] != "stopped" {
        return start(global, &text, &state);
    }
    if let Err(error) = stop(global, &text, &state) {
        let line = format!("{error}; the container stops all the same, and kport gc removes what is left");
        complain(&line);
        hook::log(&line);
    }
    Ok(())
}

fn start(global: &Global, text: &str, state: &Value) -> Result<()> {
    let (jail, jid) = hook::jail_of_state(text)?;
    let Some(wanted) = Wanted::read(&jail, state)? else { return Ok(()) };
    let global = wanted.global(global);
    let mut request = Request::new(jail, spec::parse(&wanted.specs)?);
    request.jid = jid;
    request.addresses = wanted.addresses;
    request.force = wanted.publishing.force;
    request.allow_inert = wanted.publishing.allow_inert;
    request.options = wanted.publishing.options;
    change(&global, |publisher| publisher.publish(&request))
}

/// What a container did not publish by its annotations is not this hook's to take back.
fn stop(global: &Global, text: &str, state: &Value) -> Result<()> {
    let (jail, jid) = hook::jail_of_state(text)?;
    if annotation(state, PUBLISH).is_none() && annotation(state, PUBLISH_JSON).is_none() {
        return Ok(());
    }
    // options that nothing could be published with are no reason to keep what was
    let global = match Wanted::read(&jail, state) {
        Ok(Some(wanted)) => wanted.global(global),
        _ => global.clone(),
    };
    change(&global, |publisher| publisher.unpublish(&jail, jid))
}

fn change(global: &Global, act: impl FnOnce(&Publisher<'_>) -> Result<Outcome>) -> Result<()> {
    let session = session(global)?;
    let observer = Shown::new(global.verbose);
    let outcome = act(&session.publisher(&observer)?)?;
    if outcome.changed && session.firewall.name() == "sim" {
        complain(&kport::sim::NOTICE);
    }
    if !global.quiet {
        outcome.notes.iter().for_each(|note| complain(note));
    }
    Ok(())
}

/// What the annotations ask for.
struct Wanted {
    specs: String,
    addresses: Vec<std::net::IpAddr>,
    publishing: Publishing,
    fields: Map<String, Value>,
}

impl Wanted {
    /// `None` for a container without annotations of kport's.
    fn read(jail: &JailName, state: &Value) -> Result<Option<Wanted>> {
        let (text, json) = (annotation(state, PUBLISH), annotation(state, PUBLISH_JSON));
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
        specs.extend(words::<Text>(&fields, "publish").map_err(failed)?.into_iter().flatten().map(|word| word.0));
        if fields.contains_key("place") {
            return Err(wrong("place: each spec names its own, such as em0:8080:80".to_owned()));
        }
        let publishing = publishing(&fields, |key| key == "publish").map_err(failed)?;
        let addresses = annotation(state, ADDRESS).unwrap_or_default();
        let addresses =
            addresses.split_whitespace().map(|word| publication::address(jail, word)).collect::<Result<Vec<_>>>();
        let addresses = addresses.map_err(|e| e.context(format_args!("annotation {ADDRESS}")))?;
        Ok(Some(Wanted { specs: specs.join(" "), addresses, publishing, fields }))
    }

    fn global(&self, global: &Global) -> Global {
        overrides(&self.fields).map(|overrides| overrides.over(global)).unwrap_or_else(|_| global.clone())
    }
}

/// A word as it is.
struct Text(String);

impl std::str::FromStr for Text {
    type Err = Error;

    fn from_str(text: &str) -> Result<Text> {
        Ok(Text(text.to_owned()))
    }
}

/// An annotation; an empty one is none.
fn annotation<'a>(state: &'a Value, name: &str) -> Option<&'a str> {
    state["annotations"][name].as_str().filter(|text| !text.trim().is_empty())
}
