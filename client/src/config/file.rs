//! The file's own form: every key optional, none unknown.

use super::{ConfigError, MAX_CONFIG_BYTES};
use crate::files;
use cloister_attestation::ModelDigest;
use cloister_session::TenantId;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct ConfigFile {
    pub(super) listen: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) ca: Option<PathBuf>,
    pub(super) cluster_id: Option<String>,
    pub(super) credential: Option<PathBuf>,
    pub(super) member_key: Option<PathBuf>,
    pub(super) outer_token: Option<PathBuf>,
    pub(super) policy: Option<PathBuf>,
    pub(super) policy_root: Option<TenantId>,
    pub(super) models: BTreeMap<String, Digests>,
    pub(super) api_keys: Option<PathBuf>,
    pub(super) receipts: Option<PathBuf>,
    pub(super) collateral: Option<PathBuf>,
    pub(super) candidates: Option<usize>,
    pub(super) max_in_flight: Option<usize>,
    pub(super) timeouts: TimeoutKeys,
    pub(super) retries: RetryKeys,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct TimeoutKeys {
    pub(super) connect_seconds: Option<u64>,
    pub(super) queue_seconds: Option<u64>,
    pub(super) first_byte_seconds: Option<u64>,
    pub(super) idle_seconds: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RetryKeys {
    pub(super) attempts: Option<u32>,
    pub(super) base_millis: Option<u64>,
    pub(super) max_millis: Option<u64>,
    pub(super) after_execution: Option<bool>,
}

/// One digest, or a list of them while a model is being replaced.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Digests {
    One(ModelDigest),
    Several(Vec<ModelDigest>),
}

impl From<Digests> for Vec<ModelDigest> {
    fn from(digests: Digests) -> Self {
        match digests {
            Digests::One(digest) => vec![digest],
            Digests::Several(digests) => digests,
        }
    }
}

impl ConfigFile {
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let bytes = files::read_public(path, MAX_CONFIG_BYTES)?;
        let mut file: Self = serde_norway::from_slice(&bytes).map_err(|source| ConfigError::Yaml {
            path: path.to_owned(),
            source,
        })?;
        let base = path.parent().unwrap_or(Path::new(""));
        let paths = [
            &mut file.ca,
            &mut file.credential,
            &mut file.member_key,
            &mut file.outer_token,
            &mut file.policy,
            &mut file.api_keys,
            &mut file.receipts,
            &mut file.collateral,
        ];
        for path in paths.into_iter().flatten() {
            // An absolute path replaces the base.
            *path = base.join(&*path);
        }
        Ok(file)
    }
}
