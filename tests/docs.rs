//! Every command the documentation shows is run as it stands there, but for the places in one table, and ends as the page promises.
//! A command that is new in a page and neither runs nor is excused fails here. `aldis-sim` is run by sim/tests/docs.rs.

#[path = "common/commands.rs"]
mod commands;
#[path = "common/process.rs"]
mod process;

use std::os::unix::fs::PermissionsExt;

use commands::{commands, is_excused, sh, shown, stale_excuses};
use process::{Client, Running, aldis, message, root};

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
    let [keys, tls] = ["keys", "tls"].map(|name| directory.path().join(name));
    for folder in [&keys, &tls] {
        std::fs::create_dir(folder).expect("made");
    }

    let programs = std::path::Path::new(env!("CARGO_BIN_EXE_aldis")).parent().expect("a folder");
    let socket = format!(" --socket {}", node.socket.display());
    let profile = profile.display().to_string();
    // What stands in the pages, and what stands for it here.
    let places = [
        ("sudo -u aldis aldis check", "aldis check /etc/aldis/aldis.toml"),
        ("/etc/aldis/aldis.toml", profile.as_str()),
        ("/etc/aldis/keys", keys.to_str().expect("a plain path")),
        ("/etc/aldis/tls", tls.to_str().expect("a plain path")),
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

/// The blocks of a page that are lines of a profile.
fn profile_lines(page: &str) -> String {
    let text = std::fs::read_to_string(root().join(page)).expect("a page");
    text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_profile_lines_of_the_operators_page_make_a_profile() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    std::fs::create_dir(at("tls")).expect("made");
    let made = rcgen::generate_simple_self_signed(["mail.ship.example".to_owned()]).expect("a certificate");
    for (name, text) in [("tls/cert.pem", made.cert.pem()), ("tls/key.pem", made.signing_key.serialize_pem())] {
        std::fs::write(at(name), text).expect("written");
        std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(0o600)).expect("ours");
    }
    let lines = profile_lines("docs/operating.md");
    assert!(lines.matches("[[listener]]").count() >= 3 && lines.contains("\"$argon2id$v=19$...\""), "{lines}");
    let torture = std::fs::read_to_string(root().join("firmware-cfg/profiles/torture.toml")).expect("a profile");
    let hash = torture.lines().find_map(|l| l.strip_prefix("password_hash = ")).expect("a user");
    let ship = std::fs::read_to_string(root().join("firmware-cfg/profiles/ship.toml")).expect("a profile");
    let air = &ship[ship.find("[[peer]]").expect("a neighbour")..];
    let node = "[node]\nname = \"ship\"\npostmaster = \"postmaster@ship.example\"\n";
    let lines = lines.replace("\"$argon2id$v=19$...\"", hash);
    std::fs::write(at("profile.toml"), format!("{node}\n{lines}\n{air}")).expect("written");
    let (code, out, err) = aldis(&["check", &at("profile.toml").display().to_string()]);
    assert_eq!(code, 0, "{out}{err}");
}

#[test]
fn a_command_is_seen_wherever_it_stands() {
    let page = "Say `aldis status` or `aldis queue list --held`.\n\n```sh\naldis emcon show    # who may\nmake tea\n```\n\n    \
                aldis-sim check [--quick]     measures\n\n```text\naldis is a lamp\n```\n";
    let found: Vec<String> = commands("p", page).into_iter().map(|s| format!("{} {}", s.line, s.command)).collect();
    assert_eq!(found, ["1 aldis queue list --held", "4 aldis emcon show", "5 make tea", "8 aldis-sim check [--quick]"]);
}
