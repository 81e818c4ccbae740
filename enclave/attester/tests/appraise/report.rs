//! What a report says, each time signed by the right key.

use cloister_attestation::policy::{Generation, KeyDigest, ReportVersion, TcbVersion};
use cloister_attestation::snp::{SnpRefusal, TcbKind};
use cloister_attestation::{AppraisalPolicy, Measurement, Refusal, Sha256Digest, danger};
use cloister_enclave_attester::simulated::pki;

use crate::support::{evidence, patched, policy, refused, refused_report, report, sign_again, verdict, world};

#[test]
fn patching_and_signing_again_is_accepted_by_itself() {
    let same = report(&mut evidence())[0x50];
    assert!(verdict(&patched(0x50, &[same]), &policy()).is_ok());
}

// === form and signature ===

#[test]
fn other_lengths_are_refused() {
    for length in [0, 1183, 1185] {
        let mut evidence = evidence();
        report(&mut evidence).resize(length, 0);
        let refusal = refused(&evidence, &policy());
        assert_eq!(refusal, Refusal::Snp(SnpRefusal::Length(length)));
    }
}

#[test]
fn unknown_versions_are_refused() {
    for version in [0u32, 1, 6, u32::MAX] {
        let refusal = refused_report(0, &version.to_le_bytes());
        assert_eq!(refusal, SnpRefusal::Version(version));
    }
}

#[test]
fn reserved_bytes_are_refused() {
    // Behind the launch TCB, in the signature's padding, behind the signature.
    for at in [0x210, 0x2a0 + 48, 0x2e8 + 71, 0x330, 0x49f] {
        let mut evidence = patched(0, &[5]);
        report(&mut evidence)[at] = 1;
        if at < 0x2a0 {
            sign_again(report(&mut evidence), &world().chip.key);
        }
        let refusal = refused(&evidence, &policy());
        assert_eq!(refusal, Refusal::Snp(SnpRefusal::Malformed), "{at:#x}");
    }
    assert_eq!(refused_report(0x48, &(1u32 << 5).to_le_bytes()), SnpRefusal::Malformed);
}

#[test]
fn unknown_processors_are_refused() {
    assert_eq!(refused_report(0x188, &[0x17, 0x31]), SnpRefusal::Malformed);
    // Venice: known to the parser, without a root here.
    assert_eq!(refused_report(0x188, &[0x1a, 0x50]), SnpRefusal::Malformed);
}

#[test]
fn other_signature_algorithms_are_refused() {
    for algorithm in [0u32, 2] {
        let refusal = refused_report(0x34, &algorithm.to_le_bytes());
        assert_eq!(refusal, SnpRefusal::SignatureAlgorithm(algorithm));
    }
}

#[test]
fn other_signing_keys_are_refused() {
    for key in [2u32, 3, 6, 7] {
        let refusal = refused_report(0x48, &(key << 2).to_le_bytes());
        assert_eq!(refusal, SnpRefusal::SigningKey(key));
    }
}

#[test]
fn a_masked_chip_key_is_refused() {
    assert_eq!(refused_report(0x48, &2u32.to_le_bytes()), SnpRefusal::MaskedChipKey);
}

#[test]
fn a_masked_chip_id_is_refused() {
    assert_eq!(refused_report(0x1a0, &[0; 64]), SnpRefusal::MaskedChipId);
}

#[test]
fn an_unsigned_report_is_refused() {
    let mut evidence = evidence();
    report(&mut evidence)[0x2a0..].fill(0);
    assert_eq!(refused(&evidence, &policy()), Refusal::Snp(SnpRefusal::Signature));
}

#[test]
fn a_report_signed_by_another_key_is_refused() {
    let mut evidence = evidence();
    sign_again(report(&mut evidence), &pki::Chip::generate().unwrap().key);
    assert_eq!(refused(&evidence, &policy()), Refusal::Snp(SnpRefusal::Signature));
}

// === chip and firmware against the certificate ===

#[test]
fn firmware_that_the_certificate_does_not_name_is_refused() {
    for at in [0x180, 0x181, 0x186, 0x187] {
        let newer = report(&mut evidence())[at] + 1;
        assert_eq!(refused_report(at, &[newer]), SnpRefusal::TcbMismatch, "{at:#x}");
    }
}

#[test]
fn a_chip_that_the_certificate_does_not_name_is_refused() {
    for at in [0x1a0, 0x1df] {
        let other = report(&mut evidence())[at] ^ 1;
        assert_eq!(refused_report(at, &[other]), SnpRefusal::ChipMismatch, "{at:#x}");
    }
}

#[test]
fn a_processor_of_another_generation_than_the_certificate_is_refused() {
    // Milan, then Turin.
    for cpuid in [[0x19, 0x01], [0x1a, 0x02]] {
        let refusal = refused_report(0x188, &cpuid);
        assert_eq!(refusal, SnpRefusal::GenerationMismatch(Generation::Genoa));
    }
}

// === guest and platform ===

fn guest_policy(bits: u64) -> SnpRefusal {
    refused_report(0x08, &bits.to_le_bytes())
}

#[test]
fn debugging_is_refused() {
    assert_eq!(guest_policy(1 << 17 | 1 << 19), SnpRefusal::Debug);
}

#[test]
fn a_migration_agent_is_refused() {
    assert_eq!(guest_policy(1 << 17 | 1 << 18), SnpRefusal::MigrationAgent);
}

#[test]
fn reserved_bits_of_the_guest_policy_are_refused() {
    for bits in [0, 1 << 16, 1 << 17 | 1 << 26, 1 << 17 | 1 << 63] {
        assert_eq!(guest_policy(bits), SnpRefusal::ReservedPolicyBits);
    }
}

#[test]
fn less_privileged_levels_are_refused() {
    for level in [1u32, 3, u32::MAX] {
        let refusal = refused_report(0x30, &level.to_le_bytes());
        assert_eq!(refusal, SnpRefusal::Vmpl(level));
    }
}

#[test]
fn memory_that_was_not_checked_for_aliases_is_refused() {
    let unchecked = 1u64.to_le_bytes();
    assert_eq!(refused_report(0x40, &unchecked), SnpRefusal::AliasCheck);
    let mut policy = policy();
    policy.danger.skip_alias_check = true;
    assert!(verdict(&patched(0x40, &unchecked), &policy).is_ok());
}

// === against the policy ===

#[track_caller]
fn refused_by(change: impl FnOnce(&mut AppraisalPolicy)) -> SnpRefusal {
    let mut policy = policy();
    change(&mut policy);
    match refused(&evidence(), &policy) {
        Refusal::Snp(refusal) => refusal,
        other => panic!("refused as {other:?}"),
    }
}

#[test]
fn another_measurement_is_refused() {
    let actual = world().tee.measurement();
    let refusal = refused_by(|p| p.measurements = [Measurement::from_bytes([0; 48])].into());
    assert_eq!(refusal, SnpRefusal::Measurement(actual));
    assert_eq!(refused_by(|p| p.measurements.clear()), SnpRefusal::Measurement(actual));
    assert_eq!(
        refused_report(0x90, &[7; 48]),
        SnpRefusal::Measurement(Measurement::from_bytes([7; 48]))
    );
}

#[test]
fn other_host_data_is_refused() {
    let actual = danger::SIMULATED_HOST_DATA;
    let refusal = refused_by(|p| p.host_data = [Sha256Digest::from_bytes([0; 32])].into());
    assert_eq!(refusal, SnpRefusal::HostData(actual));
    assert_eq!(refused_by(|p| p.host_data.clear()), SnpRefusal::HostData(actual));
}

#[test]
fn other_signers_of_the_identity_block_are_refused() {
    let none = KeyDigest::from_bytes([0; 48]);
    let refusal = refused_by(|p| p.id_key_digests = [KeyDigest::from_bytes([1; 48])].into());
    assert_eq!(refusal, SnpRefusal::IdKey(none));
    let refusal = refused_by(|p| p.author_key_digests = [KeyDigest::from_bytes([1; 48])].into());
    assert_eq!(refusal, SnpRefusal::AuthorKey(none));
}

#[test]
fn generations_that_are_not_listed_are_refused() {
    let refusal = refused_by(|p| p.allowed_generations = [Generation::Milan, Generation::Turin].into());
    assert_eq!(refusal, SnpRefusal::Generation(Generation::Genoa));
}

#[test]
fn denied_platforms_are_refused() {
    let platform = world().tee.platform_id();
    let refusal = refused_by(|p| p.denied_platforms = [platform].into());
    assert_eq!(refusal, SnpRefusal::DeniedPlatform(platform));
}

#[test]
fn old_report_versions_are_refused() {
    let mut strict = policy();
    strict.min_report_version = ReportVersion::try_from(5).unwrap();
    assert!(verdict(&evidence(), &strict).is_ok());
    assert_eq!(
        refused(&patched(0, &[4]), &strict),
        Refusal::Snp(SnpRefusal::OldVersion { found: 4, least: 5 })
    );
}

#[test]
fn a_generation_without_a_floor_is_refused() {
    let refusal = refused_by(|p| p.min_tcb.clear());
    assert_eq!(refusal, SnpRefusal::NoTcbFloor(Generation::Genoa));
}

#[test]
fn every_part_of_every_firmware_version_has_a_floor() {
    let actual = danger::SIMULATED_TCB;
    let raise: [fn(&mut TcbVersion); 5] = [
        |tcb| tcb.bootloader += 1,
        |tcb| tcb.tee += 1,
        |tcb| tcb.snp += 1,
        |tcb| tcb.microcode += 1,
        |tcb| tcb.fmc = Some(0),
    ];
    for raise in raise {
        let mut floor = actual;
        raise(&mut floor);
        let refusal = refused_by(|p| p.min_tcb = [(Generation::Genoa, floor)].into());
        let (kind, found) = (TcbKind::Reported, actual);
        assert_eq!(refusal, SnpRefusal::TcbBelowFloor { kind, found });
    }
    for (kind, at) in [
        (TcbKind::Current, 0x38),
        (TcbKind::Committed, 0x1e0),
        (TcbKind::Launch, 0x1f0),
    ] {
        let found = TcbVersion {
            bootloader: actual.bootloader - 1,
            ..actual
        };
        let refusal = refused_report(at, &[found.bootloader]);
        assert_eq!(refusal, SnpRefusal::TcbBelowFloor { kind, found });
    }
}
