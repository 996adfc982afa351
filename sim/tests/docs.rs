//! Every command of `aldis-sim` that the documentation shows is run; the others are tests/docs.rs's.

#[path = "../../tests/common/commands.rs"]
mod commands;

use std::path::Path;

use commands::{is_excused, sh, shown};

/// How a synopsis is called here: briefly.
const CALLS: &[(&str, &str)] = &[
    ("aldis-sim check [--quick] [--json]", "aldis-sim check --quick --json"),
    (
        "aldis-sim run SCENARIO [--seed N] [--pcap FILE] [--report FILE.html] ...",
        "aldis-sim run sim/scenarios/two-stations.toml --seed 1",
    ),
    (
        "aldis-sim run SCENARIO [--seed N] [--json] [--trace FILE] [--pcap FILE] [--report FILE.html]",
        "aldis-sim run sim/scenarios/two-stations.toml --json --trace /dev/null --pcap /dev/null --report /dev/null",
    ),
    (
        "aldis-sim run sim/scenarios/convoy-of-five.toml --seed 1 --pcap convoy.pcapng --report convoy.html",
        "aldis-sim run sim/scenarios/convoy-of-five.toml --seed 1 --pcap /dev/null --report /dev/null",
    ),
    ("aldis-sim bridge SCENARIO", "timeout --preserve-status 1 aldis-sim bridge sim/scenarios/bench-two-ports.toml"),
    (
        "aldis-sim bridge sim/scenarios/bench-two-ports.toml --dir /tmp/bench",
        "timeout --preserve-status 1 aldis-sim bridge sim/scenarios/bench-two-ports.toml",
    ),
    ("aldis-sim storm [--seeds N]", "aldis-sim storm --seeds 2"),
    ("aldis-sim storm [--profile P] [--seeds N] [--first S] [--jobs J]", "aldis-sim storm --profile cuts --seeds 2"),
    (
        "aldis-sim storm --from-commit ID --seconds 60 --at-least 150",
        "aldis-sim storm --from-commit 0123456789abcdef --seconds 1 --at-least 1",
    ),
    ("aldis-sim storm --first S --seeds 1", "aldis-sim storm --first 7 --seeds 1"),
    ("aldis-sim storm --first S --show", "aldis-sim storm --first 7 --show"),
    (
        "aldis-sim bench net [--receivers N] [--loss P] [--frames K] [--seeds N] [--json]",
        "aldis-sim bench net --receivers 3 --loss 0 --frames 16 --seeds 1",
    ),
    ("aldis-sim bench rate [--minutes N]", "aldis-sim bench rate --chosen --minutes 5 --seeds 1"),
    (
        "aldis-sim bench rate [--scenario FILE] [--seeds N] [--minutes N] [--chosen] [--jobs N] [--json]",
        "aldis-sim bench rate --chosen --minutes 5 --seeds 1",
    ),
    ("aldis-sim bench rate --first 21 --seeds 5", "aldis-sim bench rate --chosen --first 21 --minutes 5 --seeds 1"),
    (
        "aldis-sim bench rate --first 21 --seeds 5 --chosen",
        "aldis-sim bench rate --chosen --first 22 --minutes 5 --seeds 1",
    ),
    ("aldis-sim bench link [--cell ...]", "aldis-sim bench link --cell 2400,1024,4,0 --seeds 2"),
    ("aldis-sim bench satcom [--cell ...]", "aldis-sim bench satcom --cell 64000,3,apart,0.05 --seeds 2"),
    ("aldis-sim bench satcom --seeds 8 --jobs 2", "aldis-sim bench satcom --cell 512000,3,rain --seeds 2 --json"),
    ("aldis-sim bench gains [--cell ...]", "aldis-sim bench gains --cell 2400,1024,2,0.05 --seeds 2 --json"),
    ("aldis-sim bench gains --answers [--cell ...]", "aldis-sim bench gains --answers --cell 75,10240,2,0.05 --json"),
    ("aldis-sim bench bulk [--link ...]", "aldis-sim bench bulk --bytes 100000 --link 2400,S,2,0 --seeds 1"),
    (
        "aldis-sim bench bulk --bytes 200000 --seeds 3 --link 75,L,2,0.05",
        "aldis-sim bench bulk --bytes 100000 --link 2400,S,2,0 --seeds 1",
    ),
    ("aldis-sim bench two-way [--link ...]", "aldis-sim bench two-way --link 2400,L,2,0 --seeds 1"),
    ("aldis-sim bench texts [--link ...]", "aldis-sim bench texts --link 300,S,2,0"),
    ("aldis-sim bench flash [--link ...]", "aldis-sim bench flash --link 2400,S,2,0 --seeds 1"),
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
