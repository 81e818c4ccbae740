//! Why evidence is refused.

use crate::nvidia::NvidiaRefusal;
use crate::policy::WorkloadRefusal;
use crate::snp::{SimulatedRootRefusal, SnpRefusal};
use crate::tdx::TdxRefusal;
use crate::tee::Tee;

/// Why evidence is refused, or only tolerated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The policy does not list this kind of TEE.
    #[error("TEE {0} is not among the policy's tees")]
    TeeNotAllowed(Tee),
    /// Neither CPU nor device.
    #[error("there is no evidence: neither of a CPU nor of a device")]
    NoEvidence,
    /// No CPU, to which everything else is bound.
    #[error("evidence of an enclave comes without that of its CPU")]
    NoCpu,
    /// The evidence answers another nonce: it is stale or replayed.
    #[error("evidence answers another nonce: it is stale or replayed; ask the enclave again")]
    Nonce,
    /// The nonce that was given is of no length that a device can answer.
    #[error("a device answers nonces of 32 bytes, and this one has {0}")]
    NonceLength(usize),
    /// The CPU's report does not carry the nonce.
    #[error("report data of the CPU is neither the nonce, padded with zeros, nor begins with its 32 bytes")]
    CpuNonce,
    /// The policy does not name a SIMULATED root.
    #[error("evidence is of a SIMULATED TEE, and the policy's danger.simulatedTee names no root")]
    SimulatedNotAllowed,
    /// The SIMULATED chain is not the one that the policy names.
    #[error(transparent)]
    SimulatedRoot(#[from] SimulatedRootRefusal),
    /// A SIMULATED TEE: the policy tolerates it.
    #[error("the TEE is SIMULATED: it protects nothing")]
    Simulated,
    /// The report, its chain or what it says is refused.
    #[error(transparent)]
    Snp(#[from] SnpRefusal),
    /// The quote, its collateral or what it says is refused.
    #[error(transparent)]
    Tdx(#[from] TdxRefusal),
    /// A device's report, its chain or what it says is refused, or what several devices say together.
    #[error(transparent)]
    Nvidia(#[from] NvidiaRefusal),
    /// The report is not bound to this nonce, identity key, boot, workload and devices.
    #[error("report is not bound to this nonce, identity key, boot, workload and devices")]
    Binding,
    /// Nothing ties the evidence to an enclave.
    #[error(
        "evidence comes without the identity of an enclave, so that its CPU and devices may be of different machines: \
         a policy accepts such evidence only with danger.unboundEvidence"
    )]
    Unbound,
    /// Two devices show the same evidence or certificate.
    #[error("devices {0} and {1} are one and the same")]
    DuplicateDevice(usize, usize),
    /// The workload is not allowed.
    #[error(transparent)]
    Workload(#[from] WorkloadRefusal),
}
