//! The check by a command: its exit code says what the backend is.

use std::process::Stdio;

use futures::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
};

use super::{Inconclusive, Outcome, Probe, Progress, Target, Verdict};

/// Exit code for "does not work at all": its flows are handed on.
const FAILED: i32 = 2;
/// Bytes of its output that are read for the reason.
const OUTPUT_BYTES: u64 = 4096;

/// Runs a command.
#[derive(Debug)]
pub(super) struct ExecProbe {
    /// Program and arguments; the configuration has at least the program.
    pub(super) command: Vec<String>,
}

impl Probe for ExecProbe {
    fn probe<'a>(&'a self, target: &'a Target, _: &'a Progress) -> BoxFuture<'a, Verdict> {
        Box::pin(self.check(target))
    }
}

impl ExecProbe {
    async fn check(&self, target: &Target) -> Verdict {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(Inconclusive("no command".into()));
        };
        let mut child = Command::new(program)
            .args(arguments)
            .env("LB_SERVICE", &target.key.service)
            .env("LB_BACKEND", &target.key.backend)
            .env("LB_ADDRESS", target.address.to_string())
            .env("LB_PORT", target.port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A process group of its own, and an end when the time is over.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Inconclusive(format!("{program} cannot be run: {error}")))?;
        let said = match child.stdout.take() {
            Some(stdout) => first_line(stdout).await,
            None => String::new(),
        };
        let status = child.wait().await.map_err(|error| Inconclusive(format!("{program}: {error}")))?;
        let words = format!("{program} ended with {status}");
        let words = if said.is_empty() { words } else { format!("{words}: {said}") };
        Ok(match status.code() {
            Some(0) => Outcome::Good,
            Some(FAILED) => Outcome::Failed(words),
            _ => Outcome::NotReady(words),
        })
    }
}

/// The first line of the first bytes; what comes behind is read and thrown away, so that the command can end.
async fn first_line(mut output: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    let mut head = (&mut output).take(OUTPUT_BYTES);
    // What cannot be read is no reason to fail a backend.
    let _ = head.read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut output, &mut tokio::io::sink()).await;
    let text = String::from_utf8_lossy(&bytes);
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        config::Check,
        health::{probe::run, testing::target_at},
    };

    async fn sh(script: &str, timeout: Duration) -> Verdict {
        let command = vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let mut target = target_at("127.0.0.1:81".parse().unwrap());
        target.health.check = Check::Exec { command: command.clone() };
        target.health.timeout = timeout;
        run(&ExecProbe { command }, &target).await
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn the_exit_code_decides_and_the_first_line_says_why() {
        let script = "test $LB_SERVICE/$LB_BACKEND/$LB_ADDRESS/$LB_PORT = web/b1/127.0.0.1/81";
        assert_eq!(sh(script, MINUTE).await, Ok(Outcome::Good));
        let ended = |code: i32| format!("/bin/sh ended with exit status: {code}");
        let words = format!("{}: replica lags", ended(1));
        assert_eq!(sh("echo replica lags; echo 9 s; exit 1", MINUTE).await, Ok(Outcome::NotReady(words)));
        assert_eq!(sh("exit 2", MINUTE).await, Ok(Outcome::Failed(ended(2))));
        let Ok(Outcome::NotReady(words)) = sh("kill -9 $$", MINUTE).await else { panic!("it was killed") };
        assert!(words.contains("signal: 9"), "{words}");
    }

    #[tokio::test]
    async fn a_flood_of_output_is_bounded_and_a_command_that_hangs_is_ended() {
        let flood = "yes | head -c 10000000; exit 1";
        assert_eq!(
            sh(flood, MINUTE).await,
            Ok(Outcome::NotReady("/bin/sh ended with exit status: 1: y".into()))
        );
        let verdict = sh("exec sleep 600", Duration::from_millis(50)).await;
        assert_eq!(verdict, Ok(Outcome::NotReady("/bin/sh did not end within 50ms".into())));
    }

    #[tokio::test]
    async fn a_command_that_is_not_there_says_nothing_about_the_backend() {
        let command = vec!["/nonexistent/check".to_owned()];
        let error =
            run(&ExecProbe { command }, &target_at("127.0.0.1:1".parse().unwrap())).await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/check cannot be run"), "{error}");
    }
}
