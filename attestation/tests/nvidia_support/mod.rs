//! Captured evidence of NVIDIA's devices; `testdata/SOURCES.md` says where it is from.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

pub mod synthetic;

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloister_attestation::UnixTime;
use cloister_attestation::nvidia::{DeviceArch, VerifiedDevice, verify};
use serde_json::Value;

/// 2024-12-01T00:00:00Z.
pub const NOW: UnixTime = UnixTime(1_733_011_200);

/// One report and its chain.
pub struct Captured {
    pub name: String,
    pub arch: DeviceArch,
    pub evidence: Vec<u8>,
    pub chain: String,
    /// What its file says beside, if it is JSON.
    pub said: Value,
}

impl Captured {
    pub fn verified(&self) -> VerifiedDevice {
        verify(&self.evidence, &self.chain, self.arch, NOW).unwrap_or_else(|refusal| panic!("{}: {refusal}", self.name))
    }
}

pub fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/nvidia")
}

pub fn text(path: &str) -> String {
    std::fs::read_to_string(testdata().join(path)).unwrap()
}

/// A report in hex with its chain, as the message.
pub fn report(evidence: &str, chain: &str, arch: DeviceArch) -> Captured {
    Captured {
        name: evidence.to_owned(),
        arch,
        evidence: hex::decode(text(evidence).trim()).unwrap(),
        chain: text(chain),
        said: Value::Null,
    }
}

/// All entries of a JSON file.
pub fn json(path: &str) -> Vec<Captured> {
    let entries: Vec<Value> = serde_json::from_str(&text(path)).unwrap();
    let bytes = |entry: &Value, key: &str| STANDARD.decode(entry[key].as_str().unwrap()).unwrap();
    let captured = |(index, entry): (usize, Value)| Captured {
        name: format!("{path} {index}"),
        arch: serde_json::from_value(entry["arch"].clone()).unwrap(),
        evidence: bytes(&entry, "evidence"),
        chain: String::from_utf8(bytes(&entry, "certificate")).unwrap(),
        said: entry,
    };
    entries.into_iter().enumerate().map(captured).collect()
}

/// The one complete positive case.
pub fn hopper() -> Captured {
    report("e2e_pass/report.hex", "e2e_pass/cert_chain.pem", DeviceArch::Hopper)
}

/// A Hopper whose report names its firmware (FWID).
pub fn hopper_550() -> Captured {
    report(
        "reports/nvtrust_hopperAttestationReport.txt",
        "reports/nvtrust_hopperCertChain.txt",
        DeviceArch::Hopper,
    )
}

pub fn blackwell() -> Captured {
    report(
        "reports/sdk_sample_blackwellAttestationReport.txt",
        "reports/sdk_sample_blackwellCertChain.txt",
        DeviceArch::Blackwell,
    )
}

/// The report with a zero byte after its signature.
pub fn hopper_with_a_zero_byte() -> Captured {
    report(
        "reports/trustee_hopper_coco_report1.txt",
        "reports/trustee_hopper_coco_certs1.txt",
        DeviceArch::Hopper,
    )
}

pub fn switch() -> Captured {
    json("json/sdk_switch_evidence_ls10.json").remove(0)
}

/// Each distinct file of reports.
pub fn reports() -> Vec<Captured> {
    let hopper = |evidence: &str, chain: &str| {
        report(
            &format!("reports/{evidence}.txt"),
            &format!("reports/{chain}.txt"),
            DeviceArch::Hopper,
        )
    };
    vec![
        self::hopper(),
        hopper("gonvtrust_attestationReport", "gonvtrust_gpuAkCertChain"),
        hopper_550(),
        hopper("sdk_hopperAttestationReport", "sdk_hopperCertChain"),
        hopper("sdk_sample_hopperAttestationReport", "sdk_sample_hopperCertChain"),
        hopper(
            "sdk_sample_hopperAttestationReportExpired",
            "sdk_sample_hopperCertChainExpired",
        ),
        hopper("trustee_hopperAttestationReport", "trustee_hopper_cert_chain_case1"),
        hopper_with_a_zero_byte(),
        blackwell(),
    ]
}

/// Every captured report: 9 of files, 19 of JSON.
pub fn all() -> Vec<Captured> {
    let files = [
        "json/nvtrust_ppcie_gpu_evidence.json",
        "json/nvtrust_ppcie_switch_evidence.json",
        "json/sdk_hopper_evidence.json",
        "json/sdk_hopper_evidence_cert_hold.json",
        "json/sdk_multi_switch_ls10.json",
        "json/sdk_switch_evidence_ls10.json",
    ];
    reports()
        .into_iter()
        .chain(files.iter().flat_map(|file| json(file)))
        .collect()
}
