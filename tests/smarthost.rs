//! Next hops with settings of their own, between real processes: TLS that is checked, logins, hosts to fall back on, bounds; and hops
//! that misbehave, by script.

#[path = "common/hop.rs"]
mod hop;
#[path = "common/process.rs"]
mod process;
#[path = "common/server.rs"]
mod server;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hop::{Hop, OFFERS_TLS, Script};
use process::{Client, Running, have, message, root, run, send, wait_for};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use server::{PeerServer, may_start, open_to_all};

const PASSWORD: &str = "s3cret One";
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with two authorities, the certificates of a server and of a client by each, and a password.
struct Keys(tempfile::TempDir);

impl Keys {
    fn new() -> Self {
        let keys = Self(tempfile::tempdir().expect("a directory"));
        let write = |name: &str, text: String| std::fs::write(keys.path().join(name), text).expect("written");
        for authority in ["ca", "stranger"] {
            let key = rcgen::KeyPair::generate().expect("a key");
            let mut params = rcgen::CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            write(&format!("{authority}.pem"), params.self_signed(&key).expect("signed").pem());
            let issuer = rcgen::Issuer::new(params, key);
            for (owner, name) in [("server", "mx.far.test"), ("client", "ship.example")] {
                let key = rcgen::KeyPair::generate().expect("a key");
                let mut params = rcgen::CertificateParams::default();
                params.subject_alt_names.push(rcgen::SanType::DnsName(name.try_into().expect("ascii")));
                write(&format!("{authority}.{owner}.crt"), params.signed_by(&key, &issuer).expect("signed").pem());
                write(&format!("{authority}.{owner}.key"), key.serialize_pem());
            }
        }
        for (name, password) in [("password", PASSWORD), ("wrong", "another")] {
            write(name, format!("{password}\n"));
            let path = keys.path().join(name);
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
        }
        keys
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// The SHA-256 of a certificate's public key, as a profile pins it.
    fn pin(&self, certificate: &str) -> String {
        let own = CertificateDer::from_pem_file(self.path().join(certificate)).expect("PEM");
        let own = rustls::server::ParsedCertificate::try_from(&own).expect("a certificate");
        data_encoding::HEXLOWER
            .encode(ring::digest::digest(&ring::digest::SHA256, &own.subject_public_key_info()).as_ref())
    }

    fn server(&self, authority: &str) -> Arc<ServerConfig> {
        let at = |end: &str| self.path().join(format!("{authority}.server.{end}"));
        let chain = vec![CertificateDer::from_pem_file(at("crt")).expect("PEM")];
        let key = PrivateKeyDer::from_pem_file(at("key")).expect("PEM");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key);
        Arc::new(config.expect("they fit"))
    }

    /// Writes a profile and starts its node.
    fn start(&self, name: &str, profile: &str) -> Running {
        let path = self.path().join(format!("{name}.toml"));
        std::fs::write(&path, profile).expect("written");
        let directory = self.path().join(name);
        std::fs::create_dir_all(&directory).expect("made");
        Running::start(&path, &directory, &[])
    }

    fn mailbox(&self, node: &str, user: &str) -> Vec<String> {
        let files = std::fs::read_dir(self.path().join(node).join("mail").join(user).join("new"));
        let texts = files.into_iter().flatten().flatten().filter_map(|f| std::fs::read(f.path()).ok());
        texts.map(|t| String::from_utf8_lossy(&t).into_owned()).collect()
    }

    fn arrival(&self, node: &str, user: &str, mark: &str) -> String {
        wait_for(mark, PATIENCE, || self.mailbox(node, user).into_iter().find(|m| m.contains(mark)))
    }
}

/// What a node at the near side is: routes of single addresses to smarthosts of the same name, and their tables.
fn near(keys: &Keys, hops: &[(&str, String)], more: &str) -> String {
    let mut text = format!(
        "[node]\nname = \"ship\"\nhostname = \"ship.example\"\nclock = \"trusted\"\n\n\
         [[listener]]\nname = \"relay\"\nkind = \"relay\"\naddress = \"127.0.0.1:0\"\ntrust = [\"127.0.0.0/8\"]\n\
         tls = {{ certificate = \"ca.server.crt\", key = \"ca.server.key\" }}\n\n\
         [[route]]\nmatch = \"ship.example\"\nto = \"local\"\n\n[local]\nmaildir = \"{}\"\n\n{more}\n",
        keys.path().join("ship/mail").display()
    );
    for (name, keys) in hops {
        text += &format!("[[route]]\nmatch = \"{name}@far.test\"\nto = \"smarthost:{name}\"\n\n");
        text += &format!("[[smarthost]]\nname = \"{name}\"\n{keys}\n\n");
    }
    text
}

const CHECKED: &str = "tls = \"verified\"\nca = \"ca.pem\"\nserver_name = \"mx.far.test\"";

fn submit(node: &Running, to: &str, id: &str) {
    send(node.address(), "<ops@ship.example>", &[(&format!("{to}@far.test"), "")], &message(id, "Text."));
}

fn status(node: &Running) -> Value {
    process::ask(&node.socket, &["status"]).1
}

/// Why the mail to an address waits.
fn why(node: &Running, to: &str) -> Option<String> {
    let (_, list) = process::ask(&node.socket, &["queue", "list"]);
    let of = |m: &&Value| m["recipients"][0]["address"] == format!("{to}@far.test");
    let id = list["messages"].as_array()?.iter().find(of)?["id"].as_str()?.to_owned();
    let (_, track) = process::ask(&node.socket, &["track", &id]);
    let events = track["events"].as_array()?;
    events.iter().rev().find(|e| e["event"] == "deferred")?["detail"].as_str().map(str::to_owned)
}

/// An Aldis node at the far side: a submission listener with STARTTLS, one with TLS from the first byte, two users.
fn far(keys: &Keys) -> Running {
    let verifier = aldis::config::scram_verifier(PASSWORD, b"sixteen octets..").expect("made");
    let tls = "tls = { certificate = \"ca.server.crt\", key = \"ca.server.key\", client_ca = \"ca.pem\"";
    let listener = |name: &str, more: &str| {
        format!("[[listener]]\nname = \"{name}\"\nkind = \"submission\"\naddress = \"127.0.0.1:0\"\n{tls}{more} }}\n\n")
    };
    keys.start(
        "far",
        &format!(
            "[node]\nname = \"far\"\nhostname = \"mx.far.test\"\n\n{}{}\
             [[user]]\nname = \"ship\"\npassword_hash = \"{verifier}\"\n\n\
             [[user]]\nname = \"cert\"\ncertificate = \"ship.example\"\n\n\
             [[route]]\nmatch = \"far.test\"\nto = \"local\"\n\n[[route]]\nmatch = \"mx.far.test\"\nto = \"local\"\n\n\
             [local]\nmaildir = \"{}\"\n",
            listener("starttls", ""),
            listener("implicit", ", implicit = true"),
            keys.path().join("far/mail").display()
        ),
    )
}

fn at(node: &Running, listener: &str) -> SocketAddr {
    node.listeners.iter().find(|(name, _)| name == listener).expect("a listener").1
}

#[test]
fn mail_goes_over_checked_tls_with_every_login_and_requiretls_is_kept() {
    let keys = Keys::new();
    let far = far(&keys);
    let (starttls, implicit) = (at(&far, "starttls"), at(&far, "implicit"));
    let hop = |host: SocketAddr, tls: &str, password: &str, mechanism: &str| {
        let login = format!("user = \"ship\"\npassword_file = \"{password}\"\nmechanisms = [\"{mechanism}\"]");
        format!("hosts = [\"{host}\"]\n{tls}\n{login}")
    };
    let pinned = format!("tls = \"verified\"\npins = [\"{}\", \"{}\"]", "00".repeat(32), keys.pin("ca.server.crt"));
    let external = "certificate = \"ca.client.crt\"\nkey = \"ca.client.key\"\nmechanisms = [\"EXTERNAL\"]";
    let hops = [
        ("plus", hop(starttls, CHECKED, "password", "SCRAM-SHA-256-PLUS")),
        ("scram", hop(starttls, CHECKED, "password", "SCRAM-SHA-256")),
        ("plain", hop(starttls, CHECKED, "password", "PLAIN")),
        ("external", format!("hosts = [\"{starttls}\"]\n{CHECKED}\n{external}")),
        ("pinned", hop(implicit, &format!("{pinned}\nimplicit_tls = true"), "password", "SCRAM-SHA-256-PLUS")),
        ("any", hop(starttls, "tls = \"required\"", "password", "SCRAM-SHA-256-PLUS")),
        ("wrong", hop(starttls, CHECKED, "wrong", "SCRAM-SHA-256-PLUS")),
        ("misnamed", hop(starttls, &CHECKED.replace("mx.far", "mx.near"), "password", "SCRAM-SHA-256")),
    ];
    let ship = keys.start("ship", &near(&keys, &hops, ""));
    for name in ["plus", "scram", "plain", "external", "pinned", "any"] {
        submit(&ship, name, &format!("{name}.1"));
        let mail = keys.arrival("far", name, &format!("{name}.1@ship.example"));
        let received = mail.split("Received: ").nth(1).expect("a trace");
        assert!(received.contains("from ship.example") && received.contains("with ESMTPSA"), "{mail}");
    }
    submit(&ship, "wrong", "wrong.1");
    let reason = wait_for("a refused login", PATIENCE, || why(&ship, "wrong"));
    assert!(reason.starts_with("4.7.8 the login was refused: 535 5.7.8"), "{reason}");
    submit(&ship, "misnamed", "misnamed.1");
    let reason = wait_for("a wrong name", PATIENCE, || why(&ship, "misnamed"));
    assert!(reason.starts_with("4.7.5 TLS with") && reason.contains("certificate"), "{reason}");
    let shown = status(&ship);
    let state = |name: &str| {
        let hops = shown["smarthosts"].as_array().expect("a list");
        hops.iter().find(|h| h["name"] == name).expect("listed")["hosts"][0].clone()
    };
    assert_eq!((&state("plus")["state"], &state("plus")["served"]), (&"ok".into(), &1.into()));
    assert_eq!((&state("wrong")["state"], &state("wrong")["failures"]), (&"login-refused".into(), &1.into()));
    assert_eq!(state("misnamed")["state"], "failed");
    // The account is not tried again and again while the refusal is fresh.
    submit(&ship, "wrong", "wrong.2");
    let waits = || {
        let (_, list) = process::ask(&ship.socket, &["queue", "list"]);
        let tried =
            |m: &Value| m["recipients"][0]["address"] == "wrong@far.test" && m["recipients"][0]["attempts"] == 1;
        (list["messages"].as_array()?.iter().filter(|m| tried(m)).count() == 2).then_some(())
    };
    wait_for("a second message that waits", PATIENCE, waits);
    assert_eq!(
        status(&ship)["smarthosts"].as_array().expect("a list").iter().filter(|h| h["name"] == "wrong").count(),
        1
    );
    assert_eq!(status(&far)["ready"], true);
    let refused =
        status(&ship)["smarthosts"].as_array().expect("a list").iter().find(|h| h["name"] == "wrong").cloned();
    assert_eq!(refused.expect("listed")["hosts"][0]["failures"], 1, "one login, not two");

    if have(&["python3"]) {
        let file = keys.path().join("mail.eml");
        std::fs::write(&file, message("asks.1", "Text.")).expect("written");
        let (script, file) = (root().join("tests/peers/submit.py").display().to_string(), file.display().to_string());
        let address = ship.address().to_string();
        let to = "plus@far.test,any@far.test";
        let words = [&*script, &address, "ops@ship.example", to, &file, "REQUIRETLS"];
        let refused = String::from_utf8_lossy(&run(60, "python3", &words).stdout).into_owned();
        // Where any certificate will do, nothing is protected.
        assert!(refused.contains("any@far.test 550 5.7.30") && !refused.contains("plus@far.test"), "{refused}");
        keys.arrival("far", "plus", "asks.1@ship.example");
    }
    ship.stop();
    far.stop();
}

#[test]
fn without_the_tls_or_the_login_asked_for_nothing_is_said_and_the_report_says_why() {
    let keys = Keys::new();
    let tls = |authority: &str| Some(keys.server(authority));
    let login = "user = \"ship\"\npassword_file = \"password\"\nmechanisms = [\"SCRAM-SHA-256\", \"PLAIN\"]";
    let ways = [
        ("bare", Script::new(), "tls = \"required\"", "4.7.10"),
        ("refuses", Script { clear: OFFERS_TLS, injected: "x", ..Script::new() }, "tls = \"required\"", "4.7.5"),
        (
            "injects",
            Script { clear: OFFERS_TLS, injected: "250 hop\r\n", tls: tls("ca"), ..Script::new() },
            CHECKED,
            "4.7.5",
        ),
        ("stranger", Script { clear: OFFERS_TLS, tls: tls("stranger"), ..Script::new() }, CHECKED, "4.7.5"),
        ("pinned", Script { clear: OFFERS_TLS, tls: tls("stranger"), ..Script::new() }, "PIN", "4.7.5"),
        (
            "login",
            Script { clear: OFFERS_TLS, inside: "250 AUTH PLAIN\r\n", tls: tls("ca"), ..Script::new() },
            CHECKED,
            "4.7.8",
        ),
        ("nologin", Script { clear: OFFERS_TLS, tls: tls("ca"), ..Script::new() }, CHECKED, "4.7.4"),
        (
            "fakes",
            Script {
                clear: OFFERS_TLS,
                inside: "250-hop\r\n250 AUTH SCRAM-SHA-256\r\n",
                auth: "235 in\r\n",
                tls: tls("ca"),
                ..Script::new()
            },
            CHECKED,
            "4.7.5",
        ),
    ];
    let pinned = format!("tls = \"verified\"\npins = [\"{}\"]", keys.pin("ca.server.crt"));
    let mut hops = Vec::new();
    let scripted: Vec<_> = ways
        .into_iter()
        .map(|(name, script, settings, status)| {
            let script = match name {
                "login" => Script { inside: "250-hop\r\n250 AUTH PLAIN\r\n", ..script },
                _ => script,
            };
            let hop = Hop::new(script);
            let settings = if settings == "PIN" { pinned.as_str() } else { settings };
            let login = if ["login", "nologin", "fakes"].contains(&name) { login } else { "" };
            hops.push((name, format!("hosts = [\"{}\"]\nback_off = \"1s\"\n{settings}\n{login}", hop.address)));
            (name, hop, status)
        })
        .collect();
    let retry = "[retry.routine]\nafter = [\"1s\"]\nwarn = \"1h\"\nexpire = \"2h\"\n";
    let ship = keys.start("ship", &near(&keys, &hops, retry));
    for (name, _, _) in &scripted {
        submit(&ship, name, &format!("{name}.1"));
    }
    for (name, hop, status) in &scripted {
        let reason = wait_for(name, PATIENCE, || why(&ship, name));
        assert!(reason.starts_with(&format!("{status} ")), "{name}: {reason}");
        hop.assert_nothing_in_clear();
        assert_eq!(hop.count("tls MAIL"), 0, "{name}: {:?}", hop.seen());
    }
    let counted = status(&ship)["events"]["next-hop-failed"].as_u64();
    assert!(counted.is_some_and(|n| n >= scripted.len() as u64), "{counted:?}");
    ship.stop();

    // At the end of its life the sender is told so.
    let retry = "[retry.routine]\nafter = [\"1s\"]\nwarn = \"1s\"\nexpire = \"3s\"\n";
    let ship = keys.start("ship", &near(&keys, &hops, retry));
    submit(&ship, "bare", "bare.2");
    let report = wait_for("a report", PATIENCE, || {
        keys.mailbox("ship", "ops").into_iter().find(|m| m.contains("Action: failed") && m.contains("bare@far.test"))
    });
    assert!(report.contains("Status: 5.7.10") && report.contains("does not offer STARTTLS"), "{report}");
    ship.stop();
}

#[test]
fn hosts_are_fallen_back_on_in_order_and_one_that_failed_stands_behind() {
    let keys = Keys::new();
    let closed = format!("127.0.0.1:{}", process::free_port());
    let banner = Hop::new(Script { greeting: "554 no mail here\r\n", ..Script::new() });
    let busy = Hop::new(Script { greeting: "421 busy\r\n", ..Script::new() });
    let slow = Hop::new(Script { greeting: "", ..Script::new() });
    let good = Hop::new(Script::new());
    let picky = Hop::new(Script { rcpt: "550 5.1.1 nobody\r\n", ..Script::new() });
    let tired = Hop::new(Script { first_mail: "421 4.3.2 closing\r\n", ..Script::new() });
    let hosts = |list: &[&str]| format!("hosts = {list:?}\ncommand_timeout = \"2s\"\nback_off = \"10min\"\n");
    let hops = [
        ("order", hosts(&[&closed, &banner.address, &busy.address, &slow.address, &good.address])),
        ("final", hosts(&[&picky.address, &good.address])),
        ("none", hosts(&[&banner.address])),
        ("later", hosts(&[&tired.address])),
    ];
    let ship =
        keys.start("ship", &near(&keys, &hops, "[retry.routine]\nafter = [\"1s\"]\nwarn = \"1h\"\nexpire = \"2h\"\n"));
    submit(&ship, "order", "order.1");
    wait_for("the last host", PATIENCE, || (good.count("MAIL") == 1).then_some(()));
    for hop in [&banner, &busy, &slow] {
        assert_eq!(hop.count("open"), 1, "{:?}", hop.seen());
    }
    submit(&ship, "order", "order.2");
    wait_for("the last host again", PATIENCE, || (good.count("MAIL") == 2).then_some(()));
    for hop in [&banner, &busy, &slow] {
        assert_eq!(hop.count("open"), 1, "it stands behind: {:?}", hop.seen());
    }
    let shown = status(&ship);
    let of = |name: &str| {
        let hops = shown["smarthosts"].as_array().expect("a list");
        hops.iter().find(|h| h["name"] == name).expect("listed")["hosts"].clone()
    };
    let order = of("order");
    let states: Vec<_> =
        order.as_array().expect("a list").iter().map(|h| h["state"].as_str().expect("a word")).collect();
    assert_eq!(states, ["failed", "failed", "failed", "failed", "ok"]);
    assert!(order[1]["why"].as_str().is_some_and(|w| w.contains("554 no mail here")), "{order}");
    assert_eq!((&order[4]["served"], &shown["events"]["next-hop-failed"]), (&2.into(), &4.into()));

    // What a host says of a recipient is final, and the next is not asked.
    submit(&ship, "final", "final.1");
    let report = keys.arrival("ship", "ops", "final@far.test");
    assert!(
        report.contains("Status: 5.1.1") && report.contains(&format!("Remote-MTA: dns; {}", picky.address)),
        "{report}"
    );
    assert_eq!(good.count("MAIL"), 2);
    // Where every host refuses for good, it is returned.
    submit(&ship, "none", "none.1");
    let report = keys.arrival("ship", "ops", "none@far.test");
    assert!(report.contains("Action: failed") && report.contains("554 no mail here"), "{report}");
    // A 421 in the middle costs nothing but time.
    submit(&ship, "later", "later.1");
    wait_for("another try", PATIENCE, || (tired.count("DATA") == 1).then_some(()));
    assert_eq!(tired.count("MAIL"), 2);
    ship.stop();
}

#[test]
fn a_smarthost_gets_no_more_than_the_profile_says() {
    let keys = Keys::new();
    let hop = Hop::new(Script::new());
    let bounds = "tls = \"off\"\nhello = \"relay.ship.example\"\nsource_address = \"127.0.0.2\"\nconnections = 1\n\
                  messages_per_connection = 2\nrecipients = 3\nmax_size = \"4KiB\"\ninterval = \"300ms\"";
    let hops = [("bound", format!("hosts = [\"{}\"]\n{bounds}", hop.address))];
    let more = "[[route]]\nmatch = \"many.test\"\nto = \"smarthost:bound\"\n";
    let ship = keys.start("ship", &near(&keys, &hops, more));
    let to: Vec<String> = (0..7).map(|n| format!("r{n}@many.test")).collect();
    let to: Vec<(&str, &str)> = to.iter().map(|t| (t.as_str(), "")).collect();
    send(ship.address(), "<ops@ship.example>", &to, &message("many.1", "Text."));
    for n in 0..3 {
        submit(&ship, "bound", &format!("bound.{n}"));
    }
    wait_for("all of it", PATIENCE, || (hop.count("DATA") >= 6).then_some(()));
    wait_for("the end of it", PATIENCE, || (hop.count("shut") == hop.count("open")).then_some(()));
    let (mut open, mut mails, mut rcpts) = (0, 0, 0);
    for line in hop.seen() {
        match line.split(' ').next().unwrap_or_default() {
            "open" => {
                (open, mails) = (open + 1, 0);
                assert_eq!(line, "open 127.0.0.2");
            }
            "shut" => open -= 1,
            "EHLO" => assert_eq!(line, "EHLO relay.ship.example"),
            "MAIL" => (mails, rcpts) = (mails + 1, 0),
            "RCPT" => rcpts += 1,
            _ => {}
        }
        assert!(open <= 1 && mails <= 2 && rcpts <= 3, "{line}: {:?}", hop.seen());
    }
    assert_eq!(hop.count("RCPT"), 10);

    let connections = hop.count("open");
    let mut client = Client::connect(ship.address());
    assert!(client.say("EHLO client.test").starts_with("250"));
    assert!(client.say("MAIL FROM:<ops@ship.example> SIZE=5000").starts_with("250"));
    let told = client.say("RCPT TO:<bound@far.test>");
    assert!(told.starts_with("552 5.3.4"), "{told}");
    client.say("RSET");
    let reply =
        client.submit("<ops@ship.example>", &[("bound@far.test", "")], &message("large", &"line\r\n".repeat(900)));
    assert!(reply.starts_with("250"), "its size was not declared: {reply}");
    let report = keys.arrival("ship", "ops", "bound@far.test");
    assert!(report.contains("Status: 5.3.4"), "{report}");
    assert_eq!(hop.count("open"), connections, "nobody was asked");
    ship.stop();
}

#[test]
fn a_listener_refuses_what_is_over_its_bounds_and_counts_it() {
    let keys = Keys::new();
    let tls = "tls = { certificate = \"ca.server.crt\", key = \"ca.server.key\" }";
    let listener = |name: &str, more: &str| {
        format!("[[listener]]\nname = \"{name}\"\nkind = \"relay\"\naddress = \"127.0.0.1:0\"\n{more}\n\n")
    };
    let profile = format!(
        "[node]\nname = \"ship\"\n\n{}{}{}{}\n[[route]]\nmatch = \"ship\"\nto = \"local\"\n\n[local]\nmaildir = \"{}\"\n",
        listener("secret", &format!("{tls}\ntls_required = true\ntrust = [\"127.0.0.0/8\"]")),
        listener("small", "max_size = \"64KiB\"\nmax_recipients = 100\nmessages_per_minute = 3"),
        listener("narrow", "sessions_per_address = 2\nsessions_per_minute = 4"),
        listener("spared", "messages_per_minute = 1\nsessions_per_minute = 1\ntrust = [\"127.0.0.0/8\"]"),
        keys.path().join("ship/mail").display()
    );
    let ship = keys.start("ship", &profile);
    let hello = |name: &str| {
        let mut client = Client::connect(at(&ship, name));
        assert!(client.say("EHLO client.test").starts_with("250"));
        client
    };
    let mail = |client: &mut Client| client.say("MAIL FROM:<ops@ship.example>");

    let told = mail(&mut hello("secret"));
    assert!(told.starts_with("530 5.7.0"), "{told}");

    let mut small = TcpStream::connect(at(&ship, "small")).expect("it answers");
    small.write_all(b"EHLO client.test\r\nQUIT\r\n").expect("taken");
    let mut offer = String::new();
    small.read_to_string(&mut offer).expect("text");
    assert!(offer.contains("SIZE 65536\r\n") && offer.contains("LIMITS RCPTMAX=100\r\n"), "{offer}");
    let mut small = hello("small");
    let told = small.say("MAIL FROM:<ops@ship.example> SIZE=65537");
    assert!(told.starts_with("552 5.3.4"), "{told}");
    assert!(mail(&mut small).starts_with("250"));
    for n in 0..101 {
        let told = small.say(&format!("RCPT TO:<r{n}@ship>"));
        assert!(told.starts_with(if n < 100 { "250" } else { "452 4.5.3" }), "{n}: {told}");
    }
    for want in ["250", "250", "450 4.7.1"] {
        small.say("RSET");
        let told = mail(&mut small);
        assert!(told.starts_with(want), "{told}");
    }

    let two = [hello("narrow"), hello("narrow")];
    let turned_away = || {
        let stream = TcpStream::connect(at(&ship, "narrow")).expect("it answers");
        let mut line = String::new();
        let _ = BufReader::new(stream).read_line(&mut line);
        line
    };
    assert!(turned_away().starts_with("421 4.7.0"));
    drop(two);
    let late =
        wait_for("the end of a minute's worth", PATIENCE, || Some(turned_away()).filter(|t| t.contains("4.7.1")));
    assert!(late.starts_with("421 4.7.1"), "{late}");

    for _ in 0..3 {
        assert!(mail(&mut hello("spared")).starts_with("250"), "who is trusted is spared");
    }
    let shown = status(&ship);
    let refused = |name: &str, what: &str| {
        let listeners = shown["listeners"].as_array().expect("a list");
        listeners.iter().find(|l| l["name"] == name).expect("listed")["refused"][what].as_u64().expect("a count")
    };
    assert_eq!((refused("secret", "tls-required"), refused("spared", "message-rate")), (1, 0));
    assert_eq!((refused("small", "size"), refused("small", "recipients"), refused("small", "message-rate")), (1, 1, 1));
    assert!(refused("narrow", "sessions") >= 1 && refused("narrow", "session-rate") >= 1);
    ship.stop();
}

#[test]
fn postfix_takes_mail_over_checked_tls_alone() {
    if !have(&["postfix", "openssl"]) || !may_start("Postfix") {
        return;
    }
    let keys = Keys::new();
    open_to_all(keys.path());
    let (directory, port) = (keys.path().join("postfix"), process::free_port().to_string());
    let [certificate, key] = ["ca.server.crt", "ca.server.key"].map(|f| keys.path().join(f).display().to_string());
    let _postfix =
        PeerServer::start("postfix.sh", &directory, &[], &[&port, "deliver", "far.test", &certificate, &key]);
    let hosts = format!("hosts = [\"127.0.0.1:{port}\"]");
    let hops = [
        ("checked", format!("{hosts}\n{CHECKED}")),
        ("pinned", format!("{hosts}\ntls = \"verified\"\npins = [\"{}\"]", keys.pin("ca.server.crt"))),
        ("stranger", format!("{hosts}\n{}", CHECKED.replace("ca.pem", "stranger.pem"))),
        ("clear", format!("{hosts}\ntls = \"off\"")),
    ];
    let ship = keys.start("ship", &near(&keys, &hops, ""));
    for name in ["checked", "pinned", "stranger", "clear"] {
        submit(&ship, name, &format!("{name}.1"));
    }
    let arrived = |mark: &str| {
        let files = std::fs::read_dir(directory.join("mail/box/new")).into_iter().flatten().flatten();
        let texts = files.filter_map(|f| std::fs::read_to_string(f.path()).ok());
        texts.into_iter().find(|t| t.contains(mark))
    };
    for name in ["checked", "pinned"] {
        let mail = wait_for(name, PATIENCE, || arrived(&format!("{name}.1@ship.example")));
        assert!(mail.contains("with ESMTPS"), "{mail}");
    }
    let reason = wait_for("a stranger's authority", PATIENCE, || why(&ship, "stranger"));
    assert!(reason.starts_with("4.7.5 "), "{reason}");
    // Postfix takes nothing in clear here, for good.
    let report = keys.arrival("ship", "ops", "clear@far.test");
    assert!(report.contains("Action: failed") && report.contains("530 5.7.0"), "{report}");
    ship.stop();
}

#[test]
fn postfix_with_dovecot_takes_mail_from_who_logs_in_alone() {
    if !have(&["postfix", "dovecot", "openssl"]) || !may_start("Postfix") {
        return;
    }
    let keys = Keys::new();
    open_to_all(keys.path());
    let dovecot = keys.path().join("dovecot");
    let socket = dovecot.join("sasl");
    let _dovecot = PeerServer::start("dovecot.sh", &dovecot, &[format!("PASSWORD={PASSWORD}")], &["sasl"]);
    wait_for("Dovecot", PATIENCE, || std::os::unix::net::UnixStream::connect(&socket).ok());
    let (directory, port) = (keys.path().join("postfix"), process::free_port().to_string());
    let [certificate, key] = ["ca.server.crt", "ca.server.key"].map(|f| keys.path().join(f).display().to_string());
    let words = [&*port, "deliver", "far.test", &certificate, &key];
    let _postfix = PeerServer::start("postfix.sh", &directory, &[format!("SASL={}", socket.display())], &words);
    let hop = |password: &str, mechanisms: &str| {
        let login = format!("user = \"ship\"\npassword_file = \"{password}\"{mechanisms}");
        format!("hosts = [\"127.0.0.1:{port}\"]\n{CHECKED}\n{login}")
    };
    let only = |mechanism: &str| format!("\nmechanisms = [\"{mechanism}\"]");
    let hops = [
        ("best", hop("password", "")),
        ("scram", hop("password", &only("SCRAM-SHA-256"))),
        ("plain", hop("password", &only("PLAIN"))),
        ("wrong-scram", hop("wrong", &only("SCRAM-SHA-256"))),
        ("wrong-plain", hop("wrong", &only("PLAIN"))),
        ("plus", hop("password", &only("SCRAM-SHA-256-PLUS"))),
        ("nobody", format!("hosts = [\"127.0.0.1:{port}\"]\n{CHECKED}")),
    ];
    let ship = keys.start("ship", &near(&keys, &hops, ""));
    for (name, _) in &hops {
        submit(&ship, name, &format!("{name}.1"));
    }
    let arrived = |mark: &str| {
        let files = std::fs::read_dir(directory.join("mail/box/new")).into_iter().flatten().flatten();
        let texts = files.filter_map(|f| std::fs::read_to_string(f.path()).ok());
        texts.into_iter().find(|t| t.contains(mark))
    };
    for name in ["best", "scram", "plain"] {
        let mail = wait_for(name, PATIENCE, || arrived(&format!("{name}.1@ship.example")));
        assert!(mail.contains("with ESMTPSA") && mail.contains("(Authenticated sender: ship)"), "{mail}");
    }
    let log = std::fs::read_to_string(directory.join("log")).expect("a log");
    for (method, times) in [("SCRAM-SHA-256", 2), ("PLAIN", 1)] {
        let wanted = format!("sasl_method={method}, sasl_username=ship");
        assert_eq!(log.matches(&wanted).count(), times, "{method}: {log}");
    }
    // A login that is refused returns nothing: the mail waits, and says why.
    for name in ["wrong-scram", "wrong-plain"] {
        let reason = wait_for("a refused login", PATIENCE, || why(&ship, name));
        assert!(reason.starts_with("4.7.8 the login was refused: 535 5.7.8"), "{name}: {reason}");
        let shown = status(&ship);
        let hops = shown["smarthosts"].as_array().expect("a list");
        let host = hops.iter().find(|h| h["name"] == name).expect("listed")["hosts"][0].clone();
        assert_eq!(host["state"], "login-refused", "{host}");
    }
    let reason = wait_for("no mechanism that fits", PATIENCE, || why(&ship, "plus"));
    assert!(reason.starts_with("4.7.4 "), "{reason}");
    let report = keys.arrival("ship", "ops", "nobody@far.test");
    assert!(report.contains("Action: failed") && report.contains("5.7.1"), "{report}");
    for (name, _) in hops.iter().skip(3) {
        assert_eq!(arrived(&format!("{name}.1@ship.example")), None, "{name}");
    }
    ship.stop();
}

#[test]
fn a_hop_gets_no_more_than_its_own_limits_say() {
    let keys = Keys::new();
    let few = Hop::new(Script { clear: "250-hop\r\n250 LIMITS MAILMAX=2\r\n", ..Script::new() });
    let narrow = Hop::new(Script { clear: "250-hop\r\n250 LIMITS RCPTMAX=2\r\n", ..Script::new() });
    let hosts = |hop: &Hop| format!("hosts = [\"{}\"]\ntls = \"off\"\nconnections = 1", hop.address);
    let hops = [("few", hosts(&few)), ("narrow", hosts(&narrow))];
    let more = "[[route]]\nmatch = \"many.test\"\nto = \"smarthost:narrow\"\n";
    let ship = keys.start("ship", &near(&keys, &hops, more));
    for n in 0..5 {
        submit(&ship, "few", &format!("few.{n}"));
    }
    let to: Vec<String> = (0..5).map(|n| format!("r{n}@many.test")).collect();
    let to: Vec<(&str, &str)> = to.iter().map(|t| (t.as_str(), "")).collect();
    send(ship.address(), "<ops@ship.example>", &to, &message("many.1", "Text."));
    few.wait("DATA", 5);
    narrow.wait("DATA", 3);
    wait_for("the end of it", PATIENCE, || (few.count("shut") == few.count("open")).then_some(()));
    let mut mails = 0;
    for line in few.seen() {
        mails = if line.starts_with("open") { 0 } else { mails + u32::from(line.starts_with("MAIL")) };
        assert!(mails <= 2, "{:?}", few.seen());
    }
    let mut rcpts = Vec::new();
    for line in narrow.seen() {
        match line.split(' ').next() {
            Some("MAIL") => rcpts.push(0),
            Some("RCPT") => *rcpts.last_mut().expect("behind MAIL") += 1,
            _ => {}
        }
    }
    assert_eq!((rcpts, narrow.count("open")), (vec![2, 2, 1], 1), "{:?}", narrow.seen());
    assert!(!ship.log().contains("message-deferred"), "nobody waits: {}", ship.log());
    ship.stop();
}

#[test]
fn a_hop_that_took_the_login_is_told_who_submitted_or_that_nobody_knows() {
    let keys = Keys::new();
    let offers = "250-hop\r\n250 AUTH PLAIN\r\n";
    let knows = Hop::new(Script { clear: offers, auth: "235 2.7.0 in\r\n", ..Script::new() });
    let stranger = Hop::new(Script { clear: offers, ..Script::new() });
    let hosts = |hop: &Hop| format!("hosts = [\"{}\"]\ntls = \"off\"", hop.address);
    let login = "user = \"ship\"\npassword_file = \"password\"\nmechanisms = [\"PLAIN\"]";
    let hops = [("knows", format!("{}\n{login}", hosts(&knows))), ("stranger", hosts(&stranger))];
    let ship = keys.start("ship", &near(&keys, &hops, ""));
    for name in ["knows", "stranger"] {
        submit(&ship, name, &format!("{name}.1"));
    }
    assert_eq!(knows.wait("MAIL", 1), ["MAIL FROM:<ops@ship.example> AUTH=<>"]);
    assert_eq!(stranger.wait("MAIL", 1), ["MAIL FROM:<ops@ship.example>"]);
    // Whoever is trusted is believed.
    for name in ["knows", "stranger"] {
        let to = format!("{name}@far.test");
        let from = "<ops@ship.example> AUTH=e+3Dmc2@example.com";
        send(ship.address(), from, &[(to.as_str(), "")], &message(&format!("{name}.2"), "Text."));
    }
    assert_eq!(knows.wait("MAIL", 2)[1], "MAIL FROM:<ops@ship.example> AUTH=e+3Dmc2@example.com");
    assert_eq!(stranger.wait("MAIL", 2)[1], "MAIL FROM:<ops@ship.example>");
    ship.stop();
}

/// `openssl s_server` with one version of TLS, that greets inside it as a mail server does.
struct OldServer(std::process::Child);

impl OldServer {
    fn start(keys: &Keys, version: &str, port: u16) -> Self {
        let log = std::fs::File::create(keys.path().join(version)).expect("a log");
        let mut child = std::process::Command::new("openssl")
            .args(["s_server", "-quiet", "-accept", &port.to_string(), version, "-cipher", "DEFAULT:@SECLEVEL=0"])
            .args(["-cert", "ca.server.crt", "-key", "ca.server.key"])
            .current_dir(keys.path())
            .stdin(std::process::Stdio::piped())
            .stderr(log.try_clone().expect("a file"))
            .stdout(log)
            .spawn()
            .expect("openssl");
        child.stdin.as_mut().expect("piped").write_all(b"220 old ESMTP\r\n").expect("taken");
        Self(child)
    }
}

impl Drop for OldServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_hop_with_nothing_newer_than_tls_1_1_is_told_nothing() {
    if !have(&["openssl"]) {
        return;
    }
    let keys = Keys::new();
    let versions = [("old", "-tls1_1"), ("new", "-tls1_2")];
    let served: Vec<_> = versions
        .iter()
        .map(|(name, version)| {
            let port = process::free_port();
            (*name, port, OldServer::start(&keys, version, port))
        })
        .collect();
    let settings = "tls = \"required\"\nimplicit_tls = true\nconnect_timeout = \"5s\"";
    let hops: Vec<_> =
        served.iter().map(|(name, port, _)| (*name, format!("hosts = [\"127.0.0.1:{port}\"]\n{settings}"))).collect();
    let ship = keys.start("ship", &near(&keys, &hops, ""));
    for (name, _) in versions {
        submit(&ship, name, &format!("{name}.1"));
    }
    let heard = |version: &str| std::fs::read_to_string(keys.path().join(version)).unwrap_or_default();
    wait_for("EHLO by TLS 1.2", PATIENCE, || heard("-tls1_2").contains("EHLO ship.example").then_some(()));
    let reason = wait_for("no handshake", PATIENCE, || why(&ship, "old"));
    assert!(reason.starts_with("4.7.5 TLS with"), "{reason}");
    assert!(!heard("-tls1_1").contains("EHLO"), "{}", heard("-tls1_1"));
    // It is the version that was in the way: who takes 1.1 gets in.
    let port = served[0].1.to_string();
    let words =
        ["s_client", "-brief", "-connect", &format!("127.0.0.1:{port}"), "-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"];
    let told = run(30, "openssl", &words);
    let told = String::from_utf8_lossy(&[told.stdout, told.stderr].concat()).into_owned();
    assert!(told.contains("TLSv1.1"), "{told}");
    ship.kill();
}
