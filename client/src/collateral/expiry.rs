//! Until when what is in a store holds, by its own dates. Nothing is verified here.

use super::fields::pem_certificates;
use super::intel::Collateral;
use super::name::Entry;
use super::nvidia::{basic_response, rim_certificates};
use super::store::{Store, StoreError};
use cloister_attestation::UnixTime;
use der::Decode;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_ocsp::CertStatus;

/// What ends within this time is told to be near its end, seconds: a revocation list lives a month, a status a day.
pub const SOON: u64 = 3 * 24 * 60 * 60;

/// How one file stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It holds.
    Good,
    /// It ends within [`SOON`].
    Soon,
    /// It ended.
    Expired,
    /// It is not what its name says, or says that something is revoked.
    Unusable,
}

/// One file of the store.
#[derive(Clone, Debug, Serialize)]
pub struct Listing {
    /// Its name.
    pub name: String,
    /// How it stands.
    pub state: State,
    /// Last second in which all of it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Listing {
    /// Whether it can be relied on.
    pub fn is_usable(&self) -> bool {
        matches!(self.state, State::Good | State::Soon)
    }

    /// The end as a date.
    pub fn date(&self) -> Option<String> {
        let end = OffsetDateTime::from_unix_timestamp(i64::try_from(self.until?).ok()?).ok()?;
        end.format(&Rfc3339).ok()
    }
}

/// Everything in a store.
///
/// # Errors
///
/// It cannot be listed. What is wrong with one file is in its [`Listing`].
pub fn listing(store: &Store, now: UnixTime) -> Result<Vec<Listing>, StoreError> {
    let entries = store.list()?;
    Ok(entries.iter().map(|entry| look(store, entry, now)).collect())
}

/// How one file stands.
pub fn look(store: &Store, entry: &Entry, now: UnixTime) -> Listing {
    let end = match store.read(entry) {
        Ok(Some(bytes)) => end(entry, &bytes),
        Ok(None) => Err("gone".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let state = match &end {
        Err(_) => State::Unusable,
        Ok(end) if end.0 < now.0 => State::Expired,
        Ok(end) if end.0 < now.plus(SOON).0 => State::Soon,
        Ok(_) => State::Good,
    };
    Listing {
        name: entry.to_string(),
        state,
        until: end.as_ref().ok().map(|end| end.0),
        reason: end.err(),
    }
}

fn end(entry: &Entry, bytes: &[u8]) -> Result<UnixTime, String> {
    let parts: Vec<&str> = entry.parts().iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["amd", _, "crl.der"] => crl_end(bytes),
        ["amd", _, "cert_chain.pem" | "vlek_cert_chain.pem"] => chain_end(&String::from_utf8_lossy(bytes)),
        ["amd", _, _, _] => certificate_end(bytes),
        ["intel", _, _] => collateral_end(bytes),
        ["nvidia", "rims", _] => earliest(rim_certificates(bytes).iter().map(|der| certificate_end(der))),
        ["nvidia", "ocsp", _] => status_end(bytes),
        _ => Err("not a file of a store".to_owned()),
    }
}

fn certificate_end(der: &[u8]) -> Result<UnixTime, String> {
    let certificate = Certificate::from_der(der).map_err(|_| "not a certificate in DER")?;
    let end = certificate.tbs_certificate.validity.not_after;
    Ok(UnixTime(end.to_unix_duration().as_secs()))
}

fn chain_end(pem: &str) -> Result<UnixTime, String> {
    earliest(pem_certificates(pem).iter().map(|der| certificate_end(der)))
}

fn crl_end(der: &[u8]) -> Result<UnixTime, String> {
    let list = CertificateList::from_der(der).map_err(|_| "not a revocation list in DER")?;
    let end = list
        .tbs_cert_list
        .next_update
        .ok_or("a revocation list without an end")?;
    Ok(UnixTime(end.to_unix_duration().as_secs()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Signed {
    next_update: String,
}

fn collateral_end(json: &[u8]) -> Result<UnixTime, String> {
    let collateral: Collateral = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let crl = |text: &str| crl_end(&hex::decode(text).map_err(|_| "a revocation list that is not hex")?);
    earliest(
        [
            signed_end(&collateral.tcb_info),
            signed_end(&collateral.qe_identity),
            crl(&collateral.pck_crl),
            crl(&collateral.root_ca_crl),
            chain_end(&collateral.tcb_info_issuer_chain),
            chain_end(&collateral.qe_identity_issuer_chain),
            chain_end(&collateral.pck_crl_issuer_chain),
        ]
        .into_iter(),
    )
}

fn signed_end(json: &str) -> Result<UnixTime, String> {
    let signed: Signed = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let end = OffsetDateTime::parse(&signed.next_update, &Rfc3339).map_err(|_| "nextUpdate is not a date")?;
    u64::try_from(end.unix_timestamp())
        .map(UnixTime)
        .map_err(|_| "nextUpdate is not a date".to_owned())
}

fn status_end(der: &[u8]) -> Result<UnixTime, String> {
    let response = basic_response(der)?;
    earliest(response.tbs_response_data.responses.iter().map(|single| {
        match single.cert_status {
            CertStatus::Good(_) => {}
            CertStatus::Revoked(_) => return Err("the certificate is REVOKED".to_owned()),
            CertStatus::Unknown(_) => return Err("the service does not know the certificate".to_owned()),
        }
        let end = single.next_update.ok_or("a status without an end")?;
        Ok(UnixTime(end.0.to_unix_duration().as_secs()))
    }))
}

fn earliest(ends: impl Iterator<Item = Result<UnixTime, String>>) -> Result<UnixTime, String> {
    let ends: Vec<UnixTime> = ends.collect::<Result<_, _>>()?;
    ends.into_iter()
        .min_by_key(|end| end.0)
        .ok_or_else(|| "nothing with a date is in it".to_owned())
}
