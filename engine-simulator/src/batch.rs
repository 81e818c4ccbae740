//! Continuous batching over simulated time: one task that admits, steps and writes down the batch.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};

use crate::config::Profile;
use crate::log::{BatchEntry, BatchMember};
use crate::server::Shared;

/// What a request learns about one of its sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    /// Which of the request's sequences.
    pub choice: usize,
    pub kind: EventKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// It is in the batch, with that many prompt tokens from the prefix cache.
    Started { cached_tokens: usize },
    /// The token with this number is there.
    Token(usize),
    /// All tokens are there.
    Ended,
}

/// One sequence.
pub(crate) struct Sequence {
    pub choice: usize,
    pub salt: Option<Arc<str>>,
    pub prompt: Arc<[u64]>,
    /// Tokens that it will make.
    pub output: Vec<u64>,
    pub events: mpsc::UnboundedSender<Event>,
}

pub(crate) enum Command {
    Submit(u64, Sequence),
    Cancel(u64),
}

/// The way into the batch.
#[derive(Clone)]
pub(crate) struct BatchHandle {
    commands: mpsc::UnboundedSender<Command>,
    next: Arc<AtomicU64>,
}

/// Takes its sequences out of the batch when it is dropped, as a closed connection does.
pub(crate) struct Ticket {
    commands: mpsc::UnboundedSender<Command>,
    sequences: Vec<u64>,
}

impl BatchHandle {
    pub(crate) fn submit(&self, sequences: Vec<Sequence>) -> Ticket {
        let mut numbers = Vec::with_capacity(sequences.len());
        for sequence in sequences {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            numbers.push(number);
            // The batch ends with the simulator; the request then sees its events end.
            let _ = self.commands.send(Command::Submit(number, sequence));
        }
        Ticket {
            commands: self.commands.clone(),
            sequences: numbers,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        for number in self.sequences.drain(..) {
            let _ = self.commands.send(Command::Cancel(number));
        }
    }
}

/// A way into a batch, and the batch, which runs until every way into it is dropped.
pub(crate) fn new(shared: Arc<Shared>) -> (BatchHandle, impl Future<Output = ()> + Send + 'static) {
    let (commands, receiver) = mpsc::unbounded_channel();
    let batch = Batch {
        profile: shared.config.profile,
        shared,
        commands: receiver,
        waiting: VecDeque::new(),
        running: Vec::new(),
        step: 0,
        changed: false,
    };
    (
        BatchHandle {
            commands,
            next: Arc::new(AtomicU64::new(1)),
        },
        batch.run(),
    )
}

struct Running {
    number: u64,
    sequence: Sequence,
    made: usize,
    blocks: u64,
    due: Instant,
}

struct Batch {
    shared: Arc<Shared>,
    profile: Profile,
    commands: mpsc::UnboundedReceiver<Command>,
    waiting: VecDeque<(u64, Sequence)>,
    running: Vec<Running>,
    step: u64,
    changed: bool,
}

impl Batch {
    async fn run(mut self) {
        loop {
            self.admit();
            self.publish();
            let next = self.running.iter().map(|one| one.due).min();
            tokio::select! {
                // Commands first: a cancelled sequence must not get another step.
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                    self.advance();
                    // Without latency a long answer would otherwise keep the thread to itself.
                    tokio::task::yield_now().await;
                }
            }
            while let Ok(command) = self.commands.try_recv() {
                self.obey(command);
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Submit(number, sequence) => self.waiting.push_back((number, sequence)),
            Command::Cancel(number) => {
                self.waiting.retain(|(waiting, _)| *waiting != number);
                let before = self.running.len();
                self.running.retain(|one| one.number != number);
                self.changed |= self.running.len() != before;
            }
        }
    }

    fn admit(&mut self) {
        while self.running.len() < self.profile.max_num_seqs {
            let Some((number, sequence)) = self.waiting.pop_front() else {
                return;
            };
            let faults = self.shared.faults();
            let salt = sequence.salt.as_deref().filter(|_| !faults.ignore_salt);
            let cached = self.shared.cache().lookup(salt, &sequence.prompt);
            let uncached = sequence.prompt.len().saturating_sub(cached);
            let prefill = self.profile.overhead + self.profile.per_prompt_token.mul_f64(uncached as f64);
            let tokens = sequence.prompt.len().saturating_add(sequence.output.len());
            let blocks = tokens.div_ceil(self.shared.config.block_size.max(1)) as u64;
            let shown = if faults.hide_cached_tokens { 0 } else { cached };
            notify(&sequence, EventKind::Started { cached_tokens: shown });
            let due = Instant::now() + self.scaled(prefill, self.running.len().saturating_add(1));
            self.running.push(Running {
                number,
                sequence,
                made: 0,
                blocks,
                due,
            });
            self.changed = true;
        }
    }

    /// Gives each sequence that is due its next token.
    fn advance(&mut self) {
        self.step = self.step.saturating_add(1);
        let now = Instant::now();
        let interval = self.scaled(self.profile.inter_token, self.running.len());
        for one in &mut self.running {
            if one.due > now {
                continue;
            }
            if one.made == 0 {
                self.shared
                    .keep_prefix(one.sequence.salt.as_deref(), &one.sequence.prompt);
            }
            if one.made < one.sequence.output.len() {
                notify(&one.sequence, EventKind::Token(one.made));
                one.made = one.made.saturating_add(1);
                // From when it was due, so that timers that fire late do not add up.
                one.due += interval;
            }
        }
        let shared = &self.shared;
        let before = self.running.len();
        self.running.retain(|one| {
            // A sequence without output ends with its prefill.
            let ended = one.made == one.sequence.output.len() && (one.made > 0 || one.due <= now);
            if ended {
                finish(shared, one);
            }
            !ended
        });
        self.changed |= self.running.len() != before;
    }

    fn scaled(&self, latency: Duration, running: usize) -> Duration {
        let slow = self.shared.faults().slow.unwrap_or(1.0).clamp(0.0, 1e6);
        latency.mul_f64(self.profile.slowdown(running) * slow)
    }

    /// Writes down the batch if it changed, and shows the metrics.
    fn publish(&mut self) {
        let blocks = self.running.iter().map(|one| one.blocks).sum();
        self.shared
            .load
            .set(self.running.len() as u64, self.waiting.len() as u64, blocks);
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let batch = self
            .running
            .iter()
            .map(|one| BatchMember {
                request: one.number,
                cache_salt: one.sequence.salt.as_deref().map(ToOwned::to_owned),
            })
            .collect();
        self.shared.log.push(BatchEntry {
            simulated: true,
            step: self.step.saturating_add(1),
            batch,
        });
    }
}

fn notify(sequence: &Sequence, kind: EventKind) {
    // The request may be gone; its cancellation is on the way.
    let _ = sequence.events.send(Event {
        choice: sequence.choice,
        kind,
    });
}

fn finish(shared: &Shared, one: &Running) {
    let mut tokens = one.sequence.prompt.to_vec();
    tokens.extend_from_slice(&one.sequence.output);
    shared.keep_prefix(one.sequence.salt.as_deref(), &tokens);
    notify(&one.sequence, EventKind::Ended);
}
