//! Sealed against direct: streamed chats through proxy, scheduler and enclave, and straight to an engine of the same kind.

use std::{fmt::Display, net::SocketAddr, path::PathBuf};

use cloister_tests::{
    chain::{Chain, Options},
    child::Child,
    enclave::{Enclave, Setup},
    programs::programs,
    real::RealEngine,
    site::{MODEL, Site, free_address},
    tenant,
    wait::until,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::{
    exchange::{Answer, Connection},
    report::{Goal, Report},
};

/// Words of a prompt for the simulator, each one token: with the number before them and the role about 1,000.
const SIMULATED_WORDS: usize = 985;
/// Words of a prompt for the real model, which takes seconds for more.
const REAL_WORDS: usize = 250;
/// Most tokens of an answer; the simulator's have exactly as many.
const TOKENS: u32 = 32;
/// Pairs before those that count.
const WARM_UP: usize = 1;
/// Arguments of both simulators: the latencies of an 8B model on one H100.
const PROFILE: [&str; 4] = ["--profile", "8b-h100", "--output-tokens", "32"];

/// One chat each way, in either order.
struct Pair {
    sealed: Answer,
    direct: Answer,
}

/// The simulator behind the sealed path and another one without it: pairs, and first requests of fresh proxies.
pub(crate) async fn simulated(report: &mut Report, padding: bool, pairs: usize, cold: usize) {
    let site = Site::new();
    let setup = Setup::simulator(&PROFILE);
    let (section, setup) = if padding {
        // The enclave's own defaults.
        let padding = json!({"padding": {"recordSize": 1024, "tickMillis": 20, "countBucket": 16}});
        ("sealed / direct, simulated 8B model, padding on", setup.with(&padding))
    } else {
        ("sealed / direct, simulated 8B model, padding off", setup)
    };
    let enclave = Enclave::start(&site, &setup).await;
    let mut chain = Chain::start(&enclave, 1, &options()).await;
    let (_simulator, address) = direct_simulator(&site).await;

    let mut prompts = Prompts::new(SIMULATED_WORDS);
    let mut sealed = Connection::tcp(chain.proxies[0].address).await;
    let mut direct = Connection::tcp(address).await;
    let measured = interleave(&mut sealed, &mut direct, &mut prompts, pairs).await;
    tell(report, section, &measured, !padding);
    drop(sealed);
    let mut first = Vec::new();
    for _ in 0..cold {
        first.push(cold_start(&mut chain, &site, &prompts.next()).await);
    }
    report.add(section, "first token, first request of a fresh proxy", "ms", &first);
}

/// The real model behind the sealed path, and the very same engine straight through its socket.
pub(crate) async fn real(report: &mut Report, pairs: usize) {
    let Some(engine) = RealEngine::find() else { return };
    let site = Site::new();
    // Nothing may end the lease between two requests: what goes straight to the engine is unknown to the enclave.
    let lease = json!({"lease": {"idleHoldMillis": 600_000}});
    let enclave = Enclave::start(&site, &Setup::real(&engine).with(&lease)).await;
    let chain = Chain::start(&enclave, 1, &options()).await;
    let mut prompts = Prompts::new(REAL_WORDS);
    let mut sealed = Connection::tcp(chain.proxies[0].address).await;
    let mut direct = Connection::unix(enclave.runtime_dir().join("engine/engine.sock")).await;
    let measured = interleave(&mut sealed, &mut direct, &mut prompts, pairs).await;
    tell(
        report,
        "sealed / direct, SmolLM2 135M on llama.cpp, padding off",
        &measured,
        false,
    );
}

fn options() -> Options {
    Options {
        quantum_millis: 600_000,
        ..Options::default()
    }
}

/// A simulator on TCP, and everything else as the enclave's has it.
async fn direct_simulator(site: &Site) -> (Child, SocketAddr) {
    let address = free_address();
    let log: PathBuf = site.join("direct-batches.jsonl");
    let listen = address.to_string();
    let log = log.to_str().expect("a plain path");
    let mut arguments = vec!["--listen", &listen, "--model", MODEL, "--batch-log", log];
    arguments.extend(PROFILE);
    let child = Child::start(&programs().simulator, &arguments, site.join("direct.log"));
    until("a simulator that listens", || async {
        TcpStream::connect(address).await.ok()
    })
    .await;
    (child, address)
}

/// Pairs, every other one the other way round, so that what drifts drifts for both.
async fn interleave(
    sealed: &mut Connection,
    direct: &mut Connection,
    prompts: &mut Prompts,
    pairs: usize,
) -> Vec<Pair> {
    let mut measured = Vec::with_capacity(pairs);
    for turn in 0..pairs + WARM_UP {
        let pair = if turn % 2 == 0 {
            let sealed = sealed.chat(&prompts.next()).await;
            let direct = direct.chat(&prompts.next()).await;
            Pair { sealed, direct }
        } else {
            let direct = direct.chat(&prompts.next()).await;
            let sealed = sealed.chat(&prompts.next()).await;
            Pair { sealed, direct }
        };
        if turn >= WARM_UP {
            measured.push(pair);
        }
    }
    measured
}

fn tell(report: &mut Report, section: &'static str, pairs: &[Pair], has_goals: bool) {
    let ratios =
        |of: fn(&Answer) -> f64| -> Vec<f64> { pairs.iter().map(|pair| of(&pair.sealed) / of(&pair.direct)).collect() };
    let first = |answer: &Answer| answer.first.as_secs_f64() * 1e3;
    let rows = [
        ("time to first token, ratio", ratios(first), Goal::AtMost(1.05)),
        ("tokens per second, ratio", ratios(Answer::rate), Goal::AtLeast(0.99)),
    ];
    for (name, samples, goal) in rows {
        if has_goals {
            report.add_goal(section, name, "1", &samples, goal);
        } else {
            report.add(section, name, "1", &samples);
        }
    }
    report.add(
        section,
        "whole answer, ratio of times",
        "1",
        &ratios(|answer| answer.end.as_secs_f64()),
    );
    let mut both = |name: &dyn Display, unit, of: fn(&Answer) -> f64| {
        let of_sealed: Vec<_> = pairs.iter().map(|pair| of(&pair.sealed)).collect();
        let of_direct: Vec<_> = pairs.iter().map(|pair| of(&pair.direct)).collect();
        report.add(section, format!("{name}, sealed"), unit, &of_sealed);
        report.add(section, format!("{name}, direct"), unit, &of_direct);
    };
    both(&"time to first token", "ms", first);
    both(&"tokens per second", "1/s", Answer::rate);
    both(&"longest pause between tokens", "ms", |answer| {
        answer.pause.as_secs_f64() * 1e3
    });
    both(&"tokens of the prompt", "1", |answer| answer.prompt_tokens as f64);
    both(&"tokens of the answer", "1", |answer| answer.tokens as f64);
}

/// Starts the tenant's proxy anew and sends a request as soon as it listens: it has neither keys nor evidence.
/// Milliseconds from the request to the first token.
async fn cold_start(chain: &mut Chain, site: &Site, chat: &Value) -> f64 {
    let proxy = &mut chain.proxies[0];
    proxy.child.stop().await;
    let name = format!("proxy-{}", proxy.address.port());
    let config = site.join(&format!("{name}.yaml"));
    let config = config.to_str().expect("a plain path");
    let address = proxy.address;
    proxy.child = Child::start(
        &programs().cloister,
        &["proxy", "--config", config],
        site.join(&format!("{name}.log")),
    );
    until("a proxy that listens", || async {
        TcpStream::connect(address).await.ok()
    })
    .await;
    let answer = Connection::tcp(address).await.chat(chat).await;
    answer.first.as_secs_f64() * 1e3
}

/// Chats of one length with no common beginning: nothing of them is in a prefix cache.
struct Prompts {
    words: usize,
    number: u32,
}

impl Prompts {
    const fn new(words: usize) -> Self {
        Self { words, number: 0 }
    }

    fn next(&mut self) -> Value {
        self.number += 1;
        let prompt = format!("{:07}{}", self.number, " quiet".repeat(self.words));
        let mut chat = tenant::stream(&prompt, TOKENS);
        chat["stream_options"] = json!({"include_usage": true});
        chat["temperature"] = json!(0);
        chat
    }
}
