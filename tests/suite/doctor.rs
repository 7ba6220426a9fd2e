//! Every finding of `kport doctor`, as it is printed: `tests/doctor/*.ok`. `KPORT_BLESS=1` writes them again.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::rig::{Rig, request};
use crate::support::standin::{self, Fault};
use kport::deadline::Deadline;
use kport::doctor::{self, Finding, IDS, Level, ManagerFiles};
use kport::name::Anchor;
use kport::net::Family;
use kport::pf::Firewall;
use kport::pf::pfctl::Pfctl;
use kport::publisher::{Request, Unobserved};

use kport::pf::files::Sim;
use kport::store::Store;

/// pf.conf(5) as it was before kport's anchors were called by a tree.
const BY_WILDCARD: &str = "nat-anchor \"kport/*\"\nrdr-anchor \"kport/*\"\nblock in log all\npass out all\npass quick inet6 proto ipv6-icmp\nanchor \"kport/*\"\n";

/// A host, a state directory, and a pfctl for what the simulator does not have.
struct Patient {
    rig: Rig,
    standin: standin::Pfctl,
    by_pfctl: bool,
    program: PathBuf,
    state: PathBuf,
    /// The directory with the files of jail managers.
    root: Option<PathBuf>,
}

impl Patient {
    /// Healthy, with nothing published.
    fn new() -> Patient {
        let mut rig = Rig::new();
        for (name, value) in [
            ("kern.osreldate", 1_501_502),
            ("kern.securelevel", -1),
            ("net.pf.filter_local", 0),
            ("net.link.bridge.pfil_member", 0),
            ("security.jail.jailed", 0),
        ] {
            rig.host.sysctls.insert(name.to_owned(), value);
        }
        let standin = standin::Pfctl::new();
        standin.put("", &kport::pf::files::MAIN.replace("set skip on lo\n", ""));
        let (program, state) = (standin.program(), rig.path().to_owned());
        Patient { rig, standin, by_pfctl: false, program, state, root: None }
    }

    /// The same, with the stand-in.
    fn by_pfctl() -> Patient {
        Patient { by_pfctl: true, ..Patient::new() }
    }

    fn firewall(&self) -> Box<dyn Firewall> {
        if self.by_pfctl {
            Box::new(Pfctl::new(&self.program, Deadline::after(Duration::from_secs(60))))
        } else {
            Box::new(Sim::new(self.rig.path()))
        }
    }

    fn publish(&self, request: &Request) {
        let request = Request { force: true, allow_inert: true, ..request.clone() };
        self.rig.with(&*self.firewall(), &Unobserved, |publisher| publisher.publish(&request)).unwrap();
    }

    fn web(self, spec: &str) -> Patient {
        self.publish(&request("web", spec));
        self
    }

    fn with(self, jail: &str, spec: &str, change: impl FnOnce(&mut Request)) -> Patient {
        let mut request = request(jail, spec);
        change(&mut request);
        self.publish(&request);
        self
    }

    /// A zone of the kernel, with the items that it has and their maximum.
    fn zone(mut self, name: &str, items: i64, max: i64) -> Patient {
        let sysctls = [("stats.current", items), ("limit.max_items", max)];
        self.rig.host.sysctls.extend(sysctls.map(|(of, value)| (format!("vm.uma.{name}.{of}"), value)));
        self
    }

    fn sysctl(mut self, name: &str, value: i64) -> Patient {
        assert!(self.rig.host.sysctls.insert(name.to_owned(), value).is_some(), "{name}");
        self
    }

    /// The main ruleset of both backends.
    fn main(self, text: &str) -> Patient {
        self.standin.put("", text);
        self.file("sim/main.conf", text)
    }

    fn file(self, name: &str, text: &str) -> Patient {
        let path = self.rig.state(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// A file of the host.
    fn host_file(mut self, name: &str, text: &str) -> Patient {
        let root = self.rig.state("root");
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self.root = Some(root);
        self
    }

    /// A program of the host, in sh(1).
    fn host_program(self, name: &str, text: &str) -> Patient {
        let patient = self.host_file(name, &format!("#!/bin/sh\n{text}\n"));
        fs::set_permissions(patient.rig.state("root").join(name), fs::Permissions::from_mode(0o755)).unwrap();
        patient
    }

    fn and(mut self, change: impl FnOnce(&mut Patient)) -> Patient {
        change(&mut self);
        self
    }

    fn examine(&self) -> Vec<Finding> {
        let with_values = ["-a".to_owned()];
        // the answer to -n -f; without it, there is no pfctl(8)
        let pfctl = self.rig.state("root/checker");
        let files = self.root.as_deref().map(|root| ManagerFiles { root, with_values: &with_values, pfctl: &pfctl });
        doctor::examine(&self.rig.host, &*self.firewall(), Store::open(&self.state), files)
    }
}

const CALLS: &str = "nat-anchor \"kport\"\nrdr-anchor \"kport\"\nanchor \"kport\"\n";

const CONDITIONAL: &str = "\
nat-anchor \"kport\" all
rdr-anchor \"kport\" on em1 all
anchor \"kport\" quick on em0 inet proto tcp all
";

const JAIL_CONF: &str = r#"
exec.clean;
exec.prestop = "/usr/local/bin/kport unpublish web || true";
web {
	exec.poststart = "logger up";
	exec.poststart = "/usr/local/bin/kport publish web 8080:80";
}
copy {
	exec.poststart += "/usr/local/bin/kport publish -a 10.0.0.4 web 8080:80";
	exec.poststop = "/usr/local/bin/kport unpublish copy";
	exec.poststop = "logger down";
}
mail { exec.prestop = "logger bye"; }
"#;

const WRONG_PLACES: &str = r#"
a { exec.prestart = "/usr/local/bin/kport publish --hook 80"; exec.poststop = "/usr/local/bin/kport unpublish --hook"; }
b { exec.created = "/usr/local/bin/kport publish --hook 81"; exec.poststop = "/usr/local/bin/kport unpublish --hook"; }
c { exec.start = "/usr/local/bin/kport publish --hook 82"; exec.stop = "/usr/local/bin/kport unpublish --hook"; }
d { exec.poststart = "sleep 1;kport publish --hook 83"; exec.poststop = "kport unpublish --hook || true"; }
e { exec.poststart = "/usr/local/bin/kport publish --hook 84"; }
f { exec.poststart = "PATH=/usr/local/bin:$PATH kport publish --hook 85"; exec.release = "/usr/local/bin/kport unpublish --hook"; }
"#;

/// `bastille config set` writes a line of its own, after the one with which an OCI jail starts its process.
const BASTILLE: &str = r#"
oci {
  exec.poststart = '/usr/local/bin/start-the-process';
  exec.prestop += "ifconfig epair0b -vnet oci";
  exec.poststart = '/usr/local/bin/kport publish --hook 8080:80';
  exec.prestop = '/usr/local/bin/kport unpublish --hook';
}
"#;

const APPJAIL: &str = r#"
exec.poststart: "appjail network assign app"
exec.poststart: "/usr/local/bin/kport publish ${name} 8080:80"
exec.poststop: "appjail network unplug app"
exec.poststop+: "/usr/local/bin/kport unpublish ${name}"
"#;

const ONE_WAY: &str = "block in on em0\npass in inet6 proto icmp6\nblock out on bridge\n";

fn main_with(before: &str, between: &str, behind: &str) -> String {
    format!("{before}nat-anchor \"kport\"\nrdr-anchor \"kport\"\n{between}anchor \"kport\"\n{behind}")
}

/// Each with its problem.
fn patients() -> Vec<(&'static str, Patient)> {
    let new = Patient::new;
    let by_pfctl = Patient::by_pfctl;
    let broken = |what: &str| {
        let patient = by_pfctl();
        patient.standin.fault("", Fault::Say(1, &format!("pfctl: /dev/pf: {what}\n")));
        patient
    };
    vec![
        ("state-not-usable", new().and(|p| p.state = PathBuf::from("relative"))),
        (
            "state-damaged",
            new().file("jails/web.json", "{").file("jails/notes.txt", "").file("damaged/db.1", "").web("8080:80").and(
                |p| {
                    // published again by that, and damaged again
                    fs::write(p.rig.state("jails/web.json"), "{").unwrap();
                },
            ),
        ),
        ("pf-not-loaded", broken("No such file or directory")),
        ("pf-not-permitted", broken("Permission denied")),
        ("pf-in-a-jail", broken("No such file or directory").sysctl("security.jail.jailed", 1)),
        ("pf-not-there", by_pfctl().and(|p| p.program = PathBuf::from("/nonexistent/pfctl"))),
        ("securelevel", new().sysctl("kern.securelevel", 3)),
        ("securelevel-14", new().sysctl("kern.securelevel", 3).sysctl("kern.osreldate", 1_403_000)),
        ("securelevel-2", new().sysctl("kern.securelevel", 2)),
        ("securelevel-2-by-pfctl", by_pfctl().sysctl("kern.securelevel", 2)),
        ("securelevel-2-by-pfctl-14", by_pfctl().sysctl("kern.securelevel", 2).sysctl("kern.osreldate", 1_403_000)),
        ("pf-disabled", by_pfctl().web("8080:80").and(|p| p.standin.disable())),
        ("anchors-missing", by_pfctl().web("8080:80").main("block in log all\npass out all\n")),
        ("anchors-missing-rdr", by_pfctl().web("8080:80").main("anchor \"kport\"\n")),
        ("anchors-missing-nat", new().web("8080:80").main("rdr-anchor \"kport\"\nanchor \"kport\"\n")),
        (
            "anchors-missing-nat-needed",
            new()
                .with("web", "8080:80", |r| r.options.hairpin = true)
                .main("rdr-anchor \"kport\"\nanchor \"kport\"\n"),
        ),
        ("calls-by-wildcard", by_pfctl().web("8080:80").main(BY_WILDCARD)),
        ("calls-by-wildcard-in-a-file", by_pfctl().web("8080:80").main(BY_WILDCARD).host_file("etc/pf.conf", BY_WILDCARD)),
        // the rules are there
        ("not-called-by-pfctl", by_pfctl().web("8080:80").with("db", "8081:80", |_| ()).and(|p| {
            let calls = p.standin.rules("kport").unwrap();
            p.standin.put("kport", &calls.lines().filter(|line| line.contains("\"db\"")).collect::<Vec<_>>().join("\n"));
            p.standin.put("kport/gone", "pass quick inet proto tcp from any to 10.0.0.9 port = 80\n");
        })),
        ("anchors-conditional", by_pfctl().web("em0:8080:80").main(CONDITIONAL)),
        (
            "block-quick-first",
            new().web("8080:80").main(&main_with("", "pass quick inet6 proto icmp6\nblock in quick on em0\n", "")),
        ),
        (
            "block-quick-first-by-pfctl",
            by_pfctl().web("8080:80 8081-8090:81").main(&main_with("", "block drop in quick all\n", "")),
        ),
        ("block-quick-some", new().web("8080:80").main(&main_with("", "block in quick from 198.51.100.0/24\n", ""))),
        (
            "block-behind-no-quick",
            new().with("web", "em1:8080:80", |r| r.options.quick = false).main(&main_with(
                "",
                "",
                "block in on em1 inet\n",
            )),
        ),
        (
            "from-outside-only",
            new()
                .with("web", "em1:8080:80", |r| r.options.sources = vec!["192.0.2.0/24".parse().unwrap()])
                .main(&main_with("", "block in quick from 192.0.2.0/25\n", "")),
        ),
        (
            "rdr-first",
            by_pfctl().web("em0:8080:80").main(&main_with(
                "rdr on em0 inet proto tcp from any to (em0) port = 8080 -> 10.1.0.9 port 80\n",
                "pass quick inet6 proto ipv6-icmp\n",
                "",
            )),
        ),
        ("main-not-readable", by_pfctl().web("8080:80").main(&main_with("", "reroute in on em0\n", ""))),
        ("answers", new().and(|p| p.rig.host.gateways.clear()).web("em1:8080:80")),
        ("forwarding-inet", new().web("em1:8080:80").sysctl("net.inet.ip.forwarding", 0)),
        (
            "forwarding-both",
            new().web("8080:80").sysctl("net.inet.ip.forwarding", 0).sysctl("net.inet6.ip6.forwarding", 0),
        ),
        ("forwarding-not-needed", new().with("flat", "8081:81", |_| ()).sysctl("net.inet.ip.forwarding", 0)),
        ("interface-missing", new().web("wg7:8080:80")),
        ("interface-down", new().web("em1:8080:80").and(|p| p.rig.host.interfaces[1].up = false)),
        ("interface-no-address", new().web("em1:8080:80").and(|p| p.rig.host.interfaces[1].addresses.clear())),
        ("interface-one-family", new().web("em1:8080:80")),
        ("address-missing", new().web("192.0.2.7:8080:80").and(|p| _ = p.rig.host.interfaces[0].addresses.remove(1))),
        (
            "skip",
            by_pfctl()
                .with("web", "8080:80", |r| r.options.hairpin = true)
                .with("db", "8081:80", |r| r.options.host_access = true)
                .sysctl("net.pf.filter_local", 1)
                .and(|p| p.standin.set_skip("bridge bridge0 em0 lo lo0")),
        ),
        ("skip-of-no-interest", new().web("8080:80").main(&format!("set skip on {{ lo em1 }}\n{CALLS}"))),
        ("neighbour-discovery", by_pfctl().web("8080:80").main(&main_with("", "block drop log all\n", ""))),
        ("neighbour-discovery-one-way", new().web("8080:80").main(&main_with("", ONE_WAY, ""))),
        (
            "not-loaded",
            new().web("8080:80").and(|p| {
                p.firewall().replace(&Anchor::from_child("web").unwrap(), &[]).unwrap();
            }),
        ),
        (
            "interrupted",
            new().web("8080:80").and(|p| {
                let store = Store::open(&p.state).unwrap();
                let mut record = store.get(&Anchor::from_child("web").unwrap()).unwrap().unwrap();
                record.replaces = record.publications.clone();
                store.put(&store.lock(Deadline::after(Duration::from_secs(60))).unwrap(), &record).unwrap();
            }),
        ),
        (
            "stale",
            new()
                .web("8080:80")
                .and(|p| fs::remove_file(p.rig.state("jails/web.json")).unwrap())
                .file("sim/_x y.json", "[]"),
        ),
        ("jail-gone", new().web("8080:80").and(|p| p.rig.host.jails.retain(|jail| jail.name != "web"))),
        ("jail-dying", new().web("8080:80").and(|p| p.rig.host.jails[0].dying = true)),
        ("jail-started-again", new().web("8080:80").and(|p| p.rig.host.jails[0].jid = 9)),
        (
            "jail-other-address",
            new().web("8080:80").and(|p| {
                p.rig
                    .host
                    .vnet_addresses
                    .insert("web".to_owned(), vec!["10.0.0.9".parse().unwrap(), "fd00::2".parse().unwrap()]);
            }),
        ),
        (
            "jail-address-of-another",
            new().web("8080:80").and(|p| {
                _ = p.rig.host.vnet_addresses.insert("db".to_owned(), vec!["10.0.0.2".parse().unwrap()]);
            }),
        ),
        (
            "jail-address-of-the-host",
            new().web("8080:80").and(|p| p.rig.host.interfaces[2].addresses.push("10.0.0.2/24".parse().unwrap())),
        ),
        (
            "overlaps",
            new()
                .and(|p| _ = p.rig.host.interfaces[0].addresses.remove(1))
                .with("web", "192.0.2.7:8080:80", |_| ())
                .with("db", "em0:8000-8100:80", |_| ())
                .and(|p| p.rig.host.interfaces[0].addresses.push("192.0.2.7/32".parse().unwrap())),
        ),
        (
            "main-ruleset-rewritten",
            by_pfctl()
                .web("8080:80")
                .main("nat on em0 inet from 10.0.0.0/24 to any -> (em0)\npass all\n")
                .host_file("tmp/iocage_nat_pf.conf", "nat on em0 from 10.0.0.0/24 to any -> (em0)\n")
                .host_file("etc/rc.conf", "cbsd_workdir=\"/cbsd\" # where it is\ncbsd_enable=YES\n")
                .host_file("cbsd/etc/pf.conf", "nat on em0 from 10.0.0.0/24 to any -> (em0)\n")
                .host_file(
                    "usr/local/etc/kleened/config.yaml",
                    "pf_config_path: /etc/pf.conf\npf_config_template_path: /usr/local/etc/kleened/pf.conf.tpl\n",
                )
                .host_file("usr/local/etc/kleened/pf.conf.tpl", "block log all\n")
                .host_file("usr/local/etc/pot/pot.conf", "")
                .host_file("etc/pf.conf", "pass all\n"),
        ),
        (
            "main-ruleset-not-rewritten",
            by_pfctl()
                .main("pass all\n")
                .host_file("usr/jails/etc/pf.conf", CALLS)
                .host_file("usr/local/etc/pot/pot.conf", "")
                .host_file("etc/pf.conf", CALLS),
        ),
        (
            "main-ruleset-rejected",
            by_pfctl()
                .main("pass all\n")
                .host_file("etc/pf.conf", CALLS)
                .host_program("checker", "echo \"$3:2: Rules must be in order\" >&2; exit 1"),
        ),
        (
            "main-ruleset-elsewhere",
            by_pfctl()
                .main("pass all\n")
                .host_file("etc/rc.conf", "pf_rules=\"/usr/local/etc/pf.conf\"\n")
                .host_file("usr/local/etc/pf.conf", CALLS)
                .host_program("checker", "exit 0"),
        ),
        ("main-ruleset-not-saved", by_pfctl().host_file("etc/pf.conf", "pass all\nanchor \"kport\"\n")),
        (
            "hooks",
            new()
                .host_file("etc/jail.conf", JAIL_CONF)
                .host_file("etc/jail.conf.d/db.conf", "db { exec.poststart += \"/usr/local/bin/kport publish web 80\"; }\n")
                .host_file("etc/jail.conf.d/db.conf.old", "db { exec.poststart = \"kport publish web 80\"; }\n")
                .host_file("usr/local/etc/bastille/bastille.conf", "bastille_prefix=\"/data/bastille\"\n")
                .host_file("data/bastille/jails/oci/jail.conf", BASTILLE)
                .host_file("usr/local/appjail/jails/app/conf/template.conf", APPJAIL),
        ),
        (
            "hooks-that-are-right",
            new()
                .host_file(
                    "etc/jail.conf",
                    "exec.poststart = \"/usr/local/bin/kport publish --hook 8080:80\";\nweb { path = \"/x\"; }\n\
                     db { exec.poststart = '/usr/local/bin/kport publish db 81'; \
                     exec.poststop += \"/usr/local/bin/kport unpublish $name\"; }\n",
                )
                .host_file(
                    "usr/local/appjail/jails/app/conf/template.conf",
                    "exec.poststart: \"appjail network assign app\"\nexec.poststart+: \"/usr/local/bin/kport publish --hook 80\"\n\
                     exec.prestop+: \"/usr/local/bin/kport unpublish --hook\"\n",
                ),
        ),
        (
            "hooks-at-the-wrong-place",
            new()
                .host_file("etc/jail.conf", WRONG_PLACES)
                .host_file("usr/local/appjail/jails/app/conf/template.conf", "exec.poststart+: \"kport publish --hook 80\"\n"),
        ),
        (
            "hooks-included",
            new()
                .host_file(
                    "etc/jail.conf",
                    "exec.prestop = \"/usr/local/bin/kport unpublish --hook\";\n.include \"/etc/jail.conf.d/*.conf\";\n\
                     .include \"more/x.jail\";\n.include \"/etc/jail.conf\";\n",
                )
                // an unpublish of all jails is that of an included one as well
                .host_file("etc/jail.conf.d/web.conf", "web { exec.poststart += \"/usr/local/bin/kport publish --hook 80\"; }\n")
                .host_file("etc/jail.conf.d/db.conf", "db { exec.prestop = \"logger bye\"; }\n")
                .host_file("etc/more/x.jail", "x { exec.poststart = \"kport publish --hook 81\"; }\n"),
        ),
        (
            "interfaces-of-two-jails",
            new()
                .web("em1:8080:80")
                .with("db", "em1:8081:80", |_| ())
                .and(|p| p.rig.host.interfaces[1].addresses = vec!["2001:db8:1::1/64".parse().unwrap()]),
        ),
        (
            "named-by-the-file",
            by_pfctl()
                .web("em1:8080:80")
                .main(&main_with(
                    "",
                    "block drop out quick on bridge0 inet from any to 10.0.0.2\nblock drop out quick on bridge0 inet from any to 10.0.0.3\n",
                    "block drop in quick on ! bridge1 inet from 10.1.0.0/24 to any\nblock drop in quick inet from 10.1.0.1 to any\n",
                ))
                .host_file(
                    "etc/pf.conf",
                    &main_with("", "block out quick on bridge0 to { 10.0.0.2 10.0.0.3 }\n", "antispoof quick for bridge1\n"),
                ),
        ),
        (
            "sources-empty",
            new()
                .main(&format!("table <friends> persist\n{}", main_with("", "pass quick inet6 proto icmp6\n", "")))
                .with("web", "8080:80", |r| r.options.sources = vec!["<friends>".parse().unwrap()]),
        ),
        ("default-to-drop", new().web("em1:8080:80").main(&main_with("", "block out on em0\n", "")).sysctl("net.inet6.ip6.forwarding", 0).and(|p| {
            p.rig.host.sysctls.insert("net.pf.default_to_drop".to_owned(), 1);
        })),
        ("filter-local-off", new().with("web", "em1:8080:80", |r| r.options.host_access = true).main(CALLS)),
        (
            "lo0-blocked",
            new()
                .with("web", "em1:8080:80", |r| r.options.host_access = true)
                .sysctl("net.pf.filter_local", 1)
                .main(&main_with("", "block quick on lo0\n", "")),
        ),
        (
            "bridge-members",
            new().with("web", "8080:80", |r| r.options.hairpin = true).sysctl("net.link.bridge.pfil_member", 1),
        ),
        (
            "checksums",
            new()
                .and(|p| {
                    p.rig.host.vnet_addresses.insert("web".to_owned(), vec!["10.0.0.2".parse().unwrap()]);
                    let epair = serde_json::json!({ "name": "epair0a", "up": true, "groups": ["epair"] });
                    p.rig.host.interfaces.push(serde_json::from_value(epair).unwrap());
                    p.rig.host.txcsum = vec!["epair0a".parse().unwrap()];
                })
                .with("web", "8080:80", |r| (r.options.af_to, r.options.hairpin) = (true, true)),
        ),
        ("reach-outside", new().web("8080:80").and(|p| p.rig.host.interfaces[0].groups.push("epair".parse().unwrap()))),
        ("reach-by-name", new().with("web", "em1:8080:80", |r| r.options.reach = vec!["em1".parse().unwrap()])),
        (
            "answers-on-the-lan",
            new()
                .and(|p| p.rig.host.vnet_addresses.insert("web".to_owned(), vec!["192.0.2.50".parse().unwrap()]).map_or((), drop))
                .with("web", "8080:80", |r| r.trust = vec!["192.0.2.0/24".parse().unwrap()]),
        ),
        (
            "half-published",
            new()
                .and(|p| p.rig.host.vnet_addresses.insert("web".to_owned(), vec!["fd00::2".parse().unwrap()]).map_or((), drop))
                .web("8080:80 [2001:db8::1]:53:53")
                .and(|p| p.rig.host.vnet_addresses.entry("web".to_owned()).or_default().push("10.0.0.2".parse().unwrap())),
        ),
        (
            "other-tool",
            by_pfctl()
                .web("8080:80")
                .main(&main_with("rdr-anchor \"rdr/*\"\n", "pass quick inet6 proto ipv6-icmp\n", ""))
                .and(|p| {
                    p.standin
                        .put("rdr/db", "rdr on em0 inet proto tcp from any to any port = 8080 -> 10.0.0.3 port 80\n");
                }),
        ),
        ("limits-near", new().web("8080:80").zone("pf_anchors", 11, 12).zone("pf_table_entries", 180_000, 200_000)),
        // more than the limit: it was lowered (63 of 12 anchors)
        ("limits-reached", new().web("8080:80").zone("pf_anchors", 63, 12).zone("pf_states", 100_000, 100_000)),
        ("limits-none", new().web("8080:80").zone("pf_anchors", 63, i32::MAX.into())),
    ]
}

fn shown(findings: &[Finding], patient: &Patient) -> String {
    let text: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    text.replace(patient.rig.path().to_str().unwrap(), "STATE")
}

fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doctor").join(format!("{name}.ok"));
    if std::env::var_os("KPORT_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    let golden =
        fs::read_to_string(&path).unwrap_or_else(|_| panic!("no {}; write it with KPORT_BLESS=1", path.display()));
    assert_eq!(text, golden, "{name}: write it anew with KPORT_BLESS=1, and read what has changed");
}

#[test]
fn what_is_wrong_is_found() {
    let mut seen = BTreeSet::new();
    for (name, patient) in patients() {
        let mut findings = patient.examine();
        findings.retain(|finding| finding.level > Level::Ok);
        for finding in &findings {
            seen.insert(finding.id);
        }
        compare(name, &shown(&findings, &patient));
    }
    let all: BTreeSet<&str> = IDS.into_iter().collect();
    assert_eq!(seen, all, "a check that never finds anything");
}

#[test]
fn a_healthy_host() {
    for (patient, name) in [(Patient::new(), "healthy"), (Patient::by_pfctl(), "healthy-by-pfctl")] {
        let patient = patient
            .web("8080:80 em0:53:53/udp *:9000-9010:9000")
            .with("db", "em1:8080:80", |r| r.options.hairpin = true)
            .with("flat", "8100:80", |_| ());
        let findings = patient.examine();
        assert!(
            findings.iter().all(|finding| finding.level == Level::Ok && finding.remedy.is_empty()),
            "{name}: {findings:#?}"
        );
        assert_eq!(findings.iter().map(|finding| finding.id).collect::<Vec<_>>(), IDS);
        compare(name, &shown(&findings, &patient));
    }
}

#[test]
fn host_access_that_works() {
    let patient = Patient::new()
        .with("web", "em1:8080:80", |r| r.options.host_access = true)
        .sysctl("net.pf.filter_local", 1)
        .main(&main_with(
            "",
            "block in log all\npass out all\npass quick inet6 proto icmp6\npass quick on lo0 no state\n",
            "",
        ));
    let mut findings = patient.examine();
    findings.retain(|finding| finding.level > Level::Warning);
    assert_eq!(shown(&findings, &patient), "");
}

/// An error of `publish` and a finding of `doctor` have the same text.
#[test]
fn publish_has_the_same_text() {
    let refused = |patient: &Patient| {
        let request = request("web", "8080:80");
        patient.rig.with(&*patient.firewall(), &Unobserved, |publisher| publisher.publish(&request)).unwrap_err()
    };
    for (patient, id) in [
        (Patient::by_pfctl().and(|p| p.standin.disable()), "enabled"),
        (Patient::by_pfctl().main("pass all\n"), "anchors-called"),
        (Patient::new().sysctl("net.inet6.ip6.forwarding", 0), "forwarding"),
    ] {
        let error = refused(&patient);
        let patient = patient.web("8080:80");
        let found = patient.examine().into_iter().find(|finding| finding.id == id).unwrap();
        assert_eq!(found.level, Level::Problem);
        let (seen, _) = error.message().split_once("; ").unwrap();
        assert_eq!(seen, found.seen);
    }
}

/// Facts of the host that cannot be read are reported, and the other checks are made.
#[test]
fn hosts_without_jails() {
    let patient = Patient::new().web("em0:8080:80");
    let found = doctor::examine(&kport::host::System, &*patient.firewall(), Store::open(&patient.state), None);
    // the boot of this host is another one: the record is ignored
    assert!(found.iter().any(|finding| finding.id == "anchors-loaded" && finding.level == Level::Problem));
    assert_eq!(Family::ALL.len(), 2);
}

/// The problems of a command that a jail `db` has in exec.start, where no call of kport belongs.
fn problems_of(patient: &Patient, command: &str) -> Vec<String> {
    let quote = if command.contains('\'') { '"' } else { '\'' };
    fs::write(patient.rig.state("root/etc/jail.conf"), format!("db {{ exec.start = {quote}{command}{quote}; }}\n"))
        .unwrap();
    let found = patient.examine().into_iter();
    found.filter(|finding| finding.id == "hooks" && finding.level == Level::Problem).map(|found| found.seen).collect()
}

#[test]
fn the_calls_of_kport_in_a_command_are_found() {
    const WEB: &str = "calls kport for jail \"web\"";
    const BY_PATH: &str = "calls kport without its path";
    const UP: &str = " publishes, and it runs in the jail";
    const DOWN: &str = " unpublishes, and it runs in the jail";
    let patient = Patient::new().host_file("etc/jail.conf", "");
    for (command, expected) in [
        // with its path, or without
        ("kport publish --hook 80", &[BY_PATH, UP][..]),
        ("/usr/local/bin/kport publish --hook 80", &[UP]),
        ("PATH=/usr/local/bin:$PATH kport publish --hook 80", &[UP]),
        ("export PATH=/usr/local/bin; kport publish --hook 80", &[UP]),
        ("logger up; kport unpublish --hook || true", &[BY_PATH, DOWN]),
        ("/x/kport unpublish web; kport publish web 80", &[WEB, DOWN, WEB, BY_PATH, UP]),
        ("sh -c 'kport publish web 80'", &[WEB, BY_PATH, UP]),
        ("kport list", &[]),
        ("/usr/local/bin/kport apply; echo publish", &[]),
        ("", &[]),
        // the jail, if it is named literally; -a takes a value
        ("/usr/local/bin/kport publish web 8080:80", &[WEB, UP]),
        ("/x/kport -v --backend pfctl publish -a 10.0.0.2 --hairpin web 8080", &[WEB, UP]),
        ("/x/kport publish --address=10.0.0.2 \"web\" 8080", &[WEB, UP]),
        ("/usr/local/bin/kport unpublish web || true", &[WEB, DOWN]),
        ("/x/kport -vv publish -a10.0.0.2 -- web 8080", &[WEB, UP]),
        ("/x/kport publish db 8080", &[UP]),
        ("/x/kport publish --hook 8080:80", &[UP]),
        ("/x/kport publish $name 8080", &[UP]),
        ("/x/kport publish ${name} 8080", &[UP]),
        ("/x/kport unpublish || true", &[DOWN]),
        ("echo publish web", &[]),
    ] {
        let found = problems_of(&patient, command);
        let agree = found.iter().zip(expected).all(|(found, part)| found.contains(part));
        assert!(agree && found.len() == expected.len(), "{command}: {found:#?}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(32))]
    /// Any command is read to its end.
    #[test]
    fn any_command_of_a_hook_is_read(text in "[^']*") {
        let patient = Patient::new().host_file("etc/jail.conf", "");
        _ = problems_of(&patient, &format!("kport publish {text}"));
    }
}
