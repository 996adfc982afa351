//! Every shipped profile, the pages that document profiles, and what a broken one is told: through the library and the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aldis::config::schema::{Fallback, ROOT, SECTIONS, Section};
use aldis::config::{self, RealFiles};
use aldis::mail::{Hop, Mailbox};
use aldis::ops::document::SCHEMAS;
use aldis::ops::{Event, Request};

#[test]
fn every_shipped_profile_checks_and_explains() {
    let mut names = Vec::new();
    for path in toml_files("firmware-cfg/profiles") {
        let checked = config::load(&path, &[], &RealFiles).unwrap_or_else(|p| panic!("{}: {p:#?}", path.display()));
        let explained = config::explain(&path, &[]).expect("explains");
        assert_eq!(explained.0, checked.effective);
        assert!(explained.0.iter().any(|e| e.key == "node.name"));
        // Runnable unprivileged: no reserved port, state beside the profile.
        for listener in &checked.plan.listeners {
            assert!(listener.address.port() > Some(1024) && listener.address.is_loopback(), "{}", path.display());
        }
        assert!(checked.plan.node.state_dir.starts_with(path.parent().expect("a folder")), "{}", path.display());
        names.push(path.file_stem().expect("a name").to_string_lossy().into_owned());
    }
    for wanted in ["bench", "fleet", "satcom", "ship", "shore", "torture"] {
        assert!(names.iter().any(|n| n == wanted), "{wanted} is missing among {names:?}");
    }
}

#[test]
fn ship_and_shore_fit_each_other() {
    let plan = |name: &str| config::check(&shipped(name), &[]).expect("sound");
    let (ship, shore) = (plan("ship"), plan("shore"));
    for (near, far) in [(&ship, &shore), (&shore, &ship)] {
        let peer = near.peers.iter().find(|p| p.name == far.node.name).expect("knows the other");
        assert_eq!(peer.station, far.bearers[0].station);
        assert_eq!(peer.keys, far.peers[0].keys);
        assert_eq!(near.bearers[0].waveform, far.bearers[0].waveform);
    }
    assert_eq!(ship.directory.routes.hop(&Mailbox::new("a@shore.example")), Some(&Hop::Peer("shore".into())));
    assert_eq!(shore.directory.routes.hop(&Mailbox::new("a@ship.example")), Some(&Hop::Peer("ship".into())));
    let warnings = config::load(&shipped("ship"), &[], &RealFiles).expect("sound").warnings;
    assert!(warnings.iter().any(|w| w.problem.contains("example key")), "{warnings:#?}");
}

#[test]
fn bench_holds_everything_and_torture_routes_two_domains_alone() {
    let bench = config::check(&shipped("bench"), &[]).expect("sound");
    assert_eq!(bench.directory.routes.hop(&Mailbox::new("x@any.where")), Some(&Hop::Hold));
    let torture = config::check(&shipped("torture"), &[]).expect("sound");
    for domain in ["dest.test", "src.test"] {
        assert_eq!(
            torture.directory.routes.hop(&Mailbox::new(format!("x@{domain}"))),
            Some(&Hop::Smtp("127.0.0.1:2626".into()))
        );
    }
    assert_eq!(torture.directory.routes.hop(&Mailbox::new("x@elsewhere.example")), None);
    assert!(torture.listeners[0].tls.is_some() && torture.listeners[0].auth && torture.listeners[0].trust.is_empty());
    assert_eq!(torture.users.len(), 1);
}

#[test]
fn the_password_of_the_torture_profile_is_the_one_it_states() {
    let text = fs::read_to_string(shipped("torture")).expect("readable");
    let stated = text.split("password ").nth(1).and_then(|t| t.split('.').next()).expect("a stated password");
    let plan = config::check(&shipped("torture"), &[]).expect("sound");
    let kept = plan.users["probe@dest.test"].password.as_ref().expect("a password");
    assert!(kept.fits(stated), "{stated:?}");
}

#[test]
fn every_key_has_its_line_in_the_pages() {
    for section in SECTIONS {
        let page = page(section);
        let text = fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        for key in section.keys {
            let row = text
                .lines()
                .find(|l| l.starts_with(&format!("| `{}` |", key.name)))
                .unwrap_or_else(|| panic!("{}: no row for `{}` of [{}]", page.display(), key.name, section.name));
            let default = match key.fallback {
                Fallback::Required => "required".to_string(),
                Fallback::Is(value) => format!("`{value}`"),
                Fallback::Derived(how) => how.to_string(),
            };
            assert!(
                row.contains(&format!("| {default} |")),
                "{}: `{}` defaults to {default}: {row}",
                page.display(),
                key.name
            );
        }
        // And no row for a key that does not exist.
        let keys: Vec<&str> =
            SECTIONS.iter().filter(|s| self::page(s) == page).flat_map(|s| s.keys).map(|k| k.name).collect();
        for row in text.lines().filter_map(|l| l.strip_prefix("| `")) {
            let name = row.split('`').next().unwrap_or("");
            assert!(keys.contains(&name), "{}: `{name}` is no key", page.display());
        }
    }
    let index = read("docs/profile/README.md");
    for table in ROOT.keys {
        assert!(index.contains(&format!("({}.md)", table.name)), "docs/profile/README.md does not link {}", table.name);
    }
}

#[test]
fn every_document_event_and_command_is_in_the_pages() {
    let json = read("docs/json.md");
    for schema in SCHEMAS.iter().chain([&Event::SCHEMA]) {
        assert!(json.contains(&format!("`{schema}`")), "docs/json.md lacks {schema}");
    }
    let events = read("docs/events.md");
    for kind in Event::CATALOGUE {
        let row = format!("| `{}` | {} | {} |", kind.name, kind.level, kind.about.trim());
        assert!(events.contains(&row), "docs/events.md lacks: {row}");
    }
    // The names of requests as they stand on the wire.
    for request in [Request::Status, Request::MinimizeShow, Request::Watch] {
        let text = serde_json::to_string(&request).expect("JSON");
        assert!(json.contains(&text), "docs/json.md lacks {text}");
    }
}

#[test]
fn every_modem_sheet_has_its_page() {
    let mut sheets = 0;
    for sheet in toml_files("hw") {
        let page = sheet.with_extension("md");
        let text = fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        for words in ["RTS", "interlock", "abort"] {
            assert!(text.contains(words), "{} says nothing about {words}", page.display());
        }
        sheets += 1;
    }
    assert!(sheets >= 2);
}

#[test]
fn the_program_reports_every_problem_of_a_broken_profile_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("broken.toml");
    let text = "[node]\nname = \"no good name\"\nnmae = \"x\"\n\n[[listener]]\nname = \"relay\"\nkind = \"rely\"\naddress = \"here\"\n\n\
                [[route]]\nmatch = \"*\"\nto = \"peer:nobody\"\n\n[limits]\nmessage = 25\n";
    fs::write(&path, text).expect("written");
    let output = aldis(&["check", "--json", &path.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(1));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!(document["schema"], "aldis.check/1");
    let problems = document["problems"].as_array().expect("problems");
    let told: Vec<(u64, u64, &str)> = problems
        .iter()
        .map(|p| {
            (
                p["line"].as_u64().expect("a line"),
                p["column"].as_u64().expect("a column"),
                p["key"].as_str().expect("a key"),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (2, 8, "node.name"),
            (3, 8, "node.nmae"),
            (7, 8, "listener.relay.kind"),
            (8, 11, "listener.relay.address"),
            (12, 6, "route.*.to"),
            (15, 11, "limits.message"),
        ],
        "{problems:#?}"
    );
    assert!(problems.iter().all(|p| p["file"] == path.to_string_lossy().as_ref() && p["problem"] != ""));
    assert!(problems.iter().filter(|p| p["key"] != "route.*.to").all(|p| p["allowed"] != ""), "{problems:#?}");
    let human = aldis(&["check", &path.to_string_lossy()]);
    let text = String::from_utf8_lossy(&human.stdout).into_owned();
    assert!(text.contains("broken.toml:7:8: listener.relay.kind:") && text.ends_with("6 problems\n"), "{text}");
}

#[test]
fn the_program_takes_overrides_and_keeps_its_exit_statuses() {
    let ship = shipped("ship");
    let ship = ship.to_string_lossy();
    let explained = aldis(&["explain", "--profile", &ship, "--set", "bearer.hf1.device=/dev/pts/7", "--json"]);
    assert_eq!(explained.status.code(), Some(0));
    let document: serde_json::Value = serde_json::from_slice(&explained.stdout).expect("one document");
    let device = document["values"]
        .as_array()
        .expect("values")
        .iter()
        .find(|v| v["key"] == "bearer.hf1.device")
        .expect("listed");
    assert_eq!((&device["value"], &device["source"]), (&"/dev/pts/7".into(), &"set".into()));
    assert_eq!(aldis(&["check", &ship, "--set", "bearer.hf1.rate=2401bps"]).status.code(), Some(1));
    assert_eq!(aldis(&["check", "--no-such-flag"]).status.code(), Some(2));
    assert_eq!(aldis(&["frobnicate"]).status.code(), Some(2));
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("aldis.sock");
    assert_eq!(aldis(&["status", "--json", "--socket", &socket.to_string_lossy()]).status.code(), Some(3));
    let set = format!("node.state_dir={}", folder.path().display());
    assert_eq!(aldis(&["queue", "list", "--profile", &ship, "--set", &set]).status.code(), Some(3));
}

fn aldis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aldis")).args(arguments).output().expect("the program runs")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn shipped(name: &str) -> PathBuf {
    root().join("firmware-cfg/profiles").join(name).with_extension("toml")
}

/// The page of a table: `listener.tls` stands on the page of `listener`.
fn page(section: &Section) -> PathBuf {
    let first = section.name.split('.').next().unwrap_or("");
    root().join("docs/profile").join(first).with_extension("md")
}

fn toml_files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).expect("a folder").map(|e| e.expect("an entry").path());
    let mut files: Vec<PathBuf> =
        entries.filter(|p: &PathBuf| p.extension() == Some(Path::new("toml").as_os_str())).collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} is empty");
    files
}
