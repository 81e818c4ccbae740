//! Names in the store: each is made of parts that were parsed, never of text as received.

use std::fmt;
use std::str::FromStr;

/// Longest part of a path.
const MAX_PART: usize = 160;

/// Text that is no name of the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not {expected}")]
pub struct NameError {
    what: &'static str,
    text: String,
    expected: &'static str,
}

/// Generation of AMD's chips, by the name that the KDS uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Product {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004, and 8004 which AMD certifies as Genoa.
    Genoa,
    /// EPYC 9005.
    Turin,
}

/// Which of Intel's authorities issued a PCK certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FmspcCa {
    /// Of platforms with several packages, or registered as one.
    Platform,
    /// Of single processors.
    Processor,
}

/// A TCB as part of a name: security versions, from the lowest layer up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TcbName(String);

/// One file of the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry(Vec<String>);

// === impl Product ===

impl Product {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// As the KDS spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// Bytes of the chip id that the KDS knows a chip by; the report's other bytes are zero (57230, section 4.1).
    pub const fn hwid_len(self) -> usize {
        match self {
            Self::Milan | Self::Genoa => 64,
            Self::Turin => 8,
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Product {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let found = Self::ALL.into_iter().find(|product| product.as_str() == text);
        found.ok_or_else(|| error("product", text, "Milan, Genoa or Turin"))
    }
}

// === impl FmspcCa ===

impl FmspcCa {
    /// As Intel's service spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Processor => "processor",
        }
    }
}

impl fmt::Display for FmspcCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FmspcCa {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text {
            "platform" => Ok(Self::Platform),
            "processor" => Ok(Self::Processor),
            _ => Err(error("authority", text, "platform or processor")),
        }
    }
}

// === impl TcbName ===

impl TcbName {
    /// Of the versions of each layer; the FMC's is Turin's only.
    pub fn new(fmc: Option<u8>, bootloader: u8, tee: u8, snp: u8, microcode: u8) -> Self {
        let fmc = fmc.map(|fmc| format!("{fmc:02}-")).unwrap_or_default();
        Self(format!("{fmc}{bootloader:02}-{tee:02}-{snp:02}-{microcode:02}"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl Entry ===

impl Entry {
    /// Chain of VCEKs.
    pub fn amd_chain(product: Product) -> Self {
        Self::of(["amd", product.as_str(), "cert_chain.pem"])
    }

    /// Chain of VLEKs.
    pub fn amd_vlek_chain(product: Product) -> Self {
        Self::of(["amd", product.as_str(), "vlek_cert_chain.pem"])
    }

    /// Revocation list of a generation.
    pub fn amd_crl(product: Product) -> Self {
        Self::of(["amd", product.as_str(), "crl.der"])
    }

    /// Certificate of a chip at a TCB.
    pub fn vcek(product: Product, hwid: &[u8], tcb: &TcbName) -> Self {
        Self::of([
            "amd",
            product.as_str(),
            &hex::encode(hwid),
            &format!("{}.der", tcb.as_str()),
        ])
    }

    /// Collateral of a kind of platform.
    pub fn intel(fmspc: [u8; 6], ca: FmspcCa) -> Self {
        Self::of(["intel", &hex::encode(fmspc), &format!("{ca}.json")])
    }

    /// A RIM document.
    ///
    /// # Errors
    ///
    /// The id has other characters than ids have: letters, digits, `.`, `_` and `-`, and no `.` in front.
    pub fn rim(id: &str) -> Result<Self, NameError> {
        check_rim_id(id)?;
        Ok(Self::of(["nvidia", "rims", &format!("{id}.swidtag")]))
    }

    /// The status of a certificate, by the SHA-256 of its DER.
    pub fn ocsp(certificate: &[u8; 32]) -> Self {
        Self::of(["nvidia", "ocsp", &format!("{}.der", hex::encode(certificate))])
    }

    /// The name of each directory, then of the file.
    pub fn parts(&self) -> &[String] {
        &self.0
    }

    /// What was read from a directory. `None` for what the store does not write.
    pub(super) fn listed(parts: Vec<String>) -> Option<Self> {
        parts.iter().all(|part| is_id(part)).then_some(Self(parts))
    }

    fn of<const N: usize>(parts: [&str; N]) -> Self {
        Self(parts.map(str::to_owned).to_vec())
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

/// Checks an id of NVIDIA's before it becomes part of a path and of a URL.
///
/// # Errors
///
/// [`NameError`] for any other character than ids have.
pub(super) fn check_rim_id(id: &str) -> Result<(), NameError> {
    let fits = is_id(id) && id.len().saturating_add(".swidtag".len()) <= MAX_PART;
    if fits {
        Ok(())
    } else {
        Err(error("RIM id", id, "letters, digits, '.', '_' and '-'"))
    }
}

/// Whether text is safe as one part of a path and of a URL: letters, digits, `.`, `_`, `-`, and no `.` in front.
fn is_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=MAX_PART).contains(&text.len()) && !text.starts_with(['.', '-']) && text.bytes().all(allowed)
}

fn error(what: &'static str, text: &str, expected: &'static str) -> NameError {
    NameError {
        what,
        text: text.chars().take(MAX_PART).collect(),
        expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_leave_the_folder_or_the_host() {
        for id in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a\\b",
            "/etc/passwd",
            ".hidden",
            "a b",
            "a?b",
            "a#b",
            "a%2f",
            "a@b",
            "a:b",
            "a\0b",
            "ä",
            "-rf",
        ] {
            assert!(Entry::rim(id).is_err(), "{id:?}");
        }
        assert!(Entry::rim(&"a".repeat(MAX_PART)).is_err());
        for id in [
            "NV_GPU_DRIVER_GH100_550.144.03",
            "NV_GPU_VBIOS_1010_0200_882_96005E0001",
        ] {
            assert_eq!(Entry::rim(id).unwrap().to_string(), format!("nvidia/rims/{id}.swidtag"));
        }
    }

    #[test]
    fn names_say_what_they_answer() {
        let milan = TcbName::new(None, 3, 0, 8, 115);
        assert_eq!(
            Entry::vcek(Product::Milan, &[0xab; 2], &milan).to_string(),
            "amd/Milan/abab/03-00-08-115.der"
        );
        assert_eq!(TcbName::new(Some(1), 2, 3, 4, 5).as_str(), "01-02-03-04-05");
        let intel = Entry::intel([0x90, 0xc0, 0x6f, 0, 0, 0], FmspcCa::Platform);
        assert_eq!(intel.to_string(), "intel/90c06f000000/platform.json");
    }

    #[test]
    fn products_are_spelled_as_the_service_does() {
        for product in Product::ALL {
            assert_eq!(product.as_str().parse(), Ok(product));
        }
        assert!("milan".parse::<Product>().is_err());
        assert!("../Milan".parse::<Product>().is_err());
    }
}
