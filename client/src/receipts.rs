//! Receipts: kept beside the evidence for the enclave that signed them, and verified again later, by anyone.
//!
//! Two files: `receipt-<time>-<random>.json` names its evidence file, `evidence-<digest>.json`, which many receipts share.
//! Neither holds content: hashes stand for the request and the answer.

use crate::clock;
use crate::files::{self, FileError};
use crate::relying::Attested;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cloister_attestation::evidence::MAX_EVIDENCE_LEN;
use cloister_attestation::{
    AppraisalPolicy, AttestationResult, Endorsements, Evidence, EvidenceError, Refusal, Sha256Digest, Tee, UnixTime,
    appraise,
};
use cloister_session::opener::Ended;
use cloister_session::receipt::{Outcome, Receipt, ReceiptError, SignedReceipt};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// Largest receipt file, bytes: a receipt is at most 2 KiB and is there twice.
pub const MAX_RECEIPT_FILE: usize = 16 * 1024;
/// Largest evidence file, bytes.
pub const MAX_EVIDENCE_FILE: usize = 2 * MAX_EVIDENCE_LEN;

const VERSION: u8 = 1;

/// A directory of receipts.
pub struct ReceiptStore {
    directory: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReceiptFile {
    version: u8,
    /// The signed receipt, base64.
    receipt: String,
    /// The same as COSE_Sign1, base64, for other tools.
    cose: String,
    /// Copies for people; the signed receipt is what counts, and others are refused.
    request_hash: Sha256Digest,
    response_hash: Sha256Digest,
    /// Name of the evidence file, in the same directory.
    evidence: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EvidenceFile {
    version: u8,
    /// The nonce that this party chose.
    nonce: Sha256Digest,
    /// When it appraised the evidence, Unix seconds.
    appraised_at: u64,
    /// The evidence as served, base64: its bytes are what is verified.
    evidence: String,
}

/// A receipt that holds, with the enclave behind it.
pub struct VerifiedReceipt {
    /// What the enclave signed.
    pub receipt: Receipt,
    /// What its evidence proves under the policy, at the time of the receipt.
    pub attestation: AttestationResult,
    /// The receipt as signed, for [`SignedReceipt::to_cose`].
    pub signed: SignedReceipt,
}

/// Why a receipt proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptFileError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not in its format.
    #[error("{path}: not {what}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
    },
    /// The evidence file is not in its format.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// The policy refuses the enclave.
    #[error("the policy refuses the enclave: {0}")]
    Refused(#[from] Refusal),
    /// The receipt is not signed by the enclave of the evidence.
    #[error("{0}")]
    Receipt(#[from] ReceiptError),
    /// The file says something else beside the receipt than the receipt itself.
    #[error("{path}: {field} is not that of the signed receipt: the file was changed")]
    Edited {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
    },
    /// The evidence is not what its file is named after.
    #[error("{path}: not what it is named after: the file was changed")]
    EditedEvidence {
        /// The file.
        path: PathBuf,
    },
    /// The receipt speaks of another enclave than the evidence.
    #[error("the receipt names another enclave, boot, workload, model or TEE than the evidence proves")]
    OtherEnclave,
    /// The evidence had run out, or was not there yet, when the receipt was signed.
    #[error(
        "the evidence was appraised at {appraised_at} and holds until {expires_at}, but the receipt was signed at {issued_at}"
    )]
    Stale {
        /// Time of the appraisal.
        appraised_at: UnixTime,
        /// Its end.
        expires_at: UnixTime,
        /// Time in the receipt.
        issued_at: UnixTime,
    },
}

/// Seconds by which the clocks of client and enclave may differ.
const CLOCK_SKEW: u64 = cloister_session::limits::MAX_CLOCK_SKEW;

// === impl ReceiptStore ===

impl ReceiptStore {
    /// Uses a directory, which is made when it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn open(directory: &Path) -> Result<Self, FileError> {
        files::create_private_dir(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// Keeps a receipt and, once, the evidence for its enclave.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn save(&self, ended: &Ended, attested: &Attested) -> Result<(), FileError> {
        let receipt = &ended.receipt;
        let evidence = evidence_file(attested);
        let name = evidence_name(evidence.as_bytes());
        match files::create_secret(&self.directory.join(&name), evidence.as_bytes()) {
            Ok(()) | Err(FileError::Exists(_)) => {}
            Err(error) => return Err(error),
        }
        let file = ReceiptFile {
            version: VERSION,
            receipt: STANDARD.encode(ended.signed.to_bytes()),
            cose: STANDARD.encode(ended.signed.to_cose()),
            request_hash: receipt.request_hash,
            response_hash: receipt.response_hash,
            evidence: name,
        };
        // Not the request id: file names are seen by more eyes than files.
        let name = format!(
            "receipt-{}-{}.json",
            receipt.issued_at,
            hex::encode(crate::random::bytes::<8>())
        );
        files::create_secret(&self.directory.join(name), to_json(&file).as_bytes())
    }
}

/// Verifies a saved receipt: that all that the files repeat is the same, the evidence under the policy at the time of its appraisal, the receipt's signature by the enclave
/// that the evidence proves, that both speak of the same enclave, and that the evidence held when the receipt was signed.
///
/// Who keeps the files could have chosen an old nonce, so the receipt convinces a third party only as far as that party
/// believes the time in the evidence's certificates.
///
/// # Errors
///
/// See [`ReceiptFileError`].
pub fn verify_file(path: &Path, policy: &AppraisalPolicy) -> Result<VerifiedReceipt, ReceiptFileError> {
    let format = |path: &Path, what| ReceiptFileError::Format {
        path: path.to_owned(),
        what,
    };
    let bytes = files::read_public(path, MAX_RECEIPT_FILE)?;
    let file: ReceiptFile = from_json(&bytes).ok_or_else(|| format(path, "a receipt file"))?;
    let signed = STANDARD
        .decode(&file.receipt)
        .ok()
        .and_then(|bytes| SignedReceipt::parse(&bytes).ok())
        .ok_or_else(|| format(path, "a receipt file"))?;
    let evidence_path = beside(path, &file.evidence).ok_or_else(|| format(path, "a receipt file"))?;
    let bytes = files::read_public(&evidence_path, MAX_EVIDENCE_FILE)?;
    if evidence_name(&bytes) != file.evidence {
        return Err(ReceiptFileError::EditedEvidence { path: evidence_path });
    }
    let side: EvidenceFile = from_json(&bytes).ok_or_else(|| format(&evidence_path, "an evidence file"))?;
    let json = STANDARD
        .decode(&side.evidence)
        .map_err(|_| format(&evidence_path, "an evidence file"))?;
    let evidence = Evidence::from_json(&json)?;
    let appraised_at = UnixTime(side.appraised_at);
    let attestation = appraise(
        &evidence,
        side.nonce.as_bytes(),
        appraised_at,
        policy,
        &Endorsements::default(),
    )?;
    let receipt = signed.verify(attestation.identity_key())?;
    check_copies(path, &file, &signed, &receipt)?;
    check_same(&receipt, &attestation)?;
    Ok(VerifiedReceipt {
        receipt,
        attestation,
        signed,
    })
}

/// People and other tools read the copies: they are of what was signed.
fn check_copies(
    path: &Path,
    file: &ReceiptFile,
    signed: &SignedReceipt,
    receipt: &Receipt,
) -> Result<(), ReceiptFileError> {
    let copies = [
        ("cose", file.cose == STANDARD.encode(signed.to_cose())),
        ("requestHash", file.request_hash == receipt.request_hash),
        ("responseHash", file.response_hash == receipt.response_hash),
    ];
    match copies.into_iter().find(|(_, same)| !same) {
        Some((field, _)) => Err(ReceiptFileError::Edited {
            path: path.to_owned(),
            field,
        }),
        None => Ok(()),
    }
}

fn check_same(receipt: &Receipt, attestation: &AttestationResult) -> Result<(), ReceiptFileError> {
    let workload = attestation.workload();
    let same = receipt.enclave_id == attestation.enclave_id()
        && receipt.boot_id == attestation.boot_id()
        && receipt.tee == attestation.tee()
        && receipt.workload == workload.digest()
        && receipt.model == workload.model;
    if !same {
        return Err(ReceiptFileError::OtherEnclave);
    }
    let (appraised_at, expires_at) = (attestation.appraised_at(), attestation.expires_at());
    // A request may be sealed in the last second of the evidence's life and be answered later.
    let latest = expires_at
        .plus(u64::from(cloister_session::limits::MAX_TTL))
        .plus(CLOCK_SKEW);
    if receipt.issued_at.plus(CLOCK_SKEW) < appraised_at || receipt.issued_at > latest.plus(MAX_ANSWER_SECONDS) {
        return Err(ReceiptFileError::Stale {
            appraised_at,
            expires_at,
            issued_at: receipt.issued_at,
        });
    }
    if receipt.distinct_tenants != 1 {
        return Err(ReceiptError::NotExclusive.into());
    }
    Ok(())
}

/// How the answer ended, in a word.
pub fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Complete => "complete",
        Outcome::Error => "error",
    }
}

/// For people. A SIMULATED TEE is said to be one, and what that means.
impl fmt::Display for VerifiedReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            receipt, attestation, ..
        } = self;
        let mut line = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<18}{value}");
        line("receipt", &"VALID: signed by an enclave that the policy accepts")?;
        line("TEE", &attestation.tee().label())?;
        if attestation.tee() == Tee::Simulated {
            line(
                "",
                &"A SIMULATED TEE protects nothing: this receipt proves nothing about hardware.",
            )?;
        }
        line("trust tier", &attestation.tier())?;
        line("issued", &clock::rfc3339(receipt.issued_at))?;
        line("outcome", &outcome(receipt.outcome))?;
        line("enclave", &receipt.enclave_id)?;
        line("measurement", &attestation.measurement())?;
        line(
            "model",
            &format_args!("{:?} {}", attestation.workload().served_model_name, receipt.model),
        )?;
        line("workload", &receipt.workload)?;
        line(
            "epoch",
            &format_args!(
                "{} of boot {}, answer {}",
                receipt.epoch, receipt.boot_id, receipt.sequence
            ),
        )?;
        line("tenants in epoch", &receipt.distinct_tenants)?;
        line("tenant", &receipt.tenant_id)?;
        line("request", &receipt.request_id)?;
        line("request hash", &receipt.request_hash)?;
        line("response hash", &receipt.response_hash)?;
        line("tokens at most", &receipt.usage_bucket)?;
        line("stated policy", &receipt.policy)?;
        line("scrub proof", &receipt.scrub_proof)?;
        if receipt.gpu_checked_at.0 > 0 {
            line("GPUs checked", &clock::rfc3339(receipt.gpu_checked_at))?;
        }
        Ok(())
    }
}

/// Longest time that an answer takes, seconds.
const MAX_ANSWER_SECONDS: u64 = 3600;

/// Names an evidence file after its content, so that a file of that name never has to be written twice.
fn evidence_name(content: &[u8]) -> String {
    format!("evidence-{}.json", hex::encode(digest(&SHA256, content)))
}

fn evidence_file(attested: &Attested) -> String {
    to_json(&EvidenceFile {
        version: VERSION,
        nonce: Sha256Digest::from_bytes(attested.nonce),
        appraised_at: attested.peer.result().appraised_at().0,
        evidence: STANDARD.encode(&attested.evidence),
    })
}

/// A file of this name in the same directory; names with a path in them are refused.
fn beside(path: &Path, name: &str) -> Option<PathBuf> {
    let plain = Path::new(name).file_name()? == name;
    plain.then(|| path.with_file_name(name))
}

/// Strings and numbers: serialising them has no error.
fn to_json<T: Serialize>(value: &T) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

fn from_json<T: for<'de> Deserialize<'de> + Versioned>(bytes: &[u8]) -> Option<T> {
    serde_json::from_slice(bytes)
        .ok()
        .filter(|file: &T| file.version() == VERSION)
}

trait Versioned {
    fn version(&self) -> u8;
}

impl Versioned for ReceiptFile {
    fn version(&self) -> u8 {
        self.version
    }
}

impl Versioned for EvidenceFile {
    fn version(&self) -> u8 {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_only_read_from_the_same_directory() {
        let path = Path::new("/receipts/receipt-1.json");
        assert_eq!(
            beside(path, "evidence-2.json"),
            Some("/receipts/evidence-2.json".into())
        );
        for name in ["", ".", "..", "/etc/passwd", "../x", "a/b"] {
            assert_eq!(beside(path, name), None, "{name:?}");
        }
    }
}
