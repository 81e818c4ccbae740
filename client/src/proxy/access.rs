//! Who may call the proxy.

use crate::failure::{Code, Failure};
use crate::files::{self, FileError};
use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::Request;
use http::header::{AUTHORIZATION, HOST, HeaderMap};
use std::net::IpAddr;
use std::path::Path;
use subtle::{Choice, ConstantTimeEq};

/// Keys in one file.
const MAX_KEYS: usize = 1024;
/// Length of one key, bytes.
const MAX_KEY_BYTES: usize = 512;
/// Length of the file, bytes.
const MAX_FILE_BYTES: usize = 64 * 1024;

/// The keys that clients may present, as hashes.
pub struct ApiKeys {
    hashes: Vec<[u8; 32]>,
}

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read, or others can read it.
    #[error(transparent)]
    File(#[from] FileError),
    /// It holds no keys, or too many, or something that is not a key.
    #[error("{path}: line {line}: {reason}")]
    Content {
        /// The file.
        path: String,
        /// Counted from 1; 0 for the file as a whole.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
}

impl ApiKeys {
    /// Reads one key a line; empty lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    ///
    /// The file is unreadable, readable by others, or holds no usable key: an empty file must not mean that anyone may call.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let text = files::read_secret(path, MAX_FILE_BYTES)?;
        let refuse = |line, reason| KeyFileError::Content {
            path: path.display().to_string(),
            line,
            reason,
        };
        let mut hashes = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let key = line.trim_ascii();
            if key.is_empty() || key.starts_with(b"#") {
                continue;
            }
            let number = index.saturating_add(1);
            if key.len() > MAX_KEY_BYTES || !key.iter().all(u8::is_ascii_graphic) {
                return Err(refuse(
                    number,
                    "a key is at most 512 printable ASCII characters without spaces",
                ));
            }
            if hashes.len() == MAX_KEYS {
                return Err(refuse(number, "more than 1024 keys"));
            }
            hashes.push(hash(key));
        }
        if hashes.is_empty() {
            return Err(refuse(0, "the file holds no key: write one a line"));
        }
        Ok(Self { hashes })
    }

    /// Checks `Authorization: Bearer KEY`.
    ///
    /// # Errors
    ///
    /// No key, or one that is not in the file. The two are told apart, but not by which key, and not by time.
    pub fn admit(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let Some(key) = bearer(headers) else {
            return Err(Failure::new(
                Code::InvalidApiKey,
                "this proxy needs an API key: send \"Authorization: Bearer KEY\"",
            ));
        };
        let presented = hash(key);
        let found = self
            .hashes
            .iter()
            .fold(Choice::from(0), |found, known| found | known.ct_eq(&presented));
        if bool::from(found) {
            Ok(())
        } else {
            Err(Failure::new(
                Code::InvalidApiKey,
                "this API key is not in the proxy's key file",
            ))
        }
    }
}

/// Without keys only programs of this machine may call, and no web page: a page in a local browser can send requests here
/// under a name of its own that resolves to a loopback address, and the `Host` header shows it.
///
/// # Errors
///
/// `Host` is missing or is neither `localhost` nor a loopback address.
pub(super) fn admit_local(request: &Request) -> Result<(), Failure> {
    let host = request
        .headers()
        .get(HOST)
        .and_then(|value| value.to_str().ok())
        .or_else(|| request.uri().host())
        .unwrap_or_default();
    if is_loopback(host) {
        return Ok(());
    }
    Err(Failure::new(
        Code::ForbiddenHost,
        "without API keys the proxy answers only to localhost and loopback addresses: use http://127.0.0.1 or configure apiKeys",
    ))
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked(7)?;
    (scheme.eq_ignore_ascii_case(b"bearer ")).then(|| key.trim_ascii())
}

fn hash(key: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, key).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::create_secret;

    fn headers(value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn only_known_keys_are_admitted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        create_secret(&path, b"# ours\nsk-one\n\n  sk-two  \n").unwrap();
        let keys = ApiKeys::load(&path).unwrap();
        assert!(keys.admit(&headers("Bearer sk-one")).is_ok());
        assert!(keys.admit(&headers("bearer sk-two")).is_ok());
        for wrong in [
            "Bearer sk-three",
            "Bearer sk-on",
            "Bearer sk-one2",
            "Bearer ",
            "Basic sk-one",
            "sk-one",
            "# ours",
        ] {
            let failure = keys.admit(&headers(wrong)).unwrap_err();
            assert_eq!(failure.code, Code::InvalidApiKey, "{wrong}");
        }
        assert!(keys.admit(&HeaderMap::new()).is_err());
    }

    #[test]
    fn unusable_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [("empty", &b"# nothing\n"[..]), ("spaces", b"a b\n")] {
            let path = dir.path().join(name);
            create_secret(&path, content).unwrap();
            assert!(ApiKeys::load(&path).is_err(), "{name}");
        }
        let open = dir.path().join("open");
        std::fs::write(&open, "sk-one\n").unwrap();
        assert!(matches!(ApiKeys::load(&open), Err(KeyFileError::File(_))));
    }

    #[test]
    fn hosts_of_this_machine() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:8080",
            "127.1.2.3",
            "[::1]:8080",
            "[::1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::2]",
            "::1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
