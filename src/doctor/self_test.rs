//! `kport doctor --self-test`: publishes a port of a temporary jail, connects to it, unpublishes it, and checks that nothing
//! is left.
//!
//! On FreeBSD this needs two jails with their own network stack, each at the other end of an epair(4): one has the port, the
//! other is the client outside. With the simulator the steps are the same, and the packet evaluator reports what arrives.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use crate::child::{self, End};
use crate::deadline::Deadline;
use crate::error::{Error, Kind, Result, error};
use crate::host::{ANSWER_TIME, Fixed, Host, HostInterface, Jail};
use crate::name::{Anchor, JailName};
use crate::net::{Interface, PerFamily, Protocol};
use crate::pf::files::Sim;
use crate::pf::{Firewall, States};
use crate::proof::{Entrance, Judge};
use crate::publisher::{Liveness, Observer, Publisher, Request};
use crate::store::Store;
use crate::trace::{Party, Release, World};
use crate::{readiness, spec};

/// The jail that has the port.
const SERVER: &str = "kport-selftest-server";
/// The jail that stands for the network outside.
const CLIENT: &str = "kport-selftest-client";

/// The host's address on a network, and the jail's.
type Net = [IpNet; 2];
const SERVER_NET: Net = [unused_address(77, 1), unused_address(77, 2)];
const CLIENT_NET: Net = [unused_address(78, 1), unused_address(78, 2)];

/// From RFC 2544, which no network should use.
const fn unused_address(net: u8, host: u8) -> IpNet {
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(198, 18, net, host)), 30)
}

/// The published port, and its target port.
const HOST_PORT: u16 = 18080;
const JAIL_PORT: u16 = 8080;
/// The greeting of the server.
const GREETING: &str = "kport\n";

/// The time limit of each command and of each change.
const TIME: Duration = Duration::from_secs(30);
/// The time limit of a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A step, and its result.
#[derive(Clone, Debug)]
pub struct Step {
    /// What the step does.
    pub what: &'static str,
    /// Its result.
    pub result: Result<()>,
}

/// Runs the steps; those after a failed step are skipped, except for tidying up. An error means that nothing was done: the
/// test would have changed something that exists, or cannot run here.
pub fn run(host: &dyn Host, firewall: &dyn Firewall, dir: &Path, observer: &dyn Observer) -> Result<Vec<Step>> {
    let client = client_net(host, firewall);
    refuse(host, firewall, dir, [SERVER_NET, client]).map_err(|error| error.context("self-test not run"))?;
    let ground: Box<dyn Ground> = match firewall.redirects_packets() {
        false => {
            let host = Fixed { boot_id: "self-test".to_owned(), ..Fixed::default() };
            Box::new(Simulated { host, sim: Sim::new(dir), client })
        }
        true => Box::new(Real::check(host, client)?),
    };
    let mut trial = Trial { ground, firewall, dir, observer, steps: vec![] };
    // a step that fails is noted
    _ = trial.take();
    _ = trial.step("tidy up", |trial| {
        let unpublished = trial.publisher().and_then(|publisher| publisher.unpublish(&SERVER.parse()?, None));
        Error::all(unpublished.err().into_iter().chain(trial.ground.take_down().err()))
    });
    Ok(trial.steps)
}

/// What exists already must not be changed, nor may the host have these networks; one that is not ready is an error with the reason.
fn refuse(host: &dyn Host, firewall: &dyn Firewall, dir: &Path, nets: [Net; 2]) -> Result<()> {
    let status = firewall.status()?;
    if let Some(problem) = readiness::unused(host, &status, false) {
        return Err(problem.error(Kind::Unavailable));
    }
    for anchor in firewall.anchors()? {
        // pfctl(8) lists one for some seconds after it was cleared
        if let Some(anchor) = Anchor::from_child(&anchor)
            && firewall.loaded(&anchor, false)?.is_empty()
        {
            continue;
        }
        let remedy = "run the test on a host without published ports, or unpublish first";
        return Err(error!(Unavailable, "something is published (anchor kport/{anchor}); {remedy}"));
    }
    if let Some(anchor) = Store::open(dir)?.anchors()?.first() {
        return Err(error!(Unavailable, "there is a record of {anchor}; run kport apply"));
    }
    for name in [SERVER, CLIENT] {
        if host.jail(name)?.is_some_and(|jail| !jail.dying) {
            let remedy = format!("perhaps from a self-test that was killed: jail -r {name}");
            return Err(error!(Unavailable, "there is a jail {name}, {remedy}"));
        }
    }
    let interfaces = host.interfaces()?;
    for [net, _] in nets {
        let has = |own: &IpNet| net.contains(&own.addr()) || own.contains(&net.addr());
        if let Some(interface) = interfaces.iter().find(|interface| interface.addresses.iter().any(has)) {
            let (name, net) = (interface.name, net.trunc());
            return Err(error!(Unavailable, "{name} has an address in {net}, which it would use"));
        }
    }
    Ok(())
}

/// The client's network: another one if the main ruleset refuses the first because of its addresses, as a list of bogons
/// does; then that of an ordinary outsider, which exists only on the epair of the test. If the ruleset cannot be judged, the
/// test shows the result.
fn client_net(host: &dyn Host, firewall: &dyn Firewall) -> Net {
    let other = || -> Result<Option<Net>> {
        let mut world = World::of_host(host, Release::of_host(host)?)?;
        // units that no epair has
        let (on, inner): (Interface, Interface) = ("epair99998a".parse()?, "epair99999a".parse()?);
        for (name, address) in [(on, CLIENT_NET[0]), (inner, SERVER_NET[0])] {
            world.lookup.interfaces.push(HostInterface::up(name, vec!["epair".parse()?], vec![address]));
        }
        for (path, conf) in firewall.rulesets(true)? {
            world.load_conf(&path, &conf);
        }
        // the client may have any address: the epair is the test's own
        world.lookup.gateway = PerFamily::each(|_| Some(on));
        let judge = Judge::new(world, "");
        let host = SocketAddr::new(CLIENT_NET[0].addr(), HOST_PORT);
        let jail = SocketAddr::new(SERVER_NET[1].addr(), JAIL_PORT);
        let entrance = Entrance { on, protocol: Protocol::Tcp, host, jail, via: Some(inner), required: true };
        if judge.refusal(&entrance, CLIENT_NET[1].addr())?.is_none() {
            return Ok(None);
        }
        let net = judge.outsider(&entrance)?.and_then(|outsider| IpNet::new(outsider.address, 30).ok());
        let hosts = net.iter().flat_map(IpNet::hosts).filter_map(|host| IpNet::new(host, 30).ok());
        Ok(hosts.collect::<Vec<_>>().try_into().ok())
    };
    other().ok().flatten().unwrap_or(CLIENT_NET)
}

fn ensure(right: bool, why: &str) -> Result<()> {
    if right { Ok(()) } else { Err(Error::new(Kind::System, why)) }
}

struct Trial<'a> {
    ground: Box<dyn Ground + 'a>,
    firewall: &'a dyn Firewall,
    dir: &'a Path,
    observer: &'a dyn Observer,
    steps: Vec<Step>,
}

impl Trial<'_> {
    fn step<T>(&mut self, what: &'static str, act: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let made = act(self);
        self.steps.push(Step { what, result: made.as_ref().map(drop).map_err(Error::clone) });
        made
    }

    fn publisher(&self) -> Result<Publisher<'_>> {
        let (store, deadline) = (Store::open(self.dir)?, Deadline::after(TIME));
        Ok(Publisher::new(self.ground.host(), self.firewall, store, deadline, self.observer))
    }

    fn take(&mut self) -> Result<()> {
        let jail: JailName = SERVER.parse()?;
        let outer = self.step("create two jails with a network each", |trial| trial.ground.set_up())?;
        let request = self.step("find the jail and its address", |trial| {
            let host = trial.ground.host();
            let known = host.jail(SERVER)?.ok_or_else(|| error!(System, "the host does not report the jail"))?;
            let (address, found) = (SERVER_NET[1].addr(), host.vnet_addresses(&known, ANSWER_TIME)?);
            ensure(found == [address], &format!("the jail has {address}, and the host reports {found:?}"))?;
            let spec = spec::parse(&format!("{outer}:{HOST_PORT}:{JAIL_PORT}"))?;
            Ok(Request { jid: Some(known.jid), ..Request::new(jail.clone(), spec) })
        })?;
        self.step("a port that is not published is not reached", |trial| {
            ensure(!trial.ground.connects()?, "there was a connection before the port was published")
        })?;
        self.step("publish", |trial| {
            let outcome = trial.publisher()?.publish(&request)?;
            ensure(outcome.changed && outcome.redirects.len() == 1, "nothing was loaded")
        })?;
        self.step("publish the same ports again: nothing changes", |trial| {
            ensure(!trial.publisher()?.publish(&request)?.changed, "it was loaded again")
        })?;
        self.step("list shows that pf has it", |trial| {
            let list = trial.publisher()?.list(Some(&jail))?;
            let live = list.iter().filter(|listed| listed.liveness == Liveness::Live);
            ensure(live.count() == 1, "it does not")
        })?;
        self.step("an outsider connects to the host's port, and the jail answers", |trial| {
            let why = "no answer from the jail: check what the main ruleset blocks (kport doctor)";
            ensure(trial.ground.connects()?, why)
        })?;
        self.step("unpublish: the connection's states end", |trial| {
            let outcome = trial.publisher()?.unpublish(&jail, request.jid)?;
            ensure(outcome.changed, "there was nothing to remove")?;
            // the simulator has no states
            ensure(outcome.killed > 0 || !trial.firewall.redirects_packets(), "there were no states to end")
        })?;
        self.step("nothing is left in pf or in the record", |trial| {
            let anchor = jail.anchor();
            // the anchor itself is listed until pf frees the rules that called it, some seconds later
            ensure(trial.firewall.loaded(&anchor, false)?.is_empty(), "the anchor holds rules")?;
            ensure(Store::open(trial.dir)?.get(&anchor)?.is_none(), "there is a record")?;
            let states = States { jail: Some(jail.label()), ..States::default() };
            ensure(trial.firewall.kill_states(&[states])? == 0, "there were states")
        })?;
        self.step("the port is not reached any more", |trial| {
            ensure(!trial.ground.connects()?, "there is a connection, but the port is not published")
        })
    }
}

/// Two jails, and the network between them.
#[doc(hidden)]
pub trait Ground {
    /// The host with the jails.
    fn host(&self) -> &dyn Host;

    /// Creates them; returns the host's interface towards the client.
    fn set_up(&mut self) -> Result<Interface>;

    /// Whether the client gets the server's answer from the host's port.
    fn connects(&self) -> Result<bool>;

    /// Removes what [`Ground::set_up`] has created, even if that failed.
    fn take_down(&mut self) -> Result<()>;
}

/// The jails of a FreeBSD host, created by the programs of its base system.
#[doc(hidden)]
pub struct Real<'a> {
    host: &'a dyn Host,
    run: &'a Runner<'a>,
    client: Net,
    /// The commands that remove what was created, in the order of its creation.
    removals: Vec<(&'static str, [String; 2])>,
}

/// Runs a program with arguments and input, until a deadline.
#[doc(hidden)]
pub type Runner<'a> = dyn Fn(&str, &[&str], &str, Deadline) -> Result<child::Output> + Sync + 'a;

const JAIL: &str = "/usr/sbin/jail";
const JEXEC: &str = "/usr/sbin/jexec";
const IFCONFIG: &str = "/sbin/ifconfig";
const ROUTE: &str = "/sbin/route";
const NC: &str = "/usr/bin/nc";

impl<'a> Real<'a> {
    pub fn new(host: &'a dyn Host, run: &'a Runner<'a>, client: Net) -> Real<'a> {
        Real { host, run, client, removals: vec![] }
    }

    fn check(host: &'a dyn Host, client: Net) -> Result<Real<'a>> {
        if !cfg!(target_os = "freebsd") {
            let why = "self-test not run: it creates FreeBSD jails; on other systems use --backend sim";
            return Err(Error::new(Kind::Unsupported, why));
        }
        if !rustix::process::geteuid().is_root() {
            return Err(Error::new(Kind::Permission, "self-test not run: only root can create jails"));
        }
        Ok(Real::new(host, &program, client))
    }

    /// Creates a jail; returns the host's end of its epair.
    fn add(&mut self, jail: &'static str, [outside, inside]: Net) -> Result<Interface> {
        // prints its end of the pair: epair0a; the other one is epair0b
        let end = self.command(IFCONFIG, &["epair", "create"])?.trim().to_owned();
        let Some(other) = end.strip_suffix('a').map(|stem| format!("{stem}b")) else {
            return Err(error!(
                System,
                "ifconfig epair create returned {end:?}, which is not the first end of an epair"
            ));
        };
        self.removals.push((IFCONFIG, [end.clone(), "destroy".to_owned()]));
        self.command(IFCONFIG, &[&end, "inet", &outside.to_string(), "up"])?;
        self.command(JAIL, &["-c", &format!("name={jail}"), "path=/", "vnet", "persist"])?;
        self.removals.push((JAIL, ["-r".to_owned(), jail.to_owned()]));
        self.command(IFCONFIG, &[&other, "vnet", jail])?;
        self.command(JEXEC, &[jail, IFCONFIG, &other, "inet", &inside.to_string(), "up"])?;
        self.command(JEXEC, &[jail, ROUTE, "-q", "add", "default", &outside.addr().to_string()])?;
        end.parse()
    }

    /// Standard output of a program that must succeed.
    fn command(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let output = (self.run)(name, arguments, "", Deadline::after(TIME))?;
        if output.end == End::Exit(0) {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(error!(System, "{name} {}: {:?}: {said}", arguments.join(" "), output.end))
    }
}

impl Ground for Real<'_> {
    fn host(&self) -> &dyn Host {
        self.host
    }

    fn set_up(&mut self) -> Result<Interface> {
        self.add(SERVER, SERVER_NET)?;
        self.add(CLIENT, self.client)
    }

    fn connects(&self) -> Result<bool> {
        let until = Deadline::after(CONNECT_TIMEOUT);
        let host = self.client[0].addr().to_string();
        let (listen, ask) = (JAIL_PORT.to_string(), HOST_PORT.to_string());
        std::thread::scope(|scope| {
            // accepts one connection, sends its greeting, and exits; without a connection it is killed when the time is up
            let server =
                scope.spawn(|| (self.run)(JEXEC, &[SERVER, NC, "-4", "-n", "-l", "-N", &listen], GREETING, until));
            let mut answered = false;
            while !answered && !until.passed() {
                // it may not listen yet
                std::thread::sleep(Duration::from_millis(200));
                let client = (self.run)(JEXEC, &[CLIENT, NC, "-4", "-n", "-d", "-w", "1", &host, &ask], "", until)?;
                answered = client.stdout == GREETING.as_bytes();
            }
            let served = server.join().map_err(|_| Error::new(Kind::Internal, "a thread of the self-test died"))??;
            if !answered && served.end != End::TimedOut {
                let said = String::from_utf8_lossy(&served.stderr).into_owned();
                return Err(error!(System, "the server did not wait for the client ({said})"));
            }
            Ok(answered)
        })
    }

    fn take_down(&mut self) -> Result<()> {
        let removals = std::mem::take(&mut self.removals).into_iter().rev();
        Error::all(removals.filter_map(|(program, [a, b])| self.command(program, &[&a, &b]).err()))
    }
}

fn program(program: &str, arguments: &[&str], input: &str, until: Deadline) -> Result<child::Output> {
    child::run(Path::new(program), arguments, input.as_bytes(), None, None, until)
        .map_err(|error| Error::io(format_args!("run {program}"), &error))
}

/// Jails that are a value: packets are evaluated by the simulator.
struct Simulated {
    host: Fixed,
    sim: Sim,
    client: Net,
}

impl Ground for Simulated {
    fn host(&self) -> &dyn Host {
        &self.host
    }

    fn set_up(&mut self) -> Result<Interface> {
        let (inner, outer): (Interface, Interface) = ("epair0a".parse()?, "epair1a".parse()?);
        let jails = [(inner, SERVER, SERVER_NET), (outer, CLIENT, self.client)];
        for (jid, (interface, name, [outside, inside])) in (1..).zip(jails) {
            self.host.interfaces.push(HostInterface::up(interface, vec!["epair".parse()?], vec![outside]));
            let name = name.to_owned();
            self.host.vnet_addresses.insert(name.clone(), vec![inside.addr()]);
            self.host.jails.push(Jail { jid, name, vnet: true, ..Jail::default() });
        }
        Ok(outer)
    }

    fn connects(&self) -> Result<bool> {
        let mut world = World::of_host(&self.host, Release::V15)?;
        for (path, conf) in self.sim.rulesets(true)? {
            world.load_conf(&path, &conf);
        }
        let client = Party::Jail(CLIENT.to_owned());
        let [to, from] = self.client.map(|net| net.addr());
        let (from, to) = (SocketAddr::new(from, 40_000), SocketAddr::new(to, HOST_PORT));
        Ok(world.trace(&client, Protocol::Tcp, from, to).reaches(SERVER))
    }

    fn take_down(&mut self) -> Result<()> {
        Ok(())
    }
}
