//! What others vouch for and evidence does not bring along.

use std::collections::BTreeMap;

use crate::nvidia::OcspResponse;
use crate::nvidia::rim::RimStore;
use crate::policy::Generation;

/// Endorsements that a verifier was given: none of them is trusted before its signature is verified. The default is none at all.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Endorsements {
    /// DER of AMD's lists of revoked certificates.
    pub amd_crls: BTreeMap<Generation, Vec<u8>>,
    /// Signed references of NVIDIA's devices.
    pub rims: RimStore,
    /// Responses about the revocation of NVIDIA's certificates.
    pub nvidia_ocsp: Vec<OcspResponse>,
}
