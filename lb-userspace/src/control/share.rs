//! How many slots each member gets: proportional to its weight, whole numbers, and calm when weights change.
//!
//! A divisor method: member i gets ⌊x · weight + o⌋ with one x for all, chosen so that the sum is the length of the
//! table, and o a keyed hash of its identity in [0, 1). When somebody joins or leaves or changes weight, x moves one
//! way and everybody's share with it, so next to no slot moves for rounding's sake. Largest remainders, the usual way,
//! would give and take odd slots among members that have nothing to do with the change. No share is further from
//! proportion than the next whole number, which overrides the rest where many small weights meet few slots.

/// Fraction bits of x and o: a length below 2²⁰ leaves bits of a `u64` to spare.
const FRACTION: u32 = 42;

/// What a member asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    /// Weight.
    pub(super) weight: u32,
    /// Keyed hash of the identity: who gets the odd slots.
    pub(super) odd: u32,
}

/// A claim with the whole numbers next to its exact proportion.
#[derive(Clone, Copy, Debug)]
struct Bounded {
    claim: Claim,
    least: u64,
    most: u64,
}

impl Bounded {
    /// The share at x; grows with x.
    #[inline]
    fn share(&self, x: u64) -> u64 {
        let odd = u64::from(self.claim.odd) << (FRACTION - u32::BITS);
        // What saturates is far above `most`.
        let share = x.saturating_mul(u64::from(self.claim.weight)).saturating_add(odd) >> FRACTION;
        share.clamp(self.least, self.most)
    }
}

/// Divides `slots` (below 2²⁰) among the claims in proportion to their weights, each rounded up or down; the sum is
/// exact. All zero if there is no weight at all.
pub(super) fn divide(claims: &[Claim], slots: u32) -> Vec<u32> {
    let total: u64 = claims.iter().map(|claim| u64::from(claim.weight)).sum();
    if total == 0 {
        return vec![0; claims.len()];
    }
    let bounded = claims.iter().map(|&claim| {
        let product = u64::from(slots) * u64::from(claim.weight);
        Bounded { claim, least: product / total, most: product.div_ceil(total) }
    });
    let bounded: Vec<_> = bounded.collect();
    let x = find_multiplier(&bounded, slots, total);
    let mut shares: Vec<_> = bounded.iter().map(|claim| claim.share(x) as u32).collect();
    // Shares that step up at the very same x: the first in order get the step.
    let mut missing = slots - shares.iter().sum::<u32>();
    for (share, claim) in shares.iter_mut().zip(&bounded) {
        let step = (claim.share(x + 1) as u32 - *share).min(missing);
        *share += step;
        missing -= step;
    }
    shares
}

/// An x whose shares sum to `slots`, or to less while those of x + 1 sum to more.
fn find_multiplier(claims: &[Bounded], slots: u32, total: u64) -> u64 {
    let sum = |x: u64| claims.iter().map(|claim| claim.share(x)).sum::<u64>();
    let slots = u64::from(slots);
    let odd: u64 = claims.iter().map(|c| u64::from(c.claim.odd) << (FRACTION - u32::BITS)).sum();
    // All have their least at 0 and their most at the upper end; without the bounds x would be little above the guess.
    let (mut low, mut low_sum, mut high) = (0, sum(0), (slots / total + 2) << FRACTION);
    let mut guess = (slots << FRACTION).saturating_sub(odd) / total;
    let mut halve = false;
    while low_sum < slots && high - low > 1 {
        guess = guess.clamp(low + 1, high - 1);
        let guess_sum = sum(guess);
        if guess_sum <= slots {
            (low, low_sum) = (guess, guess_sum);
        } else {
            high = guess;
        }
        // The sum grows by `total` per unit on average, which finds x in a few steps; every other one halves, which
        // bounds them.
        let step = ((slots - low_sum) << FRACTION) / total;
        guess = if halve { low + (high - low) / 2 } else { low + step };
        halve = !halve;
    }
    low
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::arith::mix, *};

    /// Claims whose odd-slot hashes follow from their place.
    fn claims(weights: &[u32]) -> Vec<Claim> {
        weights.iter().zip(1..).map(|(&weight, i)| Claim { weight, odd: mix(i) as u32 }).collect()
    }

    #[test]
    fn equal_weights_differ_by_one_slot_at_most() {
        for (members, slots) in [(1, 251), (3, 251), (10, 16_381), (100, 65_537), (16_383, 16_411)] {
            let shares = divide(&claims(&vec![100; members]), slots);
            assert_eq!(shares.iter().sum::<u32>(), slots);
            let mean = slots / members as u32;
            assert!(shares.iter().all(|&share| share == mean || share == mean + 1), "{members} members");
        }
    }

    #[test]
    fn extremes_are_divided() {
        assert!(divide(&[], 251).is_empty());
        assert_eq!(divide(&claims(&[0, 0]), 251), [0, 0]);
        assert_eq!(divide(&claims(&[0, 7, 0]), 251), [0, 251, 0]);
        let mut weights = vec![u32::MAX; 16_382];
        weights.push(1);
        let shares = divide(&claims(&weights), 1_048_573);
        assert_eq!(shares.iter().sum::<u32>(), 1_048_573);
        assert!(shares[..16_382].iter().all(|&share| share == 64 || share == 65));
        // Claims alike in everything, as the hash has but 32 bits: the first in order get the odd slots.
        assert_eq!(divide(&[Claim { weight: 5, odd: 9 }; 3], 251), [84, 84, 83]);
    }

    proptest! {
        #[test]
        fn shares_are_in_proportion(
            weights in prop::collection::vec(prop_oneof![0..4u32, 0..1000u32, any::<u32>()], 1..200),
            slots in 251..1_048_573u32,
        ) {
            let shares = divide(&claims(&weights), slots);
            let total: u64 = weights.iter().map(|&w| u64::from(w)).sum();
            prop_assume!(total > 0);
            prop_assert_eq!(shares.iter().sum::<u32>(), slots);
            for (&share, &weight) in shares.iter().zip(&weights) {
                let product = u64::from(slots) * u64::from(weight);
                prop_assert!((product / total..=product.div_ceil(total)).contains(&u64::from(share)));
            }
        }

        #[test]
        fn everybody_moves_one_way_when_somebody_changes(
            weights in prop::collection::vec(1..1000u32, 2..100),
            changed in any::<prop::sample::Index>(),
            weight in 0..1000u32,
            slots in 65_000..100_000u32,
        ) {
            let changed = changed.index(weights.len());
            let before = divide(&claims(&weights), slots);
            let mut after = weights.clone();
            after[changed] = weight;
            let after = divide(&claims(&after), slots);
            let others = (0..weights.len()).filter(|&i| i != changed);
            // The rule that no share is a slot away from proportion may cost a slot or two.
            let against = |i: usize| match weight > weights[changed] {
                true => after[i].saturating_sub(before[i]),
                false => before[i].saturating_sub(after[i]),
            };
            prop_assert!(others.map(against).sum::<u32>() <= 2);
        }
    }
}
