//! What the command line looks like as a whole; each verb's own arguments stand in its file.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::{agent, apply, backend, check, completions, detach, exit, limit, man, run, service, status};

/// Layer-4 load balancer in XDP.
#[derive(Debug, Parser)]
#[command(name = "lb", version, after_help = exit::HELP, max_term_width = 100)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// Heading of [`Global`] in every help text.
const EVERYWHERE: &str = "Options of every command";

/// Options that every verb takes.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// Instance of the balancer or agent on this host
    #[arg(long, global = true, help_heading = EVERYWHERE, default_value = "main", value_parser = instance_name)]
    pub(super) name: String,
    /// Socket of the daemon [default: /run/lb/<NAME>.sock]
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "PATH", env = "LB_SOCKET")]
    pub(super) socket: Option<PathBuf>,
    /// Print the API's JSON instead of tables
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(super) json: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run the daemon: attach XDP, check backends, keep the tables
    Run(run::Run),
    /// Run the agent on a backend: take packets out of their tunnels
    Agent(agent::Agent),
    /// Take the balancer's XDP program and its state off this host
    Detach(detach::Detach),
    /// Show everything about a running instance
    Status(status::Show),
    /// Show, add and remove services
    Service {
        #[command(subcommand)]
        verb: service::Verb,
    },
    /// Show and change backends
    Backend {
        #[command(subcommand)]
        verb: backend::Verb,
    },
    /// Show and change the packet limits per source
    Limit {
        #[command(subcommand)]
        verb: limit::Verb,
    },
    /// Validate a configuration and print it with every default written out
    Check(check::Check),
    /// Say what applying a file would do, and change nothing
    Plan(apply::Plan),
    /// Make the daemon apply its configuration file, or another one in its place
    #[command(visible_alias = "reload")]
    Apply(apply::Apply),
    /// Keep a change that waits to be confirmed
    Confirm,
    /// Bring back what was in force before
    Rollback(apply::Back),
    /// Show what was in force, and when, by whom and why
    History,
    /// Show what was edited and not applied, or what differs between two states
    Diff(apply::Differ),
    /// Print a completion script for a shell
    Completions(completions::Completions),
    /// Print the manual page, or write one for each verb
    Man(man::Man),
}

/// A name that can be a file name: it becomes a socket and a directory of pins.
fn instance_name(text: &str) -> Result<String, String> {
    let fits = (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !text.starts_with(['.', '-']);
    if fits {
        Ok(text.into())
    } else {
        Err("expected 1 to 63 of A-Z a-z 0-9 . _ - with a letter, digit or _ first".into())
    }
}

/// `SERVICE/NAME`, cut at the first slash; addresses as names have none.
pub(super) fn cut(target: &str) -> Option<(&str, &str)> {
    target.split_once('/').filter(|(service, name)| !service.is_empty() && !name.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn instance_names_cannot_leave_their_directory() {
        for good in ["main", "edge-1", "_a.b"] {
            assert_eq!(instance_name(good).unwrap(), good);
        }
        for bad in ["", "..", "../x", "a/b", "a b", ".hidden", "-x", "é", &"x".repeat(64)] {
            assert!(instance_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn targets_are_cut_at_the_first_slash() {
        assert_eq!(cut("web/2001:db8::1"), Some(("web", "2001:db8::1")));
        assert_eq!(cut("web/a/b"), Some(("web", "a/b")));
        for bad in ["web", "web/", "/b1", "/", ""] {
            assert_eq!(cut(bad), None, "{bad}");
        }
    }
}
