//! What is tried out in an emulated machine.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use lb_tests::{
    backend::Backend,
    check,
    cleanup::Folder,
    lb_config::LbConfig,
    lb_process::LbProcess,
    netns::Namespace,
    process::output_of,
    site::Site,
    topology::{Plan, World, world::Host},
    traffic::{Spread, spread},
    view::View,
    wait::wait_for,
};
use lb_userspace::config::{Forward, XdpMode};

/// An emulated machine is slow.
const LIMIT: Duration = Duration::from_secs(60);
const REQUESTS: usize = 60;
const CLIENTS: u16 = 30;
const NAMES: [&str; 3] = ["b1", "b2", "b3"];

/// Runs the scene of this name.
pub(crate) fn run(name: &str) -> Result<()> {
    match name {
        "refused" => refused(),
        "agent" => by_the_agent(),
        "ipv4-in-ipv4" => by_the_kernel(false, false),
        "ipv6-in-ipv4" => by_the_kernel(true, false),
        "ipv4-in-ipv6" => by_the_kernel(false, true),
        "ipv6-in-ipv6" => by_the_kernel(true, true),
        "bond" => bond(),
        "vlan" => vlan(),
        other => bail!("there is no scene {other:?}"),
    }
}

/// A kernel that is too old is refused with the reason, and nothing is left behind.
fn refused() -> Result<()> {
    // No veth pair: what the laboratory attaches to those is too new for that kernel as well.
    let (v4, v6) = ("198.51.100.2".parse()?, std::net::Ipv6Addr::UNSPECIFIED);
    let host = Host { name: "lb".into(), ns: Namespace::new("lb")?, interface: "dummy0".into(), v4, v6 };
    ip(&host, "link add dummy0 type dummy")?;
    ip(&host, "link set dummy0 up")?;
    ip(&host, "address add 198.51.100.2/24 dev dummy0")?;
    let hosts = [host];
    let config = LbConfig::of_hosts(&hosts, "192.0.2.10".parse()?, Forward::L2, false).to_toml()?;
    let refused = LbProcess::refused(&hosts[0], &config, &["--interface", "dummy0"])?;
    let text = format!("{} {}", refused.output.stdout, refused.output.stderr);
    ensure!(!refused.output.status.success(), "it runs: {text}");
    let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    ensure!(text.contains(&format!("Linux {release} is too old: at least 6.1")), "it says: {text}");
    ensure!(refused.left.is_empty(), "left behind: {:?}", refused.left);
    Ok(())
}

/// Checks that a machine which is slow for a while does not fail.
fn patient(mut config: LbConfig) -> LbConfig {
    for service in &mut config.services {
        service.health.interval = "10s".into();
        service.health.timeout = "10s".into();
        service.health.rise = 1;
        service.health.fall = 10;
    }
    config
}

/// Backends with the agent, which takes packets out by XDP.
fn by_the_agent() -> Result<()> {
    let world = World::one_arm().build()?;
    let vip: IpAddr = world.vip6.into();
    let config = patient(LbConfig::web(&world, vip, Forward::Ipip, false));
    let site = Site::start(world, config)?;
    check::balanced(&site.spread(REQUESTS, CLIENTS, (vip, 80).into())?, REQUESTS, &NAMES)
}

/// Backends without the agent: the kernel's own tunnel devices take packets out.
fn by_the_kernel(vip_v6: bool, backends_v6: bool) -> Result<()> {
    let world = World::one_arm().build()?;
    for host in &world.backends {
        let mut commands = vec![
            format!("address add {}/32 dev lo", world.vip4),
            format!("address add {}/128 dev lo nodad", world.vip6),
            "link set tunl0 up".to_owned(),
            "link set sit0 up".to_owned(),
        ];
        // The device that is always there takes only IPv6 in IPv6.
        commands.extend([
            format!("link add t6 type ip6tnl mode any local {} remote {}", host.v6, world.lb.v6),
            "link set t6 up".to_owned(),
        ]);
        for command in commands {
            ip(host, &command)?;
        }
        host.ns.run(|| {
            for device in ["all", "default", "eth0", "tunl0", "sit0", "t6"] {
                lb_tests::netns::write_sysctl(&format!("net/ipv4/conf/{device}/rp_filter"), "0")?;
            }
            lb_tests::netns::write_sysctl("net/ipv4/conf/all/arp_ignore", "1")
        })?;
    }
    let vip: IpAddr = if vip_v6 { world.vip6.into() } else { world.vip4.into() };
    let config = patient(LbConfig::web(&world, vip, Forward::Ipip, backends_v6));
    let site = Site::start_text(world, Vec::new(), &config.to_toml()?, &["--interface", "eth0"])?;
    check::balanced(&site.spread(REQUESTS, CLIENTS, (vip, 80).into())?, REQUESTS, &NAMES)?;
    ensure!(site.view()?.dropped().is_empty(), "dropped: {:?}", site.view()?.dropped());
    Ok(())
}

fn ip(host: &Host, words: &str) -> Result<String> {
    let mut command = host.ns.entry().command("ip");
    command.args(words.split(' '));
    output_of(command, LIMIT).with_context(|| format!("{}: ip {words}", host.name))
}

/// The balancer on a VLAN device of the kernel's, by which clients come; backends on the same trunk, untagged.
fn vlan() -> Result<()> {
    let mut plan = Plan::default();
    plan.veth(("client", "eth0"), ("lb", "trunk"), 1500);
    plan.node("client")
        .ip("link add link eth0 name eth0.100 type vlan id 100")
        .ip("link set eth0.100 up")
        .address("eth0.100", "198.18.0.2/24")
        .route("local 198.19.0.0/16 dev lo")
        .route("default via 198.18.0.1")
        .checksums("eth0");
    plan.node("lb")
        .ip("link add link trunk name trunk.100 type vlan id 100")
        .ip("link set trunk.100 up")
        .address("trunk.100", "198.18.0.1/24")
        .route("198.19.0.0/16 via 198.18.0.2")
        .forwarding();
    for i in 1..=3 {
        let device = format!("to-b{i}");
        let (node, base) = (format!("b{i}"), (i - 1) * 4);
        plan.veth((&node, "eth0"), ("lb", &device), 1500);
        plan.node("lb").address(&device, &format!("203.0.113.{}/30", base + 1));
        plan.node(&node)
            .address("eth0", &format!("203.0.113.{}/30", base + 2))
            .address("lo", "192.0.2.10/32")
            .route(&format!("default via 203.0.113.{}", base + 1))
            .gro("eth0");
    }
    let mut topology = plan.build()?;
    let mut host = |name: &str, interface: &str, v4: &str| -> Result<Host> {
        let ns = topology.take(name)?;
        let v6 = std::net::Ipv6Addr::UNSPECIFIED;
        Ok(Host { name: name.into(), ns, interface: interface.into(), v4: v4.parse()?, v6 })
    };
    let client = host("client", "eth0.100", "198.18.0.2")?;
    let lb = host("lb", "trunk.100", "198.18.0.1")?;
    let backends = (1..=3)
        .map(|i| host(&format!("b{i}"), "eth0", &format!("203.0.113.{}", (i - 1) * 4 + 2)))
        .collect::<Result<Vec<_>>>()?;
    let running = Running::start(&lb, &backends, XdpMode::Auto)?;
    let view = running.lb.view()?;
    // A VLAN device has no native mode: it is said which one it got.
    ensure!(view.0["interfaces"][0]["mode"] == "generic", "{:#}", view.0["interfaces"]);
    running.balances(&client)
}

/// The balancer on a bond of two ports of the LAN, one of which fails.
fn bond() -> Result<()> {
    let mut plan = Plan::default();
    plan.veth(("client", "eth0"), ("router", "to-client"), 1500);
    plan.node("client")
        .address("eth0", "198.18.0.2/24")
        .route("local 198.19.0.0/16 dev lo")
        .route("default via 198.18.0.1");
    let mut ports = Vec::new();
    for (node, device) in [("lb", "s0"), ("lb", "s1"), ("b1", "eth0"), ("b2", "eth0"), ("b3", "eth0")] {
        let port = format!("p-{node}-{device}");
        plan.veth((node, device), ("router", &port), 1500);
        plan.node("router").checksums(&port).pass_program(&port);
        ports.push(port);
    }
    plan.node("router")
        .bridge("lan", 1500, &ports)
        .address("lan", "198.51.100.1/24")
        .address("to-client", "198.18.0.1/24")
        .route("198.19.0.0/16 via 198.18.0.2")
        .route("192.0.2.10 via 198.51.100.2")
        .forwarding();
    let lb = plan.node("lb");
    lb.ip("link add bond0 type bond mode active-backup miimon 100");
    for port in ["s0", "s1"] {
        lb.ip(&format!("link set {port} down")).ip(&format!("link set {port} master bond0"));
    }
    lb.ip("link set bond0 up").address("bond0", "198.51.100.2/24").route("default via 198.51.100.1");
    for i in 1..=3 {
        plan.node(&format!("b{i}"))
            .address("eth0", &format!("198.51.100.{}/24", 10 + i))
            .address("lo", "192.0.2.10/32")
            .route("default via 198.51.100.1")
            .sysctl("net/ipv4/conf/all/arp_ignore", "1")
            .sysctl("net/ipv4/conf/all/arp_announce", "2");
    }
    let mut topology = plan.build()?;
    let mut host = |name: &str, interface: &str, v4: &str| -> Result<Host> {
        let ns = topology.take(name)?;
        let v6 = std::net::Ipv6Addr::UNSPECIFIED;
        Ok(Host { name: name.into(), ns, interface: interface.into(), v4: v4.parse()?, v6 })
    };
    let client = host("client", "eth0", "198.18.0.2")?;
    let lb = host("lb", "bond0", "198.51.100.2")?;
    let router = host("router", "lan", "198.51.100.1")?;
    let backends = (1..=3)
        .map(|i| host(&format!("b{i}"), "eth0", &format!("198.51.100.{}", 10 + i)))
        .collect::<Result<Vec<_>>>()?;
    let running = Running::start(&lb, &backends, XdpMode::Native)?;
    running.balances(&client).context("with both ports")?;
    let active = || ip(&lb, "-d link show dev bond0");
    // Which port carries is decided by which was seen up first.
    let is_first = active()?.contains("active_slave s0 ");
    let (carries, other) = if is_first { ("s0", "s1") } else { ("s1", "s0") };
    ensure!(active()?.contains(&format!("active_slave {carries} ")), "{}", active()?);
    ip(&router, &format!("link set p-lb-{carries} down"))?;
    wait_for("the bond to use its other port", LIMIT, || {
        active().is_ok_and(|text| text.contains(&format!("active_slave {other} ")))
    })?;
    running.balances(&client).context("with the other port")
}

/// A balancer and servers in a world that is not one of the standard ones.
struct Running {
    lb: LbProcess,
    _servers: Vec<Backend>,
    _logs: Folder,
}

impl Running {
    fn start(lb: &Host, backends: &[Host], mode: XdpMode) -> Result<Self> {
        let logs = Folder::new("logs")?;
        let servers = backends.iter().map(|host| Backend::start(host, logs.path()));
        let servers = servers.collect::<Result<Vec<_>>>()?;
        let mut config = patient(LbConfig::of_hosts(backends, "192.0.2.10".parse()?, Forward::L2, false));
        config.daemon.xdp_mode = mode;
        let lb = LbProcess::start(lb, &config.to_toml()?)?;
        let settled = || lb.view().is_ok_and(|view| View::is_settled(&view));
        wait_for("every backend to be in service", LIMIT, settled)
            .with_context(|| format!("{:?}", lb.view()))?;
        Ok(Self { lb, _servers: servers, _logs: logs })
    }

    fn balances(&self, client: &Host) -> Result<()> {
        let vip: IpAddr = "192.0.2.10".parse()?;
        let sources = World::sources_for(vip, CLIENTS);
        let plan = Spread { limit: LIMIT, ..Spread::new(REQUESTS, &sources, (vip, 80).into()) };
        let report = spread(&client.ns.entry(), &plan)?;
        check::balanced(&report, REQUESTS, &NAMES).with_context(|| format!("{:?}", self.lb.view()))
    }
}
