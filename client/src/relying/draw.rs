//! The draw of candidates: random, once per window, on enough different platforms. Pure.

use cloister_attestation::{EnclaveId, PlatformId, UnixTime};

/// How long a draw holds, seconds: one key window. In it the order stays, so that a conversation keeps its enclave and finds
/// its prefix cached.
pub(super) const DRAW_SECONDS: u64 = 600;

/// Enclaves that one draw asks for evidence at most, refused ones included.
pub const MAX_ATTESTED_PER_DRAW: usize = 16;

/// Drawn enclaves, in order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Draw {
    pub(super) enclaves: Vec<(EnclaveId, PlatformId)>,
    pub(super) drawn_at: UnixTime,
}

/// How many candidates to draw, and on how many platforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) slots: usize,
    pub(super) platforms: usize,
}

// === impl Shape ===

impl Shape {
    /// At least as many candidates as platforms.
    pub(super) fn new(candidates: usize, platforms: usize) -> Self {
        Self {
            slots: candidates.max(platforms),
            platforms,
        }
    }
}

// === impl Draw ===

impl Default for Draw {
    /// Nothing drawn.
    fn default() -> Self {
        Self {
            enclaves: Vec::new(),
            drawn_at: UnixTime(0),
        }
    }
}

impl Draw {
    /// What is left of a draw: nothing when its window has ended, otherwise those that are still there, in their order.
    pub(super) fn kept(&self, now: UnixTime, still_there: impl Fn(&EnclaveId) -> bool) -> Self {
        let in_window = self.drawn_at <= now && now < self.drawn_at.plus(DRAW_SECONDS);
        if !in_window {
            return Self {
                enclaves: Vec::new(),
                drawn_at: now,
            };
        }
        let enclaves = self
            .enclaves
            .iter()
            .filter(|(enclave, _)| still_there(enclave))
            .copied()
            .collect();
        Self {
            enclaves,
            drawn_at: self.drawn_at,
        }
    }

    pub(super) fn is_full(&self, shape: Shape) -> bool {
        self.enclaves.len() >= shape.slots
    }

    /// Whether the draw is on as many platforms as the policy wants.
    pub(super) fn is_spread(&self, shape: Shape) -> bool {
        !self.enclaves.is_empty() && self.platforms() >= shape.platforms
    }

    /// Takes an enclave if the free places are enough for the platforms that are then still missing.
    pub(super) fn offer(&mut self, shape: Shape, enclave: EnclaveId, platform: PlatformId) {
        let is_new = self.enclaves.iter().all(|(_, known)| *known != platform);
        let missing = shape.platforms.saturating_sub(self.platforms());
        let free = shape.slots.saturating_sub(self.enclaves.len());
        if free > 0 && (is_new || free > missing) {
            self.enclaves.push((enclave, platform));
        }
    }

    fn platforms(&self) -> usize {
        let mut seen: Vec<PlatformId> = Vec::with_capacity(self.enclaves.len());
        for (_, platform) in &self.enclaves {
            if !seen.contains(platform) {
                seen.push(*platform);
            }
        }
        seen.len()
    }
}

/// Puts items into random order (Fisher-Yates). `below(n)` is uniform over `0..n`.
pub(super) fn shuffle<T>(items: &mut [T], mut below: impl FnMut(usize) -> usize) {
    for last in (1..items.len()).rev() {
        let other = below(last.saturating_add(1)).min(last);
        items.swap(last, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enclave(number: u8) -> EnclaveId {
        EnclaveId::from_bytes([number; 32])
    }

    fn platform(number: u8) -> PlatformId {
        PlatformId::from_bytes([number; 64])
    }

    fn draw(shape: Shape, offers: &[(u8, u8)]) -> Vec<u8> {
        let mut draw = Draw::default();
        for (number, on) in offers {
            draw.offer(shape, enclave(*number), platform(*on));
        }
        draw.enclaves.iter().map(|(enclave, _)| enclave.as_bytes()[0]).collect()
    }

    #[test]
    fn takes_no_more_than_the_slots() {
        assert_eq!(draw(Shape::new(2, 1), &[(1, 1), (2, 1), (3, 1)]), [1, 2]);
    }

    #[test]
    fn leaves_room_for_the_missing_platforms() {
        assert_eq!(draw(Shape::new(2, 2), &[(1, 1), (2, 1), (3, 2)]), [1, 3]);
        assert_eq!(draw(Shape::new(3, 2), &[(1, 1), (2, 1), (3, 1), (4, 2)]), [1, 2, 4]);
        assert_eq!(Shape::new(1, 2).slots, 2, "platforms need places");
    }

    #[test]
    fn is_spread_only_on_enough_platforms() {
        let shape = Shape::new(2, 2);
        let mut one = Draw::default();
        assert!(!one.is_spread(Shape::new(1, 1)), "an empty draw is none");
        one.offer(shape, enclave(1), platform(1));
        assert!(!one.is_spread(shape));
        one.offer(shape, enclave(2), platform(2));
        assert!(one.is_spread(shape));
    }

    #[test]
    fn order_holds_for_the_window_and_not_longer() {
        let now = UnixTime(1000);
        let draw = Draw {
            enclaves: vec![(enclave(3), platform(1)), (enclave(1), platform(2))],
            drawn_at: now,
        };
        assert_eq!(draw.kept(now.plus(DRAW_SECONDS - 1), |_| true), draw);
        assert!(draw.kept(now.plus(DRAW_SECONDS), |_| true).enclaves.is_empty());
        assert!(
            draw.kept(UnixTime(999), |_| true).enclaves.is_empty(),
            "a clock that went back"
        );
        let kept = draw.kept(now, |enclave| enclave.as_bytes()[0] == 1);
        assert_eq!((kept.enclaves, kept.drawn_at), (vec![(enclave(1), platform(2))], now));
    }

    #[test]
    fn a_shuffle_keeps_every_item_and_can_give_every_order() {
        let mut seen = std::collections::BTreeSet::new();
        for choice in 0..6 {
            let mut items = [1, 2, 3];
            let mut picks = [choice % 3, choice / 3].into_iter();
            shuffle(&mut items, |_| picks.next().unwrap());
            let mut sorted = items;
            sorted.sort_unstable();
            assert_eq!(sorted, [1, 2, 3]);
            seen.insert(items);
        }
        assert_eq!(seen.len(), 6);
    }
}
