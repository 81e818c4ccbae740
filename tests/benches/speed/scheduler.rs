//! The scheduler's processor time and memory per request, by the size of the body.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use cloister_client::tenant::sha256;
use cloister_proto::Load;
use cloister_session::REQUEST_MEDIA_TYPE;
use cloister_tests::{
    answer::Exchange,
    child::Child,
    enclave::{Enclave, Setup},
    lying::REQUESTS_PATH,
    programs::programs,
    site::{CLUSTER, MODEL, Site, free_address},
    tenant::{Client, chat},
    wait::{until, within},
};
use cloister_transport::{ClientError, ClientLimits, Http2Client, ResponseBody, client_config};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    report::{Goal, Report},
    usage::{processor_time, resident},
};

/// Bytes of the prompts; what is sealed is a little more, and padded.
const PROMPTS: [(&str, usize); 3] = [("1 KB", 600), ("32 KB", 31_000), ("220 KB", 220_000)];
const TOKEN: &str = "bench";
/// Waiting requests on one connection: below the scheduler's limit of 512.
const STREAMS: usize = 500;
/// A process that uses less processor time than this in a [`LOOK`] is at rest.
const REST: Duration = Duration::from_millis(4);
const LOOK: Duration = Duration::from_millis(500);

/// A scheduler in front of an enclave, for one tenant.
struct Scheduler {
    child: Child,
    address: SocketAddr,
    site: Site,
}

/// Processor time per request that is answered at once, in rounds of `batch` requests of each size.
pub(crate) async fn processor(report: &mut Report, rounds: usize, batch: usize) {
    let section = "scheduler: processor time per request";
    let site = Site::new();
    let enclave = Enclave::start(&site, &Setup::simulator(&["--profile", "instant"])).await;
    let client = Client::new(&enclave, &enclave.lying().await).await;
    let scheduler = Scheduler::start(&enclave, &client, 64).await;
    let connection = scheduler.connection();
    let mut times = PROMPTS.map(|_| Vec::new());
    let mut sizes = [0; PROMPTS.len()];
    // The first round warms up.
    for round in 0..=rounds {
        for (place, (_, length)) in PROMPTS.iter().enumerate() {
            let (spent, size) = scheduler.batch(&client, &connection, *length, batch).await;
            sizes[place] = size;
            if round > 0 {
                times[place].push(spent.as_secs_f64() * 1e6 / batch as f64);
            }
        }
    }
    for ((name, _), (times, size)) in PROMPTS.iter().zip(times.iter().zip(sizes)) {
        report.add(section, format!("{name} prompt ({size} bytes sealed)"), "us", times);
    }
}

/// Memory per request that waits, with `streams` of them open, in `rounds` fresh schedulers.
pub(crate) async fn waiting(report: &mut Report, rounds: usize, streams: usize) {
    let section = "scheduler: requests that wait";
    let site = Site::new();
    let enclave = Enclave::start(&site, &Setup::simulator(&["--profile", "instant"])).await;
    let lying = enclave.lying().await;
    let mut client = Client::new(&enclave, &lying).await;
    let mut samples = PROMPTS.map(|_| Waiting::default());
    for _ in 0..rounds {
        for ((_, length), samples) in PROMPTS.iter().zip(&mut samples) {
            // The keys change every ten minutes.
            client.renew(&enclave, &lying).await;
            hold(&enclave, &client, *length, streams, samples).await;
        }
    }
    for ((name, _), samples) in PROMPTS.iter().zip(&samples) {
        let named = |what: &str| format!("{name} prompt ({} bytes sealed): {what}", samples.sealed);
        report.add(section, named("held open"), "1", &samples.held);
        report.add(section, named("memory of each"), "KiB", &samples.memory);
        report.add(section, named("processor time of each"), "us", &samples.processor);
    }
    let [small, middle, large] = &samples;
    let ratios =
        |of: &Waiting, to: &Waiting| -> Vec<f64> { of.memory.iter().zip(&to.memory).map(|(of, to)| of / to).collect() };
    // A small body has all arrived, of a larger one what the scheduler lets in.
    report.add_goal(
        section,
        "memory, 220 KB / 32 KB, ratio",
        "1",
        &ratios(large, middle),
        Goal::AtMost(1.05),
    );
    report.add(section, "memory, 32 KB / 1 KB, ratio", "1", &ratios(middle, small));
}

#[derive(Default)]
struct Waiting {
    sealed: usize,
    held: Vec<f64>,
    memory: Vec<f64>,
    processor: Vec<f64>,
}

/// Holds `streams` requests in the queue of a fresh scheduler.
async fn hold(enclave: &Enclave, client: &Client, length: usize, streams: usize, samples: &mut Waiting) {
    // One request at a time, and that one hangs.
    let scheduler = Scheduler::start(enclave, client, 1).await;
    enclave.engine().set_faults(json!({"hang": true})).await;
    let mut requests = JoinSet::new();
    let first = scheduler.connection();
    let (sealed, _) = client.seal(&prompt(length));
    requests.spawn(async move { send(&first, Bytes::from(sealed.bytes)).await });
    let lying = enclave.lying().await;
    lying
        .until("a request in the enclave", |status| status.load() != Load::Idle)
        .await;

    let pid = scheduler.child.pid();
    rest(pid).await;
    let (before, idle) = (resident(pid), processor_time(pid));
    // The same bytes each time: nothing opens them while they wait.
    let (sealed, _) = client.seal(&prompt(length));
    let body = Bytes::from(sealed.bytes);
    samples.sealed = body.len();
    let connections: Vec<_> = (0..streams.div_ceil(STREAMS)).map(|_| scheduler.connection()).collect();
    for number in 0..streams {
        let (connection, body) = (connections[number / STREAMS].clone(), body.clone());
        requests.spawn(async move { send(&connection, body).await });
    }
    rest(pid).await;
    let (after, spent) = (resident(pid), processor_time(pid) - idle);
    let mut answered = 0;
    while requests.try_join_next().is_some() {
        answered += 1;
    }
    let held = (streams - answered) as f64;
    samples.held.push(held);
    samples.memory.push(after.saturating_sub(before) as f64 / 1024.0 / held);
    samples.processor.push(spent.as_secs_f64() * 1e6 / held);
    requests.abort_all();
    enclave.engine().set_faults(json!({})).await;
    drop(scheduler);
    lying
        .until("no request in the enclave", |status| status.load() == Load::Idle)
        .await;
}

/// Waits until a process has nothing to do.
async fn rest(pid: u32) {
    let mut quiet = 0;
    let mut seen = processor_time(pid);
    // A bound of two minutes: after it the requests expire.
    for _ in 0..240 {
        sleep(LOOK).await;
        let now = processor_time(pid);
        quiet = if now - seen < REST { quiet + 1 } else { 0 };
        seen = now;
        if quiet == 2 {
            return;
        }
    }
    panic!("process {pid} does not come to rest");
}

fn prompt(length: usize) -> Value {
    chat(&"quiet ".repeat(length / 6), 1)
}

async fn send(connection: &Http2Client, body: Bytes) -> Result<Response<ResponseBody>, ClientError> {
    let request = Request::post(REQUESTS_PATH)
        .header(header::CONTENT_TYPE, REQUEST_MEDIA_TYPE)
        .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
        .body(Full::new(body))
        .expect("a request");
    connection.send(request).await
}

impl Scheduler {
    /// Starts a scheduler, and lets it learn the tenant's keys.
    async fn start(enclave: &Enclave, client: &Client, max_in_flight: usize) -> Self {
        let (site, address, reference) = (enclave.site(), free_address(), client.reference());
        let config = site.write(
            &format!("scheduler-{}.yaml", address.port()),
            &json!({
                "listen": address,
                "tls": site.tls("scheduler"),
                "clusterId": CLUSTER,
                "enclaves": [enclave.address()],
                "tenants": [{"tenantRef": reference, "maxQueued": 20_000}],
                "credentials": [{"tokenSha256": sha256(TOKEN.as_bytes()), "tenantRefs": [reference]}],
                "lease": {"quantumMillis": 600_000, "maxInFlight": max_in_flight},
            }),
        );
        let config = config.to_str().expect("a plain path");
        let child = Child::start(&programs().scheduler, &["--config", config], site.join("scheduler.log"));
        let scheduler = Self {
            child,
            address,
            site: site.clone(),
        };
        let connection = scheduler.connection();
        let path = format!("/cloister/v1/tenants/{reference}/keys?model={}", enclave.model());
        until("keys from the scheduler", || async {
            let request = Request::get(&path).header(header::AUTHORIZATION, format!("Bearer {TOKEN}"));
            let request = request.body(Full::<Bytes>::default()).expect("a request");
            let response = connection.send(request).await.ok()?;
            let found = response.status() == StatusCode::OK;
            let keys = response.into_body().collect().await.ok()?.to_bytes();
            let keys: Value = serde_json::from_slice(&keys).ok()?;
            (found && !keys["keyConfigs"].as_array()?.is_empty()).then_some(())
        })
        .await;
        scheduler
    }

    /// A connection of its own.
    fn connection(&self) -> Http2Client {
        let tls = client_config(&self.site.join("pki/ca.pem"), None).expect("a configuration");
        let address = format!("https://{}", self.address).parse().expect("an address");
        Http2Client::new(&address, &tls, ClientLimits::default()).expect("a client")
    }

    /// Answers `count` requests one after the other. Processor time of the scheduler, and bytes of a request.
    async fn batch(&self, client: &Client, connection: &Http2Client, length: usize, count: usize) -> (Duration, usize) {
        let sealed: Vec<_> = (0..count).map(|_| client.seal(&prompt(length))).collect();
        let size = sealed.first().map_or(0, |(sealed, _)| sealed.bytes.len());
        let before = processor_time(self.child.pid());
        for (sealed, opener) in sealed {
            let response = within("a response", send(connection, Bytes::from(sealed.bytes))).await;
            let answer = Exchange::new(response.expect("a response"), opener).finish().await;
            assert_eq!(answer.json()["model"], MODEL);
        }
        (processor_time(self.child.pid()) - before, size)
    }
}
