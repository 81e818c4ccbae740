//! What a relying party accepts of NVIDIA's devices.
//!
//! ```yaml
//! nvidia:
//!   devices: {gpus: 8, switches: 4}
//!   architectures: [HOPPER, LS10]
//!   features: [ppcie]
//!   minDriver: {HOPPER: 550.90.07}
//!   minVbios: {HOPPER: 96.00.9F.00.01, LS10: 96.10.55.00.01}
//!   requireFwid: true
//!   requireRims: true
//!   revocation: {allowUnknown: false, allowHold: false, maxAgeSeconds: 86400}
//!   inventory: {allowedSerials: ["412921CE551E4EEDA3"]}
//! ```

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::Sha256Digest;

/// Most digits and dots of a version.
pub const MAX_VERSION_LEN: usize = 32;
/// Most parts of a version.
pub const MAX_VERSION_PARTS: usize = 8;
/// Age in seconds from which an OCSP response is stale when the policy names none.
pub const DEFAULT_REVOCATION_AGE: u64 = 24 * 3600;
/// Architecture of a device, as NVIDIA's evidence names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DeviceArch {
    /// GPUs of the GH100 family: H100, H200.
    Hopper,
    /// GPUs of the GB100 family: B100, B200.
    Blackwell,
    /// NVSwitches of the third generation.
    Ls10,
}

/// For what kind of isolation a device is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeatureMode {
    /// One GPU passed through alone.
    Spt,
    /// Several GPUs passed through together, their links encrypted.
    Mpt,
    /// Eight GPUs and four switches of one board, their links inside the trust boundary.
    Ppcie,
}

/// Version of a driver: decimal parts between dots.
#[derive(Clone)]
pub struct DriverVersion {
    parts: Vec<u32>,
    text: String,
}

/// Version of a VBIOS or of a switch's BIOS: five bytes in hex between dots.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VbiosVersion([u8; 5]);

/// Serial number of the certificate that a device's boot ROM signs with: fixed for the life of the device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceSerial(Vec<u8>);

/// Text that is no version or no serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotParsed(&'static str);

/// What is accepted of NVIDIA's devices. The default accepts none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NvidiaPolicy {
    /// How many devices there are: no more and no fewer.
    pub devices: DeviceCount,
    /// Architectures. None listed: none accepted.
    pub architectures: BTreeSet<DeviceArch>,
    /// What a GPU may be set up for. None listed: none accepted.
    pub features: BTreeSet<FeatureMode>,
    /// Least driver of each architecture of GPUs; one without a floor is refused.
    pub min_driver: BTreeMap<DeviceArch, DriverVersion>,
    /// Least VBIOS of each architecture; one without a floor is refused.
    pub min_vbios: BTreeMap<DeviceArch, VbiosVersion>,
    /// With this list, no other driver is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_drivers: Option<BTreeSet<DriverVersion>>,
    /// Drivers that are refused, whatever the floor.
    pub denied_drivers: BTreeSet<DriverVersion>,
    /// With this list, no other VBIOS is accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_vbios: Option<BTreeSet<VbiosVersion>>,
    /// VBIOSes that are refused, whatever the floor.
    pub denied_vbios: BTreeSet<VbiosVersion>,
    /// Refuse reports of GPUs that do not say which firmware made their key: those of the drivers 535 and 545.
    pub require_fwid: bool,
    /// Refuse devices whose measurements no signed reference (RIM) vouches for.
    pub require_rims: bool,
    /// Refuse GPUs of which nobody read that confidential computing is on and that they are ready.
    pub require_state: bool,
    /// How revoked certificates are looked for.
    pub revocation: RevocationPolicy,
    /// Which devices.
    pub inventory: Inventory,
}

/// Numbers of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DeviceCount {
    /// GPUs.
    pub gpus: u8,
    /// NVSwitches.
    pub switches: u8,
}

/// How revoked certificates are looked for. The default wants a fresh `good` for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RevocationPolicy {
    /// Accept certificates of which no fresh OCSP response says anything.
    pub allow_unknown: bool,
    /// Accept certificates that are on hold, and may be taken off it.
    pub allow_hold: bool,
    /// Oldest OCSP response in seconds.
    pub max_age_seconds: u64,
}

/// Which devices. With an `allowed` list, a device that is on neither of the two is refused.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Inventory {
    /// Serial numbers that are accepted.
    pub allowed_serials: BTreeSet<DeviceSerial>,
    /// SHA-256 of the devices' boot ROM certificates that are accepted.
    pub allowed_certificates: BTreeSet<Sha256Digest>,
    /// Serial numbers that are refused.
    pub denied_serials: BTreeSet<DeviceSerial>,
    /// SHA-256 of certificates that are refused, anywhere in a chain.
    pub denied_certificates: BTreeSet<Sha256Digest>,
}

// === impl DeviceArch ===

impl DeviceArch {
    /// True for a GPU, false for a switch.
    #[must_use]
    pub const fn is_gpu(self) -> bool {
        !matches!(self, Self::Ls10)
    }
}

impl fmt::Display for DeviceArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hopper => "Hopper",
            Self::Blackwell => "Blackwell",
            Self::Ls10 => "LS10",
        })
    }
}

// === impl FeatureMode ===

impl fmt::Display for FeatureMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spt => "SPT",
            Self::Mpt => "MPT",
            Self::Ppcie => "PPCIE",
        })
    }
}

// === impl DriverVersion ===

impl DriverVersion {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for DriverVersion {
    type Err = NotParsed;

    fn from_str(text: &str) -> Result<Self, NotParsed> {
        const WRONG: NotParsed = NotParsed("a driver's version is decimal numbers between dots, 550.90.07 for example");
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if text.len() > MAX_VERSION_LEN || !text.split('.').all(digits) {
            return Err(WRONG);
        }
        let parts: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
        let parts = parts.map_err(|_| WRONG)?;
        if parts.len() > MAX_VERSION_PARTS {
            return Err(WRONG);
        }
        Ok(Self {
            parts,
            text: text.to_owned(),
        })
    }
}

/// By its numbers: `550.90.7` and `550.90.07` are the same.
impl Ord for DriverVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts.cmp(&other.parts)
    }
}

impl PartialOrd for DriverVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for DriverVersion {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

impl Eq for DriverVersion {}

impl fmt::Display for DriverVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

// === impl VbiosVersion ===

impl VbiosVersion {
    /// In the order in which they are written.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 5]) -> Self {
        Self(bytes)
    }

    /// Without dots, as in the names of reference documents: `96009F0001`.
    #[must_use]
    pub fn without_dots(&self) -> String {
        hex::encode_upper(self.0)
    }
}

impl FromStr for VbiosVersion {
    type Err = NotParsed;

    fn from_str(text: &str) -> Result<Self, NotParsed> {
        const WRONG: NotParsed =
            NotParsed("a VBIOS's version is five bytes in hex between dots, 96.00.9F.00.01 for example");
        let mut bytes = [0u8; 5];
        let mut parts = text.split('.');
        for byte in &mut bytes {
            let part = parts.next().ok_or(WRONG)?;
            hex::decode_to_slice(part, std::slice::from_mut(byte)).map_err(|_| WRONG)?;
        }
        parts.next().is_none().then_some(Self(bytes)).ok_or(WRONG)
    }
}

impl fmt::Display for VbiosVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e] = self.0;
        write!(f, "{a:02X}.{b:02X}.{c:02X}.{d:02X}.{e:02X}")
    }
}

// === impl DeviceSerial ===

impl DeviceSerial {
    /// Longest serial number of a certificate in bytes (RFC 5280, section 4.1.2.2).
    pub const MAX_LEN: usize = 20;

    /// Takes 1 to [`Self::MAX_LEN`] bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (1..=Self::MAX_LEN).contains(&bytes.len()).then(|| Self(bytes.to_vec()))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for DeviceSerial {
    type Err = NotParsed;

    fn from_str(text: &str) -> Result<Self, NotParsed> {
        let bytes = hex::decode(text).ok();
        bytes
            .and_then(|bytes| Self::from_bytes(&bytes))
            .ok_or(NotParsed("a device's serial number is 1 to 20 bytes in hex"))
    }
}

impl fmt::Display for DeviceSerial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

// === serde ===

macro_rules! serde_as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

serde_as_text!(DriverVersion, VbiosVersion, DeviceSerial);

impl fmt::Debug for DriverVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DriverVersion({self})")
    }
}

impl fmt::Debug for VbiosVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VbiosVersion({self})")
    }
}

// === impl NvidiaPolicy ===

impl Default for NvidiaPolicy {
    fn default() -> Self {
        Self {
            devices: DeviceCount::default(),
            architectures: BTreeSet::new(),
            features: BTreeSet::new(),
            min_driver: BTreeMap::new(),
            min_vbios: BTreeMap::new(),
            allowed_drivers: None,
            denied_drivers: BTreeSet::new(),
            allowed_vbios: None,
            denied_vbios: BTreeSet::new(),
            require_fwid: true,
            require_rims: true,
            require_state: false,
            revocation: RevocationPolicy::default(),
            inventory: Inventory::default(),
        }
    }
}

impl Default for RevocationPolicy {
    fn default() -> Self {
        Self {
            allow_unknown: false,
            allow_hold: false,
            max_age_seconds: DEFAULT_REVOCATION_AGE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number_and_not_as_text() {
        let driver = |text: &str| text.parse::<DriverVersion>().unwrap();
        assert!(driver("550.90.07") < driver("550.144.03"));
        assert!(driver("99.1") < driver("100.0"));
        assert_eq!(driver("550.90.7"), driver("550.90.07"));
        let vbios = |text: &str| text.parse::<VbiosVersion>().unwrap();
        assert!(vbios("96.00.9F.00.01") < vbios("96.00.A5.00.01"));
        assert!(vbios("96.00.5E.00.01") < vbios("96.10.55.00.01"));
        assert_eq!(vbios("96.00.9f.00.01").to_string(), "96.00.9F.00.01");
        assert_eq!(vbios("96.00.9f.00.01").without_dots(), "96009F0001");
    }

    #[test]
    fn text_that_is_no_version_does_not_parse() {
        for text in [
            "",
            ".",
            "550.",
            "550..1",
            "+550",
            "550.x",
            "-1",
            "1.2.3.4.5.6.7.8.9",
            "4294967296",
            " 550",
        ] {
            assert!(text.parse::<DriverVersion>().is_err(), "{text:?}");
        }
        for text in [
            "",
            "96.00.9F.00",
            "96.00.9F.00.01.00",
            "96.00.9G.00.01",
            "960.00.9F.00.01",
            "96009F0001",
        ] {
            assert!(text.parse::<VbiosVersion>().is_err(), "{text:?}");
        }
        for text in ["", "4", "zz", &"00".repeat(21)] {
            assert!(text.parse::<DeviceSerial>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_example_of_the_module_parses_and_the_default_allows_nothing() {
        let yaml = "
devices: {gpus: 8, switches: 4}
architectures: [HOPPER, LS10]
features: [ppcie]
minDriver: {HOPPER: 550.90.07}
minVbios: {HOPPER: 96.00.9F.00.01, LS10: 96.10.55.00.01}
requireFwid: true
requireRims: true
revocation: {allowUnknown: false, allowHold: false, maxAgeSeconds: 86400}
inventory: {allowedSerials: [\"412921CE551E4EEDA3\"]}
";
        let policy: NvidiaPolicy = serde_norway::from_str(yaml).unwrap();
        assert_eq!((policy.devices.gpus, policy.devices.switches), (8, 4));
        let again: NvidiaPolicy = serde_norway::from_str(&serde_norway::to_string(&policy).unwrap()).unwrap();
        assert_eq!(again, policy);
        let none: NvidiaPolicy = serde_norway::from_str("{}").unwrap();
        assert_eq!(none, NvidiaPolicy::default());
        assert!(none.architectures.is_empty() && none.features.is_empty() && none.devices == DeviceCount::default());
        assert!(none.require_fwid && none.require_rims && !none.revocation.allow_unknown);
        assert!(serde_norway::from_str::<NvidiaPolicy>("{gpus: 8}").is_err());
    }
}
