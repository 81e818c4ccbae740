//! Signals of the supervisor, as events of a channel.

use std::{
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use signal_hook::{
    consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::error::{Context, Result};

/// What ends a wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Event {
    /// SIGINT, SIGTERM or SIGHUP: stop everything.
    Stop,
    /// The time is over, or a child may have ended: look.
    Look,
}

/// The only waiting place of the supervisor.
pub(crate) struct Interrupts {
    events: Receiver<Event>,
    /// Keeps the channel open where no signals are listened to.
    _sender: Sender<Event>,
}

impl Interrupts {
    /// From now on the signals that ask to stop no longer end this process: they are events.
    ///
    /// # Errors
    ///
    /// The handlers cannot be installed.
    pub(crate) fn install() -> Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGCHLD]).context("signal handlers")?;
        let (sender, events) = mpsc::channel();
        let thread_sender = sender.clone();
        thread::spawn(move || {
            for signal in signals.forever() {
                let event = if signal == SIGCHLD { Event::Look } else { Event::Stop };
                if thread_sender.send(event).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            events,
            _sender: sender,
        })
    }

    /// Leaves the signals as they are.
    pub(crate) fn none() -> Self {
        let (sender, events) = mpsc::channel();
        Self {
            events,
            _sender: sender,
        }
    }

    /// Waits for at most `limit`.
    pub(super) fn wait(&self, limit: Duration) -> Event {
        match self.events.recv_timeout(limit) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => Event::Look,
            // Not while the sender is kept; stopping is the safe answer.
            Err(RecvTimeoutError::Disconnected) => Event::Stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_ends_is_an_event() {
        let interrupts = Interrupts::install().unwrap();
        std::process::Command::new("true").status().unwrap();
        assert_eq!(interrupts.wait(Duration::from_secs(60)), Event::Look);
    }

    #[test]
    fn without_signals_only_time_passes() {
        assert_eq!(Interrupts::none().wait(Duration::ZERO), Event::Look);
    }
}
