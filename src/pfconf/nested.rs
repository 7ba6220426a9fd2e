//! What pfctl(8) prints of all anchors in one run: `-a '*'`, each call with the rules of the called anchor in braces
//! (pfctl_show_rules and pfctl_show_nat in sbin/pfctl/pfctl.c).

use crate::name::{NODES, PARENT};
use crate::rule::Counters;

/// The rules of each anchor with their counters, with the anchor's name.
pub type ByChild = Vec<(String, Vec<(String, Counters)>)>;

/// The rules of each anchor that the first call of kport's anchors calls, in the order of the output.
#[derive(Default)]
pub struct Children {
    found: Option<ByChild>,
    /// The calls around the line.
    calls: Vec<String>,
    /// The first call has ended: nat-anchor shows the rdr rules of its anchors, too, and rdr-anchor shows all of them again.
    done: bool,
    /// A node of the tree of calls was printed. What it calls is missing: pfctl(8) asks pf for `kport/+calls/NODE/../../web`.
    pub nodes: bool,
    /// The calls of kport's anchors in the main ruleset, without what is in their braces.
    pub main: String,
}

impl Children {
    pub fn line(&mut self, line: &str) {
        let line = line.trim();
        if line == "}" {
            self.calls.pop();
            self.done |= self.calls.is_empty() && self.found.is_some();
            return;
        }
        let opened = opened(line);
        match &self.calls[..] {
            [] if opened.is_some_and(is_kport) => {
                self.main += &format!("{}\n", line.trim_end_matches(" {"));
                self.found.get_or_insert_default();
            }
            [parent, above @ ..] if is_kport(parent) && !self.done => match (above, opened, &mut self.found) {
                ([], Some(child), _) if is_node(child) => self.nodes = true,
                ([], Some(child), Some(found)) => found.push((child.to_owned(), Vec::new())),
                // a call is a rule as well
                ([_], _, Some(found)) if !line.is_empty() => {
                    found.last_mut().into_iter().for_each(|(_, rules)| add(line, rules));
                }
                _ => {}
            },
            _ => {}
        }
        self.calls.extend(opened.map(str::to_owned));
    }

    /// After the last line. `None` without a call, and if what is called was not printed in full.
    pub fn finish(self) -> Option<ByChild> {
        self.found.filter(|_| self.done && !self.nodes)
    }
}

/// The counters of each rule that pfctl(8) prints of one anchor.
pub fn counters(shown: &str) -> Vec<Counters> {
    let mut rules = vec![];
    shown.lines().for_each(|line| add(line.trim(), &mut rules));
    rules.into_iter().map(|(_, counters)| counters).collect()
}

/// Adds a rule, or with `-v` the counters of the last one.
fn add(line: &str, rules: &mut Vec<(String, Counters)>) {
    match line.strip_prefix("[ ") {
        None => rules.push((line.to_owned(), Counters::default())),
        Some(counted) => rules.last_mut().into_iter().for_each(|(_, last)| read(counted, last)),
    }
}

/// 14 omits the `/*` before braces.
fn is_kport(called: &str) -> bool {
    called.trim_start_matches('/').trim_end_matches("/*") == PARENT
}

fn is_node(called: &str) -> bool {
    called.strip_prefix(NODES).is_some_and(|name| name.starts_with('/'))
}

/// The anchor that a line calls if its rules follow the line.
fn opened(line: &str) -> Option<&str> {
    let (keyword, rest) = line.strip_suffix(" {")?.split_once(" \"")?;
    let (called, _) = rest.split_once('"')?;
    matches!(keyword, "anchor" | "nat-anchor" | "rdr-anchor" | "binat-anchor").then_some(called)
}

/// `[ Evaluations: 1 Packets: 2 Bytes: 3 States: 4 ]`, `[ Inserted: uid 0 pid 5 State Creations: 6 ]`
/// (pfctl_print_rule_counters).
fn read(counted: &str, counters: &mut Counters) {
    let number = |name: &str| counted.split_once(name)?.1.split_whitespace().next()?.parse::<u64>().ok();
    let values = [
        ("Packets:", &mut counters.packets),
        ("Bytes:", &mut counters.bytes),
        ("State Creations:", &mut counters.states),
    ];
    for (name, value) in values {
        *value = number(name).unwrap_or(*value);
    }
}
