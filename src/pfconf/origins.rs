//! Which statement of a file pfctl(8) has made a rule of pf from: a list is several rules, and antispoof and the names of
//! interfaces are addresses then.

use ipnet::IpNet;

use super::Conf;
use super::address::{OfInterface, Operand, Side};
use super::rule::Rule;
use crate::net::Family;

/// How many rules of the file may be missing in pf, one after the other.
const MOST_MISSING: usize = 256;

/// The addresses that the name of an interface stands for.
pub(crate) type Networks<'a> = dyn Fn(&OfInterface) -> Vec<IpNet> + 'a;

impl Conf {
    /// The rules that pf has, each with the position of its statement in the file; a rule that the file does not have keeps
    /// its own.
    pub(crate) fn named_by(&self, file: &Conf, networks: &Networks<'_>) -> Conf {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_have_the_statements_of_the_file() {
        let file = "block log all\nantispoof quick for em0\npass in proto tcp from { 192.0.2.0/24, 10.0.0.0/8 } to em0 port 80\n\
                    block in quick from urpf-failed\n";
        let shown = "block drop log all\nblock drop in quick on ! em0 inet from 203.0.113.0/24 to any\n\
                     block drop in quick inet from 203.0.113.10 to any\n\
                     pass in inet proto tcp from 192.0.2.0/24 to 203.0.113.10 port = 80 flags S/SA keep state\n\
                     pass in inet proto tcp from 10.0.0.0/8 to 203.0.113.10 port = 80 flags S/SA keep state\n\
                     block drop out all\nblock drop in quick from urpf-failed to any\n";
        let networks = |of: &OfInterface| {
            let network: IpNet = "203.0.113.10/24".parse().unwrap();
            vec![if of.part == super::super::address::Part::Network { network.trunc() } else { network.addr().into() }]
        };
        let named = Conf::of_output(shown).named_by(&file.parse().unwrap(), &networks);
        let lines: Vec<(usize, bool)> =
            named.rules().iter().map(|rule| (rule.origin.line, rule.origin.file.is_empty())).collect();
        let file = |line| (line, false);
        assert_eq!(lines[..5], [file(1), file(2), file(2), file(3), file(3)]);
        // which is not in the file
        assert!(lines[5].1);
        assert_eq!(lines[6], file(4));
        assert_eq!(&*named.rules()[1].origin.text, "antispoof quick for em0");
    }
}
