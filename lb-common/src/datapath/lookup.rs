//! From destination to service to backend: array look-ups only.

use super::{
    Address,
    parse::{Network, Ports},
    tables::Tables,
    track::Query,
};
use crate::{
    abi::{
        Backend, Globals, Reason, Service, affinity, backend_flags, fragments_key, port_entry, port_key,
        server_key, service_flags, slot, sole_port, tracking, vip_entry, vip_flags,
    },
    hash::{self, Hasher, cells, domain},
    wire::{gue, protocol},
};

/// VIP number and flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vip {
    pub number: u16,
    pub flags: u16,
}

impl Vip {
    fn from_word(word: u32) -> Self {
        Self { number: word as u16, flags: (word >> 16) as u16 }
    }
}

/// The VIP with this IPv4 address. Two cells at most: two-choice hashing, full key compared. User space puts no key into
/// its second cell while the first is empty, so an empty first cell says that there is no such VIP.
#[inline(always)]
pub(super) fn vip4<T: Tables>(tables: &T, globals: &Globals, address: u32) -> Option<Vip> {
    let (first, second) = cells([address, 0], globals.salt, globals.vip4_mask);
    let mut cell = tables.vip4(globals.vip4_base + first)?;
    if cell == 0 {
        return None;
    }
    if vip_entry::address(cell) != address {
        cell = tables.vip4(globals.vip4_base + second)?;
        if vip_entry::address(cell) != address || cell == 0 {
            return None;
        }
    }
    Some(Vip::from_word(vip_entry::vip(cell)))
}

/// The words of an IPv6 address that choose its cells: all of it, folded.
#[inline(always)]
pub fn fold6(address: [u32; 4]) -> [u32; 2] {
    [address[0] ^ address[2].rotate_left(11), address[1] ^ address[3].rotate_left(7)]
}

/// The VIP with this IPv6 address.
#[inline(always)]
pub(super) fn vip6<T: Tables>(tables: &T, globals: &Globals, address: [u32; 4]) -> Option<Vip> {
    let (first, second) = cells(fold6(address), globals.salt, globals.vip6_mask);
    let mut cell = tables.vip6(globals.vip6_base + first)?;
    if cell.vip == 0 {
        return None;
    }
    if cell.address != address {
        cell = tables.vip6(globals.vip6_base + second)?;
        if cell.vip == 0 || cell.address != address {
            return None;
        }
    }
    Some(Vip::from_word(cell.vip))
}

/// The words of a port key that choose its cells.
#[inline(always)]
pub fn port_words(key: u64) -> [u32; 2] {
    [key as u32, (key >> 32) as u32]
}

#[inline(always)]
fn port_cell<T: Tables>(tables: &T, globals: &Globals, key: u64) -> Option<u32> {
    let (first, second) = cells(port_words(key), globals.salt, globals.port_mask);
    let cell = tables.port(globals.port_base + first)?;
    if port_entry::key(cell) == key {
        return Some(port_entry::service(cell));
    }
    let cell = tables.port(globals.port_base + second)?;
    (port_entry::key(cell) == key).then(|| port_entry::service(cell))
}

/// The service of a VIP that has one service with one or two ports, as most have: its record names them, and the port
/// table is not asked.
#[inline(always)]
fn sole<'t, T: Tables>(
    tables: &'t T,
    globals: &Globals,
    number: u16,
    wanted: u32,
) -> Result<&'t Service, Reason> {
    let index = globals.service_base.wrapping_add(u32::from(number));
    let service = tables.service(index).ok_or(Reason::BadTable)?;
    if service.sole[0] == wanted || service.sole[1] == wanted { Ok(service) } else { Err(Reason::NoSuchPort) }
}

/// The service for a VIP, protocol and destination port: the exact port first, then any port, then any protocol.
#[inline(always)]
pub(super) fn service<'t, T: Tables>(
    tables: &'t T,
    globals: &Globals,
    vip: Vip,
    protocol: u8,
    port: u16,
) -> Result<&'t Service, Reason> {
    if vip.flags & vip_flags::SOLE != 0 {
        return sole(tables, globals, vip.number, sole_port(protocol, port));
    }
    let mut number = port_cell(tables, globals, port_key(vip.number, protocol, port));
    if number.is_none() && vip.flags & vip_flags::ANY_PORT != 0 {
        number = port_cell(tables, globals, port_key(vip.number, protocol, 0));
    }
    if number.is_none() && vip.flags & vip_flags::ANY_PROTOCOL != 0 {
        number = port_cell(tables, globals, port_key(vip.number, 0, 0));
    }
    let number = number.ok_or(Reason::NoSuchPort)?;
    tables.service(globals.service_base.wrapping_add(number)).ok_or(Reason::BadTable)
}

/// The service that all fragments of this protocol belong to, if there is one.
#[inline(always)]
pub(super) fn fragments<'t, T: Tables>(
    tables: &'t T,
    globals: &Globals,
    vip: Vip,
    protocol: u8,
) -> Result<&'t Service, Reason> {
    if vip.flags & vip_flags::SOLE != 0 {
        let number = globals.service_base.wrapping_add(u32::from(vip.number));
        let service = tables.service(number).ok_or(Reason::BadTable)?;
        let wanted = sole_port(protocol, 0) >> 16;
        let takes = service.sole[0] >> 16 == wanted || service.sole[1] >> 16 == wanted;
        return if takes && !needs_ports(service) { Ok(service) } else { Err(Reason::Fragment) };
    }
    let number = port_cell(tables, globals, fragments_key(vip.number, protocol)).ok_or(Reason::Fragment)?;
    tables.service(globals.service_base.wrapping_add(number)).ok_or(Reason::BadTable)
}

/// The member that a server ID names; [`slot::EMPTY`] for 0, for one that nobody has, and for one that takes nothing. No
/// `Option`: what it has in it when it is none is undefined, and the verifier sees that copied.
///
/// What [`Way::Named`](super::Way::Named) adds to a server ID is of no matter.
#[inline(always)]
pub(super) fn server<T: Tables>(tables: &T, globals: &Globals, service: &Service, server: u32) -> u16 {
    let server = server as u16;
    if server == 0 {
        return slot::EMPTY;
    }
    let Some(index) = port_cell(tables, globals, server_key(service.id as u16, server)) else {
        return slot::EMPTY;
    };
    match member(tables, service, index as u16) {
        Ok(backend) if backend.flags & backend_flags::ALIVE != 0 => index as u16,
        _ => slot::EMPTY,
    }
}

/// Whether a flow's ports are among what its affinity hashes.
#[inline(always)]
fn needs_ports(service: &Service) -> bool {
    service.affinity >= affinity::FLOW
}

/// Hash of the fields that the service's affinity names.
#[inline(always)]
pub(super) fn affinity_hash<A: Address>(
    globals: &Globals,
    service: &Service,
    network: &Network<A>,
    ports: Ports,
) -> u64 {
    let mut hasher = Hasher::new(&globals.key, domain::SLOT);
    let source = network.source.words();
    let destination = if service.affinity == affinity::SOURCE { [0; 4] } else { network.destination.words() };
    hasher.pair(source[0], destination[0]);
    if size_of::<A>() > 4 {
        hasher.pair(source[1], destination[1]);
        hasher.pair(source[2], destination[2]);
        hasher.pair(source[3], destination[3]);
    }
    if needs_ports(service) {
        hasher.pair(ports.word(), u32::from(network.protocol));
    }
    hasher.finish()
}

/// A slot: where it is and what it says.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub index: u32,
    pub value: u16,
}

impl Slot {
    /// Of a service without any.
    pub(super) const NOBODY: Self = Self { index: 0, value: slot::EMPTY };

    /// Whether the owner is the answer for every packet. False for one in a great many.
    #[inline(always)]
    pub(super) fn is_decided(self, service: &Service) -> bool {
        (self.value & slot::STATE == slot::SETTLED && service.tracking != tracking::ALWAYS)
            || service.tracking == tracking::NEVER
    }
}

/// The slot of this hash.
#[inline(always)]
pub(super) fn slot<T: Tables>(tables: &T, service: &Service, hash: u64) -> Result<Slot, Reason> {
    if service.table_slots == 0 {
        return Err(Reason::NoBackend);
    }
    let index = service.table_base.wrapping_add(hash::reduce(hash, service.table_slots));
    let four = tables.slots(index >> 2).ok_or(Reason::BadTable)?;
    Ok(Slot { index, value: (four >> ((index & 3) * 16)) as u16 })
}

/// What the flow table wants to know of a packet whose slot does not decide.
#[inline(always)]
pub(super) fn query<A: Address>(
    globals: &Globals,
    service: &Service,
    network: &Network<A>,
    ports: Ports,
    slot: Slot,
    kind: u8,
) -> Query {
    let mut hasher = Hasher::new(&globals.key, domain::FLOW);
    let (source, destination) = (network.source.words(), network.destination.words());
    hasher.pair(source[0], destination[0]);
    if size_of::<A>() > 4 {
        hasher.pair(source[1], destination[1]);
        hasher.pair(source[2], destination[2]);
        hasher.pair(source[3], destination[3]);
    }
    hasher.pair(ports.word(), u32::from(network.protocol));
    hasher.pair(service.id, 0);
    Query { hash: hasher.finish(), slot: slot.value, index: slot.index, packet: kind }
}

/// Who else may have the connection of a packet that goes to `member`, whose record is `backend`; `None` where packets
/// name nobody. A place without a candidate names the backend itself, which hands nothing to itself.
#[inline(always)]
pub(super) fn others<'t, T: Tables>(
    tables: &'t T,
    service: &Service,
    number: u8,
    slot: Slot,
    taken: u16,
    backend: &'t Backend,
) -> Option<[&'t Backend; gue::CANDIDATES]> {
    if service.flags & service_flags::CANDIDATES == 0 || number != protocol::TCP {
        return None;
    }
    let named = named(tables.candidates(slot.index)?, slot.value & slot::MEMBER, taken);
    let other = |place: u32| match member(tables, service, (named >> (place * 16)) as u16) {
        Ok(other) if other.forward == backend.forward => other,
        _ => backend,
    };
    Some([other(0), other(1), other(2)])
}

/// The candidates besides `taken`: where a packet goes elsewhere than to the slot's owner, the owner may have its
/// connection too. It comes in the place of `taken`, or else in the last.
#[inline(always)]
fn named(candidates: u64, owner: u16, taken: u16) -> u64 {
    let put = |place: u64| candidates & !(0xffff << (place * 16)) | u64::from(owner) << (place * 16);
    if taken == owner {
        candidates
    } else if candidates as u16 == taken {
        put(0)
    } else if (candidates >> 16) as u16 == taken {
        put(1)
    } else {
        put(2)
    }
}

/// The record of a member.
#[inline(always)]
pub(super) fn member<'t, T: Tables>(
    tables: &'t T,
    service: &Service,
    member: u16,
) -> Result<&'t Backend, Reason> {
    let member = u32::from(member);
    if member >= service.backend_count {
        // EMPTY is above any count.
        return Err(Reason::NoBackend);
    }
    tables.backend(service.backend_base.wrapping_add(member)).ok_or(Reason::BadTable)
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn the_owner_is_named_wherever_else_a_packet_goes() {
        let word = |members: [u64; 3]| members[0] | members[1] << 16 | members[2] << 32;
        for (taken, expected) in
            [(9, [1, 2, 3]), (1, [9, 2, 3]), (2, [1, 9, 3]), (3, [1, 2, 9]), (4, [1, 2, 9])]
        {
            assert_eq!(named(word([1, 2, 3]), 9, taken), word(expected), "taken to {taken}");
        }
    }
}
