//! A `libnvidia-ml.so.1` without a GPU: the functions of NVML that attestation needs, with the ABI of NVIDIA's header, whose
//! structures `nvml-wrapper-sys` has from bindgen.
//!
//! A test copies the built library into a folder of its own, under the real name, beside a file `fake-nvml.txt` that says how
//! it behaves (see the module `script`). Each copy is a library of its own to the loader, so tests in one process do not
//! disturb each other. The file is read at every call: a test changes it between two.

#![allow(unsafe_code, reason = "the functions of a C library take pointers")]
#![allow(non_snake_case, reason = "the names are NVIDIA's")]

mod script;

use std::ffi::{c_char, c_uint};
use std::mem::{offset_of, size_of};
use std::sync::atomic::{AtomicUsize, Ordering};

use nvml_wrapper_sys::bindings::{
    NVML_CC_SYSTEM_CPU_CAPS_AMD_SEV_SNP, nvmlConfComputeGpuAttestationReport_t, nvmlConfComputeGpuCertificate_t,
    nvmlConfComputeSystemCaps_t, nvmlConfComputeSystemState_t, nvmlDevice_t, nvmlReturn_t,
    nvmlSystemConfComputeSettings_t,
};

use self::script::{Gpu, Script};

const SUCCESS: nvmlReturn_t = 0;
const UNINITIALIZED: nvmlReturn_t = 1;
const INVALID_ARGUMENT: nvmlReturn_t = 2;
const INSUFFICIENT_SIZE: nvmlReturn_t = 7;
const VERSION_MISMATCH: nvmlReturn_t = 25;
/// Where a report has the nonce that it answers: behind the four bytes of the SPDM request's head.
const NONCE_OFFSET: usize = 4;

// The layout of NVIDIA's nvml.h.
const _: () = {
    assert!(size_of::<nvmlConfComputeGpuAttestationReport_t>() == 12 + 32 + 8192 + 4096);
    assert!(offset_of!(nvmlConfComputeGpuAttestationReport_t, attestationReportSize) == 4);
    assert!(offset_of!(nvmlConfComputeGpuAttestationReport_t, nonce) == 12);
    assert!(offset_of!(nvmlConfComputeGpuAttestationReport_t, attestationReport) == 44);
    assert!(size_of::<nvmlConfComputeGpuCertificate_t>() == 8 + 4096 + 5120);
    assert!(offset_of!(nvmlConfComputeGpuCertificate_t, attestationCertChainSize) == 4);
    assert!(offset_of!(nvmlConfComputeGpuCertificate_t, attestationCertChain) == 8 + 4096);
    assert!(size_of::<nvmlConfComputeSystemState_t>() == 12);
    assert!(size_of::<nvmlSystemConfComputeSettings_t>() == 20);
};

/// Initialisations without their shutdown, as NVML counts them.
static INITIALISED: AtomicUsize = AtomicUsize::new(0);

/// What the script says of `function`, if the library is initialised.
fn called(function: &str) -> Result<Script, nvmlReturn_t> {
    if INITIALISED.load(Ordering::SeqCst) == 0 {
        return Err(UNINITIALIZED);
    }
    let script = Script::read()?;
    match script.failure(function) {
        Some(code) => Err(code),
        None => Ok(script),
    }
}

fn code(result: Result<(), nvmlReturn_t>) -> nvmlReturn_t {
    result.err().unwrap_or(SUCCESS)
}

/// Writes through a pointer that a caller gave.
///
/// # Safety
/// `to` is null or may be written.
unsafe fn put<T>(to: *mut T, value: T) -> Result<(), nvmlReturn_t> {
    if to.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: by this function's contract.
    unsafe { to.write(value) };
    Ok(())
}

/// Writes a text with its NUL.
///
/// # Safety
/// `to` is null or has room for `length` bytes.
unsafe fn put_text(to: *mut c_char, length: c_uint, text: &str) -> Result<(), nvmlReturn_t> {
    if to.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    let bytes = text.as_bytes();
    if bytes.len() >= length as usize {
        return Err(INSUFFICIENT_SIZE);
    }
    for (at, byte) in bytes.iter().chain(&[0]).enumerate() {
        // SAFETY: `at` is at most the text's length, which is less than `length`.
        unsafe { to.add(at).write(byte.cast_signed()) };
    }
    Ok(())
}

/// A handle is the GPU's number, counted from one.
fn gpu(script: &Script, device: nvmlDevice_t) -> Result<&Gpu, nvmlReturn_t> {
    let index = device.addr().checked_sub(1).ok_or(INVALID_ARGUMENT)?;
    script.gpus.get(index).ok_or(INVALID_ARGUMENT)
}

/// `nvmlInit_v2`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    match Script::read().map(|script| script.failure("nvmlInit_v2")) {
        Ok(None) => {
            INITIALISED.fetch_add(1, Ordering::SeqCst);
            SUCCESS
        }
        Ok(Some(code)) | Err(code) => code,
    }
}

/// `nvmlShutdown`.
#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    let less = |count: usize| count.checked_sub(1);
    match INITIALISED.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
        Ok(_) => SUCCESS,
        Err(_) => UNINITIALIZED,
    }
}

/// `nvmlSystemGetDriverVersion`.
///
/// # Safety
/// `version` is null or has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> nvmlReturn_t {
    // SAFETY: by this function's contract.
    code(called("nvmlSystemGetDriverVersion").and_then(|script| unsafe { put_text(version, length, &script.driver) }))
}

/// `nvmlDeviceGetCount_v2`.
///
/// # Safety
/// `count` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> nvmlReturn_t {
    code(called("nvmlDeviceGetCount_v2").and_then(|script| {
        let gpus = script.count.unwrap_or(script.gpus.len() as c_uint);
        // SAFETY: by this function's contract.
        unsafe { put(count, gpus) }
    }))
}

/// `nvmlDeviceGetHandleByIndex_v2`.
///
/// # Safety
/// `device` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut nvmlDevice_t) -> nvmlReturn_t {
    code(called("nvmlDeviceGetHandleByIndex_v2").and_then(|script| {
        let number = index as usize;
        if number >= script.gpus.len() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: by this function's contract.
        unsafe { put(device, std::ptr::without_provenance_mut(number + 1)) }
    }))
}

/// `nvmlDeviceGetUUID`.
///
/// # Safety
/// `uuid` is null or has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(device: nvmlDevice_t, uuid: *mut c_char, length: c_uint) -> nvmlReturn_t {
    code(called("nvmlDeviceGetUUID").and_then(|script| {
        // SAFETY: by this function's contract.
        unsafe { put_text(uuid, length, &gpu(&script, device)?.uuid) }
    }))
}

/// `nvmlDeviceGetName`.
///
/// # Safety
/// `name` is null or has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(device: nvmlDevice_t, name: *mut c_char, length: c_uint) -> nvmlReturn_t {
    code(called("nvmlDeviceGetName").and_then(|script| {
        gpu(&script, device)?;
        // SAFETY: by this function's contract.
        unsafe { put_text(name, length, "Fake GPU") }
    }))
}

/// `nvmlDeviceGetArchitecture`.
///
/// # Safety
/// `architecture` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetArchitecture(device: nvmlDevice_t, architecture: *mut c_uint) -> nvmlReturn_t {
    code(called("nvmlDeviceGetArchitecture").and_then(|script| {
        // SAFETY: by this function's contract.
        unsafe { put(architecture, gpu(&script, device)?.architecture) }
    }))
}

/// `nvmlSystemGetConfComputeCapabilities`: what a driver says on a host with SEV-SNP.
///
/// # Safety
/// `capabilities` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetConfComputeCapabilities(
    capabilities: *mut nvmlConfComputeSystemCaps_t,
) -> nvmlReturn_t {
    code(called("nvmlSystemGetConfComputeCapabilities").and_then(|_| {
        let snp = nvmlConfComputeSystemCaps_t {
            cpuCaps: NVML_CC_SYSTEM_CPU_CAPS_AMD_SEV_SNP,
            gpusCaps: 1,
        };
        // SAFETY: by this function's contract.
        unsafe { put(capabilities, snp) }
    }))
}

/// `nvmlSystemGetConfComputeState`.
///
/// # Safety
/// `state` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetConfComputeState(state: *mut nvmlConfComputeSystemState_t) -> nvmlReturn_t {
    code(called("nvmlSystemGetConfComputeState").and_then(|script| {
        let answer = nvmlConfComputeSystemState_t {
            environment: script.environment,
            ccFeature: script.feature,
            devToolsMode: script.devtools,
        };
        // SAFETY: by this function's contract.
        unsafe { put(state, answer) }
    }))
}

/// `nvmlSystemGetConfComputeGpusReadyState`.
///
/// # Safety
/// `ready` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetConfComputeGpusReadyState(ready: *mut c_uint) -> nvmlReturn_t {
    // SAFETY: by this function's contract.
    code(called("nvmlSystemGetConfComputeGpusReadyState").and_then(|script| unsafe { put(ready, script.ready) }))
}

/// `nvmlSystemGetConfComputeSettings`: only of the version that the caller names.
///
/// # Safety
/// `settings` is null or may be read and written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetConfComputeSettings(
    settings: *mut nvmlSystemConfComputeSettings_t,
) -> nvmlReturn_t {
    code(called("nvmlSystemGetConfComputeSettings").and_then(|script| {
        // SAFETY: by this function's contract.
        let asked = unsafe { settings.as_mut() }.ok_or(INVALID_ARGUMENT)?;
        // NVML_STRUCT_VERSION(SystemConfComputeSettings, 1).
        if asked.version != size_of::<nvmlSystemConfComputeSettings_t>() as c_uint | 1 << 24 {
            return Err(VERSION_MISMATCH);
        }
        asked.environment = script.environment;
        asked.ccFeature = script.feature;
        asked.devToolsMode = script.devtools;
        asked.multiGpuMode = script.multigpu;
        Ok(())
    }))
}

/// `nvmlDeviceGetConfComputeGpuAttestationReport`: the captured report, with the caller's nonce in the place of its own unless
/// the script wants it as it was. Its signature is over the nonce that it was made for.
///
/// # Safety
/// `report` is null or may be read and written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetConfComputeGpuAttestationReport(
    device: nvmlDevice_t,
    report: *mut nvmlConfComputeGpuAttestationReport_t,
) -> nvmlReturn_t {
    const NAME: &str = "nvmlDeviceGetConfComputeGpuAttestationReport";
    code(called(NAME).and_then(|script| {
        let mut captured = gpu(&script, device)?.report.clone();
        // SAFETY: by this function's contract.
        let answer = unsafe { report.as_mut() }.ok_or(INVALID_ARGUMENT)?;
        if !script.verbatim {
            for (to, from) in captured.iter_mut().skip(NONCE_OFFSET).zip(answer.nonce) {
                *to = from;
            }
        }
        for (to, from) in answer.attestationReport.iter_mut().zip(&captured) {
            *to = *from;
        }
        answer.attestationReportSize = script.length(NAME).unwrap_or(captured.len() as c_uint);
        answer.isCecAttestationReportPresent = 0;
        // What an untouched counter of a library can hold: it means nothing without a CEC report.
        answer.cecAttestationReportSize = script.length("cec").unwrap_or(0);
        Ok(())
    }))
}

/// `nvmlDeviceGetConfComputeGpuCertificate`: the captured chain.
///
/// # Safety
/// `certificate` is null or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetConfComputeGpuCertificate(
    device: nvmlDevice_t,
    certificate: *mut nvmlConfComputeGpuCertificate_t,
) -> nvmlReturn_t {
    const NAME: &str = "nvmlDeviceGetConfComputeGpuCertificate";
    code(called(NAME).and_then(|script| {
        let chain = &gpu(&script, device)?.chain;
        // SAFETY: by this function's contract.
        let answer = unsafe { certificate.as_mut() }.ok_or(INVALID_ARGUMENT)?;
        for (to, from) in answer.attestationCertChain.iter_mut().zip(chain) {
            *to = *from;
        }
        answer.attestationCertChainSize = script.length(NAME).unwrap_or(chain.len() as c_uint);
        answer.certChainSize = 0;
        Ok(())
    }))
}
