//! Many streams of several tenants through the whole chain.

use cloister_tests::{
    chain::{Chain, Options},
    enclave::{Enclave, Setup},
    openai,
    real::{self, RealEngine},
    site::Site,
    tenant::{chat, stream},
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
