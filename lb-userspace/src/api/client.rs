//! The client side for programs that ask one thing and end: blocking calls over the unix socket, errors that say what
//! to do.

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use nix::unistd::{Gid, Group};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use super::error::ApiError;

/// Directory of the sockets of all instances.
pub const SOCKET_DIR: &str = "/run/lb";
/// A call has this long; above what the server grants a change, so that its own words arrive.
const CALL_TIME: Duration = Duration::from_secs(40);
/// Largest answer, in bytes.
const ANSWER_LIMIT: usize = 64 << 20;
/// Instances that a "not running" names.
const OTHERS: usize = 8;

/// Socket of an instance: `/run/lb/<name>.sock`.
pub fn socket_of(name: &str) -> PathBuf {
    Path::new(SOCKET_DIR).join(format!("{name}.sock"))
}

/// Joins segments to a path, each percent-encoded.
pub fn path_of(segments: &[&str]) -> String {
    /// The unreserved characters of RFC 3986, and the colon of IPv6 addresses, stay readable.
    const ESCAPED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');
    segments.iter().fold(String::new(), |path, s| format!("{path}/{}", utf8_percent_encode(s, ESCAPED)))
}

/// Why a call brought no answer, or a refusal.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens.
    NotRunning {
        /// Instance that was asked.
        name: String,
        /// Its socket.
        socket: PathBuf,
        /// The socket is there, but nobody answers: a daemon was killed.
        stale: bool,
        /// Other instances with a socket in the same directory.
        others: Vec<String>,
    },
    /// The socket is not for us.
    Denied {
        /// The socket.
        socket: PathBuf,
        /// Group that owns it, if that can be seen and is not root.
        group: Option<String>,
    },
    /// No answer in time.
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// How long was waited.
        after: Duration,
    },
    /// The connection broke.
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What happened.
        cause: String,
    },
    /// Whatever answered does not speak this API.
    Foreign {
        /// The socket.
        socket: PathBuf,
        /// What it said.
        found: String,
    },
    /// The daemon said no.
    Refused {
        /// Its words.
        problem: ApiError,
        /// The body as it came.
        body: Bytes,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning { name, socket, stale, others } => {
                let found = if *stale { "nobody listens on" } else { "no" };
                write!(f, "the daemon of instance '{name}' is not running ({found} {})", socket.display())?;
                let option = if name == "main" { String::new() } else { format!(" --name {name}") };
                write!(f, ": start it with `lb run --config lb.toml{option}`")?;
                if !others.is_empty() {
                    write!(f, "\n  other instances here: {} (choose with --name)", others.join(", "))?;
                }
                Ok(())
            }
            Self::Denied { socket, group } => {
                write!(f, "no permission to use {}: run as root (`sudo lb …`)", socket.display())?;
                match group {
                    Some(group) => write!(f, " or join the group '{group}' (`usermod -aG {group} USER`)"),
                    None => Ok(()),
                }
            }
            Self::Timeout { socket, after } => write!(
                f,
                "the daemon on {} did not answer within {} s: it is overloaded or stopped; read its log (forwarding \
                 goes on without it)",
                socket.display(),
                after.as_secs()
            ),
            Self::Broken { socket, cause } => write!(
                f,
                "the connection to {} broke: {cause}; the daemon may have ended: read its log and try again",
                socket.display()
            ),
            Self::Foreign { socket, found } => write!(
                f,
                "what answers on {} is not a daemon of this version of lb: {found}; compare `lb --version` with the \
                 daemon's",
                socket.display()
            ),
            Self::Refused { problem, .. } => problem.fmt(f),
        }
    }
}

impl std::error::Error for ClientError {}

impl ClientError {
    /// The same as a problem, for `--json`: what the daemon said, or what it would have said had it been asked.
    pub fn problem(&self) -> ApiError {
        let (kind, title) = match self {
            Self::Refused { problem, .. } => return problem.clone(),
            Self::NotRunning { .. } => ("not-running", "The daemon is not running"),
            Self::Denied { .. } => ("permission-denied", "The socket is not for this user"),
            Self::Timeout { .. } => ("timeout", "The daemon did not answer in time"),
            Self::Broken { .. } => ("broken", "The connection broke"),
            Self::Foreign { .. } => ("foreign", "The answer is not one of this API"),
        };
        let mut problem = ApiError::unavailable(self.to_string());
        problem.type_uri = format!("urn:lb:problem:{kind}");
        problem.title = title.into();
        problem
    }
}

/// What came back when the daemon said yes.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The body, unchanged.
    pub body: Bytes,
    socket: PathBuf,
}

impl Answer {
    /// The body as a type of this API.
    ///
    /// # Errors
    /// [`ClientError::Foreign`] when it has another form.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body)
            .map_err(|e| ClientError::Foreign { socket: self.socket.clone(), found: e.to_string() })
    }
}

/// Asks one instance.
#[derive(Clone, Debug)]
pub struct Client {
    name: String,
    socket: PathBuf,
    time: Duration,
}

impl Client {
    /// For the instance `name`; `socket` where it is not the usual one.
    pub fn new(name: &str, socket: Option<PathBuf>) -> Self {
        let socket = socket.unwrap_or_else(|| socket_of(name));
        Self { name: name.into(), socket, time: CALL_TIME }
    }

    /// The same with another bound on the time of a call.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// The socket that will be asked.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET path`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.call::<()>(&Method::GET, path, None)
    }

    /// One call, with a JSON body if there is one. Blocks; must not run inside a runtime.
    ///
    /// # Errors
    /// [`ClientError`]; every status but 2xx is [`ClientError::Refused`].
    pub fn call<B: Serialize>(
        &self,
        method: &Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Answer, ClientError> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|e| self.broken(e))?,
            None => Vec::new(),
        };
        self.send(method, path, "application/json", body)
    }

    /// One call with a text as its body, otherwise as [`Client::call`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn call_with_text(&self, method: &Method, path: &str, text: String) -> Result<Answer, ClientError> {
        self.send(method, path, "application/toml", text.into_bytes())
    }

    fn send(&self, method: &Method, path: &str, kind: &str, body: Vec<u8>) -> Result<Answer, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "lb")
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, kind)
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| self.broken(e))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|e| self.broken(e))?;
        let late = |_| Err(ClientError::Timeout { socket: self.socket.clone(), after: self.time });
        let (status, body) = runtime
            .block_on(async { timeout(self.time, self.exchange(request)).await.unwrap_or_else(late) })?;
        if status.is_success() {
            return Ok(Answer { body, socket: self.socket.clone() });
        }
        match serde_json::from_slice::<ApiError>(&body) {
            Ok(problem) => Err(ClientError::Refused { problem, body }),
            Err(_) => {
                Err(ClientError::Foreign { socket: self.socket.clone(), found: format!("status {status}") })
            }
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.no_connection(&e))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.broken(e))?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(|e| self.broken(e))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_LIMIT).collect().await.map_err(|e| {
                if e.is::<LengthLimitError>() {
                    let found = format!("an answer above {ANSWER_LIMIT} bytes");
                    ClientError::Foreign { socket: self.socket.clone(), found }
                } else {
                    self.broken(e)
                }
            })?;
            Ok((status, body.to_bytes()))
        };
        tokio::pin!(answer, connection);
        tokio::select! {
            // A connection that ends first has put the answer, or its error, where `answer` finds it.
            _ = &mut connection => answer.await,
            result = &mut answer => result,
        }
    }

    fn no_connection(&self, error: &io::Error) -> ClientError {
        let socket = self.socket.clone();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                let stale = error.kind() == io::ErrorKind::ConnectionRefused;
                let others = others(&socket);
                ClientError::NotRunning { name: self.name.clone(), socket, stale, others }
            }
            io::ErrorKind::PermissionDenied => {
                let group = group_of(&socket);
                ClientError::Denied { socket, group }
            }
            // A full backlog: the daemon is there but takes no connections.
            io::ErrorKind::WouldBlock => ClientError::Timeout { socket, after: Duration::ZERO },
            _ => self.broken(error),
        }
    }

    fn broken(&self, cause: impl fmt::Display) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), cause: cause.to_string() }
    }
}

/// Names of sockets beside this one.
fn others(socket: &Path) -> Vec<String> {
    let Some(entries) = socket.parent().and_then(|dir| fs::read_dir(dir).ok()) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path != socket && path.extension().is_some_and(|e| e == "sock"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names.truncate(OTHERS);
    names
}

/// Name of the group that owns the socket; none for root's.
fn group_of(socket: &Path) -> Option<String> {
    let gid = fs::metadata(socket).ok()?.gid();
    if gid == 0 {
        return None;
    }
    Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn segments_are_encoded() {
        assert_eq!(path_of(&["v1", "services", "we b", "a/b"]), "/v1/services/we%20b/a%2Fb");
        assert_eq!(path_of(&["v1", "backends", "2001:db8::1"]), "/v1/backends/2001:db8::1");
        assert_eq!(path_of(&["..", "?x=é"]), "/../%3Fx%3D%C3%A9");
    }

    #[test]
    fn a_missing_socket_says_how_to_start_the_daemon() {
        let error = Client::new("no-such-instance", None).get("/v1/status").unwrap_err();
        assert!(matches!(error, ClientError::NotRunning { stale: false, .. }), "{error:?}");
        assert!(
            error.to_string().starts_with(
                "the daemon of instance 'no-such-instance' is not running (no /run/lb/no-such-instance.sock): start \
                 it with `lb run --config lb.toml --name no-such-instance`"
            ),
            "{error}"
        );
        let main = ClientError::NotRunning {
            name: "main".into(),
            socket: socket_of("main"),
            stale: false,
            others: Vec::new(),
        };
        assert_eq!(
            main.to_string(),
            "the daemon of instance 'main' is not running (no /run/lb/main.sock): start it with `lb run --config \
             lb.toml`"
        );
    }

    #[test]
    fn a_stale_socket_and_its_neighbours_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("main.sock");
        drop(UnixListener::bind(&socket).unwrap());
        fs::write(dir.path().join("edge1.sock"), "").unwrap();
        fs::write(dir.path().join("edge1.sock.lock"), "").unwrap();
        let error = Client::new("main", Some(socket.clone())).get("/v1/status").unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&format!("nobody listens on {}", socket.display())), "{text}");
        assert!(text.ends_with("other instances here: edge1 (choose with --name)"), "{text}");
        assert_eq!(error.problem().type_uri, "urn:lb:problem:not-running");
    }

    #[test]
    fn permission_denied_names_the_group_to_join() {
        let denied = |group: Option<&str>| {
            ClientError::Denied { socket: socket_of("main"), group: group.map(Into::into) }.to_string()
        };
        assert_eq!(denied(None), "no permission to use /run/lb/main.sock: run as root (`sudo lb …`)");
        assert!(denied(Some("lb")).ends_with("or join the group 'lb' (`usermod -aG lb USER`)"));
        let client = Client::new("main", Some("/run/lb/main.sock".into()));
        let error = client.no_connection(&io::Error::from(io::ErrorKind::PermissionDenied));
        assert!(matches!(error, ClientError::Denied { .. }), "{error:?}");
    }

    #[test]
    fn a_daemon_that_never_answers_is_a_timeout() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("main.sock");
        let silent = UnixListener::bind(&socket).unwrap();
        let client = Client::new("main", Some(socket)).within(Duration::from_millis(20));
        let error = client.get("/v1/status").unwrap_err();
        assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
        drop(silent);
    }

    #[test]
    fn something_else_on_the_socket_is_said_so() {
        use std::io::{Read, Write};
        for (bytes, want) in [
            ("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\noops", "status 502"),
            ("SSH-2.0-x\r\n\r\n", "broke"),
            ("", "broke"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let socket = dir.path().join("main.sock");
            let listener = UnixListener::bind(&socket).unwrap();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]).unwrap();
                stream.write_all(bytes.as_bytes()).unwrap();
            });
            let error = Client::new("main", Some(socket)).get("/v1/status").unwrap_err();
            server.join().unwrap();
            assert!(error.to_string().contains(want), "{bytes:?}: {error}");
        }
    }
}
