//! Known answers of everything that is hashed, computed by another implementation (Python, from the documented encodings
//! alone): a change that both ends of a connection would make together is a change of the wire format.

use std::collections::BTreeMap;

use cloister_attestation::binding::{devices_digest, report_data};
use cloister_attestation::{
    BootId, IdentityKey, ModelFile, ModelManifest, Sha256Digest, SwitchIsolation, Workload, enclave_id,
};

const MODEL: &str = "6c212c69213099a41b258a905563d3c8c000f1295d5c394fba1075ca63249b19";
const WORKLOAD: &str = concat!(
    "a90065302e312e3001686c6c616d61637070025820030303030303030303030303030303030303030303030303030303",
    "030303030303826a2d2d6374782d73697a65643430393604a3614261326241426131644c414e4761430558206c212c69",
    "213099a41b258a905563d3c8c000f1295d5c394fba1075ca63249b190667736d6f6c6c6d32076a736c6f742d65726173",
    "6508657265736574",
);
const WORKLOAD_DIGEST: &str = "a8bb46e367f6b2194dc860ea75bb8b2eefe720c7d7a9cd9a1865141a358d3980";
const ENCLAVE_ID: &str = "7c8b6cabca238af3de2d051f64ffed4bdb44e136a44cd52fdc49193158ca2317";
const REPORT_DATA: &str = concat!(
    "f7748e19cf3aeb2775cd0adbea9f7b3c0a2ff70c611509ddd30d44efd0faec02",
    "38a430c65bfa7d572ec5f3b69350dcd6fc150ab4ad53bf4d58386b651999b882",
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
