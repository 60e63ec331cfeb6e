//! One neighbour: what the kernel says of it, and whose it is. Pure.

use std::net::IpAddr;

use rtnetlink::packet_route::{
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
        NeighbourState,
    },
    route::RouteProtocol,
};
use tokio::time::Instant;

use crate::net::Mac;

/// Interface index and address.
pub(super) type Key = (u32, IpAddr);

/// Protocol number (`NDA_PROTOCOL`) of entries that did not exist before us: "L". Not in iproute2's rt_protos.
pub(super) const MADE: RouteProtocol = RouteProtocol::Other(76);
/// Protocol number of entries that the kernel had made for its own traffic before we marked them.
pub(super) const MARKED: RouteProtocol = RouteProtocol::Other(77);

/// What the kernel knows of a neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) enum State {
    /// No entry.
    #[default]
    Absent,
    /// Asked for the first time, no answer yet.
    Asking,
    /// Asked and not answered. Stays so while the kernel asks again.
    Failed,
    /// Answered, and not yet refuted.
    Known(Mac),
    /// Resolved to something that is no Ethernet address, in words.
    Unusable(String),
}

/// Whose an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Holder {
    /// There is none, or the kernel made it for its own traffic.
    #[default]
    Nobody,
    /// Did not exist before us.
    Made,
    /// The kernel's own, marked by us.
    Marked,
    /// An operator's or another program's. To set flags on it would take away its own: a permanent entry would stop
    /// being permanent. It is only watched.
    Foreign,
}

/// One neighbour in use.
#[derive(Clone, Debug, Default)]
pub(super) struct Neighbour {
    pub(super) state: State,
    /// Why the kernel does not take our mark, in words.
    pub(super) refusal: Option<String>,
    pub(super) holder: Holder,
    /// The kernel keeps it resolved, at whose wish ever.
    pub(super) managed: bool,
    /// When we last asked the kernel to.
    pub(super) asked: Option<Instant>,
}

impl Neighbour {
    /// Takes over what the kernel says of the entry.
    pub(super) fn learn(&mut self, message: &NeighbourMessage) {
        let (mut address, mut protocol, mut managed) = (None, None, false);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => address = Some(bytes.as_slice()),
                NeighbourAttribute::Protocol(number) => protocol = Some(*number),
                NeighbourAttribute::ExtFlags(flags) => managed = flags.contains(NeighbourExtFlags::Managed),
                _ => {}
            }
        }
        let header = &message.header;
        self.managed = managed;
        let fixed = header.flags.contains(NeighbourFlags::ExtLearned)
            || matches!(header.state, NeighbourState::Permanent | NeighbourState::Noarp);
        self.holder = match protocol {
            // Our label stays on an entry that an operator has made permanent since.
            _ if fixed => Holder::Foreign,
            Some(protocol) if protocol == MADE => Holder::Made,
            Some(protocol) if protocol == MARKED => Holder::Marked,
            Some(protocol) if protocol != RouteProtocol::Unspec => Holder::Foreign,
            _ if managed => Holder::Foreign,
            _ => Holder::Nobody,
        };
        self.state = match (header.state, address.map(Mac::try_from)) {
            (NeighbourState::Failed, _) => State::Failed,
            // The kernel asks again from time to time: not news.
            (NeighbourState::Incomplete | NeighbourState::None, _) if self.state == State::Failed => {
                State::Failed
            }
            (NeighbourState::Incomplete | NeighbourState::None, _) => State::Asking,
            (_, Some(Ok(mac))) if mac != [0; 6] => State::Known(mac),
            (NeighbourState::Noarp, _) => State::Unusable("needs no MAC address there".to_owned()),
            _ => State::Unusable("has no Ethernet address".to_owned()),
        };
    }

    /// The protocol number to put on the entry.
    pub(super) fn label(&self) -> RouteProtocol {
        match (self.holder, &self.state) {
            (Holder::Marked, _) => MARKED,
            (Holder::Nobody, state) if *state != State::Absent => MARKED,
            _ => MADE,
        }
    }
}

#[cfg(test)]
impl Neighbour {
    /// A neighbour as a test wants it.
    pub(super) fn of(state: State, refusal: Option<&str>) -> Self {
        Self { state, refusal: refusal.map(str::to_owned), ..Self::default() }
    }
}

/// The key of an IPv4 or IPv6 neighbour; `None` for others (bridge forwarding entries, proxies).
pub(super) fn key_of(message: &NeighbourMessage) -> Option<Key> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
            Some((message.header.ifindex, IpAddr::V4(*ip)))
        }
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
            Some((message.header.ifindex, IpAddr::V6(*ip)))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 9];

    fn message(state: NeighbourState, attributes: Vec<NeighbourAttribute>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 2;
        message.header.state = state;
        message.attributes = attributes;
        message
    }

    fn lladdr(bytes: &[u8]) -> NeighbourAttribute {
        NeighbourAttribute::LinkLayerAddress(bytes.to_vec())
    }

    fn learned(state: NeighbourState, attributes: Vec<NeighbourAttribute>) -> Neighbour {
        let mut neighbour = Neighbour::default();
        neighbour.learn(&message(state, attributes));
        neighbour
    }

    #[test]
    fn every_valid_state_counts_as_known_until_the_kernel_gives_up() {
        for state in [
            NeighbourState::Reachable,
            NeighbourState::Stale,
            NeighbourState::Delay,
            NeighbourState::Probe,
            NeighbourState::Permanent,
        ] {
            assert_eq!(learned(state, vec![lladdr(&MAC)]).state, State::Known(MAC), "{state}");
        }
        assert_eq!(learned(NeighbourState::Failed, vec![]).state, State::Failed);
        assert_eq!(learned(NeighbourState::Incomplete, vec![]).state, State::Asking);
    }

    #[test]
    fn a_failed_neighbour_that_is_asked_again_is_still_failed() {
        let mut neighbour = learned(NeighbourState::Failed, vec![]);
        neighbour.learn(&message(NeighbourState::Incomplete, vec![]));
        assert_eq!(neighbour.state, State::Failed);
        neighbour.learn(&message(NeighbourState::Reachable, vec![lladdr(&MAC)]));
        neighbour.learn(&message(NeighbourState::Incomplete, vec![]));
        assert_eq!(neighbour.state, State::Asking, "an answer wipes the failure out");
    }

    #[test]
    fn what_is_no_ethernet_address_is_unusable() {
        let unusable = |state, bytes| learned(state, vec![lladdr(bytes)]).state;
        let words = |text: &str| State::Unusable(text.to_owned());
        assert_eq!(unusable(NeighbourState::Reachable, &[1, 2, 3, 4]), words("has no Ethernet address"));
        assert_eq!(unusable(NeighbourState::Noarp, &[0; 6]), words("needs no MAC address there"));
    }

    #[test]
    fn the_label_tells_our_entries_but_not_once_an_operator_has_fixed_them() {
        let holder = |state, attributes| learned(state, attributes).holder;
        let managed = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
        let made = NeighbourAttribute::Protocol(MADE);
        let marked = NeighbourAttribute::Protocol(MARKED);
        let others = NeighbourAttribute::Protocol(RouteProtocol::Zebra);
        let stale = NeighbourState::Stale;
        assert_eq!(holder(stale, vec![made.clone(), managed.clone()]), Holder::Made);
        assert_eq!(holder(stale, vec![marked]), Holder::Marked);
        assert_eq!(holder(NeighbourState::Permanent, vec![made]), Holder::Foreign);
        assert_eq!(holder(stale, vec![others]), Holder::Foreign);
        assert_eq!(holder(stale, vec![managed]), Holder::Foreign, "managed by somebody else");
        assert_eq!(holder(stale, vec![]), Holder::Nobody);
        let mut learned_elsewhere = message(stale, vec![lladdr(&MAC)]);
        learned_elsewhere.header.flags = NeighbourFlags::ExtLearned;
        let mut neighbour = Neighbour::default();
        neighbour.learn(&learned_elsewhere);
        assert_eq!(neighbour.holder, Holder::Foreign);
    }

    #[test]
    fn new_entries_are_labelled_made_and_those_found_are_labelled_marked() {
        assert_eq!(Neighbour::default().label(), MADE);
        let found = learned(NeighbourState::Stale, vec![lladdr(&MAC)]);
        assert_eq!(found.label(), MARKED);
        let ours = learned(NeighbourState::Failed, vec![NeighbourAttribute::Protocol(MADE)]);
        assert_eq!(ours.label(), MADE, "asked again, still made by us");
    }

    #[test]
    fn proxies_and_bridge_entries_are_not_neighbours() {
        let ip: IpAddr = "198.51.100.11".parse().unwrap();
        let destination = NeighbourAttribute::Destination(ip.into());
        let mut entry = message(NeighbourState::Stale, vec![destination]);
        assert_eq!(key_of(&entry), Some((2, ip)));
        entry.header.flags = NeighbourFlags::Proxy;
        assert_eq!(key_of(&entry), None);
        assert_eq!(key_of(&message(NeighbourState::Stale, vec![lladdr(&MAC)])), None);
    }
}
