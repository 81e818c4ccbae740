//! Real quotes and collateral of Intel TDX with one thing wrong: each is refused for that thing.

use cloister_attestation::UnixTime;
use cloister_attestation::tdx::{EventLog, TdxRefusal, verify};

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

const V4: &[u8] = testdata!("phala_tdx_quote");
const V4_COLLATERAL: &str = text!("phala_tdx_quote_collateral.json");
const V4_NOW: UnixTime = UnixTime(1_751_328_000);
const V5: &[u8] = testdata!("gotdx_quote_v5_sample.dat");
/// Where the signature data of [`V4`] begins.
const DATA: usize = 636;

/// Of [`V4`] with `bytes` at `at`.
fn changed(at: usize, bytes: &[u8]) -> TdxRefusal {
    replaced(V4, at, bytes)
}

fn replaced(quote: &[u8], at: usize, bytes: &[u8]) -> TdxRefusal {
    let mut quote = quote.to_vec();
    quote[at..at + bytes.len()].copy_from_slice(bytes);
    verify(&quote, V4_COLLATERAL, V4_NOW).expect_err("a refusal")
}

fn flipped(at: usize) -> TdxRefusal {
    changed(at, &[V4[at] ^ 1])
}

#[test]
fn headers_that_are_not_of_tdx_are_refused() {
    assert_eq!(changed(0, &[3, 0]), TdxRefusal::Version(3));
    assert_eq!(changed(0, &[6, 0]), TdxRefusal::Version(6));
    assert_eq!(changed(2, &[3, 0]), TdxRefusal::KeyType(3));
    assert_eq!(changed(4, &[0, 0, 0, 0]), TdxRefusal::Sgx);
    assert_eq!(changed(4, &[0x82, 0, 0, 0]), TdxRefusal::TeeType(0x82));
    assert_eq!(changed(8, &[1]), TdxRefusal::ReservedBytes("quote header"));
    assert_eq!(changed(11, &[1]), TdxRefusal::ReservedBytes("quote header"));
    for at in [12, 27] {
        assert_eq!(flipped(at), TdxRefusal::Vendor);
    }
}

#[test]
fn layouts_that_are_not_of_tdx_are_refused() {
    assert_eq!(replaced(V5, 48, &[1, 0]), TdxRefusal::Sgx);
    assert_eq!(replaced(V5, 48, &[5, 0]), TdxRefusal::BodyType(5));
    assert_eq!(
        replaced(V5, 48, &[2, 0]),
        TdxRefusal::BodyLength {
            found: 648,
            expected: 584
        }
    );
    assert_eq!(
        replaced(V5, 50, &[0x89]),
        TdxRefusal::BodyLength {
            found: 649,
            expected: 648
        }
    );
}

#[test]
fn bytes_after_any_part_of_the_signature_data_are_refused() {
    let len = u32::from_le_bytes(V4[DATA - 4..DATA].try_into().unwrap());
    let inner = u32::from_le_bytes(V4[DATA + 130..DATA + 134].try_into().unwrap());
    assert_eq!(
        changed(DATA - 4, &(len + 1).to_le_bytes()),
        TdxRefusal::TrailingBytes("signature data")
    );
    let mut quote = V4.to_vec();
    quote[DATA - 4..DATA].copy_from_slice(&(len + 1).to_le_bytes());
    quote[DATA + 130..DATA + 134].copy_from_slice(&(inner + 1).to_le_bytes());
    assert_eq!(
        verify(&quote, V4_COLLATERAL, V4_NOW).unwrap_err(),
        TdxRefusal::TrailingBytes("certification data")
    );
    assert_eq!(changed(V4.len() - 1, &[1]), TdxRefusal::TrailingBytes("quote"));
    let too_long = |found| matches!(found, TdxRefusal::TooLong { len: 0xffff_ffff, .. });
    for length in [DATA - 4, DATA + 130, DATA + 618] {
        assert!(too_long(changed(length, &[0xff; 4])), "{length}");
    }
}

#[test]
fn certification_data_of_another_kind_is_refused() {
    assert_eq!(
        changed(DATA + 128, &[5, 0]),
        TdxRefusal::CertificationData { found: 5, expected: 6 }
    );
    assert_eq!(
        changed(DATA + 616, &[3, 0]),
        TdxRefusal::CertificationData { found: 3, expected: 5 }
    );
    assert_eq!(changed(DATA + 582, &[31, 0]), TdxRefusal::QeAuthData(31));
    assert_eq!(
        changed(DATA + 134 + 352, &[1]),
        TdxRefusal::ReservedBytes("quoting enclave's report")
    );
}

#[test]
fn each_signature_of_the_quote_counts() {
    assert_eq!(flipped(DATA), TdxRefusal::QuoteSignature);
    assert_eq!(flipped(DATA + 64), TdxRefusal::QeReportHash);
    assert_eq!(flipped(DATA + 134), TdxRefusal::QeReportSignature);
    assert_eq!(flipped(DATA + 134 + 384), TdxRefusal::QeReportSignature);
    assert_eq!(flipped(DATA + 584), TdxRefusal::QeReportHash);
}

/// Changes a character of the certificate `index` in the PEM text at `text`.
fn break_certificate(text: &mut [u8], index: usize) {
    let begin = b"-----BEGIN CERTIFICATE-----";
    let starts = text.windows(begin.len()).enumerate().filter(|(_, part)| part == begin);
    let (start, _) = starts.map(|(at, _)| (at, ())).nth(index).unwrap();
    // Within the key or the names.
    let at = start + begin.len() + 300;
    text[at] = if text[at] == b'A' { b'B' } else { b'A' };
}

#[test]
fn each_certificate_of_the_quote_counts() {
    for (index, refusal) in [(1, None), (2, Some(TdxRefusal::Root("certificate chain of the quote")))] {
        let mut quote = V4.to_vec();
        break_certificate(&mut quote, index);
        let found = verify(&quote, V4_COLLATERAL, V4_NOW).unwrap_err();
        match refusal {
            Some(refusal) => assert_eq!(found, refusal),
            None => assert!(matches!(found, TdxRefusal::CertificateChain(_)), "{found:?}"),
        }
    }
    let start = V4.windows(5).position(|part| part == b"-----").unwrap();
    assert_eq!(changed(start, b"x"), TdxRefusal::Pem("certificate chain of the quote"));
}

/// Of [`V4`] with `change` made to the collateral.
fn collateral(change: impl FnOnce(&mut serde_json::Value)) -> Result<(), TdxRefusal> {
    let mut whole = serde_json::from_str(V4_COLLATERAL).unwrap();
    change(&mut whole);
    verify(V4, &whole.to_string(), V4_NOW).map(drop)
}

fn broken(value: &serde_json::Value, index: usize) -> serde_json::Value {
    let mut text = value.as_str().unwrap().as_bytes().to_vec();
    break_certificate(&mut text, index);
    String::from_utf8(text).unwrap().into()
}

#[test]
fn each_part_of_the_collateral_counts() {
    let signature = "00".repeat(64);
    assert_eq!(
        collateral(|all| all["tcb_info_signature"] = signature.clone().into()),
        Err(TdxRefusal::TcbInfoSignature)
    );
    assert_eq!(
        collateral(|all| all["qe_identity_signature"] = signature.clone().into()),
        Err(TdxRefusal::QeIdentitySignature)
    );
    for (name, what) in [
        ("tcb_info_issuer_chain", "issuer chain of the TCB info"),
        ("qe_identity_issuer_chain", "issuer chain of the QE identity"),
        ("pck_crl_issuer_chain", "issuer chain of the revocation list"),
    ] {
        assert_eq!(
            collateral(|all| all[name] = broken(&all[name], 1)),
            Err(TdxRefusal::Root(what))
        );
        assert_eq!(
            collateral(|all| all[name] = format!("{}\nx", all[name].as_str().unwrap()).into()),
            Err(TdxRefusal::Pem(what))
        );
        let twice = |text: &str| text.repeat(2).into();
        assert_eq!(
            collateral(|all| all[name] = twice(all[name].as_str().unwrap())),
            Err(TdxRefusal::Pem(what))
        );
    }
    for name in ["tcb_info_issuer_chain", "qe_identity_issuer_chain"] {
        let found = collateral(|all| all[name] = broken(&all[name], 0));
        assert!(matches!(found, Err(TdxRefusal::CertificateChain(_))), "{found:?}");
    }
    let issuer = |all: &mut serde_json::Value| {
        all["pck_crl_issuer_chain"] = broken(&all["pck_crl_issuer_chain"], 0);
    };
    assert_eq!(collateral(issuer), Err(TdxRefusal::PckCrlIssuer));
    let other = |all: &mut serde_json::Value| all["pck_crl_issuer_chain"] = all["tcb_info_issuer_chain"].clone();
    assert_eq!(collateral(other), Err(TdxRefusal::PckCrlIssuer));
    // The list of the root where that of the platforms should be.
    let list = |all: &mut serde_json::Value| all["pck_crl"] = all["root_ca_crl"].clone();
    assert_eq!(collateral(list), Err(TdxRefusal::PckCrlIssuer));
    let list = |all: &mut serde_json::Value| all["root_ca_crl"] = all["pck_crl"].clone();
    assert!(matches!(collateral(list), Err(TdxRefusal::CertificateChain(_))));
    let time = |all: &mut serde_json::Value| {
        let text = all["tcb_info"]
            .as_str()
            .unwrap()
            .replace("2025-07-19T10:16:03Z", "2025-07-19 10:16:03Z");
        all["tcb_info"] = text.into();
    };
    assert!(matches!(collateral(time), Err(TdxRefusal::CollateralMalformed(_))));
}

#[test]
fn the_collateral_may_repeat_the_quotes_certificates_but_not_change_them() {
    let start = V4.windows(5).position(|part| part == b"-----").unwrap();
    let end = start + V4[start..].iter().position(|byte| *byte == 0).unwrap();
    let own = std::str::from_utf8(&V4[start..end]).unwrap();
    assert_eq!(collateral(|all| all["pck_certificate_chain"] = own.into()), Ok(()));
    let other = testdata!("gotdx_quote_v5_sample.dat");
    let start = other.windows(5).position(|part| part == b"-----").unwrap();
    let end = start + other[start..].iter().position(|byte| *byte == 0).unwrap();
    let other = std::str::from_utf8(&other[start..end]).unwrap();
    let found = collateral(|all| all["pck_certificate_chain"] = other.into());
    assert!(matches!(found, Err(TdxRefusal::CertificateChain(_))));
}

#[test]
fn event_logs_that_do_not_parse_are_refused() {
    let bytes = testdata!("gotdx_ccel_data.dat");
    let refused = |at: usize, value: &[u8]| {
        let mut log = bytes.to_vec();
        log[at..at + value.len()].copy_from_slice(value);
        assert!(
            matches!(EventLog::from_ccel(&log), Err(TdxRefusal::EventLog(_))),
            "{at}"
        );
    };
    // Not a Spec ID event, not of version 3, too many algorithms, another algorithm.
    refused(4, &[4]);
    refused(46, b"2");
    refused(56, &[9]);
    refused(60, &[0x0b]);
    // Of the first event: a register that does not exist, no digest, of another algorithm, too long.
    let first = 32 + 33;
    refused(first, &[9, 0, 0, 0]);
    refused(first + 8, &[0, 0, 0, 0]);
    refused(first + 12, &[0x0b, 0]);
    refused(first + 62, &[0xff, 0xff, 0xff, 0xff]);
    assert!(matches!(EventLog::from_ccel(&[]), Err(TdxRefusal::EventLog(_))));
    let long = vec![0xff; 1024 * 1024 + 1];
    assert!(matches!(EventLog::from_ccel(&long), Err(TdxRefusal::TooLong { .. })));
    let event = |imr: u8, digest: &str| {
        let json = format!(
            "[{{\"imr\":{imr},\"event_type\":4,\"digest\":\"{digest}\",\"event\":\"\",\"event_payload\":\"\"}}]"
        );
        EventLog::from_dstack(&json)
    };
    assert!(event(3, &"00".repeat(48)).is_ok());
    for refused in [
        event(4, &"00".repeat(48)),
        event(3, ""),
        event(3, "00"),
        EventLog::from_dstack("{}"),
    ] {
        assert!(matches!(refused, Err(TdxRefusal::EventLog(_))), "{refused:?}");
    }
}

/// A log whose first event names `algorithms`, and whose others are `events` of one digest of each of `digests`.
fn log(algorithms: &[(u16, u16)], events: usize, digests: &[(u16, u16)]) -> Vec<u8> {
    let mut spec = b"Spec ID Event03\0".to_vec();
    spec.extend([0; 8]);
    spec.extend(u32::try_from(algorithms.len()).unwrap().to_le_bytes());
    for (id, len) in algorithms {
        spec.extend([id.to_le_bytes(), len.to_le_bytes()].concat());
    }
    spec.push(0);
    let mut log = [&[1, 0, 0, 0, 3, 0, 0, 0][..], &[0; 20]].concat();
    log.extend(u32::try_from(spec.len()).unwrap().to_le_bytes());
    log.extend(spec);
    for _ in 0..events {
        log.extend([1, 0, 0, 0, 4, 0, 0, 0]);
        log.extend(u32::try_from(digests.len()).unwrap().to_le_bytes());
        for (id, len) in digests {
            log.extend(id.to_le_bytes());
            log.extend(vec![5; usize::from(*len)]);
        }
        log.extend([0; 4]);
    }
    log.extend([0xff; 16]);
    log
}

#[test]
fn synthetic_event_logs_out_of_their_bounds_are_refused() {
    const SHA384: (u16, u16) = (0x0c, 48);
    let refused = |log: &[u8], words| assert_eq!(EventLog::from_ccel(log), Err(TdxRefusal::EventLog(words)));
    let most = EventLog::from_ccel(&log(&[SHA384], 4096, &[SHA384])).unwrap();
    assert_eq!(most.events().len(), 4096);
    refused(&log(&[SHA384], 4097, &[SHA384]), "it has too many events");
    refused(&log(&[(0x0b, 32)], 0, &[]), "it has no SHA-384 digests");
    let cut = "an event is cut short, or has digests that its first event does not name";
    refused(&log(&[SHA384], 1, &[SHA384, SHA384]), cut);
    refused(&log(&[SHA384, (0x0b, 32)], 1, &[SHA384]), cut);
    let algorithms: Vec<_> = (0x0c..0x14).map(|id| (id, 48)).collect();
    assert!(EventLog::from_ccel(&log(&algorithms, 1, &algorithms)).is_ok());
    let algorithms: Vec<_> = (0x0c..0x15).map(|id| (id, 48)).collect();
    let spec = "its first event is not a Spec ID event of version 3";
    refused(&log(&algorithms, 1, &algorithms), spec);
    let event = r#"{"imr":0,"event_type":134217729,"digest":"","event":"","event_payload":""}"#;
    let many = format!("[{}]", vec![event; 4097].join(","));
    assert_eq!(
        EventLog::from_dstack(&many),
        Err(TdxRefusal::EventLog("it has too many events"))
    );
    let mut trailing = log(&[SHA384], 1, &[SHA384]);
    trailing[28] += 1;
    trailing.insert(32 + 33, 0);
    refused(&trailing, spec);
    // A measurement of nothing leads nowhere.
    let mut nothing = log(&[SHA384], 1, &[SHA384]);
    let at = nothing.len() - 16 - 4 - 50 - 4 - 4;
    nothing[at] = 3;
    let empty = EventLog::from_ccel(&log(&[SHA384], 0, &[])).unwrap();
    assert_eq!(EventLog::from_ccel(&nothing).unwrap().replay(), empty.replay());
}
