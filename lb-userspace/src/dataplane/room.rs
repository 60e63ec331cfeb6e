//! What is in the way of a snapshot that cannot be installed.

/// What can be too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// `SERVICES`.
    Services,
    /// `SLOTS`.
    Slots,
    /// `BACKENDS` and `COUNTERS`.
    Backends,
    /// `VIPS4` and `VIPS6`, or the numbers of VIPs.
    Vips,
    /// `PORTS`.
    Ports,
    /// `REPLIES`.
    Replies,
}

impl std::fmt::Display for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Services => "services",
            Self::Slots => "slots",
            Self::Backends => "backends",
            Self::Vips => "VIPs",
            Self::Ports => "ports",
            Self::Replies => "replies",
        })
    }
}

/// A snapshot that does not fit, or that contradicts itself. Nothing was changed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InstallError {
    /// More of something than the maps were created for.
    #[error("no room for {wanted} {what} (there is room for {capacity})")]
    Full {
        /// What there is too much of.
        what: Room,
        /// How many are wanted.
        wanted: u64,
        /// How many there is room for.
        capacity: u64,
    },
    /// No salt was found for a look-up table.
    #[error("the table of {what} could not be built: {wanted} keys in {cells} cells")]
    Crowded {
        /// Which table.
        what: Room,
        /// Number of keys.
        wanted: usize,
        /// Number of cells.
        cells: u32,
    },
}
