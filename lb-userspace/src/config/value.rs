//! The notations that values of `lb.toml` are written in. Also for arguments of commands: the same words everywhere.

use std::{fmt, net::IpAddr, ops::RangeInclusive, time::Duration};

use ipnet::IpNet;

use super::{
    limits,
    problem::quoted,
    types::{Ports, QuicKey, Seed},
};

/// A value that cannot be used: what was found, what is expected and, where there is one, the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found {found}, expected {expected}")]
pub struct ValueError {
    /// The value as it was written, quoted and shortened.
    pub found: String,
    /// What would be right.
    pub expected: String,
}

impl ValueError {
    pub(super) fn new(found: impl fmt::Display, expected: impl Into<String>) -> Self {
        Self { found: found.to_string(), expected: expected.into() }
    }
}

/// Units of a duration with their milliseconds, longest first: the order in which they may be written.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads `500ms`, `2s`, `15m`, `1h30m`: whole numbers with units d, h, m, s, ms, each at most once, longest first,
/// without spaces.
///
/// # Errors
/// Anything else, a duration without unit included.
pub fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    milliseconds(text)
        .map(Duration::from_millis)
        .ok_or_else(|| ValueError::new(quoted(text), r#"a duration like "500ms", "2s", "15m" or "1h30m""#))
}

fn milliseconds(text: &str) -> Option<u64> {
    let mut units = UNITS.iter();
    let mut total = 0_u64;
    let mut rest = Some(text).filter(|text| !text.is_empty())?;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        // `units` only moves forward: a unit that is repeated or out of order is not found again.
        let (_, factor) = units.by_ref().find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*factor)?)?;
        rest = tail;
    }
    Some(total)
}

/// The shortest text that [`parse_duration`] reads back as the same duration, in whole milliseconds.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, factor) in UNITS {
        if rest >= factor {
            text += &format!("{}{unit}", rest / factor);
            rest %= factor;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Reads one item of `ports`: `80` or `8000-8100`.
///
/// # Errors
/// Port 0, a range that runs backwards, anything that is not a number.
pub fn parse_port_range(text: &str) -> Result<RangeInclusive<u16>, ValueError> {
    let port = |text: &str| decimal(text).filter(|port| limits::PORT.contains(port));
    let range = match text.split_once('-') {
        None => port(text).map(|only| only..=only),
        Some((first, last)) => port(first).zip(port(last)).map(|(first, last)| first..=last),
    };
    range.filter(|range| range.start() <= range.end()).ok_or_else(|| {
        ValueError::new(
            quoted(text),
            r#"a port from 1 to 65535 or a range like "8000-8100", lower end first"#,
        )
    })
}

/// `80` or `8000-8100`; the inverse of [`parse_port_range`].
#[must_use]
pub fn format_range(range: &RangeInclusive<u16>) -> String {
    match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

/// Sorts the ranges of a service.
///
/// # Errors
/// A port named twice, or more than [`limits::PORTS`] in all.
pub(super) fn ports_of(mut ranges: Vec<RangeInclusive<u16>>) -> Result<Ports, ValueError> {
    ranges.sort_unstable_by_key(|range| (*range.start(), *range.end()));
    if let Some(pair) = ranges.windows(2).find(|pair| pair[1].start() <= pair[0].end()) {
        let found = format!(
            "port {} twice ({} and {})",
            pair[1].start(),
            format_range(&pair[0]),
            format_range(&pair[1])
        );
        return Err(ValueError::new(found, "each port once"));
    }
    let count: usize = ranges.iter().map(RangeInclusive::len).sum();
    match count {
        0 => Err(ValueError::new("an empty list", r#"at least one port, or "any""#)),
        1..=limits::PORTS => Ok(Ports::Ranges(ranges)),
        _ => Err(ValueError::new(
            format!("{count} ports"),
            format!(r#"at most {}; use "any" for more"#, limits::PORTS),
        )),
    }
}

/// Reads `expect` of a health check: `200-299`, `200,204,300-399`. Ranges come back sorted, touching ones joined.
///
/// # Errors
/// Codes outside 100 to 599, a range that runs backwards, an empty item.
pub fn parse_expect(text: &str) -> Result<Vec<RangeInclusive<u16>>, ValueError> {
    let wrong = || {
        ValueError::new(quoted(text), r#"status codes from 100 to 599 like "200-299" or "200,204,300-399""#)
    };
    let code = |text: &str| decimal(text.trim_matches(' ')).filter(|code| limits::STATUS.contains(code));
    // 500 codes, comma and three digits each, with room for spaces; longer texts only repeat themselves.
    if text.len() > 8_192 {
        return Err(wrong());
    }
    let mut ranges = Vec::new();
    for item in text.split(',') {
        let range = match item.split_once('-') {
            None => code(item).map(|only| only..=only),
            Some((first, last)) => code(first).zip(code(last)).map(|(first, last)| first..=last),
        };
        ranges.push(range.filter(|range| range.start() <= range.end()).ok_or_else(wrong)?);
    }
    Ok(joined(ranges))
}

/// Sorted ranges with what touches or overlaps made one.
fn joined(mut ranges: Vec<RangeInclusive<u16>>) -> Vec<RangeInclusive<u16>> {
    ranges.sort_unstable_by_key(|range| *range.start());
    let mut result: Vec<RangeInclusive<u16>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match result.last_mut() {
            Some(last) if *range.start() <= last.end().saturating_add(1) => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => result.push(range),
        }
    }
    result
}

/// The inverse of [`parse_expect`].
#[must_use]
pub fn format_expect(ranges: &[RangeInclusive<u16>]) -> String {
    ranges.iter().map(format_range).collect::<Vec<_>>().join(",")
}

/// Digits only: `u16::from_str` alone would take a sign.
fn decimal(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Reads `hash_seed`. No message repeats it: it is a secret.
///
/// # Errors
/// Anything but 64 hexadecimal digits.
pub fn parse_seed(text: &str) -> Result<Seed, ValueError> {
    secret(text, "64 hexadecimal digits; make one with `openssl rand -hex 32`").map(Seed)
}

/// Reads `aes_key`. No message repeats it either.
///
/// # Errors
/// Anything but 32 hexadecimal digits.
pub fn parse_quic_key(text: &str) -> Result<QuicKey, ValueError> {
    secret(text, "32 hexadecimal digits; make one with `openssl rand -hex 16`").map(QuicKey)
}

/// Reads a secret of `N` bytes.
fn secret<const N: usize>(text: &str, expected: &str) -> Result<[u8; N], ValueError> {
    let mut bytes = [0; N];
    match hex::decode_to_slice(text, &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(hex::FromHexError::InvalidHexCharacter { index, .. }) => {
            Err(ValueError::new(format!("another character at position {}", index + 1), expected))
        }
        Err(_) => Err(ValueError::new(format!("{} characters", text.chars().count()), expected)),
    }
}

/// Reads an IP address.
///
/// # Errors
/// A name, a prefix, an address with port or zone.
pub fn parse_address(text: &str) -> Result<IpAddr, ValueError> {
    text.parse().map_err(|_| {
        ValueError::new(quoted(text), "an IPv4 or IPv6 address (no name, no port, no prefix length)")
    })
}

/// Reads a prefix of tunnel sources: `198.51.100.0/28`; an address alone is a prefix of one.
///
/// # Errors
/// Bits set behind the prefix length (it could mean the address or the prefix), length 0 (it would be everyone),
/// addresses that no host sends from.
pub fn parse_prefix(text: &str) -> Result<IpNet, ValueError> {
    let wrong = |expected: String| ValueError::new(quoted(text), expected);
    let net: IpNet = match text.parse() {
        Ok(net) => net,
        Err(_) => IpNet::from(
            text.parse::<IpAddr>()
                .map_err(|_| wrong("a prefix like \"198.51.100.0/28\" or an address".into()))?,
        ),
    };
    if net.prefix_len() == 0 {
        return Err(wrong("a prefix longer than /0: that one is every address".into()));
    }
    if net.trunc() != net {
        let only = IpNet::from(net.addr());
        return Err(wrong(format!(
            "no bits behind the prefix length: write \"{}\" or \"{only}\"",
            net.trunc()
        )));
    }
    match unusable(net.addr()) {
        Some(kind) => Err(wrong(format!("addresses that hosts send from, not {kind}"))),
        None => Ok(net),
    }
}

/// Checks an address that packets are sent to: a VIP or a backend.
///
/// # Errors
/// Multicast, broadcast, loopback, unspecified, IPv4-mapped and IPv6 link-local addresses.
pub fn check_destination(address: IpAddr) -> Result<(), ValueError> {
    match unusable(address) {
        Some(kind) => {
            Err(ValueError::new(format!("{address}, {kind}"), "an address that routers deliver to one host"))
        }
        None => Ok(()),
    }
}

/// Why packets can neither be sent to nor come from an address through a router.
fn unusable(address: IpAddr) -> Option<&'static str> {
    let only_ipv4 = |test: fn(&std::net::Ipv4Addr) -> bool| matches!(&address, IpAddr::V4(v4) if test(v4));
    let only_ipv6 = |test: fn(&std::net::Ipv6Addr) -> bool| matches!(&address, IpAddr::V6(v6) if test(v6));
    let tests = [
        (address.is_unspecified(), "the unspecified address"),
        (address.is_loopback(), "a loopback address"),
        (address.is_multicast(), "a multicast address"),
        (only_ipv4(std::net::Ipv4Addr::is_broadcast), "the broadcast address"),
        (only_ipv6(|v6| v6.to_ipv4_mapped().is_some()), "an IPv4 address written as IPv6"),
        (only_ipv6(std::net::Ipv6Addr::is_unicast_link_local), "a link-local address"),
    ];
    tests.into_iter().find(|(hit, _)| *hit).map(|(_, kind)| kind)
}

/// Checks the name of a network interface by the kernel's rules (`dev_valid_name`). Whether it exists is asked when
/// it is attached to.
///
/// # Errors
/// Empty, longer than 15 bytes, `.`, `..`, or with slash, colon, blank or control characters.
pub fn check_interface(name: &str) -> Result<(), ValueError> {
    let fits = (1..=limits::INTERFACE_BYTES).contains(&name.len());
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if fits && name != "." && name != ".." && !name.contains(forbidden) {
        return Ok(());
    }
    let expected = "an interface name: 1 to 15 bytes without slash, colon or blank, as `ip link` shows it";
    Err(ValueError::new(quoted(name), expected))
}

/// Checks the name of a service.
///
/// # Errors
/// Not 1 to 63 of `[A-Za-z0-9._-]`.
pub fn check_service_name(name: &str) -> Result<(), ValueError> {
    check_name(name, "._-", "1 to 63 of the characters A-Z a-z 0-9 . _ -")
}

/// Checks the name of a backend. A colon is allowed, since an IPv6 address is the name of a backend without one.
///
/// # Errors
/// Not 1 to 63 of `[A-Za-z0-9._:-]`.
pub fn check_backend_name(name: &str) -> Result<(), ValueError> {
    check_name(name, "._:-", "1 to 63 of the characters A-Z a-z 0-9 . _ : -")
}

fn check_name(name: &str, marks: &str, expected: &str) -> Result<(), ValueError> {
    let fits = (1..=limits::NAME_CHARS).contains(&name.len());
    if fits && name.chars().all(|c| c.is_ascii_alphanumeric() || marks.contains(c)) {
        return Ok(());
    }
    Err(ValueError::new(quoted(name), expected))
}

/// Checks `path` of a health check: it is copied into the request line, so nothing may end that line.
///
/// # Errors
/// Not absolute, longer than 1,024 bytes, or with blanks, `#` or characters beyond ASCII.
pub fn check_path(path: &str) -> Result<(), ValueError> {
    let visible = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if path.starts_with('/') && visible && path.len() <= limits::PATH_BYTES {
        return Ok(());
    }
    let expected = "an absolute path like \"/ready?full=1\": at most 1024 visible ASCII characters, encode others as %XX";
    Err(ValueError::new(quoted(path), expected))
}

/// Checks `host` of a health check, the value of the Host header.
///
/// # Errors
/// Empty, longer than 260 bytes, or with characters that no host and port have.
pub fn check_host(host: &str) -> Result<(), ValueError> {
    let fits = (1..=limits::HOST_BYTES).contains(&host.len());
    if fits && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte)) {
        return Ok(());
    }
    Err(ValueError::new(
        quoted(host),
        "a host name or address, with a port where needed, like \"example.net:8080\"",
    ))
}

/// Checks `table_slots`.
///
/// # Errors
/// Out of range, or not a prime: names the nearest ones.
pub fn check_slots(slots: u32) -> Result<(), ValueError> {
    if !limits::TABLE_SLOTS.contains(&slots) {
        let (low, high) = limits::TABLE_SLOTS.into_inner();
        return Err(ValueError::new(slots, format!("a prime from {low} to {high}")));
    }
    if is_prime(slots) {
        return Ok(());
    }
    // Both ends of the range are primes, so both searches end.
    let below = (*limits::TABLE_SLOTS.start()..slots).rev().find(|number| is_prime(*number));
    let above = (slots..=*limits::TABLE_SLOTS.end()).find(|number| is_prime(*number));
    let near = [below, above].into_iter().flatten().map(|prime| prime.to_string()).collect::<Vec<_>>();
    Err(ValueError::new(slots, format!("a prime; the nearest are {}", near.join(" and "))))
}

/// By trial division: at most 512 steps for the largest number allowed.
fn is_prime(number: u32) -> bool {
    number == 2
        || number > 2
            && !number.is_multiple_of(2)
            && (3..).step_by(2).take_while(|d| d * d <= number).all(|d| !number.is_multiple_of(d))
}

/// Checks a capacity: tables are arrays of a power of two.
///
/// # Errors
/// Out of range, or not a power of two: names the nearest ones.
pub(super) fn check_capacity(capacity: u32, range: &RangeInclusive<u32>) -> Result<(), ValueError> {
    if !range.contains(&capacity) {
        return Err(ValueError::new(
            capacity,
            format!("a power of two from {} to {}", range.start(), range.end()),
        ));
    }
    if capacity.is_power_of_two() {
        return Ok(());
    }
    let above = capacity.next_power_of_two();
    Err(ValueError::new(capacity, format!("a power of two; the nearest are {} and {above}", above / 2)))
}
