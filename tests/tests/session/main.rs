//! The enclave and the whole chain under attack: real processes, and a scheduler that lies.

mod cache;
mod canary;
mod chain;
mod faults;
mod forged;
mod leases;
mod measured;
mod padding;
mod refusals;
mod requests;
mod restart;
mod storm;
mod uploads;
