//! Old failures of storms, reduced and kept: every file in `storms/` must run without a problem. Its first line names the seed under which
//! it failed, and what was wrong.

use std::path::PathBuf;

use aldis_sim::storm::Storm;

#[test]
fn no_old_failure_comes_back() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/storms");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "there are old failures");
    let mut wrong = Vec::new();
    for path in files {
        let (name, text) = (path.display().to_string(), std::fs::read_to_string(&path).expect("text"));
        let seed = text.strip_prefix("# seed ").and_then(|rest| rest.split_once(':')).and_then(|(n, _)| n.parse().ok());
        let Some(seed) = seed else { panic!("{name} does not begin with its seed: # seed N: what was wrong") };
        let storm = Storm::read(seed, &text).unwrap_or_else(|p| panic!("{name}: {p:?}"));
        let problems = storm.problems();
        if !problems.is_empty() {
            wrong.push(format!("{name} under seed {seed}: {}", problems.join("\n    ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
