//! The two functions whose answers have a length of their own: called without the wrapper, which takes that length without a
//! look at its buffer's, and ends the program if it is too long. The only unsafe code about NVML.

#![allow(unsafe_code, reason = "functions of a C library")]

use nvml_wrapper::Device;
use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper_sys::bindings::{nvmlConfComputeGpuAttestationReport_t, nvmlConfComputeGpuCertificate_t};

use super::GpuError;

/// The GPU's report over `nonce`.
pub(super) fn attestation_report(device: &Device<'_>, uuid: &str, nonce: &[u8; 32]) -> Result<Vec<u8>, GpuError> {
    const WHAT: &str = "attestation report";
    let function = nvml_sym(
        device
            .nvml()
            .lib()
            .nvmlDeviceGetConfComputeGpuAttestationReport
            .as_ref(),
    );
    let function = function.map_err(|source| failed(WHAT, uuid, source))?;
    let mut answer = Box::new(nvmlConfComputeGpuAttestationReport_t {
        isCecAttestationReportPresent: 0,
        attestationReportSize: 0,
        cecAttestationReportSize: 0,
        nonce: *nonce,
        attestationReport: [0; 8192],
        cecAttestationReport: [0; 4096],
    });
    // SAFETY: `function` is this function of the library that `device` is of, which is initialised and stays loaded as long as
    // `device` is borrowed; its handle is the library's own. `answer` has the layout of NVIDIA's header, and is written only
    // within the call.
    let code = unsafe { function(device.handle(), &raw mut *answer) };
    nvml_try(code).map_err(|source| failed(WHAT, uuid, source))?;
    take(WHAT, uuid, &answer.attestationReport, answer.attestationReportSize)
}

/// The chain of the key that signs the GPU's reports.
pub(super) fn certificate_chain(device: &Device<'_>, uuid: &str) -> Result<Vec<u8>, GpuError> {
    const WHAT: &str = "certificate chain";
    let function = nvml_sym(device.nvml().lib().nvmlDeviceGetConfComputeGpuCertificate.as_ref());
    let function = function.map_err(|source| failed(WHAT, uuid, source))?;
    let mut answer = Box::new(nvmlConfComputeGpuCertificate_t {
        certChainSize: 0,
        attestationCertChainSize: 0,
        certChain: [0; 4096],
        attestationCertChain: [0; 5120],
    });
    // SAFETY: as for the report.
    let code = unsafe { function(device.handle(), &raw mut *answer) };
    nvml_try(code).map_err(|source| failed(WHAT, uuid, source))?;
    take(
        WHAT,
        uuid,
        &answer.attestationCertChain,
        answer.attestationCertChainSize,
    )
}

/// What of a buffer the library says it wrote.
fn take(what: &'static str, uuid: &str, buffer: &[u8], length: u32) -> Result<Vec<u8>, GpuError> {
    let bytes = usize::try_from(length).ok().and_then(|length| buffer.get(..length));
    match bytes {
        Some(bytes) if !bytes.is_empty() => Ok(bytes.to_vec()),
        _ => Err(GpuError::Length {
            what,
            uuid: uuid.to_owned(),
            length,
            max: buffer.len(),
        }),
    }
}

fn failed(what: &'static str, uuid: &str, source: NvmlError) -> GpuError {
    GpuError::Call {
        what,
        of: format!(" of GPU {uuid}"),
        source,
    }
}
