//! Network address translation: for backends that cannot be touched.
//!
//! Towards the backend ([`to_backend`]) the destination of a packet becomes the backend's address and port. The member
//! was chosen as for every other way to forward, so this needs no state. What the backend answers ([`reply`]) must come
//! back through the balancer; it is recognised by its source, in a table that user space writes, gets the VIP as its
//! source again and goes where the kernel's routing tables say.

mod rewrite;

use rewrite::{End, Seen};

use super::{encapsulate, lookup::fold6, packet::Packet, tables::Tables, verdict::Verdict, way::Ways};
use crate::{
    abi::{Backend, Globals, Reason, Reply, backend_flags},
    hash::cells,
};

/// What the kernel is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where the packet comes from: routing may depend on it.
    pub source: [u32; 4],
    /// Where it goes.
    pub destination: [u32; 4],
    /// Bytes of the IP packet.
    pub length: u32,
    /// Protocol number.
    pub protocol: u8,
    /// Family.
    pub is_v6: bool,
}

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// [`route`].
    pub answer: u32,
    /// Interface to leave by.
    pub egress: u32,
    /// Destination and source MAC, as in `Backend::macs`.
    pub macs: [u32; 3],
}

/// Values of [`Route::answer`].
pub mod route {
    /// Nothing that XDP could use: the kernel has to find the way.
    pub const UNKNOWN: u32 = 0;
    /// By this interface to this neighbour.
    pub const THERE: u32 = 1;
    /// The destination is this host.
    pub const HERE: u32 = 2;
    /// The packet is longer than the way takes.
    pub const TOO_BIG: u32 = 3;
}

impl Route {
    /// Nothing but this answer.
    #[inline(always)]
    pub fn without_way(answer: u32) -> Self {
        Self { answer, egress: 0, macs: [0; 3] }
    }
}

/// The words of a reply's key that choose its cells.
#[inline(always)]
pub fn reply_words(backend: [u32; 4], port: u16, protocol: u8) -> [u32; 2] {
    let [first, second] = fold6(backend);
    [first, second ^ u32::from(port) << 8 ^ u32::from(protocol)]
}

/// Towards the backend at this element of `BACKENDS`.
#[inline(always)]
pub(super) fn to_backend<P: Packet, T: Ways<P>>(
    packet: &mut P,
    tables: &T,
    index: u32,
    ingress: u32,
) -> Verdict {
    let Some(backend) = tables.backend(index) else { return Verdict::drop(Reason::BadTable) };
    if backend.flags & backend_flags::RESOLVED == 0 {
        return Verdict::drop(Reason::NoNextHop);
    }
    let bytes = packet.wire_length() as u32;
    match translated(packet, backend) {
        Ok(()) => Verdict::forward(backend.ifindex, ingress, backend.counter, bytes),
        Err(reason) => encapsulate::refused(backend, reason),
    }
}

#[inline(always)]
fn translated<P: Packet>(packet: &mut P, backend: &Backend) -> Result<(), Reason> {
    let seen = Seen::read(packet)?;
    encapsulate::fits(backend, seen.length)?;
    seen.replace(packet, End::Destination, &backend.address, backend.port)?;
    put_macs(packet, backend.macs)
}

#[inline(always)]
fn put_macs<P: Packet>(packet: &mut P, macs: [u32; 3]) -> Result<(), Reason> {
    let Ok(room) = packet.at_mut::<12>(0) else { return Err(Reason::BadTable) };
    encapsulate::put_macs(room, macs);
    Ok(())
}

/// A packet that is for no service: a backend's answer, or nobody's.
#[inline(always)]
pub(super) fn reply<P: Packet, T: Ways<P>>(packet: &mut P, tables: &T, ingress: u32) -> Verdict {
    let Some(globals) = tables.globals() else { return Verdict::pass(Reason::NotConfigured) };
    let Ok(seen) = Seen::read(packet) else { return Verdict::pass(Reason::NotService) };
    let Some(reply) = find(tables, globals, packet, seen) else { return Verdict::pass(Reason::NotService) };
    let destination = seen.address(packet, End::Destination);
    if !may_be_client(destination, seen.is_v6) {
        return Verdict::pass(Reason::NotService);
    }
    let wanted = Wanted {
        source: reply.vip,
        destination,
        length: seen.length,
        protocol: seen.protocol,
        is_v6: seen.is_v6,
    };
    let route = tables.route(packet, &wanted, ingress);
    if route.answer == route::HERE {
        // The backend talks to this host, not to a client.
        return Verdict::pass(Reason::NotService);
    }
    if route.answer == route::TOO_BIG && !seen.may_be_fragmented {
        return Verdict::pass(Reason::ReplyTooBig);
    }
    // The kernel knows which interface is a VLAN's; XDP cannot send by it.
    let is_known = route.answer == route::THERE && packet.skipped() == 0;
    // First, so that they need not be kept meanwhile: the stacks of a chain of BPF functions are 512 bytes together.
    if is_known && put_macs(packet, route.macs).is_err() {
        return Verdict::drop(Reason::BadTable);
    }
    match seen.replace(packet, End::Source, &reply.vip, reply.vip_port) {
        Err(reason) => Verdict::drop(reason),
        Ok(()) if is_known => Verdict::returned(route.egress, ingress, Reason::Reply),
        Ok(()) => Verdict::pass(Reason::ReplyByKernel),
    }
}

/// Whether an answer can go there: no group, no link-local address of IPv6, no loopback, not nobody.
#[inline(always)]
fn may_be_client(address: [u32; 4], is_v6: bool) -> bool {
    let first = u32::from_be(address[0]);
    if !is_v6 {
        let network = first >> 24;
        return network != 0 && network != 127 && network < 224;
    }
    let is_low = address[0] | address[1] | address[2] == 0 && u32::from_be(address[3]) <= 1;
    !is_low && first >> 24 != 0xff && first >> 22 != 0xfe80 >> 6
}

/// The entry for a packet's source: its port's, else any port's.
#[inline(always)]
fn find<'t, P: Packet, T: Tables>(
    tables: &'t T,
    globals: &Globals,
    packet: &P,
    seen: Seen,
) -> Option<&'t Reply> {
    find_port(tables, globals, packet, seen, seen.port(packet, End::Source))
        .or_else(|| find_port(tables, globals, packet, seen, 0))
}

#[inline(always)]
fn find_port<'t, P: Packet, T: Tables>(
    tables: &'t T,
    globals: &Globals,
    packet: &P,
    seen: Seen,
    port: u16,
) -> Option<&'t Reply> {
    let backend = seen.address(packet, End::Source);
    let words = reply_words(backend, port, seen.protocol);
    let (first, second) = cells(words, globals.salt, globals.reply_mask);
    let is_it =
        |reply: &&Reply| reply.backend == backend && reply.port == port && reply.protocol == seen.protocol;
    tables
        .reply(globals.reply_base + first)
        .filter(is_it)
        .or_else(|| tables.reply(globals.reply_base + second).filter(is_it))
}
