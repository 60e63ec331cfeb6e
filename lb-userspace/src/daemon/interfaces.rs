//! Interfaces that vanish and come back, under the program's feet.

use std::net::IpAddr;

use log::{info, warn};

use super::core::Core;
use crate::dataplane::{self, Attachment};

impl Core {
    /// Keeps up with the interfaces: MAC addresses that answers carry, and the program where one came back.
    pub(super) fn follow_interfaces(&mut self) {
        for name in self.config.daemon.interfaces.clone() {
            let index = self.links.by_name(&name).ok().map(|link| link.index);
            let attached = self.attachments.iter().find(|a| a.interface == name).map(|a| a.ifindex);
            if let Some(before) = attached.filter(|before| index != Some(*before)) {
                self.lost(&name, before);
            }
            let Some(index) = index else { continue };
            if let Err(error) = self.follow(&name, index) {
                warn!("{name}: {error:#}");
            }
        }
    }

    /// The interface with this index is gone, or has another name. Its link is pinned and of no use.
    fn lost(&mut self, name: &str, ifindex: u32) {
        warn!("interface {name} is gone: nothing is balanced there until it is back");
        self.attachments.retain(|attachment| attachment.interface != name);
        if let Err(error) = self.pins.remove_link(name) {
            warn!("{name}: {error}");
        }
        if let Err(error) = dataplane::forget_interface(&mut self.ebpf, ifindex) {
            warn!("{name}: {error}");
        }
    }

    fn follow(&mut self, name: &str, index: u32) -> anyhow::Result<()> {
        let mac = self.links.by_name(name)?.ethernet()?;
        dataplane::set_interface(&mut self.ebpf, index, mac)?;
        if self.attachments.iter().any(|attachment| attachment.interface == name) {
            return Ok(());
        }
        let mode = self.config.daemon.xdp_mode;
        let program = dataplane::balancer(&mut self.ebpf)?;
        let attachment = dataplane::attach(program, &self.pins, name, mode, None)?;
        info!("interface {name} is back");
        self.attachments.push(Attachment { ifindex: index, ..attachment });
        let vips: Vec<IpAddr> = self.config.services.iter().flat_map(|s| s.addresses.clone()).collect();
        self.announce(&vips);
        Ok(())
    }

    /// Configured interfaces that the program is not attached to.
    pub(super) fn missing_interfaces(&self) -> impl Iterator<Item = &String> {
        let is_attached = |name: &&String| self.attachments.iter().any(|a| a.interface == **name);
        self.config.daemon.interfaces.iter().filter(move |name| !is_attached(name))
    }
}
