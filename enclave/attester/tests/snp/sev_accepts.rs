//! What the `sev` crate accepts and this verifier refuses, on synthetic chains: it has no root of its own, and looks at no
//! extension.

use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use cloister_attestation::policy::Generation;
use cloister_attestation::snp::{Anchor, CertificateRefusal, Role, SnpRefusal, Trust, verify};
use der::Decode;
use sev::certs::snp::{Certificate, Chain, Verifiable, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;

use crate::forge::{NOW, VCEK_SERIAL, chip_id, issue, report, signed, tcb, vcek, verdict, world};

const GENOA: Generation = Generation::Genoa;

fn sev_accepts(report: &[u8], vek: &[u8]) {
    let world = world();
    let certificate = |der: &[u8]| Certificate::from_der(der).unwrap();
    let chain = Chain {
        ca: ca::Chain {
            ark: certificate(&world.ark),
            ask: certificate(&world.ask),
        },
        vek: certificate(vek),
    };
    let report = AttestationReport::from_bytes(report).unwrap();
    (&chain, &report).verify().unwrap();
}

fn genuine_vcek() -> Vec<u8> {
    vcek(GENOA, &tcb(GENOA), &chip_id(GENOA))
}

#[test]
fn only_sev_accepts_an_attackers_self_signed_root() {
    let (report, vek) = (signed(report(GENOA, 5), &world().chip.key), genuine_vcek());
    sev_accepts(&report, &vek);
    let refused = |vek: &[u8]| verify(&report, vek, Trust::Amd, NOW).unwrap_err();
    let certificate = |reason| SnpRefusal::Certificate {
        role: Role::Vcek,
        reason,
    };
    assert_eq!(refused(&vek), certificate(CertificateRefusal::Issuer));
    // Nor do the names of AMD's own chain help.
    let amd = include_bytes!("../../../../attestation/testdata/snp/oak_genoa_vcek.der");
    let amd = x509_cert::Certificate::from_der(amd).unwrap();
    let key: &RsaKeyPair = &world().keys.ask_key;
    let named = issue(&vek, key, VCEK_SERIAL, |certificate| {
        certificate.tbs_certificate.issuer = amd.tbs_certificate.issuer.clone();
    });
    assert_eq!(refused(&named), certificate(CertificateRefusal::Signature));
    assert!(Anchor::amd(GENOA).is_ok());
}

#[test]
fn only_sev_accepts_a_synthetic_certificate_of_other_firmware() {
    let mut older = tcb(GENOA);
    older.snp -= 1;
    let vek = vcek(GENOA, &older, &chip_id(GENOA));
    sev_accepts(&signed(report(GENOA, 5), &world().chip.key), &vek);
    assert_eq!(verdict(report(GENOA, 5), &vek).unwrap_err(), SnpRefusal::TcbMismatch);
}

#[test]
fn only_sev_accepts_a_synthetic_certificate_of_another_chip() {
    let vek = vcek(GENOA, &tcb(GENOA), &[7; 64]);
    sev_accepts(&signed(report(GENOA, 5), &world().chip.key), &vek);
    assert_eq!(verdict(report(GENOA, 5), &vek).unwrap_err(), SnpRefusal::ChipMismatch);
}

#[test]
fn only_sev_accepts_a_synthetic_report_of_an_unknown_version() {
    let mut later = report(GENOA, 5);
    later[0] = 6;
    sev_accepts(&signed(later.clone(), &world().chip.key), &genuine_vcek());
    assert_eq!(verdict(later, &genuine_vcek()).unwrap_err(), SnpRefusal::Version(6));
}

#[test]
fn only_sev_accepts_a_synthetic_report_that_says_it_is_unsigned() {
    let mut unsigned = report(GENOA, 5);
    unsigned[0x48] = 7 << 2;
    sev_accepts(&signed(unsigned.clone(), &world().chip.key), &genuine_vcek());
    assert_eq!(
        verdict(unsigned, &genuine_vcek()).unwrap_err(),
        SnpRefusal::SigningKey(7)
    );
}
