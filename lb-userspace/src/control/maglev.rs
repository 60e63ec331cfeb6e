//! Builds the Maglev table of a service: which member owns which slot when everybody is well.
//!
//! Maglev (NSDI'16, section 3.4) lets members take turns: whoever's turn it is goes on along its permutation to the
//! next free slot. Ours all run at once, each at a speed proportional to its weight, and a member stops when it has
//! its share ([`super::share`]). Balance is as exact; but as nobody waits for his turn, a slot is nearly always owned
//! by the member that a rendezvous would choose, and about half as many slots move needlessly when members come and
//! go. See docs/decisions/0002-tables.md for the numbers.

use super::{race, share};
pub use super::{
    race::Scratch,
    rendezvous::{EMPTY, MAX_MEMBERS, MAX_SLOTS, Member, Rendezvous, Slot, TableError},
};

/// A table of `slots` member indices for these members: bit-identical on every machine for the same members, length
/// and seed. The order of the slice gives the indices and has no other influence. Without any weight all slots are
/// [`EMPTY`].
///
/// # Errors
/// Those of [`Rendezvous::new`].
pub fn build(
    members: &[Member],
    slots: u32,
    seed: &[u8; 32],
    scratch: &mut Scratch,
) -> Result<Vec<Slot>, TableError> {
    Ok(fill(&Rendezvous::new(members, slots, seed)?, scratch))
}

/// The table of an order that is there already.
#[must_use]
pub fn fill(order: &Rendezvous, scratch: &mut Scratch) -> Vec<Slot> {
    let mut table = vec![EMPTY; order.slots() as usize];
    let shares = ranked_shares(order);
    race::run(order, order.ranks().iter().copied().zip(shares), &mut table, scratch);
    table
}

/// How many slots each member gets, by member index. A member with a weight may get none where others weigh many
/// times as much as there are slots: worth a warning.
#[must_use]
pub fn shares(order: &Rendezvous) -> Vec<u32> {
    let mut shares = vec![0; order.members()];
    for (&member, share) in order.ranks().iter().zip(ranked_shares(order)) {
        shares[usize::from(member)] = share;
    }
    shares
}

fn ranked_shares(order: &Rendezvous) -> Vec<u32> {
    let runners = order.ranks().iter().map(|&member| order.runner(member));
    let claims: Vec<_> = runners.map(|r| share::Claim { weight: r.weight, odd: r.odd }).collect();
    share::divide(&claims, order.slots())
}

#[cfg(test)]
mod tests;
