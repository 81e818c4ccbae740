//! Drives the pure scheduler: one lock around it, its actions carried out as they come.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cloister_scheduler_core::{
    Action, BootId, Epoch, InvalidPolicy, LeaseReport, LeaseState, Moment, Policy, Rejection, ReplicaIndex, Request,
    Scheduler, TenantIndex, TenantLimits, Ticket,
};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::{clock::Clock, metrics::Metrics};

/// A command for the task that talks to its replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Grant { tenant: TenantIndex, expect: Epoch },
    Drain { expect: Epoch },
}

/// What became of a waiting request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The replica is leased to its tenant.
    Dispatched(ReplicaIndex),
    Rejected(Rejection),
}

#[derive(Debug)]
pub(crate) struct Dispatcher {
    clock: Clock,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Rings when the next wake-up came nearer.
    earlier: Notify,
    /// Unbounded, but never holds more than the one command that the scheduler allows per replica.
    commands: Vec<mpsc::UnboundedSender<Command>>,
}

#[derive(Debug)]
struct State {
    scheduler: Scheduler,
    waiting: HashMap<Ticket, oneshot::Sender<Turn>>,
    /// What the timer waits for.
    armed: Option<Moment>,
}

/// A request's place in the queue, then in flight. Dropping it gives the place up.
#[derive(Debug)]
pub(crate) struct Place {
    dispatcher: Arc<Dispatcher>,
    ticket: Ticket,
    turn: oneshot::Receiver<Turn>,
    since: Moment,
    running: bool,
}

// === impl Dispatcher ===

impl Dispatcher {
    /// A dispatcher, and for each replica the receiver of its commands.
    pub(crate) fn new(
        clock: Clock,
        metrics: Arc<Metrics>,
        policy: Policy,
        tenants: impl IntoIterator<Item = TenantLimits>,
        replicas: usize,
    ) -> Result<(Arc<Self>, Vec<mpsc::UnboundedReceiver<Command>>), InvalidPolicy> {
        let (commands, receivers) = (0..replicas).map(|_| mpsc::unbounded_channel()).unzip();
        let state = State {
            scheduler: Scheduler::new(policy, tenants, replicas, clock.now())?,
            waiting: HashMap::new(),
            armed: None,
        };
        let dispatcher = Self {
            clock,
            metrics,
            state: Mutex::new(state),
            earlier: Notify::new(),
            commands,
        };
        Ok((Arc::new(dispatcher), receivers))
    }

    /// Queues a request.
    pub(crate) fn submit(self: &Arc<Self>, request: Request) -> Place {
        let (sender, turn) = oneshot::channel();
        let now = self.clock.now();
        let mut state = self.lock();
        let (ticket, actions) = state.scheduler.submit(now, request);
        state.waiting.insert(ticket, sender);
        self.carry_out(state, actions);
        Place {
            dispatcher: Arc::clone(self),
            ticket,
            turn,
            since: now,
            running: false,
        }
    }

    /// A message of the replica's status stream.
    pub(crate) fn report(&self, replica: ReplicaIndex, report: LeaseReport) {
        self.update(|scheduler, now| scheduler.report(now, replica, report));
    }

    /// The answer to the replica's command.
    pub(crate) fn replied(&self, replica: ReplicaIndex, applied: bool, report: LeaseReport) {
        self.update(|scheduler, now| scheduler.replied(now, replica, applied, report));
    }

    /// No answer came to the replica's command.
    pub(crate) fn command_failed(&self, replica: ReplicaIndex) {
        self.update(|scheduler, now| scheduler.command_failed(now, replica));
    }

    /// The replica's status stream broke.
    pub(crate) fn unreachable(&self, replica: ReplicaIndex) {
        self.update(|scheduler, now| scheduler.unreachable(now, replica));
    }

    /// The boot of a replica that can be reached and has not failed.
    pub(crate) fn live_boot(&self, replica: ReplicaIndex) -> Option<BootId> {
        let state = self.lock();
        match state.scheduler.lease(replica)? {
            LeaseState::Failed => None,
            _ => state.scheduler.boot(replica),
        }
    }

    /// Wakes the scheduler when it asked to be. Never ends.
    pub(crate) async fn keep_time(&self) {
        loop {
            let wakeup = {
                let mut state = self.lock();
                state.armed = state.scheduler.next_wakeup();
                state.armed
            };
            let sleep = async {
                match wakeup {
                    Some(moment) => tokio::time::sleep_until(self.clock.instant_of(moment)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => self.update(Scheduler::tick),
                () = self.earlier.notified() => {}
            }
        }
    }

    fn update(&self, event: impl FnOnce(&mut Scheduler, Moment) -> Vec<Action>) {
        let mut state = self.lock();
        let actions = event(&mut state.scheduler, self.clock.now());
        self.carry_out(state, actions);
    }

    fn carry_out(&self, mut state: MutexGuard<'_, State>, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Grant {
                    replica,
                    tenant,
                    expect,
                } => self.command(replica, Command::Grant { tenant, expect }),
                Action::Drain { replica, expect } => self.command(replica, Command::Drain { expect }),
                Action::Dispatch { ticket, replica } => state.answer(ticket, Turn::Dispatched(replica)),
                Action::Reject { ticket, reason } => state.answer(ticket, Turn::Rejected(reason)),
            }
        }
        let next = state.scheduler.next_wakeup();
        if next.is_some_and(|next| state.armed.is_none_or(|armed| next < armed)) {
            self.earlier.notify_one();
        }
    }

    fn command(&self, replica: ReplicaIndex, command: Command) {
        let sender = self.commands.get(replica.0);
        if sender.is_none_or(|sender| sender.send(command).is_err()) {
            // Only while the process ends: the task that takes commands is gone.
            tracing::debug!("a command found nobody to carry it out");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The scheduler is pure and does not panic; if it did, what it holds is no worse than before.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn answer(&mut self, ticket: Ticket, turn: Turn) {
        if let Some(sender) = self.waiting.remove(&ticket) {
            // Nobody listens when the client is gone; its place is being dropped, which ends the request.
            let _gone = sender.send(turn);
        }
    }
}

// === impl Place ===

impl Place {
    /// Waits for the request's turn.
    pub(crate) async fn turn(&mut self) -> Turn {
        // The sender is never dropped unused: it is removed only to be answered or together with this place.
        let turn = (&mut self.turn)
            .await
            .unwrap_or(Turn::Rejected(Rejection::CandidateUnavailable));
        let waited = self.dispatcher.clock.now().since(self.since);
        let metrics = &self.dispatcher.metrics;
        match turn {
            Turn::Dispatched(_) => {
                self.running = true;
                metrics.running(1);
                metrics.waited(waited, None);
            }
            Turn::Rejected(reason) => metrics.waited(waited, Some(reason)),
        }
        turn
    }

    /// The replica failed: back into the queue, for another candidate.
    pub(crate) fn retry(&mut self) {
        self.requeue(Scheduler::retry);
    }

    /// The replica refused: back into the queue, for another candidate, or for the same in another lease.
    pub(crate) fn refused(&mut self) {
        self.requeue(Scheduler::refused);
    }

    fn requeue(&mut self, event: fn(&mut Scheduler, Moment, Ticket) -> Vec<Action>) {
        let (sender, turn) = oneshot::channel();
        self.turn = turn;
        self.stopped_running();
        self.since = self.dispatcher.clock.now();
        let mut state = self.dispatcher.lock();
        state.waiting.insert(self.ticket, sender);
        let actions = event(&mut state.scheduler, self.since, self.ticket);
        self.dispatcher.carry_out(state, actions);
    }

    fn stopped_running(&mut self) {
        if std::mem::take(&mut self.running) {
            self.dispatcher.metrics.running(-1);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stopped_running();
        let now = self.dispatcher.clock.now();
        let mut state = self.dispatcher.lock();
        state.waiting.remove(&self.ticket);
        let actions = state.scheduler.finish(now, self.ticket);
        self.dispatcher.carry_out(state, actions);
    }
}
