//! gRPC of the control channel between scheduler and enclave; generated code only.
//!
//! Two services, served by an enclave on the same mutually authenticated port as the data plane:
//! - [`EnclaveControl`](enclave_control_server::EnclaveControl): who may hold the lease, and a stream of its state. A message carries
//!   the [`Epoch`] that it expects; a stale one changes nothing.
//! - [`EnclaveKeys`](enclave_keys_server::EnclaveKeys): signed key configurations and evidence, which are passed on to clients unread.
//!
//! Nothing in here names a request or holds content. Lengths are checked by whoever receives a message: protobuf has no fixed-size
//! bytes. The code in `src/generated` comes from `proto/control.proto`:
//! `cargo run -p cloister-proto --example generate` writes it, `-- --check` after it exits 1 where the two differ.

pub use generated::*;

// Skipped, so that the checked-in bytes are exactly the generator's.
#[rustfmt::skip]
#[path = "generated/cloister.control.v1.rs"]
// The comments of the .proto file are all that generated items can carry.
#[allow(missing_docs, unreachable_pub, clippy::all)]
mod generated;
