//! Client — balancer — backends, each on a link of its own: the balancer is the router.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Result, bail};

use super::{
    Plan,
    world::{CLIENT_MTU, Place, World, client, plan_client, plan_client_gateway, plan_vips},
};

/// One /30 of 203.0.113.0/24 each.
const MAX_BACKENDS: u8 = 64;
/// The balancer's device to the client.
const TO_CLIENT: &str = "to-client";

/// The two-arm world to be built.
#[derive(Clone, Debug)]
pub struct TwoArm {
    backends: u8,
    mtu: u32,
    prepared: bool,
}

impl Default for TwoArm {
    fn default() -> Self {
        Self { backends: 3, mtu: 1500, prepared: false }
    }
}

impl TwoArm {
    /// Number of backends, at most 64. Default 3.
    #[must_use]
    pub fn backends(self, backends: u8) -> Self {
        Self { backends, ..self }
    }

    /// MTU of the backends' links in bytes; the client's keeps 1500. Default 1500.
    #[must_use]
    pub fn mtu(self, mtu: u32) -> Self {
        Self { mtu, ..self }
    }

    /// Backends have the VIPs on `lo`. Default: left to `lb agent --prepare`.
    #[must_use]
    pub fn prepared(self) -> Self {
        Self { prepared: true, ..self }
    }

    /// Builds it. The balancer's device to backend `bN` is `to-bN`.
    ///
    /// # Errors
    /// Without root, with too many backends, or when a step fails; nothing is left behind then.
    pub fn build(self) -> Result<World> {
        if self.backends > MAX_BACKENDS {
            bail!("{} backends do not fit in the lab's /24: at most {MAX_BACKENDS}", self.backends);
        }
        let vip4 = Ipv4Addr::new(192, 0, 2, 10);
        let vip6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
        let backends: Vec<_> = (0..self.backends).map(backend).collect();

        let mut plan = Plan::default();
        plan.veth(("client", "eth0"), ("lb", TO_CLIENT), CLIENT_MTU);
        plan_client(plan.node("client"));
        // What the client sends enters the balancer's XDP; what it answers itself (ARP, errors) comes back by XDP_TX.
        plan.node("client").checksums("eth0").pass_program("eth0");
        plan_client_gateway(plan.node("lb"), TO_CLIENT);
        for (i, host) in backends.iter().enumerate() {
            self.plan_backend(&mut plan, host, i as u8);
            if self.prepared {
                plan_vips(plan.node(&host.name), vip4, vip6);
            }
        }

        let mut topology = plan.build()?;
        let lb = Place {
            name: "lb".into(),
            interface: TO_CLIENT.into(),
            v4: Ipv4Addr::new(198, 18, 0, 1),
            v6: Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1),
        };
        Ok(World {
            client: client().host(&mut topology)?,
            router: None,
            lb: lb.host(&mut topology)?,
            lb2: None,
            backends: backends.into_iter().map(|b| b.host(&mut topology)).collect::<Result<_>>()?,
            vip4,
            vip6,
            _topology: topology,
        })
    }

    fn plan_backend(&self, plan: &mut Plan, host: &Place, i: u8) {
        let device = format!("to-{}", host.name);
        let (gateway4, gateway6) = (link_v4(i, 1), link_v6(i, 1));
        plan.veth((&host.name, "eth0"), ("lb", &device), self.mtu);
        plan.node("lb")
            .address(&device, &format!("{gateway4}/30"))
            .address(&device, &format!("{gateway6}/64"));
        plan.node(&host.name)
            .address("eth0", &format!("{}/30", host.v4))
            .address("eth0", &format!("{}/64", host.v6))
            .route(&format!("default via {gateway4}"))
            .route(&format!("default via {gateway6}"))
            // Not the pass program: the agent's goes here.
            .gro("eth0")
            // Answers enter the balancer's XDP where it translates them.
            .checksums("eth0");
    }
}

fn backend(i: u8) -> Place {
    Place { name: format!("b{}", i + 1), interface: "eth0".into(), v4: link_v4(i, 2), v6: link_v6(i, 2) }
}

fn link_v4(i: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, i * 4 + host)
}

fn link_v6(i: u8, host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 2, u16::from(i) + 1, 0, 0, 0, host.into())
}
