//! What a supervisor is told that listens (`NOTIFY_SOCKET`, systemd's `Type=notify`): ready,
//! reloading, stopping, how far it is, and that the threads turn. Without one nothing happens; a
//! supervisor that does not take a message is not waited for.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::life::Life;
use crate::log::target;

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(target: target::GATEWAY, %error, "no word to the supervisor");
    }
}

/// The gateway serves.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("Ready")]);
}

/// It reads its files again; [`ready`] follows.
pub fn reloading() {
    // systemd asks for the time since version 253.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The end has begun.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// In a line for people, what it is about.
pub(super) fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// Says twice in the time that the supervisor allows (`WatchdogSec`) that no thread stands still,
/// as long as that is so. Never ends; without such a time it does nothing.
pub async fn keep_informed(life: Life) {
    let Some(time) = sd_notify::watchdog_enabled() else { return };
    let mut looks = tokio::time::interval((time / 2).max(Duration::from_millis(1)));
    loop {
        looks.tick().await;
        if life.stands_still().is_none() {
            tell(&[NotifyState::Watchdog]);
        }
    }
}
