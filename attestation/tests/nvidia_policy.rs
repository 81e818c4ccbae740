//! What rules say of captured evidence of NVIDIA's devices, one by one and together.

mod nvidia_support;

use std::collections::{BTreeMap, BTreeSet};

use cloister_attestation::nvidia::policy::{DeviceCount, Inventory};
use cloister_attestation::nvidia::rim::{RimRefusal, RimStore};
use cloister_attestation::nvidia::{
    CcMode, DeviceArch, DeviceState, Expected, FeatureMode, NvidiaPolicy, NvidiaRefusal, VerifiedDevice, fleet,
};
use cloister_attestation::{AppraisalPolicy, Rules, Trust};
use nvidia_support::{NOW, blackwell, hopper, hopper_550, json, switch, text};
use serde_json::Value;

const EXPECTED: Expected<'static> = Expected {
    nonce: None,
    state: None,
    rims: None,
    ocsp: &[],
    now: NOW,
};

/// A policy that takes the device, but for its references and its revocation, of which nothing was captured.
fn policy(device: &VerifiedDevice) -> NvidiaPolicy {
    let mut policy = NvidiaPolicy {
        architectures: [device.arch()].into(),
        features: [device.feature()].into(),
        min_driver: device
            .driver()
            .map(|driver| (device.arch(), driver.clone()))
            .into_iter()
            .collect(),
        min_vbios: [(device.arch(), device.vbios())].into(),
        require_fwid: device.opaque().fwid.is_some(),
        require_rims: false,
        ..NvidiaPolicy::default()
    };
    policy.revocation.allow_unknown = true;
    policy
}

fn refusal(device: &VerifiedDevice, nvidia: &NvidiaPolicy, expected: &Expected<'_>) -> Option<NvidiaRefusal> {
    let policy = AppraisalPolicy {
        nvidia: nvidia.clone(),
        ..AppraisalPolicy::default()
    };
    device.check(Rules::Policy(&policy), expected).refusal().cloned()
}

fn changed(device: &VerifiedDevice, change: impl Fn(&mut NvidiaPolicy)) -> Option<NvidiaRefusal> {
    let mut nvidia = policy(device);
    change(&mut nvidia);
    refusal(device, &nvidia, &EXPECTED)
}

#[test]
fn captured_devices_pass_a_policy_that_names_what_they_say() {
    for captured in [hopper(), hopper_550(), blackwell(), switch()] {
        let device = captured.verified();
        assert_eq!(refusal(&device, &policy(&device), &EXPECTED), None, "{}", captured.name);
    }
}

#[test]
fn an_empty_policy_accepts_no_device() {
    for captured in [hopper(), blackwell(), switch()] {
        let device = captured.verified();
        assert!(refusal(&device, &NvidiaPolicy::default(), &EXPECTED).is_some());
        let found = changed(&device, |policy| policy.architectures.clear());
        assert_eq!(found, Some(NvidiaRefusal::ArchitectureNotAllowed(device.arch())));
    }
}

#[test]
fn genuine_rules_affirm_the_hardware_and_say_nothing_of_what_runs() {
    for captured in nvidia_support::all() {
        let checks = captured.verified().check(Rules::Genuine, &EXPECTED);
        let vector = checks.vector();
        assert_eq!(
            (checks.trust(), vector.hardware),
            (Trust::Affirming, Trust::Affirming),
            "{}",
            captured.name
        );
        assert_eq!(vector.executables, Trust::None, "{}", captured.name);
    }
}

#[test]
fn another_nonce_is_refused() {
    let device = hopper().verified();
    let nonce = *device.nonce();
    let with = |nonce: &[u8; 32]| {
        let expected = Expected {
            nonce: Some(nonce),
            ..EXPECTED
        };
        let genuine = device.check(Rules::Genuine, &expected).refusal().cloned();
        assert_eq!(genuine, refusal(&device, &policy(&device), &expected));
        genuine
    };
    assert_eq!(with(&nonce), None);
    for at in 0..32 {
        let mut other = nonce;
        other[at] ^= 0x80;
        assert_eq!(with(&other), Some(NvidiaRefusal::Nonce));
    }
}

#[test]
fn firmware_below_the_floor_is_refused() {
    let device = hopper_550().verified();
    let (driver, vbios) = (device.driver().unwrap().clone(), device.vbios());
    let arch = DeviceArch::Hopper;
    for newer in ["550.90.08", "550.144.03", "551.0"] {
        let least: cloister_attestation::nvidia::DriverVersion = newer.parse().unwrap();
        let found = changed(&device, |policy| policy.min_driver = [(arch, least.clone())].into());
        let expected = NvidiaRefusal::DriverBelowFloor {
            found: driver.clone(),
            least,
        };
        assert_eq!(found, Some(expected));
    }
    let least = "96.00.A0.00.01".parse().unwrap();
    let found = changed(&device, |policy| policy.min_vbios = [(arch, least)].into());
    assert_eq!(found, Some(NvidiaRefusal::VbiosBelowFloor { found: vbios, least }));
    let none = changed(&device, |policy| policy.min_driver.clear());
    assert_eq!(none, Some(NvidiaRefusal::NoDriverFloor(arch)));
    let none = changed(&device, |policy| policy.min_vbios = BTreeMap::new());
    assert_eq!(none, Some(NvidiaRefusal::NoVbiosFloor(arch)));
}

#[test]
fn denied_and_unlisted_versions_are_refused() {
    let device = hopper_550().verified();
    let (driver, vbios) = (device.driver().unwrap().clone(), device.vbios());
    // As it might be written otherwise.
    let same: cloister_attestation::nvidia::DriverVersion = "550.90.7".parse().unwrap();
    let denied = changed(&device, |policy| policy.denied_drivers = [same.clone()].into());
    assert_eq!(denied, Some(NvidiaRefusal::Driver(driver.clone())));
    let unlisted = changed(&device, |policy| policy.allowed_drivers = Some(BTreeSet::new()));
    assert_eq!(unlisted, Some(NvidiaRefusal::Driver(driver)));
    assert_eq!(
        changed(&device, |policy| policy.allowed_drivers = Some([same.clone()].into())),
        None
    );
    let denied = changed(&device, |policy| policy.denied_vbios = [vbios].into());
    assert_eq!(denied, Some(NvidiaRefusal::Vbios(vbios)));
    let unlisted = changed(&device, |policy| policy.allowed_vbios = Some(BTreeSet::new()));
    assert_eq!(unlisted, Some(NvidiaRefusal::Vbios(vbios)));
    assert_eq!(
        changed(&device, |policy| policy.allowed_vbios = Some([vbios].into())),
        None
    );
}

#[test]
fn a_report_that_does_not_name_its_firmware_needs_a_policy_that_says_so() {
    let device = hopper().verified();
    assert_eq!(device.opaque().fwid, None);
    let found = changed(&device, |policy| policy.require_fwid = true);
    assert_eq!(found, Some(NvidiaRefusal::FwidMissing));
    // No switch names it.
    assert_eq!(changed(&switch().verified(), |policy| policy.require_fwid = true), None);
}

#[test]
fn a_gpu_that_is_set_up_for_something_else_is_refused() {
    let device = json("json/sdk_hopper_evidence.json").remove(0).verified();
    assert_eq!(device.feature(), FeatureMode::Ppcie);
    let found = changed(&device, |policy| {
        policy.features = [FeatureMode::Spt, FeatureMode::Mpt].into();
    });
    assert_eq!(found, Some(NvidiaRefusal::Feature(FeatureMode::Ppcie)));
}

#[test]
fn a_gpu_with_confidential_computing_off_or_open_or_that_is_not_ready_is_refused() {
    let device = hopper().verified();
    let with = |state| {
        let expected = Expected { state, ..EXPECTED };
        let genuine = device.check(Rules::Genuine, &expected).refusal().cloned();
        assert_eq!(genuine, refusal(&device, &policy(&device), &expected));
        genuine
    };
    let state = |cc, ready| Some(DeviceState { cc, ready });
    assert_eq!(with(state(CcMode::On, true)), None);
    for cc in [CcMode::Off, CcMode::DevTools] {
        assert_eq!(with(state(cc, true)), Some(NvidiaRefusal::CcMode(cc)));
    }
    assert_eq!(with(state(CcMode::On, false)), Some(NvidiaRefusal::NotReady));
    let unread = changed(&device, |policy| policy.require_state = true);
    assert_eq!(unread, Some(NvidiaRefusal::StateUnknown));
    assert_eq!(
        changed(&switch().verified(), |policy| policy.require_state = true),
        None
    );
}

#[test]
fn a_device_outside_of_the_inventory_is_refused() {
    let device = hopper().verified();
    let serial = device.serial().clone();
    let digests = device.chain().digests();
    let with = |inventory: Inventory| changed(&device, |policy| policy.inventory = inventory.clone());
    let listed = Inventory {
        allowed_serials: [serial.clone()].into(),
        ..Inventory::default()
    };
    assert_eq!(with(listed.clone()), None);
    let by_certificate = Inventory {
        allowed_certificates: [device.certificate_digest()].into(),
        ..Inventory::default()
    };
    assert_eq!(with(by_certificate), None);
    let other = Inventory {
        allowed_serials: [hopper_550().verified().serial().clone()].into(),
        ..Inventory::default()
    };
    assert_eq!(with(other), Some(NvidiaRefusal::NotInInventory(serial.clone())));
    let denied = Inventory {
        denied_serials: [serial.clone()].into(),
        ..listed.clone()
    };
    assert_eq!(with(denied), Some(NvidiaRefusal::Denied(serial.clone())));
    for digest in digests {
        let denied = Inventory {
            denied_certificates: [digest].into(),
            ..listed.clone()
        };
        assert_eq!(with(denied), Some(NvidiaRefusal::Denied(serial.clone())));
    }
}

#[test]
fn a_device_without_references_or_news_of_revocation_needs_a_policy_that_says_so() {
    let device = hopper().verified();
    let found = changed(&device, |policy| policy.require_rims = true);
    assert_eq!(found, Some(NvidiaRefusal::RimMissing));
    let found = changed(&device, |policy| policy.revocation.allow_unknown = false);
    assert!(matches!(found, Some(NvidiaRefusal::Revocation { .. })), "{found:?}");
}

fn store(files: &[&str]) -> RimStore {
    let mut store = RimStore::new();
    for file in files {
        store.insert(file, text(file).as_bytes()).unwrap();
    }
    store
}

const DRIVER_RIM: &str = "e2e_pass/driver_rim_545.00.swidtag";
const VBIOS_RIM: &str = "e2e_pass/vbios_rim_96.00.5E.00.01.swidtag";

#[test]
fn the_positive_case_matches_its_references() {
    let device = hopper().verified();
    let names: Vec<String> = device.rim_ids().iter().map(ToString::to_string).collect();
    assert_eq!(
        names,
        ["NV_GPU_DRIVER_GH100_545.00", "NV_GPU_VBIOS_1010_0200_882_96005E0001"]
    );
    let store = store(&[DRIVER_RIM, VBIOS_RIM]);
    // 33 are active; NVDEC0 is off, and its measurement is not compared.
    let found = device.compare(&store, NOW).unwrap().comparison;
    assert_eq!((found.matching.len(), found.skipped), (32, [35].into()));
    let expected = Expected {
        rims: Some(&store),
        ..EXPECTED
    };
    let mut strict = policy(&device);
    strict.require_rims = true;
    assert_eq!(refusal(&device, &strict, &expected), None);
    let checks = device.check(Rules::Genuine, &expected);
    assert_eq!(checks.vector().executables, Trust::Affirming);
    let claims = serde_json::to_value(device.claims(&expected, &checks)).unwrap();
    let theirs: Value = serde_json::from_str(&text("json/sdk_hopperClaimsv3_decoded.json")).unwrap();
    for (name, value) in theirs["GPU-0"].as_object().unwrap() {
        let is_of_rims = name.contains("-rim-") && !name.contains("cert-chain");
        if is_of_rims || ["measres", "secboot", "dbgstat"].contains(&name.as_str()) {
            assert_eq!(&claims[name], value, "{name}");
        }
    }
}

#[test]
fn measurements_that_the_references_do_not_have_are_refused() {
    let device = hopper().verified();
    let store = store(&[DRIVER_RIM, "rims/nvtrust_1010_0200_882_96005E0001_PROD.swidtag"]);
    let expected = Expected {
        rims: Some(&store),
        ..EXPECTED
    };
    let found = device.check(Rules::Genuine, &expected).refusal().cloned();
    assert_eq!(found, Some(NvidiaRefusal::Measurements([1, 2, 3, 9].into())));
}

#[test]
fn a_reference_that_is_missing_or_does_not_hold_is_refused() {
    let device = hopper().verified();
    let mut strict = policy(&device);
    strict.require_rims = true;
    let store = store(&[DRIVER_RIM]);
    let expected = Expected {
        rims: Some(&store),
        ..EXPECTED
    };
    let found = refusal(&device, &strict, &expected);
    assert!(
        matches!(found, Some(NvidiaRefusal::Rim(RimRefusal::Missing(_)))),
        "{found:?}"
    );
    assert_eq!(
        device.check(Rules::Genuine, &expected).vector().executables,
        Trust::None
    );
    // 2026-11-01: the certificates of the references are over.
    let late = Expected {
        now: cloister_attestation::UnixTime(1_793_491_200),
        ..expected
    };
    let found = device.check(Rules::Genuine, &late).refusal().cloned();
    assert!(
        matches!(found, Some(NvidiaRefusal::Rim(RimRefusal::Certificate { .. }))),
        "{found:?}"
    );
}

fn devices(files: &[&str]) -> Vec<VerifiedDevice> {
    let all = files.iter().flat_map(|file| json(file));
    all.map(|captured| captured.verified()).collect()
}

const GPUS: &str = "json/nvtrust_ppcie_gpu_evidence.json";
const SWITCHES: &str = "json/nvtrust_ppcie_switch_evidence.json";

fn fleet_refusal(devices: &[VerifiedDevice]) -> Option<NvidiaRefusal> {
    fleet::check(devices, Rules::Genuine).refusal().cloned()
}

fn counted(devices: &[VerifiedDevice], gpus: u8, switches: u8) -> Option<NvidiaRefusal> {
    let mut policy = AppraisalPolicy::default();
    policy.nvidia.devices = DeviceCount { gpus, switches };
    fleet::check(devices, Rules::Policy(&policy)).refusal().cloned()
}

#[test]
fn the_captured_board_is_complete_and_linked() {
    let board = devices(&[GPUS, SWITCHES]);
    assert_eq!(board.len(), 12);
    let checks = fleet::check(&board, Rules::Genuine);
    assert_eq!((checks.refusal(), checks.trust()), (None, Trust::Affirming));
    assert_eq!(counted(&board, 8, 4), None);
}

#[test]
fn any_device_that_is_missing_from_or_added_to_the_board_is_refused() {
    let board = devices(&[GPUS, SWITCHES]);
    for missing in 0..board.len() {
        let mut fewer = board.clone();
        fewer.remove(missing);
        assert!(matches!(fleet_refusal(&fewer), Some(NvidiaRefusal::PpcieCount { .. })));
        let gpus = if missing < 8 { (7, 4) } else { (8, 3) };
        assert!(matches!(
            counted(&board, gpus.0, gpus.1),
            Some(NvidiaRefusal::DeviceCount { .. })
        ));
        assert!(matches!(
            counted(&fewer, gpus.0, gpus.1),
            Some(NvidiaRefusal::PpcieCount { .. })
        ));
    }
    let stranger = devices(&["json/sdk_switch_evidence_ls10.json"]).remove(0);
    let more = [board.clone(), vec![stranger.clone()]].concat();
    assert!(matches!(
        fleet_refusal(&more),
        Some(NvidiaRefusal::PpcieCount { gpus: 8, switches: 5 })
    ));
    // A genuine switch of another board.
    let mut swapped = board;
    swapped[11] = stranger;
    assert!(matches!(fleet_refusal(&swapped), Some(NvidiaRefusal::Topology(_))));
}

#[test]
fn one_kind_of_the_board_is_looked_at_and_not_run_on() {
    for (files, gpus, switches) in [([GPUS], 8, 0), (["json/sdk_hopper_evidence.json"], 1, 0)] {
        let devices = devices(&files);
        assert_eq!(fleet_refusal(&devices), None);
        let found = counted(&devices, gpus, switches);
        assert!(matches!(found, Some(NvidiaRefusal::PpcieCount { .. })), "{found:?}");
    }
    assert_eq!(fleet_refusal(&devices(&[SWITCHES])), None);
}

#[test]
fn one_device_is_not_taken_for_two() {
    let same = devices(&["json/sdk_multi_switch_ls10.json"]);
    assert_eq!(
        fleet_refusal(&same),
        Some(NvidiaRefusal::DuplicateDevice(same[0].serial().clone()))
    );
    let gpu = hopper().verified();
    let twice = [gpu.clone(), gpu.clone()];
    assert_eq!(
        fleet_refusal(&twice),
        Some(NvidiaRefusal::DuplicateDevice(gpu.serial().clone()))
    );
    assert!(fleet_refusal(&[gpu, hopper_550().verified()]).is_none());
}

#[test]
fn more_or_fewer_devices_than_asked_for_are_refused() {
    let gpu = [hopper().verified()];
    assert_eq!(counted(&gpu, 1, 0), None);
    assert_eq!(counted(&[], 0, 0), None);
    for (gpus, switches) in [(0, 0), (2, 0), (1, 1)] {
        let expected = NvidiaRefusal::DeviceCount {
            found_gpus: 1,
            found_switches: 0,
            gpus,
            switches,
        };
        assert_eq!(counted(&gpu, gpus, switches), Some(expected));
    }
}

#[test]
fn gpus_that_are_set_up_for_different_things_are_refused() {
    let mixed = [
        hopper().verified(),
        devices(&["json/sdk_hopper_evidence.json"]).remove(0),
    ];
    let expected = NvidiaRefusal::FeatureMix(FeatureMode::Spt, FeatureMode::Ppcie);
    assert_eq!(fleet_refusal(&mixed), Some(expected));
}

#[test]
fn claims_are_those_that_nvidia_made_of_the_same_report() {
    let device = hopper_550().verified();
    let nonce = *device.nonce();
    let expected = Expected {
        nonce: Some(&nonce),
        ..EXPECTED
    };
    let checks = device.check(Rules::Genuine, &expected);
    let ours = serde_json::to_value(device.claims(&expected, &checks)).unwrap();
    let theirs: Value = serde_json::from_str(&text("json/sdk_hopperClaimsv3_decoded.json")).unwrap();
    let theirs = &theirs["GPU-0"];
    for name in [
        "ueid",
        "hwmodel",
        "oemid",
        "eat_nonce",
        "x-nvidia-gpu-driver-version",
        "x-nvidia-gpu-vbios-version",
        "x-nvidia-gpu-arch-check",
        "x-nvidia-gpu-attestation-report-parsed",
        "x-nvidia-gpu-attestation-report-nonce-match",
        "x-nvidia-gpu-attestation-report-signature-verified",
        "x-nvidia-gpu-attestation-report-cert-chain-fwid-match",
    ] {
        assert!(!theirs[name].is_null(), "{name}");
        assert_eq!(ours[name], theirs[name], "{name}");
    }
    let chain = "x-nvidia-gpu-attestation-report-cert-chain";
    for name in ["x-nvidia-cert-status", "x-nvidia-cert-expiration-date"] {
        assert_eq!(ours[chain][name], theirs[chain][name], "{name}");
    }
    // Nothing was compared with references, and nobody answered for the certificates.
    assert_eq!(
        (&ours["measres"], &ours[chain]["x-nvidia-cert-ocsp-status"]),
        (&Value::Null, &"unknown".into())
    );
}

#[test]
fn a_switch_has_claims_of_its_own_names() {
    let device = switch().verified();
    let checks = device.check(Rules::Genuine, &EXPECTED);
    let claims = serde_json::to_value(device.claims(&EXPECTED, &checks)).unwrap();
    assert_eq!(claims["x-nvidia-switch-bios-version"], "96.10.55.00.01");
    assert_eq!(claims["hwmodel"], "LS_10 A01 FSP BROM");
    assert!(claims.as_object().unwrap().keys().all(|name| !name.contains("-gpu-")));
}
