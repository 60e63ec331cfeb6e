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

/// Sum of an IPv6 pseudo-header without its addresses (RFC 8200 8.1).
#[inline(always)]
pub fn pseudo6(length: u16, next_header: u8) -> u32 {
    u32::from(length) + u32::from(next_header)
}

/// What a checksum's sum changes by when `old` becomes `new`, added to `sum` (RFC 1624, equation 3). Words are as in
/// memory: a one's-complement sum has no byte order (RFC 1071 2). Half a word can be given too: the upper half of `!old`
/// is all ones then, which add nothing.
#[inline(always)]
pub fn replace(sum: u64, old: u32, new: u32) -> u64 {
    sum + u64::from(!old) + u64::from(new)
}

/// A checksum field, as in memory, after words were replaced that [`replace`] added up to `sum`.
#[inline(always)]
pub fn update(field: u16, sum: u64) -> u16 {
    let sum = sum + u64::from(!field);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    finish(sum as u32)
}

#[cfg(test)]
mod tests {
    use super::{add, finish, fold, replace, update};

    #[test]
    fn a_field_that_is_updated_is_the_one_that_a_new_sum_gives() {
        let mut word = 0x9e37_79b9_u32;
        for _ in 0..10_000 {
            let old: [u32; 3] = core::array::from_fn(|_| {
                word = word.wrapping_mul(0x85eb_ca6b) ^ word >> 13;
                word
            });
            let new = [old[2], !old[0], old[0].rotate_left(5)];
            let sum = |words: [u32; 3]| {
                let bytes = words.map(u32::to_ne_bytes);
                finish(add(add(add(0x4500, &bytes[0]), &bytes[1]), &bytes[2])).to_be()
            };
            let difference = (0..3).fold(0, |sum, i| replace(sum, old[i], new[i]));
            assert_eq!(update(sum(old), difference), sum(new), "{old:x?} {new:x?}");
        }
    }

    #[test]
    fn rfc_1624_example() {
        // RFC 1624 section 4, where the equation of RFC 1141 would give 0xffff.
        let big = |word: u16| u32::from(word.to_be());
        assert_eq!(update(0xdd2f_u16.to_be(), replace(0, big(0x5555), big(0x3285))), 0);
    }

    #[test]
    fn nothing_replaced_changes_nothing() {
        for field in [0x0000, 0x0001, 0x1234, 0xfffe] {
            assert_eq!(update(field, replace(0, 0xdead_beef, 0xdead_beef)), field);
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
