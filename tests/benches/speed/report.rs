//! What was measured: a table for people, JSON for everything else.

use std::{fs, path::Path};

use serde::Serialize;

use crate::{machine::Machine, statistics::Estimate};

/// A run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    machine: Machine,
    /// Whether the counts are those of `--quick`: a look, not a result.
    quick: bool,
    rows: Vec<Row>,
}

/// Something that was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    section: &'static str,
    name: String,
    unit: &'static str,
    #[serde(flatten)]
    estimate: Estimate,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<Goal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
}

/// What a median should be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Goal {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

impl Goal {
    fn is_met_by(self, median: f64) -> bool {
        match self {
            Self::AtMost(limit) => median <= limit,
            Self::AtLeast(limit) => median >= limit,
        }
    }
}

impl Report {
    /// An empty report of this machine.
    pub(crate) fn new(machine: Machine, quick: bool) -> Self {
        Self {
            machine,
            quick,
            rows: Vec::new(),
        }
    }

    /// Adds the median of `samples` and prints it; nothing if there are none.
    pub(crate) fn add(&mut self, section: &'static str, name: impl Into<String>, unit: &'static str, samples: &[f64]) {
        self.push(section, name.into(), unit, samples, None);
    }

    /// The same for something that has a goal.
    pub(crate) fn add_goal(
        &mut self,
        section: &'static str,
        name: impl Into<String>,
        unit: &'static str,
        samples: &[f64],
        goal: Goal,
    ) {
        self.push(section, name.into(), unit, samples, Some(goal));
    }

    fn push(&mut self, section: &'static str, name: String, unit: &'static str, samples: &[f64], goal: Option<Goal>) {
        let Some(estimate) = Estimate::of(samples) else {
            return;
        };
        if self.rows.last().is_none_or(|row| row.section != section) {
            println!("\n{section}");
            println!("  {:<58} {:>11} {:>23} {:>6}  goal", "", "median", "95 % interval", "n");
        }
        let row = Row {
            section,
            name,
            unit,
            estimate,
            goal,
            met: goal.map(|goal| goal.is_met_by(estimate.median)),
        };
        println!("{}", row.line());
        self.rows.push(row);
    }

    /// Notes the end of the run and writes the JSON.
    pub(crate) fn finish(&mut self, file: Option<&Path>) -> std::io::Result<()> {
        self.machine.finish();
        let Some(file) = file else { return Ok(()) };
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        fs::write(file, json)
    }
}

impl Row {
    fn line(&self) -> String {
        let Estimate {
            count,
            median,
            low,
            high,
        } = self.estimate;
        let goal = match (self.goal, self.met) {
            (Some(Goal::AtMost(limit)), Some(met)) => format!("<= {limit} {}", verdict(met)),
            (Some(Goal::AtLeast(limit)), Some(met)) => format!(">= {limit} {}", verdict(met)),
            _ => String::new(),
        };
        let name = format!("{}, {}", self.name, self.unit);
        let interval = format!("{} .. {}", digits(low), digits(high));
        format!("  {name:<58} {:>11} {interval:>23} {count:>6}  {goal}", digits(median))
            .trim_end()
            .to_owned()
    }
}

const fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

/// Four significant digits, more before the point.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
