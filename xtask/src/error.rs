//! The one error of the tool: a text that names what failed, where, and what to do about it.

use std::fmt;

/// Result of everything in this crate.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a task stopped, and the exit code that says so.
#[derive(Debug)]
pub(crate) struct Error {
    message: String,
    exit_code: u8,
}

/// Adds what was being done to an error of the standard library.
pub(crate) trait Context<T> {
    /// Puts `what` before the error: "`what`: the error".
    fn context(self, what: impl fmt::Display) -> Result<T>;
}

/// Fails the surrounding function with a formatted [`Error`].
macro_rules! bail {
    ($($argument:tt)*) => {
        return Err($crate::error::Error::new(format!($($argument)*)))
    };
}
pub(crate) use bail;

// === impl Error ===

impl Error {
    /// A task that failed: exit code 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            exit_code: 1,
        }
    }

    /// A command line that cannot be understood: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            exit_code: 2,
        }
    }

    /// Exit code of the process that ends with this error.
    pub(crate) fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error::new(format!("{what}: {error}")))
    }
}
