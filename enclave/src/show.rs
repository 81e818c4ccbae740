//! What `cloister-enclave attest` and `cloister-enclave doctor` print of a machine. Neither starts an engine or makes a key.

use cloister_attestation::{EnclaveId, bundle::Bundle};
use cloister_enclave_attester::{Attester, AttesterError, GpuError, Gpus};
use serde_json::{Value, json};

use crate::{
    config::Config,
    machine::{self, MachineError},
};

/// K of evidence that is of a machine only, not of an enclave on it: zeros, which no enclave has.
const NO_ENCLAVE: EnclaveId = EnclaveId::from_bytes([0; 32]);

/// Evidence over `nonce` of the machine that `config` describes, as `cloister appraise --nonce` looks at it.
///
/// # Errors
/// [`MachineError`].
pub fn attest(config: &Config, measurement: [u8; 48], nonce: &[u8; 32]) -> Result<Bundle, MachineError> {
    let machine = machine::open(config, measurement)?;
    Ok(machine.look(nonce)?.into_bundle(nonce))
}

/// What is seen of the machine, and whether all of it can be used.
pub fn doctor(config: &Config, measurement: [u8; 48]) -> (Value, bool) {
    let machine = match machine::open(config, measurement) {
        Ok(machine) => machine,
        Err(error) => return (json!({ "error": error.to_string() }), false),
    };
    let evidence = machine.evidence(&[0; 32], &NO_ENCLAVE);
    let gpus = machine.gpus().map(|gpus| describe(gpus));
    let usable = evidence.is_ok()
        && gpus
            .as_ref()
            .is_none_or(|gpus| gpus.as_ref().is_ok_and(|(_, usable)| *usable));
    let seen = json!({
        "tee": machine.tee().label(),
        "evidence": words(&evidence.map(|_| ())),
        "gpus": gpus.map(|gpus| gpus.map_or_else(|error| json!({ "error": error.to_string() }), |(seen, _)| seen)),
    });
    (seen, usable)
}

fn describe(gpus: &Gpus) -> Result<(Value, bool), GpuError> {
    let state = gpus.state()?;
    let list: Vec<Value> = gpus
        .list()?
        .into_iter()
        .map(|gpu| json!({ "uuid": gpu.uuid, "name": gpu.name, "arch": gpu.arch }))
        .collect();
    let fit = state.check();
    let seen = json!({
        "driver": gpus.driver()?,
        "list": list,
        "confidentialComputing": state.confidential,
        "devTools": state.devtools,
        "ready": state.ready,
        "production": state.production,
        "protectedPcie": state.protected_pcie,
        "state": fit.as_ref().map_or_else(ToString::to_string, |()| "ok".to_owned()),
    });
    Ok((seen, fit.is_ok()))
}

fn words(result: &Result<(), AttesterError>) -> String {
    result.as_ref().map_or_else(ToString::to_string, |()| "ok".to_owned())
}
