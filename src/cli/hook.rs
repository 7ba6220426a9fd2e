//! `--hook`: the environment, arguments and standard input of a hook, and the log that it writes to.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use crate::container::oci::State;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::managers::{Caller, Environment};
use crate::name::JailName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::output::complain;

/// The maximum time for a runtime to write its state. It does that before it waits for the hook.
const STATE_TIME: Duration = Duration::from_secs(5);

/// The sockets of syslogd(8): for root, for everybody, and that of Linux.
const LOG_SOCKETS: [&str; 3] = ["/var/run/logpriv", "/var/run/log", "/dev/log"];

/// LOG_DAEMON with LOG_ERR and LOG_NOTICE of syslog(3).
pub const LOG_ERR: u8 = 3 << 3 | 3;
pub const LOG_NOTICE: u8 = 3 << 3 | 5;

pub fn variable(name: &str) -> Option<String> {
    // bytes that are not UTF-8 become a character that no check accepts
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// Finds the jail that this process is called for, with the words and the jid of its command line, and returns the specs as well.
/// Standard input is read only if `state` is `-`: a manager's script may need it after the hook.
pub fn caller<'a>(
    (jail, specs): (Option<&'a JailName>, &'a [String]), jid: Option<i32>, state: Option<&Path>, host: &dyn Host,
) -> Result<(Caller, Vec<&'a str>)> {
    let state = state.map(state_in).transpose()?.flatten().map(|state| state.identity()).transpose()?;
    let (name, specs) = words(jail.map(JailName::as_str).into_iter().chain(specs.iter().map(String::as_str)));
    Ok((Caller::find(&Environment(&variable), state, (name, jid), host)?, specs))
}

/// Splits the words of a hook's command line: a first word that cannot be a spec is the jail's name. A name with a colon or a
/// slash, or of digits only, must come from the manager.
pub fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> (Option<&'a str>, Vec<&'a str>) {
    let mut words: Vec<&str> = words.into_iter().collect();
    let is_name = |word: &&str| !word.contains([':', '/']) && !word.chars().all(|c| c.is_ascii_digit() || c == '-');
    let name = words.first().copied().filter(is_name);
    if name.is_some() {
        words.remove(0);
    }
    (name, words)
}

/// The state of a container in a file, or on standard input for `-`; `None` if there is none.
pub fn state_in(path: &Path) -> Result<Option<State>> {
    let open = || match path == Path::new("-") {
        true => Ok(io::stdin().as_fd().try_clone_to_owned()?.into()),
        false => File::open(path),
    };
    open().map(read_state).map_err(|error| Error::io(format_args!("open {}", path.display()), &error))
}

/// Reads a state to its end, since the writer may keep the pipe open.
pub fn read_state(file: File) -> Option<State> {
    // a terminal, /dev/null, or closed
    if file.metadata().map_or(true, |about| about.file_type().is_char_device()) {
        return None;
    }
    State::read(BufReader::new(InTime { file, deadline: Deadline::after(STATE_TIME) }))
}

/// Whether standard input has the state of a container that has stopped.
pub fn is_stopped() -> bool {
    state_in(Path::new("-")).is_ok_and(|state| state.is_some_and(|state| state.has_stopped()))
}

struct InTime {
    file: File,
    deadline: Deadline,
}

impl Read for InTime {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = Timespec::try_from(self.deadline.remaining()).ok();
        if poll(&mut [PollFd::new(&self.file, PollFlags::IN)], left.as_ref())? == 0 {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it stays open, and there is no more"));
        }
        self.file.read(into)
    }
}

/// Reports that a stop hook has failed, of which a manager may discard the output. It must not keep `what` from stopping.
pub fn stops_anyway(what: &str, error: &Error) {
    let line = format!("{error}; the {what} stops anyway, and kport apply removes the remaining ports");
    complain(&line);
    log(LOG_ERR, &line);
}

/// Writes a line to syslogd(8), as syslog(3) does for the facility daemon. Without a listener, it is dropped.
pub fn log(priority: u8, line: &str) {
    log_to(LOG_SOCKETS.map(Path::new), priority, line);
}

/// Sends a line to the first of these sockets that somebody reads.
pub fn log_to<'a>(sockets: impl IntoIterator<Item = &'a Path>, priority: u8, line: &str) {
    let Ok(socket) = std::os::unix::net::UnixDatagram::unbound() else { return };
    // a stop must not wait for a syslogd(8) that does not read
    _ = socket.set_nonblocking(true);
    let text = format!("<{priority}>kport[{}]: {line}", std::process::id());
    for path in sockets {
        if socket.send_to(text.as_bytes(), path).is_ok() {
            return;
        }
    }
}
