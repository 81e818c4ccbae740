//! Test harness: real processes, lying schedulers, canaries.
//!
//! A [`site::Site`] is a folder with certificates and a SIMULATED TEE. In it run a real [`enclave::Enclave`] with its
//! engine, and either a [`lying::Lying`] scheduler, which is the test itself and says what it likes, or a
//! [`chain::Chain`] of the real scheduler and real proxies. What the engine ran together is read from the simulator's
//! [`batches::Batches`]; requests that no honest client makes come from [`forge`].
//!
//! Nothing here measures time. Waiting is for something that can be seen, with a [`wait::LIMIT`] after which the test fails.

pub mod answer;
pub mod batches;
pub mod chain;
pub mod child;
pub mod enclave;
pub mod engine;
pub mod forge;
pub mod lying;
pub mod openai;
pub mod process;
pub mod programs;
pub mod real;
pub mod rng;
pub mod site;
pub mod tenant;
pub mod wait;
