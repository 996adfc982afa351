//! Every command the documentation shows is run as it stands there, but for the places in one table, and ends as the page promises.
//! A command that is new in a page and neither runs nor is excused fails here. `aldis-sim` is run by sim/tests/docs.rs.

#[path = "common/commands.rs"]
mod commands;
#[path = "common/process.rs"]
mod process;

use commands::{commands, is_excused, sh, shown, stale_excuses};
use process::{Client, Running, message, root};

/// Commands that go on until they are stopped: half a second of them is enough.
const ENDLESS: &[&str] = &["aldis watch --json"];

#[test]
fn every_command_shown_runs_and_ends_with_status_0() {
    let directory = tempfile::tempdir().expect("a directory");
    let profile = root().join("firmware-cfg/profiles/ship.toml");
    let set = ["relay", "submission"].map(|name| format!("listener.{name}.address=127.0.0.1:0"));
    let node = Running::start(&profile, directory.path(), &set);
    let mut client = Client::connect(node.address());
    assert!(client.say("EHLO docs.example").starts_with("250"));
    let reply = client.submit("<ops@ship.example>", &[("watch@shore.example", "")], &message("docs", "one"));
    let queued = reply.split_whitespace().last().expect("a queue id").to_owned();
    let keys = directory.path().join("keys");
    std::fs::create_dir(&keys).expect("made");

    let programs = std::path::Path::new(env!("CARGO_BIN_EXE_aldis")).parent().expect("a folder");
    let socket = format!(" --socket {}", node.socket.display());
    let profile = profile.display().to_string();
    // What stands in the pages, and what stands for it here.
    let places = [
        ("sudo -u aldis aldis check", "aldis check /etc/aldis/aldis.toml"),
        ("/etc/aldis/aldis.toml", profile.as_str()),
        ("/etc/aldis/keys", keys.to_str().expect("a plain path")),
        ("0000001A", &queued),
    ];
    let shown = shown(root());
    let mut run = 0;
    let mut wrong = Vec::new();
    for command in shown.iter().filter(|s| !is_excused(&s.command)) {
        let mut line = command.command.clone();
        for (there, here) in places {
            line = line.replace(there, here);
        }
        let (program, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match program {
            "aldis-sim" => continue,
            "aldis" if !["check", "explain", "route"].iter().any(|v| rest.starts_with(v)) => line.push_str(&socket),
            "aldis" | "openssl" => {}
            _ => {
                wrong.push(format!("{}:{}: {}: neither run nor excused", command.page, command.line, command.command));
                continue;
            }
        }
        let wanted = if ENDLESS.contains(&command.command.as_str()) {
            line = format!("timeout 0.5 {line}");
            124
        } else {
            0
        };
        let (status, text) = sh(&line, programs, directory.path());
        if status != Some(wanted) {
            wrong.push(format!("{}:{}: {line}: {status:?}: {text}", command.page, command.line));
        }
        run += 1;
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(run >= 20, "only {run} commands were found");
    assert_eq!(std::fs::read_to_string(keys.join("shore.key")).map(|k| k.trim().len()).ok(), Some(64));
    node.stop();
    assert_eq!(stale_excuses(&shown), Vec::<&str>::new());
}

#[test]
fn a_command_is_seen_wherever_it_stands() {
    let page = "Say `aldis status` or `aldis queue list --held`.\n\n```sh\naldis emcon show    # who may\nmake tea\n```\n\n    \
                aldis-sim check [--quick]     measures\n\n```text\naldis is a lamp\n```\n";
    let found: Vec<String> = commands("p", page).into_iter().map(|s| format!("{} {}", s.line, s.command)).collect();
    assert_eq!(found, ["1 aldis queue list --held", "4 aldis emcon show", "5 make tea", "8 aldis-sim check [--quick]"]);
}
