//! With padding on, an answer looks from outside like every other.

use std::collections::HashSet;

use cloister_session::limits::{END_RECORD, RESPONSE_PREFIX, TAG_LEN};
use cloister_tests::{
    answer::ends,
    enclave::{Enclave, Setup},
    site::Site,
    tenant::{Client, chat, stream},
};
use http_body_util::BodyExt;
use serde_json::json;

const RECORD: usize = 512;
const BUCKET: usize = 16;

/// Answers of one length in tokens, to prompts that have nothing else in common, have equal records in equal number.
#[tokio::test(flavor = "multi_thread")]
async fn answers_to_different_prompts_look_the_same() {
    let padding = json!({"recordSize": RECORD, "tickMillis": 1, "countBucket": BUCKET});
    let setup = Setup::simulator(&["--profile", "instant"]).with(&json!({"padding": padding}));
    let enclave = Enclave::start(&Site::new(), &setup).await;
    let lying = enclave.lying().await;
    let client = Client::new(&enclave, &lying).await;
    lying.lease(client.reference()).await;
    // On the wire: a length of two bytes, and the tag.
    let (sealed_record, sealed_end) = (2 + RECORD + TAG_LEN, 1 + END_RECORD + TAG_LEN);
    let prompts = [
        "yes or no",
        "a long one about medicine, with its doses",
        "42",
        "ein anderer in einer anderen Sprache",
    ];
    for make in [chat, stream] {
        let mut counts = HashSet::new();
        for prompt in prompts {
            let (sealed, _) = client.seal(&make(prompt, 6));
            let response = lying.post(&sealed.bytes).await;
            let m2 = response.into_body().collect().await.expect("an answer").to_bytes();
            let ends = ends(&m2);
            assert_eq!(ends[0], RESPONSE_PREFIX);
            assert!(
                ends.windows(2).all(|pair| pair[1] - pair[0] == sealed_record),
                "{prompt}: {ends:?}"
            );
            assert_eq!((ends.len() - 1) % BUCKET, 0, "{prompt}: {} records", ends.len() - 1);
            assert_eq!(m2.len() - ends[ends.len() - 1], sealed_end, "{prompt}");
            counts.insert(ends.len());
        }
        // A stream's records follow the clock, so a busy machine may take one bucket more.
        assert!(counts.len() <= 2, "{counts:?}");
    }
}
