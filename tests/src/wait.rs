//! Waiting for a condition with a deadline. Nothing else in this package lets time pass, but for the pace of traffic.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// First pause between two looks; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// Short enough that nobody notices, long enough not to steal the processor from what is being waited for.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Looks at `condition` until it is true.
///
/// # Errors
/// When `limit` has passed in vain; the message says what was waited for.
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_some(what, limit, || condition().then_some(()))
}

/// Calls `look` until it returns something, and returns that. `look` is called at least once.
///
/// # Errors
/// When `limit` has passed in vain; the message says what was waited for.
pub fn wait_some<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if start.elapsed() >= limit {
            bail!("waited {limit:?} in vain for {what}");
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_what_the_last_look_found() {
        let mut looks = 0;
        let found = wait_some("the third look", Duration::from_secs(10), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn names_what_never_came() {
        let error = wait_for("a blue moon", Duration::ZERO, || false).unwrap_err();
        assert!(error.to_string().contains("a blue moon"), "{error}");
    }

    #[test]
    fn looks_once_even_without_any_time() {
        wait_for("what is already true", Duration::ZERO, || true).unwrap();
    }
}
