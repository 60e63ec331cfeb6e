//! Frames bent, cut and grafted together: what a sender at fault or with a purpose makes.

use super::{scene::Scene, source::Random};

/// Bytes that hold a meaning somewhere in a header.
const TELLING: [u8; 14] = [0, 1, 4, 6, 17, 41, 44, 58, 0x40, 0x44, 0x46, 0x4f, 0x60, 0xff];

/// Changes one thing about a frame; `other` is a frame to graft with.
pub fn bend(random: &mut Random, scene: &Scene, other: &[u8], frame: &mut Vec<u8>) {
    let end = frame.len();
    // Headers are at the front: most changes go there.
    let at = if random.once_in(4) { random.below(end) } else { random.below(end.min(80)) };
    match random.below(12) {
        0 | 1 => change(random, frame, at, |random, byte| byte ^ 1 << random.below(8)),
        2 => change(random, frame, at, |random, _| random.one_of(&TELLING)),
        3 => length(random, frame),
        4 => frame.truncate(at),
        5 => {
            let more = random.below(64);
            frame.extend(random.bytes(more));
        }
        6 => {
            let count = random.below(24).min(end - at);
            frame.drain(at..at + count);
        }
        7 => {
            let count = random.below(24);
            frame.splice(at..at, random.bytes(count));
        }
        8 => {
            let from = at.min(other.len());
            frame.truncate(at);
            frame.extend(&other[from..]);
        }
        9 => destination(random, scene, frame),
        10 => change(random, frame, at, |random, byte| byte.wrapping_add(random.one_of(&[1, 0xff, 4, 8]))),
        _ => checksum(frame),
    }
}

fn change(random: &mut Random, frame: &mut [u8], at: usize, to: fn(&mut Random, u8) -> u8) {
    if let Some(byte) = frame.get_mut(at) {
        *byte = to(random, *byte);
    }
}

/// A length field that is right, nearly right or far off.
fn length(random: &mut Random, frame: &mut [u8]) {
    let held = frame.len().saturating_sub(14);
    let values = [held, held + 1, held.saturating_sub(1), held.saturating_sub(40), 0, 19, 20, 40, 65_535];
    let value = random.one_of(&values) as u16;
    // IPv4 and IPv6, bare, behind one tag, and inside a tunnel; UDP behind IPv4.
    let at = random.one_of(&[16, 18, 20, 22, 36, 38, 58, 76]);
    if let Some(place) = frame.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// A VIP where the destination stands.
fn destination(random: &mut Random, scene: &Scene, frame: &mut [u8]) {
    let (place, octets) = match scene.door(random).address {
        std::net::IpAddr::V4(a) => (frame.get_mut(30..34), a.octets().to_vec()),
        std::net::IpAddr::V6(a) => (frame.get_mut(38..54), a.octets().to_vec()),
    };
    if let Some(place) = place {
        place.copy_from_slice(&octets);
    }
}

/// The right checksum for an IPv4 header that was bent.
fn checksum(frame: &mut [u8]) {
    let Some(header) = frame.get_mut(14..) else { return };
    let length = usize::from(header.first().copied().unwrap_or(0) & 15) * 4;
    if let Some(header) = header.get_mut(..length.max(20)) {
        header[10..12].fill(0);
        let words = header.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
        let sum: u32 = words.sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
}
