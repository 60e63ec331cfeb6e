//! Configurations of QUIC connection IDs.

/// One way to make connection IDs (draft-ietf-quic-load-balancers). `QUIC[generation & 1][codepoint]`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuicConfig {
    /// [`quic_config`]: none, plain or encrypted.
    pub state: u8,
    /// Bytes of a server ID, 1 to 8.
    pub server_id: u8,
    /// Bytes of a nonce, 4 to 18; server ID and nonce are 19 at most.
    pub nonce: u8,
    #[doc(hidden)]
    pub _pad: u8,
    /// Keys of the rounds of AES-128, for encryption.
    pub encrypt: [[u32; 4]; 11],
    /// The same for decryption.
    pub decrypt: [[u32; 4]; 11],
    #[doc(hidden)]
    pub _reserved: u32,
}

/// Values of [`QuicConfig::state`], and numbers around it.
pub mod quic_config {
    /// Connection IDs of this codepoint are nobody's.
    pub const NONE: u8 = 0;
    /// Server IDs stand there as they are.
    pub const PLAIN: u8 = 1;
    /// Encrypted.
    pub const ENCRYPTED: u8 = 2;
    /// Codepoints that configurations can have.
    pub const CODEPOINTS: usize = 7;
    /// The codepoint of connection IDs that name no server.
    pub const UNROUTABLE: u8 = 7;
}

const _: () = assert!(size_of::<QuicConfig>() == 360 && align_of::<QuicConfig>() == 4);
