//! Claims of a device under NVIDIA's names, as its attestation service writes them (version 3.0 of its claims).

use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::device::{Expected, VerifiedDevice, what};
use super::ocsp::Revocation;
use super::policy::{DEFAULT_REVOCATION_AGE, DeviceArch, FeatureMode};
use super::refusal::NvidiaRefusal;
use crate::check::{Checks, Finding};
use crate::ids::UnixTime;

/// NVIDIA's number as a maker of hardware, that of the IANA's list of enterprises.
const OEM_ID: &str = "5703";

/// What a device's report says, and what was found of it. In JSON under NVIDIA's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvidiaClaims {
    /// Architecture.
    pub arch: DeviceArch,
    /// Serial number of the report key's certificate, decimal.
    pub ueid: String,
    /// What the device is.
    pub hwmodel: String,
    /// Nonce that the report answers, in hex.
    pub eat_nonce: String,
    /// Identity of the device: the serial number of its boot ROM's certificate.
    pub serial: String,
    /// Version of the driver.
    pub driver_version: Option<String>,
    /// Version of the VBIOS or of the switch's BIOS.
    pub vbios_version: String,
    /// What the GPU is set up for.
    pub feature: Option<FeatureMode>,
    /// Whether the nonce was the one that was asked for.
    pub nonce_match: Option<bool>,
    /// Whether the key was made for the report's firmware.
    pub fwid_match: Option<bool>,
    /// Whether the measurements equal the signed references.
    pub measurements_match: Option<bool>,
    /// Whether there were signed references for the device that hold.
    pub references_hold: bool,
    /// What is known of the chain's revocation: the worst of its certificates.
    pub revocation: Revocation,
    /// Last second of the chain's validity.
    pub expiration: UnixTime,
}

impl VerifiedDevice {
    /// The claims, with what `checks` found.
    #[must_use]
    pub fn claims(&self, expected: &Expected<'_>, checks: &Checks<NvidiaRefusal>) -> NvidiaClaims {
        let all = super::ocsp::of_chain(self.chain(), expected.ocsp, expected.now, DEFAULT_REVOCATION_AGE);
        let worst = all.map_or(Revocation::Unknown, |all| {
            let bad = all.iter().find(|(_, status)| *status != Revocation::Good);
            bad.map_or(Revocation::Good, |(_, status)| *status)
        });
        NvidiaClaims {
            arch: self.arch(),
            ueid: decimal(self.chain.leaf_serial.as_bytes()),
            hwmodel: self.model().to_owned(),
            eat_nonce: hex::encode(self.nonce()),
            serial: self.serial().to_string(),
            driver_version: self.driver().map(ToString::to_string),
            vbios_version: self.vbios().to_string(),
            feature: self.arch().is_gpu().then(|| self.feature()),
            nonce_match: found(checks, what::NONCE),
            fwid_match: found(checks, what::FWID),
            measurements_match: found(checks, what::MEASUREMENTS),
            references_hold: checks.iter().any(|check| {
                check.what == what::MEASUREMENTS
                    && matches!(
                        check.finding,
                        Finding::Passed | Finding::Refused(NvidiaRefusal::Measurements(_))
                    )
            }),
            revocation: worst,
            expiration: self.valid_until(),
        }
    }
}

/// Whether a check passed, if it was made.
fn found(checks: &Checks<NvidiaRefusal>, what: &str) -> Option<bool> {
    let made = checks.iter().find(|check| check.what == what)?;
    match made.finding {
        Finding::Passed => Some(true),
        Finding::Warned(_) | Finding::Refused(_) => Some(false),
        Finding::NotAppraised => None,
    }
}

/// A big-endian number in decimal digits.
fn decimal(bytes: &[u8]) -> String {
    // Digits, lowest first.
    let mut digits = vec![0u8];
    for byte in bytes {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            let value = u32::from(*digit).saturating_mul(256).saturating_add(carry);
            *digit = u8::try_from(value % 10).unwrap_or_default();
            carry = value / 10;
        }
        while carry > 0 {
            digits.push(u8::try_from(carry % 10).unwrap_or_default());
            carry /= 10;
        }
    }
    digits
        .iter()
        .rev()
        .map(|digit| char::from(b'0'.saturating_add(*digit)))
        .collect()
}

/// `x-nvidia-<kind>-attestation-report-cert-chain`.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct ChainClaims {
    x_nvidia_cert_status: &'static str,
    x_nvidia_cert_ocsp_status: &'static str,
    x_nvidia_cert_expiration_date: Option<String>,
    x_nvidia_cert_revocation_reason: Option<&'static str>,
}

impl NvidiaClaims {
    fn chain(&self) -> ChainClaims {
        let expiration = der::DateTime::from_unix_duration(Duration::from_secs(self.expiration.0)).ok();
        ChainClaims {
            x_nvidia_cert_status: "valid",
            x_nvidia_cert_ocsp_status: self.revocation.as_str(),
            x_nvidia_cert_expiration_date: expiration.map(|date| date.to_string()),
            x_nvidia_cert_revocation_reason: match self.revocation {
                Revocation::OnHold => Some("certificateHold"),
                Revocation::Revoked(reason) => Some(reason),
                _ => None,
            },
        }
    }
}

impl Serialize for NvidiaClaims {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, bios) = if self.arch.is_gpu() {
            ("gpu", "vbios")
        } else {
            ("switch", "bios")
        };
        let name = |rest: &str| format!("x-nvidia-{kind}-{rest}");
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("ueid", &self.ueid)?;
        map.serialize_entry("hwmodel", &self.hwmodel)?;
        map.serialize_entry("oemid", OEM_ID)?;
        map.serialize_entry("eat_nonce", &self.eat_nonce)?;
        map.serialize_entry(&name("serial"), &self.serial)?;
        map.serialize_entry(&name("arch-check"), &true)?;
        map.serialize_entry(&name("attestation-report-parsed"), &true)?;
        map.serialize_entry(&name("attestation-report-signature-verified"), &true)?;
        map.serialize_entry(&name("attestation-report-cert-chain"), &self.chain())?;
        map.serialize_entry(&name(&format!("{bios}-version")), &self.vbios_version)?;
        if let Some(driver) = &self.driver_version {
            map.serialize_entry(&name("driver-version"), driver)?;
        }
        if let Some(feature) = self.feature {
            map.serialize_entry(&name("feature"), &feature)?;
        }
        if let Some(matches) = self.nonce_match {
            map.serialize_entry(&name("attestation-report-nonce-match"), &matches)?;
        }
        if let Some(matches) = self.fwid_match {
            map.serialize_entry(&name("attestation-report-cert-chain-fwid-match"), &matches)?;
        }
        if self.references_hold {
            let components: &[&str] = if self.arch.is_gpu() { &["driver", bios] } else { &[bios] };
            for component in components {
                for holds in [
                    "fetched",
                    "schema-validated",
                    "signature-verified",
                    "version-match",
                    "measurements-available",
                ] {
                    map.serialize_entry(&name(&format!("{component}-rim-{holds}")), &true)?;
                }
            }
        }
        if let Some(matches) = self.measurements_match {
            map.serialize_entry("measres", if matches { "success" } else { "fail" })?;
            // Both follow from the measurements: the fuses and the firmware that ran are among them.
            map.serialize_entry("secboot", &matches)?;
            map.serialize_entry("dbgstat", if matches { "disabled" } else { "enabled" })?;
        }
        map.end()
    }
}
