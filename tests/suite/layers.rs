//! Dependencies go one way: which module may name which other one, down to the files of a module.
//!
//! What a file names is every path that begins with `crate::`, `self::` or `super::`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The ground: every room may use these, and they use nothing.
const GROUND: &[&str] = &["deadline", "error"];

/// A room of the library, and the rooms above the ground that it may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("deadline", &[]),
    ("error", &[]),
    ("files", &[]),
    ("child", &["files"]),
    ("net", &[]),
    ("name", &["net"]),
    ("spec", &["net"]),
    ("rule", &["name", "net"]),
    ("options", &["name", "net", "rule"]),
    ("publication", &["name", "net", "options", "rule", "spec"]),
    ("rules", &["name", "net", "options", "publication", "rule", "spec"]),
    ("host", &["files", "net"]),
    ("pfconf", &["name", "net", "rule"]),
    ("calls", &["name", "net", "pfconf", "rule"]),
    ("pf", &["calls", "child", "files", "name", "net", "pfconf", "rule"]),
    ("trace", &["calls", "host", "name", "net", "pf", "pfconf", "rule"]),
    ("conflict", &["host", "name", "net", "pf", "publication"]),
    ("proof", &["host", "name", "net", "options", "pfconf", "publication", "rule", "rules", "trace"]),
    (
        "readiness",
        &["host", "name", "net", "options", "pf", "pfconf", "proof", "publication", "rule", "rules", "trace"],
    ),
    ("store", &["files", "name", "net", "options", "publication", "rule", "spec"]),
    (
        "publisher",
        &[
            "calls",
            "conflict",
            "host",
            "name",
            "net",
            "options",
            "pf",
            "publication",
            "readiness",
            "rule",
            "rules",
            "spec",
            "store",
        ],
    ),
    ("managers", &["host", "name", "net", "options", "pfconf", "publisher", "spec"]),
    ("conf", &["conflict", "files", "host", "name", "net", "options", "publication", "publisher", "spec"]),
    (
        "doctor",
        &[
            "calls",
            "child",
            "conflict",
            "host",
            "managers",
            "name",
            "net",
            "options",
            "pf",
            "proof",
            "publication",
            "publisher",
            "readiness",
            "rule",
            "rules",
            "pfconf",
            "trace",
            "spec",
            "store",
        ],
    ),
    ("session", &["host", "pf", "publisher", "store"]),
    ("watch", &["conf", "files", "host", "name", "net", "pf", "publication", "publisher", "session", "store"]),
    (
        "container",
        &[
            "host",
            "managers",
            "name",
            "net",
            "options",
            "publication",
            "publisher",
            "readiness",
            "rule",
            "session",
            "spec",
            "store",
        ],
    ),
    (
        "ffi",
        &[
            "container",
            "host",
            "name",
            "net",
            "options",
            "pf",
            "publication",
            "publisher",
            "rule",
            "session",
            "spec",
            "watch",
        ],
    ),
    // the helper: never the C ABI
    (
        "cli",
        &[
            "child",
            "conf",
            "container",
            "doctor",
            "files",
            "host",
            "managers",
            "name",
            "net",
            "options",
            "pf",
            "proof",
            "publication",
            "publisher",
            "readiness",
            "rule",
            "session",
            "pfconf",
            "trace",
            "spec",
            "store",
            "watch",
        ],
    ),
];

/// The modules inside a room that other rooms may use, and which rooms use them. All others are private to their room.
const DOORS: &[(&str, &[&str])] = &[
    ("files::flags", &["cli"]),
    ("container::cni", &["cli"]),
    ("container::kleene", &["cli", "ffi"]),
    ("container::oci", &["cli"]),
    ("doctor::self_test", &["cli"]),
    ("pf::files", &["session", "doctor"]),
    ("pfconf::address", &["calls", "managers", "pf", "trace"]),
    ("pfconf::names", &["managers", "trace"]),
    ("pfconf::nested", &["pf"]),
    ("pfconf::path", &["calls", "pf", "trace", "proof", "readiness"]),
    ("pfconf::rule", &["calls", "managers", "pf", "trace", "proof", "readiness"]),
    ("pf::macos", &["session"]),
    ("pf::native", &["session"]),
    ("pf::pfctl", &["session", "cli"]),
];

/// The modules directly inside a room, from the lowest up: each may use those before it, but nothing inside one of them.
const ORDER: &[(&str, &[&str])] = &[
    ("calls", &["tree"]),
    ("child", &["exit"]),
    ("files", &["flags"]),
    (
        "cli",
        &[
            "help",
            "flags",
            "args",
            "output",
            "hook",
            "traffic",
            "change",
            "apply",
            "diagnose",
            "inspect",
            "setup",
            "import",
            "container",
        ],
    ),
    ("cli::setup", &["marks", "shell", "replace", "settings", "plan"]),
    ("conf", &["line"]),
    ("container", &["kleene", "cni", "oci"]),
    ("container::cni", &["conmon", "code", "input"]),
    ("managers", &["caller", "import", "jail", "bastille", "iocage", "appjail", "pot", "cbsd", "kleene"]),
    ("doctor", &["hooks", "record", "packets", "self_test"]),
    ("ffi", &["output", "input", "guard"]),
    ("host", &["events", "fixed", "freebsd", "linux"]),
    ("host::freebsd", &["kernel", "rtsock", "socket", "jail", "report", "vnet", "events", "system"]),
    ("proof", &["judge", "place", "sentences"]),
    ("readiness", &["lines", "evaluator", "judged", "interfaces", "answers"]),
    // native before pfctl: it never runs that
    ("pf", &["foreign", "native", "files", "pfctl", "macos"]),
    ("pf::pfctl", &["run", "states", "braces"]),
    ("pfconf", &["names", "path", "address", "rule", "lex", "operands", "print", "conditions", "statements", "nested"]),
    ("trace", &["packet", "state", "matching", "steps", "translate", "walk", "world", "way", "classes"]),
    ("publisher", &["request", "survey", "list", "addresses", "states", "resolve", "writer", "change", "apply"]),
    ("spec", &["meant"]),
    ("watch", &["report", "schedule"]),
    ("cli::setup", &["marks", "shell", "replace", "settings", "plan"]),
    ("store", &["dir", "records", "summaries"]),
    (
        "pf::native",
        &[
            "layout",
            "nv",
            "netlink",
            "encode",
            "kernel",
            "session",
            "descriptor",
            "ioctl",
            "decode",
            "read",
            "rulesets",
            "memory",
            "transaction",
            "calls",
        ],
    ),
];

/// The only files that may hold `unsafe`.
const UNSAFE: &[&str] = &[
    "child/exit.rs",
    "ffi/input.rs",
    "ffi/output.rs",
    "ffi.rs",
    "files/flags.rs",
    "host/freebsd/events.rs",
    "host/freebsd/kernel.rs",
    "host/freebsd/vnet.rs",
    "pf/native/ioctl.rs",
];

/// A module's path, without `crate`: the library's `pf::native`, the helper's `cli::show`.
type Module = Vec<String>;

struct Source {
    /// Below `src`.
    file: String,
    module: Module,
    text: String,
}

fn sources() -> Vec<Source> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = vec![];
    walk(&src, &mut paths);
    paths.sort();
    let source = |path: PathBuf| {
        let file = path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        let module = module_of(&file.trim_end_matches(".rs").replace('/', "::"));
        Source { file, module, text: fs::read_to_string(&path).unwrap() }
    };
    paths.into_iter().map(source).filter(|source| !matches!(&*source.file, "lib.rs" | "main.rs")).collect()
}

fn module_of(path: &str) -> Module {
    path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Every path in a text, by its segments; lists in braces are expanded.
fn paths(text: &str) -> Vec<Module> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = vec![];
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for start in ["crate::", "self::", "super::"] {
        for (at, _) in code.match_indices(start) {
            // `$crate::` is one; the end of another word, or of another path, is not
            if !code[..at].ends_with(|c: char| is_word(c) || c == ':') {
                tree(&code[at..], &vec![], &mut found);
            }
        }
    }
    found
}

/// Reads `a::b::{c, d::*}`, and returns what comes after it.
fn tree<'a>(mut text: &'a str, before: &Module, found: &mut Vec<Module>) -> &'a str {
    let mut path = before.clone();
    loop {
        text = text.trim_start();
        if let Some(list) = text.strip_prefix('{') {
            text = list;
            loop {
                text = text.trim_start().trim_start_matches(',').trim_start();
                match text.strip_prefix('}') {
                    Some(rest) => return rest,
                    None if text.is_empty() => return text,
                    None => {}
                }
                let rest = tree(text, &path, found);
                // `as name`
                text = if rest.len() == text.len() { &rest[rest.len().min(1)..] } else { rest };
            }
        }
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        if end > 0 {
            path.push(text[..end].to_owned());
        }
        text = &text[end..];
        match text.strip_prefix("::") {
            Some(rest) => text = rest,
            None => {
                found.push(path);
                return text;
            }
        }
    }
}

/// The modules that a source names, as deep as there are modules, except its own.
fn uses(source: &Source, known: &BTreeSet<Module>) -> BTreeSet<Module> {
    // the module of the tests is one level deeper
    let (code, tests) = source.text.split_once("\nmod tests {").unwrap_or((&source.text, ""));
    let inside = |text: &str, here: Module| {
        let mut found = vec![];
        for path in paths(text) {
            let mut full = vec![];
            for (at, part) in path.iter().enumerate() {
                match (at, part.as_str()) {
                    (0, "crate") => {}
                    (0, "self") => full = here.clone(),
                    (0, "super") => full = here[..here.len() - 1].to_vec(),
                    (_, "super") => _ = full.pop(),
                    _ => full.push(part.clone()),
                }
            }
            while !full.is_empty() && !known.contains(&full) {
                full.pop();
            }
            found.push(full);
        }
        found
    };
    let mut deeper = source.module.clone();
    deeper.push("tests".to_owned());
    let found = inside(code, source.module.clone()).into_iter().chain(inside(tests, deeper));
    found.filter(|module| !module.is_empty() && *module != source.module).collect()
}

fn listed<'a>(table: &[(&str, &'a [&'a str])], name: &str) -> Option<&'a [&'a str]> {
    table.iter().find(|(module, _)| *module == name).map(|(_, list)| *list)
}

/// Why a module may not use another one, if it may not.
fn refused(user: &Module, used: &Module) -> Option<String> {
    let (by, of) = (user.join("::"), used.join("::"));
    let opened = |door: &str| listed(DOORS, door).is_some_and(|users| users.contains(&user[0].as_str()));
    if user[0] != used[0] {
        let allowed = listed(ALLOWED, &user[0]).unwrap_or_default();
        let ground = GROUND.contains(&used[0].as_str()) && !GROUND.contains(&user[0].as_str());
        if !ground && !allowed.contains(&used[0].as_str()) {
            return Some(format!("{} is not below {}", used[0], user[0]));
        }
        let inside = used.len() > 1 && !opened(&of);
        return inside.then(|| format!("{of} is inside its room, and has no door to {}", user[0]));
    }
    let common = user.iter().zip(used).take_while(|(a, b)| a == b).count();
    if used.len() > common + 1 {
        return Some(format!("{of} is inside of another module, which is what {by} may use"));
    }
    // a module above: the common types of the room
    let (Some(own), Some(other)) = (user.get(common), used.get(common)) else { return None };
    let room = user[..common].join("::");
    let order = listed(ORDER, &room)?;
    let place = |name: &String| order.iter().position(|listed| listed == name);
    (place(own) <= place(other)).then(|| format!("{other} is not before {own} in {room}"))
}

const SAY: &str = "say in tests/suite/layers.rs";

/// The rooms that every interface uses: none of them names an option of the helper, which the others do not have. A remedy names a
/// `Setting`. A command that the administrator runs, such as `kport setup --write`, is the same for all.
#[test]
fn no_message_below_the_interfaces_names_an_option_of_the_helper() {
    let rooms = [
        "conflict",
        "container",
        "host",
        "name",
        "net",
        "options",
        "pf",
        "publication",
        "publisher",
        "readiness",
        "rules",
        "session",
        "spec",
        "store",
    ];
    // pf::files has one for kport trace and doctor alone, the hook names its own arguments, and conmon is another program
    let others = ["pf/files.rs", "container/oci.rs", "container/cni/conmon.rs"];
    let sources = sources();
    let mut literals = 0;
    for source in
        sources.iter().filter(|source| rooms.contains(&&*source.module[0]) && !others.contains(&&*source.file))
    {
        let code = source.text.split("\n#[cfg(test)]").next().unwrap();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            literals += line.matches('"').count();
            let is_option = |at: usize, start: &str| {
                let word: &str =
                    line[at + start.len()..].split(|c: char| !c.is_ascii_lowercase() && c != '-').next().unwrap();
                !word.is_empty() && !line[..at].contains("kport ")
            };
            let long = line.match_indices(" --").chain(line.match_indices("(--")).chain(line.match_indices("\"--"));
            let found = long.filter(|(at, start)| is_option(*at, start)).count();
            assert!(found == 0 && !line.contains("with -a"), "{}: {line}", source.file);
        }
    }
    assert!(literals > 1000);
}

#[test]
fn modules_use_only_what_is_below_them() {
    let sources = sources();
    let known: BTreeSet<Module> = sources.iter().map(|source| source.module.clone()).collect();
    let mut wrong = vec![];
    for source in &sources {
        if listed(ALLOWED, &source.module[0]).is_none() {
            wrong.push(format!("{}: {SAY} what {} may use", source.file, source.module[0]));
        }
        for used in uses(source, &known) {
            if let Some(why) = refused(&source.module, &used) {
                wrong.push(format!("{} uses {}: {why}", source.file, used.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The tables have no rows about modules that do not exist.
#[test]
fn the_tables_are_about_the_modules_that_there_are() {
    let sources = sources();
    let known: BTreeSet<Module> = sources.iter().map(|source| source.module.clone()).collect();
    let mut wrong = vec![];
    let rooms = ALLOWED.iter().flat_map(|(room, users)| users.iter().chain([room])).map(|room| (*room).to_owned());
    let doors = DOORS.iter().map(|(door, _)| (*door).to_owned());
    let inner = ORDER.iter().flat_map(|(room, order)| order.iter().map(move |name| format!("{room}::{name}")));
    for named in rooms.chain(doors).chain(inner) {
        if named != "cli" && !known.contains(&module_of(&named)) {
            wrong.push(format!("there is no module {named} any more"));
        }
    }
    // each module of a room with an order has its place
    let mut members: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for module in known.iter().filter(|module| module.len() > 1) {
        let (name, room) = module.split_last().unwrap();
        members.entry(room.join("::")).or_default().insert(name);
    }
    for (room, names) in &members {
        let order = listed(ORDER, room).unwrap_or_default();
        for name in names.iter().filter(|name| !order.contains(name)) {
            wrong.push(format!("{SAY} where {name} stands in {room}"));
        }
    }
    // a door that no room uses is removed
    for (door, users) in DOORS {
        for user in *users {
            let used = sources
                .iter()
                .any(|source| source.module[0] == *user && uses(source, &known).contains(&module_of(door)));
            if !used {
                wrong.push(format!("{user} does not use {door} any more"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The rows of the table are in the order of the layers, from the lowest up.
#[test]
fn the_architecture_has_every_room() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let page = fs::read_to_string(docs.join("architecture.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let all: BTreeSet<&str> = ALLOWED.iter().map(|(room, _)| *room).chain(["lib", "main"]).collect();
    assert_eq!(rows.iter().copied().collect::<BTreeSet<&str>>(), all);
    for (room, uses) in ALLOWED {
        let place = |name: &str| rows.iter().position(|row| *row == name);
        let above = uses.iter().find(|used| place(used) >= place(room));
        assert_eq!(above, None, "the row of {room} comes before that of a room that it uses");
    }
    let drawing = fs::read_to_string(docs.join("architecture.svg")).unwrap();
    // without the description, which names them, too
    let (_, boxes) = drawing.split_once("</desc>").unwrap();
    let drawn: BTreeSet<&str> = boxes.split(|c: char| !c.is_alphanumeric()).collect();
    let missing: Vec<_> = ALLOWED.iter().filter(|(room, _)| !drawn.contains(room)).collect();
    assert!(missing.is_empty(), "not in docs/architecture.svg: {missing:?}");
}

#[test]
fn unsafe_stays_where_it_belongs() {
    let has = |source: &Source| {
        let code = source.text.lines().filter(|line| !line.trim_start().starts_with("//"));
        code.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')).any(|word| word == "unsafe")
    };
    let found: Vec<String> = sources().into_iter().filter(has).map(|source| source.file).collect();
    assert_eq!(found, UNSAFE, "the files with unsafe code are not those that are listed; each must need it");
}

/// The first words of pf.conf(5)'s statements.
const STATEMENTS: &[&str] = &[
    "altq",
    "anchor",
    "antispoof",
    "binat",
    "binat-anchor",
    "block",
    "ether",
    "include",
    "load",
    "match",
    "nat",
    "nat-anchor",
    "pass",
    "queue",
    "rdr",
    "rdr-anchor",
    "scrub",
    "set",
    "table",
];

/// The strings of a line of Rust that begin like a statement of pf.conf(5) and that something is compared with: the word alone in a
/// pattern or after `==`, or in a function that looks for text. A string that is only printed is not one of them.
fn matched(line: &str) -> Vec<&str> {
    const LOOKS: &[&str] = &[
        "contains",
        "ends_with",
        "find",
        "matches",
        "split",
        "split_once",
        "starts_with",
        "strip_prefix",
        "strip_suffix",
    ];
    let quotes: Vec<usize> =
        line.match_indices('"').map(|(at, _)| at).filter(|at| !line[..*at].ends_with('\\')).collect();
    let strings =
        quotes.chunks_exact(2).map(|pair| (&line[..pair[0]], &line[pair[0] + 1..pair[1]], &line[pair[1] + 1..]));
    let is_matched = |(before, string, after): &(&str, &str, &str)| {
        let statement = string.split([' ', '\\', '<']).next().is_some_and(|first| STATEMENTS.contains(&first));
        let call = before.trim_end_matches('&').strip_suffix('(').unwrap_or_default();
        let called = LOOKS.iter().any(|function| call.ends_with(&format!(".{function}")));
        let in_pattern = after.starts_with(" =>") || after.starts_with(" |") || before.ends_with("| ");
        let left = before.strip_suffix("Some(").unwrap_or(before);
        let compared = left.ends_with("== ") || left.ends_with("!= ") || after.starts_with(" ==");
        statement && (called || STATEMENTS.contains(string) && (in_pattern || compared))
    };
    strings.filter(is_matched).map(|(_, string, _)| string).collect()
}

#[test]
fn only_pfconf_reads_pf_conf() {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources() {
        // rule.rs prints kport's own rules, and reads nothing
        if source.module[0] == "pfconf" {
            continue;
        }
        let code = source.text.split("\nmod tests {").next().unwrap_or_default();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//") && !matched(line).is_empty());
        for line in lines {
            found.entry(source.file.clone()).or_default().push(line.trim().to_owned());
        }
    }
    assert!(found.is_empty(), "ask a ruleset of pfconf instead: {found:#?}");
}

#[test]
fn the_check_sees_who_reads_pf_conf() {
    for line in [
        "if line.starts_with(\"block \") {",
        "let rest = line.strip_prefix(\"anchor \\\"\")?;",
        "main.lines().filter(|line| line.trim_start().starts_with(\"set skip\"))",
        "\"rdr\" | \"binat\" => find(),",
        "if words.next() == Some(\"x\") && words[0] == \"pass\" {",
        "if words.next() == Some(\"block\") && words.any(|word| word == \"quick\") {",
        "text.contains(&\"rdr-anchor \\\"kport\")",
    ] {
        assert!(!matched(line).is_empty(), "{line}");
    }
    for line in [
        "write!(f, \"pass quick {rest}\")?;",
        "_ => (\"rdr\", \"->\"),",
        "Kind::Conflict => \"port in use\",",
        "json!({ \"anchor\": anchor, \"text\": \"pass\" })",
        "why.contains(\"password\") || why == \"nothing\"",
    ] {
        assert!(matched(line).is_empty(), "{line}");
    }
}

#[test]
fn the_check_sees_an_edge() {
    let source =
        |module: &str, text: &str| Source { file: String::new(), module: module_of(module), text: text.to_owned() };
    let known: BTreeSet<Module> = [
        "ffi",
        "net",
        "store",
        "pf",
        "pf::foreign",
        "pf::native",
        "pf::native::kernel",
        "pf::native::nv",
        "pf::native::read",
    ]
    .into_iter()
    .chain(["cli", "cli::show"])
    .map(module_of)
    .collect();
    let text = "\
        // crate::no\n\
        use crate::{ffi, net::{Place, self as words}, pf as driver};\n\
        use super::nv::{List, Value};\n\
        fn f() { crate::store::g(); $crate::pf::foreign::call(); super::super::other::h(); a::crate::b() }\n\
        #[cfg(test)]\nmod tests {\n    use super::*; use super::super::read;\n}\n";
    let found: Vec<String> =
        uses(&source("pf::native::kernel", text), &known).iter().map(|module| module.join("::")).collect();
    assert_eq!(found, ["ffi", "net", "pf", "pf::foreign", "pf::native::nv", "pf::native::read", "store"]);
    let found: Vec<String> = uses(&source("cli::args", "use crate::net::X; use super::show::V;"), &known)
        .iter()
        .map(|module| module.join("::"))
        .collect();
    assert_eq!(found, ["cli::show", "net"]);

    let check = |user: &str, used: &str| refused(&module_of(user), &module_of(used)).is_none();
    for (user, used, allowed) in [
        ("conflict", "error", true),
        ("conflict", "pf", true),
        ("pf", "conflict", false),
        ("conflict", "pf::native", false),
        ("session", "pf::native", true),
        ("session", "pf::native::read", false),
        ("pf", "pf::native", true),
        ("pf", "pf::native::read", false),
        ("pf::pfctl", "pf::native", true),
        ("pf::pfctl", "pf::foreign", true),
        ("pf::native", "pf::pfctl", false),
        ("pf::native::read", "pf", true),
        ("pf::native::read", "pf::native::kernel", true),
        ("pf::native::kernel", "pf::native::read", false),
        ("pf::native::kernel", "pf::foreign", true),
        ("pf::native::kernel", "net", true),
        ("doctor::record", "doctor::packets", false),
        ("cli::show", "conflict", false),
        ("cli", "ffi", false),
    ] {
        assert_eq!(check(user, used), allowed, "{user} uses {used}");
    }
}
