//! Arbitrary input to everything that parses: an error at worst, and what parses is what would be written.

use cloister_attestation::{AppraisalPolicy, Evidence, Workload};
use proptest::prelude::*;

/// JSON of the right shape, with arbitrary text in its fields.
fn evidence_like() -> impl Strategy<Value = String> {
    let field = || prop_oneof!["[A-Za-z0-9+/]{0,64}={0,2}", "[0-9a-f]{30,66}", any::<String>()];
    (field(), field(), field(), field(), field(), field()).prop_map(|(spki, boot, workload, report, vek, nonce)| {
        serde_json::json!({
            "identity_spki": spki, "boot_id": boot, "workload": workload,
            "bundle": {"cpu": {"tee": "snp", "report": report, "vek": vek}, "devices": [], "nonce": nonce}
        })
        .to_string()
    })
}

proptest! {
    #[test]
    fn workloads(bytes: Vec<u8>) {
        if let Ok(workload) = Workload::from_cbor(&bytes) {
            prop_assert_eq!(workload.to_cbor(), bytes);
        }
    }

    #[test]
    fn evidence(bytes: Vec<u8>, json in evidence_like()) {
        prop_assert!(Evidence::from_json(&bytes).is_err());
        prop_assert!(Evidence::from_json(json.as_bytes()).is_err());
    }

    #[test]
    fn policies(text: String) {
        if let Ok(policy) = AppraisalPolicy::from_yaml(&text) {
            prop_assert!(policy.tees.is_empty());
        }
    }
}
