//! What pfctl(8) makes of a file when it loads it on a host. It looks up the name of an interface that is not in round
//! brackets, and refuses the whole file if there is no address, or none of the rule's family (host() in
//! sbin/pfctl/pfctl_parser.c, expand_rule() and remove_invalid_hosts() in sbin/pfctl/parse.y). A list is several rules, and
//! antispoof and the names of interfaces are addresses then.

use ipnet::IpNet;

use super::Conf;
use super::address::{OfInterface, Operand, Pool, Side};
use super::rule::{Action, Rule};
use crate::error::quoted;
use crate::net::{Family, PerFamily};

/// How many rules of the file may be missing in pf, one after the other.
const MOST_MISSING: usize = 256;

/// The addresses that the name of an interface stands for.
pub type Networks<'a> = dyn Fn(&OfInterface) -> Vec<IpNet> + 'a;

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
}

/// The rules that pfctl(8) makes from one when it looks up the names of interfaces.
fn looked_up(rule: &Rule, networks: &Networks<'_>) -> Vec<Rule> {
    let each = |side: &Side| -> Vec<Side> {
        match &side.address {
            Operand::Interface(of) if !of.dynamic => {
                let found = networks(of).into_iter();
                found.map(|network| Side { address: Operand::Network(network), ..side.clone() }).collect()
            }
            _ => vec![side.clone()],
        }
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

/// The families of the addresses that a name stands for on a host; `None` if that is unknown.
pub type Families<'a> = dyn Fn(&OfInterface) -> Option<PerFamily<bool>> + 'a;

impl Conf {
    /// The first statement that pfctl(8) would refuse, and why in its words. Rules that were read from the output of
    /// pfctl(8) have no such names.
    pub fn refused(&self, families: &Families<'_>) -> Option<String> {
        for (name, table) in &self.tables {
            if let Some(why) = table.others.iter().find_map(|(_, operand)| missing(operand, families)) {
                return Some(format!("table <{name}>: {why}"));
            }
        }
        let expanded_together =
            |a: &Rule, b: &Rule| a.origin.line == b.origin.line && a.origin.file == b.origin.file && !is_antispoof(a);
        let statements = self.rulesets.values().flat_map(|rules| rules.chunk_by(expanded_together));
        let mut refused = statements.filter_map(|rules| Some((&rules[0].origin, of_statement(rules, families)?)));
        refused.next().map(|(origin, why)| {
            let file = if origin.file.is_empty() { "pf.conf" } else { &origin.file };
            format!("{file} line {}: {why}: {}", origin.line, quoted(&origin.text))
        })
    }
}

/// Its rules are expanded one by one, and one without an address is omitted.
fn is_antispoof(rule: &Rule) -> bool {
    rule.origin.text.starts_with("antispoof")
}

/// Why pfctl(8) refuses the statement with these rules.
fn of_statement(rules: &[Rule], families: &Families<'_>) -> Option<String> {
    if is_antispoof(&rules[0]) {
        if sides(&rules[0]).iter().any(|operand| missing(operand, families).is_some()) {
            return None;
        }
    } else {
        let pooled = rules.iter().flat_map(Rule::pools).flat_map(Pool::operands);
        if let Some(why) = rules.iter().flat_map(sides).chain(pooled).find_map(|operand| missing(operand, families)) {
            return Some(why);
        }
    }
    let is_possible = |rule: &Rule| {
        Family::ALL.into_iter().any(|family| {
            rule.when.family.is_none_or(|given| given == family)
                && sides(rule).iter().all(|operand| has(operand, family, families))
        })
    };
    if !rules.iter().any(is_possible) {
        return Some("rule expands to no valid combination".to_owned());
    }
    let translates = |rule: &Rule| match (&rule.action, rule.when.family) {
        (Action::Translate { pool: Some(pool), .. }, Some(family)) => {
            pool.operands().any(|operand| has(operand, family, families))
        }
        _ => true,
    };
    (!rules.iter().all(translates)).then(|| "no translation address with matching address family found.".to_owned())
}

fn sides(rule: &Rule) -> [&Operand; 2] {
    [&rule.when.from.address, &rule.when.to.address]
}

/// Whether an operand can stand for an address of a family.
fn has(operand: &Operand, family: Family, families: &Families<'_>) -> bool {
    match operand {
        Operand::Interface(of) if !of.dynamic => families(of).is_none_or(|has| *has.of(family)),
        other => other.family().is_none_or(|own| own == family),
    }
}

/// The error about a name that stands for no address.
fn missing(operand: &Operand, families: &Families<'_>) -> Option<String> {
    let Operand::Interface(of) = operand else { return None };
    let found = if of.dynamic { None } else { families(of) };
    found.filter(|has| !has.any()).map(|_| format!("no IP address found for {}", super::print::address(false, operand)))
}
