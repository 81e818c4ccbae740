//! Evidence of the GPUs of this guest, by NVIDIA's library (NVML), which belongs to the driver.
//!
//! What the library says of the GPUs' state (confidential computing, DevTools, ready) is a word of the driver in this guest,
//! not signed: it stops an enclave that would be useless or unsafe early, and convinces nobody else. The reports are signed.
//!
//! What `nvml-wrapper` 0.13 calls the confidential compute state of a device is the ready state of all of them, and its
//! capabilities fail on hosts with SEV-SNP, whose number it does not know: so CC, DevTools and ready are read one by one, and
//! capabilities not at all. NVSwitches are not in NVML: their evidence is not collected.

mod raw;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cloister_attestation::bundle::{DeviceArch, DeviceEvidence, MAX_DEVICES};
use nvml_wrapper::enums::device::DeviceArchitecture;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

/// Name that the loader finds the library by.
pub const LIBRARY: &str = "libnvidia-ml.so.1";

/// The GPUs of this guest.
#[derive(Debug)]
pub struct Gpus {
    nvml: Nvml,
}

/// One GPU, by what its driver says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Its name for NVIDIA's tools.
    pub uuid: String,
    /// Its product.
    pub name: String,
    /// Its architecture.
    pub arch: DeviceArch,
}

/// The state of all GPUs of a guest, by what their driver says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuState {
    /// Confidential computing is on.
    pub confidential: bool,
    /// DevTools mode is on: memory can be read from outside.
    pub devtools: bool,
    /// They take work.
    pub ready: bool,
    /// Keys and environment are those of production.
    pub production: bool,
    /// Protected PCIe: one tenant on all GPUs and switches.
    pub protected_pcie: bool,
}

/// Why there is no evidence of GPUs, or none that would be worth anything.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// The library cannot be loaded or initialised.
    #[error(
        "cannot use NVIDIA's library {library}: {source}; install the driver in the guest, or remove gpus from the configuration"
    )]
    Library {
        /// Which.
        library: PathBuf,
        /// What it said.
        source: NvmlError,
    },
    /// A function failed.
    #[error("NVIDIA's library cannot tell {what}{of}: {source}")]
    Call {
        /// What was asked.
        what: &'static str,
        /// Of which GPU.
        of: String,
        /// What it said.
        source: NvmlError,
    },
    /// There is none.
    #[error("NVIDIA's library finds no GPU: pass one through to the guest, or remove gpus from the configuration")]
    None,
    /// More than evidence can hold.
    #[error("NVIDIA's library counts {0} GPUs, and evidence holds at most {MAX_DEVICES}")]
    TooMany(u32),
    /// Two handles of one GPU.
    #[error("NVIDIA's library gives GPU {0} twice")]
    Repeated(String),
    /// No evidence is known of this architecture.
    #[error("GPU {uuid} is of the architecture {arch}, which gives no evidence: Hopper and Blackwell do")]
    Architecture {
        /// Which GPU.
        uuid: String,
        /// Its architecture.
        arch: String,
    },
    /// A length outside the library's own buffer.
    #[error("NVIDIA's library gives the {what} of GPU {uuid} a length of {length} bytes: 1 to {max} are possible")]
    Length {
        /// What has the length.
        what: &'static str,
        /// Of which GPU.
        uuid: String,
        /// The length.
        length: u32,
        /// Size of the buffer.
        max: usize,
    },
    /// A chain of certificates that is not PEM.
    #[error("the certificate chain of GPU {0} is not PEM")]
    Chain(String),
    /// Confidential computing is off.
    #[error("confidential computing is off on the GPUs of this guest: switch it on at the host and reset them")]
    NotConfidential,
    /// DevTools mode is on.
    #[error("the GPUs of this guest are in DevTools mode, which lets their memory be read: switch to CC mode `on`")]
    DevTools,
    /// Not of production.
    #[error("the GPUs of this guest are not in NVIDIA's production environment")]
    NotProduction,
    /// They take no work.
    #[error(
        "the GPUs of this guest are not ready: set their ready state (nvidia-smi conf-compute -srs 1) once they are verified"
    )]
    NotReady,
}

impl Gpus {
    /// Loads the library: by the loader's search path if it is only a name.
    ///
    /// # Errors
    /// [`GpuError::Library`].
    pub fn open(library: &Path) -> Result<Self, GpuError> {
        let nvml = Nvml::builder().lib_path(library.as_os_str()).init();
        let nvml = nvml.map_err(|source| GpuError::Library {
            library: library.to_owned(),
            source,
        })?;
        Ok(Self { nvml })
    }

    /// Version of the driver.
    ///
    /// # Errors
    /// [`GpuError::Call`].
    pub fn driver(&self) -> Result<String, GpuError> {
        self.nvml
            .sys_driver_version()
            .map_err(|source| system("the driver's version", source))
    }

    /// The GPUs, in the library's order.
    ///
    /// # Errors
    /// [`GpuError`], also if there is none, or one twice.
    pub fn list(&self) -> Result<Vec<Gpu>, GpuError> {
        self.each(|_, gpu| Ok(gpu))
    }

    /// Their state.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn state(&self) -> Result<GpuState, GpuError> {
        let device = self
            .nvml
            .device_by_index(0)
            .map_err(|source| system("the first GPU", source))?;
        let ask = |what: &'static str, answer: Result<bool, NvmlError>| answer.map_err(|source| system(what, source));
        let confidential = ask("whether confidential computing is on", device.is_cc_enabled())?;
        let ready = ask("whether the GPUs are ready", device.get_confidential_compute_state())?;
        // True only if all three hold: with the two others known, it tells the third.
        let all = ask("the environment", device.check_confidential_compute_status())?;
        Ok(GpuState {
            confidential,
            devtools: ask("whether DevTools mode is on", device.is_cc_dev_mode_enabled())?,
            ready,
            production: all || !(confidential && ready),
            protected_pcie: ask(
                "whether PCIe is protected",
                device.is_multi_gpu_protected_pcie_enabled(),
            )?,
        })
    }

    /// Evidence of each GPU over `nonce`, in the library's order.
    ///
    /// # Errors
    /// [`GpuError`].
    pub fn evidence(&self, nonce: &[u8; 32]) -> Result<Vec<DeviceEvidence>, GpuError> {
        self.each(|device, gpu| {
            let certificate = raw::certificate_chain(device, &gpu.uuid)?;
            Ok(DeviceEvidence {
                arch: gpu.arch,
                evidence: raw::attestation_report(device, &gpu.uuid, nonce)?,
                certificate: pem(&certificate).ok_or(GpuError::Chain(gpu.uuid))?,
            })
        })
    }

    fn each<T>(&self, mut of: impl FnMut(&Device<'_>, Gpu) -> Result<T, GpuError>) -> Result<Vec<T>, GpuError> {
        let count = self
            .nvml
            .device_count()
            .map_err(|source| system("the number of GPUs", source))?;
        match count {
            0 => return Err(GpuError::None),
            count if usize::try_from(count).is_ok_and(|count| count <= MAX_DEVICES) => {}
            count => return Err(GpuError::TooMany(count)),
        }
        let mut seen = BTreeSet::new();
        let mut results = Vec::new();
        for index in 0..count {
            let device = self.nvml.device_by_index(index).map_err(|source| GpuError::Call {
                what: "the handle",
                of: format!(" of GPU {index} of {count}"),
                source,
            })?;
            let gpu = identify(&device, index)?;
            if !seen.insert(gpu.uuid.clone()) {
                return Err(GpuError::Repeated(gpu.uuid));
            }
            results.push(of(&device, gpu)?);
        }
        Ok(results)
    }
}

impl GpuState {
    /// Whether work may be given to GPUs in this state.
    ///
    /// # Errors
    /// The first of [`GpuError::NotConfidential`], [`GpuError::DevTools`], [`GpuError::NotReady`] and
    /// [`GpuError::NotProduction`] that holds.
    pub const fn check(self) -> Result<(), GpuError> {
        if !self.confidential {
            return Err(GpuError::NotConfidential);
        }
        if self.devtools {
            return Err(GpuError::DevTools);
        }
        if !self.ready {
            return Err(GpuError::NotReady);
        }
        if !self.production {
            return Err(GpuError::NotProduction);
        }
        Ok(())
    }
}

fn identify(device: &Device<'_>, index: u32) -> Result<Gpu, GpuError> {
    let of_index = |what| {
        move |source| GpuError::Call {
            what,
            of: format!(" of GPU {index}"),
            source,
        }
    };
    let uuid = device.uuid().map_err(of_index("the UUID"))?;
    let arch = match device.architecture() {
        Ok(DeviceArchitecture::Hopper) => DeviceArch::Hopper,
        Ok(DeviceArchitecture::Blackwell) => DeviceArch::Blackwell,
        Ok(other) => {
            return Err(GpuError::Architecture {
                uuid,
                arch: other.to_string(),
            });
        }
        Err(NvmlError::UnexpectedVariant(number)) => {
            return Err(GpuError::Architecture {
                uuid,
                arch: format!("number {number}"),
            });
        }
        Err(source) => return Err(of_index("the architecture")(source)),
    };
    Ok(Gpu {
        uuid,
        name: device.name().map_err(of_index("the name"))?,
        arch,
    })
}

/// The text of a chain; the library may count the NULs behind it.
fn pem(chain: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(chain).ok()?.trim_end_matches('\0');
    (text.starts_with("-----BEGIN CERTIFICATE-----") && text.is_ascii() && !text.contains('\0'))
        .then(|| text.to_owned())
}

fn system(what: &'static str, source: NvmlError) -> GpuError {
    GpuError::Call {
        what,
        of: String::new(),
        source,
    }
}
