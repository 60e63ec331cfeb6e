//! From what is in the maps to what should be there, as ordered steps. Pure: what the parts are is the caller's business.

use std::collections::BTreeMap;

/// Everything that one generation holds: what belongs to all services, and the parts of each by its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State<G, R, S, M> {
    /// Generation, globals and look-up tables.
    pub common: G,
    /// Services by identity.
    pub services: BTreeMap<u64, Parts<R, S, M>>,
}

/// What belongs to one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<R, S, M> {
    /// Where its table and its members are, and its settings.
    pub record: R,
    /// Its table.
    pub slots: S,
    /// Its members.
    pub members: M,
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Write the table of a service to a free place.
    Slots(u64),
    /// Write the members of a service to a free place.
    Members(u64),
    /// Write the record of a service into the half that is not in force.
    Record(u64),
    /// Write globals and look-up tables where they are not in force.
    Common,
    /// Make all of that the generation in force.
    Switch,
    /// What only the old generation used is free once no program looks at it.
    Release(u64),
}

/// Whether one part of a service is equal in two states.
type Part<R, S, M> = fn(&Parts<R, S, M>, &Parts<R, S, M>) -> bool;

/// The steps from `installed` to `desired`; none when they are equal. What a step refers to is written before it, and
/// nothing is in force before the switch: whatever step is the last one that happens, one of the two is in force.
pub fn steps<G: PartialEq, R: PartialEq, S: PartialEq, M: PartialEq>(
    desired: &State<G, R, S, M>,
    installed: &State<G, R, S, M>,
) -> Vec<Step> {
    let differing = |part: Part<R, S, M>| {
        let wanted = desired.services.iter().filter(move |(identity, wanted)| {
            installed.services.get(*identity).is_none_or(|found| !part(wanted, found))
        });
        wanted.map(|(identity, _)| *identity)
    };
    let mut steps = Vec::new();
    steps.extend(differing(|a, b| a.slots == b.slots).map(Step::Slots));
    steps.extend(differing(|a, b| a.members == b.members).map(Step::Members));
    steps.extend(differing(|a, b| a.record == b.record).map(Step::Record));
    let gone: Vec<u64> = installed
        .services
        .keys()
        .filter(|identity| !desired.services.contains_key(identity))
        .copied()
        .collect();
    if desired.common != installed.common || !gone.is_empty() {
        steps.push(Step::Common);
    }
    if !steps.is_empty() {
        steps.push(Step::Switch);
    }
    steps.extend(gone.into_iter().map(Step::Release));
    steps
}

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_map, prelude::*};

    use super::*;

    type Model = State<u8, u8, u8, u8>;

    fn state() -> impl Strategy<Value = Model> {
        // Few values, so that parts are often equal.
        let parts =
            (0_u8..3, 0_u8..3, 0_u8..3).prop_map(|(record, slots, members)| Parts { record, slots, members });
        (0_u8..3, btree_map(0_u64..6, parts, 0..6)).prop_map(|(common, services)| State { common, services })
    }

    /// A machine with a side that is in force and a side that is written.
    struct Machine {
        in_force: Model,
        written: Model,
    }

    impl Machine {
        fn play(&mut self, step: Step, desired: &Model) {
            let new = |identity: u64| desired.services[&identity];
            match step {
                Step::Slots(id) => self.part(id, new(id)).slots = new(id).slots,
                Step::Members(id) => self.part(id, new(id)).members = new(id).members,
                Step::Record(id) => self.part(id, new(id)).record = new(id).record,
                Step::Common => {
                    self.written.common = desired.common;
                    self.written.services.retain(|id, _| desired.services.contains_key(id));
                }
                Step::Switch => self.in_force = self.written.clone(),
                Step::Release(id) => assert!(!self.in_force.services.contains_key(&id)),
            }
        }

        /// A part that was not there begins with what is surely wrong.
        fn part(&mut self, id: u64, new: Parts<u8, u8, u8>) -> &mut Parts<u8, u8, u8> {
            let wrong =
                Parts { record: new.record ^ 0x80, slots: new.slots ^ 0x80, members: new.members ^ 0x80 };
            self.written.services.entry(id).or_insert(wrong)
        }
    }

    proptest! {
        #[test]
        fn steps_lead_from_any_state_to_any_other_and_never_to_a_mixture(old in state(), new in state()) {
            let steps = steps(&new, &old);
            prop_assert_eq!(steps.is_empty(), old == new);
            let mut machine = Machine { in_force: old.clone(), written: old.clone() };
            for step in &steps {
                machine.play(*step, &new);
                prop_assert!(machine.in_force == old || machine.in_force == new, "{:?}", step);
            }
            prop_assert_eq!(&machine.in_force, &new);
            prop_assert!(super::steps(&new, &machine.in_force).is_empty(), "done is done");
        }

        #[test]
        fn what_is_equal_is_left_alone(old in state(), new in state()) {
            for step in steps(&new, &old) {
                let pair = |id: u64| (old.services.get(&id), new.services.get(&id));
                let needed = match step {
                    Step::Slots(id) => pair(id).0.map(|p| p.slots) != pair(id).1.map(|p| p.slots),
                    Step::Members(id) => pair(id).0.map(|p| p.members) != pair(id).1.map(|p| p.members),
                    Step::Record(id) => pair(id).0.map(|p| p.record) != pair(id).1.map(|p| p.record),
                    Step::Release(id) => pair(id).1.is_none(),
                    Step::Common | Step::Switch => old != new,
                };
                prop_assert!(needed, "{:?}", step);
            }
        }
    }
}
