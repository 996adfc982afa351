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

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}: ", self.file)?;
        } else {
            write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)?;
        if !self.allowed.is_empty() {
            write!(f, " (allowed: {})", self.allowed)?;
        }
        Ok(())
    }
}
