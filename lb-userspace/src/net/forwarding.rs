//! Whether the kernel routes packets that come in by an interface.

use std::path::PathBuf;

/// A family whose packets are routed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    fn directory(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

/// Name of the setting, as sysctl(8) takes it.
pub fn setting(interface: &str, family: Family) -> String {
    format!("net/{}/conf/{interface}/forwarding", family.directory())
}

/// Whether forwarding is enabled; `None` when the kernel does not say.
pub fn is_enabled(interface: &str, family: Family) -> Option<bool> {
    let path = PathBuf::from("/proc/sys").join(setting(interface, family));
    std::fs::read_to_string(path).ok().map(|text| text.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::{Family, is_enabled, setting};

    #[test]
    fn an_interface_that_is_not_there_says_nothing() {
        assert_eq!(is_enabled("no-such-device", Family::V4), None);
        assert_eq!(setting("eth0.7", Family::V6), "net/ipv6/conf/eth0.7/forwarding");
    }
}
