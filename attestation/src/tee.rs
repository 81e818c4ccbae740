//! The kinds of trusted execution environment, by the names that stand in evidence, key configurations and receipts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Kind of trusted execution environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tee {
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// SIMULATED: reports in the format of SEV-SNP, made by software. It protects nothing.
    Simulated,
}

/// Text that names no kind of TEE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a kind of TEE: use snp, tdx or simulated")]
pub struct UnknownTee;

impl Tee {
    /// The name on the wire: `snp`, `tdx` or `simulated`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Snp => "snp",
            Self::Tdx => "tdx",
            Self::Simulated => "simulated",
        }
    }

    /// How a person is told: the simulated one is in capitals wherever trust is shown.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Snp => "AMD SEV-SNP",
            Self::Tdx => "Intel TDX",
            Self::Simulated => "SIMULATED",
        }
    }
}

impl fmt::Display for Tee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Tee {
    type Err = UnknownTee;

    fn from_str(text: &str) -> Result<Self, UnknownTee> {
        match text {
            "snp" => Ok(Self::Snp),
            "tdx" => Ok(Self::Tdx),
            "simulated" => Ok(Self::Simulated),
            _ => Err(UnknownTee),
        }
    }
}

impl<C> minicbor::Encode<C> for Tee {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(self.as_str())?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Tee {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.str()?.parse().map_err(minicbor::decode::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_in_text_json_and_cbor() {
        for tee in [Tee::Snp, Tee::Tdx, Tee::Simulated] {
            assert_eq!(tee.to_string().parse(), Ok(tee));
            assert_eq!(serde_json::to_string(&tee).unwrap(), format!("\"{tee}\""));
            let bytes = minicbor::to_vec(tee).unwrap();
            assert_eq!(minicbor::decode::<&str>(&bytes).unwrap(), tee.as_str());
            assert_eq!(minicbor::decode::<Tee>(&bytes).unwrap(), tee);
        }
        assert_eq!("SNP".parse::<Tee>(), Err(UnknownTee));
    }
}
