//! What comes behind an IP header: extension headers of IPv6 and fragments, read without the datapath's code.

/// Which part of a datagram a packet has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first fragment.
    First,
    /// Another fragment.
    Later,
}

/// Where extension headers lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// What comes behind them.
    pub protocol: u8,
    /// Bytes from the start of the IP packet.
    pub at: usize,
    /// Part of the datagram.
    pub part: Part,
}

/// Why they lead nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// A header is cut short.
    Short,
    /// More than six, or longer than 512 bytes.
    TooMany,
}

/// Part by a word of flag and offset (RFC 791, RFC 8200 4.5).
pub fn part(word: u16, flag: u16, offset: u16) -> Part {
    match (word & offset, word & flag) {
        (0, 0) => Part::Whole,
        (0, _) => Part::First,
        _ => Part::Later,
    }
}

/// Follows the extension headers of an IPv6 packet, `packet` from its IP header on, of which `length` bytes are its own.
///
/// # Errors
/// [`Lost`].
pub fn follow(packet: &[u8], length: usize) -> Result<End, Lost> {
    let mut end = End { protocol: packet[6], at: 40, part: Part::Whole };
    for _ in 0..=6 {
        if ![0, 43, 44, 51, 60].contains(&end.protocol) || end.part == Part::Later {
            return Ok(end);
        }
        let header: &[u8; 8] = packet.get(end.at..).and_then(|h| h.first_chunk()).ok_or(Lost::Short)?;
        end.at += match end.protocol {
            44 => {
                end.part = part(u16::from_be_bytes([header[2], header[3]]), 1, 0xfff8);
                8
            }
            51 => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        if end.at > length {
            return Err(Lost::Short);
        }
        if end.at > 40 + 512 {
            return Err(Lost::TooMany);
        }
        end.protocol = header[0];
    }
    Err(Lost::TooMany)
}
