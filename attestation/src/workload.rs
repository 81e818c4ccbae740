//! What an enclave was fixed to before it made a key, and its digest.

use std::collections::BTreeMap;
use std::fmt;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::cbor;
use crate::identity::sha256;
use crate::ids::{ModelDigest, Sha256Digest, WorkloadDigest};

/// Longest CBOR of a [`Workload`] in bytes: engine arguments and environment of real engines are a few hundred.
pub const MAX_WORKLOAD_LEN: usize = 16 * 1024;
/// Longest served model name in bytes, as in a key configuration.
pub const MAX_MODEL_NAME_LEN: usize = 128;

/// What runs between two tenants.
///
/// Ordered by strength: a policy names the weakest that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SwitchIsolation {
    /// The engine's caches are emptied, with proof; its process goes on.
    Reset,
    /// The engine's process is replaced.
    Restart,
}

impl SwitchIsolation {
    /// The name on the wire: `reset` or `restart`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Restart => "restart",
        }
    }
}

impl fmt::Display for SwitchIsolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for SwitchIsolation {
    type Err = UnknownSwitchIsolation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "reset" => Ok(Self::Reset),
            "restart" => Ok(Self::Restart),
            _ => Err(UnknownSwitchIsolation),
        }
    }
}

/// What keeps the engine's process from the rest of the TEE, the enclave's own memory included.
///
/// Ordered by strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineConfinement {
    /// Nothing that could be relied on: whoever takes over the engine may read what the enclave knows.
    Weak,
    /// A user of its own without capabilities, in process, network, IPC and mount namespaces of its own.
    Full,
}

impl EngineConfinement {
    /// The name on the wire: `full` or `weak`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Weak => "weak",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for EngineConfinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<C> Encode<C> for EngineConfinement {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(self.as_str())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for EngineConfinement {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        match d.str()? {
            "weak" => Ok(Self::Weak),
            "full" => Ok(Self::Full),
            _ => Err(minicbor::decode::Error::message("not a confinement")),
        }
    }
}

/// Text that names no kind of isolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a switch isolation: use reset or restart")]
pub struct UnknownSwitchIsolation;

impl<C> Encode<C> for SwitchIsolation {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(self.as_str())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for SwitchIsolation {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.str()?.parse().map_err(minicbor::decode::Error::custom)
    }
}

/// Everything that decides how a prompt is computed, fixed by the enclave before it makes a key.
///
/// As deterministic CBOR: a map {0 enclave_version text, 1 engine_kind text, 2 engine_image bstr32, 3 engine_args array
/// of text, 4 engine_env map of text to text, 5 model bstr32, 6 served_model_name text, 7 scrub_method text,
/// 8 switch_isolation text (`reset`, `restart`), 9 confinement text (`full`, `weak`)}; the keys of `engine_env` in the order
/// of RFC 8949 section 4.2.1.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Workload {
    /// Version of the enclave's own program.
    #[n(0)]
    pub enclave_version: String,
    /// Kind of engine: `llamacpp`, `vllm`, `simulator`.
    #[n(1)]
    pub engine_kind: String,
    /// SHA-256 of the engine's image, the program that runs it included.
    #[n(2)]
    pub engine_image: Sha256Digest,
    /// Arguments that the engine is started with, in order.
    #[n(3)]
    pub engine_args: Vec<String>,
    /// Environment that the engine is started with: all of it but `PATH`, `LANG`, `HOME` and `TMPDIR`, which are the enclave's.
    #[cbor(n(4), with = "text_map")]
    pub engine_env: BTreeMap<String, String>,
    /// Digest of the model's manifest.
    #[n(5)]
    pub model: ModelDigest,
    /// Name under which the model is served; 1 to [`MAX_MODEL_NAME_LEN`] bytes.
    #[n(6)]
    pub served_model_name: String,
    /// How the engine is emptied between tenants.
    #[n(7)]
    pub scrub_method: String,
    /// What runs between two tenants.
    #[n(8)]
    pub switch_isolation: SwitchIsolation,
    /// What the engine's process is kept from, at least.
    #[n(9)]
    pub confinement: EngineConfinement,
}

/// Bytes that describe no workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadError {
    /// More than [`MAX_WORKLOAD_LEN`] bytes.
    #[error("workload is longer than {MAX_WORKLOAD_LEN} bytes: it was not made by an enclave of this version")]
    TooLong,
    /// Not the deterministic CBOR of a workload.
    #[error("workload: {0}")]
    NotDeterministic(#[from] cbor::NotDeterministic),
    /// The served model name is empty or longer than [`MAX_MODEL_NAME_LEN`] bytes.
    #[error("workload: served model name is not 1 to {MAX_MODEL_NAME_LEN} bytes long")]
    ModelName,
}

impl Workload {
    /// The deterministic CBOR.
    #[must_use]
    pub fn to_cbor(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Parses the deterministic CBOR and nothing else.
    ///
    /// # Errors
    /// [`WorkloadError`] for oversized bytes, any other encoding, or a served model name out of bounds.
    pub fn from_cbor(bytes: &[u8]) -> Result<Self, WorkloadError> {
        if bytes.len() > MAX_WORKLOAD_LEN {
            return Err(WorkloadError::TooLong);
        }
        let workload: Self = cbor::decode("workload", bytes)?;
        if workload.served_model_name.is_empty() || workload.served_model_name.len() > MAX_MODEL_NAME_LEN {
            return Err(WorkloadError::ModelName);
        }
        Ok(workload)
    }

    /// SHA-256 of the deterministic CBOR.
    #[must_use]
    pub fn digest(&self) -> WorkloadDigest {
        WorkloadDigest::from_bytes(*sha256(&[&self.to_cbor()]).as_bytes())
    }
}

/// A map from text to text with its keys in the order of their encodings: shorter ones first, which is not the order of
/// `BTreeMap<String, _>`.
mod text_map {
    use std::collections::BTreeMap;

    use minicbor::encode::Write;
    use minicbor::{Decoder, Encoder};

    pub(super) fn encode<C, W: Write>(
        map: &BTreeMap<String, String>,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let mut entries: Vec<_> = map.iter().collect();
        entries.sort_unstable_by_key(|(key, _)| (key.len(), *key));
        e.map(entries.len() as u64)?;
        for (key, value) in entries {
            e.str(key)?.str(value)?;
        }
        Ok(())
    }

    pub(super) fn decode<C>(
        d: &mut Decoder<'_>,
        ctx: &mut C,
    ) -> Result<BTreeMap<String, String>, minicbor::decode::Error> {
        // A repeated key vanishes here and is refused when the caller compares the re-encoding.
        d.map_iter_with::<C, String, String>(ctx)?.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> Workload {
        Workload {
            enclave_version: "0.1.0".into(),
            engine_kind: "llamacpp".into(),
            engine_image: Sha256Digest::from_bytes([1; 32]),
            engine_args: vec!["--ctx".into(), "4096".into()],
            engine_env: BTreeMap::from([("AA".into(), "1".into()), ("B".into(), "2".into())]),
            model: ModelDigest::from_bytes([2; 32]),
            served_model_name: "smollm2".into(),
            scrub_method: "slot-erase".into(),
            switch_isolation: SwitchIsolation::Reset,
            confinement: EngineConfinement::Full,
        }
    }

    #[test]
    fn round_trip_and_order_of_the_environment() {
        let bytes = workload().to_cbor();
        assert_eq!(Workload::from_cbor(&bytes), Ok(workload()));
        // RFC 8949 4.2.1: "B" (61 42) comes before "AA" (62 41 41).
        let env = b"\x04\xa2\x61B\x612\x62AA\x611\x05";
        assert!(bytes.windows(env.len()).any(|window| window == env));
    }

    #[test]
    fn other_encodings_are_refused() {
        let bytes = workload().to_cbor();
        let trailing = [bytes.as_slice(), &[0]].concat();
        assert!(matches!(
            Workload::from_cbor(&trailing),
            Err(WorkloadError::NotDeterministic(_))
        ));
        assert!(Workload::from_cbor(&bytes[..bytes.len() - 1]).is_err());
        let env = b"\x61B\x612\x62AA\x611".as_slice();
        let at = bytes.windows(env.len()).position(|window| window == env).unwrap();
        let mut swapped = bytes.clone();
        swapped[at..at + env.len()].copy_from_slice(b"\x62AA\x611\x61B\x612");
        assert!(Workload::from_cbor(&swapped).is_err(), "environment out of order");
        let mut repeated = bytes;
        repeated[at..at + env.len()].copy_from_slice(b"\x61B\x612\x61B\x6211");
        assert!(Workload::from_cbor(&repeated).is_err(), "repeated variable");
    }

    #[test]
    fn bounds_are_kept() {
        let mut long = workload();
        long.engine_args = vec!["x".repeat(MAX_WORKLOAD_LEN)];
        assert_eq!(Workload::from_cbor(&long.to_cbor()), Err(WorkloadError::TooLong));
        for name in [String::new(), "m".repeat(MAX_MODEL_NAME_LEN + 1)] {
            let mut named = workload();
            named.served_model_name = name;
            assert_eq!(Workload::from_cbor(&named.to_cbor()), Err(WorkloadError::ModelName));
        }
    }

    #[test]
    fn every_field_changes_the_digest() {
        let base = workload().digest();
        let changes: [fn(&mut Workload); 10] = [
            |w| w.enclave_version.push('x'),
            |w| w.engine_kind.push('x'),
            |w| w.engine_image = Sha256Digest::from_bytes([9; 32]),
            |w| w.engine_args.reverse(),
            |w| w.engine_env.clear(),
            |w| w.model = ModelDigest::from_bytes([9; 32]),
            |w| w.served_model_name.push('x'),
            |w| w.scrub_method.push('x'),
            |w| w.switch_isolation = SwitchIsolation::Restart,
            |w| w.confinement = EngineConfinement::Weak,
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut changed = workload();
            change(&mut changed);
            assert_ne!(changed.digest(), base, "field {index}");
        }
    }
}
