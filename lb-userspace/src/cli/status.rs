//! `lb status`.

use super::{context::Context, exit::Failure, view};

pub(super) fn run(cx: &mut Context<'_>) -> Result<(), Failure> {
    cx.show("/v1/status", view::status)
}
