//! Every command of `aldis-sim` that the documentation shows is run; the others are tests/docs.rs's.

#[path = "../../tests/common/commands.rs"]
mod commands;

use std::path::Path;

use commands::{is_excused, sh, shown};

/// How a synopsis is called here: briefly.
const CALLS: &[(&str, &str)] = &[
    ("aldis-sim check [--quick] [--json]", "aldis-sim check --quick --json"),
    ("aldis-sim run SCENARIO [--seed N]", "aldis-sim run sim/scenarios/two-stations.toml --seed 1"),
    ("aldis-sim bench link [--cell ...]", "aldis-sim bench link --cell 2400,1024,4,0 --seeds 2"),
];

#[test]
fn every_command_shown_runs_and_ends_with_status_0() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    let programs = Path::new(env!("CARGO_BIN_EXE_aldis-sim")).parent().expect("a folder");
    let mut run = 0;
    for command in shown(root).iter().filter(|s| s.command.starts_with("aldis-sim ") && !is_excused(&s.command)) {
        let call = CALLS.iter().find(|(there, _)| *there == command.command);
        let line = match call {
            Some((_, here)) => here,
            None if command.command.contains(['[', '<']) => {
                panic!("{}:{}: {}: no call for this synopsis", command.page, command.line, command.command)
            }
            None => command.command.as_str(),
        };
        let (status, text) = sh(line, programs, root);
        assert_eq!(status, Some(0), "{}:{}: {line}: {text}", command.page, command.line);
        run += 1;
    }
    assert!(run >= 3, "only {run} commands were found");
}
