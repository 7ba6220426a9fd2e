//! The calls of the jails' anchors: in the ruleset of `kport`, without nodes, since pfctl(8) loads one anchor in a run. It loads all of
//! them at each change.

use super::Pfctl;
use crate::calls::{self, Entry};
use crate::child::End;
use crate::error::Result;
use crate::name::PARENT;
use crate::pfconf::rule::Rule;

impl Pfctl {
    /// Loads the calls of these entries, in one run.
    pub(super) fn load_calls(&self, all: &[Entry]) -> Result<()> {
        let text: String = calls::flat(all).iter().map(|call| format!("{call}\n")).collect();
        let doing = format!("load anchor {PARENT}");
        let output = self.call(&doing, &["-q", "-o", "none", "-a", PARENT, "-f", "-"], &text, self.deadline.get())?;
        match output.end {
            End::Exit(0) if super::complaints(&output).is_empty() => Ok(()),
            // it may have loaded them or not: pf shows
            End::Exit(0) | End::Unknown if calls::same(&self.read_calls(None)?, all) => Ok(()),
            _ => Err(super::explain(&doing, &output, &text)),
        }
    }

    /// What pf calls: read through its device, or else by two runs for each ruleset.
    pub(super) fn read_calls(&self, among: Option<&[Entry]>) -> Result<Vec<Entry>> {
        if let Some(called) = self.called_from.as_ref().and_then(|called| called(among)) {
            return Ok(called);
        }
        let mut read = |path: &str| -> Result<Vec<Rule>> {
            let mut shown = self.rules(path, "-sn")?;
            shown.append(&self.rules(path, "-sr")?);
            Ok(shown.rules().to_vec())
        };
        calls::led_to(among, &mut read)
    }
}
