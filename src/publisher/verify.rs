//! Whether pf evaluates what was loaded, and packets arrive.

use super::facts::Facts;
use crate::error::{Kind, Problem, Result};
use crate::net::Family;
use crate::pf::Status;
use crate::publication::Publication;
use crate::readiness::{self, Surroundings};
use crate::rule::Rule;
use crate::store::Record;

/// What a publication needs besides its rules.
pub(super) struct Verification<'a> {
    pub(super) facts: &'a Facts<'a>,
    /// Whether rules without effect are noted, not refused.
    pub(super) allow_inert: bool,
}

impl Verification<'_> {
    /// Refuses rules that pf will not evaluate: it must run, its main ruleset must call our anchors, and packets must be forwarded.
    /// With `all`, what nobody reaches all the same is noted as well.
    pub(super) fn verify(
        &self,
        record: &Record,
        wanted: &[Rule],
        status: Status,
        all: bool,
        notes: &mut Vec<String>,
    ) -> Result<()> {
        match self.strictly(record, wanted, status) {
            Err(error) if self.allow_inert && error.kind() == Kind::Unavailable => {
                notes.push(format!("loaded, but without effect for now: {error}"));
                Ok(())
            }
            Ok(()) if all => {
                match self.dead(&record.publications) {
                    Ok(problems) => notes.extend(problems.iter().map(Problem::to_string)),
                    // the ports are published all the same
                    Err(error) => {
                        self.facts.progress.detail(&format!("whether anything arrives is not known: {error}"));
                    }
                }
                Ok(())
            }
            other => other,
        }
    }

    fn strictly(&self, record: &Record, wanted: &[Rule], status: Status) -> Result<()> {
        let host = self.facts.host;
        let needs_nat = wanted.iter().any(|r| matches!(r, Rule::Nat { .. }));
        let mut problem = readiness::disabled(&status).or_else(|| readiness::uncalled(&status, needs_nat));
        for family in Family::ALL {
            if problem.is_none() {
                problem = readiness::unforwarded(host, family, record.redirects(), || self.facts.interfaces())?;
            }
        }
        if problem.is_none() && record.publications.iter().any(|p| p.options.host_access) {
            problem = readiness::unfiltered(host, &record.jail.mention())?;
        }
        problem.map_or(Ok(()), |problem| Err(problem.error(Kind::Unavailable)))
    }

    /// What nobody reaches, though pf evaluates the rules.
    fn dead(&self, publications: &[Publication]) -> Result<Vec<Problem>> {
        let Facts { host, firewall, .. } = *self.facts;
        // if no packet is redirected anyway, as on a Linux that somebody tries kport out on, em0 need not be there
        if !firewall.redirects_packets() && !host.is_played() {
            return Ok(vec![]);
        }
        let rulesets = match firewall.main_ruleset() {
            Ok(main) => vec![(String::new(), main)],
            Err(error) if error.kind() == Kind::Unsupported => vec![],
            Err(error) => return Err(error),
        };
        let around = Surroundings { host, interfaces: self.facts.interfaces()?, rulesets: &rulesets };
        readiness::of_jail(&around, publications)
    }
}
