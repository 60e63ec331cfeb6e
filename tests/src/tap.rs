//! Frames as they are: a packet socket on one device that sends any bytes, and shows what the stack is handed.
//!
//! The stack's packet sockets come after XDP, native or generic, so what they show has passed the balancer.

use std::{
    io,
    mem::{size_of, zeroed},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{netdev, netns::Entry};

/// All protocols, in network byte order as packet(7) wants it.
const EVERYTHING: u16 = (libc::ETH_P_ALL as u16).to_be();
/// Longest frame that is kept.
const LONGEST: usize = 70_000;
/// How long one look at the socket lasts.
const LOOK: Duration = Duration::from_millis(50);
/// Not in the libc crate: linux/if_packet.h.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// A packet socket on one device.
#[derive(Debug)]
pub struct Tap {
    socket: OwnedFd,
}

impl Tap {
    /// Opens one on `device` of a namespace. What arrives from now on is kept.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or when there is no such device.
    pub fn open(ns: &Entry, device: &str) -> Result<Self> {
        ns.run(|| {
            let index = netdev::index(device)?;
            // Protocol 0: nothing arrives before it is bound to the device.
            // SAFETY: no pointers; the result is checked.
            let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
            if fd < 0 {
                return Err(io::Error::last_os_error()).context("a packet socket");
            }
            // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
            let tap = Self { socket: unsafe { OwnedFd::from_raw_fd(fd) } };
            tap.option(libc::SOL_PACKET, libc::PACKET_AUXDATA, &1_i32)?;
            tap.option(libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1_i32)?;
            tap.option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &(8_i32 << 20))?;
            let look = libc::timeval { tv_sec: 0, tv_usec: LOOK.as_micros() as libc::suseconds_t };
            tap.option(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &look)?;
            tap.bind(index).with_context(|| format!("a packet socket on {device}"))?;
            Ok(tap)
        })
    }

    fn option<T>(&self, level: libc::c_int, name: libc::c_int, value: &T) -> Result<()> {
        let (fd, length) = (self.socket.as_raw_fd(), size_of::<T>() as libc::socklen_t);
        // SAFETY: the kernel reads `length` bytes of a value that lives until after the call.
        let rc = unsafe { libc::setsockopt(fd, level, name, (&raw const *value).cast(), length) };
        ensure!(rc == 0, "socket option {level}/{name}: {}", io::Error::last_os_error());
        Ok(())
    }

    fn bind(&self, index: u32) -> Result<()> {
        // SAFETY: sockaddr_ll is plain data; all zeroes is a valid value.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = EVERYTHING;
        address.sll_ifindex = index.cast_signed();
        let (pointer, length) = (&raw const address, size_of::<libc::sockaddr_ll>() as libc::socklen_t);
        // SAFETY: the address is of the socket's family and length, and lives until after the call.
        let rc = unsafe { libc::bind(self.socket.as_raw_fd(), pointer.cast(), length) };
        ensure!(rc == 0, "binding: {}", io::Error::last_os_error());
        Ok(())
    }

    /// Sends a whole frame, from its destination MAC on.
    ///
    /// # Errors
    /// When the device does not take it.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: the kernel reads `frame.len()` bytes of the slice.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        let error = io::Error::last_os_error();
        ensure!(sent == frame.len() as isize, "sending a frame of {} bytes: {error}", frame.len());
        Ok(())
    }

    /// Waits for the next frame that comes in and that `wanted` takes, others are passed over.
    ///
    /// # Errors
    /// When none comes within `limit`.
    pub fn receive(&self, limit: Duration, wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
        let start = Instant::now();
        loop {
            match self.next() {
                Ok(Some(frame)) if wanted(&frame) => return Ok(frame),
                Ok(_) => {}
                Err(error) => return Err(error).context("a packet socket"),
            }
            ensure!(start.elapsed() < limit, "no such frame within {limit:?}");
        }
    }

    /// The next frame as it was on the wire, if one comes soon.
    fn next(&self) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0_u8; LONGEST];
        let mut control = [0_u64; 16];
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: msghdr is plain data; all zeroes is a valid value.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: the message points to one buffer and one aligned control buffer, with their true lengths; all of them
        // live until after the call.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        if length < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
        }
        bytes.truncate(length as usize);
        // SAFETY: the kernel has filled the message, whose buffers are still alive.
        if let Some([tpid, tci]) = unsafe { stripped_tag(&message) } {
            // The stack takes the outer tag out before it shows the frame.
            bytes.splice(12..12, [tpid.to_be_bytes(), tci.to_be_bytes()].concat());
        }
        Ok(Some(bytes))
    }
}

/// TPID and TCI of the tag that the kernel has taken out of the frame.
///
/// # Safety
/// `message` must be one that recvmsg has filled, with its control buffer alive.
unsafe fn stripped_tag(message: &libc::msghdr) -> Option<[u16; 2]> {
    // SAFETY: the caller vouches for the message; the macro looks at its control buffer only.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: the header is inside of the control buffer, which is aligned for it.
        let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        if (level, kind) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
            // SAFETY: the data of this kind is a tpacket_auxdata, which need not be aligned here.
            let data = unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() };
            let tagged = data.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
            return tagged.then_some([data.tp_vlan_tpid, data.tp_vlan_tci]);
        }
        // SAFETY: as for the first.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}
