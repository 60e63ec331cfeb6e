//! `lb detach`.

use clap::Args;
use serde_json::json;

use super::{context::Context, exit::Failure, output::log_to_stderr, table::printable};

/// Take the balancer's XDP program and its state off this host.
///
/// Traffic of the services is no longer balanced from that moment on, and every remembered flow is forgotten.
#[derive(Debug, Args)]
pub(super) struct Detach {}

impl Detach {
    pub(super) fn run(&self, cx: &mut Context<'_>) -> Result<(), Failure> {
        log_to_stderr("warn");
        let name = &cx.global.name;
        if cx.client().get("/healthz").is_ok() {
            return Err(Failure::Failed(anyhow::anyhow!(
                "the daemon of instance '{name}' runs: stop it first (SIGTERM)"
            )));
        }
        let removed = (cx.hooks.detach)(name).map_err(Failure::Failed)?;
        report(cx, "balancer", &removed)
    }
}

/// Says what was removed.
pub(super) fn report(cx: &mut Context<'_>, what: &str, removed: &[String]) -> Result<(), Failure> {
    let name = &cx.global.name;
    if cx.out.json {
        let body = json!({ "name": name, "changed": !removed.is_empty(), "removed": removed });
        return cx.out.data(body.to_string());
    }
    if removed.is_empty() {
        let text = format!("nothing to remove: no {what} of instance '{name}' is attached here");
        return cx.out.data(text);
    }
    let lines: Vec<_> = removed.iter().map(|item| format!("removed {}", printable(item))).collect();
    cx.out.data(lines.join("\n"))
}
