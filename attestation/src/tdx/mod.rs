//! Intel TDX: a quote, and the collateral that Intel signed about the platform and its quoting enclave.
//!
//! [`verify`] proves that a genuine platform made the quote; [`VerifiedQuote::check`] compares what it says with a policy. Both
//! are needed, and neither knows the binding, which is [`appraise`](crate::appraise)'s.
//!
//! `dcap-qvl` checks the signatures and rates the firmware. It runs here with everything allowed that it can be told to allow
//! (debugging, service guests, any rating but Revoked), so that one refusal of ours stands for each; what it is silent on is
//! checked beside it: see [`quote`], [`collateral`] and [`VerifiedQuote::check`].

#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

mod attributes;
mod check;
mod claims;
mod collateral;
mod event_log;
mod pem;
mod policy;
mod quote;
mod refusal;

#[cfg(test)]
mod synthetic;
#[cfg(test)]
mod tests;

use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{PckCertFlag, QuoteClaims, QuotePolicy};

use self::collateral::Collateral as ParsedCollateral;
use self::quote::Quote;
use crate::ids::UnixTime;
use crate::policy::{Measurement, PlatformId};

pub use self::attributes::TdAttributes;
pub use self::claims::TdxClaims;
pub use self::collateral::MAX_COLLATERAL_LEN;
pub use self::event_log::{Event, EventLog, MAX_EVENT_LOG_LEN, MAX_EVENTS};
pub use self::policy::{BitSet, FixedBits, Fmspc, Ppid, TcbStatus, TdxPolicy, TeeTcbSvn};
pub use self::quote::{Body, BodyKind, Header, MAX_CHAIN_LEN, MAX_QUOTE_LEN, Td15, Td15Ex};
pub use self::refusal::{Collateral, Register, TdxRefusal, UntrustedBit};

/// Intel SGX Root CA: the only one.
const INTEL_ROOT: &[u8] = include_bytes!("roots/intel_sgx_root_ca.der");

/// A quote that a genuine platform made, with what Intel says of the platform. Built only by [`verify`].
#[derive(Debug, Clone)]
pub struct VerifiedQuote {
    header: Header,
    body: Body,
    status: TcbStatus,
    advisories: Vec<String>,
    evaluation: u32,
    fmspc: Fmspc,
    ppid: Ppid,
    flags: PlatformFlags,
    windows: [collateral::Window; 4],
    valid_until: UnixTime,
    verified_at: UnixTime,
}

/// What the platform's certificate says of how the platform is set up; `None` where it does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PlatformFlags {
    dynamic: Option<bool>,
    cached_keys: Option<bool>,
    smt: Option<bool>,
}

/// Verifies that `quote` was signed by an attestation key of Intel's quoting enclave on the platform of its certificate, that all
/// of `collateral` (JSON of `QuoteCollateralV3`) is Intel's and current at `now`, that nothing is revoked, and that the guest has
/// no attribute that no policy can allow.
///
/// # Errors
/// [`TdxRefusal`] names the first thing that does not hold.
pub fn verify(quote: &[u8], collateral: &str, now: UnixTime) -> Result<VerifiedQuote, TdxRefusal> {
    verify_under(INTEL_ROOT, quote, collateral, now)
}

fn verify_under(root: &[u8], bytes: &[u8], collateral: &str, now: UnixTime) -> Result<VerifiedQuote, TdxRefusal> {
    let quote = Quote::parse(bytes)?;
    let collateral = ParsedCollateral::parse(collateral, root)?;
    check_chain(&quote, &collateral, root)?;
    collateral.check(root, now)?;
    TdAttributes::new(quote.body.td_attributes).verify()?;
    let windows = collateral.windows;
    let pce_id = collateral.pce_id;
    let found = QuoteVerifier::new(root.to_vec())
        .allow_debug(true)
        .allow_service_td(true)
        .verify_with_policy(bytes, collateral.all, now.0, &QuotePolicy::claims_only(now.0))
        .map_err(|error| TdxRefusal::from_words(&format!("{error:#}")))?;
    if hex::encode(&found.platform.pck.pce_id) != pce_id {
        return Err(TdxRefusal::PceIdMismatch);
    }
    VerifiedQuote::new(quote, found, windows, now)
}

/// The platform's chain ends in the root, the collateral's copy of it is the same, and the TCB info is of its family.
fn check_chain(quote: &Quote, collateral: &ParsedCollateral, root: &[u8]) -> Result<(), TdxRefusal> {
    const WHAT: &str = "certificate chain of the quote";
    if quote.chain.last().is_none_or(|last| last != root) {
        return Err(TdxRefusal::Root(WHAT));
    }
    if collateral.pck_chain.as_ref().is_some_and(|chain| *chain != quote.chain) {
        return Err(TdxRefusal::CertificateChain(
            "the collateral's certificates of the platform are not the quote's".to_owned(),
        ));
    }
    let leaf = quote.chain.first().ok_or(TdxRefusal::Pem(WHAT))?;
    let platform = dcap_qvl::intel::parse_pck_extension(leaf).map_err(|_| TdxRefusal::PckExtension)?;
    let platform = Fmspc::from_bytes(platform.fmspc);
    if platform.to_string() != collateral.fmspc {
        return Err(TdxRefusal::FmspcMismatch {
            found: collateral.fmspc.clone(),
            platform,
        });
    }
    Ok(())
}

impl VerifiedQuote {
    fn new(
        quote: Quote,
        found: QuoteClaims,
        windows: [collateral::Window; 4],
        now: UnixTime,
    ) -> Result<Self, TdxRefusal> {
        let pck = found.platform.pck;
        Ok(Self {
            header: quote.header,
            body: quote.body,
            status: TcbStatus::from_intel(found.tcb.status)?,
            advisories: found.tcb.advisory_ids,
            evaluation: found.tcb.eval_data_number,
            fmspc: Fmspc::from_bytes(pck.fmspc),
            ppid: Ppid::try_from(pck.ppid.as_slice()).map_err(|_| TdxRefusal::PckExtension)?,
            flags: PlatformFlags {
                dynamic: flag(pck.dynamic_platform),
                cached_keys: flag(pck.cached_keys),
                smt: flag(pck.smt_enabled),
            },
            windows,
            // The ends of certificates are their last seconds, those of the collateral the first after.
            valid_until: UnixTime(found.earliest_expiration_date.saturating_sub(1)),
            verified_at: now,
        })
    }

    /// The 64 bytes that the guest chose.
    #[must_use]
    pub const fn report_data(&self) -> &[u8; 64] {
        &self.body.report_data
    }

    /// What was measured when the guest was built (`MRTD`).
    #[must_use]
    pub const fn measurement(&self) -> Measurement {
        self.body.mr_td
    }

    /// All that the guest's report says.
    #[must_use]
    pub const fn body(&self) -> &Body {
        &self.body
    }

    /// How Intel rates the platform's firmware.
    #[must_use]
    pub const fn tcb_status(&self) -> TcbStatus {
        self.status
    }

    /// Family of the platform.
    #[must_use]
    pub const fn fmspc(&self) -> Fmspc {
        self.fmspc
    }

    /// The platform.
    #[must_use]
    pub const fn ppid(&self) -> Ppid {
        self.ppid
    }

    /// The platform, as the identity that processors of all makers have here: the PPID, then zeros.
    #[must_use]
    pub fn platform_id(&self) -> PlatformId {
        let mut id = [0; PlatformId::LEN];
        for (to, from) in id.iter_mut().zip(self.ppid.as_bytes()) {
            *to = *from;
        }
        PlatformId::from_bytes(id)
    }

    /// Last second in which all of the certificates, revocation lists and collateral are valid.
    #[must_use]
    pub const fn valid_until(&self) -> UnixTime {
        self.valid_until
    }
}

const fn flag(found: PckCertFlag) -> Option<bool> {
    match found {
        PckCertFlag::True => Some(true),
        PckCertFlag::False => Some(false),
        PckCertFlag::Undefined => None,
    }
}

impl TcbStatus {
    fn from_intel(status: dcap_qvl::TcbStatus) -> Result<Self, TdxRefusal> {
        use dcap_qvl::TcbStatus as Intel;
        Ok(match status {
            Intel::UpToDate => Self::UpToDate,
            Intel::SWHardeningNeeded => Self::SwHardeningNeeded,
            Intel::ConfigurationNeeded => Self::ConfigurationNeeded,
            Intel::ConfigurationAndSWHardeningNeeded => Self::ConfigurationAndSwHardeningNeeded,
            Intel::OutOfDate => Self::OutOfDate,
            Intel::OutOfDateConfigurationNeeded => Self::OutOfDateConfigurationNeeded,
            Intel::TDRelaunchAdvised => Self::TdRelaunchAdvised,
            Intel::TDRelaunchAdvisedConfigurationNeeded => Self::TdRelaunchAdvisedConfigurationNeeded,
            Intel::Revoked => return Err(TdxRefusal::Revoked),
        })
    }
}
