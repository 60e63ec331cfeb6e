//! `lb reload`.

use hyper::Method;

use super::{context::Context, exit::Failure};

pub(super) fn run(cx: &mut Context<'_>) -> Result<(), Failure> {
    cx.change::<()>(&Method::POST, "/v1/reload", None)
}
