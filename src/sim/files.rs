//! The simulator: the firewall of hosts that have no pf(4), for trying kport out and for tests. It keeps the rules that pf
//! would hold in files, one for each anchor. No packet is redirected. `sim/main.conf` in the state directory plays the main
//! ruleset.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Conf, MAIN};
use crate::error::{Error, Kind, Result};
use crate::files::{names_in, read_file, replace_file};
use crate::name::{Anchor, PARENT, Table};
use crate::pf::{Counters, Firewall, ForeignRedirect, Loaded, States, Status, foreign};
use crate::rule::{self, Rule};

/// What has to be said at every change that the simulator makes.
pub const NOTICE: &str = "simulator: the rules are kept in files, no packet is redirected";

/// The main ruleset's file, beside those of the anchors. [`MAIN`] stands in for one that is not there.
const MAIN_CONF: &str = "main.conf";

/// The largest file that is read.
const MOST: usize = 1 << 30;

/// pf's anchors as files under a directory.
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

    /// The admin's main ruleset, pf.conf(5) text in `main.conf`; `None` where there is no such file.
    fn main_conf(&self) -> Result<Option<String>> {
        let path = self.dir.join(MAIN_CONF);
        let failed = |e: io::Error| Error::io(format_args!("read {}", path.display()), &e);
        let Some(bytes) = read_file(&path, MOST).map_err(failed)? else { return Ok(None) };
        String::from_utf8(bytes).map(Some).map_err(|_| failed(io::ErrorKind::InvalidData.into()))
    }

    fn main(&self) -> Result<Option<Conf>> {
        let path = self.dir.join(MAIN_CONF);
        if path.exists() { Conf::of_file(&path).map(Some) } else { Ok(None) }
    }

    /// The rules that an anchor holds.
    pub fn rules(&self, anchor: &Anchor) -> Result<Vec<Rule>> {
        let path = self.path(anchor);
        let bytes = match read_file(&path, MOST) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(vec![]),
            Err(e) => return Err(Error::io(format_args!("read {}", path.display()), &e)),
        };
        serde_json::from_slice(&bytes).map_err(|e| {
            Error::new(Kind::System, format!("{} does not hold rules ({e}); remove the file", path.display()))
        })
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
        let path = self.path(anchor);
        if rules.is_empty() {
            return match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    Err(Error::io(format_args!("remove {}", path.display()), &e))
                }
                _ => Ok(()),
            };
        }
        let bytes = serde_json::to_vec(rules).map_err(|e| Error::new(Kind::Internal, format!("rules: {e}")))?;
        replace_file(&path, &bytes)
    }

    fn anchors(&self) -> Result<Vec<String>> {
        let mut found: Vec<String> =
            names_in(&self.dir)?.iter().filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect();
        found.sort();
        Ok(found)
    }

    fn loaded(&self, anchor: &Anchor) -> Result<Loaded> {
        let mut loaded = Loaded::default();
        for rule in self.rules(anchor)? {
            let copies = rule.matches().members().count();
            match rule {
                Rule::Pass { .. } => loaded.filters.extend(std::iter::repeat_n(Counters::default(), copies)),
                Rule::Nat { .. } | Rule::Rdr { .. } => loaded.translations += copies,
            }
        }
        Ok(loaded)
    }

    fn holds(&self, anchor: &Anchor, rules: &[Rule]) -> Result<bool> {
        Ok(self.rules(anchor)? == rules)
    }

    fn kill_states(&self, _: &[States]) -> Result<u64> {
        // no packet, no state
        Ok(0)
    }

    fn status(&self) -> Result<Status> {
        let calls = |main: Conf| main.calls(&format!("{PARENT}/*"));
        let [nat_anchor, rdr_anchor, anchor] = self.main()?.map_or([true; 3], calls);
        Ok(Status { enabled: true, nat_anchor, rdr_anchor, anchor })
    }

    /// The redirects of `main.conf`.
    fn foreign_redirects(&self) -> Result<Vec<ForeignRedirect>> {
        let main = self.main_conf()?.unwrap_or_default();
        Ok(main.lines().filter_map(|line| foreign::redirect("", line)).collect())
    }

    /// Every table is there as long as nobody has said, in `main.conf`, which ones are.
    fn has_table(&self, table: &Table) -> Result<bool> {
        Ok(self.main()?.is_none_or(|main| main.has_table(table)))
    }

    fn main_ruleset(&self) -> Result<String> {
        Ok(self.main_conf()?.unwrap_or_else(|| MAIN.to_owned()))
    }

    fn rulesets(&self) -> Result<Vec<(String, String)>> {
        let mut all = match self.main()? {
            Some(conf) => conf.texts(),
            None => vec![(String::new(), MAIN.to_owned())],
        };
        for child in self.anchors()? {
            if let Some(anchor) = Anchor::from_child(&child) {
                all.push((format!("{PARENT}/{child}"), rule::text(&self.rules(&anchor)?)));
            }
        }
        Ok(all)
    }
}
