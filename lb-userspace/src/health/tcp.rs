//! The TCP check: good when the backend accepts a connection.
//!
//! The connection is ended by a reset (see `connect.rs`), as HAProxy and others do for checks without a payload: no
//! byte was exchanged, so nothing can be lost, and neither side keeps a socket in TIME_WAIT. A server sees an accepted
//! connection that reports ECONNRESET at its first read. One that logs this loudly is better checked by HTTP.

use futures::future::BoxFuture;

use super::{Outcome, Probe, Progress, Target, Verdict, connect::connect};

/// Connects and hangs up.
#[derive(Debug)]
pub(super) struct TcpProbe;

impl Probe for TcpProbe {
    fn probe<'a>(&'a self, target: &'a Target, progress: &'a Progress) -> BoxFuture<'a, Verdict> {
        Box::pin(async move {
            match connect(target.endpoint(), progress).await {
                Ok(_stream) => Ok(Outcome::Good),
                Err(verdict) => verdict,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpSocket, TcpStream},
    };

    use super::*;
    use crate::health::{
        probe::run,
        testing::{accept_queue, closed_port, soon, target_at},
    };

    #[tokio::test]
    async fn an_accepting_port_is_good_and_sees_a_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let verdict = run(&TcpProbe, &target_at(listener.local_addr().unwrap())).await;
        assert_eq!(verdict, Ok(Outcome::Good));
        let (mut accepted, _) = listener.accept().await.unwrap();
        let read = accepted.read(&mut [0; 1]).await;
        assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_refused_port_is_failed() {
        let (_held, endpoint) = closed_port();
        let verdict = run(&TcpProbe, &target_at(endpoint)).await;
        assert_eq!(verdict, Ok(Outcome::Failed(format!("connection refused by {endpoint}"))));
    }

    #[tokio::test]
    async fn a_backend_that_does_not_answer_the_handshake_is_failed() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let endpoint = listener.local_addr().unwrap();
        // One connection fills a queue of length 0; from then on the kernel drops every SYN.
        let _filler = TcpStream::connect(endpoint).await.unwrap();
        soon(async {
            while accept_queue(endpoint) == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let mut target = target_at(endpoint);
        target.health.timeout = Duration::from_millis(100);
        let verdict = run(&TcpProbe, &target).await;
        assert_eq!(verdict, Ok(Outcome::Failed(format!("no connection to {endpoint} within 100ms"))));
    }
}
