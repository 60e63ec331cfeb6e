//! Opening the TCP connection of a check, and what its errors say about the backend.

use std::{io, net::SocketAddr};

use tokio::net::TcpStream;

use super::{Inconclusive, Outcome, Progress, Verdict};

/// Connects, or says what the failure means.
///
/// The socket comes with SO_LINGER 0: wherever a check ends or is dropped, closing it sends a reset and leaves nothing
/// behind. Otherwise each check that we close first would sit in TIME_WAIT for a minute (a thousand targets every two
/// seconds: 30,000 sockets), and each one that a hung backend does not acknowledge would linger as an orphan. A probe
/// that has had its answer may ask for an orderly close with [`close_orderly`].
pub(super) async fn connect(endpoint: SocketAddr, progress: &Progress) -> Result<TcpStream, Verdict> {
    let stream = TcpStream::connect(endpoint).await.map_err(|error| judge(endpoint, &error))?;
    progress.connected();
    if let Err(error) = stream.set_zero_linger() {
        // Costs a socket in TIME_WAIT, no more.
        log::debug!("health check of {endpoint}: SO_LINGER could not be set: {error}");
    }
    Ok(stream)
}

/// Lets the coming close of `stream` end the connection with a FIN, so that a server that has answered sees no error.
pub(super) fn close_orderly(stream: &TcpStream) {
    #[expect(
        deprecated,
        reason = "the deprecation is about times above zero that block in close; this turns it off"
    )]
    let result = stream.set_linger(None);
    if let Err(error) = result {
        // The connection then ends with a reset.
        log::debug!("health check: SO_LINGER could not be unset: {error}");
    }
}

fn judge(endpoint: SocketAddr, error: &io::Error) -> Verdict {
    let local = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EADDRNOTAVAIL];
    if error.raw_os_error().is_some_and(|code| local.contains(&code)) {
        return Err(Inconclusive(format!("no socket for a connection to {endpoint}: {error}")));
    }
    Ok(Outcome::Failed(match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("connection refused by {endpoint}"),
        io::ErrorKind::ConnectionReset => format!("connection reset by {endpoint} before it was established"),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            format!("{endpoint} is unreachable: {error}")
        }
        _ => format!("no connection to {endpoint}: {error}"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge_code(code: i32) -> Verdict {
        judge("192.0.2.1:80".parse().unwrap(), &io::Error::from_raw_os_error(code))
    }

    #[test]
    fn errors_of_the_backend_or_the_path_are_failed() {
        for (code, words) in [
            (libc::ECONNREFUSED, "connection refused by 192.0.2.1:80"),
            (libc::ECONNRESET, "connection reset by 192.0.2.1:80 before it was established"),
            (libc::EHOSTUNREACH, "192.0.2.1:80 is unreachable: No route to host"),
            (libc::ENETUNREACH, "192.0.2.1:80 is unreachable: Network is unreachable"),
            (libc::ETIMEDOUT, "no connection to 192.0.2.1:80: Connection timed out"),
            (libc::EACCES, "no connection to 192.0.2.1:80: Permission denied"),
        ] {
            let Ok(Outcome::Failed(reason)) = judge_code(code) else { panic!("error {code} is not failed") };
            assert!(reason.starts_with(words), "{reason}");
        }
    }

    #[test]
    fn shortages_of_this_machine_say_nothing_about_the_backend() {
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EADDRNOTAVAIL] {
            let error = judge_code(code).unwrap_err().to_string();
            let words = "the check could not be made: no socket for a connection to 192.0.2.1:80: ";
            assert!(error.starts_with(words), "{error}");
        }
    }
}
