//! Real time: a packet bearer between UDP sockets on the loopback interface, so that foreign software can talk through it.
//!
//! All programs run on one machine, and what one sends to a group every socket in that group on that interface hears at once. So every
//! node has addresses of its own: the program of node `n` lives at its `host` address, the others reach it at its `avatar`, and it
//! knows every group by an address that no other node uses. What it sends to a group address of its own, or to another node's avatar,
//! enters the bearer; what survives is sent to the receiver's own group address, or to its host, from the sender's avatar and with the
//! same port. `docs/sim-scenario.md` shows how two programs are pointed at it. The bearer is the one that virtual time drives, paced
//! by [`Clock`]. Called by `bridge` and by end-to-end tests.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use aldis::time::Duration;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::config::{Destination, Group, NodeId};
use super::net::{Delivered, PacketNet};
use crate::bridge::Clock;
use crate::scenario::Satcom;

/// Datagrams waiting for the bearer; what comes beyond waits in the kernel, which drops what it cannot hold.
const BACKLOG: usize = 1024;

/// Longest UDP datagram.
const LONGEST: usize = 65_535;

/// Where a node's program is, and where it finds the others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeAddresses {
    /// The address the program binds and sends from.
    pub host: Ipv4Addr,
    /// Where the other programs find it, and what its datagrams come from.
    pub avatar: Ipv4Addr,
    /// Under which address this node knows each group, in order of the groups' ids.
    pub groups: Vec<Ipv4Addr>,
}

impl NodeAddresses {
    /// The usual addresses of a node of bearer number `bearer`: program at `127.77.bearer.n`, avatar `127.78.bearer.n`, group `g` at
    /// `239.192+bearer.g.n`, where `n` counts nodes from 1 and `g` groups from 0. Four bearers of 250 nodes at most.
    pub fn usual(bearer: u8, id: NodeId, groups: usize) -> Self {
        let n = u8::try_from(id.0 + 1).unwrap_or(u8::MAX);
        let groups = (0..u8::try_from(groups).unwrap_or(u8::MAX)).map(|g| Ipv4Addr::new(239, 192 + bearer % 4, g, n));
        Self {
            host: Ipv4Addr::new(127, 77, bearer, n),
            avatar: Ipv4Addr::new(127, 78, bearer, n),
            groups: groups.collect(),
        }
    }
}

/// The sockets of a bearer, bound and joined.
#[derive(Debug)]
pub struct Sockets {
    nodes: Vec<NodeAddresses>,
    ports: Vec<u16>,
    /// By node, then by port: bound to the avatar.
    avatars: Vec<Vec<Arc<UdpSocket>>>,
    /// Who sends to it, to which group, on which port.
    ears: Vec<(NodeId, Group, u16, UdpSocket)>,
}

impl Sockets {
    /// Binds the usual addresses of a scenario's bearer. Needs a tokio runtime.
    pub fn of(satcom: &Satcom) -> io::Result<Self> {
        if satcom.ports.is_empty() || satcom.number >= 4 {
            let problem = format!("satcom {}: only the first four with ports can be served in real time", satcom.name);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let number = u8::try_from(satcom.number).unwrap_or(u8::MAX);
        let ids = (0..).map(NodeId).take(satcom.members.len());
        let nodes = ids.map(|id| NodeAddresses::usual(number, id, satcom.groups.len())).collect();
        Self::open(nodes, satcom.ports.clone())
    }

    /// Where every node's program is, and where it finds the others.
    pub fn nodes(&self) -> &[NodeAddresses] {
        &self.nodes
    }

    /// Binds the sockets of every node, in order of their ids, for these UDP ports. Needs a tokio runtime.
    pub fn open(nodes: Vec<NodeAddresses>, ports: Vec<u16>) -> io::Result<Self> {
        check(&nodes)?;
        let (mut avatars, mut ears) = (Vec::new(), Vec::new());
        for (id, node) in (0..).map(NodeId).zip(&nodes) {
            let bound = ports.iter().map(|&port| bind(node.avatar, port).map(Arc::new));
            avatars.push(bound.collect::<io::Result<_>>()?);
            for (group, &address) in (0..).map(Group).zip(&node.groups) {
                for &port in &ports {
                    ears.push((id, group, port, bind(address, port)?));
                }
            }
        }
        Ok(Self { nodes, ports, avatars, ears })
    }
}

/// Carries datagrams between the sockets and the bearer until `shutdown` is done; gives the bearer back for its books.
pub async fn serve(
    mut net: PacketNet,
    clock: Clock,
    sockets: Sockets,
    shutdown: impl Future<Output = ()>,
) -> PacketNet {
    let (said, mut heard) = mpsc::channel(BACKLOG);
    let mut tasks = JoinSet::new();
    let Sockets { nodes, ports, avatars, ears } = sockets;
    let nodes = Arc::new(nodes);
    for (from, group, port, socket) in ears {
        // The bearer's own deliveries come from avatars; all else on a node's own group address is that node's.
        let nodes = nodes.clone();
        let sender = move |source: Ipv4Addr| (!nodes.iter().any(|n| n.avatar == source)).then_some(from);
        tasks.spawn(listen(Arc::new(socket), Destination::Group(group), port, sender, said.clone()));
    }
    for (id, sockets) in (0..).map(NodeId).zip(&avatars) {
        for (&port, socket) in ports.iter().zip(sockets) {
            let nodes = nodes.clone();
            let sender =
                move |source| (0..).map(NodeId).zip(nodes.iter()).find(|(_, n)| n.host == source).map(|(i, _)| i);
            tasks.spawn(listen(socket.clone(), Destination::Node(id), port, sender, said.clone()));
        }
    }
    tokio::pin!(shutdown);
    loop {
        let due = net.next_timeout().map(|at| {
            let wait = at.since(clock.now()).as_secs_f64() / clock.speed();
            // Rounded up: a timer that fires early would only fire again.
            tokio::time::sleep(Duration::from_secs_f64(wait + 1e-6))
        });
        let sleep = async {
            match due {
                Some(sleep) => sleep.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            word = heard.recv() => {
                // `said` lives as long as this loop.
                if let Some(Word { from, to, port, bytes }) = word {
                    net.send(clock.now(), from, to, port, &bytes);
                }
            }
            () = sleep => {}
        }
        net.handle_timeout(clock.now());
        while let Some((to, datagram)) = net.poll() {
            deliver(&nodes, &ports, &avatars, to, &datagram);
        }
    }
    net
}

/// What a program sent.
struct Word {
    from: NodeId,
    to: Destination,
    port: u16,
    bytes: Vec<u8>,
}

/// Reads a socket for as long as the bearer is served; what comes from nobody who is known is left out.
async fn listen(
    socket: Arc<UdpSocket>,
    to: Destination,
    port: u16,
    sender: impl Fn(Ipv4Addr) -> Option<NodeId>,
    said: mpsc::Sender<Word>,
) {
    let mut buffer = vec![0; LONGEST];
    loop {
        // An error here is about some datagram sent earlier, which nobody took.
        let Ok((length, SocketAddr::V4(source))) = socket.recv_from(&mut buffer).await else { continue };
        let Some(from) = sender(*source.ip()) else { continue };
        let bytes = buffer[..length].to_vec();
        if said.send(Word { from, to, port, bytes }).await.is_err() {
            return;
        }
    }
}

fn deliver(nodes: &[NodeAddresses], ports: &[u16], avatars: &[Vec<Arc<UdpSocket>>], to: NodeId, datagram: &Delivered) {
    let Delivered { from, group, port, bytes, .. } = datagram;
    let socket = ports.iter().position(|p| p == port).and_then(|i| avatars.get(usize::from(from.0))?.get(i));
    let address = nodes.get(usize::from(to.0)).and_then(|node| match group {
        Some(group) => node.groups.get(usize::from(group.0)).copied(),
        None => Some(node.host),
    });
    if let (Some(socket), Some(address)) = (socket, address) {
        // A program that is not there, or does not read, loses it: as on any network.
        let _ = socket.try_send_to(bytes, SocketAddr::V4(SocketAddrV4::new(address, *port)));
    }
}

fn check(nodes: &[NodeAddresses]) -> io::Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for node in nodes {
        let fits =
            node.host.is_loopback() && node.avatar.is_loopback() && node.groups.iter().all(Ipv4Addr::is_multicast);
        let mut own = [node.host, node.avatar].into_iter().chain(node.groups.iter().copied());
        if !fits || !own.all(|address| seen.insert(address)) {
            let problem = "every node needs a host and an avatar in 127.0.0.0/8 and multicast groups, all its own";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
    }
    Ok(())
}

/// A socket at this address, and in this group when it is one; group and sending are tied to the loopback interface.
fn bind(address: Ipv4Addr, port: u16) -> io::Result<UdpSocket> {
    let open = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // The program binds its group addresses too.
        socket.set_reuse_address(address.is_multicast())?;
        socket.bind(&SocketAddrV4::new(address, port).into())?;
        if address.is_multicast() {
            socket.join_multicast_v4(&address, &Ipv4Addr::LOCALHOST)?;
        }
        socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST)?;
        socket.set_multicast_loop_v4(true)?;
        socket.set_multicast_ttl_v4(1)?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket.into())
    };
    open().map_err(|error| io::Error::new(error.kind(), format!("{address}:{port}: {error}")))
}

#[cfg(test)]
mod tests {
    use aldis::time::Instant;

    use super::*;
    use crate::packet::{DatagramLoss, MemberConfig, NetConfig, PathConfig};

    /// Three programs with a group each knows by its own address: the first reaches the second, not the third.
    #[tokio::test]
    async fn programs_hear_what_the_bearer_lets_through_and_never_each_other() {
        let [a, b, c] = [0, 1, 2].map(NodeId);
        let member = MemberConfig { rate_bps: 1_000_000, bucket_bytes: 0, queue_bytes: 10_000, mtu_bytes: 1500 };
        let delay = Duration::from_millis(500);
        let path = PathConfig { delay, jitter: Duration::ZERO, loss: DatagramLoss::Ideal, up: true };
        let net = PacketNet::new(NetConfig {
            seed: 1,
            members: vec![member; 3],
            paths: [(a, b), (b, a), (b, c)].map(|ends| (ends, path)).into(),
            groups: vec![[a, b, c].into()],
            ..NetConfig::default()
        });
        let port = free_port();
        let nodes = [a, b, c].map(|id| NodeAddresses::usual(250, id, 1));
        let sockets = Sockets::open(nodes.to_vec(), vec![port]).expect("loopback with multicast");
        let programs = nodes.clone().map(|node| Program::start(&node, port));
        let clock = Clock::start(5.0);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let bearer = tokio::spawn(serve(net, clock, sockets, async { drop(stopped.await) }));

        programs[0].say(nodes[0].groups[0], b"to all, from the first").await;
        let (bytes, from) = programs[1].group().await;
        assert_eq!((bytes.as_slice(), from), (&b"to all, from the first"[..], nodes[0].avatar));
        assert!(clock.now() >= Instant::ZERO + delay);

        programs[1].say(nodes[0].avatar, b"to you").await;
        let (bytes, from) = programs[0].own().await;
        assert_eq!((bytes.as_slice(), from), (&b"to you"[..], nodes[1].avatar));

        // The third hears the second, and this is the first it hears.
        programs[1].say(nodes[1].groups[0], b"to all, from the second").await;
        assert_eq!(programs[2].group().await.0, b"to all, from the second");
        // A program hears itself, as software on one machine does; then the second's.
        assert_eq!(programs[0].group().await.0, b"to all, from the first");
        assert_eq!(programs[0].group().await.0, b"to all, from the second");

        drop(stop);
        let net = bearer.await.expect("served to its end");
        assert_eq!(net.stats(a, c).unreachable.datagrams, 1);
        assert_eq!(net.stats(b, a).delivered.datagrams, 2);
        net.balance().expect("all accounted for");
    }

    #[tokio::test]
    async fn addresses_that_two_nodes_share_are_refused() {
        let mut nodes = vec![NodeAddresses::usual(251, NodeId(0), 1), NodeAddresses::usual(251, NodeId(1), 1)];
        nodes[1].groups[0] = nodes[0].groups[0];
        let error = Sockets::open(nodes, vec![free_port()]).expect_err("shared");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    /// Foreign software: a socket at its own address to send from, and one in its group.
    struct Program {
        port: u16,
        own: UdpSocket,
        group: UdpSocket,
    }

    impl Program {
        fn start(node: &NodeAddresses, port: u16) -> Self {
            let open = |address| bind(address, port).expect("free");
            Self { port, own: open(node.host), group: open(node.groups[0]) }
        }

        async fn say(&self, to: Ipv4Addr, bytes: &[u8]) {
            self.own.send_to(bytes, (to, self.port)).await.expect("sent");
        }

        async fn own(&self) -> (Vec<u8>, Ipv4Addr) {
            read(&self.own).await
        }

        async fn group(&self) -> (Vec<u8>, Ipv4Addr) {
            read(&self.group).await
        }
    }

    async fn read(socket: &UdpSocket) -> (Vec<u8>, Ipv4Addr) {
        let mut buffer = [0; 2000];
        let (length, source) = socket.recv_from(&mut buffer).await.expect("received");
        let SocketAddr::V4(source) = source else { panic!("IPv4 only") };
        (buffer[..length].to_vec(), *source.ip())
    }

    fn free_port() -> u16 {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        socket.local_addr().expect("bound").port()
    }
}
