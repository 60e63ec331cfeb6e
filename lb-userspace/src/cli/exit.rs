//! How a command ends: the ways of failing and their exit codes.

use std::{fmt, io, io::Write};

use serde_json::Value;

use super::hooks::Refused;
use crate::api::{ApiError, ClientError, Kind};

/// Done.
pub(super) const OK: u8 = 0;
/// Refused or failed.
pub(super) const FAILED: u8 = 1;
/// The command line is wrong.
pub(super) const USAGE: u8 = 2;
/// The daemon is not running.
pub(super) const NOT_RUNNING: u8 = 3;
/// There is no such service, backend or path.
pub(super) const NOT_FOUND: u8 = 4;

/// At the end of `lb --help` and of the manual.
pub(super) const HELP: &str = "\
Exit codes: 0 done; 1 refused or failed; 2 wrong command line; 3 the daemon is not running; 4 no such service or \
                               backend.
Environment: LB_SOCKET (as --socket), LB_LOG (error, warn, info, debug or trace; logs go to stderr), NO_COLOR.";

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(super) enum Failure {
    /// The daemon refused, or did not answer.
    Client(ClientError),
    /// The command line is wrong.
    Usage(Box<clap::Error>),
    /// A configuration is not valid.
    Config(Refused),
    /// Work in this process failed.
    Failed(anyhow::Error),
    /// Stdout did not take the data.
    Stdout(io::Error),
}

impl Failure {
    /// The exit code.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Client(ClientError::NotRunning { .. }) => NOT_RUNNING,
            Self::Client(ClientError::Refused { problem, .. })
                if problem.status == Kind::NotFound.status().as_u16() =>
            {
                NOT_FOUND
            }
            Self::Usage(_) => USAGE,
            // Whoever reads our output has seen enough (`lb status | head`).
            Self::Stdout(e) if e.kind() == io::ErrorKind::BrokenPipe => OK,
            Self::Client(_) | Self::Config(_) | Self::Failed(_) | Self::Stdout(_) => FAILED,
        }
    }

    /// The failure as `--json` prints it: the daemon's own body where there is one; nothing where stdout is what
    /// failed or the command line is wrong.
    pub(super) fn json(&self) -> Option<Vec<u8>> {
        let problem = match self {
            Self::Client(ClientError::Refused { body, .. }) => return Some(body.to_vec()),
            Self::Client(e) => e.problem(),
            Self::Config(e) => ApiError::invalid("the configuration is not valid").found(&*e.text),
            Self::Failed(e) => ApiError::internal(format!("{e:#}")),
            Self::Usage(_) | Self::Stdout(_) => return None,
        };
        let Self::Config(Refused { details: Value::Object(more), .. }) = self else {
            return serde_json::to_vec(&problem).ok();
        };
        let mut json = serde_json::to_value(&problem).ok()?;
        for (key, value) in more {
            // Details add to a problem; what it is, they cannot change.
            json.as_object_mut()?.entry(key).or_insert_with(|| value.clone());
        }
        serde_json::to_vec(&json).ok()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(e) => e.fmt(f),
            Self::Usage(e) => e.fmt(f),
            Self::Config(e) => f.write_str(&e.text),
            Self::Failed(e) => write!(f, "{e:#}"),
            Self::Stdout(e) => write!(f, "cannot write to stdout: {e}"),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// Prints what clap has to say: help and version on stdout with code 0, errors on stderr with code
/// 2. `color` is about stdout.
pub(super) fn usage(error: &clap::Error, stdout: &mut dyn Write, stderr: &mut dyn Write, color: bool) -> u8 {
    let text = error.render();
    let (to, code): (&mut dyn Write, u8) = if error.use_stderr() { (stderr, USAGE) } else { (stdout, OK) };
    // Nothing can be said any more when this fails.
    let _ = if color && !error.use_stderr() { write!(to, "{}", text.ansi()) } else { write!(to, "{text}") };
    let _ = to.flush();
    code
}
