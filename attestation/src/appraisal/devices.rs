//! The devices of a bundle.

use super::{Refusal, Submodule};
use crate::binding::NONCE_LEN;
use crate::bundle::DeviceEvidence;
use crate::check::{Checks, Dimension};
use crate::endorsements::Endorsements;
use crate::ids::UnixTime;
use crate::rules::Rules;

/// What was found of all devices.
pub(super) struct Devices {
    /// Of each alone, under its name.
    pub(super) submodules: Vec<(String, Submodule)>,
    /// Of all together.
    pub(super) fleet: Checks<Refusal>,
    /// The first end of what the appraisal rests on.
    pub(super) valid_until: UnixTime,
}

pub(super) fn appraise(
    devices: &[DeviceEvidence],
    _nonce: Option<&[u8; NONCE_LEN]>,
    _now: UnixTime,
    _rules: Rules<'_>,
    _endorsements: &Endorsements,
) -> Devices {
    let refused = |device: &DeviceEvidence| Submodule::refused(Refusal::NoVerifier(device.arch));
    Devices {
        submodules: names(devices).into_iter().zip(devices.iter().map(refused)).collect(),
        fleet: duplicates(devices),
        valid_until: UnixTime(u64::MAX),
    }
}

/// `gpu0`, `gpu1` and so on, and `switch0`, by their order among their kind.
fn names(devices: &[DeviceEvidence]) -> Vec<String> {
    let (mut gpus, mut switches) = (0..devices.len(), 0..devices.len());
    let name = |device: &DeviceEvidence| {
        let (kind, counter) = if device.arch.is_gpu() {
            ("gpu", &mut gpus)
        } else {
            ("switch", &mut switches)
        };
        format!("{kind}{}", counter.next().unwrap_or_default())
    };
    devices.iter().map(name).collect()
}

/// No two devices have one certificate or one report. Who re-encodes a certificate is found by the identity in it.
fn duplicates(devices: &[DeviceEvidence]) -> Checks<Refusal> {
    let mut checks = Checks::new();
    if devices.is_empty() {
        return checks;
    }
    let same = |a: &DeviceEvidence, b: &DeviceEvidence| a.evidence == b.evidence || a.certificate == b.certificate;
    let twice = devices.iter().enumerate().find_map(|(index, device)| {
        let earlier = devices.iter().take(index).position(|other| same(other, device));
        earlier.map(|earlier| Refusal::DuplicateDevice(earlier, index))
    });
    checks.require(
        Dimension::InstanceIdentity,
        "no report or certificate of a device is there twice",
        twice.map_or(Ok(()), Err),
    );
    checks
}
