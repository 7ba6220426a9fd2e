//! `--hook`: which jail it is, from how a jail manager calls its hooks.
//!
//! What each of them says, and where:
//!
//! * jail(8): `JNAME`, and `JID` in all hooks but prestart (run_command() of usr.sbin/jail/command.c; seen on 15.1). Bastille and
//!   AppJail leave their hooks to jail(8), and iocage sets both for its poststart;
//! * pot: `_POT_NAME`, `_POT_JID` while it runs, `_POT_IP` and `_POT_IP_0` and so on (share/pot/info.sh);
//! * CBSD: `jname`, `ipv4_first`, `ipv6_first` (subr/jcreate.subr);
//! * ocijail: the state of the OCI runtime specification on standard input, with the jail's number and its parent's name among
//!   the annotations (ocijail/main.cpp, ocijail/create.cpp).

use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use kport::error::{Error, Kind, Result, quoted};
use kport::host::Host;
use kport::name::JailName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

/// The most that is read of a state: it has the annotations of a container, which are a few lines.
const LONGEST_STATE: usize = 1 << 20;

/// How long a manager may take to write it. It is written before the hook is waited for.
const STATE_TIME: Duration = Duration::from_secs(5);

/// The most addresses of one pot that are looked for: `_POT_IP_0` to this number.
const POT_ADDRESSES: usize = 64;

/// Where syslogd(8) listens: for root, for everybody, and where Linux has it.
const LOG_SOCKETS: [&str; 3] = ["/var/run/logpriv", "/var/run/log", "/dev/log"];

/// LOG_DAEMON and LOG_ERR of syslog(3).
const LOG_PRIORITY: u8 = 3 << 3 | 3;

/// The jail that a hook is called for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its name.
    pub jail: JailName,
    /// Its number, where the manager tells.
    pub jid: Option<i32>,
    /// Its addresses, where the manager tells.
    pub addresses: Vec<String>,
    /// The manager calls this hook also for a jail that did not start.
    pub may_have_failed: bool,
}

/// What one manager says.
#[derive(Default)]
struct Said {
    by: &'static str,
    name: Option<String>,
    jid: Option<i32>,
    addresses: Vec<String>,
}

impl Caller {
    /// From an environment, from `state` where that says nothing, and from the name and number of the command line, which may be
    /// left out. Two that name different jails are an error: the ports of one must not be those of the other.
    pub fn find(
        environment: &dyn Fn(&str) -> Option<String>,
        state: &mut dyn FnMut() -> Result<Option<String>>,
        given: (Option<&str>, Option<i32>),
        host: &dyn Host,
    ) -> Result<Caller> {
        let mut said = from_environment(environment)?;
        if said.is_empty()
            && let Some(text) = state()?
        {
            said.push(from_state(&text)?);
        }
        let may_have_failed = said.iter().any(|s| s.by == "CBSD's jname");
        let command_line =
            Said { by: "the command line", name: given.0.map(str::to_owned), jid: given.1, ..Said::default() };
        if command_line.name.is_some() || command_line.jid.is_some() {
            said.push(command_line);
        }
        agree(said.iter().filter_map(|s| Some((s.by, quoted(s.name.as_deref()?)))))?;
        agree(said.iter().filter_map(|s| Some((s.by, format!("jid {}", s.jid?)))))?;
        let jid = said.iter().find_map(|s| s.jid);
        let name = match said.iter().find_map(|s| s.name.clone()) {
            Some(name) => name,
            None => named(jid, host)?,
        };
        let addresses = said.into_iter().map(|s| s.addresses).find(|addresses| !addresses.is_empty());
        Ok(Caller { jail: name.parse()?, jid, addresses: addresses.unwrap_or_default(), may_have_failed })
    }

    /// For the process that runs.
    pub fn of_process(given: (Option<&str>, Option<i32>), host: &dyn Host) -> Result<Caller> {
        let environment = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Caller::find(&environment, &mut || read_state(&io::stdin()), given, host)
    }

    /// Fails where the jail has to run by now and does not: what is published for it would lead nowhere, and nobody would stop it.
    pub fn check_started(&self, host: &dyn Host) -> Result<()> {
        if !self.may_have_failed || host.jail(self.jail.as_str())?.is_some_and(|jail| !jail.dying) {
            return Ok(());
        }
        let text = format!(
            "{} did not start, and CBSD runs its hooks all the same: nothing is published",
            self.jail.mention()
        );
        Err(Error::new(Kind::Unavailable, text))
    }
}

/// Splits the words of a hook's command line: a first word that cannot be a spec is the jail's name. A name with a colon or a
/// slash, or of digits alone, has to come from the manager.
pub fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> (Option<&'a str>, Vec<&'a str>) {
    let mut words: Vec<&str> = words.into_iter().collect();
    let is_name = |word: &&str| !word.contains([':', '/']) && !word.chars().all(|c| c.is_ascii_digit() || c == '-');
    let name = words.first().copied().filter(is_name);
    if name.is_some() {
        words.remove(0);
    }
    (name, words)
}

/// Whether all say the same.
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

fn named(jid: Option<i32>, host: &dyn Host) -> Result<String> {
    let Some(jid) = jid else {
        return Err(Error::new(
            Kind::Argument,
            "--hook finds no jail: neither JNAME, _POT_NAME nor jname is in the environment, and no OCI state on standard input; \
             name the jail",
        ));
    };
    host.jail(&jid.to_string())?
        .map(|jail| jail.name)
        .ok_or_else(|| Error::new(Kind::Unavailable, format!("there is no jail {jid} any more; name the jail")))
}

fn from_environment(variable: &dyn Fn(&str) -> Option<String>) -> Result<Vec<Said>> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    let number = |name: &str| variable(name).map(|text| jid(name, &text)).transpose();
    let mut said = vec![];
    if let Some(name) = variable("_POT_NAME") {
        let numbered = (0..POT_ADDRESSES).map(|n| format!("_POT_IP_{n}"));
        let all = std::iter::once("_POT_IP".to_owned()).chain(numbered);
        let mut addresses: Vec<String> = vec![];
        for address in all.filter_map(|name| variable(&name)) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        said.push(Said { by: "pot's _POT_NAME", name: Some(name), jid: number("_POT_JID")?, addresses });
    }
    let (name, number) = (variable("JNAME"), number("JID")?);
    if name.is_some() || number.is_some() {
        said.push(Said { by: "jail(8)'s JNAME", name, jid: number, ..Said::default() });
    }
    if let Some(name) = variable("jname") {
        // "0", "DHCP" and the like are no addresses: then the host is asked
        let address = |name: &str| variable(name).and_then(|text| text.split('/').next()?.parse::<IpAddr>().ok());
        let addresses = ["ipv4_first", "ipv6_first"].into_iter().filter_map(address).map(|a| a.to_string()).collect();
        said.push(Said { by: "CBSD's jname", name: Some(name), addresses, ..Said::default() });
    }
    Ok(said)
}

fn jid(from: &str, text: &str) -> Result<i32> {
    text.parse()
        .ok()
        .filter(|jid| *jid > 0)
        .ok_or_else(|| Error::new(Kind::Argument, format!("{from}={} is not the number of a jail", quoted(text))))
}

/// The jail of a state of the OCI runtime specification, and its number where the runtime tells.
pub fn jail_of_state(text: &str) -> Result<(JailName, Option<i32>)> {
    let said = from_state(text)?;
    Ok((said.name.unwrap_or_default().parse()?, said.jid))
}

fn from_state(text: &str) -> Result<Said> {
    let bad = |why: &str| Error::new(Kind::Argument, format!("standard input is no state of an OCI runtime: {why}"));
    let state: Value = serde_json::from_str(text).map_err(|e| bad(&e.to_string()))?;
    let id = state["id"].as_str().ok_or_else(|| bad("it has no id"))?;
    let note = |name: &str| state["annotations"][name].as_str();
    let name = match note("org.freebsd.parentJail") {
        Some(parent) => format!("{parent}.{id}"),
        None => id.to_owned(),
    };
    let number = note("org.freebsd.jail.jid").map(|text| jid("org.freebsd.jail.jid", text)).transpose()?;
    Ok(Said { by: "the OCI state", name: Some(name), jid: number, ..Said::default() })
}

/// One JSON document from a pipe, a socket or a file; `None` where nothing stands there. It is read no further than to its end:
/// the other end may stay open.
pub fn read_state(from: &(impl AsFd + ?Sized)) -> Result<Option<String>> {
    let failed = |error: io::Error| Error::io("read standard input", &error);
    let fd = from.as_fd();
    if rustix::fs::fstat(fd).map_or(true, |stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_char_device()) {
        // a terminal, /dev/null, or closed
        return Ok(None);
    }
    let mut file = std::fs::File::from(fd.try_clone_to_owned().map_err(failed)?);
    let deadline = Instant::now() + STATE_TIME;
    let mut text = Vec::new();
    let mut part = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ };
        if poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&left)).map_err(|e| failed(e.into()))? == 0 {
            return Err(Error::new(
                Kind::Unavailable,
                "standard input stays open and has no OCI state; name the jail, or </dev/null",
            ));
        }
        let count = file.read(&mut part).map_err(failed)?;
        text.extend_from_slice(&part[..count]);
        let whole = serde_json::from_slice::<Value>(&text).is_ok();
        if count == 0 || whole || text.len() > LONGEST_STATE {
            break;
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(Some(text).filter(|text| !text.trim().is_empty()))
}

/// Writes a line to syslogd(8), as syslog(3) does for the facility daemon. Where nobody listens there is nothing to be done.
pub fn log(line: &str) {
    log_to(LOG_SOCKETS.map(Path::new), line);
}

fn log_to<'a>(sockets: impl IntoIterator<Item = &'a Path>, line: &str) {
    let Ok(socket) = UnixDatagram::unbound() else { return };
    // a stop must not wait for a syslogd(8) that does not read
    _ = socket.set_nonblocking(true);
    let text = format!("<{LOG_PRIORITY}>kport[{}]: {line}", std::process::id());
    for path in sockets {
        if socket.send_to(text.as_bytes(), path).is_ok() {
            return;
        }
    }
}

/// Whether a command line that could not be read is that of a stop, which must not fail.
pub fn is_stop(arguments: impl IntoIterator<Item = String>) -> bool {
    let arguments: Vec<String> = arguments.into_iter().collect();
    ["unpublish", "--hook"].iter().all(|word| arguments.iter().any(|argument| argument == word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kport::host::Fixed;

    fn host() -> Fixed {
        r#"{ "jails": [ { "jid": 2, "name": "web" }, { "jid": 3, "name": "gone", "dying": true } ] }"#.parse().unwrap()
    }

    fn find(variables: &[(&str, &str)], state: Option<&str>, given: (Option<&str>, Option<i32>)) -> Result<Caller> {
        let environment =
            |name: &str| variables.iter().find(|variable| variable.0 == name).map(|variable| variable.1.to_owned());
        Caller::find(&environment, &mut || Ok(state.map(str::to_owned)), given, &host())
    }

    fn caller(jail: &str, jid: Option<i32>, addresses: &[&str], may_have_failed: bool) -> Caller {
        let addresses = addresses.iter().map(|a| a.to_string()).collect();
        Caller { jail: jail.parse().unwrap(), jid, addresses, may_have_failed }
    }

    #[test]
    fn every_manager_is_understood() {
        let none = (None, None);
        assert_eq!(
            find(&[("JNAME", "web"), ("JID", "2"), ("JPATH", "/")], None, none),
            Ok(caller("web", Some(2), &[], false))
        );
        assert_eq!(find(&[("JNAME", "web")], None, none), Ok(caller("web", None, &[], false)));
        assert_eq!(find(&[("JID", "2")], None, none), Ok(caller("web", Some(2), &[], false)));
        let pot = [
            ("_POT_NAME", "www"),
            ("_POT_JID", "7"),
            ("_POT_IP", "10.192.0.3"),
            ("_POT_IP_0", "10.192.0.3"),
            ("_POT_IP_1", "fd00::3"),
        ];
        assert_eq!(find(&pot, None, none), Ok(caller("www", Some(7), &["10.192.0.3", "fd00::3"], false)));
        let cbsd = [("jname", "jail1"), ("ipv4_first", "10.0.0.5/24"), ("ipv6_first", ""), ("nic_address", "0")];
        assert_eq!(find(&cbsd, None, none), Ok(caller("jail1", None, &["10.0.0.5"], true)));
        assert_eq!(
            find(&[("jname", "jail1"), ("ipv4_first", "DHCP")], None, none),
            Ok(caller("jail1", None, &[], true))
        );
        let state = r#"{"ociVersion":"1.0.2","id":"c0ffee","status":"created","pid":17,"bundle":"/b",
            "annotations":{"org.freebsd.parentJail":"pod","org.freebsd.jail.jid":"9"}}"#;
        assert_eq!(find(&[], Some(state), none), Ok(caller("pod.c0ffee", Some(9), &[], false)));
        assert_eq!(find(&[], Some(r#"{"id":"c0ffee"}"#), none), Ok(caller("c0ffee", None, &[], false)));
        // standard input belongs to somebody else where the environment tells
        assert_eq!(find(&[("JNAME", "web")], Some("nonsense"), none), Ok(caller("web", None, &[], false)));
    }

    #[test]
    fn a_disagreement_names_both_sides() {
        let fails = |variables: &[(&str, &str)], given, words: &[&str]| {
            let error = find(variables, None, given).unwrap_err();
            assert!(words.iter().all(|word| error.message().contains(word)), "{error}");
        };
        fails(&[("JNAME", "web")], (Some("db"), None), &["JNAME", "\"web\"", "command line", "\"db\""]);
        fails(&[("JNAME", "web"), ("JID", "2")], (None, Some(3)), &["jid 2", "jid 3"]);
        fails(&[("JNAME", "web"), ("_POT_NAME", "www")], (None, None), &["_POT_NAME", "\"www\"", "JNAME", "\"web\""]);
        fails(&[("JNAME", "web"), ("JID", "two")], (None, None), &["JID", "two"]);
        fails(&[("JNAME", "web"), ("JID", "-1")], (None, None), &["JID", "-1"]);
        fails(&[], (None, None), &["finds no jail", "name the jail"]);
        fails(&[("JNAME", "")], (None, None), &["finds no jail"]);
        fails(&[("JID", "77")], (None, None), &["no jail 77"]);
        assert_eq!(
            find(&[("JNAME", "web"), ("JID", "2")], None, (Some("web"), Some(2))),
            Ok(caller("web", Some(2), &[], false))
        );
        assert_eq!(find(&[], None, (Some("ioc-web"), None)), Ok(caller("ioc-web", None, &[], false)));
        for state in ["nonsense", "{}", r#"{"id":7}"#, r#"{"id":"a","annotations":{"org.freebsd.jail.jid":"x"}}"#] {
            assert_eq!(find(&[], Some(state), (None, None)).unwrap_err().kind(), Kind::Argument, "{state}");
        }
    }

    #[test]
    fn a_start_that_failed_publishes_nothing() {
        assert_eq!(caller("web", None, &[], true).check_started(&host()), Ok(()));
        for name in ["db", "gone"] {
            assert_eq!(caller(name, None, &[], true).check_started(&host()).unwrap_err().kind(), Kind::Unavailable);
            assert_eq!(caller(name, None, &[], false).check_started(&host()), Ok(()));
        }
    }

    #[test]
    fn the_first_word_is_a_name_where_it_is_no_spec() {
        assert_eq!(words(["web", "8080:80"]), (Some("web"), vec!["8080:80"]));
        assert_eq!(words(["8080", "443"]), (None, vec!["8080", "443"]));
        for spec in ["8000-8010", "auto:80", "em0:80:80", "80/udp", "*:80:80", "[::1]:80:80", "8080:80/tpc"] {
            assert_eq!(words([spec]), (None, vec![spec]));
        }
        assert_eq!(words(["3f2a-77"]), (Some("3f2a-77"), vec![]));
        assert_eq!(words([]), (None, vec![]));
    }

    #[test]
    fn a_state_is_read_to_its_end_though_the_pipe_stays_open() {
        use std::io::Write;
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(br#" {"id": "#).unwrap();
        writer.write_all(br#""web"}"#).unwrap();
        assert_eq!(read_state(&reader).unwrap().as_deref(), Some(r#" {"id": "web"}"#));
        drop(writer);
        assert_eq!(read_state(&reader), Ok(None));
        assert_eq!(read_state(&std::fs::File::open("/dev/null").unwrap()), Ok(None));
    }

    #[test]
    fn syslogd_gets_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let (none, there) = (dir.path().join("none"), dir.path().join("log"));
        let syslogd = UnixDatagram::bind(&there).unwrap();
        log_to([none.as_path(), there.as_path()], "jail web: pf is away");
        let mut text = [0; 200];
        let count = syslogd.recv(&mut text).unwrap();
        let expected = format!("<27>kport[{}]: jail web: pf is away", std::process::id());
        assert_eq!(std::str::from_utf8(&text[..count]), Ok(expected.as_str()));
        log_to([none.as_path()], "nobody");
    }

    #[test]
    fn the_command_line_of_a_stop() {
        let line = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(is_stop(line("kport -q unpublish --hook --typo")));
        assert!(!is_stop(line("kport publish --hook 80")) && !is_stop(line("kport unpublish web")));
    }
}
