//! The commands the documentation shows, and those no test runs.

#![allow(dead_code, reason = "every test binary takes its own part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Commands that are shown and run by no test, and why.
const NOT_RUN: &[(&str, &str)] = &[
    ("cargo run --release -p aldis-sim -- demo --speed 20x", "sim/tests/demo.rs runs the same demonstration"),
    ("tests/run", "runs this test"),
    ("cargo bench --bench store_layout", "minutes; its figures are of one machine"),
    ("cargo bench --bench codec", "a minute or more; docs/codec.md shows what it prints"),
    ("useradd --system --home-dir /var/lib/aldis --shell /usr/sbin/nologin aldis", "needs root"),
    ("install -m 755 target/release/aldis /usr/bin/aldis", "needs root"),
    ("install -d -m 750 -o root -g aldis /etc/aldis", "needs root"),
    ("install -d -m 700 -o aldis -g aldis /etc/aldis/keys", "needs root"),
    ("chown aldis: /etc/aldis/keys/shore.key && chmod 600 /etc/aldis/keys/shore.key", "needs root"),
    ("install -m 640 -o root -g aldis profiles/ship.toml /etc/aldis/aldis.toml", "needs root"),
    ("systemctl enable --now aldis", "needs systemd"),
    ("systemctl restart aldis", "needs systemd"),
    ("aldis run --profile ship.toml &", "tests/bridge.rs runs two nodes on a bridge"),
    ("aldis run --profile shore.toml &", "tests/bridge.rs runs two nodes on a bridge"),
    ("aldis-sim codec2 sweep --mode datac1", "minutes; sim/tests/codec2.rs runs a few packets of it"),
    (
        "aldis-sim codec2 sweep --mode datac1 --channel mpp [--frames N] [--seed N] [--json] [--svg FILE]",
        "minutes; sim/tests/codec2.rs runs a few packets of it",
    ),
    ("aldis queue fetch 0000001A 4", "needs a message that went reduced; tests/reduce.rs runs it"),
    ("aldis queue original 0000001A chart.eml", "needs a message that went reduced; tests/reduce.rs runs it"),
    ("aldis-sim storm --first S --shrink", "needs a seed that fails; a test of storm/shrink.rs makes one"),
    ("aldis-sim shrink FILE --seed S", "needs a scenario that fails; a test of storm/shrink.rs makes one"),
];

/// A command as a page shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// The page, from the repository's root.
    pub page: String,
    /// Its line.
    pub line: usize,
    /// The command, without the remark behind it.
    pub command: String,
}

/// Every command of every page that an operator or a developer reads.
pub fn shown(root: &Path) -> Vec<Shown> {
    let mut pages: Vec<PathBuf> = ["README.md", "firmware-cfg/README.md", "sim/README.md"].map(PathBuf::from).into();
    for folder in ["docs", "docs/profile", "hw"] {
        let entries = std::fs::read_dir(root.join(folder)).expect("a folder of pages").flatten();
        let markdown = entries.map(|e| PathBuf::from(folder).join(e.file_name()));
        pages.extend(markdown.filter(|p| p.extension().is_some_and(|e| e == "md")));
    }
    pages.sort();
    let text = |page: &Path| std::fs::read_to_string(root.join(page)).expect("a readable page");
    pages.iter().flat_map(|page| commands(&page.display().to_string(), &text(page))).collect()
}

/// Whether a command is on the list of those that no test runs.
pub fn is_excused(command: &str) -> bool {
    NOT_RUN.iter().any(|(excused, _)| *excused == command)
}

/// Excuses whose command is shown nowhere any more.
pub fn stale_excuses(shown: &[Shown]) -> Vec<&'static str> {
    NOT_RUN.iter().map(|(command, _)| *command).filter(|c| shown.iter().all(|s| s.command != *c)).collect()
}

/// The commands of one page: every line of a block of shell, every synopsis, and every command with an option in running text.
pub fn commands(page: &str, text: &str) -> Vec<Shown> {
    let mut out = Vec::new();
    let mut block = None;
    for (at, line) in text.lines().enumerate() {
        let mut add = |command: &str| {
            out.push(Shown { page: page.to_owned(), line: at + 1, command: command.trim().to_owned() });
        };
        if let Some(fence) = line.trim_start().strip_prefix("```") {
            assert!(
                block.is_some() || !fence.is_empty(),
                "{page}:{}: a block says what it holds: sh, text, toml",
                at + 1
            );
            block = block.is_none().then(|| fence.to_owned());
        } else if let Some(kind) = &block {
            if kind == "sh" && !line.trim().is_empty() {
                add(line.split(" #").next().unwrap_or_default());
            }
        } else if let Some(synopsis) = line.strip_prefix("    ").filter(|l| l.starts_with("aldis")) {
            add(synopsis.split("  ").next().unwrap_or_default());
        } else {
            let programs = ["aldis ", "aldis-sim ", "openssl ", "cargo "];
            for code in line.split('`').skip(1).step_by(2) {
                if programs.iter().any(|p| code.starts_with(p)) && code.contains(" -") {
                    add(code);
                }
            }
        }
    }
    out
}

/// Runs a command as a shell would, with the programs of `path` before others; gives its status and what it printed.
pub fn sh(command: &str, path: &Path, directory: &Path) -> (Option<i32>, String) {
    let search = format!("{}:{}", path.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh")
        .args(["-c", command])
        .current_dir(directory)
        .env("PATH", search)
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}
