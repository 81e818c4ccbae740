//! The enclave and the whole chain under attack: real processes, and a scheduler that lies.

mod cache;
mod leases;
mod refusals;
mod requests;
mod storm;
mod uploads;
