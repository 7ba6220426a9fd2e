//! The rule text of publications, as files: tests/rules/NNNN-name.in is what is published, .ok the pf.conf(5) text or the
//! refusal. KPORT_BLESS=1 writes the .ok files anew.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use kport::error::{Error, Kind, Result};
use kport::name::JailName;
use kport::net::{Family, Interface};
use kport::rules::{Options, Publication, Rule, Targets, redirects, rules, text};

/// What stands in an .in file: a word, then its values.
#[derive(Default)]
struct Input {
    jail: String,
    addresses: Vec<IpAddr>,
    gateway: [Option<Interface>; 2],
    inner: BTreeMap<IpAddr, Option<Interface>>,
    options: Options,
    specs: Vec<String>,
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
            ("gateway", [one]) => read.gateway = [Some(one.parse()?); 2],
            ("gateway", [inet, inet6]) => read.gateway = [Some(inet.parse()?), Some(inet6.parse()?)],
            ("inner", [address, interface]) => {
                _ = read.inner.insert(address.parse().unwrap(), Some(interface.parse()?))
            }
            ("own", [address]) => _ = read.inner.insert(address.parse().unwrap(), None),
            ("reach", _) => read.options.reach = parsed(values)?,
            ("hairpin", []) => read.options.hairpin = true,
            ("host-access", []) => read.options.host_access = true,
            ("from", _) => read.options.from = parsed(values)?,
            ("max-connections", [n]) => read.options.limits.connections = n.parse().ok(),
            ("max-connections-per-source", [n]) => read.options.limits.connections_per_source = n.parse().ok(),
            ("rate", [rate]) => read.options.limits.rate = Some(rate.parse()?),
            ("log", []) => read.options.log = true,
            ("no-quick", []) => read.options.quick = false,
            ("spec", _) => read.specs.push(values.join(" ")),
            _ => panic!("{line}"),
        }
    }
    Ok(read)
}

fn made(input: &str) -> Result<Vec<Rule>> {
    let input = read(input)?;
    let jail: JailName = input.jail.parse()?;
    let spec = input.specs.join(" ").parse()?;
    let targets = Targets::choose(&jail, &input.addresses)?;
    let redirects = redirects(&jail, &spec, &targets, |family| {
        input.gateway[(family == Family::Inet6) as usize]
            .ok_or_else(|| Error::new(Kind::Unavailable, format!("no {family} default route")))
    })?;
    let publication = Publication::new(jail, redirects, input.options, |address| {
        let known = input.inner.get(&address);
        known.copied().ok_or_else(|| Error::new(Kind::Unavailable, format!("no network with {address}")))
    })?;
    // what is on disk is what is loaded
    let json = serde_json::to_string(&publication).unwrap();
    assert_eq!(serde_json::from_str::<Publication>(&json).unwrap(), publication, "{json}");
    Ok(rules(&publication))
}

/// The rules that pfctl(8) makes of a rule's lists.
fn expanded(rule: &Rule) -> Vec<String> {
    fn each<T: Clone>(list: &[T]) -> Vec<Vec<T>> {
        if list.is_empty() { vec![vec![]] } else { list.iter().map(|one| vec![one.clone()]).collect() }
    }
    let whole = rule.matches();
    let mut made = vec![];
    for on in each(&whole.on) {
        for from in each(&whole.from) {
            for to in each(&whole.to) {
                let mut one = rule.clone();
                let (Rule::Nat { matches, .. } | Rule::Rdr { matches, .. } | Rule::Pass { matches, .. }) = &mut one;
                (matches.on, matches.from, matches.to) = (on.clone(), from.clone(), to);
                made.push(one.to_string());
            }
        }
    }
    made
}

#[test]
fn goldens() {
    let bless = std::env::var_os("KPORT_BLESS").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules");
    let mut inputs: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.retain(|path| path.extension().is_some_and(|end| end == "in"));
    inputs.sort();
    assert!(inputs.len() >= 40, "only {} goldens", inputs.len());
    let mut wrong = vec![];
    for path in inputs {
        let got = match made(&fs::read_to_string(&path).unwrap()) {
            Ok(rules) => {
                check(&rules, &path);
                text(&rules)
            }
            Err(error) => format!("error: {}: {error}\n", error.kind().text()),
        };
        let ok = path.with_extension("ok");
        if bless {
            fs::write(&ok, &got).unwrap();
        }
        let expected = fs::read_to_string(&ok).unwrap_or_default();
        if got != expected {
            wrong.push(format!("{}\n--- expected\n{expected}--- got\n{got}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\nKPORT_BLESS=1 renews the .ok files", wrong.join("\n"));
}

/// What holds for the rules of every publication.
fn check(rules: &[Rule], path: &Path) {
    let order = |rule: &Rule| match rule {
        Rule::Nat { .. } => 0,
        Rule::Rdr { .. } => 1,
        Rule::Pass { .. } => 2,
    };
    assert!(rules.is_sorted_by_key(order), "{}: nat, rdr, pass", path.display());
    let mut seen = std::collections::HashSet::new();
    for line in rules.iter().flat_map(expanded) {
        assert!(!line.contains("{"), "{line}");
        assert!(seen.insert(line.clone()), "{}: twice: {line}", path.display());
    }
    // another reader of pf.conf(5) takes the text
    if let Err(error) = text(rules).parse::<kport::pf::packet::Ruleset>() {
        panic!("{}: {error}", path.display());
    }
    let json = serde_json::to_string(rules).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Rule>>(&json).unwrap(), rules, "{json}");
}
