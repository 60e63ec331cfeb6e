//! A packet socket on one interface.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socket},
};
use tokio::io::unix::AsyncFd;

/// Sends and receives whole Ethernet frames on one interface.
#[derive(Debug)]
pub(in crate::net) struct PacketSocket(AsyncFd<OwnedFd>);

impl PacketSocket {
    /// Opens a socket bound to an interface of the calling thread's network namespace. `protocol` is the EtherType to
    /// receive, host byte order; with 0 nothing is received, so nothing piles up in a socket that only sends.
    pub(in crate::net) fn open(ifindex: u32, protocol: u16) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Receives nothing until it is bound with a protocol: no frame of another interface slips in before.
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as libc::c_ushort,
            sll_protocol: protocol.to_be(),
            sll_ifindex: i32::try_from(ifindex).map_err(|_| io::Error::from(Errno::ENODEV))?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the pointer and the length describe `address`, a complete sockaddr_ll that outlives the call.
        let result = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast::<libc::sockaddr>(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `OwnedFd` names the same open descriptor until the `AsyncFd`, which owns it, closes it.
        let socket = unsafe { AsyncFd::register(socket) }?;
        Ok(Self(socket))
    }

    /// Sends one frame, Ethernet header included; says whether the interface took it. It does not while its transmit
    /// queue is full, or not yet at work just after the link came up (`ENOBUFS`).
    pub(in crate::net) async fn send(&self, frame: &[u8]) -> io::Result<bool> {
        loop {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|fd| Ok(send(fd.as_raw_fd(), frame, MsgFlags::empty())?)) {
                Ok(Err(error)) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(false),
                Ok(result) => return result.map(|_| true),
                Err(_would_block) => {}
            }
        }
    }

    /// Receives one frame.
    #[cfg(test)]
    pub(in crate::net) async fn recv(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let mut ready = self.0.readable().await?;
            match ready
                .try_io(|fd| Ok(nix::sys::socket::recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?))
            {
                Ok(length) => {
                    buffer.truncate(length?);
                    return Ok(buffer);
                }
                Err(_would_block) => {}
            }
        }
    }
}
