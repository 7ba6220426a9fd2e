//! One run of pfctl(8): as `-v` prints it, and what its output means.

use std::path::Path;
use std::time::Duration;
use std::{fmt, io};

use crate::child::{End, Output};
use crate::error::{Error, Kind, quoted};
use crate::rule::Counters;

/// One run of the program, for `-v`. As text: the command, the time and the exit on the first line, then a line for
/// each line of input (`<`), output (`>`) and standard error (`!`).
pub struct Invocation<'a> {
    pub(super) program: &'a Path,
    pub(super) arguments: &'a [&'a str],
    pub(super) input: &'a str,
    pub(super) output: std::result::Result<&'a Output, &'a io::Error>,
    pub(super) took: Duration,
}

impl fmt::Display for Invocation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.display())?;
        for argument in self.arguments {
            write!(f, " {argument}")?;
        }
        write!(f, ": {:.1} ms, ", self.took.as_secs_f64() * 1e3)?;
        match self.output {
            Err(error) => write!(f, "not started: {error}")?,
            Ok(output) => match output.end {
                End::Exit(status) => write!(f, "exit status {status}")?,
                End::Signal(signal) => write!(f, "killed by signal {signal}")?,
                End::Unknown => f.write_str("exit status unknown")?,
                End::TimedOut => f.write_str("not finished in time, killed")?,
                End::TooMuch => f.write_str("too much output, killed")?,
            },
        }
        let (stdout, stderr) = self.output.map_or((&[][..], &[][..]), |output| (&output.stdout, &output.stderr));
        let texts = [(self.input.as_bytes(), '<'), (stdout, '>'), (stderr, '!')];
        for (text, mark) in texts {
            for line in String::from_utf8_lossy(text).lines() {
                // an anchor or a label may contain anything; a terminal must not interpret it
                write!(f, "\n  {mark} {}", line.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'"))?;
            }
        }
        Ok(())
    }
}

/// Reads the first line of `-s info` (print_status in sbin/pfctl/pfctl_parser.c).
pub(super) fn enabled(shown: &[u8]) -> Option<bool> {
    let rest = shown.strip_prefix(b"Status: ")?;
    [(&b"Enabled"[..], true), (b"Disabled", false)]
        .into_iter()
        .find_map(|(word, is)| rest.starts_with(word).then_some(is))
}

/// What a run has left.
pub(super) struct Ran {
    pub(super) end: End,
    pub(super) stdout: Vec<u8>,
    /// The lines of standard error that matter.
    pub(super) said: Vec<String>,
}

impl From<Output> for Ran {
    fn from(Output { end, stdout, stderr }: Output) -> Ran {
        // pfctl_test_altqsupport in sbin/pfctl/pfctl.c, with -v
        const NOTICES: [&str; 2] = ["No ALTQ support in kernel", "ALTQ related functions disabled"];
        let text = String::from_utf8_lossy(&stderr);
        let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !NOTICES.contains(line));
        Ran { end, stdout, said: lines.map(str::to_owned).collect() }
    }
}

impl Ran {
    pub(super) fn is_good(&self) -> bool {
        self.end == End::Exit(0) && self.said.is_empty()
    }

    /// Whether it may have done all.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.end, End::Exit(0) | End::Unknown)
    }

    /// Whether a ticket was out of date, since another load has begun (pf_ioctl.c); rules of other anchors count, too.
    pub(super) fn is_busy(&self) -> bool {
        self.said.iter().any(|line| line.ends_with("Device busy"))
    }

    /// Whether it had no other problem than that an anchor is gone.
    pub(super) fn says_only_gone(&self) -> bool {
        self.said.iter().all(|line| gone(line))
    }

    /// The error of a run that failed. `rules` is its input.
    pub(super) fn explain(&self, doing: &str, rules: &str) -> Error {
        let lines = &self.said;
        let said = if lines.is_empty() { "nothing".to_owned() } else { quoted(&lines.join(" / ")) };
        let (kind, why) = match self.end {
            End::TimedOut => (
                Kind::Busy,
                format!("pfctl did not finish in time, and was killed (it printed {said}); try again with more time"),
            ),
            End::Signal(signal) => (
                Kind::System,
                format!(
                    "pfctl was killed by signal {signal} (it printed {said}); see dmesg(8) for the reason, then try again"
                ),
            ),
            End::TooMuch => {
                (Kind::System, "pfctl printed more than 64 MiB, and was killed; is it the real one?".to_owned())
            }
            End::Exit(status) if lines.is_empty() => {
                (Kind::System, format!("pfctl exited with status {status} and printed nothing"))
            }
            End::Unknown if lines.is_empty() => {
                let why = "pfctl's exit status is lost (the calling program ignores SIGCHLD or reaps every child)";
                (Kind::System, why.to_owned())
            }
            End::Exit(_) | End::Unknown => match lines.iter().find(|line| line.starts_with("stdin:")) {
                Some(line) => (Kind::Internal, refused(line, rules)),
                None => {
                    let is_in = |part: &&str| lines.iter().any(|line| line.contains(part));
                    let known = MEANINGS.iter().find(|(parts, ..)| parts.iter().any(is_in));
                    let unknown = (Kind::System, "an unknown message: run `pfctl -vnf /etc/pf.conf` and see `dmesg`");
                    let (kind, remedy) = known.map_or(unknown, |(_, kind, remedy)| (*kind, *remedy));
                    (kind, format!("pfctl printed {said}: {remedy}"))
                }
            },
        };
        Error::new(kind, format!("{doing}: {why}"))
    }
}

/// Whether a line means that there is no such anchor, or that it was just removed. 14 and 15 print different messages,
/// and so do `-sn` and `-sr`. The kernel returns EINVAL to DIOCGETRULES and ENOENT to the others (pf_ioctl.c, pf_nl.c);
/// `-sA` of 14 has a message for EINVAL only (pfctl_show_anchors in its sbin/pfctl/pfctl.c).
fn gone(line: &str) -> bool {
    let line = line.strip_prefix("pfctl: ").unwrap_or(line);
    const CALLS: [&str; 5] = ["DIOCGETRULES", "DIOCGETRULE", "DIOCGETRULENV", "DIOCGETRULESETS", "DIOCGETRULESET"];
    const REASONS: [&str; 2] = ["Invalid argument", "No such file or directory"];
    line == "Anchor does not exist."
        || (line.starts_with("Anchor '") && line.ends_with("' not found."))
        || line.split_once(": ").is_some_and(|(call, reason)| CALLS.contains(&call) && REASONS.contains(&reason))
}

/// `kport:web kport:web:tcp:8080 0 0 0 0 0 0 0 0`: labels, then evaluations, packets, bytes, packets and bytes in, packets
/// and bytes out, states created (pfctl_show_rules in sbin/pfctl/pfctl.c).
pub(super) fn labelled(line: &str) -> Option<Counters> {
    const NUMBERS: usize = 8;
    let words: Vec<&str> = line.split(' ').collect();
    let (labels, numbers) = words.split_at_checked(words.len().checked_sub(NUMBERS)?)?;
    let numbers: Vec<u64> = numbers.iter().map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let [_, packets, bytes, .., states] = numbers[..] else { return None };
    (!labels.is_empty()).then_some(Counters { packets, bytes, states })
}

const NO_DEVICE: &str = "/dev/pf: No such file";

/// Whether pfctl(8) printed that there is no /dev/pf: pf.ko is not loaded, or devfs(5) hides the device.
pub fn is_without_device(printed: &str) -> bool {
    printed.contains(NO_DEVICE)
}

/// Parts of pfctl(8)'s messages, what they mean, and what to do. The first that is found counts.
const MEANINGS: &[(&[&str], Kind, &str)] = &[
    (
        &[NO_DEVICE],
        Kind::Unavailable,
        "pf is not loaded: `kldload pf`; inside a jail: it needs vnet and a devfs rule for /dev/pf",
    ),
    (
        &["/dev/pf: Permission denied", "/dev/pf: Operation not permitted"],
        Kind::Permission,
        "only root may use pf: run this as root",
    ),
    (
        &["Failed to open netlink"],
        Kind::Unavailable,
        "pfctl cannot talk to the kernel: `kldload netlink`, or reboot after an upgrade",
    ),
    (
        &["Operation not permitted", "Permission denied"],
        Kind::Permission,
        "pf rules cannot be changed here: run as root, with kern.securelevel below 2, before FreeBSD 15 below 3",
    ),
    // not Unavailable: pf may be loaded and hold rules
    (
        &["Inappropriate ioctl", "Operation not supported by device"],
        Kind::System,
        "pfctl and the kernel are of different releases: finish the upgrade and reboot",
    ),
    (
        &["usage:", "Unknown show modifier"],
        Kind::Unsupported,
        "this pfctl does not support the command; kport needs FreeBSD 14 or later",
    ),
    (&["strlcpy", "anchor names beginning", "Syntax error"], Kind::Internal, "a defect in kport: please report it"),
    // DIOCXBEGIN failed, and pfctl does not print the reason; pf is there, and the anchor may still hold its rules
    (
        &["pfctl_rules"],
        Kind::System,
        "pf refused to begin: see `pfctl -sm` for the limit of anchors, raise it with `set limit anchors`",
    ),
    (
        &["Cannot allocate memory", "No buffer space"],
        Kind::System,
        "the kernel is out of memory: free some, or try again",
    ),
];

/// `stdin:2: syntax error`, with the line that was sent.
fn refused(line: &str, rules: &str) -> String {
    let (number, why) = line.trim_start_matches("stdin:").split_once(':').unwrap_or(("?", line));
    let sent = number.parse::<usize>().ok().and_then(|n| rules.lines().nth(n.checked_sub(1)?)).unwrap_or("");
    let why = why.trim();
    format!(
        "pfctl refused line {number}, `{sent}`: {why}: a defect in kport, or an unsupported pfctl; please report it"
    )
}
