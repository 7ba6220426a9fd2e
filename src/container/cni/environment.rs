//! The `CNI_` variables of the environment.

use super::super::code::{Code, Failure};
use crate::error::{Error, quoted};
use crate::managers::Environment;
use crate::name::JailName;

/// The commands of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Publish the ports of an attachment.
    Add,
    /// Remove the ports of an attachment.
    Del,
    /// Check that an attachment is published as it was added.
    Check,
    /// Remove the attachments that are no longer valid.
    Gc,
    /// Check that ports could be published now.
    Status,
    /// Report the supported versions of the specification.
    Version,
}

impl Operation {
    const ALL: [(&str, Operation); 6] = [
        ("ADD", Operation::Add),
        ("DEL", Operation::Del),
        ("CHECK", Operation::Check),
        ("GC", Operation::Gc),
        ("STATUS", Operation::Status),
        ("VERSION", Operation::Version),
    ];

    /// `CNI_COMMAND`.
    pub(super) fn asked(environment: &Environment<'_>) -> Result<Operation, Failure> {
        let known = || Operation::ALL.map(|(name, _)| name).join(", ");
        match environment.get("CNI_COMMAND") {
            None => Err(refuse(format!(
                "CNI_COMMAND is not set: a container runtime sets it to one of {}, and gives the network configuration \
                 on standard input",
                known()
            ))),
            Some(text) => match Operation::ALL.into_iter().find(|(name, _)| *name == text) {
                Some((_, operation)) => Ok(operation),
                None => Err(refuse(format!("CNI_COMMAND is {}; there are {}", quoted(&text), known()))),
            },
        }
    }
}

/// An interface of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// `CNI_CONTAINERID`
    pub container: String,
    /// `CNI_IFNAME`
    pub interface: String,
}

impl Attached {
    pub fn of(environment: &Environment<'_>) -> Result<Attached, Failure> {
        let container = required(environment, "CNI_CONTAINERID")?;
        if !is_identifier(&container) {
            return Err(refuse(format!(
                "CNI_CONTAINERID is {}: a letter or digit, then letters, digits, _, . and -",
                quoted(&container)
            )));
        }
        let interface = required(environment, "CNI_IFNAME")?;
        let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        // IFNAMSIZ less its NUL
        if interface.len() > 15 || interface.contains(odd) || matches!(interface.as_str(), "." | "..") {
            return Err(refuse(format!("CNI_IFNAME is {}, which is not the name of an interface", quoted(&interface))));
        }
        Ok(Attached { container, interface })
    }
}

/// The jail that `CNI_NETNS` names: the last part of a path, since a runtime for Linux gives a path.
pub fn jail(environment: &Environment<'_>) -> Result<JailName, Failure> {
    let path = required(environment, "CNI_NETNS")?;
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    name.parse().map_err(|e: Error| refuse(format!("CNI_NETNS is {}: {e}", quoted(&path))))
}

fn required(environment: &Environment<'_>, name: &str) -> Result<String, Failure> {
    environment.get(name).ok_or_else(|| refuse(format!("{name} is not set")))
}

fn refuse(details: String) -> Failure {
    Failure::new(Code::Environment, details)
}

/// A letter or digit, then letters, digits, `_`, `.` and `-`: a container or a network.
pub fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attached(container: &str, interface: &str) -> Result<Attached, Failure> {
        Attached::of(&Environment(&|name| Some(if name == "CNI_IFNAME" { interface } else { container }.to_owned())))
    }

    #[test]
    fn variables_are_checked_and_named() {
        attached("1f-0.b_c", "eth0").unwrap();
        for (container, interface, variable) in [
            ("", "eth0", "CNI_CONTAINERID"),
            ("-x", "eth0", "CNI_CONTAINERID"),
            ("a/b", "eth0", "CNI_CONTAINERID"),
            ("a\n", "eth0", "CNI_CONTAINERID"),
            ("a", "", "CNI_IFNAME"),
            ("a", "..", "CNI_IFNAME"),
            ("a", "eth0/1", "CNI_IFNAME"),
            ("a", "eth0:1", "CNI_IFNAME"),
            ("a", "sixteencharacter", "CNI_IFNAME"),
        ] {
            let failure = attached(container, interface).unwrap_err();
            assert_eq!(failure.code, Code::Environment);
            assert!(failure.details.starts_with(variable), "{failure}");
        }
        for (command, says) in [("", "CNI_COMMAND is not set"), ("add", "\"add\"; there are ADD, DEL")] {
            let failure = Operation::asked(&Environment(&|_| Some(command.to_owned()))).unwrap_err();
            assert!(failure.details.contains(says), "{failure}");
        }
    }

    #[test]
    fn a_jail_is_the_last_part_of_a_path() {
        for (netns, name) in [("web", "web"), ("/var/run/netns/blue", "blue"), ("/run/x/", "x"), ("a.b", "a.b")] {
            assert_eq!(jail(&Environment(&|_| Some(netns.to_owned()))).unwrap().as_str(), name);
        }
        for bad in ["/", "a\nb", &"x".repeat(256)] {
            assert_eq!(jail(&Environment(&|_| Some(bad.to_owned()))).unwrap_err().code, Code::Environment);
        }
    }
}
