//! The suite `wire`: packets through a veth pair, in a closed loop on one processor.
//!
//! One end makes frames (BPF_F_TEST_XDP_LIVE_FRAMES) and counts what comes back; what is measured works on the other
//! end. Generator, balancer and sink take turns on one processor, so the time for a packet is the sum of the three.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    TestRun as _, TestRunAttrs, TestRunOptions,
    programs::{Xdp, XdpMode},
};

use super::{
    object::{Bench, Service, Sizes, Source},
    recipe::BACKENDS,
    report::{Absent, Figure, Report},
    rounds::Series,
    say,
    world::{self, Balancer, PORT, SLOTS},
};
use crate::{
    cases::site::{self, MemberExt as _},
    netdev::{self, Offload},
    netns::{Namespace, write_sysctl},
    packet,
    xdp_pass::PassProgram,
};

const SUITE: &str = "wire";
/// The end that sends and counts, and the end that works.
const NEAR: &str = "near0";
const FAR: &str = "far0";
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The first of [`FLOWS`] sources.
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const NEAR_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
const FAR_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 2);
const FLOWS: u32 = 1 << 16;
/// Frames of one call, and of one batch within it.
const CALL: u32 = 64 * 1024;
const BATCH: u32 = 64;
/// One measurement, and what goes before it.
const MEASURE: Duration = Duration::from_millis(600);
const WARM_UP: Duration = Duration::from_millis(200);
/// Of the frames sent, the part that must come back.
const BACK: f64 = 0.98;

/// What works on the far end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    MacSwap,
    ConstIpip,
    Lb,
    Plain,
    Forward,
    NftDnat,
}

const WAYS: [(Way, &str); 6] = [
    (Way::ConstIpip, "const_ipip_64k_flows"),
    (Way::MacSwap, "mac_swap_64k_flows"),
    (Way::Lb, "lb_ipip_64k_flows"),
    (Way::Plain, "plain_64k_flows"),
    (Way::Forward, "kernel_forward_64k_flows"),
    (Way::NftDnat, "nft_dnat_jhash_64k_flows"),
];
/// Names of all cases.
pub(super) fn names() -> Vec<String> {
    WAYS.iter().map(|(_, name)| (*name).to_owned()).collect()
}

/// Two namespaces and a veth pair between them.
struct Line {
    near: Namespace,
    far: Namespace,
    near_mac: [u8; 6],
    near_index: u32,
    far_mac: [u8; 6],
    far_index: u32,
}

fn ip(ns: &Namespace, arguments: &str) -> Result<String> {
    let output = ns.command("ip").args(arguments.split_whitespace()).output().context("ip")?;
    ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn mac(ns: &Namespace, device: &str) -> Result<[u8; 6]> {
    let text = ip(ns, &format!("-o link show dev {device}"))?;
    let word = text.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).context("no MAC")?;
    let mut bytes = [0; 6];
    for (byte, digits) in bytes.iter_mut().zip(word.split(':')) {
        *byte = u8::from_str_radix(digits, 16)?;
    }
    Ok(bytes)
}

impl Line {
    fn new() -> Result<Self> {
        let (near, far) = (Namespace::new("near")?, Namespace::new("far")?);
        ip(&near, &format!("link add {NEAR} type veth peer name {FAR} netns {}", far.name()))?;
        ip(&near, &format!("address add {NEAR_ADDRESS}/24 dev {NEAR}"))?;
        ip(&near, &format!("link set {NEAR} up"))?;
        ip(&far, &format!("address add {FAR_ADDRESS}/24 dev {FAR}"))?;
        ip(&far, &format!("link set {FAR} up"))?;
        let (near_mac, far_mac) = (mac(&near, NEAR)?, mac(&far, FAR)?);
        let colons = near_mac.map(|byte| format!("{byte:02x}")).join(":");
        ip(&far, &format!("neigh replace {NEAR_ADDRESS} lladdr {colons} dev {FAR} nud permanent"))?;
        for network in ["198.18.0.0/16", "192.0.2.0/24", "172.16.0.0/16"] {
            ip(&far, &format!("route add {network} via {NEAR_ADDRESS}"))?;
        }
        let index = |ns: &Namespace, name: &str| {
            let name = name.to_owned();
            ns.run(move || netdev::index(&name))
        };
        let (near_index, far_index) = (index(&near, NEAR)?, index(&far, FAR)?);
        near.run(|| netdev::set_offload(NEAR, Offload::TxChecksum, false))?;
        far.run(|| write_sysctl("net/ipv4/ip_forward", "1"))?;
        Ok(Self { near, far, near_mac, near_index, far_mac, far_index })
    }

    fn source(&self) -> Source {
        let frame = packet::tcp(CLIENT, VIP, PORT).flags(".").macs(self.far_mac, self.near_mac);
        let mut source = Source::new(&frame);
        (source.sources, source.ifindex) = (FLOWS, self.near_index);
        source
    }

    /// The balancer with one service, whose backends are behind the near end.
    fn balancer(&self) -> Result<Balancer> {
        let mut members = world::members(BACKENDS, site::ipip4);
        for member in &mut members {
            let by = member.clone().by(self.far_index);
            *member = by;
            member.hop = member.hop.map(|mut hop| {
                (hop.dmac, hop.smac) = (self.near_mac, self.far_mac);
                hop
            });
        }
        let snapshot = world::snapshot(vec![world::service(VIP.into(), members, SLOTS)?])?;
        Balancer::new(&snapshot, &world::room_for(&snapshot, 1 << 10, 1))
    }
}

/// Rules as an administrator would write them: sources hashed over as many backends.
fn nft_rules() -> String {
    let backends: Vec<String> = (0..BACKENDS).map(|i| format!("{i} : {}", world::address(i))).collect();
    format!(
        "table ip bench {{\n chain prerouting {{\n  type nat hook prerouting priority -100;\n  \
         ip daddr {VIP} tcp dport {PORT} dnat to jhash ip saddr . tcp sport mod {BACKENDS} map {{ {}\n }}\n }}\n}}\n",
        backends.join(", ")
    )
}

/// What stays in place while one way is measured.
struct Working {
    bench: Option<(Bench, &'static str)>,
    balancer: Option<Balancer>,
    _pass: Option<crate::xdp_pass::Attached>,
    link: Option<aya::programs::xdp::XdpLinkId>,
    nft: bool,
}

impl Way {
    /// Puts it in place.
    fn begin(self, line: &Line, object: &Path) -> Result<Working> {
        let mut working = Working { bench: None, balancer: None, _pass: None, link: None, nft: false };
        let program = match self {
            Self::MacSwap => "swap",
            Self::ConstIpip => "encapsulate",
            Self::Plain => "plain",
            Self::Lb => {
                let mut balancer = line.balancer()?;
                let program = lb_userspace::dataplane::balancer(&mut balancer.ebpf)?;
                working.link = Some(attach(&line.far, program, FAR)?);
                working.balancer = Some(balancer);
                return Ok(working);
            }
            Self::Forward | Self::NftDnat => {
                // Without a program the far end would join frames to larger ones first.
                working._pass = Some(line.far.run(|| PassProgram::load()?.attach(FAR))?);
                if self == Self::NftDnat {
                    nft(&line.far, &nft_rules())?;
                    working.nft = true;
                }
                return Ok(working);
            }
        };
        let sizes = Sizes { flows: FLOWS * 2, ..Sizes::default() };
        let mut bench = Bench::load(object, sizes, line.source())?;
        let reals: Vec<_> = (0..BACKENDS).map(|i| (world::address(i), line.near_mac)).collect();
        bench.set_plain(Service { address: VIP.into(), protocol: 6, port: PORT }, &reals)?;
        working.link = Some(attach(&line.far, bench.program(program)?, FAR)?);
        working.bench = Some((bench, program));
        Ok(working)
    }
}

impl Working {
    /// Takes it away.
    fn end(mut self, line: &Line) -> Result<()> {
        let program = match (&mut self.bench, &mut self.balancer) {
            (Some((bench, name)), _) => Some(bench.program(name)?),
            (None, Some(balancer)) => Some(lb_userspace::dataplane::balancer(&mut balancer.ebpf)?),
            (None, None) => None,
        };
        if let (Some(program), Some(link)) = (program, self.link.take()) {
            program.detach(link)?;
        }
        if self.nft {
            nft(&line.far, "delete table ip bench\n")?;
        }
        Ok(())
    }
}

fn nft(ns: &Namespace, rules: &str) -> Result<()> {
    let folder = crate::cleanup::Folder::new("nft")?;
    let file = folder.path().join("rules");
    std::fs::write(&file, rules)?;
    let output = ns.command("nft").arg("-f").arg(&file).output().context("nft")?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn attach(ns: &Namespace, program: &mut Xdp, device: &str) -> Result<aya::programs::xdp::XdpLinkId> {
    ns.run(|| program.attach(device, XdpMode::Driver).with_context(|| format!("attaching to {device}")))
}

/// Frames per second that come back, in millions.
fn measure(line: &Line, generator: &mut Bench) -> Result<f64> {
    line.near.run(|| {
        send(generator, WARM_UP)?;
        let before = generator.back()?;
        let start = Instant::now();
        let sent = send(generator, MEASURE)?;
        let elapsed = start.elapsed();
        let back = generator.back()? - before;
        ensure!(
            back as f64 >= sent as f64 * BACK && back <= sent + u64::from(CALL),
            "of {sent} frames {back} came back"
        );
        Ok(back as f64 / elapsed.as_secs_f64() / 1e6)
    })
}

/// Sends frames for so long; how many.
fn send(generator: &mut Bench, time: Duration) -> Result<u64> {
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < time {
        let frame = generator.source.frame.clone();
        let program = generator.program("generate")?;
        program
            .test_run(TestRunOptions {
                data_in: Some(&frame),
                repeat: CALL,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::default()
            })
            .context("live frames (Linux 5.18)")?;
        sent += u64::from(CALL);
    }
    Ok(sent)
}

/// Runs the cases whose name is wanted.
pub(super) fn run(
    wanted: &dyn Fn(&str) -> bool,
    object: &Path,
    rounds: u32,
    report: &mut Report,
) -> Result<()> {
    let mut ways: Vec<_> = WAYS.iter().filter(|(way, name)| *way == Way::ConstIpip || wanted(name)).collect();
    if ways.len() == 1 && !wanted(ways[0].1) {
        return Ok(());
    }
    let line = Line::new()?;
    let mut generator = Bench::load(object, Sizes::default(), line.source())?;
    attach(&line.near, generator.program("sink")?, NEAR)?;
    let mut series: BTreeMap<Way, Series> = BTreeMap::new();
    let mut failed: BTreeMap<Way, String> = BTreeMap::new();
    for round in 0..rounds {
        say(&format!("round {} of {rounds}, {} ways", round + 1, ways.len()));
        for (way, name) in &ways {
            let working = way.begin(&line, object).with_context(|| format!("{name} on the far end"))?;
            let measured = measure(&line, &mut generator);
            working.end(&line)?;
            match measured {
                Ok(value) => series.entry(*way).or_default().push(value),
                Err(error) => drop(failed.insert(*way, format!("{error:#}"))),
            }
        }
        ways.reverse();
    }
    let Some(floor) = series.get(&Way::ConstIpip).map(Series::median) else {
        bail!("constant encapsulation: {}", failed.get(&Way::ConstIpip).map_or("no figure", String::as_str));
    };
    for (way, name) in WAYS.iter().filter(|(_, name)| wanted(name)) {
        let Some(of_way) = series.get(way) else {
            let why = failed.get(way).map_or("no figure", String::as_str);
            report.absent.push(Absent::new(SUITE, name, why));
            continue;
        };
        let mut figure = Figure::value(SUITE, name, of_way.median(), "Mpps");
        figure.against("const_ipip_64k_flows", of_way.median(), floor);
        figure.yardstick_net_ns = None;
        figure.spread = of_way.spread();
        figure.more_is_better = true;
        figure.target = (*way == Way::Lb).then_some(0.92);
        figure.note = Some(format!(
            "{:.0} ns for a packet there and back; the best round {:.2} Mpps",
            1e3 / of_way.median(),
            of_way.quantile(1.0)
        ));
        report.figures.push(figure);
    }
    Ok(())
}
