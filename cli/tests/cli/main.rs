//! The program as a user runs it.

mod collateral;
mod doctor;
mod run;
mod tenant;
