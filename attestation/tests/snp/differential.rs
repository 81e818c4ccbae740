//! The `sev` crate on the same files: it agrees on signatures and chains, and accepts what is not its to refuse.
//!
//! | what | `sev` | here |
//! |---|---|---|
//! | a report whose certificate has expired | accepts | refuses |
//! | a provider's certificate in the place of a chip's | accepts | refuses |
//! | an attacker's own root (`enclave/attester/tests/snp`, synthetic) | accepts | refuses |
//! | a certificate of other firmware or of another chip (the same, synthetic) | accepts | refuses |
//! | a guest that may be debugged | accepts | refuses |
//! | set bytes between the parts of a firmware version | drops them | refuses |

use cloister_attestation::Rules;
use cloister_attestation::policy::Generation;
use cloister_attestation::snp::{CertificateRefusal, Role, SnpRefusal, Trust, verify};
use sev::certs::snp::{Certificate, Chain, Verifiable, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;

use crate::support::{MILAN, MILAN_VCEK, NOW, Real, VLEK, amd, real, testdata};

/// What `sev` makes of a report with AMD's certificates above it.
fn by_sev(file: &Real, report: &[u8], vek: &[u8]) -> Result<(), String> {
    let [ask, ark, asvk] = amd(file.generation);
    let above = if file.vlek { asvk } else { ask };
    let certificate = |der: &[u8]| Certificate::from_der(der).map_err(|error| error.to_string());
    let chain = Chain {
        ca: ca::Chain {
            ark: certificate(&ark)?,
            ask: certificate(&above)?,
        },
        vek: certificate(vek)?,
    };
    let report = AttestationReport::from_bytes(report).map_err(|error| error.to_string())?;
    (&chain, &report).verify().map_err(|error| error.to_string())
}

#[test]
fn both_accept_every_genuine_report() {
    for file in real() {
        assert_eq!(by_sev(&file, &file.report, &file.vek), Ok(()), "{}", file.name);
        assert!(
            verify(&file.report, &file.vek, Trust::Amd, file.now).is_ok(),
            "{}",
            file.name
        );
    }
}

#[test]
fn both_refuse_changed_reports_and_forged_certificates() {
    for file in real() {
        for at in (0..0x2a0).step_by(61) {
            let mut report = file.report.clone();
            report[at] ^= 1;
            // Between the parts of a firmware version: see the last test.
            let dropped = [0x38, 0x180, 0x1e0, 0x1f0]
                .iter()
                .any(|tcb| (tcb + 2..tcb + 6).contains(&at));
            let theirs = by_sev(&file, &report, &file.vek);
            assert_eq!(theirs.is_ok(), dropped, "{}: {at:#x}", file.name);
            assert!(
                verify(&report, &file.vek, Trust::Amd, file.now).is_err(),
                "{}: {at:#x}",
                file.name
            );
        }
    }
    let trustee = &real()[0];
    for forged in [
        testdata!("trustee_vcek_invalid_legacy.der"),
        testdata!("trustee_vcek_invalid_new.der"),
        testdata!("sev_vcek_milan.der"),
    ] {
        assert!(by_sev(trustee, MILAN, forged).is_err());
        assert!(verify(MILAN, forged, Trust::Amd, NOW).is_err());
    }
}

#[test]
fn both_read_the_same_claims() {
    for file in real() {
        let theirs = AttestationReport::from_bytes(&file.report).unwrap();
        let ours = verify(&file.report, &file.vek, Trust::Amd, file.now).unwrap().claims();
        let tcb = |theirs: sev::firmware::host::TcbVersion| {
            (theirs.fmc, theirs.bootloader, theirs.tee, theirs.snp, theirs.microcode)
        };
        for (ours, theirs) in [
            (ours.current_tcb, theirs.current_tcb),
            (ours.committed_tcb, theirs.committed_tcb),
            (ours.launch_tcb, theirs.launch_tcb),
        ] {
            let ours = (ours.fmc, ours.bootloader, ours.tee, ours.snp, ours.microcode);
            assert_eq!(ours, tcb(theirs), "{}", file.name);
        }
        assert_eq!(ours.guest_svn, theirs.guest_svn, "{}", file.name);
        assert_eq!(ours.vmpl, theirs.vmpl, "{}", file.name);
        assert_eq!(ours.family_id, hex::encode(theirs.family_id), "{}", file.name);
        assert_eq!(ours.image_id, hex::encode(theirs.image_id), "{}", file.name);
        assert_eq!(ours.id_key_digest.as_bytes(), &theirs.id_key_digest, "{}", file.name);
        assert_eq!(
            ours.author_key_digest.as_bytes(),
            &theirs.author_key_digest,
            "{}",
            file.name
        );
        assert_eq!(ours.report_id, hex::encode(theirs.report_id), "{}", file.name);
        assert_eq!(ours.report_id_ma, hex::encode(theirs.report_id_ma), "{}", file.name);
        assert_eq!(ours.init_data.as_bytes(), &theirs.host_data, "{}", file.name);
        assert_eq!(ours.launch_mitigation_vector, theirs.launch_mit_vector, "{}", file.name);
        assert_eq!(
            ours.current_mitigation_vector, theirs.current_mit_vector,
            "{}",
            file.name
        );
        assert_eq!(
            ours.policy.policy_debug_allowed,
            theirs.policy.debug_allowed(),
            "{}",
            file.name
        );
        assert_eq!(
            ours.policy.policy_smt_allowed,
            theirs.policy.smt_allowed(),
            "{}",
            file.name
        );
        assert_eq!(
            ours.policy.policy_abi_minor,
            u8::try_from(theirs.policy.abi_minor()).unwrap(),
            "{}",
            file.name
        );
        assert_eq!(
            ours.platform.platform_smt_enabled,
            theirs.plat_info.smt_enabled(),
            "{}",
            file.name
        );
        assert_eq!(
            ours.platform.platform_tsme_enabled,
            theirs.plat_info.tsme_enabled(),
            "{}",
            file.name
        );
        assert_eq!(
            ours.platform.platform_ecc_enabled,
            theirs.plat_info.ecc_enabled(),
            "{}",
            file.name
        );
    }
}

#[test]
fn only_sev_accepts_an_expired_certificate() {
    let file = real().pop().unwrap();
    assert_eq!(by_sev(&file, &file.report, VLEK), Ok(()));
    assert_eq!(
        verify(&file.report, VLEK, Trust::Amd, NOW).unwrap_err(),
        SnpRefusal::Certificate {
            role: Role::Vlek,
            reason: CertificateRefusal::Expired
        }
    );
}

#[test]
fn only_sev_accepts_a_providers_chain_in_the_place_of_a_chips() {
    // Nothing says which of AMD's intermediates the caller meant.
    let [_, ark, asvk] = amd(Generation::Milan);
    let certificate = |der: &[u8]| Certificate::from_der(der).unwrap();
    let chain = Chain {
        ca: ca::Chain {
            ark: certificate(&ark),
            ask: certificate(&asvk),
        },
        vek: certificate(VLEK),
    };
    assert!((&chain).verify().is_ok());
    assert_eq!(
        verify(MILAN, VLEK, Trust::Amd, NOW).unwrap_err(),
        SnpRefusal::Certificate {
            role: Role::Vcek,
            reason: CertificateRefusal::CommonName
        }
    );
    assert!(verify(MILAN, MILAN_VCEK, Trust::Amd, NOW).is_ok());
}

#[test]
fn only_sev_accepts_a_guest_that_may_be_debugged() {
    let file = real().into_iter().find(|file| file.name == "gosev").unwrap();
    assert_eq!(by_sev(&file, &file.report, &file.vek), Ok(()));
    let ours = verify(&file.report, &file.vek, Trust::Amd, file.now).unwrap();
    assert_eq!(ours.check(Rules::Genuine, None).refusal(), Some(&SnpRefusal::Debug));
}

#[test]
fn only_sev_drops_what_stands_between_the_parts_of_a_firmware_version() {
    // Byte 3 of the current version: signed by the real firmware as zero, so that `sev`, which writes the report again before it
    // hashes it, takes the changed one for the signed one.
    let file = &real()[0];
    let mut report = file.report.clone();
    report[0x38 + 3] = 1;
    assert_eq!(by_sev(file, &report, &file.vek), Ok(()));
    assert!(verify(&report, &file.vek, Trust::Amd, file.now).is_err());
}
