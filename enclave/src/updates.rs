//! What a scheduler watches: the lease at each change of it, and the load now and then.

use std::time::Duration;

use cloister_enclave_lease::Status as Lease;
use futures::Stream;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::load::LoadLevel;

/// How often the load is looked at: what it tells of the tenants is not finer than this.
const EVERY: Duration = Duration::from_secs(1);

/// The lease and the load: now, then a lease change at once, and a load that changed at most once a second. `look` reads the
/// load, and is told of each look.
///
/// What was sent last is compared, and not whether the channel has something new: both branches below mark it as seen, so a
/// change that came together with a tick would be lost.
pub(crate) fn updates<L>(leases: watch::Receiver<Lease>, look: L) -> impl Stream<Item = (Lease, LoadLevel)> + Send
where
    L: Fn() -> LoadLevel + Send,
{
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let nothing: Option<(Lease, LoadLevel)> = None;
    futures::stream::unfold(
        (leases, every, look, nothing),
        |(mut leases, mut every, look, last)| async move {
            loop {
                // The first tick is at once.
                tokio::select! {
                    changed = leases.changed() => changed.ok()?,
                    _ = every.tick() => {}
                }
                let load = look();
                let now = (*leases.borrow_and_update(), load);
                if last != Some(now) {
                    return Some((now, (leases, every, look, Some(now))));
                }
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use cloister_attestation::BootId;
    use cloister_enclave_lease::{Epoch, State};
    use futures::{FutureExt, StreamExt};
    use tokio::time::advance;

    use super::*;

    fn lease(number: u64) -> Lease {
        let boot_id = BootId::from_bytes([1; 16]);
        Lease {
            state: State::Vacant,
            epoch: Epoch { boot_id, number },
            holder: None,
        }
    }

    /// Both branches are ready, and one is taken at random: half of them would say nothing if a tick could hide a change.
    #[tokio::test(start_paused = true)]
    async fn a_change_that_comes_with_a_tick_is_not_lost() {
        for _ in 0..50 {
            let (sender, receiver) = watch::channel(lease(0));
            let mut updates = std::pin::pin!(updates(receiver, || LoadLevel::Idle));
            assert_eq!(updates.next().await, Some((lease(0), LoadLevel::Idle)));
            for number in 1..5 {
                assert_eq!(updates.next().now_or_never(), None, "nothing changed");
                sender.send_replace(lease(number));
                advance(EVERY).await;
                assert_eq!(updates.next().await, Some((lease(number), LoadLevel::Idle)));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_state_is_told_at_once_however_old_it_is() {
        let (_sender, mut receiver) = watch::channel(lease(3));
        receiver.borrow_and_update();
        let mut updates = std::pin::pin!(updates(receiver, || LoadLevel::Low));
        assert_eq!(updates.next().await, Some((lease(3), LoadLevel::Low)));
    }

    #[tokio::test(start_paused = true)]
    async fn load_is_told_at_a_tick_only() {
        let (_sender, receiver) = watch::channel(lease(3));
        let level = Arc::new(Mutex::new(LoadLevel::Idle));
        let read = Arc::clone(&level);
        let mut updates = std::pin::pin!(updates(receiver, move || *read.lock().unwrap()));
        assert_eq!(updates.next().await, Some((lease(3), LoadLevel::Idle)));
        *level.lock().unwrap() = LoadLevel::Full;
        assert_eq!(updates.next().now_or_never(), None, "before the tick");
        advance(EVERY).await;
        assert_eq!(updates.next().await, Some((lease(3), LoadLevel::Full)));
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_the_enclave() {
        let (sender, receiver) = watch::channel(lease(3));
        let mut updates = std::pin::pin!(updates(receiver, || LoadLevel::Idle));
        updates.next().await;
        drop(sender);
        assert_eq!(updates.next().await, None);
    }
}
