//! kport(8): the helper for shell hooks and for people. Arguments in, Rust API, exit status out.

mod cli;

use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use clap::error::ErrorKind;
use kport::doctor::{self, Level, self_test};
use kport::error::{Error, Kind, Result};
use kport::host::{self, Host, Interfaces};
use kport::name::JailName;
use kport::options::{Limits, Options};
use kport::pf::pfctl;
use kport::publication::{self, Publication, Targets};
use kport::publisher::{Observer, Outcome, Phase, Request};
use kport::rule;
use kport::rules;
use kport::session::{Backend, Session, Settings};
use kport::sim;
use kport::spec::{self, HostPorts, Spec};

use cli::args::{Cli, Command, Global, USAGE, Wish};
use cli::{hook, show, trace};

fn main() -> ExitCode {
    let cli = match Cli::try_parse().and_then(Cli::checked) {
        Ok(cli) => cli,
        Err(error) => {
            // what cannot be printed has nobody to read it
            _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ if hook::is_stop(std::env::args()) => {
                    hook::log(&error.to_string().replace('\n', " "));
                    ExitCode::SUCCESS
                }
                _ => ExitCode::from(USAGE),
            };
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(u8::try_from(error.kind().number()).unwrap_or(u8::MAX))
        }
    }
}

fn complain(what: &dyn std::fmt::Display) {
    _ = writeln!(io::stderr(), "kport: {what}");
}

fn run(cli: Cli) -> Result<()> {
    let Cli { mut global, command } = cli;
    match command {
        Command::Parse { json, specs } => {
            let spec = spec::parse(&specs.join(" "))?;
            print(&if json { document(&show::mappings_json(spec.mappings())) } else { show::mappings(spec.mappings()) })
        }
        Command::Rules { wish } => {
            // no firewall is asked, so that one which is not there is no reason to fail
            let host = if global.host.is_some() { session(&global)?.host } else { played(&global)? };
            print(&rules_text(&*host, &wish)?)
        }
        Command::Publish { mut wish, mut jid, hook, wait, add, auto_range, json, force, allow_inert } => {
            if hook {
                jid = called(&global, &mut wish, jid)?;
            }
            let mut request = Request::new(wish.jail.clone(), specs(&wish)?);
            request.wait = wait.unwrap_or_default();
            global.timeout = global.timeout.saturating_add(request.wait);
            request.options = options(&wish);
            request.addresses = addresses(&wish)?;
            request.gateway = wish.gateway;
            request.jid = jid;
            request.add = add;
            request.auto_range = auto_range;
            request.force = force;
            request.allow_inert = allow_inert;
            let auto = request.spec.mappings().iter().any(|m| m.host == HostPorts::Auto);
            let report = if json {
                Report::Json
            } else if auto && !global.quiet {
                Report::Ports
            } else {
                Report::Nothing
            };
            change(&global, report, |publisher| publisher.publish(&request))
        }
        Command::Unpublish { jail, specs, jid, hook: true } => {
            stop(&global, jail.as_ref(), &specs, jid);
            Ok(())
        }
        Command::Unpublish { jail: None, .. } => Err(Error::new(Kind::Argument, "name the jail")),
        Command::Unpublish { jail: Some(jail), specs, jid, .. } if specs.is_empty() => {
            change(&global, Report::Nothing, |publisher| publisher.unpublish(&jail, jid))
        }
        Command::Unpublish { jail: Some(jail), specs, jid, .. } => {
            let spec = spec::parse(&specs.join(" "))?;
            change(&global, Report::Nothing, |publisher| publisher.unpublish_some(&jail, jid, &spec))
        }
        Command::List { jail, json } => {
            let session = session(&global)?;
            let list = session.publisher(&Shown::new(global.verbose))?.list(jail.as_ref())?;
            print(&if json { document(&show::list_json(&list)) } else { show::list(&list) })
        }
        Command::Trace(question) => {
            let traced = trace::trace(&question, &any_session(&global)?, &global)?;
            if !global.quiet {
                traced.notes.iter().for_each(|note| complain(note));
            }
            print(&if question.json { document(&trace::json(&traced)) } else { format!("{}\n", traced.trace) })?;
            trace::verdict(&traced)
        }
        Command::Restore { json } => change(&global, Report::json(json), |publisher| publisher.restore()),
        Command::Doctor { self_test: true, .. } => self_test(&global),
        Command::Doctor { json, .. } => doctor(&global, json),
        Command::Gc { json } => change(&global, Report::json(json), |publisher| publisher.gc()),
    }
}

/// `publish --hook`: the jail, its number and its addresses from whoever calls, as far as they are not given.
fn called(global: &Global, wish: &mut Wish, jid: Option<i32>) -> Result<Option<i32>> {
    let host = played(global)?;
    let (name, specs) = hook::words(wish.words());
    let caller = hook::Caller::of_process((name, jid), &*host)?;
    caller.check_started(&*host)?;
    wish.specs = specs.into_iter().map(str::to_owned).collect();
    wish.jail = caller.jail;
    if wish.addresses.is_empty() {
        wish.addresses = caller.addresses;
    }
    Ok(caller.jid)
}

/// `unpublish --hook`: a jail must stop, whatever happens here. What went wrong is said to whoever looks at the console, and to
/// syslogd(8), since a manager may throw away what its hooks say.
fn stop(global: &Global, jail: Option<&JailName>, specs: &[String], jid: Option<i32>) {
    let words = jail.map(JailName::as_str).into_iter().chain(specs.iter().map(String::as_str));
    let stopped = || -> Result<()> {
        let (name, specs) = hook::words(words);
        let caller = hook::Caller::of_process((name, jid), &*played(global)?)?;
        if !specs.is_empty() {
            let spec = spec::parse(&specs.join(" "))?;
            return change(global, Report::Nothing, |publisher| {
                publisher.unpublish_some(&caller.jail, caller.jid, &spec)
            });
        }
        change(global, Report::Nothing, |publisher| {
            let mut outcome = publisher.unpublish(&caller.jail, caller.jid)?;
            let Some(jid) = caller.jid.filter(|_| !outcome.changed) else { return Ok(outcome) };
            // the jail may have had another name when it published: jail(8) can rename one that runs
            for listed in publisher.list(None)?.into_iter().filter(|listed| listed.jid == Some(jid)) {
                if let Some(before) = listed.jail.filter(|name| *name != caller.jail) {
                    outcome = publisher.unpublish(&before, Some(jid))?;
                    outcome.notes.push(format!("jail \"{before}\", now \"{}\": unpublished", caller.jail));
                }
            }
            Ok(outcome)
        })
    };
    if let Err(error) = stopped() {
        let line = format!("{error}; the jail stops all the same, and kport gc removes what is left");
        complain(&line);
        hook::log(&line);
    }
}

/// What a change prints on standard output.
enum Report {
    Nothing,
    /// The redirects, a line each: somebody chose ports that the caller does not know.
    Ports,
    Json,
}

impl Report {
    fn json(json: bool) -> Report {
        if json { Report::Json } else { Report::Nothing }
    }
}

/// Runs one change, says what there is to say, and prints its outcome.
fn change(
    global: &Global,
    report: Report,
    act: impl FnOnce(&kport::publisher::Publisher<'_>) -> Result<Outcome>,
) -> Result<()> {
    let session = session(global)?;
    let observer = Shown::new(global.verbose);
    let outcome = act(&session.publisher(&observer)?)?;
    if outcome.changed && !session.firewall.redirects_packets() {
        complain(&sim::NOTICE);
    }
    if !global.quiet {
        for note in &outcome.notes {
            complain(note);
        }
    }
    match report {
        Report::Nothing => Ok(()),
        Report::Ports => print(&show::redirects(&outcome.redirects)),
        Report::Json => print(&document(&show::outcome_json(&outcome))),
    }
}

/// What is published for a host that is played must not come to the pf of another.
fn session(global: &Global) -> Result<Session> {
    let session = any_session(global)?;
    if global.host.is_some() && session.firewall.redirects_packets() {
        return Err(Error::new(Kind::Argument, "--host plays a host: use it with --backend sim"));
    }
    Ok(session)
}

fn any_session(global: &Global) -> Result<Session> {
    let backend = match (global.backend, std::env::var("KPORT_BACKEND")) {
        (Some(backend), _) => backend,
        (None, Ok(name)) if !name.is_empty() => {
            name.parse().map_err(|e: Error| e.context("environment variable KPORT_BACKEND"))?
        }
        _ => Backend::default(),
    };
    let state_dir = global
        .state_dir
        .clone()
        .or_else(|| std::env::var_os("KPORT_STATE_DIR").filter(|dir| !dir.is_empty()).map(Into::into));
    let settings = Settings { backend, state_dir, timeout: global.timeout, pfctl: global.pfctl.clone() };
    let trace: Option<Box<pfctl::Trace>> = (global.verbose > 0).then(|| {
        let shown = Shown::new(global.verbose);
        Box::new(move |run: &pfctl::Run<'_>| shown.line(&run.to_string())) as _
    });
    let session = Session::traced(&settings, played(global)?, trace)?;
    if global.verbose > 0 {
        complain(&session.why());
    }
    Ok(session)
}

/// The host that runs, or the one that `--host` describes.
fn played(global: &Global) -> Result<Box<dyn Host>> {
    let Some(file) = &global.host else { return Ok(Box::new(host::System)) };
    Ok(Box::new(host::Played::new(file)?))
}

/// Warnings may be what the admin wants, so that only problems make the exit status.
fn doctor(global: &Global, json: bool) -> Result<()> {
    let session = session(global)?;
    let findings = doctor::examine(&*session.host, &*session.firewall, session.store());
    let problems = findings.iter().filter(|f| f.level == Level::Problem).count();
    print(&if json {
        document(&show::findings_json(&findings))
    } else {
        show::findings(findings.iter().filter(|f| !global.quiet || f.level > Level::Ok))
    })?;
    match problems {
        0 => Ok(()),
        1 => Err(Error::new(Kind::Unavailable, "one problem was found")),
        n => Err(Error::new(Kind::Unavailable, format!("{n} problems were found"))),
    }
}

fn self_test(global: &Global) -> Result<()> {
    let session = session(global)?;
    let (store, observer) = (session.store()?, Shown::new(global.verbose));
    let steps = self_test::run(&*session.host, &*session.firewall, store.dir(), &observer)?;
    if !session.firewall.redirects_packets() {
        complain(&sim::NOTICE);
    }
    print(&show::steps(&steps))?;
    match steps.iter().filter(|step| step.result.is_err()).count() {
        0 => Ok(()),
        n => Err(Error::new(Kind::Unavailable, format!("self-test: {n} of {} steps failed", steps.len()))),
    }
}

fn specs(wish: &Wish) -> Result<Spec> {
    spec::parse(&wish.specs.join(" "))
}

fn addresses(wish: &Wish) -> Result<Vec<IpAddr>> {
    publication::addresses(&wish.jail, wish.addresses.iter().map(String::as_str))
}

fn options(wish: &Wish) -> Options {
    let usual = Options::default();
    Options {
        reach: if wish.reach.is_empty() { usual.reach } else { wish.reach.clone() },
        hairpin: wish.hairpin,
        host_access: wish.host_access,
        sources: wish.sources.clone(),
        limits: Limits {
            connections: wish.max_connections,
            connections_per_source: wish.max_connections_per_source,
            rate: wish.rate,
        },
        log: wish.log,
        quick: !wish.no_quick,
    }
}

fn rules_text(host: &dyn Host, wish: &Wish) -> Result<String> {
    let targets = Targets::choose(&wish.jail, &addresses(wish)?)?;
    let redirects = publication::redirects(&wish.jail, &specs(wish)?, &targets, |family| match wish.gateway {
        Some(gateway) => Ok(gateway),
        None => kport::publisher::gateway(host, family),
    })?;
    let publication = Publication::new(wish.jail.clone(), redirects, options(wish), |target| {
        Interfaces(&host.interfaces()?).leads_to(target)
    })?;
    Ok(rule::text(&rules::rules(&publication)))
}

fn document(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // whoever read it has seen enough
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(Error::io("write to standard output", &e)),
        Ok(()) => Ok(()),
    }
}

/// `-v`: the steps of a transaction on standard error, each with the time since the start.
struct Shown {
    verbose: u8,
    start: Instant,
}

impl Shown {
    fn new(verbose: u8) -> Shown {
        Shown { verbose, start: Instant::now() }
    }

    fn line(&self, text: &str) {
        complain(&format_args!("{:8.3} ms  {text}", self.start.elapsed().as_secs_f64() * 1e3));
    }
}

impl Observer for Shown {
    fn phase(&self, phase: Phase) -> Result<()> {
        if self.verbose > 0 {
            self.line(phase.name());
        }
        Ok(())
    }

    fn detail(&self, text: &str) {
        if self.verbose > 1 {
            self.line(text);
        }
    }
}

const _: () = assert!(Kind::Internal as i32 <= u8::MAX as i32);
