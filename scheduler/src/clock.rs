//! The only place that reads a clock.

use std::time::{Duration, Instant, SystemTime};

use cloister_attestation::UnixTime;
use cloister_scheduler_core::Moment;

/// Monotonic time since the start of the process, for decisions, and wall time, for what clients and enclaves state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    pub(crate) fn now(&self) -> Moment {
        Moment::default().after(self.origin.elapsed())
    }

    /// Wall time. A clock before 1970 reads as 1970, at which nothing is live.
    pub(crate) fn unix(&self) -> UnixTime {
        UnixTime(since_epoch().as_secs())
    }

    /// The moment at which the wall clock will show `time`; now, when it is past.
    pub(crate) fn moment_of(&self, time: UnixTime) -> Moment {
        self.now()
            .after(Duration::from_secs(time.0).saturating_sub(since_epoch()))
    }

    /// When tokio's timer is to fire for `moment`.
    pub(crate) fn instant_of(&self, moment: Moment) -> tokio::time::Instant {
        // A moment that cannot be represented is as good as a day: the timer is armed again after it.
        let later = Duration::from_millis(moment.0).min(self.origin.elapsed().saturating_add(DAY));
        tokio::time::Instant::from_std(self.origin.checked_add(later).unwrap_or_else(Instant::now))
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}
