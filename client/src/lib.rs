//! Relying-party library and local OpenAI-compatible proxy.
//!
//! [`proxy`] is the HTTP surface, over anything that is a [`backend`]; [`relying`] is the backend that seals for attested
//! enclaves; [`retry`] stands between them. [`tenant`] makes the files that a member needs, [`receipts`] keeps and verifies
//! what enclaves sign, and [`doctor`] looks at each thing in order.

pub mod backend;
pub mod clock;
pub mod collateral;
pub mod config;
pub mod doctor;
pub mod failure;
pub mod files;
pub mod openai;
pub mod pem;
pub mod proxy;
mod random;
pub mod receipts;
pub mod relying;
pub mod retry;
pub mod run;
pub mod tenant;

#[cfg(test)]
mod end_to_end;
#[cfg(test)]
mod fake;
