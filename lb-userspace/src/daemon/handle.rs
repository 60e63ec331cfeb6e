//! The API's side: every request is a function that the owning task runs on its state.

use tokio::sync::{mpsc, oneshot};

use super::core::Core;
use crate::api::{
    AgentInfo, ApiError, Author, Change, Control, Diff, History, InForce, Plan, Reply, Status, Transaction,
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
}

impl Control for Handle {
    fn status(&self) -> Reply<'_, Status> {
        Box::pin(self.ask(|core| core.status()))
    }

    fn change(&self, transaction: Transaction) -> Reply<'_, Change> {
        Box::pin(self.ask(move |core| core.change(&transaction)))
    }

    fn plan(&self, transaction: Transaction) -> Reply<'_, Plan> {
        Box::pin(self.ask(move |core| core.plan(&transaction)))
    }

    fn confirm(&self, _: Author) -> Reply<'_, Change> {
        Box::pin(self.ask(|core| core.confirm()))
    }

    fn history(&self) -> Reply<'_, History> {
        Box::pin(self.ask(|core| core.history()))
    }

    fn diff(&self, from: Option<u64>, to: Option<u64>) -> Reply<'_, Diff> {
        Box::pin(self.ask(move |core| core.diff(from, to)))
    }

    fn config(&self) -> Reply<'_, InForce> {
        Box::pin(self.ask(|core| core.in_force()))
    }

    fn agent(&self) -> Reply<'_, AgentInfo> {
        Box::pin(self.ask(|core| Ok(core.agent())))
    }
}
