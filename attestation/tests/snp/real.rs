//! What each real file is: genuine, or refused for the reason that `SOURCES.md` says.

use cloister_attestation::policy::Generation;
use cloister_attestation::snp::{CertificateRefusal, Role, SnpRefusal, Trust, oid, vek_der, verify};
use cloister_attestation::x509::Certificate;
use cloister_attestation::{Rules, Trust as Tier, UnixTime};

use crate::support::{
    GENOA, GENOA_VCEK, MILAN, MILAN_VCEK, NOW, NOW_OF_VLEK, VLEK, VLEK_REPORT, amd, anchor, genuine, pem, real,
    refusal, testdata, vcek,
};

const fn vlek(reason: CertificateRefusal) -> SnpRefusal {
    SnpRefusal::Certificate {
        role: Role::Vlek,
        reason,
    }
}

#[test]
fn every_genuine_report_verifies_and_says_what_its_bytes_say() {
    for file in real() {
        let (name, report) = (file.name, &file.report);
        let verified = verify(report, &file.vek, Trust::Amd, file.now).unwrap();
        assert_eq!(verified.generation(), file.generation, "{name}");
        assert_eq!(verified.report_data(), &report[0x50..0x90], "{name}");
        assert_eq!(verified.measurement().as_bytes(), &report[0x90..0xc0], "{name}");
        assert_eq!(verified.platform_id().as_bytes(), &report[0x1a0..0x1e0], "{name}");
        let claims = verified.claims();
        assert_eq!(claims.report_version, file.version, "{name}");
        assert_eq!(claims.signing_key, if file.vlek { "vlek" } else { "vcek" }, "{name}");
        assert_eq!(claims.chip_id.is_none(), file.vlek, "{name}");
        assert_eq!(claims.current_mitigation_vector.is_some(), file.version == 5, "{name}");
        assert_eq!(
            claims.platform.platform_alias_check_complete.is_some(),
            file.version > 2,
            "{name}"
        );
    }
}

#[test]
fn looked_at_as_evidence_each_genuine_report_is_affirmed_but_for_its_level_and_debugging() {
    for file in real() {
        let verified = verify(&file.report, &file.vek, Trust::Amd, file.now).unwrap();
        let checks = verified.check(Rules::Genuine, None);
        let vector = checks.vector();
        assert_eq!(vector.hardware, Tier::Affirming, "{}", file.name);
        // Nothing to compare the measurement with.
        assert_eq!(vector.executables, Tier::None, "{}", file.name);
        let (tier, refusal) = match file.name {
            "vlek" => (Tier::Warning, None),
            "gosev" => (Tier::Contraindicated, Some(&SnpRefusal::Debug)),
            _ => (Tier::Affirming, None),
        };
        assert_eq!(vector.configuration, tier, "{}", file.name);
        assert_eq!(checks.refusal(), refusal, "{}", file.name);
    }
}

#[test]
fn the_report_of_a_vlek_warns_of_its_level_and_names_its_provider() {
    let verified = verify(VLEK_REPORT, VLEK, Trust::Amd, NOW_OF_VLEK).unwrap();
    let claims = verified.claims();
    assert_eq!(claims.csp_id.as_deref(), Some("CN=cc-us-east-2.amazonaws.com"));
    assert_eq!((claims.vmpl, claims.reported_tcb.reported_tcb_microcode), (1, 0xd9));
    assert_eq!(
        (claims.current_tcb.microcode, claims.committed_tcb.microcode),
        (0xdc, 0xdb)
    );
    // 2025-12-10T22:14:21Z.
    assert_eq!(verified.valid_until(), UnixTime(1_765_404_861));
}

#[test]
fn claims_are_written_under_the_names_of_trustee() {
    let json = serde_json::to_value(genuine(GENOA, GENOA_VCEK).claims()).unwrap();
    for (name, expected) in [
        ("measurement", hex::encode(&GENOA[0x90..0xc0]).into()),
        ("report_data", hex::encode(&GENOA[0x50..0x90]).into()),
        ("init_data", hex::encode(&GENOA[0xc0..0xe0]).into()),
        ("reported_tcb_bootloader", 10.into()),
        ("reported_tcb_tee", 0.into()),
        ("reported_tcb_snp", 25.into()),
        ("reported_tcb_microcode", 84.into()),
        ("platform_smt_enabled", true.into()),
        ("platform_tsme_enabled", false.into()),
        ("platform_alias_check_complete", true.into()),
        ("policy_abi_major", 0.into()),
        ("policy_abi_minor", 0.into()),
        ("policy_smt_allowed", true.into()),
        ("policy_migrate_ma", false.into()),
        ("policy_debug_allowed", false.into()),
        ("policy_single_socket", false.into()),
        ("launch_mitigation_vector", 1.into()),
        ("current_mitigation_vector", 1.into()),
        ("current_version", serde_json::Value::from("1.55.43")),
    ] {
        assert_eq!(json[name], expected, "{name}");
    }
    assert!(json.get("reported_tcb_fmc").is_none());
}

#[test]
fn a_report_whose_certificate_is_not_at_hand_has_the_right_form() {
    // Google's Milan of version 4: refused only for the signature, by the certificate of another chip.
    let report = pem(testdata!("openpcc_gce_sevsnp_report.txt"), "REPORT").remove(0);
    assert_eq!(report[0], 4);
    assert_eq!(refusal(&report, MILAN_VCEK, NOW), SnpRefusal::Signature);
}

#[test]
fn a_report_under_the_certificate_of_another_chip_is_refused() {
    assert_eq!(
        refusal(MILAN, testdata!("sev_vcek_milan.der"), NOW),
        SnpRefusal::Signature
    );
    assert_eq!(refusal(MILAN, GENOA_VCEK, NOW), SnpRefusal::Signature);
}

#[test]
fn certificates_that_amd_did_not_sign_are_refused() {
    for forged in [
        testdata!("trustee_vcek_invalid_legacy.der"),
        testdata!("trustee_vcek_invalid_new.der"),
    ] {
        assert_eq!(refusal(MILAN, forged, NOW), vcek(CertificateRefusal::Signature));
    }
}

#[test]
fn a_certificate_outside_of_its_validity_is_refused() {
    // 2023-01-24T17:58:26Z to 2030-01-24T17:58:26Z.
    let (first, last) = (UnixTime(1_674_583_106), UnixTime(1_895_507_906));
    assert!(verify(MILAN, MILAN_VCEK, Trust::Amd, first).is_ok());
    assert!(verify(MILAN, MILAN_VCEK, Trust::Amd, last).is_ok());
    assert_eq!(
        refusal(MILAN, MILAN_VCEK, UnixTime(first.0 - 1)),
        vcek(CertificateRefusal::NotYetValid)
    );
    assert_eq!(
        refusal(MILAN, MILAN_VCEK, UnixTime(last.0 + 1)),
        vcek(CertificateRefusal::Expired)
    );
    assert_eq!(genuine(MILAN, MILAN_VCEK).valid_until(), last);
}

#[test]
fn an_expired_vlek_is_refused() {
    assert_eq!(refusal(VLEK_REPORT, VLEK, NOW), vlek(CertificateRefusal::Expired));
}

#[test]
fn a_vlek_and_a_vcek_are_never_taken_for_each_other() {
    let now = NOW_OF_VLEK;
    assert_eq!(refusal(MILAN, VLEK, now), vcek(CertificateRefusal::CommonName));
    assert_eq!(
        refusal(VLEK_REPORT, MILAN_VCEK, now),
        vlek(CertificateRefusal::CommonName)
    );
    // Nor under the other's intermediate, in the other's place: AMD's own certificates, swapped.
    let [ask, ark, asvk] = amd(Generation::Milan);
    let swapped = anchor(&[&asvk, &ark, &ask]);
    let refused = |report, vek| verify(report, vek, Trust::Simulated(&swapped), now).unwrap_err();
    assert_eq!(refused(MILAN, MILAN_VCEK), vcek(CertificateRefusal::Issuer));
    assert_eq!(refused(VLEK_REPORT, VLEK), vlek(CertificateRefusal::Issuer));
    let right = anchor(&[&ask, &ark, &asvk]);
    assert!(verify(VLEK_REPORT, VLEK, Trust::Simulated(&right), now).is_ok());
    let none = anchor(&[&ask, &ark]);
    let refused = verify(VLEK_REPORT, VLEK, Trust::Simulated(&none), now).unwrap_err();
    assert_eq!(refused, SnpRefusal::NoProviders);
}

#[test]
fn a_chip_may_not_hide_its_id_unless_a_provider_signed() {
    // The VLEK's own report, said to be signed by the chip: bits 4:2 of the key information.
    let mut report = VLEK_REPORT.to_vec();
    report[0x48] = 0;
    assert_eq!(refusal(&report, VLEK, NOW_OF_VLEK), SnpRefusal::MaskedChipId);
}

#[test]
fn the_root_and_the_intermediate_of_another_generation_are_refused() {
    // AMD's Genoa chain in the place of Milan's.
    let [ask, ark, asvk] = amd(Generation::Genoa);
    let genoa = anchor(&[&ask, &ark, &asvk]);
    let refused = |report, vek| verify(report, vek, Trust::Simulated(&genoa), NOW_OF_VLEK).unwrap_err();
    assert_eq!(refused(MILAN, MILAN_VCEK), vcek(CertificateRefusal::Issuer));
    assert_eq!(refused(VLEK_REPORT, VLEK), vlek(CertificateRefusal::Issuer));
    // Milan's intermediate under Genoa's root.
    let [milan_ask, _, _] = amd(Generation::Milan);
    let mixed = anchor(&[&milan_ask, &ark]);
    assert_eq!(
        verify(MILAN, MILAN_VCEK, Trust::Simulated(&mixed), NOW).unwrap_err(),
        SnpRefusal::Certificate {
            role: Role::Ask,
            reason: CertificateRefusal::Issuer
        }
    );
    // A Milan's certificate that says that it is a Genoa's is looked at under Genoa's root.
    let mut certificate = MILAN_VCEK.to_vec();
    let at = certificate.windows(5).position(|bytes| bytes == b"Milan").unwrap();
    let at = certificate[at + 5..]
        .windows(5)
        .position(|bytes| bytes == b"Milan")
        .unwrap()
        + at
        + 5;
    certificate[at..at + 5].copy_from_slice(b"Genoa");
    assert_eq!(refusal(MILAN, &certificate, NOW), vcek(CertificateRefusal::Issuer));
}

#[test]
fn an_intermediate_in_the_place_of_the_root_is_refused() {
    let [ask, ark, _] = amd(Generation::Milan);
    let swapped = anchor(&[&ark, &ask]);
    let refused = verify(MILAN, MILAN_VCEK, Trust::Simulated(&swapped), NOW).unwrap_err();
    assert_eq!(
        refused,
        SnpRefusal::Certificate {
            role: Role::Ark,
            reason: CertificateRefusal::Issuer
        }
    );
}

#[test]
fn the_turin_root_signed_the_turin_certificate() {
    // There is no Turin report: this passes the chain, and fails only where the certificate's key should have signed.
    assert_eq!(
        refusal(MILAN, testdata!("sev_vcek_turin.der"), NOW),
        SnpRefusal::Signature
    );
}

#[test]
fn the_real_turin_certificate_has_the_layout_that_synthetic_ones_imitate() {
    let turin = Certificate::parse(testdata!("sev_vcek_turin.der"), &[]).unwrap();
    assert_eq!(turin.extension(&oid::PRODUCT), Some(b"\x16\x05Turin".as_slice()));
    // INTEGER 0: Turin alone has it.
    assert_eq!(turin.extension(&oid::FMC), Some(b"\x02\x01\x00".as_slice()));
    assert_eq!(turin.extension(&oid::HARDWARE_ID).map(<[u8]>::len), Some(8));
    let genoa = Certificate::parse(GENOA_VCEK, &[]).unwrap();
    assert_eq!(genoa.extension(&oid::FMC), None);
    assert_eq!(genoa.extension(&oid::HARDWARE_ID).map(<[u8]>::len), Some(64));
}

#[test]
fn a_certificate_may_come_as_pem_with_its_chain_behind() {
    let der = vek_der(testdata!("azure_vcek.pem")).unwrap();
    assert_eq!(der.first(), Some(&0x30));
    assert_eq!(vek_der(&der).unwrap(), der);
    for text in [
        "-",
        "-----BEGIN CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\nrest",
    ] {
        assert_eq!(
            vek_der(text.as_bytes()),
            Err(vcek(CertificateRefusal::Malformed)),
            "{text}"
        );
    }
}

#[test]
fn trailing_bytes_are_refused() {
    let long = [GENOA, &[0][..]].concat();
    assert_eq!(refusal(&long, GENOA_VCEK, NOW), SnpRefusal::Length(1185));
    let long = [GENOA_VCEK, &[0][..]].concat();
    assert_eq!(refusal(GENOA, &long, NOW), vcek(CertificateRefusal::Malformed));
}
