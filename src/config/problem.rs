//! What is wrong with a profile, said so that it can be mended.

use std::fmt;

use serde::Serialize;

use super::tree::Origin;

/// One thing wrong, or worth a warning, in a profile.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Problem {
    /// The file; `--set` for the command line.
    pub file: String,
    /// Line, from 1; 0 where there is none.
    pub line: usize,
    /// Column, from 1; 0 where there is none.
    pub column: usize,
    /// The key, in the form `--set` takes.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub allowed: String,
}

impl Problem {
    pub(super) fn new(origin: &Origin, key: &str, problem: impl Into<String>, allowed: &str) -> Self {
        let (file, line, column) = origin.place();
        Self { file, line, column, key: key.into(), problem: problem.into(), allowed: allowed.into() }
    }
}

impl Problem {
    /// The line for what is allowed but could be better.
    pub fn warning(&self) -> String {
        self.describe("better")
    }

    fn describe(&self, hint: &str) -> String {
        let place = if self.line == 0 {
            format!("{}: ", self.file)
        } else {
            format!("{}:{}:{}: ", self.file, self.line, self.column)
        };
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        let hint = if self.allowed.is_empty() { String::new() } else { format!(" ({hint}: {})", self.allowed) };
        format!("{place}{key}{}{hint}", self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe("allowed"))
    }
}
