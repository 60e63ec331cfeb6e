//! The Internet checksum (RFC 1071): one's-complement sums kept in 32 or 64 bits and folded at the end.

/// Adds the 16-bit big-endian words of `bytes` (an even number of bytes) to `sum`, as host-order numbers.
#[inline(always)]
pub fn add<const N: usize>(sum: u32, bytes: &[u8; N]) -> u32 {
    const { assert!(N.is_multiple_of(2)) };
    let mut sum = sum;
    let mut i = 0;
    while i < N {
        sum += u32::from(super::be16(bytes, i));
        i += 2;
    }
    sum
}

/// Folds a sum to 16 bits, without complementing it.
#[inline(always)]
pub fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum field for a sum: folded and complemented, host order.
#[inline(always)]
pub fn finish(sum: u32) -> u16 {
    !fold(sum)
}

/// The checksum field (host order) after one word that it covers became another (RFC 1624, equation 3).
#[inline(always)]
pub fn replace(checksum: u16, old: u16, new: u16) -> u16 {
    finish(u32::from(!checksum) + u32::from(!old) + u32::from(new))
}

/// Sum of an IPv6 pseudo-header without its addresses (RFC 8200 8.1).
#[inline(always)]
pub fn pseudo6(length: u16, next_header: u8) -> u32 {
    u32::from(length) + u32::from(next_header)
}

#[cfg(test)]
mod tests {
    use super::{add, finish, fold, replace};

    #[test]
    fn a_replaced_word_gives_the_checksum_of_the_new_header() {
        // RFC 1624 section 4, where the equation of RFC 1141 would give 0xffff.
        assert_eq!(replace(0xdd2f, 0x5555, 0x3285), 0x0000);
        for (old, new) in [(0x4001, 0x4001), (0, 0xffff), (0xffff, 0), (0x0800, 0)] {
            let sum = |word: u16| finish(u32::from(word) + 0x1234 + 0xf00d);
            assert_eq!(replace(sum(old), old, new), sum(new), "{old:04x} to {new:04x}");
        }
    }

    #[test]
    fn rfc_1071_example() {
        // RFC 1071 section 3: 0001 f203 f4f5 f6f7 sums to ddf2.
        assert_eq!(fold(add(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
    }

    #[test]
    fn folding_needs_both_steps() {
        assert_eq!(fold(0xffff_ffff), 0xffff);
        assert_eq!(fold(0x1_ffff), 1);
        assert_eq!(finish(0), 0xffff);
    }

    #[test]
    fn a_header_with_its_checksum_sums_to_all_ones() {
        let mut header = [0x45, 0, 0, 0x54, 0, 0, 0x40, 0, 64, 4, 0, 0, 198, 51, 100, 2, 198, 51, 100, 11];
        let sum = finish(add(0, &header)).to_be_bytes();
        header[10] = sum[0];
        header[11] = sum[1];
        assert_eq!(fold(add(0, &header)), 0xffff);
    }
}
