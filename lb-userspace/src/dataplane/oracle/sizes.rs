//! Maps of other sizes in the oracle's world.

use super::{ACK, Balancer, Capacity, Flow, Grace, Memory, SETTLE, SYN, Tracking, World};

impl Balancer {
    /// Maps of other sizes; those of the flow table still are where they were.
    pub(super) fn resize(&mut self, flow_buckets: u32, world: &World, tracking: Tracking) {
        let mut before = self.installer.take().expect("there");
        let sizes = before.memory().capacity();
        let sizes =
            Capacity { flow_buckets, old_flow_buckets: sizes.flow_buckets, slots: sizes.slots + 4, ..sizes };
        let mut memory = Memory::heap(&sizes);
        std::mem::swap(&mut memory.old_flows, &mut before.memory_mut().flows);
        self.installer = Some(before.successor(memory));
        self.install(world, tracking);
        self.installer().succeed(&before, Grace::none());
    }
}

/// Every flow is in one place at a time, and the old table is empty when each has been seen.
#[test]
fn flows_move_to_their_place_in_a_table_of_another_size() {
    for (from, to) in [(64, 256), (256, 64), (8, 4)] {
        let mut balancer = Balancer::new(from);
        let mut world = World { backends: (1..=3).map(|n| (n, false)).collect(), ..World::default() };
        balancer.set_time(100);
        balancer.install(&world, Tracking::Always);
        let flows: Vec<Flow> = (1..=40).map(|port| Flow { source: 0xc612_0001, port }).collect();
        let mut owners = Vec::new();
        for flow in &flows {
            balancer.packet(*flow, SYN);
            owners.push(balancer.packet(*flow, ACK));
        }
        let known = balancer.installer().sweep_flows(SETTLE as u16).used;
        world.drained.insert(1);
        balancer.resize(to, &world, Tracking::Always);
        let swept = balancer.installer().sweep_flows(SETTLE as u16);
        assert_eq!((swept.used, swept.in_old), (known, known), "{from} to {to}");
        for (flow, owner) in flows.iter().zip(&owners) {
            assert_eq!(balancer.packet(*flow, ACK), *owner, "{from} to {to}");
        }
        let swept = balancer.installer().sweep_flows(SETTLE as u16);
        assert_eq!(swept.used, known, "{from} to {to}");
        // What finds no room stays where it is, and works.
        assert_eq!(swept.in_old == 0, to > 8, "{from} to {to}: {swept:?}");
        balancer.set_time(100 + SETTLE - 1);
        for (flow, owner) in flows.iter().zip(&owners) {
            assert_eq!(balancer.packet(*flow, ACK), *owner, "{from} to {to}, later");
        }
    }
}
