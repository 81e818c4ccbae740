//! The program as a user runs it.

mod doctor;
mod run;
mod tenant;
