//! The SIMULATED TEE: what it reports, and a policy that accepts it. It protects nothing: it lets everything else be run and
//! tested on a machine without a TEE.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::Sha256Digest;
use crate::policy::{AppraisalPolicy, Danger, Generation, Measurement, TcbVersion, WorkloadPolicy};
use crate::tee::Tee;
use crate::workload::{EngineConfinement, Workload};

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

/// A policy that accepts one SIMULATED TEE, one measurement and one workload, and nothing else.
#[must_use]
pub fn simulated_policy(root: Sha256Digest, measurement: Measurement, workload: &Workload) -> AppraisalPolicy {
    AppraisalPolicy {
        tees: BTreeSet::from([Tee::Simulated]),
        allowed_generations: BTreeSet::from([SIMULATED_GENERATION]),
        min_tcb: BTreeMap::from([(SIMULATED_GENERATION, SIMULATED_TCB)]),
        measurements: BTreeSet::from([measurement]),
        host_data: BTreeSet::from([SIMULATED_HOST_DATA]),
        workloads: WorkloadPolicy {
            engine_images: BTreeSet::from([workload.engine_image]),
            models: BTreeMap::from([(workload.served_model_name.clone(), workload.model)]),
            switch_isolation: workload.switch_isolation,
            digests: Some(BTreeSet::from([workload.digest()])),
            ..WorkloadPolicy::default()
        },
        danger: Danger {
            simulated_tee: Some(root),
            weak_confinement: workload.confinement == EngineConfinement::Weak,
            ..Danger::default()
        },
        ..AppraisalPolicy::default()
    }
}
