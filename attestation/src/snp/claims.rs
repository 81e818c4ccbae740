//! What a verified report says, under the names that Trustee's SNP verifier gives its claims where it has them.

use serde::Serialize;

use super::report::{RawTcb, SigningKey};
use super::{SnpRefusal, VerifiedReport};
use crate::ids::Sha256Digest;
use crate::policy::{Generation, KeyDigest, Measurement, PlatformId, TcbVersion};

/// Claims of one processor. Byte strings are lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[allow(clippy::struct_excessive_bools, reason = "the report's own bits")]
pub struct SnpClaims {
    /// Version of the report's format.
    pub report_version: u32,
    /// Generation of the processor.
    pub generation: Generation,
    /// The processor; left out when the platform masks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chip_id: Option<PlatformId>,
    /// `vcek` or `vlek`.
    pub signing_key: &'static str,
    /// Cloud provider whose key signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csp_id: Option<String>,
    /// Privilege level that asked for the report.
    pub vmpl: u32,
    /// Security version that the guest's owner gave it.
    pub guest_svn: u32,
    /// Name that the guest's owner gave its family.
    pub family_id: String,
    /// Name that the guest's owner gave its image.
    pub image_id: String,
    /// What was measured when the guest was launched.
    pub measurement: Measurement,
    /// The 64 bytes that the guest chose.
    pub report_data: String,
    /// Digest of the init data (`HOST_DATA`).
    pub init_data: Sha256Digest,
    /// Key that signed the identity block.
    pub id_key_digest: KeyDigest,
    /// Key that certified that one.
    pub author_key_digest: KeyDigest,
    /// Identity of the guest for its life.
    pub report_id: String,
    /// Identity of its migration agent; all ones without one.
    pub report_id_ma: String,
    /// Firmware that the signing key was derived from.
    #[serde(flatten)]
    pub reported_tcb: ReportedTcb,
    /// Firmware that runs.
    pub current_tcb: TcbVersion,
    /// Firmware that cannot be rolled back.
    pub committed_tcb: TcbVersion,
    /// Firmware that ran when the guest was launched.
    pub launch_tcb: TcbVersion,
    /// Version of the SNP firmware that runs: major, minor, build.
    pub current_version: String,
    /// Version of the SNP firmware that cannot be rolled back.
    pub committed_version: String,
    /// The platform's settings.
    #[serde(flatten)]
    pub platform: PlatformClaims,
    /// The guest's policy.
    #[serde(flatten)]
    pub policy: GuestPolicyClaims,
    /// Mitigations that firmware verified when the guest was launched, from version 5 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launch_mitigation_vector: Option<u64>,
    /// Mitigations that firmware verifies now, from version 5 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_mitigation_vector: Option<u64>,
}

/// The reported firmware versions, under Trustee's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "as in TcbVersion")]
pub struct ReportedTcb {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported_tcb_fmc: Option<u8>,
    pub reported_tcb_bootloader: u8,
    pub reported_tcb_tee: u8,
    pub reported_tcb_snp: u8,
    pub reported_tcb_microcode: u8,
}

/// `PLATFORM_INFO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names of AMD's table")]
#[allow(clippy::struct_excessive_bools, reason = "the report's own bits")]
pub struct PlatformClaims {
    pub platform_smt_enabled: bool,
    pub platform_tsme_enabled: bool,
    pub platform_ecc_enabled: bool,
    pub platform_rapl_disabled: bool,
    pub platform_ciphertext_hiding_enabled: bool,
    /// From version 3 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform_alias_check_complete: Option<bool>,
    /// From version 5 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform_tio_enabled: Option<bool>,
}

/// The guest's policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names of AMD's table")]
#[allow(clippy::struct_excessive_bools, reason = "the report's own bits")]
pub struct GuestPolicyClaims {
    pub policy_abi_major: u8,
    pub policy_abi_minor: u8,
    pub policy_smt_allowed: bool,
    pub policy_migrate_ma: bool,
    pub policy_debug_allowed: bool,
    pub policy_single_socket: bool,
    pub policy_cxl_allowed: bool,
    pub policy_mem_aes_256_xts: bool,
    pub policy_rapl_disabled: bool,
    pub policy_ciphertext_hiding: bool,
    pub policy_page_swap_disabled: bool,
}

impl VerifiedReport {
    /// Everything that the report says.
    #[must_use]
    pub fn claims(&self) -> SnpClaims {
        let fields = &self.fields;
        let version = |[build, minor, major]: [u8; 3]| format!("{major}.{minor}.{build}");
        SnpClaims {
            report_version: fields.version,
            generation: self.generation,
            chip_id: self.names_chip().then(|| self.platform_id()),
            signing_key: match fields.signing_key {
                SigningKey::Vcek => "vcek",
                SigningKey::Vlek => "vlek",
            },
            csp_id: self.provider.clone(),
            vmpl: fields.vmpl,
            guest_svn: fields.guest_svn,
            family_id: hex::encode(fields.family_id),
            image_id: hex::encode(fields.image_id),
            measurement: self.measurement(),
            report_data: hex::encode(fields.report_data),
            init_data: Sha256Digest::from_bytes(fields.host_data),
            id_key_digest: KeyDigest::from_bytes(fields.id_key_digest),
            author_key_digest: KeyDigest::from_bytes(fields.author_key_digest),
            report_id: hex::encode(fields.report_id),
            report_id_ma: hex::encode(fields.report_id_ma),
            reported_tcb: ReportedTcb {
                reported_tcb_fmc: self.tcb.reported.fmc,
                reported_tcb_bootloader: self.tcb.reported.bootloader,
                reported_tcb_tee: self.tcb.reported.tee,
                reported_tcb_snp: self.tcb.reported.snp,
                reported_tcb_microcode: self.tcb.reported.microcode,
            },
            current_tcb: self.tcb.current,
            committed_tcb: self.tcb.committed,
            launch_tcb: self.tcb.launch,
            current_version: version(fields.current_version),
            committed_version: version(fields.committed_version),
            platform: self.platform_claims(),
            policy: self.guest_policy_claims(),
            launch_mitigation_vector: fields.mitigations.map(|[launch, _]| launch),
            current_mitigation_vector: fields.mitigations.map(|[_, current]| current),
        }
    }

    const fn platform_claims(&self) -> PlatformClaims {
        let bits = self.fields.platform;
        PlatformClaims {
            platform_smt_enabled: bits & 1 != 0,
            platform_tsme_enabled: bits & 1 << 1 != 0,
            platform_ecc_enabled: bits & 1 << 2 != 0,
            platform_rapl_disabled: bits & 1 << 3 != 0,
            platform_ciphertext_hiding_enabled: bits & 1 << 4 != 0,
            platform_alias_check_complete: self.fields.alias_check(),
            platform_tio_enabled: match self.fields.mitigations {
                Some(_) => Some(bits & 1 << 7 != 0),
                None => None,
            },
        }
    }

    const fn guest_policy_claims(&self) -> GuestPolicyClaims {
        let bits = self.fields.policy;
        let [minor, major, ..] = bits.to_le_bytes();
        GuestPolicyClaims {
            policy_abi_major: major,
            policy_abi_minor: minor,
            policy_smt_allowed: bits & 1 << 16 != 0,
            policy_migrate_ma: bits & super::check::MIGRATION_AGENT != 0,
            policy_debug_allowed: bits & super::check::DEBUG != 0,
            policy_single_socket: bits & 1 << 20 != 0,
            policy_cxl_allowed: bits & 1 << 21 != 0,
            policy_mem_aes_256_xts: bits & 1 << 22 != 0,
            policy_rapl_disabled: bits & 1 << 23 != 0,
            policy_ciphertext_hiding: bits & 1 << 24 != 0,
            policy_page_swap_disabled: bits & 1 << 25 != 0,
        }
    }
}

/// The four firmware versions of a report.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tcbs {
    pub(super) reported: TcbVersion,
    pub(super) current: TcbVersion,
    pub(super) committed: TcbVersion,
    pub(super) launch: TcbVersion,
}

impl Tcbs {
    pub(super) fn of(fields: &super::report::Fields, generation: Generation) -> Result<Self, SnpRefusal> {
        let read = |raw: RawTcb| raw.of(generation);
        Ok(Self {
            reported: read(fields.reported_tcb)?,
            current: read(fields.current_tcb)?,
            committed: read(fields.committed_tcb)?,
            launch: read(fields.launch_tcb)?,
        })
    }
}
