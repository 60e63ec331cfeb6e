//! How many slots each member gets: proportional to its weight, whole numbers, and calm when weights change.
//!
//! A divisor method: member i gets ⌊x · weight + o⌋ with one x for all, chosen so that the sum is the length of the
//! table, and o a keyed hash of its identity in [0, 1). Everybody's share moves one way when somebody joins or leaves
//! or changes weight, so no slot has to move for rounding's sake. Largest remainders, the usual way, would give and
//! take odd slots among members that have nothing to do with the change.

/// Fraction bits of x and o. A length below 2²⁰ leaves one bit of a `u64` to spare.
const FRACTION: u32 = 42;

/// One claim: weight and the odd-slot hash of its identity.
pub(super) type Claim = (u32, u32);

/// Divides `slots` (below 2²⁰) among the claims in proportion to their weights; the sum is exact. Shares are within
/// one slot of proportion, or within 1 in 10,000 for a claim that dwarfs thousands of others. All zero if there is no
/// weight at all. At most as many claims as slots.
pub(super) fn divide(claims: &[Claim], slots: u32) -> Vec<u32> {
    let total: u64 = claims.iter().map(|c| u64::from(c.0)).sum();
    if total == 0 {
        return vec![0; claims.len()];
    }
    let x = find_multiplier(claims, slots, total);
    let mut shares: Vec<u32> = claims.iter().map(|&claim| share(claim, x)).collect();
    // Shares that step up at the very same x: the first in order get the step.
    let mut missing = slots - shares.iter().sum::<u32>();
    for (held, &claim) in shares.iter_mut().zip(claims) {
        let step = (share(claim, x + 1) - *held).min(missing);
        *held += step;
        missing -= step;
    }
    shares
}

#[inline]
fn share((weight, odd): Claim, x: u64) -> u32 {
    let odd = u64::from(odd) << (FRACTION - u32::BITS);
    ((x * u64::from(weight) + odd) >> FRACTION) as u32
}

/// The largest x whose shares sum to at most `slots`.
fn find_multiplier(claims: &[Claim], slots: u32, total: u64) -> u64 {
    let sum = |x: u64| claims.iter().map(|&claim| u64::from(share(claim, x))).sum::<u64>();
    let slots = u64::from(slots);
    let odd: u64 = claims.iter().map(|c| u64::from(c.1) << (FRACTION - u32::BITS)).sum();
    // Rounding down loses less than one slot a claim: the sum is at most `slots` at `low` and above it at `high`.
    let mut low = ((slots << FRACTION) - odd) / total;
    let mut high = low + ((claims.len() as u64 + 1) << FRACTION) / total + 2;
    let mut low_sum = sum(low);
    while low_sum < slots && high - low > 1 {
        // The sum grows by `total` per unit on average; where that overshoots, halve.
        let guess = low + (((slots - low_sum) << FRACTION) / total).max(1);
        let guess = if guess < high { guess } else { low + (high - low) / 2 };
        let guess_sum = sum(guess);
        if guess_sum <= slots {
            (low, low_sum) = (guess, guess_sum);
        } else {
            high = guess;
        }
    }
    low
}
