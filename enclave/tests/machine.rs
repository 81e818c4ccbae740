//! The program on a machine with GPUs, by NVIDIA's library as a fake: what it shows, and what it refuses to start on.

#[path = "../../tests/fake-nvml/library.rs"]
mod library;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use cloister_attestation::{Bundle, CpuEvidence, DeviceArch, UnixTime};
use cloister_enclave::machine::{UnfitGpus, check_gpus, genuine};
use cloister_enclave_attester::{GpuError, Gpus, SimulatedTee};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::library::library;

const TWO: &str = "gpu GPU-0 hopper report.hex chain.pem\ngpu GPU-1 hopper report.hex chain.pem\n";
const NOW: UnixTime = UnixTime(1_733_011_200);

/// A folder with a SIMULATED TEE, the library, and a configuration that names both.
struct Machine {
    dir: TempDir,
}

impl Machine {
    fn new(script: &str) -> Self {
        let machine = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::copy(library(), machine.library()).unwrap();
        let evidence = Path::new(env!("CARGO_MANIFEST_DIR")).join("../attestation/testdata/nvidia/e2e_pass");
        for (name, from) in [("report.hex", "report.hex"), ("chain.pem", "cert_chain.pem")] {
            fs::write(machine.path(name), fs::read(evidence.join(from)).unwrap()).unwrap();
        }
        machine.behave(script);
        fs::write(machine.path("model"), "model").unwrap();
        let config = json!({
            "listen": "127.0.0.1:0",
            "tls": {"ca": "ca.pem", "certificate": "e.pem", "key": "e.key"},
            "clusterId": "local",
            "model": {"name": "m", "path": machine.path("model")},
            "engine": {"kind": "simulator", "image": "/bin/true", "danger": {"weakConfinement": true}},
            "tee": {"kind": "simulated", "dir": simulated_tee()},
            "gpus": {"library": machine.library()},
            "runtimeDir": machine.path("run"),
        });
        fs::write(machine.path("enclave.yaml"), config.to_string()).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn library(&self) -> PathBuf {
        self.path("libnvidia-ml.so.1")
    }

    fn behave(&self, script: &str) {
        fs::write(self.path("fake-nvml.txt"), script).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut program = Command::new(env!("CARGO_BIN_EXE_cloister-enclave"));
        program.args(arguments).arg("--config").arg(self.path("enclave.yaml"));
        program.output().unwrap()
    }
}

/// Made once: its keys take seconds.
fn simulated_tee() -> &'static Path {
    static TEE: OnceLock<TempDir> = OnceLock::new();
    let dir = TEE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        SimulatedTee::install(dir.path()).unwrap();
        dir
    });
    dir.path()
}

fn words(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn attest_prints_a_bundle_whose_parts_answer_the_nonce() {
    let machine = Machine::new(TWO);
    let output = machine.run(&["attest", "--nonce", &"5a".repeat(32)]);
    assert!(output.status.success(), "{}", words(&output));
    let bundle = Bundle::from_json(output.stdout.trim_ascii()).unwrap();
    let nonce = [0x5a; 32];
    assert_eq!(bundle.nonce.as_deref(), Some(nonce.as_slice()));
    let devices: Vec<&[u8]> = bundle.devices.iter().map(|device| device.evidence.as_slice()).collect();
    assert_eq!(devices.len(), 2);
    assert_eq!(bundle.devices[0].arch, DeviceArch::Hopper);
    assert_eq!(devices[1][4..36], nonce);
    let Some(CpuEvidence::Simulated { report, .. }) = &bundle.cpu else {
        panic!("{:?}", bundle.cpu);
    };
    assert_eq!(report[0x50..0x70], nonce);
    assert_eq!(report[0x70..0x90], [0; 32]);
}

#[test]
fn attest_refuses_other_nonces() {
    let machine = Machine::new(TWO);
    for nonce in ["", "5a", &"5a".repeat(33), &"zz".repeat(32)] {
        let output = machine.run(&["attest", "--nonce", nonce]);
        assert_eq!(output.status.code(), Some(2), "{nonce}");
        assert!(
            nonce.is_empty() || words(&output).contains("32 bytes in hex"),
            "{}",
            words(&output)
        );
    }
}

#[test]
fn doctor_says_what_is_seen_and_fails_where_it_cannot_be_used() {
    let machine = Machine::new(TWO);
    let output = machine.run(&["doctor"]);
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{seen}");
    assert_eq!(seen["tee"], "SIMULATED");
    assert_eq!(seen["evidence"], "ok");
    assert_eq!(seen["gpus"]["list"][1]["uuid"], "GPU-1");
    assert_eq!(seen["gpus"]["driver"], "545.00");
    machine.behave(&format!("{TWO}devtools 1\n"));
    let output = machine.run(&["doctor"]);
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(seen["gpus"]["state"].as_str().unwrap().contains("DevTools"), "{seen}");
    machine.behave("");
    let seen: Value = serde_json::from_slice(&machine.run(&["doctor"]).stdout).unwrap();
    assert!(seen["evidence"].as_str().unwrap().contains("no GPU"), "{seen}");
}

#[test]
fn an_enclave_does_not_start_on_gpus_that_may_not_be_used() {
    for (line, reason) in [
        ("ready 0", "are not ready"),
        ("feature 0", "confidential computing is off"),
        ("devtools 1", "DevTools"),
        ("environment 1", "production"),
        ("verbatim", "number 0 is refused"),
        ("", "number 0 is refused"),
    ] {
        let machine = Machine::new(&format!("{TWO}{line}\n"));
        let output = machine.run(&[]);
        assert_eq!(output.status.code(), Some(1), "{line}");
        let words = words(&output);
        assert!(
            words.contains("may not be used") && words.contains(reason),
            "{line}: {words}"
        );
    }
}

#[test]
fn a_real_tee_that_is_not_there_is_said() {
    let machine = Machine::new(TWO);
    let config = fs::read_to_string(machine.path("enclave.yaml")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["tee"] = json!({"kind": "snp", "reportRoot": "/nonexistent/report", "device": "/nonexistent/sev-guest"});
    fs::write(machine.path("enclave.yaml"), config.to_string()).unwrap();
    let output = machine.run(&["attest", "--nonce", &"5a".repeat(32)]);
    assert_eq!(output.status.code(), Some(1));
    let words = words(&output);
    assert!(
        words.contains("/nonexistent/report") && words.contains("/nonexistent/sev-guest"),
        "{words}"
    );
}

#[test]
fn every_gpu_is_verified_and_the_first_refused_one_is_named() {
    let machine = Machine::new(TWO);
    let gpus = Gpus::open(&machine.library()).unwrap();
    assert!(check_gpus(&gpus, NOW, |_, _, _| Ok(())).is_ok());
    let second = |device: &cloister_attestation::DeviceEvidence, nonce: &[u8; 32], now: UnixTime| {
        assert_eq!(device.evidence[4..36], *nonce);
        assert_eq!(now, NOW);
        Err("forged".to_owned())
    };
    let refused = check_gpus(&gpus, NOW, second).unwrap_err();
    assert!(
        matches!(&refused, UnfitGpus::Evidence { number: 0, reason } if reason == "forged"),
        "{refused}"
    );
    machine.behave(&format!("{TWO}ready 0\n"));
    let refused = check_gpus(&gpus, NOW, genuine).unwrap_err();
    assert!(matches!(refused, UnfitGpus::State(GpuError::NotReady)), "{refused}");
    machine.behave(&format!("{TWO}verbatim\n"));
    // The captured reports are genuine at the time of their certificates, and were made for somebody else's nonce.
    let refused = check_gpus(&gpus, NOW, genuine).unwrap_err();
    assert!(refused.to_string().contains("another nonce"), "{refused}");
    machine.behave(TWO);
    let refused = check_gpus(&gpus, NOW, genuine).unwrap_err();
    assert!(
        matches!(&refused, UnfitGpus::Evidence { number: 0, .. }),
        "our nonce under the captured signature"
    );
    assert!(!refused.to_string().contains("another nonce"), "{refused}");
}
