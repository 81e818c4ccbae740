//! The machine that an enclave runs on, by its configuration: whose evidence it shows, and whether its own GPUs may be given
//! plaintext.

use std::sync::Arc;

use cloister_attestation::{DeviceEvidence, UnixTime, nvidia};
use cloister_enclave_attester::{AttesterError, CpuTee, GpuError, Gpus, Machine, SnpTee, Sources, TdxTee};

use crate::{
    config::{Config, RealTee, TeeConfig},
    leases::random,
};

/// A machine that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// No evidence.
    #[error(transparent)]
    Attester(#[from] AttesterError),
    /// The SIMULATED TEE in a build that has none.
    #[error(
        "tee.kind is simulated, and this build holds no SIMULATED TEE: set it to snp or tdx, or build with the feature \
         `simulated`"
    )]
    NoSimulated,
}

/// Own GPUs that may not be given plaintext.
#[derive(Debug, thiserror::Error)]
pub enum UnfitGpus {
    /// They cannot be asked, or are not in a state for it.
    #[error("the GPUs of this enclave may not be used: {0}")]
    State(#[from] GpuError),
    /// The evidence of one does not hold.
    #[error("the GPUs of this enclave may not be used: the evidence of number {number} is refused: {reason}")]
    Evidence {
        /// Its number in the driver's order.
        number: usize,
        /// Why.
        reason: String,
    },
}

/// Says why the evidence of a device that must answer a nonce does not hold at a time.
pub type Verify = fn(&DeviceEvidence, &[u8; 32], UnixTime) -> Result<(), String>;

/// Opens CPU and GPUs. `measurement` is what the SIMULATED TEE says that it was started with.
///
/// # Errors
/// [`MachineError`].
pub fn open(config: &Config, measurement: [u8; 48]) -> Result<Machine, MachineError> {
    let gpus = config.gpus.as_ref().map(|gpus| Gpus::open(&gpus.library));
    let gpus = gpus.transpose().map_err(AttesterError::from)?.map(Arc::new);
    let cpu: Box<dyn CpuTee> = match &config.tee {
        TeeConfig::Snp(tee) => Box::new(SnpTee::open(&sources(tee))?),
        TeeConfig::Tdx(tee) => Box::new(TdxTee::open(&sources(tee))?),
        TeeConfig::Simulated(tee) => simulated(&tee.dir, measurement)?,
    };
    Ok(Machine::new(cpu, gpus))
}

#[cfg(feature = "simulated")]
fn simulated(dir: &std::path::Path, measurement: [u8; 48]) -> Result<Box<dyn CpuTee>, MachineError> {
    tracing::warn!("the TEE is SIMULATED: it protects nothing");
    Ok(Box::new(cloister_enclave_attester::SimulatedTee::open(
        dir,
        measurement,
    )?))
}

#[cfg(not(feature = "simulated"))]
fn simulated(_: &std::path::Path, _: [u8; 48]) -> Result<Box<dyn CpuTee>, MachineError> {
    Err(MachineError::NoSimulated)
}

fn sources(tee: &RealTee) -> Sources {
    let mut sources = Sources::default();
    sources.collateral.clone_from(&tee.collateral);
    for (place, configured) in [
        (&mut sources.report_root, &tee.report_root),
        (&mut sources.sev_guest, &tee.device),
        (&mut sources.tdx_guest, &tee.device),
    ] {
        if let Some(path) = configured {
            place.clone_from(path);
        }
    }
    sources
}

/// Checks that every GPU answers now, to `verify`'s satisfaction, and that all are in a state for confidential work.
///
/// # Errors
/// [`UnfitGpus`] names the first thing that does not hold.
pub fn check_gpus(gpus: &Gpus, now: UnixTime, verify: Verify) -> Result<(), UnfitGpus> {
    gpus.state()?.check()?;
    let nonce = random();
    for (number, device) in gpus.evidence(&nonce)?.iter().enumerate() {
        verify(device, &nonce, now).map_err(|reason| UnfitGpus::Evidence { number, reason })?;
    }
    // Again: what was ready before the reports may have been reset since.
    gpus.state()?.check()?;
    Ok(())
}

/// The verifier that relying parties use, against NVIDIA's root.
///
/// # Errors
/// Why it refuses the evidence, or that it is over another nonce.
pub fn genuine(device: &DeviceEvidence, nonce: &[u8; 32], now: UnixTime) -> Result<(), String> {
    let verified = nvidia::verify(&device.evidence, &device.certificate, device.arch, now);
    let verified = verified.map_err(|refusal| refusal.to_string())?;
    if verified.nonce() == nonce {
        Ok(())
    } else {
        Err("it answers another nonce".to_owned())
    }
}
