//! A case: one row of the table, and the words that rows are written in.

use std::{fmt, time::Duration};

use lb_common::{abi::Reason, datapath::Action};

use super::{cast::INGRESS, worlds::World};
use crate::packet_frame::Frame;

/// What must be counted: exactly one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counted {
    /// One packet and its bytes, for the member of this name (`service/member`).
    Backend(&'static str),
    /// One packet, for this reason.
    Reason(Reason),
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend(name) => write!(f, "backend {name}"),
            Self::Reason(reason) => write!(f, "reason {}", reason.name()),
        }
    }
}

/// What must come out.
#[derive(Clone, Debug)]
pub enum Output {
    /// The frame as it came.
    Untouched,
    /// The frame as the named backend's forward mode makes it, written anew by etherparse.
    Forwarded,
    /// This frame.
    Exactly(Frame),
}

/// Headroom that BPF_PROG_TEST_RUN leaves in front of a frame, after the kernel's own 40 bytes
/// (`struct xdp_frame`).
pub const FULL_HEADROOM: usize = 256 - 40;

/// One row.
#[derive(Clone, Debug)]
pub struct Case {
    /// A sentence: what comes in and what becomes of it.
    pub name: String,
    /// What is installed.
    pub world: World,
    /// Frames that come before, on fresh state. They are not judged here.
    pub before: Vec<Frame>,
    /// How long the host's clock stands still after them.
    pub pause: Duration,
    /// The frame.
    pub frame: Frame,
    /// Bytes that the driver left in front of it.
    pub headroom: usize,
    /// What the program returns.
    pub action: Action,
    /// What it counts.
    pub counted: Counted,
    /// What it makes of the frame.
    pub output: Output,
    /// Why the row cannot be run in the kernel, if it cannot.
    pub host_only: Option<&'static str>,
}

fn case(name: impl Into<String>, frame: impl Into<Frame>, action: Action, counted: Counted) -> Case {
    Case {
        name: name.into(),
        world: World::Main,
        before: Vec::new(),
        pause: Duration::ZERO,
        frame: frame.into(),
        headroom: FULL_HEADROOM,
        action,
        counted,
        output: Output::Untouched,
        host_only: None,
    }
}

/// The kernel gets the frame as it came.
pub fn passes(name: impl Into<String>, frame: impl Into<Frame>, reason: Reason) -> Case {
    case(name, frame, Action::Pass, Counted::Reason(reason))
}

/// The frame is dropped.
pub fn drops(name: impl Into<String>, frame: impl Into<Frame>, reason: Reason) -> Case {
    case(name, frame, Action::Drop, Counted::Reason(reason))
}

/// The frame goes to a backend, out of the interface it came in by.
pub fn sends(name: impl Into<String>, frame: impl Into<Frame>, backend: &'static str) -> Case {
    let case = case(name, frame, Action::Transmit, Counted::Backend(backend));
    Case { output: Output::Forwarded, ..case }
}

/// The frame goes to a backend, out of another interface.
pub fn redirects(
    name: impl Into<String>,
    frame: impl Into<Frame>,
    backend: &'static str,
    ifindex: u32,
) -> Case {
    assert_ne!(ifindex, INGRESS, "that is no other interface");
    let case = case(name, frame, Action::Redirect(ifindex), Counted::Backend(backend));
    Case { output: Output::Forwarded, ..case }
}

/// The program answers by itself.
pub fn answers(
    name: impl Into<String>,
    frame: impl Into<Frame>,
    reason: Reason,
    answer: impl Into<Frame>,
) -> Case {
    let case = case(name, frame, Action::Transmit, Counted::Reason(reason));
    Case { output: Output::Exactly(answer.into()), ..case }
}

/// What a backend behind NAT answered becomes this frame.
pub fn translated(
    name: impl Into<String>,
    frame: impl Into<Frame>,
    action: Action,
    reason: Reason,
    output: impl Into<Frame>,
) -> Case {
    let case = case(name, frame, action, Counted::Reason(reason));
    Case { output: Output::Exactly(output.into()), ..case }
}

/// The agent takes the frame out of its tunnel.
pub fn decapsulates(name: impl Into<String>, frame: impl Into<Frame>, inner: impl Into<Frame>) -> Case {
    let case = case(name, frame, Action::Pass, Counted::Reason(Reason::Decapsulated));
    Case { output: Output::Exactly(inner.into()), world: World::Agent, ..case }
}

impl Case {
    /// In another world than the main one.
    pub fn world(self, world: World) -> Self {
        Self { world, ..self }
    }

    /// After these frames.
    pub fn after(self, frames: impl IntoIterator<Item = impl Into<Frame>>) -> Self {
        Self { before: frames.into_iter().map(Into::into).collect(), ..self }
    }

    /// This long after them. The kernel's clock cannot be set: host only.
    pub fn later(self, pause: Duration) -> Self {
        Self { pause, ..self }.host_only("the kernel's clock cannot be set")
    }

    /// With this many bytes in front of the frame.
    pub fn headroom(self, headroom: usize) -> Self {
        Self { headroom, ..self }
    }

    /// Not in the kernel, because …
    pub fn host_only(self, why: &'static str) -> Self {
        Self { host_only: Some(why), ..self }
    }
}
