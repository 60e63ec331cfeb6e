//! The keyed hash that picks slots, table cells and buckets.
//!
//! BPF multiplies 64 by 64 bits but keeps only the low half, so the mixer alternates multiplies with shifts that bring
//! the well-mixed high bits down. Every step is a bijection: two IPv4 flows to one VIP never collide before the
//! reduction to slots. The key (a start value, a secret odd multiplier and a whitening word) comes from the seed of
//! the configuration: without it nobody can aim traffic at one slot, and with it every balancer of a group agrees.
//! Golden vectors below pin the function. (A bare multiply would be linear; products of 32×32 bits have biased high
//! bits: both failed the avalanche test.)

/// A keyed hash of a few 32-bit words; 64 bits of result.
#[derive(Clone, Copy)]
pub struct Hasher {
    state: u64,
    multiplier: u64,
    white: u64,
}

impl Hasher {
    /// Starts with the key of the tables and a domain, so that two uses of the same words do not agree.
    #[inline(always)]
    pub fn new(key: &[u64; 4], domain: u32) -> Self {
        Self { state: key[0] ^ u64::from(domain), multiplier: key[1] | 1, white: key[2] }
    }

    /// Takes in two words.
    #[inline(always)]
    pub fn pair(&mut self, x: u32, y: u32) {
        let mixed = (self.state ^ (u64::from(x) << 32 | u64::from(y))).wrapping_mul(self.multiplier);
        self.state = mixed ^ (mixed >> 32);
    }

    /// The result: the finaliser of SplitMix64 over the whitened state.
    #[inline(always)]
    pub fn finish(self) -> u64 {
        let z = (self.state ^ self.white).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Maps the high half of a hash to `0..length` without a division (Lemire's multiply-shift).
#[inline(always)]
pub fn reduce(hash: u64, length: u32) -> u32 {
    (((hash >> 32) * u64::from(length)) >> 32) as u32
}

/// Domains of [`Hasher::new`].
pub mod domain {
    /// Affinity: which slot.
    pub const SLOT: u32 = 0x534c_4f54;
    /// Flow table: which bucket, which fingerprint.
    pub const FLOW: u32 = 0x464c_4f57;
    /// Rate-limit buckets.
    pub const LIMIT: u32 = 0x4c49_4d49;
    /// Cells of the VIP tables.
    pub const VIP: u32 = 0x5649_5021;
    /// Cells of the port table.
    pub const PORT: u32 = 0x504f_5254;
}

/// The two cells where a 32-bit key may be: cheap, because the keys are the operator's.
///
/// `salt` is changed by user space until all keys of a table find a place.
#[inline(always)]
pub fn cells(words: [u32; 2], salt: u32, mask: u32) -> (u32, u32) {
    let product = (u64::from(words[0] ^ salt) * 0x9e37_79b1) ^ (u64::from(words[1]) * 0x85eb_ca77);
    let product = (product ^ (product >> 29)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    ((product >> 32) as u32 & mask, (product >> 12) as u32 & mask)
}

#[cfg(test)]
mod tests {
    use super::{Hasher, cells, domain, reduce};

    const KEY: [u64; 4] =
        [0x0123_4567_89ab_cdef, 0xdead_beef_5555_aaaa, 0x1357_9bdf_2468_ace0, 0xf00d_cafe_0bad_f00d];

    fn hash(key: &[u64; 4], words: [u32; 4]) -> u64 {
        let mut h = Hasher::new(key, domain::SLOT);
        h.pair(words[0], words[1]);
        h.pair(words[2], words[3]);
        h.finish()
    }

    /// SplitMix64: independent inputs for the statistics.
    struct Random(u64);
    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        }
        fn word(&mut self) -> u32 {
            self.next() as u32
        }
    }

    #[test]
    fn golden_vectors() {
        let got = [
            hash(&KEY, [0, 0, 0, 0]),
            hash(&KEY, [0x0100_12c6, 0x0a02_00c0, 0, 0]),
            hash(&KEY, [1, 2, 3, 4]),
            hash(&KEY, [u32::MAX; 4]),
        ];
        assert_eq!(got, GOLDEN, "the hash changed: every flow of every balancer would move ({got:#x?})");
    }
    const GOLDEN: [u64; 4] =
        [0x7d4f_307a_1bcc_8943, 0x681a_935d_2de3_3fd2, 0x2046_67ce_0aa8_fb87, 0xbfa8_94fc_7efb_d8dd];

    #[test]
    fn every_input_bit_flips_every_output_bit_half_the_time() {
        const ROUNDS: u32 = 4000;
        let mut r = Random(1);
        for bit in 0..128 {
            let mut flips = [0u32; 64];
            for _ in 0..ROUNDS {
                let key: [u64; 4] = core::array::from_fn(|_| r.next());
                let words: [u32; 4] = core::array::from_fn(|_| r.word());
                let mut other = words;
                other[bit / 32] ^= 1 << (bit % 32);
                let d = hash(&key, words) ^ hash(&key, other);
                for (o, f) in flips.iter_mut().enumerate() {
                    *f += (d >> o & 1) as u32;
                }
            }
            for (o, f) in flips.iter().enumerate() {
                let share = f64::from(*f) / f64::from(ROUNDS);
                assert!((0.45..0.55).contains(&share), "input bit {bit}, output bit {o}: {share}");
            }
        }
    }

    #[test]
    fn neighbouring_addresses_spread_evenly_under_a_fixed_key() {
        let mut count = [0u32; 251];
        for i in 0..251_000u32 {
            let h = hash(&KEY, [(0xc612_0000 + i).to_be(), 0x0a02_00c0, 0, 0]);
            count[reduce(h, 251) as usize] += 1;
        }
        // Chi-square with 250 degrees of freedom: mean 250, deviation 22; six deviations.
        let chi: f64 = count.iter().map(|c| (f64::from(*c) - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi < 250.0 + 6.0 * 22.4, "chi-square {chi}");
    }

    #[test]
    fn reduce_stays_in_range_and_reaches_both_ends() {
        assert_eq!(reduce(0, 16381), 0);
        assert_eq!(reduce(u64::MAX, 16381), 16380);
        assert_eq!(reduce(u64::MAX, 1), 0);
    }

    #[test]
    fn the_two_cells_are_independent_enough() {
        let mut same = 0;
        for i in 0..100_000u32 {
            let (a, b) = cells([i.to_be(), 0], 7, 1023);
            assert!(a < 1024 && b < 1024);
            same += u32::from(a == b);
        }
        assert!(same < 300, "{same} of 100000 keys have one cell instead of two");
    }
}
