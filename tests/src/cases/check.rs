//! Judging a row: what a machine made of a frame against what the row demands.

use anyhow::Result;
use lb_common::datapath::{Action, Cause};

use super::{
    case::{Case, Counted, Output},
    expect, invariants,
    machine::{Code, Ledger, Machine, Outcome, hex, ledger},
    site::{Site, identity},
};

/// Runs a case and says what is wrong; nothing, if all is as the row demands.
///
/// # Errors
/// When a frame cannot be run.
pub fn judge(case: &Case, site: Option<&Site>, machine: &mut dyn Machine) -> Result<(Outcome, Vec<String>)> {
    machine.reset();
    for frame in &case.before {
        machine.run(frame.bytes(), case.headroom)?;
    }
    machine.pass_time(case.pause);
    let outcome = machine.run(case.frame.bytes(), case.headroom)?;
    let mut wrong = Vec::new();
    let code = Code::from(case.action);
    if outcome.code != code {
        wrong.push(format!("the verdict is {:?} instead of {code:?}", outcome.code));
    }
    if let (Some(found), Action::Redirect(wanted)) = (outcome.ifindex, case.action)
        && found != wanted
    {
        wrong.push(format!("redirected to interface {found} instead of {wanted}"));
    }
    let ledger = demanded_ledger(case, machine);
    if outcome.moved != ledger {
        wrong.push(format!("moved {:?} instead of {ledger:?} ({})", outcome.moved, case.counted));
    }
    let output = demanded_output(case, site);
    if outcome.output != output {
        wrong.push(format!("left       {}\n      instead of {}", hex(&outcome.output), hex(&output)));
    }
    Ok((outcome, wrong))
}

/// Exactly one counter moves (a backend's has two numbers, packets and bytes).
fn demanded_ledger(case: &Case, machine: &dyn Machine) -> Ledger {
    match &case.counted {
        Counted::Reason(reason) => ledger(Cause::Reason(*reason)),
        Counted::Backend(name) => {
            let (service, member) = name.split_once('/').expect("a name of the form service/member");
            let counter = machine
                .counter(identity(service), identity(member))
                .unwrap_or_else(|| panic!("{name} is not installed"));
            ledger(Cause::Forwarded { counter, bytes: case.frame.bytes().len() as u32 })
        }
    }
}

fn demanded_output(case: &Case, site: Option<&Site>) -> Vec<u8> {
    match (&case.output, &case.counted) {
        (Output::Untouched, _) => case.frame.bytes().to_vec(),
        (Output::Exactly(frame), _) => frame.bytes().to_vec(),
        (Output::Forwarded, Counted::Backend(name)) => {
            let site = site.expect("backends belong to a balancer's world");
            let snapshot = site.snapshot.as_ref().expect("backends are installed");
            let (service, member) = site.backend(name);
            let (tags, frame) = invariants::split(case.frame.bytes());
            let sent = expect::forwarded(snapshot, service, member, &frame);
            [&sent[..12], tags, &sent[12..]].concat()
        }
        (Output::Forwarded, Counted::Reason(_)) => panic!("{}: forwarded without a backend", case.name),
    }
}
