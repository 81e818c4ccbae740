//! Fills a store.

use super::amd::{self, KDS_URL};
use super::http::{Ask, BaseUrl, BaseUrlError, Http, HttpError};
use super::intel::{self, PCS_URL, ROOT_CRL_URL};
use super::name::{Entry, NameError};
use super::need::{self, Need};
use super::nvidia::{self, OCSP_URL, RIM_URL};
use super::store::{Store, StoreError};
use std::collections::{BTreeSet, VecDeque};

/// Most requests of one fetch: a machine of 8 GPUs and 4 switches takes about 80.
const MAX_NEEDS: usize = 512;

/// Where each service is.
#[derive(Clone, Debug)]
pub struct Sources {
    /// AMD's key distribution service.
    pub amd_kds: BaseUrl,
    /// Intel's provisioning certification service, or a cache of it.
    pub intel_pcs: BaseUrl,
    /// The revocation list of Intel's root, if the service above does not serve it.
    pub intel_root_crl: Option<BaseUrl>,
    /// NVIDIA's RIM service.
    pub nvidia_rim: BaseUrl,
    /// NVIDIA's status service.
    pub nvidia_ocsp: BaseUrl,
}

/// Why something was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No usable answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// An answer that is something else.
    #[error("{url}: {reason}; nothing was kept of it")]
    Content {
        /// The request.
        url: String,
        /// What it is.
        reason: String,
    },
    /// An id that is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// It cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A certificate that is none.
    #[error("{0}")]
    Certificate(String),
}

/// What became of one need.
#[derive(Debug)]
pub struct Outcome {
    /// The need.
    pub need: Need,
    /// Where it is kept now, and whether it was there already.
    pub result: Result<(Entry, Kept), FetchError>,
}

/// How something came to be in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It was fetched.
    Fetched,
    /// It was there, and never changes.
    Already,
}

impl Sources {
    /// The vendors' own.
    ///
    /// # Errors
    ///
    /// None: the addresses are constants.
    pub fn vendors() -> Result<Self, BaseUrlError> {
        Ok(Self {
            amd_kds: KDS_URL.parse()?,
            intel_pcs: PCS_URL.parse()?,
            intel_root_crl: Some(ROOT_CRL_URL.parse()?),
            nvidia_rim: RIM_URL.parse()?,
            nvidia_ocsp: OCSP_URL.parse()?,
        })
    }
}

/// Fetches everything, one thing after the other as services with limits like it, and what turns out to be needed on the way.
/// What fails does not keep the others from being fetched. `progress` is told of each before it is asked for.
pub async fn fetch(
    store: &Store,
    http: &Http,
    sources: &Sources,
    needs: impl IntoIterator<Item = Need>,
    mut progress: impl FnMut(&Need),
) -> Vec<Outcome> {
    let mut waiting: VecDeque<Need> = needs.into_iter().collect();
    let mut seen: BTreeSet<Need> = waiting.iter().cloned().collect();
    let mut outcomes = Vec::new();
    while let Some(need) = waiting.pop_front() {
        if outcomes.len() >= MAX_NEEDS {
            break;
        }
        progress(&need);
        let result = fetch_one(store, http, sources, &need).await;
        if let (Need::Rim(_), Ok((_, _, document))) = (&need, &result) {
            waiting.extend(need::of_rim(document).filter(|need| seen.insert(need.clone())));
        }
        let result = result.map(|(entry, kept, _)| (entry, kept));
        outcomes.push(Outcome { need, result });
    }
    outcomes
}

async fn fetch_one(
    store: &Store,
    http: &Http,
    sources: &Sources,
    need: &Need,
) -> Result<(Entry, Kept, Vec<u8>), FetchError> {
    let entry = need.entry()?;
    // A VCEK is for ever the same, and AMD's service the one that limits most.
    if let (Need::Vcek { hwid, .. }, Some(bytes)) = (need, store.read(&entry)?)
        && amd::check_vcek(&bytes, hwid).is_ok()
    {
        return Ok((entry, Kept::Already, bytes));
    }
    let bytes = ask_for(http, sources, need).await?;
    store.write(&entry, &bytes)?;
    Ok((entry, Kept::Fetched, bytes))
}

async fn ask_for(http: &Http, sources: &Sources, need: &Need) -> Result<Vec<u8>, FetchError> {
    let kds = &sources.amd_kds;
    match need {
        Need::AmdChain(product) => {
            let ask = amd::ask_chain(kds, *product, false);
            checked(http, &ask, |body| amd::check_chain(body, *product)).await
        }
        Need::AmdVlekChain(product) => {
            let ask = amd::ask_chain(kds, *product, true);
            checked(http, &ask, |body| amd::check_chain(body, *product)).await
        }
        Need::AmdCrl(product) => {
            let ask = amd::ask_crl(kds, *product);
            checked(http, &ask, |body| amd::check_crl(body, *product)).await
        }
        Need::Vcek { product, hwid, tcb } => {
            let ask = amd::ask_vcek(kds, *product, hwid, *tcb);
            checked(http, &ask, |body| amd::check_vcek(body, hwid)).await
        }
        Need::Intel { fmspc, ca } => intel_collateral(http, sources, *fmspc, *ca).await,
        Need::Rim(id) => {
            let ask = nvidia::ask_rim(&sources.nvidia_rim, id)?;
            let answer = http.send(&ask).await?;
            nvidia::rim_document(&answer.body, id).map_err(content(&answer.url))
        }
        Need::Status { certificate, issuer } => {
            let request = nvidia::ask_status(&sources.nvidia_ocsp, certificate, issuer);
            let request = request.map_err(FetchError::Certificate)?;
            checked(http, &request.ask, |body| request.check(body)).await
        }
    }
}

async fn intel_collateral(
    http: &Http,
    sources: &Sources,
    fmspc: [u8; 6],
    ca: super::FmspcCa,
) -> Result<Vec<u8>, FetchError> {
    let pcs = &sources.intel_pcs;
    let tcb_info = http.send(&intel::ask_tcb_info(pcs, fmspc)).await?;
    let identity = http.send(&intel::ask_qe_identity(pcs)).await?;
    let pck_crl = http.send(&intel::ask_pck_crl(pcs, ca)).await?;
    let root_crl = http
        .send(&intel::ask_root_crl(pcs, sources.intel_root_crl.as_ref()))
        .await?;
    let collateral = intel::assemble(fmspc, [&tcb_info, &identity, &pck_crl, &root_crl])
        .map_err(|(url, reason)| FetchError::Content { url, reason })?;
    // Strings only: serialising them has no error.
    Ok(serde_json::to_vec(&collateral).unwrap_or_default())
}

async fn checked(
    http: &Http,
    ask: &Ask,
    check: impl FnOnce(&[u8]) -> Result<(), String>,
) -> Result<Vec<u8>, FetchError> {
    let answer = http.send(ask).await?;
    check(&answer.body).map_err(content(&answer.url))?;
    Ok(answer.body)
}

fn content(url: &str) -> impl Fn(String) -> FetchError + '_ {
    move |reason| FetchError::Content {
        url: url.to_owned(),
        reason,
    }
}
