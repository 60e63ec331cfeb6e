//! A host that routes: what its kernel says of every way, and a namespace whose kernel says just that.

use anyhow::{Context as _, Result, ensure};
use lb_common::datapath::{Route, Wanted, route};

use super::cast::{ELSEWHERE, OWN};
use crate::netns::Namespace;

/// MAC address of the router behind everything.
pub const GATEWAY: [u8; 6] = [0x02, 0xcc, 0, 0, 0, 0xfe];
/// MAC address of the interface towards it.
pub const OUT: [u8; 6] = [0x02, 0xcc, 0, 0, 0, 0x01];
/// Longest IP packet of that interface.
pub const MTU: u32 = 1400;

/// What the kernel says.
pub fn answer(wanted: &Wanted) -> Route {
    let own = if wanted.is_v6 { words(OWN.v6.octets()) } else { words(OWN.v4.octets()) };
    if wanted.destination == own {
        return Route::without_way(route::HERE);
    }
    if wanted.length > MTU {
        return Route::without_way(route::TOO_BIG);
    }
    let macs = [GATEWAY, OUT].concat();
    let word = |i: usize| u32::from_ne_bytes([macs[i], macs[i + 1], macs[i + 2], macs[i + 3]]);
    Route { answer: route::THERE, egress: ELSEWHERE, macs: [word(0), word(4), word(8)] }
}

fn words<const N: usize>(octets: [u8; N]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(octets.chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    words
}

/// The commands of `ip` that make such a host. Frames come in by `lo`.
fn commands() -> Vec<String> {
    let (gateway, out) = (colons(GATEWAY), colons(OUT));
    vec![
        format!("link add out address {out} type veth peer name peer"),
        format!("link set out mtu {MTU} up"),
        "link set peer up".into(),
        "address add 198.51.100.250/24 dev out".into(),
        "address add 2001:db8:b::fa/64 dev out nodad".into(),
        format!("address add {}/32 dev lo", OWN.v4),
        format!("address add {}/128 dev lo nodad", OWN.v6),
        format!("neighbour add 198.51.100.254 lladdr {gateway} dev out nud permanent"),
        format!("neighbour add 2001:db8:b::fe lladdr {gateway} dev out nud permanent"),
        "route add default via 198.51.100.254".into(),
        "route add default via 2001:db8:b::fe".into(),
    ]
}

fn colons(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A namespace like that.
///
/// # Errors
/// Without root, or when a step fails.
pub fn namespace() -> Result<Namespace> {
    let namespace = Namespace::new("routes")?;
    namespace.run(|| {
        for family in ["ipv4", "ipv6"] {
            let path = format!("/proc/sys/net/{family}/conf/all/forwarding");
            std::fs::write(&path, "1").with_context(|| format!("writing {path}"))?;
        }
        Ok(())
    })?;
    for command in commands() {
        let output = namespace.command("ip").args(command.split(' ')).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ip {command}: {error}");
    }
    Ok(namespace)
}
