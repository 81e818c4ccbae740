//! What a quote says, under the names that Trustee's TDX verifier gives it (`deps/verifier/src/tdx/claims.rs`), so that
//! policies written for it read ours.

use serde::Serialize;

use super::VerifiedQuote;
use super::attributes::TdAttributes;
use super::policy::{BitSet, Fmspc, Ppid, TcbStatus, TeeTcbSvn};
use super::quote::{BodyKind, Header};
use crate::policy::Measurement;

/// Claims of a verified quote. Bytes are hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TdxClaims {
    /// The quote.
    pub quote: QuoteClaims,
    /// The guest's attributes, one by one.
    pub td_attributes: AttributeClaims,
    /// The 64 bytes that the guest chose.
    pub report_data: String,
    /// `MRCONFIGID`.
    pub init_data: Measurement,
    /// How Intel rates the platform's firmware.
    pub tcb_status: TcbStatus,
    /// Advisories that the firmware is subject to.
    pub advisory_ids: Vec<String>,
    /// Number of the TCB evaluation in Intel's collateral.
    pub tcb_evaluation_data_number: u32,
    /// Family of the platform.
    pub fmspc: Fmspc,
    /// The platform.
    pub ppid: Ppid,
    /// Processors can be added to the platform; absent where its certificate does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_platform: Option<bool>,
    /// Intel's registration service keeps the platform's root keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_keys: Option<bool>,
    /// Two threads share a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smt_enabled: Option<bool>,
    /// Last second in which all of the collateral is valid.
    pub collateral_valid_until: u64,
}

/// The quote's two parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuoteClaims {
    /// Its header.
    pub header: HeaderClaims,
    /// The guest's report.
    pub body: BodyClaims,
    /// Type of the report, from version 5 on.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its length, from version 5 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
}

/// The header's fields, as they stand in the quote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct HeaderClaims {
    pub version: String,
    pub att_key_type: String,
    pub tee_type: String,
    pub reserved: String,
    pub vendor_id: String,
    pub user_data: String,
}

/// The report's fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct BodyClaims {
    pub tcb_svn: TeeTcbSvn,
    pub mr_seam: Measurement,
    pub mrsigner_seam: Measurement,
    pub seam_attributes: BitSet,
    pub td_attributes: BitSet,
    pub xfam: BitSet,
    pub mr_td: Measurement,
    pub mr_config_id: Measurement,
    pub mr_owner: Measurement,
    pub mr_owner_config: Measurement,
    pub rtmr_0: Measurement,
    pub rtmr_1: Measurement,
    pub rtmr_2: Measurement,
    pub rtmr_3: Measurement,
    pub report_data: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tee_tcb_svn2: Option<TeeTcbSvn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mr_servicetd: Option<Measurement>,
}

/// Trustee's names of the attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct AttributeClaims {
    pub debug: bool,
    pub key_locker: bool,
    pub perfmon: bool,
    pub protection_keys: bool,
    pub septve_disable: bool,
    pub migratable: bool,
}

impl VerifiedQuote {
    /// What the quote says, and what Intel says of its platform.
    #[must_use]
    pub fn claims(&self) -> TdxClaims {
        let attributes = TdAttributes::new(self.body.td_attributes);
        let (kind, size) = self.layout().unzip();
        TdxClaims {
            quote: QuoteClaims {
                header: HeaderClaims::of(&self.header),
                body: self.body_claims(),
                kind,
                size,
            },
            td_attributes: AttributeClaims {
                debug: attributes.debug(),
                key_locker: attributes.key_locker(),
                perfmon: attributes.perfmon(),
                protection_keys: attributes.protection_keys(),
                septve_disable: attributes.sept_ve_disable(),
                migratable: attributes.migratable(),
            },
            report_data: hex::encode(self.body.report_data),
            init_data: self.body.mr_config_id,
            tcb_status: self.status,
            advisory_ids: self.advisories.clone(),
            tcb_evaluation_data_number: self.evaluation,
            fmspc: self.fmspc,
            ppid: self.ppid,
            dynamic_platform: self.flags.dynamic,
            cached_keys: self.flags.cached_keys,
            smt_enabled: self.flags.smt,
            collateral_valid_until: self.valid_until.0,
        }
    }

    /// Type and length of the report as they stand in a quote of version 5.
    fn layout(&self) -> Option<(String, String)> {
        let (kind, size): (u16, u32) = match self.body.kind {
            _ if self.header.version == 4 => return None,
            BodyKind::Td10 => (2, 584),
            BodyKind::Td15 => (3, 648),
            BodyKind::Td15Ex => (4, 885),
        };
        Some((hex::encode(kind.to_le_bytes()), hex::encode(size.to_le_bytes())))
    }

    fn body_claims(&self) -> BodyClaims {
        let body = &self.body;
        let [rtmr_0, rtmr_1, rtmr_2, rtmr_3] = body.rtmr;
        BodyClaims {
            tcb_svn: body.tee_tcb_svn,
            mr_seam: body.mr_seam,
            mrsigner_seam: body.mr_signer_seam,
            seam_attributes: body.seam_attributes,
            td_attributes: body.td_attributes,
            xfam: body.xfam,
            mr_td: body.mr_td,
            mr_config_id: body.mr_config_id,
            mr_owner: body.mr_owner,
            mr_owner_config: body.mr_owner_config,
            rtmr_0,
            rtmr_1,
            rtmr_2,
            rtmr_3,
            report_data: hex::encode(body.report_data),
            tee_tcb_svn2: body.td15.as_ref().map(|td15| td15.tee_tcb_svn2),
            mr_servicetd: body.td15.as_ref().map(|td15| td15.mr_service_td),
        }
    }
}

impl HeaderClaims {
    fn of(header: &Header) -> Self {
        Self {
            version: hex::encode(header.version.to_le_bytes()),
            att_key_type: hex::encode(header.key_type.to_le_bytes()),
            tee_type: hex::encode(header.tee_type.to_le_bytes()),
            // Any other does not parse.
            reserved: hex::encode([0; 4]),
            vendor_id: hex::encode(header.vendor_id),
            user_data: hex::encode(header.user_data),
        }
    }
}
