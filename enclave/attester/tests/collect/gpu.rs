//! Evidence and state of GPUs through the real wrapper.

use std::path::Path;

use cloister_attestation::bundle::{DeviceArch, DeviceEvidence};
use cloister_enclave_attester::gpu::GpuState;
use cloister_enclave_attester::{GpuError, Gpus};

use crate::fake_nvml::{FakeNvml, TWO};
use crate::snp::testdata;

const NONCE: [u8; 32] = [0x5a; 32];
const REPORT: &str = "nvmlDeviceGetConfComputeGpuAttestationReport";
const CHAIN: &str = "nvmlDeviceGetConfComputeGpuCertificate";
const READY: GpuState = GpuState {
    confidential: true,
    devtools: false,
    ready: true,
    production: true,
    protected_pcie: false,
};

fn captured(name: &str) -> Vec<u8> {
    let text = String::from_utf8(testdata(name)).unwrap();
    hex::decode(text.split_whitespace().collect::<String>()).unwrap()
}

fn evidence(script: &str) -> Result<Vec<DeviceEvidence>, GpuError> {
    FakeNvml::new(script).open()?.evidence(&NONCE)
}

/// The refusal of two GPUs with `line` added.
fn refusal(line: &str) -> GpuError {
    evidence(&format!("{TWO}{line}\n")).unwrap_err()
}

#[test]
fn every_gpu_answers_the_nonce() {
    let made = evidence(TWO).unwrap();
    let hopper = captured("nvidia/e2e_pass/report.hex");
    assert_eq!(made.len(), 2);
    assert_eq!(made[0].arch, DeviceArch::Hopper);
    assert_eq!(made[0].evidence[4..36], NONCE);
    assert_eq!(made[0].evidence[36..], hopper[36..]);
    assert_eq!(
        made[0].certificate.as_bytes(),
        testdata("nvidia/e2e_pass/cert_chain.pem")
    );
    assert_eq!(made[1].arch, DeviceArch::Blackwell);
    assert_eq!(made[1].evidence[4..36], NONCE);
}

#[test]
fn a_captured_report_is_passed_on_byte_by_byte() {
    let made = evidence(&format!("{TWO}verbatim\n")).unwrap();
    assert_eq!(made[0].evidence, captured("nvidia/e2e_pass/report.hex"));
}

#[test]
fn gpus_and_driver_are_named() {
    let fake = FakeNvml::new(&format!("{TWO}driver 580.95.05\n"));
    let gpus = fake.open().unwrap();
    assert_eq!(gpus.driver().unwrap(), "580.95.05");
    let listed = gpus.list().unwrap();
    assert_eq!(listed[0].uuid, "GPU-0");
    assert_eq!(listed[1].arch, DeviceArch::Blackwell);
    assert_eq!(listed[0].name, "Fake GPU");
}

#[test]
fn lengths_outside_the_librarys_buffer_are_refused() {
    for (line, what) in [
        (format!("length {REPORT} 8193"), "attestation report"),
        (format!("length {REPORT} 0"), "attestation report"),
        (format!("length {REPORT} 4294967295"), "attestation report"),
        (format!("length {CHAIN} 5121"), "certificate chain"),
        (format!("length {CHAIN} 0"), "certificate chain"),
    ] {
        let error = refusal(&line);
        assert!(
            matches!(&error, GpuError::Length { what: of, uuid, .. } if *of == what && uuid == "GPU-0"),
            "{error}"
        );
    }
    assert!(
        evidence(&format!("{TWO}length cec 4294967295\n")).is_ok(),
        "there is no CEC report to read"
    );
}

#[test]
fn a_chain_that_is_not_pem_is_refused() {
    // NULs behind the text are the library's, and left.
    let padded = evidence(&format!("{TWO}length {CHAIN} 5120\n")).unwrap();
    assert_eq!(
        padded[0].certificate.as_bytes(),
        testdata("nvidia/e2e_pass/cert_chain.pem")
    );
    // The script itself, as a chain.
    let broken = "gpu GPU-0 hopper hopper.hex fake-nvml.txt\n";
    assert!(matches!(evidence(broken).unwrap_err(), GpuError::Chain(uuid) if uuid == "GPU-0"));
}

#[test]
fn no_gpu_too_many_and_one_twice_are_refused() {
    assert!(matches!(evidence("").unwrap_err(), GpuError::None));
    assert!(matches!(refusal("count 0"), GpuError::None));
    assert!(matches!(refusal("count 17"), GpuError::TooMany(17)));
    assert!(matches!(refusal("count 4294967295"), GpuError::TooMany(u32::MAX)));
    let twice = "gpu GPU-0 hopper hopper.hex hopper.pem\n".repeat(2);
    assert!(matches!(evidence(&twice).unwrap_err(), GpuError::Repeated(uuid) if uuid == "GPU-0"));
    let more = refusal("count 3").to_string();
    assert!(more.contains("GPU 2 of 3"), "{more}");
}

#[test]
fn an_architecture_without_evidence_is_refused() {
    for (number, name) in [("7", "Ampere"), ("11", "number 11")] {
        let script = format!("gpu GPU-0 {number} hopper.hex hopper.pem\n");
        let error = evidence(&script).unwrap_err();
        assert!(
            matches!(&error, GpuError::Architecture { arch, .. } if arch == name),
            "{error}"
        );
    }
}

#[test]
fn a_failing_function_is_named_with_its_gpu() {
    for (function, words) in [
        ("nvmlDeviceGetCount_v2", "the number of GPUs"),
        ("nvmlDeviceGetHandleByIndex_v2", "the handle of GPU 0"),
        ("nvmlDeviceGetUUID", "the UUID of GPU 0"),
        ("nvmlDeviceGetArchitecture", "the architecture of GPU 0"),
        ("nvmlDeviceGetName", "the name of GPU 0"),
        (REPORT, "attestation report of GPU GPU-0"),
        (CHAIN, "certificate chain of GPU GPU-0"),
    ] {
        // NVML_ERROR_GPU_IS_LOST
        let error = refusal(&format!("fail {function} 15")).to_string();
        assert!(error.contains(words), "{function}: {error}");
    }
}

#[test]
fn a_library_that_is_absent_or_has_no_driver_says_what_to_do() {
    let absent = Gpus::open(Path::new("/nonexistent/libnvidia-ml.so.1"))
        .unwrap_err()
        .to_string();
    assert!(
        absent.contains("/nonexistent/libnvidia-ml.so.1") && absent.contains("install the driver"),
        "{absent}"
    );
    // NVML_ERROR_DRIVER_NOT_LOADED
    let unloaded = FakeNvml::new("fail nvmlInit_v2 9").open().unwrap_err().to_string();
    assert!(unloaded.contains("driver is not loaded"), "{unloaded}");
}

#[test]
fn each_state_is_told_and_checked() {
    let fake = FakeNvml::new(TWO);
    let gpus = fake.open().unwrap();
    assert_eq!(gpus.state().unwrap(), READY);
    assert!(READY.check().is_ok());
    let state = |line: &str| {
        fake.behave(&format!("{TWO}{line}\n"));
        gpus.state().unwrap()
    };
    assert!(matches!(state("feature 0").check(), Err(GpuError::NotConfidential)));
    assert!(matches!(state("devtools 1").check(), Err(GpuError::DevTools)));
    assert!(matches!(state("ready 0").check(), Err(GpuError::NotReady)));
    // NVML_CC_SYSTEM_ENVIRONMENT_SIM
    assert!(matches!(state("environment 1").check(), Err(GpuError::NotProduction)));
    assert!(state("multigpu 1").protected_pcie);
}

#[test]
fn a_state_that_cannot_be_read_is_an_error() {
    let fake = FakeNvml::new(TWO);
    let gpus = fake.open().unwrap();
    for (function, words) in [
        (
            "nvmlSystemGetConfComputeSettings",
            "whether confidential computing is on",
        ),
        ("nvmlSystemGetConfComputeGpusReadyState", "whether the GPUs are ready"),
        ("nvmlSystemGetConfComputeState", "the environment"),
    ] {
        // NVML_ERROR_NOT_SUPPORTED: a GPU without confidential computing.
        fake.behave(&format!("{TWO}fail {function} 3\n"));
        let error = gpus.state().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
