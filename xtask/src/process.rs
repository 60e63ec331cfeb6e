//! Running other programs, and saying so.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// One line about what is going on: on stderr, for stdout is what was asked for.
pub(crate) fn say(text: &str) {
    eprintln!("xtask: {text}");
}

/// Runs a command on our terminal; an error when it cannot start or does not succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command silently: the last line of its standard error is the error.
pub(crate) fn run_silently(command: &mut Command) -> Result<()> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run `{}`", shown(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.lines().map(str::trim).rfind(|line| !line.is_empty());
        bail!("`{}`: {}", shown(command), last.unwrap_or("failed without a word"));
    }
    Ok(())
}

/// Becomes the command, so that an interrupt reaches it once and its exit status is ours. Returns only on failure.
pub(crate) fn become_command(command: &mut Command) -> anyhow::Error {
    let error = command.exec();
    anyhow::Error::new(error).context(format!("cannot run `{}`", shown(command)))
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

/// A word as a shell reads it back.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@,+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{run, run_silently, shown};

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("/bin/lab");
        command.args(["run", "--requests=3", "it's", "", "a b"]);
        assert_eq!(shown(&command), r"/bin/lab run --requests=3 'it'\''s' '' 'a b'");
    }

    #[test]
    fn a_failure_names_the_command_and_its_last_word() {
        let error = run_silently(Command::new("sh").args(["-c", "echo one >&2; echo two >&2; exit 3"]));
        assert!(error.unwrap_err().to_string().ends_with(": two"));
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c 'exit 3'") && error.contains('3'), "{error}");
        assert!(run(&mut Command::new("/nonexistent/program")).is_err());
    }
}
