//! The SIMULATED TEE: what it reports, and a policy that accepts it. It protects nothing: it lets everything else be run and
//! tested on a machine without a TEE.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{ModelDigest, Sha256Digest};
use crate::policy::{AppraisalPolicy, Danger, Generation, Measurement, TcbVersion, WorkloadPolicy};
use crate::tee::Tee;
use crate::workload::SwitchIsolation;

/// Generation that the SIMULATED TEE plays.
pub const SIMULATED_GENERATION: Generation = Generation::Genoa;

/// Firmware versions that the SIMULATED TEE reports.
pub const SIMULATED_TCB: TcbVersion = TcbVersion {
    fmc: None,
    bootloader: 10,
    tee: 0,
    snp: 25,
    microcode: 84,
};

/// `HOST_DATA` that the SIMULATED TEE reports: the text `SIMULATED`, then zeros.
pub const SIMULATED_HOST_DATA: Sha256Digest =
    Sha256Digest::from_bytes(*b"SIMULATED\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");

/// A policy that accepts one SIMULATED TEE, one measurement, one engine image and the given models, and nothing else.
#[must_use]
pub fn simulated_policy(
    root: Sha256Digest,
    measurement: Measurement,
    engine_image: Sha256Digest,
    models: BTreeMap<String, ModelDigest>,
    switch_isolation: SwitchIsolation,
) -> AppraisalPolicy {
    AppraisalPolicy {
        tees: BTreeSet::from([Tee::Simulated]),
        allowed_generations: BTreeSet::from([SIMULATED_GENERATION]),
        min_tcb: BTreeMap::from([(SIMULATED_GENERATION, SIMULATED_TCB)]),
        measurements: BTreeSet::from([measurement]),
        host_data: BTreeSet::from([SIMULATED_HOST_DATA]),
        workloads: WorkloadPolicy {
            engine_images: BTreeSet::from([engine_image]),
            models,
            switch_isolation,
            ..WorkloadPolicy::default()
        },
        danger: Danger {
            simulated_tee: Some(root),
            ..Danger::default()
        },
        ..AppraisalPolicy::default()
    }
}
