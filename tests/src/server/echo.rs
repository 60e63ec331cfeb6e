//! The line protocol over TCP and the UDP echo of the demo server.

use std::{
    io::{IoSlice, IoSliceMut},
    net::Ipv6Addr,
    os::fd::AsRawFd,
    sync::Arc,
};

use anyhow::{Context, Result};
use nix::{
    cmsg_space,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt,
        sockopt::Ipv6RecvPacketInfo,
    },
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

use super::Shared;

/// A longer line ends the connection.
const LONGEST_LINE: u64 = 64 * 1024;
const MOST_CONNECTIONS: usize = 20_000;

/// Answers every line with the name, a space and the line, on connections that may live for ever.
pub(super) async fn serve_lines(listener: TcpListener, shared: Arc<Shared>) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shared.stopped() => return Ok(()),
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => {
                // What fails here is the one connection that was to be accepted.
                if let Ok((stream, _)) = accepted {
                    connections.spawn(answer_lines(stream, shared.name.clone()));
                }
            }
        }
    }
}

async fn answer_lines(mut stream: TcpStream, name: String) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (reading, mut writing) = stream.split();
    let mut reading = BufReader::new(reading);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut reading).take(LONGEST_LINE).read_until(b'\n', &mut line).await?;
        if line.last() != Some(&b'\n') {
            return Ok(());
        }
        let mut answer = format!("{name} ").into_bytes();
        answer.extend_from_slice(&line);
        writing.write_all(&answer).await?;
    }
}

/// A socket for all addresses that learns which one was hit.
pub(super) fn udp_socket(port: u16) -> Result<UdpSocket> {
    let open = || -> Result<UdpSocket> {
        let socket = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
        Ok(UdpSocket::from_std(socket)?)
    };
    open().with_context(|| format!("listening on UDP port {port}"))
}

/// Sends every datagram back behind the name and a space, from the address that it was sent to: an answer from the
/// backend's own address would not belong to the client's flow.
pub(super) async fn serve_udp(socket: UdpSocket, shared: Arc<Shared>) -> Result<()> {
    let mut buffer = vec![0; 65_536];
    loop {
        tokio::select! {
            () = shared.stopped() => return Ok(()),
            result = socket.async_io(Interest::READABLE, || receive(&socket, &mut buffer)) => {
                let Ok((length, from, hit)) = result else { continue };
                let parts = [shared.name.as_bytes(), b" ", buffer.get(..length).unwrap_or_default()];
                // UDP may lose an answer; the client notices.
                let _ = answer(&socket, &parts, &from, hit);
            }
        }
    }
}

type Datagram = (usize, SockaddrIn6, libc::in6_pktinfo);

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> std::io::Result<Datagram> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut space = cmsg_space!(libc::in6_pktinfo);
    let message =
        recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())?;
    let hit = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(info),
        _ => None,
    });
    match (message.address, hit) {
        (Some(from), Some(hit)) => Ok((message.bytes, from, hit)),
        _ => Err(std::io::Error::other("a datagram without its addresses")),
    }
}

fn answer(
    socket: &UdpSocket,
    parts: &[&[u8]],
    to: &SockaddrIn6,
    mut hit: libc::in6_pktinfo,
) -> std::io::Result<usize> {
    // The route decides where the answer leaves, not the device the question came in by (`lo`, a tunnel).
    hit.ipi6_ifindex = 0;
    let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let control = [ControlMessage::Ipv6PacketInfo(&hit)];
    socket.try_io(Interest::WRITABLE, || {
        Ok(sendmsg(socket.as_raw_fd(), &parts, &control, MsgFlags::empty(), Some(to))?)
    })
}
