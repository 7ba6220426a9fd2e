//! The simulator: the firewall of hosts without pf(4), for trying kport and for tests. It keeps the rules in files, one
//! for each anchor. No packet is redirected. `sim/main.conf` in the state directory is the main ruleset. And a firewall
//! whose main ruleset is a file: what pf would do with it, before it is loaded or on a host without pf.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use crate::calls;
use crate::error::{Error, Kind, Result, error};
use crate::files::{names_in, read_file, replace_file};
use crate::name::{Anchor, Table};
use crate::pf::{Counters, Firewall, Loaded, Rulesets, States};
use crate::pfconf::{Conf, path};
use crate::rule::{Count, Rule};

/// The notice that is printed after each change by the simulator.
pub const NOTICE: &str = "simulator: the rules are kept in files, no packet is redirected";

/// The main ruleset if there is no file: kport's calls, on a host that is closed from outside.
pub const MAIN: &str = "\
set skip on lo
nat-anchor \"kport\"
rdr-anchor \"kport\"
block in log all
pass out all
pass quick inet6 proto ipv6-icmp
anchor \"kport\"
";

/// The main ruleset's file, beside those of the anchors. [`MAIN`] is used if it does not exist.
const MAIN_CONF: &str = "main.conf";

/// The largest file that is read, in bytes.
const MOST: usize = 1 << 30;

#[derive(Clone, Debug)]
pub struct Sim {
    dir: PathBuf,
}

impl Sim {
    /// Keeps the anchors in `sim` under the state directory.
    pub fn new(state_dir: &Path) -> Sim {
        Sim { dir: state_dir.join("sim") }
    }

    fn path(&self, anchor: &Anchor) -> PathBuf {
        self.dir.join(format!("{}.json", anchor.child()))
    }

    pub fn rules(&self, anchor: &Anchor) -> Result<Vec<Rule>> {
        let path = self.path(anchor);
        let bytes = read_file(&path, MOST).map_err(|e| Error::io(format_args!("read {}", path.display()), &e))?;
        let Some(bytes) = bytes else { return Ok(vec![]) };
        serde_json::from_slice(&bytes)
            .map_err(|e| error!(System, "{} does not hold rules ({e}); remove the file", path.display()))
    }
}

impl Firewall for Sim {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn redirects_packets(&self) -> bool {
        false
    }

    fn replace(&self, anchor: &Anchor, rules: &[Rule]) -> Result<()> {
        if rules.is_empty() {
            return self.clear(anchor).map(drop);
        }
        let path = self.path(anchor);
        let bytes = serde_json::to_vec(rules).map_err(|e| error!(Internal, "rules: {e}"))?;
        replace_file(&path, &bytes)
    }

    fn clear(&self, anchor: &Anchor) -> Result<bool> {
        let path = self.path(anchor);
        match fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io(format_args!("remove {}", path.display()), &e)),
            Ok(()) => Ok(true),
        }
    }

    fn anchors(&self) -> Result<Vec<String>> {
        let mut found: Vec<String> =
            names_in(&self.dir)?.iter().filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect();
        found.sort();
        Ok(found)
    }

    fn loaded(&self, anchor: &Anchor, _: bool) -> Result<Loaded> {
        Ok(Loaded::uncounted(Count::of(&self.rules(anchor)?)))
    }

    fn filter_counters(&self, anchor: &Anchor) -> Result<Vec<Counters>> {
        Ok(vec![Counters::default(); self.loaded(anchor, false)?.filters])
    }

    fn holds(&self, anchor: &Anchor, rules: &[Rule]) -> Result<bool> {
        Ok(self.rules(anchor)? == rules)
    }

    fn kill_states(&self, _: &[States]) -> Result<u64> {
        Ok(0)
    }

    /// Any table exists, unless there is a `main.conf`, which decides.
    fn has_table(&self, table: &Table) -> Result<bool> {
        Ok(!self.dir.join(MAIN_CONF).exists() || self.main_ruleset()?.has_table(table))
    }

    fn main_ruleset(&self) -> Result<Arc<Conf>> {
        let path = self.dir.join(MAIN_CONF);
        let main = if path.exists() { Conf::of_file(&path) } else { MAIN.parse() };
        main.map(Arc::new)
    }

    fn rulesets(&self, _: bool) -> Result<Rulesets> {
        let mut all = vec![(String::new(), self.main_ruleset()?)];
        let mut entries = vec![];
        for child in self.anchors()? {
            if let Some(anchor) = Anchor::from_child(&child) {
                let rules = self.rules(&anchor)?;
                entries.extend(calls::entries(&anchor, &rules));
                all.push((anchor.path().to_owned(), Arc::new(Conf::of_rules(&rules))));
            }
        }
        all.extend(calls::rulesets(&entries).into_iter().map(|(path, calls)| (path, Arc::new(calls))));
        Ok(all)
    }
}

/// The main ruleset of a file, with kport's anchors as another firewall holds them. It loads nothing.
pub struct WithConf {
    firewall: Box<dyn Firewall>,
    conf: Arc<Conf>,
}

impl WithConf {
    /// `conf` in place of the main ruleset of `firewall`.
    pub fn new(conf: Conf, firewall: Box<dyn Firewall>) -> WithConf {
        WithConf { firewall, conf: Arc::new(conf) }
    }
}

impl Firewall for WithConf {
    fn name(&self) -> &'static str {
        self.firewall.name()
    }

    fn redirects_packets(&self) -> bool {
        self.firewall.redirects_packets()
    }

    fn runs_pfctl(&self) -> bool {
        self.firewall.runs_pfctl()
    }

    fn replace(&self, _: &Anchor, _: &[Rule]) -> Result<()> {
        Err(Error::new(Kind::Unsupported, "--pf-conf only reads a file, nothing can be changed; leave it out"))
    }

    fn anchors(&self) -> Result<Vec<String>> {
        self.firewall.anchors()
    }

    fn holds(&self, anchor: &Anchor, rules: &[Rule]) -> Result<bool> {
        self.firewall.holds(anchor, rules)
    }

    fn main_ruleset(&self) -> Result<Arc<Conf>> {
        Ok(self.conf.clone())
    }

    fn rulesets(&self, own: bool) -> Result<Rulesets> {
        let mut all = vec![(String::new(), self.conf.clone())];
        if own {
            all.extend(self.firewall.rulesets(own)?.into_iter().filter(|(path, _)| path::is_own(path)));
        }
        Ok(all)
    }
}
