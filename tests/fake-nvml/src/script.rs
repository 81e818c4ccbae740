//! How the library behaves: `fake-nvml.txt` in the library's own folder, or the file that `CLOISTER_FAKE_NVML` names. One word
//! and its values a line:
//!
//! ```text
//! gpu UUID hopper|blackwell|NUMBER REPORT CHAIN    a GPU; its report in hex and its chain in PEM, by file
//! driver VERSION                                   version of the driver
//! count NUMBER                                     says so many GPUs, whatever there are
//! ready|feature|environment|devtools|multigpu N    the states, by NVML's numbers
//! verbatim                                         reports keep the nonce that they were made for
//! fail FUNCTION CODE                               the function answers this code
//! length FUNCTION|cec N                            the function gives this length, whatever it wrote
//! ```
//!
//! What is not said is as on a machine that is ready: CC on, production, DevTools off.

use std::collections::BTreeMap;
use std::ffi::{OsString, c_uint};
use std::path::{Path, PathBuf};
use std::{env, fs};

use nvml_wrapper_sys::bindings::nvmlReturn_t;

/// NVML's code for a library that is not what it should be.
const UNKNOWN: nvmlReturn_t = 999;

/// A GPU.
pub(crate) struct Gpu {
    pub(crate) uuid: String,
    pub(crate) architecture: c_uint,
    pub(crate) report: Vec<u8>,
    pub(crate) chain: Vec<u8>,
}

/// What the file says.
pub(crate) struct Script {
    pub(crate) gpus: Vec<Gpu>,
    pub(crate) driver: String,
    pub(crate) count: Option<c_uint>,
    pub(crate) ready: c_uint,
    pub(crate) feature: c_uint,
    pub(crate) environment: c_uint,
    pub(crate) devtools: c_uint,
    pub(crate) multigpu: c_uint,
    pub(crate) verbatim: bool,
    failures: BTreeMap<String, nvmlReturn_t>,
    lengths: BTreeMap<String, c_uint>,
}

impl Script {
    /// Reads the file anew.
    pub(crate) fn read() -> Result<Self, nvmlReturn_t> {
        let path = path().ok_or(UNKNOWN)?;
        let text = fs::read_to_string(&path).map_err(|_| UNKNOWN)?;
        let mut script = Self {
            gpus: Vec::new(),
            driver: "545.00".to_owned(),
            count: None,
            ready: 1,
            feature: 1,
            environment: 2,
            devtools: 0,
            multigpu: 0,
            verbatim: false,
            failures: BTreeMap::new(),
            lengths: BTreeMap::new(),
        };
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            script.line(&path, &words).ok_or(UNKNOWN)?;
        }
        Ok(script)
    }

    fn line(&mut self, path: &Path, words: &[&str]) -> Option<()> {
        match words {
            [] => {}
            ["gpu", uuid, architecture, report, chain] => {
                let file = |name: &str| fs::read(path.with_file_name(name)).ok();
                let report: String = String::from_utf8(file(report)?).ok()?.split_whitespace().collect();
                self.gpus.push(Gpu {
                    uuid: (*uuid).to_owned(),
                    architecture: match *architecture {
                        "hopper" => 9,
                        "blackwell" => 10,
                        number => number.parse().ok()?,
                    },
                    report: hex::decode(report).ok()?,
                    chain: file(chain)?,
                });
            }
            ["driver", version] => self.driver = (*version).to_owned(),
            ["count", number] => self.count = Some(number.parse().ok()?),
            ["ready", number] => self.ready = number.parse().ok()?,
            ["feature", number] => self.feature = number.parse().ok()?,
            ["environment", number] => self.environment = number.parse().ok()?,
            ["devtools", number] => self.devtools = number.parse().ok()?,
            ["multigpu", number] => self.multigpu = number.parse().ok()?,
            ["verbatim"] => self.verbatim = true,
            ["fail", function, code] => {
                self.failures.insert((*function).to_owned(), code.parse().ok()?);
            }
            ["length", function, length] => {
                self.lengths.insert((*function).to_owned(), length.parse().ok()?);
            }
            _ => return None,
        }
        Some(())
    }

    /// The code that `function` has to answer.
    pub(crate) fn failure(&self, function: &str) -> Option<nvmlReturn_t> {
        self.failures.get(function).copied()
    }

    /// The length that `function` has to give.
    pub(crate) fn length(&self, function: &str) -> Option<c_uint> {
        self.lengths.get(function).copied()
    }
}

fn path() -> Option<PathBuf> {
    if let Some(path) = env::var_os("CLOISTER_FAKE_NVML") {
        return Some(path.into());
    }
    Some(own_library()?.with_file_name("fake-nvml.txt"))
}

/// File that this code was loaded from: the one mapped at its address.
fn own_library() -> Option<PathBuf> {
    let here = (crate::nvmlInit_v2 as extern "C" fn() -> nvmlReturn_t as *const ()).addr();
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let address = |text: &str| usize::from_str_radix(text, 16).ok();
        if !(address(start)?..address(end)?).contains(&here) {
            return None;
        }
        Some(OsString::from(rest.get(rest.find('/')?..)?).into())
    })
}
