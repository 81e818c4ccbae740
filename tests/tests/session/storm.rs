//! Tenants at once, and a scheduler that grants and drains at random.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cloister_proto::{Epoch, LeaseState};
use cloister_session::{TenantId, record::ErrorCode};
use cloister_tests::{
    enclave::{Enclave, Setup},
    forge::Draft,
    lying::Lying,
    real::{self, RealEngine},
    rng::Rng,
    site::Site,
    tenant::{Client, chat, stream},
    wait,
};
use futures::future::join_all;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet, time::sleep};

/// A fast 8B model, slow enough for requests to be in one batch.
const FAST: &[&str] = &["--profile", "8b-h100", "--faults", r#"{"slow": 0.15}"#];
const TENANTS: usize = 3;

/// How much of it there is.
#[derive(Clone, Copy)]
struct Weather {
    /// Requests under way per tenant.
    clients: usize,
    /// Epochs after which it is enough, if there were as many control messages, too.
    epochs: u64,
    messages: usize,
    /// Words of a prompt, at most.
    words: u64,
    /// Length of most answers, and of a few that are longer, in units of [`TENANTS`] tokens.
    answer: u64,
    long_answer: u64,
    /// Answers that an epoch has before its drain: else a random walk would end most of them at once.
    answers: usize,
    /// Between two rounds of control messages, so that the engine has processors left.
    pace: Duration,
}

/// Thousands of messages in seconds.
const SIMULATED: Weather = Weather {
    clients: 5,
    epochs: 25,
    messages: 2000,
    words: 30,
    answer: 4,
    long_answer: 100,
    answers: 8,
    pace: Duration::ZERO,
};
/// What two processors can do with a real model.
const REAL: Weather = Weather {
    clients: 2,
    epochs: 5,
    messages: 100,
    words: 3,
    answer: 2,
    long_answer: 12,
    answers: 1,
    pace: Duration::from_millis(100),
};

/// What all parts of the storm share.
struct Storm {
    weather: Weather,
    lying: Lying,
    clients: Vec<Client>,
    /// Holder of the lease, and whether the storm is over.
    now: watch::Sender<(Bytes, bool)>,
    /// Requests to send once more.
    sent: Mutex<Vec<Vec<u8>>>,
    /// Tenant of each epoch, and its answers, by the receipts.
    epochs: Mutex<HashMap<u64, (TenantId, usize)>>,
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
        self.now.borrow().1
    }

    /// Waits until a tenant holds the lease. Most of its requests would be refused before.
    async fn until_held(&self, client: &Client) {
        let reference = client.reference();
        let mut now = self.now.subscribe();
        let held = now.wait_for(|(holder, over)| *over || holder.as_ref() == reference.as_bytes());
        wait::within("a tenant's turn", held).await.expect("the storm");
        client.refresh(&self.lying).await;
    }

    /// One request of a tenant: good, relabelled, or one that was sent before.
    async fn request(&self, number: usize, rng: &mut Rng) {
        let client = &self.clients[number];
        client.refresh(&self.lying).await;
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
                let longest = if rng.below(12) == 0 {
                    self.weather.long_answer
                } else {
                    self.weather.answer
                };
                // The rest tells whose it is, where the engine shows no salts.
                let tokens = (1 + rng.below(longest)) as u32 * TENANTS as u32 + number as u32;
                let prompt = format!(
                    "{} of {number}",
                    "words ".repeat(rng.below(self.weather.words) as usize)
                );
                let body = if kind < 6 {
                    chat(&prompt, tokens)
                } else {
                    stream(&prompt, tokens)
                };
                if rng.below(5) > 0 {
                    self.until_held(client).await;
                }
                self.good(client, &body, rng).await;
            }
        }
    }

    async fn good(&self, client: &Client, body: &Value, rng: &mut Rng) {
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
        let mut epochs = self.epochs.lock().expect("a lock");
        let (tenant, answers) = epochs.entry(receipt.epoch).or_insert((receipt.tenant_id, 0));
        assert_eq!(*tenant, receipt.tenant_id, "two tenants in epoch {}", receipt.epoch);
        *answers += 1;
        drop(epochs);
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
        let body = self.lying.post(&bytes).await.into_body();
        let ended = wait::within("the end of a replay's answer", body.collect()).await;
        ended.expect("an end");
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
                1 => Epoch {
                    number: now.number.saturating_add(1 + rng.below(3)),
                    ..now
                },
                2 => Epoch {
                    boot_id: vec![rng.below(256) as u8; 16].into(),
                    ..now
                },
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
            sleep(self.weather.pace).await;
        }
    }

    /// Whether the lease has lasted for a few answers.
    fn enough(&self, status: &cloister_proto::LeaseStatus) -> bool {
        let number = status.epoch.as_ref().map_or(0, |epoch| epoch.number);
        let epochs = self.epochs.lock().expect("a lock");
        epochs
            .get(&number)
            .is_some_and(|(_, answers)| *answers >= self.weather.answers)
    }

    async fn watch(&self) {
        let lying = &self.lying;
        lying
            .until("many epochs", |status| {
                let number = status.epoch.as_ref().map_or(0, |epoch| epoch.number);
                let held = status.state() == LeaseState::Held;
                let holder = if held { status.tenant_ref.clone() } else { Bytes::new() };
                let over =
                    number >= self.weather.epochs && self.messages.load(Ordering::Relaxed) >= self.weather.messages;
                self.now.send_replace((holder, over));
                over
            })
            .await;
    }
}

/// Starts all parts of the storm in front of `enclave`, and `beside` it, and waits for its end.
async fn rage<F>(enclave: &Enclave, weather: Weather, mut rng: Rng, beside: impl FnOnce(Arc<Storm>) -> F) -> Arc<Storm>
where
    F: Future<Output = ()> + Send + 'static,
{
    let lying = enclave.lying().await;
    let clients = join_all((0..TENANTS).map(|_| Client::new(enclave, &lying))).await;
    let storm = Arc::new(Storm {
        weather,
        lying,
        clients,
        now: watch::Sender::default(),
        sent: Mutex::default(),
        epochs: Mutex::default(),
        complete: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
        preempted: AtomicUsize::new(0),
        messages: AtomicUsize::new(0),
        applied: AtomicUsize::new(0),
    });
    let mut tasks = JoinSet::new();
    for number in (0..TENANTS).cycle().take(TENANTS * weather.clients) {
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
    tasks.spawn(beside(Arc::clone(&storm)));
    while let Some(ended) = tasks.join_next().await {
        // The first failure ends all: the others would wait for ever.
        ended.expect("a part of the storm failed");
    }
    storm
}

impl Storm {
    /// The storm was one: answers, refusals, changes of the lease, and much that was refused as nonsense.
    fn sum_up(&self) -> usize {
        let load = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        let epochs = self.epochs.lock().expect("a lock").len();
        println!(
            "{epochs} epochs with receipts; {} answers, {} refusals, {} preempted; {} of {} messages applied",
            load(&self.complete),
            load(&self.refused),
            load(&self.preempted),
            load(&self.applied),
            load(&self.messages),
        );
        assert!(load(&self.complete) > 0 && load(&self.refused) > 0);
        assert!(load(&self.applied) < load(&self.messages));
        epochs
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_step_holds_two_tenants_whatever_the_scheduler_does() {
    // `cargo xtask test --tier full` has the time for more of them.
    let storms = if std::env::var_os("CLOISTER_TEST_TIER").is_some_and(|tier| tier == "full") {
        50
    } else {
        1
    };
    let lease = json!({"drainCapMillis": 60, "uploadTimeoutMillis": 5000});
    let mut rng = Rng::seeded("storm", 0x5eed);
    for _ in 0..storms {
        let enclave = Enclave::start(&Site::new(), &Setup::simulator(FAST).with(&json!({"lease": lease}))).await;
        let storm = rage(&enclave, SIMULATED, rng.fork(), |_| async {}).await;
        let shown = enclave.batches().assert_exclusive();
        println!(
            "{} salts, {} batches of up to {}",
            shown.salts.len(),
            shown.batches,
            shown.most
        );
        let epochs = storm.sum_up();
        assert!(shown.most >= 2 && shown.salts.len() >= 5);
        assert!(
            epochs >= shown.salts.len(),
            "an epoch that reached the engine has no receipt"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_engines_slots_never_hold_two_tenants() {
    let Some(engine) = RealEngine::find() else { return };
    let _turn = real::turn().await;
    let lease = json!({"drainCapMillis": 200, "uploadTimeoutMillis": 5000});
    let enclave = Enclave::start(&Site::new(), &Setup::real(&engine).with(&json!({"lease": lease}))).await;
    let slots = enclave.engine();
    let samples = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&samples);
    let rng = Rng::seeded("storm", 0x5eed);
    let storm = rage(&enclave, REAL, rng, |storm| async move {
        while !storm.is_over() {
            // The engine answers between two steps: asked without a pause, it would do little else.
            sleep(Duration::from_millis(20)).await;
            let Some(slots) = slots.slots().await else { continue };
            let tenants: HashSet<u64> = slots.iter().filter_map(tenant_of_slot).collect();
            assert!(tenants.len() < 2, "two tenants in the slots: {slots:?}");
            seen.fetch_add(usize::from(!tenants.is_empty()), Ordering::Relaxed);
        }
    })
    .await;
    storm.sum_up();
    assert!(samples.load(Ordering::Relaxed) > 0, "no slot was seen at work");

    // After a switch all slots are empty: no work, and no tokens.
    let status = storm.lying.status().await;
    if status.state() == LeaseState::Held {
        storm.lying.drain(status.epoch.expect("an epoch")).await;
    }
    storm.lying.until_vacant().await;
    let slots = enclave.engine().slots().await.expect("slots");
    assert_eq!(slots.len(), 4);
    for slot in slots {
        assert_eq!(slot["is_processing"], false, "{slot}");
        assert_eq!(slot["n_prompt_tokens"].as_u64().unwrap_or(0), 0, "{slot}");
    }
}

/// Whose request a slot works on; none for an idle one and for the enclave's own probes.
fn tenant_of_slot(slot: &Value) -> Option<u64> {
    let tokens = slot.pointer("/params/n_predict")?.as_u64()?;
    (slot["is_processing"] == true && tokens >= TENANTS as u64).then_some(tokens % TENANTS as u64)
}
