//! Where a run was made.

use std::{fs, thread};

use serde::Serialize;

/// What a reader has to know of the machine.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    /// Cores that this process may use.
    cores: usize,
    /// Processor, as the kernel names it.
    processor: String,
    /// Memory in MiB.
    memory_mib: u64,
    /// Kernel.
    kernel: String,
    /// Load averages over 1, 5 and 15 minutes before the run.
    load_before: String,
    /// The same after it.
    load_after: String,
    /// Cargo's profile.
    profile: &'static str,
}

impl Machine {
    /// Describes this machine before a run.
    pub(crate) fn describe() -> Self {
        Self {
            cores: thread::available_parallelism().map_or(0, usize::from),
            processor: field("/proc/cpuinfo", "model name"),
            memory_mib: field("/proc/meminfo", "MemTotal")
                .trim_end_matches(" kB")
                .parse()
                .unwrap_or(0)
                / 1024,
            kernel: line("/proc/sys/kernel/osrelease"),
            load_before: load(),
            load_after: String::new(),
            profile: if cfg!(debug_assertions) { "dev" } else { "release" },
        }
    }

    /// Notes the load after the run.
    pub(crate) fn finish(&mut self) {
        self.load_after = load();
    }

    /// One line for people.
    pub(crate) fn summary(&self) -> String {
        let Self {
            cores,
            processor,
            profile,
            load_before,
            ..
        } = self;
        format!("{cores} cores of {processor}, load {load_before}, {profile} build")
    }
}

fn load() -> String {
    line("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':'));
    value.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}
