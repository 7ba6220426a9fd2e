//! Options and settings: the fields of the plugin's configuration.

use std::time::Duration;

use serde_json::{Map, Value};

use super::super::Overrides;
use super::code::{Code, Failure, field, shown, text};
use crate::error::Error;
use crate::net::{Misread, Place};
use crate::options::{Given, Options, Takes};
use crate::session::Backend;

/// The object with the limits. Its keys are flattened: `limits.rate`.
const LIMITS: &str = "limits";

/// The options whose keys do not follow from their names.
const KEYS: [(&str, &str); 3] = [
    ("max-connections", "limits.connections"),
    ("max-connections-per-source", "limits.connectionsPerSource"),
    ("rate", "limits.rate"),
];

/// The keys that do not belong to [`Options`].
const OTHERS: [&str; 6] = ["place", "force", "allowInert", "backend", "stateDir", "timeout"];

impl Overrides {
    /// Reads the fields `backend`, `stateDir` and `timeout`, a number of seconds.
    pub fn read(fields: &Map<String, Value>) -> Result<Overrides, Failure> {
        let backend = text(fields, "backend")?.map(|name| name.parse()).transpose();
        // portmap has a field of this name, with other values
        let backend = backend.map_err(|_| {
            let why = format!("backend is {}; there are {}", shown(&fields["backend"]), Backend::NAMES.join(", "));
            Failure::new(Code::Unsupported, why)
        })?;
        let seconds = |seconds: f64| {
            Duration::try_from_secs_f64(seconds)
                .map_err(|e| Failure::new(Code::Config, format!("timeout {seconds}: {e}")))
        };
        Ok(Overrides {
            backend,
            state_dir: text(fields, "stateDir")?.map(Into::into),
            timeout: field(fields, "timeout")?.map(seconds).transpose()?,
        })
    }
}

/// The options in a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Publishing {
    pub options: Options,
    /// For mappings without `hostIP`.
    pub place: Place,
    pub force: bool,
    pub allow_inert: bool,
}

impl Publishing {
    /// Reads the options. A field that is unknown here and to `others` is an error: a misspelt option must not open a port to
    /// everybody.
    pub fn read(fields: &Map<String, Value>, others: impl Fn(&str) -> bool) -> Result<Publishing, Failure> {
        let mut fields = fields.clone();
        for (key, value) in field::<Map<String, Value>>(&fields, LIMITS)?.unwrap_or_default() {
            fields.insert(format!("{LIMITS}.{key}"), value);
        }
        fields.remove(LIMITS);
        check_names(&fields, others)?;
        let flag = |key: &str| field::<bool>(&fields, key).map(|on| on.unwrap_or(false));
        // of portmap: lets the host and the container's own network use the host's address
        let snat = flag("snat")?;
        let mut options = Options { hairpin: snat, host_access: snat, ..Options::default() };
        for (name, takes) in Options::names() {
            let key = key(name);
            if let Some(given) = given(&fields, &key, takes)? {
                options.set(name, &given).map_err(|e| Failure::new(Code::Config, format!("{key}: {e}")))?;
            }
        }
        Ok(Publishing { options, place: place(&fields)?, force: flag("force")?, allow_inert: flag("allowInert")? })
    }
}

/// `place`. A word of other tools is no more an interface here than in a spec.
fn place(fields: &Map<String, Value>) -> Result<Place, Failure> {
    let Some(word) = text(fields, "place")? else { return Ok(Place::Any) };
    if let Some(misread) = Misread::of(&word) {
        let why = format!("place is {}: {}", shown(&fields["place"]), misread.instead());
        return Err(Failure::new(Code::Config, why));
    }
    word.parse().map_err(|e: Error| Failure::new(Code::Config, format!("place: {e}")))
}

/// The value of an option; `None` if the document does not have it.
fn given(fields: &Map<String, Value>, key: &str, takes: Takes) -> Result<Option<Given>, Failure> {
    Ok(match takes {
        Takes::Flag => field(fields, key)?.map(Given::Flag),
        Takes::Number => field::<i64>(fields, key)?.map(|number| Given::Text(number.to_string())),
        Takes::Word => text(fields, key)?.map(Given::Text),
        Takes::Words => field(fields, key)?.map(Given::List),
    })
}

/// The key of an option: `hostAccess`.
fn key(name: &str) -> String {
    if let Some((_, key)) = KEYS.iter().find(|(option, _)| *option == name) {
        return (*key).to_owned();
    }
    let mut words = name.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |key, word| key + &word[..1].to_uppercase() + &word[1..])
}

fn check_names(fields: &Map<String, Value>, others: impl Fn(&str) -> bool) -> Result<(), Failure> {
    let own: Vec<String> = Options::names().map(|(name, _)| key(name)).chain(OTHERS.map(str::to_owned)).collect();
    for (key, value) in fields {
        let empty = value.is_null() || *value == Value::Bool(false) || value.as_array().is_some_and(Vec::is_empty);
        let why = match key.as_str() {
            "conditionsV4" | "conditionsV6" | "masqAll" | "markMasqBit" | "externalSetMarkChain" if empty => continue,
            "conditionsV4" | "conditionsV6" => "conditions of iptables; kport has sources instead",
            "masqAll" => "the jail sees who connects; hairpin and hostAccess translate where needed",
            "markMasqBit" | "externalSetMarkChain" => "an option of iptables; omit it",
            key if key == "snat" || own.iter().any(|known| known == key) || others(key) => continue,
            _ => &format!("unknown to kport, whose options are {}", own.join(", ")),
        };
        return Err(Failure::new(Code::Unsupported, format!("{key} is {}: {why}", shown(value))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::code::field_of;
    use super::*;
    use crate::error::Setting;

    #[test]
    fn the_field_of_a_remedy_is_one_that_is_read() {
        let words = [
            ("...\"", "/x\""),
            ("[...]", "[\"inet\"]"),
            ("...", "\"15/5\""),
            ("SECONDS", "7"),
            ("ROUTER", "192.0.2.254"),
        ];
        let mut fields = 0;
        for field in Setting::ALL.into_iter().filter_map(field_of) {
            let field = words.iter().fold(field.to_owned(), |field, (word, value)| field.replace(word, value));
            let document: Map<String, Value> = serde_json::from_str(&format!("{{ {field} }}")).unwrap();
            Publishing::read(&document, |_| false).unwrap_or_else(|e| panic!("{field}: {e}"));
            Overrides::read(&document).unwrap_or_else(|e| panic!("{field}: {e}"));
            fields += 1;
        }
        assert_eq!(fields, 8);
    }
}
