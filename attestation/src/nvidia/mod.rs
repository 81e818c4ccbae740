//! NVIDIA GPUs (Hopper, Blackwell) and NVSwitches (LS10): reports, the certificates of the keys that signed them, what the
//! certificates' issuer says of them, and what several devices say together.
//!
//! [`verify`] proves that the bytes are a report of a genuine device of the claimed architecture; [`VerifiedDevice::check`]
//! compares what it says with rules; [`fleet::check`] looks at all devices of one evidence.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

pub mod chain;
pub mod fleet;
pub mod ocsp;
pub mod opaque;
pub mod policy;
pub mod rim;
pub mod spdm;

mod claims;
mod device;
mod fwid;
mod refusal;

pub use self::chain::VerifiedChain;
pub use self::claims::NvidiaClaims;
pub use self::device::{DeviceState, Expected, VerifiedDevice, danger, verify, verify_report};
pub use self::ocsp::{OcspResponse, Revocation};
pub use self::policy::{DeviceArch, DeviceSerial, DriverVersion, FeatureMode, NvidiaPolicy, VbiosVersion};
pub use self::refusal::{CcMode, NvidiaRefusal, ReportRefusal, Role};
pub use self::spdm::Measurements;
