//! What a verifier takes of a store, and what a bundle leaves to it.

use super::expiry::{Listing, State};
use super::name::{Entry, Product};
use super::need::{self, BundleError, Need};
use super::rims::RimFile;
use super::store::{Store, StoreError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// Everything of a store that does not belong to one piece of evidence: bytes that nobody has verified.
#[derive(Debug, Default)]
pub struct Gathered {
    /// RIM documents.
    pub rims: Vec<RimFile>,
    /// OCSP responses.
    pub statuses: Vec<Vec<u8>>,
    /// AMD's revocation lists.
    pub amd_crls: Vec<(Product, Vec<u8>)>,
    /// Files that cannot be read, each with the reason.
    pub errors: Vec<(String, String)>,
}

/// A bundle that cannot be completed.
#[derive(Debug, thiserror::Error)]
pub enum CompleteError {
    /// It is none.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store does not have it.
    #[error("{0} is neither in the bundle nor in the store: run `cloister collateral fetch --for` with this bundle")]
    Absent(String),
    /// The store has something else.
    #[error("{name}: {reason}: run `cloister collateral fetch --for` with this bundle")]
    Unusable {
        /// The file.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

impl Store {
    /// Reads everything. One file's trouble does not hide the others.
    ///
    /// # Errors
    ///
    /// The store cannot be listed.
    pub fn gather(&self) -> Result<Gathered, StoreError> {
        let mut gathered = Gathered::default();
        for entry in self.list()? {
            let name = entry.to_string();
            match self.read(&entry) {
                Ok(Some(bytes)) => gathered.add(&entry, bytes),
                // Replaced or removed since it was listed.
                Ok(None) => {}
                Err(error) => gathered.errors.push((name, error.to_string())),
            }
        }
        Ok(gathered)
    }
}

impl Gathered {
    fn add(&mut self, entry: &Entry, bytes: Vec<u8>) {
        let parts: Vec<&str> = entry.parts().iter().map(String::as_str).collect();
        match parts.as_slice() {
            ["nvidia", "rims", name] => self.rims.push(RimFile {
                name: (*name).to_owned(),
                document: bytes,
            }),
            ["nvidia", "ocsp", _] => self.statuses.push(bytes),
            ["amd", product, "crl.der"] => {
                if let Ok(product) = product.parse() {
                    self.amd_crls.push((product, bytes));
                }
            }
            _ => {}
        }
    }
}

/// A bundle with the certificate or the collateral that it leaves out, from the store. One that has them is left as it is.
///
/// # Errors
///
/// It is no bundle, or the store does not have what it leaves out.
pub fn complete(store: &Store, json: &[u8], product: Option<Product>) -> Result<Vec<u8>, CompleteError> {
    let needs = need::of_bundle(json, product)?;
    let mut bundle: Value = serde_json::from_slice(json).map_err(BundleError::from)?;
    let Some(cpu) = bundle.get_mut("cpu").and_then(Value::as_object_mut) else {
        return Ok(json.to_vec());
    };
    let (field, wanted) = match cpu.get("tee").and_then(Value::as_str) {
        Some("snp") => ("vek", needs.into_iter().find(|need| matches!(need, Need::Vcek { .. }))),
        Some("tdx") => (
            "collateral",
            needs.into_iter().find(|need| matches!(need, Need::Intel { .. })),
        ),
        _ => return Ok(json.to_vec()),
    };
    let (Some(need), false) = (wanted, cpu.contains_key(field)) else {
        return Ok(json.to_vec());
    };
    let absent = || CompleteError::Absent(need.to_string());
    let entry = need.entry().map_err(|_| absent())?;
    let bytes = store.read(&entry)?.ok_or_else(absent)?;
    let value = if field == "vek" {
        Value::String(STANDARD.encode(bytes))
    } else {
        serde_json::from_slice(&bytes).map_err(|error| CompleteError::Unusable {
            name: entry.to_string(),
            reason: error.to_string(),
        })?
    };
    cpu.insert(field.to_owned(), value);
    Ok(bundle.to_string().into_bytes())
}

/// In one line, how a store stands: how many files, which do not hold any more, and which is the next to end.
pub fn summary(files: &[Listing]) -> String {
    let bad: Vec<&str> = files
        .iter()
        .filter(|file| !file.is_usable())
        .map(|file| file.name.as_str())
        .collect();
    let count = format!("{} file{}", files.len(), if files.len() == 1 { "" } else { "s" });
    if let Some(first) = bad.first() {
        return format!("{count}, {} expired or unusable, such as {first}", bad.len());
    }
    let next = files
        .iter()
        .filter(|file| file.until.is_some())
        .min_by_key(|file| file.until);
    match next.map(|file| (file, file.date().unwrap_or_default())) {
        None => "no files".to_owned(),
        Some((file, date)) if file.state == State::Soon => format!("{count}; {} ends soon, at {date}", file.name),
        Some((_, date)) => format!("{count}, all good until {date}"),
    }
}
