//! How a cell ended.

use std::time::Duration;

use serde_json::{Value, json};

/// The sign of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stood still before, and did not move.
    Stays,
    /// At rest within its bound.
    Rest,
    /// It cannot be stopped by any frame: every stage was sent, and it was never called still.
    Told,
    /// A stop was missing or late.
    Missed,
    /// A stop without a reason, or a proof without standstill.
    False,
    /// The scene failed and has shown nothing.
    Unplayed,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Stays => "stays",
            Self::Rest => "rest",
            Self::Told => "told",
            Self::Missed => "missed",
            Self::False => "false",
            Self::Unplayed => "unplayed",
        }
    }
}

/// The end of a cell and its times.
#[derive(Debug)]
pub struct Outcome {
    /// The sign of it.
    pub verdict: Verdict,
    /// When the first stop reached the drive, from the moment on at which all had gone wrong.
    pub first_stop: Option<Duration>,
    /// By when it had to.
    pub first_stop_bound: Option<Duration>,
    /// When the shaft was last seen turning.
    pub rest: Option<Duration>,
    /// By when it had to be at rest.
    pub rest_bound: Option<Duration>,
    /// What went wrong, in words.
    pub why: String,
    log: String,
}

impl Outcome {
    /// An end without times.
    pub const fn new(verdict: Verdict, why: String) -> Self {
        Self {
            verdict,
            first_stop: None,
            first_stop_bound: None,
            rest: None,
            rest_bound: None,
            why,
            log: String::new(),
        }
    }

    /// The scene failed.
    pub fn unplayed(error: &anyhow::Error) -> Self {
        Self::new(Verdict::Unplayed, format!("{error:#}"))
    }

    /// A stop was missing or late.
    pub fn missed(self, why: String) -> Self {
        Self { verdict: Verdict::Missed, why, ..self }
    }

    /// With what the programs have printed.
    pub fn with_log(self, log: String) -> Self {
        Self { log, ..self }
    }

    /// As a line of the results.
    pub fn line(&self, cell: &str) -> Value {
        let millis = |span: Option<Duration>| span.map(|span| span.as_millis());
        json!({
            "cell": cell,
            "verdict": self.verdict.word(),
            "first_stop_ms": millis(self.first_stop),
            "first_stop_bound_ms": millis(self.first_stop_bound),
            "rest_ms": millis(self.rest),
            "rest_bound_ms": millis(self.rest_bound),
            "why": self.why,
            "log": self.log,
        })
    }
}
