//! The enclave's time: one reading of the wall clock at boot, then elapsed time only.

use cloister_attestation::UnixTime;
use cloister_enclave_lease::Millis;
use rustix::time::{ClockId, clock_gettime};

/// Never goes back and never jumps: it follows CLOCK_BOOTTIME, which the wall clock cannot move.
///
/// In the simulated TEE the reading at boot is the host's, which a host can set as it likes; a real TEE takes signed time
/// there instead.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    unix_millis_at_boot: u64,
    boottime_at_boot: u64,
}

impl Clock {
    /// Reads the wall clock, once.
    #[must_use]
    pub fn start() -> Self {
        Self {
            unix_millis_at_boot: read(ClockId::Realtime),
            boottime_at_boot: read(ClockId::Boottime),
        }
    }

    /// Milliseconds since boot.
    #[must_use]
    pub fn millis(&self) -> Millis {
        Millis(read(ClockId::Boottime).saturating_sub(self.boottime_at_boot))
    }

    /// The enclave's own time.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        UnixTime(self.unix_millis_at_boot.saturating_add(self.millis().0) / 1000)
    }
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_starts_at_the_wall_clock_and_never_goes_back() {
        let clock = Clock::start();
        let wall = read(ClockId::Realtime) / 1000;
        assert!(clock.now().0.abs_diff(wall) <= 1);
        let mut last = clock.millis();
        for _ in 0..1000 {
            let next = clock.millis();
            assert!(next >= last);
            last = next;
        }
    }
}
