//! The policy, one decision per test.

mod world;

use std::time::Duration;

use cloister_scheduler_core::{
    Action, BootId, Candidate, InvalidPolicy, LeaseReport, LeaseState, Load, Moment, Policy, Rejection, ReplicaIndex,
    Request, Scheduler, TenantIndex, TenantLimits,
};
use world::World;

const LONG: u64 = 100_000;

fn policy() -> Policy {
    Policy {
        quantum: Duration::from_millis(1_000),
        linger: Duration::from_millis(100),
        drain_cap: Duration::from_millis(5_000),
        max_in_flight: 4,
        unreachable_grace: Duration::from_millis(500),
        command_pause: Duration::from_millis(50),
    }
}

fn held_by(tenant: usize) -> Option<LeaseState> {
    Some(LeaseState::Held(Some(TenantIndex(tenant))))
}

#[test]
fn a_request_gets_a_lease_and_is_dispatched() {
    let mut world = World::new(policy(), 1, 1, 8);
    let ticket = world.submit(0, &[0], LONG);
    assert!(world.dispatches.is_empty(), "not before the lease is reported");
    world.settle_messages();
    assert_eq!(world.dispatches, [(ticket, ReplicaIndex(0))]);
}

#[test]
fn without_competition_the_lease_stays() {
    let mut world = World::new(policy(), 2, 1, 8);
    let ticket = world.submit(0, &[0], LONG);
    world.settle_messages();
    world.finish(ticket);
    world.advance(LONG);
    assert!(!world.has_command(0));
    assert_eq!(world.scheduler.lease(ReplicaIndex(0)), held_by(0));
    // Its next request needs no switch.
    let ticket = world.submit(0, &[0], LONG);
    assert_eq!(world.dispatches.last(), Some(&(ticket, ReplicaIndex(0))));
}

#[test]
fn an_empty_lease_lingers_and_is_then_drained() {
    let mut world = World::new(policy(), 2, 1, 8);
    let ticket = world.submit(0, &[0], LONG);
    world.settle_messages();
    world.finish(ticket);
    world.submit(1, &[0], LONG);
    world.advance(99);
    assert!(!world.has_command(0), "lingers");
    assert_eq!(world.scheduler.next_wakeup(), Some(Moment(1_100)));
    world.advance(1);
    assert!(world.has_command(0), "drained");
    world.settle_messages();
    assert_eq!(world.scheduler.lease(ReplicaIndex(0)), held_by(1));
}

#[test]
fn a_busy_lease_ends_with_its_quantum_and_takes_nothing_more() {
    let mut world = World::new(policy(), 2, 1, 8);
    world.submit(0, &[0], LONG);
    world.settle_messages();
    world.submit(1, &[0], LONG);
    world.advance(999);
    assert!(!world.has_command(0));
    world.advance(1);
    assert!(world.has_command(0));
    let dispatched = world.dispatches.len();
    world.submit(0, &[0], LONG);
    assert_eq!(world.dispatches.len(), dispatched, "admission has stopped");
    world.settle_messages();
    assert_eq!(world.scheduler.lease(ReplicaIndex(0)), held_by(1));
}

#[test]
fn a_weight_stretches_the_quantum() {
    let limits = |weight| TenantLimits { weight, max_queued: 8 };
    let mut scheduler = Scheduler::new(policy(), [limits(3), limits(1)], 1, Moment(0)).unwrap();
    let boot = BootId([1; 16]);
    let epoch = cloister_scheduler_core::Epoch { boot, number: 1 };
    let state = LeaseState::Held(Some(TenantIndex(0)));
    let report = LeaseReport {
        epoch,
        state,
        load: Load::Low,
    };
    scheduler.report(Moment(0), ReplicaIndex(0), report);
    let candidate = Candidate {
        replica: ReplicaIndex(0),
        boot,
        usable_until: Moment::NEVER,
    };
    for tenant in [0, 1] {
        let request = Request {
            tenant: TenantIndex(tenant),
            candidates: vec![candidate],
            deadline: Moment::NEVER,
        };
        scheduler.submit(Moment(0), request);
    }
    assert!(scheduler.tick(Moment(2_999)).is_empty());
    let expect = epoch;
    assert_eq!(
        scheduler.tick(Moment(3_000)),
        [Action::Drain {
            replica: ReplicaIndex(0),
            expect
        }]
    );
}

#[test]
fn the_least_recently_served_tenant_is_next() {
    let mut world = World::new(policy(), 3, 1, 64);
    let mut order = Vec::new();
    for tenant in [0, 1, 2] {
        for _ in 0..20 {
            world.submit(tenant, &[0], LONG);
        }
    }
    for _ in 0..9 {
        world.settle_messages();
        world.advance(1_000);
    }
    order.extend(world.leases.iter().map(|(_, tenant)| tenant.0));
    assert_eq!(order, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
}

#[test]
fn one_request_takes_one_replica() {
    let mut world = World::new(policy(), 2, 2, 8);
    world.submit(0, &[0, 1], LONG);
    assert!(world.has_command(0));
    assert!(!world.has_command(1), "the second candidate is left to others");
    world.submit(1, &[0, 1], LONG);
    assert!(world.has_command(1));
}

#[test]
fn the_preferred_candidate_is_taken_and_a_warm_one_before_it() {
    let mut world = World::new(policy(), 2, 2, 8);
    let ticket = world.submit(0, &[1, 0], LONG);
    world.settle_messages();
    assert_eq!(world.dispatches, [(ticket, ReplicaIndex(1))]);
    world.finish(ticket);
    // The enclave ends the lease by itself after its idle time.
    world.enclaves[1].state = LeaseState::Scrubbing;
    world.announce(1);
    world.settle_messages();
    let ticket = world.submit(0, &[0, 1], LONG);
    world.settle_messages();
    assert_eq!(
        world.dispatches.last(),
        Some(&(ticket, ReplicaIndex(1))),
        "held last, so it is warm"
    );
}

#[test]
fn a_burst_spreads_over_free_replicas() {
    let mut world = World::new(policy(), 1, 2, 16);
    for _ in 0..6 {
        world.submit(0, &[0, 1], LONG);
    }
    world.settle_messages();
    let second = world.dispatches.iter().filter(|(_, replica)| replica.0 == 1).count();
    assert_eq!(
        (world.dispatches.len(), second),
        (6, 2),
        "four fit into the first lease"
    );
}

#[test]
fn a_burst_does_not_end_the_lease_of_a_busy_tenant() {
    let mut world = World::new(policy(), 2, 2, 16);
    world.submit(1, &[1], LONG);
    for _ in 0..6 {
        world.submit(0, &[0, 1], LONG);
    }
    world.settle_messages();
    world.advance(10_000);
    assert!(!world.has_command(1), "tenant 0 has a lease for these requests");
    assert_eq!(world.scheduler.queued(TenantIndex(0)), 2);
}

#[test]
fn a_lease_elsewhere_does_not_starve_a_request() {
    // Tenant 0 always has a lease on replica 0; its other requests can only go to replica 1, where tenant 1 never stops.
    let mut world = World::new(policy(), 2, 2, 64);
    world.submit(0, &[0], LONG);
    for _ in 0..20 {
        world.submit(1, &[1], LONG);
    }
    world.settle_messages();
    let ticket = world.submit(0, &[1], LONG);
    world.advance(1_000);
    world.settle_messages();
    assert_eq!(world.dispatches.last(), Some(&(ticket, ReplicaIndex(1))));
}

#[test]
fn one_waiting_tenant_ends_one_lease() {
    let mut world = World::new(policy(), 3, 2, 8);
    world.submit(0, &[0], LONG);
    world.submit(1, &[1], LONG);
    world.settle_messages();
    world.submit(2, &[0, 1], LONG);
    world.submit(2, &[0, 1], LONG);
    world.advance(5_000);
    assert_eq!(
        [0, 1]
            .map(|index| world.has_command(index))
            .iter()
            .filter(|has| **has)
            .count(),
        1
    );
}

#[test]
fn a_scrub_that_does_not_end_lets_another_lease_end() {
    let mut world = World::new(policy(), 3, 2, 8);
    world.submit(0, &[0], LONG);
    world.submit(1, &[1], LONG);
    world.settle_messages();
    world.enclaves[0].state = LeaseState::Scrubbing;
    world.announce(0);
    world.deliver(0);
    world.submit(2, &[0, 1], LONG);
    world.advance(14_999);
    assert!(!world.has_command(1), "waits for the scrub");
    world.advance(1);
    assert!(world.has_command(1));
}

#[test]
fn a_full_queue_refuses() {
    let mut world = World::new(policy(), 1, 1, 2);
    for _ in 0..2 {
        world.submit(0, &[0], LONG);
    }
    let ticket = world.submit(0, &[0], LONG);
    assert_eq!(world.rejections, [(ticket, Rejection::QueueFull)]);
}

#[test]
fn a_deadline_and_the_end_of_a_key_are_told_apart() {
    let mut world = World::new(policy(), 2, 1, 8);
    world.submit(0, &[0], LONG);
    world.settle_messages();
    let expired = world.submit(1, &[0], 300);
    let candidate = Candidate {
        usable_until: Moment(1_200),
        ..world.candidate(0)
    };
    let request = Request {
        tenant: TenantIndex(1),
        candidates: vec![candidate],
        deadline: Moment(LONG),
    };
    let ended = world.submit_request(request.clone());
    world.advance(200);
    world.advance(100);
    assert_eq!(
        world.rejections,
        [(ended, Rejection::WindowEnded), (expired, Rejection::Expired)]
    );
    let late = world.submit_request(request);
    assert_eq!(world.rejections.last(), Some(&(late, Rejection::WindowEnded)));
    let late = world.submit(1, &[0], 0);
    assert_eq!(world.rejections.last(), Some(&(late, Rejection::Expired)));
}

#[test]
fn one_ended_key_leaves_the_other_candidate() {
    let mut world = World::new(policy(), 2, 2, 8);
    world.submit(0, &[0], LONG);
    world.submit(0, &[1], LONG);
    world.settle_messages();
    let short = Candidate {
        usable_until: Moment(1_200),
        ..world.candidate(0)
    };
    let candidates = vec![short, world.candidate(1)];
    let ticket = world.submit_request(Request {
        tenant: TenantIndex(1),
        candidates,
        deadline: Moment(LONG),
    });
    world.advance(500);
    world.advance(500);
    world.settle_messages();
    assert_eq!(world.dispatches.last(), Some(&(ticket, ReplicaIndex(1))));
}

#[test]
fn a_restarted_enclave_has_lost_its_keys() {
    let mut world = World::new(policy(), 2, 1, 8);
    world.submit(0, &[0], LONG);
    world.settle_messages();
    let old = world.candidate(0);
    let ticket = world.submit(1, &[0], LONG);
    world.reboot(0);
    world.deliver(0);
    assert_eq!(world.rejections, [(ticket, Rejection::UnknownKey)]);
    let ticket = world.submit_request(Request {
        tenant: TenantIndex(1),
        candidates: vec![old],
        deadline: Moment(LONG),
    });
    assert_eq!(world.rejections.last(), Some(&(ticket, Rejection::UnknownKey)));
}

#[test]
fn an_unreachable_candidate_is_given_up_after_a_grace() {
    let mut world = World::new(policy(), 1, 1, 8);
    world.disconnect(0);
    let ticket = world.submit(0, &[0], LONG);
    world.advance(499);
    assert!(world.rejections.is_empty());
    assert_eq!(world.scheduler.next_wakeup(), Some(Moment(1_500)));
    world.advance(1);
    assert_eq!(world.rejections, [(ticket, Rejection::CandidateUnavailable)]);
    let ticket = world.submit(0, &[0], LONG);
    assert_eq!(
        world.rejections.last(),
        Some(&(ticket, Rejection::CandidateUnavailable))
    );
    world.announce(0);
    world.deliver(0);
    world.submit(0, &[0], LONG);
    world.settle_messages();
    assert_eq!(world.dispatches.len(), 1, "it is back");
}

#[test]
fn a_failed_replica_is_given_up_at_once() {
    let mut world = World::new(policy(), 1, 1, 8);
    world.submit(0, &[0], LONG);
    world.enclaves[0].state = LeaseState::Failed;
    world.announce(0);
    world.deliver(0);
    assert_eq!(world.rejections.len(), 1);
    assert_eq!(world.rejections[0].1, Rejection::CandidateUnavailable);
}

#[test]
fn a_retry_goes_to_the_next_candidate_and_then_ends() {
    let mut world = World::new(policy(), 1, 2, 8);
    let ticket = world.submit(0, &[0, 1], LONG);
    world.settle_messages();
    world.retry(ticket);
    world.settle_messages();
    assert_eq!(world.dispatches, [(ticket, ReplicaIndex(0)), (ticket, ReplicaIndex(1))]);
    world.retry(ticket);
    assert_eq!(world.rejections, [(ticket, Rejection::CandidateUnavailable)]);
}

#[test]
fn a_refusal_for_the_end_of_the_lease_does_not_use_up_the_candidate() {
    let mut world = World::new(policy(), 2, 1, 8);
    let ticket = world.submit(0, &[0], LONG);
    world.settle_messages();
    world.submit(1, &[0], LONG);
    world.advance(1_000);
    assert!(world.has_command(0), "the drain passes the request on the way");
    world.refuse(ticket);
    world.settle_messages();
    world.advance(1_000);
    world.settle_messages();
    assert_eq!(
        world.dispatches.last(),
        Some(&(ticket, ReplicaIndex(0))),
        "in the tenant's next lease"
    );
    assert!(world.rejections.is_empty());
}

#[test]
fn a_refusal_that_the_lease_does_not_explain_uses_up_the_candidate() {
    let mut world = World::new(policy(), 1, 1, 8);
    let ticket = world.submit(0, &[0], LONG);
    world.settle_messages();
    world.refuse(ticket);
    assert_eq!(world.rejections, [(ticket, Rejection::CandidateUnavailable)]);
}

#[test]
fn old_news_changes_nothing() {
    let mut world = World::new(policy(), 2, 1, 8);
    world.announce(0); // Vacant, delivered late.
    let ticket = world.submit(0, &[0], LONG);
    world.answer(0);
    assert_eq!(world.dispatches, [(ticket, ReplicaIndex(0))]);
    world.submit(1, &[0], LONG);
    world.deliver(0);
    assert!(!world.has_command(0), "no grant for an epoch that is held");
    assert_eq!(world.scheduler.lease(ReplicaIndex(0)), held_by(0));
}

#[test]
fn the_answer_of_an_old_boot_changes_nothing() {
    let mut world = World::new(policy(), 1, 1, 8);
    let old = world.enclaves[0].report();
    world.reboot(0);
    world.deliver(0);
    let actions = world.scheduler.replied(world.now, ReplicaIndex(0), true, old);
    assert!(actions.is_empty());
    assert_eq!(world.scheduler.lease(ReplicaIndex(0)), Some(LeaseState::Scrubbing));
    assert_eq!(
        world.scheduler.boot(ReplicaIndex(0)),
        Some(world.enclaves[0].epoch.boot)
    );
}

#[test]
fn a_failed_command_is_repeated_after_a_pause() {
    let mut world = World::new(policy(), 1, 1, 8);
    world.submit(0, &[0], LONG);
    world.fail(0, false);
    assert!(!world.has_command(0));
    assert_eq!(world.scheduler.next_wakeup(), Some(Moment(1_050)));
    world.advance(50);
    assert!(world.has_command(0));
    world.settle_messages();
    assert_eq!(world.dispatches.len(), 1);
}

#[test]
fn a_lease_of_an_unknown_tenant_is_not_used_and_ends_with_the_quantum() {
    let mut world = World::new(policy(), 1, 1, 8);
    world.enclaves[0].state = LeaseState::Held(None);
    world.announce(0);
    world.deliver(0);
    world.submit(0, &[0], LONG);
    world.advance(999);
    assert!(world.dispatches.is_empty() && !world.has_command(0));
    world.advance(1);
    assert!(world.has_command(0));
    world.settle_messages();
    assert_eq!(world.dispatches.len(), 1);
}

#[test]
fn a_gone_client_leaves_the_queue_and_the_lease() {
    let mut world = World::new(policy(), 2, 1, 8);
    let running = world.submit(0, &[0], LONG);
    world.settle_messages();
    let waiting = world.submit(1, &[0], LONG);
    world.finish(waiting);
    world.finish(running);
    world.finish(running);
    world.advance(LONG);
    assert!(!world.has_command(0), "nobody waits any more");
    assert_eq!(
        (world.scheduler.queued(TenantIndex(1)), world.scheduler.running()),
        (0, 0)
    );
}

#[test]
fn a_policy_under_which_nothing_runs_is_refused() {
    let nothing = Policy {
        max_in_flight: 0,
        ..policy()
    };
    assert_eq!(nothing.validate(), Err(InvalidPolicy::NothingInFlight));
    let busy = Policy {
        command_pause: Duration::ZERO,
        ..policy()
    };
    assert_eq!(busy.validate(), Err(InvalidPolicy::NoPause));
}

#[test]
fn what_runs_is_counted() {
    let mut world = World::new(policy(), 1, 1, 8);
    assert_eq!(world.scheduler.running(), 0);
    let first = world.submit(0, &[0], LONG);
    world.submit(0, &[0], LONG);
    world.settle_messages();
    assert_eq!(world.scheduler.running(), 2);
    world.finish(first);
    assert_eq!(world.scheduler.running(), 1);
}
