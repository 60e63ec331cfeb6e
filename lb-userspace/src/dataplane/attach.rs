//! Attaches the program to interfaces and keeps the links pinned.

use std::path::Path;

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
    programs::{
        Xdp, XdpMode as AyaMode,
        links::{FdLink, PinnedLink},
    },
};
use lb_common::abi::{Interface, maps};
use log::{info, warn};
use serde::Serialize;

use super::{DataplaneError, Pins, load};
use crate::config::XdpMode;

/// An interface and how the program is attached to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// Interface.
    pub interface: String,
    /// Its index when the program was attached; 0 where nobody has asked.
    pub ifindex: u32,
    /// `native` or `generic`.
    pub mode: &'static str,
    /// Why this mode: what was asked, or what native mode failed with.
    pub reason: String,
    /// Whether a link that was there got the new program.
    pub replaced: bool,
}

/// Attaches `program` to `interface`, or replaces the program of the pinned link that is there. `current` is the mode
/// of the program that is attached now, if any.
///
/// # Errors
/// [`DataplaneError::Occupied`] for somebody else's program, [`DataplaneError::Attach`] with the kernel's reasons.
pub fn attach(
    program: &mut Xdp,
    pins: &Pins,
    interface: &str,
    mode: XdpMode,
    current: Option<&'static str>,
) -> Result<Attachment, DataplaneError> {
    let path = pins.link(interface);
    if path.exists() {
        match replace(program, &path) {
            Ok(()) => {
                return Ok(Attachment {
                    interface: interface.into(),
                    ifindex: 0,
                    mode: current.unwrap_or("native"),
                    reason: "kept from before".into(),
                    replaced: true,
                });
            }
            Err(reason) => {
                // The interface was deleted: its link stays pinned but dead. A new one with the same name needs a
                // new link.
                warn!("the pinned link of {interface} is dead ({reason}); attaching afresh");
                std::fs::remove_file(&path)
                    .map_err(|error| DataplaneError::Pin { path: path.clone(), error })?;
            }
        }
    }
    let attachment = fresh(program, &path, interface, mode)?;
    info!("attached to {interface} in {} mode ({})", attachment.mode, attachment.reason);
    Ok(attachment)
}

/// The link that is pinned for an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PinnedProgram {
    /// Kernel id of the link; stays when the program is replaced.
    pub link: u32,
    /// Kernel id of the program that it holds now.
    pub program: u32,
}

/// The link pinned for `interface`, if any. Whether it is alive is known only by what is attached there: the link of an
/// interface that was deleted stays pinned.
///
/// # Errors
/// [`DataplaneError::Attach`] when the pin cannot be read.
pub fn pinned_program(pins: &Pins, interface: &str) -> Result<Option<PinnedProgram>, DataplaneError> {
    let path = pins.link(interface);
    if !path.exists() {
        return Ok(None);
    }
    let error = |e: aya::programs::links::LinkError| DataplaneError::Attach {
        interface: interface.into(),
        error: text(&e),
    };
    let info = FdLink::from(PinnedLink::from_pin(&path).map_err(error)?).info().map_err(error)?;
    Ok(Some(PinnedProgram { link: info.id(), program: info.program_id() }))
}

/// Puts `program` on the link that is pinned at `path`.
pub(super) fn replace(program: &mut Xdp, path: &Path) -> Result<(), String> {
    let link: FdLink = PinnedLink::from_pin(path).map_err(|e| text(&e))?.into();
    let link = link.try_into().map_err(|e: aya::programs::links::LinkError| text(&e))?;
    let id = program.attach_to_link(link).map_err(|e| text(&e))?;
    // The pin keeps the link; our handle must not take it along when it is dropped, so it is taken out of the program
    // (which would detach it) and closed as a mere file descriptor.
    program.take_link(id).map(drop).map_err(|e| text(&e))
}

/// Puts `program` on the link pinned at `path`, which is pinned at `copy` as well from then on. `false`: the link is dead,
/// because its interface was deleted.
///
/// # Errors
/// What the kernel said.
pub(super) fn hand_over(program: &mut Xdp, path: &Path, copy: &Path) -> Result<bool, String> {
    match replace(program, path) {
        Ok(()) => pin_again(path, copy).map(|()| true),
        Err(error) if error == std::io::Error::from_raw_os_error(libc::ENOLINK).to_string() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Pins the link at `path` at `copy` as well.
pub(super) fn pin_again(path: &Path, copy: &Path) -> Result<(), String> {
    let link: FdLink = PinnedLink::from_pin(path).map_err(|e| text(&e))?.into();
    link.pin(copy).map(drop).map_err(|e| text(&e))
}

fn fresh(
    program: &mut Xdp,
    path: &Path,
    interface: &str,
    mode: XdpMode,
) -> Result<Attachment, DataplaneError> {
    let attempts: &[(AyaMode, &'static str)] = match mode {
        XdpMode::Auto => &[(AyaMode::Driver, "native"), (AyaMode::Skb, "generic")],
        XdpMode::Native => &[(AyaMode::Driver, "native")],
        XdpMode::Generic => &[(AyaMode::Skb, "generic")],
    };
    let mut failures: Vec<String> = Vec::new();
    for (aya_mode, name) in attempts {
        match program.attach(interface, *aya_mode) {
            Ok(id) => {
                let link = program.take_link(id).map_err(DataplaneError::from_program)?;
                let link: FdLink = link.try_into().map_err(|_| DataplaneError::Attach {
                    interface: interface.into(),
                    error: "the kernel gave no link that can be pinned".into(),
                })?;
                link.pin(path)
                    .map_err(|e| DataplaneError::Attach { interface: interface.into(), error: text(&e) })?;
                let reason = match failures.first() {
                    None if mode == XdpMode::Auto => "native mode is available".into(),
                    None => "as configured".into(),
                    Some(failure) => failure.clone(),
                };
                return Ok(Attachment {
                    interface: interface.into(),
                    ifindex: 0,
                    mode: name,
                    reason,
                    replaced: false,
                });
            }
            Err(error) => failures.push(format!("{name} mode: {}", text(&error))),
        }
    }
    let mut error = failures.join("; ");
    if mode == XdpMode::Native {
        error.push_str("; xdp_mode = \"auto\" falls back to generic mode");
    }
    Err(DataplaneError::Attach { interface: interface.into(), error })
}

/// The innermost cause: what the kernel said.
fn text(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

/// Tells the program the MAC address of an interface, for the answers it makes itself.
///
/// # Errors
/// [`DataplaneError::Map`].
pub fn set_interface(ebpf: &mut Ebpf, ifindex: u32, mac: [u8; 6]) -> Result<(), DataplaneError> {
    let error = |e: aya::maps::MapError| DataplaneError::Map { name: maps::INTERFACES, error: e.to_string() };
    let map = ebpf.map_mut(maps::INTERFACES).ok_or(DataplaneError::Object { what: maps::INTERFACES })?;
    let mut interfaces: HashMap<&mut MapData, u32, Interface> = HashMap::try_from(map).map_err(error)?;
    interfaces.insert(ifindex, Interface { mac, _pad: [0; 2] }, 0).map_err(error)
}

/// Forgets the MAC address of an interface that is gone.
///
/// # Errors
/// [`DataplaneError::Map`].
pub fn forget_interface(ebpf: &mut Ebpf, ifindex: u32) -> Result<(), DataplaneError> {
    let error = |e: aya::maps::MapError| DataplaneError::Map { name: maps::INTERFACES, error: e.to_string() };
    let map = ebpf.map_mut(maps::INTERFACES).ok_or(DataplaneError::Object { what: maps::INTERFACES })?;
    let mut interfaces: HashMap<&mut MapData, u32, Interface> = HashMap::try_from(map).map_err(error)?;
    interfaces.remove(&ifindex).map_err(error)
}

/// The balancer's program of a loaded object.
///
/// # Errors
/// [`DataplaneError::Object`] for an object of another build.
pub fn balancer(ebpf: &mut Ebpf) -> Result<&mut Xdp, DataplaneError> {
    load::program(ebpf, "balancer")
}
