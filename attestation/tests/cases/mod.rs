//! The cases of `testdata/expected.json`, each as the JSON bundle that a command line would be given.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

/// All that is known of the real evidence.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expected {
    pub(crate) cases: Vec<Case>,
    #[allow(dead_code, reason = "not every user of this module looks at documents alone")]
    pub(crate) rims: Vec<Document>,
}

/// Evidence, when it is looked at, and what must come of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) id: String,
    #[serde(default, rename = "note")]
    _note: Option<String>,
    #[serde(default)]
    cpu: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    devices: Vec<Value>,
    #[serde(default)]
    pub(crate) rims: Vec<PathBuf>,
    pub(crate) now: String,
    #[serde(default)]
    pub(crate) nonce: Option<String>,
    pub(crate) status: String,
    pub(crate) submods: BTreeMap<String, Tiers>,
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// Values of two of AR4SI's claims.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tiers {
    pub(crate) hardware: u64,
    pub(crate) executables: u64,
}

/// One document of reference values.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "not every user of this module looks at documents alone")]
pub(crate) struct Document {
    pub(crate) file: PathBuf,
    pub(crate) now: String,
    pub(crate) valid: bool,
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// Folder of the evidence.
pub(crate) fn testdata() -> PathBuf {
    // Of the package that includes this file, or of its neighbour.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    [here.join("testdata"), here.join("../attestation/testdata")]
        .into_iter()
        .find(|folder| folder.join("expected.json").is_file())
        .unwrap()
}

pub(crate) fn expected() -> Expected {
    serde_json::from_slice(&read("expected.json")).unwrap()
}

pub(crate) fn read(path: impl AsRef<Path>) -> Vec<u8> {
    let path = testdata().join(path);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl Case {
    /// The case as a bundle.
    pub(crate) fn bundle(&self) -> Value {
        let mut bundle = json!({ "devices": self.devices.iter().flat_map(devices).collect::<Vec<_>>() });
        if let Some(cpu) = &self.cpu {
            bundle["cpu"] = cpu
                .iter()
                .map(|(name, value)| (name.clone(), cpu_field(name, value)))
                .collect();
        }
        bundle
    }
}

fn cpu_field(name: &str, value: &Value) -> Value {
    match name {
        "tee" => value.clone(),
        "collateral" => serde_json::from_slice(&read(value.as_str().unwrap())).unwrap(),
        _ => STANDARD.encode(bytes(value)).into(),
    }
}

/// One device, or those of a list as NVIDIA's tools write it.
fn devices(value: &Value) -> Vec<Value> {
    let Some(list) = value.get("file") else {
        let field = |name: &str| STANDARD.encode(bytes(&value[name]));
        return vec![json!({
            "arch": value["arch"],
            "evidence": field("evidence"),
            "certificate": field("certificate"),
        })];
    };
    let list: Vec<Value> = serde_json::from_slice(&read(list.as_str().unwrap())).unwrap();
    let device = |entry: &Value| json!({"arch": entry["arch"], "evidence": entry["evidence"], "certificate": entry["certificate"]});
    list.iter().map(device).collect()
}

/// A file as it is, as hex, a part of it, or a field of its JSON in hex.
fn bytes(value: &Value) -> Vec<u8> {
    let Some(path) = value.as_str() else {
        let whole = read(value["file"].as_str().unwrap());
        if let Some(field) = value["field"].as_str() {
            let json: Value = serde_json::from_slice(&whole).unwrap();
            return hex::decode(json[field].as_str().unwrap()).unwrap();
        }
        let part = |name: &str| usize::try_from(value[name].as_u64().unwrap()).unwrap();
        return whole[part("offset")..][..part("length")].to_vec();
    };
    let whole = read(path);
    if !path.ends_with(".hex") && !path.contains("Report") && !path.contains("report1.txt") {
        return whole;
    }
    let text = String::from_utf8(whole).unwrap();
    let digits = text.trim();
    hex::decode(digits.strip_prefix("0x").unwrap_or(digits)).unwrap()
}
