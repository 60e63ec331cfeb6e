//! The cases of the suites `packet` and `growth`: what is measured against what, and what is aimed at.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result};

use super::{
    recipe::{BACKENDS, FLOOD, Kind, Program, Recipe, Traffic, World},
    report::{Absent, Figure, Report},
    rounds::{Series, measure},
    world::SLOTS,
};

/// One line of the result.
struct Case {
    name: &'static str,
    subject: Recipe,
    yardstick: Option<Yardstick>,
    /// The ratio to the yardstick that is aimed at.
    target: Option<f64>,
}

enum Yardstick {
    /// Something else, with the same traffic.
    Recipe(&'static str, Recipe),
    /// What the subject adds to `base` against what one adds to the other: subject, base; yardstick, its base.
    Addition { name: &'static str, base: Recipe, with: Recipe, without: Recipe },
    /// The subject's base case, and nanoseconds that may be added: so many misses of the cache.
    Misses { name: &'static str, base: Recipe, misses: f64 },
}

fn case(
    name: &'static str,
    subject: Recipe,
    yardstick: Option<Yardstick>,
    target: impl Into<Option<f64>>,
) -> Case {
    Case { name, subject, yardstick, target: target.into() }
}

fn lb(world: World, kind: Kind, sources: u32) -> Recipe {
    Recipe::new(Program::Lb(world), Traffic::of(kind, sources))
}

fn ipip(kind: Kind, sources: u32) -> Recipe {
    lb(World::Ipip(BACKENDS), kind, sources)
}

fn program(name: &'static str, kind: Kind, sources: u32) -> Recipe {
    Recipe::new(Program::Plain(name), Traffic::of(kind, sources))
}

fn plain(kind: Kind, sources: u32) -> Option<Yardstick> {
    Some(Yardstick::Recipe("plain", program("plain", kind, sources)))
}

fn own(name: &'static str, recipe: Recipe) -> Option<Yardstick> {
    Some(Yardstick::Recipe(name, recipe))
}

fn floor(name: &'static str) -> Recipe {
    Recipe::new(Program::Floor(name), Traffic::of(Kind::Tcp4, 1))
}

const MILLION: u32 = 1_000_000;
const ONE_FLOW: &str = "ipv4_tcp_ipip_1_flow";

/// The suite `packet`.
fn packet() -> Vec<Case> {
    use Kind::{Echo, Quic4, Stranger, Syn4, Tcp4, Tcp6, Udp4};
    let limit = |sources| {
        Some(Yardstick::Addition {
            name: "plain_limit",
            base: ipip(Tcp4, sources),
            with: program("plain_limit", Tcp4, sources),
            without: program("plain_parse", Tcp4, sources),
        })
    };
    let bare = |name| Recipe::new(Program::Bare(name), Traffic::of(Tcp4, 1));
    vec![
        case("floor_bare_pass", bare("pass"), None, None),
        case("floor_bare_tx", bare("transmit"), None, None),
        case("floor_bare_mac_swap", bare("swap"), None, None),
        case("floor_pass", floor("pass"), None, None),
        case("floor_mac_swap", floor("swap"), None, None),
        case("floor_const_ipip", floor("encapsulate"), None, None),
        case(ONE_FLOW, ipip(Tcp4, 1), plain(Tcp4, 1), 0.5),
        case("ipv6_tcp_ipip_1_flow", ipip(Tcp6, 1), plain(Tcp6, 1), 0.5),
        case("ipv4_udp_ipip_1_flow", lb(World::Udp, Udp4, 1), plain(Udp4, 1), 0.5),
        case("ipv4_tcp_ipip_1m_flows", ipip(Tcp4, MILLION), own(ONE_FLOW, ipip(Tcp4, 1)), 1.3),
        case("ipv4_tcp_ipip_1m_flows_always", lb(World::Always, Tcp4, MILLION), plain(Tcp4, MILLION), 0.45),
        case(
            "ipv4_tcp_ipip_1m_flows_unsettled",
            lb(World::Unsettled, Tcp4, MILLION),
            plain(Tcp4, MILLION),
            0.45,
        ),
        case("ipv4_syn_flood", ipip(Syn4, FLOOD), own(ONE_FLOW, ipip(Tcp4, 1)), 1.3),
        case("ipv4_syn_flood_always", lb(World::Always, Syn4, FLOOD), plain(Syn4, FLOOD), 0.3),
        case(
            "ipv4_tcp_l2_1_flow",
            lb(World::L2, Tcp4, 1),
            own("plain_l2", program("plain_l2", Tcp4, 1)),
            None,
        ),
        case("ipv4_tcp_gue_1_flow", lb(World::Gue, Tcp4, 1), own(ONE_FLOW, ipip(Tcp4, 1)), 1.3),
        case(
            "ipv4_tcp_nat_1_flow",
            lb(World::Nat, Tcp4, 1),
            own("plain_nat", program("plain_nat", Tcp4, 1)),
            2.5,
        ),
        case("ipv4_quic_1_flow", lb(World::Quic, Quic4(0), 1), own(ONE_FLOW, ipip(Tcp4, 1)), None),
        case("ipv4_quic_1_flow_4_rounds", lb(World::Quic, Quic4(1), 1), own(ONE_FLOW, ipip(Tcp4, 1)), None),
        case("ipv4_quic_1_flow_1_block", lb(World::Quic, Quic4(3), 1), own(ONE_FLOW, ipip(Tcp4, 1)), None),
        case("not_a_service", ipip(Stranger, 1), plain(Stranger, 1), 0.35),
        case("icmp_echo", ipip(Echo, 1), None, None),
        case("limit_1_source", lb(World::Limit, Tcp4, 1), limit(1), 0.5),
        case("limit_64k_sources", lb(World::Limit, Tcp4, 1 << 16), limit(1 << 16), 0.5),
    ]
}

/// Cases that this version cannot run.
const PACKET_ABSENT: [(&str, &str); 1] = [(
    "nat_reply",
    "where an answer goes the program asks the kernel's routes, which the wrapper has none of",
)];

/// The suite `growth`.
fn growth() -> Vec<Case> {
    use Kind::Tcp4;
    let flows = |name, flows, target: Option<f64>| {
        case(name, ipip(Tcp4, flows), own("settled_1_flow", ipip(Tcp4, 1)), target)
    };
    let services = |count, slots, shared| {
        let traffic = Traffic { kind: Tcp4, sources: 1 << 16, destinations: count };
        Recipe::new(Program::Lb(World::Services { count, slots, shared }), traffic)
    };
    let missing =
        |slots| Some(Yardstick::Misses { name: "services_1", base: services(1, slots, false), misses: 1.5 });
    let backends = |count| lb(World::Ipip(count), Tcp4, 1 << 16);
    vec![
        flows("settled_1_flow", 1, None),
        flows("settled_1k_flows", 1000, None),
        flows("settled_64k_flows", 1 << 16, None),
        flows("settled_1m_flows", MILLION, None),
        flows("settled_10m_flows", 10 * MILLION, Some(1.5)),
        case("services_1", services(1, SLOTS, false), None, None),
        case("services_100_own_tables", services(100, SLOTS, false), missing(SLOTS), 1.0),
        case("services_10000_own_tables_1021", services(10_000, 1021, false), missing(1021), 1.0),
        case("services_10000_own_tables", services(10_000, SLOTS, false), missing(SLOTS), 1.0),
        case(
            "services_10000_shared_table",
            services(10_000, SLOTS, true),
            own("services_1", services(1, SLOTS, false)),
            1.5,
        ),
        case("backends_2", backends(2), None, None),
        case("backends_100", backends(100), own("backends_2", backends(2)), None),
        case("backends_10000", backends(10_000), own("backends_2", backends(2)), 2.0),
    ]
}

/// Runs the cases of one of these suites whose name is wanted.
pub(super) fn run(
    suite: &'static str,
    wanted: &dyn Fn(&str) -> bool,
    object: &Path,
    rounds: u32,
    report: &mut Report,
) -> Result<()> {
    let cases = if suite == "packet" { packet() } else { growth() };
    if suite == "packet" {
        let absent = PACKET_ABSENT.iter().filter(|(name, _)| wanted(name));
        report.absent.extend(absent.map(|(case, reason)| Absent::new(suite, case, reason)));
    }
    let cases: Vec<Case> = cases.into_iter().filter(|case| wanted(case.name)).collect();
    if cases.is_empty() {
        return Ok(());
    }
    let mut recipes = vec![floor("encapsulate"), floor("encapsulate").zero()];
    for case in &cases {
        let more = match &case.yardstick {
            None => vec![],
            Some(Yardstick::Recipe(_, recipe)) => vec![recipe],
            Some(Yardstick::Addition { base, with, without, .. }) => vec![base, with, without],
            Some(Yardstick::Misses { base, .. }) => vec![base],
        };
        for recipe in std::iter::once(&case.subject).chain(more) {
            recipes.extend([recipe.clone(), recipe.zero()]);
        }
    }
    let misses = cases.iter().any(|case| matches!(case.yardstick, Some(Yardstick::Misses { .. })));
    let miss = if misses { super::machine::cache_miss() } else { f64::NAN };
    let series = measure(recipes, object, rounds)?;
    for case in &cases {
        report.figures.push(figure(suite, case, &series, miss)?);
    }
    Ok(())
}

fn net(recipe: &Recipe, series: &BTreeMap<Recipe, Series>) -> Result<f64> {
    let median =
        |recipe: &Recipe| series.get(recipe).map(Series::median).context("a recipe was not measured");
    // Without the wrapper there is nothing to take away.
    if matches!(recipe.program, Program::Bare(_)) {
        median(recipe)
    } else {
        Ok(median(recipe)? - median(&recipe.zero())?)
    }
}

fn figure(suite: &'static str, case: &Case, series: &BTreeMap<Recipe, Series>, miss: f64) -> Result<Figure> {
    let own = net(&case.subject, series)?;
    let floor = net(&floor("encapsulate"), series)?;
    let of_subject = series.get(&case.subject).context("a case was not measured")?;
    let mut figure = Figure::new(suite, case.name, own);
    figure.const_ipip_ratio = Some(own / floor);
    figure.spread = of_subject.spread();
    figure.raw_ns = Some(of_subject.median());
    figure.target = case.target;
    match &case.yardstick {
        None => {}
        Some(Yardstick::Recipe(name, recipe)) => figure.against(name, own, net(recipe, series)?),
        Some(Yardstick::Addition { name, base, with, without }) => {
            let added = own - net(base, series)?;
            figure.against(name, added, net(with, series)? - net(without, series)?);
            figure.note =
                Some(format!("adds {added:.1} ns; the yardstick is what a bucket in an LRU map adds"));
        }
        Some(Yardstick::Misses { name, base, misses }) => {
            let base = net(base, series)?;
            figure.against(name, own, base + misses * miss);
            figure.note = Some(format!("the yardstick is {base:.1} ns and {misses} misses of {miss:.0} ns"));
        }
    }
    Ok(figure)
}

/// Names of all cases of one of these suites, absent ones included.
pub(super) fn names(suite: &str) -> Vec<&'static str> {
    let cases = if suite == "packet" { packet() } else { growth() };
    let absent = PACKET_ABSENT.iter().filter(|_| suite == "packet").map(|(name, _)| *name);
    cases.iter().map(|case| case.name).chain(absent).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::names;

    #[test]
    fn every_name_of_the_contract_is_there_once() {
        let packet = names("packet");
        for name in [
            "ipv4_tcp_ipip_1_flow",
            "ipv6_tcp_ipip_1_flow",
            "ipv4_tcp_ipip_1m_flows",
            "ipv4_tcp_ipip_1m_flows_always",
            "ipv4_syn_flood",
            "ipv4_tcp_gue_1_flow",
            "ipv4_tcp_l2_1_flow",
            "ipv4_tcp_nat_1_flow",
            "not_a_service",
            "limit_1_source",
            "limit_64k_sources",
        ] {
            assert!(packet.contains(&name), "{name}");
        }
        for names in [packet, names("growth")] {
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        }
    }
}
