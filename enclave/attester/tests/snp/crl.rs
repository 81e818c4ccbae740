//! Lists of revoked certificates by a test root: what AMD's own lists do not show.

use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use cloister_attestation::Rules;
use cloister_attestation::policy::Generation;
use cloister_attestation::snp::{CrlRefusal, Role, SnpRefusal, Trust, VerifiedReport, oid, verify};
use der::asn1::UtcTime;
use der::{Decode, Encode};
use spki::AlgorithmIdentifierOwned;
use std::time::Duration;
use x509_cert::Version;
use x509_cert::crl::{CertificateList, RevokedCert, TbsCertList};
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::Time;

use crate::forge::{
    ARK_SERIAL, ASK_SERIAL, ASVK_SERIAL, NOW, VCEK_SERIAL, VLEK_SERIAL, anchor, chip_id, of_chip, provider_report,
    report, sign, signed, tcb, vcek, verdict, vlek, world,
};

type Change<'a> = &'a dyn Fn(&mut CertificateList);

fn time(at: u64) -> Time {
    Time::UtcTime(UtcTime::from_unix_duration(Duration::from_secs(at)).unwrap())
}

/// A list of these serial numbers by the test root, after one change.
fn list_by(key: &RsaKeyPair, serials: &[&[u8]], change: impl Fn(&mut CertificateList)) -> Vec<u8> {
    let root = x509_cert::Certificate::from_der(&world().ark).unwrap();
    let algorithm = AlgorithmIdentifierOwned::from_der(oid::PSS_SHA384).unwrap();
    let entry = |serial: &&[u8]| RevokedCert {
        serial_number: SerialNumber::new(serial).unwrap(),
        revocation_date: time(NOW.0 - 60),
        crl_entry_extensions: None,
    };
    let tbs_cert_list = TbsCertList {
        version: Version::V2,
        signature: algorithm.clone(),
        issuer: root.tbs_certificate.subject,
        this_update: time(NOW.0 - 60),
        next_update: Some(time(NOW.0 + 60)),
        revoked_certificates: (!serials.is_empty()).then(|| serials.iter().map(entry).collect()),
        crl_extensions: None,
    };
    let mut list = CertificateList {
        signature: sign(key, &[]),
        signature_algorithm: algorithm,
        tbs_cert_list,
    };
    change(&mut list);
    list.signature = sign(key, &list.tbs_cert_list.to_der().unwrap());
    list.to_der().unwrap()
}

fn list(serials: &[&[u8]]) -> Vec<u8> {
    list_by(&world().keys.ark_key, serials, |_| ())
}

fn by_chip() -> VerifiedReport {
    of_chip(Generation::Genoa, report(Generation::Genoa, 5)).unwrap()
}

fn refusal(verified: &VerifiedReport, list: &[u8]) -> Option<SnpRefusal> {
    verified.check(Rules::Genuine, Some(list)).refusal().cloned()
}

#[test]
fn a_revoked_certificate_of_a_synthetic_chain_is_refused() {
    let (chip, provider) = (by_chip(), verdict(provider_report(), &vlek(|_| ())).unwrap());
    for (serial, of_chip, of_provider) in [
        (ARK_SERIAL, Some(Role::Ark), Some(Role::Ark)),
        (ASK_SERIAL, Some(Role::Ask), None),
        (ASVK_SERIAL, None, Some(Role::Asvk)),
        (VCEK_SERIAL, Some(Role::Vcek), None),
        (VLEK_SERIAL, None, Some(Role::Vlek)),
        (&[9], None, None),
    ] {
        let list = list(&[&[8], serial]);
        assert_eq!(refusal(&chip, &list), of_chip.map(SnpRefusal::Revoked), "{serial:?}");
        assert_eq!(
            refusal(&provider, &list),
            of_provider.map(SnpRefusal::Revoked),
            "{serial:?}"
        );
    }
    assert_eq!(refusal(&chip, &list(&[])), None);
}

#[test]
fn a_synthetic_list_by_another_key_is_refused() {
    let forged = list_by(&world().keys.ask_key, &[], |_| ());
    assert_eq!(
        refusal(&by_chip(), &forged),
        Some(SnpRefusal::Crl(CrlRefusal::Signature))
    );
}

#[test]
fn a_synthetic_list_of_a_root_that_may_not_sign_lists_is_refused() {
    let world = world();
    // The same root without cRLSign.
    let root = anchor(&[&world.ask, &world.keys.ark]);
    let report = signed(report(Generation::Genoa, 5), &world.chip.key);
    let vek = vcek(Generation::Genoa, &tcb(Generation::Genoa), &chip_id(Generation::Genoa));
    let verified = verify(&report, &vek, Trust::Simulated(&root), NOW).unwrap();
    assert_eq!(
        refusal(&verified, &list(&[])),
        Some(SnpRefusal::Crl(CrlRefusal::NotAnAuthority))
    );
}

#[test]
fn synthetic_lists_of_another_shape_are_refused() {
    let critical = x509_cert::ext::Extension {
        extn_id: const_oid::db::rfc5280::ID_CE_ISSUING_DISTRIBUTION_POINT,
        critical: true,
        extn_value: der::asn1::OctetString::new([0x30, 0]).unwrap(),
    };
    let shapes: [(Change<'_>, CrlRefusal); 6] = [
        (&|l| l.tbs_cert_list.next_update = None, CrlRefusal::Malformed),
        (&|l| l.tbs_cert_list.version = Version::V1, CrlRefusal::Malformed),
        (
            &|l| l.tbs_cert_list.crl_extensions = Some(vec![critical.clone()]),
            CrlRefusal::Malformed,
        ),
        (
            &|l| {
                let entries = l.tbs_cert_list.revoked_certificates.as_mut().unwrap();
                entries[0].crl_entry_extensions = Some(vec![critical.clone()]);
            },
            CrlRefusal::Malformed,
        ),
        (
            &|l| l.signature_algorithm.parameters = None,
            CrlRefusal::SignatureAlgorithm,
        ),
        (
            &|l| {
                l.signature_algorithm.parameters = None;
                l.tbs_cert_list.signature.parameters = None;
            },
            CrlRefusal::SignatureAlgorithm,
        ),
    ];
    for (index, (change, expected)) in shapes.into_iter().enumerate() {
        let list = list_by(&world().keys.ark_key, &[&[9]], change);
        assert_eq!(refusal(&by_chip(), &list), Some(SnpRefusal::Crl(expected)), "{index}");
    }
}
