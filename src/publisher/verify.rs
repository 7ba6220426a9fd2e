//! Whether pf evaluates what was loaded, and packets arrive.

use std::path::Path;
use std::time::Duration;

use super::facts::Facts;
use crate::error::{Kind, Problem, Result};
use crate::host::Snapshot;
use crate::net::{Family, PerFamily};
use crate::pf::Status;
use crate::publication::Publication;
use crate::readiness::{self, MainRuleset, Surroundings};
use crate::rule::Rule;
use crate::store::Record;

/// How long a publish may judge a main ruleset that has changed.
const JUDGING: Duration = Duration::from_secs(2);

/// The administrator's file, from which messages have their words. It may be newer than what pf has: a rule that it does not have is
/// shown as pf prints it.
const PF_CONF: &str = "/etc/pf.conf";

/// What a publication needs in addition to its rules.
pub(super) struct Verification<'a> {
    pub(super) facts: &'a Facts<'a>,
    /// Whether rules without effect are noted, not an error.
    pub(super) allow_inert: bool,
    /// Whether ports that cannot be reached anyway are noted as well.
    pub(super) thorough: bool,
}

impl Verification<'_> {
    /// Fails if pf will not evaluate the rules: it must be enabled, its main ruleset must call kport's anchors, and packets
    /// must be forwarded. With `all`, it may be thorough.
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
                notes.push(format!("loaded, but without effect at present: {error}"));
                Ok(())
            }
            Ok(()) if all && self.thorough => {
                match self.dead(&record.publications) {
                    Ok(problems) => notes.extend(problems.iter().map(Problem::to_string)),
                    // the ports are published anyway
                    Err(error) => {
                        self.facts.progress.detail(&format!("it is unknown whether packets arrive: {error}"));
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
        let mut problem =
            readiness::disabled(&status).or_else(|| readiness::uncalled(&status, needs_nat, readiness::pf_conf(host)));
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

    /// Ports that cannot be reached, although pf evaluates the rules.
    fn dead(&self, publications: &[Publication]) -> Result<Vec<Problem>> {
        let Facts { host, firewall, .. } = *self.facts;
        // without a real firewall, such as a Linux host for trying kport, em0 need not exist
        if !firewall.redirects_packets() && !host.is_played() {
            return Ok(vec![]);
        }
        let rulesets = || match firewall.main_ruleset() {
            Ok(main) => Ok(vec![(String::new(), main)]),
            Err(error) if error.kind() == Kind::Unsupported => Ok(vec![]),
            Err(error) => Err(error),
        };
        let [inet, inet6] = Family::ALL.map(|family| self.facts.default_route(family));
        let host = Snapshot::new(host, PerFamily { inet: inet?, inet6: inet6? });
        let around = Surroundings { host: &host, interfaces: self.facts.interfaces()?.into() };
        let deadline = self.facts.progress.deadline.sooner(JUDGING);
        let main = MainRuleset::new(around, firewall.kept()?.as_deref(), rulesets)?.until(deadline);
        let main = main.named_by(firewall.redirects_packets().then_some(Path::new(PF_CONF)));
        let found = readiness::of_jail(&main, publications);
        self.facts.progress.detail(&format!("main ruleset: {} evaluations", main.evaluations()));
        if let Some(learned) = main.learned() {
            firewall.keep(&learned);
        }
        found
    }
}
