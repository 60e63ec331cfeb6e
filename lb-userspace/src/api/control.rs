//! What the API asks of the daemon.

use futures::future::BoxFuture;

use super::{
    change::Change,
    error::ApiError,
    plan::{Diff, History, InForce, Plan},
    transaction::{Author, Transaction},
    types::{AgentInfo, ServiceStatus, Status},
};
use crate::config::Rate;

/// What every method of [`Control`] returns: a boxed future, so that the trait can be used as `dyn`.
pub type Reply<'a, T> = BoxFuture<'a, Result<T, ApiError>>;

/// The daemon as the API sees it. Changes are validated as a whole, installed, then written back to `lb.toml`; an
/// error means that nothing changed.
///
/// The router runs every change to its end even if the client goes away, so an implementation need not fear being
/// dropped half-way. It may be called concurrently.
pub trait Control: Send + Sync + 'static {
    /// A consistent picture of everything.
    fn status(&self) -> Reply<'_, Status>;

    /// Services alone. Override when that is cheaper than the whole picture.
    fn services(&self) -> Reply<'_, Vec<ServiceStatus>> {
        Box::pin(async move { Ok(self.status().await?.services) })
    }

    /// One service; 404 when there is none of that name.
    fn service<'a>(&'a self, name: &'a str) -> Reply<'a, ServiceStatus> {
        Box::pin(async move {
            let mut services = self.services().await?;
            match services.iter().position(|s| s.name == name) {
                Some(at) => Ok(services.swap_remove(at)),
                None => Err(ApiError::no_service(name, services.iter().map(|s| s.name.as_str()))),
            }
        })
    }

    /// What agents on backends must know of this balancer.
    fn agent(&self) -> Reply<'_, AgentInfo> {
        Box::pin(std::future::ready(Err(ApiError::unavailable(
            "this daemon cannot tell agents what they need",
        )
        .fix("give the agent a file (`lb agent --config`) or --vip and --tunnel-source"))))
    }

    /// Makes a change: all of it, or nothing.
    fn change(&self, transaction: Transaction) -> Reply<'_, Change>;

    /// Says what a change would do, and does nothing.
    fn plan(&self, transaction: Transaction) -> Reply<'_, Plan>;

    /// Keeps the change that waits to be confirmed; 409 when none does.
    fn confirm(&self, author: Author) -> Reply<'_, Change>;

    /// What was in force, and when, and by whom.
    fn history(&self) -> Reply<'_, History>;

    /// What differs between two records; absent: what is in force, and the file. 404 when there is no such record.
    fn diff(&self, from: Option<u64>, to: Option<u64>) -> Reply<'_, Diff>;

    /// The text that is in force, without its secrets.
    fn config(&self) -> Reply<'_, InForce>;

    /// The limit of a service, `None` = unlimited; 404 no such service.
    fn limit<'a>(&'a self, service: &'a str) -> Reply<'a, Option<Rate>> {
        Box::pin(async move { Ok(self.service(service).await?.limit) })
    }
}
