//! Who vouches for mail, by the shipped program: what it signs is verified by dkimpy and OpenDKIM, what those sign is verified by it;
//! SPF, DMARC and ARC against a DNS server of the test; and no DNS at all.

#[path = "common/dns.rs"]
mod dns;
#[path = "common/lab.rs"]
mod lab;
#[path = "common/process.rs"]
mod process;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use dns::{Dns, Record};
use lab::{KEY, Lab, contains, split};
use process::{Client, Running, aldis, ask, have, root, run, wait_for};

/// A Python that has dkimpy; `None` is a printed skip.
fn python() -> Option<&'static str> {
    let has = |python: &&str| run(60, python, &["-c", "import dkim, nacl, authres"]).status.success();
    let found =
        ["python3", "/usr/bin/python3"].into_iter().filter(|p| p.starts_with('/') || have(&["python3"])).find(has);
    if found.is_none() {
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "python3-dkim, python3-nacl or python3-authres is not installed"
        );
        println!("skip: python3-dkim, python3-nacl or python3-authres is not installed");
    }
    found
}

/// What dkimpy says to a message.
fn dkimpy(python: &str, words: &[&str], message: &[u8]) -> Vec<u8> {
    filtered(python, "dkim_peer.py", words, message)
}

/// What a program of `tests/peers` makes of a message.
fn filtered(python: &str, script: &str, words: &[&str], message: &[u8]) -> Vec<u8> {
    let mut child = Command::new(python)
        .arg(root().join("tests/peers").join(script))
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    child.stdin.take().expect("piped").write_all(message).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{words:?}");
    output.stdout
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A directory with an RSA and an Ed25519 key, for us, dkimpy and OpenDKIM.
struct Keys {
    directory: tempfile::TempDir,
}

impl Keys {
    fn make() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let keys = Self { directory };
        for (name, words) in [
            ("rsa.pem", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"][..]),
            ("ed.pem", &["-algorithm", "ED25519"]),
        ] {
            let file = keys.at(name);
            let output = run(60, "openssl", &[&["genpkey", "-out", file.to_str().expect("plain")], words].concat());
            assert!(output.status.success(), "{}", text(&output.stderr));
            private(&file);
        }
        // dkimpy takes the bare seed, which ends the file's DER.
        let seed = keys.der("ed.pem", &[]);
        keys.write("ed.seed", &BASE64.encode(&seed[seed.len() - 32..]));
        keys
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.at(name), text).expect("written");
        self.path(name)
    }

    fn der(&self, name: &str, words: &[&str]) -> Vec<u8> {
        let path = self.path(name);
        run(60, "openssl", &[&["pkey", "-in", &*path, "-outform", "DER"], words].concat()).stdout
    }

    /// The records of both keys, as OpenSSL knows them.
    fn records(&self) -> [String; 2] {
        let ed = self.der("ed.pem", &["-pubout"]);
        [
            format!("v=DKIM1; k=rsa; p={}", BASE64.encode(&self.der("rsa.pem", &["-pubout"]))),
            format!("v=DKIM1; k=ed25519; p={}", BASE64.encode(&ed[ed.len() - 32..])),
        ]
    }

    /// Tables for both keys.
    fn tables(&self) -> String {
        format!(
            "[[dkim]]\nname = \"rsa\"\ndomain = \"ship.example\"\nselector = \"r1\"\nkey = \"{}\"\n\n\
             [[dkim]]\nname = \"ed\"\ndomain = \"ship.example\"\nselector = \"e1\"\nkey = \"{}\"\n\n",
            self.path("rsa.pem"),
            self.path("ed.pem"),
        )
    }

    /// A message as dkimpy signs it by the RSA key, `r1` of a domain.
    fn sign(&self, python: &str, domain: &str, message: &[u8]) -> Vec<u8> {
        let key = self.path("rsa.pem");
        dkimpy(python, &["sign", &key, "r1", domain, "rsa-sha256", "relaxed/relaxed"], message)
    }

    /// The file of records that dkimpy and OpenDKIM read.
    fn zone(&self, domain: &str) -> String {
        let [rsa, ed] = self.records();
        self.write("zone", &format!("r1._domainkey.{domain} {rsa}\ne1._domainkey.{domain} {ed}\n"))
    }
}

fn private(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).expect("ours");
}

/// A node whose mailboxes are `*@ship.example`, with one listener.
struct House {
    node: Running,
    directory: tempfile::TempDir,
}

impl House {
    /// `listener` and `more` are text of the profile.
    fn start(listener: &str, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let profile = directory.path().join("profile.toml");
        let text = format!(
            "[node]\nname = \"ship\"\nhostname = \"mx.ship.example\"\npostmaster = \"postmaster@ship.example\"\n\
             clock = \"trusted\"\n\n[[listener]]\nname = \"relay\"\nkind = \"relay\"\naddress = \"127.0.0.1:0\"\n{listener}\n\n\
             [[route]]\nmatch = \"ship.example\"\nto = \"local\"\n\n{more}"
        );
        std::fs::write(&profile, text).expect("written");
        Self { node: Running::start(&profile, directory.path(), &[]), directory }
    }

    /// One that checks everything with the help of `dns`.
    fn checking(dns: &Dns, listener: &str, more: &str) -> Self {
        let listener = format!("check = [\"spf\", \"dkim\", \"dmarc\", \"arc\"]\n{listener}");
        Self::start(
            &listener,
            &format!("[dns]\nservers = [\"{}\"]\ntimeout = \"500ms\"\nattempts = 1\n\n{more}", dns.address),
        )
    }

    /// Hands in one message; the answer to its final dot.
    fn submit(&self, from: &str, message: &[u8]) -> String {
        let mut client = Client::connect(self.node.address());
        assert!(client.say("EHLO client.example").starts_with("250"), "EHLO");
        client.submit(&format!("<{from}>"), &[("ops@ship.example", "")], message)
    }

    /// The message of this mark as it lies in the mailbox.
    fn stored(&self, mark: &str) -> Vec<u8> {
        let mailbox = self.directory.path().join("state/maildir/ops/new");
        let find = || lab::files(&mailbox).into_iter().find(|mail| contains(mail, mark));
        wait_for(&format!("mail with {mark:?}"), Duration::from_secs(30), find)
    }

    /// Hands in a message that is taken; its Authentication-Results, on one line.
    fn results(&self, from: &str, mark: &str, message: &[u8]) -> String {
        let reply = self.submit(from, message);
        assert!(reply.starts_with("250"), "{mark}: {reply}");
        results(&self.stored(mark))
    }

    fn count(&self, event: &str) -> u64 {
        let (code, status) = ask(&self.node.socket, &["status"]);
        assert_eq!(code, 0);
        status["events"][event].as_u64().unwrap_or_else(|| panic!("{event} is no counter of {status}"))
    }
}

/// The first Authentication-Results field, on one line.
fn results(mail: &[u8]) -> String {
    let fields = lab::fields(split(mail).0);
    let found = fields.iter().find_map(|f| f.strip_prefix("Authentication-Results: "));
    let found = found.unwrap_or_else(|| panic!("no results in {fields:?}"));
    found.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A domain whose SPF record asks for some ninety names.
fn wide(dns: &Dns) {
    let wide = (0..9).map(|n| format!("mx:m{n}.wide.example")).collect::<Vec<_>>().join(" ");
    dns.txt("wide.example", &format!("v=spf1 {wide} -all"));
    for (n, host) in (0..9).flat_map(|n| (0..9).map(move |host| (n, host))) {
        dns.add(&format!("m{n}.wide.example"), Record::Mx(format!("h{n}{host}.wide.example")));
        dns.add(&format!("h{n}{host}.wide.example"), Record::A([192, 0, 2, 1]));
    }
}

fn mail(mark: &str, from: &str, body: &str) -> Vec<u8> {
    format!(
        "From: A <{from}>\r\nTo: Ops <ops@ship.example>\r\nSubject: a  folded\r\n\tsubject {mark}\r\n\
         Date: Sun, 29 Nov 2026 13:00:00 +0000\r\nMessage-ID: <{mark}@x.example>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{body}\r\n"
    )
    .into_bytes()
}

#[expect(clippy::disallowed_methods, reason = "how long a real program takes")]
fn now() -> Instant {
    Instant::now()
}

/// What stands below the fields that delivery puts on top.
fn from_signature(mail: &[u8]) -> &[u8] {
    let at = text(mail).find("DKIM-Signature:").expect("a signature");
    &mail[at..]
}

#[test]
fn what_is_signed_verifies_by_dkimpy_and_opendkim() {
    let Some(python) = python().filter(|_| have(&["openssl", "opendkim"])) else { return };
    let keys = Keys::make();
    let house = House::start("trust = [\"127.0.0.0/8\"]\nsign = true", &keys.tables());
    let body = "Malmö  Ålesund \t \r\n.\r\n..two\r\n\r\nFrom the log\r\n\r\n\r\n";
    assert!(house.submit("a@ship.example", &mail("signed.1", "a@Ship.Example", body)).starts_with("250"));
    let stored = house.stored("signed.1@");
    let (head, _) = split(&stored);
    assert_eq!(text(head).matches("DKIM-Signature:").count(), 2, "{}", text(head));
    assert!(!contains(head, "Authentication-Results"), "{}", text(head));
    let zone = keys.zone("ship.example");
    let said = text(&dkimpy(python, &["verify", &zone], &stored));
    assert_eq!(said, "0 ship.example rsa-sha256 pass\n1 ship.example ed25519-sha256 pass\n");
    // A further From, and another body, are noticed.
    let forged = [b"From: other@evil.example\r\n", &stored[..]].concat();
    let changed = text(&stored).replace("From the log", "From the lag").into_bytes();
    for bad in [&forged, &changed] {
        assert!(!text(&dkimpy(python, &["verify", &zone], bad)).contains("pass"), "{}", text(bad));
    }
    // OpenDKIM has its own idea of a zone and of a message.
    let one = keys.write("signed.eml", &text(&stored));
    let configuration = keys.write("opendkim.conf", &format!("TestDNSData file:{zone}\nMode v\n"));
    let output = run(60, "opendkim", &["-x", &configuration, "-t", &one, "-v", "-v"]);
    let said = text(&[output.stdout, output.stderr].concat());
    assert!(said.contains("verification (s=r1, d=ship.example, 2048-bit key) succeeded"), "{said}");
    let bad = keys.write("changed.eml", &text(&changed));
    let output = run(60, "opendkim", &["-x", &configuration, "-t", &bad, "-v", "-v"]);
    let said = text(&[output.stdout, output.stderr].concat());
    assert!(said.contains("failed") && !said.contains("succeeded"), "{said}");
    assert_eq!(house.count("message-signed"), 1);
    // Nobody's domain, and two authors: taken as they are.
    for (mark, other) in [
        ("unsigned.1", mail("unsigned.1", "a@elsewhere.example", "x")),
        ("unsigned.2", [b"From: b@ship.example\r\n", &mail("unsigned.2", "a@ship.example", "x")[..]].concat()),
    ] {
        assert!(house.submit("a@ship.example", &other).starts_with("250"));
        assert!(!contains(&house.stored(&format!("{mark}@")), "DKIM-Signature"), "{mark}");
    }
    assert_eq!(house.count("message-unsigned"), 2);
}

#[test]
fn strangers_are_not_signed_for() {
    if !have(&["openssl"]) {
        return;
    }
    let keys = Keys::make();
    let house = House::start("sign = true\ntrust = [\"192.0.2.0/24\"]", &keys.tables());
    assert!(house.submit("a@ship.example", &mail("stranger.1", "a@ship.example", "x")).starts_with("250"));
    assert!(!contains(&house.stored("stranger.1@"), "DKIM-Signature"));
    assert_eq!((house.count("message-signed"), house.count("message-unsigned")), (0, 0));
}

#[test]
fn a_record_is_printed_for_each_key() {
    if !have(&["openssl"]) {
        return;
    }
    let keys = Keys::make();
    let profile = keys.write(
        "profile.toml",
        &format!(
            "[node]\nname = \"ship\"\npostmaster = \"p@ship.example\"\n[[route]]\nmatch = \"*\"\nto = \"hold\"\n{}",
            keys.tables()
        ),
    );
    let (code, out, _) = aldis(&["dkim", "record", "--profile", &profile, "--json"]);
    let document: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, document["schema"].as_str()), (0, Some("aldis.dkim-records/1")));
    let [rsa, ed] = keys.records();
    for (at, name, content) in [(0, "r1._domainkey.ship.example.", rsa), (1, "e1._domainkey.ship.example.", ed)] {
        let record = &document["records"][at];
        assert_eq!((record["name"].as_str(), record["content"].as_str()), (Some(name), Some(&*content)));
    }
    let (code, out, _) = aldis(&["dkim", "record", "--profile", &profile]);
    assert!(code == 0 && out.starts_with("r1._domainkey.ship.example. IN TXT ( \"v=DKIM1; k=rsa; p=MII"), "{out}");
    assert!(out.split('"').all(|piece| piece.len() <= 255), "{out}");
}

#[test]
fn a_signature_survives_the_radio() {
    let Some(python) = python().filter(|_| have(&["openssl"])) else { return };
    let keys = Keys::make();
    let mut lab = Lab::new();
    lab.link("hf1", &["shore", "ship"], |_| {});
    let signing = format!(
        "[[listener]]\nname = \"signing\"\nkind = \"submission\"\naddress = \"127.0.0.1:0\"\nauth_required = false\n\
         trust = [\"127.0.0.0/8\"]\nsign = true\n\n{}",
        keys.tables()
    );
    for (name, more) in [("ship", &*signing), ("shore", "")] {
        let profile = lab.pair_profile(name, KEY, more);
        lab.start(name, &profile);
    }
    // Neither Date nor Message-ID: they are added, and signed.
    let message = "From: Ops <ops@ship.example>\r\nTo: watch@shore.example\r\nBcc: secret@shore.example\r\nSubject: by radio\r\n\r\n\
                   trailing \t \r\nMalmö\r\n\r\n\r\n";
    let to = [("watch@shore.example", " MT-PRIORITY=4")];
    let mut client = Client::connect(lab.listener("ship", "signing"));
    client.say("EHLO client.example");
    let reply = client.submit("<ops@ship.example> MT-PRIORITY=4", &[(to[0].0, "")], message.as_bytes());
    assert!(reply.starts_with("250"), "{reply}");
    let got = lab.arrival("shore", "watch", "by radio");
    let said = text(&dkimpy(python, &["verify", &keys.zone("ship.example")], &got));
    assert_eq!(said, "0 ship.example rsa-sha256 pass\n1 ship.example ed25519-sha256 pass\n", "{}", text(&got));
    let signed = text(from_signature(&got));
    assert!(
        signed.contains("\r\nDate: ") && signed.contains("\r\nMessage-ID: ") && !signed.contains("Bcc"),
        "{signed}"
    );
}

#[test]
fn signatures_of_dkimpy_are_verified() {
    let Some(python) = python().filter(|_| have(&["openssl"])) else { return };
    let keys = Keys::make();
    let dns = Dns::start();
    let [rsa, ed] = keys.records();
    dns.txt("r1._domainkey.x.example", &rsa).txt("e1._domainkey.x.example", &ed);
    // A key too long for one datagram comes over TCP; a revoked one, and one behind a failing server.
    dns.txt("big._domainkey.x.example", &format!("{rsa}; n={}", "n".repeat(1500)));
    dns.txt("gone._domainkey.x.example", "v=DKIM1; p=").add("down._domainkey.x.example", Record::Fails);
    let house = House::checking(&dns, "", "");
    let from = "a@x.example";
    let sign = |mark: &str, selector: &str, algorithm: &str, form: &str, more: &[&str]| {
        let key = keys.path(if algorithm == "rsa-sha256" { "rsa.pem" } else { "ed.seed" });
        let words = [&["sign", &key, selector, "x.example", algorithm, form], more].concat();
        dkimpy(python, &words, &mail(mark, from, "Malmö \t x \r\n\r\ntwo\r\n\r\n"))
    };
    let mut expected = Vec::new();
    for (n, form) in ["simple/simple", "relaxed/relaxed", "simple/relaxed", "relaxed/simple"].into_iter().enumerate() {
        expected.push((format!("rsa.{n}"), sign(&format!("rsa.{n}"), "r1", "rsa-sha256", form, &[]), "dkim=pass"));
        expected.push((format!("ed.{n}"), sign(&format!("ed.{n}"), "e1", "ed25519-sha256", form, &[]), "dkim=pass"));
    }
    let broken = text(&sign("body.1", "r1", "rsa-sha256", "relaxed/relaxed", &[])).replace("two", "tow").into_bytes();
    expected.push(("body.1".into(), broken, "dkim=fail (body was changed)"));
    let subject = text(&sign("head.1", "r1", "rsa-sha256", "simple/simple", &[])).replace("a  folded", "a  forged");
    expected.push(("head.1".into(), subject.into_bytes(), "dkim=fail (signature does not fit)"));
    for (mark, selector, more, words) in [
        ("l.1", "r1", &["length"][..], "dkim=neutral (covers a part of the body only)"),
        ("big.1", "big", &[], "dkim=pass"),
        ("gone.1", "gone", &[], "dkim=permerror (key revoked)"),
        ("none.1", "none", &[], "dkim=permerror (no key)"),
        ("down.1", "down", &[], "dkim=temperror (dns error)"),
    ] {
        expected.push((mark.into(), sign(mark, selector, "rsa-sha256", "relaxed/relaxed", more), words));
    }
    expected.push(("bare.1".into(), mail("bare.1", from, "x"), "dkim=none"));
    let two = keys.sign(python, "x.example", &sign("two.1", "e1", "ed25519-sha256", "relaxed/relaxed", &[]));
    expected.push(("two.1".into(), two, "dkim=pass"));
    for (mark, message, words) in expected {
        let found = house.results(from, &format!("{mark}@"), &message);
        assert!(found.starts_with("mx.ship.example; spf=none"), "{mark}: {found}");
        assert!(found.contains(words), "{mark}: {words}: {found}");
        // Another reader of such fields understands it.
        let read = text(&dkimpy(python, &["results", "mx.ship.example"], &house.stored(&format!("{mark}@"))));
        assert!(
            read.starts_with("spf=none ") && read.contains(words.split(' ').next().expect("a word")),
            "{mark}: {read}"
        );
        // Nothing but what stands on top was touched.
        assert!(house.stored(&format!("{mark}@")).ends_with(&message), "{mark}");
    }
    assert!(dns.by_tcp() >= 1, "the long key came some other way");
    assert!(house.count("checks-incomplete") >= 1 && house.count("mail-checked") >= 15);
    // More signatures than are looked at.
    let many = b"DKIM-Signature: v=1; a=rsa-sha256; d=x.example; s=r1; h=from; bh=AAAA; b=AAAA\r\n".repeat(20);
    let found = house.results(from, "many.1@", &[many, mail("many.1", from, "x")].concat());
    assert!(found.contains("dkim=policy (further signatures not looked at)"), "{found}");
    assert_eq!((found.matches("dkim=fail").count(), house.count("check-bounded")), (5, 1), "{found}");
}

#[test]
fn signatures_of_opendkim_are_verified() {
    if !have(&["python3", "openssl", "opendkim"]) {
        return;
    }
    let keys = Keys::make();
    let dns = Dns::start();
    let [rsa, ed] = keys.records();
    dns.txt("r1._domainkey.x.example", &rsa).txt("e1._domainkey.x.example", &ed);
    let house = House::checking(&dns, "", "");
    let sign = |mark: &str, key: &str, selector: &str, algorithm: &str, form: &str| {
        let (directory, key) = (keys.path(""), keys.path(key));
        let words = [&*directory, &key, selector, "x.example", algorithm, form];
        let message = mail(mark, "a@x.example", "Malmö \t x \r\n.\r\n..two\r\n\r\nFrom the log\r\n\r\n\r\n");
        let signed = filtered("python3", "opendkim_sign.py", &words, &message);
        assert!(signed.ends_with(&message) && signed.starts_with(b"DKIM-Signature: "), "{}", text(&signed));
        signed
    };
    for (mark, key, selector, algorithm, form) in [
        ("od.0", "rsa.pem", "r1", "rsa-sha256", "simple/simple"),
        ("od.1", "rsa.pem", "r1", "rsa-sha256", "relaxed/relaxed"),
        ("od.2", "rsa.pem", "r1", "rsa-sha256", "simple/relaxed"),
        ("od.3", "ed.pem", "e1", "ed25519-sha256", "relaxed/simple"),
    ] {
        let signed = sign(mark, key, selector, algorithm, form);
        let found = house.results("a@x.example", &format!("{mark}@"), &signed);
        let want = format!("dkim=pass header.d=x.example header.s={selector}");
        assert!(found.contains(&want), "{mark}: {found}");
        // What is changed afterwards is noticed.
        for (part, from, to, words) in [
            ("body", "two", "tow", "dkim=fail (body was changed)"),
            ("head", "a  folded", "a  forged", "dkim=fail (signature does not fit)"),
        ] {
            let mark = format!("{mark}.{part}@");
            let changed =
                text(&signed).replace(from, to).replacen("From: A <", &format!("X-Mark: {mark}\r\nFrom: A <"), 1);
            let found = house.results("a@x.example", &mark, changed.as_bytes());
            assert!(found.contains(words), "{mark}: {found}");
        }
    }
}

#[test]
fn spf_says_what_the_records_say() {
    let dns = Dns::start();
    let published = [
        ("pass.example", "v=spf1 ip4:127.0.0.1 -all", "pass"),
        ("fail.example", "v=spf1 ip4:192.0.2.1 -all", "fail"),
        ("soft.example", "v=spf1 ~all", "softfail"),
        ("neutral.example", "v=spf1 ?all", "neutral"),
        ("broken.example", "v=spf1 ip4:nonsense -all", "permerror"),
        ("a.example", "v=spf1 a:host.a.example -all", "pass"),
        ("mx.example", "v=spf1 mx:dom.mx.example -all", "pass"),
        ("include.example", "v=spf1 include:pass.example -all", "pass"),
        ("redirect.example", "v=spf1 redirect=fail.example", "fail"),
        ("loop.example", "v=spf1 include:loop.example -all", "permerror"),
        ("macro.example", "v=spf1 exists:%{i}._spf.macro.example -all", "pass"),
    ];
    for (domain, record, _) in published {
        dns.txt(domain, record);
    }
    dns.add("host.a.example", Record::A([127, 0, 0, 1])).add("dom.mx.example", Record::Mx("host.a.example".into()));
    dns.add("127.0.0.1._spf.macro.example", Record::A([127, 0, 0, 2]));
    let deep: Vec<String> = (0..14).map(|n| format!("include:i{n}.deep.example")).collect();
    dns.txt("deep.example", &format!("v=spf1 {} ~all", deep.join(" ")));
    (0..14).for_each(|n| {
        dns.txt(&format!("i{n}.deep.example"), "v=spf1 ip4:192.0.2.9 -all");
    });
    dns.add("down.example", Record::Fails).add("mute.example", Record::Silent);
    let more = [
        ("deep.example", "permerror"),
        ("down.example", "temperror"),
        ("mute.example", "temperror"),
        ("no.example", "none"),
    ];
    let house = House::checking(&dns, "", "");
    let expected = published.iter().map(|(domain, _, result)| (*domain, *result)).chain(more);
    for (domain, result) in expected {
        let found = house.results(
            &format!("u@{domain}"),
            &format!("{domain}-@"),
            &mail(&format!("{domain}-"), "a@x.example", "x"),
        );
        assert!(
            found.contains(&format!("; spf={result} ")) || found.contains(&format!("; spf={result}(")),
            "{domain}: {found}"
        );
        assert!(found.contains(&format!("smtp.mailfrom=u@{domain}")), "{domain}: {found}");
    }
    // A report has no sender: the name of the client counts.
    dns.txt("client.example", "v=spf1 ip4:127.0.0.1 -all");
    let found = house.results("", "report.1@", &mail("report.1", "a@x.example", "x"));
    assert!(found.contains("spf=pass smtp.helo=client.example"), "{found}");
}

#[test]
fn dmarc_is_noted_or_enforced_as_the_listener_says() {
    let Some(python) = python().filter(|_| have(&["openssl"])) else { return };
    let keys = Keys::make();
    let dns = Dns::start();
    let [rsa, _] = keys.records();
    dns.txt("r1._domainkey.mail.x.example", &rsa).txt("r1._domainkey.mail.s.example", &rsa);
    dns.txt("_dmarc.x.example", "v=DMARC1; p=reject").txt("_dmarc.s.example", "v=DMARC1; p=reject; adkim=s; aspf=s");
    dns.txt("_dmarc.q.example", "v=DMARC1; p=quarantine").txt("_dmarc.n.example", "v=DMARC1; p=none");
    dns.add("_dmarc.down.example", Record::Fails);
    dns.txt("mail.x.example", "v=spf1 ip4:127.0.0.1 -all").txt("mail.s.example", "v=spf1 ip4:127.0.0.1 -all");
    dns.txt("s.example", "v=spf1 ip4:127.0.0.1 -all");
    let noted = House::checking(&dns, "", "");
    let enforced = House::checking(&dns, "dmarc_reject = true", "");
    let plain = |mark: &str, author: &str| mail(mark, author, "x");
    let signed = |mark: &str, author: &str, domain: &str| keys.sign(python, domain, &mail(mark, author, "x"));
    for (mark, sender, message, result, refused) in [
        // Nothing vouches for it.
        ("d.0", "u@evil.example", plain("d.0", "a@x.example"), "fail", true),
        // SPF of a subdomain: enough where alignment is relaxed, not where it is strict.
        ("d.1", "u@mail.x.example", plain("d.1", "a@x.example"), "pass", false),
        ("d.2", "u@mail.s.example", plain("d.2", "a@s.example"), "fail", true),
        ("d.3", "u@s.example", plain("d.3", "a@s.example"), "pass", false),
        // DKIM likewise.
        ("d.4", "u@evil.example", signed("d.4", "a@x.example", "mail.x.example"), "pass", false),
        ("d.5", "u@evil.example", signed("d.5", "a@s.example", "mail.s.example"), "fail", true),
        // A subdomain of an author's domain falls under its policy.
        ("d.6", "u@evil.example", plain("d.6", "a@sub.x.example"), "fail", true),
        // What the domain does not want refused is not.
        ("d.7", "u@evil.example", plain("d.7", "a@q.example"), "fail", false),
        ("d.8", "u@evil.example", plain("d.8", "a@n.example"), "fail", false),
        ("d.9", "u@evil.example", plain("d.9", "a@nothing.example"), "none", false),
        ("d.10", "u@evil.example", plain("d.10", "a@down.example"), "temperror", false),
    ] {
        let found = noted.results(sender, &format!("{mark}@"), &message);
        assert!(found.contains(&format!("; dmarc={result}")), "{mark}: {found}");
        let reply = enforced.submit(sender, &message);
        assert_eq!(reply.starts_with("550 5.7.26"), refused, "{mark}: {reply}");
        assert!(refused || reply.starts_with("250"), "{mark}: {reply}");
    }
    assert_eq!((noted.count("dmarc-refused"), enforced.count("dmarc-refused")), (0, 4));
}

#[test]
fn no_trick_of_the_sender_gets_past_dmarc_reject() {
    let dns = Dns::start();
    dns.txt("_dmarc.x.example", "v=DMARC1; p=reject").txt("_dmarc.evil.example", "v=DMARC1; p=none");
    dns.txt("evil.example", "v=spf1 ip4:127.0.0.1 -all").txt("_dmarc.y.example", "v=DMARC1; p=quarantine");
    // The sender's own servers never answer.
    dns.add("s._domainkey.mute.example", Record::Silent).add("mute.example", Record::Silent);
    dns.add("_dmarc.mute.example", Record::Silent);
    wide(&dns);
    let checks = "[checks]\nwithin = \"3s\"\nheader = \"4KiB\"\nlookups = 40\nauthors = 3\n";
    let house = House::checking(&dns, "dmarc_reject = true", checks);
    let authors = |mark: &str, from: &str| text(&mail(mark, "A", "x")).replace("A <A>", from).into_bytes();
    let signature = "DKIM-Signature: v=1; a=rsa-sha256; d=mute.example; s=s; h=from; \
                     bh=frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY=; b=AAAA\r\n";
    let large = format!("X-Large: {}\r\n{}", "x".repeat(5000), text(&mail("t.4", "a@x.example", "x")));
    let slow = format!("{signature}{}", text(&mail("t.6", "a@x.example", "")));
    for (sender, message, words) in [
        ("u@evil.example", authors("t.0", "a@evil.example, b@x.example"), "the DMARC policy of x.example"),
        ("u@evil.example", authors("t.1", "a@mute.example, b@x.example."), "the DMARC policy of x.example"),
        ("u@evil.example", authors("t.2", "a@a.example, a@b.example, a@c.example, b@x.example"), "more domains"),
        ("u@evil.example", authors("t.3", "\"boss@x.example\" <nobody>"), "no domain"),
        ("u@evil.example", large.into_bytes(), "header is too large"),
        ("u@wide.example", mail("t.5", "a@x.example", "x"), "too many DNS lookups"),
        ("u@mute.example", slow.into_bytes(), "the DMARC policy of x.example"),
    ] {
        let reply = house.submit(sender, &message);
        assert!(reply.starts_with("550 5.7.26") && reply.contains(words), "{words}: {reply}");
    }
    assert_eq!(house.count("dmarc-refused"), 7);
    assert_eq!(house.count("check-bounded"), 3);
    // Several domains of which none asks for it, and a DNS that fails for the only one that might.
    for (mark, from) in [("t.7", "a@evil.example, b@y.example"), ("t.8", "a@mute.example")] {
        let found = house.results("u@evil.example", &format!("{mark}@"), &authors(mark, from));
        assert!(found.contains("dmarc="), "{found}");
    }
}

#[test]
fn a_chain_of_dkimpy_is_verified_and_ours_goes_on_from_it() {
    let Some(python) = python().filter(|_| have(&["openssl"])) else { return };
    let keys = Keys::make();
    let dns = Dns::start();
    let [rsa, _] = keys.records();
    for domain in ["one.example", "two.example", "ship.example", "x.example"] {
        dns.txt(&format!("r1._domainkey.{domain}"), &rsa);
    }
    let zone: String = ["one", "two", "ship", "x"].map(|d| format!("r1._domainkey.{d}.example {rsa}\n")).concat();
    let zone = keys.write("zone", &zone);
    let house = House::checking(&dns, "seal = \"rsa\"", &keys.tables());
    let key = keys.path("rsa.pem");
    let chain = |mark: &str, hops: &[&str]| {
        let mut message = keys.sign(python, "x.example", &mail(mark, "a@x.example", "x"));
        for (n, hop) in hops.iter().enumerate() {
            let arc = if n == 0 { "none" } else { "pass" };
            let noted = format!("Authentication-Results: mx.{hop}; dkim=pass header.d=x.example; arc={arc}\r\n");
            let noted = [noted.as_bytes(), &message].concat();
            message = dkimpy(python, &["arc-sign", &key, "r1", hop, &format!("mx.{hop}")], &noted);
        }
        message
    };
    for (mark, hops, arc, sets) in [
        ("arc.0", &[][..], "arc=none", "1"),
        ("arc.1", &["one.example"], "arc=pass", "2"),
        ("arc.2", &["one.example", "two.example"], "arc=pass", "3"),
    ] {
        let message = chain(mark, hops);
        let found = house.results("u@x.example", &format!("{mark}@"), &message);
        assert!(found.contains(arc), "{mark}: {found}");
        let stored = house.stored(&format!("{mark}@"));
        let said = text(&dkimpy(python, &["arc-verify", &zone], &stored));
        assert_eq!(said.trim(), format!("pass {sets}"), "{mark}: {}", text(&stored));
        assert!(contains(&stored, "ARC-Authentication-Results: i="), "{mark}");
        assert!(stored.ends_with(&message), "{mark}");
    }
    // A broken chain is told, and does not go on.
    let broken = text(&chain("arc.3", &["one.example", "two.example"])).replace("a  folded", "a  forged").into_bytes();
    let found = house.results("u@x.example", "arc.3@", &broken);
    assert!(found.contains("arc=fail"), "{found}");
    assert_eq!(text(&house.stored("arc.3@")).matches("ARC-Seal:").count(), 2);
    let orphan = [
        b"ARC-Seal: i=1; cv=none; a=rsa-sha256; d=x.example; s=r1; b=AAAA\r\n",
        &mail("arc.4", "a@x.example", "x")[..],
    ]
    .concat();
    let found = house.results("u@x.example", "arc.4@", &orphan);
    assert!(found.contains("arc=fail (broken chain)"), "{found}");
    assert_eq!(house.count("chain-sealed"), 3);
}

#[test]
fn results_that_claim_to_be_ours_are_taken_out_and_nothing_else() {
    let dns = Dns::start();
    let house = House::checking(&dns, "", "[checks]\nauthserv_id = \"ship.example\"\n");
    let other = "Authentication-Results: mx.elsewhere.example; spf=pass\r\n";
    let rest = text(&mail("forged.1", "a@x.example", "  x\t\r\n.\r\n"));
    let forged = format!(
        "{other}Authentication-Results: (ha) Ship.Example 1; spf=pass\r\n\tsmtp.mailfrom=a@x.example\r\n{other}\
         authentication-results: \"ship.example\"; dkim=pass\r\n{rest}"
    );
    let found = house.results("u@x.example", "forged.1@", forged.as_bytes());
    assert_eq!(
        found,
        "ship.example; spf=none smtp.mailfrom=u@x.example; dkim=none; dmarc=none header.from=x.example; arc=none"
    );
    let stored = text(&house.stored("forged.1@"));
    assert!(stored.ends_with(&format!("{other}{other}{rest}")), "{stored}");
    let kept = stored.to_lowercase().lines().filter(|line| line.starts_with("authentication-results")).count();
    assert_eq!(kept, 3, "{stored}");
    assert_eq!(house.count("results-removed"), 1);
}

#[test]
fn without_dns_mail_is_taken_in_time() {
    // A server that never answers, one that is not there, and one that is but has nothing.
    let mute = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let closed = process::free_port();
    let cases = [mute.local_addr().expect("bound").to_string(), format!("127.0.0.1:{closed}")];
    for address in cases {
        let checks = "[checks]\nwithin = \"2s\"\nat_once = 2\n";
        let more = format!("[dns]\nservers = [\"{address}\"]\ntimeout = \"10s\"\nattempts = 3\n\n{checks}");
        let house = House::start("check = [\"spf\", \"dkim\", \"dmarc\", \"arc\"]\ndmarc_reject = true", &more);
        let signature = "DKIM-Signature: v=1; a=rsa-sha256; d=x.example; s=s; h=from; bh=frcCV1k9oG9oKj3dpUqdJg1PxRT2RSN/XKdLCPjaYaY=; b=AAAA\r\n";
        // More at once than there are places.
        let started = now();
        std::thread::scope(|scope| {
            for n in 0..6 {
                let house = &house;
                scope.spawn(move || {
                    let mark = format!("mute.{n}");
                    let text = text(&mail(&mark, "a@x.example", ""));
                    let found =
                        house.results("u@x.example", &format!("{mark}@"), format!("{signature}{text}").as_bytes());
                    assert!(found.contains("spf=temperror") && found.contains("dmarc=temperror"), "{found}");
                });
            }
        });
        let took = started.elapsed();
        assert!(took < Duration::from_secs(8), "{address}: {took:?}");
        assert_eq!((house.count("checks-incomplete"), house.count("mail-checked")), (6, 6), "{address}");
        assert_eq!(house.count("message-accepted"), 6);
    }
}

#[test]
fn a_dns_that_is_dead_is_asked_by_one_message_and_not_by_the_next() {
    let dns = Dns::start();
    dns.add("mute.example", Record::Silent);
    let house = House::checking(&dns, "", "[checks]\nwithin = \"3s\"\npause = \"3s\"\n");
    let check = |mark: &str, sender: &str| house.results(sender, &format!("{mark}@"), &mail(mark, "a@x.example", "x"));
    // A stranger's silent server is no silent DNS.
    assert!(check("dead.0", "u@mute.example").contains("spf=temperror"));
    wait_for("the root was asked for", Duration::from_secs(10), || {
        dns.asked().iter().any(String::is_empty).then_some(())
    });
    assert!(check("dead.1", "u@x.example").contains("spf=none"));
    assert_eq!(house.count("checks-skipped"), 0);

    dns.mute(true);
    assert!(check("dead.2", "u@x.example").contains("spf=temperror"));
    let mut tries = 3..20;
    wait_for("it is remembered", Duration::from_secs(30), || {
        let before = (dns.asked().len(), house.count("checks-skipped"));
        let mark = format!("dead.{}", tries.next().expect("soon"));
        assert!(check(&mark, "u@x.example").contains("dmarc=temperror"));
        let after = (dns.asked().len(), house.count("checks-skipped"));
        (after == (before.0, before.1 + 1)).then_some(())
    });
    dns.mute(false);
    let mut tries = 30..90;
    wait_for("it is asked again", Duration::from_secs(30), || {
        let mark = format!("dead.{}", tries.next().expect("soon"));
        check(&mark, "u@x.example").contains("spf=none").then_some(())
    });
}

#[test]
fn nobody_is_asked_where_no_listener_checks() {
    let dns = Dns::start();
    let house = House::start("", &format!("[dns]\nservers = [\"{}\"]\n", dns.address));
    let ours = "Authentication-Results: mx.ship.example; spf=pass\r\n";
    let message = format!("{ours}{}", text(&mail("quiet.1", "a@x.example", "x")));
    assert!(house.submit("u@x.example", message.as_bytes()).starts_with("250"));
    // Who says nothing about mail has no words to guard.
    assert!(house.stored("quiet.1@").ends_with(message.as_bytes()));
    assert_eq!(dns.asked(), Vec::<String>::new());
}

#[test]
fn questions_of_one_message_are_bounded() {
    let dns = Dns::start();
    wide(&dns);
    let house = House::checking(&dns, "", "[checks]\nlookups = 20\n");
    let found = house.results("u@wide.example", "wide.1@", &mail("wide.1", "a@x.example", "x"));
    assert!(found.contains("spf=permerror (too many DNS lookups)"), "{found}");
    assert_eq!(house.count("check-bounded"), 1);
    assert!(dns.asked().len() <= 60, "{}", dns.asked().len());
}
