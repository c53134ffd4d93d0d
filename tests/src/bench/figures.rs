//! What was measured: a name and a number each, as a table and as one flat JSON object.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use tests::stats::Summary;

/// The figures of one run.
#[derive(Debug, Default)]
pub struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// Notes a figure.
    pub fn note(&mut self, name: impl Into<String>, figure: f64) {
        self.0.insert(name.into(), figure);
    }

    /// Notes the quantiles of latencies under names that begin with `prefix`.
    pub fn note_quantiles(&mut self, prefix: &str, summary: &Summary) {
        let Summary { p50, p99, p999, max, avg: _ } = *summary;
        for (name, figure) in [("p50", p50), ("p99", p99), ("p999", p999), ("max", max)] {
            self.note(format!("{prefix}.{name}_us"), figure);
        }
    }

    /// A figure, if it was measured.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// Takes over figures that another process has printed as JSON.
    ///
    /// # Errors
    /// The text is no flat object of numbers.
    pub fn take_over(&mut self, json: &str) -> Result<()> {
        let more: BTreeMap<String, f64> =
            serde_json::from_str(json).with_context(|| format!("not a flat object of numbers: {json}"))?;
        self.0.extend(more);
        Ok(())
    }

    /// One flat JSON object in one line.
    ///
    /// # Errors
    /// A figure is not finite.
    pub fn to_json(&self) -> Result<String> {
        for (name, figure) in &self.0 {
            anyhow::ensure!(figure.is_finite(), "{name} is {figure}");
        }
        Ok(serde_json::to_string(&self.0)?)
    }

    /// Writes the JSON object to a file.
    ///
    /// # Errors
    /// A figure is not finite, or the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        self.to_json()?;
        let text = serde_json::to_string_pretty(&self.0)? + "\n";
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Prints every figure.
    pub fn print(&self) {
        for (name, figure) in &self.0 {
            println!("{name:<34} {figure:>14.1}");
        }
    }
}
