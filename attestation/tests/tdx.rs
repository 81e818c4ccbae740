//! Real quotes of Intel TDX and Intel's collateral for them; sources in `testdata/SOURCES.md`.

use cloister_attestation::tdx::{
    BitSet, BodyKind, Collateral, EventLog, FixedBits, Register, TcbStatus, TdxPolicy, TdxRefusal, UntrustedBit,
    VerifiedQuote, verify,
};
use cloister_attestation::{AppraisalPolicy, Dimension, Finding, Rules, Trust, UnixTime};

macro_rules! testdata {
    ($name:literal) => {
        include_bytes!(concat!("../testdata/tdx/", $name)).as_slice()
    };
}

macro_rules! text {
    ($name:literal) => {
        include_str!(concat!("../testdata/tdx/", $name))
    };
}

/// Within 2025-06-19 to 2025-07-19, when the collateral of [`V4`] is current.
const V4_NOW: UnixTime = UnixTime(1_751_328_000);
const V4: &[u8] = testdata!("phala_tdx_quote");
const V4_COLLATERAL: &str = text!("phala_tdx_quote_collateral.json");
/// Within 2026-02-18 to 2026-03-20, when the collateral of [`V5`] is current.
const V5_NOW: UnixTime = UnixTime(1_772_323_200);
const V5: &[u8] = testdata!("gotdx_quote_v5_sample.dat");
const V5_COLLATERAL: &str = text!("assembled/phala_90c06f_2026-02_collateral_nopck.json");
/// Within 2023-06-18 to 2023-07-08, when the collateral of [`DEBUG`] is current.
const DEBUG_NOW: UnixTime = UnixTime(1_687_651_200);
const DEBUG: &[u8] = testdata!("trustee_tdx_quote_4.dat");
const DEBUG_COLLATERAL: &str = text!("assembled/gotdx_50806f000000_collateral.json");

fn v4() -> VerifiedQuote {
    verify(V4, V4_COLLATERAL, V4_NOW).expect("a genuine quote")
}

fn v5() -> VerifiedQuote {
    verify(V5, V5_COLLATERAL, V5_NOW).expect("a genuine quote")
}

fn refusal(quote: &[u8], collateral: &str, now: UnixTime) -> TdxRefusal {
    verify(quote, collateral, now).expect_err("a refusal")
}

/// Allows exactly what `quote` says.
fn policy(quote: &VerifiedQuote) -> TdxPolicy {
    let body = quote.body();
    let all = BitSet::from_bytes([0xff; 8]);
    let fixed = |value| FixedBits { value, mask: all };
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
        min_tcb_evaluation_data_number: Some(17),
        min_tee_tcb_svn: Some(body.tee_tcb_svn),
        allowed_fmspcs: [quote.fmspc()].into(),
        allow_dynamic_platform: true,
        allow_cached_keys: true,
        allow_smt: true,
        ..TdxPolicy::default()
    }
}

fn hex_quote(text: &str) -> Vec<u8> {
    hex::decode(text.trim().trim_start_matches("0x")).expect("hex")
}

#[test]
fn genuine_quotes_of_both_versions_verify() {
    let quote = v4();
    assert_eq!(quote.body().kind, BodyKind::Td10);
    assert_eq!(quote.report_data(), &V4[568..632]);
    assert_eq!(quote.measurement().as_bytes(), &V4[184..232]);
    assert_eq!(quote.fmspc().to_string(), "b0c06f000000");
    assert_eq!(quote.tcb_status(), TcbStatus::UpToDate);
    // The end of the list of revoked platforms, 2025-07-19T10:00:35Z, is the first of all.
    assert_eq!(quote.valid_until(), UnixTime(1_752_919_234));
    assert_eq!(quote.platform_id().as_bytes()[..16], quote.ppid().as_bytes()[..]);
    let quote = v5();
    assert_eq!(quote.body().kind, BodyKind::Td15);
    assert_eq!(quote.report_data(), &V5[574..638]);
    assert_eq!(quote.fmspc().to_string(), "90c06f000000");
    assert_eq!(quote.tcb_status(), TcbStatus::UpToDate);
    assert_eq!(quote.valid_until(), UnixTime(1_774_003_274));
}

#[test]
fn a_genuine_quote_with_the_extended_report_verifies() {
    let collateral = text!("phala_tdx_quote_td15ex_collateral.json");
    let raw = testdata!("phala_tdx_quote_td15ex");
    let quote = verify(raw, collateral, UnixTime(1_792_500_000)).expect("a genuine quote");
    assert_eq!(quote.body().kind, BodyKind::Td15Ex);
    assert_eq!(quote.report_data(), &raw[574..638]);
    assert_eq!(quote.check(Rules::Genuine).verdict(), Ok(()));
    let claims = serde_json::to_value(quote.claims()).unwrap();
    assert_eq!(
        (&claims["quote"]["type"], &claims["quote"]["size"]),
        (&"0400".into(), &"75030000".into())
    );
}

#[test]
fn genuine_quotes_pass_a_policy_that_names_what_they_say() {
    for quote in [v4(), v5()] {
        let tdx = policy(&quote);
        let whole = AppraisalPolicy {
            tdx: tdx.clone(),
            ..AppraisalPolicy::default()
        };
        let found = quote.check(Rules::Policy(&whole));
        assert_eq!(found, quote.check_tdx(Some(&tdx)));
        assert_eq!(found.verdict(), Ok(()));
        assert_eq!(
            (found.trust(), found.vector().executables),
            (Trust::Affirming, Trust::Affirming)
        );
    }
}

#[test]
fn an_empty_policy_refuses_every_genuine_quote_for_each_thing_it_lists() {
    let found = v4().check(Rules::Policy(&AppraisalPolicy::default()));
    let refused = found
        .iter()
        .filter(|check| matches!(check.finding, Finding::Refused(_)));
    // Floors of evaluation and module, MRSEAM, FMSPC, dynamic platform, attributes, XFAM, MRCONFIGID, MRTD and four RTMR;
    // this platform has cached keys and threads that share cores, too.
    assert_eq!(refused.count(), 13 + flags(&v4()));
}

fn flags(quote: &VerifiedQuote) -> usize {
    let claims = quote.claims();
    [claims.cached_keys, claims.smt_enabled]
        .into_iter()
        .filter(|flag| *flag == Some(true))
        .count()
}

#[test]
fn looked_at_without_a_policy_a_genuine_quote_is_genuine_and_no_more() {
    for quote in [v4(), v5()] {
        let found = quote.check(Rules::Genuine);
        assert_eq!(found.trust(), Trust::Affirming);
        assert_eq!(found.vector().hardware, Trust::Affirming);
        assert_eq!(found.vector().executables, Trust::None);
        assert_eq!(found.vector().instance_identity, Trust::None);
    }
}

#[test]
fn a_guest_that_can_be_debugged_is_refused_even_when_only_looked_at() {
    let quote = verify(DEBUG, DEBUG_COLLATERAL, DEBUG_NOW).expect("genuine, but for debugging");
    let found = quote.check(Rules::Genuine);
    assert_eq!(found.verdict(), Err(TdxRefusal::Attribute(UntrustedBit::Debug)));
    assert_eq!(found.vector().configuration, Trust::Contraindicated);
    let mut allowing = policy(&quote);
    allowing.tcb_statuses.insert(quote.tcb_status());
    allowing.min_tcb_evaluation_data_number = Some(0);
    let refused: Vec<_> = quote
        .check_tdx(Some(&allowing))
        .iter()
        .filter_map(|check| match &check.finding {
            Finding::Refused(reason) => Some(reason.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(refused, [TdxRefusal::Attribute(UntrustedBit::Debug)]);
}

#[test]
fn firmware_older_than_every_level_is_refused() {
    let (quote, collateral) = (
        testdata!("phala_tdx_quote_outdated"),
        text!("phala_tdx_quote_outdated_collateral.json"),
    );
    assert_eq!(refusal(quote, collateral, V5_NOW), TdxRefusal::NoTcbLevel);
}

#[test]
fn a_guest_on_azure_is_refused_for_its_attributes() {
    // There is no collateral for its FMSPC; with its own, this is what would be said.
    let quote = testdata!("trustee_az_td-quote.bin");
    assert_eq!(
        refusal(quote, V4_COLLATERAL, V4_NOW),
        mismatch("b0c06f000000", "00806f050000")
    );
    let own = V4_COLLATERAL.replace("B0C06F000000", "00806F050000");
    assert_eq!(
        refusal(quote, &own, V4_NOW),
        TdxRefusal::Attribute(UntrustedBit::SeptVeDisable)
    );
}

#[test]
fn a_quote_whose_collateral_is_missing_says_which() {
    let quote = testdata!("gotdx_cos-113-tdx-quote.dat");
    assert_eq!(
        refusal(quote, V4_COLLATERAL, V4_NOW),
        mismatch("b0c06f000000", "00806f050000")
    );
    assert_eq!(
        refusal(V5, V4_COLLATERAL, V4_NOW),
        mismatch("b0c06f000000", "90c06f000000")
    );
    let words = refusal(quote, V4_COLLATERAL, V4_NOW).to_string();
    assert!(words.ends_with("fetch the TCB info of 00806f050000"), "{words}");
}

#[test]
fn older_quotes_of_a_family_are_rated_by_its_collateral() {
    for text in [text!("phala_quote-from-tappd.hex"), text!("phala_tdx-quote.hex")] {
        assert_eq!(refusal(&hex_quote(text), V4_COLLATERAL, V4_NOW), TdxRefusal::NoTcbLevel);
    }
    let json: serde_json::Value = serde_json::from_str(text!("dstack_quote-report.json")).unwrap();
    let quote = verify(&hex_quote(json["quote"].as_str().unwrap()), V5_COLLATERAL, V5_NOW).unwrap();
    let log = EventLog::from_dstack(json["event_log"].as_str().unwrap()).unwrap();
    assert_eq!(quote.tcb_status(), TcbStatus::UpToDate);
    assert_eq!(quote.check_event_log(&log), Ok(()));
}

#[test]
fn a_platform_certificate_from_the_future_is_refused() {
    let json: serde_json::Value = serde_json::from_str(text!("dstack_tdx-lite-getquote.json")).unwrap();
    let quote = hex_quote(json["quote"].as_str().unwrap());
    assert_eq!(refusal(&quote, V5_COLLATERAL, V5_NOW), TdxRefusal::CertificateDates);
}

fn mismatch(found: &str, platform: &str) -> TdxRefusal {
    TdxRefusal::FmspcMismatch {
        found: found.to_owned(),
        platform: platform.parse().unwrap(),
    }
}

#[test]
fn a_quote_of_an_sgx_enclave_is_refused() {
    let quote = testdata!("phala_sgx_quote");
    let collateral = text!("phala_sgx_quote_collateral.json");
    assert_eq!(refusal(quote, collateral, V4_NOW), TdxRefusal::Sgx);
    assert!(matches!(refusal(V4, collateral, V4_NOW), TdxRefusal::TcbInfoKind(_)));
}

#[test]
fn collateral_outside_of_its_validity_is_refused() {
    let (first, last) = (UnixTime(1_750_329_147), UnixTime(1_752_919_234));
    assert!(verify(V4, V4_COLLATERAL, first).is_ok());
    assert!(verify(V4, V4_COLLATERAL, last).is_ok());
    assert!(matches!(
        refusal(V4, V4_COLLATERAL, UnixTime(first.0 - 1)),
        TdxRefusal::NotYetValid {
            what: Collateral::QeIdentity,
            ..
        }
    ));
    assert!(matches!(
        refusal(V4, V4_COLLATERAL, UnixTime(last.0 + 1)),
        TdxRefusal::Expired {
            what: Collateral::PckCrl,
            ..
        }
    ));
    // A TCB info of 2026 beside a QE identity of 2023.
    let mixed = text!("assembled/gotdx_90c06f000000_collateral.json");
    assert!(matches!(
        refusal(V5, mixed, UnixTime(1_770_000_000)),
        TdxRefusal::Expired {
            what: Collateral::QeIdentity,
            ..
        }
    ));
}

#[test]
fn the_log_of_a_real_guest_leads_to_the_measurements_of_its_quote() {
    // There is no collateral for this quote: its report is read, not verified.
    let quote = testdata!("gotdx_cos-113-tdx-quote.dat");
    let log = EventLog::from_ccel(testdata!("gotdx_ccel_data.dat")).unwrap();
    for (at, found) in log.replay().iter().enumerate() {
        let start = 48 + 328 + 48 * at;
        assert_eq!(found.as_bytes(), &quote[start..start + 48], "RTMR{at}");
    }
}

#[test]
fn the_logs_of_dstack_lead_to_the_measurements_of_their_quotes() {
    for json in [
        text!("dstack_quote-report.json"),
        text!("dstack_tdx-lite-getquote.json"),
    ] {
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        let quote = hex_quote(json["quote"].as_str().unwrap());
        let log = EventLog::from_dstack(json["event_log"].as_str().unwrap()).unwrap();
        for (at, found) in log.replay().iter().enumerate() {
            let start = 48 + 328 + 48 * at;
            assert_eq!(found.as_bytes(), &quote[start..start + 48], "RTMR{at}");
        }
        assert!(log.events().iter().any(|event| event.name == "compose-hash"));
    }
}

#[test]
fn a_log_that_leads_elsewhere_is_refused() {
    let log = EventLog::from_ccel(testdata!("gotdx_ccel_data.dat")).unwrap();
    assert!(matches!(
        v4().check_event_log(&log),
        Err(TdxRefusal::Replay { at: 0, .. })
    ));
    let json: serde_json::Value = serde_json::from_str(text!("dstack_quote-report.json")).unwrap();
    let events = json["event_log"].as_str().unwrap();
    let forged = events.replace("\"compose-hash\"", "\"compose-hush\"");
    assert_ne!(events, forged);
    assert_eq!(EventLog::from_dstack(&forged), Err(TdxRefusal::EventDigest(22)));
}

#[test]
fn claims_have_the_names_of_trustee() {
    let claims = serde_json::to_value(v5().claims()).unwrap();
    let body = &claims["quote"]["body"];
    for (name, at, len) in [
        ("tcb_svn", 54, 16),
        ("mr_seam", 70, 48),
        ("mrsigner_seam", 118, 48),
        ("seam_attributes", 166, 8),
        ("td_attributes", 174, 8),
        ("xfam", 182, 8),
        ("mr_td", 190, 48),
        ("mr_config_id", 238, 48),
        ("mr_owner", 286, 48),
        ("mr_owner_config", 334, 48),
        ("rtmr_0", 382, 48),
        ("rtmr_1", 430, 48),
        ("rtmr_2", 478, 48),
        ("rtmr_3", 526, 48),
        ("report_data", 574, 64),
        ("tee_tcb_svn2", 638, 16),
        ("mr_servicetd", 654, 48),
    ] {
        assert_eq!(body[name], hex::encode(&V5[at..at + len]), "{name}");
    }
    let header = &claims["quote"]["header"];
    assert_eq!(
        (&header["version"], &header["tee_type"]),
        (&"0500".into(), &"81000000".into())
    );
    assert_eq!(
        (&claims["quote"]["type"], &claims["quote"]["size"]),
        (&"0300".into(), &"88020000".into())
    );
    assert_eq!(claims["td_attributes"]["septve_disable"], true);
    assert_eq!(claims["td_attributes"]["debug"], false);
    assert_eq!(claims["tcb_status"], "UpToDate");
    assert_eq!(claims["init_data"], body["mr_config_id"]);
}

#[test]
fn each_thing_that_a_policy_lists_is_refused_when_it_is_another() {
    let quote = v5();
    let other = cloister_attestation::Measurement::from_bytes([7; 48]);
    let body = quote.body().clone();
    let not = |register, found| TdxRefusal::NotListed { register, found };
    let bits = FixedBits {
        value: BitSet::from_bytes([7; 8]),
        mask: BitSet::from_bytes([0xff; 8]),
    };
    type Change<'a> = Box<dyn Fn(&mut TdxPolicy) + 'a>;
    let cases: Vec<(Change<'_>, TdxRefusal)> = vec![
        (Box::new(|p| p.mrtd = [other].into()), not(Register::MrTd, body.mr_td)),
        (
            Box::new(|p| p.rtmr0 = [other].into()),
            not(Register::Rtmr(0), body.rtmr[0]),
        ),
        (
            Box::new(|p| p.rtmr1 = [other].into()),
            not(Register::Rtmr(1), body.rtmr[1]),
        ),
        (
            Box::new(|p| p.rtmr2 = [other].into()),
            not(Register::Rtmr(2), body.rtmr[2]),
        ),
        (
            Box::new(|p| p.rtmr3 = [other].into()),
            not(Register::Rtmr(3), body.rtmr[3]),
        ),
        (
            Box::new(|p| p.mr_config_id = [other].into()),
            not(Register::MrConfigId, body.mr_config_id),
        ),
        (
            Box::new(|p| p.mr_owner = [other].into()),
            not(Register::MrOwner, body.mr_owner),
        ),
        (
            Box::new(|p| p.mr_owner_config = [other].into()),
            not(Register::MrOwnerConfig, body.mr_owner_config),
        ),
        (
            Box::new(|p| p.mr_seam = [other].into()),
            not(Register::MrSeam, body.mr_seam),
        ),
        (
            Box::new(|p| p.mr_signer_seam = [other].into()),
            not(Register::MrSignerSeam, body.mr_signer_seam),
        ),
        (Box::new(|p| p.xfam = [bits].into()), TdxRefusal::Xfam(body.xfam)),
        (
            Box::new(|p| p.td_attributes = [bits].into()),
            TdxRefusal::TdAttributes(body.td_attributes),
        ),
        (
            Box::new(|p| p.tcb_statuses = [TcbStatus::OutOfDate].into()),
            TdxRefusal::TcbStatus(TcbStatus::UpToDate),
        ),
        (
            Box::new(|p| p.min_tcb_evaluation_data_number = None),
            TdxRefusal::NoEvaluationFloor,
        ),
        (
            Box::new(|p| p.min_tcb_evaluation_data_number = Some(19)),
            TdxRefusal::EvaluationRolledBack { found: 18, least: 19 },
        ),
        (Box::new(|p| p.min_tee_tcb_svn = None), TdxRefusal::NoModuleFloor),
        (
            Box::new(|p| p.min_tee_tcb_svn = Some("0c010400000000000000000000000000".parse().unwrap())),
            TdxRefusal::ModuleBelowFloor(body.tee_tcb_svn),
        ),
        (Box::new(|p| p.allowed_fmspcs.clear()), TdxRefusal::Fmspc(quote.fmspc())),
        (
            Box::new(|p| p.denied_fmspcs = [quote.fmspc()].into()),
            TdxRefusal::Fmspc(quote.fmspc()),
        ),
        (
            Box::new(|p| p.allowed_ppids = Some([].into())),
            TdxRefusal::Ppid(quote.ppid()),
        ),
        (
            Box::new(|p| p.denied_ppids = [quote.ppid()].into()),
            TdxRefusal::Ppid(quote.ppid()),
        ),
        (
            Box::new(|p| p.max_collateral_age_seconds = Some(3600)),
            TdxRefusal::CollateralTooOld {
                what: Collateral::TcbInfo,
                age: V5_NOW.0 - 1_771_412_331,
                most: 3600,
            },
        ),
    ];
    for (change, expected) in cases {
        let mut changed = policy(&quote);
        change(&mut changed);
        let found = quote.check_tdx(Some(&changed));
        let refused: Vec<_> = found
            .iter()
            .filter(|check| matches!(check.finding, Finding::Refused(_)))
            .collect();
        assert_eq!(found.verdict(), Err(expected));
        assert_eq!(refused.len(), 1, "{refused:?}");
    }
}

#[test]
fn platforms_that_can_grow_are_refused_unless_the_policy_allows_it() {
    let quote = v4();
    assert_eq!(quote.claims().dynamic_platform, Some(true));
    let mut strict = policy(&quote);
    strict.allow_dynamic_platform = false;
    assert_eq!(
        quote.check_tdx(Some(&strict)).verdict(),
        Err(TdxRefusal::DynamicPlatform)
    );
    let hardware = quote.check(Rules::Genuine);
    assert!(hardware.iter().any(|check| {
        check.what.contains("processor can be added")
            && check.dimension == Dimension::Hardware
            && check.finding == Finding::NotAppraised
    }));
}
