//! The program as a user runs it.

mod appraise;
#[path = "../../../attestation/tests/cases/mod.rs"]
mod cases;
mod collateral;
mod doctor;
mod run;
mod tenant;
