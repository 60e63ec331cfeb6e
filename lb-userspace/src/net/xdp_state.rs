//! Which XDP programs an interface has now, so that the daemon can refuse one that is somebody else's.
//!
//! One hook holds at most one program per mode. Whether a program is ours is not decided here: the caller compares
//! the id with that of its pinned program.

use std::fmt;

use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage, LinkXdp, XdpAttached},
};

use super::{NetError, Netlink};

/// Where in the receive path a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the stack (skb mode).
    Generic,
    /// On the NIC.
    Offloaded,
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offloaded => "offloaded",
        })
    }
}

/// A program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedProgram {
    /// How it is attached.
    pub mode: AttachMode,
    /// Kernel id of the program, as in `bpftool prog show id …`.
    pub id: u32,
}

impl AttachedProgram {
    /// For messages: `native XDP program 42 ("xdp_filter")`. Asks the kernel for the name, and does without one when
    /// it is not allowed to know.
    #[must_use]
    pub fn describe(&self) -> String {
        let name = match program_name(self.id) {
            Ok(Some(name)) if !name.is_empty() => format!(" (\"{name}\")"),
            _ => String::new(),
        };
        format!("{} XDP program {}{name}", self.mode, self.id)
    }
}

/// The programs on the interface with this index, usually none or one.
///
/// # Errors
/// When the interface does not exist or the kernel does not answer.
pub async fn attached_programs(netlink: &Netlink, ifindex: u32) -> Result<Vec<AttachedProgram>, NetError> {
    let mut request = LinkMessage::default();
    request.header.index = ifindex;
    let what = format!("describe interface {ifindex}");
    match netlink.request(&what, RouteNetlinkMessage::GetLink(request), 0).await? {
        Some(RouteNetlinkMessage::NewLink(message)) => Ok(message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::Xdp(xdp) => Some(interpret(xdp)),
                _ => None,
            })
            .unwrap_or_default()),
        _ => Ok(Vec::new()),
    }
}

/// The name of a loaded program; empty when it was loaded without one, `None` when there is no such program (any
/// more). The kernel keeps at most 15 characters, unless the program has type information.
///
/// # Errors
/// When the list of programs cannot be read (privilege).
pub fn program_name(id: u32) -> Result<Option<String>, NetError> {
    for program in aya::programs::loaded_programs() {
        let program = match program {
            Ok(program) => program,
            // Unloaded between the listing and the look.
            Err(aya::programs::ProgramError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::NotFound =>
            {
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if program.id() == id {
            return Ok(Some(String::from_utf8_lossy(program.name()).into_owned()));
        }
    }
    Ok(None)
}

/// Takes the `IFLA_XDP` attribute apart. With one program the kernel sends its mode, its id, and the id once more
/// under the name of the mode; with several ("multi") only the latter.
fn interpret(attributes: &[LinkXdp]) -> Vec<AttachedProgram> {
    let mut programs: Vec<_> = attributes
        .iter()
        .filter_map(|attribute| match attribute {
            LinkXdp::DrvProgId(id) => Some(AttachedProgram { mode: AttachMode::Native, id: *id }),
            LinkXdp::SkbProgId(id) => Some(AttachedProgram { mode: AttachMode::Generic, id: *id }),
            LinkXdp::HwProgId(id) => Some(AttachedProgram { mode: AttachMode::Offloaded, id: *id }),
            _ => None,
        })
        .filter(|program| program.id != 0)
        .collect();
    if programs.is_empty() {
        let mode = attributes.iter().find_map(|attribute| match attribute {
            LinkXdp::Attached(XdpAttached::Driver) => Some(AttachMode::Native),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(AttachMode::Generic),
            LinkXdp::Attached(XdpAttached::Hardware) => Some(AttachMode::Offloaded),
            _ => None,
        });
        let id = attributes.iter().find_map(|attribute| match attribute {
            LinkXdp::ProgId(id) if *id != 0 => Some(*id),
            _ => None,
        });
        programs.extend(mode.zip(id).map(|(mode, id)| AttachedProgram { mode, id }));
    }
    programs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_program() {
        assert_eq!(interpret(&[]), []);
        assert_eq!(interpret(&[LinkXdp::Attached(XdpAttached::None)]), []);
    }

    #[test]
    fn one_program_is_counted_once() {
        let message = [LinkXdp::Attached(XdpAttached::Driver), LinkXdp::ProgId(7), LinkXdp::DrvProgId(7)];
        let native = AttachedProgram { mode: AttachMode::Native, id: 7 };
        assert_eq!(interpret(&message), [native]);
        assert_eq!(interpret(&message[..2]), [native], "without the id by mode, as drivers of old send it");
    }

    #[test]
    fn several_modes_at_once() {
        let message = [
            LinkXdp::Attached(XdpAttached::Multiple),
            LinkXdp::DrvProgId(7),
            LinkXdp::SkbProgId(8),
            LinkXdp::HwProgId(9),
        ];
        let expected = [(AttachMode::Native, 7), (AttachMode::Generic, 8), (AttachMode::Offloaded, 9)];
        assert_eq!(interpret(&message), expected.map(|(mode, id)| AttachedProgram { mode, id }));
    }
}
