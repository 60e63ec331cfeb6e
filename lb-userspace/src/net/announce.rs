//! Making VIPs known on the local network (`announce = "arp"`).
//!
//! XDP answers questions for VIPs; this module does what cannot wait for a question. At start, and whenever a VIP is
//! added, [`send_gratuitous`] tells every host on the link that the VIP is at our MAC address now: hosts that knew it
//! elsewhere (another balancer, an earlier server) would otherwise go on sending there until their entry times out.
//! [`subscribe`] makes the NIC let questions for IPv6 VIPs through.

pub mod frames;
mod multicast;
pub(super) mod socket;

use std::{net::IpAddr, time::Duration};

use tokio::time::sleep;

use self::socket::PacketSocket;
use super::{Mac, NetError, links::Link};
pub use multicast::{subscribe, unsubscribe};

/// How often everything is sent: announcements are not acknowledged, and any of them can be lost. RFC 4861 section
/// 10 allows three (`MAX_NEIGHBOR_ADVERTISEMENT`); RFC 5227 section 1.1 asks for two.
pub const REPETITIONS: usize = 3;
/// Between two repetitions: `RetransTimer` of RFC 4861. Linux hosts ignore a changed MAC address in the first second
/// after they have learned one (`locktime`), so at least the last repetition must come later than that.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// Frames sent without a pause, and the pause: thousands of VIPs must not overflow a switch's broadcast limiter.
const BURST: usize = 32;
const BURST_PAUSE: Duration = Duration::from_millis(5);

/// Announces `vips` at the MAC address of `interface`: an ARP announcement per IPv4 address, an unsolicited neighbour
/// advertisement per IPv6 address, [`REPETITIONS`] times, [`INTERVAL`] apart. Returns the
/// number of frames that the interface took: below `vips × REPETITIONS` when its queue was full at times.
///
/// Takes some seconds: run it beside other work; dropping the future stops it. Belongs to the network namespace of
/// the calling thread.
///
/// # Errors
/// When the interface has no Ethernet address, is down, or no packet socket can be had (CAP_NET_RAW).
pub async fn send_gratuitous(interface: &Link, vips: &[IpAddr]) -> Result<usize, NetError> {
    send_every(INTERVAL, interface, vips).await
}

/// As [`send_gratuitous`], with another interval.
pub(super) async fn send_every(
    interval: Duration,
    interface: &Link,
    vips: &[IpAddr],
) -> Result<usize, NetError> {
    let mac = interface.ethernet()?;
    let socket = PacketSocket::open(interface.index, 0)
        .map_err(|source| NetError::socket(format!("cannot announce on {}", interface.name), source))?;
    let mut sent = 0;
    for repetition in 0..if vips.is_empty() { 0 } else { REPETITIONS } {
        if repetition > 0 {
            sleep(interval).await;
        }
        for burst in vips.chunks(BURST) {
            for vip in burst {
                let taken = socket.send(&announcement(mac, *vip)).await.map_err(|source| {
                    NetError::socket(format!("cannot announce {vip} on {}", interface.name), source)
                })?;
                // What is not taken is not tried again before its next repetition.
                sent += usize::from(taken);
            }
            if vips.len() > BURST {
                sleep(BURST_PAUSE).await;
            }
        }
    }
    Ok(sent)
}

fn announcement(mac: Mac, vip: IpAddr) -> Vec<u8> {
    match vip {
        IpAddr::V4(vip) => frames::arp_announcement(mac, vip).to_vec(),
        IpAddr::V6(vip) => frames::neighbour_advertisement(mac, vip).to_vec(),
    }
}
