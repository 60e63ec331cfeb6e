//! Interfaces and local addresses: read once, or followed live.
//!
//! ```text
//! Inventory::read ── one consistent picture            (checks at start: interface there? VIP not local?)
//! InventoryWatch  ── the same picture, kept up to date (next hops, status)
//! ```

mod local;
mod parse;
mod watch;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    address::AddressMessage,
    link::{LinkAttribute, LinkExtentMask, LinkMessage},
};

use super::{Mac, NetError, Netlink};
pub use watch::InventoryWatch;

/// One interface of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index: unique while the interface lives, kept when it is renamed.
    pub index: u32,
    /// Name, as in `ip link`.
    pub name: String,
    /// Ethernet address; `None` where the interface has none (loopback, tunnels).
    pub mac: Option<Mac>,
    /// MTU in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Set up by the operator (`ip link set … up`).
    pub up: bool,
    /// Up and with a carrier (cable plugged, veth peer up), noticed by the kernel: the operational state is up, or
    /// unknown for devices that do not tell. Before that the kernel drops what it is given to send.
    pub carrier: bool,
    /// The loopback interface.
    pub loopback: bool,
    /// Kind of a virtual interface as the kernel names it ("veth", "bridge"); `None` for hardware.
    pub kind: Option<String>,
    /// Unicast addresses with their prefix lengths.
    pub addresses: Vec<IpNet>,
}

impl Link {
    /// The Ethernet address, or the error that says why there is none.
    ///
    /// # Errors
    /// [`NetError::NotEthernet`].
    pub fn ethernet(&self) -> Result<Mac, NetError> {
        self.mac.ok_or_else(|| NetError::NotEthernet {
            name: self.name.clone(),
            kind: match &self.kind {
                Some(kind) => kind.clone(),
                None if self.loopback => "loopback".to_owned(),
                None => "not Ethernet".to_owned(),
            },
        })
    }

    /// Whether the kernel takes packets to `ip` as its own because of this interface.
    fn owns(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|net| {
            // An IPv4 prefix on loopback is local as a whole (127.0.0.0/8, anycast prefixes on lo); elsewhere, and
            // in IPv6, only the address itself is.
            net.addr() == ip || (self.loopback && matches!(net, IpNet::V4(_)) && net.contains(&ip))
        })
    }
}

/// All interfaces of a network namespace with their addresses, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    links: BTreeMap<u32, Link>,
}

impl Inventory {
    /// Reads interfaces and addresses.
    ///
    /// # Errors
    /// When the kernel refuses a dump or does not answer.
    pub async fn read(netlink: &Netlink) -> Result<Self, NetError> {
        let mut request = LinkMessage::default();
        // Statistics are a good part of a link message and not wanted.
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let mut inventory: Self = netlink
            .dump("list interfaces", &RouteNetlinkMessage::GetLink(request), |all: &mut Self, message| {
                all.apply(&message);
            })
            .await?;
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let addresses: Vec<RouteNetlinkMessage> =
            netlink.dump("list addresses", &request, |all: &mut Vec<_>, message| all.push(message)).await?;
        for message in &addresses {
            inventory.apply(message);
        }
        Ok(inventory)
    }

    /// The interface called `name`.
    ///
    /// # Errors
    /// [`NetError::NoSuchInterface`], which lists those that exist.
    pub fn by_name(&self, name: &str) -> Result<&Link, NetError> {
        self.iter().find(|link| link.name == name).ok_or_else(|| {
            let names: Vec<_> = self.iter().map(|link| link.name.as_str()).collect();
            NetError::NoSuchInterface {
                name: name.to_owned(),
                existing: if names.is_empty() { "none".to_owned() } else { names.join(", ") },
            }
        })
    }

    /// The interface with this index.
    #[must_use]
    pub fn by_index(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// Every interface, by index.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// Every address of this host with the interface that has it. [`Inventory::owner`] knows loopback prefixes too.
    pub fn local_addresses(&self) -> impl Iterator<Item = (IpAddr, &Link)> {
        self.iter().flat_map(|link| link.addresses.iter().map(move |net| (net.addr(), link)))
    }

    /// The interface that makes `ip` a local address of this host, if any.
    #[must_use]
    pub fn owner(&self, ip: IpAddr) -> Option<&Link> {
        self.iter().find(|link| link.owns(ip))
    }

    /// The interface with a connected IPv4 subnet around `ip`, longest prefix first. Tells why there is no route:
    /// the kernel drops IPv4 routes of an interface that is down but keeps its addresses.
    pub(super) fn subnet_of(&self, ip: Ipv4Addr) -> Option<&Link> {
        let nets = self.iter().flat_map(|link| link.addresses.iter().map(move |net| (net, link)));
        nets.filter(|(net, _)| net.contains(&IpAddr::V4(ip)))
            .max_by_key(|(net, _)| net.prefix_len())
            .map(|(_, link)| link)
    }

    /// Takes in one message; says whether anything that is kept here changed.
    fn apply(&mut self, message: &RouteNetlinkMessage) -> bool {
        match message {
            RouteNetlinkMessage::NewLink(message) => {
                parse::link(message).is_some_and(|link| self.put_link(link))
            }
            RouteNetlinkMessage::DelLink(message) => {
                parse::is_about_the_link(message) && self.links.remove(&message.header.index).is_some()
            }
            RouteNetlinkMessage::NewAddress(message) => {
                parse::address(message).is_some_and(|net| self.put_address(message.header.index, net))
            }
            RouteNetlinkMessage::DelAddress(message) => {
                parse::address(message).is_some_and(|net| self.remove_address(message.header.index, net))
            }
            _ => false,
        }
    }

    fn put_link(&mut self, mut link: Link) -> bool {
        match self.links.get_mut(&link.index) {
            Some(known) => {
                link.addresses.clone_from(&known.addresses);
                let changed = *known != link;
                *known = link;
                changed
            }
            None => self.links.insert(link.index, link).is_none(),
        }
    }

    fn put_address(&mut self, index: u32, net: IpNet) -> bool {
        let Some(link) = self.links.get_mut(&index) else { return false };
        let new = !link.addresses.contains(&net);
        if new {
            link.addresses.push(net);
        }
        new
    }

    fn remove_address(&mut self, index: u32, net: IpNet) -> bool {
        let Some(link) = self.links.get_mut(&index) else { return false };
        let before = link.addresses.len();
        link.addresses.retain(|known| *known != net);
        link.addresses.len() != before
    }
}

#[cfg(test)]
impl Inventory {
    /// An inventory as a test wants it.
    pub(super) fn of(links: impl IntoIterator<Item = Link>) -> Self {
        Self { links: links.into_iter().map(|link| (link.index, link)).collect() }
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::{
        AddressFamily,
        address::AddressAttribute,
        link::{LinkFlags, LinkLayerType},
    };

    use super::*;

    fn link_message(index: u32, name: &str) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.header.flags = LinkFlags::Up | LinkFlags::Running;
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Mtu(1500),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 1]),
        ];
        message
    }

    fn address_message(index: u32, net: &str) -> AddressMessage {
        let net: IpNet = net.parse().unwrap();
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.prefix_len = net.prefix_len();
        message.header.family = if net.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.attributes.push(AddressAttribute::Address(net.addr()));
        message
    }

    fn inventory() -> Inventory {
        let mut inventory = Inventory::default();
        let mut lo = link_message(1, "lo");
        lo.header.link_layer_type = LinkLayerType::Loopback;
        lo.header.flags |= LinkFlags::Loopback;
        assert!(inventory.apply(&RouteNetlinkMessage::NewLink(lo)));
        assert!(inventory.apply(&RouteNetlinkMessage::NewLink(link_message(2, "eth0"))));
        for (index, net) in [(1, "127.0.0.1/8"), (2, "192.0.2.1/24"), (2, "2001:db8::1/64")] {
            assert!(inventory.apply(&RouteNetlinkMessage::NewAddress(address_message(index, net))));
        }
        inventory
    }

    #[test]
    fn a_missing_interface_is_refused_with_the_list_of_those_there() {
        let error = inventory().by_name("eth7").unwrap_err().to_string();
        assert_eq!(error, "interface eth7 does not exist; interfaces here: lo, eth0");
        let error = Inventory::default().by_name("eth7").unwrap_err().to_string();
        assert_eq!(error, "interface eth7 does not exist; interfaces here: none");
    }

    #[test]
    fn loopback_has_no_ethernet_address() {
        let inventory = inventory();
        assert_eq!(inventory.by_name("eth0").unwrap().ethernet().unwrap(), [2, 0, 0, 0, 0, 1]);
        let error = inventory.by_name("lo").unwrap().ethernet().unwrap_err().to_string();
        assert_eq!(error, "interface lo (loopback) has no Ethernet address; use an Ethernet interface");
    }

    #[test]
    fn local_addresses_are_those_of_all_interfaces_and_the_ipv4_prefixes_of_loopback() {
        let inventory = inventory();
        let owner = |ip: &str| inventory.owner(ip.parse().unwrap()).map(|link| link.name.as_str());
        assert_eq!(owner("192.0.2.1"), Some("eth0"));
        assert_eq!(owner("192.0.2.2"), None, "a neighbour in the subnet is not local");
        assert_eq!(owner("2001:db8::1"), Some("eth0"));
        assert_eq!(owner("127.9.9.9"), Some("lo"), "all of 127.0.0.0/8 is");
        assert_eq!(inventory.local_addresses().count(), 3);
    }

    #[test]
    fn a_link_message_keeps_the_addresses_and_says_when_nothing_changed() {
        let mut inventory = inventory();
        assert!(!inventory.apply(&RouteNetlinkMessage::NewLink(link_message(2, "eth0"))));
        let mut down = link_message(2, "eth0");
        down.header.flags = LinkFlags::empty();
        assert!(inventory.apply(&RouteNetlinkMessage::NewLink(down)));
        let link = inventory.by_index(2).unwrap();
        assert!(!link.up && !link.carrier);
        assert_eq!(link.addresses.len(), 2);
    }

    #[test]
    fn messages_about_bridge_ports_are_not_about_the_link() {
        let mut inventory = inventory();
        let mut port = link_message(2, "eth0");
        port.header.interface_family = AddressFamily::Bridge;
        assert!(
            !inventory.apply(&RouteNetlinkMessage::DelLink(port.clone())),
            "left its bridge, still exists"
        );
        port.attributes.push(LinkAttribute::Mtu(9000));
        assert!(!inventory.apply(&RouteNetlinkMessage::NewLink(port)));
        assert!(inventory.apply(&RouteNetlinkMessage::DelLink(link_message(2, "eth0"))));
        assert!(inventory.by_index(2).is_none());
    }

    #[test]
    fn addresses_come_and_go_and_multicast_is_none_of_ours() {
        let mut inventory = inventory();
        let gone = RouteNetlinkMessage::DelAddress(address_message(2, "192.0.2.1/24"));
        assert!(inventory.apply(&gone));
        assert!(!inventory.apply(&gone), "a second time nothing changes");
        assert_eq!(inventory.owner("192.0.2.1".parse().unwrap()), None);
        let group = RouteNetlinkMessage::NewAddress(address_message(2, "ff02::1:ff00:10/128"));
        assert!(!inventory.apply(&group));
    }
}
