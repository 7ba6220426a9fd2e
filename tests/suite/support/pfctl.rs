//! A stand-in for pfctl(8): it prints what the one of FreeBSD 15.1 was seen to print, and fails on demand.
//!
//! One file, std only: `tests/suite/support/standin.rs` compiles it with rustc and documents its use. All its state is
//! in the directory from which it is started, since kport clears the environment: `anchors/` (rules as loaded),
//! `states` (the labels of each, or `em0 udp 192.0.2.1:53 <- 192.0.2.100:40000 ...`), `counters`, `tables` (of an anchor:
//! `tables-ANCHOR`), `skip`, `disabled`, `release`,
//! `faults`, `replay`, `calls` (the arguments of each call), all under `lock`.

// a fault leaves a child on purpose
#![allow(clippy::print_stdout, clippy::exit, clippy::zombie_processes)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{abort, exit};
use std::time::Duration;

fn main() {
    let program = std::env::args().next().unwrap_or_default();
    let Some(dir) = Path::new(&program).parent().filter(|dir| dir.is_absolute()) else {
        eprintln!("pfctl: {program}: not an absolute path");
        exit(97);
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let state = State { dir: dir.to_owned() };
    if let Some(answer) = state.replay(&arguments) {
        answer.give();
    }
    let late = state.before(&arguments);
    let lock = state.lock();
    let answer = state.answer(&arguments);
    drop(lock);
    late(&answer);
    answer.give();
}

#[derive(Default)]
struct Answer {
    stdout: String,
    stderr: String,
    status: i32,
}

impl Answer {
    fn give(&self) -> ! {
        // a reader that is gone is not a reason to panic
        _ = io::stdout().write_all(self.stdout.as_bytes());
        _ = io::stderr().write_all(self.stderr.as_bytes());
        exit(self.status);
    }

    fn error(text: impl AsRef<str>) -> Answer {
        Answer { stderr: format!("pfctl: {}\n", text.as_ref()), status: 1, ..Answer::default() }
    }
}

/// The command line.
#[derive(Default)]
struct Options {
    quiet: bool,
    verbose: bool,
    anchor: String,
    file: Option<String>,
    show: Option<String>,
    kill: Vec<String>,
    interface: Option<String>,
    table: String,
}

impl Options {
    fn parse(arguments: &[String]) -> Option<Options> {
        let mut options = Options::default();
        let mut left = arguments.iter();
        while let Some(argument) = left.next() {
            let mut letters = argument.strip_prefix('-').filter(|rest| !rest.is_empty())?.chars();
            while let Some(letter) = letters.next() {
                let mut value = || {
                    let attached = letters.as_str().to_owned();
                    letters = "".chars();
                    if attached.is_empty() { left.next().cloned() } else { Some(attached) }
                };
                match letter {
                    'q' => options.quiet = true,
                    'v' => options.verbose = true,
                    'P' => {}
                    'o' => _ = value()?,
                    'a' => options.anchor = value()?,
                    'f' => options.file = Some(value()?),
                    's' => options.show = Some(value()?),
                    'k' => options.kill.push(value()?),
                    'i' => options.interface = Some(value()?),
                    't' => options.table = value()?,
                    'T' => options.show = Some(format!("table {}", value()?)),
                    _ => return None,
                }
            }
        }
        Some(options)
    }
}

struct State {
    dir: PathBuf,
}

impl State {
    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.dir.join(name)).ok()
    }

    fn write(&self, name: &str, text: &str) {
        let temporary = self.dir.join(format!("new.{}", std::process::id()));
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, self.dir.join(name)))
            .expect("write the state");
    }

    fn lock(&self) -> File {
        let file = File::create(self.dir.join("lock")).expect("open the lock");
        file.lock().expect("lock");
        file
    }

    /// The recording with these arguments, among those whose names are in `replay`; if two have the same arguments, the
    /// one with the same input.
    fn replay(&self, arguments: &[String]) -> Option<Answer> {
        let listed = self.read("replay")?;
        let mut lines = listed.lines();
        let recordings = Path::new(lines.next()?);
        let names: Vec<&str> = lines.collect();
        // kport adds this to every load; the recordings do not have it
        let asked = format!("pfctl {}", arguments.join(" ")).replace(" -o none", "");
        let get = |name: &str, what: &str| {
            fs::read_to_string(recordings.join(format!("{name}.{what}")))
                .unwrap_or_else(|error| panic!("{name}.{what}: {error}"))
        };
        let candidates: Vec<&&str> = names
            .iter()
            .filter(|name| get(name, "cmd").trim_end().rsplit("; ").next().is_some_and(|recorded| recorded == asked))
            .collect();
        let mut input = String::new();
        if asked.ends_with("-f -") {
            io::stdin().read_to_string(&mut input).expect("read the rules");
        }
        let found = match candidates[..] {
            [] => panic!("no recording of {asked:?} among {names:?}"),
            [one] => one,
            _ => candidates.iter().find(|name| get(name, "stdin") == input).expect("a recording with this input"),
        };
        let status = get(found, "rc").trim().parse().expect("a number");
        Some(Answer { stdout: get(found, "stdout"), stderr: get(found, "stderr"), status })
    }

    /// Records the call, and does what a fault requires before the work. The result is run after it.
    fn before(&self, arguments: &[String]) -> Box<dyn FnOnce(&Answer)> {
        let asked = arguments.join(" ");
        let lock = self.lock();
        let mut calls = File::options().append(true).create(true).open(self.dir.join("calls")).expect("open calls");
        writeln!(calls, "{asked}").expect("note the call");
        let faults = self.read("faults").unwrap_or_default();
        let mut kept = String::new();
        let mut hit = None;
        for line in faults.lines() {
            // part of the command line, how often, percent, what, detail
            let [part, left, percent, what, detail] = line.splitn(5, '\t').collect::<Vec<_>>()[..] else {
                panic!("not a fault: {line:?}");
            };
            let mut left: u64 = left.parse().expect("a number");
            let percent: u64 = percent.parse().expect("a number");
            if hit.is_none() && left > 0 && asked.contains(part) && RandomState::new().hash_one(0) % 100 < percent {
                hit = Some((what.to_owned(), detail.replace("\\n", "\n")));
                left -= 1;
            }
            kept += &format!("{part}\t{left}\t{percent}\t{what}\t{detail}\n");
        }
        if hit.is_some() {
            self.write("faults", &kept);
        }
        drop(lock);
        let Some((what, detail)) = hit else { return Box::new(|_| {}) };
        let forever = || loop {
            std::thread::sleep(Duration::from_secs(3600));
        };
        match what.as_str() {
            // print this on standard error, exit with this status, do nothing, do not read standard input
            "say" => {
                let (status, text) = detail.split_once(' ').expect("status and text");
                let status = status.parse().expect("a number");
                Answer { stderr: text.to_owned(), status, ..Answer::default() }.give();
            }
            "warn" => return Box::new(move |_| eprintln!("{detail}")),
            "slow" => std::thread::sleep(Duration::from_millis(detail.parse().expect("milliseconds"))),
            "hang" => forever(),
            "hang-late" => return Box::new(move |_| forever()),
            "abort" => {
                _ = io::stdin().read_to_end(&mut Vec::new());
                abort();
            }
            "abort-late" => return Box::new(|_| abort()),
            "huge" => {
                let line = "x".repeat(64 << 10);
                while io::stdout().write_all(line.as_bytes()).is_ok() {}
            }
            "describe" => {
                let mut stderr = format!("cwd {}\n", std::env::current_dir().expect("a directory").display());
                for (name, value) in std::env::vars() {
                    stderr += &format!("env {name}={value}\n");
                }
                let mut open: Vec<(u32, String)> = fs::read_dir("/proc/self/fd")
                    .expect("list descriptors")
                    .filter_map(|entry| {
                        let path = entry.ok()?.path();
                        let number = path.file_name()?.to_str()?.parse().ok()?;
                        Some((number, fs::read_link(path).ok()?.display().to_string()))
                    })
                    .collect();
                open.sort();
                // its own: the state, and the list of descriptors
                for (number, file) in
                    open.iter().filter(|(_, file)| !file.starts_with("/proc/") && !file.ends_with("/calls"))
                {
                    stderr += &format!("fd {number} {file}\n");
                }
                Answer { stderr, status: 1, ..Answer::default() }.give();
            }
            // leaves a child of its own that keeps both outputs open
            "orphan" => {
                _ = std::process::Command::new("/bin/sleep").arg(&detail).spawn().expect("run sleep");
            }
            _ => panic!("no such fault: {what}"),
        }
        Box::new(|_| {})
    }

    fn answer(&self, arguments: &[String]) -> Answer {
        let Some(options) = Options::parse(arguments) else {
            return Answer {
                stderr: "usage: pfctl [-AdeghMmNnOPqRSrvz] ...\n".to_owned(),
                status: 1,
                ..Answer::default()
            };
        };
        // in this order: main in sbin/pfctl/pfctl.c
        let mut answer = if let Some(show) = &options.show {
            let mut shown = self.show(show, &options);
            if options.file.is_some() {
                let loaded = self.load(&options);
                shown.stdout += &loaded.stdout;
                shown.stderr += &loaded.stderr;
                shown.status = shown.status.max(loaded.status);
            }
            shown
        } else if options.file.is_some() {
            self.load(&options)
        } else if let [what, label] = &options.kill[..]
            && what == "label"
        {
            self.kill(|line| line.split(' ').any(|word| word == label))
        } else if let [what, key] = &options.kill[..]
            && what == "key"
        {
            self.kill(|line| {
                line.split_once(' ').is_some_and(|(on, state)| {
                    // as on the wire: without what has replaced the destination
                    let wire = match state.split_once(" (").zip(state.split_once(") ")) {
                        Some(((head, _), (before, rest))) => {
                            let (protocol, to) = (head.split(' ').next(), before.split_once('(').map(|(_, to)| to));
                            format!("{} {} {rest}", protocol.unwrap_or_default(), to.unwrap_or_default())
                        }
                        None => state.to_owned(),
                    };
                    options.interface.as_ref().is_none_or(|wanted| wanted == on) && wire.starts_with(key)
                })
            })
        } else {
            Answer::default()
        };
        if options.verbose {
            answer.stderr.insert_str(0, "No ALTQ support in kernel\nALTQ related functions disabled\n");
        }
        if options.quiet && answer.stderr.starts_with("killed ") {
            answer.stderr.clear();
        }
        answer
    }

    fn rules(&self, anchor: &str) -> Option<String> {
        self.read(&format!("anchors/{}", encode(anchor)))
    }

    /// All anchors: with rules, above one with rules, or called from the main ruleset.
    fn anchors(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        let mut add = |path: &str| {
            for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
                all.insert(path[..at].to_owned());
            }
        };
        for entry in fs::read_dir(self.dir.join("anchors")).expect("list anchors") {
            let name = entry.expect("an entry").file_name();
            add(&decode(name.to_str().expect("UTF-8")));
        }
        for line in self.rules("").unwrap_or_default().lines().filter(|line| line.contains("anchor \"")) {
            let called = line.split('"').nth(1).unwrap_or_default();
            add(called.trim_end_matches("/*"));
        }
        all.remove("");
        all.remove("*");
        all
    }

    /// `-a '*'`: the main ruleset, and in braces the rules of what is called, at any depth.
    fn nested(&self, what: &str, path: &str, depth: usize, options: &Options, said: &mut String) -> String {
        // pf looks for an anchor with this name
        if path.contains("/../") {
            *said +=
                if what == "n" { "pfctl: DIOCGETRULES: Invalid argument\n" } else { "pfctl: Anchor does not exist.\n" };
            return String::new();
        }
        let indent = if options.verbose { String::new() } else { "  ".repeat(depth) };
        let mut text = String::new();
        for line in self.printed(path).filter(|line| translates(line) == (what == "n")) {
            text += &format!("{indent}{line}");
            let called =
                line.split_once("anchor \"").and_then(|(_, rest)| rest.split_once('"')).map(|(called, _)| called);
            text += if called.is_some() { " {\n" } else { "\n" };
            text += &self.counted(options);
            let Some(called) = called else { continue };
            let keyword = if what == "n" { "nat-anchor" } else { "anchor" };
            // relative to the caller (pfctl_show_nat)
            let called = match called.strip_prefix('/') {
                Some(absolute) => absolute.to_owned(),
                None if path.is_empty() => called.to_owned(),
                None => format!("{path}/{called}"),
            };
            match called.strip_suffix("/*") {
                Some(parent) => {
                    let below = format!("{parent}/");
                    let all = self.anchors();
                    for child in all.iter().filter_map(|path| path.strip_prefix(&below)).filter(|c| !c.contains('/')) {
                        text += &format!("{indent}{keyword} \"{child}\" all {{\n");
                        text += &self.nested(what, &format!("{parent}/{child}"), depth + 2, options, said);
                        text += &format!("{indent}}}\n");
                    }
                }
                None => text += &self.nested(what, &called, depth + 1, options, said),
            }
            text += &format!("{indent}}}\n");
        }
        text
    }

    /// What `-v` prints below a rule.
    fn counted(&self, options: &Options) -> String {
        if !options.verbose {
            return String::new();
        }
        let counters = self.read("counters").unwrap_or_else(|| "0 0 0 0 0 0 0 0".to_owned());
        let counters: Vec<&str> = counters.split_whitespace().collect();
        let [evaluations, packets, bytes, states] = [counters[0], counters[1], counters[2], counters[7]];
        format!(
            "  [ Evaluations: {evaluations:<8}  Packets: {packets:<8}  Bytes: {bytes:<10}  States: 0     ]\n  \
             [ Inserted: uid 0 pid 77 State Creations: {states:<6}]\n"
        )
    }

    fn show(&self, what: &str, options: &Options) -> Answer {
        if options.anchor == "*" && matches!(what, "n" | "r") {
            let mut stderr = String::new();
            let stdout = self.nested(what, "", 0, options, &mut stderr);
            return Answer { stdout, stderr, status: 0 };
        }
        let anchor = options.anchor.trim_end_matches("/*");
        let old = self.read("release").is_some_and(|release| release.trim() == "14");
        let there = anchor.is_empty() || self.anchors().contains(anchor);
        let stdout = match what {
            "Running" if self.dir.join("disabled").exists() => {
                return Answer { stdout: "Disabled\n".to_owned(), status: 1, ..Answer::default() };
            }
            "Running" => "Enabled\n".to_owned(),
            "info" => {
                let word = if self.dir.join("disabled").exists() { "Disabled" } else { "Enabled" };
                format!(
                    "Status: {word} for 0 days 00:00:42           Debug: Urgent\n\nState Table                          Total\n"
                )
            }
            // its pfctl(8) has a message for EINVAL, its kernel returns ENOENT
            "A" if !there && old => return Answer::error("DIOCGETRULESETS: No such file or directory"),
            "A" if !there => return Answer::error("Anchor does not exist."),
            "A" => {
                let below = if anchor.is_empty() { String::new() } else { format!("{anchor}/") };
                let shown = |path: &String| {
                    let Some(rest) = path.strip_prefix(&below) else { return false };
                    !rest.is_empty()
                        && (options.verbose || !path.starts_with('_'))
                        && (options.verbose || !old || !rest.contains('/'))
                };
                self.anchors().iter().filter(|path| shown(path)).map(|path| format!("  {path}\n")).collect()
            }
            // the exit status is 0 nevertheless
            "n" | "r" | "l" if !there => {
                let words =
                    if what == "n" || old { "DIOCGETRULES: Invalid argument" } else { "Anchor does not exist." };
                return Answer { status: 0, ..Answer::error(words) };
            }
            // one line each: the name, then the addresses; kport does not use -v here
            "T" => self.tables(anchor).map(|(name, _)| name + "\n").collect(),
            "table show" => match self.tables(anchor).find(|(name, _)| *name == options.table) {
                Some((_, held)) => held.split(' ').filter(|a| !a.is_empty()).map(|a| format!("   {a}\n")).collect(),
                None => return Answer::error("Table does not exist."),
            },
            "I" => {
                let skipped = self.read("skip").unwrap_or_default();
                let mark = |name: &str| options.verbose && skipped.split(' ').any(|skip| skip == name);
                ["all", "bridge", "bridge0", "em0", "lo", "lo0"]
                    .iter()
                    .map(|name| format!("{name}{}\n", if mark(name) { " (skip)" } else { "" }))
                    .collect()
            }
            "n" | "r" => {
                let of_kind = self.printed(anchor).filter(|line| translates(line) == (what == "n"));
                of_kind.map(|line| format!("{line}\n{}", self.counted(options))).collect()
            }
            // floating: they are bound to no interface
            "s" => {
                let states = self.read("states").unwrap_or_default();
                let printed = states.lines().filter_map(|line| {
                    line.split_once(' ').filter(|(_, rest)| rest.contains("<-") || rest.contains("->"))
                });
                let more = |on: &str| match options.verbose {
                    true => format!(
                        "   age 00:00:01, expires in 00:00:30, 1:1 pkts, 64:64 bytes\n   id: 0a\n   origif: {on}\n"
                    ),
                    false => String::new(),
                };
                printed.map(|(on, state)| format!("all {state}\n{}", more(on))).collect()
            }
            "l" => {
                let counters = self.read("counters").unwrap_or_else(|| "0 0 0 0 0 0 0 0".to_owned());
                self.printed(anchor)
                    .filter_map(|line| labels(&line))
                    .map(|l| format!("{l} {}\n", counters.trim()))
                    .collect()
            }
            _ => {
                let stderr = format!("pfctl: Unknown show modifier '{what}'\nusage: pfctl [-AdeghMmNnOPqRSrvz] ...\n");
                return Answer { stderr, status: 1, ..Answer::default() };
            }
        };
        Answer { stdout, ..Answer::default() }
    }

    /// The tables of the main ruleset, or those of an anchor.
    fn tables(&self, anchor: &str) -> impl Iterator<Item = (String, String)> + use<> {
        let file = if anchor.is_empty() { "tables".to_owned() } else { format!("tables-{}", encode(anchor)) };
        let text = self.read(&file).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.into_iter().map(|line| {
            let (name, held) = line.split_once(' ').unwrap_or((&line, ""));
            (name.to_owned(), held.to_owned())
        })
    }

    fn printed(&self, anchor: &str) -> impl Iterator<Item = String> + use<> {
        let text = self.rules(anchor).unwrap_or_default();
        let lines: Vec<String> = text.lines().flat_map(print).collect();
        lines.into_iter()
    }

    fn load(&self, options: &Options) -> Answer {
        let anchor = options.anchor.as_str();
        if anchor.starts_with('_') || anchor.contains("/_") {
            return Answer::error("anchor names beginning with '_' cannot be modified from the command line");
        }
        if anchor.len() > 63 {
            return Answer::error("pfctl_rules: strlcpy");
        }
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).expect("read the rules");
        let mut filter = false;
        let mut seen = BTreeSet::new();
        let mut answer = Answer::default();
        let mut kept = String::new();
        for (number, line) in text.lines().enumerate() {
            let refuse = |why: &str| Answer {
                stderr: format!(
                    "stdin:{}: {why}\npfctl: Syntax error in config file: pf rules not loaded\n",
                    number + 1
                ),
                status: 1,
                ..Answer::default()
            };
            if !reads_like_a_rule(line) {
                return refuse("syntax error");
            }
            if translates(line) && filter {
                return refuse(
                    "Rules must be in order: options, ethernet, normalization, queueing, translation, filtering",
                );
            }
            filter |= !translates(line);
            if seen.insert(line) {
                kept += line;
                kept.push('\n');
            } else {
                for printed in print(line) {
                    answer.stdout += &format!("{printed} -- rule was already present\n");
                }
            }
        }
        if text.is_empty() {
            _ = fs::remove_file(self.dir.join(format!("anchors/{}", encode(anchor))));
        } else {
            self.write(&format!("anchors/{}", encode(anchor)), &kept);
        }
        answer
    }

    fn kill(&self, matches: impl Fn(&str) -> bool) -> Answer {
        let states = self.read("states").unwrap_or_default();
        let (gone, kept): (Vec<&str>, Vec<&str>) = states.lines().partition(|line| matches(line));
        if !gone.is_empty() {
            self.write("states", &kept.iter().map(|line| format!("{line}\n")).collect::<String>());
        }
        Answer { stderr: format!("killed {} states\n", gone.len()), ..Answer::default() }
    }
}

fn encode(path: &str) -> String {
    if path.is_empty() { "%".to_owned() } else { path.replace('%', "%25").replace('/', "%2F") }
}

fn decode(name: &str) -> String {
    if name == "%" { String::new() } else { name.replace("%2F", "/").replace("%25", "%") }
}

/// Whether `-sn` prints the rule; `-sr` prints the others.
fn translates(line: &str) -> bool {
    ["nat", "rdr", "binat", "no nat", "no rdr", "no binat"].iter().any(|word| {
        line.strip_prefix(word)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(' ') || rest.starts_with("-anchor "))
    })
}

fn reads_like_a_rule(line: &str) -> bool {
    let first = line.split(' ').next().unwrap_or_default();
    match first {
        "nat" | "rdr" | "binat" => line.contains(" -> ") && line.contains(" from ") && line.contains(" to "),
        "no" | "pass" | "block" | "match" => true,
        "nat-anchor" | "rdr-anchor" | "anchor" => line.contains('"'),
        _ => false,
    }
}

fn labels(printed: &str) -> Option<String> {
    let labels: Vec<&str> = printed.split(" label \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    (!labels.is_empty()).then(|| labels.join(" "))
}

/// A rule as it is printed: one line for each member of its lists, without quotes, port numbers with `=`, flags for
/// tcp, the tag after the labels. A rule in the printed form stays unchanged.
fn print(line: &str) -> Vec<String> {
    // print_rule has the pools of af-to at the end
    if let Some((before, rest)) = line.split_once(" af-to ")
        && let Some((pools, after)) = rest.split_once(" keep state")
    {
        let pools = pools.replace("(\"", "(").replace("\")", ") round-robin");
        let rules = print(&format!("{before} keep state{after}"));
        return rules.into_iter().map(|rule| format!("{rule} af-to {pools}")).collect();
    }
    if let Some((before, rest)) = line.split_once("{ ")
        && let Some((members, after)) = rest.split_once(" }")
        && !before.contains("->")
    {
        return members
            .split([' ', ','])
            .filter(|m| !m.is_empty())
            .flat_map(|m| print(&format!("{before}{m}{after}")))
            .collect();
    }
    let (rule, target) = line.split_once(" -> ").map_or((line, None), |(rule, target)| (rule, Some(target)));
    let mut made: Vec<String> = Vec::new();
    let (mut labels, mut tagged, mut range) = (String::new(), String::new(), None);
    let mut words = rule.split(' ').filter(|word| !word.is_empty()).peekable();
    while let Some(word) = words.next() {
        match word {
            "label" => labels += &format!(" label {}", words.next().unwrap_or_default()),
            "tagged" => tagged = format!(" tagged {}", words.next().unwrap_or_default().replace('"', "")),
            "port" => {
                made.push("port".to_owned());
                if let Some(port) = words.peek() {
                    if port.bytes().all(|b| b.is_ascii_digit()) {
                        made.push("=".to_owned());
                    } else {
                        range = port.split_once(':');
                    }
                }
            }
            "keep"
                if rule.contains(" proto tcp ")
                    && rule.starts_with("pass")
                    && !made.iter().any(|word| word == "flags") =>
            {
                made.extend(["flags", "S/SA", "keep"].map(str::to_owned));
            }
            _ if made.last().is_some_and(|word| word.ends_with("anchor")) => made.push(word.to_owned()),
            _ => {
                let word = word.replace('"', "");
                let whole = if word.contains(':') { "/128" } else { "/32" };
                made.push(word.strip_suffix(whole).unwrap_or(&word).to_owned());
            }
        }
    }
    let mut text = made.join(" ") + &labels + &tagged;
    if text.contains("anchor \"") && !text.contains(" all") && !text.contains(" from ") {
        text += " all";
    }
    if text == "block in log all" {
        text = "block drop in log all".to_owned();
    }
    if text == "pass out all" {
        text += " flags S/SA keep state";
    }
    text = computed(text);
    if let Some(target) = target {
        let target = target.replace('"', "");
        // port 9000:* has as many ports as the range that it is for
        let target = match (target.strip_suffix(":*").and_then(|t| t.rsplit_once(' ')), range) {
            (Some((before, first)), Some((from, to))) => {
                let number = |text: &str| text.parse::<u32>().expect("a port");
                format!("{before} {first}:{}", number(first) + number(to) - number(from))
            }
            _ => target,
        };
        text += &format!(" -> {target}");
        // DYNIF_MULTIADDR: the first address of an interface is one address
        let is_one = target.ends_with("0:0)") || target.ends_with("0:0\")");
        if text.starts_with("nat ") && target.starts_with('(') && !target.contains(' ') && !is_one {
            text += " round-robin";
        }
    }
    vec![text]
}

/// What pfctl(8) adds to limits when it loads, and prints: rules of pfrule in sbin/pfctl/parse.y.
fn computed(mut text: String) -> String {
    let number = |name: &str, text: &str| {
        let rest = text.split_once(name)?.1;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
    };
    let mut more = String::new();
    if let Some(max) = number("(max ", &text) {
        more += &format!(", adaptive.start {}, adaptive.end {}", max / 10 * 6, max / 10 * 12);
    }
    if text.contains("max-src-conn-rate ") {
        let seconds = text.split_once("max-src-conn-rate ").and_then(|(_, rest)| number("/", rest)).unwrap_or_default();
        more += &format!(", src.track {seconds}");
    }
    if let Some(at) = text.find("keep state (").and_then(|from| Some(from + text[from..].find(')')?)) {
        text.insert_str(at, &more);
    }
    text
}
