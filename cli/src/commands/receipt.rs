//! `cloister receipt`

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use crate::args::ReceiptCommand;
use crate::output::{CHECK_FAILED, Failed, Printer, UNUSABLE};
use cloister_client::receipts::{self, ReceiptFileError, VerifiedReceipt, verify_file};
use cloister_client::run;
use serde_json::{Value, json};

pub(crate) fn run(command: &ReceiptCommand, printer: &Printer) -> Result<(), Failed> {
    let ReceiptCommand::Verify { file, policy, cose } = command;
    let policy = run::policy(policy).map_err(Failed::unusable)?;
    let verified = verify_file(file, &policy).map_err(|error| match error {
        ReceiptFileError::File(_) => Failed::unusable(error),
        refused => Failed {
            code: CHECK_FAILED,
            message: Some(format!("REFUSED: {refused}")),
        },
    })?;
    if let Some(path) = cose {
        write_new(path, &verified.signed.to_cose()).map_err(|error| Failed {
            code: UNUSABLE,
            message: Some(format!("cannot write {}: {error}", path.display())),
        })?;
    }
    printer.result(&verified.to_string(), &as_json(&verified));
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)?
        .write_all(bytes)
}

fn as_json(verified: &VerifiedReceipt) -> Value {
    let VerifiedReceipt {
        receipt, attestation, ..
    } = verified;
    json!({
        "valid": true,
        "tee": attestation.tee(),
        "teeLabel": attestation.tee().label(),
        "tier": attestation.tier().to_string(),
        "issuedAt": receipt.issued_at.0,
        "outcome": receipts::outcome(receipt.outcome),
        "enclaveId": receipt.enclave_id,
        "bootId": receipt.boot_id,
        "measurement": attestation.measurement(),
        "servedModelName": attestation.workload().served_model_name,
        "modelDigest": receipt.model,
        "workloadDigest": receipt.workload,
        "epoch": receipt.epoch,
        "sequence": receipt.sequence,
        "distinctTenants": receipt.distinct_tenants,
        "tenantId": receipt.tenant_id,
        "requestId": receipt.request_id,
        "requestHash": receipt.request_hash,
        "responseHash": receipt.response_hash,
        "usageBucket": receipt.usage_bucket,
        "policyHash": receipt.policy,
        "scrubProof": receipt.scrub_proof,
        "gpuCheckedAt": receipt.gpu_checked_at.0,
    })
}
