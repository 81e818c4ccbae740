//! A scheduler, the enclaves that it talks to, and the guarantees, checked on each action.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test binaries, each of which uses a part of it"
)]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use cloister_scheduler_core::{
    Action, BootId, Candidate, Epoch, LeaseReport, LeaseState, Load, Moment, Policy, Rejection, ReplicaIndex, Request,
    Scheduler, TenantIndex, TenantLimits, Ticket,
};

/// The lease machine of an enclave, as far as a scheduler can see it.
#[derive(Clone, Copy, Debug)]
pub struct Enclave {
    pub epoch: Epoch,
    pub state: LeaseState,
}

#[derive(Clone, Debug)]
struct Known {
    request: Request,
    dispatched: BTreeSet<ReplicaIndex>,
    running_on: Option<ReplicaIndex>,
    /// Of the last dispatch.
    epoch: Option<Epoch>,
}

pub struct World {
    pub now: Moment,
    pub scheduler: Scheduler,
    pub enclaves: Vec<Enclave>,
    /// Messages of the status streams that were not delivered yet.
    streams: Vec<VecDeque<LeaseReport>>,
    /// What the scheduler was last told, kept by an implementation of its own.
    told: Vec<Option<LeaseReport>>,
    commands: Vec<Option<Action>>,
    granted: BTreeSet<(ReplicaIndex, Epoch)>,
    requests: BTreeMap<Ticket, Known>,
    max_queued: usize,
    disconnected: BTreeSet<ReplicaIndex>,
    /// Boots so far; no two are alike.
    boots: u128,
    /// Every grant that an enclave applied.
    pub leases: Vec<(ReplicaIndex, TenantIndex)>,
    pub dispatches: Vec<(Ticket, ReplicaIndex)>,
    pub rejections: Vec<(Ticket, Rejection)>,
}

fn rank(state: LeaseState) -> u8 {
    match state {
        LeaseState::Vacant => 0,
        LeaseState::Held(_) => 1,
        LeaseState::Draining(_) => 2,
        LeaseState::Scrubbing => 3,
        LeaseState::Failed => 4,
    }
}

impl Enclave {
    pub fn report(&self) -> LeaseReport {
        LeaseReport {
            epoch: self.epoch,
            state: self.state,
            load: Load::Low,
        }
    }

    /// What the enclave does by itself, one step.
    fn step(&mut self) {
        match self.state {
            LeaseState::Draining(_) => self.state = LeaseState::Scrubbing,
            LeaseState::Scrubbing => {
                self.epoch.number += 1;
                self.state = LeaseState::Vacant;
            }
            _ => {}
        }
    }
}

impl World {
    /// Enclaves that start vacant, and a scheduler that was told so.
    pub fn new(policy: Policy, tenants: usize, replicas: usize, max_queued: usize) -> Self {
        let limits = TenantLimits { weight: 1, max_queued };
        let now = Moment(1_000);
        let enclaves = (0..replicas)
            .map(|index| Enclave {
                epoch: Epoch {
                    boot: BootId((index as u128).to_be_bytes()),
                    number: 1,
                },
                state: LeaseState::Vacant,
            })
            .collect();
        let mut world = Self {
            now,
            scheduler: Scheduler::new(policy, vec![limits; tenants], replicas, now)
                .expect("a policy under which something runs"),
            enclaves,
            streams: vec![VecDeque::new(); replicas],
            told: vec![None; replicas],
            commands: vec![None; replicas],
            granted: BTreeSet::new(),
            requests: BTreeMap::new(),
            max_queued,
            disconnected: BTreeSet::new(),
            boots: replicas as u128,
            leases: Vec::new(),
            dispatches: Vec::new(),
            rejections: Vec::new(),
        };
        for index in 0..replicas {
            world.announce(index);
            world.deliver(index);
        }
        world
    }

    pub fn candidate(&self, replica: usize) -> Candidate {
        Candidate {
            replica: ReplicaIndex(replica),
            boot: self.enclaves[replica].epoch.boot,
            usable_until: Moment::NEVER,
        }
    }

    pub fn submit(&mut self, tenant: usize, candidates: &[usize], ttl: u64) -> Ticket {
        let request = Request {
            tenant: TenantIndex(tenant),
            candidates: candidates.iter().map(|index| self.candidate(*index)).collect(),
            deadline: self.now.after(Duration::from_millis(ttl)),
        };
        self.submit_request(request)
    }

    pub fn submit_request(&mut self, request: Request) -> Ticket {
        let (ticket, actions) = self.scheduler.submit(self.now, request.clone());
        let known = Known {
            request,
            dispatched: BTreeSet::new(),
            running_on: None,
            epoch: None,
        };
        assert!(self.requests.insert(ticket, known).is_none(), "tickets are new");
        self.apply(actions);
        ticket
    }

    pub fn finish(&mut self, ticket: Ticket) {
        self.requests.remove(&ticket);
        let actions = self.scheduler.finish(self.now, ticket);
        self.apply(actions);
    }

    pub fn retry(&mut self, ticket: Ticket) {
        if let Some(known) = self.requests.get_mut(&ticket) {
            known.running_on = None;
        }
        let actions = self.scheduler.retry(self.now, ticket);
        self.apply(actions);
    }

    /// The replica refuses the request, which may come again if the lease has ended as far as the scheduler was told.
    pub fn refuse(&mut self, ticket: Ticket) {
        let Some(known) = self.requests.get_mut(&ticket) else {
            return;
        };
        if let Some(replica) = known.running_on.take() {
            let told = self.told[replica.0].expect("it was dispatched after a report");
            let held = told.state == LeaseState::Held(Some(known.request.tenant)) && Some(told.epoch) == known.epoch;
            let drains = matches!(self.commands[replica.0], Some(Action::Drain { .. }));
            if !held || drains || self.disconnected.contains(&replica) {
                known.dispatched.remove(&replica);
            }
        }
        let actions = self.scheduler.refused(self.now, ticket);
        self.apply(actions);
    }

    pub fn advance(&mut self, millis: u64) {
        self.now = self.now.after(Duration::from_millis(millis));
        let actions = self.scheduler.tick(self.now);
        self.apply(actions);
    }

    /// Puts the present state on the stream.
    pub fn announce(&mut self, index: usize) {
        let report = self.enclaves[index].report();
        self.streams[index].push_back(report);
    }

    /// Delivers the oldest message of the stream.
    pub fn deliver(&mut self, index: usize) {
        let Some(report) = self.streams[index].pop_front() else {
            return;
        };
        self.disconnected.remove(&ReplicaIndex(index));
        self.tell(index, report, true);
        let actions = self.scheduler.report(self.now, ReplicaIndex(index), report);
        self.apply(actions);
    }

    /// The enclave does its next step and says so.
    pub fn step(&mut self, index: usize) {
        self.enclaves[index].step();
        self.announce(index);
    }

    /// The outstanding command reaches the enclave, and the answer the scheduler.
    pub fn answer(&mut self, index: usize) {
        let Some(command) = self.commands[index].take() else {
            return;
        };
        let applied = self.execute(index, command);
        let report = self.enclaves[index].report();
        if let Action::Grant { replica, expect, .. } = command
            && !applied
        {
            self.granted.remove(&(replica, expect));
        }
        self.tell(index, report, false);
        let actions = self.scheduler.replied(self.now, ReplicaIndex(index), applied, report);
        self.apply(actions);
    }

    /// The outstanding command fails; `reached` says whether the enclave got it.
    pub fn fail(&mut self, index: usize, reached: bool) {
        let Some(command) = self.commands[index].take() else {
            return;
        };
        if let Action::Grant { replica, expect, .. } = command {
            self.granted.remove(&(replica, expect));
        }
        if reached {
            self.execute(index, command);
        }
        let actions = self.scheduler.command_failed(self.now, ReplicaIndex(index));
        self.apply(actions);
    }

    pub fn disconnect(&mut self, index: usize) {
        self.streams[index].clear();
        self.disconnected.insert(ReplicaIndex(index));
        let actions = self.scheduler.unreachable(self.now, ReplicaIndex(index));
        self.apply(actions);
    }

    /// A new process of the enclave; the stream is a new one.
    pub fn reboot(&mut self, index: usize) {
        self.boots += 1;
        self.disconnect(index);
        self.enclaves[index] = Enclave {
            epoch: Epoch {
                boot: BootId(self.boots.to_be_bytes()),
                number: 0,
            },
            state: LeaseState::Scrubbing,
        };
        self.announce(index);
    }

    pub fn running(&self) -> Vec<Ticket> {
        let running = self.requests.iter().filter(|(_, known)| known.running_on.is_some());
        running.map(|(ticket, _)| *ticket).collect()
    }

    pub fn waiting(&self) -> Vec<Ticket> {
        let waiting = self.requests.iter().filter(|(_, known)| known.running_on.is_none());
        waiting.map(|(ticket, _)| *ticket).collect()
    }

    pub fn has_command(&self, index: usize) -> bool {
        self.commands[index].is_some()
    }

    /// Everything that is under way arrives, until nothing is.
    pub fn settle_messages(&mut self) {
        for _ in 0..100 {
            for index in 0..self.enclaves.len() {
                self.answer(index);
                if matches!(
                    self.enclaves[index].state,
                    LeaseState::Draining(_) | LeaseState::Scrubbing
                ) {
                    self.step(index);
                }
                while !self.streams[index].is_empty() {
                    self.deliver(index);
                }
            }
            let moving = |enclave: &Enclave| matches!(enclave.state, LeaseState::Draining(_) | LeaseState::Scrubbing);
            let quiet = self.commands.iter().all(Option::is_none) && self.streams.iter().all(VecDeque::is_empty);
            if quiet && !self.enclaves.iter().any(moving) {
                return;
            }
        }
        panic!("commands never end");
    }

    fn execute(&mut self, index: usize, command: Action) -> bool {
        let enclave = &mut self.enclaves[index];
        match (command, enclave.state) {
            (
                Action::Grant {
                    tenant,
                    expect,
                    replica,
                },
                LeaseState::Vacant,
            ) if expect == enclave.epoch => {
                enclave.state = LeaseState::Held(Some(tenant));
                self.leases.push((replica, tenant));
            }
            (Action::Drain { expect, .. }, LeaseState::Held(tenant)) if expect == enclave.epoch => {
                enclave.state = LeaseState::Draining(tenant);
            }
            _ => return false,
        }
        self.announce(index);
        true
    }

    fn tell(&mut self, index: usize, report: LeaseReport, stream: bool) {
        let newer = match &self.told[index] {
            None => true,
            Some(known) if known.epoch.boot != report.epoch.boot => stream,
            Some(known) => (report.epoch.number, rank(report.state)) >= (known.epoch.number, rank(known.state)),
        };
        if newer {
            self.told[index] = Some(report);
        }
    }

    fn apply(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Grant { replica, expect, .. } => {
                    let told = self.told[replica.0].expect("a grant needs a report");
                    assert_eq!(
                        (told.state, told.epoch),
                        (LeaseState::Vacant, expect),
                        "grants expect what was reported"
                    );
                    assert!(self.granted.insert((replica, expect)), "an epoch is granted once");
                    assert!(
                        self.commands[replica.0].replace(action).is_none(),
                        "one command at a time"
                    );
                }
                Action::Drain { replica, expect } => {
                    let told = self.told[replica.0].expect("a drain needs a report");
                    assert!(
                        matches!(told.state, LeaseState::Held(_)),
                        "only what is held is drained"
                    );
                    assert_eq!(told.epoch, expect);
                    assert!(
                        self.commands[replica.0].replace(action).is_none(),
                        "one command at a time"
                    );
                }
                Action::Dispatch { ticket, replica } => self.check_dispatch(ticket, replica),
                Action::Reject { ticket, reason } => {
                    let known = self
                        .requests
                        .remove(&ticket)
                        .expect("only a waiting request is rejected");
                    assert!(known.running_on.is_none(), "a running request is not rejected");
                    self.rejections.push((ticket, reason));
                }
            }
        }
        for tenant in 0.. {
            let tenant = TenantIndex(tenant);
            let queued = self.scheduler.queued(tenant);
            assert!(queued <= self.max_queued, "the queue is capped");
            if tenant.0 > 16 {
                break;
            }
        }
    }

    fn check_dispatch(&mut self, ticket: Ticket, replica: ReplicaIndex) {
        let told = self.told[replica.0].expect("a dispatch needs a report");
        let known = self
            .requests
            .get_mut(&ticket)
            .expect("only a waiting request is dispatched");
        assert_eq!(
            told.state,
            LeaseState::Held(Some(known.request.tenant)),
            "dispatched to its own lease only"
        );
        assert!(
            self.commands[replica.0].is_none(),
            "nothing is dispatched while a command is under way"
        );
        assert!(known.running_on.replace(replica).is_none(), "dispatched once");
        assert!(known.dispatched.insert(replica), "at most once per candidate");
        assert!(known.request.deadline > self.now, "not after the deadline");
        known.epoch = Some(told.epoch);
        let candidates = &known.request.candidates;
        let candidate = candidates
            .iter()
            .find(|candidate| candidate.replica == replica)
            .expect("a candidate");
        assert_eq!(candidate.boot, told.epoch.boot, "the key is of this boot");
        assert!(candidate.usable_until > self.now, "the key still exists");
        self.dispatches.push((ticket, replica));
    }
}
