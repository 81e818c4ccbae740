//! Waiting for what can be seen.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// After so long, what a test waits for will not come. Far above what a busy machine needs.
pub const LIMIT: Duration = Duration::from_secs(180);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Looks again and again until `look` finds something.
///
/// # Panics
/// After [`LIMIT`], naming `what`.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}");
        sleep(LOOK_AGAIN).await;
    }
}

/// The output of `future`.
///
/// # Panics
/// After [`LIMIT`], naming `what`.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(LIMIT, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {LIMIT:?}"),
    }
}
