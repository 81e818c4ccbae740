//! Medians with bootstrap intervals.

use serde::Serialize;

/// Samples drawn again for an interval.
const RESAMPLES: usize = 4000;
/// The draws are the same in each run: equal samples have equal intervals.
const SEED: u64 = 0x636c_6f69_7374_6572;

/// A median with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Estimate {
    /// Samples behind it.
    pub(crate) count: usize,
    /// Their median.
    pub(crate) median: f64,
    /// Lower end of the 95 % percentile bootstrap interval of the median.
    pub(crate) low: f64,
    /// Upper end.
    pub(crate) high: f64,
}

impl Estimate {
    /// The median of `samples`; none if there are none.
    #[must_use]
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        let middle = median(samples)?;
        let mut random = SplitMix(SEED);
        let mut drawn = vec![0.0; samples.len()];
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .filter_map(|_| {
                drawn.fill_with(|| samples[random.below(samples.len())]);
                median(&drawn)
            })
            .collect();
        medians.sort_unstable_by(f64::total_cmp);
        Some(Self {
            count: samples.len(),
            median: middle,
            low: quantile(&medians, 0.025)?,
            high: quantile(&medians, 0.975)?,
        })
    }
}

/// The middle sample, or the mean of the two in the middle.
#[must_use]
pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// A quantile of sorted samples, linear between two of them.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let at = share * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(below + (above - below) * at.fract())
}

/// The generator of Steele, Lea and Flood: small, and good enough to draw samples.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is far below 2^64: the bias does not matter.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or_default()
    }
}
