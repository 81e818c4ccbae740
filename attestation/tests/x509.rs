//! Certificates of AMD and NVIDIA through the strict parser, and AWS-LC against RustCrypto on their signatures.

use cloister_attestation::UnixTime;
use cloister_attestation::policy::Generation;
use cloister_attestation::snp::Anchor;
use cloister_attestation::x509::{
    AwsLc, Certificate, CertificateRefusal, MAX_CERTIFICATE_LEN, PemRefusal, SignatureScheme, SignatureVerifier,
    pem_certificates,
};
use p384::ecdsa::signature::Verifier;
use p384::ecdsa::{Signature, VerifyingKey};

const NVIDIA: &str = include_str!("../testdata/nvidia/e2e_pass/cert_chain.pem");
const AMD: &str = include_str!("../testdata/snp/milan_ask_ark_asvk.pem");
const VCEK: &[u8] = include_bytes!("../testdata/snp/trustee_vcek.der");
const REPORT: &[u8] = include_bytes!("../testdata/snp/trustee_report.bin");

/// The other implementation, of ECDSA only: that of RSA is in `sev` (`tests/snp/differential.rs`).
struct RustCrypto;

impl SignatureVerifier for RustCrypto {
    fn verify(&self, scheme: SignatureScheme, key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let signature = match scheme {
            SignatureScheme::EcdsaP384 => Signature::from_der(signature),
            SignatureScheme::EcdsaP384Fixed => Signature::from_slice(signature),
            SignatureScheme::RsaPssSha384 => return false,
        };
        let key = VerifyingKey::from_sec1_bytes(key);
        key.is_ok_and(|key| signature.is_ok_and(|signature| key.verify(message, &signature).is_ok()))
    }
}

fn ders(pem: &str) -> Vec<Vec<u8>> {
    pem_certificates(pem, 5).unwrap()
}

fn parsed(ders: &[Vec<u8>]) -> Vec<Certificate<'_>> {
    ders.iter().map(|der| Certificate::parse(der, &[]).unwrap()).collect()
}

#[test]
fn both_implementations_accept_the_chain_of_a_real_gpu() {
    let ders = ders(NVIDIA);
    let chain = parsed(&ders);
    assert_eq!(chain.len(), 5);
    for pair in chain.windows(2) {
        for crypto in [&AwsLc as &dyn SignatureVerifier, &RustCrypto] {
            assert_eq!(
                pair[0].check_issued_by(&pair[1], SignatureScheme::EcdsaP384, crypto),
                Ok(())
            );
            // By another scheme it is not signed.
            assert_eq!(
                pair[0].check_issued_by(&pair[1], SignatureScheme::RsaPssSha384, crypto),
                Err(CertificateRefusal::SignatureAlgorithm)
            );
        }
    }
}

#[test]
fn both_implementations_refuse_the_same_changed_signatures() {
    let vcek = Certificate::parse(VCEK, &[]).unwrap();
    let (message, signature) = (&REPORT[..0x2a0], &REPORT[0x2a0..]);
    let mut fixed: Vec<u8> = signature[..48].iter().rev().copied().collect();
    fixed.extend(signature[72..120].iter().rev());
    let verdict = |message: &[u8], signature: &[u8]| {
        let by = |crypto| vcek.has_signed(SignatureScheme::EcdsaP384Fixed, message, signature, crypto);
        let (ours, theirs) = (by(&AwsLc as &dyn SignatureVerifier), by(&RustCrypto));
        assert_eq!(ours, theirs);
        ours.unwrap()
    };
    assert!(verdict(message, &fixed));
    for at in 0..fixed.len() {
        let mut changed = fixed.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(!verdict(message, &changed), "{at}");
    }
    for extreme in [[0; 96], [0xff; 96]] {
        assert!(!verdict(message, &extreme));
    }
    assert!(!verdict(message, &fixed[..95]));
    assert!(!verdict(&message[1..], &fixed));
}

#[test]
fn a_certificate_is_one_der_structure_and_nothing_else() {
    let malformed = Some(CertificateRefusal::Malformed);
    let refused = |der: &[u8]| Certificate::parse(der, &[]).err();
    for der in ders(AMD).iter().chain(&ders(NVIDIA)) {
        assert_eq!(refused(der), None);
        for len in 0..der.len() {
            assert_eq!(refused(&der[..len]), malformed);
        }
        assert_eq!(refused(&[der.as_slice(), &[0]].concat()), malformed);
    }
    assert_eq!(refused(&vec![0x30; MAX_CERTIFICATE_LEN + 1]), malformed);
}

#[test]
fn a_path_length_holds_the_depth() {
    let ders = ders(AMD);
    let [ask, ark, asvk] = <[_; 3]>::try_from(parsed(&ders)).unwrap();
    assert_eq!(ark.check_authority(1), Ok(()));
    for intermediate in [&ask, &asvk] {
        assert_eq!(intermediate.check_authority(0), Ok(()));
        assert_eq!(intermediate.check_authority(1), Err(CertificateRefusal::NotAnAuthority));
        assert_eq!(intermediate.check_not_authority(), Err(CertificateRefusal::Authority));
        assert_eq!(
            intermediate.check_signs_lists(),
            Err(CertificateRefusal::NotAnAuthority)
        );
    }
    assert_eq!(ark.check_signs_lists(), Ok(()));
    let vcek = Certificate::parse(VCEK, &[]).unwrap();
    assert_eq!(vcek.check_not_authority(), Ok(()));
    assert_eq!(vcek.check_authority(0), Err(CertificateRefusal::NotAnAuthority));
    assert_eq!(vcek.common_name(), Some("SEV-VCEK"));
    assert_eq!(vcek.issuer(), ask.subject());
    assert_eq!((vcek.serial(), ask.serial()), ([0].as_slice(), [1, 0, 1].as_slice()));
}

#[test]
fn both_ends_of_a_validity_are_inside() {
    let vcek = Certificate::parse(VCEK, &[]).unwrap();
    let (first, last) = (vcek.not_before(), vcek.not_after());
    assert_eq!(vcek.check_dates(first), Ok(()));
    assert_eq!(vcek.check_dates(last), Ok(()));
    let before = UnixTime(first.0 - 1);
    assert_eq!(vcek.check_dates(before), Err(CertificateRefusal::NotYetValid));
    assert_eq!(vcek.check_dates(last.plus(1)), Err(CertificateRefusal::Expired));
}

#[test]
fn pem_is_certificates_and_white_space() {
    let three = ders(AMD);
    assert_eq!(three.len(), 3);
    let spaced = format!("\r\n  {}\n\n", AMD.replace('\n', "\r\n"));
    assert_eq!(pem_certificates(&spaced, 3), Ok(three));
    assert_eq!(pem_certificates(AMD, 2), Err(PemRefusal::TooMany(2)));
    let huge = " ".repeat(1 << 20);
    assert_eq!(pem_certificates(&huge, 3), Err(PemRefusal::TooMany(3)));
    let other = AMD.replace("CERTIFICATE", "X509 CRL");
    let cases = [
        "",
        " ",
        "text",
        &other,
        &format!("{AMD}text"),
        &format!("text\n{AMD}"),
        &AMD[1..],
        &AMD[..500],
    ];
    for text in cases {
        assert_eq!(pem_certificates(text, 5), Err(PemRefusal::Malformed), "{text:.40}");
    }
}

#[test]
fn every_built_in_root_is_an_anchor() {
    for generation in [Generation::Milan, Generation::Genoa, Generation::Turin] {
        assert!(Anchor::amd(generation).is_ok());
    }
}
