//! Stdout and stderr: what is printed where, in which form, and what happens when nobody reads.

use std::{ffi::OsString, io, io::Write};

use super::exit::{self, Failure};
use crate::cli::table::printable;

/// Where a command prints.
pub(super) struct Output<'a> {
    stdout: &'a mut dyn Write,
    stderr: &'a mut dyn Write,
    /// `--json`.
    pub(super) json: bool,
    /// Tables may use colours.
    pub(super) color: bool,
}

impl<'a> Output<'a> {
    pub(super) fn new(stdout: &'a mut dyn Write, stderr: &'a mut dyn Write, json: bool, color: bool) -> Self {
        Self { stdout, stderr, json, color }
    }

    /// Data for stdout, with a newline at its end.
    pub(super) fn data(&mut self, data: impl AsRef<[u8]>) -> Result<(), Failure> {
        let data = data.as_ref();
        let mut write = || -> io::Result<()> {
            self.stdout.write_all(data)?;
            if !data.ends_with(b"\n") {
                self.stdout.write_all(b"\n")?;
            }
            self.stdout.flush()
        };
        write().map_err(Failure::Stdout)
    }

    /// A remark for people, on stderr.
    pub(super) fn remark(&mut self, text: &str) {
        // A closed stderr must not turn work that was done into a failure.
        let _ = writeln!(self.stderr, "{text}");
    }

    /// Says why nothing came of it; gives the exit code. With `--json` the problem also goes to stdout, so that a
    /// program reads one stream.
    pub(super) fn failure(&mut self, failure: &Failure) -> u8 {
        let code = failure.code();
        if code == exit::OK {
            return code;
        }
        if let Failure::Usage(e) = failure {
            return exit::usage(e, self.stdout, self.stderr, false);
        }
        if let Some(body) = failure.json().filter(|_| self.json) {
            // The exit code says it as well.
            let _ = self.data(body);
        }
        let text = failure.to_string();
        let lines: Vec<_> = text.lines().map(printable).collect();
        self.remark(&format!("lb: {}", lines.join("\n")));
        code
    }
}

/// Colours only for a terminal that knows them and a user who has not declined (<https://no-color.org>).
pub(super) fn wants_color(terminal: bool, env: impl Fn(&str) -> Option<OsString>) -> bool {
    let declined = env("NO_COLOR").is_some_and(|v| !v.is_empty());
    let dumb = env("TERM").is_none_or(|v| v.is_empty() || v == "dumb");
    terminal && !declined && !dumb
}

/// How the log is written, by `LB_LOG_FORMAT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogFormat {
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    fn of(wanted: Option<&str>) -> Result<Self, String> {
        match wanted {
            None | Some("" | "text") => Ok(Self::Text),
            Some("json") => Ok(Self::Json),
            Some(other) => {
                Err(format!("LB_LOG_FORMAT is {other:?}; expected text or json, so the log is text"))
            }
        }
    }
}

/// Logs to stderr at `LB_LOG`, else at this level. For the verbs that do work of their own.
pub(super) fn log_to_stderr(default: &str) {
    let env = env_logger::Env::new().filter_or("LB_LOG", default).write_style("LB_LOG_STYLE");
    let mut builder = env_logger::Builder::from_env(env);
    let wanted = std::env::var("LB_LOG_FORMAT").ok();
    let format = LogFormat::of(wanted.as_deref());
    if format == Ok(LogFormat::Json) {
        builder.format(|out, record| {
            let time = out.timestamp_millis().to_string();
            writeln!(out, "{}", log_object(record, &time))
        });
    }
    // Already set up: a test, or a program that embeds us.
    let _ = builder.is_test(cfg!(test)).try_init();
    if let Err(problem) = format {
        log::warn!("{problem}");
    }
}

/// A line of the log; fields in this order.
fn log_object(record: &log::Record<'_>, time: &str) -> String {
    #[derive(serde::Serialize)]
    struct Line<'l> {
        time: &'l str,
        level: &'l str,
        target: &'l str,
        message: String,
    }
    let line = Line {
        time,
        level: record.level().as_str(),
        target: record.target(),
        message: record.args().to_string(),
    };
    // Text always has a form in JSON.
    serde_json::to_string(&line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails every write.
    struct Closed(io::ErrorKind);

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_reader_that_left_is_no_failure_and_a_full_disk_is_one() {
        for (kind, code, said) in [
            (io::ErrorKind::BrokenPipe, 0, ""),
            (io::ErrorKind::StorageFull, 1, "lb: cannot write to stdout"),
        ] {
            let (mut stdout, mut stderr) = (Closed(kind), Vec::new());
            let mut out = Output::new(&mut stdout, &mut stderr, false, false);
            let failure = out.data("x").unwrap_err();
            assert_eq!(out.failure(&failure), code);
            let stderr = String::from_utf8(stderr).unwrap();
            assert!(stderr.starts_with(said) && stderr.is_empty() == said.is_empty(), "{stderr}");
        }
    }

    #[test]
    fn a_line_of_the_log_is_one_object_whatever_it_says() {
        let record = log::Record::builder()
            .level(log::Level::Warn)
            .target("lb::daemon")
            .args(format_args!("\"b1\"\nis gone"))
            .build();
        let line = log_object(&record, "2026-01-02T03:04:05.678Z");
        assert_eq!(
            line,
            r#"{"time":"2026-01-02T03:04:05.678Z","level":"WARN","target":"lb::daemon","message":"\"b1\"\nis gone"}"#
        );
    }

    #[test]
    fn an_unknown_format_of_the_log_is_named() {
        assert_eq!(LogFormat::of(None), Ok(LogFormat::Text));
        assert_eq!(LogFormat::of(Some("json")), Ok(LogFormat::Json));
        assert!(LogFormat::of(Some("xml")).unwrap_err().contains("expected text or json"));
    }

    #[test]
    fn colours_are_for_terminals_and_can_be_declined() {
        let env = |pairs: &'static [(&str, &str)]| {
            move |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v))
        };
        assert!(wants_color(true, env(&[("TERM", "xterm")])));
        assert!(wants_color(true, env(&[("TERM", "xterm"), ("NO_COLOR", "")])));
        assert!(!wants_color(true, env(&[("TERM", "xterm"), ("NO_COLOR", "1")])));
        assert!(!wants_color(true, env(&[("TERM", "dumb")])));
        assert!(!wants_color(true, env(&[])));
        assert!(!wants_color(false, env(&[("TERM", "xterm")])));
    }
}
