//! What every verb needs: the options, the daemon, and a place to print.

use hyper::Method;
use serde::{Serialize, de::DeserializeOwned};

use super::{args::Global, change_view, exit::Failure, hooks::Hooks, how::How, output::Output};
use crate::api::{Change, Client, Plan, Timestamp, client::Answer};

/// Handed to each verb.
pub(super) struct Context<'a> {
    pub(super) global: &'a Global,
    pub(super) hooks: &'a Hooks,
    pub(super) out: Output<'a>,
    /// Ages count to this moment.
    pub(super) now: Timestamp,
}

/// How people want to see an answer.
pub(super) struct Look {
    /// Use colours.
    pub(super) color: bool,
    /// Ages count to this moment.
    pub(super) now: Timestamp,
}

impl Context<'_> {
    /// The daemon of the chosen instance.
    pub(super) fn client(&self) -> Client {
        Client::new(&self.global.name, self.global.socket.clone())
    }

    /// Asks and prints: the body unchanged for `--json`, else as `render` has it.
    pub(super) fn show<T: DeserializeOwned>(
        &mut self,
        path: &str,
        render: impl FnOnce(&T, &Look) -> String,
    ) -> Result<(), Failure> {
        let answer = self.client().get(path)?;
        if self.out.json {
            return self.out.data(&answer.body);
        }
        let look = Look { color: self.out.color, now: self.now };
        let text = render(&answer.json()?, &look);
        self.out.data(text)
    }

    /// Asks for a change and prints what it did.
    pub(super) fn change<B: Serialize>(
        &mut self,
        method: &Method,
        path: &str,
        body: Option<&B>,
        how: &How,
    ) -> Result<(), Failure> {
        let answer = self.client().call(method, &how.path(path, None), body)?;
        self.changed(&answer, how)
    }

    /// Prints what a change did, or would do.
    pub(super) fn changed(&mut self, answer: &Answer, how: &How) -> Result<(), Failure> {
        if self.out.json {
            return self.out.data(&answer.body);
        }
        let text = if how.is_plan() {
            let look = Look { color: self.out.color, now: self.now };
            change_view::plan(&answer.json::<Plan>()?, &look)
        } else {
            change_view::change(&answer.json::<Change>()?)
        };
        self.out.data(text)
    }
}
