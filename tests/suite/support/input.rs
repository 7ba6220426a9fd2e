//! Publications from files: tests/rules/NNNN-name.in.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use kport::error::{Error, Kind, Result};
use kport::name::JailName;
use kport::net::{Family, Interface, PerFamily, Place};
use kport::options::Options;
use kport::publication::{Answer, Publication, Targets, redirects};
use kport::rule::{NextHop, Routing, Rule};
use kport::rules::rules;

/// Each file and its contents, sorted.
pub fn all() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules");
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "in"));
    paths.sort();
    assert!(paths.len() >= 40, "only {} goldens", paths.len());
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The contents of an .in file: a word, then its values.
#[derive(Default)]
struct Input {
    jail: String,
    addresses: Vec<IpAddr>,
    gateway: PerFamily<Option<Interface>>,
    inner: BTreeMap<IpAddr, Option<Interface>>,
    options: Options,
    specs: Vec<String>,
    /// The interface, the router or `-`, the FIB or `-`.
    answers: Vec<(Interface, Option<IpAddr>, Option<u32>)>,
}

fn parsed<T: std::str::FromStr<Err = Error>>(words: &[&str]) -> Result<Vec<T>> {
    words.iter().map(|word| word.parse()).collect()
}

fn read(input: &str) -> Result<Input> {
    let mut read = Input { jail: "web".to_owned(), ..Input::default() };
    for line in input.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let values = &words[1..];
        match (words[0], values) {
            ("jail", [_, ..]) => read.jail = line["jail ".len()..].to_owned(),
            ("address", _) => read.addresses = values.iter().map(|word| word.parse().unwrap()).collect(),
            ("gateway", [one]) => {
                let gateway = Some(one.parse()?);
                read.gateway = PerFamily { inet: gateway, inet6: gateway };
            }
            ("gateway", [inet, inet6]) => {
                read.gateway = PerFamily { inet: Some(inet.parse()?), inet6: Some(inet6.parse()?) };
            }
            ("inner", [address, interface]) => {
                _ = read.inner.insert(address.parse().unwrap(), Some(interface.parse()?))
            }
            ("own", [address]) => _ = read.inner.insert(address.parse().unwrap(), None),
            ("reach", _) => read.options.reach = parsed(values)?,
            ("hairpin", []) => read.options.hairpin = true,
            ("masquerade", []) => read.options.masquerade = true,
            ("host-access", []) => read.options.host_access = true,
            ("sources", _) => read.options.sources = parsed(values)?,
            ("max-connections", [n]) => read.options.limits.connections = n.parse().ok(),
            ("max-connections-per-source", [n]) => read.options.limits.connections_per_source = n.parse().ok(),
            ("rate", [rate]) => read.options.limits.rate = Some(rate.parse()?),
            ("af-to", []) => read.options.af_to = true,
            ("log", []) => read.options.log = true,
            ("no-quick", []) => read.options.quick = false,
            ("answer", [on, router, fib]) => {
                let router = Some(*router).filter(|word| *word != "-").map(|word| word.parse().unwrap());
                read.answers.push((on.parse()?, router, fib.parse().ok()));
            }
            ("spec", _) => read.specs.push(values.join(" ")),
            _ => panic!("{line}"),
        }
    }
    Ok(read)
}

/// The rules of a publication, or the error.
pub fn made(input: &str) -> Result<Vec<Rule>> {
    let input = read(input)?;
    let jail: JailName = input.jail.parse()?;
    let spec = input.specs.join(" ").parse()?;
    let targets = Targets { af_to: input.options.af_to, ..Targets::choose(&jail, &input.addresses)? };
    let redirects = redirects(&jail, &spec, &targets, |family| {
        input.gateway.of(family).ok_or_else(|| Error::new(Kind::Unavailable, format!("no {family} default route")))
    })?;
    let publication = Publication::new(jail, redirects, input.options, |address| {
        let known = input.inner.get(&address);
        known.copied().ok_or_else(|| Error::new(Kind::Unavailable, format!("no network with {address}")))
    })?;
    let mut answers = vec![];
    for redirect in &publication.redirects {
        for (on, gateway, rtable) in &input.answers {
            if gateway.is_none_or(|gateway| Family::of(gateway) == redirect.family())
                && (redirect.place.is_any() || redirect.place == Place::Interface(*on))
            {
                let routing =
                    Routing { reply_to: Some(NextHop { interface: *on, gateway: *gateway }), rtable: *rtable };
                let beyond = gateway.is_some() && rtable.is_none();
                let one = Answer { place: redirect.place, target: redirect.target, on: *on, beyond, routing };
                answers.extend((!answers.contains(&one)).then_some(one));
            }
        }
    }
    let publication = Publication { answers, ..publication };
    // what is stored is what is loaded
    let json = serde_json::to_string(&publication).unwrap();
    assert_eq!(serde_json::from_str::<Publication>(&json).unwrap(), publication, "{json}");
    Ok(rules(&publication))
}
