//! What pfctl(8) refuses because of the addresses of the host. It looks up the name of an interface that is not in round
//! brackets when it loads a file, and refuses the whole file if there is no address, or none of the rule's family
//! (host() in sbin/pfctl/pfctl_parser.c, expand_rule() and remove_invalid_hosts() in sbin/pfctl/parse.y).

use super::Conf;
use super::address::{OfInterface, Operand, Pool};
use super::rule::{Action, Rule};
use crate::error::quoted;
use crate::net::{Family, PerFamily};

/// The families of the addresses that a name stands for on a host; `None` if that is unknown.
pub(crate) type Families<'a> = dyn Fn(&OfInterface) -> Option<PerFamily<bool>> + 'a;

impl Conf {
    /// The first statement that pfctl(8) would refuse, and why in its words. Rules that were read from the output of
    /// pfctl(8) have no such names.
    pub(crate) fn refused(&self, families: &Families<'_>) -> Option<String> {
        let of_table = |operand: &Operand| missing(operand, families);
        for (name, table) in &self.tables {
            if let Some(why) = table.others.iter().find_map(|(_, operand)| of_table(operand)) {
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
    let sides = |rule: &Rule| [rule.when.from.address.clone(), rule.when.to.address.clone()];
    if is_antispoof(&rules[0]) {
        if sides(&rules[0]).iter().any(|operand| missing(operand, families).is_some()) {
            return None;
        }
    } else {
        let pools = rules.iter().flat_map(Rule::pools).flat_map(|pool| &pool.addresses);
        let operands = rules.iter().flat_map(sides).chain(pools.filter_map(|at| at.address.clone()));
        if let Some(why) = operands.into_iter().find_map(|operand| missing(&operand, families)) {
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
        (Action::Translate { pool: Some(pool), .. }, Some(family)) => leads_to(pool, family, families),
        _ => true,
    };
    (!rules.iter().all(translates)).then(|| "no translation address with matching address family found.".to_owned())
}

fn leads_to(pool: &Pool, family: Family, families: &Families<'_>) -> bool {
    pool.addresses.iter().any(|at| at.address.as_ref().is_none_or(|operand| has(operand, family, families)))
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
