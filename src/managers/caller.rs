//! Finds the jail that a hook is called for.

use super::environment::Environment;
use crate::error::{Error, Kind, Result, quoted};
use crate::host::Host;
use crate::name::JailName;

/// The jail as one source identifies it: a manager's variables, the state of a container, the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        Identity { by, name: None, jid: None, addresses: vec![], calls_after_failure: None }
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
    /// [`Kind::Argument`] if nothing identifies the jail, or two sources name different jails: the ports of one must not be
    /// published for the other. [`Kind::Unavailable`] if there is no jail with the given jid.
    pub fn find(
        environment: &Environment<'_>,
        state: Option<Identity>,
        given: (Option<&str>, Option<i32>),
        host: &dyn Host,
    ) -> Result<Caller> {
        let mut sources: Vec<Identity> = state.into_iter().collect();
        if sources.is_empty() {
            for manager in super::ALL {
                sources.extend(manager.identity(environment)?);
            }
        }
        let command_line =
            Identity { name: given.0.map(str::to_owned), jid: given.1, ..Identity::by("the command line") };
        if command_line.name.is_some() || command_line.jid.is_some() {
            sources.push(command_line);
        }
        agree(sources.iter().filter_map(|source| Some((source.by, quoted(source.name.as_deref()?)))))?;
        agree(sources.iter().filter_map(|source| Some((source.by, format!("jid {}", source.jid?)))))?;
        let jid = sources.iter().find_map(|source| source.jid);
        let name = match sources.iter().find_map(|source| source.name.clone()) {
            Some(name) => name,
            None => name_of(jid, host)?,
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
    /// [`Kind::Unavailable`] if it does not run.
    pub fn check_started(&self, host: &dyn Host) -> Result<()> {
        let Some(manager) = self.calls_after_failure else { return Ok(()) };
        if host.jail(self.jail.as_str())?.is_some_and(|jail| !jail.dying) {
            return Ok(());
        }
        let jail = self.jail.mention();
        let text = format!("{jail} did not start, but {manager} runs its hooks anyway: nothing is published");
        Err(Error::new(Kind::Unavailable, text))
    }
}

/// Fails unless all values are the same.
fn agree(values: impl Iterator<Item = (&'static str, String)>) -> Result<()> {
    let values: Vec<_> = values.collect();
    let Some((first, others)) = values.split_first() else { return Ok(()) };
    match others.iter().find(|other| other.1 != first.1) {
        None => Ok(()),
        Some(other) => Err(Error::new(
            Kind::Argument,
            format!("{} says {}, and {} says {}; which jail is it?", first.0, first.1, other.0, other.1),
        )),
    }
}

fn name_of(jid: Option<i32>, host: &dyn Host) -> Result<String> {
    let Some(jid) = jid else {
        let variables: Vec<&str> = super::ALL.iter().filter_map(|manager| manager.variable()).collect();
        let why = format!(
            "--hook finds no jail: none of {} is in the environment; name the jail, or read the state of a container with \
             --state",
            variables.join(", ")
        );
        return Err(Error::new(Kind::Argument, why));
    };
    host.jail(&jid.to_string())?
        .map(|jail| jail.name)
        .ok_or_else(|| Error::new(Kind::Unavailable, format!("there is no jail {jid}; name the jail")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Fixed;

    fn host() -> Fixed {
        r#"{ "jails": [ { "jid": 2, "name": "web" }, { "jid": 3, "name": "gone", "dying": true } ] }"#.parse().unwrap()
    }

    fn find_with(
        variables: &[(&str, &str)],
        state: Option<Identity>,
        given: (Option<&str>, Option<i32>),
    ) -> Result<Caller> {
        let environment =
            |name: &str| variables.iter().find(|variable| variable.0 == name).map(|variable| variable.1.to_owned());
        Caller::find(&Environment(&environment), state, given, &host())
    }

    fn find(variables: &[(&str, &str)]) -> Result<Caller> {
        find_with(variables, None, (None, None))
    }

    fn caller(jail: &str, jid: Option<i32>, addresses: &[&str], calls_after_failure: Option<&'static str>) -> Caller {
        let addresses = addresses.iter().map(|a| a.to_string()).collect();
        Caller { jail: jail.parse().unwrap(), jid, addresses, calls_after_failure }
    }

    #[test]
    fn every_manager_is_understood() {
        assert_eq!(find(&[("JNAME", "web"), ("JID", "2"), ("JPATH", "/")]), Ok(caller("web", Some(2), &[], None)));
        assert_eq!(find(&[("JNAME", "web")]), Ok(caller("web", None, &[], None)));
        assert_eq!(find(&[("JID", "2")]), Ok(caller("web", Some(2), &[], None)));
        let pot = [
            ("_POT_NAME", "www"),
            ("_POT_JID", "7"),
            ("_POT_IP", "10.192.0.3"),
            ("_POT_IP_0", "10.192.0.3"),
            ("_POT_IP_1", "fd00::3"),
        ];
        assert_eq!(find(&pot), Ok(caller("www", Some(7), &["10.192.0.3", "fd00::3"], None)));
        let cbsd = [("jname", "jail1"), ("ipv4_first", "10.0.0.5/24"), ("ipv6_first", ""), ("nic_address", "0")];
        assert_eq!(find(&cbsd), Ok(caller("jail1", None, &["10.0.0.5"], Some("CBSD"))));
        assert_eq!(find(&[("jname", "jail1"), ("ipv4_first", "DHCP")]), Ok(caller("jail1", None, &[], Some("CBSD"))));
    }

    #[test]
    fn a_state_replaces_the_environment() {
        let state = Identity { name: Some("c0ffee".to_owned()), jid: Some(9), ..Identity::by("the OCI state") };
        let variables = [("JNAME", "web")];
        for variables in [&[][..], &variables] {
            let found = find_with(variables, Some(state.clone()), (None, None));
            assert_eq!(found, Ok(caller("c0ffee", Some(9), &[], None)));
        }
        assert!(find_with(&[], Some(state), (Some("web"), None)).unwrap_err().message().contains("the OCI state"));
    }

    #[test]
    fn a_disagreement_names_both_sides() {
        let fails = |variables: &[(&str, &str)], given, words: &[&str]| {
            let error = find_with(variables, None, given).unwrap_err();
            assert!(words.iter().all(|word| error.message().contains(word)), "{error}");
        };
        fails(&[("JNAME", "web")], (Some("db"), None), &["JNAME", "\"web\"", "command line", "\"db\""]);
        fails(&[("JNAME", "web"), ("JID", "2")], (None, Some(3)), &["jid 2", "jid 3"]);
        fails(&[("JNAME", "web"), ("_POT_NAME", "www")], (None, None), &["_POT_NAME", "\"www\"", "JNAME", "\"web\""]);
        fails(&[("JNAME", "web"), ("JID", "two")], (None, None), &["JID", "two"]);
        fails(&[("JNAME", "web"), ("JID", "-1")], (None, None), &["JID", "-1"]);
        fails(&[], (None, None), &["finds no jail", "JNAME", "_POT_NAME", "jname", "name the jail"]);
        fails(&[("JNAME", "")], (None, None), &["finds no jail"]);
        fails(&[("JID", "77")], (None, None), &["no jail 77"]);
        assert_eq!(
            find_with(&[("JNAME", "web"), ("JID", "2")], None, (Some("web"), Some(2))),
            Ok(caller("web", Some(2), &[], None))
        );
        assert_eq!(find_with(&[], None, (Some("ioc-web"), None)), Ok(caller("ioc-web", None, &[], None)));
    }

    #[test]
    fn a_start_that_failed_publishes_nothing() {
        let cbsd = Some("CBSD");
        assert_eq!(caller("web", None, &[], cbsd).check_started(&host()), Ok(()));
        for name in ["db", "gone"] {
            assert_eq!(caller(name, None, &[], cbsd).check_started(&host()).unwrap_err().kind(), Kind::Unavailable);
            assert_eq!(caller(name, None, &[], None).check_started(&host()), Ok(()));
        }
    }
}
