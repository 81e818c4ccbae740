//! Identities and digests as types of their own, so that one cannot be passed for another.

use std::fmt;

/// Bytes that are not of the length, or text that is not the hex, of the identity that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind} is {expected} bytes long")]
pub struct WrongLength {
    /// Name of the type.
    pub kind: &'static str,
    /// Its length in bytes.
    pub expected: usize,
}

/// Defines a newtype over `[u8; N]` with hex text, serde as a hex string and CBOR as a byte string.
#[macro_export]
macro_rules! fixed_bytes {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Takes the bytes as they are.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = $crate::ids::WrongLength;

            fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
                <[u8; $len]>::try_from(bytes).map(Self).map_err(|_| $crate::ids::WrongLength {
                    kind: stringify!($name),
                    expected: $len,
                })
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::ids::WrongLength;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0u8; $len];
                $crate::ids::decode_hex(text, &mut bytes)
                    .then_some(Self(bytes))
                    .ok_or($crate::ids::WrongLength { kind: stringify!($name), expected: $len })
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                $crate::ids::write_hex(&self.0, f)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}(", stringify!($name))?;
                $crate::ids::write_hex(&self.0, f)?;
                f.write_str(")")
            }
        }

        impl $crate::ids::serde::Serialize for $name {
            fn serialize<S: $crate::ids::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> $crate::ids::serde::Deserialize<'de> for $name {
            fn deserialize<D: $crate::ids::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as $crate::ids::serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err($crate::ids::serde::de::Error::custom)
            }
        }

        impl<C> $crate::ids::minicbor::Encode<C> for $name {
            fn encode<W: $crate::ids::minicbor::encode::Write>(
                &self,
                e: &mut $crate::ids::minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), $crate::ids::minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> $crate::ids::minicbor::Decode<'b, C> for $name {
            fn decode(
                d: &mut $crate::ids::minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, $crate::ids::minicbor::decode::Error> {
                Self::try_from(d.bytes()?).map_err(|_| {
                    $crate::ids::minicbor::decode::Error::message(concat!(stringify!($name), ": wrong length"))
                })
            }
        }
    };
}

#[doc(hidden)]
pub use {minicbor, serde};

fixed_bytes!(
    /// `K`: SHA-256 over the identity key, the boot and the workload of one enclave process.
    EnclaveId,
    32
);
fixed_bytes!(
    /// 16 random bytes per enclave process.
    BootId,
    16
);
fixed_bytes!(
    /// SHA-256 of the canonical [workload](crate::Workload) description that an enclave was fixed to before it made a key.
    WorkloadDigest,
    32
);
fixed_bytes!(
    /// SHA-256 of a model's manifest.
    ModelDigest,
    32
);
fixed_bytes!(
    /// Canonical hash of an appraisal policy.
    PolicyHash,
    32
);
fixed_bytes!(
    /// Any other SHA-256.
    Sha256Digest,
    32
);

/// Seconds since 1970-01-01T00:00:00Z. Never read from a clock here: always an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// Later by `seconds`; stays at the end of time instead of wrapping.
    #[must_use]
    pub const fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Seconds from `earlier` to here; 0 when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<C> minicbor::Encode<C> for UnixTime {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u64(self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for UnixTime {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.u64().map(Self)
    }
}

/// Fills `out` from hex digits of exactly its length; for [`fixed_bytes!`].
#[doc(hidden)]
#[must_use]
pub fn decode_hex(text: &str, out: &mut [u8]) -> bool {
    hex::decode_to_slice(text, out).is_ok()
}

/// Writes lower-case hex; for [`fixed_bytes!`].
#[doc(hidden)]
pub fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trip_and_wrong_lengths() {
        let id = BootId::from_bytes([7; 16]);
        assert_eq!(id.to_string().parse::<BootId>(), Ok(id));
        assert!("07".parse::<BootId>().is_err());
        assert!(BootId::try_from([0u8; 15].as_slice()).is_err());
        assert!("zz".repeat(16).parse::<BootId>().is_err());
    }

    #[test]
    fn cbor_is_a_byte_string_of_the_exact_length() {
        let id = BootId::from_bytes([7; 16]);
        let bytes = minicbor::to_vec(id).unwrap();
        assert_eq!(bytes[0], 0x50);
        assert_eq!(minicbor::decode::<BootId>(&bytes).unwrap(), id);
        assert!(minicbor::decode::<EnclaveId>(&bytes).is_err());
    }
}
