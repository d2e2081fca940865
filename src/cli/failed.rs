//! Defines the error of a command.

/// The error of a command that ends with exit code 1: the message for standard error.
#[derive(Debug)]
pub(super) struct Failed(pub(super) String);

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(format!("error: {error}"))
    }
}

pub(super) type Result<T = (), E = Failed> = std::result::Result<T, E>;
