//! What belongs to jails that are gone is dropped.

use std::collections::BTreeSet;

use super::all_or;
use super::transaction::{Transaction, is_starting};
use crate::error::{Result, quoted};
use crate::host::{Jail, Jails};
use crate::name::{Anchor, JailName, Label, PARENT};

impl Transaction<'_> {
    /// Drops what belongs to jails that are gone, and anchors that no record knows.
    pub(super) fn gc(&mut self) -> Result<()> {
        let jails = self.host.jails()?;
        for jail in &jails.skipped {
            self.note(format!("jail {} was left alone: {}", jail.jid, jail.why));
        }
        let mut errors = vec![];
        let mut known = BTreeSet::new();
        let anchors = self.store.anchors()?;
        for (done, anchor) in anchors.iter().enumerate() {
            if self.is_time_up() {
                // what was not looked at must not pass for unknown below
                errors.push(self.cut_short(format_args!("{done} of {} records", anchors.len()), "kport gc"));
                return all_or(errors, ());
            }
            match self.gc_one(anchor, &jails) {
                Ok(false) => {}
                Ok(true) => _ = known.insert(anchor.child().to_owned()),
                Err(error) => {
                    known.insert(anchor.child().to_owned());
                    errors.push(error.context(anchor));
                }
            }
        }
        let children = self.firewall.anchors()?;
        for (done, child) in children.iter().enumerate() {
            if self.is_time_up() {
                errors.push(self.cut_short(format_args!("{done} of {} anchors", children.len()), "kport gc"));
                return all_or(errors, ());
            }
            if known.contains(child) {
                continue;
            }
            let Some(anchor) = Anchor::from_child(child) else {
                let path = quoted(&format!("{PARENT}/{child}"));
                self.note(format!("anchor {path} is not one of kport's: left alone"));
                continue;
            };
            let published = |jail: &&Jail| jail.name.parse::<JailName>().is_ok_and(|name| name.anchor() == anchor);
            if self.store.is_damaged(&anchor)?
                && let Some(jail) = jails.jails.iter().filter(|jail| !jail.dying).find(published)
            {
                let jail = quoted(&jail.name);
                self.note(format!(
                    "anchor {anchor} has no record but a damaged one, and jail {jail} is running: left alone; publish its \
                     ports again, or unpublish it"
                ));
                continue;
            }
            let label = Label::of_anchor(&anchor);
            match self.drop_anchor(&anchor, label, None) {
                Ok(()) => self.note(format!("anchor {anchor} had no record: cleared")),
                Err(error) => errors.push(error.context(&anchor)),
            }
        }
        self.sweep();
        all_or(errors, ())
    }

    /// Drops a record's anchor unless its jail runs or is starting; says whether that is so.
    fn gc_one(&mut self, anchor: &Anchor, jails: &Jails) -> Result<bool> {
        let Some(record) = self.record(anchor)? else { return Ok(false) };
        let jail = &record.jail;
        let runs = match record.jid {
            Some(jid) => match jails.jails.iter().find(|j| !j.dying && j.jid == jid) {
                // a jail that was renamed, unless one that took over the number has a record of its own
                Some(there) => there.name == jail.as_str() || !self.has_published(there)?,
                None => false,
            },
            None => is_starting(&record),
        };
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

    /// Whether a jail has a record by its name and number of now.
    fn has_published(&self, jail: &Jail) -> Result<bool> {
        let Ok(name) = jail.name.parse::<JailName>() else { return Ok(false) };
        let record = self.store.get(&name.anchor())?;
        Ok(record.is_some_and(|record| record.boot == self.boot && record.jid == Some(jail.jid)))
    }
}
