//! Against the real kernel, in network namespaces made for the test. All names start with `root_`.

mod life;
mod packets;
mod prepare;

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};

use super::{Options, Prepare, Source, out::Out, places::Places, run::Signal, status};
use crate::{config, net::testing::DEADLINE};

/// Places of its own, gone with the test, pins included.
struct TestPlaces {
    places: Places,
    directory: TempDir,
}

impl TestPlaces {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = tempfile::tempdir().unwrap();
        let name = format!("lbt-{}-{number}-agent", std::process::id());
        Self { places: Places::below(&name, &directory.path().join("run"), directory.path()), directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn status(&self) -> status::Status {
        status::read(&self.places).await.unwrap()
    }
}

impl Drop for TestPlaces {
    fn drop(&mut self) {
        let removed = self.places.pins.remove();
        assert!(removed.is_ok() || std::thread::panicking(), "pins stay behind: {removed:?}");
    }
}

/// The agent of the tests: one VIP of each family, tunnels of both.
fn served() -> config::Agent {
    config::Agent {
        interface: "lb0".into(),
        vips: vec!["192.0.2.10".parse().unwrap(), "2001:db8:f::10".parse().unwrap()],
        tunnel_sources: vec!["198.51.100.0/28".parse().unwrap(), "2001:db8::/120".parse().unwrap()],
        gue_port: config::defaults::GUE_PORT,
        peers: Vec::new(),
        xdp_mode: config::XdpMode::Auto,
    }
}

fn options(places: &Places, source: Source) -> Options {
    Options {
        source: Some(source),
        name: places.name.clone(),
        prepare: Prepare::Leave,
        detach_on_exit: false,
        json: true,
    }
}

/// A running agent, as the outside sees it.
struct Outside {
    signals: mpsc::Sender<Signal>,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Outside {
    /// Waits for an event; the events before it are dropped.
    async fn event(&mut self, name: &str) -> Value {
        loop {
            let line = timeout(DEADLINE, self.lines.recv()).await;
            let line = line.unwrap_or_else(|_| panic!("no event {name}")).expect("the agent ended");
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["event"] == name {
                return event;
            }
        }
    }

    async fn send(&self, signal: Signal) {
        self.signals.send(signal).await.unwrap();
    }
}

/// Sends whole lines to a channel.
struct Lines(mpsc::UnboundedSender<String>, Vec<u8>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let line = String::from_utf8(std::mem::take(&mut self.1)).unwrap();
        self.0.send(line).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Runs an agent as long as `outside` does, then stops it; gives what it ended with.
async fn with_agent(
    places: &Places,
    options: Options,
    outside: impl AsyncFnOnce(&mut Outside),
) -> anyhow::Result<()> {
    let (signals, receive) = mpsc::channel(4);
    let (send, lines) = mpsc::unbounded_channel();
    let mut out = Out::to(Lines(send, Vec::new()));
    let mut handle = Outside { signals, lines };
    // Its end closes the channel, so that nobody waits for events that cannot come.
    let agent = async {
        let ended = super::run::run(options, places, receive, &mut out).await;
        drop(out);
        ended.inspect_err(|error| eprintln!("the agent ended: {error:#}"))
    };
    let visitor = async {
        outside(&mut handle).await;
        // It may have ended by itself.
        let _ = handle.signals.send(Signal::Stop).await;
    };
    let (ended, ()) = tokio::join!(agent, visitor);
    ended
}

/// Runs an agent that must not start; gives its words.
async fn refused(places: &Places, options: Options) -> String {
    let error = with_agent(places, options, async |_| {}).await.unwrap_err();
    format!("{error:#}")
}
