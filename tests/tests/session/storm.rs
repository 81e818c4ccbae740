//! Tenants at once, and a scheduler that grants and drains at random.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use cloister_proto::{Epoch, LeaseState};
use cloister_session::{TenantId, record::ErrorCode};
use cloister_tests::{
    enclave::{Enclave, Setup},
    forge::Draft,
    lying::Lying,
    rng::Rng,
    site::Site,
    tenant::{Client, chat, stream},
};
use futures::future::join_all;
use http_body_util::BodyExt;
use serde_json::json;
use tokio::task::JoinSet;

/// A fast 8B model, slow enough for requests to be in one batch.
const FAST: &[&str] = &["--profile", "8b-h100", "--faults", r#"{"slow": 0.15}"#];
const TENANTS: usize = 3;
/// Requests under way per tenant.
const CLIENTS: usize = 5;
/// Epochs after which it is enough.
const EPOCHS: u64 = 25;
/// Control messages at least.
const MESSAGES: usize = 2000;

/// What all parts of the storm share.
struct Storm {
    lying: Lying,
    clients: Vec<Client>,
    over: AtomicBool,
    /// Requests to send once more.
    sent: Mutex<Vec<Vec<u8>>>,
    /// Tenant of each epoch, by the receipts.
    tenants: Mutex<HashMap<u64, TenantId>>,
    complete: AtomicUsize,
    refused: AtomicUsize,
    preempted: AtomicUsize,
    messages: AtomicUsize,
    applied: AtomicUsize,
}

impl Storm {
    fn count(&self, counter: &AtomicUsize) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// One request of a tenant: good, relabelled, or one that was sent before.
    async fn request(&self, number: usize, rng: &mut Rng) {
        let client = &self.clients[number];
        match rng.below(10) {
            0 => self.replay(rng).await,
            1 => {
                // Under another tenant's name, and under a name with another's key.
                let mut draft = Draft::new(client, &chat("relabelled", 4));
                draft.header.tenant_ref = self.clients[(number + 1) % TENANTS].reference();
                self.lying.refused(&draft.m1()).await;
            }
            2 => {
                let other = &self.clients[(number + 1) % TENANTS];
                let mut draft = Draft::new(client, &chat("swapped", 4));
                draft.tenant = other.tenant.id();
                draft.credential = other.tenant.credential.to_bytes();
                draft.signer = cloister_tests::forge::copy(&other.tenant.member);
                self.lying.refused(&draft.m1()).await;
            }
            kind => {
                let tokens = 2 + rng.below(12) as u32;
                let prompt = format!("{} of {number}", "words ".repeat(rng.below(30) as usize));
                let body = if kind < 6 { chat(&prompt, tokens) } else { stream(&prompt, tokens) };
                self.good(client, &body, rng).await;
            }
        }
    }

    async fn good(&self, client: &Client, body: &serde_json::Value, rng: &mut Rng) {
        let (sealed, opener) = client.seal(body);
        if rng.below(4) == 0 {
            self.sent.lock().expect("a lock").push(sealed.bytes.clone());
        }
        let response = self.lying.post(&sealed.bytes).await;
        let exchange = cloister_tests::answer::Exchange::new(response, opener);
        if !exchange.is_answered() {
            exchange.refusal().await;
            return self.count(&self.refused);
        }
        let answer = exchange.finish().await;
        let receipt = &answer.receipt;
        assert_eq!((receipt.tenant_id, receipt.distinct_tenants), (client.tenant.id(), 1));
        let before = self.tenants.lock().expect("a lock").insert(receipt.epoch, receipt.tenant_id);
        assert!(before.is_none_or(|tenant| tenant == receipt.tenant_id), "two tenants in epoch {}", receipt.epoch);
        match answer.error {
            None => self.count(&self.complete),
            // Replays may overtake the original.
            Some(ErrorCode::Preempted | ErrorCode::Replayed) => self.count(&self.preempted),
            Some(other) => panic!("{other:?}"),
        }
    }

    async fn replay(&self, rng: &mut Rng) {
        let bytes = {
            let sent = self.sent.lock().expect("a lock");
            if sent.is_empty() {
                return;
            }
            rng.pick(&sent).clone()
        };
        // Sealed or refused: nobody here can open it. It must end.
        self.lying.post(&bytes).await.into_body().collect().await.expect("an end");
    }

    /// Messages of control, of which few fit the state.
    async fn control(&self, mut rng: Rng) {
        let mut known: Vec<Epoch> = Vec::new();
        while !self.is_over() {
            let status = self.lying.status().await;
            let now = status.epoch.clone().expect("an epoch");
            known.push(now.clone());
            let expect = match rng.below(6) {
                0 => rng.pick(&known).clone(),
                1 => Epoch { number: now.number.saturating_add(1 + rng.below(3)), ..now },
                2 => Epoch { boot_id: vec![rng.below(256) as u8; 16].into(), ..now },
                _ => now,
            };
            let tenant = self.clients[rng.below(TENANTS as u64) as usize].reference();
            for _ in 0..=rng.below(4) {
                self.count(&self.messages);
                // Drains are rarer: a lease has to last for a few requests.
                let status = if rng.below(8) == 0 && self.enough(&status) {
                    self.lying.drain(expect.clone()).await
                } else {
                    self.lying.grant(tenant, expect.clone()).await
                };
                if status.applied {
                    self.count(&self.applied);
                }
                assert!(status.state() != LeaseState::Failed, "{status:?}");
            }
        }
    }

    /// Whether the lease has seen an answer: else a random walk would end most of them at once.
    fn enough(&self, status: &cloister_proto::LeaseStatus) -> bool {
        let number = status.epoch.as_ref().map_or(0, |epoch| epoch.number);
        self.tenants.lock().expect("a lock").contains_key(&number)
    }

    async fn watch(&self) {
        let lying = &self.lying;
        lying
            .until("many epochs", |status| {
                let number = status.epoch.as_ref().map_or(0, |epoch| epoch.number);
                number >= EPOCHS && self.messages.load(Ordering::Relaxed) >= MESSAGES
            })
            .await;
        self.over.store(true, Ordering::Release);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_step_holds_two_tenants_whatever_the_scheduler_does() {
    let lease = json!({"drainCapMillis": 60, "uploadTimeoutMillis": 5000});
    let enclave = Enclave::start(&Site::new(), &Setup::simulator(FAST).with(&json!({"lease": lease}))).await;
    let lying = enclave.lying().await;
    let clients = join_all((0..TENANTS).map(|_| Client::new(&enclave, &lying))).await;
    let mut rng = Rng::seeded("storm", 0x5eed);
    let storm = Arc::new(Storm {
        lying,
        clients,
        over: AtomicBool::new(false),
        sent: Mutex::default(),
        tenants: Mutex::default(),
        complete: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
        preempted: AtomicUsize::new(0),
        messages: AtomicUsize::new(0),
        applied: AtomicUsize::new(0),
    });
    let mut tasks = JoinSet::new();
    for number in (0..TENANTS).cycle().take(TENANTS * CLIENTS) {
        let (storm, mut rng) = (Arc::clone(&storm), rng.fork());
        tasks.spawn(async move {
            while !storm.is_over() {
                storm.request(number, &mut rng).await;
            }
        });
    }
    for _ in 0..2 {
        let (storm, rng) = (Arc::clone(&storm), rng.fork());
        tasks.spawn(async move { storm.control(rng).await });
    }
    let watcher = Arc::clone(&storm);
    tasks.spawn(async move { watcher.watch().await });
    while let Some(ended) = tasks.join_next().await {
        // The first failure ends all: the others would wait for ever.
        ended.expect("a part of the storm failed");
    }

    let load = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let shown = enclave.batches().assert_exclusive();
    let tenants = storm.tenants.lock().expect("a lock");
    println!(
        "{} epochs, {} salts, {} batches of up to {}; {} answers, {} refusals, {} preempted; {} of {} messages applied",
        tenants.len(),
        shown.salts.len(),
        shown.batches,
        shown.most,
        load(&storm.complete),
        load(&storm.refused),
        load(&storm.preempted),
        load(&storm.applied),
        load(&storm.messages),
    );
    // The storm was one: batches were shared, leases changed, and most of what the scheduler said was nonsense.
    assert!(shown.most >= 2 && load(&storm.complete) > 0 && load(&storm.refused) > 0);
    assert!(load(&storm.applied) < load(&storm.messages));
    assert!(shown.salts.len() >= 5 && tenants.len() >= 5);
    assert!(tenants.len() >= shown.salts.len(), "an epoch that reached the engine has no receipt");
}
