//! The statistics of the benches, which have no test harness of their own.

#[path = "../benches/speed/statistics.rs"]
mod statistics;

use statistics::{Estimate, median};

#[test]
fn a_median_is_the_middle_or_between_the_two_in_the_middle() {
    assert_eq!(median(&[]), None);
    assert_eq!(median(&[3.0]), Some(3.0));
    assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
}

#[test]
fn an_interval_holds_the_median_and_is_the_same_each_time() {
    let samples: Vec<f64> = (0..101).map(f64::from).collect();
    let estimate = Estimate::of(&samples).unwrap();
    assert_eq!((estimate.count, estimate.median), (101, 50.0));
    // The order statistics of a binomial give 40 and 60 for these.
    assert!((36.0..=44.0).contains(&estimate.low), "{estimate:?}");
    assert!((56.0..=64.0).contains(&estimate.high), "{estimate:?}");
    assert_eq!(Estimate::of(&samples), Some(estimate));
    assert_eq!(Estimate::of(&[]), None);
}

#[test]
fn equal_samples_leave_nothing_open() {
    let estimate = Estimate::of(&[7.0; 5]).unwrap();
    assert_eq!((estimate.low, estimate.median, estimate.high), (7.0, 7.0, 7.0));
}
