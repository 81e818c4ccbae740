//! Captured evidence of NVIDIA's devices through the verifier.

mod nvidia_support;

use cloister_attestation::UnixTime;
use cloister_attestation::nvidia::spdm::Report;
use cloister_attestation::nvidia::{DeviceArch, NvidiaRefusal, ReportRefusal, Role, danger, verify};
use cloister_attestation::x509::{AwsLc, CertificateRefusal, PemRefusal, SignatureScheme, SignatureVerifier};
use nvidia_support::{
    Captured, NOW, all, blackwell, hopper, hopper_550, hopper_with_a_zero_byte, json, switch, testdata, text,
};
use serde_json::Value;

fn refusal(captured: &Captured) -> NvidiaRefusal {
    verify(&captured.evidence, &captured.chain, captured.arch, NOW).unwrap_err()
}

/// The certificates of a chain, each as PEM.
fn split(chain: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----\n";
    let parts = chain.split_inclusive("-----END CERTIFICATE-----");
    let all: Vec<String> = parts
        .map(|one| one.trim().to_owned() + "\n")
        .filter(|one| one.ends_with(END))
        .collect();
    assert_eq!(all.len(), 5);
    all
}

#[test]
fn every_captured_report_verifies_and_answers_its_nonce() {
    let all = all();
    assert_eq!(all.len(), 28);
    for captured in &all {
        let device = captured.verified();
        assert_eq!(device.arch(), captured.arch, "{}", captured.name);
        let blocks = if captured.arch.is_gpu() { 64 } else { 31 };
        assert_eq!(device.measurements().len(), blocks, "{}", captured.name);
        let indexes = device.measurements().iter().map(|(index, _)| index);
        assert!(indexes.eq(1..=blocks as u8), "{}", captured.name);
        for (key, found) in [
            ("nonce", hex::encode(device.nonce())),
            ("vbios_version", device.vbios().to_string()),
            (
                "driver_version",
                device.driver().map(ToString::to_string).unwrap_or_default(),
            ),
        ] {
            if let Some(said) = captured.said[key].as_str() {
                assert_eq!(said, found, "{}: {key}", captured.name);
            }
        }
    }
}

#[test]
fn the_positive_case_says_what_its_sources_say() {
    let device = hopper().verified();
    let nonce = hex::encode(device.nonce());
    assert!(nonce.starts_with("4cff7f53") && nonce.ends_with("51af2e"));
    assert_eq!(device.driver().unwrap().to_string(), "545.00");
    assert_eq!(device.vbios().to_string(), "96.00.5E.00.01");
    assert_eq!((device.chip(), device.model()), ("GH100", "GH100 A01 GSP BROM"));
    assert_eq!(device.serial().to_string(), "41FFEEB20009E0BE49");
    assert_eq!(device.opaque().nvdec0, Some(false));
    let opaque = device.opaque();
    let board = [&opaque.project, &opaque.project_sku, &opaque.chip_sku].map(|one| one.clone().unwrap());
    assert_eq!(board, ["1010", "0200", "882"]);
    assert_eq!(device.valid_until(), UnixTime(253_402_300_799));
}

#[test]
fn hex_text_is_read_as_the_message_that_it_stands_for() {
    let mut captured = hopper();
    let message = captured.verified();
    captured.evidence = text("e2e_pass/report.hex").into_bytes();
    assert_eq!(captured.verified().measurements(), message.measurements());
    captured.evidence.extend_from_slice(b"\r\n");
    captured.verified();
    captured.evidence.insert(9, b'z');
    assert_eq!(refusal(&captured), ReportRefusal::NotHex.into());
}

#[test]
fn one_zero_byte_after_the_signature_is_tolerated_and_nothing_else() {
    let mut captured = hopper_with_a_zero_byte();
    assert_eq!(captured.evidence.last(), Some(&0));
    captured.verified();
    captured.evidence.push(0);
    assert_eq!(refusal(&captured), ReportRefusal::Trailing(2).into());
    captured.evidence.truncate(captured.evidence.len() - 2);
    captured.verified();
    captured.evidence.push(1);
    assert_eq!(refusal(&captured), ReportRefusal::Trailing(1).into());
}

#[test]
fn the_parse_is_the_one_that_nvidia_expects_field_by_field() {
    let message = hex::decode(text("reports/sdk_hopperAttestationReport.txt").trim()).unwrap();
    let report = Report::parse(&message).unwrap();
    let bytes = |value: &Value| hex::decode(value.as_str().unwrap().trim_start_matches("0x")).unwrap();
    let request: Value = serde_json::from_str(&text("reports/sdk_spdm_req_parsed_output.json")).unwrap();
    assert_eq!(bytes(&request["Nonce"]), report.nonce);
    assert_eq!(bytes(&request["SlotIDParam"]), [report.slot]);

    let expected: Value = serde_json::from_str(&text("reports/sdk_spdm_parsed_output.json")).unwrap();
    assert_eq!(bytes(&expected["Nonce"]), report.responder_nonce);
    assert_eq!(bytes(&expected["Signature"]), report.signature);
    assert_eq!(expected["NumberOfBlocks"], report.measurements.len());
    let blocks = expected["MeasurementRecord"]["MeasurementBlocks"].as_object().unwrap();
    assert_eq!(blocks.len(), report.measurements.len());
    for (index, block) in blocks {
        let found = report.measurements.get(index.parse().unwrap()).unwrap();
        assert_eq!(bytes(&block["DMTFSpecMeasurementValue"]), found, "block {index}");
    }
    let fields = find(&expected, "OPAQUE_FIELD_ID_DRIVER_VERSION").unwrap();
    let kinds = [
        ("DRIVER_VERSION", 3),
        ("GPU_INFO", 4),
        ("VBIOS_VERSION", 6),
        ("NVDEC0_STATUS", 11),
        ("CPRINFO", 13),
        ("BOARD_ID", 14),
        ("CHIP_SKU", 15),
        ("CHIP_SKU_MOD", 16),
        ("PROJECT", 17),
        ("PROJECT_SKU", 18),
        ("PROJECT_SKU_MOD", 19),
        ("FWID", 20),
        ("PROTECTED_PCIE_STATUS", 21),
    ];
    let mut compared = 0;
    for (name, kind) in kinds {
        if let Some(value) = fields.get(format!("OPAQUE_FIELD_ID_{name}")) {
            assert_eq!(report.opaque.field(kind), Some(bytes(value).as_slice()), "{name}");
            compared += 1;
        }
    }
    let counts = fields["OPAQUE_FIELD_ID_MSRSCNT"].as_array().unwrap();
    let found: Vec<u32> = report
        .opaque
        .field(12)
        .unwrap()
        .as_chunks()
        .0
        .iter()
        .map(|one| u32::from_le_bytes(*one))
        .collect();
    assert!(
        counts
            .iter()
            .map(|count| count.as_u64().unwrap())
            .eq(found.into_iter().map(u64::from))
    );
    assert!(compared >= 12, "{compared}");
}

/// The object that has `key`, wherever it is.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    if value.get(key).is_some() {
        return Some(value);
    }
    value.as_object()?.values().find_map(|inner| find(inner, key))
}

#[test]
fn a_device_is_not_taken_for_one_of_another_architecture() {
    for (mut captured, claimed) in [
        (hopper(), DeviceArch::Blackwell),
        (hopper(), DeviceArch::Ls10),
        (blackwell(), DeviceArch::Hopper),
        (switch(), DeviceArch::Hopper),
        (switch(), DeviceArch::Blackwell),
    ] {
        captured.arch = claimed;
        match refusal(&captured) {
            NvidiaRefusal::Architecture { claimed: found, .. } => assert_eq!(found, claimed),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_chain_has_five_certificates() {
    let captured = hopper();
    let certificates = split(&captured.chain);
    let with = |chain: String| verify(&captured.evidence, &chain, captured.arch, NOW).unwrap_err();
    for missing in 0..5 {
        let four: Vec<_> = (0..5)
            .filter(|at| *at != missing)
            .map(|at| certificates[at].clone())
            .collect();
        assert_eq!(with(four.concat()), NvidiaRefusal::ChainLength(4));
    }
    assert_eq!(with(certificates[0].clone()), NvidiaRefusal::ChainLength(1));
    let six = certificates.concat() + &certificates[4];
    assert_eq!(with(six), NvidiaRefusal::ChainLength(6));
    assert_eq!(with(String::new()), PemRefusal::Malformed.into());
    assert_eq!(with("x".to_owned() + &captured.chain), PemRefusal::Malformed.into());
}

#[test]
fn a_chain_that_ends_in_another_root_is_refused() {
    let captured = hopper();
    let other = text("roots/verifier_RIM_root.pem");
    let chain = split(&captured.chain)[..4].concat() + &other;
    let found = verify(&captured.evidence, &chain, captured.arch, NOW).unwrap_err();
    assert!(matches!(found, NvidiaRefusal::OtherRoot(_)), "{found}");
}

#[test]
fn certificates_of_other_devices_do_not_fit_between() {
    let (ours, theirs) = (hopper(), hopper_550());
    let (own, other) = (split(&ours.chain), split(&theirs.chain));
    // A genuine chain of another device: only the report's signature tells.
    let found = verify(&ours.evidence, &theirs.chain, ours.arch, NOW).unwrap_err();
    assert_eq!(found, NvidiaRefusal::Signature);
    let mixed = [&other[0], &own[1], &own[2], &own[3], &own[4]]
        .map(String::as_str)
        .concat();
    let found = verify(&ours.evidence, &mixed, ours.arch, NOW).unwrap_err();
    let issuer = |role| NvidiaRefusal::Certificate {
        role,
        reason: CertificateRefusal::Issuer,
    };
    assert_eq!(found, issuer(Role::Leaf));
    let swapped = [&own[0], &own[2], &own[1], &own[3], &own[4]]
        .map(String::as_str)
        .concat();
    assert_eq!(
        verify(&ours.evidence, &swapped, ours.arch, NOW).unwrap_err(),
        issuer(Role::Provisioner)
    );
}

#[test]
fn a_chain_whose_validity_has_not_begun_is_refused() {
    let captured = hopper();
    // 2022-02-28T23:59:59Z: the provisioner's begins with March.
    let found = verify(
        &captured.evidence,
        &captured.chain,
        captured.arch,
        UnixTime(1_646_092_799),
    )
    .unwrap_err();
    let expected = |role, reason| NvidiaRefusal::Certificate { role, reason };
    assert_eq!(found, expected(Role::Provisioner, CertificateRefusal::NotYetValid));
    assert!(
        verify(
            &captured.evidence,
            &captured.chain,
            captured.arch,
            UnixTime(1_646_092_800)
        )
        .is_ok()
    );
    let late = verify(
        &captured.evidence,
        &captured.chain,
        captured.arch,
        UnixTime(253_402_300_800),
    )
    .unwrap_err();
    assert_eq!(late, expected(Role::Root, CertificateRefusal::Expired));
    // A chain that was kept is checked again with each report.
    let kept = captured.verified().chain().clone();
    assert!(kept.check_dates(UnixTime(1_646_092_799)).is_err());
    assert!(kept.check_dates(UnixTime(253_402_300_800)).is_err());
    assert!(kept.check_dates(NOW).is_ok());
}

/// The same by RustCrypto.
struct Oracle;

impl SignatureVerifier for Oracle {
    fn verify(&self, scheme: SignatureScheme, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        use p384::ecdsa::signature::Verifier;
        use p384::ecdsa::{Signature, VerifyingKey};
        let signature = match scheme {
            SignatureScheme::EcdsaP384 => Signature::from_der(signature),
            SignatureScheme::EcdsaP384Fixed => Signature::from_slice(signature),
            SignatureScheme::RsaPssSha384 => return false,
        };
        let key = VerifyingKey::from_sec1_bytes(key);
        key.is_ok_and(|key| signature.is_ok_and(|signature| key.verify(message, &signature).is_ok()))
    }
}

#[test]
fn two_implementations_of_the_signature_agree_on_every_captured_report() {
    for captured in all() {
        let by = |crypto: &dyn SignatureVerifier, evidence: &[u8]| {
            danger::verify_by(crypto, evidence, &captured.chain, captured.arch, NOW)
                .map(|device| device.nonce().to_owned())
        };
        let ours = by(&AwsLc, &captured.evidence);
        assert!(ours.is_ok(), "{}", captured.name);
        assert_eq!(ours, by(&Oracle, &captured.evidence), "{}", captured.name);
        let mut flipped = captured.evidence.clone();
        // In the nonce.
        flipped[20] ^= 1;
        assert_eq!(by(&AwsLc, &flipped), Err(NvidiaRefusal::Signature));
        assert_eq!(by(&Oracle, &flipped), Err(NvidiaRefusal::Signature));
    }
}

#[test]
fn the_built_in_root_is_the_captured_one() {
    let built_in = include_str!("../src/nvidia/roots/device_root.pem");
    assert_eq!(
        built_in,
        std::fs::read_to_string(testdata().join("roots/verifier_device_root.pem")).unwrap()
    );
    assert_eq!(json("json/sdk_multi_switch_ls10.json").len(), 4);
}
