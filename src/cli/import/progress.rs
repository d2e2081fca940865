//! Shows how far an import is, on a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// The progress of an import. Nothing is shown unless standard error is a terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    length: Option<u64>,
}

impl Progress {
    /// `length`: the bytes of the file, if they are known.
    pub(super) fn new(length: Option<u64>) -> Self {
        let bar = match length {
            Some(length) => ProgressBar::new(length),
            None => ProgressBar::new_spinner(),
        };
        let template = match length {
            Some(_) => "{wide_bar} {percent}%, line {msg}, {eta} left",
            None => "{spinner} line {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, length }
    }

    /// The import has read this many bytes, to the end of this line.
    pub(super) fn at(&self, position: u64, line: u64) {
        if self.bar.is_hidden() || !line.is_multiple_of(100) {
            return;
        }
        self.bar.set_message(line.to_string());
        match self.length {
            Some(_) => self.bar.set_position(position),
            None => self.bar.tick(),
        }
    }

    /// Prints a message on standard error.
    pub(super) fn tell(&self, message: &str) {
        self.bar.suspend(|| eprintln!("{message}"));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
