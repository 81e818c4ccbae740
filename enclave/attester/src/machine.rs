//! A CPU with the GPUs beside it.

use std::sync::Arc;

use cloister_attestation::binding::{NONCE_LEN, REPORT_DATA_LEN, devices_digest, gpu_nonce, report_data};
use cloister_attestation::{EnclaveId, Tee};

use crate::{Attester, AttesterError, Collected, CpuTee, Gpus};

/// A CPU's TEE with the GPUs of its guest, if there are any to show.
pub struct Machine {
    cpu: Box<dyn CpuTee>,
    gpus: Option<Arc<Gpus>>,
}

impl Machine {
    /// Of these parts.
    #[must_use]
    pub fn new(cpu: Box<dyn CpuTee>, gpus: Option<Arc<Gpus>>) -> Self {
        Self { cpu, gpus }
    }

    /// The GPUs.
    #[must_use]
    pub const fn gpus(&self) -> Option<&Arc<Gpus>> {
        self.gpus.as_ref()
    }

    /// Evidence of the machine and of no enclave on it, for looking at: each GPU answers `nonce` itself, and the CPU's report
    /// carries it, padded with zeros. Nothing ties these parts to each other.
    ///
    /// # Errors
    /// [`AttesterError`] if CPU or any GPU gives none.
    pub fn look(&self, nonce: &[u8; NONCE_LEN]) -> Result<Collected, AttesterError> {
        let devices = match &self.gpus {
            Some(gpus) => gpus.evidence(nonce)?,
            None => Vec::new(),
        };
        let mut carried = [0; REPORT_DATA_LEN];
        carried[..NONCE_LEN].copy_from_slice(nonce);
        Ok(Collected {
            cpu: self.cpu.report(&carried)?,
            devices,
        })
    }
}

impl Attester for Machine {
    fn tee(&self) -> Tee {
        self.cpu.tee()
    }

    /// The GPUs' nonce is made of N and K; D is over what they answered; the CPU's report carries N, K and D. So nobody can
    /// take the CPU's part of one machine with the GPUs' part of another.
    fn evidence(&self, nonce: &[u8; NONCE_LEN], enclave: &EnclaveId) -> Result<Collected, AttesterError> {
        let devices = match &self.gpus {
            Some(gpus) => gpus.evidence(&gpu_nonce(nonce, enclave))?,
            None => Vec::new(),
        };
        let exact: Vec<&[u8]> = devices.iter().map(|device| device.evidence.as_slice()).collect();
        let bound = report_data(nonce, enclave, &devices_digest(&exact));
        Ok(Collected {
            cpu: self.cpu.report(&bound)?,
            devices,
        })
    }
}
