//! What pfctl(8) prints of all anchors in one run: `-a '*'`, each call with the rules of the called anchor in braces
//! (pfctl_show_rules and pfctl_show_nat in sbin/pfctl/pfctl.c).

use crate::name::{NODES, PARENT};
use crate::rule::Counters;

/// The rules of each anchor with their counters, with the anchor's name.
pub type ByChild = Vec<(String, Vec<(String, Counters)>)>;

/// The rules of each anchor that the first call of kport's anchors calls, by the anchor's name, in the order of the output, which is
/// read line by line.
#[derive(Default)]
pub struct Children {
    /// Whether the texts of the rules are needed; otherwise they are empty.
    texts: bool,
    found: Option<ByChild>,
    /// the calls around the line
    calls: Vec<String>,
    /// The first call has ended: nat-anchor shows the rdr rules of its anchors, too, and rdr-anchor shows all of them again.
    done: bool,
    /// A node of the tree of calls was printed. What it calls is missing: pfctl(8) asks pf for `kport/+calls/NODE/../../web`.
    nodes: bool,
    /// the calls of kport's anchors in the main ruleset, without what is in their braces
    main: String,
}

impl Children {
    pub fn new(texts: bool) -> Children {
        Children { texts, ..Children::default() }
    }

    /// Reads the next line.
    pub fn line(&mut self, line: &str) {
        let line = line.trim();
        if line == "}" {
            self.calls.pop();
            self.done |= self.calls.is_empty() && self.found.is_some();
            return;
        }
        let opened = opened(line);
        if self.calls.is_empty() && opened.is_some_and(is_kport) {
            self.main += &format!("{}\n", line.trim_end_matches(" {"));
        }
        if self.done {
            self.calls.extend(opened.map(str::to_owned));
            return;
        }
        if let Some(called) = opened {
            self.calls.push(called.to_owned());
            match &self.calls[..] {
                [parent] if is_kport(parent) => _ = self.found.get_or_insert_default(),
                [parent, child] if is_kport(parent) && is_node(child) => {
                    self.nodes = true;
                    return;
                }
                [parent, child] if is_kport(parent) => {
                    self.found.get_or_insert_default().push((child.clone(), Vec::new()));
                    return;
                }
                _ => {}
            }
        }
        // at the level of the rules of one of kport's anchors; a call is a rule as well
        let level = self.calls.len() - usize::from(opened.is_some());
        let Some((_, lines)) = self.found.as_mut().and_then(|found| found.last_mut()).filter(|_| level == 2) else {
            return;
        };
        if !is_kport(&self.calls[0]) || line.is_empty() {
            return;
        }
        add(line, lines, self.texts);
    }

    /// The calls of kport's anchors in the main ruleset, as pfctl(8) prints them.
    pub fn main(&self) -> &str {
        &self.main
    }

    /// Whether there are nodes, so that pfctl(8) cannot show everything.
    pub fn has_nodes(&self) -> bool {
        self.nodes
    }

    /// After the last line. `None` if there is no call, if this pfctl(8) does not print the called anchors, also because there are
    /// nodes, or if it was cut off: the braces of a call are not closed.
    pub fn finish(self) -> Option<ByChild> {
        self.found.filter(|_| self.done && !self.nodes)
    }
}

/// The counters of each rule that pfctl(8) prints of one anchor.
pub fn counters(shown: &str) -> Vec<Counters> {
    let mut rules = vec![];
    shown.lines().for_each(|line| add(line.trim(), &mut rules, false));
    rules.into_iter().map(|(_, counters)| counters).collect()
}

/// Adds a rule, or with `-v` the counters of the last one.
fn add(line: &str, rules: &mut Vec<(String, Counters)>, texts: bool) {
    match line.strip_prefix("[ ") {
        None => rules.push((if texts { line.to_owned() } else { String::new() }, Counters::default())),
        Some(counted) => {
            if let Some((_, last)) = rules.last_mut() {
                read(counted, last);
            }
        }
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
        ("Evaluations:", &mut counters.evaluations),
        ("Packets:", &mut counters.packets),
        ("Bytes:", &mut counters.bytes),
        ("State Creations:", &mut counters.states),
    ];
    for (name, value) in values {
        *value = number(name).unwrap_or(*value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRANSLATIONS: &str = "\
nat on em0 inet from 10.0.0.0/24 to any -> (em0) round-robin
nat-anchor \"kport/*\" all {
  nat-anchor \"db\" all {
    rdr on em0 inet proto tcp from any to (em0) port = 5432 tag kport:db -> 10.0.0.3 port 5432
  }
  nat-anchor \"web\" all {
    nat on bridge0 inet proto tcp from (bridge0:network) to 10.0.0.2 port = 80 -> (bridge0) round-robin
    rdr on em0 inet proto tcp from any to (em0) port = 8080 tag kport:web -> 10.0.0.2 port 80
  }
}
rdr-anchor \"kport/*\" all {
  nat-anchor \"db\" all {
    rdr on em0 inet proto tcp from any to (em0) port = 5432 tag kport:db -> 10.0.0.3 port 5432
  }
}
";

    fn children(shown: &str) -> Option<ByChild> {
        let mut children = Children::default();
        shown.lines().for_each(|line| children.line(line));
        children.finish()
    }

    fn counts(shown: &str) -> Option<Vec<(String, usize)>> {
        Some(children(shown)?.into_iter().map(|(child, lines)| (child, lines.len())).collect())
    }

    #[test]
    fn anchors_are_counted_once() {
        let expected = Some(vec![("db".to_owned(), 1), ("web".to_owned(), 2)]);
        assert_eq!(counts(TRANSLATIONS), expected);
        // 14
        assert_eq!(counts(&TRANSLATIONS.replace("kport/*", "kport")), expected);
        assert_eq!(counts(&TRANSLATIONS.replace("nat-anchor \"kport", "nat-anchor \"/kport")), expected);
        assert_eq!(counts("rdr-anchor \"kport/*\" on em0 all {\n}\n"), Some(vec![]));
        for none in
            ["", "nat-anchor \"kport/*\" all\n", "rdr-anchor \"rdr/*\" all {\n  nat-anchor \"web\" all {\n  }\n}\n"]
        {
            assert_eq!(counts(none), None, "{none}");
        }
        // cut off
        assert_eq!(counts(&TRANSLATIONS[..300]), None);
    }

    #[test]
    fn counters_are_those_of_the_rule_above() {
        let shown = "\
block drop in log all
  [ Evaluations: 99        Packets: 98        Bytes: 97          States: 96    ]
anchor \"f2b/*\" all {
anchor \"x\" all {
pass all flags S/SA keep state
}
}
anchor \"kport/*\" all {
  [ Evaluations: 10        Packets: 0         Bytes: 0           States: 0     ]
  [ Inserted: uid 0 pid 7 State Creations: 0     ]
anchor \"web\" all {
pass quick inet proto tcp from any to 10.0.0.2 port = 80 flags S/SA keep state label \"kport:web\"
  [ Evaluations: 3         Packets: 7         Bytes: 800         States: 1     ]
  [ Source Nodes: 0      Limit: 0        NAT/RDR: 0        Route: 0     ]
  [ Inserted: uid 0 pid 8 State Creations: 2     ]
anchor \"of-an-admin\" all {
pass all flags S/SA keep state
}
pass on bridge inet proto tcp from any to 10.0.0.2 port = 80 flags S/SA keep state label \"kport:web\"
}
}
";
        let found = children(shown).unwrap();
        let [(child, lines)] = &found[..] else { panic!("{found:?}") };
        let first = Counters { evaluations: 3, packets: 7, bytes: 800, states: 2 };
        let counters: Vec<_> = lines.iter().map(|(_, counters)| *counters).collect();
        assert_eq!((child.as_str(), &counters[..]), ("web", &[first, Counters::default(), Counters::default()][..]));
        let mut with_texts = Children::new(true);
        shown.lines().for_each(|line| with_texts.line(line));
        let found = with_texts.finish().unwrap();
        let texts = found[0].1.iter().map(|(text, _)| text.as_str());
        assert!(texts.eq(shown.lines().filter(|line| line.contains("kport:web") || line.contains("of-an-admin"))));
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_printed_is_read(text in "[ab{} \\[\\]\"/*\n]{0,200}") {
            _ = children(&format!("anchor \"kport/*\" all {{\n{text}"));
        }
    }
}
