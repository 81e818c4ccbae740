//! Time: windows, their erasure, replay.

use cloister_attestation::{BootId, UnixTime};

use super::fixture::*;
use crate::{
    enclave::Reason,
    ids::TenantRef,
    key_config::PaddingProfile,
    limits::MAX_NAME,
    replay::ReplayError,
    signing::SigningKey,
    window::{EARLY, EnclaveFacts, GRACE, MAX_TENANTS, WINDOW, WindowError, WindowKeys},
};

fn refusal_at(keys: &WindowKeys, m1: &[u8], at: UnixTime) -> Option<Reason> {
    open(keys, m1, at).err().map(|refused| refused.reason)
}

#[test]
fn the_same_request_twice() {
    let (tenant, mut enclave, config) = scene(PaddingProfile::OFF);
    let m1 = Draft::new(&tenant, &[config], b"{}").m1();
    for expected in [Ok(()), Err(ReplayError::Replayed)] {
        let request = enclave.open(&m1).unwrap();
        assert_eq!(enclave.keys.admit(&request), expected);
    }
}

#[test]
fn the_same_request_again_in_the_grace_time() {
    let (tenant, mut enclave, config) = scene(PaddingProfile::OFF);
    let end = config.config().not_after;
    let mut draft = Draft::new(&tenant, &[config], b"{}");
    draft.header.created = UnixTime(end.0 - 1);
    let m1 = draft.m1();
    let last = end.plus(GRACE - 2);
    for (at, expected) in [
        (UnixTime(end.0 - 1), Ok(())),
        (end, Err(ReplayError::Replayed)),
        (last, Err(ReplayError::Replayed)),
    ] {
        enclave.keys.advance(at).unwrap();
        let request = open(&enclave.keys, &m1, at).unwrap();
        assert_eq!(enclave.keys.admit(&request), expected, "{at}");
    }
    assert_eq!(refusal_at(&enclave.keys, &m1, last.plus(1)), Some(Reason::NotLive));
}

#[test]
fn the_same_request_under_a_second_window_that_it_names() {
    let (tenant, mut enclave, _) = scene(PaddingProfile::OFF);
    let end = now().plus(WINDOW);
    let both = enclave.configs_at(&tenant.reference(), UnixTime(end.0 - 1));
    assert_eq!(both.len(), 2);
    let mut draft = Draft::new(&tenant, &both, b"{}");
    // Sealed after the end of the first window, which no honest client does, it outlives that window's replay cache.
    draft.header.created = end.plus(10);
    let m1 = draft.m1();
    for (at, expected) in [
        (end.plus(10), Ok(())),
        (end.plus(GRACE + 1), Err(ReplayError::Replayed)),
    ] {
        enclave.keys.advance(at).unwrap();
        let request = open(&enclave.keys, &m1, at).unwrap();
        assert_eq!(enclave.keys.admit(&request), expected);
    }
}

#[test]
fn a_request_sealed_after_the_end_of_its_window() {
    let (tenant, enclave, config) = scene(PaddingProfile::OFF);
    let end = config.config().not_after;
    let mut draft = Draft::new(&tenant, &[config], b"{}");
    draft.header.created = end;
    assert_eq!(refusal_at(&enclave.keys, &draft.m1(), end), Some(Reason::WindowEnded));
    draft.header.created = UnixTime(end.0 - 1);
    assert_eq!(refusal_at(&enclave.keys, &draft.m1(), end), None);
}

#[test]
fn a_request_after_a_restart() {
    let tenant = Tenant::new();
    let pkcs8 = key().to_pkcs8().unwrap();
    let boot = |number| {
        let identity = SigningKey::from_pkcs8(&pkcs8).unwrap();
        Enclave::with(identity, BootId::from_bytes([number; 16]), PaddingProfile::OFF)
    };
    let mut before = boot(1);
    let m1 = Draft::new(&tenant, &[before.config(&tenant.reference())], b"{}").m1();
    assert_eq!(before.refusal(&m1), None);
    // Even a restart that came up with the same identity and boot has other keys.
    for number in [1, 2] {
        let mut after = boot(number);
        after.config(&tenant.reference());
        assert_eq!(after.refusal(&m1), Some(Reason::UnknownKey));
    }
}

#[test]
fn a_recorded_request_after_its_key_was_erased() {
    let (tenant, mut enclave, config) = scene(PaddingProfile::OFF);
    let end = config.config().not_after;
    let erased = end.plus(GRACE);
    let m1 = Draft::new(&tenant, &[config], b"{}").m1();
    let request = enclave.open(&m1).unwrap();
    let (outer, _) = outer(&m1).unwrap();
    let live = enclave.keys.find(&outer, now()).unwrap();
    assert_eq!(enclave.keys.next_erasure(), Some(erased));

    enclave.keys.advance(UnixTime(erased.0 - 1)).unwrap();
    assert!(enclave.keys.open(&live, &outer).is_ok(), "the last second");
    enclave.keys.advance(erased).unwrap();
    let refused = enclave.keys.open(&live, &outer).err().unwrap();
    assert_eq!(refused.reason, Reason::UnknownKey, "found while its key was there");
    assert_eq!(
        enclave.keys.admit(&request),
        Err(ReplayError::Replayed),
        "opened while its key was there"
    );
    // What lives long enough to come after the erasure finds no key.
    let mut late = Draft::new(&tenant, &enclave.configs_at(&tenant.reference(), erased), b"{}");
    late.header.created = erased;
    assert_eq!(refusal_at(&enclave.keys, &late.m1(), erased), None);
    late.header.candidates = outer.header().candidates.clone();
    assert_eq!(refusal_at(&enclave.keys, &late.m1(), erased), Some(Reason::UnknownKey));
}

#[test]
fn a_key_is_not_found_any_more_even_before_it_is_erased() {
    let (tenant, enclave, config) = scene(PaddingProfile::OFF);
    let end = config.config().not_after;
    let mut draft = Draft::new(&tenant, &[config], b"{}");
    draft.header.created = end.plus(GRACE);
    let at = |seconds| refusal_at(&enclave.keys, &draft.m1(), end.plus(seconds));
    assert_eq!(at(GRACE - 1), Some(Reason::WindowEnded));
    assert_eq!(at(GRACE), Some(Reason::UnknownKey));
}

#[test]
fn a_clock_that_was_moved_back() {
    let (tenant, mut enclave, config) = scene(PaddingProfile::OFF);
    let end = config.config().not_after;
    let mut draft = Draft::new(&tenant, &[config], b"{}");
    let m1 = draft.m1();
    enclave.keys.advance(now().plus(120)).unwrap();
    assert_eq!(refusal_at(&enclave.keys, &m1, now()), Some(Reason::NotLive), "expired");

    enclave.keys.advance(end.plus(GRACE)).unwrap();
    draft.header.created = end.plus(GRACE);
    assert_eq!(refusal_at(&enclave.keys, &draft.m1(), now()), Some(Reason::UnknownKey));
    enclave.keys.advance(now()).unwrap();
    assert_eq!(refusal_at(&enclave.keys, &draft.m1(), now()), Some(Reason::UnknownKey));
    let again = enclave
        .keys
        .key_configs(&tenant.reference(), &enclave.identity, now())
        .unwrap();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].unverified().window, 1, "the first window does not come back");
}

#[test]
fn a_clock_that_leaps_ahead_leaves_no_old_key() {
    let (tenant, mut enclave, _) = scene(PaddingProfile::OFF);
    let later = now().plus(100 * WINDOW + 1);
    let configs = enclave
        .keys
        .key_configs(&tenant.reference(), &enclave.identity, later)
        .unwrap();
    assert_eq!(configs.len(), 1);
    assert_eq!(configs[0].unverified().window, 100);
    assert_eq!(enclave.keys.next_erasure(), Some(now().plus(101 * WINDOW + GRACE)));
}

#[test]
fn the_next_key_is_out_three_minutes_early_and_is_another() {
    let (tenant, mut enclave, _) = scene(PaddingProfile::OFF);
    let end = now().plus(WINDOW);
    let mut out = |at: UnixTime| {
        enclave
            .keys
            .key_configs(&tenant.reference(), &enclave.identity, at)
            .unwrap()
    };
    assert_eq!(out(UnixTime(end.0 - EARLY - 1)).len(), 1);
    let both = out(UnixTime(end.0 - EARLY));
    assert_eq!(both.len(), 2);
    let (current, next) = (both[0].unverified(), both[1].unverified());
    assert_eq!((current.window, next.window), (0, 1));
    assert_eq!((current.not_after, next.not_before), (end, end));
    assert_eq!(next.not_after, end.plus(WINDOW));
    assert_ne!(current.public_key, next.public_key);
    assert!(out(UnixTime(end.0 - 1))[1] == both[1], "the same when asked again");
    assert!(out(end) == both[1..], "an ended window's key is not handed out");
}

#[test]
fn the_phase_shifts_the_windows() {
    let facts = Enclave::new(PaddingProfile::OFF).facts;
    for (phase, start) in [(0, 0), (1, 1), (WINDOW - 1, WINDOW - 1), (WINDOW + 5, 5)] {
        let mut keys = WindowKeys::new(facts.clone(), phase, now()).unwrap();
        let configs = keys
            .key_configs(&TenantRef::from_bytes([1; 16]), &key(), now())
            .unwrap();
        assert_eq!(configs[0].unverified().not_before, UnixTime(now().0 - start));
        assert_eq!(configs[0].unverified().window, 0);
    }
}

#[test]
fn facts_that_no_client_would_take() {
    let refused = |change: fn(&mut EnclaveFacts)| {
        let mut facts = Enclave::new(PADDED).facts;
        change(&mut facts);
        WindowKeys::new(facts, 0, now()).err()
    };
    assert_eq!(refused(|_| ()), None);
    assert_eq!(refused(|f| f.padding.record_size = 255), Some(WindowError::Facts));
    assert_eq!(refused(|f| f.served_model_name.clear()), Some(WindowError::Facts));
    assert_eq!(
        refused(|f| f.served_model_name = "m".repeat(MAX_NAME + 1)),
        Some(WindowError::Facts)
    );
}

#[test]
fn keys_differ_between_tenants_windows_and_enclaves() {
    let (one, two) = (TenantRef::from_bytes([1; 16]), TenantRef::from_bytes([2; 16]));
    let (mut a, mut b) = (Enclave::new(PaddingProfile::OFF), Enclave::new(PaddingProfile::OFF));
    let keys = [a.config(&one), a.config(&two), b.config(&one)].map(|c| c.config().public_key.clone());
    assert_ne!(keys[0], keys[1]);
    assert_ne!(keys[0], keys[2]);
}

#[test]
fn more_tenants_than_a_window_has_room_for() {
    let mut enclave = Enclave::new(PaddingProfile::OFF);
    let tenant = |i: usize| {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(i as u64).to_be_bytes());
        TenantRef::from_bytes(bytes)
    };
    let mut configs = |i| enclave.keys.key_configs(&tenant(i), &enclave.identity, now());
    assert!((0..MAX_TENANTS).all(|i| configs(i).is_ok()));
    assert_eq!(configs(MAX_TENANTS).err(), Some(WindowError::TooManyTenants));
    assert!(configs(0).is_ok(), "those who have a key keep it");
}
