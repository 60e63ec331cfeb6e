//! What the service manager hears of the daemon, as sd_notify(3) has it. Without a manager nothing is said.

use std::future::pending;

use log::warn;
use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// The way to the manager: `NOTIFY_SOCKET`, and `WATCHDOG_USEC` for how often it wants to hear.
pub(super) struct Manager {
    watchdog: Option<Interval>,
}

impl Manager {
    /// As the environment says.
    pub(super) fn new() -> Self {
        // Twice in the time after which the manager takes us for dead, as sd_watchdog_enabled(3) advises.
        let watchdog = sd_notify::watchdog_enabled().map(|limit| {
            let mut ticks = interval(limit / 2);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self { watchdog }
    }

    /// The datapath is in force and the API answers; also after [`Manager::reloading`].
    pub(super) fn ready(&self, status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The file is read again.
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => warn!("the service manager does not hear of a reload: {error}"),
        }
    }

    /// The daemon ends; the datapath may go on.
    pub(super) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// Says that the daemon lives, when it is time to. Whoever waits for this lives.
    pub(super) async fn alive(&mut self) {
        let Some(ticks) = &mut self.watchdog else { return pending().await };
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!("the service manager cannot be told {state:?}: {error}");
    }
}
