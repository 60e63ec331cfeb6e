//! A real network for tests: two fresh network namespaces with veth pairs between them, gone with the test.
//!
//! No namespace gets a name: each lives as long as its file descriptors and the thread in it.

use std::{
    fs::{self, File},
    future::Future,
    net::{IpAddr, Ipv6Addr},
    panic::resume_unwind,
    time::Duration,
};

use ipnet::IpNet;
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::{
    LinkUnspec, LinkVeth, MulticastGroup, RouteMessageBuilder,
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressHeaderFlags},
        link::{LinkFlags, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
        route::{RouteMessage, RouteMetric, RouteType},
    },
};
use tokio::time::timeout;

use super::{
    Mac, Netlink,
    links::{Inventory, Link},
    netlink::{Event, EventSocket},
};

/// Longest life of a test: far above what any needs, so that only a hang meets it.
const TEST_TIME: Duration = Duration::from_secs(60);
/// Longest wait for one condition.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Runs `test` in a network namespace of its own, on a thread of its own that ends with it. Without root the test is
/// skipped, aloud; with `LB_REQUIRE_ROOT` in the environment it fails instead.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        assert!(
            std::env::var_os("LB_REQUIRE_ROOT").is_none(),
            "LB_REQUIRE_ROOT is set, and this test needs root (network namespaces): run it as root"
        );
        eprintln!("skipped: needs root");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { timeout(TEST_TIME, test()).await.expect("the test hangs") });
    });
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}

/// Keeps the calling thread on one CPU, and with it what it sends through a veth pair in order: each CPU delivers
/// what was sent on it.
pub(super) fn stay_on_one_cpu() {
    use nix::{
        sched::{CpuSet, sched_getcpu, sched_setaffinity},
        unistd::Pid,
    };
    let mut here = CpuSet::new();
    here.set(sched_getcpu().unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &here).unwrap();
}

/// The namespace of the test's thread ("ours") and another one.
pub(crate) struct TestNet {
    pub(crate) ours: Side,
    pub(crate) peer: Side,
}

/// One namespace.
pub(crate) struct Side {
    namespace: File,
    pub(crate) netlink: Netlink,
}

impl TestNet {
    /// Makes the second namespace and prepares both: no duplicate address detection.
    pub(crate) fn new() -> Self {
        let ours = Side::of_this_thread();
        unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace");
        let peer = Side::of_this_thread();
        let net = Self { ours, peer };
        net.ours.enter();
        net
    }

    /// As [`TestNet::new`], with `lb0` here joined to `srv0` there, both up and with an address of each family:
    /// 198.51.100.1 and 2001:db8::1 here, .11 and ::11 there.
    pub(crate) async fn joined() -> Self {
        let net = Self::new();
        net.veth("lb0", "srv0").await;
        net.ours.address("lb0", "198.51.100.1/24").await;
        net.ours.address("lb0", "2001:db8::1/64").await;
        net.peer.address("srv0", "198.51.100.11/24").await;
        net.peer.address("srv0", "2001:db8::11/64").await;
        net
    }

    /// Joins both by a veth pair, both ends ready to send and quick to notice changes of neighbours.
    pub(crate) async fn veth(&self, ours: &str, peer: &str) {
        use std::os::fd::AsRawFd;
        let handle = self.ours.netlink.handle();
        handle.link().add(LinkVeth::new(ours, peer).build()).execute().await.expect("a veth pair");
        let namespace = self.peer.namespace.as_raw_fd();
        self.ours.set(LinkUnspec::new_with_name(peer).setns_by_fd(namespace).build()).await;
        impatient(ours);
        self.in_peer(|| impatient(peer));
        let watch = || EventSocket::open(&[MulticastGroup::Link], 1 << 20).unwrap();
        let (mut here, mut there) = (watch(), self.in_peer(watch));
        self.ours.up(ours).await;
        self.peer.up(peer).await;
        self.ours.ready(ours, &mut here).await;
        self.peer.ready(peer, &mut there).await;
    }

    /// Runs `work` inside the other namespace. Sockets made there stay there.
    pub(crate) fn in_peer<T>(&self, work: impl FnOnce() -> T) -> T {
        self.peer.enter();
        let result = work();
        self.ours.enter();
        result
    }
}

impl Side {
    fn of_this_thread() -> Self {
        let namespace = File::open("/proc/thread-self/ns/net").unwrap();
        sysctl("ipv6/conf/default/accept_dad", "0");
        Self { namespace, netlink: Netlink::connect().unwrap() }
    }

    fn enter(&self) {
        setns(&self.namespace, CloneFlags::CLONE_NEWNET).expect("back into a network namespace");
    }

    pub(crate) async fn link(&self, name: &str) -> Link {
        Inventory::read(&self.netlink).await.unwrap().by_name(name).unwrap().clone()
    }

    pub(crate) async fn set(&self, message: LinkMessage) {
        self.netlink.handle().link().set(message).execute().await.expect("set a link");
    }

    pub(crate) async fn up(&self, name: &str) {
        self.set(LinkUnspec::new_with_name(name).up().build()).await;
    }

    /// Waits until an interface can send: the kernel starts its queue, which drops without a word until then, just
    /// before it announces the interface as running (and after it lists it so).
    async fn ready(&self, name: &str, changes: &mut EventSocket) {
        let index = self.link(name).await.index;
        let running = |event: &Event| match event {
            Event::Changed(RouteNetlinkMessage::NewLink(message)) => {
                message.header.index == index && message.header.flags.contains(LinkFlags::Running)
            }
            _ => false,
        };
        while !changes.recv().await.unwrap().iter().any(running) {}
    }

    pub(crate) async fn down(&self, name: &str) {
        self.set(LinkUnspec::new_with_name(name).down().build()).await;
    }

    /// Deletes an interface.
    pub(crate) async fn delete(&self, name: &str) {
        let index = self.link(name).await.index;
        self.netlink.handle().link().del(index).execute().await.expect("delete a link");
    }

    pub(crate) async fn mac(&self, name: &str, mac: Mac) {
        self.set(LinkUnspec::new_with_name(name).address(mac.to_vec()).build()).await;
    }

    pub(crate) async fn address(&self, name: &str, net: &str) {
        let (index, net) = (self.link(name).await.index, net.parse::<IpNet>().unwrap());
        let mut request = self.netlink.handle().address().add(index, net.addr(), net.prefix_len());
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        request.execute().await.expect("add an address");
    }

    pub(crate) async fn remove_address(&self, name: &str, net: &str) {
        let (index, net) = (self.link(name).await.index, net.parse::<IpNet>().unwrap());
        let mut message = rtnetlink::packet_route::address::AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = net.prefix_len();
        message.header.family = family(net.addr());
        message.attributes = vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
        self.netlink.handle().address().del(message).execute().await.expect("remove an address");
    }

    /// Adds a route; `shape` says where it leads.
    pub(crate) async fn route(
        &self,
        destination: &str,
        shape: impl FnOnce(&mut RouteMessage),
    ) -> RouteMessage {
        let mut message = prefix(destination);
        shape(&mut message);
        let handle = self.netlink.handle();
        handle.route().add(message.clone()).execute().await.expect("add a route");
        message
    }

    pub(crate) async fn remove_route(&self, message: RouteMessage) {
        self.netlink.handle().route().del(message).execute().await.expect("remove a route");
    }

    /// Adds a neighbour in the given state.
    pub(crate) async fn neighbour(&self, name: &str, ip: &str, mac: Mac, state: NeighbourState) {
        let (index, ip) = (self.link(name).await.index, ip.parse().unwrap());
        let request = self.netlink.handle().neighbours().add(index, ip).state(state);
        request.link_layer_address(&mac).replace().execute().await.expect("add a neighbour");
    }

    /// Deletes a neighbour entry.
    pub(crate) async fn forget(&self, entry: NeighbourMessage) {
        self.netlink.handle().neighbours().del(entry).execute().await.expect("delete a neighbour");
    }

    /// What the kernel has of a neighbour.
    pub(crate) async fn entry(&self, ip: &str) -> Option<NeighbourMessage> {
        let ip = NeighbourAddress::from(ip.parse::<IpAddr>().unwrap());
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let entries: Vec<NeighbourMessage> = self
            .netlink
            .dump("list neighbours", &request, |entries: &mut Vec<_>, message| {
                if let RouteNetlinkMessage::NewNeighbour(entry) = message {
                    entries.push(entry);
                }
            })
            .await
            .unwrap();
        entries
            .into_iter()
            .find(|entry| entry.attributes.contains(&NeighbourAttribute::Destination(ip.clone())))
    }
}

/// Writes a setting of the calling thread's network namespace.
fn sysctl(name: &str, value: &str) {
    fs::write(format!("/proc/sys/net/{name}"), value).unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// Lets neighbours of an interface fail, be probed and change their MAC address much faster than usual.
fn impatient(interface: &str) {
    for family in ["ipv4", "ipv6"] {
        sysctl(&format!("{family}/neigh/{interface}/retrans_time_ms"), "20");
        sysctl(&format!("{family}/neigh/{interface}/interval_probe_time_ms"), "100");
    }
    sysctl(&format!("ipv4/neigh/{interface}/locktime"), "0");
}

fn family(ip: IpAddr) -> rtnetlink::packet_route::AddressFamily {
    use rtnetlink::packet_route::AddressFamily;
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// A unicast route to `destination` that leads nowhere yet.
pub(crate) fn prefix(destination: &str) -> RouteMessage {
    match destination.parse::<IpNet>().unwrap() {
        IpNet::V4(net) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .build(),
        IpNet::V6(net) => {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(net.addr(), net.prefix_len()).build()
        }
    }
}

/// Shapes a route: through a router of the same family or, for IPv4, of IPv6.
pub(crate) fn via(gateway: &str) -> impl FnOnce(&mut RouteMessage) {
    use rtnetlink::packet_route::route::{RouteAttribute, RouteVia};
    let gateway: IpAddr = gateway.parse().unwrap();
    move |message| {
        let same = message.header.address_family == family(gateway);
        message.attributes.push(if same {
            RouteAttribute::Gateway(gateway.into())
        } else {
            RouteAttribute::Via(RouteVia::from(gateway))
        });
    }
}

/// Shapes a route: of another type.
pub(crate) fn of_type(kind: RouteType) -> impl FnOnce(&mut RouteMessage) {
    move |message| message.header.kind = kind
}

/// Shapes a route: through an interface.
pub(crate) fn through(index: u32) -> impl FnOnce(&mut RouteMessage) {
    use rtnetlink::packet_route::route::RouteAttribute;
    move |message| message.attributes.push(RouteAttribute::Oif(index))
}

/// Adds an MTU to a route.
pub(crate) fn mtu(message: &mut RouteMessage, mtu: u32) {
    use rtnetlink::packet_route::route::RouteAttribute;
    message.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
}
