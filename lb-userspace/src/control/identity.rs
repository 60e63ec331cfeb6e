//! Names of services and members that outlive a daemon: keyed digests, as the maps keep them.

use std::net::IpAddr;

use sha2::{Digest, Sha256};

use crate::config::Seed;

/// First eight bytes of SHA-256 over the seed and the parts, never 0 (0 marks an unused record).
fn digest(seed: &Seed, domain: &str, parts: &[&[u8]]) -> u64 {
    let mut hash = Sha256::new();
    hash.update(seed.0);
    hash.update(domain.as_bytes());
    for part in parts {
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let bytes = hash.finalize();
    u64::from_le_bytes(std::array::from_fn(|i| bytes[i])).max(1)
}

/// Identity of a service: its name.
pub fn service(seed: &Seed, name: &str) -> u64 {
    digest(seed, "service", &[name.as_bytes()])
}

/// Identity of a member: where it is. Two services with the same backends share tables because of that, and a backend
/// that moves to another address is another member.
pub fn member(seed: &Seed, address: IpAddr, port: Option<u16>) -> u64 {
    let octets = match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    digest(seed, "member", &[&octets, &port.unwrap_or(0).to_be_bytes()])
}

/// Key of the hashes in the datapath.
pub fn key(seed: &Seed) -> [u64; 4] {
    std::array::from_fn(|i| digest(seed, "key", &[&[i as u8]]))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{key, member, service};
    use crate::config::Seed;

    #[test]
    fn identities_depend_on_everything_they_name() {
        let (a, b) = (Seed([1; 32]), Seed([2; 32]));
        assert_ne!(service(&a, "web"), service(&a, "web2"));
        assert_ne!(service(&a, "web"), service(&b, "web"));
        let address: IpAddr = "198.51.100.11".parse().expect("address");
        let other: IpAddr = "2001:db8::11".parse().expect("address");
        assert_ne!(member(&a, address, None), member(&a, other, None));
        assert_ne!(member(&a, address, None), member(&a, address, Some(80)));
        assert_ne!(key(&a), key(&b));
    }
}
