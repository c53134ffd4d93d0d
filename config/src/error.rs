//! What is wrong with a file: each problem with its line, in the order of the file.

use core::fmt;
use core::ops::Range;
use std::path::{Path, PathBuf};

/// Everything that is wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    path: PathBuf,
    problems: Vec<Problem>,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; `None` when the problem is the file itself.
    pub line: Option<usize>,
    /// What is wrong, where, and what would be right.
    pub text: String,
}

impl ConfigError {
    pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        let text = format!("cannot read the configuration: {error}");
        Self { path: path.to_owned(), problems: vec![Problem { line: None, text }] }
    }

    pub(crate) fn at_spans(path: &Path, source: &str, mut found: Vec<(Range<usize>, String)>) -> Self {
        found.sort_by_key(|(span, _)| span.start);
        let problems = found
            .into_iter()
            .map(|(span, text)| {
                let before = source.get(..span.start).unwrap_or(source);
                Problem { line: Some(before.matches('\n').count() + 1), text }
            })
            .collect();
        Self { path: path.to_owned(), problems }
    }

    /// The problems, in the order of the file.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    /// One line per problem: `lanyard.toml:14: motor "left": ...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match problem.line {
                Some(line) => write!(f, "{}:{line}: {}", self.path.display(), problem.text)?,
                None => write!(f, "{}: {}", self.path.display(), problem.text)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
