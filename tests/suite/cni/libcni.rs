//! The plugin with code that is not kport's: the CNI project's library, which podman, buildah and nerdctl use, and its plugins, both
//! from Debian's packages.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::Plugin;
use crate::support::cc;

/// Where Debian installs the source of the library, and the plugins.
const SOURCES: &str = "/usr/share/gocode";
const PLUGINS: &str = "/usr/lib/cni";

/// Whether a directory of an optional Debian package exists; see [`cc::has`].
fn has_dir(dir: &str, package: &str) -> bool {
    let found = Path::new(dir).is_dir();
    if !found {
        assert!(std::env::var_os("KPORT_TEST_ALL").is_none(), "{package} is not installed, and KPORT_TEST_ALL is set");
        eprintln!("skipped: no {package}");
    }
    found
}

/// tests/cni/runtime.go and the library's plugin `noop`, built; `None` if Go or the library is missing.
fn programs() -> Option<(&'static Path, &'static Path)> {
    static PROGRAMS: OnceLock<Option<(PathBuf, PathBuf)>> = OnceLock::new();
    let built = PROGRAMS.get_or_init(|| {
        let library = format!("{SOURCES}/src/github.com/containernetworking/cni");
        if !cc::has("go") || !has_dir(&library, "golang-github-appc-cni-dev") {
            return None;
        }
        let build = |what: &str, name: &str| {
            let program = cc::work_dir().join(name);
            let mut go = Command::new("go");
            // only from the source in the package
            go.env("GOPATH", SOURCES).env("GO111MODULE", "off").env("GOFLAGS", "").env("GOPROXY", "off");
            go.env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go")).env("CGO_ENABLED", "0");
            cc::done(go.current_dir(cc::root()).args(["build", "-o"]).arg(&program).arg(what));
            program
        };
        let runtime = build("tests/cni/runtime.go", "cni-runtime");
        Some((runtime, build("github.com/containernetworking/cni/plugins/test/noop", "cni-noop")))
    });
    built.as_ref().map(|(runtime, noop)| (runtime.as_path(), noop.as_path()))
}

/// A runtime with networks, whose first plugin is `noop`, which prints what it is given.
struct Runtime {
    plugin: Plugin,
    program: &'static Path,
}

impl Runtime {
    fn new() -> Option<Runtime> {
        let (program, noop) = programs()?;
        let runtime = Runtime { plugin: Plugin::new(), program };
        for dir in ["bin", "net.d"] {
            fs::create_dir(runtime.dir(dir)).unwrap();
        }
        symlink(noop, runtime.dir("bin/noop")).unwrap();
        // by its name alone, it would be looked up on the running host
        let host = runtime.plugin.host();
        let script = format!("#!/bin/sh\nexec {} --host {} cni\n", env!("CARGO_BIN_EXE_kport"), host.display());
        write_program(&runtime.dir("bin/kport-cni"), &script);
        Some(runtime)
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.plugin.dir.path().join(name)
    }

    /// A network whose container has these addresses; `after` comes after kport in the list.
    fn network(&self, name: &str, version: &str, addresses: &[&str], after: &[Value]) {
        let mut ips: Vec<Value> = addresses.iter().map(|a| json!({ "address": a, "interface": 1 })).collect();
        if version < "1.0.0" {
            for ip in &mut ips {
                let family = if ip["address"].as_str().unwrap().contains(':') { "6" } else { "4" };
                ip["version"] = json!(family);
            }
        }
        let result = json!({
            "cniVersion": version,
            "interfaces": [ { "name": "bridge0" }, { "name": "eth0", "sandbox": "blue", "mac": "02:00:00:00:00:01" } ],
            "ips": ips,
        });
        let debug = self.debug(name, &json!({ "ReportResult": result.to_string() }));
        let kport = json!({ "type": "kport-cni", "capabilities": { "portMappings": true } });
        let mut plugins = vec![json!({ "type": "noop", "debugFile": debug }), kport];
        plugins.extend_from_slice(after);
        let list = json!({ "cniVersion": version, "name": name, "plugins": plugins });
        fs::write(self.dir(&format!("net.d/{name}.conflist")), list.to_string()).unwrap();
    }

    /// The result that noop prints.
    fn debug(&self, name: &str, what: &Value) -> PathBuf {
        let file = self.dir(&format!("{name}.debug"));
        fs::write(&file, what.to_string()).unwrap();
        file
    }

    fn say(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let mut runtime = Command::new(self.program);
        runtime.args(arguments).env("CNI_PATH", self.dir("bin")).env("NETCONFPATH", self.dir("net.d"));
        runtime.env("CNI_CACHE", self.dir("cache")).env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web");
        runtime.env("KPORT_STATE_DIR", self.plugin.state()).env("KPORT_BACKEND", "sim");
        runtime.env("CAP_ARGS", PORTS).envs(variables.iter().copied());
        runtime.output().unwrap()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Option<Value> {
        let output = self.say(arguments, variables);
        assert!(output.status.success(), "{arguments:?}: {}", cc::text(&output.stderr));
        (!output.stdout.is_empty()).then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    /// The error of the plugin, as the runtime prints it.
    #[track_caller]
    fn fails(&self, arguments: &[&str], variables: &[(&str, &str)]) -> String {
        let output = self.say(arguments, variables);
        assert!(!output.status.success(), "{arguments:?}: {}", cc::text(&output.stdout));
        cc::text(&output.stderr).lines().filter(|line| !line.starts_with("kport: ")).collect()
    }
}

fn write_program(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

const PORTS: &str = r#"{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"},
    {"hostPort":8053,"containerPort":53,"protocol":"udp","hostIP":"192.0.2.1"}],"dns":{"servers":["192.0.2.53"]}}"#;

#[test]
fn libcni_adds_checks_and_deletes_in_every_version_that_it_has() {
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        let Some(runtime) = Runtime::new() else { return };
        // after kport, too, the result of the first plugin is used
        let behind =
            json!({ "type": "noop", "debugFile": runtime.debug("behind", &json!({ "ReportResult": "PASSTHROUGH" })) });
        runtime.network("podman", version, &["10.88.0.5/16", "fd00:88::5/64"], &[behind]);
        assert_eq!(runtime.ok(&["validate", "podman"], &[]), Some(json!(["portMappings"])));
        for _ in 0..2 {
            let result = runtime.ok(&["add", "podman", "blue"], &[]).unwrap();
            assert_eq!(result["cniVersion"], version);
            assert_eq!(result["ips"][1]["address"], "fd00:88::5/64", "{result}");
            assert_eq!(result["interfaces"][1]["sandbox"], "blue");
            assert_eq!(
                runtime.plugin.published(),
                [
                    "udp 8053 on 192.0.2.1 -> 10.88.0.5:53",
                    "tcp 8080 on * -> 10.88.0.5:80",
                    "tcp 8080 on * -> [fd00:88::5]:80",
                ]
            );
        }
        if version == "0.3.1" {
            assert!(runtime.fails(&["check", "podman", "blue"], &[]).contains("does not support the CHECK command"));
        } else {
            runtime.ok(&["check", "podman", "blue"], &[]);
        }
        // the second time, noop has no result to pass on
        runtime.debug("behind", &json!({ "ReportResult": "{}" }));
        for _ in 0..2 {
            runtime.ok(&["del", "podman", "blue"], &[]);
            assert_eq!(runtime.plugin.published(), [""; 0]);
        }
        runtime.plugin.is_clean();
    }
}

#[test]
fn libcni_hears_the_codes_and_words_of_errors() {
    let Some(runtime) = Runtime::new() else { return };
    runtime.network("podman", "1.0.0", &["10.88.0.5/16"], &[]);
    let heard = runtime.fails(&["check", "podman", "blue"], &[]);
    assert!(heard.contains("code 3: ") && heard.contains("was not added to network podman"), "{heard}");
    let ssh = r#"{"portMappings":[{"hostPort":22,"containerPort":22,"protocol":"tcp"}]}"#;
    let heard = runtime.fails(&["add", "podman", "blue"], &[("CAP_ARGS", ssh)]);
    assert!(heard.contains("code 103: ") && heard.contains("port in use; a socket of the host listens"), "{heard}");
    let wrong = r#"{"portMappings":[{"hostPort":70000,"containerPort":22,"protocol":"tcp"}]}"#;
    let heard = runtime.fails(&["add", "podman", "blue"], &[("CAP_ARGS", wrong)]);
    assert!(heard.contains("code 7: ") && heard.contains("hostPort is 70000"), "{heard}");
    // a runtime removes what was added in part
    runtime.ok(&["del", "podman", "blue"], &[]);
    runtime.plugin.is_clean();
}

#[test]
fn a_later_plugin_that_fails_leaves_nothing_after_del() {
    let Some(runtime) = Runtime::new() else { return };
    let debug = runtime.debug("broken", &json!({ "ReportError": "the end of the chain" }));
    runtime.network("podman", "1.0.0", &["10.88.0.5/16"], &[json!({ "type": "noop", "debugFile": debug })]);
    assert!(runtime.fails(&["add", "podman", "blue"], &[]).contains("the end of the chain"));
    assert_eq!(runtime.plugin.published().len(), 2);
    runtime.debug("broken", &json!({ "ReportResult": "{}" }));
    runtime.ok(&["del", "podman", "blue"], &[]);
    runtime.plugin.is_clean();
}

#[test]
fn two_networks_by_libcni() {
    let Some(runtime) = Runtime::new() else { return };
    runtime.network("podman", "1.0.0", &["10.88.0.5/16"], &[]);
    runtime.network("inside", "0.4.0", &["10.89.0.5/16", "fd00:89::5/64"], &[]);
    let web = r#"{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}"#;
    let (first, second) = ([("CAP_ARGS", web)], [("CAP_ARGS", web), ("CNI_IFNAME", "eth1")]);
    runtime.ok(&["add", "podman", "blue"], &first);
    // what noop reports is eth0's, so that no address is eth1's
    assert!(runtime.fails(&["add", "inside", "blue"], &second).contains("no address of interface eth1"));
    runtime.ok(&["add", "inside", "blue"], &first);
    let both = ["tcp 8080 on * -> 10.88.0.5:80", "tcp 8080 on * -> [fd00:89::5]:80"];
    assert_eq!(runtime.plugin.published(), both);
    runtime.ok(&["check", "podman", "blue"], &first);
    runtime.ok(&["check", "inside", "blue"], &first);
    runtime.ok(&["del", "podman", "blue"], &first);
    assert_eq!(runtime.plugin.published(), ["tcp 8080 on * -> 10.89.0.5:80", both[1]]);
    // libcni of Debian 12 has no GC of its own, but runs any command
    let plugin = runtime.dir("bin/kport-cni");
    let gc = json!({ "cniVersion": "1.1.0", "name": "inside", "type": "kport-cni", "cni.dev/valid-attachments": [] });
    let mut raw = Command::new(runtime.program);
    raw.args(["raw", "GC"]).arg(&plugin).env("KPORT_STATE_DIR", runtime.plugin.state()).env("KPORT_BACKEND", "sim");
    let output = super::feed_raw(&mut raw, gc.to_string().as_bytes());
    assert!(output.status.success(), "{}", cc::text(&output.stderr));
    runtime.plugin.is_clean();
    let versions = runtime.ok(&["versions", plugin.to_str().unwrap()], &[]).unwrap();
    assert_eq!(versions, json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
}

/// The text of the block that follows a comment in docs/managers/podman.md.
fn block(mark: &str) -> String {
    let page = fs::read_to_string(cc::root().join("docs/managers/podman.md")).unwrap();
    let block = page.split(&format!("<!-- {mark} -->\n```")).nth(1).unwrap();
    block.split_once('\n').unwrap().1.split("```").next().unwrap().to_owned()
}

/// The commands of docs/managers/podman.md, with the bridge and the other plugins of Debian, in network namespaces in place of jails.
#[test]
fn the_conversation_of_the_page() {
    let Some((runtime, _)) = programs() else { return };
    if !has_dir(PLUGINS, "containernetworking-plugins") || !cc::has("unshare") || !cc::has("ip") {
        return;
    }
    if !Command::new("unshare").args(["--net", "--mount", "true"]).status().unwrap().success() {
        assert!(std::env::var_os("KPORT_TEST_ALL").is_none(), "no network namespaces here, and KPORT_TEST_ALL is set");
        eprintln!("skipped: no network namespaces here, or not root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(path("bin")).unwrap();
    // a host that has the jail
    let host = json!({ "jails": [{ "jid": 1, "name": "blue", "vnet": true }], "boot_id": "first" });
    fs::write(path("host.json"), host.to_string()).unwrap();
    let kport = format!("'{}' --host '{}'", env!("CARGO_BIN_EXE_kport"), path("host.json"));
    write_program(&dir.path().join("bin/kport-cni"), &format!("#!/bin/sh\nexec {kport} cni\n"));
    fs::create_dir(path("net.d")).unwrap();
    fs::write(path("net.d/87-podman.conflist"), block("conflist")).unwrap();
    let conversation = block("conversation");
    let mut script = format!(
        "set -eu
        # all that these programs keep goes with the namespace
        mount -t tmpfs none /run; mount -t tmpfs none /var/lib
        ip link set lo up
        cnitool() {{ '{}' \"$1\" \"$2\" /run/netns/\"$3\"; }}
        kport() {{ {kport} \"$@\"; }}
        jail() {{ case $1 in -c) ip netns add \"${{2#name=}}\";; -r) ip netns del \"$2\";; esac; }}
        cd '{}'\n",
        runtime.display(),
        dir.path().display()
    );
    let mut shown = String::new();
    for line in conversation.lines() {
        match line.strip_prefix("# ") {
            Some(command) => script += &format!("{command}\n"),
            None => shown += &format!("{line}\n"),
        }
    }
    let script = script
        .replace("/usr/local/libexec/cni", &format!("{}:{PLUGINS}", path("bin")))
        .replace("/usr/local/etc/cni/net.d", &path("net.d"));
    let mut sh = Command::new("unshare");
    sh.args(["--net", "--mount", "sh", "-c", &script]);
    sh.env("KPORT_STATE_DIR", path("state")).env("KPORT_BACKEND", "sim").env("CNI_CACHE", path("cache"));
    assert_eq!(cc::text(&cc::done(&mut sh).stdout), shown);
    // what cnitool printed is the result of bridge
    let result: Value = serde_json::from_slice(&fs::read(path("result.json")).unwrap()).unwrap();
    assert_eq!(result["ips"][0]["address"], "10.88.0.2/16", "{result}");
    assert_eq!(result["interfaces"][2]["sandbox"], "/run/netns/blue", "{result}");
}
