//! `--from`: asks a balancer what an agent must know, and keeps the last answer for a start without it.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::{
    api::{AgentInfo, ApiError},
    config,
};

/// Where a balancer is asked.
const PATH: &str = "/v1/agent";
/// Port of `listen` in the documentation's examples.
const PORT: u16 = 9870;
/// A question has this long, connecting included.
const TIME: Duration = Duration::from_secs(5);
/// Largest answer, in bytes: as many VIPs as an agent may have, and room.
const ANSWER_LIMIT: usize = 8 << 20;

/// A balancer that can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// Its TCP listener (`listen` of `[daemon]`).
    Tcp {
        /// Name or address.
        host: String,
        port: u16,
    },
    /// The socket of a daemon on this host.
    Unix(PathBuf),
}

impl FromStr for Endpoint {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            format!(
                "{text:?} is no balancer: expected HOST, HOST:PORT, http://HOST:PORT (`listen` of its [daemon]) or \
                 the path of its socket"
            )
        };
        if let Some(path) = text.strip_prefix("unix:").or(text.starts_with('/').then_some(text)) {
            return Ok(Self::Unix(path.into()));
        }
        if text.starts_with("https:") {
            bail!("{text:?}: a balancer serves agents over plain HTTP: use http://");
        }
        let authority = text.strip_prefix("http://").unwrap_or(text);
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if let Ok(ip) = authority.parse::<IpAddr>() {
            return Ok(Self::Tcp { host: ip.to_string(), port: PORT });
        }
        if let Some(rest) = authority.strip_prefix('[') {
            let (address, port) = rest.split_once(']').with_context(wrong)?;
            let host = address.parse::<std::net::Ipv6Addr>().with_context(wrong)?.to_string();
            let port = match port.strip_prefix(':') {
                Some(port) => port.parse().with_context(wrong)?,
                None if port.is_empty() => PORT,
                None => bail!(wrong()),
            };
            return Ok(Self::Tcp { host, port });
        }
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, port.parse().with_context(wrong)?),
            None => (authority, PORT),
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if host.is_empty() || port == 0 || !host.chars().all(fits) {
            bail!(wrong());
        }
        Ok(Self::Tcp { host: host.into(), port })
    }
}

/// What a balancer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) info: AgentInfo,
    /// Its address, if it was asked over the network.
    pub(super) peer: Option<IpAddr>,
}

impl Endpoint {
    /// Asks once, within bounds of time and size.
    ///
    /// # Errors
    /// Whatever stands in the way, in words.
    pub(super) async fn ask(&self) -> anyhow::Result<Answered> {
        let (info, peer) = self.get(PATH).await?;
        Ok(Answered { info, peer })
    }

    /// The answer to `GET path`, and the balancer's address if it was asked over the network.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<(T, Option<IpAddr>)> {
        let answer = async {
            match self {
                Self::Unix(socket) => {
                    let stream = UnixStream::connect(socket)
                        .await
                        .with_context(|| format!("cannot connect to {}", socket.display()))?;
                    Ok((question(stream, "lb", path).await?, None))
                }
                Self::Tcp { host, port } => {
                    let stream = TcpStream::connect((host.as_str(), *port))
                        .await
                        .with_context(|| format!("cannot connect to {host}, port {port}"))?;
                    let peer = stream.peer_addr().as_ref().map(SocketAddr::ip).ok();
                    Ok((question(stream, host, path).await?, peer))
                }
            }
        };
        timeout(TIME, answer).await.unwrap_or_else(|_| bail!("no answer within {} s", TIME.as_secs()))
    }
}

/// Asks over a connection that is there.
async fn question<T: DeserializeOwned>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    path: &str,
) -> anyhow::Result<T> {
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/json")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let answer = sender.send_request(request).await.context("it speaks no HTTP")?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_LIMIT).collect().await;
        let body = body.map_err(|e| anyhow::anyhow!("the answer broke off or is too large: {e}"))?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body)
                .context("the answer is not that of a balancer of this version of lb");
        }
        match serde_json::from_slice::<ApiError>(&body) {
            Ok(problem) => bail!("it refuses: {problem}"),
            Err(_) => {
                bail!("its answer to GET {path} has status {status}: it is no balancer of this version of lb")
            }
        }
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        // A connection that ends first has put the answer, or its error, where `answer` finds it.
        _ = &mut connection => answer.await,
        result = &mut answer => result,
    }
}

/// The last answer, as it is kept on disk.
#[derive(Serialize, Deserialize)]
struct Kept {
    from: String,
    interface: String,
    #[serde(flatten)]
    info: AgentInfo,
}

/// Keeps what was made of an answer of `from`.
pub(super) fn keep(file: &Path, from: &str, agent: &config::Agent) -> anyhow::Result<()> {
    let info = AgentInfo {
        vips: agent.vips.clone(),
        tunnel_sources: agent.tunnel_sources.clone(),
        gue_port: agent.gue_port,
        peers: agent.peers.clone(),
    };
    let kept = Kept { from: from.into(), interface: agent.interface.clone(), info };
    let text = serde_json::to_string_pretty(&kept)?;
    if fs::read_to_string(file).is_ok_and(|old| old == text) {
        return Ok(());
    }
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    Ok(config::write_atomic(file, &text)?)
}

/// The last answer of `from`, if one was kept. Without `interface` it is the one of then.
///
/// # Errors
/// When the file is there and is not what [`keep`] writes.
pub(super) fn kept(
    file: &Path,
    from: &str,
    interface: Option<&str>,
) -> anyhow::Result<Option<config::Agent>> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let kept: Kept = serde_json::from_str(&text)
        .with_context(|| format!("{} is no answer of a balancer", file.display()))?;
    // Another balancer may have other VIPs.
    Ok((kept.from == from).then(|| config::Agent {
        interface: interface.map_or(kept.interface, str::to_owned),
        vips: kept.info.vips,
        tunnel_sources: kept.info.tunnel_sources,
        gue_port: kept.info.gue_port,
        peers: kept.info.peers,
        xdp_mode: config::XdpMode::Auto,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fake::{FakeControl, TestDaemon, sample_agent};

    #[test]
    fn a_balancer_can_be_named_in_every_usual_way() {
        let tcp = |host: &str, port| Some(Endpoint::Tcp { host: host.into(), port });
        for (text, want) in [
            ("lb1.example", tcp("lb1.example", 9870)),
            ("lb1:80", tcp("lb1", 80)),
            ("192.0.2.1", tcp("192.0.2.1", 9870)),
            ("192.0.2.1:9871", tcp("192.0.2.1", 9871)),
            ("http://192.0.2.1:9871/", tcp("192.0.2.1", 9871)),
            ("2001:db8::1", tcp("2001:db8::1", 9870)),
            ("[2001:db8::1]", tcp("2001:db8::1", 9870)),
            ("http://[2001:db8::1]:9871", tcp("2001:db8::1", 9871)),
            ("/run/lb/main.sock", Some(Endpoint::Unix("/run/lb/main.sock".into()))),
            ("unix:/run/lb/main.sock", Some(Endpoint::Unix("/run/lb/main.sock".into()))),
            ("", None),
            ("lb1:", None),
            ("lb1:0", None),
            ("lb1:70000", None),
            ("lb 1", None),
            ("http://lb1/v1/agent", None),
            ("https://lb1", None),
            ("[2001:db8::1", None),
            ("[lb1]:80", None),
        ] {
            assert_eq!(text.parse::<Endpoint>().ok(), want, "{text}");
        }
    }

    #[test]
    fn both_listeners_of_a_daemon_answer() {
        let daemon = TestDaemon::start(FakeControl::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ask = |from: String| runtime.block_on(from.parse::<Endpoint>().unwrap().ask()).unwrap();
        let over_tcp = ask(daemon.tcp.to_string());
        assert_eq!(over_tcp, Answered { info: sample_agent(), peer: Some(daemon.tcp.ip()) });
        assert_eq!(ask(daemon.socket.display().to_string()), Answered { info: sample_agent(), peer: None });
    }

    #[test]
    fn a_refusal_and_a_stranger_are_told_apart() {
        use std::io::{Read, Write};
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ask = |from: String| {
            let error = runtime.block_on(from.parse::<Endpoint>().unwrap().ask()).unwrap_err();
            format!("{error:#}")
        };
        let refusing = TestDaemon::start(FakeControl::refusing(ApiError::unavailable("not now")));
        assert!(ask(refusing.tcp.to_string()).starts_with("it refuses: not now"));
        let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = stranger.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = stranger.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno").unwrap();
        });
        assert!(ask(address).contains("has status 404 Not Found: it is no balancer"));
        thread.join().unwrap();
        assert!(ask("/nowhere/main.sock".into()).starts_with("cannot connect to /nowhere/main.sock"));
    }

    #[test]
    fn the_last_answer_is_kept_for_the_balancer_that_gave_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lb/answer-main.json");
        assert!(kept(&file, "lb1", None).unwrap().is_none());
        let agent = config::Agent {
            interface: "eth0".into(),
            vips: sample_agent().vips,
            tunnel_sources: sample_agent().tunnel_sources,
            gue_port: sample_agent().gue_port,
            peers: sample_agent().peers,
            xdp_mode: config::XdpMode::Auto,
        };
        keep(&file, "lb1", &agent).unwrap();
        assert_eq!(kept(&file, "lb1", None).unwrap(), Some(agent));
        assert_eq!(kept(&file, "lb1", Some("eth1")).unwrap().unwrap().interface, "eth1");
        assert!(kept(&file, "lb2", None).unwrap().is_none());
        fs::write(&file, "{").unwrap();
        assert!(kept(&file, "lb1", None).is_err());
    }
}
