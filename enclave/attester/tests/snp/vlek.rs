//! Keys of providers.

use cloister_attestation::policy::Generation;
use cloister_attestation::snp::{CertificateRefusal as Reason, Role, SnpRefusal, Trust, verify};

use crate::forge::{
    NOW, PROVIDER, anchor, chip_id, of_chip, provider, provider_report, report, roots, signed, tcb, vcek, verdict,
    vlek, world,
};

const fn refused(reason: Reason) -> SnpRefusal {
    SnpRefusal::Certificate {
        role: Role::Vlek,
        reason,
    }
}

#[test]
fn a_synthetic_vlek_vouches_with_and_without_a_chip() {
    let verified = verdict(provider_report(), &vlek(|_| ())).unwrap();
    assert_eq!(verified.claims().csp_id.as_deref(), Some(PROVIDER));
    let mut named = provider_report();
    named[0x1a0..0x1e0].copy_from_slice(&chip_id(Generation::Genoa));
    let verified = verdict(named, &vlek(|_| ())).unwrap();
    assert!(verified.claims().chip_id.is_some());
}

#[test]
fn a_synthetic_vlek_needs_the_intermediate_for_providers() {
    let world = world();
    let report = signed(provider_report(), &world.chip.key);
    let under = |chain: &[&[u8]]| verify(&report, &vlek(|_| ()), Trust::Simulated(&anchor(chain)), NOW).unwrap_err();
    assert_eq!(under(&[&world.ask, &world.ark]), SnpRefusal::NoProviders);
    assert_eq!(under(&[&world.asvk, &world.ark, &world.ask]), refused(Reason::Issuer));
    // Issued under the chips' intermediate, whose key here is the same: only the name tells.
    let by_ask = vlek(|spec| spec.issuer = cloister_enclave_attester::simulated::pki::ASK_NAME);
    assert_eq!(
        verdict(provider_report(), &by_ask).unwrap_err(),
        refused(Reason::Issuer)
    );
}

#[test]
fn a_synthetic_vlek_of_other_firmware_is_refused() {
    let mut report = provider_report();
    report[0x187] += 1;
    assert_eq!(verdict(report, &vlek(|_| ())).unwrap_err(), SnpRefusal::TcbMismatch);
}

#[test]
fn a_synthetic_vlek_has_to_name_its_provider() {
    let without = vlek(|spec| {
        spec.extensions.pop();
    });
    let missing = refused(Reason::Extension("csp_id"));
    assert_eq!(verdict(provider_report(), &without).unwrap_err(), missing);
    let long = "x".repeat(257);
    for name in ["", "two\nlines", long.as_str()] {
        let named = vlek(|spec| *spec.extensions.last_mut().unwrap() = provider(name));
        assert_eq!(verdict(provider_report(), &named).unwrap_err(), missing, "{name:?}");
    }
}

#[test]
fn a_synthetic_report_says_whose_key_signed_and_the_certificate_has_to_agree() {
    let id = chip_id(Generation::Genoa);
    let of_chip = vcek(Generation::Genoa, &tcb(Generation::Genoa), &id);
    assert_eq!(
        verdict(provider_report(), &of_chip).unwrap_err(),
        refused(Reason::CommonName)
    );
    assert_eq!(
        verdict(report(Generation::Genoa, 5), &vlek(|_| ())).unwrap_err(),
        SnpRefusal::Certificate {
            role: Role::Vcek,
            reason: Reason::CommonName
        }
    );
}

#[test]
fn a_synthetic_chip_may_not_hide_its_id() {
    let mut hidden = report(Generation::Genoa, 5);
    hidden[0x1a0..0x1e0].fill(0);
    assert_eq!(
        of_chip(Generation::Genoa, hidden).unwrap_err(),
        SnpRefusal::MaskedChipId
    );
}

#[test]
fn a_synthetic_intermediate_for_providers_has_its_own_dates() {
    let report = signed(provider_report(), &world().chip.key);
    let vlek = vlek(|_| ());
    assert!(verify(&report, &vlek, Trust::Simulated(&roots()), NOW.plus(3600)).is_ok());
    assert_eq!(
        verify(&report, &vlek, Trust::Simulated(&roots()), NOW.plus(3601)).unwrap_err(),
        SnpRefusal::Certificate {
            role: Role::Asvk,
            reason: Reason::Expired
        }
    );
}
