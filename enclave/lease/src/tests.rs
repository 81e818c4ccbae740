//! One test for each rule, then random walks.

use cloister_attestation::{BootId, Sha256Digest};
use cloister_session::{TenantId, TenantRef};
use proptest::prelude::*;

use crate::{Account, Action, Epoch, LeaseMachine, Limits, Millis, NotHeld, OtherTenant, Permit, State};

const BOOT: BootId = BootId::from_bytes([1; 16]);
const A: TenantRef = TenantRef::from_bytes([0xa; 16]);
const B: TenantRef = TenantRef::from_bytes([0xb; 16]);
const ID_A: TenantId = TenantId::from_bytes([0xa; 32]);
const ID_B: TenantId = TenantId::from_bytes([0xb; 32]);
const PROOF: Sha256Digest = Sha256Digest::from_bytes([9; 32]);
const LIMITS: Limits = Limits {
    drain_cap: Millis(100),
    max_hold: Millis(1000),
    idle_hold: Millis(300),
    max_in_flight: 3,
    max_scrub_failures: 2,
};

fn epoch(number: u64) -> Epoch {
    Epoch { boot_id: BOOT, number }
}

fn vacant() -> LeaseMachine {
    let mut machine = LeaseMachine::new(BOOT, LIMITS);
    assert_eq!(
        machine.tick(Millis(0)),
        Some(Action::Scrub {
            epoch: 0,
            restart: true
        })
    );
    assert!(machine.scrubbed(0, PROOF));
    machine
}

fn held() -> LeaseMachine {
    let mut machine = vacant();
    assert!(machine.grant(A, epoch(1), Millis(0)));
    machine
}

fn permit(machine: &mut LeaseMachine) -> Permit {
    let mut permit = machine.admit(&A, Millis(0)).unwrap();
    machine.identify(&mut permit, &ID_A).unwrap();
    permit
}

fn state(machine: &LeaseMachine) -> (State, u64) {
    (machine.status().state, machine.status().epoch.number)
}

#[test]
fn a_new_enclave_restarts_the_engine_before_anything() {
    let mut machine = LeaseMachine::new(BOOT, LIMITS);
    assert_eq!(state(&machine), (State::Scrubbing, 0));
    assert!(!machine.grant(A, epoch(0), Millis(0)));
    assert!(machine.admit(&A, Millis(0)).is_err());
    assert!(
        !machine.scrubbed(0, PROOF),
        "no proof counts before the scrub was begun"
    );
    assert_eq!(
        machine.tick(Millis(0)),
        Some(Action::Scrub {
            epoch: 0,
            restart: true
        })
    );
    assert_eq!(machine.tick(Millis(0)), None, "once");
}

#[test]
fn the_circle_of_states() {
    let mut machine = held();
    assert_eq!(state(&machine), (State::Held, 1));
    assert_eq!(machine.status().holder, Some(A));
    let call = permit(&mut machine);
    let call = machine.begin_call(call).unwrap();
    assert!(machine.drain(epoch(1), Millis(10)));
    assert_eq!(machine.tick(Millis(10)), None);
    assert_eq!(state(&machine), (State::Draining, 1));
    machine.end_call(call);
    assert_eq!(
        machine.tick(Millis(11)),
        Some(Action::Scrub {
            epoch: 1,
            restart: false
        })
    );
    assert_eq!((machine.ledger().begun, machine.ledger().ended), (1, 1));
    assert!(machine.scrubbed(1, PROOF));
    assert_eq!(state(&machine), (State::Vacant, 2));
    assert_eq!(machine.status().holder, None);
}

#[test]
fn control_messages_with_a_stale_epoch_change_nothing() {
    let mut machine = vacant();
    let other_boot = Epoch {
        boot_id: BootId::from_bytes([2; 16]),
        number: 1,
    };
    assert!(!machine.grant(A, epoch(0), Millis(0)));
    assert!(!machine.grant(A, epoch(2), Millis(0)));
    assert!(!machine.grant(A, other_boot, Millis(0)));
    assert_eq!(state(&machine), (State::Vacant, 1));
    assert!(machine.grant(A, epoch(1), Millis(0)));
    assert!(!machine.grant(A, epoch(1), Millis(0)), "a duplicate");
    assert!(!machine.grant(B, epoch(1), Millis(0)), "a second tenant");
    assert_eq!(machine.status().holder, Some(A));
    assert!(!machine.drain(epoch(0), Millis(0)));
    assert!(!machine.drain(other_boot, Millis(0)));
    assert_eq!(state(&machine), (State::Held, 1));
    assert!(machine.drain(epoch(1), Millis(0)));
    assert!(!machine.drain(epoch(1), Millis(0)), "a duplicate");
    assert!(!machine.grant(B, epoch(1), Millis(0)), "not while draining");
    assert!(!vacant().drain(epoch(1), Millis(0)), "nothing to drain");
}

#[test]
fn permits_are_the_holders_and_bounded() {
    let mut machine = held();
    assert_eq!(machine.admit(&B, Millis(0)), Err(NotHeld));
    let permits: Vec<_> = (0..3).map(|_| machine.admit(&A, Millis(0)).unwrap()).collect();
    assert_eq!(machine.admit(&A, Millis(0)), Err(NotHeld), "above the limit");
    permits.into_iter().for_each(|permit| machine.give_back(permit));
    assert!(machine.drain(epoch(1), Millis(0)));
    assert_eq!(machine.admit(&A, Millis(0)), Err(NotHeld), "not while draining");
    assert_eq!(
        vacant().admit(&A, Millis(0)),
        Err(NotHeld),
        "a request never makes a lease"
    );
}

#[test]
fn the_first_authenticated_request_fixes_the_tenant() {
    let mut machine = held();
    let mut first = machine.admit(&A, Millis(0)).unwrap();
    let mut second = machine.admit(&A, Millis(0)).unwrap();
    machine.identify(&mut first, &ID_A).unwrap();
    assert_eq!(machine.identify(&mut second, &ID_B), Err(OtherTenant));
    let second = machine.begin_call(second).expect_err("not identified");
    machine.give_back(second);
    let account = |sequence| {
        Some(Account {
            epoch: 1,
            sequence,
            distinct_tenants: 1,
            scrub_proof: PROOF,
        })
    };
    assert_eq!(machine.account(&first), account(1));
    assert_eq!(machine.account(&first), account(2));
    let third = machine.admit(&A, Millis(0)).unwrap();
    assert_eq!(machine.account(&third), None, "not identified");
}

#[test]
fn a_permit_of_an_epoch_that_is_over_starts_no_call() {
    let mut machine = held();
    let mut old = permit(&mut machine);
    assert_eq!(machine.engine_lost(), Some(Action::Revoke { epoch: 1 }));
    assert_eq!(machine.identify(&mut old, &ID_A), Err(OtherTenant));
    assert_eq!(machine.account(&old), None);
    assert_eq!(machine.tick(Millis(0)), None, "no scrub while a permit is out");
    assert!(!machine.scrubbed(1, PROOF));
    let old = machine.begin_call(old).expect_err("of an epoch that is over");
    assert_eq!(machine.tick(Millis(0)), None, "no scrub before its plaintext is erased");
    machine.give_back(old);
    assert_eq!(
        machine.tick(Millis(0)),
        Some(Action::Scrub {
            epoch: 1,
            restart: true
        })
    );
    assert!(machine.scrubbed(1, PROOF));
    assert!(machine.grant(A, epoch(2), Millis(0)));
    // Even the same tenant's next epoch does not take a permit of the one before.
    let stale = Permit {
        id: 77,
        epoch: 1,
        identified: true,
    };
    assert!(machine.begin_call(stale).is_err());
}

#[test]
fn at_the_drain_cap_permits_are_revoked_and_the_scrub_waits_for_them() {
    let mut machine = held();
    let (waiting, running) = (permit(&mut machine), permit(&mut machine));
    let late = permit(&mut machine);
    let call = machine.begin_call(running).unwrap();
    assert!(machine.drain(epoch(1), Millis(50)));
    assert_eq!(machine.deadline(), Some(Millis(150)));
    assert_eq!(machine.tick(Millis(149)), None);
    let second = machine.begin_call(late).expect("calls may begin while draining");
    assert_eq!(machine.tick(Millis(150)), Some(Action::Revoke { epoch: 1 }));
    assert_eq!(machine.tick(Millis(151)), None, "once");
    let waiting = machine.begin_call(waiting).expect_err("revoked");
    machine.give_back(waiting);
    machine.end_call(call);
    assert_eq!(machine.tick(Millis(152)), None);
    machine.end_call(second);
    assert_eq!(
        machine.tick(Millis(153)),
        Some(Action::Scrub {
            epoch: 1,
            restart: false
        })
    );
}

#[test]
fn what_was_admitted_goes_on_while_draining() {
    let mut machine = held();
    let mut late = machine.admit(&A, Millis(0)).unwrap();
    assert_eq!(late.epoch(), 1);
    let first = permit(&mut machine);
    let first = machine.begin_call(first).unwrap();
    let second = permit(&mut machine);
    let second = machine.begin_call(second).unwrap();
    let ledger = |machine: &LeaseMachine| (machine.ledger().begun, machine.ledger().ended);
    machine.end_call(first);
    assert_eq!(ledger(&machine), (2, 1), "while held");
    assert!(machine.drain(epoch(1), Millis(0)));
    assert_eq!(ledger(&machine), (2, 1), "while draining");
    machine.end_call(second);
    assert_eq!(ledger(&machine), (2, 2));
    machine.identify(&mut late, &ID_A).unwrap();
    let account = Account {
        epoch: 1,
        sequence: 1,
        distinct_tenants: 1,
        scrub_proof: PROOF,
    };
    assert_eq!(machine.account(&late), Some(account));
    assert_eq!(machine.tick(Millis(100)), Some(Action::Revoke { epoch: 1 }));
    assert_eq!(machine.deadline(), None, "nothing more to wait for");
    machine.give_back(late);
}

#[test]
fn permits_know_their_epoch() {
    let mut machine = held();
    assert!(machine.drain(epoch(1), Millis(0)));
    assert_eq!(
        machine.tick(Millis(0)),
        Some(Action::Scrub {
            epoch: 1,
            restart: false
        })
    );
    assert!(machine.scrubbed(1, PROOF));
    assert!(machine.grant(A, epoch(2), Millis(0)));
    let call = permit(&mut machine);
    assert_eq!(call.epoch(), 2);
    let call = machine.begin_call(call).unwrap();
    assert_eq!(call.epoch(), 2);
    machine.end_call(call);
}

#[test]
fn the_enclave_drains_by_itself() {
    let mut machine = held();
    assert_eq!(machine.deadline(), Some(Millis(300)));
    assert_eq!(machine.tick(Millis(299)), None);
    assert_eq!(
        machine.tick(Millis(300)),
        Some(Action::Scrub {
            epoch: 1,
            restart: false
        }),
        "abandoned"
    );

    let mut machine = held();
    machine.contact(Millis(290));
    assert_eq!(machine.tick(Millis(300)), None);
    let permit = machine.admit(&A, Millis(300)).unwrap();
    assert_eq!(machine.tick(Millis(999)), None, "not abandoned while a permit is out");
    assert_eq!(machine.tick(Millis(1000)), None);
    assert_eq!(state(&machine), (State::Draining, 1), "held for too long");
    machine.give_back(permit);
}

#[test]
fn an_unplanned_exit_leads_to_a_restart_from_every_state() {
    let mut machine = vacant();
    assert_eq!(machine.engine_lost(), None);
    assert_eq!(state(&machine), (State::Scrubbing, 1));
    assert!(!machine.grant(A, epoch(1), Millis(0)));
    assert_eq!(
        machine.tick(Millis(0)),
        Some(Action::Scrub {
            epoch: 1,
            restart: true
        })
    );
    assert_eq!(machine.engine_lost(), None, "again while it is restarted");
    assert!(!machine.scrubbed(1, PROOF), "the proof of the restart that was lost");
    assert_eq!(
        machine.tick(Millis(0)),
        Some(Action::Scrub {
            epoch: 1,
            restart: true
        })
    );
}

#[test]
fn a_failed_scrub_restarts_and_then_gives_up() {
    let mut machine = held();
    assert!(machine.drain(epoch(1), Millis(0)));
    assert_eq!(
        machine.tick(Millis(0)),
        Some(Action::Scrub {
            epoch: 1,
            restart: false
        })
    );
    machine.scrub_failed(0);
    assert_eq!(machine.tick(Millis(0)), None, "of another epoch");
    for _ in 0..2 {
        machine.scrub_failed(1);
        assert_eq!(
            machine.tick(Millis(0)),
            Some(Action::Scrub {
                epoch: 1,
                restart: true
            })
        );
    }
    machine.scrub_failed(1);
    assert_eq!(state(&machine), (State::Failed, 1));
    assert_eq!(machine.tick(Millis(0)), None);
    assert!(!machine.scrubbed(1, PROOF));
    assert!(!machine.grant(A, epoch(1), Millis(0)));
    assert_eq!(machine.engine_lost(), None);
}

#[test]
fn calls_that_end_late_are_counted_where_they_belong() {
    let mut machine = held();
    let call = permit(&mut machine);
    let call = machine.begin_call(call).unwrap();
    machine.engine_lost();
    assert_eq!((machine.ledger().begun, machine.ledger().ended), (1, 0));
    machine.end_call(call);
    assert_eq!((machine.ledger().begun, machine.ledger().ended), (1, 1));
}

/// What a random walk does next.
#[derive(Debug, Clone)]
enum Move {
    Grant(bool, u64),
    Drain(u64),
    Admit(bool),
    Identify(bool),
    Begin,
    EndCall,
    GiveBack,
    Lost,
    Scrubbed(u64),
    Failed,
    Wait(u64),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => (any::<bool>(), 0..3u64).prop_map(|(a, off)| Move::Grant(a, off)),
        1 => (0..2u64).prop_map(Move::Drain),
        4 => any::<bool>().prop_map(Move::Admit),
        4 => any::<bool>().prop_map(Move::Identify),
        3 => Just(Move::Begin),
        2 => Just(Move::EndCall),
        1 => Just(Move::GiveBack),
        1 => Just(Move::Lost),
        4 => (0..2u64).prop_map(Move::Scrubbed),
        1 => Just(Move::Failed),
        2 => (1..120u64).prop_map(Move::Wait),
    ]
}

proptest! {
    /// Whatever schedulers, engine and clients do: the calls that are out are of one epoch and of its one tenant, and
    /// nothing is out while the replica is vacant.
    #[test]
    fn no_walk_mixes_tenants(walk in proptest::collection::vec(moves(), 0..200)) {
        let mut machine = LeaseMachine::new(BOOT, LIMITS);
        let mut now = 0;
        let (mut permits, mut calls) = (Vec::new(), Vec::new());
        // Which tenant each epoch has been seen to serve.
        let mut served: std::collections::HashMap<u64, TenantId> = std::collections::HashMap::new();
        for step in walk {
            let number = machine.status().epoch.number;
            match step {
                Move::Grant(a, off) => {
                    machine.grant(if a { A } else { B }, epoch(number.saturating_sub(off)), Millis(now));
                }
                Move::Drain(off) => {
                    machine.drain(epoch(number.saturating_sub(off)), Millis(now));
                }
                Move::Admit(a) => {
                    let tenant = if a { A } else { B };
                    if let Ok(permit) = machine.admit(&tenant, Millis(now)) {
                        prop_assert_eq!(machine.status().holder, Some(tenant));
                        prop_assert_eq!(machine.status().state, State::Held);
                        permits.push((permit, None));
                    }
                }
                Move::Identify(a) => {
                    let id = if a { ID_A } else { ID_B };
                    if let Some((permit, identified)) = permits.last_mut()
                        && machine.identify(permit, &id).is_ok()
                    {
                        *identified = Some(id);
                    }
                }
                Move::Begin => {
                    let Some((permit, identified)) = permits.pop() else { continue };
                    match machine.begin_call(permit) {
                        Ok(call) => {
                            let id = identified.expect("only identified permits begin");
                            prop_assert_eq!(*served.entry(call.epoch()).or_insert(id), id);
                            prop_assert_eq!(call.epoch(), number);
                            calls.push(call);
                        }
                        Err(permit) => permits.push((permit, identified)),
                    }
                }
                Move::EndCall => calls.pop().into_iter().for_each(|call| machine.end_call(call)),
                Move::GiveBack => permits.pop().into_iter().for_each(|(permit, _)| machine.give_back(permit)),
                Move::Lost => {
                    machine.engine_lost();
                }
                Move::Scrubbed(off) => {
                    machine.scrubbed(number.saturating_sub(off), PROOF);
                }
                Move::Failed => machine.scrub_failed(number),
                Move::Wait(millis) => now += millis,
            }
            machine.tick(Millis(now));
            prop_assert_eq!(machine.in_flight(), permits.len() + calls.len());
            if machine.status().state == State::Vacant {
                prop_assert_eq!(machine.in_flight(), 0);
            }
            if let Some(last) = calls.last() {
                prop_assert!(calls.iter().all(|call| call.epoch() == last.epoch()));
            }
        }
    }
}
