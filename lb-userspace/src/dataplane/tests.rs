//! Installing, adopting and looking up, on plain memory.

use std::{net::IpAddr, sync::Arc};

use lb_common::{
    abi::Reason,
    datapath::{Action, Cause, balance},
};
use proptest::prelude::*;

use super::{Capacity, Clock, Grace, HostPacket, HostTables, InstallError, Installer, Memory, Room};
use crate::{
    config::{Affinity, Forward, OnFailure, Ports, Protocol, Tracking},
    control::{
        model::{Hop, Member, Service, Snapshot},
        reconcile::Step,
    },
};

const CLOCK: Clock = Clock { ticks_per_second: 250, jiffies: 0, nanoseconds: 0 };
const CAPACITY: Capacity = Capacity {
    vip_cells: 64,
    port_cells: 256,
    services: 32,
    slots: 4096,
    backends: 256,
    limit_buckets: 16,
    flow_buckets: 16,
    reply_cells: 16,
    old_flow_buckets: 1,
};

fn member(n: u8) -> Member {
    Member {
        gue_port: 6080,
        identity: u64::from(n) + 1,
        address: IpAddr::from([198, 51, 100, n]),
        forward: Forward::L2,
        port: None,
        server_id: None,
        alive: true,
        hop: Some(Hop {
            ifindex: 1,
            dmac: [2, 0, 0, 0, 0, n],
            smac: [2, 0, 0, 0, 0, 0],
            source: IpAddr::from([198, 51, 100, 254]),
            mtu: 1500,
        }),
        health: 1,
        since: 0,
    }
}

/// Service `n` has the VIP 192.0.2.n, port 80, and these members in turn in its table.
fn service(n: u8, members: &[u8], slots: usize) -> Service {
    let table: Vec<u16> = (0..slots).map(|i| (i % members.len().max(1)) as u16).collect();
    Service {
        candidates: None,
        identity: 1000 + u64::from(n),
        addresses: vec![IpAddr::from([192, 0, 2, n])],
        ports: Ports::Ranges(vec![80..=80]),
        protocol: Protocol::Tcp,
        affinity: Affinity::Addresses,
        limit: None,
        table: Arc::from(table),
        old: Arc::default(),
        tracking: Tracking::Changes,
        on_failure: OnFailure::Rehash,
        settle: 900,
        members: members.iter().map(|m| Some(member(*m))).collect(),
    }
}

fn snapshot(services: Vec<Service>) -> Snapshot {
    let services = services.into_iter().map(Arc::new).collect();
    Snapshot { key: [1, 2, 3, 4], services, ..Snapshot::default() }
}

fn syn_to(vip: u8, source: u8) -> HostPacket {
    let mut frame = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 8, 0];
    frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 198, 18, 0, source, 192, 0, 2, vip]);
    frame.extend([0x30, 0x39, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0]);
    HostPacket::new(frame)
}

/// Last byte of the destination MAC: the member that got the packet; or the reason why none did.
fn owner(installer: &Installer, vip: u8, source: u8) -> Result<u8, Reason> {
    let mut packet = syn_to(vip, source);
    let verdict = balance(&mut packet, &HostTables::new(installer.memory()), 1);
    match verdict.cause() {
        Cause::Forwarded { .. } => {
            assert_eq!(verdict.action(), Action::Transmit);
            Ok(packet.bytes[5])
        }
        Cause::Reason(reason) => Err(reason),
    }
}

fn installer() -> Installer {
    Installer::new(Memory::heap(&CAPACITY), CLOCK, Grace::none())
}

#[test]
fn nothing_is_ours_before_the_first_install() {
    assert_eq!(owner(&installer(), 10, 1), Err(Reason::NotConfigured));
}

#[test]
fn installs_replace_each_other() {
    let mut installer = installer();
    let done = installer.install(&snapshot(vec![service(10, &[11, 12], 251)])).expect("fits");
    assert_eq!((done.generation, done.tables, done.member_lists), (1, 1, 1));
    let before: Vec<u8> = (0..200).map(|s| owner(&installer, 10, s).expect("forwarded")).collect();
    assert!(before.contains(&11) && before.contains(&12));
    assert_eq!(owner(&installer, 11, 1), Err(Reason::NotService));

    let done = installer
        .install(&snapshot(vec![service(10, &[11, 12], 251), service(20, &[13], 251)]))
        .expect("fits");
    assert_eq!((done.generation, done.tables), (2, 1), "the first service is as it was");
    assert_eq!((0..200).map(|s| owner(&installer, 10, s).expect("forwarded")).collect::<Vec<_>>(), before);
    assert_eq!(owner(&installer, 20, 7), Ok(13));

    installer.install(&snapshot(vec![service(20, &[13], 251)])).expect("fits");
    assert_eq!(owner(&installer, 10, 1), Err(Reason::NotService));
    assert_eq!(owner(&installer, 20, 7), Ok(13));
}

#[test]
fn equal_tables_are_shared() {
    let mut installer = installer();
    let first = service(10, &[11, 12], 1009);
    let mut second = service(20, &[11, 12], 1009);
    second.table = first.table.clone();
    let done = installer.install(&snapshot(vec![first, second])).expect("fits");
    assert_eq!(done.tables, 1);
    assert!(installer.used().0 < 2 * 1009);
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let mut installer = installer();
    installer.install(&snapshot(vec![service(10, &[11], 251)])).expect("fits");
    let used = installer.used();
    let error = installer.install(&snapshot(vec![service(10, &[11], 251), service(20, &[12], 4093)]));
    assert!(matches!(error, Err(InstallError::Full { what: Room::Slots, .. })), "{error:?}");
    assert_eq!(installer.used(), used);
    assert_eq!(owner(&installer, 10, 1), Ok(11));
    assert_eq!(owner(&installer, 20, 1), Err(Reason::NotService));

    let many = (1..=40).map(|n| service(n, &[11], 7)).collect();
    let error = installer.install(&snapshot(many)).expect_err("too many services");
    assert_eq!(error, InstallError::Full { what: Room::Services, wanted: 40, capacity: 31 });
    assert_eq!(owner(&installer, 10, 1), Ok(11));
}

#[test]
fn larger_maps_have_room_for_what_did_not_fit() {
    let mut before = installer();
    before.install(&snapshot(vec![service(10, &[11], 251)])).expect("fits");
    let counter = before.counter(1010, 12);
    for too_much in [
        vec![service(10, &[11], 251), service(20, &[12], 4093)],
        (1..=40).map(|n| service(n, &[11], 7)).collect(),
        vec![service(10, &[11], 7), service(20, &[12; 300], 7)],
    ] {
        let too_much = snapshot(too_much);
        let error = before.install(&too_much).expect_err("too much");
        let sizes = CAPACITY.grown(&CAPACITY, &error).expect("growing helps");
        let mut after = before.successor(Memory::heap(&sizes));
        after.install(&too_much).unwrap_or_else(|error| panic!("{error}, in {sizes:?}"));
        assert_eq!(owner(&after, 10, 1), Ok(11));
        assert_eq!(after.counter(1010, 12), counter, "counters keep their place");
    }
    let many = InstallError::Full { what: Room::Vips, wanted: 70_000, capacity: 65_535 };
    assert_eq!(CAPACITY.grown(&CAPACITY, &many), None);
}

#[test]
fn a_new_counter_is_reset_before_it_is_used() {
    let mut installer = installer();
    let mut reset = Vec::new();
    installer
        .install_with(&snapshot(vec![service(10, &[11, 12], 251)]), &mut |i| reset.push(i))
        .expect("fits");
    assert_eq!(reset.len(), 2);
    reset.clear();
    installer.install_with(&snapshot(vec![service(10, &[11], 251)]), &mut |i| reset.push(i)).expect("fits");
    assert!(reset.is_empty());
    // One switch later the counter of the removed member may be given away.
    installer.install(&snapshot(vec![service(10, &[11], 251)])).expect("fits");
    installer
        .install_with(&snapshot(vec![service(10, &[11, 13], 251)]), &mut |i| reset.push(i))
        .expect("fits");
    assert_eq!(reset, [installer.counter(1010, 14).expect("installed")]);
}

#[test]
fn a_new_daemon_goes_on_where_the_old_one_stopped() {
    let mut installer = installer();
    let services = vec![service(10, &[11, 12, 13], 251), service(20, &[12], 1009)];
    installer.install(&snapshot(services.clone())).expect("fits");
    let before: Vec<_> = (0..200).map(|s| owner(&installer, 10, s)).collect();
    let counter = installer.counter(1010, 13);
    let used = installer.used();
    let memory = installer.into_memory();

    let (mut next, adopted) = Installer::adopt(memory, CLOCK, Grace::none()).expect("adopted");
    assert_eq!(
        (0..200).map(|s| owner(&next, 10, s)).collect::<Vec<_>>(),
        before,
        "in force until the next install"
    );
    assert_eq!(adopted.services[&1010].members[&13].index, 1);
    assert_eq!(adopted.services[&1010].slots, services[0].table);
    let done = next.install(&snapshot(services)).expect("fits");
    assert_eq!((done.generation, done.tables), (2, 0), "equal tables are not written again");
    assert_eq!((0..200).map(|s| owner(&next, 10, s)).collect::<Vec<_>>(), before);
    assert_eq!(next.counter(1010, 13), counter);
    next.install(&snapshot(vec![])).expect("fits");
    next.install(&snapshot(vec![])).expect("fits");
    assert_ne!(used, (0, 0));
    assert_eq!(next.used(), (0, 0), "everything adopted was given back");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// Random sequences of snapshots: after each, exactly its services answer, by exactly their members, and nothing
    /// leaks from one generation to the next but one.
    #[test]
    fn any_sequence_of_snapshots(steps in prop::collection::vec(
        prop::collection::btree_map(1u8..12, (prop::collection::btree_set(1u8..9, 0..5), 1usize..6), 0..8), 1..12)
    ) {
        let mut installer = installer();
        for step in &steps {
            let services: Vec<Service> = step
                .iter()
                .map(|(n, (members, size))| service(*n, &members.iter().copied().collect::<Vec<_>>(), size * 50 + 1))
                .map(|mut s| {
                    if s.members.is_empty() {
                        s.table = vec![lb_common::abi::slot::EMPTY; s.table.len()].into();
                    }
                    s
                })
                .collect();
            installer.install(&snapshot(services)).expect("fits");
            for vip in 1..12u8 {
                for source in [1, 77, 200] {
                    match (step.get(&vip), owner(&installer, vip, source)) {
                        (None, got) => prop_assert_eq!(got, Err(Reason::NotService)),
                        (Some((members, _)), Err(got)) => {
                            prop_assert!(members.is_empty());
                            prop_assert_eq!(got, Reason::NoBackend);
                        }
                        (Some((members, _)), Ok(got)) => prop_assert!(members.contains(&got)),
                    }
                }
            }
        }
        installer.install(&snapshot(vec![])).expect("fits");
        installer.install(&snapshot(vec![])).expect("fits");
        prop_assert_eq!(installer.used(), (0, 0));
    }
}

/// Somebody else writes anywhere: it is found, said where, and written anew; nothing else is.
#[test]
fn what_somebody_else_writes_is_found_and_written_anew() {
    let wanted = snapshot(vec![service(10, &[11, 12], 251), service(20, &[13], 251)]);
    let (first, second) = (wanted.services[0].identity, wanted.services[1].identity);
    type Vandal = fn(&mut Installer);
    let cases: [(Vandal, Vec<Step>); 6] = [
        (|_| (), vec![]),
        (|i| i.memory_mut().slots.as_mut_slots()[7] ^= 1, vec![Step::Slots(first), Step::Switch]),
        (
            |i| {
                for backend in i.memory_mut().backends.as_mut_slice().iter_mut().take(3) {
                    backend.counter ^= 5;
                }
            },
            vec![Step::Members(first), Step::Members(second), Step::Switch],
        ),
        (
            |i| i.memory_mut().services.as_mut_slice().iter_mut().for_each(|s| s.settle ^= 1),
            vec![Step::Record(first), Step::Record(second), Step::Switch],
        ),
        (
            |i| i.memory_mut().vips4.as_mut_slice().iter_mut().for_each(|cell| *cell = 0),
            vec![Step::Common, Step::Switch],
        ),
        (
            |i| i.memory_mut().globals.as_mut_slice().iter_mut().for_each(|g| g.key[0] ^= 1),
            vec![Step::Common, Step::Switch],
        ),
    ];
    for (number, (vandal, steps)) in cases.into_iter().enumerate() {
        let mut installer = installer();
        installer.install(&wanted).expect("fits");
        let before: Vec<_> = (0..50).map(|s| owner(&installer, 10, s)).collect();
        vandal(&mut installer);
        assert_eq!(installer.drift(), steps, "case {number}");
        installer.distrust(&steps);
        installer.install(&wanted).expect("fits");
        assert_eq!(installer.drift(), [], "case {number}");
        assert_eq!((0..50).map(|s| owner(&installer, 10, s)).collect::<Vec<_>>(), before, "case {number}");
        assert!(owner(&installer, 20, 1).is_ok(), "case {number}");
    }
}

#[test]
fn a_generation_that_somebody_turned_back_is_found() {
    let mut installer = installer();
    installer.install(&snapshot(vec![service(10, &[11], 251)])).expect("fits");
    installer.install(&snapshot(vec![service(20, &[13], 251)])).expect("fits");
    installer.memory_mut().control.as_mut_slice()[0].generation = 1;
    let steps = installer.drift();
    assert_eq!(steps, [Step::Common, Step::Switch]);
    installer.distrust(&steps);
    installer.install(&snapshot(vec![service(20, &[13], 251)])).expect("fits");
    assert_eq!((installer.drift(), owner(&installer, 20, 1)), (vec![], Ok(13)));
    assert_eq!(owner(&installer, 10, 1), Err(Reason::NotService));
}
