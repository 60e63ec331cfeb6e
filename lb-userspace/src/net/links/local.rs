//! Is an address this host's own? The question behind "a VIP must not be local to the balancer".

use std::net::IpAddr;

use super::Inventory;
use crate::net::{
    NetError, Netlink,
    route::{self, Route},
};

impl Inventory {
    /// Why `ip` cannot be a VIP of a balancer on this host: it is local here. `None`: it is not.
    ///
    /// A local VIP would be answered by this host itself for every packet that XDP passes, and ARP for it would be
    /// answered by the kernel. Asked twice: the addresses of the interfaces, which name the culprit, and the kernel's
    /// routing, which knows local routes without an address too (`ip route add local …`).
    ///
    /// # Errors
    /// When the kernel does not answer the route look-up.
    pub async fn why_local(&self, netlink: &Netlink, ip: IpAddr) -> Result<Option<String>, NetError> {
        if let Some(link) = self.owner(ip) {
            return Ok(Some(format!("{ip} is an address of this host, on {}", link.name)));
        }
        Ok(match route::lookup(netlink, ip).await? {
            Route::Local => Some(format!("{ip} is local to this host by a route of type local")),
            Route::Via(_) | Route::None(_) => None,
        })
    }
}
