//! The schemas in schema/, and values compared with them: the keywords that these files use of JSON Schema, and no others.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;

use serde_json::{Map, Value};

use super::cc;

/// A file of schema/.
pub struct Schema {
    name: String,
    root: Value,
    /// Where in the file: the values of `enum`, the alternatives of `oneOf` and the properties that some value had.
    met: RefCell<BTreeSet<String>>,
}

/// Each name in schema/, sorted.
pub fn names() -> Vec<String> {
    let files = fs::read_dir(cc::root().join("schema")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.map(|name| name.strip_suffix(".json").expect("a schema").to_owned()).collect();
    names.sort();
    names
}

impl Schema {
    pub fn new(name: &str) -> Schema {
        let text = fs::read_to_string(cc::root().join(format!("schema/{name}.json"))).unwrap();
        let root: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(root["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
        Schema { name: name.to_owned(), root, met: RefCell::default() }
    }

    /// Compares a value. Unlike for other readers, a property that the schema does not name is a mistake: a new one must be
    /// written down.
    #[track_caller]
    pub fn holds_for(&self, value: &Value) {
        if let Err(why) = self.compare(&self.root, "", value) {
            panic!("schema/{}.json: {why}\n{value:#}", self.name);
        }
    }

    /// Whether it holds.
    pub fn is_of(&self, value: &Value) -> bool {
        self.compare(&self.root, "", value).is_ok()
    }

    /// The values of `enum`, the alternatives of `oneOf` and the properties that no value had, by their places in the file.
    pub fn unmet(&self) -> Vec<String> {
        let mut all = vec![];
        places(&self.root, "", &mut all);
        let met = self.met.borrow();
        all.into_iter().filter(|place| !met.contains(place)).collect()
    }

    fn compare(&self, schema: &Value, at: &str, value: &Value) -> Result<(), String> {
        let fails = |why: String| Err(format!("{at}: {why}: {value}"));
        let schema = schema.as_object().unwrap_or_else(|| panic!("{}: {at} is not an object", self.name));
        for (keyword, with) in schema {
            let fine = match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" | "additionalProperties" => true,
                "type" => types(with).iter().any(|name| is_of_type(value, name)),
                "const" => value == with,
                "enum" => match with.as_array().unwrap().iter().position(|one| one == value) {
                    Some(which) => self.meet(format!("{at}/enum/{which}")),
                    None => false,
                },
                "minimum" => value.as_i64().is_none_or(|number| number >= with.as_i64().unwrap()),
                "maximum" => value.as_i64().is_none_or(|number| number <= with.as_i64().unwrap()),
                "required" => {
                    let Some(object) = value.as_object() else { continue };
                    let missing =
                        with.as_array().unwrap().iter().find(|name| !object.contains_key(name.as_str().unwrap()));
                    match missing {
                        Some(name) => return fails(format!("there is no {name}")),
                        None => true,
                    }
                }
                "properties" => {
                    self.properties(schema, with, at, value)?;
                    true
                }
                "items" => {
                    let at = format!("{at}/items");
                    value.as_array().into_iter().flatten().try_for_each(|item| self.compare(with, &at, item))?;
                    true
                }
                "$ref" => {
                    let target = with.as_str().unwrap().strip_prefix('#').expect("of the same file");
                    self.compare(self.root.pointer(target).expect("a definition"), target, value)?;
                    true
                }
                "oneOf" => self.alternatives(with, at, value)?,
                other => panic!("{}: {at}: the keyword {other} is not compared", self.name),
            };
            if !fine {
                return fails(format!("{keyword} is {with}"));
            }
        }
        if let (None, Some(with)) = (schema.get("properties"), schema.get("additionalProperties")) {
            let at = format!("{at}/additionalProperties");
            value.as_object().into_iter().flatten().try_for_each(|(_, item)| self.compare(with, &at, item))?;
        }
        Ok(())
    }

    fn meet(&self, place: String) -> bool {
        self.met.borrow_mut().insert(place);
        true
    }

    fn properties(&self, schema: &Map<String, Value>, with: &Value, at: &str, value: &Value) -> Result<(), String> {
        // a reader of a later version's output must not refuse what was added; kport refuses it in what it reads itself
        assert!(schema.get("additionalProperties").is_none_or(|all| *all == false), "{}: {at}", self.name);
        for (name, item) in value.as_object().into_iter().flatten() {
            let Some(with) = with.get(name) else { return Err(format!("{at}: {name} is not in the schema")) };
            let at = format!("{at}/properties/{name}");
            self.compare(with, &at, item)?;
            self.meet(at);
        }
        Ok(())
    }

    fn alternatives(&self, with: &Value, at: &str, value: &Value) -> Result<bool, String> {
        let mut right = vec![];
        let mut wrong = vec![];
        for (which, one) in with.as_array().unwrap().iter().enumerate() {
            // what is met in an alternative that does not hold does not count
            let met = self.met.borrow().clone();
            match self.compare(one, &format!("{at}/oneOf/{which}"), value) {
                Ok(()) => right.push(which),
                Err(why) => {
                    *self.met.borrow_mut() = met;
                    wrong.push(why);
                }
            }
        }
        match right[..] {
            [which] => Ok(self.meet(format!("{at}/oneOf/{which}"))),
            [] => Err(wrong.join("; ")),
            _ => Err(format!("{at}: {right:?} hold, and only one may")),
        }
    }
}

/// The places in a schema that a value can meet.
fn places(schema: &Value, at: &str, all: &mut Vec<String>) {
    let Some(schema) = schema.as_object() else { return };
    for (keyword, with) in schema {
        match keyword.as_str() {
            "enum" => all.extend((0..with.as_array().unwrap().len()).map(|which| format!("{at}/enum/{which}"))),
            "oneOf" => {
                for (which, one) in with.as_array().unwrap().iter().enumerate() {
                    all.push(format!("{at}/oneOf/{which}"));
                    places(one, &format!("{at}/oneOf/{which}"), all);
                }
            }
            "properties" => {
                for (name, one) in with.as_object().unwrap() {
                    all.push(format!("{at}/properties/{name}"));
                    places(one, &format!("{at}/properties/{name}"), all);
                }
            }
            "$defs" => {
                with.as_object().unwrap().iter().for_each(|(name, one)| places(one, &format!("{at}/$defs/{name}"), all))
            }
            "items" | "additionalProperties" => places(with, &format!("{at}/{keyword}"), all),
            _ => {}
        }
    }
}

fn types(with: &Value) -> Vec<&str> {
    match with {
        Value::Array(all) => all.iter().map(|one| one.as_str().unwrap()).collect(),
        one => vec![one.as_str().unwrap()],
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type {other}"),
    }
}
