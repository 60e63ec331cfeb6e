//! Who else may have the connections of a slot: what a packet names so that agents can hand it on.
//!
//! The likeliest first: the old owner of a slot that changed a moment ago, then who owns the slot when everybody is well
//! and who owned it in earlier memberships, then the first members of the slot's order, among which is whoever another
//! balancer with another view of health would choose. Members that nothing can be sent to any more come last: they may
//! have recovered in somebody else's view.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use lb_common::{abi::slot, wire::gue};

use super::{
    model::Member,
    rendezvous::{EMPTY, Rendezvous, Slot},
};

/// Members that are kept of each slot's order: one may be the owner.
const KEPT: usize = gue::CANDIDATES + 1;
/// Most arrivals that are computed for one table (10 ns each). A larger table names old owners alone.
const MOST_ARRIVALS: u64 = 1 << 26;

/// The first members of every slot's order; a pure function of the membership.
pub(super) fn firsts(order: &Rendezvous) -> Vec<[Slot; KEPT]> {
    if u64::from(order.slots()) * order.members() as u64 > MOST_ARRIVALS {
        return vec![[EMPTY; KEPT]; order.slots() as usize];
    }
    let first = |slot| {
        let mut kept = [EMPTY; KEPT];
        kept.iter_mut().zip(order.order(slot, KEPT)).for_each(|(place, member)| *place = member);
        kept
    };
    (0..order.slots()).map(first).collect()
}

/// The candidates of every slot besides its owner, as `Service::candidates` has them; `None` when there is but one
/// member. `owners` are tables without regard to health, the likeliest first. Tunnels of one packet are of one family,
/// so candidates are of the owner's.
pub(super) fn of(
    firsts: &[[Slot; KEPT]],
    owners: &[Arc<[u16]>],
    table: &[u16],
    old: &BTreeMap<u32, u16>,
    members: &[Option<Member>],
) -> Option<Arc<[u64]>> {
    if members.iter().flatten().count() < 2 {
        return None;
    }
    let member = |index: Slot| members.get(usize::from(index)).and_then(Option::as_ref);
    let is_ipv4 = |index: Slot| member(index).map(|m| matches!(m.address, IpAddr::V4(_)));
    let word = |(slot, (value, firsts)): (u32, (&u16, &[Slot; KEPT]))| {
        let owner = value & slot::MEMBER;
        let mut kept = [EMPTY; gue::CANDIDATES];
        let mut count = 0;
        let owned = owners.iter().filter_map(|owners| owners.get(slot as usize));
        let named = || old.get(&slot).into_iter().chain(owned.clone()).chain(firsts).copied();
        let alive = |index: &Slot| member(*index).is_some_and(|m| m.alive);
        for index in named().filter(|i| alive(i)).chain(named().filter(|i| !alive(i))) {
            let fits = index != owner && is_ipv4(index).is_some() && is_ipv4(index) == is_ipv4(owner);
            if fits && count < kept.len() && !kept.contains(&index) {
                kept[count] = index;
                count += 1;
            }
        }
        kept.iter().rev().fold(0, |word, index| word << 16 | u64::from(*index))
    };
    Some((0..).zip(table.iter().zip(firsts)).map(word).collect())
}

#[cfg(test)]
mod tests {
    use super::{EMPTY, KEPT, firsts, of};
    use crate::{
        config::Forward,
        control::{
            model::Member,
            rendezvous::{self, Rendezvous},
        },
    };

    fn member(n: u8, alive: bool) -> Option<Member> {
        Some(Member {
            identity: u64::from(n),
            address: [198, 51, 100, n].into(),
            forward: Forward::Gue,
            gue_port: 6080,
            port: None,
            server_id: None,
            alive,
            hop: None,
            health: 1,
            since: 0,
        })
    }

    fn unpack(word: u64) -> [u16; 3] {
        [word as u16, (word >> 16) as u16, (word >> 32) as u16]
    }

    #[test]
    fn the_old_owner_comes_first_the_dead_last_and_the_owner_never() {
        let members = [member(1, true), member(2, false), member(3, true), member(4, true), None];
        let firsts = [[1, 0, 2, 3]; 3];
        let got = of(&firsts, &[], &[0, 0x4000, 2], &[(1, 3)].into(), &members).unwrap();
        assert_eq!(got.iter().map(|w| unpack(*w)).collect::<Vec<_>>(), [[2, 3, 1], [3, 2, 1], [0, 3, 1]]);
    }

    #[test]
    fn owners_of_before_come_ahead_of_the_order() {
        let members: Vec<_> = (1..=6).map(|n| member(n, n != 6)).collect();
        let owners = [[0, 4].into(), [5, 4].into(), [3, 9].into()];
        let got = of(&[[0, 1, 2, 3]; 2], &owners, &[0, 0], &[(1, 2)].into(), &members).unwrap();
        let expected = [[3, 1, 2], [2, 4, 1]];
        assert_eq!(got.iter().map(|w| unpack(*w)).collect::<Vec<_>>(), expected, "5 is down, 9 is gone");
    }

    #[test]
    fn other_families_and_free_indices_are_no_candidates() {
        let mut six = member(2, true);
        six.as_mut().unwrap().address = "2001:db8::2".parse().unwrap();
        let members = [member(1, true), six, None];
        let got = of(&[[0, 1, 2, EMPTY]], &[], &[0], &[].into(), &members).unwrap();
        assert_eq!(unpack(got[0]), [EMPTY; 3]);
        assert_eq!(of(&[[0, EMPTY, EMPTY, EMPTY]], &[], &[0], &[].into(), &members[..1]), None);
    }

    #[test]
    fn the_first_of_the_order_are_those_who_would_stand_in() {
        let members: Vec<_> = (1..=6).map(|i| rendezvous::Member { identity: i, weight: 100 }).collect();
        let order = Rendezvous::new(&members, 251, &[7; 32]).unwrap();
        let firsts = firsts(&order);
        for (slot, kept) in (0..).zip(&firsts) {
            let mut taken = vec![false; members.len()];
            for member in kept {
                assert_eq!(order.next_owner(slot, |i| !taken[i]), Some(*member));
                taken[usize::from(*member)] = true;
            }
        }
        assert_eq!((firsts.len(), KEPT), (251, 4));
    }
}
