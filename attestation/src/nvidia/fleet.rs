//! What several devices say together.

use std::collections::BTreeSet;

use super::device::VerifiedDevice;
use super::opaque::Pdi;
use super::policy::{DeviceCount, FeatureMode};
use super::refusal::NvidiaRefusal;
use crate::check::{Checks, Dimension};
use crate::rules::Rules;

/// GPUs of a board in protected PCIe mode.
pub const PPCIE_GPUS: usize = 8;
/// Switches of such a board.
pub const PPCIE_SWITCHES: usize = 4;

/// Everything that the rules say of all devices of one evidence.
///
/// Without a policy, devices in protected PCIe mode are also taken one kind at a time: that looks at evidence, and proves
/// nothing of the links.
#[must_use]
pub fn check(devices: &[VerifiedDevice], rules: Rules<'_>) -> Checks<NvidiaRefusal> {
    let mut checks = Checks::new();
    let (gpus, switches): (Vec<_>, Vec<_>) = devices.iter().partition(|device| device.arch().is_gpu());
    if let Some(policy) = rules.policy() {
        checks.require(
            Dimension::Configuration,
            "there are as many devices as asked for",
            check_count(policy.nvidia.devices, gpus.len(), switches.len()),
        );
    }
    if devices.is_empty() {
        return checks;
    }
    checks.require(
        Dimension::InstanceIdentity,
        "no device is there twice",
        check_duplicates(devices),
    );
    checks.require(
        Dimension::Configuration,
        "all GPUs are set up for the same",
        check_features(&gpus),
    );
    const LINKS: &str = "devices of protected PCIe are all there and linked to each other";
    let protected = gpus.iter().any(|gpu| gpu.feature() == FeatureMode::Ppcie);
    let one_kind = gpus.is_empty() || switches.is_empty();
    match (protected, rules) {
        (true, Rules::Policy(_)) => checks.require(Dimension::Configuration, LINKS, check_links(&gpus, &switches)),
        (true, Rules::Genuine) if !one_kind => {
            checks.require(Dimension::Configuration, LINKS, check_links(&gpus, &switches));
        }
        (true, Rules::Genuine) => checks.skip(Dimension::Configuration, LINKS),
        (false, _) => {}
    }
    checks
}

fn check_count(wanted: DeviceCount, found_gpus: usize, found_switches: usize) -> Result<(), NvidiaRefusal> {
    if usize::from(wanted.gpus) == found_gpus && usize::from(wanted.switches) == found_switches {
        return Ok(());
    }
    Err(NvidiaRefusal::DeviceCount {
        found_gpus,
        found_switches,
        gpus: wanted.gpus,
        switches: wanted.switches,
    })
}

fn check_duplicates(devices: &[VerifiedDevice]) -> Result<(), NvidiaRefusal> {
    let mut seen = BTreeSet::new();
    match devices.iter().find(|device| !seen.insert(device.serial())) {
        Some(twice) => Err(NvidiaRefusal::DuplicateDevice(twice.serial().clone())),
        None => Ok(()),
    }
}

fn check_features(gpus: &[&VerifiedDevice]) -> Result<(), NvidiaRefusal> {
    let mut features = gpus.iter().map(|gpu| gpu.feature());
    let Some(first) = features.next() else {
        return Ok(());
    };
    match features.find(|feature| *feature != first) {
        Some(other) => Err(NvidiaRefusal::FeatureMix(first, other)),
        None => Ok(()),
    }
}

/// Each GPU names exactly these switches, each switch exactly these GPUs and itself. Who a device is comes from its
/// certificate, so that no device can name itself what the others expect.
fn check_links(gpus: &[&VerifiedDevice], switches: &[&VerifiedDevice]) -> Result<(), NvidiaRefusal> {
    if gpus.len() != PPCIE_GPUS || switches.len() != PPCIE_SWITCHES {
        return Err(NvidiaRefusal::PpcieCount {
            gpus: gpus.len(),
            switches: switches.len(),
        });
    }
    let topology = |device: &VerifiedDevice| NvidiaRefusal::Topology(device.serial().clone());
    let identities = |devices: &[&VerifiedDevice]| -> Result<BTreeSet<Pdi>, NvidiaRefusal> {
        devices
            .iter()
            .map(|device| device.pdi().ok_or_else(|| topology(device)))
            .collect()
    };
    let (all_gpus, all_switches) = (identities(gpus)?, identities(switches)?);
    let set = |linked: Vec<Pdi>| linked.into_iter().collect::<BTreeSet<_>>();
    if let Some(gpu) = gpus
        .iter()
        .find(|gpu| set(gpu.opaque().switches_of_gpu()) != all_switches)
    {
        return Err(topology(gpu));
    }
    let stray = switches.iter().find(|switch| {
        switch.opaque().switch_itself() != switch.pdi() || set(switch.opaque().gpus_of_switch()) != all_gpus
    });
    stray.map_or(Ok(()), |switch| Err(topology(switch)))
}
