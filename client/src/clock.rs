//! The time of this machine.

use cloister_attestation::UnixTime;
use std::sync::Arc;
use std::time::SystemTime;

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
