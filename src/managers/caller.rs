//! Finds the jail that a hook is called for, in its environment and its command line.

use crate::error::{Result, error, quoted};
use crate::host::Host;
use crate::name::JailName;

/// The environment of a process: a function that returns the value of a variable.
#[derive(Clone, Copy)]
pub struct Environment<'a>(pub &'a dyn Fn(&str) -> Option<String>);

impl Environment<'_> {
    /// A variable; an empty one counts as not set.
    pub fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    /// A variable with a jid.
    ///
    /// # Errors
    ///
    /// `Kind::Argument` for an invalid jid.
    pub fn jid(&self, name: &str) -> Result<Option<i32>> {
        self.get(name).map(|text| jid(name, &text)).transpose()
    }
}

/// Parses a jid, which is at least 1; `from` names its source for messages.
pub(crate) fn jid(from: &str, text: &str) -> Result<i32> {
    text.parse().ok().filter(|jid| *jid > 0).ok_or_else(|| error!(Argument, "{from}={} is not a jid", quoted(text)))
}

/// The jail as one source identifies it: a manager's variables, the state of a container, the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The source, for messages: `jail(8)'s JNAME`.
    pub by: &'static str,
    /// The jail's name.
    pub name: Option<String>,
    /// Its jid.
    pub jid: Option<i32>,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// The manager, if it calls this hook also for a jail that did not start.
    pub calls_after_failure: Option<&'static str>,
}

impl Identity {
    /// An identity with only a source.
    pub fn by(by: &'static str) -> Identity {
        Identity { by, ..Identity::default() }
    }
}

/// The jail that a hook is called for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its name.
    pub jail: JailName,
    /// Its jid, if the manager gives it.
    pub jid: Option<i32>,
    /// Its addresses, if the manager gives them.
    pub addresses: Vec<String>,
    /// The manager, if it calls this hook also for a jail that did not start.
    pub calls_after_failure: Option<&'static str>,
}

impl Caller {
    /// Reads the environment, or only `state`, and the name and jid of the command line; each may be missing.
    ///
    /// # Errors
    ///
    /// `Kind::Argument` if nothing identifies the jail, or two sources name different jails: the ports of one must not be
    /// published for the other. `Kind::Unavailable` if there is no jail with the given jid.
    pub fn find(
        environment: &Environment<'_>, state: Option<Identity>, given: (Option<&str>, Option<i32>), host: &dyn Host,
    ) -> Result<Caller> {
        let mut sources: Vec<Identity> = state.into_iter().collect();
        if sources.is_empty() {
            for manager in super::ALL {
                sources.extend((manager.identity)(environment)?);
            }
        }
        let (name, jid) = given;
        if name.is_some() || jid.is_some() {
            sources.push(Identity { name: name.map(str::to_owned), jid, ..Identity::by("the command line") });
        }
        agree(&sources, |source| source.name.as_deref().map(quoted))?;
        agree(&sources, |source| source.jid.map(|jid| format!("jid {jid}")))?;
        let jid = sources.iter().find_map(|source| source.jid);
        let name = match (sources.iter().find_map(|source| source.name.clone()), jid) {
            (Some(name), _) => name,
            (None, Some(jid)) => match host.jail(&jid.to_string())? {
                Some(jail) => jail.name,
                None => return Err(error!(Unavailable, "there is no jail {jid}; name the jail")),
            },
            (None, None) => {
                let variables: Vec<&str> = super::ALL.iter().filter_map(|manager| manager.variable).collect();
                return Err(error!(
                    Argument,
                    "--hook finds no jail: none of {} is in the environment; name the jail, or read the state of a \
                     container with --state",
                    variables.join(", ")
                ));
            }
        };
        let calls_after_failure = sources.iter().find_map(|source| source.calls_after_failure);
        let addresses = sources.into_iter().map(|source| source.addresses).find(|addresses| !addresses.is_empty());
        Ok(Caller { jail: name.parse()?, jid, addresses: addresses.unwrap_or_default(), calls_after_failure })
    }

    /// Checks that the jail runs if its manager does not: nothing uses the ports of a jail that does not run, and no stop hook
    /// would remove them.
    ///
    /// # Errors
    ///
    /// `Kind::Unavailable` if it does not run.
    pub fn check_started(&self, host: &dyn Host) -> Result<()> {
        let Some(manager) = self.calls_after_failure else { return Ok(()) };
        if host.jail(self.jail.as_str())?.is_some_and(|jail| !jail.dying) {
            return Ok(());
        }
        let jail = self.jail.mention();
        Err(error!(Unavailable, "{jail} did not start, but {manager} runs its hooks anyway: nothing is published"))
    }
}

/// Fails unless all sources that say something say the same.
fn agree(sources: &[Identity], says: impl Fn(&Identity) -> Option<String>) -> Result<()> {
    let all: Vec<_> = sources.iter().filter_map(|source| Some((source.by, says(source)?))).collect();
    let Some(other) = all.iter().find(|one| one.1 != all[0].1) else { return Ok(()) };
    let ((by, what), (by_other, another)) = (&all[0], other);
    Err(error!(Argument, "{by} says {what}, and {by_other} says {another}; which jail is it?"))
}
