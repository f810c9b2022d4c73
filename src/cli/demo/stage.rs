//! What the terminal shows: titles, facts, and what is going on right now.

use std::{cell::Cell, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

const STEPS: u32 = 7;

/// The terminal. Facts go to stdout; what is going on goes to stderr, where that is a terminal.
pub(super) struct Stage {
    spinner: ProgressBar,
    step: Cell<u32>,
}

impl Stage {
    pub(super) fn new() -> Stage {
        // Hidden by itself where stderr is no terminal.
        let spinner = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("  {spinner} {msg} ({elapsed})");
        spinner.set_style(style.expect("a sound template"));
        spinner.enable_steady_tick(Duration::from_millis(100));
        Stage { spinner, step: Cell::new(0) }
    }

    /// The next part of the story.
    pub(super) fn title(&self, text: &str) {
        self.step.set(self.step.get() + 1);
        let step = self.step.get();
        let count = if step <= STEPS { format!("{step}/{STEPS} ") } else { String::new() };
        self.line(&format!("\n{count}{text}"));
    }

    /// What goes on now.
    pub(super) fn working(&self, text: &str) {
        self.spinner.set_message(format!("{text} ..."));
    }

    /// What was seen.
    pub(super) fn fact(&self, text: &str) {
        self.line(&format!("  - {text}"));
    }

    /// A line as it is.
    #[expect(clippy::print_stdout, reason = "the demo tells its story")]
    pub(super) fn line(&self, text: &str) {
        self.spinner.suspend(|| println!("{text}"));
    }

    /// The end.
    pub(super) fn done(&self, text: &str) {
        self.spinner.finish_and_clear();
        self.line(&format!("\n{text}"));
    }
}
