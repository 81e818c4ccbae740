//! SEV-SNP, on a real report (Milan) in a fake kernel, with the certificate that belongs to it.

use std::fs;
use std::path::{Path, PathBuf};

use cloister_attestation::CpuEvidence;
use cloister_enclave_attester::certificates::TableError;
use cloister_enclave_attester::device::{RawRefusal, RawReport, SevDevice};
use cloister_enclave_attester::snp::SnpError;
use cloister_enclave_attester::{AttesterError, CpuTee, SnpTee, Sources};

use crate::fake_configfs::FakeConfigfs;

pub(crate) const DATA: [u8; 64] = [0xab; 64];

pub(crate) fn testdata(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../attestation/testdata")
        .join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The real report with `data` in the place of what it carried.
pub(crate) fn report(data: &[u8]) -> Vec<u8> {
    let mut report = testdata("snp/trustee_report.bin");
    report[0x50..0x90].copy_from_slice(data);
    report
}

pub(crate) fn vcek() -> Vec<u8> {
    testdata("snp/trustee_vcek.der")
}

/// A host's table with the real certificate under `guid`.
pub(crate) fn table(guid: &str) -> Vec<u8> {
    let mut table = hex::decode(guid.replace('-', "")).unwrap();
    table.extend_from_slice(&48u32.to_le_bytes());
    table.extend_from_slice(&u32::try_from(vcek().len()).unwrap().to_le_bytes());
    table.extend_from_slice(&[0; 24]);
    table.extend_from_slice(&vcek());
    table.resize(4096, 0);
    table
}

pub(crate) const VCEK: &str = "63da758d-e664-4564-adc5-f4b93be8accd";
const VLEK: &str = "a8074bc2-a25a-483e-aae6-39c045a0b8a1";

pub(crate) fn sources(collateral: Option<PathBuf>) -> Sources {
    Sources {
        sev_guest: "/nonexistent/sev-guest".into(),
        tdx_guest: "/nonexistent/tdx_guest".into(),
        collateral,
        ..Sources::default()
    }
}

fn tee(kernel: FakeConfigfs) -> SnpTee {
    SnpTee::with(Box::new(kernel), Path::new("/nonexistent/sev-guest"), &sources(None)).unwrap()
}

fn refusal(result: Result<CpuEvidence, AttesterError>) -> SnpError {
    match result.unwrap_err() {
        AttesterError::Snp(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn the_report_comes_with_the_hosts_certificate() {
    let tee = tee(FakeConfigfs::new("sev_guest", |data| (report(data), table(VCEK))));
    let expected = CpuEvidence::Snp {
        report: report(&DATA),
        vek: vcek(),
    };
    assert_eq!(tee.report(&DATA).unwrap(), expected);
}

#[test]
fn without_a_hosts_certificate_our_own_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let made = report(&DATA);
    let [bootloader, tee, .., snp, microcode] = *made[0x180..0x188].first_chunk::<8>().unwrap();
    let name = format!("{bootloader:02}-{tee:02}-{snp:02}-{microcode:02}.der");
    let folder = dir.path().join("amd/Milan").join(hex::encode(&made[0x1a0..0x1e0]));
    let kernel = || Box::new(FakeConfigfs::new("sev_guest", |data| (report(data), Vec::new())));
    let open = || SnpTee::with(kernel(), Path::new("/nonexistent"), &sources(Some(dir.path().into()))).unwrap();
    let missing = refusal(open().report(&DATA)).to_string();
    assert!(missing.contains("cloister collateral fetch"), "{missing}");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), vcek()).unwrap();
    assert!(matches!(open().report(&DATA).unwrap(), CpuEvidence::Snp { vek, .. } if vek == vcek()));
}

#[test]
fn a_report_with_the_operators_key_needs_its_certificate() {
    let vlek = |data: &[u8]| {
        let mut made = report(data);
        made[0x48] = 1 << 2;
        made
    };
    let none = tee(FakeConfigfs::new("sev_guest", move |data| (vlek(data), table(VCEK))));
    assert!(matches!(refusal(none.report(&DATA)), SnpError::NoVlek));
    let some = tee(FakeConfigfs::new("sev_guest", move |data| (vlek(data), table(VLEK))));
    assert!(some.report(&DATA).is_ok());
}

#[test]
fn an_unsigned_report_is_refused() {
    let tee = tee(FakeConfigfs::new("sev_guest", |data| {
        let mut made = report(data);
        made[0x48] = 7 << 2;
        (made, table(VCEK))
    }));
    assert!(matches!(refusal(tee.report(&DATA)), SnpError::SigningKey(7)));
}

#[test]
fn a_truncated_or_longer_report_is_refused() {
    for length in [1, 1183, 1185, 4000] {
        let tee = tee(FakeConfigfs::new("sev_guest", move |data| {
            let mut made = report(data);
            made.resize(length, 0);
            (made, table(VCEK))
        }));
        assert!(matches!(refusal(tee.report(&DATA)), SnpError::Length(found) if found == length));
    }
}

#[test]
fn a_report_with_other_data_is_refused() {
    let tee = tee(FakeConfigfs::new("sev_guest", |_| (report(&[1; 64]), table(VCEK))));
    assert!(matches!(refusal(tee.report(&DATA)), SnpError::OtherData));
}

#[test]
fn a_broken_table_is_refused() {
    let tee = tee(FakeConfigfs::new("sev_guest", |data| {
        (report(data), table(VCEK)[..24].to_vec())
    }));
    let error = refusal(tee.report(&DATA));
    assert!(matches!(error, SnpError::Table(TableError::Unterminated)), "{error}");
}

struct Device;

impl SevDevice for Device {
    fn extended_report(&self, request: &[u8; 96]) -> Result<RawReport, RawRefusal> {
        let mut response = [0; 4000];
        response[4..8].copy_from_slice(&1184u32.to_le_bytes());
        response[32..32 + 1184].copy_from_slice(&report(&request[..64]));
        Ok(RawReport {
            response,
            certificates: table(VCEK),
        })
    }
}

#[test]
fn the_device_gives_the_same_evidence_as_configfs() {
    let tsm = tee(FakeConfigfs::new("sev_guest", |data| (report(data), table(VCEK))));
    let device = SnpTee::over(Box::new(Device), None);
    assert_eq!(device.report(&DATA).unwrap(), tsm.report(&DATA).unwrap());
}

#[test]
fn without_any_interface_the_error_names_both() {
    let mut sources = sources(None);
    sources.report_root = "/nonexistent/tsm/report".into();
    let error = SnpTee::open(&sources).err().unwrap().to_string();
    assert!(
        error.contains("/nonexistent/tsm/report") && error.contains("/nonexistent/sev-guest"),
        "{error}"
    );
}

#[test]
fn the_device_stands_in_only_where_there_is_no_interface() {
    let other = Box::new(FakeConfigfs::new("tdx_guest", |_| (Vec::new(), Vec::new())));
    let error = SnpTee::with(other, Path::new("/dev/null"), &sources(None))
        .err()
        .unwrap();
    assert!(matches!(error, AttesterError::Tsm(_)), "{error}");
    let mut none = FakeConfigfs::new("sev_guest", |_| (Vec::new(), Vec::new()));
    none.fails = Some(("make", 6));
    let device = SnpTee::with(Box::new(none), Path::new("/dev/null"), &sources(None)).unwrap();
    let error = device.report(&DATA).unwrap_err().to_string();
    assert!(error.contains("SNP_GET_EXT_REPORT"), "{error}");
}
