//! Refusals that no captured evidence shows, on SYNTHETIC quotes.

#![allow(clippy::arithmetic_side_effects)]

use serde_json::json;

use super::synthetic::{FMSPC, ListIssuer, NOW, Synthetic, platform_level};
use super::*;
use crate::check::{Finding, Trust};
use crate::rules::Rules;

fn try_verify(synthetic: &Synthetic) -> Result<VerifiedQuote, TdxRefusal> {
    let built = synthetic.build();
    verify_under(&built.root, &built.quote, &built.collateral, NOW)
}

fn genuine(synthetic: &Synthetic) -> VerifiedQuote {
    try_verify(synthetic).expect("a quote that verifies")
}

fn refused(synthetic: &Synthetic) -> TdxRefusal {
    try_verify(synthetic).expect_err("a refusal")
}

fn with(change: impl FnOnce(&mut Synthetic)) -> Synthetic {
    let mut synthetic = Synthetic::default();
    change(&mut synthetic);
    synthetic
}

/// Sets a bit of the guest's attributes.
fn attribute(bit: usize) -> Synthetic {
    with(|synthetic| synthetic.body[120 + bit / 8] |= 1 << (bit % 8))
}

/// Allows exactly what `quote` says.
fn policy(quote: &VerifiedQuote) -> TdxPolicy {
    let all = BitSet::from_bytes([0xff; 8]);
    let fixed = |value| FixedBits { value, mask: all };
    let body = &quote.body;
    TdxPolicy {
        mrtd: [body.mr_td].into(),
        rtmr0: [body.rtmr[0]].into(),
        rtmr1: [body.rtmr[1]].into(),
        rtmr2: [body.rtmr[2]].into(),
        rtmr3: [body.rtmr[3]].into(),
        mr_config_id: [body.mr_config_id].into(),
        mr_seam: [body.mr_seam].into(),
        xfam: [fixed(body.xfam)].into(),
        td_attributes: [fixed(body.td_attributes)].into(),
        min_tcb_evaluation_data_number: Some(18),
        min_tee_tcb_svn: Some(TeeTcbSvn::from_bytes([0; 16])),
        allowed_fmspcs: [Fmspc::from_bytes(FMSPC)].into(),
        ..TdxPolicy::default()
    }
}

/// What a policy that allows all that is listed says, and what is said without a policy.
fn verdicts(quote: &VerifiedQuote) -> [Result<(), TdxRefusal>; 2] {
    [
        quote.check_tdx(Some(&policy(quote))).verdict(),
        quote.check(Rules::Genuine).verdict(),
    ]
}

fn both(refusal: &TdxRefusal) -> [Result<(), TdxRefusal>; 2] {
    [Err(refusal.clone()), Err(refusal.clone())]
}

#[test]
fn synthetic_quotes_of_all_layouts_verify() {
    for (version, kind, found) in [
        (4, 2, BodyKind::Td10),
        (5, 2, BodyKind::Td10),
        (5, 3, BodyKind::Td15),
        (5, 4, BodyKind::Td15Ex),
    ] {
        let quote = genuine(&with(|s| (s.version, s.kind) = (version, kind)));
        assert_eq!(quote.body.kind, found);
        assert_eq!(verdicts(&quote), [Ok(()), Ok(())]);
        assert_eq!(quote.check(Rules::Genuine).trust(), Trust::Affirming);
        // 2026-01-31T00:00:00Z is the first second after.
        assert_eq!(quote.valid_until(), UnixTime(1_769_817_599));
    }
}

#[test]
fn synthetic_root_of_an_attacker_is_refused() {
    let built = Synthetic::default().build();
    assert_eq!(
        verify(&built.quote, &built.collateral, NOW).unwrap_err(),
        TdxRefusal::Root("issuer chain of the TCB info")
    );
    // A quote under the attacker's root, with the rest of the chain exchanged for genuine collateral.
    let genuine = include_str!("../../testdata/tdx/assembled/phala_90c06f_2026-02_collateral_nopck.json");
    assert_eq!(
        verify(&built.quote, genuine, UnixTime(1_772_323_200)).unwrap_err(),
        TdxRefusal::Root("certificate chain of the quote")
    );
}

#[test]
fn synthetic_attributes_that_give_a_guest_away_are_refused() {
    for (bit, found) in [
        (0, UntrustedBit::Debug),
        (4, UntrustedBit::Profiling),
        (5, UntrustedBit::Profiling),
        (6, UntrustedBit::Profiling),
        (63, UntrustedBit::Perfmon),
    ] {
        assert_eq!(
            verdicts(&genuine(&attribute(bit))),
            both(&TdxRefusal::Attribute(found)),
            "{bit}"
        );
    }
    assert_eq!(refused(&attribute(29)), TdxRefusal::Attribute(UntrustedBit::Migratable));
    let faults = with(|s| s.body[123] = 0);
    assert_eq!(refused(&faults), TdxRefusal::Attribute(UntrustedBit::SeptVeDisable));
    for bit in (1..=3).chain(7..=15).chain(18..=26).chain(32..=61) {
        assert_eq!(
            refused(&attribute(bit)),
            TdxRefusal::Attribute(UntrustedBit::Reserved),
            "{bit}"
        );
    }
    // The same, as an appraisal lists them.
    let listed = |bits: u64, at: usize| {
        TdAttributes::new(BitSet::from_bytes(bits.to_le_bytes())).checks()[at]
            .1
            .clone()
    };
    assert_eq!(listed(1 << 29, 3), Err(TdxRefusal::Attribute(UntrustedBit::Migratable)));
    assert_eq!(listed(0, 4), Err(TdxRefusal::Attribute(UntrustedBit::SeptVeDisable)));
    for harmless in [16, 27, 30, 31, 62] {
        assert_eq!(verdicts(&genuine(&attribute(harmless))), [Ok(()), Ok(())], "{harmless}");
    }
}

/// The design says of an earlier version that it looked for performance counters in another byte. This one does not, and lets
/// them pass; bits 18 to 22 it does not call reserved.
#[test]
fn dcap_qvl_reads_each_attribute_where_we_do() {
    for bit in 0..64 {
        let bytes = (1u64 << bit).to_le_bytes();
        let theirs = dcap_qvl::quote::TDAttributes::parse(bytes).unwrap();
        let ours = TdAttributes::new(BitSet::from_bytes(bytes));
        assert_eq!(theirs.other.perfmon, ours.perfmon(), "{bit}");
        assert_eq!(theirs.sec.migratable, ours.migratable(), "{bit}");
        assert_eq!(theirs.sec.sept_ve_disable, ours.sept_ve_disable(), "{bit}");
        assert_eq!(theirs.sec.servtd_ext, ours.service_td(), "{bit}");
        assert_eq!(theirs.sec.pks, ours.protection_keys(), "{bit}");
        assert_eq!(theirs.sec.kl, ours.key_locker(), "{bit}");
        assert_eq!(theirs.tud & 1 != 0, ours.debug(), "{bit}");
        let reserved = ours.checks()[5].1.is_err();
        assert_eq!(theirs.reserved != 0 || (18..=22).contains(&bit), reserved, "{bit}");
    }
    let built = attribute(63).build();
    let collateral: dcap_qvl::QuoteCollateralV3 = serde_json::from_str(&built.collateral).unwrap();
    let strict = QuotePolicy::strict(NOW.0);
    let theirs = QuoteVerifier::new(built.root).verify_with_policy(&built.quote, collateral, NOW.0, &strict);
    assert!(
        theirs.is_ok(),
        "dcap-qvl refuses performance counters by now: say so in the table of refusals"
    );
}

#[test]
fn synthetic_service_guests_are_refused_unless_listed() {
    let digest = Measurement::from_bytes([7; 48]);
    let refusal = |found| TdxRefusal::ServiceTd {
        register: Register::MrServiceTd,
        found,
    };
    let served = with(|s| s.body[600..648].fill(7));
    let later = with(|s| {
        s.kind = 4;
        s.body[123..125].copy_from_slice(&[0x10, 0]);
        s.body[829..877].fill(7);
    });
    for synthetic in [served, later] {
        let quote = genuine(&synthetic);
        assert_eq!(verdicts(&quote), both(&refusal(digest)));
        let mut listed = policy(&quote);
        listed.mr_service_td = [digest].into();
        assert_eq!(quote.check_tdx(Some(&listed)).verdict(), Ok(()));
    }
    // The attribute without a digest.
    let zeros = Measurement::from_bytes([0; 48]);
    assert_eq!(verdicts(&genuine(&attribute(17))), both(&refusal(zeros)));
    // Version 4 has no place for it.
    let v4 = with(|s| {
        s.version = 4;
        s.body[122] = 2;
    });
    assert!(matches!(refused(&v4), TdxRefusal::Unverified(words) if words.contains("SERVTD_EXT")));
}

#[test]
fn synthetic_reserved_bits_of_xfam_are_refused() {
    for xfam in [
        [0xe6, 2, 6, 0, 0, 0, 0, 0],
        [0xe5, 2, 6, 0, 0, 0, 0, 0],
        [0xe7, 2, 6, 0x80, 0, 0, 0, 0],
    ] {
        let quote = genuine(&with(|s| s.body[128..136].copy_from_slice(&xfam)));
        assert_eq!(
            verdicts(&quote),
            both(&TdxRefusal::XfamReserved(BitSet::from_bytes(xfam)))
        );
    }
}

#[test]
fn synthetic_owners_are_refused_unless_listed() {
    for (at, register) in [(232, Register::MrOwner), (280, Register::MrOwnerConfig)] {
        let quote = genuine(&with(|s| s.body[at..at + 48].fill(7)));
        let found = Measurement::from_bytes([7; 48]);
        let mut listed = policy(&quote);
        assert_eq!(
            quote.check_tdx(Some(&listed)).verdict(),
            Err(TdxRefusal::NotListed { register, found })
        );
        match register {
            Register::MrOwner => listed.mr_owner = [found].into(),
            _ => listed.mr_owner_config = [found].into(),
        }
        assert_eq!(quote.check_tdx(Some(&listed)).verdict(), Ok(()));
    }
}

#[test]
fn synthetic_ratings_are_refused_unless_listed_and_warned_of_without_a_policy() {
    for status in [
        TcbStatus::SwHardeningNeeded,
        TcbStatus::ConfigurationNeeded,
        TcbStatus::ConfigurationAndSwHardeningNeeded,
        TcbStatus::OutOfDate,
        TcbStatus::OutOfDateConfigurationNeeded,
    ] {
        let quote = genuine(&with(|s| {
            s.tcb["tcbLevels"] = json!([platform_level(3, status.as_str())]);
        }));
        assert_eq!(quote.tcb_status(), status);
        let found = quote.check(Rules::Genuine);
        assert_eq!((found.verdict(), found.trust()), (Ok(()), Trust::Warning));
        let mut listed = policy(&quote);
        assert_eq!(
            quote.check_tdx(Some(&listed)).verdict(),
            Err(TdxRefusal::TcbStatus(status))
        );
        listed.tcb_statuses.insert(status);
        assert_eq!(quote.check_tdx(Some(&listed)).verdict(), Ok(()));
    }
    // Launched on an older TDX module than the one that runs now.
    let relaunch = genuine(&with(|s| s.body[0] = 3));
    assert_eq!(relaunch.tcb_status(), TcbStatus::TdRelaunchAdvised);
    assert_eq!(relaunch.check(Rules::Genuine).trust(), Trust::Warning);
}

#[test]
fn synthetic_revoked_firmware_is_refused_whatever_is_listed() {
    let platform = with(|s| s.tcb["tcbLevels"] = json!([platform_level(3, "Revoked")]));
    let module = with(|s| s.body[0] = 2);
    let module_now = with(|s| s.body[584] = 2);
    let enclave = with(|s| s.qe_report[258] = 2);
    for synthetic in [platform, module, module_now, enclave] {
        assert_eq!(refused(&synthetic), TdxRefusal::Revoked);
    }
}

#[test]
fn synthetic_modules_that_intel_does_not_name_are_refused() {
    let signer = with(|s| s.body[64] = 1);
    let attributes = with(|s| s.body[112] = 1);
    let version = with(|s| s.body[1] = 9);
    let too_old = with(|s| s.body[0] = 1);
    for synthetic in [signer, attributes, version, too_old] {
        assert!(matches!(refused(&synthetic), TdxRefusal::Module(_)));
    }
    assert_eq!(refused(&with(|s| s.body[2] = 0)), TdxRefusal::NoTcbLevel);
}

#[test]
fn synthetic_module_below_the_floor_is_refused_at_launch_and_now() {
    for at in [0, 584] {
        let quote = genuine(&with(|s| s.body[at..at + 3].copy_from_slice(&[5, 1, 3])));
        let mut floor = policy(&quote);
        floor.min_tee_tcb_svn = Some("05010300000000000000000000000000".parse().unwrap());
        floor
            .tcb_statuses
            .extend([TcbStatus::OutOfDate, TcbStatus::TdRelaunchAdvised]);
        assert_eq!(quote.check_tdx(Some(&floor)).verdict(), Ok(()));
        let older = genuine(&with(|s| s.body[at] = 4));
        assert!(matches!(
            older.check_tdx(Some(&floor)).verdict(),
            Err(TdxRefusal::ModuleBelowFloor(_))
        ));
    }
}

#[test]
fn synthetic_quoting_enclaves_that_intel_does_not_name_are_refused() {
    let signer = with(|s| s.qe_report[128] ^= 1);
    let product = with(|s| s.qe_report[256] = 1);
    let selected = with(|s| s.qe_report[16] = 1);
    let attributes = with(|s| s.qe_report[48] = 0x15);
    let debug = with(|s| s.qe_report[48] = 0x13);
    let too_old = with(|s| s.qe_report[258] = 1);
    let of_sgx = with(|s| s.qe["id"] = "QE".into());
    for synthetic in [signer, product, selected, debug, too_old, of_sgx] {
        assert!(matches!(refused(&synthetic), TdxRefusal::QeIdentity(_)));
    }
    // Its mask leaves this bit out.
    assert!(try_verify(&attributes).is_ok());
    let older = genuine(&with(|s| s.qe_report[258] = 3));
    assert_eq!(older.tcb_status(), TcbStatus::OutOfDate);
    let reserved = with(|s| s.qe_report[383] = 1);
    assert_eq!(
        refused(&reserved),
        TdxRefusal::ReservedBytes("quoting enclave's report")
    );
}

#[test]
fn synthetic_collateral_of_another_platform_is_refused() {
    assert_eq!(refused(&with(|s| s.pce_id = [1, 0])), TdxRefusal::PceIdMismatch);
    assert_eq!(
        refused(&with(|s| s.tcb["pceId"] = "0100".into())),
        TdxRefusal::PceIdMismatch
    );
    let found = refused(&with(|s| s.fmspc[0] = 0xb0));
    let expected = TdxRefusal::FmspcMismatch {
        found: "90c06f000000".to_owned(),
        platform: "b0c06f000000".parse().unwrap(),
    };
    assert_eq!(found, expected);
    assert!(matches!(
        refused(&with(|s| s.tcb["id"] = "SGX".into())),
        TdxRefusal::TcbInfoKind(_)
    ));
    assert!(matches!(
        refused(&with(|s| s.tcb["version"] = 2.into())),
        TdxRefusal::TcbInfoKind(_)
    ));
}

#[test]
fn synthetic_older_evaluation_of_either_part_counts() {
    for part in [0, 1] {
        let quote = genuine(&with(|s| {
            let value = if part == 0 { &mut s.tcb } else { &mut s.qe };
            value["tcbEvaluationDataNumber"] = 17.into();
        }));
        let expected = TdxRefusal::EvaluationRolledBack { found: 17, least: 18 };
        assert_eq!(quote.check_tdx(Some(&policy(&quote))).verdict(), Err(expected));
    }
}

#[test]
fn synthetic_advisories_are_refused_unless_listed() {
    let quote = genuine(&with(|s| {
        s.tcb["tcbLevels"][0]["advisoryIDs"] = json!(["INTEL-SA-00001"]);
    }));
    let mut listed = policy(&quote);
    let expected = TdxRefusal::Advisory("INTEL-SA-00001".to_owned());
    assert_eq!(quote.check_tdx(Some(&listed)).verdict(), Err(expected));
    listed.allowed_advisories = ["INTEL-SA-00001".to_owned()].into();
    assert_eq!(quote.check_tdx(Some(&listed)).verdict(), Ok(()));
}

#[test]
fn synthetic_platforms_set_up_otherwise_are_refused_unless_allowed() {
    for (at, refusal) in [TdxRefusal::DynamicPlatform, TdxRefusal::CachedKeys, TdxRefusal::Smt]
        .into_iter()
        .enumerate()
    {
        let mut flags = [false; 3];
        flags[at] = true;
        let quote = genuine(&with(|s| s.flags = Some(flags)));
        assert_eq!(verdicts(&quote), [Err(refusal), Ok(())]);
        let mut allowing = policy(&quote);
        [
            allowing.allow_dynamic_platform,
            allowing.allow_cached_keys,
            allowing.allow_smt,
        ] = flags;
        assert_eq!(quote.check_tdx(Some(&allowing)).verdict(), Ok(()));
    }
    // Certificates of single-processor platforms do not say.
    let silent = genuine(&with(|s| s.flags = None));
    assert_eq!(
        (silent.claims().smt_enabled, verdicts(&silent)),
        (None, [Ok(()), Ok(())])
    );
}

#[test]
fn synthetic_revoked_certificates_are_refused() {
    for synthetic in [
        with(|s| s.revoke_platform = true),
        with(|s| s.revoke_platform_ca = true),
    ] {
        assert_eq!(refused(&synthetic), TdxRefusal::CertificateRevoked);
    }
}

#[test]
fn synthetic_revocation_lists_from_the_future_are_refused() {
    let future = with(|s| s.lists_from_the_future = true);
    assert!(matches!(
        refused(&future),
        TdxRefusal::NotYetValid {
            what: Collateral::RootCrl,
            ..
        }
    ));
    let built = future.build();
    let collateral: dcap_qvl::QuoteCollateralV3 = serde_json::from_str(&built.collateral).unwrap();
    let theirs = QuoteVerifier::new(built.root).verify(&built.quote, &collateral, NOW.0);
    assert!(
        theirs.is_ok(),
        "dcap-qvl refuses such lists by now: say so in the table of refusals"
    );
}

#[test]
fn synthetic_list_of_revoked_platforms_by_another_is_refused() {
    assert_eq!(refused(&with(|s| s.list_by_root = true)), TdxRefusal::PckCrlIssuer);
    for issuer in [
        ListIssuer::NotYetValid,
        ListIssuer::NoAuthority,
        ListIssuer::SignsNoLists,
        ListIssuer::OtherName,
        ListIssuer::NotByRoot,
    ] {
        assert_eq!(
            refused(&with(|s| s.list_issuer = issuer)),
            TdxRefusal::PckCrlIssuer,
            "{issuer:?}"
        );
    }
    // A list of the same name by another key, and one whose algorithm says something else than what is signed.
    let (mut built, other) = (Synthetic::default().build(), Synthetic::default().build());
    let mut all: serde_json::Value = serde_json::from_str(&built.collateral).unwrap();
    let of_other: serde_json::Value = serde_json::from_str(&other.collateral).unwrap();
    let list = all["pck_crl"].as_str().unwrap().to_owned();
    let outer = list.rfind("2a8648ce3d040302").unwrap();
    let mut renamed = list.clone();
    renamed.replace_range(outer..outer + 16, "2a8648ce3d040303");
    for changed in [of_other["pck_crl"].as_str().unwrap().to_owned(), renamed] {
        all["pck_crl"] = changed.into();
        built.collateral = all.to_string();
        let found = verify_under(&built.root, &built.quote, &built.collateral, NOW);
        assert_eq!(found.unwrap_err(), TdxRefusal::PckCrlIssuer);
    }
}

#[test]
fn synthetic_platform_certificates_without_their_extension_or_date_are_refused() {
    assert_eq!(refused(&with(|s| s.bare = true)), TdxRefusal::PckExtension);
    assert_eq!(refused(&with(|s| s.ppid = vec![7; 15])), TdxRefusal::PckExtension);
    assert_eq!(refused(&with(|s| s.platform_from = 20)), TdxRefusal::CertificateDates);
}

#[test]
fn every_check_of_a_synthetic_quote_is_listed_once() {
    let quote = genuine(&Synthetic::default());
    let (with, without) = (quote.check_tdx(Some(&policy(&quote))), quote.check(Rules::Genuine));
    let names = |checks: &crate::check::Checks<TdxRefusal>| -> Vec<_> {
        checks.iter().map(|check| (check.dimension, check.what)).collect()
    };
    assert_eq!(names(&with), names(&without));
    let unique: std::collections::BTreeSet<_> = names(&with).into_iter().collect();
    assert_eq!(unique.len(), names(&with).len());
    assert!(
        with.iter()
            .filter(|check| check.finding == Finding::NotAppraised)
            .count()
            <= 2
    );
}
