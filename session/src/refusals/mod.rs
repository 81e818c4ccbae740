//! One test for each thing that must be refused, on messages that are right in everything else: each asks for the reason of
//! the one check that it is about, so that it fails when the check is gone.

pub(crate) mod fixture;

mod credentials;
mod framing;
mod keys;
mod properties;
mod receipts;
mod request;
mod response;
mod round_trip;
mod windows;
