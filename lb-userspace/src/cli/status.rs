//! `lb status`, and the comparison with another balancer of the group.

use std::fmt::Write as _;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::Serialize;

use super::{context::Context, exit::Failure, table::printable, view};
use crate::{
    agent,
    api::types::{Digests, ServiceDigests},
};

/// Show everything about a running instance.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Compare the tables with those of another balancer of the group, by its `listen` address (HOST or HOST:PORT) or
    /// the path of its socket; exit 0 only when configuration and seed give the same
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<String>,
}

/// What came of a comparison: the JSON of `--peer`.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Comparison {
    /// The other balancer's name for itself.
    peer: String,
    /// Both have the same services, with the same desired digests.
    same: bool,
    services: Vec<Compared>,
}

/// A service that one of both has, or both.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Compared {
    name: String,
    /// What configuration and seed ask for is the same.
    desired_same: bool,
    /// What is in force is the same: not so while both see health differently.
    installed_same: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    here: Option<ServiceDigests>,
    #[serde(skip_serializing_if = "Option::is_none")]
    there: Option<ServiceDigests>,
}

impl Show {
    pub(super) fn run(&self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let Some(peer) = &self.peer else { return cx.show("/v1/status", view::status) };
        let here: Digests = cx.client().get("/v1/digests")?.json()?;
        let there = ask(peer).map_err(Failure::Failed)?;
        let comparison = compare(here, there);
        let text = if cx.out.json {
            serde_json::to_string(&comparison).map_err(|e| Failure::Failed(e.into()))?
        } else {
            words(&comparison)
        };
        cx.out.data(text)?;
        if comparison.same {
            return Ok(());
        }
        Err(Failure::Failed(anyhow!(
            "this balancer and {peer} do not ask for the same tables: compare lb.toml and hash_seed"
        )))
    }
}

fn ask(peer: &str) -> anyhow::Result<Digests> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(agent::digests_of(peer)).with_context(|| format!("asking {peer}"))
}

fn compare(here: Digests, there: Digests) -> Comparison {
    let mut others = there.services;
    let mut services: Vec<Compared> = Vec::new();
    for mine in here.services {
        let at = others.iter().position(|other| other.name == mine.name);
        services.push(compared(Some(mine), at.map(|at| others.remove(at))));
    }
    services.extend(others.into_iter().map(|other| compared(None, Some(other))));
    Comparison { peer: there.name, same: services.iter().all(|s| s.desired_same), services }
}

fn compared(here: Option<ServiceDigests>, there: Option<ServiceDigests>) -> Compared {
    let name = here.as_ref().or(there.as_ref()).map(|s| s.name.clone()).unwrap_or_default();
    let both = here.as_ref().zip(there.as_ref());
    Compared {
        name,
        desired_same: both.is_some_and(|(a, b)| a.desired_digest == b.desired_digest),
        installed_same: both.is_some_and(|(a, b)| a.installed_digest == b.installed_digest),
        here,
        there,
    }
}

fn words(comparison: &Comparison) -> String {
    let mut out = String::new();
    for s in &comparison.services {
        let name = printable(&s.name);
        let what = match (&s.here, &s.there) {
            (Some(_), None) => "only here".to_owned(),
            (None, _) => "only there".to_owned(),
            (Some(here), Some(there)) if !s.desired_same => format!(
                "differs: {} here, {} there",
                printable(&here.desired_digest),
                printable(&there.desired_digest)
            ),
            (Some(here), _) if s.installed_same => format!("the same ({})", printable(&here.desired_digest)),
            (Some(here), _) => format!(
                "the same ({}), but health is seen differently just now",
                printable(&here.desired_digest)
            ),
        };
        let _ = writeln!(out, "service {name}: {what}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(services: &[(&str, &str, &str)]) -> Digests {
        let service = |(name, desired, installed): &(&str, &str, &str)| ServiceDigests {
            name: (*name).into(),
            desired_digest: (*desired).into(),
            installed_digest: (*installed).into(),
        };
        Digests { name: "other".into(), services: services.iter().map(service).collect() }
    }

    #[test]
    fn tables_are_compared_service_by_service() {
        let here = digests(&[("web", "aa", "aa"), ("dns", "bb", "b1"), ("mail", "cc", "cc")]);
        let there =
            digests(&[("dns", "bb", "b2"), ("web", "aa", "aa"), ("mail", "c1", "c1"), ("ntp", "d", "d")]);
        let comparison = compare(here, there);
        assert!(!comparison.same);
        assert_eq!(
            words(&comparison),
            "service web: the same (aa)\nservice dns: the same (bb), but health is seen differently just now\n\
             service mail: differs: cc here, c1 there\nservice ntp: only there\n"
        );
    }

    #[test]
    fn what_health_changes_is_no_difference() {
        let comparison = compare(digests(&[("web", "aa", "a1")]), digests(&[("web", "aa", "a2")]));
        assert!(comparison.same && !comparison.services[0].installed_same);
        assert!(!compare(digests(&[("web", "aa", "aa")]), digests(&[])).same, "a service is missing there");
    }
}
