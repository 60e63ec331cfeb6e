//! The listeners: the API on a unix socket, metrics and the status page on TCP. Every connection, header, body and
//! answer is bounded in size, number and time.

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use nix::unistd::{Gid, Group};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream},
    sync::{Semaphore, watch},
    time::timeout,
};

use super::{control::Control, public, router};

/// Largest body of a request, in bytes.
pub const BODY_LIMIT: usize = 1 << 20;
/// Largest text of a configuration, in bytes.
pub const TEXT_LIMIT: usize = crate::config::limits::FILE_BYTES as usize;
/// A body has this long to arrive.
pub const BODY_TIME: Duration = Duration::from_secs(10);
/// A header has this long to arrive; an idle connection is closed after the same time.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// Largest header, in bytes (and the read buffer of a connection).
const HEADER_LIMIT: usize = 16 << 10;
/// No connection lives longer: a reader that never reads ends here.
const CONNECTION_TIME: Duration = Duration::from_secs(600);
/// Open requests have this long to finish when the server stops.
const STOP_TIME: Duration = Duration::from_secs(5);
/// Connections at once; more wait in the backlog.
const CONNECTIONS: u32 = 64;
/// Whether somebody answers on a socket is known after this long.
const PROBE_TIME: Duration = Duration::from_secs(2);
/// Pictures over TCP are at most this old.
const PUBLIC_KEEP: Duration = Duration::from_secs(1);
/// Owner and group may talk to the daemon, nobody else.
const SOCKET_MODE: u32 = 0o660;

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The instance is taken.
    #[error(
        "another daemon answers on {}: stop it first, or give this one a name of its own (--name)",
        path.display()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is not ours stands in the way.
    #[error(
        "{} is there and is not a socket: found {found}; expected a socket or nothing; move it away",
        path.display()
    )]
    NotASocket {
        /// Where the socket should be.
        path: PathBuf,
        /// What is there.
        found: String,
    },
    /// The group that should own the socket does not exist.
    #[error("there is no group {group:?} for {}: create it (`groupadd --system {group}`)", path.display())]
    NoGroup {
        /// The socket.
        path: PathBuf,
        /// The group that was asked for.
        group: String,
    },
    /// A step failed.
    #[error("cannot {step} {}: {source}", path.display())]
    Io {
        /// What was tried, a verb.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The TCP address is not to be had.
    #[error("cannot listen on {address} (`listen` in [daemon] of lb.toml): {source}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
}

/// Who is on the other end of a connection, for the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) pid: Option<i32>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}", self.uid)?;
        match self.pid {
            Some(pid) => write!(f, " (process {pid})"),
            None => Ok(()),
        }
    }
}

/// The API's socket, open but not served yet: a daemon binds before it touches anything else, so that a second one
/// is refused in time. Dropping it removes the socket.
#[derive(Debug)]
pub struct UnixServer {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of our socket: a successor's is not removed.
    id: (u64, u64),
    /// Held for as long as the server lives; the file stays, since removing it would let two daemons lock two files.
    _lock: File,
}

impl UnixServer {
    /// Opens the socket at `path`, mode 0660, owned by `group` if one is named; makes its directory (0755). A socket
    /// on which nobody answers is replaced. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// [`ServeError`]; nothing is left behind but the directory and the lock file.
    pub async fn bind(path: &Path, group: Option<&str>) -> Result<Self, ServeError> {
        let failed = |step, path: &Path| {
            let path = path.to_owned();
            move |source| ServeError::Io { step, path, source }
        };
        let group = group.map(|group| group_id(group, path)).transpose()?;
        if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty() && !d.exists()) {
            DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(failed("create", dir))?;
            // The umask may have taken away what the group needs to get to the socket.
            fs::set_permissions(dir, Permissions::from_mode(0o755))
                .map_err(failed("set the mode of", dir))?;
        }
        let lock = lock(path)?;
        remove_stale(path).await?;

        // Between bind and listen nobody can connect: the mode is right before the first connection.
        let socket = UnixSocket::new_stream().map_err(failed("create a socket for", path))?;
        socket.bind(path).map_err(failed("bind", path))?;
        let listener = fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))
            .map_err(failed("set the mode of", path))
            .and_then(|()| match group {
                Some(_) => std::os::unix::fs::chown(path, None, group.map(Gid::as_raw))
                    .map_err(failed("set the group of", path)),
                None => Ok(()),
            })
            .and_then(|()| socket.listen(CONNECTIONS).map_err(failed("listen on", path)))
            .and_then(|listener| Ok((listener, fs::metadata(path).map_err(failed("look at", path))?)));
        match listener {
            Ok((listener, meta)) => {
                Ok(Self { listener, path: path.to_owned(), id: (meta.dev(), meta.ino()), _lock: lock })
            }
            Err(e) => {
                let _ = fs::remove_file(path);
                Err(e)
            }
        }
    }

    /// Answers until `shutdown` is ready, then lets open requests finish (at most 5 s) and removes the socket.
    pub async fn serve(self, control: Arc<dyn Control>, shutdown: impl Future<Output = ()> + Send) {
        let app = router::router(control);
        log::info!("API on {}", self.path.display());
        serve_all(&UnixDoor { listener: &self.listener, app }, shutdown).await;
    }
}

impl Drop for UnixServer {
    fn drop(&mut self) {
        let ours = fs::metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.id);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// [`UnixServer::bind`] and [`UnixServer::serve`] in one.
///
/// # Errors
/// As [`UnixServer::bind`].
pub async fn serve_unix(
    path: &Path,
    group: Option<&str>,
    control: Arc<dyn Control>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    UnixServer::bind(path, group).await?.serve(control, shutdown).await;
    Ok(())
}

/// The listener for `GET /metrics` and `GET /`, open but not served yet.
#[derive(Debug)]
pub struct TcpServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl TcpServer {
    /// Opens the listener; port 0 takes a free one. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// [`ServeError::Tcp`].
    pub async fn bind(address: SocketAddr) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Tcp { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` is ready, then lets open requests finish (at most 5 s).
    pub async fn serve(self, control: Arc<dyn Control>, shutdown: impl Future<Output = ()> + Send) {
        let app = public::router(control, PUBLIC_KEEP);
        log::info!("metrics and status page on http://{}", self.address);
        serve_all(&TcpDoor { listener: &self.listener, app }, shutdown).await;
    }
}

/// [`TcpServer::bind`] and [`TcpServer::serve`] in one.
///
/// # Errors
/// As [`TcpServer::bind`].
pub async fn serve_tcp(
    address: SocketAddr,
    control: Arc<dyn Control>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    TcpServer::bind(address).await?.serve(control, shutdown).await;
    Ok(())
}

fn group_id(group: &str, path: &Path) -> Result<Gid, ServeError> {
    match Group::from_name(group) {
        Ok(Some(found)) => Ok(found.gid),
        Ok(None) => Err(ServeError::NoGroup { path: path.to_owned(), group: group.into() }),
        Err(e) => {
            Err(ServeError::Io { step: "look up the group of", path: path.to_owned(), source: e.into() })
        }
    }
}

/// Locks `<socket>.lock`: of two daemons that start at the same moment one gets it, whatever the socket looks like.
fn lock(path: &Path) -> Result<File, ServeError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let io = |step| {
        let path = name.clone();
        move |source| ServeError::Io { step, path, source }
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&name)
        .map_err(io("open"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ServeError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(e)) => Err(io("lock")(e)),
    }
}

/// Removes a socket on which nobody answers, and nothing else.
async fn remove_stale(path: &Path) -> Result<(), ServeError> {
    let io = |step| move |source| ServeError::Io { step, path: path.to_owned(), source };
    let meta = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        meta => meta.map_err(io("look at"))?,
    };
    if !meta.file_type().is_socket() {
        let found = if meta.is_dir() { "a directory" } else { "a file" };
        return Err(ServeError::NotASocket { path: path.to_owned(), found: found.into() });
    }
    match timeout(PROBE_TIME, UnixStream::connect(path)).await {
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {
            log::info!("{} was left behind by a daemon that is gone: replaced", path.display());
            fs::remove_file(path).map_err(io("remove"))
        }
        Ok(Err(e)) if e.kind() == io::ErrorKind::PermissionDenied => Err(io("connect to")(e)),
        // Connected, or a full backlog: somebody is there.
        _ => Err(ServeError::InUse { path: path.to_owned() }),
    }
}

/// Where connections come in, each with the routes that it may use. (An async closure would do, but its future cannot
/// be shown to be `Send`.)
trait Door: Sync {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Router)>> + Send;
}

struct UnixDoor<'l> {
    listener: &'l UnixListener,
    app: Router,
}

impl Door for UnixDoor<'_> {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(Self::Stream, Router)> {
        let (stream, _) = self.listener.accept().await?;
        let peer = stream.peer_cred().ok().map(|c| Peer { uid: c.uid(), pid: c.pid() });
        let app = match peer {
            Some(peer) => self.app.clone().layer(Extension(peer)),
            None => self.app.clone(),
        };
        Ok((stream, app))
    }
}

struct TcpDoor<'l> {
    listener: &'l TcpListener,
    app: Router,
}

impl Door for TcpDoor<'_> {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(Self::Stream, Router)> {
        let (stream, _) = self.listener.accept().await?;
        Ok((stream, self.app.clone()))
    }
}

/// Takes connections until `shutdown`; then stops taking, tells the open ones to finish, and waits for them.
async fn serve_all(door: &impl Door, shutdown: impl Future<Output = ()> + Send) {
    let places = Arc::new(Semaphore::new(CONNECTIONS as usize));
    let (stop, stopped) = watch::channel(());
    let accept_all = async {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match door.accept().await {
                Ok((stream, app)) => {
                    let stopped = stopped.clone();
                    tokio::spawn(async move {
                        connection(stream, app, stopped).await;
                        drop(place);
                    });
                }
                Err(e) => {
                    // Out of descriptors, as a rule: others must close first, and asking at once would only spin.
                    log::warn!("cannot accept a connection: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept_all => {}
        () = shutdown => {}
    }
    drop(stop);
    let _ = timeout(STOP_TIME, places.acquire_many(CONNECTIONS)).await;
}

/// One connection from its first byte to its end.
async fn connection<S>(stream: S, app: Router, mut stopped: watch::Receiver<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_LIMIT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    tokio::pin!(connection);
    tokio::select! {
        end = connection.as_mut() => {
            if let Err(e) = end {
                log::debug!("connection ended: {e}");
            }
            return;
        }
        // The sender is never used, only dropped.
        _ = stopped.changed() => {}
        () = tokio::time::sleep(CONNECTION_TIME) => {}
    }
    connection.as_mut().graceful_shutdown();
    if timeout(STOP_TIME, connection).await.is_err() {
        log::debug!("connection cut off: its request or its reader took too long");
    }
}
