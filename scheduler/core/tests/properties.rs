//! Guarantees under any order of events; `world` asserts them on each action.

mod world;

use std::{collections::BTreeMap, time::Duration};

use cloister_scheduler_core::{Moment, Policy, TenantIndex};
use proptest::prelude::*;
use world::World;

const TENANTS: usize = 4;
const REPLICAS: usize = 3;
const MAX_QUEUED: usize = 6;

#[derive(Clone, Debug)]
enum Event {
    Submit {
        tenant: usize,
        candidates: Vec<usize>,
        ttl: u64,
        key_millis: u64,
    },
    Finish(prop::sample::Index),
    Cancel(prop::sample::Index),
    Retry(prop::sample::Index),
    Refuse(prop::sample::Index),
    Advance(u64),
    Announce(usize),
    Deliver(usize),
    Step(usize),
    Answer(usize),
    Fail {
        replica: usize,
        reached: bool,
    },
    Disconnect(usize),
    Reboot(usize),
}

fn policy() -> Policy {
    Policy {
        quantum: Duration::from_millis(200),
        linger: Duration::from_millis(20),
        drain_cap: Duration::from_millis(500),
        max_in_flight: 3,
        unreachable_grace: Duration::from_millis(300),
        command_pause: Duration::from_millis(10),
    }
}

fn event() -> impl Strategy<Value = Event> {
    let replica = 0..REPLICAS;
    let candidates = prop::collection::vec(0..REPLICAS, 1..=4);
    prop_oneof![
        6 => (0..TENANTS, candidates, 1..5_000_u64, 1..5_000_u64)
            .prop_map(|(tenant, candidates, ttl, key_millis)| Event::Submit { tenant, candidates, ttl, key_millis }),
        4 => any::<prop::sample::Index>().prop_map(Event::Finish),
        1 => any::<prop::sample::Index>().prop_map(Event::Cancel),
        2 => any::<prop::sample::Index>().prop_map(Event::Retry),
        2 => any::<prop::sample::Index>().prop_map(Event::Refuse),
        4 => (0..400_u64).prop_map(Event::Advance),
        2 => replica.clone().prop_map(Event::Announce),
        8 => replica.clone().prop_map(Event::Deliver),
        6 => replica.clone().prop_map(Event::Step),
        8 => replica.clone().prop_map(Event::Answer),
        2 => (replica.clone(), any::<bool>()).prop_map(|(replica, reached)| Event::Fail { replica, reached }),
        1 => replica.clone().prop_map(Event::Disconnect),
        1 => replica.prop_map(Event::Reboot),
    ]
}

fn play(world: &mut World, event: Event) {
    match event {
        Event::Submit {
            tenant,
            candidates,
            ttl,
            key_millis,
        } => {
            let candidates = candidates.iter().map(|index| cloister_scheduler_core::Candidate {
                usable_until: world.now.after(Duration::from_millis(key_millis)),
                ..world.candidate(*index)
            });
            let request = cloister_scheduler_core::Request {
                tenant: TenantIndex(tenant),
                candidates: candidates.collect(),
                deadline: world.now.after(Duration::from_millis(ttl)),
            };
            world.submit_request(request);
        }
        Event::Finish(index) => {
            let running = world.running();
            if !running.is_empty() {
                world.finish(*index.get(&running));
            }
        }
        Event::Cancel(index) => {
            let waiting = world.waiting();
            if !waiting.is_empty() {
                world.finish(*index.get(&waiting));
            }
        }
        Event::Retry(index) => {
            let running = world.running();
            if !running.is_empty() {
                world.retry(*index.get(&running));
            }
        }
        Event::Refuse(index) => {
            let running = world.running();
            if !running.is_empty() {
                world.refuse(*index.get(&running));
            }
        }
        Event::Advance(millis) => world.advance(millis),
        Event::Announce(replica) => world.announce(replica),
        Event::Deliver(replica) => world.deliver(replica),
        Event::Step(replica) => world.step(replica),
        Event::Answer(replica) => world.answer(replica),
        Event::Fail { replica, reached } => world.fail(replica, reached),
        Event::Disconnect(replica) => world.disconnect(replica),
        Event::Reboot(replica) => world.reboot(replica),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happens, the guarantees hold; and when it stops happening, every request gets its one answer.
    #[test]
    fn any_order_of_events(events in prop::collection::vec(event(), 1..200)) {
        let mut world = World::new(policy(), TENANTS, REPLICAS, MAX_QUEUED);
        for event in events {
            play(&mut world, event);
        }
        for replica in 0..REPLICAS {
            world.announce(replica);
        }
        for _ in 0..2_000 {
            world.settle_messages();
            for ticket in world.running() {
                world.finish(ticket);
            }
            match world.scheduler.next_wakeup().filter(|due| *due != Moment::NEVER) {
                Some(due) => world.advance(due.since(world.now).as_millis().try_into().unwrap()),
                None if world.running().is_empty() => break,
                None => {}
            }
        }
        prop_assert!(world.waiting().is_empty(), "left waiting: {:?}", world.waiting());
        prop_assert_eq!(world.scheduler.running(), 0);
        prop_assert!((0..TENANTS).all(|tenant| world.scheduler.queued(TenantIndex(tenant)) == 0));
    }

    /// Without failures nothing is rejected: every backlogged tenant is served.
    #[test]
    fn every_backlogged_tenant_is_served(
        load in prop::collection::vec((0..TENANTS, prop::collection::vec(0..REPLICAS, 1..=2)), 1..40),
    ) {
        let mut world = World::new(policy(), TENANTS, REPLICAS, 64);
        for (tenant, candidates) in &load {
            world.submit(*tenant, candidates, 1_000_000);
        }
        for _ in 0..2_000 {
            world.settle_messages();
            for ticket in world.running() {
                world.finish(ticket);
            }
            if world.waiting().is_empty() {
                break;
            }
            if !world.running().is_empty() {
                continue;
            }
            let due = world.scheduler.next_wakeup().expect("who waits has something to wait for");
            world.advance(due.since(world.now).as_millis().try_into().unwrap());
        }
        prop_assert_eq!(world.dispatches.len(), load.len());
        prop_assert!(world.rejections.is_empty());
    }

    /// Tenants that never stop asking take turns: between two leases of one of them no other has more than one (one replica).
    #[test]
    fn endless_backlogs_take_turns(tenants in 2..=8_usize, turns in 1..24_usize) {
        let mut world = World::new(policy(), tenants, 1, 1_000);
        for tenant in 0..tenants {
            for _ in 0..60 {
                world.submit(tenant, &[0], 1_000_000);
            }
        }
        for _ in 0..turns {
            world.settle_messages();
            world.advance(200);
        }
        let mut since_last: BTreeMap<usize, BTreeMap<usize, usize>> = BTreeMap::new();
        for (_, TenantIndex(tenant)) in &world.leases {
            for (other, counts) in &mut since_last {
                if other != tenant {
                    let count = counts.entry(*tenant).or_default();
                    *count += 1;
                    prop_assert!(*count <= 1, "{} had {} leases while {} waited", tenant, count, other);
                }
            }
            since_last.insert(*tenant, BTreeMap::new());
        }
        prop_assert!(world.leases.len() >= turns, "the replica is kept busy");
    }
}
