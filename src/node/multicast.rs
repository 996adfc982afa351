//! Drives the sockets of one bearer on an IP network, whatever it speaks there.
//!
//! It sends nothing but a redeemed [`Emission`](crate::emcon::Emission), and decides nothing. Everything leaves from the interface's own
//! address, so that acknowledgements find back. A group that somebody else has joined on this machine is heard without a word to the
//! network; joining one is an emission, too (link-rules B5), and so is leaving one, as dynamic groups are. The kernel speaks of what is joined
//! by itself, also when this process has ended: [`Filter`] holds it back. The kernel's buffer for what leaves is as small as it may be: the
//! station keeps below the rate, so that an order of silence finds a datagram or two on their way and no more.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{AbortHandle, JoinSet};

use super::clock::Clock;
use super::igmp::Filter;
use super::modem::Order;
use crate::bearer::ModemAction;
use crate::config::plan::{Join, NetPlan};
use crate::emcon::{EpochWatch, FILTER_HOLDS, Keying};
use crate::mail::BearerId;
use crate::switch::Input;
use crate::time::{Duration, Instant};

/// Datagrams that may wait for the switch, all bearers together.
const MOST_WAITING: usize = 1024;
/// Octets of datagrams that the kernel may hold on their way out; it takes at least what one needs.
const SEND_BUFFER: usize = 4096;
/// Octets it may hold on their way in.
const RECEIVE_BUFFER: usize = 1 << 20;
/// How often the filter is told that it is to stay open: it may miss one word.
const HOLD_AGAIN: Duration = Duration::from_secs(1);
/// Until sockets that failed are opened again.
const REOPEN: Duration = Duration::from_secs(2);

/// Datagrams that have been read and not yet been taken by the switch.
#[derive(Clone, Debug, Default)]
pub struct Backlog(Arc<AtomicUsize>);

impl Backlog {
    /// Makes room for one, if there is any.
    fn enter(&self) -> bool {
        let room = |waiting| (waiting < MOST_WAITING).then_some(waiting + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok()
    }

    /// The switch has taken one.
    pub fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a driver needs to know of its bearer.
#[derive(Clone, Debug)]
pub struct Net {
    bearer: BearerId,
    interface: Ipv4Addr,
    groups: Vec<Ipv4Addr>,
    /// Everything leaves from the first.
    ports: Vec<u16>,
    /// Where dynamic groups are spoken of: a group and its ports.
    control: Option<(Ipv4Addr, [u16; 2])>,
    ttl: u8,
    join: Join,
}

impl Net {
    /// The net of a planned bearer.
    pub fn of(plan: &NetPlan) -> Self {
        Self {
            bearer: plan.id.clone(),
            interface: plan.interface,
            groups: plan.groups.clone(),
            ports: plan.ports.clone(),
            control: plan.control.as_ref().map(|control| (control.group, control.ports)),
            ttl: plan.ttl,
            join: plan.join,
        }
    }
}

struct Sockets {
    /// What holds IGMP back where groups are joined by it.
    filter: Option<Filter>,
    /// What leaves, leaves here.
    own: Arc<UdpSocket>,
    /// The same address at the other ports: some send there what is for one node.
    beside: Vec<Arc<UdpSocket>>,
    /// By group, all ports.
    groups: Vec<(Ipv4Addr, Arc<UdpSocket>)>,
}

impl Sockets {
    fn open(net: &Net) -> Result<Self, String> {
        let open = |address: Ipv4Addr, port: u16| {
            socket(net, SocketAddrV4::new(address, port)).map_err(|e| format!("cannot bind {address}:{port}: {e}"))
        };
        // First of all closed: whoever ended here may have left it open.
        let filter = if net.join == Join::Igmp { Filter::of(net.interface)? } else { None };
        filter.as_ref().map_or(Ok(()), Filter::close)?;
        let mut groups = Vec::new();
        for group in &net.groups {
            for port in &net.ports {
                groups.push((*group, open(*group, *port)?));
            }
        }
        if let Some((group, ports)) = &net.control {
            for port in ports {
                groups.push((*group, open(*group, *port)?));
            }
        }
        let (first, others) = net.ports.split_first().ok_or("it has no port")?;
        let others = others.iter().chain(net.control.iter().flat_map(|(_, ports)| ports));
        let beside = others.map(|port| open(net.interface, *port)).collect::<Result<_, _>>()?;
        Ok(Self { filter, own: open(net.interface, *first)?, beside, groups })
    }

    fn join(&self, net: &Net) -> Result<(), String> {
        let mut joined = Vec::new();
        for (group, socket) in &self.groups {
            if joined.contains(group) {
                continue;
            }
            joined.push(*group);
            join(net, *group, socket)?;
        }
        Ok(())
    }
}

/// Joins a group. One that is joined is left before: in silence routers got no answer and may have forgotten it, and the kernel speaks only
/// of what changes.
fn join(net: &Net, group: Ipv4Addr, socket: &UdpSocket) -> Result<(), String> {
    let socket = SockRef::from(socket);
    let _ = socket.leave_multicast_v4(&group, &net.interface);
    let done = socket.join_multicast_v4(&group, &net.interface);
    done.map_err(|e| format!("cannot join {group} on {}: {e}", net.interface))
}

fn socket(net: &Net, at: SocketAddrV4) -> io::Result<Arc<UdpSocket>> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Other nodes of this machine may hear the same groups.
    socket.set_reuse_address(at.ip().is_multicast())?;
    socket.set_nonblocking(true)?;
    socket.set_multicast_if_v4(&net.interface)?;
    socket.set_multicast_ttl_v4(net.ttl.into())?;
    socket.set_multicast_loop_v4(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&SocketAddr::from(at).into())?;
    UdpSocket::from_std(socket.into()).map(Arc::new)
}

/// A dynamic group that is joined. It is left when its last socket closes.
struct Member {
    /// By which it is joined.
    socket: Arc<UdpSocket>,
    readers: Vec<AbortHandle>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.readers.iter().for_each(AbortHandle::abort);
    }
}

/// Sockets for a dynamic group, the first of them joined.
fn join_one(net: &Net, group: Ipv4Addr) -> Result<(Arc<UdpSocket>, Vec<Arc<UdpSocket>>), String> {
    let open = |port: &u16| {
        socket(net, SocketAddrV4::new(group, *port)).map_err(|e| format!("cannot bind {group}:{port}: {e}"))
    };
    let sockets: Vec<_> = net.ports.iter().map(open).collect::<Result<_, _>>()?;
    let first = sockets.first().cloned().ok_or("it has no port")?;
    join(net, group, &first)?;
    Ok((first, sockets))
}

/// The filter of an interface that is to be held open.
#[derive(Clone, Copy)]
struct Held {
    /// The bearer's epoch in which that was allowed.
    epoch: u64,
    until: Option<Instant>,
}

impl Held {
    /// Whether it may be open for another while.
    fn goes_on(self, clock: &Clock, watch: &EpochWatch) -> bool {
        self.epoch == watch.current() && self.until.is_none_or(|until| clock.at() + FILTER_HOLDS <= until)
    }
}

enum Ended {
    NodeStops,
    Fault(String),
}

/// Runs until the node stops: opens the sockets, and again after a fault.
pub async fn drive(
    net: Net,
    clock: Clock,
    watch: EpochWatch,
    mut orders: UnboundedReceiver<Order>,
    to: Sender<Input>,
    backlog: Backlog,
) {
    let tell = |fault: Option<String>| _ = to.send(Input::Port { bearer: net.bearer.clone(), fault });
    let mut told = false;
    loop {
        let ended = match Sockets::open(&net) {
            Ok(sockets) => {
                if net.join == Join::Static {
                    warn_of_unjoined(&net);
                }
                tell(None);
                told = false;
                run(&net, sockets, &clock, &watch, &mut orders, &to, &backlog).await
            }
            Err(why) => Ended::Fault(why),
        };
        match ended {
            Ended::NodeStops => return,
            Ended::Fault(why) if told => tracing::debug!(%why, "still"),
            Ended::Fault(why) => {
                told = true;
                tell(Some(why));
            }
        }
        let again = tokio::time::sleep(REOPEN);
        tokio::pin!(again);
        loop {
            tokio::select! {
                // What was to leave meanwhile is stale.
                order = orders.recv() => if order.is_none() { return },
                () = &mut again => break,
            }
        }
    }
}

async fn run(
    net: &Net,
    mut sockets: Sockets,
    clock: &Clock,
    watch: &EpochWatch,
    orders: &mut UnboundedReceiver<Order>,
    to: &Sender<Input>,
    backlog: &Backlog,
) -> Ended {
    let missed = Arc::new(AtomicU64::new(0));
    let mut readers = JoinSet::new();
    let all = sockets.groups.iter().map(|(_, s)| s).chain([&sockets.own]).chain(&sockets.beside);
    for socket in all {
        readers.spawn(read(socket.clone(), net.bearer.clone(), to.clone(), backlog.clone(), missed.clone()));
    }
    let mut members: BTreeMap<Ipv4Addr, Member> = BTreeMap::new();
    let mut dscp = 0;
    let mut held: Option<Held> = None;
    // It closes before any socket does, because the kernel says so of each group: this is dropped first.
    let filter = sockets.filter.take();
    let mut again = tokio::time::interval(HOLD_AGAIN);
    again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = again.tick(), if held.is_some() => {
                held = held.filter(|held| held.goes_on(clock, watch));
                if let Some(Err(why)) = filter.as_ref().filter(|_| held.is_some()).map(Filter::open) {
                    return Ended::Fault(why);
                }
            }
            order = orders.recv() => {
                let emission = match order {
                    Some(Order::Emit(emission)) => emission,
                    // Silence: what is said of memberships is held back before anything else is done.
                    Some(Order::Act(ModemAction::Abort)) => {
                        held = None;
                        match filter.as_ref().map(Filter::close) {
                            Some(Err(why)) => return Ended::Fault(why),
                            Some(Ok(())) | None => continue,
                        }
                    }
                    Some(Order::Act(ModemAction::Transmit(_) | ModemAction::Unkey)) => continue,
                    None => return Ended::NodeStops,
                };
                // Before it is redeemed: an order that comes between the two is not taken for what allowed this.
                let epoch = watch.current();
                if let Err(e) = sockets.own.writable().await {
                    return Ended::Fault(format!("cannot send: {e}"));
                }
                let sent = match emission.redeem(watch, clock.at()) {
                    Some(Keying::Datagram { to, dscp: wanted, bytes }) => {
                        let marked = match wanted == dscp {
                            true => Ok(()),
                            false => SockRef::from(&*sockets.own).set_tos_v4(u32::from(wanted) << 2),
                        };
                        dscp = wanted;
                        marked.and_then(|()| sockets.own.try_send_to(&bytes, SocketAddr::from(to))).map(drop).map_err(|e| (e, to))
                    }
                    Some(Keying::Igmp { until }) => {
                        held = Some(Held { epoch, until }).filter(|held| held.goes_on(clock, watch));
                        match filter.as_ref().filter(|_| held.is_some()).map(Filter::open) {
                            Some(Err(why)) => return Ended::Fault(why),
                            Some(Ok(())) | None => Ok(()),
                        }
                    }
                    Some(Keying::Join) => {
                        let others = members.iter().map(|(group, member)| join(net, *group, &member.socket));
                        match [sockets.join(net)].into_iter().chain(others).collect::<Result<(), _>>() {
                            Ok(()) => Ok(()),
                            Err(why) => return Ended::Fault(why),
                        }
                    }
                    Some(Keying::Membership { group, member: true }) => match join_one(net, group) {
                        Ok((joined, sockets)) => {
                            let reader = |socket: Arc<UdpSocket>| {
                                let (to, backlog) = (to.clone(), backlog.clone());
                                readers.spawn(read(socket, net.bearer.clone(), to, backlog, missed.clone()))
                            };
                            let readers = sockets.into_iter().map(reader).collect();
                            members.insert(group, Member { socket: joined, readers });
                            Ok(())
                        }
                        Err(why) => return Ended::Fault(why),
                    },
                    Some(Keying::Membership { group, member: false }) => {
                        members.remove(&group);
                        Ok(())
                    }
                    // Stale, or for a modem.
                    Some(Keying::Key | Keying::Feed(_)) | None => Ok(()),
                };
                match sent {
                    Ok(()) => {}
                    // Lost, as on any net: what is missing is asked for again.
                    Err((e, _)) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err((e, to)) => return Ended::Fault(format!("cannot send to {to}: {e}")),
                }
            }
            ended = readers.join_next() => {
                let why = match ended {
                    // Of a group that was left.
                    Some(Err(e)) if e.is_cancelled() => continue,
                    Some(Ok(error)) => error.to_string(),
                    Some(Err(_)) | None => "its reader ended".to_owned(),
                };
                return Ended::Fault(format!("cannot receive: {why}"));
            }
        }
    }
}

/// Hands every datagram to the switch, until the socket fails.
async fn read(
    socket: Arc<UdpSocket>,
    bearer: BearerId,
    to: Sender<Input>,
    backlog: Backlog,
    missed: Arc<AtomicU64>,
) -> io::Error {
    let mut buffer = vec![0; 65_535];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(read) => read,
            // An ICMP message about something that was sent before.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(e) => return e,
        };
        let IpAddr::V4(from) = from.ip() else { continue };
        if !backlog.enter() {
            missed.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let (bytes, missed) = (buffer[..length].to_vec(), missed.swap(0, Ordering::Relaxed));
        let _ = to.send(Input::Datagram { bearer: bearer.clone(), from, bytes, missed });
    }
}

/// Says so where nobody has joined a group: nothing would be heard, and nothing else would show it.
fn warn_of_unjoined(net: &Net) {
    let Ok(table) = std::fs::read_to_string("/proc/net/igmp") else { return };
    for group in net.groups.iter().filter(|group| !is_joined(&table, **group)) {
        tracing::warn!(
            bearer = %net.bearer,
            "{group} is joined on no interface of this machine, so it will not be heard: \
             join = \"igmp\", or set the interface up as docs/satcom.md says (autojoin, and no local route)"
        );
    }
}

/// The kernel writes a group as it stands in memory.
fn is_joined(table: &str, group: Ipv4Addr) -> bool {
    let written = format!("{:08X}", u32::from_ne_bytes(group.octets()));
    table.lines().filter_map(|line| line.split_whitespace().next()).any(|word| word == written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_joined_group_is_found_in_the_kernels_table() {
        let table = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n1\tlo        :     1      V3\n\
                     \t\t\t\t010000E0     1 0:00000000\t\t0\n\t\t\t\t0A0101EF     1 0:00000000\t\t0\n";
        let group = |octets: [u8; 4]| Ipv4Addr::from(octets);
        assert_eq!(is_joined(table, group([239, 1, 1, 10])), cfg!(target_endian = "little"));
        assert!(!is_joined(table, group([239, 1, 1, 11])));
    }

    #[test]
    fn the_backlog_is_bounded() {
        let backlog = Backlog::default();
        let entered = (0..MOST_WAITING + 5).filter(|_| backlog.enter()).count();
        assert_eq!(entered, MOST_WAITING);
        backlog.leave();
        assert!(backlog.enter() && !backlog.enter());
    }
}
