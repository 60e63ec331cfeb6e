//! The handlers of everything that changes something, or that tells what a change did or would do.

use std::time::Duration;

use axum::{
    Extension,
    extract::{FromRequestParts, State},
    http::request::Parts,
};
use serde::{Deserialize, Serialize};

use super::{
    change::{BackendPatch, Change, NewBackend},
    error::ApiError,
    extract::{Json, Params, Segments, Text},
    plan::{Diff, History, InForce, Plan},
    router::{Answer, Api, within},
    server::Peer,
    transaction::{Author, Edit, Edits, NewService, Options, Rollback, Transaction, Via, What},
};
use crate::config::Rate;

/// What was done, or what would be.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Done {
    Change(Change),
    Plan(Plan),
}

/// Who asks, and how.
pub(super) struct Asked {
    options: Options,
    author: Author,
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Params(options) = Params::<Options>::from_request_parts(parts, state).await?;
        options.check()?;
        let peer = parts.extensions.get::<Peer>();
        let author =
            Author { via: Via::Socket, uid: peer.map(|peer| peer.uid), pid: peer.and_then(|peer| peer.pid) };
        Ok(Self { options, author })
    }
}

impl Asked {
    /// Makes the change, or plans it.
    async fn run(self, api: &Api, mut what: What) -> Answer<Done> {
        match &mut what {
            What::Text { base, .. } => *base = self.options.base,
            _ if self.options.base.is_some() => {
                return Err(ApiError::bad_request("`base` belongs to a text, and this request has none")
                    .field("query"));
            }
            _ => {}
        }
        let transaction = Transaction {
            what,
            author: self.author,
            reason: self.options.reason,
            confirm: self.options.confirm.map(Duration::from_secs),
        };
        if self.options.plan {
            return within(api.control.plan(transaction)).await.map(|plan| axum::Json(Done::Plan(plan)));
        }
        let change = api.change(move |control| async move { control.change(transaction).await }).await?;
        Ok(axum::Json(Done::Change(change.0)))
    }

    async fn edit(self, api: &Api, edit: Edit) -> Answer<Done> {
        edit.check()?;
        self.run(api, What::Edits(vec![edit])).await
    }
}

pub(super) async fn add_service(
    State(api): State<Api>,
    asked: Asked,
    Json(service): Json<NewService>,
) -> Answer<Done> {
    asked.edit(&api, Edit::AddService { service }).await
}

pub(super) async fn remove_service(
    State(api): State<Api>,
    Segments(service): Segments<String>,
    asked: Asked,
) -> Answer<Done> {
    asked.edit(&api, Edit::RemoveService { service }).await
}

pub(super) async fn add_backend(
    State(api): State<Api>,
    Segments(service): Segments<String>,
    asked: Asked,
    Json(backend): Json<NewBackend>,
) -> Answer<Done> {
    asked.edit(&api, Edit::AddBackend { service, backend }).await
}

pub(super) async fn remove_backend(
    State(api): State<Api>,
    Segments((service, backend)): Segments<(String, String)>,
    asked: Asked,
) -> Answer<Done> {
    asked.edit(&api, Edit::RemoveBackend { service: Some(service), backend }).await
}

pub(super) async fn set_backend(
    State(api): State<Api>,
    Segments((service, backend)): Segments<(String, String)>,
    asked: Asked,
    Json(patch): Json<BackendPatch>,
) -> Answer<Done> {
    asked.edit(&api, Edit::SetBackend { service: Some(service), backend, patch }).await
}

pub(super) async fn remove_everywhere(
    State(api): State<Api>,
    Segments(backend): Segments<String>,
    asked: Asked,
) -> Answer<Done> {
    asked.edit(&api, Edit::RemoveBackend { service: None, backend }).await
}

pub(super) async fn set_everywhere(
    State(api): State<Api>,
    Segments(backend): Segments<String>,
    asked: Asked,
    Json(patch): Json<BackendPatch>,
) -> Answer<Done> {
    asked.edit(&api, Edit::SetBackend { service: None, backend, patch }).await
}

pub(super) async fn set_limit(
    State(api): State<Api>,
    Segments(service): Segments<String>,
    asked: Asked,
    Json(limit): Json<Rate>,
) -> Answer<Done> {
    asked.edit(&api, Edit::SetLimit { service, limit }).await
}

pub(super) async fn clear_limit(
    State(api): State<Api>,
    Segments(service): Segments<String>,
    asked: Asked,
) -> Answer<Done> {
    asked.edit(&api, Edit::ClearLimit { service }).await
}

pub(super) async fn transaction(
    State(api): State<Api>,
    asked: Asked,
    Json(edits): Json<Edits>,
) -> Answer<Done> {
    edits.check()?;
    asked.run(&api, What::Edits(edits.edits)).await
}

pub(super) async fn reload(State(api): State<Api>, asked: Asked) -> Answer<Done> {
    asked.run(&api, What::File).await
}

pub(super) async fn replace(State(api): State<Api>, asked: Asked, Text(text): Text) -> Answer<Done> {
    asked.run(&api, What::Text { text, base: None }).await
}

pub(super) async fn rollback(
    State(api): State<Api>,
    asked: Asked,
    Json(rollback): Json<Rollback>,
) -> Answer<Done> {
    asked.run(&api, What::Rollback { to: rollback.to }).await
}

pub(super) async fn confirm(State(api): State<Api>, peer: Option<Extension<Peer>>) -> Answer<Change> {
    let author = Author {
        via: Via::Socket,
        uid: peer.as_ref().map(|peer| peer.uid),
        pid: peer.and_then(|peer| peer.pid),
    };
    api.change(move |control| async move { control.confirm(author).await }).await
}

pub(super) async fn history(State(api): State<Api>) -> Answer<History> {
    within(api.control.history()).await.map(axum::Json)
}

pub(super) async fn config(State(api): State<Api>) -> Answer<InForce> {
    within(api.control.config()).await.map(axum::Json)
}

/// `?from=N&to=M`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Between {
    from: Option<u64>,
    to: Option<u64>,
}

pub(super) async fn diff(State(api): State<Api>, Params(between): Params<Between>) -> Answer<Diff> {
    within(api.control.diff(between.from, between.to)).await.map(axum::Json)
}
