//! Load in four levels with hysteresis: with one tenant per replica, every finer number would be a trace of that tenant.

/// Load as it is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LoadLevel {
    /// Nothing runs.
    Idle,
    /// Less than half of the engine's batch.
    Low,
    /// Half or more.
    High,
    /// The batch is full.
    Full,
}

/// Batch size that is assumed of an engine that does not say.
const DEFAULT_CAPACITY: u32 = 16;

impl LoadLevel {
    /// The level after this one, at `running` requests of at most `capacity`. It rises at 1, 50 and 100 % and falls only
    /// below 40 and 80 %.
    #[must_use]
    pub fn next(self, running: usize, capacity: Option<u32>) -> Self {
        let capacity = u64::from(capacity.unwrap_or(DEFAULT_CAPACITY).max(1));
        let percent = (running as u64).saturating_mul(100) / capacity;
        let rising = match percent {
            _ if running == 0 => return Self::Idle,
            100.. => Self::Full,
            50.. => Self::High,
            _ => Self::Low,
        };
        let keeps = match self {
            Self::Full => percent >= 80,
            Self::High => percent >= 40,
            Self::Low | Self::Idle => false,
        };
        if keeps { rising.max(self) } else { rising }
    }
}

#[cfg(test)]
mod tests {
    use super::LoadLevel::{Full, High, Idle, Low};

    #[test]
    fn it_rises_at_once_and_falls_late() {
        let capacity = Some(10);
        assert_eq!(Idle.next(1, capacity), Low);
        assert_eq!(Low.next(4, capacity), Low);
        assert_eq!(Low.next(5, capacity), High);
        assert_eq!(High.next(4, capacity), High);
        assert_eq!(High.next(3, capacity), Low);
        assert_eq!(High.next(10, capacity), Full);
        assert_eq!(Full.next(8, capacity), Full);
        assert_eq!(Full.next(7, capacity), High);
        assert_eq!(Full.next(0, capacity), Idle);
        assert_eq!(Idle.next(16, None), Full);
        assert_eq!(Idle.next(1, Some(0)), Full);
    }
}
