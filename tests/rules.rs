//! Every rule of the air names the tests that show it (docs/rules.md), and those tests exist.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_rule_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    ["src", "tests", "sim/src", "sim/tests"].iter().for_each(|folder| sources(&root.join(folder), &mut files));
    let code: String = files.iter().map(|f| fs::read_to_string(f).expect("readable")).collect();
    let page = fs::read_to_string(root.join("docs/rules.md")).expect("readable");
    let mut rules = Vec::new();
    for row in page.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| rule")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (rule, shown) = (cells[1], cells[4]);
        let tests: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{rule} names no test");
        for test in tests {
            assert!(code.contains(&format!("fn {test}()")), "{rule}: there is no test {test}");
        }
        rules.push(rule.to_owned());
    }
    let wanted = "A1 A2 A3 A4 A5 A6 A7 A8 A9 B1 B2 B3 B4 B6 C1 C2 C3 C4 D1 D2 D3 D4 D5 D6 E4";
    assert_eq!(rules.join(" "), wanted);
}
