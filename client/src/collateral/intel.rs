//! Intel's Provisioning Certification Service, version 4 (API portal of Intel SGX and TDX, "Get TDX TCB Info", "Get TDX QE
//! Identity", "Get PCK CRL"), and caches of it that speak the same.
//!
//! `/tdx/certification/v4/tcb?fmspc=`, `/tdx/certification/v4/qe/identity` and `/sgx/certification/v4/pckcrl?ca=&encoding=der`. Each
//! answer's issuer chain is in a header, percent-encoded PEM. The root's revocation list is at another host; a cache serves it at
//! `/sgx/certification/v4/rootcacrl`. Caches answer revocation lists in hex, Intel in DER: both are read.

use super::http::{Answer, Ask, BaseUrl};
use super::name::FmspcCa;
use der::Decode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use x509_cert::crl::CertificateList;

/// Where Intel serves it.
pub const PCS_URL: &str = "https://api.trustedservices.intel.com";
/// Where Intel serves its root's revocation list.
pub const ROOT_CRL_URL: &str = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der";

const FLAG: &str = "--intel-pcs";
/// Largest answer, bytes; real ones have under 20 KiB.
const MAX_ANSWER: usize = 1024 * 1024;
/// Largest issuer chain, bytes of PEM.
const MAX_CHAIN: usize = 16 * 1024;

/// The collateral of a quote, in the fields and the order of dcap-qvl's `QuoteCollateralV3`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Collateral {
    pub(super) pck_crl_issuer_chain: String,
    pub(super) root_ca_crl: String,
    pub(super) pck_crl: String,
    pub(super) tcb_info_issuer_chain: String,
    pub(super) tcb_info: String,
    pub(super) tcb_info_signature: String,
    pub(super) qe_identity_issuer_chain: String,
    pub(super) qe_identity: String,
    pub(super) qe_identity_signature: String,
}

#[derive(Deserialize)]
struct TcbInfo<'a> {
    /// Signed as it is spelled: never parsed and written again.
    #[serde(borrow, rename = "tcbInfo")]
    tcb_info: &'a RawValue,
    signature: String,
}

#[derive(Deserialize)]
struct QeIdentity<'a> {
    #[serde(borrow, rename = "enclaveIdentity")]
    enclave_identity: &'a RawValue,
    signature: String,
}

/// What says which platform and TEE a document is for.
#[derive(Deserialize)]
struct About {
    id: String,
    #[serde(default)]
    fmspc: Option<String>,
}

pub(super) fn ask_tcb_info(base: &BaseUrl, fmspc: [u8; 6]) -> Ask {
    let absent = "Intel knows no TDX platform of this FMSPC";
    let path = format!("/tdx/certification/v4/tcb?fmspc={}", hex::encode(fmspc));
    ask(base, path, absent, FLAG)
}

pub(super) fn ask_qe_identity(base: &BaseUrl) -> Ask {
    ask(base, "/tdx/certification/v4/qe/identity".to_owned(), NOT_PCS, FLAG)
}

pub(super) fn ask_pck_crl(base: &BaseUrl, ca: FmspcCa) -> Ask {
    let path = format!("/sgx/certification/v4/pckcrl?ca={ca}&encoding=der");
    ask(base, path, NOT_PCS, FLAG)
}

/// Of its own address, or else of the cache that `base` is.
pub(super) fn ask_root_crl(base: &BaseUrl, own: Option<&BaseUrl>) -> Ask {
    match own {
        Some(own) => ask(own, String::new(), NOT_PCS, "--intel-root-crl"),
        None => ask(base, "/sgx/certification/v4/rootcacrl".to_owned(), NOT_PCS, FLAG),
    }
}

const NOT_PCS: &str = "this is not a provisioning certification service of version 4";

/// Puts four answers together. Each must be what was asked for, as far as it says itself.
pub(super) fn assemble(
    fmspc: [u8; 6],
    [tcb, qe, pck_crl, root_crl]: [&Answer; 4],
) -> Result<Collateral, (String, String)> {
    let at = |answer: &Answer| {
        let url = answer.url.clone();
        move |reason: String| (url, reason)
    };
    let tcb_info: TcbInfo<'_> = json(tcb).map_err(at(tcb))?;
    check_about(tcb_info.tcb_info, "TDX", Some(fmspc)).map_err(at(tcb))?;
    let identity: QeIdentity<'_> = json(qe).map_err(at(qe))?;
    check_about(identity.enclave_identity, "TD_QE", None).map_err(at(qe))?;
    Ok(Collateral {
        pck_crl_issuer_chain: header(pck_crl, &["SGX-PCK-CRL-Issuer-Chain"]).map_err(at(pck_crl))?,
        root_ca_crl: hex::encode(crl(&root_crl.body).map_err(at(root_crl))?),
        pck_crl: hex::encode(crl(&pck_crl.body).map_err(at(pck_crl))?),
        // Version 3 called it otherwise, and some caches still do.
        tcb_info_issuer_chain: header(tcb, &["TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain"]).map_err(at(tcb))?,
        tcb_info: tcb_info.tcb_info.get().to_owned(),
        tcb_info_signature: signature(tcb_info.signature).map_err(at(tcb))?,
        qe_identity_issuer_chain: header(qe, &["SGX-Enclave-Identity-Issuer-Chain"]).map_err(at(qe))?,
        qe_identity: identity.enclave_identity.get().to_owned(),
        qe_identity_signature: signature(identity.signature).map_err(at(qe))?,
    })
}

fn json<'a, T: Deserialize<'a>>(answer: &'a Answer) -> Result<T, String> {
    serde_json::from_slice(&answer.body).map_err(|error| format!("not the JSON of this service: {error}"))
}

fn check_about(document: &RawValue, id: &str, fmspc: Option<[u8; 6]>) -> Result<(), String> {
    let about: About =
        serde_json::from_str(document.get()).map_err(|error| format!("not a document of Intel: {error}"))?;
    if about.id != id {
        return Err(format!("a document about {:?} instead of {id}", about.id));
    }
    let wanted = fmspc.map(hex::encode);
    if wanted.is_some() && about.fmspc.map(|fmspc| fmspc.to_lowercase()) != wanted {
        return Err("a document of another FMSPC".to_owned());
    }
    Ok(())
}

fn signature(text: String) -> Result<String, String> {
    let sound = text.len() == 128 && hex::decode(&text).is_ok();
    if sound {
        Ok(text)
    } else {
        Err("the signature is not 64 bytes of hex".to_owned())
    }
}

fn header(answer: &Answer, names: &[&str]) -> Result<String, String> {
    let found = names.iter().find_map(|name| answer.headers.get(*name));
    let missing = || format!("no header {}", names.first().unwrap_or(&""));
    let encoded = found.and_then(|value| value.to_str().ok()).ok_or_else(missing)?;
    let chain = decode_percent(encoded).filter(|chain| chain.contains("-----BEGIN CERTIFICATE-----"));
    chain.ok_or_else(|| format!("header {} is not a chain in PEM", names.first().unwrap_or(&"")))
}

/// Percent-decoded text (RFC 3986, section 2.1), within [`MAX_CHAIN`].
fn decode_percent(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                *hex::decode(digits).ok()?.first()?
            }
            other => other,
        });
    }
    String::from_utf8(decoded).ok().filter(|text| text.len() <= MAX_CHAIN)
}

/// A revocation list, in DER or in hex of it.
fn crl(body: &[u8]) -> Result<Vec<u8>, String> {
    let der = match hex::decode(body.trim_ascii()) {
        Ok(der) => der,
        Err(_) => body.to_vec(),
    };
    CertificateList::from_der(&der).map_err(|_| "not a revocation list in DER or hex")?;
    Ok(der)
}

fn ask(base: &BaseUrl, path: String, absent: &'static str, flag: &'static str) -> Ask {
    Ask {
        base: base.clone(),
        path,
        post: None,
        limit: MAX_ANSWER,
        absent,
        flag,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_is_decoded_or_refused() {
        assert_eq!(decode_percent("a%20b%0A+").unwrap(), "a b\n+");
        for bad in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(decode_percent(bad), None, "{bad}");
        }
        assert_eq!(decode_percent(&"a".repeat(MAX_CHAIN + 1)), None);
    }
}
