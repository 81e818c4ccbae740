//! `cloister receipt`

use super::tenant::rfc3339;
use crate::args::ReceiptCommand;
use crate::output::{CHECK_FAILED, Failed, Printer};
use cloister_attestation::Tee;
use cloister_client::receipts::{ReceiptFileError, VerifiedReceipt, verify_file};
use cloister_client::run;
use cloister_session::receipt::Outcome;
use serde_json::{Value, json};
use std::fmt::Write;

pub(crate) fn run(command: &ReceiptCommand, printer: &Printer) -> Result<(), Failed> {
    let ReceiptCommand::Verify { file, policy } = command;
    let policy = run::policy(policy).map_err(Failed::unusable)?;
    let verified = verify_file(file, &policy).map_err(|error| match error {
        ReceiptFileError::File(_) => Failed::unusable(error),
        refused => Failed {
            code: CHECK_FAILED,
            message: Some(format!("REFUSED: {refused}")),
        },
    })?;
    printer.result(&text(&verified), &as_json(&verified));
    Ok(())
}

fn text(verified: &VerifiedReceipt) -> String {
    let VerifiedReceipt { receipt, attestation } = verified;
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        // Writing to a string has no error.
        let _ = writeln!(text, "{name:<18}{value}");
    };
    line("receipt", &"VALID: signed by an enclave that the policy accepts");
    line("TEE", &attestation.tee().label());
    if attestation.tee() == Tee::Simulated {
        line(
            "",
            &"A SIMULATED TEE protects nothing: this receipt proves nothing about hardware.",
        );
    }
    line("trust tier", &attestation.tier());
    line("issued", &rfc3339(receipt.issued_at.0));
    line("outcome", &outcome(receipt.outcome));
    line("enclave", &receipt.enclave_id);
    line("measurement", &attestation.measurement());
    line(
        "model",
        &format_args!("{} ({})", attestation.workload().served_model_name, receipt.model),
    );
    line("workload", &receipt.workload);
    line(
        "epoch",
        &format_args!(
            "{} of boot {}, answer {}",
            receipt.epoch, receipt.boot_id, receipt.sequence
        ),
    );
    line("tenants in epoch", &receipt.distinct_tenants);
    line("tenant", &receipt.tenant_id);
    line("request", &receipt.request_id);
    line("request hash", &receipt.request_hash);
    line("response hash", &receipt.response_hash);
    line("tokens at most", &receipt.usage_bucket);
    line("stated policy", &receipt.policy);
    line("scrub proof", &receipt.scrub_proof);
    if receipt.gpu_checked_at.0 > 0 {
        line("GPUs checked", &rfc3339(receipt.gpu_checked_at.0));
    }
    text
}

fn as_json(verified: &VerifiedReceipt) -> Value {
    let VerifiedReceipt { receipt, attestation } = verified;
    json!({
        "valid": true,
        "tee": attestation.tee(),
        "teeLabel": attestation.tee().label(),
        "tier": attestation.tier().to_string(),
        "issuedAt": receipt.issued_at.0,
        "outcome": outcome(receipt.outcome),
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

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Complete => "complete",
        Outcome::Error => "error",
    }
}
