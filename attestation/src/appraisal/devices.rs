//! The devices of a bundle.

use super::{Claims, Refusal, Submodule};
use crate::binding::NONCE_LEN;
use crate::bundle::DeviceEvidence;
use crate::check::{Checks, Dimension};
use crate::endorsements::Endorsements;
use crate::ids::UnixTime;
use crate::nvidia::{self, Expected, OcspResponse, VerifiedDevice, fleet};
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

/// `nonce` is the one that every device must answer.
pub(super) fn appraise(
    devices: &[DeviceEvidence],
    nonce: Option<&[u8; NONCE_LEN]>,
    now: UnixTime,
    rules: Rules<'_>,
    endorsements: &Endorsements,
) -> Devices {
    let expected = Expected {
        nonce,
        state: None,
        rims: Some(&endorsements.rims),
        ocsp: &endorsements.nvidia_ocsp,
        now,
    };
    let mut found = Devices {
        submodules: Vec::new(),
        fleet: duplicates(devices),
        valid_until: UnixTime(u64::MAX),
    };
    let mut genuine = Vec::new();
    for (name, device) in names(devices).into_iter().zip(devices) {
        let submodule = match nvidia::verify(&device.evidence, &device.certificate, device.arch, now) {
            Ok(device) => {
                let checks = device.check(rules, &expected);
                let claims = Claims::Nvidia(Box::new(device.claims(&expected, &checks)));
                found.valid_until = found.valid_until.min(valid_until(&device, &expected));
                genuine.push(device);
                Submodule {
                    claims: Some(claims),
                    checks: checks.map(Refusal::from),
                }
            }
            Err(refusal) => Submodule::refused(refusal.into()),
        };
        found.submodules.push((name, submodule));
    }
    // With one that is not genuine the whole is refused, and its count would be wrong.
    if genuine.len() == devices.len() {
        found.fleet.append(fleet::check(&genuine, rules).map(Refusal::from));
    }
    found
}

/// The first end of the chain, of the references and of the responses about revocation.
fn valid_until(device: &VerifiedDevice, expected: &Expected<'_>) -> UnixTime {
    let rims = expected.rims.and_then(|rims| device.compare(rims, expected.now).ok());
    let rims = rims.iter().flat_map(|found| &found.rims).map(|rim| rim.valid_until());
    let responses = expected.ocsp.iter().map(OcspResponse::valid_until);
    // A response that is over already answered nothing.
    let responses = responses.filter(|end| *end >= expected.now);
    rims.chain(responses).fold(device.valid_until(), UnixTime::min)
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
