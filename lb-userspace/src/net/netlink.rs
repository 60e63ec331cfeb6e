//! The two ways we use rtnetlink: requests with an answer, and a socket that hears about changes.
//!
//! They are two sockets on purpose. Change notifications go through a socket of our own instead of rtnetlink's
//! connection task, because that task moves every message into an unbounded queue at once: here unread
//! notifications wait in the kernel's bounded socket buffer, and when that is full the kernel says so (`ENOBUFS`)
//! and we read everything again.

use std::{io, time::Duration};

use futures::StreamExt;
use rtnetlink::{
    Handle, MulticastGroup,
    packet_core::{
        NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
    },
    packet_route::RouteNetlinkMessage,
    sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE},
};
use tokio::time::{Instant, timeout_at};

use super::NetError;

/// How long the kernel has for one request, a whole dump included.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How often a dump is started again when the kernel says that the table changed under it.
const DUMP_ATTEMPTS: usize = 8;
/// Receive buffer of a change socket, in bytes; the kernel caps it at `net.core.rmem_max`.
pub(super) const EVENT_BUFFER_BYTES: usize = 1 << 20;
/// Largest netlink datagram the kernel makes is 32 KiB.
const DATAGRAM_BYTES: usize = 64 << 10;
/// Most messages handed over by one [`EventSocket::recv`].
const EVENT_BATCH: usize = 4096;
/// `RTM_NEWNEXTHOP` and `RTM_DELNEXTHOP` of linux/rtnetlink.h, which the packet crate does not know.
const NEXTHOP_OBJECT: [u16; 2] = [104, 105];

/// A connection for requests, cheap to clone; it ends when the last clone is dropped.
///
/// Belongs for life to the network namespace of the thread that made it.
#[derive(Clone, Debug)]
pub struct Netlink(Handle);

impl Netlink {
    /// Opens a connection in the network namespace of the calling thread. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`NetError::Socket`] when the kernel gives no netlink socket.
    pub fn connect() -> Result<Self, NetError> {
        let (mut connection, handle, unsolicited) = rtnetlink::new_connection()
            .map_err(|source| NetError::socket("cannot open a netlink socket", source))?;
        // The end of a dump carries the flag that tells whether it is consistent.
        connection.set_forward_done(true);
        drop(unsolicited);
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// Everything rtnetlink can do, for tests that set up a network.
    #[cfg(test)]
    pub(super) fn handle(&self) -> Handle {
        self.0.clone()
    }

    /// Sends one request and waits for its acknowledgement or its one answer.
    pub(super) async fn request(
        &self,
        what: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Option<RouteNetlinkMessage>, NetError> {
        let mut answer = None;
        self.exchange(what, message, NLM_F_REQUEST | flags, |message| answer = Some(message)).await?;
        Ok(answer)
    }

    /// Reads a whole kernel table into a `T`, one message at a time, so that nothing but what is kept takes memory.
    ///
    /// A dump that the table changed under is started again with a fresh `T`; after several in a row the last one
    /// is taken: callers that follow changes get the difference as notifications.
    pub(super) async fn dump<T: Default>(
        &self,
        what: &str,
        message: &RouteNetlinkMessage,
        mut keep: impl FnMut(&mut T, RouteNetlinkMessage),
    ) -> Result<T, NetError> {
        let mut attempt = 1;
        loop {
            let mut table = T::default();
            let flags = NLM_F_REQUEST | NLM_F_DUMP;
            let consistent =
                self.exchange(what, message.clone(), flags, |message| keep(&mut table, message)).await?;
            if consistent || attempt == DUMP_ATTEMPTS {
                return Ok(table);
            }
            attempt += 1;
        }
    }

    /// Returns whether the answer is consistent, that is not a dump interrupted by a change.
    async fn exchange(
        &self,
        what: &str,
        message: RouteNetlinkMessage,
        flags: u16,
        mut keep: impl FnMut(RouteNetlinkMessage),
    ) -> Result<bool, NetError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let closed = || NetError::Closed { what: what.to_owned() };
        let mut answers = self.0.clone().request(request).map_err(|_| closed())?;
        let deadline = Instant::now() + ANSWER_TIME;
        let mut consistent = true;
        while let Some(answer) = timeout_at(deadline, answers.next())
            .await
            .map_err(|_| NetError::Timeout { what: what.to_owned(), seconds: ANSWER_TIME.as_secs() })?
        {
            let (header, payload) = answer.into_parts();
            consistent &= header.flags & NLM_F_DUMP_INTR == 0;
            match payload {
                NetlinkPayload::InnerMessage(message) => keep(message),
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    return Err(NetError::Refused { what: what.to_owned(), source: error.to_io() });
                }
                NetlinkPayload::Done(done) if done.code < 0 => {
                    let source = io::Error::from_raw_os_error(-done.code);
                    return Err(NetError::Refused { what: what.to_owned(), source });
                }
                // The buffer of the request socket overflowed: part of the answer is gone.
                NetlinkPayload::Overrun(_) => consistent = false,
                _ => {}
            }
        }
        Ok(consistent)
    }
}

/// One thing heard on an [`EventSocket`].
#[derive(Debug)]
pub(super) enum Event {
    /// A table of the kernel changed.
    Changed(RouteNetlinkMessage),
    /// A next hop object (`ip nexthop`) changed: routes that use it send no message of their own.
    NextHopObject,
    /// Notifications are missing or were not understood: read the tables again.
    Lost,
}

/// A socket subscribed to multicast groups of rtnetlink.
pub(super) struct EventSocket {
    socket: TokioSocket,
    datagram: Vec<u8>,
}

impl EventSocket {
    /// Subscribes in the network namespace of the calling thread; `buffer_bytes` is a wish.
    pub(super) fn open(groups: &[MulticastGroup], buffer_bytes: usize) -> Result<Self, NetError> {
        let open = || {
            let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
            socket.socket_ref().set_rx_buf_sz(i32::try_from(buffer_bytes).unwrap_or(i32::MAX))?;
            socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
            for group in groups {
                socket.socket_ref().add_membership(*group as u32)?;
            }
            Ok(socket)
        };
        let socket =
            open().map_err(|source| NetError::socket("cannot subscribe to network changes", source))?;
        Ok(Self { socket, datagram: Vec::with_capacity(DATAGRAM_BYTES) })
    }

    /// Waits for news and returns all that is there now, in order and bounded. Cancel safe.
    pub(super) async fn recv(&mut self) -> Result<Vec<Event>, NetError> {
        let mut events = Vec::new();
        self.datagram.clear();
        let mut received = self.socket.recv_from(&mut self.datagram).await;
        loop {
            match received {
                // Only the kernel has port 0; anybody else on this machine is not believed.
                Ok(source) if source.port_number() == 0 => decode(&self.datagram, &mut events),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(events),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => events.push(Event::Lost),
                Err(error) => return Err(NetError::socket("cannot read network changes", error)),
            }
            if events.len() >= EVENT_BATCH {
                return Ok(events);
            }
            self.datagram.clear();
            let next = self.socket.socket_ref().recv_from(&mut self.datagram, libc::MSG_DONTWAIT);
            received = next.map(|(_, source)| source);
        }
    }
}

/// Takes a datagram apart; what cannot be understood becomes [`Event::Lost`], since it may matter.
fn decode(datagram: &[u8], events: &mut Vec<Event>) {
    let mut rest = datagram;
    while !rest.is_empty() {
        let Ok(header) = NetlinkBuffer::new_checked(rest) else {
            return events.push(Event::Lost);
        };
        let length = header.length() as usize;
        if NEXTHOP_OBJECT.contains(&header.message_type()) {
            events.push(Event::NextHopObject);
        } else {
            match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&rest[..length]) {
                Ok(message) => match message.payload {
                    NetlinkPayload::InnerMessage(message) => events.push(Event::Changed(message)),
                    NetlinkPayload::Overrun(_) => events.push(Event::Lost),
                    _ => {}
                },
                Err(error) => {
                    log::debug!("network change not understood: {error}");
                    events.push(Event::Lost);
                }
            }
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::neighbour::NeighbourMessage;

    use super::*;

    fn message_bytes() -> Vec<u8> {
        let mut message =
            NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(NeighbourMessage::default()));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn decoded(bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        decode(bytes, &mut events);
        events
    }

    #[test]
    fn several_messages_of_one_datagram_are_all_seen() {
        let bytes = [message_bytes(), message_bytes()].concat();
        let events = decoded(&bytes);
        assert!(matches!(
            events[..],
            [
                Event::Changed(RouteNetlinkMessage::NewNeighbour(_)),
                Event::Changed(RouteNetlinkMessage::NewNeighbour(_))
            ]
        ));
    }

    #[test]
    fn a_next_hop_object_is_told_apart() {
        let mut bytes = message_bytes();
        bytes[4..6].copy_from_slice(&104u16.to_ne_bytes());
        assert!(matches!(decoded(&bytes)[..], [Event::NextHopObject]));
    }

    #[test]
    fn what_is_not_understood_counts_as_lost() {
        let mut short = message_bytes();
        short.truncate(20);
        assert!(matches!(decoded(&short)[..], [Event::Lost]), "length beyond the datagram");
        assert!(matches!(decoded(&[1, 2, 3])[..], [Event::Lost]), "less than a header");
        let mut zero_length = message_bytes();
        zero_length[..4].fill(0);
        assert!(matches!(decoded(&zero_length)[..], [Event::Lost]), "length below a header");
        let mut unknown = message_bytes();
        unknown[4..6].copy_from_slice(&999u16.to_ne_bytes());
        assert!(matches!(decoded(&unknown)[..], [Event::Lost]), "unknown type");
        assert!(decoded(&[]).is_empty());
    }
}
