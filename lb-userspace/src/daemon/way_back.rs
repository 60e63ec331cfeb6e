//! `forward = "nat"`: what can be seen from here of the way that answers take.

use log::warn;

use super::core::Core;
use crate::{
    config::{Config, Forward},
    net::forwarding::{Family, is_enabled, setting},
};

/// Families of backends behind NAT.
fn families(config: &Config) -> Vec<Family> {
    let backends =
        || config.services.iter().filter(|s| s.forward == Forward::Nat).flat_map(|service| &service.backends);
    let mut families = Vec::new();
    if backends().any(|backend| backend.address.is_ipv4()) {
        families.push(Family::V4);
    }
    if backends().any(|backend| backend.address.is_ipv6()) {
        families.push(Family::V6);
    }
    families
}

impl Core {
    /// Warns of interfaces by which answers of backends cannot be sent back to clients.
    pub(super) fn check_way_back(&self) {
        for family in families(&self.config) {
            for interface in &self.config.daemon.interfaces {
                if is_enabled(interface, family) == Some(false) {
                    let setting = setting(interface, family);
                    warn!(
                        "{interface}: {setting} is 0, expected 1: with forward = \"nat\" the answers of backends come \
                         back by this host, and are not sent on to the clients until `sysctl -w {setting}=1`"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Family, families};
    use crate::config::Config;

    #[test]
    fn only_backends_behind_nat_count() {
        let service = |forward: &str, vip: &str, backend: &str| {
            format!(
                "[[service]]\nname = \"{forward}\"\naddresses = [\"{vip}\"]\nports = 80\nforward = \"{forward}\"\n\
                 backend = [{{ address = \"{backend}\" }}]\n"
            )
        };
        let text =
            service("ipip", "192.0.2.10", "198.51.100.1") + &service("nat", "2001:db8::10", "2001:db8::1");
        let config = Config::parse("lb.toml", &text).unwrap();
        assert_eq!(families(&config), [Family::V6]);
    }
}
