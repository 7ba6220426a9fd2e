//! What pfctl(8) makes of a file when it loads it on a host. It looks up the name of an interface that is not in round
//! brackets, and refuses the whole file if there is no address, or none of the rule's family (host() in
//! sbin/pfctl/pfctl_parser.c, expand_rule() and remove_invalid_hosts() in sbin/pfctl/parse.y). A list is several rules, and
//! antispoof and the names of interfaces are addresses then.

use ipnet::IpNet;

use super::Conf;
use super::address::{OfInterface, Operand, Pool, Side};
use super::rule::{Action, Rule};
use crate::error::quoted;
use crate::net::Family;

/// How many rules of the file may be missing in pf, one after the other.
const MOST_MISSING: usize = 256;

/// The addresses that the name of an interface stands for on a host; `None` if that is unknown.
pub type Networks<'a> = dyn Fn(&OfInterface) -> Option<Vec<IpNet>> + 'a;

impl Conf {
    /// The rules that pf has, each with the position of its statement in the file, if the file has it.
    pub fn named_by(&self, file: &Conf, networks: &Networks<'_>) -> Conf {
        let mut made = self.clone();
        for (path, rules) in &mut made.rulesets {
            let of_file: Vec<Rule> =
                file.rulesets.get(path).into_iter().flatten().flat_map(|rule| looked_up(rule, networks)).collect();
            let mut next = 0;
            for rule in rules {
                let found = of_file[next..].iter().take(MOST_MISSING).position(|other| other == rule);
                if let Some(at) = found {
                    rule.origin = of_file[next + at].origin.clone();
                    next += at + 1;
                }
            }
        }
        made
    }

    /// The first statement that pfctl(8) would refuse, and why in its words. Rules that were read from the output of
    /// pfctl(8) have no such names.
    pub fn refused(&self, networks: &Networks<'_>) -> Option<String> {
        for (name, table) in &self.tables {
            if let Some(why) = table.others.iter().find_map(|(_, operand)| missing(operand, networks)) {
                return Some(format!("table <{name}>: {why}"));
            }
        }
        let expanded_together =
            |a: &Rule, b: &Rule| a.origin.line == b.origin.line && a.origin.file == b.origin.file && !is_antispoof(a);
        let statements = self.rulesets.values().flat_map(|rules| rules.chunk_by(expanded_together));
        let mut refused = statements.filter_map(|rules| Some((&rules[0].origin, of_statement(rules, networks)?)));
        refused.next().map(|(origin, why)| {
            let file = if origin.file.is_empty() { "pf.conf" } else { &origin.file };
            format!("{file} line {}: {why}: {}", origin.line, quoted(&origin.text))
        })
    }
}

/// The rules that pfctl(8) makes from one when it looks up the names of interfaces; those that it cannot look up stay.
fn looked_up(rule: &Rule, networks: &Networks<'_>) -> Vec<Rule> {
    let each = |side: &Side| match of_name(&side.address, networks) {
        Some(found) => found.into_iter().map(|one| Side { address: Operand::Network(one), ..side.clone() }).collect(),
        None => vec![side.clone()],
    };
    let mut made = vec![];
    for from in each(&rule.when.from) {
        for to in each(&rule.when.to) {
            let known = [rule.when.family, from.address.family(), to.address.family()];
            let family: Option<Family> = known.into_iter().flatten().next();
            if known.into_iter().flatten().any(|other| Some(other) != family) {
                continue;
            }
            let mut one = rule.clone();
            (one.when.from, one.when.to, one.when.family) = (from.clone(), to, family);
            made.push(one);
        }
    }
    made
}

/// Its rules are expanded one by one, and one without an address is omitted.
fn is_antispoof(rule: &Rule) -> bool {
    rule.origin.text.starts_with("antispoof")
}

/// Why pfctl(8) refuses the statement with these rules.
fn of_statement(rules: &[Rule], networks: &Networks<'_>) -> Option<String> {
    let sides = rules.iter().flat_map(|rule| [&rule.when.from.address, &rule.when.to.address]);
    let pooled = rules.iter().flat_map(Rule::pools).flat_map(Pool::operands);
    let why = sides.chain(pooled).find_map(|operand| missing(operand, networks));
    if why.is_some() {
        return why.filter(|_| !is_antispoof(&rules[0]));
    }
    if rules.iter().all(|rule| looked_up(rule, networks).is_empty()) {
        return Some("rule expands to no valid combination".to_owned());
    }
    let has = |operand: &Operand, family| match of_name(operand, networks) {
        Some(found) => found.iter().any(|network| Family::of(network.addr()) == family),
        None => operand.family().is_none_or(|own| own == family),
    };
    let translates = |rule: &Rule| match (&rule.action, rule.when.family) {
        (Action::Translate { pool: Some(pool), .. }, Some(family)) => {
            pool.operands().any(|operand| has(operand, family))
        }
        _ => true,
    };
    (!rules.iter().all(translates)).then(|| "no translation address with matching address family found.".to_owned())
}

/// The addresses of an operand that pfctl(8) looks up when it loads the file.
fn of_name(operand: &Operand, networks: &Networks<'_>) -> Option<Vec<IpNet>> {
    if let Operand::Interface(of) = operand
        && !of.dynamic
    {
        networks(of)
    } else {
        None
    }
}

/// The error about a name that stands for no address.
fn missing(operand: &Operand, networks: &Networks<'_>) -> Option<String> {
    of_name(operand, networks)?.is_empty().then(|| format!("no IP address found for {operand}"))
}
