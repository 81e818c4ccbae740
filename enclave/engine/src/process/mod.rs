//! The engine's process: how it is started, confined, watched, and ended with all its children.

mod confinement;
mod directory;
mod leftover;
mod supervised;

pub use confinement::Confinement;
pub(crate) use confinement::{check_present, command};
pub(crate) use directory::RuntimeDirectory;
pub(crate) use leftover::{Record, end_leftover};
pub(crate) use supervised::Process;
