//! The settings of this host, behind [`Host`].

use std::{collections::HashSet, fs, io, path::Path};

use anyhow::Context;
use ipnet::IpNet;

use super::{
    reconcile::Host,
    record::{ABSENT, DOWN, NONE, PRESENT, Setting, UP},
};
use crate::net::{
    Netlink,
    host::{self, HostRoute},
    links::{Inventory, Link},
};

const SYSCTLS: &str = "/proc/sys";
const LOOPBACK: &str = "lo";

/// The network namespace of the calling thread. Tables are read once and kept until a change of ours: thousands of VIPs
/// must not mean thousands of listings.
pub(in crate::agent) struct System {
    netlink: Netlink,
    links: Option<Inventory>,
    /// Index of loopback and its addresses.
    loopback: Option<(u32, HashSet<IpNet>)>,
    routes: Option<Vec<HostRoute>>,
}

impl System {
    pub(in crate::agent) fn new(netlink: &Netlink) -> Self {
        Self { netlink: netlink.clone(), links: None, loopback: None, routes: None }
    }

    async fn links(&mut self) -> anyhow::Result<&Inventory> {
        if self.links.is_none() {
            self.links = Some(Inventory::read(&self.netlink).await?);
        }
        self.links.as_ref().context("no interfaces")
    }

    async fn link(&mut self, name: &str) -> anyhow::Result<Option<Link>> {
        Ok(self.links().await?.by_name(name).ok().cloned())
    }

    async fn loopback(&mut self) -> anyhow::Result<&mut (u32, HashSet<IpNet>)> {
        if self.loopback.is_none() {
            let lo = self.links().await?.by_name(LOOPBACK)?;
            self.loopback = Some((lo.index, lo.addresses.iter().copied().collect()));
        }
        self.loopback.as_mut().context("no loopback interface")
    }

    async fn route(&mut self, words: &str) -> anyhow::Result<Option<HostRoute>> {
        if self.routes.is_none() {
            let netlink = self.netlink.clone();
            let links = self.links().await?;
            let mut routes = host::routes(&netlink, links, false).await?;
            routes.extend(host::routes(&netlink, links, true).await?);
            self.routes = Some(routes);
        }
        Ok(self.routes.iter().flatten().find(|route| route.words == words).cloned())
    }
}

impl Host for System {
    async fn read(&mut self, setting: &Setting) -> anyhow::Result<Option<String>> {
        Ok(match setting {
            Setting::Sysctl { name } => sysctl(name)?,
            Setting::Address { address } => {
                let there = self.loopback().await?.1.contains(&IpNet::from(*address));
                Some((if there { PRESENT } else { ABSENT }).to_owned())
            }
            Setting::Link { interface } => {
                self.link(interface).await?.map(|link| (if link.up { UP } else { DOWN }).to_owned())
            }
            Setting::Advmss { route } => self.route(route).await?.map(|route| advmss_word(route.advmss)),
        })
    }

    async fn write(&mut self, setting: &Setting, value: &str) -> anyhow::Result<()> {
        let gone = || format!("{setting}: it is gone");
        let netlink = self.netlink.clone();
        match setting {
            Setting::Sysctl { name } => set_sysctl(name, value)?,
            Setting::Address { address } => {
                let (index, addresses) = self.loopback().await?;
                if value == PRESENT {
                    host::add_address(&netlink, *index, *address).await?;
                    addresses.insert((*address).into());
                } else {
                    host::remove_address(&netlink, *index, *address).await?;
                    addresses.remove(&(*address).into());
                }
            }
            Setting::Link { interface } => {
                let link = self.link(interface).await?.with_context(gone)?;
                self.links = None;
                host::set_up(&netlink, &link, value == UP).await?;
            }
            Setting::Advmss { route } => {
                let route = self.route(route).await?.with_context(gone)?;
                let advmss = if value == NONE { None } else { Some(value.parse()?) };
                self.routes = None;
                host::set_advmss(&netlink, &route, advmss).await?;
            }
        }
        Ok(())
    }
}

/// `advmss` as a value of a [`Setting`].
pub(super) fn advmss_word(advmss: Option<u32>) -> String {
    advmss.map_or_else(|| NONE.to_owned(), |bytes| bytes.to_string())
}

/// The value of a file below `/proc/sys`; `None` where there is no such file.
pub(in crate::agent) fn sysctl(name: &str) -> anyhow::Result<Option<String>> {
    let path = Path::new(SYSCTLS).join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn set_sysctl(name: &str, value: &str) -> anyhow::Result<()> {
    let path = Path::new(SYSCTLS).join(name);
    // Opened for writing only: these files are made by the kernel.
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
        .with_context(|| {
            format!(
                "cannot set {} to {value} (it is read-only in most containers: set it on the host)",
                path.display()
            )
        })
}
