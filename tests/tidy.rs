//! Keeps the house in order: who may import whom, what may not be left lying about.
//!
//! The arrows are those drawn in src/lib.rs. Every path counts, not only `use` lines; code under `#[cfg(test)]` is free.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Module -> the modules of this crate it may name. A module not listed here may name none.
const ARROWS: &[(&str, &[&str])] = &[
    ("mail", &["time", "units"]),
    ("time", &[]),
    ("units", &["time"]),
    // Deliberate faults, in builds that prove the simulator: any module may hold one.
    ("mutation", &[]),
    ("codec", &["mail", "time", "units"]),
    ("emcon", &["mail", "time", "units"]),
    ("security", &["mail", "time", "units"]),
    ("smtp", &["mail", "time", "units"]),
    ("route", &["mail", "time", "units"]),
    // A bearer is handed the gate's permits.
    ("bearer", &["mail", "time", "units", "emcon"]),
    // Custody knows no bearer and no SMTP.
    ("queue", &["mail", "time", "units"]),
    // Assembles every module's own configuration, and is imported by none below.
    ("config", &["mail", "time", "units", "codec", "emcon", "security", "smtp", "route", "bearer", "queue"]),
    // Observes: what it is asked and shows, never the switch itself.
    ("ops", &["mail", "time", "units", "codec", "emcon", "queue", "route", "config"]),
    (
        "switch",
        &["mail", "time", "units", "codec", "emcon", "security", "smtp", "route", "bearer", "queue", "config", "ops"],
    ),
    (
        "node",
        &[
            "mail", "time", "units", "codec", "emcon", "security", "smtp", "route", "bearer", "queue", "config", "ops",
            "switch",
        ],
    ),
];

/// Modules that touch the machine: sockets, files, clocks, threads.
const OUTER: &[&str] = &["node", "ops", "main"];

/// Files below them that may touch one thing, and why.
const EXEMPT: &[(&str, &str)] = &[
    // The configuration's one loader.
    ("config/load.rs", "std::fs"),
    ("config/load.rs", "std::os::unix::fs"),
    // The store's real disk.
    ("queue/real_disk.rs", "std::fs"),
    ("queue/real_disk.rs", "std::os::unix::fs"),
];

/// Paths that belong to the outer modules. Address types of `std::net` are plain data and allowed everywhere.
const MACHINE: &[&str] =
    &["std::fs", "std::net", "std::thread", "std::time", "std::os::unix", "std::process", "std::env"];
const ADDRESSES: &[&str] =
    &["IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr", "SocketAddrV4", "SocketAddrV6", "AddrParseError"];

/// Crates of the async edge: node/ alone.
const ASYNC: &[&str] = &["tokio", "tokio_serial", "tokio_rustls", "socket2", "hickory_resolver"];

#[test]
fn no_module_names_one_above_it_and_none_below_node_touches_the_machine() {
    let sources: Vec<(String, String)> = files(&root().join("src"), &["rs"])
        .iter()
        .map(|file| (relative(file, &root().join("src")), read(file)))
        .collect();
    let tests: Vec<String> = sources.iter().flat_map(|(file, source)| test_files(file, source)).collect();
    let product = sources.iter().filter(|(file, _)| !tests.contains(file));
    let seen = product.clone().count();
    let wrong: Vec<String> = product.flat_map(|(file, source)| violations(file, source)).collect();
    assert!(seen > 20, "only {seen} files were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_unfinished_and_no_path_of_somebodys_home_is_left() {
    let mut wrong = Vec::new();
    for file in files(&root(), &["rs", "toml", "md", "service", "run", "sh", "rules"]) {
        wrong.extend(leftovers(&relative(&file, &root()), &read(&file)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_has_its_arrows() {
    let listed: Vec<&str> = ARROWS.iter().map(|(m, _)| *m).collect();
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join("src")).expect("src/") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        let module = name.trim_end_matches(".rs").to_owned();
        assert!(["lib", "main"].contains(&&*module) || listed.contains(&&*module), "{module} is missing in ARROWS");
        found.push(module);
    }
    let gone: Vec<_> = listed.iter().filter(|m| !found.iter().any(|f| f == *m)).collect();
    assert!(gone.is_empty(), "{gone:?} are in ARROWS and not in src/");
}

// ---- that these tests can fail

#[test]
fn an_upward_arrow_is_seen_in_every_form() {
    for (file, code) in [
        ("smtp/server.rs", "use crate::queue::Store;"),
        ("smtp/server.rs", "fn f(x: crate::switch::Switch) {}"),
        ("smtp/server.rs", "use crate::{mail::Mailbox, bearer::Want};"),
        ("smtp/server.rs", "use crate::{\n    mail,\n    config::{self, Plan},\n};"),
        ("smtp/reply.rs", "use super::super::node::run;"),
        ("smtp/mod.rs", "use super::emcon::Gate;"),
        ("queue/store.rs", "use crate::route::Table;"),
        ("ops/cli.rs", "use crate::switch::Switch;"),
        ("mail/hop.rs", "use crate::bearer::Want;"),
    ] {
        assert!(!violations(file, code).is_empty(), "{file}: {code}");
    }
}

#[test]
fn the_machine_is_seen_in_every_form() {
    for code in [
        "use std::fs;",
        "use std::{fmt, fs::File};",
        "let t = std::time::Instant::now();",
        "use std::net::TcpStream;",
        "use std::net::{IpAddr, UdpSocket};",
        "use std::thread::spawn;",
        "use tokio::io::AsyncRead;",
        "let e = std::env::var(\"X\");",
        "use std::os::unix::net::UnixStream;",
    ] {
        assert!(!violations("emcon/gate.rs", code).is_empty(), "{code}");
        assert!(violations("node/mod.rs", code).is_empty(), "{code}");
    }
    assert_eq!(violations("ops/cli.rs", "use tokio::net::UnixStream;").len(), 1);
    assert_eq!(violations("config/plan.rs", "use std::fs;").len(), 1);
    assert!(violations("config/load.rs", "let f = std::fs::File::open(p)?;").is_empty());
}

#[test]
fn what_is_allowed_passes() {
    for (file, code) in [
        (
            "smtp/server.rs",
            "use crate::mail::Mailbox;\nuse super::reply::Reply;\n// crate::queue is above\nlet s = \"crate::queue\";",
        ),
        ("smtp/server.rs", "/* std::fs */ use std::net::{IpAddr, SocketAddr};\nuse std::net::Ipv4Addr;"),
        (
            "smtp/server.rs",
            "use crate::mail;\n#[cfg(test)]\nmod tests {\n    use crate::queue::Store;\n    use std::thread;\n}",
        ),
        ("bearer/serial/mod.rs", "use crate::emcon::AirPermit;\nuse super::Want;\nuse super::super::mail::Hop;"),
        ("smtp/server.rs", "let c = '\"'; let d = r#\"crate::queue\"#; let l: &'static str = \"\";"),
    ] {
        assert_eq!(violations(file, code), Vec::<String>::new(), "{file}: {code}");
    }
}

#[test]
fn files_that_only_tests_use_are_known_by_their_declaration() {
    let source = "mod store;\n#[cfg(test)]\nmod property;\n\n#[cfg(test)]\nmod tests {\n}\n";
    assert_eq!(test_files("queue/mod.rs", source), ["queue/property.rs"]);
    assert_eq!(test_files("queue/engine.rs", source), ["queue/engine/property.rs"]);
}

#[test]
fn leftovers_are_seen() {
    let macros = ["todo", "unimplemented", "dbg"].map(|m| format!("    {m}!(x);"));
    for line in macros.iter().map(String::as_str).chain([
        concat!("see /ho", "me/ann/x"),
        concat!("at /ro", "ot/x"),
        concat!("in /Us", "ers/ann"),
    ]) {
        assert_eq!(leftovers("src/x.rs", line).len(), 1, "{line}");
    }
    assert!(leftovers("docs/x.md", "the todo list at /home of the site; rooted at /var/lib/aldis").is_empty());
}

// ---- how

/// What a source file names that it may not.
fn violations(file: &str, source: &str) -> Vec<String> {
    let module = file.split(['/', '.']).next().unwrap_or("");
    if module == "lib" {
        return Vec::new();
    }
    let allowed: &[&str] = ARROWS.iter().find(|(m, _)| *m == module).map_or(&[], |(_, a)| a);
    let known = |m: &str| ARROWS.iter().any(|(k, _)| *k == m);
    let mut wrong = Vec::new();
    for (line, path) in paths(&product_code(source)) {
        let shown = path.join("::");
        let target = match path.first().map(String::as_str) {
            Some("crate") => path.get(1),
            Some("super") => above_root(file, &path),
            _ => None,
        };
        if let Some(target) = target
            && module != "main"
            && target != module
            && target != "mutation"
            && known(target)
            && !allowed.contains(&target.as_str())
        {
            wrong.push(format!("src/{file}:{line}: {module} may not name {shown}"));
        }
        let starts = |prefix: &str| shown == prefix || shown.starts_with(&format!("{prefix}::"));
        let address = path.get(1).is_some_and(|s| s == "net")
            && path.get(2).is_some_and(|last| last == "self" || ADDRESSES.contains(&last.as_str()));
        let machine = MACHINE.iter().any(|m| starts(m)) && !address && !OUTER.contains(&module);
        let exempt = EXEMPT.iter().any(|(f, prefix)| *f == file && starts(prefix));
        if machine && !exempt {
            wrong.push(format!("src/{file}:{line}: {shown} belongs to node/"));
        }
        if path.first().is_some_and(|c| ASYNC.contains(&c.as_str())) && module != "node" {
            wrong.push(format!("src/{file}:{line}: {shown} belongs to node/"));
        }
    }
    wrong
}

/// Files a source file declares for tests alone.
fn test_files(file: &str, source: &str) -> Vec<String> {
    let folder = file.strip_suffix("mod.rs").map_or_else(|| format!("{}/", file.trim_end_matches(".rs")), String::from);
    let after = source.split("#[cfg(test)]").skip(1).filter_map(|rest| rest.trim_start().strip_prefix("mod "));
    after
        .filter_map(|rest| rest.split_once(';'))
        .map(|(name, _)| name)
        .filter(|n| !n.contains([' ', '{']))
        .map(|n| format!("{folder}{n}.rs"))
        .collect()
}

/// The module a `super::` path reaches when it climbs to the crate's root.
fn above_root<'p>(file: &str, path: &'p [String]) -> Option<&'p String> {
    let file = file.trim_end_matches(".rs").trim_end_matches("/mod");
    let depth = file.split('/').count();
    let climbs = path.iter().take_while(|s| *s == "super").count();
    (climbs >= depth).then(|| path.get(climbs)).flatten()
}

/// The code without comments, strings and what stands under `#[cfg(test)]` at the end; line breaks stay.
fn product_code(source: &str) -> String {
    let mut out = String::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |i| i + 2)
        } else if rest.starts_with("r\"")
            || rest.starts_with("r#")
            || rest.starts_with("br#")
            || rest.starts_with("br\"")
        {
            raw_string(rest).unwrap_or(0)
        } else if c == '"' {
            string(rest)
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest[1..].find('\'').map_or(1, |i| i + 2)
        } else {
            0
        };
        if skip > 0 {
            let (gone, kept) = rest.split_at(skip);
            out.extend(gone.chars().filter(|c| *c == '\n'));
            rest = kept;
            continue;
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    match out.find("#[cfg(test)]\nmod tests") {
        Some(end) => out[..end].to_string(),
        None => out,
    }
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string(text: &str) -> Option<usize> {
    let start = text.find('r')? + 1;
    let hashes = text[start..].chars().take_while(|c| *c == '#').count();
    let body = start + hashes;
    text[body..].starts_with('"').then_some(())?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(text[body + 1..].find(&end).map_or(text.len(), |i| body + 1 + i + end.len()))
}

/// Every path in the code that begins with `crate`, `super`, `std` or a crate of the async edge, groups unfolded.
fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut i = 0;
    while let Some(c) = code[i..].chars().next() {
        if !word(c) {
            i += c.len_utf8();
            continue;
        }
        let end = code[i..].find(|c| !word(c)).map_or(code.len(), |n| i + n);
        let first = &code[i..end];
        // What follows `::` is the middle of another crate's path.
        let begins = !code[..i].trim_end().ends_with("::");
        if begins && (["crate", "super", "std"].contains(&first) || ASYNC.contains(&first)) {
            let line = code[..i].matches('\n').count() + 1;
            let mut unfolded = Vec::new();
            i = unfold(code, i, &mut Vec::new(), &mut unfolded).max(end);
            found.extend(unfolded.into_iter().filter(|p| p.len() > 1).map(|p| (line, p)));
        } else {
            i = end;
        }
    }
    found
}

/// Reads one path tree from `at`, adding every leaf; returns where it ends.
fn unfold(code: &str, mut at: usize, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let blank = |at: usize| at + (code[at..].len() - code[at..].trim_start().len());
    let depth = prefix.len();
    loop {
        at = blank(at);
        if code[at..].starts_with('{') {
            at += 1;
            loop {
                at = blank(at);
                match code[at..].chars().next() {
                    None => break,
                    Some('}') => {
                        at += 1;
                        break;
                    }
                    Some(',') => at += 1,
                    Some(_) => {
                        let next = unfold(code, at, prefix, found);
                        at = if next > at { next } else { at + 1 };
                    }
                }
            }
            break;
        }
        let end =
            code[at..].find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*').map_or(code.len(), |n| at + n);
        if end == at {
            break;
        }
        prefix.push(code[at..end].to_string());
        let next = blank(end);
        if !code[next..].starts_with("::") {
            found.push(prefix.clone());
            // `x as y` inside a group ends the leaf.
            at = match code[next..].strip_prefix("as ") {
                Some(rest) => next + 3 + rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()),
                None => end,
            };
            break;
        }
        at = next + 2;
    }
    prefix.truncate(depth);
    at
}

fn leftovers(file: &str, text: &str) -> Vec<String> {
    let home = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];
    let unfinished = ["todo", "unimplemented", "dbg"].map(|m| format!("{m}!("));
    let mut wrong = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let at_home = home.iter().any(|h| {
            line.match_indices(h)
                .any(|(at, _)| line[at + h.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '.'))
        });
        let left = file.ends_with(".rs") && unfinished.iter().any(|m| line.contains(m.as_str()));
        if at_home || left {
            wrong.push(format!("{file}:{}: {}", i + 1, line.trim()));
        }
    }
    wrong
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn relative(file: &Path, to: &Path) -> String {
    file.strip_prefix(to).unwrap_or(file).to_string_lossy().into_owned()
}

fn read(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).expect("readable")).into_owned()
}

/// Files under `directory` by extension (or whole name), build and version control folders left out.
fn files(directory: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = BTreeMap::new();
    let mut folders = vec![directory.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if path.is_dir() {
                if !["target", ".git", "state"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if extensions.iter().any(|e| name == *e || name.ends_with(&format!(".{e}"))) {
                found.insert(path, ());
            }
        }
    }
    found.into_keys().collect()
}
