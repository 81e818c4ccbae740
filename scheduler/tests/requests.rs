//! The path of a request: what is forwarded, what is refused, and what happens when an enclave fails.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use cloister_scheduler::REPLAY_LIMIT;
use cloister_session::{KeyId, REQUEST_MEDIA_TYPE, RESPONSE_MEDIA_TYPE, limits::MAX_REQUEST, outer::PaddingBucket};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use support::{
    Fixture, NARROW_TOKEN, PATIENCE, authorized, bytes,
    enclave::Behaviour::{self, Answer, Break, Early, Gated, Hang, Plaintext, Refuse, Stall, Status},
    encode, header_of, message, now, post, refusal, refused, tenant,
};
use tokio::{sync::Semaphore, time::timeout};

fn sealed(message: &[u8]) -> Vec<u8> {
    [b"sealed:", message].concat()
}

#[tokio::test]
async fn a_request_arrives_unchanged_and_so_does_its_answer() {
    let fixture = Fixture::start(1).await;
    for size in [0, 1_000, REPLAY_LIMIT + 1, 3_000_000] {
        let message = fixture.message(&tenant(0), size).await;
        let response = fixture.send(message.clone()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[header::CONTENT_TYPE], RESPONSE_MEDIA_TYPE);
        assert_eq!(bytes(response).await, sealed(&message));
        assert_eq!(fixture.enclaves[0].received(), [message]);
    }
}

#[tokio::test]
async fn who_shows_no_credential_gets_nothing() {
    let fixture = Fixture::start(1).await;
    let message = fixture.message(&tenant(0), 10).await;
    let with = |token: Option<&str>| {
        let mut request = post(message.clone());
        request.headers_mut().remove(header::AUTHORIZATION);
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        fixture.client.send(request)
    };
    for token in [None, Some("another token")] {
        let response = with(token).await.unwrap();
        assert_eq!(refused(response).await, refusal(401, "unauthorized", false));
    }
    assert_eq!(with(Some(NARROW_TOKEN)).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_credential_is_for_its_tenants_only() {
    let fixture = Fixture::start(1).await;
    let mut request = post(fixture.message(&tenant(1), 10).await);
    let narrow = format!("Bearer {NARROW_TOKEN}").parse().unwrap();
    request.headers_mut().insert(header::AUTHORIZATION, narrow);
    let response = fixture.client.send(request).await.unwrap();
    assert_eq!(refused(response).await, refusal(403, "unknown_tenant", false));

    let keys = fixture.key_ids(&tenant(0)).await;
    let response = fixture.send(message(&tenant(9), &keys, 10)).await;
    assert_eq!(refused(response).await, refusal(403, "unknown_tenant", false));
}

#[tokio::test]
async fn another_media_type_or_an_encoding_is_refused() {
    let fixture = Fixture::start(1).await;
    let message = fixture.message(&tenant(0), 10).await;
    let with_parameter = format!("{REQUEST_MEDIA_TYPE}; charset=utf-8");
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json"),
        (header::CONTENT_TYPE, &with_parameter),
        (header::CONTENT_ENCODING, "gzip"),
        (header::CONTENT_ENCODING, "identity"),
    ] {
        let mut request = post(message.clone());
        request.headers_mut().insert(name, value.parse().unwrap());
        let response = fixture.client.send(request).await.unwrap();
        assert_eq!(
            refused(response).await,
            refusal(415, "unsupported_media_type", false),
            "{value}"
        );
    }
    let mut request = post(message);
    request.headers_mut().remove(header::CONTENT_TYPE);
    let response = fixture.client.send(request).await.unwrap();
    assert_eq!(refused(response).await, refusal(415, "unsupported_media_type", false));
}

#[tokio::test]
async fn what_has_no_outer_part_is_malformed() {
    let fixture = Fixture::start(1).await;
    let good = fixture.message(&tenant(0), 0).await;
    let mut other_version = good.clone();
    other_version[0] = 2;
    let no_wrap = good[..good.len() - 1].to_vec();
    let mut future = header_of(&tenant(0), &fixture.key_ids(&tenant(0)).await);
    future.created = now().plus(1_000);
    for bad in [
        Vec::new(),
        b"hello".to_vec(),
        other_version,
        no_wrap,
        encode(&future, 10),
    ] {
        assert_eq!(refused(fixture.send(bad).await).await, refusal(400, "malformed", false));
    }
    let crumbs = good
        .chunks(16)
        .map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece)))
        .collect::<Vec<_>>();
    let response = fixture.send(Body::from_stream(futures::stream::iter(crumbs))).await;
    assert_eq!(
        refused(response).await,
        refusal(400, "malformed", false),
        "in too many pieces"
    );
    assert!(fixture.enclaves[0].received().is_empty());
}

#[tokio::test]
async fn a_body_longer_than_any_request_is_malformed() {
    let fixture = Fixture::start(1).await;
    let message = fixture.message(&tenant(0), MAX_REQUEST).await;
    assert_eq!(
        refused(fixture.send(message).await).await,
        refusal(400, "malformed", false)
    );
    assert!(fixture.enclaves[0].received().is_empty());
}

#[tokio::test]
async fn a_key_that_was_not_handed_out_is_unknown() {
    let fixture = Fixture::start(1).await;
    let own = fixture.key_ids(&tenant(0)).await;
    let others = fixture.key_ids(&tenant(1)).await;
    for keys in [&[KeyId::from_bytes([7; 16])][..], &others] {
        let response = fixture.send(message(&tenant(0), keys, 10)).await;
        assert_eq!(refused(response).await, refusal(409, "unknown_key", true));
    }
    let mut other_model = header_of(&tenant(0), &own);
    other_model.model = cloister_attestation::ModelDigest::from_bytes([9; 32]);
    let response = fixture.send(encode(&other_model, 10)).await;
    assert_eq!(refused(response).await, refusal(409, "unknown_key", true));

    let response = fixture
        .send(message(&tenant(0), &[KeyId::from_bytes([7; 16]), own[0]], 10))
        .await;
    assert_eq!(response.status(), StatusCode::OK, "one known key is enough");
}

#[tokio::test]
async fn a_request_that_is_over_is_expired() {
    let fixture = Fixture::start(1).await;
    let mut header = header_of(&tenant(0), &fixture.key_ids(&tenant(0)).await);
    header.created = cloister_attestation::UnixTime(now().0 - 100);
    header.ttl = 50;
    assert_eq!(
        refused(fixture.send(encode(&header, 10)).await).await,
        refusal(408, "expired", false)
    );
}

#[tokio::test]
async fn a_request_expires_in_the_queue() {
    let fixture = Fixture::start(1).await;
    let busy = occupy(&fixture).await;
    let mut header = header_of(&tenant(1), &fixture.key_ids(&tenant(1)).await);
    header.ttl = 1;
    assert_eq!(
        refused(fixture.send(encode(&header, 10)).await).await,
        refusal(408, "expired", false)
    );
    busy.abort();
}

/// Tenant 0 takes the only lease and keeps it.
async fn occupy(fixture: &Fixture) -> tokio::task::JoinHandle<()> {
    fixture.enclaves[0].script([Hang]);
    let (client, request) = (fixture.client.clone(), post(fixture.message(&tenant(0), 10).await));
    let task = tokio::spawn(async move {
        let _never = client.send(request).await;
    });
    timeout(PATIENCE, fixture.enclaves[0].read.notified()).await.unwrap();
    task
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let fixture = Fixture::start_with(1, |config| config.tenants[1].max_queued = 1).await;
    let _busy = occupy(&fixture).await;
    let message = fixture.message(&tenant(1), 10).await;
    let first = fixture.client.send(post(message.clone()));
    let second = fixture.client.send(post(message));
    // One of the two waits for ever; the other is refused.
    let response = tokio::select! { response = first => response, response = second => response }.unwrap();
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    assert_eq!(response.headers()["x-ratelimit-limit-requests"], "1");
    assert_eq!(response.headers()["x-ratelimit-remaining-requests"], "0");
    assert_eq!(response.headers()["x-ratelimit-reset-requests"], "1s");
    assert_eq!(refused(response).await, refusal(429, "queue_full", true));
}

#[tokio::test]
async fn a_waiting_body_stays_with_the_client() {
    let fixture = Fixture::start(1).await;
    let gate = Arc::new(Semaphore::new(0));
    fixture.enclaves[0].script([Gated(Arc::clone(&gate))]);
    let (client, blocking) = (fixture.client.clone(), post(fixture.message(&tenant(0), 10).await));
    let blocking = tokio::spawn(async move { client.send(blocking).await.unwrap().collect().await.unwrap() });
    timeout(PATIENCE, fixture.enclaves[0].granted.notified()).await.unwrap();
    timeout(PATIENCE, fixture.enclaves[0].read.notified()).await.unwrap();

    let hold = Arc::new(Semaphore::new(0));
    *fixture.enclaves[0].hold.lock().unwrap() = Some(Arc::clone(&hold));

    // 4 MiB in pieces of 16 KiB; what the client's and the server's buffers take is counted.
    let message = fixture.message(&tenant(1), 4 << 20).await;
    let taken = Arc::new(AtomicUsize::new(0));
    let pieces: Vec<Bytes> = message.chunks(16 * 1024).map(Bytes::copy_from_slice).collect();
    let counter = Arc::clone(&taken);
    let body = futures::stream::iter(pieces).map_counted(counter);
    let (client, waiting) = (fixture.another_client(), post(body));
    let waiting = tokio::spawn(async move { bytes(client.send(waiting).await.unwrap()).await });
    // Only when it waits does the drain begin, and only then can the first request end and the grant come.
    gate.add_permits(1);
    timeout(PATIENCE, fixture.enclaves[0].granted.notified()).await.unwrap();
    let before_dispatch = taken.load(Ordering::SeqCst);
    hold.add_permits(1);
    assert_eq!(timeout(PATIENCE, waiting).await.unwrap().unwrap(), sealed(&message));
    blocking.await.unwrap();
    // The stream window, the client's send buffer, and a frame on either side.
    assert!(
        before_dispatch <= 4 * 64 * 1024,
        "{before_dispatch} bytes were taken before the dispatch"
    );
}

trait MapCounted {
    fn map_counted(self, counter: Arc<AtomicUsize>) -> Body;
}

impl<S: futures::Stream<Item = Bytes> + Send + 'static> MapCounted for S {
    fn map_counted(self, counter: Arc<AtomicUsize>) -> Body {
        Body::from_stream(futures::StreamExt::map(self, move |piece| {
            counter.fetch_add(piece.len(), Ordering::SeqCst);
            Ok::<_, std::io::Error>(piece)
        }))
    }
}

#[tokio::test]
async fn another_candidate_is_tried_once_when_the_first_refuses() {
    let fixture = Fixture::start(2).await;
    fixture.enclaves[0].script([Refuse { retryable: true }]);
    let message = fixture.message(&tenant(0), 5_000).await;
    let response = fixture.send(message.clone()).await;
    assert_eq!(bytes(response).await, sealed(&message));
    assert_eq!(fixture.enclaves[1].received(), [message], "the same bytes");
}

/// A body whose second part comes when a permit does.
fn in_two_parts(message: &[u8], gate: Arc<Semaphore>) -> Body {
    let (first, second) = message.split_at(message.len() - 10);
    let (first, second) = (Bytes::copy_from_slice(first), Bytes::copy_from_slice(second));
    let rest = futures::stream::once(async move {
        gate.acquire().await.unwrap().forget();
        Ok::<_, std::io::Error>(second)
    });
    Body::from_stream(futures::StreamExt::chain(futures::stream::iter([Ok(first)]), rest))
}

#[tokio::test]
async fn another_candidate_is_tried_when_the_first_fails_without_the_whole_body() {
    let fixture = Fixture::start(2).await;
    fixture.enclaves[0].script([Early(1_000)]);
    let (message, gate) = (fixture.message(&tenant(0), 5_000).await, Arc::new(Semaphore::new(0)));
    let (client, request) = (fixture.client.clone(), post(in_two_parts(&message, Arc::clone(&gate))));
    let sending = tokio::spawn(async move { bytes(client.send(request).await.unwrap()).await });
    timeout(PATIENCE, fixture.enclaves[1].granted.notified()).await.unwrap();
    gate.add_permits(1);
    assert_eq!(timeout(PATIENCE, sending).await.unwrap().unwrap(), sealed(&message));
    assert_eq!(fixture.enclaves[1].received(), [message], "the same bytes");
}

/// It may have run there, and would run again.
#[tokio::test]
async fn what_a_candidate_has_as_a_whole_is_not_given_to_another() {
    let fixture = Fixture::start(2).await;
    for failure in [Status(500), Status(503)] {
        fixture.enclaves[0].script([failure]);
        let response = fixture.send(fixture.message(&tenant(0), 5_000).await).await;
        assert_eq!(refused(response).await, refusal(502, "upstream_failed", false));
    }
    assert!(fixture.enclaves[1].received().is_empty());
}

#[tokio::test]
async fn the_last_candidates_failure_is_what_the_client_hears() {
    let fixture = Fixture::start(2).await;
    let cases: [(Behaviour, Behaviour, _); 4] = [
        (
            Refuse { retryable: true },
            Status(500),
            refusal(502, "upstream_failed", false),
        ),
        (
            Refuse { retryable: true },
            Refuse { retryable: true },
            refusal(422, "refused", true),
        ),
        (
            Refuse { retryable: true },
            Refuse { retryable: false },
            refusal(422, "refused", false),
        ),
        (Refuse { retryable: false }, Answer, refusal(422, "refused", false)),
    ];
    for (first, second, expected) in cases {
        let tried_both = !matches!(second, Answer);
        fixture.enclaves[0].script([first]);
        if tried_both {
            fixture.enclaves[1].script([second]);
        }
        let response = fixture.send(fixture.message(&tenant(0), 100).await).await;
        assert_eq!(refused(response).await, expected);
    }
    assert!(
        fixture.enclaves.iter().all(|fake| fake.received().len() <= 2),
        "a refusal for good is not tried elsewhere"
    );
}

#[tokio::test]
async fn a_body_that_was_not_kept_is_not_tried_again() {
    let fixture = Fixture::start(2).await;
    fixture.enclaves[0].script([Early(REPLAY_LIMIT + 1)]);
    // The end does not come.
    let message = fixture.message(&tenant(0), REPLAY_LIMIT + 1).await;
    let body = in_two_parts(&message, Arc::new(Semaphore::new(0)));
    assert_eq!(
        refused(fixture.send(body).await).await,
        refusal(503, "too_large_to_retry", true)
    );
    assert!(fixture.enclaves[1].received().is_empty());
}

#[tokio::test]
async fn what_is_no_sealed_answer_is_not_passed_on() {
    let fixture = Fixture::start(2).await;
    for improper in [Plaintext, Status(204), Status(404)] {
        fixture.enclaves[0].script([improper]);
        let response = fixture.send(fixture.message(&tenant(0), 100).await).await;
        assert_eq!(refused(response).await, refusal(502, "upstream_failed", false));
    }
    assert!(fixture.enclaves[1].received().is_empty(), "and not tried elsewhere");
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off() {
    let fixture = Fixture::start_with(2, |config| config.timeouts.idle = Duration::from_millis(50)).await;
    let gate = Arc::new(Semaphore::new(0));
    for broken in [Break(Arc::clone(&gate)), Stall] {
        fixture.enclaves[0].script([broken]);
        let response = fixture.send(fixture.message(&tenant(0), 100).await).await;
        assert_eq!(response.status(), StatusCode::OK);
        let mut body = response.into_body();
        let first = timeout(PATIENCE, body.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "sealed:");
        gate.add_permits(1);
        let end = timeout(PATIENCE, body.collect()).await.unwrap();
        assert!(end.is_err(), "never a short success");
    }
    assert!(fixture.enclaves[1].received().is_empty(), "nothing is spliced");
}

#[tokio::test]
async fn a_silent_enclave_is_given_up() {
    let fixture = Fixture::start_with(2, |config| config.timeouts.first_byte = Duration::from_millis(50)).await;
    fixture.enclaves[0].script([Hang]);
    let response = fixture.send(fixture.message(&tenant(0), 100).await).await;
    assert_eq!(refused(response).await, refusal(502, "upstream_failed", false));
    let cancelled = fixture.enclaves[0].cancelled.notified();
    timeout(PATIENCE, cancelled).await.expect("and told so");
    assert!(fixture.enclaves[1].received().is_empty(), "it may have run");
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_request_along() {
    let fixture = Fixture::start(1).await;
    let running = occupy(&fixture).await;
    running.abort();
    timeout(PATIENCE, fixture.enclaves[0].cancelled.notified())
        .await
        .expect("cancelled");
    // Nothing is left of it: the other tenant gets the lease.
    let message = fixture.message(&tenant(1), 10).await;
    let response = timeout(PATIENCE, fixture.send(message)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_breaks_off_its_upload_is_not_retried_for() {
    let fixture = Fixture::start(2).await;
    let message = fixture.message(&tenant(0), 100_000).await;
    let pieces = [
        Ok(Bytes::from(message[..50_000].to_vec())),
        Err(std::io::Error::other("gone")),
    ];
    let sent = fixture
        .client
        .send(post(Body::from_stream(futures::stream::iter(pieces))))
        .await;
    sent.expect_err("the stream is reset");
    let again = fixture.message(&tenant(0), 10).await;
    assert_eq!(bytes(fixture.send(again.clone()).await).await, sealed(&again));
    let received: Vec<_> = fixture.enclaves.iter().flat_map(|fake| fake.received()).collect();
    assert_eq!(received, [again], "nobody read the broken one");
}

#[tokio::test]
async fn a_restarted_enclave_makes_waiting_requests_seal_again() {
    let fixture = Fixture::start(1).await;
    let _busy = occupy(&fixture).await;
    let message = fixture.message(&tenant(1), 10).await;
    let waiting = tokio::spawn({
        let client = fixture.client.clone();
        async move { refused(client.send(post(message)).await.unwrap()).await }
    });
    fixture.enclaves[0].reboot();
    // Whether it came before the restart or after it, the answer is the same.
    assert_eq!(
        timeout(PATIENCE, waiting).await.unwrap().unwrap(),
        refusal(409, "unknown_key", true)
    );
    let again = fixture.message(&tenant(1), 10).await;
    assert_eq!(fixture.send(again).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn tenants_take_turns_and_never_meet() {
    let fixture = Fixture::start(1).await;
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..40_u8 {
        let message = fixture.message(&tenant(index % 2), 2_000).await;
        let client = fixture.client.clone();
        tasks.spawn(async move {
            let response = client.send(post(message.clone())).await.unwrap();
            assert_eq!(bytes(response).await, sealed(&message));
        });
    }
    while let Some(ended) = timeout(PATIENCE, tasks.join_next()).await.unwrap() {
        ended.unwrap();
    }
    assert_eq!(fixture.enclaves[0].violations(), 0);
    let holders = fixture.enclaves[0].holders.lock().unwrap().clone();
    assert!(holders.contains(&tenant(0)) && holders.contains(&tenant(1)));
}

#[tokio::test]
async fn a_tenant_with_endless_requests_does_not_keep_the_lease() {
    let fixture = Fixture::start(1).await;
    let gate = Arc::new(Semaphore::new(0));
    fixture.enclaves[0].script([Gated(Arc::clone(&gate)), Gated(Arc::clone(&gate))]);
    let endless = tokio::spawn({
        let (client, message) = (fixture.client.clone(), fixture.message(&tenant(0), 10).await);
        async move {
            loop {
                let responses =
                    futures::future::join(client.send(post(message.clone())), client.send(post(message.clone()))).await;
                bytes(responses.0.unwrap()).await;
                bytes(responses.1.unwrap()).await;
            }
        }
    });
    timeout(PATIENCE, fixture.enclaves[0].read.notified()).await.unwrap();
    gate.add_permits(2);
    let message = fixture.message(&tenant(1), 10).await;
    let response = timeout(PATIENCE, fixture.send(message)).await.expect("served");
    assert_eq!(response.status(), StatusCode::OK);
    endless.abort();
}

#[tokio::test]
async fn many_requests_wait_on_one_connection_without_holding_each_other_up() {
    let fixture = Fixture::start_with(1, |config| config.policy.quantum = PATIENCE).await;
    let busy = occupy(&fixture).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let message = fixture.message(&tenant(1), 100_000).await;
        let client = fixture.client.clone();
        tasks
            .spawn(async move { bytes(client.send(post(message.clone())).await.unwrap()).await.len() - message.len() });
    }
    // A request of the lease's holder, on the same connection, is served although they all wait with full windows.
    let message = fixture.message(&tenant(0), 200_000).await;
    let response = timeout(PATIENCE, fixture.send(message.clone())).await.unwrap();
    assert_eq!(timeout(PATIENCE, bytes(response)).await.unwrap(), sealed(&message));
    busy.abort();
    while let Some(ended) = timeout(PATIENCE, tasks.join_next()).await.unwrap() {
        assert_eq!(ended.unwrap(), b"sealed:".len());
    }
}

#[tokio::test]
async fn the_padding_bucket_says_nothing_here() {
    // The scheduler reads the header only to route: a bucket that does not match the body is for the enclave to refuse.
    let fixture = Fixture::start(1).await;
    let mut header = header_of(&tenant(0), &fixture.key_ids(&tenant(0)).await);
    header.bucket = PaddingBucket::from_size(1 << 20).unwrap();
    assert_eq!(fixture.send(encode(&header, 10)).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn other_resources_are_not_found() {
    let fixture = Fixture::start(1).await;
    let response = fixture
        .client
        .send(authorized(Request::get("/v1/models")).body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(refused(response).await, refusal(404, "malformed", false));
}
