//! NVIDIA's signed reference manifests through the verifier; `testdata/SOURCES.md` says where they are from.
//!
//! What NVIDIA would have to sign for the test is in `src/nvidia/rim/tests.rs`, under a test's own root.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use cloister_attestation::UnixTime;
use cloister_attestation::nvidia::rim::xml::{MAX_DOCUMENT_LEN, XmlRefusal};
use cloister_attestation::nvidia::rim::{
    Board, RimId, RimKind, RimRefusal, RimStore, StoreRefusal, VerifiedRim, compare, verify,
};
use cloister_attestation::x509::CertificateRefusal;

/// 2024-12-01: the certificates of the pair of `e2e_pass` are valid.
const NOW: UnixTime = UnixTime(1_733_011_200);
/// 2025-06-01: those of the later driver manifests too.
const LATER: UnixTime = UnixTime(1_748_736_000);

const DRIVER: &[u8] = include_bytes!("../testdata/nvidia/e2e_pass/driver_rim_545.00.swidtag");
const VBIOS: &[u8] = include_bytes!("../testdata/nvidia/e2e_pass/vbios_rim_96.00.5E.00.01.swidtag");

/// State of NVDEC0 in a report: on.
const NVDEC0_ON: Option<u8> = Some(0xAA);
/// Off.
const NVDEC0_OFF: Option<u8> = Some(0x55);

fn testdata(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/nvidia")
        .join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The document with the first `from` replaced.
fn replaced(document: &[u8], from: &str, to: &str) -> Vec<u8> {
    let text = std::str::from_utf8(document).unwrap();
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1).into_bytes()
}

/// Values of the blocks of the report of `e2e_pass`: a request of 37 bytes, 8 of head, and blocks of 7 bytes and a SHA-384.
fn blocks() -> BTreeMap<u8, Vec<u8>> {
    let text = String::from_utf8(testdata("e2e_pass/report.hex")).unwrap();
    let report = hex::decode(text.trim()).unwrap();
    let (count, mut rest) = (report[41], &report[45..]);
    let mut blocks = BTreeMap::new();
    for _ in 0..count {
        let length = usize::from(u16::from_le_bytes([rest[2], rest[3]]));
        blocks.insert(rest[0], rest[7..4 + length].to_vec());
        rest = &rest[4 + length..];
    }
    assert_eq!(blocks.len(), 64);
    blocks
}

fn board() -> Board {
    Board {
        project: "1010".into(),
        project_sku: "0200".into(),
        chip_sku: "882".into(),
    }
}

fn ids() -> [RimId; 2] {
    [
        RimId::driver("GH100", "545.00"),
        RimId::vbios("GH100", board(), "96.00.5e.00.01"),
    ]
}

fn pair() -> (VerifiedRim, VerifiedRim) {
    (verify(DRIVER, NOW).unwrap(), verify(VBIOS, NOW).unwrap())
}

fn mismatches(rims: &[&VerifiedRim], nvdec0: Option<u8>, blocks: &BTreeMap<u8, Vec<u8>>) -> Vec<u8> {
    let found = compare(rims, nvdec0, |block| blocks.get(&block).map(Vec::as_slice)).unwrap();
    assert_eq!(found.matches(), found.mismatching.is_empty());
    found.mismatching.into_iter().collect()
}

#[test]
fn manifests_of_nvidia_verify_and_say_what_they_are_of() {
    for (name, now, kind, version, active) in [
        (
            "nvtrust_Driver_RIM_test_no_gpu.swidtag",
            NOW,
            RimKind::Driver,
            "545.00",
            21,
        ),
        (
            "nvtrust_1010_0200_882_96005E0001_PROD.swidtag",
            NOW,
            RimKind::Vbios,
            "96.00.5E.00.01",
            12,
        ),
        (
            "nvtrust_1010_0200_882_96005E0001_test_no_gpu.swidtag",
            NOW,
            RimKind::Vbios,
            "96.00.5E.00.01",
            12,
        ),
        (
            "nvtrust_1010_0200_882_96005E0003_PROD.swidtag",
            NOW,
            RimKind::Vbios,
            "96.00.5E.00.03",
            12,
        ),
        (
            "nvtrust_1010_0200_882_960074001A_PROD.swidtag",
            NOW,
            RimKind::Vbios,
            "96.00.74.00.1A",
            12,
        ),
        (
            "nvtrust_1010_0200_882_960074001C_PROD.swidtag",
            NOW,
            RimKind::Vbios,
            "96.00.74.00.1C",
            12,
        ),
        (
            "nvtrust_1010_0205_862_96005E0002_PROD.swidtag",
            NOW,
            RimKind::Vbios,
            "96.00.5E.00.02",
            12,
        ),
        (
            "nvtrust_g520_0200_885_9600740001_PROD.swidtag",
            NOW,
            RimKind::Vbios,
            "96.00.74.00.01",
            12,
        ),
        (
            "nvtrust_g520_0213_881_96006D0007_PROD.swidtag",
            NOW,
            RimKind::Vbios,
            "96.00.6D.00.07",
            12,
        ),
        (
            "sdk_NV_GPU_DRIVER_GH100_550.144.03.xml",
            LATER,
            RimKind::Driver,
            "550.144.03",
            21,
        ),
        (
            "sdk_NV_GPU_VBIOS_1010_0200_882_96005E0001_measurement_mismatch.xml",
            NOW,
            RimKind::Vbios,
            "96.00.5E.00.01",
            12,
        ),
    ] {
        let rim = verify(&testdata(&format!("rims/{name}")), now).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            (rim.kind(), rim.chip(), rim.version()),
            (kind, "GH100", version),
            "{name}"
        );
        assert_eq!((rim.measurements().len(), rim.active().count()), (64, active), "{name}");
        assert_eq!(rim.tag_id().len(), 96);
        assert!(rim.is_valid_at(now) && !rim.is_valid_at(UnixTime(rim.valid_until().0 + 1)));
    }
}

#[test]
fn changed_manifests_are_refused() {
    for (name, now, expected) in [
        (
            "sdk_NV_GPU_DRIVER_GH100_535.86.09_measurement_mismatch.xml",
            LATER,
            RimRefusal::Digest,
        ),
        (
            "sdk_NV_GPU_DRIVER_GH100_570.124.03_expired.xml",
            LATER,
            RimRefusal::Digest,
        ),
        (
            "sdk_NV_SWITCH_BIOS_5612_0002_890_9610550001_invalid_signature.xml",
            LATER,
            RimRefusal::Digest,
        ),
        ("sdk_incorrect_signature_driver_rim.xml", LATER, RimRefusal::Signature),
    ] {
        assert_eq!(verify(&testdata(&format!("rims/{name}")), now), Err(expected), "{name}");
    }
}

#[test]
fn a_manifest_is_refused_outside_of_the_validity_of_its_certificates() {
    let rim = verify(DRIVER, NOW).unwrap();
    assert!(verify(DRIVER, rim.valid_until()).is_ok());
    let at = |position, reason| Err(RimRefusal::Certificate { position, reason });
    assert_eq!(
        verify(DRIVER, UnixTime(rim.valid_until().0 + 1)),
        at(1, CertificateRefusal::Expired)
    );
    // Before the signer's certificate began, and long before that of the authority above.
    assert_eq!(
        verify(DRIVER, UnixTime(1_687_800_000)),
        at(1, CertificateRefusal::NotYetValid)
    );
    assert_eq!(
        verify(DRIVER, UnixTime(1_600_000_000)),
        at(4, CertificateRefusal::NotYetValid)
    );
}

#[test]
fn genuine_manifests_inside_of_others_are_refused() {
    let genuine = std::str::from_utf8(VBIOS).unwrap().trim();
    let open = "<SoftwareIdentity xmlns=\"http://standards.iso.org/iso/19770/-2/2015/schema.xsd\">";
    let inside = format!("{open}<Payload/>{genuine}</SoftwareIdentity>");
    assert_eq!(verify(inside.as_bytes(), NOW), Err(RimRefusal::SignaturePlace));
    // With the signature directly in the outer one, and the signed content beside what a lenient reader would take.
    let (content, signature) = genuine.split_at(genuine.find("<ds:Signature ").unwrap());
    let signature = signature.trim_end_matches("</SoftwareIdentity>");
    let beside = format!("{open}<Payload/>{content}</SoftwareIdentity>{signature}</SoftwareIdentity>");
    assert_eq!(verify(beside.as_bytes(), NOW), Err(RimRefusal::Digest));
    let twice = genuine.replace("</SoftwareIdentity>", &format!("{signature}</SoftwareIdentity>"));
    assert_eq!(verify(twice.as_bytes(), NOW), Err(RimRefusal::SignaturePlace));
}

#[test]
fn every_active_measurement_of_the_real_device_matches() {
    let (driver, vbios) = pair();
    let blocks = blocks();
    let found = compare(&[&driver, &vbios], NVDEC0_ON, |block| {
        blocks.get(&block).map(Vec::as_slice)
    })
    .unwrap();
    assert!(found.matches(), "{found:?}");
    assert_eq!((found.matching.len(), found.skipped.len()), (33, 0));
}

#[test]
fn another_signed_manifest_of_the_same_version_mismatches_where_it_differs() {
    let (driver, _) = pair();
    let prod = verify(&testdata("rims/nvtrust_1010_0200_882_96005E0001_PROD.swidtag"), NOW).unwrap();
    assert_eq!(mismatches(&[&driver, &prod], NVDEC0_ON, &blocks()), [1, 2, 3, 9]);
}

#[test]
fn a_missing_or_different_block_is_a_mismatch() {
    let (driver, vbios) = pair();
    let rims = [&driver, &vbios];
    for (index, _) in driver.active().chain(vbios.active()) {
        let mut changed = blocks();
        changed.remove(&(index + 1));
        assert_eq!(mismatches(&rims, NVDEC0_ON, &changed), [index], "missing {index}");
        for change in [
            |block: &mut Vec<u8>| block[47] ^= 1,
            |block: &mut Vec<u8>| block.truncate(47),
        ] {
            let mut changed = blocks();
            change(changed.get_mut(&(index + 1)).unwrap());
            assert_eq!(mismatches(&rims, NVDEC0_ON, &changed), [index], "changed {index}");
        }
    }
}

#[test]
fn only_the_measurement_of_nvdec0_is_skipped_and_only_where_it_is_off() {
    let (driver, vbios) = pair();
    let rims = [&driver, &vbios];
    let mut changed = blocks();
    changed.remove(&36);
    for nvdec0 in [None, NVDEC0_ON, Some(0), Some(0x54)] {
        assert_eq!(mismatches(&rims, nvdec0, &changed), [35], "{nvdec0:?}");
    }
    changed.remove(&35);
    let found = compare(&rims, NVDEC0_OFF, |block| changed.get(&block).map(Vec::as_slice)).unwrap();
    assert_eq!(found.skipped.into_iter().collect::<Vec<_>>(), [35]);
    assert!(!found.mismatching.contains(&35));
}

#[test]
fn manifests_that_claim_one_measurement_do_not_belong_together() {
    let (driver, vbios) = pair();
    let nothing = |_| None;
    assert_eq!(
        compare(&[&driver, &driver], NVDEC0_ON, nothing),
        Err(RimRefusal::ActiveInBoth(7))
    );
    assert_eq!(
        compare(&[&driver, &vbios, &vbios], NVDEC0_ON, nothing),
        Err(RimRefusal::ActiveInBoth(0))
    );
}

#[test]
fn without_manifests_nothing_matches() {
    assert_eq!(compare(&[], NVDEC0_ON, |_| None), Err(RimRefusal::NoActive));
}

#[test]
fn a_manifest_of_another_version_component_or_chip_is_refused() {
    let (driver, vbios) = pair();
    let [driver_id, vbios_id] = ids();
    assert_eq!(
        (driver.check_is(&driver_id), vbios.check_is(&vbios_id)),
        (Ok(()), Ok(()))
    );
    assert!(matches!(
        driver.check_is(&RimId::driver("GH100", "545.01")),
        Err(RimRefusal::Version { .. })
    ));
    assert!(matches!(
        vbios.check_is(&RimId::vbios("GH100", board(), "96.00.5E.00.03")),
        Err(RimRefusal::Version { .. })
    ));
    assert!(matches!(driver.check_is(&vbios_id), Err(RimRefusal::Kind { .. })));
    assert!(matches!(vbios.check_is(&driver_id), Err(RimRefusal::Kind { .. })));
    assert!(matches!(
        driver.check_is(&RimId::driver("GB100", "545.00")),
        Err(RimRefusal::Chip { .. })
    ));
    assert!(matches!(
        vbios.check_is(&RimId::switch("LS10", board(), "96.00.5E.00.01")),
        Err(RimRefusal::Kind { .. })
    ));
}

#[test]
fn names_are_those_of_the_service() {
    let [driver, vbios] = ids();
    assert_eq!(driver.to_string(), "NV_GPU_DRIVER_GH100_545.00");
    assert_eq!(vbios.to_string(), "NV_GPU_VBIOS_1010_0200_882_96005E0001");
    assert_eq!(
        RimId::driver("GB100", "570.124.03").to_string(),
        "NV_GPU_CC_DRIVER_GB100_570.124.03"
    );
    let switch = Board {
        project: "5612".into(),
        project_sku: "0002".into(),
        chip_sku: "890".into(),
    };
    assert_eq!(
        RimId::switch("LS10", switch, "96.10.55.00.01").to_string(),
        "NV_SWITCH_BIOS_5612_0002_890_9610550001"
    );
}

fn store(documents: &[(&str, Vec<u8>)]) -> RimStore {
    let mut store = RimStore::new();
    for (name, document) in documents {
        store.insert(name, document).unwrap();
    }
    store
}

#[test]
fn a_store_finds_manifests_whatever_their_files_are_called() {
    let blocks = blocks();
    let measured = |block| blocks.get(&block).map(Vec::as_slice);
    let prod = testdata("rims/nvtrust_1010_0200_882_96005E0001_PROD.swidtag");
    let store = store(&[("a", DRIVER.to_vec()), ("b", prod.clone()), ("c", VBIOS.to_vec())]);
    assert_eq!(store.len(), 3);
    assert_eq!(store.find(&ids()[1], NOW).unwrap().len(), 2);
    // Both are NVIDIA's for this version: the one that the device matches counts.
    let found = store.appraise(&ids(), NOW, NVDEC0_ON, measured).unwrap();
    assert!(found.comparison.matches());
    assert_eq!(found.rims.len(), 2);

    let store = self::store(&[("a", DRIVER.to_vec()), ("b", prod)]);
    let found = store.appraise(&ids(), NOW, NVDEC0_ON, measured).unwrap();
    assert_eq!(
        found.comparison.mismatching.into_iter().collect::<Vec<_>>(),
        [1, 2, 3, 9]
    );
}

#[test]
fn a_store_says_what_is_missing_or_expired() {
    let store = store(&[("a", DRIVER.to_vec()), ("a", DRIVER.to_vec())]);
    assert_eq!(store.len(), 1);
    let [driver, vbios] = ids();
    assert_eq!(
        store.find(&vbios, NOW),
        Err(RimRefusal::Missing(Box::new(vbios.clone())))
    );
    let error = store
        .appraise(&ids(), NOW, NVDEC0_ON, |_| None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("NV_GPU_VBIOS_1010_0200_882_96005E0001"), "{error}");
    // Verified once, but not for ever.
    let valid_until = store.find(&driver, NOW).unwrap()[0].valid_until();
    assert!(store.find(&driver, valid_until).is_ok());
    assert!(matches!(
        store.find(&driver, UnixTime(valid_until.0 + 1)),
        Err(RimRefusal::Certificate { position: 1, .. })
    ));
    assert!(store.find(&driver, NOW).is_ok());
}

#[test]
fn a_manifest_whose_name_is_that_of_another_board_is_left_out() {
    for (name, found) in [
        ("NV_GPU_VBIOS_1010_0200_882_96005E0001.swidtag", true),
        ("nvtrust_1010_0200_882_96005e0001_PROD.swidtag", true),
        ("vbios.xml", true),
        ("NV_GPU_VBIOS_G520_0200_882_96005E0001.swidtag", false),
        ("1010_0205_882_96005E0001", false),
        ("1010_0200_885_96005E0001", false),
    ] {
        let store = store(&[(name, VBIOS.to_vec())]);
        assert_eq!(store.find(&ids()[1], NOW).is_ok(), found, "{name}");
    }
}

#[test]
fn a_store_reads_base64_and_refuses_what_is_no_manifest() {
    let mut store = store(&[("", testdata("rims/trustee_swid_test-rim.b64"))]);
    let id = RimId::vbios("GH100", board(), "96.00.74.00.1C");
    assert_eq!(store.find(&id, NOW).unwrap()[0].version(), "96.00.74.00.1C");
    for document in [b"".as_slice(), b"a note", b"<a/>", b"<SoftwareIdentity/>"] {
        assert!(
            matches!(store.insert("", document), Err(StoreRefusal::Document(_))),
            "{document:?}"
        );
    }
    assert!(matches!(
        store.insert("", &vec![b'<'; 2 * MAX_DOCUMENT_LEN + 1]),
        Err(StoreRefusal::Document(RimRefusal::Xml(XmlRefusal::TooLong)))
    ));
}

#[test]
fn a_store_that_holds_a_changed_manifest_still_finds_the_genuine_one() {
    let changed = replaced(VBIOS, "active=\"True\"", "active=\"False\"");
    let only = store(&[("", changed.clone())]);
    assert_eq!(only.find(&ids()[1], NOW), Err(RimRefusal::Digest));
    let both = store(&[("", changed), ("", VBIOS.to_vec())]);
    assert_eq!(both.find(&ids()[1], NOW).unwrap().len(), 1);
}

#[test]
fn a_store_is_bounded() {
    let mut store = RimStore::new();
    let document = |n: usize| replaced(VBIOS, "tagId=\"", &format!("tagId=\"{n}"));
    for n in 0..16 {
        store.insert("", &document(n)).unwrap();
    }
    assert!(matches!(store.insert("", &document(16)), Err(StoreRefusal::Full(_))));
    store.insert("", DRIVER).unwrap();
}
