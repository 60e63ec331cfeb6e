//! Client — router — LAN with balancer and backends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, bail};

use super::{
    Plan,
    world::{CLIENT_MTU, Place, World, client, plan_client, plan_client_gateway, plan_vips, spread_route},
};

/// Host numbers of the LAN: router, balancer, the second one, VIP, first backend.
const ROUTER: u8 = 1;
const BALANCER: u8 = 2;
const SECOND: u8 = 3;
const VIP: u8 = 10;
const FIRST_BACKEND: u8 = 11;
/// They share the last byte of an IPv4 address with the others.
const MAX_BACKENDS: u8 = 240;

/// The one-arm world to be built.
#[derive(Clone, Debug)]
pub struct OneArm {
    backends: u8,
    mtu: u32,
    vip_on_lan: bool,
    prepared: bool,
    behind: bool,
    second: bool,
}

impl Default for OneArm {
    fn default() -> Self {
        Self { backends: 3, mtu: 1500, vip_on_lan: false, prepared: false, behind: false, second: false }
    }
}

impl OneArm {
    /// Number of backends, at most 240. Default 3.
    #[must_use]
    pub fn backends(self, backends: u8) -> Self {
        Self { backends, ..self }
    }

    /// MTU of the LAN in bytes; the client's link keeps 1500. Default 1500.
    #[must_use]
    pub fn mtu(self, mtu: u32) -> Self {
        Self { mtu, ..self }
    }

    /// VIPs from the LAN's own subnet with no route to them: only a balancer that announces them makes them reachable.
    /// Default: VIPs that the router routes to the balancer.
    #[must_use]
    pub fn vip_on_lan(self) -> Self {
        Self { vip_on_lan: true, ..self }
    }

    /// Backends have the VIPs on `lo` and do not answer ARP for them. Default: left to `lb agent --prepare`.
    #[must_use]
    pub fn prepared(self) -> Self {
        Self { prepared: true, ..self }
    }

    /// The balancer is the backends' default route, and forwards.
    #[must_use]
    pub fn behind_balancer(self) -> Self {
        Self { behind: true, ..self }
    }

    /// A second balancer on the LAN; the router spreads flows over both (ECMP by addresses and ports). Default: one.
    #[must_use]
    pub fn two_balancers(self) -> Self {
        Self { second: true, ..self }
    }

    /// Builds it.
    ///
    /// # Errors
    /// Without root, with too many backends, or when a step fails; nothing is left behind then.
    pub fn build(self) -> Result<World> {
        if self.backends > MAX_BACKENDS {
            bail!("{} backends do not fit in the lab's /24: at most {MAX_BACKENDS}", self.backends);
        }
        let (vip4, vip6) = self.vips();
        let lb = on_lan("lb", BALANCER);
        let second = self.second.then(|| on_lan("lb2", SECOND));
        let backends: Vec<_> =
            (0..self.backends).map(|i| on_lan(&format!("b{}", i + 1), FIRST_BACKEND + i)).collect();

        let mut plan = Plan::default();
        plan.veth(("client", "eth0"), ("router", "to-client"), CLIENT_MTU);
        plan_client(plan.node("client"));
        let hosts =
            [&lb].into_iter().chain(&second).chain(&backends).map(|host| self.plan_on_lan(&mut plan, host));
        let ports: Vec<_> = hosts.collect();
        self.plan_router(&mut plan, &ports);
        if self.prepared {
            for host in &backends {
                plan_vips(plan.node(&host.name), vip4, vip6);
            }
        }

        let mut topology = plan.build()?;
        let mut router = on_lan("router", ROUTER);
        router.interface = "lan".into();
        Ok(World {
            client: client().host(&mut topology)?,
            router: Some(router.host(&mut topology)?),
            lb: lb.host(&mut topology)?,
            lb2: second.map(|place| place.host(&mut topology)).transpose()?,
            backends: backends.into_iter().map(|b| b.host(&mut topology)).collect::<Result<_>>()?,
            vip4,
            vip6,
            _topology: topology,
        })
    }

    fn vips(&self) -> (Ipv4Addr, Ipv6Addr) {
        if self.vip_on_lan {
            (lan_v4(VIP), lan_v6(VIP))
        } else {
            (Ipv4Addr::new(192, 0, 2, 10), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10))
        }
    }

    /// Connects a host with the bridge; returns the name of its port there.
    fn plan_on_lan(&self, plan: &mut Plan, host: &Place) -> String {
        let port = format!("p-{}", host.name);
        let gateway = if self.behind && host.name != "lb" { BALANCER } else { ROUTER };
        plan.veth((&host.name, "eth0"), ("router", &port), self.mtu);
        plan.node(&host.name)
            .address("eth0", &format!("{}/24", host.v4))
            .address("eth0", &format!("{}/64", host.v6))
            .route(&format!("default via {}", lan_v4(gateway)))
            .route(&format!("default via {}", lan_v6(gateway)));
        if self.behind && host.name == "lb" {
            plan.node("lb").forwarding();
        }
        // Balancer and agents may both answer by XDP_TX.
        plan.node("router").checksums(&port).pass_program(&port);
        port
    }

    fn plan_router(&self, plan: &mut Plan, ports: &[String]) {
        let (vip4, vip6) = self.vips();
        let router = plan.node("router");
        router
            .bridge("lan", self.mtu, ports)
            .address("lan", &format!("{}/24", lan_v4(ROUTER)))
            .address("lan", &format!("{}/64", lan_v6(ROUTER)));
        plan_client_gateway(router, "to-client");
        if !self.vip_on_lan {
            let ways: &[u8] = if self.second { &[BALANCER, SECOND] } else { &[BALANCER] };
            let hops4: Vec<IpAddr> = ways.iter().map(|host| lan_v4(*host).into()).collect();
            let hops6: Vec<IpAddr> = ways.iter().map(|host| lan_v6(*host).into()).collect();
            router
                .route(&spread_route(vip4.into(), &hops4))
                .route(&spread_route(vip6.into(), &hops6))
                .sysctl("net/ipv4/fib_multipath_hash_policy", "1")
                .sysctl("net/ipv6/fib_multipath_hash_policy", "1");
        }
    }
}

fn on_lan(name: &str, host: u8) -> Place {
    Place { name: name.into(), interface: "eth0".into(), v4: lan_v4(host), v6: lan_v6(host) }
}

fn lan_v4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, host)
}

/// Written like the IPv4 address: host 11 is `::11`, not `::b`.
fn lan_v6(host: u8) -> Ipv6Addr {
    let digits = u16::from(host / 100) << 8 | u16::from(host / 10 % 10) << 4 | u16::from(host % 10);
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_hosts_read_like_their_ipv4_twins() {
        assert_eq!(lan_v6(11).to_string(), "2001:db8:1::11");
        assert_eq!(lan_v6(250).to_string(), "2001:db8:1::250");
    }

    #[test]
    fn too_many_backends_are_refused() {
        let error = World::one_arm().backends(241).build().unwrap_err().to_string();
        assert!(error.contains("at most 240"), "{error}");
    }
}
