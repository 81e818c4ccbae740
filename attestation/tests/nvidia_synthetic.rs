//! What no captured evidence of NVIDIA's devices shows, on SYNTHETIC devices: signed by keys of the tests, under their own root.

mod nvidia_support;

use std::sync::LazyLock;

use cloister_attestation::UnixTime;
use cloister_attestation::nvidia::chain::VerifiedChain;
use cloister_attestation::nvidia::danger::verify_chain_under;
use cloister_attestation::nvidia::ocsp::{MAX_OCSP_LEN, OcspRefusal};
use cloister_attestation::nvidia::spdm::Report;
use cloister_attestation::nvidia::{
    DeviceArch, Expected, FeatureMode, NvidiaRefusal, OcspResponse, ReportRefusal, Revocation, Role, VerifiedDevice,
    fleet, verify, verify_report,
};
use cloister_attestation::x509::CertificateRefusal;
use cloister_attestation::{AppraisalPolicy, Finding, Rules};
use nvidia_support::NOW;
use nvidia_support::synthetic::{
    DEVICE, FAMILY, FWID, LEAF, OcspSpec, PROVISIONER, ROOT, ReportSpec, Spec, authority, certificate, chain,
    composite, responder, signer, specs, tcb_info,
};
use x509_cert::ext::pkix::CrlReason;
use x509_ocsp::CertStatus;

fn verified_chain(specs: &[Spec; 5], arch: DeviceArch) -> Result<VerifiedChain, NvidiaRefusal> {
    let (root, pem) = chain(specs);
    verify_chain_under(&root, &pem, arch, NOW)
}

fn hopper(change: impl Fn(&mut [Spec; 5])) -> Result<VerifiedChain, NvidiaRefusal> {
    let mut specs = specs("GH100", &FWID);
    change(&mut specs);
    verified_chain(&specs, DeviceArch::Hopper)
}

fn device(report: &ReportSpec) -> Result<VerifiedDevice, NvidiaRefusal> {
    verify_report(&report.message(), hopper(|_| {}).unwrap(), NOW)
}

fn refused(role: Role, reason: CertificateRefusal) -> Option<NvidiaRefusal> {
    Some(NvidiaRefusal::Certificate { role, reason })
}

#[test]
fn synthetic_devices_verify_under_their_own_root_and_under_no_other() {
    device(&ReportSpec::gpu(0)).unwrap();
    let (root, pem) = chain(&specs("GH100", &FWID));
    let found = verify(&ReportSpec::gpu(0).message(), &pem, DeviceArch::Hopper, NOW).unwrap_err();
    assert!(matches!(found, NvidiaRefusal::OtherRoot(_)), "{found}");
    // A root of the same name with another key.
    let mut other = specs("GH100", &FWID);
    other[ROOT].key = 50;
    other[ROOT].issuer_key = 50;
    let (_, forged) = chain(&other);
    let found = verify_chain_under(&root, &forged, DeviceArch::Hopper, NOW).unwrap_err();
    assert!(matches!(found, NvidiaRefusal::OtherRoot(_)), "{found}");
}

#[test]
fn a_synthetic_chain_with_a_certificate_that_another_key_signed_is_refused() {
    for (at, role) in [
        (LEAF, Role::Leaf),
        (DEVICE, Role::Device),
        (PROVISIONER, Role::Provisioner),
        (FAMILY, Role::Family),
        (ROOT, Role::Root),
    ] {
        let found = hopper(|specs| specs[at].issuer_key = 60).err();
        assert_eq!(found, refused(role, CertificateRefusal::Signature));
        let late = hopper(|specs| specs[at].not_before = NOW.0 + 1).err();
        assert_eq!(late, refused(role, CertificateRefusal::NotYetValid));
        let early = hopper(|specs| specs[at].not_after = NOW.0 - 1).err();
        assert_eq!(early, refused(role, CertificateRefusal::Expired));
    }
}

#[test]
fn a_synthetic_certificate_that_may_not_sign_certificates_is_refused() {
    for (at, role) in [
        (DEVICE, Role::Device),
        (PROVISIONER, Role::Provisioner),
        (FAMILY, Role::Family),
        (ROOT, Role::Root),
    ] {
        let found = hopper(|specs| specs[at].extensions = signer()).err();
        assert_eq!(found, refused(role, CertificateRefusal::NotAnAuthority));
    }
}

#[test]
fn a_synthetic_report_key_that_is_an_authority_or_for_something_else_is_refused() {
    let found = hopper(|specs| specs[LEAF].extensions = [authority(), vec![composite(&FWID)]].concat()).err();
    assert_eq!(found, refused(Role::Leaf, CertificateRefusal::Authority));
    // keyAgreement only; no usage at all.
    for extensions in [
        vec![(const_oid::db::rfc5280::ID_CE_KEY_USAGE, true, vec![3, 2, 3, 8])],
        Vec::new(),
    ] {
        let found = hopper(|specs| specs[LEAF].extensions = extensions.clone()).err();
        assert_eq!(found, refused(Role::Leaf, CertificateRefusal::Key));
    }
}

#[test]
fn a_synthetic_chain_of_two_families_is_refused() {
    let leaf = hopper(|specs| specs[LEAF].subject = "CN=GB100 A01 GSP FMC LF".to_owned()).err();
    assert!(
        matches!(leaf, Some(NvidiaRefusal::Architecture { role: Role::Leaf, .. })),
        "{leaf:?}"
    );
    let device = hopper(|specs| {
        specs[DEVICE].subject = "CN=GB100 A01 GSP BROM".to_owned();
        specs[LEAF].issuer = specs[DEVICE].subject.clone();
    });
    assert!(matches!(
        device.err(),
        Some(NvidiaRefusal::Architecture { role: Role::Device, .. })
    ));
    let unknown = hopper(|specs| specs[LEAF].subject = "CN=GA100 A01 GSP FMC LF".to_owned()).err();
    assert!(matches!(unknown, Some(NvidiaRefusal::Architecture { .. })));
}

#[test]
fn a_synthetic_key_that_was_made_for_other_firmware_is_refused() {
    for (family, arch) in [("GH100", DeviceArch::Hopper), ("GB100", DeviceArch::Blackwell)] {
        let own = verified_chain(&specs(family, &FWID), arch).unwrap();
        assert!(verify_report(&ReportSpec::gpu(0).message(), own, NOW).is_ok());
        let other = verified_chain(&specs(family, &[0xf2; 48]), arch).unwrap();
        let found = verify_report(&ReportSpec::gpu(0).message(), other, NOW).err();
        assert_eq!(found, Some(NvidiaRefusal::FwidMismatch));
        let mut without = specs(family, &FWID);
        without[LEAF].extensions = signer();
        let without = verified_chain(&without, arch).unwrap();
        let found = verify_report(&ReportSpec::gpu(0).message(), without, NOW).err();
        assert_eq!(found, Some(NvidiaRefusal::FwidMissingInCertificate));
    }
}

#[test]
fn a_synthetic_certificate_with_a_malformed_fwid_is_refused() {
    let (good, tcb) = (composite(&FWID), tcb_info(&FWID));
    let malformed = CertificateRefusal::Extension("the digest of its firmware (FWID)");
    let mut wrong = vec![vec![good.clone(), tcb.clone()]];
    for whole in [good, tcb] {
        let change = |edit: fn(&mut Vec<u8>)| {
            let mut changed = whole.clone();
            edit(&mut changed.2);
            vec![changed]
        };
        wrong.push(change(|value| value.clear()));
        wrong.push(change(|value| value.push(0)));
        wrong.push(change(|value| value.truncate(value.len() - 1)));
        // Another digest than SHA-384.
        wrong.push(change(|value| {
            let at = value
                .windows(9)
                .position(|seen| seen == [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2])
                .unwrap();
            value[at + 8] = 1;
        }));
    }
    for extensions in wrong {
        let found = hopper(|specs| specs[LEAF].extensions = [signer(), extensions.clone()].concat()).err();
        assert_eq!(found, refused(Role::Leaf, malformed));
    }
}

#[test]
fn a_synthetic_report_by_another_key_is_refused() {
    let report = ReportSpec {
        key: 2,
        ..ReportSpec::gpu(0)
    };
    assert_eq!(device(&report).err(), Some(NvidiaRefusal::Signature));
}

#[test]
fn a_synthetic_report_that_lacks_a_field_is_refused() {
    for kind in [3, 6] {
        let found = device(&ReportSpec::gpu(0).without(kind)).err();
        assert_eq!(found, Some(ReportRefusal::MissingField(kind).into()));
    }
}

#[test]
fn synthetic_fields_of_a_wrong_length_or_without_a_meaning_are_refused() {
    let with = |kind, value: &[u8]| Report::parse(&ReportSpec::gpu(0).with(kind, value).message()).err();
    for (kind, lens) in [
        (3u16, vec![0, 33]),
        (6, vec![0, 7, 9, 13, 15]),
        (11, vec![0, 2]),
        (14, vec![3, 5]),
        (15, vec![0, 33]),
        (17, vec![0, 33]),
        (18, vec![0, 33]),
        (20, vec![0, 47, 49]),
        (21, vec![0, 2]),
        (22, vec![0, 7, 9, 264]),
        (26, vec![0, 127, 264]),
        (36, vec![0, 1, 3]),
    ] {
        for found in lens {
            let expected = ReportRefusal::FieldLength { kind, found };
            assert_eq!(with(kind, &vec![b'1'; found]), Some(expected));
        }
    }
    for (kind, value) in [
        (3u16, &b"550.90.x\0"[..]),
        (3, b"\0\0\0\0"),
        (3, b"550\0.90"),
        (6, &[0, 0x9f, 0, 0x96, 1, 0, 0, 1]),
        (6, b"96.10.73.00.0G"),
        (11, &[0]),
        (15, b"88\n"),
        (21, &[1]),
        (36, &[3, 0]),
        (36, &[0, 1]),
    ] {
        assert_eq!(with(kind, value), Some(ReportRefusal::FieldValue(kind)), "{value:?}");
    }
    // Protected PCIe in one field and not in the other.
    assert_eq!(with(21, &[0xaa]), Some(ReportRefusal::FeatureConflict));
    assert_eq!(with(36, &[2, 0]), Some(ReportRefusal::FeatureConflict));
    assert_eq!(with(4000, &[]), None);
}

#[test]
fn a_synthetic_report_with_a_field_or_a_block_twice_is_refused() {
    let mut twice = ReportSpec::gpu(0);
    twice.opaque.push((4000, vec![1]));
    twice.opaque.push((4000, vec![1]));
    assert_eq!(device(&twice).err(), Some(ReportRefusal::DuplicateField(4000).into()));
    let mut twice = ReportSpec::gpu(0);
    twice.blocks[9].0 = 9;
    assert_eq!(device(&twice).err(), Some(ReportRefusal::DuplicateBlock(9).into()));
    let mut zero = ReportSpec::gpu(0);
    zero.blocks[0].0 = 0;
    assert_eq!(device(&zero).err(), Some(ReportRefusal::BlockZero.into()));
}

#[test]
fn synthetic_messages_of_another_form_are_refused() {
    let message = ReportSpec::gpu(0).message();
    let with = |at: usize, value: u8| {
        let mut changed = message.clone();
        changed[at] = value;
        Report::parse(&changed).err()
    };
    for at in 1..4 {
        assert_eq!(with(at, 0x10), Some(ReportRefusal::Request));
    }
    assert_eq!(with(37, 0x10), Some(ReportRefusal::Response));
    assert_eq!(with(38, 0x7f), Some(ReportRefusal::Response));
    assert_eq!(with(41, 63), Some(ReportRefusal::BlockCount { said: 63, found: 64 }));
    // Of the first block: specification, a raw value, the value's length.
    for (at, value) in [(46, 2), (49, 0x81), (50, 47), (50, 49), (47, 50)] {
        assert_eq!(with(at, value), Some(ReportRefusal::Block(1)), "{at}");
    }
}

#[test]
fn synthetic_gpus_of_spt_and_mpt_together_are_refused() {
    let (spt, mpt) = (device(&ReportSpec::gpu(0)).unwrap(), ReportSpec::gpu(1));
    let mut specs = specs("GH100", &FWID);
    specs[DEVICE].serial[8] = 9;
    let other = verified_chain(&specs, DeviceArch::Hopper).unwrap();
    let mpt = verify_report(&mpt.message(), other, NOW).unwrap();
    let found = fleet::check(&[spt, mpt], Rules::Genuine).refusal().cloned();
    assert_eq!(
        found,
        Some(NvidiaRefusal::FeatureMix(FeatureMode::Spt, FeatureMode::Mpt))
    );
}

// === OCSP: no response was captured ===

fn news(change: impl Fn(usize, &mut OcspSpec)) -> Vec<OcspResponse> {
    let specs = specs("GH100", &FWID);
    let one = |at: &usize| {
        let mut spec = OcspSpec::good(&specs, *at);
        change(*at, &mut spec);
        OcspResponse::parse(&spec.der()).unwrap()
    };
    [DEVICE, PROVISIONER, FAMILY].iter().map(one).collect()
}

/// What a policy with these weakenings, and what the genuine rules find.
fn found(ocsp: &[OcspResponse], unknown: bool, hold: bool) -> [Finding<NvidiaRefusal>; 2] {
    static DEVICE: LazyLock<VerifiedDevice> = LazyLock::new(|| device(&ReportSpec::gpu(0)).unwrap());
    let mut policy = AppraisalPolicy::default();
    policy.nvidia.revocation.allow_unknown = unknown;
    policy.nvidia.revocation.allow_hold = hold;
    let expected = Expected {
        nonce: None,
        state: None,
        rims: None,
        ocsp,
        now: NOW,
    };
    [Rules::Policy(&policy), Rules::Genuine].map(|rules| {
        let checks = DEVICE.check(rules, &expected);
        let check = checks.iter().find(|check| check.what.contains("OCSP")).unwrap();
        check.finding.clone()
    })
}

fn revocation(role: Role, status: Revocation) -> Finding<NvidiaRefusal> {
    Finding::Refused(NvidiaRefusal::Revocation { role, status })
}

fn ocsp_refused(refusal: OcspRefusal) -> [Finding<NvidiaRefusal>; 2] {
    [(); 2].map(|()| Finding::Refused(NvidiaRefusal::Ocsp(refusal)))
}

#[test]
fn fresh_synthetic_responses_by_responder_or_issuer_pass() {
    assert_eq!(
        found(&news(|_, _| {}), false, false),
        [Finding::Passed, Finding::Passed]
    );
    let by_issuer = news(|_, spec| {
        spec.signer = spec.issuer.clone();
        spec.signer_key = spec.issuer.key;
        spec.certificates.clear();
    });
    assert_eq!(found(&by_issuer, false, false), [Finding::Passed, Finding::Passed]);
    assert_eq!(by_issuer[0].valid_until(), UnixTime(NOW.0 + 3600));
}

#[test]
fn a_synthetic_certificate_without_a_response_is_unknown() {
    let unknown = revocation(Role::Family, Revocation::Unknown);
    let two = &news(|_, _| {})[..2];
    assert_eq!(found(two, false, false), [unknown, Finding::NotAppraised]);
    assert_eq!(found(two, true, false), [Finding::NotAppraised, Finding::NotAppraised]);
    let says_so = news(|at, spec| {
        if at == FAMILY {
            spec.status = CertStatus::unknown();
        }
    });
    assert_eq!(
        found(&says_so, false, false)[0],
        revocation(Role::Family, Revocation::Unknown)
    );
}

#[test]
fn a_revoked_synthetic_certificate_is_refused_whatever_the_policy_and_the_date() {
    for (at, role) in [
        (DEVICE, Role::Device),
        (PROVISIONER, Role::Provisioner),
        (FAMILY, Role::Family),
    ] {
        for stale in [false, true] {
            let revoked = news(|found, spec| {
                if found == at {
                    *spec = spec.clone().revoked(Some(CrlReason::KeyCompromise));
                    if stale {
                        spec.next_update = Some(NOW.0 - 1);
                    }
                }
            });
            let expected = || revocation(role, Revocation::Revoked("keyCompromise"));
            assert_eq!(found(&revoked, true, true), [expected(), expected()]);
        }
    }
    // One that says good beside it does not help.
    let mut both = news(|_, _| {});
    both.extend(news(|_, spec| *spec = spec.clone().revoked(None)));
    assert_eq!(
        found(&both, true, true)[0],
        revocation(Role::Device, Revocation::Revoked("unspecified"))
    );
}

#[test]
fn a_synthetic_certificate_on_hold_needs_a_policy_that_says_so() {
    let hold = news(|at, spec| {
        if at == DEVICE {
            *spec = spec.clone().revoked(Some(CrlReason::CertificateHold));
        }
    });
    let refused = || revocation(Role::Device, Revocation::OnHold);
    assert_eq!(found(&hold, true, false), [refused(), refused()]);
    assert!(matches!(
        found(&hold, false, true)[0],
        Finding::Warned(NvidiaRefusal::Revocation { .. })
    ));
}

#[test]
fn synthetic_responses_that_are_out_of_date_are_stale() {
    let stale = |change: fn(&mut OcspSpec)| {
        let responses = news(|at, spec| {
            if at == PROVISIONER {
                change(spec);
            }
        });
        let refused = || revocation(Role::Provisioner, Revocation::Stale);
        assert_eq!(found(&responses, false, false), [refused(), refused()]);
        assert_eq!(found(&responses, true, false)[0], Finding::NotAppraised);
    };
    stale(|spec| spec.next_update = Some(NOW.0 - 1));
    stale(|spec| spec.next_update = None);
    stale(|spec| spec.this_update = NOW.0 + 1);
    // Older than the policy's default of a day, though it calls itself valid.
    stale(|spec| spec.this_update = NOW.0 - 86_401);
}

#[test]
fn a_synthetic_response_by_somebody_else_is_refused() {
    let forged = news(|_, spec| spec.signer_key = 90);
    assert_eq!(found(&forged, true, true), ocsp_refused(OcspRefusal::Signature));
    let unnamed = news(|_, spec| spec.certificates.clear());
    assert_eq!(found(&unnamed, true, true), ocsp_refused(OcspRefusal::Responder));
    let with = |change: fn(&mut Spec), reason| {
        let responses = news(|_, spec| {
            let mut responder = responder(&spec.issuer);
            change(&mut responder);
            spec.certificates = vec![certificate(&responder)];
        });
        assert_eq!(
            found(&responses, true, true),
            ocsp_refused(OcspRefusal::Certificate(reason))
        );
    };
    with(|responder| responder.issuer_key = 90, CertificateRefusal::Signature);
    with(
        |responder| responder.issuer = "CN=somebody".to_owned(),
        CertificateRefusal::Issuer,
    );
    with(|responder| responder.not_after = NOW.0 - 1, CertificateRefusal::Expired);
    let no_usage = CertificateRefusal::Extension("the extended key usage OCSPSigning");
    with(|responder| responder.extensions = signer(), no_usage);
    // serverAuth.
    let other = hex::decode("300a06082b06010505070301").unwrap();
    let other = (const_oid::db::rfc5280::ID_CE_EXT_KEY_USAGE, false, other);
    let responses = news(|_, spec| {
        let mut responder = responder(&spec.issuer);
        responder.extensions = [signer(), vec![other.clone()]].concat();
        spec.certificates = vec![certificate(&responder)];
    });
    assert_eq!(
        found(&responses, true, true),
        ocsp_refused(OcspRefusal::Certificate(no_usage))
    );
    with(
        |responder| responder.extensions.extend(authority().drain(..1)),
        CertificateRefusal::Authority,
    );
}

#[test]
fn a_synthetic_response_of_another_certificate_or_issuer_says_nothing() {
    let other = news(|_, spec| spec.serial = vec![1]);
    assert_eq!(
        found(&other, false, false)[0],
        revocation(Role::Device, Revocation::Unknown)
    );
    let mut specs = specs("GH100", &FWID);
    specs[PROVISIONER].key = 91;
    let other = OcspSpec::good(&specs, DEVICE);
    let other = [OcspResponse::parse(&other.der()).unwrap()];
    assert_eq!(
        found(&other, false, false)[0],
        revocation(Role::Device, Revocation::Unknown)
    );
}

#[test]
fn bytes_that_are_no_synthetic_response_are_refused() {
    let whole = OcspSpec::good(&specs("GH100", &FWID), DEVICE).der();
    assert!(OcspResponse::parse(&whole).is_ok());
    for len in 0..whole.len() {
        assert!(OcspResponse::parse(&whole[..len]).is_err());
    }
    let long = [&whole[..], &[0]].concat();
    assert_eq!(OcspResponse::parse(&long).err(), Some(OcspRefusal::Malformed));
    assert_eq!(
        OcspResponse::parse(&vec![0x30; MAX_OCSP_LEN + 1]).err(),
        Some(OcspRefusal::Malformed)
    );
    // tryLater.
    assert_eq!(
        OcspResponse::parse(&[0x30, 3, 0x0a, 1, 3]).err(),
        Some(OcspRefusal::NotSuccessful)
    );
    let responses = |der: &[u8]| OcspResponse::parse(der).map(|one| vec![one]);
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 4;
        if let Ok(responses) = responses(&flipped) {
            let [policy, _] = found(&responses, false, false);
            assert_ne!(
                policy,
                revocation(Role::Provisioner, Revocation::Unknown),
                "good by a flip at {at}"
            );
        }
    }
}
