//! What the laboratory sets on network devices by ioctl, in the namespace of the calling thread.
//!
//! `ip` and `ethtool` can do the same; one process start per device would be most of the time a topology takes.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// An offload that can be switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Transmit checksums left to the device (`ethtool -K DEV tx`).
    TxChecksum,
    /// Generic receive offload (`ethtool -K DEV gro`); on veth it also means a receive ring with NAPI.
    Gro,
}

impl Offload {
    /// ETHTOOL_STXCSUM and ETHTOOL_SGRO of linux/ethtool.h.
    fn command(self) -> u32 {
        match self {
            Self::TxChecksum => 0x17,
            Self::Gro => 0x2c,
        }
    }
}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

/// Switches an offload of device `name`.
///
/// # Errors
/// When there is no such device, or it refuses.
pub fn set_offload(name: &str, offload: Offload, on: bool) -> Result<()> {
    let mut value = EthtoolValue { cmd: offload.command(), data: on.into() };
    let mut request = request(name)?;
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    let socket = control_socket()?;
    // SAFETY: SIOCETHTOOL takes an ifreq whose data points to the structure of the command, here an ethtool_value;
    // both live until after the call.
    let rc = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if rc != 0 {
        let error = io::Error::last_os_error();
        bail!("{offload:?} of device {name} to {on}: {error}");
    }
    Ok(())
}

/// Sets device `name` up.
///
/// # Errors
/// When there is no such device.
pub fn set_up(name: &str) -> Result<()> {
    let socket = control_socket()?;
    let mut request = request(name)?;
    // SAFETY: SIOCGIFFLAGS and SIOCSIFFLAGS take an ifreq, which lives until after the calls; the flags are plain
    // integers, valid whatever they hold.
    let rc = unsafe {
        let rc = libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request);
        if rc == 0 {
            request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
            libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request)
        } else {
            rc
        }
    };
    if rc != 0 {
        let error = io::Error::last_os_error();
        bail!("setting device {name} up: {error}");
    }
    Ok(())
}

/// Index of device `name`.
///
/// # Errors
/// When there is no such device in this namespace.
pub fn index(name: &str) -> Result<u32> {
    nix::net::if_::if_nametoindex(name).with_context(|| format!("no device {name} in this namespace"))
}

fn control_socket() -> Result<OwnedFd> {
    socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .context("a socket for ioctls")
}

fn request(name: &str) -> Result<libc::ifreq> {
    let name = CString::new(name).context("a device name has no zero byte")?;
    let bytes = name.as_bytes_with_nul();
    // SAFETY: ifreq is plain data; all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if bytes.len() > request.ifr_name.len() {
        bail!("device name {name:?} has more than {} bytes", request.ifr_name.len() - 1);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = from.cast_signed();
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_too_long_is_refused() {
        let error = set_up("sixteen-letters-").unwrap_err().to_string();
        assert!(error.contains("15 bytes"), "{error}");
    }

    #[test]
    fn a_missing_device_is_named() {
        let error = set_offload("lbt-none", Offload::Gro, true).unwrap_err().to_string();
        assert!(error.contains("lbt-none"), "{error}");
    }
}
