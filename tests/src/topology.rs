//! Nodes, veth pairs and bridges: written down as a [`Plan`], then built in one go.
//!
//! Building takes one `ip -batch` for all links and one per node, all nodes at once; offloads, sysctls and XDP
//! programs are set from a thread inside the node. The standard worlds are in [`world`].

mod one_arm;
mod two_arm;
pub mod world;

use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
};

use anyhow::{Context, Result, anyhow, bail};

pub use one_arm::OneArm;
pub use two_arm::TwoArm;
pub use world::World;

use crate::{
    netdev::{self, Offload},
    netns::{Namespace, write_sysctl},
    xdp_pass::{Attached, PassProgram},
};

/// A topology to be built.
#[derive(Debug, Default)]
pub struct Plan {
    nodes: BTreeMap<String, Node>,
    pairs: Vec<Pair>,
}

/// What one node gets. Every method returns the node, for chains.
#[derive(Debug, Default)]
pub struct Node {
    ip: Vec<String>,
    sysctls: Vec<(String, String)>,
    offloads: Vec<(String, Offload, bool)>,
    pass: Vec<String>,
}

/// A veth pair: (role, device) of both ends.
#[derive(Debug)]
struct Pair {
    ends: [(String, String); 2],
    mtu: u32,
}

/// What was built. Dropping it removes it.
#[derive(Debug)]
pub struct Topology {
    _pass: Vec<Attached>,
    nodes: BTreeMap<String, Namespace>,
}

impl Plan {
    /// The node `role`, made when first named.
    pub fn node(&mut self, role: &str) -> &mut Node {
        self.nodes.entry(role.to_owned()).or_default()
    }

    /// Connects two (role, device) by a veth pair, both ends up. `mtu` in bytes.
    pub fn veth(&mut self, a: (&str, &str), b: (&str, &str), mtu: u32) {
        for (role, device) in [a, b] {
            self.node(role).ip(&format!("link set {device} up"));
        }
        let ends = [a, b].map(|(role, device)| (role.to_owned(), device.to_owned()));
        self.pairs.push(Pair { ends, mtu });
    }

    /// Makes it real.
    ///
    /// # Errors
    /// Without root, or when a step fails; nothing is left behind then.
    pub fn build(self) -> Result<Topology> {
        let mut nodes = BTreeMap::new();
        for role in self.nodes.keys() {
            nodes.insert(role.clone(), Namespace::new(role)?);
        }
        let links: Vec<_> = self.pairs.iter().map(|pair| pair.command(&nodes)).collect::<Result<_>>()?;
        ip_batch(Command::new("ip"), &links).context("veth pairs")?;

        let pass = PassProgram::load()?;
        let attached = thread::scope(|scope| {
            let set_up = |(role, node): (&String, &Node)| {
                let namespace = nodes.get(role).ok_or_else(|| anyhow!("no node {role}"))?;
                node.set_up(namespace, &pass).with_context(|| format!("setting up node {role}"))
            };
            let threads: Vec<_> = self.nodes.iter().map(|node| scope.spawn(move || set_up(node))).collect();
            let results = threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            results.collect::<Result<Vec<Vec<Attached>>>>()
        })?;
        Ok(Topology { nodes, _pass: attached.into_iter().flatten().collect() })
    }
}

impl Node {
    /// A command for `ip -batch`, without the leading `ip`. They run in order.
    pub fn ip(&mut self, command: &str) -> &mut Self {
        self.ip.push(command.to_owned());
        self
    }

    /// An address with its prefix length.
    pub fn address(&mut self, device: &str, address: &str) -> &mut Self {
        // IPv6 addresses are usable at once only without duplicate address detection.
        let nodad = if address.contains(':') { " nodad" } else { "" };
        self.ip(&format!("address add {address} dev {device}{nodad}"))
    }

    /// A route as in `ip route add`.
    pub fn route(&mut self, route: &str) -> &mut Self {
        self.ip(&format!("route add {route}"))
    }

    /// A bridge of the given device name, MTU and ports, up. No spanning tree, no multicast snooping: neighbour
    /// solicitations reach everybody at once. A MAC address of its own: it would take the lowest of its ports', and
    /// another one when that port goes, which its neighbours learn late.
    pub fn bridge(&mut self, device: &str, mtu: u32, ports: &[String]) -> &mut Self {
        static MADE: AtomicU16 = AtomicU16::new(0);
        let [high, low] = MADE.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mac = format!("02:00:62:72:{high:02x}:{low:02x}");
        self.ip(&format!("link add {device} address {mac} type bridge stp_state 0 mcast_snooping 0"));
        for port in ports {
            self.ip(&format!("link set {port} master {device}"));
        }
        self.ip(&format!("link set {device} mtu {mtu} up"))
    }

    /// A sysctl (slashes, not dots), written after all `ip` commands.
    pub fn sysctl(&mut self, key: &str, value: &str) -> &mut Self {
        self.sysctls.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Forwarding in both families.
    pub fn forwarding(&mut self) -> &mut Self {
        self.sysctl("net/ipv4/ip_forward", "1").sysctl("net/ipv6/conf/all/forwarding", "1")
    }

    /// Real checksums on what `device` sends. Needed where its peer runs XDP that sends on: a checksum that was left
    /// to the device is lost there, and GRO elsewhere can bring one about even when the sender made its own.
    pub fn checksums(&mut self, device: &str) -> &mut Self {
        self.offloads.push((device.to_owned(), Offload::TxChecksum, false));
        self
    }

    /// GRO on `device`, so that it takes what XDP redirects to its peer although it has no XDP program itself.
    pub fn gro(&mut self, device: &str) -> &mut Self {
        self.offloads.push((device.to_owned(), Offload::Gro, true));
        self
    }

    /// The pass program on `device`, so that its peer can send by XDP_TX.
    pub fn pass_program(&mut self, device: &str) -> &mut Self {
        self.pass.push(device.to_owned());
        self
    }

    fn set_up(&self, namespace: &Namespace, pass: &PassProgram) -> Result<Vec<Attached>> {
        ip_batch(namespace.command("ip"), &self.ip)?;
        namespace.run(|| {
            for (device, offload, on) in &self.offloads {
                netdev::set_offload(device, *offload, *on)?;
            }
            for (key, value) in &self.sysctls {
                write_sysctl(key, value)?;
            }
            self.pass.iter().map(|device| pass.attach(device)).collect()
        })
    }
}

impl Pair {
    fn command(&self, nodes: &BTreeMap<String, Namespace>) -> Result<String> {
        let [a, b] = &self.ends;
        let place = |(role, device): &(String, String)| -> Result<String> {
            let namespace = nodes.get(role).ok_or_else(|| anyhow!("no node {role}"))?;
            Ok(format!("{device} mtu {} netns {}", self.mtu, namespace.name()))
        };
        Ok(format!("link add {} type veth peer name {}", place(a)?, place(b)?))
    }
}

impl Topology {
    /// Takes a node out; the caller drops it.
    ///
    /// # Errors
    /// When the plan had no such node.
    pub fn take(&mut self, role: &str) -> Result<Namespace> {
        self.nodes.remove(role).ok_or_else(|| anyhow!("the topology has no node {role}"))
    }
}

/// Feeds `lines` to `ip -batch`.
fn ip_batch(mut command: Command, lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting `ip` (package iproute2)")?;
    // Taken, so that the end of the input is seen. `ip` reads to the end before it exits, or complains below.
    let written = child.stdin.take().map(|mut input| input.write_all((lines.join("\n") + "\n").as_bytes()));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("ip -batch: {}\n{}", String::from_utf8_lossy(&output.stderr).trim_end(), numbered(lines));
    }
    written.transpose()?;
    Ok(())
}

/// `ip` names the line of a mistake by its number.
fn numbered(lines: &[String]) -> String {
    lines.iter().enumerate().map(|(i, line)| format!("{:4} {line}", i + 1)).collect::<Vec<_>>().join("\n")
}
