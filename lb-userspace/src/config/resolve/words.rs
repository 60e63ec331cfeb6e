//! The words that keys allow, and those that only a later version will.

use crate::config::types::{AdminState, Affinity, Announce, Forward, OnFailure, Protocol, Tracking, XdpMode};

/// What a key may say.
pub(super) struct Words<T: 'static> {
    pub(super) known: &'static [(&'static str, T)],
    /// Words of the contract that this version refuses, with other words than a typo.
    pub(super) later: &'static [&'static str],
}

/// `type` of `[service.health]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckKind {
    None,
    Tcp,
    Http,
    Https,
    Grpc,
    Dns,
    Udp,
    Exec,
}

pub(super) const XDP_MODE: Words<XdpMode> = Words {
    known: &[("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic)],
    later: &[],
};
pub(super) const ANNOUNCE: Words<Announce> =
    Words { known: &[("none", Announce::None), ("arp", Announce::Arp)], later: &[] };
pub(super) const PROTOCOL: Words<Protocol> =
    Words { known: &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("both", Protocol::Both)], later: &[] };
pub(super) const AFFINITY: Words<Affinity> = Words {
    known: &[
        ("addresses", Affinity::Addresses),
        ("source", Affinity::Source),
        ("flow", Affinity::Flow),
        ("quic", Affinity::Quic),
    ],
    later: &[],
};
pub(super) const FORWARD: Words<Forward> = Words {
    known: &[("l2", Forward::L2), ("ipip", Forward::Ipip), ("gue", Forward::Gue), ("nat", Forward::Nat)],
    later: &[],
};
pub(super) const TRACKING: Words<Tracking> = Words {
    known: &[("changes", Tracking::Changes), ("always", Tracking::Always), ("never", Tracking::Never)],
    later: &[],
};
pub(super) const ON_FAILURE: Words<OnFailure> =
    Words { known: &[("rehash", OnFailure::Rehash), ("reset", OnFailure::Reset)], later: &[] };
pub(super) const STATE: Words<AdminState> = Words {
    known: &[("up", AdminState::Up), ("drain", AdminState::Drain), ("down", AdminState::Down)],
    later: &[],
};
pub(super) const CHECK: Words<CheckKind> = Words {
    known: &[
        ("none", CheckKind::None),
        ("tcp", CheckKind::Tcp),
        ("http", CheckKind::Http),
        ("https", CheckKind::Https),
        ("grpc", CheckKind::Grpc),
        ("dns", CheckKind::Dns),
        ("udp", CheckKind::Udp),
        ("exec", CheckKind::Exec),
    ],
    later: &[],
};
/// How a check reaches the backend; one way so far, so it leaves no trace in the result.
pub(super) const VIA: Words<()> = Words { known: &[("address", ())], later: &["vip"] };
