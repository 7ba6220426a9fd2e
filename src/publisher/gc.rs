//! What belongs to jails that are gone is dropped.

use std::collections::BTreeSet;

use super::all_or;
use super::transaction::Transaction;
use crate::error::{Result, quoted};
use crate::host::Jails;
use crate::name::{Anchor, Label, PARENT};

impl Transaction<'_> {
    /// Drops what belongs to jails that are gone, and anchors that no record knows.
    pub(super) fn gc(&mut self) -> Result<()> {
        let jails = self.host.jails()?;
        for jail in &jails.skipped {
            self.note(format!("jail {} was left alone: {}", jail.jid, jail.why));
        }
        let mut errors = vec![];
        let mut known = BTreeSet::new();
        for anchor in self.store.anchors()? {
            match self.gc_one(&anchor, &jails) {
                Ok(false) => {}
                Ok(true) => _ = known.insert(anchor.child().to_owned()),
                Err(error) => {
                    known.insert(anchor.child().to_owned());
                    errors.push(error.context(&anchor));
                }
            }
        }
        for child in self.firewall.anchors()? {
            if known.contains(&child) {
                continue;
            }
            let Some(anchor) = Anchor::from_child(&child) else {
                let path = quoted(&format!("{PARENT}/{child}"));
                self.note(format!("anchor {path} is not one of kport's: left alone"));
                continue;
            };
            let label = Label::of_anchor(&anchor);
            match self.drop_anchor(&anchor, label, None) {
                Ok(()) => self.note(format!("anchor {anchor} had no record: cleared")),
                Err(error) => errors.push(error.context(&anchor)),
            }
        }
        all_or(errors, ())
    }

    /// Drops a record's anchor unless its jail runs; says whether that is so.
    fn gc_one(&mut self, anchor: &Anchor, jails: &Jails) -> Result<bool> {
        let Some(record) = self.record(anchor)? else { return Ok(false) };
        let jail = &record.jail;
        let runs = jails
            .jails
            .iter()
            .any(|j| !j.dying && j.name == jail.as_str() && record.jid.is_none_or(|jid| jid == j.jid));
        let may_run = jails.skipped.iter().any(|j| match record.jid {
            Some(jid) => jid == j.jid,
            None => j.name.as_deref() == Some(jail.as_str()),
        });
        let alive = runs || may_run;
        if !alive {
            self.drop_anchor(anchor, jail.label(), Some(&record))?;
            self.note(format!("{} is gone: unpublished", jail.mention()));
        }
        Ok(alive)
    }
}
