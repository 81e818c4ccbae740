//! One function per parser: it takes any bytes and must come back, whatever they are.
//!
//! cargo-fuzz calls them with what it makes up (`fuzz_targets`), and `tests/fuzz_corpus.rs` with the real evidence and simple
//! changes of it. What they assert, beside not panicking, is that what is accepted was not changed on the way.

use cloister_attestation::bundle::Bundle;
use cloister_attestation::corim::{SignerKey, import_signed, import_unsigned};
use cloister_attestation::nvidia::opaque::Opaque;
use cloister_attestation::nvidia::spdm::Report;
use cloister_attestation::nvidia::{OcspResponse, rim};
use cloister_attestation::x509::{Certificate, pem_certificates};
use cloister_attestation::{AppraisalPolicy, Evidence, UnixTime, snp, tdx};

/// 2024-12-01: most of the real evidence is in date.
const NOW: UnixTime = UnixTime(1_733_011_200);

/// Signed reference manifests.
pub(crate) fn rim(data: &[u8]) {
    if let Ok(parsed) = rim::xml::parse(data) {
        let canonical = rim::c14n::document(&parsed, None);
        // Escaping may make it longer than a document may be.
        if let Ok(again) = rim::xml::parse(&canonical) {
            assert_eq!(rim::c14n::document(&again, None), canonical);
        }
    }
    let _ = rim::verify(data, NOW);
    let _ = rim::RimStore::new().insert("NV_GPU_VBIOS_1010_0200_882_96005E0001", data);
}

/// Reports of SEV-SNP, under a genuine certificate.
pub(crate) fn snp_report(data: &[u8]) {
    const VEK: &[u8] = include_bytes!("../testdata/snp/trustee_vcek.der");
    let _ = snp::verify(data, VEK, snp::Trust::Amd, NOW);
}

/// Quotes of TDX, with genuine collateral.
pub(crate) fn tdx_quote(data: &[u8]) {
    const COLLATERAL: &str = include_str!("../testdata/tdx/phala_tdx_quote_collateral.json");
    // 2025-07-01: the collateral is in date.
    let _ = tdx::verify(data, COLLATERAL, UnixTime(1_751_328_000));
}

/// Bundles and evidence in JSON.
pub(crate) fn bundle(data: &[u8]) {
    if let Ok(bundle) = Bundle::from_json(data) {
        assert!(Bundle::from_json(bundle.to_json().as_bytes()).is_ok_and(|again| again.to_json() == bundle.to_json()));
    }
    let _ = Evidence::from_json(data);
}

/// Policies in YAML.
pub(crate) fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(policy) = AppraisalPolicy::from_yaml(text) {
        let again = policy
            .to_yaml()
            .ok()
            .and_then(|yaml| AppraisalPolicy::from_yaml(&yaml).ok());
        assert_eq!(
            again.map(|policy| policy.canonical_hash()),
            Some(policy.canonical_hash())
        );
    }
}

/// Certificates, as DER and as PEM.
pub(crate) fn certificate(data: &[u8]) {
    if let Ok(certificate) = Certificate::parse(data, &[]) {
        let _ = certificate.check_authority(0);
        let _ = (
            certificate.common_name(),
            certificate.spki_der(),
            certificate.check_dates(NOW),
        );
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(found) = pem_certificates(text, 5)
    {
        assert!((1..=5).contains(&found.len()));
    }
}

/// Reference values in CoRIM.
pub(crate) fn corim(data: &[u8]) {
    let _ = import_unsigned(data, NOW);
    let _ = import_signed(data, SignerKey::Es384(&[4; 97]), NOW);
}

/// Reports of NVIDIA's devices, with the list of fields in them.
pub(crate) fn spdm(data: &[u8]) {
    let _ = Report::parse(data);
    let _ = Opaque::parse(data);
}

/// OCSP responses.
pub(crate) fn ocsp(data: &[u8]) {
    let _ = OcspResponse::parse(data).map(|response| response.valid_until());
}

/// A name and its function.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    ("rim", rim),
    ("snp_report", snp_report),
    ("tdx_quote", tdx_quote),
    ("bundle", bundle),
    ("policy", policy),
    ("certificate", certificate),
    ("corim", corim),
    ("spdm", spdm),
    ("ocsp", ocsp),
];
