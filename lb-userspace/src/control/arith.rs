//! Integer arithmetic of the tables: nothing here may differ between two machines, so there is no float in it.

/// Bits before the binary point of a logarithm's fraction: values of [`ln`] are multiples of 2⁻⁶⁰.
pub(super) const LN_BITS: u32 = 60;

/// High half of the 128-bit product: `a · b / 2⁶⁴`, rounded down.
#[inline]
#[must_use]
pub(super) const fn mul_high(a: u64, b: u64) -> u64 {
    ((a as u128 * b as u128) >> 64) as u64
}

/// A bijective 64-bit mixer: every input bit reaches every output bit (tested). It keeps no secret by itself; keys
/// go in before and between uses.
#[inline]
#[must_use]
pub(super) const fn mix(x: u64) -> u64 {
    // Multipliers: fractions of the golden ratio and of pi, made odd. The test for evenness is what vouches for them.
    let x = (x ^ (x >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 29)).wrapping_mul(0x243f_6a88_85a3_08d3);
    let x = (x ^ (x >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^ (x >> 29)
}

/// Arithmetic modulo a number below 2²⁰, without a division.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Modulus {
    value: u64,
    /// 2⁶⁴ / value, rounded up: multiplying by it turns a number into its multiple of 1/value in a 64-bit fraction.
    inverse: u64,
}

impl Modulus {
    /// `value`: 2 to 2²⁰ − 1.
    #[must_use]
    pub(super) const fn new(value: u32) -> Self {
        Self { value: value as u64, inverse: u64::MAX / value as u64 + 1 }
    }

    /// `v` as the numerator of a fraction of the modulus, for [`Self::residue`]. Linear in `v`, wrapping.
    #[inline]
    #[must_use]
    pub(super) const fn fraction(self, v: u64) -> u64 {
        v.wrapping_mul(self.inverse)
    }

    /// Turns a fraction, or a wrapping sum of products of one, back: `residue(fraction(v)) == v mod value` for every
    /// v below 2⁴³. (The wrapped whole turns add at most v/value · value² / 2⁶⁴ < 1 to the result before rounding.)
    #[inline]
    #[must_use]
    pub(super) const fn residue(self, fraction: u64) -> u32 {
        // The mask changes nothing but lets the compiler know how large a residue can be, which spares bounds checks.
        mul_high(fraction, self.value & 0xf_ffff) as u32
    }

    /// `v mod value`, v below 2⁴³.
    #[inline]
    #[must_use]
    pub(super) const fn reduce(self, v: u64) -> u32 {
        self.residue(self.fraction(v))
    }

    /// `a · b mod value`; both below 2²¹.
    #[inline]
    #[must_use]
    pub(super) const fn mul(self, a: u32, b: u32) -> u32 {
        self.reduce(a as u64 * b as u64)
    }

    /// The inverse of `a`, for a prime modulus and `a` not a multiple of it: Fermat's little theorem.
    #[must_use]
    pub(super) const fn invert(self, a: u32) -> u32 {
        let (mut power, mut result, mut exponent) = (a, 1, self.value - 2);
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = self.mul(result, power);
            }
            power = self.mul(power, power);
            exponent >>= 1;
        }
        result
    }
}

const INTERVALS: usize = 128;
const ONE: u64 = 1 << 63;

/// ln(numerator / denominator) in [`LN_BITS`], by 2·artanh((n − d) / (n + d)); for ratios from 1 to 2.
const fn ln_ratio(numerator: u128, denominator: u128) -> u64 {
    const BITS: u32 = 100;
    let y = ((numerator - denominator) << BITS) / (numerator + denominator);
    // y ≤ 1/3: 2⁻⁶⁰ is reached after 19 terms. 50 bits of y keep the products inside 128 bits.
    let square = (y >> 50) * (y >> 50);
    let (mut power, mut sum, mut k) = (y, 0u128, 1u128);
    while k < 45 {
        sum += power / k;
        power = (power >> 50) * (square >> 50);
        k += 2;
    }
    ((sum + (1 << (BITS - LN_BITS - 2))) >> (BITS - LN_BITS - 1)) as u64
}

/// ln 2.
const LN_2: u64 = ln_ratio(2, 1);

/// (ln(1 + i/128), 1 / (1 + i/128) with 63 bits of fraction) for each interval.
static LN_TABLE: [(u64, u64); INTERVALS] = {
    let mut table = [(0, ONE); INTERVALS];
    let mut i = 1;
    while i < INTERVALS {
        let numerator = (INTERVALS + i) as u128;
        let reciprocal = (((INTERVALS as u128) << 63) / numerator) as u64;
        table[i] = (ln_ratio(numerator, INTERVALS as u128), reciprocal);
        i += 1;
    }
    table
};

/// Natural logarithm of `v` (1 to 2²³) in multiples of 2⁻⁶⁰; off by less than 2⁻³⁶, increasing in `v` (both tested).
#[inline]
#[must_use]
pub(super) fn ln(v: u32) -> u64 {
    debug_assert!(v > 0);
    let exponent = v.ilog2();
    let mantissa = u64::from(v) << (63 - exponent);
    let (base, reciprocal) = LN_TABLE[(mantissa >> 56) as usize % INTERVALS];
    let mul = |a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 63) as u64;
    // v = 2^exponent · (1 + i/128) · (1 + z), z < 1/128; four terms of the series leave z⁵/5 < 2⁻³⁷.
    let z = mul(mantissa & ((1 << 56) - 1), reciprocal);
    let series = mul(z, ONE - mul(z, ONE / 2 - mul(z, ONE / 3 - z / 4)));
    u64::from(exponent) * LN_2 + base + (series >> 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixer_is_even_in_every_bit() {
        // For each input bit, each output bit flips in half of 4,096 samples: 2,048 ± 5 deviations of 32.
        for input in 0..64 {
            let mut flips = [0u32; 64];
            for sample in 0..4096u64 {
                let x = sample.wrapping_mul(0x0123_4567_89ab_cdef) ^ sample;
                let changed = mix(x) ^ mix(x ^ (1 << input));
                flips.iter_mut().enumerate().for_each(|(bit, n)| *n += (changed >> bit & 1) as u32);
            }
            for (bit, n) in flips.into_iter().enumerate() {
                assert!(n.abs_diff(2048) < 5 * 32, "input bit {input}, output bit {bit}: {n} of 4096");
            }
        }
    }

    #[test]
    fn mixer_is_pinned() {
        assert_eq!(mix(0), 0);
        assert_eq!(mix(1), 0x255c_c096_f440_7b6c);
        assert_eq!(mix(0x0123_4567_89ab_cdef), 0x6bad_5469_e3bf_03f3);
    }

    #[test]
    fn residues_agree_with_the_remainder() {
        for value in [2, 3, 251, 16_381, 65_537, 655_373, 1_048_573, (1 << 20) - 1] {
            let modulus = Modulus::new(value);
            let top = (1u64 << 43) - 1;
            for v in (0..2000).chain((0..2000).map(|i| top - i)).chain((0..2000).map(|i| mix(i) >> 21)) {
                assert_eq!(u64::from(modulus.reduce(v)), v % u64::from(value), "{v} mod {value}");
            }
        }
    }

    #[test]
    fn inverses_are_inverses() {
        for prime in [2, 3, 251, 16_381, 1_048_573] {
            let modulus = Modulus::new(prime);
            for a in (1..prime).step_by((prime / 200).max(1) as usize) {
                assert_eq!(modulus.mul(a, modulus.invert(a)), 1, "{a} mod {prime}");
            }
        }
    }

    #[test]
    fn logarithm_is_close_and_increasing() {
        let unit = (1u64 << LN_BITS) as f64;
        assert_eq!(ln(1), 0);
        let mut last = 0;
        for v in (2..70_000).chain((70_000..1 << 23).step_by(97)) {
            let found = ln(v);
            assert!(found > last, "ln({v})");
            last = found;
            let error = (found as f64 / unit - f64::from(v).ln()).abs();
            assert!(error < 1.0 / (1u64 << 36) as f64, "ln({v}) is off by {error:e}");
        }
    }
}
