//! Known answers of everything that is hashed, computed by another implementation (Python, from the documented encodings
//! alone): a change that both ends of a connection would make together is a change of the wire format.

use std::collections::BTreeMap;

use cloister_attestation::binding::{devices_digest, report_data};
use cloister_attestation::{
    BootId, EngineConfinement, IdentityKey, ModelFile, ModelManifest, Sha256Digest, SwitchIsolation, Workload,
    enclave_id,
};

const MODEL: &str = "6c212c69213099a41b258a905563d3c8c000f1295d5c394fba1075ca63249b19";
const WORKLOAD: &str = concat!(
    "aa0065302e312e3001686c6c616d61637070025820030303030303030303030303030303030303030303030303030303",
    "030303030303826a2d2d6374782d73697a65643430393604a3614261326241426131644c414e4761430558206c212c69",
    "213099a41b258a905563d3c8c000f1295d5c394fba1075ca63249b190667736d6f6c6c6d32076a736c6f742d65726173",
    "6508657265736574096466756c6c",
);
const WORKLOAD_DIGEST: &str = "d27c59b01d175b5c2d2e6eacbd28fdce35ca692e101f7fb05179c92a4c8a1dc9";
const ENCLAVE_ID: &str = "5a03ad8756e725e09cad09ddad5bce07ae7f46b8fd8f5a13a3249533baf8ef82";
const REPORT_DATA: &str = concat!(
    "45439d6e0a5469aee0ad49d3881d6d2a9bf8f9d71cbe092a75dc6d2c98b6232c",
    "9be9f5fb9bb76ca71b9a2565885a29c91b1db3f16c0aa8c9eb1a9d50e73663c2",
);

fn model() -> ModelManifest {
    let file = |name: &str, size, byte| ModelFile {
        name: name.into(),
        size,
        sha256: Sha256Digest::from_bytes([byte; 32]),
    };
    ModelManifest::new(vec![file("model.gguf", 98_362_432, 1), file("config.json", 512, 2)]).unwrap()
}

fn workload() -> Workload {
    let variables = [("LANG", "C"), ("AB", "1"), ("B", "2")];
    Workload {
        enclave_version: "0.1.0".into(),
        engine_kind: "llamacpp".into(),
        engine_image: Sha256Digest::from_bytes([3; 32]),
        engine_args: vec!["--ctx-size".into(), "4096".into()],
        engine_env: BTreeMap::from(variables.map(|(name, value)| (name.into(), value.into()))),
        model: model().digest(),
        served_model_name: "smollm2".into(),
        scrub_method: "slot-erase".into(),
        switch_isolation: SwitchIsolation::Reset,
        confinement: EngineConfinement::Full,
    }
}

#[test]
fn digests_are_those_of_the_documented_encodings() {
    assert_eq!(model().digest().to_string(), MODEL);
    assert_eq!(hex::encode(workload().to_cbor()), WORKLOAD);
    assert_eq!(Workload::from_cbor(&hex::decode(WORKLOAD).unwrap()), Ok(workload()));
    assert_eq!(workload().digest().to_string(), WORKLOAD_DIGEST);
    let identity = IdentityKey::from_raw([4; 32]);
    let enclave = enclave_id(&identity, &BootId::from_bytes([5; 16]), &workload().digest());
    assert_eq!(enclave.to_string(), ENCLAVE_ID);
    assert_eq!(
        hex::encode(report_data(&[6; 32], &enclave, &devices_digest(&[]))),
        REPORT_DATA
    );
}
