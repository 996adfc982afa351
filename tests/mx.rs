//! Mail to the hosts that the DNS names, between real processes: BIND's named with a signed zone, Postfix and scripted hosts on loopback
//! addresses of their own, a web server for policies. All hosts of a test listen at one port, as mail hosts of the world do at 25.

#[path = "common/dns.rs"]
mod dns;
#[path = "common/hop.rs"]
mod hop;
#[path = "common/process.rs"]
mod process;
#[path = "common/server.rs"]
mod server;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dns::{Dns, Record};
use hop::{Hop, OFFERS_TLS, Script};
use process::{Client, Running, have, message, root, run, wait_for};
use ring::digest::{SHA256, digest};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;
use server::{PeerServer, may_start, open_to_all};

const PATIENCE: Duration = Duration::from_secs(60);
/// What a scripted host says inside TLS where it keeps REQUIRETLS.
const KEEPS_TLS: &str = "250-hop\r\n250 REQUIRETLS\r\n";

/// A directory with an authority, certificates, zones and profiles; the port of all hosts, and that of the DNS.
struct Site {
    directory: tempfile::TempDir,
    port: u16,
    dns_port: u16,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        open_to_all(directory.path());
        std::fs::create_dir(directory.path().join("dns")).expect("made");
        Self { directory, port: process::free_port(), dns_port: process::free_port() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).expect("written");
    }

    /// An authority and, by it, a certificate for each of these names: `NAME.crt` with the authority behind it, and `NAME.key`.
    fn certify(&self, authority: &str, names: &[&str]) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).expect("signed").pem();
        self.write(&format!("{authority}.pem"), &own);
        let issuer = rcgen::Issuer::new(params, key);
        for name in names {
            let key = rcgen::KeyPair::generate().expect("a key");
            let mut params = rcgen::CertificateParams::default();
            params.subject_alt_names.push(rcgen::SanType::DnsName((*name).try_into().expect("ascii")));
            let chain = params.signed_by(&key, &issuer).expect("signed").pem() + &own;
            self.write(&format!("{name}.crt"), &chain);
            self.write(&format!("{name}.key"), &key.serialize_pem());
        }
    }

    fn identity(&self, name: &str) -> Arc<ServerConfig> {
        let at = |end: &str| self.path().join(format!("{name}.{end}"));
        let chain = CertificateDer::pem_file_iter(at("crt")).expect("PEM").collect::<Result<_, _>>().expect("PEM");
        let key = PrivateKeyDer::from_pem_file(at("key")).expect("PEM");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key);
        Arc::new(config.expect("they fit"))
    }

    /// `3 1 1` and the digest of a certificate's key, or `2 0 1` and that of an authority.
    fn tlsa(&self, file: &str, usage: u8) -> String {
        let certificate = CertificateDer::from_pem_file(self.path().join(file)).expect("PEM");
        let parsed = rustls::server::ParsedCertificate::try_from(&certificate).expect("a certificate");
        let key = parsed.subject_public_key_info();
        let (selector, part) = if usage == 3 { (1, key.as_ref()) } else { (0, certificate.as_ref()) };
        format!("TLSA {usage} {selector} 1 {}", data_encoding::HEXLOWER.encode(digest(&SHA256, part).as_ref()))
    }

    /// The name of the TLSA records of a host, with a dot at the end.
    fn tlsa_of(&self, host: &str) -> String {
        format!("_{}._tcp.{host}.", self.port)
    }

    /// A scripted host.
    fn host(&self, address: &str, script: Script) -> Hop {
        Hop::at(&format!("{address}:{}", self.port), script)
    }

    /// A scripted host that offers TLS.
    fn host_with(&self, address: &str, certificate: &str) -> Hop {
        let tls = Some(self.identity(certificate));
        self.host(address, Script { clear: OFFERS_TLS, inside: KEEPS_TLS, tls, ..Script::new() })
    }

    /// Starts named with these zones; the first is the parent of the others.
    fn serve(&self, zones: &[(&str, &str, String)]) -> PeerServer {
        for (zone, _, records) in zones {
            let text = format!(
                "$TTL 5\n$ORIGIN {zone}.\n@ IN SOA ns.test. host.test. 1 3600 600 86400 5\n@ IN NS ns.test.\n{records}\n"
            );
            self.write(&format!("dns/{zone}.db"), &text);
        }
        self.restart_dns(&zones.iter().map(|(zone, kind, _)| format!("{zone}:{kind}")).collect::<Vec<_>>())
    }

    fn restart_dns(&self, zones: &[String]) -> PeerServer {
        let port = self.dns_port.to_string();
        let words: Vec<&str> = [port.as_str()].into_iter().chain(zones.iter().map(String::as_str)).collect();
        PeerServer::start("named.sh", &self.path().join("dns"), &[], &words)
    }

    /// Starts a node whose mail goes by MX, but for its own and what `routes` names before.
    fn ship(&self, mx: &str, routes: &str) -> Running {
        std::fs::create_dir_all(self.path().join("ship")).expect("made");
        self.certify("ship-ca", &["ship.example"]);
        let profile = format!(
            "[node]\nname = \"ship\"\nhostname = \"ship.example\"\nclock = \"trusted\"\n\n\
             [[listener]]\nname = \"relay\"\nkind = \"relay\"\naddress = \"127.0.0.1:0\"\ntrust = [\"127.0.0.0/8\"]\n\
             tls = {{ certificate = \"ship.example.crt\", key = \"ship.example.key\" }}\n\n\
             [[route]]\nmatch = \"ship.example\"\nto = \"local\"\n\n{routes}\
             [[route]]\nmatch = \"*\"\nto = \"mx\"\n\n[local]\nmaildir = \"{}\"\n\n\
             [retry.routine]\nafter = [\"1s\"]\nwarn = \"1h\"\nexpire = \"2h\"\n\n\
             [dns]\nservers = [\"127.0.0.1:{}\"]\ntimeout = \"500ms\"\n\n\
             [mx]\nport = {}\nloopback = true\nback_off = \"1s\"\nconnect_timeout = \"5s\"\n{mx}\n",
            self.path().join("ship/mail").display(),
            self.dns_port,
            self.port
        );
        self.write("ship.toml", &profile);
        Running::start(&self.path().join("ship.toml"), &self.path().join("ship"), &[])
    }

    /// The report on a message to an address.
    fn report(&self, to: &str) -> String {
        wait_for(to, PATIENCE, || {
            let files = std::fs::read_dir(self.path().join("ship/mail/ops/new")).into_iter().flatten().flatten();
            let mut texts = files.filter_map(|f| std::fs::read_to_string(f.path()).ok());
            texts.find(|t| t.contains(&format!("rfc822;{to}")) || t.contains(&format!("rfc822; {to}")))
        })
    }
}

fn submit(node: &Running, to: &str) {
    process::send(node.address(), "<ops@ship.example>", &[(to, "")], &message(to, "Text."));
}

fn status(node: &Running) -> Value {
    process::ask(&node.socket, &["status"]).1
}

/// What the status shows of the hosts of a domain.
fn hosts(node: &Running, domain: &str) -> Vec<Value> {
    let shown = status(node);
    let found = shown["mx"].as_array().and_then(|list| list.iter().find(|d| d["domain"] == domain).cloned());
    found.and_then(|d| d["hosts"].as_array().cloned()).unwrap_or_default()
}

/// Why the mail to an address waits.
fn why(node: &Running, to: &str) -> Option<String> {
    let (_, list) = process::ask(&node.socket, &["queue", "list"]);
    let id =
        list["messages"].as_array()?.iter().find(|m| m["recipients"][0]["address"] == to)?["id"].as_str()?.to_owned();
    let (_, track) = process::ask(&node.socket, &["track", &id]);
    let events = track["events"].as_array()?;
    events.iter().rev().find(|e| e["event"] == "deferred")?["detail"].as_str().map(str::to_owned)
}

/// Waits until a host got a message for an address, and shows that it was inside TLS, or was not.
fn got(host: &Hop, to: &str, inside: bool) {
    let line = wait_for(to, PATIENCE, || host.seen().into_iter().find(|s| s.contains(&format!("RCPT TO:<{to}>"))));
    assert_eq!(line.starts_with("tls "), inside, "{line}");
}

fn have_named() -> bool {
    have(&["named", "dnssec-signzone", "dnssec-keygen"])
}

#[test]
fn without_a_route_to_it_no_question_is_asked_and_explaining_one_asks_none() {
    let dns = Dns::start();
    dns.add("far.test", Record::Fails);
    let site = Site::new();
    let host = site.host("127.0.0.2", Script::new());
    let routes = format!("[[route]]\nmatch = \"static.test\"\nto = \"smtp:{}\"\n\n", host.address);
    let ship = site.ship("", &routes);
    // The node asks at a port where nobody answers: what has a route of its own goes all the same.
    submit(&ship, "one@static.test");
    got(&host, "one@static.test", false);
    ship.stop();

    let profile = std::fs::read_to_string(site.path().join("ship.toml")).expect("readable");
    let profile = profile.replace(&format!("127.0.0.1:{}", site.dns_port), &dns.address.to_string());
    site.write("ship.toml", &profile);
    let path = site.path().join("ship.toml").display().to_string();
    let (code, text, _) = process::aldis(&["route", "two@far.test", "--profile", &path]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("by mx: to the hosts that the DNS names for far.test"), "{text}");
    let (_, json, _) = process::aldis(&["route", "two@far.test", "--profile", &path, "--json"]);
    assert!(json.contains("\"mx:far.test\""), "{json}");
    let ship = Running::start(&site.path().join("ship.toml"), &site.path().join("ship"), &[]);
    submit(&ship, "three@static.test");
    got(&host, "three@static.test", false);
    assert_eq!(dns.asked(), Vec::<String>::new());
    submit(&ship, "two@far.test");
    let reason = wait_for("mail that waits", PATIENCE, || why(&ship, "two@far.test"));
    assert!(reason.contains("the mail hosts of far.test are not known"), "{reason}");
    assert!(dns.asked().iter().any(|name| name == "far.test"));
    if have(&["python3"]) {
        // Where nothing is asked of hosts, none can keep the promise.
        let file = site.path().join("mail.eml").display().to_string();
        std::fs::write(&file, message("asks", "Text.")).expect("written");
        let script = root().join("tests/peers/submit.py").display().to_string();
        let words = [&*script, &ship.address().to_string(), "ops@ship.example", "asks@far.test", &file, "REQUIRETLS"];
        let refused = String::from_utf8_lossy(&run(60, "python3", &words).stdout).into_owned();
        assert!(refused.starts_with("asks@far.test 550 5.7.30"), "{refused}");
    }
    ship.stop();
}

#[test]
fn mail_goes_to_the_best_host_that_answers_and_returns_where_there_is_none() {
    if !have_named() {
        return;
    }
    let site = Site::new();
    let [three, four] = ["127.0.0.3", "127.0.0.4"].map(|address| site.host(address, Script::new()));
    let records = "ns A 127.0.0.1\n\
        far MX 10 mx1.far\nfar MX 20 mx2.far\nfar MX 30 mx3.far\nmx1.far A 127.0.0.2\nmx2.far A 127.0.0.3\nmx3.far A 127.0.0.4\n\
        alias CNAME far\n\
        bare A 127.0.0.4\n\
        two MX 10 mx.two\nmx.two A 127.0.0.2\nmx.two A 127.0.0.3\nmx.two AAAA ::1\n\
        null MX 0 .\n\
        lost MX 10 gone.lost\nlost A 127.0.0.4\n\
        nothing TXT \"nothing\"\n\
        loop MX 10 ship.example.\nloop MX 20 mx3.far\n\
        cut MX 5 mx2.far\ncut MX 10 ship.example.\ncut MX 20 mx3.far\n";
    let many: String = (0..12)
        .map(|n| format!("many MX {n} h{n}.many\nh{n}.many A 127.0.0.{}\n", if n == 0 { 3 } else { 2 }))
        .collect();
    let named = site.serve(&[("test", "plain", format!("{records}{many}"))]);
    let ship = site.ship("", "");
    for domain in ["far", "alias", "two", "cut", "many"] {
        submit(&ship, &format!("a@{domain}.test"));
        got(&three, &format!("a@{domain}.test"), false);
    }
    submit(&ship, "a@bare.test");
    got(&four, "a@bare.test", false);
    submit(&ship, "a@[127.0.0.4]");
    got(&four, "a@[127.0.0.4]", false);
    let far = hosts(&ship, "far.test");
    let shown: Vec<_> =
        far.iter().map(|h| (h["host"].as_str().unwrap_or(""), h["failures"].as_u64().unwrap_or(9))).collect();
    let at = |host: &str, address: &str| format!("{host}.far.test[{address}]:{}", site.port);
    let wanted = [(at("mx1", "127.0.0.2"), 1), (at("mx2", "127.0.0.3"), 0), (at("mx3", "127.0.0.4"), 0)];
    assert_eq!(shown, wanted.iter().map(|(h, n)| (h.as_str(), *n)).collect::<Vec<_>>());
    assert_eq!(status(&ship)["events"]["mx-bounded"], 1, "twelve hosts, of which ten are looked at");
    assert_eq!(hosts(&ship, "many.test").len(), 10);

    for (domain, wanted) in [
        ("null.test", "5.1.10"),
        ("nowhere.test", "5.1.2"),
        ("nothing.test", "5.1.2"),
        ("lost.test", "5.4.4"),
        ("loop.test", "5.4.6"),
    ] {
        submit(&ship, &format!("b@{domain}"));
        let report = site.report(&format!("b@{domain}"));
        assert!(report.contains(&format!("Status: {wanted}")), "{domain}: {report}");
    }
    assert_eq!(four.count("RCPT"), 2, "records that lead nowhere do not lead to the domain itself: {:?}", four.seen());
    ship.stop();
    drop(named);
}

#[test]
fn mail_waits_for_a_dns_that_is_down() {
    if !have_named() {
        return;
    }
    let site = Site::new();
    let host = site.host("127.0.0.3", Script::new());
    let zones = [("test", "plain", "ns A 127.0.0.1\nfar MX 10 mx.far\nmx.far A 127.0.0.3\n".to_owned())];
    drop(site.serve(&zones));
    let ship = site.ship("", "");
    submit(&ship, "a@far.test");
    let reason = wait_for("mail that waits", PATIENCE, || why(&ship, "a@far.test"));
    assert!(reason.contains("the mail hosts of far.test are not known"), "{reason}");
    assert!(status(&ship)["mx"][0]["why"].as_str().is_some_and(|why| why.starts_with("4.4.3")), "{}", status(&ship));
    let named = site.restart_dns(&["test:plain".into()]);
    got(&host, "a@far.test", false);
    ship.stop();
    drop(named);
}

#[test]
fn proven_records_say_which_certificate_counts_and_nothing_goes_around_them() {
    if !have_named() || !have(&["postfix"]) || !may_start("Postfix") {
        return;
    }
    let site = Site::new();
    site.certify("ca", &["mx.dane.test", "good.wrong.test", "mx.ta.test"]);
    site.certify("stranger", &["bad.wrong.test"]);
    let (own, authority) = (|file: &str| site.tlsa(file, 3), site.tlsa("ca.pem", 2));
    let at = |host: &str| site.tlsa_of(host);
    let records = [
        "ns A 127.0.0.1".to_owned(),
        "dane MX 10 mx.dane\nmx.dane A 127.0.0.1".to_owned(),
        format!("{} {}", at("mx.dane.test"), own("mx.dane.test.crt")),
        "wrong MX 10 bad.wrong\nwrong MX 20 good.wrong\nbad.wrong A 127.0.0.3\ngood.wrong A 127.0.0.4".to_owned(),
        format!(
            "{} {}\n{} {}",
            at("bad.wrong.test"),
            own("mx.dane.test.crt"),
            at("good.wrong.test"),
            own("good.wrong.test.crt")
        ),
        "strip MX 10 mx.strip\nmx.strip A 127.0.0.5".to_owned(),
        format!("{} {}", at("mx.strip.test"), own("mx.dane.test.crt")),
        format!("ta MX 10 mx.ta\nmx.ta A 127.0.0.6\n{} {authority}", at("mx.ta.test")),
        // Of kinds that SMTP does not know: encrypted, whoever it is.
        format!("odd MX 10 mx.odd\nmx.odd A 127.0.0.3\n{} TLSA 1 1 1 {}", at("mx.odd.test"), "00".repeat(32)),
        "tf MX 10 mx.tf\nmx.tf A 127.0.0.7\n_tcp.mx.tf NS ns.test.".to_owned(),
        // The host is an alias, and the records stand at what it leads to, which is what TLS asks for.
        "by MX 10 alias.by\nalias.by CNAME mx.ta".to_owned(),
        // Without MX records the domain itself has the records.
        format!("self A 127.0.0.6\n{} {}", at("self.test"), own("mx.ta.test.crt")),
        // Proven to have none, by NSEC3 here and by NSEC in the zone below.
        "none MX 10 mx.none\nmx.none A 127.0.0.8\nnsec NS ns.test.".to_owned(),
        "bogus NS ns.test.\nplain NS ns.test.".to_owned(),
    ];
    let bogus = "@ MX 10 mx\nmx A 127.0.0.7".to_owned();
    // Nobody proves these records, so that they say nothing.
    let plain = format!("@ MX 10 mx\nmx A 127.0.0.8\n{} {}", at("mx.plain.test"), own("mx.dane.test.crt"));
    let failing = format!("_{} {}", site.port, own("mx.dane.test.crt"));
    let named = site.serve(&[
        ("test", "signed", records.join("\n")),
        ("bogus.test", "bogus", bogus),
        ("plain.test", "plain", plain),
        ("nsec.test", "nsec", "@ MX 10 mx\nmx A 127.0.0.8".to_owned()),
        // Below no key that is trusted.
        ("elsewhere.example", "plain", "@ MX 10 mx\nmx A 127.0.0.8".to_owned()),
        ("_tcp.mx.tf.test", "bogus", failing),
    ]);
    let bad = site.host_with("127.0.0.3", "bad.wrong.test");
    let good = site.host_with("127.0.0.4", "good.wrong.test");
    let strip = site.host("127.0.0.5", Script::new());
    let ta = site.host_with("127.0.0.6", "mx.ta.test");
    let untouched = site.host("127.0.0.7", Script::new());
    let plain = site.host("127.0.0.8", Script::new());
    let directory = site.path().join("postfix");
    let [certificate, key] =
        ["crt", "key"].map(|end| site.path().join(format!("mx.dane.test.{end}")).display().to_string());
    let words = [&*site.port.to_string(), "deliver", "dane.test", &certificate, &key];
    let _postfix = PeerServer::start("postfix.sh", &directory, &[], &words);
    let ship = site.ship("dane = true\ntrust_anchor = \"dns/anchor.key\"", "");

    submit(&ship, "a@dane.test");
    let arrived = || {
        let files = std::fs::read_dir(directory.join("mail/box/new")).into_iter().flatten().flatten();
        files.filter_map(|f| std::fs::read_to_string(f.path()).ok()).find(|t| t.contains("a@dane.test@ship.example"))
    };
    let mail = wait_for("mail at Postfix", PATIENCE, arrived);
    assert!(mail.contains("with ESMTPS"), "{mail}");
    assert_eq!(hosts(&ship, "dane.test")[0]["tls"], "dane");

    submit(&ship, "a@wrong.test");
    got(&good, "a@wrong.test", true);
    assert!(bad.count("STARTTLS") == 1, "it is the better host, and was asked: {:?}", bad.seen());
    assert!(bad.count("tls ") == 0 && bad.count("MAIL") == 0, "another certificate: {:?}", bad.seen());
    submit(&ship, "a@ta.test");
    got(&ta, "a@ta.test", true);
    submit(&ship, "a@by.test");
    got(&ta, "a@by.test", true);
    assert_eq!(hosts(&ship, "by.test")[0]["tls"], "dane");
    submit(&ship, "a@odd.test");
    got(&bad, "a@odd.test", true);
    assert_eq!(hosts(&ship, "odd.test")[0]["tls"], "required");
    submit(&ship, "a@plain.test");
    got(&plain, "a@plain.test", false);
    for to in ["a@elsewhere.example", "a@none.test", "a@nsec.test"] {
        submit(&ship, to);
        got(&plain, to, false);
    }
    submit(&ship, "a@self.test");
    got(&ta, "a@self.test", true);
    submit(&ship, "a@nowhere.test");
    let report = site.report("a@nowhere.test");
    assert!(report.contains("Status: 5.1.2"), "{report}");

    for (domain, reason) in [
        ("strip.test", "4.7.10 TLS is required"),
        ("bogus.test", "the mail hosts of bogus.test are not known"),
        ("tf.test", "4.7.5 the TLSA records of mx.tf.test are not known"),
    ] {
        submit(&ship, &format!("a@{domain}"));
        let told = wait_for(domain, PATIENCE, || why(&ship, &format!("a@{domain}")));
        assert!(told.starts_with(reason), "{domain}: {told}");
    }
    strip.assert_nothing_in_clear();
    assert_eq!(untouched.seen(), Vec::<String>::new());
    assert_eq!(hosts(&ship, "tf.test")[0]["tls"], "barred");

    // Its sender would rather have it arrive in clear than not at all.
    let open = [b"TLS-Required: No\r\n", &*message("open", "Text.")].concat();
    for to in ["open@strip.test", "open@tf.test"] {
        process::send(ship.address(), "<ops@ship.example>", &[(to, "")], &open);
    }
    got(&strip, "open@strip.test", false);
    got(&untouched, "open@tf.test", false);

    if have(&["python3"]) {
        // The parameter counts for more than the field.
        let file = site.path().join("mail.eml").display().to_string();
        std::fs::write(&file, &open).expect("written");
        let script = root().join("tests/peers/submit.py").display().to_string();
        let address = ship.address().to_string();
        for to in ["asks@ta.test", "asks@plain.test", "asks@strip.test"] {
            let output = run(60, "python3", &[&script, &address, "ops@ship.example", to, &file, "REQUIRETLS"]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        got(&ta, "asks@ta.test", true);
        let asked = ta.seen().into_iter().filter(|s| s.starts_with("tls MAIL") && s.contains("REQUIRETLS")).count();
        assert_eq!(asked, 1, "{:?}", ta.seen());
        let report = site.report("asks@plain.test");
        assert!(report.contains("Status: 5.7.30"), "{report}");
        let told = wait_for("mail that waits", PATIENCE, || why(&ship, "asks@strip.test"));
        assert!(told.starts_with("4.7.10"), "{told}");
    }
    ship.stop();
    drop(named);
}

#[test]
fn urgent_mail_does_not_wait_for_slow_hosts_of_others() {
    if !have_named() {
        return;
    }
    let site = Site::new();
    let far = site.host("127.0.0.3", Script::new());
    let slow = TcpListener::bind(("127.0.0.5", site.port)).expect("a loopback socket");
    let records = "ns A 127.0.0.1\nfar MX 10 mx.far\nmx.far A 127.0.0.3\nslow MX 10 mx.slow\nmx.slow A 127.0.0.5\n";
    let named = site.serve(&[("test", "plain", records.to_owned())]);
    let ship = site.ship("", "[limits]\ndeliveries = 1\n\n");
    submit(&ship, "a@slow.test");
    // It never says a word, and all the room there is is taken.
    let (held, _) = slow.accept().expect("a connection");
    submit(&ship, "routine@far.test");
    let from = "<ops@ship.example> MT-PRIORITY=4";
    process::send(ship.address(), from, &[("flash@far.test", "")], &message("flash", "Text."));
    got(&far, "flash@far.test", false);
    assert_eq!(far.count("RCPT TO:<routine@far.test>"), 0, "what is kept for urgent mail is kept: {:?}", far.seen());
    drop(held);
    drop(slow);
    got(&far, "routine@far.test", false);
    ship.stop();
    drop(named);
}

/// Serves one policy for each domain, over HTTPS, until told to be silent.
struct Web {
    port: u16,
    silent: Arc<AtomicBool>,
}

impl Web {
    fn start(identity: Arc<ServerConfig>, policies: Vec<(&'static str, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback socket");
        let port = listener.local_addr().expect("bound").port();
        let silent = Arc::new(AtomicBool::new(false));
        let told = silent.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if told.load(Ordering::Relaxed) {
                    continue;
                }
                let connection = ServerConnection::new(identity.clone()).expect("settings");
                let mut stream = StreamOwned::new(connection, stream);
                let mut request = Vec::new();
                let mut block = [0; 1024];
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut block) {
                        Ok(n) if n > 0 => request.extend_from_slice(&block[..n]),
                        _ => break,
                    }
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                let policy = policies.iter().find(|(domain, _)| request.contains(&format!("Host: mta-sts.{domain}:")));
                let found = policy.filter(|_| request.starts_with("GET /.well-known/mta-sts.txt HTTP/1.1\r\n"));
                let _ = match found {
                    Some((_, text)) => write!(
                        stream,
                        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}",
                        text.len()
                    ),
                    None => write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
                };
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        });
        Self { port, silent }
    }
}

#[test]
fn a_policy_that_a_domain_publishes_is_kept() {
    if !have_named() {
        return;
    }
    let site = Site::new();
    let names = ["good.test", "bad.test", "unnamed.test", "tests.test", "absent.test", "bare.test"];
    // One certificate for all that the web server speaks for.
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    site.write("ca.pem", &params.self_signed(&key).expect("signed").pem());
    let issuer = rcgen::Issuer::new(params, key);
    let certify = |file: &str, names: &[String]| {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(names.to_vec()).expect("names");
        site.write(&format!("{file}.crt"), &params.signed_by(&key, &issuer).expect("signed").pem());
        site.write(&format!("{file}.key"), &key.serialize_pem());
    };
    certify("web", &names.map(|name| format!("mta-sts.{name}")));
    certify("good", &["mx.good.test".into(), "mx.unnamed.test".into()]);
    site.certify("stranger", &["stranger"]);
    let policy = |mode: &str, mx: &str| format!("version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: 86400\r\n");
    let web = Web::start(
        site.identity("web"),
        vec![
            ("good.test", policy("enforce", "*.good.test")),
            ("bad.test", policy("enforce", "mx.bad.test")),
            ("unnamed.test", policy("enforce", "another.test")),
            ("tests.test", policy("testing", "mx.tests.test")),
            ("bare.test", policy("enforce", "mx.bare.test")),
        ],
    );
    let of = |(name, address): (&str, &str)| {
        let label = name.trim_end_matches(".test");
        format!(
            "{label} MX 10 mx.{label}\nmx.{label} A {address}\n_mta-sts.{label} TXT \"v=STSv1; id=1;\"\nmta-sts.{label} A 127.0.0.1"
        )
    };
    let addresses = ["127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.4"];
    let records: Vec<String> = names.into_iter().zip(addresses).map(of).collect();
    let named = site.serve(&[("test", "plain", format!("ns A 127.0.0.1\n{}\n", records.join("\n")))]);
    let good = site.host_with("127.0.0.2", "good");
    let bad = site.host_with("127.0.0.3", "stranger");
    let clear = site.host("127.0.0.4", Script::new());
    let ship = site.ship(&format!("mta_sts = true\nca = \"ca.pem\"\nmta_sts_port = {}", web.port), "");

    submit(&ship, "a@good.test");
    got(&good, "a@good.test", true);
    assert_eq!(hosts(&ship, "good.test")[0]["tls"], "mta-sts");
    for (domain, reason) in [
        ("bad.test", "4.7.5 TLS with mx.bad.test"),
        ("unnamed.test", "4.7.5 the MTA-STS policy of unnamed.test does not name mx.unnamed.test"),
        ("bare.test", "4.7.10 "),
    ] {
        submit(&ship, &format!("a@{domain}"));
        let told = wait_for(domain, PATIENCE, || why(&ship, &format!("a@{domain}")));
        assert!(told.starts_with(reason), "{domain}: {told}");
    }
    assert!(bad.count("MAIL") == 0 && bad.count("tls ") == 0, "{:?}", bad.seen());
    assert_eq!(good.count("tls RCPT"), 1, "{:?}", good.seen());

    submit(&ship, "a@tests.test");
    got(&bad, "a@tests.test", true);
    submit(&ship, "a@absent.test");
    got(&clear, "a@absent.test", false);
    wait_for("both are told", PATIENCE, || {
        let events = status(&ship)["events"].clone();
        (events["mta-sts-testing"] == 1 && events["mta-sts-failed"] == 1).then_some(())
    });

    if have(&["python3"]) {
        let file = site.path().join("mail.eml").display().to_string();
        std::fs::write(&file, message("asks", "Text.")).expect("written");
        let script = root().join("tests/peers/submit.py").display().to_string();
        let address = ship.address().to_string();
        let output =
            run(60, "python3", &[&script, &address, "ops@ship.example", "asks@good.test", &file, "REQUIRETLS"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        got(&good, "asks@good.test", true);
        assert!(good.seen().iter().any(|s| s.starts_with("tls MAIL") && s.contains("REQUIRETLS")), "{:?}", good.seen());
    }
    // What was fetched once holds on, though another policy is announced that cannot be had.
    web.silent.store(true, Ordering::Relaxed);
    drop(named);
    let zone = site.path().join("dns/test.served");
    let records = std::fs::read_to_string(&zone).expect("readable").replace("id=1", "id=2");
    std::fs::write(&zone, records).expect("written");
    let named = site.restart_dns(&["test:plain".into()]);
    wait_for("two more that cannot be had", PATIENCE, || {
        status(&ship)["events"]["mta-sts-failed"].as_u64().filter(|n| *n >= 3)
    });
    let before = bad.count("open");
    submit(&ship, "b@bad.test");
    wait_for("another attempt", PATIENCE, || (bad.count("open") > before).then_some(()));
    assert!(bad.count("tls RCPT TO:<b@bad.test>") == 0 && bad.count("MAIL") == 0, "{:?}", bad.seen());

    let open = [b"TLS-Required: No\r\n", &*message("open", "Text.")].concat();
    let mut client = Client::connect(ship.address());
    assert!(client.say("EHLO client.test").starts_with("250"));
    assert!(client.submit("<ops@ship.example>", &[("open@bad.test", "")], &open).starts_with("250"));
    got(&bad, "open@bad.test", true);
    ship.stop();
    drop(named);

    // After a restart nobody can be asked for a policy any more, neither DNS nor web server: what was stored holds.
    let records = std::fs::read_to_string(&zone).expect("readable");
    let quiet: Vec<&str> = records.lines().filter(|line| !line.contains("sts")).collect();
    std::fs::write(&zone, quiet.join("\n")).expect("written");
    let named = site.restart_dns(&["test:plain".into()]);
    let ship = site.ship(&format!("mta_sts = true\nca = \"ca.pem\"\nmta_sts_port = {}", web.port), "");
    submit(&ship, "c@bare.test");
    let told = wait_for("what was stored", PATIENCE, || why(&ship, "c@bare.test"));
    assert!(told.starts_with("4.7.10 "), "{told}");
    assert_eq!(clear.count("RCPT TO:<c@bare.test>"), 0, "{:?}", clear.seen());
    submit(&ship, "c@good.test");
    got(&good, "c@good.test", true);
    assert_eq!(hosts(&ship, "good.test")[0]["tls"], "mta-sts");
    ship.stop();
    drop(named);
}
