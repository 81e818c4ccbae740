//! What `cloister appraise` reads, with words that say which file and where in it.

use std::fmt::Display;
use std::io::Read;
use std::path::Path;

use crate::output::{Failed, WRONG_INPUT};
use cloister_attestation::UnixTime;
use cloister_attestation::bundle::{Bundle, MAX_BUNDLE_LEN, MAX_NONCE_LEN};
use cloister_attestation::ear::{EarSigner, MAX_KEY_LEN};
use cloister_attestation::evidence::{Evidence, MAX_EVIDENCE_LEN};
use cloister_client::files::{self, FileError};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What is appraised.
pub(super) enum Input {
    /// Evidence of a machine.
    Bundle(Bundle),
    /// That of an enclave, with its identity and workload.
    Evidence(Box<Evidence>),
}

/// Longest input in bytes: the larger of the two kinds.
const MAX_INPUT_LEN: usize = if MAX_BUNDLE_LEN > MAX_EVIDENCE_LEN {
    MAX_BUNDLE_LEN
} else {
    MAX_EVIDENCE_LEN
};

impl Input {
    /// Reads a file, or standard input for `-`.
    pub(super) fn read(path: &Path) -> Result<Self, Failed> {
        let (name, bytes) = if path == Path::new("-") {
            let mut bytes = Vec::new();
            std::io::stdin()
                .lock()
                .take(MAX_INPUT_LEN as u64 + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| wrong("standard input", error))?;
            ("standard input".to_owned(), bytes)
        } else {
            let bytes = files::read_public(path, MAX_INPUT_LEN).map_err(unreadable)?;
            (path.display().to_string(), bytes)
        };
        Self::parse(&bytes).map_err(|error| wrong(&name, error))
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MAX_INPUT_LEN {
            return Err(format!("longer than {MAX_INPUT_LEN} bytes"));
        }
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(
                "not a JSON object: a bundle is one, with \"cpu\" or \"devices\"; a report or a quote on its own, \
                 raw, in hex, base64 or PEM, is not read: put it into a bundle"
                    .to_owned(),
            );
        }
        // Only to tell the two kinds apart: each is then parsed strictly.
        let is_evidence = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(bytes)
            .is_ok_and(|object| object.contains_key("identity_spki") || object.contains_key("bundle"));
        if is_evidence {
            let evidence = Evidence::from_json(bytes).map_err(|error| error.to_string())?;
            return Ok(Self::Evidence(Box::new(evidence)));
        }
        Bundle::from_json(bytes)
            .map(Self::Bundle)
            .map_err(|error| error.to_string())
    }

    /// The evidence of the machine.
    pub(super) fn bundle(&self) -> &Bundle {
        match self {
            Self::Bundle(bundle) => bundle,
            Self::Evidence(evidence) => &evidence.bundle,
        }
    }
}

/// A time as RFC 3339 from 1970 on.
pub(super) fn time(text: &str) -> Result<UnixTime, Failed> {
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .and_then(|time| u64::try_from(time.unix_timestamp()).ok())
        .map(UnixTime)
        .ok_or_else(|| {
            wrong(
                "--now",
                "not a time as in RFC 3339 from 1970 on, such as 2026-01-01T00:00:00Z",
            )
        })
}

/// A nonce as hex digits.
pub(super) fn nonce(text: &str) -> Result<Vec<u8>, Failed> {
    hex::decode(text)
        .ok()
        .filter(|nonce| (1..=MAX_NONCE_LEN).contains(&nonce.len()))
        .ok_or_else(|| wrong("--nonce", format!("not 1 to {MAX_NONCE_LEN} bytes as hex digits")))
}

/// The key that signs results.
pub(super) fn signer(path: &Path) -> Result<EarSigner, Failed> {
    let pem = match files::read_secret(path, MAX_KEY_LEN) {
        Err(FileError::TooOpen { .. }) => {
            eprintln!(
                "warning: {}: others can read this private key: chmod 600 it",
                path.display()
            );
            files::read_public(path, MAX_KEY_LEN).map(Into::into)
        }
        read => read,
    };
    EarSigner::from_pem(&pem.map_err(unreadable)?).map_err(|error| wrong(&path.display().to_string(), error))
}

/// An input that is not what it should be, and where.
pub(super) fn wrong(place: &str, error: impl Display) -> Failed {
    Failed {
        code: WRONG_INPUT,
        message: Some(format!("{place}: {error}")),
    }
}

/// A file that cannot be read; the error says which.
pub(super) fn unreadable(error: impl Display) -> Failed {
    Failed {
        code: WRONG_INPUT,
        message: Some(error.to_string()),
    }
}
