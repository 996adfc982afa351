//! Clients that mean harm: bounded memory, the right answers, and others served meanwhile. The clients are `peers/hostile.py`.

#[path = "common/hop.rs"]
mod hop;
#[path = "common/process.rs"]
mod process;

use std::os::unix::fs::PermissionsExt;

use hop::{Hop, Script};
use process::{Running, have, probe};

/// The password "secret", as `aldis hash-password` prints it: a guess takes 19 MiB for a moment.
const SECRET: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$BXBiWWYiUbOs4xiZVg8dUw$gTA/TyHeTyOQ06il63lQg7W4fI6ZpMaSmBHhEOHhgOc";

#[test]
fn whoever_means_harm_harms_nobody_else() {
    if !have(&["python3", "openssl", "prlimit"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let made = rcgen::generate_simple_self_signed(["mail.test".to_owned()]).expect("a certificate");
    std::fs::write(path("cert.pem"), made.cert.pem()).expect("writes");
    std::fs::write(path("key.pem"), made.signing_key.serialize_pem()).expect("writes");
    std::fs::set_permissions(path("key.pem"), std::fs::Permissions::from_mode(0o600)).expect("private");
    // One that takes no 8-bit mail, so that what goes there is taken apart.
    let seven = Hop::new(Script { clear: "250-hop\r\n250 SIZE\r\n", ..Script::new() });
    let profile = format!(
        r#"
[node]
name = "target"
hostname = "target.test"
state_dir = "state"

[limits]
sessions = 2100
sessions_per_address = 2100

[[listener]]
name = "relay"
kind = "relay"
address = "127.0.0.1:0"
trust = ["127.0.0.0/8"]

[[listener]]
name = "secure"
kind = "relay"
address = "127.0.0.1:0"
trust = ["127.0.0.0/8"]
tls.certificate = "{}"
tls.key = "{}"

[[listener]]
name = "submission"
kind = "submission"
address = "127.0.0.1:0"

[[listener]]
name = "lmtp"
kind = "lmtp"
address = "127.0.0.1:0"
trust = ["127.0.0.0/8"]

[[user]]
name = "jack"
password_hash = "{}"

[[route]]
match = "seven.test"
to = "smtp:{}"

[[route]]
match = "*"
to = "hold"
"#,
        path("cert.pem"),
        path("key.pem"),
        SECRET,
        seven.address
    );
    std::fs::write(path("profile.toml"), profile).expect("writes");
    // As a shell or a service manager starts it: few files, which a process may raise.
    let by = ["prlimit", "--nofile=256:8192"];
    let profile = directory.path().join("profile.toml");
    let mut node = Running::start_by(&by, &profile, directory.path(), &[]);
    let ports = node.listeners.iter().map(|(name, address)| format!("{name}={}", address.port()));
    let words: Vec<String> = std::iter::once(node.pid().to_string()).chain(ports).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (fine, told) = probe(300, "hostile.py", &words);
    assert!(fine, "{told}");
    assert!(node.alive());
    let log = node.stop();
    assert!(!log.contains("accept failed"), "{log}");
}
