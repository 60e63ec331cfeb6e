//! What a kind of check has to provide, and the one place where its time is bounded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;

use super::{
    Outcome, Target, dns::DnsProbe, exec::ExecProbe, grpc::GrpcProbe, http::HttpProbe, tcp::TcpProbe,
    tls::TlsClient, udp::UdpProbe,
};
use crate::config::Check;

/// Result of one check: an outcome that counts, or none.
pub type Verdict = Result<Outcome, Inconclusive>;

/// The check could not be made for a reason on this machine (no file descriptor, no memory, no local port). It says
/// nothing about the backend and must not count against it: otherwise a shortage here would fail every backend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the check could not be made: {0}")]
pub struct Inconclusive(pub String);

/// A kind of check.
pub trait Probe: Send + Sync {
    /// Asks `target` once. Needs no timer of its own: the caller drops the future after the target's timeout and
    /// judges by `progress`. The future must own what it opens (nothing spawned), so that dropping it closes it.
    fn probe<'a>(&'a self, target: &'a Target, progress: &'a Progress) -> BoxFuture<'a, Verdict>;
}

/// How far a check has come; decides what a timeout means.
#[derive(Debug, Default)]
pub struct Progress(AtomicBool);

impl Progress {
    /// The backend accepted the connection: from here on a timeout means a late answer, not a dead backend.
    pub fn connected(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_connected(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The probe for a configured check; `None` when nothing is to be asked.
pub(super) fn for_check(check: &Check) -> Option<Arc<dyn Probe>> {
    match check {
        Check::None => None,
        Check::Tcp => Some(Arc::new(TcpProbe)),
        Check::Grpc { service } => Some(Arc::new(GrpcProbe { service: service.clone() })),
        Check::Dns { query } => Some(Arc::new(DnsProbe::new(query))),
        Check::Udp { send, receive } => {
            Some(Arc::new(UdpProbe { send: send.clone(), receive: receive.clone() }))
        }
        Check::Exec { command } => Some(Arc::new(ExecProbe { command: command.clone() })),
        Check::Http { path, expect, host, body, tls } => Some(Arc::new(HttpProbe {
            path: path.clone(),
            expect: expect.clone(),
            host: host.clone(),
            body: body.clone(),
            tls: tls.clone().map(|tls| TlsClient::new(tls, host.clone())),
        })),
    }
}

/// Makes one check within the target's timeout.
pub(super) async fn run(probe: &dyn Probe, target: &Target) -> Verdict {
    let progress = Progress::default();
    let timeout = target.health.timeout;
    match tokio::time::timeout(timeout, probe.probe(target, &progress)).await {
        Ok(verdict) => verdict,
        Err(_) => Ok(timed_out(target, timeout, progress.is_connected())),
    }
}

fn timed_out(target: &Target, timeout: Duration, connected: bool) -> Outcome {
    let endpoint = target.endpoint();
    match &target.health.check {
        Check::Udp { .. } | Check::Dns { .. } => {
            return Outcome::Failed(format!("no answer from {endpoint} within {timeout:?}"));
        }
        Check::Exec { command } => {
            let program = command.first().map_or("the command", String::as_str);
            return Outcome::NotReady(format!("{program} did not end within {timeout:?}"));
        }
        Check::None | Check::Tcp | Check::Http { .. } | Check::Grpc { .. } => {}
    }
    if connected {
        Outcome::NotReady(format!("connected to {endpoint}, but no complete answer within {timeout:?}"))
    } else {
        Outcome::Failed(format!("no connection to {endpoint} within {timeout:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::testing::{FakeProbe, target};

    #[tokio::test(start_paused = true)]
    async fn a_timeout_before_the_connection_is_failed() {
        let never = FakeProbe::new(|_, _| Box::pin(std::future::pending()));
        let verdict = run(&*never, &target("b1")).await;
        assert_eq!(verdict, Ok(Outcome::Failed("no connection to 127.0.0.1:80 within 1s".into())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_after_the_connection_is_not_ready() {
        let late = FakeProbe::new(|_, progress| {
            progress.connected();
            Box::pin(std::future::pending())
        });
        let verdict = run(&*late, &target("b1")).await;
        let reason = "connected to 127.0.0.1:80, but no complete answer within 1s";
        assert_eq!(verdict, Ok(Outcome::NotReady(reason.into())));
    }

    #[test]
    fn every_kind_of_check_but_none_has_a_probe() {
        assert!(for_check(&Check::None).is_none());
        assert!(for_check(&Check::Tcp).is_some());
        let http =
            Check::Http { path: "/".into(), expect: vec![200..=299], host: None, body: None, tls: None };
        assert!(for_check(&http).is_some());
        for check in [
            Check::Grpc { service: String::new() },
            Check::Dns { query: "example".into() },
            Check::Udp { send: "ping".into(), receive: None },
            Check::Exec { command: vec!["/bin/true".into()] },
        ] {
            assert!(for_check(&check).is_some(), "{check:?}");
        }
    }
}
