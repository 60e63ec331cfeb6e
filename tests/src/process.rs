//! A child process as a guard: its output goes to a file, and it never outlives the guard.

use std::{
    fs::{self, File},
    io::{Read, Seek},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::wait::wait_some;

/// Log lines that are shown when something went wrong.
const TAIL_LINES: usize = 40;

/// A running child.
#[derive(Debug)]
pub struct Process {
    what: String,
    child: Child,
    log: PathBuf,
    /// Length of the log when it was started, in bytes: what is before belongs to earlier ones.
    log_start: u64,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`. `what` names it in messages; both its outputs are appended to the file `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(what: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("log of {what}: {}", log.display()))?;
        let log_start = file.metadata()?.len();
        // In a process group of its own: Ctrl-C in a terminal is for us, and we decide in which order things end.
        command.stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command
            .spawn()
            .with_context(|| format!("starting {what}: {}", command.get_program().to_string_lossy()))?;
        Ok(Self { what: what.to_owned(), child, log: log.to_owned(), log_start, ended: None })
    }

    /// Its pid.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().with_context(|| format!("waiting for {}", self.what))?;
        }
        Ok(self.ended)
    }

    /// Sends a signal, unless it has ended.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_none() {
            kill(Pid::from_raw(self.child.id().cast_signed()), signal)
                .with_context(|| format!("{signal} to {}", self.what))?;
        }
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.what);
        wait_some(&what, limit, || self.ended().transpose()).and_then(|status| status)
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// When it does not end within `limit` (it is killed then), or ends with an error.
    pub fn stop(&mut self, limit: Duration) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = self.wait(limit).or_else(|error| {
            self.kill()?;
            Err(error.context(format!("{} did not obey SIGTERM\n{}", self.what, self.log_tail())))
        })?;
        if !status.success() && status.signal() != Some(libc::SIGTERM) {
            bail!("{} ended with {status}\n{}", self.what, self.log_tail());
        }
        Ok(())
    }

    /// SIGKILL, and waits for its end.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        if self.ended()?.is_none() {
            self.child.kill().with_context(|| format!("killing {}", self.what))?;
            self.ended = Some(self.child.wait().with_context(|| format!("waiting for {}", self.what))?);
        }
        Ok(())
    }

    /// Waits until `ready` is true of the log since this start, but not longer than the process lives.
    ///
    /// # Errors
    /// When it ends or `limit` passes first; the message carries the end of its log.
    pub fn wait_ready(
        &mut self,
        state: &str,
        limit: Duration,
        mut ready: impl FnMut(&str) -> bool,
    ) -> Result<()> {
        let what = format!("{} to {state}", self.what);
        let result = wait_some(&what, limit, || {
            if ready(&self.log()) {
                return Some(Ok(()));
            }
            match self.ended() {
                Ok(None) => None,
                Ok(Some(status)) => Some(Err(anyhow::anyhow!("it ended with {status}"))),
                Err(error) => Some(Err(error)),
            }
        });
        result.and_then(|inner| inner).with_context(|| format!("{what}\n{}", self.log_tail()))
    }

    /// Everything it has written so far, on both its outputs.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let own = usize::try_from(self.log_start).ok().and_then(|start| bytes.get(start..));
        String::from_utf8_lossy(own.unwrap_or_default()).into_owned()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        format!("--- log of {} ---\n{}\n---", self.what, tail.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}

/// What a command printed, and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `command` to its end, whatever that is, without input.
///
/// # Errors
/// When it cannot be started, or has not ended within `limit` (it is killed then).
pub fn run(mut command: Command, limit: Duration) -> Result<Output> {
    let shown = show(&command);
    // Files and not pipes: a pipe would block the command when nobody reads.
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(err.try_clone()?);
    let mut child = command.spawn().with_context(|| format!("running {shown}"))?;
    let ended = wait_some(&shown, limit, || child.try_wait().transpose());
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    let (stdout, stderr) = (read_back(&mut out)?, read_back(&mut err)?);
    let status = ended.with_context(|| format!("it was killed; so far it had said:\n{stdout}{stderr}"))??;
    Ok(Output { status, stdout, stderr })
}

/// Runs `command` and returns what it printed on standard output.
///
/// # Errors
/// Those of [`run`], and when the command ends with an error; the message carries what it wrote on standard error.
pub fn output_of(command: Command, limit: Duration) -> Result<String> {
    let shown = show(&command);
    let output = run(command, limit)?;
    if !output.status.success() {
        bail!("{shown}: {}\n{}", output.status, output.stderr.trim_end());
    }
    Ok(output.stdout)
}

fn show(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn read_back(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
