//! Certificates and collateral for our own evidence, from a folder as `cloister collateral fetch` fills it:
//!
//! ```text
//! amd/<Milan|Genoa|Turin>/<chip id in hex>/<TCB>.der    VCEK; TCB as 03-00-08-115: [FMC,] boot loader, TEE, SNP, microcode
//! intel/<FMSPC in hex>/<platform|processor>.json        collateral of a kind of platform
//! ```
//!
//! What is read here is only passed on: whoever appraises the evidence verifies it.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use cloister_attestation::bundle::{MAX_COLLATERAL_LEN, MAX_VEK_LEN};
use cloister_attestation::snp::REPORT_LEN;

/// Why the folder had nothing for our evidence.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// No folder is configured.
    #[error("{0}, and the configuration names no folder for them (tee.collateral)")]
    Unset(&'static str),
    /// The file is not there.
    #[error("{wanted}, and there is none at {path}: fetch it with `cloister collateral fetch`")]
    Missing {
        /// What would have made it needless.
        wanted: &'static str,
        /// Where it should be.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is longer than evidence may hold, or no text.
    #[error("{0} is no certificate or collateral: it is too long, or no text")]
    Content(PathBuf),
    /// A processor that no file is named for.
    #[error(
        "the report is of a processor of family {family:#x} and model {model:#x}, which is none of Milan, Genoa and Turin"
    )]
    Product {
        /// Family by CPUID.
        family: u8,
        /// Model by CPUID.
        model: u8,
    },
}

const WANTED_VCEK: &str = "the host hands out no certificate of the chip's key";
const WANTED_COLLATERAL: &str = "a TDX quote needs Intel's collateral";

/// Certificate of the chip's key at the TCB of `report`.
///
/// # Errors
/// [`FolderError`].
pub fn vcek(folder: Option<&Path>, report: &[u8; REPORT_LEN]) -> Result<Vec<u8>, FolderError> {
    let folder = folder.ok_or(FolderError::Unset(WANTED_VCEK))?;
    let mut last = None;
    for path in vcek_paths(report)? {
        match read(&folder.join(path), MAX_VEK_LEN, WANTED_VCEK) {
            Err(error @ FolderError::Missing { .. }) => last = Some(error),
            found => return found,
        }
    }
    Err(last.unwrap_or(FolderError::Unset(WANTED_VCEK)))
}

/// Collateral of the platform that made a quote.
///
/// # Errors
/// [`FolderError`].
pub fn collateral(folder: Option<&Path>, fmspc: &[u8], authority: &str) -> Result<String, FolderError> {
    let folder = folder.ok_or(FolderError::Unset(WANTED_COLLATERAL))?;
    let path = folder
        .join("intel")
        .join(hex::encode(fmspc))
        .join(format!("{authority}.json"));
    let bytes = read(&path, MAX_COLLATERAL_LEN, WANTED_COLLATERAL)?;
    String::from_utf8(bytes).map_err(|_| FolderError::Content(path))
}

/// Where the certificate may be: reports before version 3 do not say which processor made them.
///
/// Offsets: SEV-SNP Firmware ABI (56860), table ATTESTATION_REPORT; the bytes of a TCB: its table TCB_VERSION; families and
/// models: AMD's Processor Programming References.
fn vcek_paths(report: &[u8; REPORT_LEN]) -> Result<Vec<PathBuf>, FolderError> {
    let version = bytes::<4>(report, 0).map_or(0, u32::from_le_bytes);
    let tcb = bytes::<8>(report, 0x180).unwrap_or_default();
    let [family, model] = bytes::<2>(report, 0x188).unwrap_or_default();
    let chip = bytes::<64>(report, 0x1a0).unwrap_or([0; 64]);
    let chip_short = bytes::<8>(report, 0x1a0).unwrap_or_default();
    let [bootloader, tee, _, _, _, _, snp, microcode] = tcb;
    let older = format!("{bootloader:02}-{tee:02}-{snp:02}-{microcode:02}.der");
    let path =
        |product: &str, chip: &[u8], name: &str| Path::new("amd").join(product).join(hex::encode(chip)).join(name);
    let paths = match (version, family, model) {
        (0..=2, _, _) => vec![path("Milan", &chip, &older), path("Genoa", &chip, &older)],
        (_, 0x19, 0x00..=0x0f) => vec![path("Milan", &chip, &older)],
        (_, 0x19, 0x10..=0x1f | 0xa0..=0xaf) => vec![path("Genoa", &chip, &older)],
        (_, 0x1a, 0x00..=0x11) => {
            let [fmc, bootloader, tee, snp, _, _, _, microcode] = tcb;
            let name = format!("{fmc:02}-{bootloader:02}-{tee:02}-{snp:02}-{microcode:02}.der");
            vec![path("Turin", &chip_short, &name)]
        }
        (_, family, model) => return Err(FolderError::Product { family, model }),
    };
    Ok(paths)
}

/// `N` bytes at `at`.
pub(crate) fn bytes<const N: usize>(report: &[u8], at: usize) -> Option<[u8; N]> {
    report.get(at..)?.first_chunk::<N>().copied()
}

fn read(path: &Path, max: usize, wanted: &'static str) -> Result<Vec<u8>, FolderError> {
    let failed = |source: io::Error| {
        let path = path.to_owned();
        if source.kind() == ErrorKind::NotFound {
            FolderError::Missing { wanted, path }
        } else {
            FolderError::Read { path, source }
        }
    };
    let mut bytes = Vec::new();
    let limit = max.saturating_add(1) as u64;
    File::open(path)
        .map_err(failed)?
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > max {
        return Err(FolderError::Content(path.to_owned()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(version: u8, family: u8, model: u8) -> [u8; REPORT_LEN] {
        let mut report = [0; REPORT_LEN];
        report[0] = version;
        report[0x180..0x188].copy_from_slice(&[1, 2, 3, 4, 0, 0, 8, 115]);
        report[0x188] = family;
        report[0x189] = model;
        report[0x1a0..0x1e0].fill(0xcd);
        report
    }

    #[test]
    fn a_certificate_is_found_by_chip_and_tcb() {
        let dir = tempfile::tempdir().unwrap();
        let chip = "cd".repeat(64);
        let turin = "cd".repeat(8);
        for (made, name) in [
            (report(2, 0, 0), format!("amd/Genoa/{chip}/01-02-08-115.der")),
            (report(3, 0x19, 1), format!("amd/Milan/{chip}/01-02-08-115.der")),
            (report(5, 0x19, 0xa0), format!("amd/Genoa/{chip}/01-02-08-115.der")),
            (report(5, 0x1a, 2), format!("amd/Turin/{turin}/01-02-03-04-115.der")),
        ] {
            let path = dir.path().join(&name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &name).unwrap();
            assert_eq!(vcek(Some(dir.path()), &made).unwrap(), name.as_bytes());
            std::fs::remove_file(&path).unwrap();
            let error = vcek(Some(dir.path()), &made).unwrap_err().to_string();
            assert!(
                error.contains("cloister collateral fetch") && error.contains(&name),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = vcek(None, &report(3, 0x19, 1)).unwrap_err().to_string();
        assert!(error.contains("tee.collateral"), "{error}");
        let error = vcek(Some(dir.path()), &report(3, 0x18, 1)).unwrap_err();
        assert!(
            matches!(error, FolderError::Product { family: 0x18, model: 1 }),
            "{error}"
        );
        let [path] = vcek_paths(&report(3, 0x19, 1)).unwrap().try_into().unwrap();
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, vec![0; MAX_VEK_LEN + 1]).unwrap();
        let error = vcek(Some(dir.path()), &report(3, 0x19, 1)).unwrap_err();
        assert!(matches!(error, FolderError::Content(_)), "{error}");
    }

    #[test]
    fn collateral_is_found_by_platform() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("intel/00806f050000/platform.json");
        let find = || collateral(Some(dir.path()), &[0, 0x80, 0x6f, 5, 0, 0], "platform");
        assert!(matches!(find(), Err(FolderError::Missing { .. })));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(find().unwrap(), "{}");
        std::fs::write(&path, [0xff]).unwrap();
        assert!(matches!(find(), Err(FolderError::Content(_))));
    }
}
