//! CPU and GPUs together: what binds them, and a bundle that can be read again.

use std::path::Path;
use std::sync::Arc;

use cloister_attestation::binding::{devices_digest, gpu_nonce, report_data};
use cloister_attestation::bundle::Bundle;
use cloister_attestation::{CpuEvidence, EnclaveId, Tee};
use cloister_enclave_attester::{Attester, Machine, SnpTee};

use crate::fake_configfs::FakeConfigfs;
use crate::fake_nvml::{FakeNvml, TWO};
use crate::snp::{VCEK, report, sources, table};

const NONCE: [u8; 32] = [0x11; 32];

fn machine(script: Option<&str>) -> (Machine, Option<FakeNvml>) {
    let kernel = Box::new(FakeConfigfs::new("sev_guest", |data| (report(data), table(VCEK))));
    let cpu = SnpTee::with(kernel, Path::new("/nonexistent"), &sources(None)).unwrap();
    let nvml = script.map(FakeNvml::new);
    let gpus = nvml.as_ref().map(|nvml| Arc::new(nvml.open().unwrap()));
    (Machine::new(Box::new(cpu), gpus), nvml)
}

fn carried(bundle: &Bundle) -> &[u8] {
    match &bundle.cpu {
        Some(CpuEvidence::Snp { report, .. }) => &report[0x50..0x90],
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_cpu_binds_nonce_enclave_and_the_exact_evidence_of_its_gpus() {
    let (machine, _nvml) = machine(Some(TWO));
    let enclave = EnclaveId::from_bytes([0x22; 32]);
    let bundle = machine.evidence(&NONCE, &enclave).unwrap().into_bundle(&NONCE);
    assert_eq!(machine.tee(), Tee::Snp);
    let devices: Vec<&[u8]> = bundle.devices.iter().map(|device| device.evidence.as_slice()).collect();
    for device in &devices {
        assert_eq!(
            device[4..36],
            gpu_nonce(&NONCE, &enclave),
            "all GPUs answer the one nonce"
        );
    }
    assert_eq!(
        carried(&bundle),
        report_data(&NONCE, &enclave, &devices_digest(&devices))
    );
    let other = machine.evidence(&NONCE, &EnclaveId::from_bytes([0x23; 32])).unwrap();
    assert_ne!(
        other.devices[0].evidence, bundle.devices[0].evidence,
        "bound to the enclave too"
    );
}

#[test]
fn a_bundle_from_fakes_is_read_again() {
    let (machine, _nvml) = machine(Some(TWO));
    let collected = machine.evidence(&NONCE, &EnclaveId::from_bytes([0; 32])).unwrap();
    let bundle = collected.into_bundle(&NONCE);
    assert_eq!(Bundle::from_json(bundle.to_json().as_bytes()).unwrap(), bundle);
}

#[test]
fn without_gpus_the_digest_is_that_of_none() {
    let (machine, _) = machine(None);
    let enclave = EnclaveId::from_bytes([0x22; 32]);
    let bundle = machine.evidence(&NONCE, &enclave).unwrap().into_bundle(&NONCE);
    assert!(bundle.devices.is_empty());
    assert_eq!(carried(&bundle), report_data(&NONCE, &enclave, &devices_digest(&[])));
}

#[test]
fn a_gpu_that_fails_leaves_no_evidence() {
    let (machine, nvml) = machine(Some(TWO));
    let nvml = nvml.unwrap();
    nvml.behave(&format!("{TWO}fail nvmlDeviceGetConfComputeGpuAttestationReport 15\n"));
    let failed = machine.evidence(&NONCE, &EnclaveId::from_bytes([0; 32]));
    assert!(
        failed.unwrap_err().to_string().contains("GPU-0"),
        "part of a machine is no evidence of it"
    );
}
