//! Random walks that can be walked again.

use std::env;

/// SplitMix64: the whole walk follows from its seed, which is printed.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The seed of `CLOISTER_TEST_SEED`, or else `default`. Printed, for whoever wants to see a failure again.
    #[must_use]
    pub fn seeded(name: &str, default: u64) -> Self {
        let seed = env::var("CLOISTER_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or(default);
        println!("{name}: CLOISTER_TEST_SEED={seed}");
        Self(seed)
    }

    /// An independent walk that follows from this one.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(self.draw())
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// One of `items`, which are not none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}
