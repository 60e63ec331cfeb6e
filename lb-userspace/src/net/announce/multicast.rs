//! Making the NIC let neighbour solicitations for VIPs through.
//!
//! Questions for an IPv6 address go to an Ethernet group address ([`solicited_node_mac`]), which a NIC drops unless it
//! was told to listen. For addresses of the host the kernel tells it; a VIP is not one. There are two ways to do so by
//! hand, and they differ in how they end:
//! - `PACKET_ADD_MEMBERSHIP` ends with the socket, so with the daemon. The datapath goes on without the daemon, and
//!   IPv6 VIPs would fall silent as soon as the routers' neighbour entries time out, a minute after a crash.
//! - `SIOCADDMULTI` stays until `SIOCDELMULTI` or until the interface goes. This is the one used.
//!
//! The kernel keeps one such mark per group, apart from its own subscriptions: to subscribe twice changes nothing, and
//! to unsubscribe never takes a group away from an address of the host. `ip maddress show` lists it as "static".
//!
//! A switch that snoops on MLD may need more: it forwards a group only to ports from which it heard a report, and a
//! subscription in the NIC's filter reports nothing.

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::frames::solicited_node_mac;
use crate::net::{Mac, NetError, links::Link};

/// `linux/sockios.h`; the libc crate does not have them.
const SIOCADDMULTI: libc::Ioctl = 0x8931;
const SIOCDELMULTI: libc::Ioctl = 0x8932;

/// Subscribes `interface` to the solicited-node groups of the IPv6 addresses among `vips`. Stays after the daemon's
/// end; repeating it is harmless. In the network namespace of the calling thread.
///
/// # Errors
/// When the kernel refuses (CAP_NET_ADMIN, interface gone, or one without multicast).
pub fn subscribe(interface: &Link, vips: &[IpAddr]) -> Result<(), NetError> {
    for_each_group(interface, vips, SIOCADDMULTI, "subscribe", &[])
}

/// Takes the subscriptions of `vips` back; those that are not there are not missed.
///
/// Groups are shared by addresses with the same last three bytes: pass the VIPs that stay as `keep`, and their groups
/// are left alone.
///
/// # Errors
/// When the kernel refuses.
pub fn unsubscribe(interface: &Link, vips: &[IpAddr], keep: &[IpAddr]) -> Result<(), NetError> {
    let vips: Vec<IpAddr> = {
        let kept = groups(keep);
        vips.iter().copied().filter(|vip| groups(&[*vip]).is_disjoint(&kept)).collect()
    };
    // ENODEV: the interface is gone, and its subscriptions with it.
    for_each_group(interface, &vips, SIOCDELMULTI, "unsubscribe", &[libc::ENOENT, libc::ENODEV])
}

fn groups(vips: &[IpAddr]) -> BTreeSet<Mac> {
    vips.iter()
        .filter_map(|vip| match vip {
            IpAddr::V4(_) => None,
            IpAddr::V6(vip) => Some(solicited_node_mac(*vip)),
        })
        .collect()
}

fn for_each_group(
    interface: &Link,
    vips: &[IpAddr],
    request: libc::Ioctl,
    verb: &str,
    harmless: &[i32],
) -> Result<(), NetError> {
    let groups = groups(vips);
    if groups.is_empty() {
        return Ok(());
    }
    let what = || format!("{verb} {} to neighbour solicitations for its VIPs", interface.name);
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| NetError::socket(format!("cannot {}", what()), errno.into()))?;
    for group in groups {
        match multicast_ioctl(&socket, request, &interface.name, group) {
            Err(error) if error.raw_os_error().is_some_and(|errno| harmless.contains(&errno)) => {}
            result => result.map_err(|source| NetError::Refused { what: what(), source })?,
        }
    }
    Ok(())
}

fn multicast_ioctl(socket: &OwnedFd, request: libc::Ioctl, name: &str, group: Mac) -> io::Result<()> {
    let mut address = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    for (to, from) in address.sa_data.iter_mut().zip(group) {
        *to = from as libc::c_char;
    }
    let mut ifreq = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_hwaddr: address },
    };
    // The last byte stays zero: the kernel wants a terminated string.
    for (to, from) in ifreq.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    // SAFETY: the descriptor is an open socket and both requests read a complete `ifreq`, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw const ifreq) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
