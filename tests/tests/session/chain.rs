//! Many streams of several tenants through the whole chain.

use cloister_tests::{
    chain::{Chain, Options},
    enclave::{Enclave, Setup},
    openai,
    real::{self, RealEngine},
    site::Site,
    tenant::{chat, stream},
    wait,
};
use futures::future::join_all;

/// `streams` at once of each of `tenants`; all come to their end.
async fn all_finish(enclave: &Enclave, tenants: usize, streams: usize, tokens: u32) {
    let chain = Chain::start(enclave, tenants, &Options::default()).await;
    let requests = (0..tenants * streams).map(|number| {
        let proxy = chain.proxies[number % tenants].address;
        let prompt = format!("{number}: say something");
        async move { (number, openai::chat(proxy, &stream(&prompt, tokens)).await) }
    });
    for (number, reply) in join_all(requests).await {
        assert!(reply.is_done(), "stream {number}: {reply:?}");
        assert!(reply.events().len() > 2, "stream {number}: {reply:?}");
    }
    let whole = openai::chat(chain.proxies[0].address, &chat("in one piece", tokens)).await;
    assert!(whole.looks_successful(), "{whole:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_streams_of_four_tenants_all_finish() {
    let setup = Setup::simulator(&["--profile", "8b-h100", "--faults", r#"{"slow": 0.3}"#]);
    let enclave = Enclave::start(&Site::new(), &setup).await;
    all_finish(&enclave, 4, 16, 12).await;
    let shown = enclave.batches().assert_exclusive();
    assert!(shown.most > 4, "nothing shared a batch: {}", shown.most);
    assert!(shown.salts.len() >= 4, "{} epochs", shown.salts.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_streams_of_two_tenants_finish_on_the_real_model() {
    let Some(engine) = RealEngine::find() else { return };
    let _turn = real::turn().await;
    let enclave = Enclave::start(&Site::new(), &Setup::real(&engine)).await;
    all_finish(&enclave, 2, 4, 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_enclave_that_is_killed_is_an_error_and_then_serves_again() {
    let setup = Setup::simulator(&["--profile", "8b-h100", "--output-tokens", "100000"]);
    let mut enclave = Enclave::start(&Site::new(), &setup).await;
    let mut chain = Chain::start(&enclave, 2, &Options::default()).await;
    let proxy = chain.proxies[0].address;
    let streaming = openai::start_chat(proxy, &stream("count", 100_000)).await.begun().await;
    enclave.child().kill_alone();
    let cut = streaming.finish().await;
    assert!(
        !cut.looks_successful() && (cut.error_code().is_some() || cut.broken),
        "{cut:?}"
    );
    let down = openai::chat(proxy, &chat("hello", 4)).await;
    assert!(!down.looks_successful() && down.error_code().is_some(), "{down:?}");

    // Other keys, another boot: the proxies find out by themselves.
    enclave.start_again();
    for proxy in &chain.proxies {
        wait::until("a proxy that is ready", || async {
            let reply = openai::get(proxy.address, "/readyz").await?;
            reply.status.is_success().then_some(())
        })
        .await;
        let reply = openai::chat(proxy.address, &chat("hello", 4)).await;
        assert!(reply.looks_successful(), "{reply:?}");
    }
    enclave.batches().assert_exclusive();
    assert!(chain.scheduler.stop().await.success());
}
