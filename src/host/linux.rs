//! The facts of a Linux host: enough to try kport with the simulator. Linux has no jails.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use ipnet::IpNet;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;
use procfs::net::{TcpState, UdpNetEntry};
use procfs::process::FDTarget;
use procfs::{Current, ProcError, ProcResult};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use super::{Behind, Event, Events, Host, HostInterface, Interfaces, Jail, Jails, Listener, Process};
use crate::error::{Error, Kind, Result, error};
use crate::files::{above_stdio, taken};
use crate::net::{Family, Interface, PerFamily, Protocol};

/// The running host.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Host for System {
    /// It has no jails, and not what FreeBSD's sysctls set: the simulator forwards no packets.
    fn behind(&self) -> Result<Behind<'_>> {
        Ok(Behind::Read(Box::default()))
    }

    fn is_played(&self) -> bool {
        false
    }

    fn gateway(&self, family: Family) -> Result<Option<Interface>> {
        // addresses that nobody has (RFC 5737, RFC 3849): to reach one, only a default route is left; nothing is sent
        let outside = *PerFamily { inet: "192.0.2.1", inet6: "2001:db8::1" }.of(family);
        let _taken = taken();
        let socket = UdpSocket::bind((family.unspecified(), 0));
        let own = socket.and_then(|socket| socket.connect((outside, 9)).and_then(|()| socket.local_addr()));
        // there is no route, or the kernel does not have the family
        let Ok(own) = own else { return Ok(None) };
        Ok(Interfaces(&self.interfaces()?).holder(own.ip()).map(|interface| interface.name))
    }

    fn interfaces(&self) -> Result<Vec<HostInterface>> {
        // getifaddrs(3) opens a socket, which must not get the number of a closed standard input
        let _taken = taken();
        let all = getifaddrs().map_err(|errno| Error::io("getifaddrs", &errno.into()))?;
        let mut found: Vec<HostInterface> = Vec::new();
        for entry in all {
            let Ok(name) = entry.interface_name.parse() else { continue };
            let at = found.iter().position(|interface| interface.name == name).unwrap_or_else(|| {
                let up = entry.flags.contains(InterfaceFlags::IFF_UP);
                let point_to_point =
                    !entry.flags.intersects(InterfaceFlags::IFF_BROADCAST | InterfaceFlags::IFF_LOOPBACK);
                let new = HostInterface::up(name, Vec::new(), Vec::new());
                found.push(HostInterface { up, point_to_point, ..new });
                found.len() - 1
            });
            found[at].addresses.extend(network(&entry));
        }
        Ok(found)
    }

    /// An error, not an empty list: the caller must not take all jails for gone.
    fn jails(&self) -> Result<Jails> {
        Err(Error::new(Kind::Unsupported, "Linux has no jails, so it is unknown which of them are gone"))
    }

    fn vnet_addresses(&self, _: &Jail, _: Duration) -> Result<Vec<IpAddr>> {
        Err(Error::new(Kind::Unsupported, "Linux has no jails; pass the addresses"))
    }

    fn listeners(&self) -> Result<Vec<Listener>> {
        let mut tcp = read("/proc/net/tcp", procfs::net::tcp)?;
        tcp.extend(read("/proc/net/tcp6", procfs::net::tcp6)?);
        let listening = tcp.into_iter().filter(|socket| socket.state == TcpState::Listen);
        let range = "/proc/sys/net/ipv4/ip_local_port_range";
        let ephemeral = ephemeral(&read(range, || Ok(fs::read_to_string(range)?))?);
        let chosen = unconnected_udp()?.into_iter().filter(|socket| !ephemeral.contains(&socket.local_address.port()));
        let found = listening.map(|socket| listener(Protocol::Tcp, socket.local_address));
        Ok(found.chain(chosen.map(|socket| listener(Protocol::Udp, socket.local_address))).collect())
    }

    fn udp_holders(&self, port: u16) -> Result<Vec<Process>> {
        let bound = unconnected_udp()?.into_iter().filter(|socket| socket.local_address.port() == port);
        let sockets: BTreeSet<u64> = bound.map(|socket| socket.inode).collect();
        let processes = procfs::process::all_processes();
        let processes = processes.map_err(|e| error!(System, "read /proc: {e}"))?;
        // a process that has ended, or of another user, has no sockets that could be read
        let has = |process: &procfs::process::Process| {
            let mut files = process.fd().into_iter().flatten().flatten();
            files.any(|file| matches!(file.target, FDTarget::Socket(inode) if sockets.contains(&inode)))
        };
        let described = |process: procfs::process::Process| {
            Some(Process { pid: process.pid, jid: 0, arguments: process.cmdline().ok()? })
        };
        Ok(processes.flatten().filter(has).filter_map(described).collect())
    }

    fn boot_id(&self) -> Result<String> {
        let _taken = taken();
        procfs::sys::kernel::random::boot_id().map_err(no_proc)
    }

    fn uptime(&self) -> Result<u64> {
        let _taken = taken();
        Ok(procfs::Uptime::current().map_err(no_proc)?.uptime as u64)
    }
}

fn no_proc(error: ProcError) -> Error {
    error!(Unavailable, "{error}; is /proc mounted?")
}

/// The ports that the kernel chooses from. Unlike FreeBSD, Linux does not report whether it chose a socket's port: all
/// of these count as ports of clients.
pub fn ephemeral(range: &str) -> RangeInclusive<u16> {
    let mut ports = range.split_ascii_whitespace().map(str::parse);
    match (ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        _ => 32768..=60999,
    }
}

/// What procfs reads in a file; nothing if there is no such file, as with a kernel without IPv6.
fn read<T: Default>(file: &str, read: impl FnOnce() -> ProcResult<T>) -> Result<T> {
    let _taken = taken();
    match read() {
        Err(ProcError::NotFound(_)) => Ok(T::default()),
        read => read.map_err(|error| error!(System, "read {file}: {error}")),
    }
}

fn unconnected_udp() -> Result<Vec<UdpNetEntry>> {
    let mut found = read("/proc/net/udp", procfs::net::udp)?;
    found.extend(read("/proc/net/udp6", procfs::net::udp6)?);
    found.retain(|socket| socket.remote_address.port() == 0);
    Ok(found)
}

fn network(entry: &InterfaceAddress) -> Option<IpNet> {
    let address = ip(entry.address.as_ref()?)?;
    let mask = entry.netmask.as_ref().and_then(ip)?;
    IpNet::with_netmask(address, mask).ok()
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|a| a.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|a| a.ip().into()))
}

/// /proc does not show whether a socket on `::` has IPV6_V6ONLY, so it counts for both families: refusing a port is
/// better than taking it away from the host.
pub fn listener(protocol: Protocol, local: SocketAddr) -> Listener {
    let address = local.ip().to_canonical();
    Listener::bound(protocol, PerFamily { inet: true, inet6: address.is_ipv6() }, address, local.port())
}

/// The events of a system without jails: only the time passes.
pub struct Timer(OwnedFd);

impl Timer {
    pub fn new() -> Result<Timer> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = above_stdio(|| Ok(timerfd_create(TimerfdClockId::Monotonic, flags)?));
        timer.map(Timer).map_err(|error| Error::io("create a timer", &error))
    }
}

impl Events for Timer {
    fn next(&mut self, within: Duration) -> Result<Vec<Event>> {
        let timeout = Timespec::try_from(within).ok();
        // interrupted by a signal, or not: the caller looks
        if poll(&mut [PollFd::new(&self.0, PollFlags::IN)], timeout.as_ref()).is_ok_and(|ready| ready > 0) {
            _ = rustix::io::read(&self.0, &mut [0; 8]);
        }
        Ok(vec![])
    }

    fn wake(&mut self, within: Duration) {
        let zero = Timespec::default();
        // a timer of 0 would be off
        let it_value = Timespec::try_from(within.max(Duration::from_nanos(1))).unwrap_or(zero);
        _ = timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: zero, it_value });
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
