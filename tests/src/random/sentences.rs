//! What frames are about: one line for each kind of traffic.

use std::net::IpAddr;

use etherparse::IpNumber;
use lb_userspace::config::Protocol;

use super::{
    grammar::{self, Packet},
    scene::{Door, Scene, a_client, family_of, stranger},
    source::Random,
};
use crate::packet::{Family, HERE, ROUTER};

/// Makes packets that belong together, for example the fragments of one.
type Sentence = fn(&mut Random, &Scene) -> Vec<Packet>;

/// Every kind of traffic, with its weight. To have another one tried out, add a line.
#[rustfmt::skip]
pub const SENTENCES: &[(usize, Sentence)] = &[
    (40, |random, scene| vec![to_service(random, scene)]),
    (10, fragmented),
    (8, |random, scene| vec![any_protocol(random, scene)]),
    (6, |random, scene| vec![echo(random, scene)]),
    (10, |random, scene| vec![icmp_error(random, scene)]),
    (14, |random, scene| vec![tunnel(random, scene)]),
    (6, |random, scene| vec![gue(random, scene)]),
    (6, |random, scene| vec![quic(random, scene)]),
    (5, |random, scene| vec![from_backend(random, scene)]),
    (5, |random, scene| vec![not_ours(random, scene)]),
    (3, |random, scene| vec![arp(random, scene)]),
    (4, |random, scene| vec![neighbour_discovery(random, scene)]),
];

const TCP: u8 = IpNumber::TCP.0;
const UDP: u8 = IpNumber::UDP.0;

/// A port of the door, mostly; else one beside it.
fn port(random: &mut Random, door: &Door) -> u16 {
    match (random.below(8), door.ports.is_empty()) {
        (0, _) | (_, true) => random.one_of(&[0, 53, 80, 443, 6080, 8004, 65_535]),
        (1, false) => random.one_of(&door.ports).wrapping_add(1),
        (_, false) => random.one_of(&door.ports),
    }
}

fn source_port(random: &mut Random) -> u16 {
    if random.once_in(16) { random.half() } else { 1024 + random.below(2000) as u16 }
}

fn protocol(random: &mut Random, door: &Door) -> u8 {
    match (door.protocol, random.below(8)) {
        (Protocol::Tcp, 1..) => TCP,
        (Protocol::Udp, 1..) => UDP,
        _ => random.one_of(&[TCP, UDP]),
    }
}

/// TCP or UDP between these, with its protocol number.
fn segment(random: &mut Random, protocol: u8, from: (IpAddr, u16), to: (IpAddr, u16)) -> Vec<u8> {
    let payload = grammar::payload(random);
    if protocol == TCP {
        grammar::tcp(random, from, to, &payload)
    } else {
        grammar::udp(random, from, to, &payload)
    }
}

fn whole(random: &mut Random, scene: &Scene) -> (IpAddr, IpAddr, u8, Vec<u8>) {
    let door = scene.door(random);
    let from = a_client(random, family_of(door.address));
    let protocol = protocol(random, door);
    let ports = (source_port(random), port(random, door));
    let segment = segment(random, protocol, (from, ports.0), (door.address, ports.1));
    (from, door.address, protocol, segment)
}

fn to_service(random: &mut Random, scene: &Scene) -> Packet {
    let (from, to, protocol, segment) = whole(random, scene);
    grammar::ip(random, from, to, protocol, &segment)
}

fn fragmented(random: &mut Random, scene: &Scene) -> Vec<Packet> {
    let (from, to, protocol, segment) = whole(random, scene);
    grammar::fragments(random, from, to, protocol, &segment)
}

/// SCTP, ESP, GRE, AH, IGMP, PIM, L2TP and what has no number yet.
fn any_protocol(random: &mut Random, scene: &Scene) -> Packet {
    let to = scene.door(random).address;
    let from = a_client(random, family_of(to));
    let protocol = random.one_of(&[132, 50, 47, 51, 2, 103, 115, 253, 1, 58]);
    let body = grammar::payload(random);
    grammar::ip(random, from, to, protocol, &body)
}

fn echo(random: &mut Random, scene: &Scene) -> Packet {
    let to = scene.door(random).address;
    let from = a_client(random, family_of(to));
    let kind = match family_of(to) {
        Family::V4 => random.one_of(&[8, 8, 8, 0, 13]),
        Family::V6 => random.one_of(&[128, 128, 128, 129, 140]),
    };
    let code = if random.once_in(10) { random.byte() } else { 0 };
    let body = grammar::payload(random);
    let word = [random.byte(), random.byte(), 0, random.byte()];
    let (protocol, message) = grammar::icmp(from, to, (kind, code), word, &body);
    grammar::ip(random, from, to, protocol, &message)
}

/// An error about a packet of a service's to one of its clients: it names the VIP as the source.
fn icmp_error(random: &mut Random, scene: &Scene) -> Packet {
    let door = scene.door(random);
    let family = family_of(door.address);
    let (client, router) = (a_client(random, family), stranger(random, family));
    let protocol = protocol(random, door);
    let ports = (port(random, door), source_port(random));
    let segment = segment(random, protocol, (door.address, ports.0), (client, ports.1));
    let mut quoted = grammar::ip(random, door.address, client, protocol, &segment).bytes;
    // A router may quote no more than eight bytes of the transport header (RFC 792).
    let headers = quoted.len() - segment.len();
    quoted.truncate(headers + random.one_of(&[8, 8, 20, 40, 500]));
    let (head, word) = match (family, random.below(4)) {
        (Family::V4, 0) => ((3, 4), [0, 0, 5, 0x14]),
        (Family::V4, 1) => ((11, 0), [0; 4]),
        (Family::V4, 2) => ((3, random.byte() & 15), [0; 4]),
        (Family::V4, _) => (random.one_of(&[(12, 0), (5, 1), (4, 0)]), [0; 4]),
        (Family::V6, 0) => ((2, 0), [0, 0, 5, 0]),
        (Family::V6, 1) => ((3, 0), [0; 4]),
        (Family::V6, 2) => ((1, random.byte() & 7), [0; 4]),
        (Family::V6, _) => (random.one_of(&[(4, 0), (4, 1), (100, 0)]), [0, 0, 0, 6]),
    };
    let (protocol, message) = grammar::icmp(router, door.address, head, word, &quoted);
    grammar::ip(random, router, door.address, protocol, &message)
}

/// IP in IP, all pairs of families, as from a balancer to a backend.
fn tunnel(random: &mut Random, scene: &Scene) -> Packet {
    let inner = if random.once_in(8) { not_ours(random, scene) } else { to_service(random, scene) };
    let family = random.one_of(&Family::BOTH);
    let (from, to) = (scene.tunnel(random, family), scene.backend(random, family));
    let protocol = if inner.ether_type == 0x0800 { 4 } else { 41 };
    // Both families in one go: the number lies.
    let protocol = if random.once_in(20) { 45 - protocol } else { protocol };
    let outer = grammar::ip(random, from, to, protocol, &inner.bytes);
    if random.once_in(10) { nested(random, scene, &outer) } else { outer }
}

fn nested(random: &mut Random, scene: &Scene, inner: &Packet) -> Packet {
    let family = random.one_of(&Family::BOTH);
    let (from, to) = (scene.tunnel(random, family), scene.backend(random, family));
    grammar::ip(random, from, to, if inner.ether_type == 0x0800 { 4 } else { 41 }, &inner.bytes)
}

/// GUE: version 0 with and without private data, and version 1.
fn gue(random: &mut Random, scene: &Scene) -> Packet {
    let inner = to_service(random, scene);
    let family = random.one_of(&Family::BOTH);
    let (from, to) = (scene.tunnel(random, family), scene.backend(random, family));
    let protocol = if inner.ether_type == 0x0800 { 4 } else { 41 };
    let words = random.one_of(&[0, 0, 0, 1, 4, 4, 13, 13, 31]);
    let mut message = if random.once_in(8) { Vec::new() } else { vec![words, protocol, 0, 0] };
    if !message.is_empty() {
        message.extend(random.bytes(usize::from(words) * 4));
    }
    message.extend(&inner.bytes);
    let ports = (0xc000 | random.half(), if random.once_in(8) { 6080 } else { 6081 });
    let segment = grammar::udp(random, (from, ports.0), (to, ports.1), &message);
    grammar::ip(random, from, to, UDP, &segment)
}

/// QUIC's two headers, with connection IDs of every length that there is and some more.
fn quic(random: &mut Random, scene: &Scene) -> Packet {
    let door = scene.door(random);
    let from = a_client(random, family_of(door.address));
    let mut message = if random.once_in(2) {
        vec![0x40 | random.byte() & 0x3f]
    } else {
        let mut long = vec![0xc0 | random.byte() & 0x3f];
        long.extend(random.one_of(&[1u32, 1, 0x6b33_43cf, 0]).to_be_bytes());
        long.push(random.one_of(&[8, 20, 0, 1, 17, 21, 255]));
        long
    };
    if !random.once_in(3) {
        message.extend(scene.connection_id(random).unwrap_or_default());
    }
    let length = random.one_of(&[0, 1, 7, 8, 16, 20, 40, 100, 1200]);
    message.extend(random.bytes(length));
    let ports = (source_port(random), port(random, door));
    let segment = grammar::udp(random, (from, ports.0), (door.address, ports.1), &message);
    grammar::ip(random, from, door.address, UDP, &segment)
}

/// What comes back from a backend: to the client, to a source-NAT address, an error about the tunnel.
fn from_backend(random: &mut Random, scene: &Scene) -> Packet {
    let family = random.one_of(&Family::BOTH);
    let from = scene.backend(random, family);
    let to = if random.once_in(2) { a_client(random, family) } else { scene.tunnel(random, family) };
    let protocol = random.one_of(&[TCP, UDP]);
    let ports = (random.one_of(&[80, 8080, 443]), source_port(random));
    let segment = segment(random, protocol, (from, ports.0), (to, ports.1));
    grammar::ip(random, from, to, protocol, &segment)
}

fn not_ours(random: &mut Random, _scene: &Scene) -> Packet {
    let family = random.one_of(&Family::BOTH);
    let (from, to) = (a_client(random, family), stranger(random, family));
    let protocol = random.one_of(&[TCP, UDP]);
    let ports = (source_port(random), random.one_of(&[22, 80, 443]));
    let segment = segment(random, protocol, (from, ports.0), (to, ports.1));
    grammar::ip(random, from, to, protocol, &segment)
}

fn arp(random: &mut Random, scene: &Scene) -> Packet {
    let address = match scene.door(random).address {
        IpAddr::V4(a) if !random.once_in(4) => a.octets(),
        _ => [198, 51, 100, random.byte()],
    };
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, random.one_of(&[1, 1, 1, 2])];
    bytes.extend(ROUTER);
    bytes.extend(random.one_of(&[[198, 51, 100, 1], [0; 4], address]));
    bytes.extend(random.one_of(&[[0; 6], HERE]));
    bytes.extend(address);
    Packet { ether_type: 0x0806, bytes }
}

/// A solicitation of a VIP's MAC address, to its group or to itself.
fn neighbour_discovery(random: &mut Random, scene: &Scene) -> Packet {
    let IpAddr::V6(target) = scene.door(random).address else { return arp(random, scene) };
    let from = stranger(random, Family::V6);
    let [.., a, b, c] = target.octets();
    let group =
        std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let to: IpAddr = if random.once_in(4) { target } else { group }.into();
    let mut body = target.octets().to_vec();
    if !random.once_in(4) {
        body.extend([1, 1]);
        body.extend(ROUTER);
    }
    let kind = random.one_of(&[135, 135, 135, 136, 133]);
    let (protocol, message) = grammar::icmp(from, to, (kind, 0), [0; 4], &body);
    let mut packet = grammar::ip(random, from, to, protocol, &message);
    if !random.once_in(4)
        && let Some(hops) = packet.bytes.get_mut(7)
    {
        // Anything less has been forwarded (RFC 4861 7.1.1).
        *hops = 255;
    }
    packet
}
