//! What was played, read back and added up.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::workspace::{Workspace, say};

/// The page with the table, and the lines between which it stands.
const PAGE: &str = "docs/realtime.md";
const BEGIN: &str = "<!-- campaign: begin -->\n";
const END: &str = "<!-- campaign: end -->\n";

/// What the words of a cell's name stand for, in their order.
const DIMENSIONS: [&str; 6] = ["fault", "state", "bus", "supervisor", "front", "family"];

/// Everything that was played with one set of programs.
#[derive(Debug, Default)]
pub struct Played {
    /// The last result of each cell.
    cells: BTreeMap<String, Value>,
    health: Option<Value>,
    kernel: Option<Value>,
}

impl Played {
    /// Reads lines of results.
    ///
    /// # Errors
    /// A line is none: says which.
    pub fn read(text: &str) -> Result<Self> {
        let mut played = Self::default();
        for line in text.lines() {
            let value: Value = serde_json::from_str(line).with_context(|| format!("not a result: {line}"))?;
            if let Some(cell) = value["cell"].as_str() {
                played.cells.insert(cell.to_owned(), value);
            } else if value["seconds"].is_u64() {
                played.health = Some(value);
            } else if value["kernel_passed"].is_u64() {
                played.kernel = Some(value);
            } else {
                bail!("not a result: {line}");
            }
        }
        Ok(played)
    }

    /// Whether a cell was played and has shown something.
    pub fn has(&self, cell: &str) -> bool {
        self.cells.get(cell).is_some_and(|result| result["verdict"] != "unplayed")
    }

    /// Whether there was health for so long.
    pub fn has_health(&self, seconds: u64) -> bool {
        self.health.as_ref().is_some_and(|health| health["seconds"] == seconds && health["failure"].is_null())
    }

    /// Whether the tests of the kernel-armed stop with this digest have passed.
    pub fn has_kernel(&self, tests: u64) -> bool {
        self.kernel.as_ref().is_some_and(|kernel| kernel["kernel_failed"] == 0 && kernel["tests"] == tests)
    }

    /// How many results there are, those of the kernel-armed stop aside.
    pub fn count(&self) -> u64 {
        u64::try_from(self.cells.len() + usize::from(self.health.is_some())).unwrap_or(u64::MAX)
    }

    /// What is not as it has to be, a paragraph each.
    pub fn failures(&self) -> Vec<String> {
        let is_failed =
            |result: &&Value| !matches!(result["verdict"].as_str(), Some("stays" | "rest" | "told"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let cell = |result: &Value| {
            format!(
                "{}: {}: {}\n{}",
                text(&result["cell"]),
                text(&result["verdict"]),
                text(&result["why"]),
                text(&result["log"])
            )
        };
        let mut failures: Vec<String> = self.cells.values().filter(is_failed).map(cell).collect();
        let health = self.health.iter().filter(|health| !health["failure"].is_null());
        failures.extend(health.map(|health| format!("health: {}", text(&health["failure"]))));
        let kernel = self.kernel.iter().filter(|kernel| kernel["kernel_failed"] != 0);
        failures.extend(
            kernel.map(|kernel| format!("kernel-armed stop: {} tests failed", kernel["kernel_failed"])),
        );
        failures
    }

    /// The table, in Markdown: a row for each word of each dimension.
    pub fn table(&self) -> String {
        let mut text = String::from(
            "| what | cells | stood still, stayed so | came to rest in time | cannot be stopped, told | missed | false | not \
             played | first stop, ms of its bound | at rest, ms of its bound |\n|---|---|---|---|---|---|---|---|---|---|\n",
        );
        let _ = writeln!(text, "{}", Row::of("all", self.cells.values()));
        for (place, dimension) in DIMENSIONS.iter().enumerate() {
            let mut rows: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
            for (cell, result) in &self.cells {
                rows.entry(cell.split('.').nth(place).unwrap_or_default()).or_default().push(result);
            }
            for (word, results) in rows {
                let _ = writeln!(text, "{}", Row::of(&format!("{dimension} {word}"), results.into_iter()));
            }
        }
        if let Some(health) = &self.health {
            let _ = write!(
                text,
                "\nHealth: {} s at 20/50/250 ms, {} stops, {} trips, {} times the kernel's stop was put off.\n",
                health["seconds"], health["stops"], health["trips"], health["markers"]
            );
        }
        if let Some(kernel) = &self.kernel {
            let _ = write!(
                text,
                "\nTests of the kernel-armed stop at 20/50 ms: {} passed, {} failed.\n",
                kernel["kernel_passed"], kernel["kernel_failed"]
            );
        }
        text
    }
}

/// One row: how many, and which came nearest to its bound.
#[derive(Debug)]
struct Row;

impl Row {
    fn of<'a>(name: &str, results: impl Iterator<Item = &'a Value> + Clone) -> String {
        let count = |verdict: &str| results.clone().filter(|result| result["verdict"] == verdict).count();
        let nearest = |took: &str, bound: &str| {
            let pairs =
                results.clone().filter_map(|result| Some((result[took].as_u64()?, result[bound].as_u64()?)));
            let near = pairs.max_by_key(|(took, bound)| took * 1000 / (*bound).max(1));
            near.map_or_else(|| "-".to_owned(), |(took, bound)| format!("{took} of {bound}"))
        };
        format!(
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            results.clone().count(),
            count("stays"),
            count("rest"),
            count("told"),
            count("missed"),
            count("false"),
            count("unplayed"),
            nearest("first_stop_ms", "first_stop_bound_ms"),
            nearest("rest_ms", "rest_bound_ms"),
        )
    }
}

/// Puts the table where it stands in the documentation.
///
/// # Errors
/// When the page has no place for it.
pub fn write(workspace: &Workspace, played: &Played) -> Result<()> {
    let path = workspace.root.join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
    let place = page.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    let (head, tail) = place.with_context(|| format!("{PAGE} lacks the lines {BEGIN:?} and {END:?}"))?;
    fs::write(&path, format!("{head}{BEGIN}\n{}\n{END}{tail}", played.table()))?;
    say(format!("{PAGE} is written"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Played;

    const LINES: &str = r#"{"cell":"mute.granted.well.dead.front-lives.vesc","verdict":"rest","first_stop_ms":40,"first_stop_bound_ms":65,"rest_ms":200,"rest_bound_ms":1065,"why":"","log":""}
{"cell":"none.idle.gone.alive.front-hangs.dji","verdict":"unplayed","why":"no client","log":""}
{"cell":"offline.granted.well.hung.front-lives.rmd","verdict":"missed","why":"no stop","log":"a line"}
{"seconds":60,"markers":6000,"stops":0,"trips":0}
{"kernel_passed":3,"kernel_failed":0,"tests":7}
"#;

    #[test]
    fn results_are_added_up() {
        let played = Played::read(LINES).unwrap();
        assert!(played.has("mute.granted.well.dead.front-lives.vesc"));
        assert!(!played.has("none.idle.gone.alive.front-hangs.dji"), "what was not played is played again");
        assert!(played.has_health(60) && !played.has_health(1800));
        assert!(played.has_kernel(7) && !played.has_kernel(8), "other tests have not run");
        let failures = played.failures();
        assert_eq!(failures.len(), 2, "{failures:?}");
        assert!(failures[1].contains("offline") && failures[1].contains("a line"), "{failures:?}");
        let table = played.table();
        for row in [
            "| all | 3 | 0 | 1 | 0 | 1 | 0 | 1 | 40 of 65 | 200 of 1065 |",
            "| state granted | 2 | 0 | 1 | 0 | 1 | 0 | 0 | 40 of 65 | 200 of 1065 |",
            "| family dji | 1 | 0 | 0 | 0 | 0 | 0 | 1 | - | - |",
        ] {
            assert!(table.contains(row), "{table}");
        }
    }

    #[test]
    fn a_cell_that_is_played_again_counts_once() {
        let twice = format!("{LINES}{}", LINES.lines().nth(1).unwrap().replace("unplayed", "rest"));
        let played = Played::read(&twice).unwrap();
        assert!(played.has("none.idle.gone.alive.front-hangs.dji") && played.count() == 4);
    }

    #[test]
    fn failed_health_is_a_failure_and_no_health() {
        let played = Played::read(r#"{"seconds":60,"failure":"a stop"}"#).unwrap();
        assert!(!played.has_health(60));
        assert_eq!(played.failures(), ["health: a stop"]);
        assert!(Played::read("{}").is_err() && Played::read("x").is_err());
    }
}
