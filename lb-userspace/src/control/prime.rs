//! Small primes: the length of a table is one, and a message that refuses a length names its neighbours.

/// Whether `n` is a prime. Trial division: at most 11,000 divisions for the largest `u32`, under 200 for a table.
#[must_use]
pub fn is_prime(n: u32) -> bool {
    if n < 4 {
        return n > 1;
    }
    if n.is_multiple_of(2) || n.is_multiple_of(3) {
        return false;
    }
    // Every other prime is next to a multiple of six.
    (5..=n.isqrt()).step_by(6).all(|d| !n.is_multiple_of(d) && !n.is_multiple_of(d + 2))
}

/// The largest prime that is at most `n`; none below 2.
#[must_use]
pub fn prime_at_most(n: u32) -> Option<u32> {
    (2..=n).rev().find(|&p| is_prime(p))
}

/// The smallest prime that is at least `n`; none above 4,294,967,291.
#[must_use]
pub fn prime_at_least(n: u32) -> Option<u32> {
    (n..=u32::MAX).find(|&p| is_prime(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_a_sieve_up_to_twenty_thousand() {
        let mut composite = vec![false; 20_000];
        for n in 2..20_000usize {
            assert_eq!(is_prime(n as u32), !composite[n], "{n}");
            (n * n..20_000).step_by(n).for_each(|m| composite[m] = true);
        }
        assert!(!is_prime(0) && !is_prime(1));
    }

    #[test]
    fn knows_the_lengths_that_people_use() {
        for p in [251, 1_009, 8_191, 16_381, 65_537, 131_071, 655_373, 1_048_573, 4_294_967_291] {
            assert!(is_prime(p), "{p}");
        }
        for n in [255, 16_384, 65_536, 1_048_575, 4_294_967_295, 16_381 * 3, 127 * 127, 65_521 * 65_521] {
            assert!(!is_prime(n), "{n}");
        }
    }

    #[test]
    fn names_the_neighbours_of_a_number() {
        assert_eq!((prime_at_most(16_384), prime_at_least(16_384)), (Some(16_381), Some(16_411)));
        assert_eq!((prime_at_most(16_381), prime_at_least(16_381)), (Some(16_381), Some(16_381)));
        assert_eq!((prime_at_most(1), prime_at_least(0)), (None, Some(2)));
        assert_eq!((prime_at_most(u32::MAX), prime_at_least(u32::MAX)), (Some(4_294_967_291), None));
    }
}
