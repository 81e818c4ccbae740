//! Chains that are wrong in one way each, under a policy that names their root.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::RSA_PSS_SHA384;
use cloister_attestation::UnixTime;
use cloister_attestation::danger::SIMULATED_TCB;
use cloister_attestation::policy::{Generation, TcbVersion};
use cloister_attestation::snp::{CertificateRefusal as Reason, Role, SnpRefusal, TcbKind, oid};
use cloister_enclave_attester::simulated::pki::{
    self, ARK_NAME, ASK_NAME, Spec, authority_extensions, extension, rsa_spki, vcek_extensions,
};
use const_oid::ObjectIdentifier;
use der::asn1::BitString;
use der::{Decode, Encode};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::ext::Extension;

use crate::support::{NOW, certificate, parts, refused_chain, report, sign_again, verdict, with_chain, world};

/// What a signed certificate authority looks like here; tests change one thing.
fn ask_spec() -> Spec {
    let world = world();
    Spec {
        subject: ASK_NAME,
        issuer: ARK_NAME,
        not_before: NOW,
        not_after: NOW.plus(60),
        spki: rsa_spki(&world.chain.ask_key).unwrap(),
        extensions: authority_extensions(Some(0)).unwrap(),
    }
}

fn ark_spec() -> Spec {
    Spec {
        subject: ARK_NAME,
        spki: rsa_spki(&world().chain.ark_key).unwrap(),
        extensions: authority_extensions(None).unwrap(),
        ..ask_spec()
    }
}

fn genuine_vcek() -> Vec<u8> {
    world().chain.issue_vcek(&world().chip, NOW).unwrap()
}

fn refused_ark(change: impl FnOnce(&mut Spec)) -> SnpRefusal {
    let chain = &world().chain;
    let mut spec = ark_spec();
    change(&mut spec);
    refused_chain(&spec.sign(&chain.ark_key).unwrap(), &chain.ask, &genuine_vcek())
}

fn refused_ask(change: impl FnOnce(&mut Spec)) -> SnpRefusal {
    let chain = &world().chain;
    let mut spec = ask_spec();
    change(&mut spec);
    refused_chain(&chain.ark, &spec.sign(&chain.ark_key).unwrap(), &genuine_vcek())
}

fn refused_vcek(change: impl FnOnce(&mut Spec)) -> SnpRefusal {
    let world = world();
    let mut spec = world.chip.spec(NOW).unwrap();
    change(&mut spec);
    let vcek = spec.sign(&world.chain.ask_key).unwrap();
    refused_chain(&world.chain.ark, &world.chain.ask, &vcek)
}

#[test]
fn unchanged_certificates_are_accepted() {
    let chain = &world().chain;
    let ark = ark_spec().sign(&chain.ark_key).unwrap();
    let ask = ask_spec().sign(&chain.ark_key).unwrap();
    let (evidence, policy) = with_chain(&ark, &ask, &genuine_vcek());
    verdict(&evidence, &policy).unwrap();
}

// === validity ===

#[test]
fn expired_certificates_are_refused() {
    let expire = |spec: &mut Spec| {
        spec.not_before = UnixTime(NOW.0 - 2);
        spec.not_after = UnixTime(NOW.0 - 1);
    };
    assert_eq!(refused_ark(expire), certificate(Role::Ark, Reason::Expired));
    assert_eq!(refused_ask(expire), certificate(Role::Ask, Reason::Expired));
    assert_eq!(refused_vcek(expire), certificate(Role::Vcek, Reason::Expired));
}

#[test]
fn certificates_of_the_future_are_refused() {
    let postpone = |spec: &mut Spec| spec.not_before = NOW.plus(1);
    assert_eq!(refused_ark(postpone), certificate(Role::Ark, Reason::NotYetValid));
    assert_eq!(refused_ask(postpone), certificate(Role::Ask, Reason::NotYetValid));
    assert_eq!(refused_vcek(postpone), certificate(Role::Vcek, Reason::NotYetValid));
}

#[test]
fn every_certificate_bounds_the_life_of_a_result() {
    let chain = &world().chain;
    let (mut ark, mut ask) = (ark_spec(), ask_spec());
    let expiry = |ark: &Spec, ask: &Spec| {
        let (ark, ask) = (ark.sign(&chain.ark_key).unwrap(), ask.sign(&chain.ark_key).unwrap());
        let (evidence, policy) = with_chain(&ark, &ask, &genuine_vcek());
        verdict(&evidence, &policy).unwrap().expires_at()
    };
    ask.not_after = NOW.plus(20);
    assert_eq!(expiry(&ark, &ask), NOW.plus(20));
    ark.not_after = NOW.plus(10);
    assert_eq!(expiry(&ark, &ask), NOW.plus(10));
}

// === who signed whom ===

#[test]
fn a_root_that_did_not_sign_itself_is_refused() {
    let chain = &world().chain;
    let ark = ark_spec().sign(&chain.ask_key).unwrap();
    assert_eq!(
        refused_chain(&ark, &chain.ask, &genuine_vcek()),
        certificate(Role::Ark, Reason::Signature)
    );
}

#[test]
fn an_intermediate_that_the_root_did_not_sign_is_refused() {
    let chain = &world().chain;
    let ask = ask_spec().sign(&chain.ask_key).unwrap();
    assert_eq!(
        refused_chain(&chain.ark, &ask, &genuine_vcek()),
        certificate(Role::Ask, Reason::Signature)
    );
}

#[test]
fn a_chip_that_the_intermediate_did_not_sign_is_refused() {
    let (chain, chip) = (&world().chain, &world().chip);
    let vcek = chip.spec(NOW).unwrap().sign(&chain.ark_key).unwrap();
    assert_eq!(
        refused_chain(&chain.ark, &chain.ask, &vcek),
        certificate(Role::Vcek, Reason::Signature)
    );
}

#[test]
fn names_must_chain() {
    let other = |spec: &mut Spec| spec.issuer = "CN=another";
    assert_eq!(refused_ark(other), certificate(Role::Ark, Reason::Issuer));
    assert_eq!(refused_ask(other), certificate(Role::Ask, Reason::Issuer));
    assert_eq!(refused_vcek(other), certificate(Role::Vcek, Reason::Issuer));
}

#[test]
fn other_signature_algorithms_are_refused() {
    let chain = &world().chain;
    // sha384WithRSAEncryption: PKCS #1 v1.5.
    let pkcs1 = AlgorithmIdentifierOwned {
        oid: ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12"),
        parameters: Some(der::asn1::Null.into()),
    };
    let genuine = x509_cert::Certificate::from_der(&genuine_vcek()).unwrap();
    // Named outside, inside, and in both places: they must agree, and be the one.
    for (outside, inside) in [(true, false), (false, true), (true, true)] {
        let mut vcek = genuine.clone();
        if outside {
            vcek.signature_algorithm = pkcs1.clone();
        }
        if inside {
            vcek.tbs_certificate.signature = pkcs1.clone();
        }
        assert_eq!(
            refused_chain(&chain.ark, &chain.ask, &vcek.to_der().unwrap()),
            certificate(Role::Vcek, Reason::SignatureAlgorithm)
        );
    }
}

#[test]
fn older_versions_of_x509_are_refused() {
    let chain = &world().chain;
    let mut vcek = x509_cert::Certificate::from_der(&genuine_vcek()).unwrap();
    vcek.tbs_certificate.version = x509_cert::Version::V2;
    let mut signature = vec![0; chain.ask_key.public_modulus_len()];
    let message = vcek.tbs_certificate.to_der().unwrap();
    chain
        .ask_key
        .sign(&RSA_PSS_SHA384, &SystemRandom::new(), &message, &mut signature)
        .unwrap();
    vcek.signature = BitString::from_bytes(&signature).unwrap();
    assert_eq!(
        refused_chain(&chain.ark, &chain.ask, &vcek.to_der().unwrap()),
        certificate(Role::Vcek, Reason::Malformed)
    );
}

#[test]
fn bytes_after_a_certificate_are_refused() {
    let chain = &world().chain;
    let long = [genuine_vcek().as_slice(), &[0]].concat();
    assert_eq!(
        refused_chain(&chain.ark, &chain.ask, &long),
        certificate(Role::Vcek, Reason::Malformed)
    );
}

// === who may sign ===

#[test]
fn authorities_need_to_be_allowed_to_sign_certificates() {
    let strip = |index| {
        move |spec: &mut Spec| {
            spec.extensions.remove(index);
        }
    };
    let refused = certificate(Role::Ask, Reason::NotAnAuthority);
    assert_eq!(refused_ask(strip(0)), refused, "no basic constraints");
    assert_eq!(refused_ask(strip(1)), refused, "no key usage");
    assert_eq!(refused_ark(strip(0)), certificate(Role::Ark, Reason::NotAnAuthority));
    let not_authority = |spec: &mut Spec| replace(spec, 0, b"\x30\x00");
    assert_eq!(refused_ask(not_authority), refused);
    // digitalSignature only.
    let cannot_sign = |spec: &mut Spec| replace(spec, 1, b"\x03\x02\x07\x80");
    assert_eq!(refused_ask(cannot_sign), refused);
}

#[test]
fn a_root_that_allows_no_intermediate_is_refused() {
    let refusal = refused_ark(|spec| spec.extensions = authority_extensions(Some(0)).unwrap());
    assert_eq!(refusal, certificate(Role::Ark, Reason::NotAnAuthority));
}

#[test]
fn an_authority_is_not_taken_for_a_chip() {
    let refusal = refused_vcek(|spec| spec.extensions.extend(authority_extensions(None).unwrap()));
    assert_eq!(refusal, certificate(Role::Vcek, Reason::Authority));
}

#[test]
fn a_chip_under_another_name_is_refused() {
    for subject in [
        "CN=SEV-VLEK,O=Cloister SIMULATED TEE",
        "O=SEV-VCEK",
        "CN=SEV-VCEK,CN=SEV-VCEK",
    ] {
        let refusal = refused_vcek(|spec| spec.subject = subject);
        assert_eq!(refusal, certificate(Role::Vcek, Reason::CommonName), "{subject}");
    }
}

#[test]
fn a_chip_with_a_key_of_another_kind_is_refused() {
    let refusal = refused_vcek(|spec| spec.spki = rsa_spki(&world().chain.ask_key).unwrap());
    assert_eq!(refusal, certificate(Role::Vcek, Reason::Key));
    // The right point, said to be for key agreement only, then of another curve.
    let mut spki = SubjectPublicKeyInfoOwned::from_der(&world().chip.spec(NOW).unwrap().spki).unwrap();
    let right = spki.algorithm.clone();
    spki.algorithm.oid = ObjectIdentifier::new_unwrap("1.3.132.1.12");
    let refusal = refused_vcek(|spec| spec.spki = spki.to_der().unwrap());
    assert_eq!(refusal, certificate(Role::Vcek, Reason::Key));
    spki.algorithm = right;
    spki.algorithm.parameters = Some((&ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7")).into());
    let refusal = refused_vcek(|spec| spec.spki = spki.to_der().unwrap());
    assert_eq!(refusal, certificate(Role::Vcek, Reason::Key));
}

#[test]
fn an_authority_with_a_key_of_another_kind_signs_nothing() {
    // The right modulus, said to be for another algorithm.
    let mut spki = SubjectPublicKeyInfoOwned::from_der(&ask_spec().spki).unwrap();
    spki.algorithm.oid = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.7");
    let refusal = refused_ask(|spec| spec.spki = spki.to_der().unwrap());
    assert_eq!(refusal, certificate(Role::Vcek, Reason::Signature));
}

#[test]
fn unknown_critical_and_repeated_extensions_are_refused() {
    let unknown = extension(ObjectIdentifier::new_unwrap("1.2.3.4"), true, vec![5, 0]).unwrap();
    let critical = |spec: &mut Spec| spec.extensions.push(unknown.clone());
    assert_eq!(
        refused_vcek(critical),
        certificate(Role::Vcek, Reason::CriticalExtension)
    );
    assert_eq!(refused_ask(critical), certificate(Role::Ask, Reason::CriticalExtension));
    let repeat = |spec: &mut Spec| spec.extensions.push(spec.extensions[0].clone());
    assert_eq!(refused_vcek(repeat), certificate(Role::Vcek, Reason::RepeatedExtension));
    assert_eq!(refused_ask(repeat), certificate(Role::Ask, Reason::RepeatedExtension));
}

// === which chip, which firmware ===

#[test]
fn each_extension_of_a_chip_is_needed() {
    for (oid, name) in [
        (oid::PRODUCT, "productName"),
        (oid::BOOTLOADER, "blSPL"),
        (oid::TEE, "teeSPL"),
        (oid::SNP, "snpSPL"),
        (oid::MICROCODE, "ucodeSPL"),
        (oid::HARDWARE_ID, "hwID"),
    ] {
        let refusal = refused_vcek(|spec| spec.extensions.retain(|extension| extension.extn_id != oid));
        assert_eq!(refusal, certificate(Role::Vcek, Reason::Extension(name)));
    }
}

#[test]
fn malformed_extensions_of_a_chip_are_refused() {
    // 256, negative, a longer encoding than needed, no integer at all.
    for value in [
        &b"\x02\x02\x01\x00"[..],
        b"\x02\x01\x80",
        b"\x02\x02\x00\x01",
        b"\x04\x01\x01",
    ] {
        let refusal = refused_vcek(|spec| set(spec, oid::SNP, value));
        assert_eq!(refusal, certificate(Role::Vcek, Reason::Extension("snpSPL")));
    }
    let id = world().chip.id;
    for value in [&id[..63], &[id.as_slice(), &[0]].concat(), &id[..8]] {
        let refusal = refused_vcek(|spec| set(spec, oid::HARDWARE_ID, value));
        assert_eq!(refusal, certificate(Role::Vcek, Reason::Extension("hwID")));
    }
    let refusal = refused_vcek(|spec| set(spec, oid::PRODUCT, b"\x16\x04Rome"));
    assert_eq!(refusal, certificate(Role::Vcek, Reason::Extension("productName")));
}

#[test]
fn a_certificate_of_another_generation_than_the_report_is_refused() {
    let id = world().chip.id;
    let refusal = refused_vcek(|spec| spec.extensions = vcek_extensions("Milan-B0", &SIMULATED_TCB, &id).unwrap());
    assert_eq!(refusal, SnpRefusal::GenerationMismatch(Generation::Milan));
}

#[test]
fn a_certificate_for_older_firmware_is_refused() {
    let id = world().chip.id;
    let older = TcbVersion {
        snp: SIMULATED_TCB.snp - 1,
        ..SIMULATED_TCB
    };
    let refusal = refused_vcek(|spec| spec.extensions = vcek_extensions("Genoa", &older, &id).unwrap());
    assert_eq!(refusal, SnpRefusal::TcbMismatch);
}

#[test]
fn a_certificate_for_another_chip_with_the_same_key_is_refused() {
    let other = pki::Chip::generate().unwrap().id;
    let refusal = refused_vcek(|spec| spec.extensions = vcek_extensions("Genoa", &SIMULATED_TCB, &other).unwrap());
    assert_eq!(refusal, SnpRefusal::ChipMismatch);
}

/// Turin has another layout of versions, one more of them, and a shorter chip id. No captured report of it is at hand.
#[test]
fn a_synthetic_turin_is_read_by_its_own_layout() {
    let world = world();
    let tcb = TcbVersion {
        fmc: Some(1),
        bootloader: 2,
        tee: 3,
        snp: 4,
        microcode: 82,
    };
    let id = &world.chip.id[..8];
    let issue = |id: &[u8]| {
        let mut spec = world.chip.spec(NOW).unwrap();
        spec.extensions = vcek_extensions("Turin", &tcb, id).unwrap();
        spec.sign(&world.chain.ask_key).unwrap()
    };
    let (mut evidence, mut policy) = with_chain(&world.chain.ark, &world.chain.ask, &issue(id));
    let report = report(&mut evidence);
    report[0x188..0x18a].copy_from_slice(&[0x1a, 0x02]);
    report[0x1a8..0x1e0].fill(0);
    for at in [0x38, 0x180, 0x1e0, 0x1f0] {
        report[at..at + 8].copy_from_slice(&[1, 2, 3, 4, 0, 0, 0, 82]);
    }
    sign_again(report, &world.chip.key);
    policy.allowed_generations = [Generation::Turin].into();
    policy.min_tcb = [(Generation::Turin, tcb)].into();
    verdict(&evidence, &policy).unwrap();

    for fmc in [Some(2), None] {
        policy.min_tcb = [(Generation::Turin, TcbVersion { fmc, ..tcb })].into();
        let (kind, found) = (TcbKind::Reported, tcb);
        let expected = SnpRefusal::TcbBelowFloor { kind, found };
        assert_eq!(verdict(&evidence, &policy).unwrap_err(), expected.into());
    }
    *parts(&mut evidence).1 = issue(&world.chip.id);
    let expected = certificate(Role::Vcek, Reason::Extension("hwID"));
    assert_eq!(verdict(&evidence, &policy).unwrap_err(), expected.into());
    let mut spec = world.chip.spec(NOW).unwrap();
    spec.extensions = vcek_extensions("Turin", &SIMULATED_TCB, id).unwrap();
    *parts(&mut evidence).1 = spec.sign(&world.chain.ask_key).unwrap();
    let expected = certificate(Role::Vcek, Reason::Extension("fmcSPL"));
    assert_eq!(verdict(&evidence, &policy).unwrap_err(), expected.into());
}

fn replace(spec: &mut Spec, index: usize, value: &[u8]) {
    let Extension { extn_id, critical, .. } = spec.extensions[index];
    spec.extensions[index] = extension(extn_id, critical, value.to_vec()).unwrap();
}

fn set(spec: &mut Spec, oid: ObjectIdentifier, value: &[u8]) {
    let index = spec.extensions.iter().position(|extension| extension.extn_id == oid);
    replace(spec, index.unwrap(), value);
}
