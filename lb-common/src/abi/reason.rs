//! Why a packet left the program the way it did.

/// What happened to the packet, as far as a reader of counters cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Handed to the kernel as it came.
    Passed,
    /// Dropped.
    Dropped,
    /// Answered by the program itself.
    Answered,
    /// Taken out of a tunnel (agent) or translated (NAT), and handed to the kernel.
    Delivered,
    /// Sent back to a client, translated.
    Returned,
}

macro_rules! reasons {
    ($( $(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $outcome:ident; )*) => {
        /// Every way out of a program but forwarding, which is counted per backend.
        ///
        /// Append-only: a number is never reused, because counters outlive programs. Each has one counter, one row
        /// in `docs/packet-path.md` and at least one packet case (checked by the `structure` suite).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Reason { $( $(#[$doc])* $name = $number, )* }

        impl Reason {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Reason] = &[ $( Reason::$name, )* ];

            /// The reason with this number.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $( $number => Some(Reason::$name), )* _ => None }
            }

            /// Name in metrics, status and documents.
            pub const fn name(self) -> &'static str {
                match self { $( Reason::$name => $text, )* }
            }

            /// What it means for the packet.
            pub const fn outcome(self) -> Outcome {
                match self { $( Reason::$name => Outcome::$outcome, )* }
            }
        }
    };
}

reasons! {
    /// Not IPv4 or IPv6 (or an ARP packet that is no request for a VIP of ours).
    NotIp = 0, "not_ip", Passed;
    /// The destination is no VIP.
    NotService = 1, "not_service", Passed;
    /// The destination is a VIP, but no service has this protocol and port.
    NoSuchPort = 2, "no_such_port", Passed;
    /// The program has no tables yet.
    NotConfigured = 3, "not_configured", Passed;
    /// Shorter than its own headers say, or headers that contradict each other. VIPs only.
    Malformed = 4, "malformed", Dropped;
    /// A fragment of a datagram for a VIP, and its service cannot be told from addresses and protocol alone.
    Fragment = 5, "fragment", Dropped;
    /// Its source sent more than its rate.
    RateLimited = 6, "rate_limited", Dropped;
    /// The service has no backend that takes packets.
    NoBackend = 7, "no_backend", Dropped;
    /// The next hop to the backend is not known (yet).
    NoNextHop = 8, "no_next_hop", Dropped;
    /// With the outer header it would not fit the way to the backend.
    TooBig = 9, "too_big", Dropped;
    /// The driver left no room before the packet for an outer header.
    NoHeadroom = 10, "no_headroom", Dropped;
    /// A record that cannot be: tables were written by something else than this version.
    BadTable = 11, "bad_table", Dropped;
    /// ARP request for a VIP.
    ArpReply = 12, "arp_reply", Answered;
    /// Neighbour solicitation for a VIP.
    NeighbourReply = 13, "neighbour_reply", Answered;
    /// Agent: no tunnelled packet for a VIP of ours.
    NotTunnel = 14, "not_tunnel", Passed;
    /// Agent: taken out of its tunnel.
    Decapsulated = 15, "decapsulated", Delivered;
    /// Agent: tunnelled to a VIP of ours by somebody who is no balancer of ours.
    UnknownTunnelSource = 16, "unknown_tunnel_source", Dropped;
    /// Agent: a tunnelled packet that is cut short or contradicts itself.
    MalformedTunnel = 17, "malformed_tunnel", Dropped;
    /// Echo request to a VIP.
    EchoReply = 18, "echo_reply", Answered;
    /// More or longer IPv6 extension headers than are followed.
    ExtensionHeaders = 19, "extension_headers", Dropped;
    /// What a backend behind NAT answered, translated back and on its way to the client.
    Reply = 20, "reply", Returned;
    /// The same, but the way to the client is not known to XDP: the kernel got the translated packet, to route it.
    ReplyByKernel = 21, "reply_by_kernel", Delivered;
    /// An answer that does not fit the way to the client: the kernel got it as it came, and tells the backend.
    ReplyTooBig = 22, "reply_too_big", Passed;
    /// NAT translates TCP and UDP, and no fragments.
    NotTranslatable = 23, "not_translatable", Dropped;
    /// Agent: a connection that this host does not know, handed on to the next candidate.
    HandedOn = 24, "handed_on", Answered;
    /// Agent: taken out after another agent handed it on, and the connection is known here.
    SecondChance = 25, "second_chance", Delivered;
    /// Agent: taken out although no candidate knew the connection, so that the kernel tells the client.
    Stranded = 26, "stranded", Delivered;
    /// A TCP segment of a connection whose backend is gone, for a service that resets such connections.
    ConnectionReset = 27, "connection_reset", Answered;
    /// Does not fit the way to the backend with its outer header: the sender was told how long packets may be.
    TooBigTold = 28, "too_big_told", Answered;
    /// The same of an IPv4 packet that may be fragmented, which XDP cannot do: the sender was told.
    TooBigToSplit = 29, "too_big_to_split", Answered;
}

impl Reason {
    /// Elements of `REASONS`: room for reasons to come without a change of the ABI.
    pub const CAPACITY: u32 = 128;
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn numbers_are_dense_and_names_unique() {
        for (i, r) in Reason::ALL.iter().enumerate() {
            assert_eq!(i, *r as usize, "{r:?}");
            assert_eq!(Reason::from_number(i as u16), Some(*r));
        }
        let mut names: Vec<_> = Reason::ALL.iter().map(|r| r.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
        assert!((Reason::ALL.len() as u32) < Reason::CAPACITY);
    }
}
