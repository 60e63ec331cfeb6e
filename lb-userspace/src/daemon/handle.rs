//! The API's side: every request is a function that the owning task runs on its state.

use tokio::sync::{mpsc, oneshot};

use super::{change::Edit, core::Core};
use crate::{
    api::{AgentInfo, ApiError, BackendPatch, Change, Control, NewBackend, Reply, Status},
    config::Rate,
};

/// Something to do with the state.
pub(super) type Job = Box<dyn FnOnce(&mut Core) + Send>;

/// Jobs that may wait; the API answers 503 beyond that.
pub(super) const JOBS: usize = 256;

/// What the API holds.
#[derive(Clone)]
pub(super) struct Handle(pub(super) mpsc::Sender<Job>);

impl Handle {
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Core) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (answer, wait) = oneshot::channel();
        let job: Job = Box::new(move |core| {
            // Nobody waits any more: the work is done all the same.
            let _ = answer.send(question(core));
        });
        self.0.try_send(job).map_err(|_| {
            ApiError::unavailable("the daemon is busy or stopping").fix("try again in a moment")
        })?;
        wait.await.map_err(|_| ApiError::unavailable("the daemon is stopping"))?
    }

    fn change(&self, edit: Edit) -> Reply<'_, Change> {
        Box::pin(self.ask(move |core| core.change(&edit)))
    }
}

impl Control for Handle {
    fn status(&self) -> Reply<'_, Status> {
        Box::pin(self.ask(|core| core.status()))
    }

    fn add_backend<'a>(&'a self, service: &'a str, backend: NewBackend) -> Reply<'a, Change> {
        self.change(Edit::Add { service: service.into(), backend })
    }

    fn remove_backend<'a>(&'a self, service: &'a str, backend: &'a str) -> Reply<'a, Change> {
        self.change(Edit::Remove { service: service.into(), backend: backend.into() })
    }

    fn set_backend<'a>(
        &'a self,
        service: &'a str,
        backend: &'a str,
        patch: BackendPatch,
    ) -> Reply<'a, Change> {
        self.change(Edit::Set { service: service.into(), backend: backend.into(), patch })
    }

    fn set_limit<'a>(&'a self, service: &'a str, limit: Rate) -> Reply<'a, Change> {
        self.change(Edit::Limit { service: service.into(), limit: Some(limit) })
    }

    fn clear_limit<'a>(&'a self, service: &'a str) -> Reply<'a, Change> {
        self.change(Edit::Limit { service: service.into(), limit: None })
    }

    fn agent(&self) -> Reply<'_, AgentInfo> {
        Box::pin(self.ask(|core| Ok(core.agent())))
    }

    fn reload(&self) -> Reply<'_, Change> {
        Box::pin(self.ask(|core| core.reload()))
    }
}
