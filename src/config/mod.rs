//! From a profile's text to a checked [`Plan`], once; only the plan travels further.
//!
//! [`check`] reports every problem of a profile at once, each with file, line, column, key and what would be allowed.
//! [`explain`] lists every effective value and where it came from. Called by the command line and by `node/` at start and reload.

mod addresses;
mod authentication;
pub mod burl;
mod cross;
mod listener;
mod load;
pub mod mx;
mod net;
pub mod plan;
mod problem;
mod profile;
mod reader;
pub mod schema;
mod secrets;
mod sharing;
mod sheet;
pub mod smarthost;
mod tree;

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use load::RealFiles;
pub use plan::Plan;
pub use problem::Problem;
pub use secrets::{EXAMPLE_KEY, Password, scram_verifier};
pub use sharing::{Apart, Sharing, sharing};

use reader::Reader;
use tree::Origin;

/// A file as the configuration needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its mode bits.
    pub mode: u32,
}

/// Where profiles, sheets, keys and certificates are read from.
pub trait Files {
    /// Reads one file whole.
    fn read(&self, path: &Path) -> io::Result<File>;
}

/// One value that is in force, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Effective {
    /// The key, in the form `--set` takes.
    pub key: String,
    /// The value; `(secret)` where it must not be shown.
    pub value: String,
    /// Where it came from: `FILE:LINE`, `--set`, `default`, or `sheet NAME:LINE`.
    pub origin: String,
    /// What kind of place that is: `profile`, `set`, `default` or `sheet`.
    pub source: &'static str,
}

impl Effective {
    fn new(key: String, value: String, origin: &Origin, sheet: bool) -> Self {
        let source = match origin {
            _ if sheet => "sheet",
            Origin::File { .. } => "profile",
            Origin::Set(_) => "set",
            Origin::Default => "default",
        };
        Self { key, value, origin: origin.to_string(), source }
    }
}

/// A profile that passed.
#[derive(Clone, PartialEq, Debug)]
pub struct Checked {
    /// What the node is built from.
    pub plan: Plan,
    /// What is allowed but should be known.
    pub warnings: Vec<Problem>,
    /// Every value in force, in the order of the profile's tables.
    pub effective: Vec<Effective>,
}

/// Reads and checks a profile with `--set` overrides applied; on failure every problem is in the list.
pub fn check(path: &Path, overrides: &[String]) -> Result<Plan, Vec<Problem>> {
    load(path, overrides, &RealFiles).map(|checked| checked.plan)
}

/// Every value in force in a sound profile and where it came from, and what follows for messages to several peers.
pub fn explain(path: &Path, overrides: &[String]) -> Result<(Vec<Effective>, Vec<Sharing>), Vec<Problem>> {
    load(path, overrides, &RealFiles).map(|checked| (checked.effective, sharing(&checked.plan)))
}

/// Where the control socket of a profile's node is. Reads no key and no certificate, which the asking user may not be able to.
pub fn socket(path: &Path, overrides: &[String], files: &dyn Files) -> Result<PathBuf, Vec<Problem>> {
    let mut reader = Reader::default();
    let root = tree(&mut reader, path, overrides, files)?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let socket = profile::socket(&mut reader, &profile::Context { directory, files }, &root);
    socket.filter(|_| reader.problems.is_empty()).ok_or(reader.problems)
}

/// Reads and checks a profile through `files`.
pub fn load(path: &Path, overrides: &[String], files: &dyn Files) -> Result<Checked, Vec<Problem>> {
    let mut reader = Reader::default();
    let root = tree(&mut reader, path, overrides, files)?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let plan = profile::build(&mut reader, &profile::Context { directory, files }, &root);
    let Reader { mut problems, warnings, effective, .. } = reader;
    match plan {
        Some(plan) if problems.is_empty() => Ok(Checked { plan, warnings, effective }),
        _ => {
            problems.sort_by(|a, b| (&a.file, a.line, a.column, &a.key).cmp(&(&b.file, b.line, b.column, &b.key)));
            problems.dedup();
            Err(problems)
        }
    }
}

/// The profile's text as a tree, overrides applied.
fn tree(
    reader: &mut Reader,
    path: &Path,
    overrides: &[String],
    files: &dyn Files,
) -> Result<tree::Entry, Vec<Problem>> {
    let name = path.to_string_lossy().into_owned();
    let unreadable = |why: String| {
        let origin = Origin::File { file: name.as_str().into(), line: 0, column: 0 };
        vec![Problem::new(&origin, "", why, "a readable TOML file")]
    };
    let file = files.read(path).map_err(|e| unreadable(format!("cannot read it: {e}")))?;
    let text = String::from_utf8(file.bytes).map_err(|_| unreadable("not UTF-8".into()))?;
    let mut root = tree::parse(&name, &text)?;
    for assignment in overrides {
        if let Err(problem) = tree::set(&mut root, assignment) {
            reader.problems.push(problem);
        }
    }
    Ok(root)
}

#[cfg(test)]
mod tests;
