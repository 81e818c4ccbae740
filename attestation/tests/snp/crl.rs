//! AMD's own lists of revoked certificates, captured in 2024 and 2025.

use cloister_attestation::policy::Generation;
use cloister_attestation::snp::{
    CrlRefusal, MAX_CRL_LEN, Role, SnpRefusal, Trust, VerifiedReport, crl_next_update, verify,
};
use cloister_attestation::{Rules, UnixTime};

use crate::support::{GENOA, GENOA_VCEK, MILAN, MILAN_VCEK, NOW, NOW_OF_VLEK, VLEK, VLEK_REPORT, crls, policy, tcb};

fn milan(now: UnixTime) -> VerifiedReport {
    verify(MILAN, MILAN_VCEK, Trust::Amd, now).unwrap()
}

fn refusal(report: &VerifiedReport, list: &[u8]) -> Option<SnpRefusal> {
    report.check(Rules::Genuine, Some(list)).refusal().cloned()
}

const fn refused(reason: CrlRefusal) -> Option<SnpRefusal> {
    Some(SnpRefusal::Crl(reason))
}

#[test]
fn the_lists_of_amd_revoke_none_of_the_built_in_certificates() {
    let [genoa_list, milan_list] = crls();
    assert_eq!(refusal(&milan(NOW), &milan_list), None);
    let by_vlek = verify(VLEK_REPORT, VLEK, Trust::Amd, NOW_OF_VLEK).unwrap();
    assert_eq!(refusal(&by_vlek, &milan_list), None);
    // It lists Genoa's first intermediate, 02 00 01; the one in use is 02 00 02.
    let genoa = verify(GENOA, GENOA_VCEK, Trust::Amd, UnixTime(1_760_000_000)).unwrap();
    assert_eq!(refusal(&genoa, &genoa_list), None);
}

#[test]
fn a_list_is_used_only_within_its_validity() {
    let [_, list] = crls();
    // 2025-05-06T12:39:06Z to 2026-05-12T00:00:00Z.
    let (first, last) = (UnixTime(1_746_535_146), UnixTime(1_778_544_000));
    assert_eq!(crl_next_update(&list), Ok(last));
    assert_eq!(refusal(&milan(first), &list), None);
    assert_eq!(refusal(&milan(last), &list), None);
    let early = milan(UnixTime(first.0 - 1));
    assert_eq!(refusal(&early, &list), refused(CrlRefusal::NotYetValid));
    let late = milan(UnixTime(last.0 + 1));
    assert_eq!(refusal(&late, &list), refused(CrlRefusal::Expired));
}

#[test]
fn the_list_of_another_generation_is_refused() {
    let [genoa, _] = crls();
    assert_eq!(
        refusal(&milan(UnixTime(1_760_000_000)), &genoa),
        refused(CrlRefusal::Issuer)
    );
}

#[test]
fn any_changed_byte_of_a_list_is_refused() {
    let [list, _] = crls();
    let report = verify(GENOA, GENOA_VCEK, Trust::Amd, UnixTime(1_760_000_000)).unwrap();
    for at in 0..list.len() {
        let mut changed = list.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(
            matches!(refusal(&report, &changed), Some(SnpRefusal::Crl(_))),
            "byte {at} may change"
        );
        assert!(
            matches!(refusal(&report, &list[..at]), Some(SnpRefusal::Crl(_))),
            "length {at}"
        );
    }
    // The last byte is of the signature: only that can have found it.
    let mut changed = list.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(refusal(&report, &changed), refused(CrlRefusal::Signature));
    let long = [list.as_slice(), &[0]].concat();
    assert_eq!(refusal(&report, &long), refused(CrlRefusal::Malformed));
    let long = vec![0x30; MAX_CRL_LEN + 1];
    assert_eq!(refusal(&report, &long), refused(CrlRefusal::Malformed));
}

#[test]
fn a_policy_can_ask_for_a_list_and_for_its_age() {
    let [_, list] = crls();
    let report = milan(NOW);
    let mut policy = policy(&report, MILAN, tcb(0, 0, 0));
    let check = |policy: &_, list| report.check(Rules::Policy(policy), list).verdict();
    assert_eq!(check(&policy, None), Ok(()));
    assert_eq!(check(&policy, Some(list.as_slice())), Ok(()));
    let age = NOW.0 - 1_746_535_146;
    policy.snp.max_crl_age_seconds = Some(age);
    assert_eq!(check(&policy, Some(list.as_slice())), Ok(()));
    assert_eq!(check(&policy, None), Err(SnpRefusal::Crl(CrlRefusal::Missing)));
    policy.snp.max_crl_age_seconds = Some(age - 1);
    assert_eq!(
        check(&policy, Some(list.as_slice())),
        Err(SnpRefusal::Crl(CrlRefusal::TooOld))
    );
}

#[test]
fn the_intermediate_that_amd_did_revoke_is_refused() {
    // AMD's list against the chain that it is about, but with the revoked serial number: see `enclave/attester/tests/snp` for the
    // whole path. Here: the number stands in the list, and not in the chain in use.
    let [list, _] = crls();
    assert!(list.windows(5).any(|bytes| bytes == [0x02, 0x03, 0x02, 0x00, 0x01]));
    let [ask, _, _] = crate::support::amd(Generation::Genoa);
    assert!(ask.windows(5).any(|bytes| bytes == [0x02, 0x03, 0x02, 0x00, 0x02]));
    assert_eq!(
        SnpRefusal::Revoked(Role::Ask).to_string(),
        "intermediate certificate (ASK) is revoked by AMD"
    );
}
