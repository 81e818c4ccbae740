//! The real files, each with the time at which it is looked at.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cloister_attestation::UnixTime;
use cloister_attestation::identity::sha256;
use cloister_attestation::policy::{AppraisalPolicy, Danger, Generation, ReportVersion, TcbVersion};
use cloister_attestation::snp::{
    Anchor, CertificateRefusal, Role, SnpPolicy, SnpRefusal, Trust, VerifiedReport, vek_der, verify,
};
use cloister_attestation::x509::pem_certificates;

/// 2026-01-01: all certificates used here but the VLEK are valid.
pub(crate) const NOW: UnixTime = UnixTime(1_767_225_600);
/// 2025-06-15: the VLEK is valid too.
pub(crate) const NOW_OF_VLEK: UnixTime = UnixTime(1_750_000_000);
/// Where Azure's HCL report has the SNP report.
const HCL_OFFSET: usize = 0x20;

macro_rules! testdata {
    ($name:literal) => {
        include_bytes!(concat!("../../testdata/snp/", $name)).as_slice()
    };
}
pub(crate) use testdata;

pub(crate) const MILAN: &[u8] = testdata!("trustee_report.bin");
pub(crate) const MILAN_VCEK: &[u8] = testdata!("trustee_vcek.der");
pub(crate) const GENOA: &[u8] = testdata!("oak_genoa.bin");
pub(crate) const GENOA_VCEK: &[u8] = testdata!("oak_genoa_vcek.der");
pub(crate) const VLEK_REPORT: &[u8] = testdata!("trustee_vlek_report.bin");
pub(crate) const VLEK: &[u8] = testdata!("trustee_vlek.der");

/// A real report with the certificate of its key.
pub(crate) struct Real {
    pub(crate) name: &'static str,
    pub(crate) report: Vec<u8>,
    pub(crate) vek: Vec<u8>,
    pub(crate) now: UnixTime,
    pub(crate) generation: Generation,
    pub(crate) version: u32,
    pub(crate) vlek: bool,
}

/// Every real report whose certificate is known.
pub(crate) fn real() -> Vec<Real> {
    let of = |name, report: &[u8], vek: &[u8], generation, version| Real {
        name,
        report: report.to_vec(),
        vek: vek_der(vek).unwrap(),
        now: NOW,
        generation,
        version,
        vlek: false,
    };
    let (milan, genoa) = (Generation::Milan, Generation::Genoa);
    let azure = hcl(&pem(testdata!("openpcc_azure_sevsnp_report.txt"), "REPORT")[0]);
    let mut all = vec![
        of("trustee", MILAN, MILAN_VCEK, milan, 2),
        of(
            "sev",
            testdata!("sev_report_milan.bin"),
            testdata!("sev_vcek_milan.der"),
            milan,
            2,
        ),
        of(
            "gosev",
            testdata!("gosev_attestation.bin"),
            testdata!("gosev_vcek.der"),
            milan,
            2,
        ),
        of(
            "azure hcl",
            &hcl(testdata!("azure_hcl_report.bin")),
            testdata!("azure_vcek.pem"),
            milan,
            2,
        ),
        of("oak", GENOA, GENOA_VCEK, genoa, 5),
        of(
            "azure genoa",
            testdata!("azure_genoa.bin"),
            testdata!("azure_vcek_genoa.pem"),
            genoa,
            3,
        ),
        of("openpcc azure", &azure, &openpcc_vcek(), genoa, 3),
        of("vlek", VLEK_REPORT, VLEK, milan, 3),
    ];
    if let Some(last) = all.last_mut() {
        last.now = NOW_OF_VLEK;
        last.vlek = true;
    }
    all
}

/// The report in Azure's HCL report.
fn hcl(report: &[u8]) -> Vec<u8> {
    report[HCL_OFFSET..HCL_OFFSET + 1184].to_vec()
}

/// What a text has between lines of this label.
pub(crate) fn pem(text: &[u8], label: &str) -> Vec<Vec<u8>> {
    let text = std::str::from_utf8(text).unwrap();
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let parts = text.split(&begin).skip(1);
    let decode = |part: &str| {
        let body: String = part.split(&end).next().unwrap().split_whitespace().collect();
        BASE64_STANDARD.decode(body).unwrap()
    };
    parts.map(decode).collect()
}

/// The one chip's certificate among openpcc's, which comes last.
fn openpcc_vcek() -> Vec<u8> {
    pem(testdata!("openpcc_sev_certificates.txt"), "CERTIFICATE")
        .pop()
        .unwrap()
}

/// AMD's lists of Genoa and Milan.
pub(crate) fn crls() -> [Vec<u8>; 2] {
    let found = pem(testdata!("openpcc_sev_certificates.txt"), "X509 CRL");
    found.try_into().unwrap()
}

/// AMD's ASK, ARK and ASVK.
pub(crate) fn amd(generation: Generation) -> [Vec<u8>; 3] {
    let text = match generation {
        Generation::Milan => include_str!("../../testdata/snp/milan_ask_ark_asvk.pem"),
        Generation::Genoa => include_str!("../../testdata/snp/genoa_ask_ark_asvk.pem"),
        Generation::Turin => include_str!("../../testdata/snp/turin_ask_ark_asvk.pem"),
    };
    pem_certificates(text, 3).unwrap().try_into().unwrap()
}

/// An anchor of these certificates, as if a policy named their root: AMD's own cannot be replaced.
pub(crate) fn anchor(chain: &[&[u8]]) -> Anchor {
    let text: String = chain.iter().map(|der| to_pem(der)).collect();
    let trusted = sha256(&[chain[1]]);
    match chain.len() {
        2 => Anchor::simulated(&text, &trusted).unwrap(),
        _ => Anchor::simulated_with_providers(&text, &trusted).unwrap(),
    }
}

pub(crate) fn to_pem(der: &[u8]) -> String {
    der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, der).unwrap()
}

#[track_caller]
pub(crate) fn genuine(report: &[u8], vcek: &[u8]) -> VerifiedReport {
    verify(report, vcek, Trust::Amd, NOW).unwrap()
}

#[track_caller]
pub(crate) fn refusal(report: &[u8], vcek: &[u8], now: UnixTime) -> SnpRefusal {
    verify(report, vcek, Trust::Amd, now).unwrap_err()
}

pub(crate) const fn vcek(reason: CertificateRefusal) -> SnpRefusal {
    SnpRefusal::Certificate {
        role: Role::Vcek,
        reason,
    }
}

/// A policy that takes `report` from this firmware on.
pub(crate) fn policy(report: &VerifiedReport, raw: &[u8], tcb: TcbVersion) -> AppraisalPolicy {
    AppraisalPolicy {
        allowed_generations: BTreeSet::from([report.generation()]),
        min_tcb: BTreeMap::from([(report.generation(), tcb)]),
        min_report_version: ReportVersion::try_from(2).unwrap(),
        measurements: BTreeSet::from([report.measurement()]),
        host_data: BTreeSet::from([raw[0xc0..0xe0].try_into().unwrap()]),
        danger: Danger {
            skip_alias_check: true,
            ..Danger::default()
        },
        snp: SnpPolicy::default(),
        ..AppraisalPolicy::default()
    }
}

pub(crate) const fn tcb(bootloader: u8, snp: u8, microcode: u8) -> TcbVersion {
    TcbVersion {
        fmc: None,
        bootloader,
        tee: 0,
        snp,
        microcode,
    }
}
