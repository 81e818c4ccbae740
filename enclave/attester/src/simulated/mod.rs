//! The SIMULATED TEE: reports in the format of SEV-SNP, signed by a chain made at install time.
//!
//! It protects nothing. Whoever reads its file can sign any report. It is there so that everything around a TEE runs, and is
//! verified by the very code that verifies a real one, on a machine without.

pub mod pki;

mod report;
mod store;

use std::fmt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use cloister_attestation::binding::REPORT_DATA_LEN;
use cloister_attestation::identity::sha256;
use cloister_attestation::{CpuEvidence, Measurement, PlatformId, Sha256Digest, Tee, UnixTime};
use der::pem::LineEnding;

use self::report::ReportFields;
use self::store::Stored;
use crate::{AttesterError, CpuTee};

pub use self::store::FILE_NAME;

/// A SIMULATED TEE with its signing key. It protects nothing.
pub struct SimulatedTee {
    key: EcdsaKeyPair,
    vcek: Vec<u8>,
    chain: String,
    chip_id: [u8; 64],
    measurement: Measurement,
    report_id: [u8; 32],
}

impl fmt::Debug for SimulatedTee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedTee")
            .field("measurement", &self.measurement)
            .finish_non_exhaustive()
    }
}

impl SimulatedTee {
    /// Makes a chain and a chip in `dir` (created with mode 0700), once: if there is one already it is kept. Takes some seconds
    /// when it makes RSA keys of 4096 bits. The root's and the intermediate's private keys are not kept.
    ///
    /// Of two processes that do this at once one wins, and both succeed. Answers with the hash that a policy's
    /// `danger.simulatedTee` must name.
    ///
    /// # Errors
    /// [`AttesterError`] if `dir` cannot be written, or holds something damaged.
    pub fn install(dir: &Path) -> Result<Sha256Digest, AttesterError> {
        if !store::exists(dir)? {
            store::save(dir, &make(now()?)?)?;
        }
        Self::root_hash(dir)
    }

    /// SHA-256 of the DER of the root certificate in `dir`.
    ///
    /// # Errors
    /// [`AttesterError`] if `dir` holds no SIMULATED TEE.
    pub fn root_hash(dir: &Path) -> Result<Sha256Digest, AttesterError> {
        Ok(sha256(&[&store::load(dir)?.ark]))
    }

    /// Opens the SIMULATED TEE in `dir`, for a program of this `measurement`: by convention the SHA-384 of its executable.
    ///
    /// # Errors
    /// [`AttesterError`] if `dir` holds none, or others than its owner can read it.
    pub fn open(dir: &Path, measurement: [u8; Measurement::LEN]) -> Result<Self, AttesterError> {
        let stored = store::load(dir)?;
        let damaged = || AttesterError::Damaged(dir.join(FILE_NAME));
        let pem = |der: &[u8]| der::pem::encode_string("CERTIFICATE", LineEnding::LF, der).map_err(|_| damaged());
        let mut report_id = [0; 32];
        SystemRandom::new()
            .fill(&mut report_id)
            .map_err(|_| AttesterError::Crypto("random bytes"))?;
        Ok(Self {
            key: EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &stored.key).map_err(|_| damaged())?,
            chain: pem(&stored.ask)? + &pem(&stored.ark)?,
            chip_id: pki::hardware_id(&stored.vcek).ok_or_else(damaged)?,
            vcek: stored.vcek,
            measurement: Measurement::from_bytes(measurement),
            report_id,
        })
    }

    /// The chip that its reports name.
    #[must_use]
    pub const fn platform_id(&self) -> PlatformId {
        PlatformId::from_bytes(self.chip_id)
    }

    /// What its reports say that it was started with.
    #[must_use]
    pub const fn measurement(&self) -> Measurement {
        self.measurement
    }
}

impl CpuTee for SimulatedTee {
    fn tee(&self) -> Tee {
        Tee::Simulated
    }

    fn report(&self, report_data: &[u8; REPORT_DATA_LEN]) -> Result<CpuEvidence, AttesterError> {
        let fields = ReportFields {
            report_data,
            measurement: self.measurement.as_bytes(),
            report_id: &self.report_id,
            chip_id: &self.chip_id,
        };
        Ok(CpuEvidence::Simulated {
            report: report::sign(fields.unsigned(), &self.key)?.to_vec(),
            vek: self.vcek.clone(),
            chain: self.chain.clone(),
        })
    }
}

/// A new chain with one chip.
fn make(now: UnixTime) -> Result<Stored, AttesterError> {
    let chain = pki::Chain::generate(now)?;
    let chip = pki::Chip::generate()?;
    Ok(Stored {
        vcek: chain.issue_vcek(&chip, now)?,
        key: chip.pkcs8()?,
        ask: chain.ask,
        ark: chain.ark,
    })
}

fn now() -> Result<UnixTime, AttesterError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since
        .map(|since| UnixTime(since.as_secs()))
        .map_err(|_| AttesterError::Clock)
}
