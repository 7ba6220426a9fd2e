//! A firewall whose main ruleset is a file: what pf would do with it, before it is loaded or on a host without pf.

use std::sync::Arc;

use crate::error::{Error, Kind, Result};
use crate::name::Anchor;
use crate::pf::{Counters, Firewall, Loaded, Rulesets, States};
use crate::pfconf::{Conf, path};
use crate::rule::Rule;

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

    fn refuse<T>(&self) -> Result<T> {
        Err(Error::new(Kind::Unsupported, "--pf-conf only reads a file, nothing can be changed; leave it out"))
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
        self.refuse()
    }

    fn clear(&self, _: &Anchor) -> Result<bool> {
        self.refuse()
    }

    fn anchors(&self) -> Result<Vec<String>> {
        self.firewall.anchors()
    }

    fn loaded(&self, anchor: &Anchor, counters: bool) -> Result<Loaded> {
        self.firewall.loaded(anchor, counters)
    }

    fn filter_counters(&self, anchor: &Anchor) -> Result<Vec<Counters>> {
        self.firewall.filter_counters(anchor)
    }

    fn holds(&self, anchor: &Anchor, rules: &[Rule]) -> Result<bool> {
        self.firewall.holds(anchor, rules)
    }

    fn kill_states(&self, _: &[States]) -> Result<u64> {
        self.refuse()
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
