//! What the tests share.

use std::{env, fs, path::PathBuf};

use cloister_enclave_openai::{
    ApiError, Context, Dialect, Endpoint, EngineRequest, FilterOptions, ResponseFilter, Summary, sanitize,
};
use serde_json::Value;

pub(crate) const MODEL: &str = "served-model";

pub(crate) fn context(dialect: Dialect) -> Context<'static> {
    Context {
        dialect,
        served_model: MODEL,
        vision: true,
        cache_salt: Some("salt-of-the-enclave"),
    }
}

pub(crate) fn request(endpoint: Endpoint, dialect: Dialect, body: &Value) -> Result<EngineRequest, ApiError> {
    sanitize(endpoint, body.to_string().as_bytes(), &context(dialect))
}

/// The filter of a request that is known to pass.
pub(crate) fn filter(endpoint: Endpoint, dialect: Dialect, body: &Value) -> ResponseFilter {
    request(endpoint, dialect, body)
        .unwrap()
        .response_filter(200, FilterOptions::default())
}

/// Everything through a filter in pieces of `size` bytes.
pub(crate) fn run(filter: &mut ResponseFilter, bytes: &[u8], size: usize) -> (String, Result<Summary, ApiError>) {
    let mut out = Default::default();
    for piece in bytes.chunks(size) {
        if let Err(error) = filter.push(piece, &mut out) {
            return (String::from_utf8(out.to_vec()).unwrap(), Err(error));
        }
    }
    let end = filter.finish(&mut out);
    (String::from_utf8(out.to_vec()).unwrap(), end)
}

pub(crate) fn testdata(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Compares with a golden file, or writes it when `CLOISTER_UPDATE_GOLDEN` is set.
pub(crate) fn golden(name: &str, actual: &str) {
    let path = folder().join("golden").join(name);
    if env::var_os("CLOISTER_UPDATE_GOLDEN").is_some() {
        fs::write(&path, actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(actual, expected, "{name}");
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata")
}
