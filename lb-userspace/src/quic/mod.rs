//! QUIC connection IDs that name the server that made them (QUIC-LB, draft-ietf-quic-load-balancers): for servers
//! behind a service with `affinity = "quic"`.
//!
//! A server makes all of its connection IDs with [`ConnectionIds`], by the configuration that its balancers have in
//! `[[quic]]` and with the `server_id` of its own `[[service.backend]]`. Then packets of a connection find it whatever
//! address they come from.
//!
//! ```
//! use lb_userspace::quic::ConnectionIds;
//!
//! let key = [0x5e; 16];
//! let ids = ConnectionIds::new(0, 2, 6, Some(key))?.for_server(7)?;
//! let id = ids.generate()?;
//! assert_eq!(id.len(), 9);
//! assert_eq!(ids.server_of(&id), Some(vec![0, 7]));
//! # Ok::<(), lb_userspace::quic::QuicIdError>(())
//! ```

use std::io::Read as _;

use lb_common::{
    abi::quic_config,
    aes::{self, Block, Schedule},
};

/// Longest connection ID that every version of QUIC takes (RFC 9000 17.2).
pub const LONGEST: usize = 20;
/// Shortest nonce.
pub const SHORTEST_NONCE: usize = 4;

/// Why connection IDs cannot be made so.
#[derive(Debug, thiserror::Error)]
pub enum QuicIdError {
    /// A codepoint that no configuration can have.
    #[error("configuration {found}: must be 0 to 6")]
    Codepoint {
        /// What was asked for.
        found: u8,
    },
    /// Lengths that do not fit a connection ID.
    #[error(
        "a server ID of {server} bytes and a nonce of {nonce}: must be 1 to 15 and 4 to 18, and 19 at most together"
    )]
    Lengths {
        /// Bytes of the server ID.
        server: usize,
        /// Bytes of the nonce.
        nonce: usize,
    },
    /// A server ID of another length.
    #[error("a server ID of {found} bytes: the configuration has {expected}")]
    ServerId {
        /// Its bytes.
        found: usize,
        /// Bytes that it must have.
        expected: usize,
    },
    /// A nonce of another length.
    #[error("a nonce of {found} bytes: the configuration has {expected}")]
    Nonce {
        /// Its bytes.
        found: usize,
        /// Bytes that it must have.
        expected: usize,
    },
    /// The system gives no random bytes.
    #[error("no random bytes: {0}")]
    Random(#[from] std::io::Error),
}

/// Makes and reads connection IDs by one configuration.
#[derive(Clone)]
pub struct ConnectionIds {
    codepoint: u8,
    server_bytes: usize,
    nonce_bytes: usize,
    keys: Option<(Schedule, Schedule)>,
    server: Vec<u8>,
}

impl std::fmt::Debug for ConnectionIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the key.
        f.debug_struct("ConnectionIds")
            .field("codepoint", &self.codepoint)
            .field("server_bytes", &self.server_bytes)
            .field("nonce_bytes", &self.nonce_bytes)
            .field("encrypted", &self.keys.is_some())
            .field("server", &self.server)
            .finish()
    }
}

impl ConnectionIds {
    /// By a configuration as `[[quic]]` has it: `config`, `server_id_bytes`, `nonce_bytes`, `key`. The server ID is 0
    /// until [`ConnectionIds::for_server`] says another.
    ///
    /// # Errors
    /// [`QuicIdError::Codepoint`], [`QuicIdError::Lengths`].
    pub fn new(config: u8, server: usize, nonce: usize, key: Option<[u8; 16]>) -> Result<Self, QuicIdError> {
        if usize::from(config) >= quic_config::CODEPOINTS {
            return Err(QuicIdError::Codepoint { found: config });
        }
        if !(1..=15).contains(&server) || nonce < SHORTEST_NONCE || server + nonce >= LONGEST {
            return Err(QuicIdError::Lengths { server, nonce });
        }
        let keys = key.map(|key| {
            let encrypt = aes::schedule(key);
            (encrypt, aes::for_decryption(&encrypt))
        });
        let (server_bytes, nonce_bytes) = (server, nonce);
        Ok(Self { codepoint: config, server_bytes, nonce_bytes, keys, server: vec![0; server] })
    }

    /// For the server with this `server_id`.
    ///
    /// # Errors
    /// [`QuicIdError::ServerId`] when it needs more bytes than the configuration has.
    pub fn for_server(self, id: u64) -> Result<Self, QuicIdError> {
        let bytes = id.to_be_bytes();
        let mut server = vec![0; self.server_bytes.saturating_sub(bytes.len())];
        let skipped = bytes.len().saturating_sub(self.server_bytes);
        let needed = bytes.len() - id.leading_zeros() as usize / 8;
        if needed > self.server_bytes {
            return Err(QuicIdError::ServerId { found: needed, expected: self.server_bytes });
        }
        server.extend_from_slice(&bytes[skipped..]);
        Ok(Self { server, ..self })
    }

    /// For the server with these bytes as its ID.
    ///
    /// # Errors
    /// [`QuicIdError::ServerId`] when their number is another than the configuration's.
    pub fn for_server_bytes(self, id: &[u8]) -> Result<Self, QuicIdError> {
        if id.len() != self.server_bytes {
            return Err(QuicIdError::ServerId { found: id.len(), expected: self.server_bytes });
        }
        Ok(Self { server: id.to_vec(), ..self })
    }

    /// Bytes of every connection ID.
    #[must_use]
    pub fn length(&self) -> usize {
        1 + self.server_bytes + self.nonce_bytes
    }

    /// A new connection ID with a nonce from the system's random numbers.
    ///
    /// # Errors
    /// [`QuicIdError::Random`].
    pub fn generate(&self) -> Result<Vec<u8>, QuicIdError> {
        let mut nonce = vec![0; self.nonce_bytes];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut nonce)?;
        self.with_nonce(&nonce)
    }

    /// A connection ID with this nonce, which must never be used again with the same key.
    ///
    /// # Errors
    /// [`QuicIdError::Nonce`] when it has another length than the configuration's.
    pub fn with_nonce(&self, nonce: &[u8]) -> Result<Vec<u8>, QuicIdError> {
        if nonce.len() != self.nonce_bytes {
            return Err(QuicIdError::Nonce { found: nonce.len(), expected: self.nonce_bytes });
        }
        let plain = [&self.server, nonce].concat();
        let body = match &self.keys {
            None => plain,
            Some((encrypt, _)) if plain.len() == 16 => bytes(aes::encrypt(encrypt, block(&plain))).to_vec(),
            Some((encrypt, _)) => {
                let mut halves = Halves::split(&plain);
                halves.mix_right(encrypt, 1);
                halves.mix_left(encrypt, 2);
                halves.mix_right(encrypt, 3);
                halves.mix_left(encrypt, 4);
                halves.join()
            }
        };
        // The length is always told, which helps others than us to read it.
        let first = self.codepoint << 5 | body.len() as u8;
        Ok([&[first][..], &body].concat())
    }

    /// The server ID in a connection ID, if it can have been made by this configuration.
    #[must_use]
    pub fn server_of(&self, id: &[u8]) -> Option<Vec<u8>> {
        let (first, body) = id.split_first()?;
        if first >> 5 != self.codepoint || body.len() < self.server_bytes + self.nonce_bytes {
            return None;
        }
        let body = &body[..self.server_bytes + self.nonce_bytes];
        let plain = match &self.keys {
            None => body.to_vec(),
            Some((_, decrypt)) if body.len() == 16 => bytes(aes::decrypt(decrypt, block(body))).to_vec(),
            Some((encrypt, _)) => {
                let mut halves = Halves::split(body);
                halves.mix_left(encrypt, 4);
                halves.mix_right(encrypt, 3);
                halves.mix_left(encrypt, 2);
                halves.mix_right(encrypt, 1);
                halves.join()
            }
        };
        Some(plain[..self.server_bytes].to_vec())
    }
}

fn block(bytes: &[u8]) -> Block {
    let mut block = [0; 4];
    for (word, four) in block.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_be_bytes([four[0], four[1], four[2], four[3]]);
    }
    block
}

fn bytes(block: Block) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (four, word) in bytes.chunks_exact_mut(4).zip(block) {
        four.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

/// Two halves of equal length; with an odd number of bytes the one in the middle is divided between them.
struct Halves {
    left: Vec<u8>,
    right: Vec<u8>,
    length: usize,
}

impl Halves {
    fn split(bytes: &[u8]) -> Self {
        let length = bytes.len();
        let half = length.div_ceil(2);
        let mut halves =
            Self { left: bytes[..half].to_vec(), right: bytes[length - half..].to_vec(), length };
        halves.clear();
        halves
    }

    fn join(self) -> Vec<u8> {
        let mut bytes = self.left;
        let mut right = self.right.into_iter();
        if self.length % 2 == 1
            && let (Some(last), Some(first)) = (bytes.last_mut(), right.next())
        {
            *last |= first;
        }
        bytes.extend(right);
        bytes
    }

    fn clear(&mut self) {
        if self.length % 2 == 1
            && let (Some(last), Some(first)) = (self.left.last_mut(), self.right.first_mut())
        {
            *last &= 0xf0;
            *first &= 0x0f;
        }
    }

    fn mix_left(&mut self, keys: &Schedule, round: u8) {
        mix(&mut self.left, &self.right, self.length, keys, round);
        self.clear();
    }

    fn mix_right(&mut self, keys: &Schedule, round: u8) {
        mix(&mut self.right, &self.left, self.length, keys, round);
        self.clear();
    }
}

fn mix(half: &mut [u8], other: &[u8], length: usize, keys: &Schedule, round: u8) {
    let mut input = [0; 16];
    input[..other.len()].copy_from_slice(other);
    input[14..].copy_from_slice(&[length as u8, round]);
    for (byte, key) in half.iter_mut().zip(bytes(aes::encrypt(keys, block(&input)))) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use ::aes::{
        Aes128,
        cipher::{BlockCipherDecrypt as _, BlockCipherEncrypt as _, KeyInit as _},
    };
    use lb_common::aes::{decrypt, encrypt, for_decryption, schedule};
    use proptest::{prop_assert_eq, proptest};

    use super::{ConnectionIds, QuicIdError, block, bytes};

    fn key(text: &str) -> Option<[u8; 16]> {
        hex::decode(text).unwrap().try_into().ok()
    }

    /// Makes and reads one of the draft's connection IDs.
    fn vector(config: u8, key: Option<[u8; 16]>, server: &str, nonce: &str, id: &str) {
        let (server, nonce) = (hex::decode(server).unwrap(), hex::decode(nonce).unwrap());
        let ids = ConnectionIds::new(config, server.len(), nonce.len(), key).unwrap();
        let ids = ids.for_server_bytes(&server).unwrap();
        assert_eq!(hex::encode(ids.with_nonce(&nonce).unwrap()), id);
        assert_eq!(ids.server_of(&hex::decode(id).unwrap()), Some(server));
    }

    /// Appendix B of draft-ietf-quic-load-balancers-21. (The second plain one has a digit too few there.)
    #[test]
    fn vectors_of_the_draft() {
        vector(0, None, "c4605e", "4504cc4f", "07c4605e4504cc4f");
        let secret = key("8f95f09245765f80256934e50c66207f");
        vector(0, secret, "ed793a", "ee080dbf", "0720b1d07b359d3c");
        vector(1, secret, "ed793a51d49b8f5fab65", "ee080dbf48", "2fcc381bc74cb4fbad2823a3d1f8fed2");
        vector(2, secret, "ed793a51d49b8f5f", "ee080dbf48c0d1e5", "504dd2d05a7b0de9b2b9907afb5ecf8cc3");
        let id = "125779c9cc86beb3a3a4a3ca96fce4bfe0cdbc";
        vector(0, secret, "ed793a51d49b8f5fab", "ee080dbf48c0d1e55d", id);
    }

    /// The example of its section on four rounds.
    #[test]
    fn example_of_the_draft() {
        let secret = key("fdf726a9893ec05c0632d3956680baf0");
        vector(0, secret, "31441a", "9c69c275", "0767947d29be054a");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(matches!(ConnectionIds::new(7, 2, 6, None), Err(QuicIdError::Codepoint { found: 7 })));
        for (server, nonce) in [(0, 6), (16, 4), (2, 3), (8, 12)] {
            assert!(matches!(ConnectionIds::new(0, server, nonce, None), Err(QuicIdError::Lengths { .. })));
        }
        let ids = || ConnectionIds::new(0, 2, 6, None).unwrap();
        assert!(matches!(ids().for_server(0x1_0000), Err(QuicIdError::ServerId { found: 3, expected: 2 })));
        assert!(ids().for_server(0xffff).is_ok());
        assert!(matches!(ids().with_nonce(&[0; 5]), Err(QuicIdError::Nonce { found: 5, expected: 6 })));
    }

    #[test]
    fn the_key_is_not_shown() {
        let ids = ConnectionIds::new(0, 2, 6, Some([0x5e; 16])).unwrap();
        assert!(!format!("{ids:?}").contains("5e"), "{ids:?}");
    }

    proptest! {
        #[test]
        fn aes_is_that_of_the_crate(key: [u8; 16], text: [u8; 16]) {
            let keys = schedule(key);
            let (cipher, mut expected) = (Aes128::new(&key.into()), text.into());
            cipher.encrypt_block(&mut expected);
            let found = bytes(encrypt(&keys, block(&text)));
            prop_assert_eq!(found.as_slice(), expected.as_slice());
            let mut expected = text.into();
            cipher.decrypt_block(&mut expected);
            let found = bytes(decrypt(&for_decryption(&keys), block(&text)));
            prop_assert_eq!(found.as_slice(), expected.as_slice());
        }

        #[test]
        fn every_server_is_read_back(server in 1usize..=15, more: u8, secret: [u8; 16], seed: [u8; 34]) {
            let nonce = 4 + usize::from(more) % (16 - server);
            for key in [None, Some(secret)] {
                let ids = ConnectionIds::new(3, server, nonce, key).unwrap();
                let ids = ids.for_server_bytes(&seed[..server]).unwrap();
                let id = ids.with_nonce(&seed[15..15 + nonce]).unwrap();
                prop_assert_eq!(id.len(), ids.length());
                prop_assert_eq!(ids.server_of(&id), Some(seed[..server].to_vec()));
            }
        }
    }
}
