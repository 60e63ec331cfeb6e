//! What the API asks of the daemon.

use futures::future::BoxFuture;

use super::{
    change::{BackendPatch, Change, NewBackend},
    error::ApiError,
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

    /// Adds a backend; 404 no such service, 409 name or address taken, 422 wrong family.
    fn add_backend<'a>(&'a self, service: &'a str, backend: NewBackend) -> Reply<'a, Change>;

    /// Removes a backend; 404 when it is not there.
    fn remove_backend<'a>(&'a self, service: &'a str, backend: &'a str) -> Reply<'a, Change>;

    /// Changes a backend; `changed: false` when all is so already.
    fn set_backend<'a>(
        &'a self,
        service: &'a str,
        backend: &'a str,
        patch: BackendPatch,
    ) -> Reply<'a, Change>;

    /// [`Control::remove_backend`] in every service that has it. One after the other unless overridden; when one is
    /// refused, the error says which were done.
    fn remove_backend_everywhere<'a>(&'a self, backend: &'a str) -> Reply<'a, Change> {
        Box::pin(async move {
            let mut sum = Sum::new("removed", backend);
            for service in holders(self.services().await?, backend)? {
                let answer = self.remove_backend(&service, backend).await;
                sum.add(&service, answer)?;
            }
            Ok(sum.done())
        })
    }

    /// [`Control::set_backend`] in every service that has it, with the same rules as
    /// [`Control::remove_backend_everywhere`].
    fn set_backend_everywhere<'a>(&'a self, backend: &'a str, patch: BackendPatch) -> Reply<'a, Change> {
        Box::pin(async move {
            let mut sum = Sum::new("set", backend);
            for service in holders(self.services().await?, backend)? {
                let answer = self.set_backend(&service, backend, patch).await;
                sum.add(&service, answer)?;
            }
            Ok(sum.done())
        })
    }

    /// The limit of a service, `None` = unlimited; 404 no such service.
    fn limit<'a>(&'a self, service: &'a str) -> Reply<'a, Option<Rate>> {
        Box::pin(async move { Ok(self.service(service).await?.limit) })
    }

    /// Sets the limit of a service.
    fn set_limit<'a>(&'a self, service: &'a str, limit: Rate) -> Reply<'a, Change>;

    /// Takes the limit away; `changed: false` when there was none.
    fn clear_limit<'a>(&'a self, service: &'a str) -> Reply<'a, Change>;

    /// Applies `lb.toml` as it is on disk; 422 with the place when it is not valid.
    fn reload(&self) -> Reply<'_, Change>;
}

/// Names of the services that have this backend; 404 when none has.
fn holders(services: Vec<ServiceStatus>, backend: &str) -> Result<Vec<String>, ApiError> {
    let names: Vec<String> = services
        .into_iter()
        .filter(|s| s.backends.iter().any(|b| b.name == backend))
        .map(|s| s.name)
        .collect();
    if names.is_empty() {
        return Err(ApiError::not_found(format!("no service has a backend {backend:?}"))
            .field("backend")
            .found(backend)
            .fix("`lb backend list` shows them all"));
    }
    Ok(names)
}

/// Adds up the answers of several services.
struct Sum<'a> {
    verb: &'static str,
    backend: &'a str,
    done: Vec<String>,
    total: Change,
}

impl<'a> Sum<'a> {
    fn new(verb: &'static str, backend: &'a str) -> Self {
        let total =
            Change { generation: 0, changed: false, slots_moved: 0, slots_total: 0, message: String::new() };
        Self { verb, backend, done: Vec::new(), total }
    }

    fn add(&mut self, service: &str, answer: Result<Change, ApiError>) -> Result<(), ApiError> {
        match answer {
            Ok(change) => {
                self.total.generation = self.total.generation.max(change.generation);
                self.total.changed |= change.changed;
                self.total.slots_moved += change.slots_moved;
                self.total.slots_total += change.slots_total;
                self.done.push(format!("{service}/{}", self.backend));
                Ok(())
            }
            Err(mut e) => {
                let done = if self.done.is_empty() { "none".into() } else { self.done.join(", ") };
                e.detail =
                    format!("{service}/{}: {} (already {}: {done})", self.backend, e.detail, self.verb);
                Err(e)
            }
        }
    }

    fn done(mut self) -> Change {
        self.total.message = format!("{}: {}", self.verb, self.done.join(", "));
        self.total
    }
}
