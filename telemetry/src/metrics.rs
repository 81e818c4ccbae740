//! Instruments that take only labels of closed sets.

use std::{borrow::Cow, marker::PhantomData};

use opentelemetry::{global, metrics};

use crate::{labels::LabelSet, otlp::SCOPE};

/// Makes instruments. Without a collector they cost next to nothing and go nowhere.
#[derive(Clone, Debug)]
pub struct Meter(metrics::Meter);

/// The meter of this process. What it makes before [`crate::init`] is never exported.
#[must_use]
pub fn meter() -> Meter {
    Meter(global::meter(SCOPE))
}

/// Counts up.
#[derive(Clone, Debug)]
pub struct Counter<L>(metrics::Counter<u64>, PhantomData<fn(L)>);

/// Counts up and down: what is there now, summed over processes.
#[derive(Clone, Debug)]
pub struct UpDownCounter<L>(metrics::UpDownCounter<i64>, PhantomData<fn(L)>);

/// A level at this moment.
#[derive(Clone, Debug)]
pub struct Gauge<L>(metrics::Gauge<u64>, PhantomData<fn(L)>);

/// A distribution.
#[derive(Clone, Debug)]
pub struct Histogram<L>(metrics::Histogram<f64>, PhantomData<fn(L)>);

// === impl Meter ===

/// Names are dotted and begin with `cloister.`, units are UCUM (`s`, `By`, `{request}`).
impl Meter {
    /// A counter.
    #[must_use]
    pub fn counter<L: LabelSet>(
        &self,
        name: &'static str,
        unit: &'static str,
        description: &'static str,
    ) -> Counter<L> {
        let builder = self.0.u64_counter(name).with_unit(unit);
        Counter(builder.with_description(description).build(), PhantomData)
    }

    /// A counter that can go down.
    #[must_use]
    pub fn up_down_counter<L: LabelSet>(
        &self,
        name: &'static str,
        unit: &'static str,
        description: &'static str,
    ) -> UpDownCounter<L> {
        let builder = self.0.i64_up_down_counter(name).with_unit(unit);
        UpDownCounter(builder.with_description(description).build(), PhantomData)
    }

    /// A gauge.
    #[must_use]
    pub fn gauge<L: LabelSet>(&self, name: &'static str, unit: &'static str, description: &'static str) -> Gauge<L> {
        let builder = self.0.u64_gauge(name).with_unit(unit);
        Gauge(builder.with_description(description).build(), PhantomData)
    }

    /// A histogram over `bounds`, ascending upper bounds of its buckets.
    #[must_use]
    pub fn histogram<L: LabelSet>(
        &self,
        name: &'static str,
        unit: &'static str,
        description: &'static str,
        bounds: &'static [f64],
    ) -> Histogram<L> {
        let builder = self.0.f64_histogram(name).with_unit(Cow::Borrowed(unit));
        let builder = builder.with_description(description);
        Histogram(builder.with_boundaries(bounds.to_vec()).build(), PhantomData)
    }
}

// === impl Counter ===

impl<L: LabelSet> Counter<L> {
    /// Adds.
    pub fn add(&self, count: u64, labels: L) {
        self.0.add(count, labels.attributes().as_ref());
    }
}

// === impl UpDownCounter ===

impl<L: LabelSet> UpDownCounter<L> {
    /// Adds, or takes away.
    pub fn add(&self, count: i64, labels: L) {
        self.0.add(count, labels.attributes().as_ref());
    }
}

// === impl Gauge ===

impl<L: LabelSet> Gauge<L> {
    /// Sets the level.
    pub fn set(&self, level: u64, labels: L) {
        self.0.record(level, labels.attributes().as_ref());
    }
}

// === impl Histogram ===

impl<L: LabelSet> Histogram<L> {
    /// Takes in one value.
    pub fn record(&self, value: f64, labels: L) {
        self.0.record(value, labels.attributes().as_ref());
    }
}
