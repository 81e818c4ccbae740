//! TDX, on a real quote in a fake kernel.

use std::fs;
use std::path::Path;

use cloister_attestation::CpuEvidence;
use cloister_enclave_attester::tdx::TdxError;
use cloister_enclave_attester::{AttesterError, CpuTee, TdxTee};

use crate::fake_configfs::FakeConfigfs;
use crate::snp::{DATA, sources, testdata};

/// The real quote of version 4 with `data` in the place of what it carried: 48 bytes of head, then 520 of the body.
fn quote(data: &[u8]) -> Vec<u8> {
    let mut quote = testdata("tdx/phala_tdx_quote");
    quote[568..632].copy_from_slice(data);
    let signature = u32::from_le_bytes(*quote[632..].first_chunk().unwrap()) as usize;
    quote.truncate(636 + signature);
    quote
}

/// A folder with collateral of every kind of platform that the quote can be of.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let parsed = dcap_qvl::quote::Quote::parse(&quote(&DATA)).unwrap();
    let fmspc = dcap_qvl::intel::quote_fmspc(&parsed).unwrap();
    let folder = dir.path().join("intel").join(hex::encode(fmspc));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("platform.json"), "{}").unwrap();
    fs::write(folder.join("processor.json"), "{}").unwrap();
    dir
}

fn report(kernel: FakeConfigfs, collateral: Option<&Path>) -> Result<CpuEvidence, AttesterError> {
    let sources = sources(collateral.map(Into::into));
    TdxTee::with(Box::new(kernel), &sources.tdx_guest, &sources)?.report(&DATA)
}

fn refusal(made: Vec<u8>) -> TdxError {
    let kernel = FakeConfigfs::new("tdx_guest", move |_| (made.clone(), Vec::new()));
    match report(kernel, Some(folder().path())).unwrap_err() {
        AttesterError::Tdx(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn the_quote_comes_with_our_collateral() {
    let folder = folder();
    let expected = CpuEvidence::Tdx {
        quote: quote(&DATA),
        collateral: "{}".into(),
    };
    let kernel = FakeConfigfs::new("tdx_guest", |data| (quote(data), Vec::new()));
    assert_eq!(report(kernel, Some(folder.path())).unwrap(), expected);
    let padded = FakeConfigfs::new("tdx_guest", |data| {
        let mut padded = quote(data);
        padded.resize(8000, 0);
        (padded, Vec::new())
    });
    assert_eq!(
        report(padded, Some(folder.path())).unwrap(),
        expected,
        "a host fills its buffer with zeros"
    );
}

#[test]
fn without_collateral_the_error_says_where_it_belongs() {
    let kernel = || FakeConfigfs::new("tdx_guest", |data| (quote(data), Vec::new()));
    let error = report(kernel(), None).unwrap_err().to_string();
    assert!(error.contains("tee.collateral"), "{error}");
    let empty = tempfile::tempdir().unwrap();
    let error = report(kernel(), Some(empty.path())).unwrap_err().to_string();
    assert!(
        error.contains("cloister collateral fetch") && error.contains("/intel/"),
        "{error}"
    );
}

#[test]
fn what_is_no_quote_is_refused() {
    let whole = quote(&DATA);
    for end in [1, 2, 48, 631, 635, 636, whole.len() - 1] {
        assert!(
            matches!(refusal(whole[..end].to_vec()), TdxError::Quote(length, _) if length == end),
            "{end}"
        );
    }
    let mut version = whole.clone();
    version[0] = 3;
    assert!(matches!(refusal(version), TdxError::Quote(_, "another version")));
    let mut more = whole.clone();
    more.push(1);
    assert!(matches!(
        refusal(more),
        TdxError::Quote(_, "there is more behind its signature")
    ));
    let mut length = whole;
    length[632..636].fill(0xff);
    assert!(matches!(refusal(length), TdxError::Quote(..)));
}

#[test]
fn a_quote_of_version_5_is_cut_by_its_own_length() {
    let mut made = testdata("tdx/gotdx_quote_v5_sample.dat");
    let body = u32::from_le_bytes(*made[50..].first_chunk().unwrap()) as usize;
    let signature = u32::from_le_bytes(*made[54 + body..].first_chunk().unwrap()) as usize;
    made[54 + 520..54 + 584].copy_from_slice(&DATA);
    made.resize(8000, 0);
    // Whatever platform it is of: its collateral is looked for, so the quote was understood.
    let error = refusal(made.clone());
    assert!(matches!(error, TdxError::Folder(_)), "{error}");
    made.truncate(54 + body + 4 + signature - 1);
    assert!(matches!(refusal(made), TdxError::Quote(..)));
}

#[test]
fn a_quote_with_other_data_is_refused() {
    assert!(matches!(refusal(quote(&[1; 64])), TdxError::OtherData));
}

#[test]
fn a_tdreport_is_no_fallback_and_the_error_says_why() {
    let mut none = FakeConfigfs::new("tdx_guest", |_| (Vec::new(), Vec::new()));
    none.fails = Some(("make", 6));
    let error = TdxTee::with(Box::new(none), Path::new("/dev/null"), &sources(None))
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("no way to a quote") && error.contains("/dev/tdx_guest gives no TDREPORT"),
        "{error}"
    );
    let other = FakeConfigfs::new("sev_guest", |_| (Vec::new(), Vec::new()));
    let error = TdxTee::with(Box::new(other), Path::new("/dev/null"), &sources(None))
        .err()
        .unwrap();
    assert!(error.to_string().contains("tee.kind"), "{error}");
}
