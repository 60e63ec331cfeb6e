//! Every range that a value of `lb.toml` must lie in, with the reason for its ends.

use std::{ops::RangeInclusive, time::Duration};

/// Bytes of a file. 10,000 services with ten backends each are about 10 MB.
pub const FILE_BYTES: u64 = 16 * 1024 * 1024;
/// `[[quic]]` tables of a file: codepoint 7 is for connection IDs that name nobody.
pub const QUIC: usize = 7;
/// `config` of `[[quic]]`.
pub const CODEPOINT: RangeInclusive<u8> = 0..=6;
/// `server_id_bytes` of `[[quic]]`: more would only be zeroes in front of `server_id`.
pub const SERVER_ID_BYTES: RangeInclusive<u8> = 1..=8;
/// `nonce_bytes` of `[[quic]]`.
pub const NONCE_BYTES: RangeInclusive<u8> = 4..=18;
/// Bytes of server ID and nonce together: a connection ID has 20, one of them before these.
pub const QUIC_ID_BYTES: u8 = 19;
/// `server_id` of a backend.
pub const SERVER_ID: RangeInclusive<u16> = 1..=u16::MAX;
/// `[[service]]` tables of a file.
pub const SERVICES: usize = 60_000;
/// Pairs of VIP and port (and protocol) of all services together; any port counts as one. Each is an entry of the
/// datapath's service table.
pub const SERVICE_KEYS: u64 = 1 << 20;
/// Pairs of backend and port (and protocol) of all services with `forward = "nat"`; any port counts as one. Each is an
/// entry of the datapath's table of replies.
pub const REPLIES: u64 = 1 << 20;
/// VIPs of one service.
pub const ADDRESSES: usize = 1_024;
/// Ports of one service, ranges counted in full.
pub const PORTS: usize = 4_096;
/// Backends of one service: a slot of a Maglev table holds a member in 14 bits, and one value means "none".
pub const BACKENDS: usize = 16_383;
/// Characters of the name of a service or backend.
pub const NAME_CHARS: usize = 63;
/// Interfaces of `[daemon]`.
pub const INTERFACES: usize = 64;
/// Bytes of an interface name: the kernel's IFNAMSIZ less its zero byte.
pub const INTERFACE_BYTES: usize = 15;
/// `vips` of `[agent]`.
pub const AGENT_VIPS: usize = 65_536;
/// `peers` of `[agent]`: as many as a service has backends.
pub const AGENT_PEERS: usize = 16_383;
/// `tunnel_sources` of `[agent]`.
pub const AGENT_SOURCES: usize = 1_024;
/// `table_slots`; a prime within. Below 251 a backend's share is a matter of luck; the upper end is the largest
/// prime below 2^20.
pub const TABLE_SLOTS: RangeInclusive<u32> = 251..=1_048_573;
/// `flow_table.capacity` in flows, a power of two: 8 KiB to 2 GiB of memory at 8 bytes a flow.
pub const FLOW_CAPACITY: RangeInclusive<u32> = 1 << 10..=1 << 28;
/// `limit_table.capacity` in sources, a power of two.
pub const LIMIT_CAPACITY: RangeInclusive<u32> = 1 << 10..=1 << 26;
/// `settle`. The upper end is below half a turn of the 14-bit clock, in seconds, of flow entries.
pub const SETTLE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(2 * 3600);
/// `slow_start`.
pub const SLOW_START: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
/// `weight` of a backend.
pub const WEIGHT: RangeInclusive<u16> = 0..=u16::MAX;
/// A port.
pub const PORT: RangeInclusive<u16> = 1..=u16::MAX;
/// `rate` of a limit, in packets per second. At the upper end a packet costs about 1,000 ns of credit in whole units of
/// the datapath's clock; above it the rounding would be more than 2 % of the rate.
pub const RATE: RangeInclusive<u32> = 1..=1_000_000;
/// `burst` of a limit, in packets.
pub const BURST: RangeInclusive<u32> = 1..=10_000_000;
/// `interval` of a health check.
pub const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
/// Smallest `timeout` of a health check; the largest is its interval.
pub const TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// `rise` and `fall` of a health check.
pub const STREAK: RangeInclusive<u32> = 1..=100;
/// `max_ejected` and `panic_below` of a health check.
pub const PERCENT: RangeInclusive<u8> = 0..=100;
/// `min_ready` of a health check.
pub const MIN_READY: RangeInclusive<u16> = 0..=BACKENDS as u16;
/// Status codes in `expect` (RFC 9110 section 15).
pub const STATUS: RangeInclusive<u16> = 100..=599;
/// Bytes of `path` of a health check.
pub const PATH_BYTES: usize = 1_024;
/// Strings of `command` of a health check.
pub const COMMAND_WORDS: usize = 64;
/// Bytes of `service` of a health check: a length that one byte of a protobuf message can say.
pub const GRPC_SERVICE_BYTES: usize = 120;
/// Bytes of `send` and `receive` of a health check: a datagram that no way has to cut.
pub const PAYLOAD_BYTES: usize = 1_024;
/// Bytes of `body` of a health check.
pub const BODY_BYTES: RangeInclusive<usize> = 1..=1_024;
/// Bytes of `ca` of a health check: the longest path that the kernel takes (PATH_MAX) less its zero byte.
pub const CA_PATH_BYTES: usize = 4_095;
/// Bytes of `host` of a health check: a DNS name of 253 and a port.
pub const HOST_BYTES: usize = 260;
