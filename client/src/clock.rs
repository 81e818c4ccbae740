//! The time of this machine.

use cloister_attestation::UnixTime;
use std::sync::Arc;
use std::time::SystemTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Gives the time; tests give their own.
pub type Clock = Arc<dyn Fn() -> UnixTime + Send + Sync>;

/// The machine's clock. A clock before 1970 counts as 1970: every key and credential is then not valid yet.
pub fn system() -> Clock {
    Arc::new(now)
}

/// The machine's time.
pub fn now() -> UnixTime {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixTime(elapsed.map_or(0, |elapsed| elapsed.as_secs()))
}

/// A time for people; the number when it is beyond the calendar.
pub fn rfc3339(time: UnixTime) -> String {
    i64::try_from(time.0)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|date| date.format(&Rfc3339).ok())
        .unwrap_or_else(|| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable_up_to_the_end_of_the_calendar() {
        assert_eq!(rfc3339(UnixTime(1_800_000_000)), "2027-01-15T08:00:00Z");
        assert_eq!(rfc3339(UnixTime(u64::MAX)), u64::MAX.to_string());
    }
}
