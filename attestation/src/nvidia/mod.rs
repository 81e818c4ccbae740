//! NVIDIA GPUs (Hopper, Blackwell) and NVSwitches (LS10).

pub mod policy;
pub mod rim;

pub use self::policy::{DeviceArch, DeviceSerial, DriverVersion, FeatureMode, NvidiaPolicy, VbiosVersion};
