//! The UDP check: a datagram is sent, and an answer to it comes back.

use std::{io, net::SocketAddr};

use futures::future::BoxFuture;
use tokio::net::UdpSocket;

use super::{Inconclusive, Outcome, Probe, Progress, Target, Verdict};

/// Largest answer, in bytes.
const ANSWER_BYTES: usize = 4096;

/// Sends a text and waits for an answer.
#[derive(Debug)]
pub(super) struct UdpProbe {
    /// What is sent.
    pub(super) send: String,
    /// What must be in the answer; absent: any answer will do.
    pub(super) receive: Option<String>,
}

impl Probe for UdpProbe {
    fn probe<'a>(&'a self, target: &'a Target, _: &'a Progress) -> BoxFuture<'a, Verdict> {
        Box::pin(async move {
            let answer = match exchange(target.endpoint(), self.send.as_bytes()).await {
                Ok(answer) => answer,
                Err(verdict) => return verdict,
            };
            Ok(match &self.receive {
                Some(wanted) if !contains(&answer, wanted.as_bytes()) => {
                    Outcome::NotReady(format!("{} answered without {wanted:?}", target.endpoint()))
                }
                _ => Outcome::Good,
            })
        })
    }
}

/// Sends one datagram and gives the first that comes back from there.
pub(super) async fn exchange(endpoint: SocketAddr, question: &[u8]) -> Result<Vec<u8>, Verdict> {
    let any: SocketAddr = if endpoint.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let local = |error: io::Error| Err(Inconclusive(format!("no socket to ask {endpoint}: {error}")));
    let socket = UdpSocket::bind(any).await.map_err(local)?;
    // A connected socket hears ICMP errors, and answers from there alone.
    let judged = |error: io::Error| judge(endpoint, &error);
    socket.connect(endpoint).await.map_err(judged)?;
    socket.send(question).await.map_err(judged)?;
    let mut answer = vec![0; ANSWER_BYTES];
    let length = socket.recv(&mut answer).await.map_err(judged)?;
    answer.truncate(length);
    Ok(answer)
}

fn judge(endpoint: SocketAddr, error: &io::Error) -> Verdict {
    let local = [libc::ENOBUFS, libc::ENOMEM, libc::EMSGSIZE, libc::EADDRNOTAVAIL];
    if error.raw_os_error().is_some_and(|code| local.contains(&code)) {
        return Err(Inconclusive(format!("{endpoint} could not be asked: {error}")));
    }
    Ok(Outcome::Failed(match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("nobody listens on {endpoint} (port unreachable)"),
        _ => format!("{endpoint} is unreachable: {error}"),
    }))
}

/// Whether `all` has `part` somewhere.
pub(super) fn contains(all: &[u8], part: &[u8]) -> bool {
    part.is_empty() || all.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{probe::run, testing::target_at};

    /// Answers the first datagram with this text, and everything behind it with what it was asked.
    async fn server(answer: &'static str) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let endpoint = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
            let echo = format!("{answer} {}", String::from_utf8_lossy(&buffer[..length]));
            socket.send_to(echo.as_bytes(), peer).await.unwrap();
        });
        endpoint
    }

    fn probe(receive: Option<&str>) -> UdpProbe {
        UdpProbe { send: "ping".into(), receive: receive.map(Into::into) }
    }

    #[tokio::test]
    async fn an_answer_is_good_if_it_has_what_is_wanted() {
        for (receive, good) in [(None, true), (Some("pong ping"), true), (Some("gnop"), false)] {
            let target = target_at(server("pong").await);
            let verdict = run(&probe(receive), &target).await.unwrap();
            match good {
                true => assert_eq!(verdict, Outcome::Good),
                false => {
                    let words = format!("{} answered without \"gnop\"", target.endpoint());
                    assert_eq!(verdict, Outcome::NotReady(words));
                }
            }
        }
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_failed() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let endpoint = socket.local_addr().unwrap();
        drop(socket);
        let verdict = run(&probe(None), &target_at(endpoint)).await;
        let words = format!("nobody listens on {endpoint} (port unreachable)");
        assert_eq!(verdict, Ok(Outcome::Failed(words)));
    }

    #[tokio::test]
    async fn silence_is_failed() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut target = target_at(silent.local_addr().unwrap());
        target.health.check = crate::config::Check::Udp { send: "ping".into(), receive: None };
        target.health.timeout = std::time::Duration::from_millis(20);
        let verdict = run(&probe(None), &target).await;
        let words = format!("no answer from {} within 20ms", target.endpoint());
        assert_eq!(verdict, Ok(Outcome::Failed(words)));
    }
}
