//! Nothing of a tenant, a request or a body is logged, at any level.

mod support;

use std::{
    io,
    sync::{Arc, Mutex},
};

use cloister_session::{KeyId, RequestId};
use support::{
    Fixture, bytes,
    enclave::Behaviour::{Plaintext, Refuse, Status},
    encode, header_of, now, tenant,
};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

const MARKER: &str = "a prompt that nobody may read";

/// The log of the project's own crates at its most talkative; others are capped by the telemetry crate.
fn listen() -> Log {
    let log = Log::default();
    let filter = EnvFilter::new("off,cloister_scheduler=trace,cloister_scheduler_core=trace,cloister_transport=trace");
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    log
}

#[tokio::test]
async fn no_tenant_request_or_body_is_logged() {
    let log = listen();
    let fixture = Fixture::start(2).await;
    let keys = fixture.key_ids(&tenant(0)).await;
    let mut header = header_of(&tenant(0), &keys);
    header.request_id = RequestId::from_bytes([0x77; 16]);
    let mut message = encode(&header, 0);
    message.extend_from_slice(MARKER.as_bytes());

    fixture.enclaves[0].script([Status(500), Refuse { retryable: true }, Plaintext]);
    fixture.enclaves[1].script([Status(500)]);
    for _ in 0..5 {
        bytes(fixture.send(message.clone()).await).await;
    }
    let mut unknown = header.clone();
    unknown.candidates = vec![KeyId::from_bytes([1; 16])];
    let mut expired = header.clone();
    expired.created = cloister_attestation::UnixTime(now().0 - 500);
    let mut foreign = header;
    foreign.tenant_ref = tenant(9);
    for header in [unknown, expired, foreign] {
        bytes(fixture.send(encode(&header, 10)).await).await;
    }
    bytes(fixture.send(MARKER).await).await;
    fixture.enclaves[0].leave();
    fixture.reachable(1).await;

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("lost the enclave"), "there is a log: {log}");
    let mut secrets = vec![
        MARKER.to_owned(),
        support::TOKEN.to_owned(),
        "77".repeat(16),
        "7777".to_owned(),
        "119, 119".to_owned(),
    ];
    secrets.extend([tenant(0), tenant(9)].map(|tenant| tenant.to_string()));
    secrets.extend(keys.iter().map(KeyId::to_string));
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} is in the log");
    }
}
