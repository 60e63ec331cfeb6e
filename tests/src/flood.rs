//! Datagrams at a pace far above a limit, and a sink that counts what arrives: with the time of each on both sides.

use std::{
    collections::BTreeMap,
    io::IoSliceMut,
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    panic::resume_unwind,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use nix::{
    cmsg_space,
    sched::{CpuSet, sched_setaffinity},
    sys::{
        socket::{
            ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt,
            sockopt::{RcvBufForce, ReceiveTimestampns},
        },
        time::TimeSpec,
    },
    unistd::Pid,
};

use crate::{netns::Entry, wait::wait_for};

/// Bytes of a sink's receive buffer: everything that a test sends fits, so that nothing is lost while the sink waits
/// for a processor.
const SINK_BUFFER: usize = 32 << 20;
/// Most datagrams that are sent in one go to catch up with the pace: fewer than what a veth pair keeps in its ring.
const CATCH_UP: u64 = 16;
/// Longest sleep between two looks at the clock; the pace is finer when it has to be.
const NAP: Duration = Duration::from_micros(100);

/// Datagrams from one source address.
#[derive(Clone, Debug)]
pub struct Flood {
    /// Client address and port (0: any).
    pub source: SocketAddr,
    /// Address and port of the service.
    pub target: SocketAddr,
    /// Datagrams per second.
    pub per_second: u32,
    /// How long.
    pub duration: Duration,
    /// Processor that sends, hence the one whose XDP sees them; absent: any.
    pub cpu: Option<usize>,
}

impl Flood {
    /// Sends all of it from a namespace. Returns when each datagram was sent, as a time of the machine's clock.
    ///
    /// # Errors
    /// When a datagram cannot be sent.
    pub fn send(&self, ns: &Entry) -> Result<Vec<Duration>> {
        ns.run(|| {
            if let Some(cpu) = self.cpu {
                let mut cpus = CpuSet::new();
                cpus.set(cpu)?;
                sched_setaffinity(Pid::from_raw(0), &cpus)
                    .with_context(|| format!("moving to processor {cpu}"))?;
            }
            let socket =
                UdpSocket::bind(self.source).with_context(|| format!("binding to {}", self.source))?;
            socket.connect(self.target).with_context(|| format!("a route to {}", self.target))?;
            self.pace(&socket)
        })
    }

    fn pace(&self, socket: &UdpSocket) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        let start = Instant::now();
        let mut sent = 0_u64;
        loop {
            let elapsed = start.elapsed();
            if elapsed >= self.duration {
                return Ok(times);
            }
            let due = (elapsed.as_secs_f64() * f64::from(self.per_second)) as u64;
            for _ in 0..due.saturating_sub(sent).min(CATCH_UP) {
                times.push(now());
                socket.send(&sent.to_be_bytes()).context("sending a datagram")?;
                sent += 1;
            }
            thread::sleep(NAP);
        }
    }
}

/// The machine's clock, as the kernel stamps packets.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A UDP port that swallows everything and keeps the kernel's time of each arrival.
#[derive(Debug)]
pub struct Sink {
    arrivals: Arc<Mutex<Arrivals>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Source address → times of arrival, by the machine's clock.
pub type Arrivals = BTreeMap<IpAddr, Vec<Duration>>;

impl Sink {
    /// Opens `port` in a namespace, on all addresses.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(ns: &Entry, port: u16) -> Result<Self> {
        let socket = ns.run(|| {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))
                .with_context(|| format!("listening on UDP port {port}"))?;
            setsockopt(&socket, RcvBufForce, &SINK_BUFFER)?;
            setsockopt(&socket, ReceiveTimestampns, &true)?;
            Ok(socket)
        })?;
        // How soon it notices that it is to stop.
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let (arrivals, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (list, stopped) = (Arc::clone(&arrivals), Arc::clone(&stop));
        let body = move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Some((source, time)) = receive(&socket) {
                    lock(&list).entry(source).or_default().push(time);
                }
            }
        };
        let thread = thread::Builder::new().name("sink".into()).spawn(body)?;
        Ok(Self { arrivals, stop, thread: Some(thread) })
    }

    /// What has arrived so far.
    #[must_use]
    pub fn arrivals(&self) -> Arrivals {
        lock(&self.arrivals).clone()
    }

    /// Forgets what has arrived.
    pub fn clear(&self) {
        lock(&self.arrivals).clear();
    }

    /// Waits until `count` datagrams have arrived from `source`.
    ///
    /// # Errors
    /// When they do not.
    pub fn wait(&self, source: IpAddr, count: usize, limit: Duration) -> Result<()> {
        let so_far = || lock(&self.arrivals).get(&source).map_or(0, Vec::len);
        wait_for(&format!("{count} datagrams from {source}"), limit, || so_far() >= count)
            .with_context(|| format!("{} have come", so_far()))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
            && !thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

fn lock(arrivals: &Mutex<Arrivals>) -> std::sync::MutexGuard<'_, Arrivals> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Source and kernel's time of the next datagram, if one comes soon.
fn receive(socket: &UdpSocket) -> Option<(IpAddr, Duration)> {
    let mut buffer = [0; 64];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let mut space = cmsg_space!(TimeSpec);
    let message =
        recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()).ok()?;
    let source = IpAddr::V6(message.address?.ip()).to_canonical();
    let time = message.cmsgs().ok()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
        _ => None,
    })?;
    Some((source, time))
}

/// What a limit lets through of packets sent at `times` (sorted): a bucket of `burst` packets that fills at `rate` per
/// second, which is what GCRA counts. The oracle is written down as the bucket, so as not to share a mistake with it.
#[must_use]
pub fn allowed(times: &[Duration], rate: u32, burst: u32) -> usize {
    let (mut tokens, mut last) = (f64::from(burst), Duration::ZERO);
    let mut allowed = 0;
    for time in times {
        let elapsed = time.saturating_sub(last).as_secs_f64();
        (tokens, last) = ((tokens + elapsed * f64::from(rate)).min(f64::from(burst)), *time);
        if tokens >= 1.0 {
            tokens -= 1.0;
            allowed += 1;
        }
    }
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(micros: u64, count: u64) -> Vec<Duration> {
        (0..count).map(|i| Duration::from_secs(1) + Duration::from_micros(i * micros)).collect()
    }

    #[test]
    fn a_bucket_allows_its_burst_and_its_rate() {
        // 2000 a second for four seconds against 500 a second.
        let count = allowed(&every(500, 8000), 500, 100);
        assert!((2098..=2100).contains(&count), "{count}");
        assert_eq!(allowed(&every(500, 50), 500, 100), 50, "within the burst everything passes");
        assert_eq!(allowed(&every(3000, 100), 500, 1), 100, "slower than the rate everything passes");
    }

    #[test]
    fn a_pause_fills_the_bucket_no_further_than_its_burst() {
        let mut times = every(100, 20);
        times.extend(every(100, 20).iter().map(|time| *time + Duration::from_secs(10)));
        assert_eq!(allowed(&times, 10, 10), 20);
    }
}
