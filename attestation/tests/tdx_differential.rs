//! `dcap-qvl` and this verifier on all quotes with all collateral: where it refuses, so do we, and where only we refuse, this
//! says why. What both read is the same.

use cloister_attestation::UnixTime;
use cloister_attestation::tdx::{TdxRefusal, VerifiedQuote, verify};
use dcap_qvl::quote::Quote;
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{QuoteClaims, QuoteCollateralV3, QuotePolicy};

macro_rules! testdata {
    ($name:literal) => {
        ($name, include_bytes!(concat!("../testdata/tdx/", $name)).to_vec())
    };
}

macro_rules! text {
    ($name:literal) => {
        ($name, include_str!(concat!("../testdata/tdx/", $name)))
    };
}

fn quotes() -> Vec<(&'static str, Vec<u8>)> {
    let mut all = vec![
        testdata!("phala_tdx_quote"),
        testdata!("phala_tdx_quote_outdated"),
        testdata!("phala_sgx_quote"),
        testdata!("trustee_tdx_quote_4.dat"),
        testdata!("trustee_az_td-quote.bin"),
        testdata!("gotdx_quote_v5_sample.dat"),
        testdata!("gotdx_cos-113-tdx-quote.dat"),
    ];
    for (name, text) in [text!("phala_tdx-quote.hex"), text!("phala_quote-from-tappd.hex")] {
        all.push((name, hex::decode(text.trim().trim_start_matches("0x")).unwrap()));
    }
    for (name, text) in [
        text!("dstack_quote-report.json"),
        text!("dstack_tdx-lite-getquote.json"),
    ] {
        let json: serde_json::Value = serde_json::from_str(text).unwrap();
        all.push((name, hex::decode(json["quote"].as_str().unwrap()).unwrap()));
    }
    all
}

fn collaterals() -> Vec<(&'static str, &'static str)> {
    vec![
        text!("phala_tdx_quote_collateral.json"),
        text!("phala_tdx_quote_outdated_collateral.json"),
        text!("phala_sgx_quote_collateral.json"),
        text!("assembled/gotdx_50806f000000_collateral.json"),
        text!("assembled/gotdx_90c06f000000_collateral.json"),
        text!("assembled/phala_90c06f_2026-02_collateral_nopck.json"),
    ]
}

const TIMES: [UnixTime; 5] = [
    UnixTime(1_687_651_200),
    UnixTime(1_751_328_000),
    UnixTime(1_770_000_000),
    UnixTime(1_772_323_200),
    UnixTime(1_776_500_000),
];

fn theirs(quote: &[u8], collateral: &str, now: UnixTime) -> Result<QuoteClaims, String> {
    let collateral: QuoteCollateralV3 = serde_json::from_str(collateral).unwrap();
    QuoteVerifier::new_prod()
        .allow_debug(true)
        .verify_with_policy(quote, collateral, now.0, &QuotePolicy::claims_only(now.0))
        .map_err(|error| format!("{error:#}"))
}

#[test]
fn where_dcap_qvl_refuses_so_do_we_and_where_only_we_refuse_it_is_said_why() {
    let (mut agreed, mut stricter) = (0, Vec::new());
    for (name, quote) in quotes() {
        for (of, collateral) in collaterals() {
            for now in TIMES {
                match (verify(&quote, collateral, now), theirs(&quote, collateral, now)) {
                    (Ok(ours), Ok(theirs)) => {
                        agreed += 1;
                        same(&ours, &theirs);
                    }
                    (Err(_), Err(_)) => {}
                    (Ok(_), Err(error)) => panic!("{name} with {of} at {now}: dcap-qvl alone refuses: {error}"),
                    (Err(refusal), Ok(_)) => stricter.push((name, of, now.0, refusal)),
                }
            }
        }
    }
    // | quote | time | dcap-qvl | ours |
    // | of an SGX enclave | any | takes it | not of TDX |
    assert!(
        stricter
            .iter()
            .all(|(name, _, _, refusal)| *name == "phala_sgx_quote" && *refusal == TdxRefusal::Sgx)
    );
    assert_eq!((agreed, stricter.len()), (6, 1), "{stricter:?}");
}

fn same(ours: &VerifiedQuote, theirs: &QuoteClaims) {
    let claims = ours.claims();
    assert_eq!(claims.tcb_status.as_str(), theirs.tcb.status.to_string());
    assert_eq!(claims.advisory_ids, theirs.tcb.advisory_ids);
    assert_eq!(claims.tcb_evaluation_data_number, theirs.tcb.eval_data_number);
    assert_eq!(claims.fmspc.as_bytes(), &theirs.platform.pck.fmspc);
    assert_eq!(claims.ppid.as_bytes().as_slice(), theirs.platform.pck.ppid);
    assert_eq!(claims.collateral_valid_until + 1, theirs.earliest_expiration_date);
    let (body, td10) = (ours.body(), theirs.report.as_td10().unwrap());
    assert_eq!(body.tee_tcb_svn.as_bytes(), &td10.tee_tcb_svn);
    assert_eq!(body.seam_attributes.as_bytes(), &td10.seam_attributes);
    assert_eq!(body.td_attributes.as_bytes(), &td10.td_attributes);
    assert_eq!(body.xfam.as_bytes(), &td10.xfam);
    for (ours, theirs) in [
        (body.mr_seam, td10.mr_seam),
        (body.mr_signer_seam, td10.mr_signer_seam),
        (body.mr_td, td10.mr_td),
        (body.mr_config_id, td10.mr_config_id),
        (body.mr_owner, td10.mr_owner),
        (body.mr_owner_config, td10.mr_owner_config),
        (body.rtmr[0], td10.rt_mr0),
        (body.rtmr[1], td10.rt_mr1),
        (body.rtmr[2], td10.rt_mr2),
        (body.rtmr[3], td10.rt_mr3),
    ] {
        assert_eq!(ours.as_bytes(), &theirs);
    }
    assert_eq!(body.report_data, td10.report_data);
    match (&body.td15, theirs.report.as_td15()) {
        (None, None) => {}
        (Some(ours), Some(theirs)) => {
            assert_eq!(ours.tee_tcb_svn2.as_bytes(), &theirs.tee_tcb_svn2);
            assert_eq!(ours.mr_service_td.as_bytes(), &theirs.mr_service_td);
        }
        _ => panic!("one has TDX 1.5's fields and the other has not"),
    }
}

/// Bytes that `dcap-qvl` does not look at, and that are refused here.
#[test]
fn dcap_qvl_takes_quotes_with_bytes_that_we_refuse() {
    let (_, quote) = testdata!("phala_tdx_quote");
    let (_, collateral) = text!("phala_tdx_quote_collateral.json");
    let now = UnixTime(1_751_328_000);
    let data = 636;
    for (at, value, refusal) in [
        (quote.len() - 1, 1, TdxRefusal::TrailingBytes("quote")),
        (data + 128, 5, TdxRefusal::CertificationData { found: 5, expected: 6 }),
        (data - 4, 0xcd, TdxRefusal::TrailingBytes("signature data")),
    ] {
        let mut changed = quote.clone();
        changed[at] = value;
        assert!(
            theirs(&changed, collateral, now).is_ok(),
            "dcap-qvl refuses byte {at} by now"
        );
        assert_eq!(verify(&changed, collateral, now).unwrap_err(), refusal);
    }
    assert!(Quote::parse(&quote).is_ok());
    let mut whole: serde_json::Value = serde_json::from_str(collateral).unwrap();
    whole["pck_crl_issuer_chain"] = "anything".into();
    let whole = whole.to_string();
    assert!(
        theirs(&quote, &whole, now).is_ok(),
        "dcap-qvl looks at this chain by now"
    );
    assert_eq!(
        verify(&quote, &whole, now).unwrap_err(),
        TdxRefusal::Pem("issuer chain of the revocation list")
    );
}
