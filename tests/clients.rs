//! Mail clients at a submission listener, as their owners set them up: swaks, Python's smtplib and mutt, on port 587 by STARTTLS and on
//! 465 by TLS from the first byte, with the certificate checked and a login. What arrives is what they sent.

#[path = "common/lab.rs"]
mod lab;
#[path = "common/process.rs"]
mod process;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use lab::{assert_unharmed, contains, fields, files, split};
use process::{Running, ask, have, root, run, wait_for};

const PASSWORD: &str = "s3cret-One";

/// Mail with what transports like to spoil.
fn odd(mark: &str) -> String {
    format!(
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\nX-Folded: one\r\n\ttwo\r\n   three\r\n\
         X-Empty:\r\nsUbJeCt: odd case  two spaces\r\nFrom: op1@ship.example\r\nTo: watch@ship.example\r\n\
         Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{mark}@ship.example>\r\n\r\n.\r\n..two\r\n. three\r\n\
         trailing blanks  \t \r\nMalmö Ålesund Ærø\r\nFrom the log: 0800\r\n\r\n-- \r\nend\r\n\r\n\r\n"
    )
}

/// A node with both ports, a certificate for `localhost` and one user.
struct House {
    node: Running,
    directory: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: String| {
            let file = directory.path().join(name);
            std::fs::write(&file, text).expect("written");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("ours");
        };
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Authority of this test");
        write("ca.pem", params.self_signed(&key).expect("signed").pem());
        let issuer = rcgen::Issuer::new(params, key);
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
        write("cert.pem", params.signed_by(&key, &issuer).expect("signed").pem());
        write("key.pem", key.serialize_pem());
        let verifier = aldis::config::scram_verifier(PASSWORD, b"sixteen octets..").expect("made");
        let listener = |name: &str, more: &str| {
            format!(
                "[[listener]]\nname = \"{name}\"\nkind = \"submission\"\naddress = \"127.0.0.1:0\"\n\
                 tls = {{ certificate = \"cert.pem\", key = \"key.pem\"{more} }}\n\n"
            )
        };
        write(
            "profile.toml",
            format!(
                "[node]\nname = \"ship\"\nhostname = \"mail.ship.example\"\npostmaster = \"postmaster@ship.example\"\nclock = \"trusted\"\n\n\
                 {}{}[[user]]\nname = \"op1\"\npassword_hash = \"{verifier}\"\n\n\
                 [[route]]\nmatch = \"ship.example\"\nto = \"local\"\n",
                listener("submission", ""),
                listener("submissions", ", implicit = true"),
            ),
        );
        let node = Running::start(&directory.path().join("profile.toml"), directory.path(), &[]);
        Self { node, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("a file");
        self.text(name)
    }

    /// `localhost` and the port of a listener.
    fn server(&self, listener: &str) -> String {
        let (_, address) = self.node.listeners.iter().find(|(name, _)| name == listener).expect("it is there");
        format!("localhost:{}", address.port())
    }

    /// The mail with this mark in the mailbox, which came by a login inside TLS.
    fn arrival(&self, mark: &str) -> Vec<u8> {
        let mailbox = self.path("state/maildir/watch/new");
        let find = || files(&mailbox).into_iter().find(|mail| contains(mail, mark));
        let mail = wait_for(mark, Duration::from_secs(30), find);
        let head = fields(split(&mail).0);
        let received = head.iter().find(|f| f.starts_with("Received:")).expect("a Received field");
        assert!(received.contains("with ESMTPSA id"), "{received}");
        mail
    }

    /// Nothing came that was not sent, and nobody was let in who should not be.
    fn stop(self, messages: usize) {
        let (code, status) = ask(&self.node.socket, &["status"]);
        assert_eq!((code, status["events"]["message-accepted"].as_u64()), (0, Some(messages as u64)), "{status}");
        self.node.stop();
    }
}

fn told(output: &Output) -> String {
    [&*output.stdout, &output.stderr].map(String::from_utf8_lossy).concat()
}

#[test]
fn smtplib_submits_over_tls_with_a_login() {
    if !have(&["python3"]) {
        return;
    }
    let house = House::new();
    let submit = |listener: &str, password: &str, mark: &str| {
        let script = root().join("tests/peers/submit.py").display().to_string();
        let (server, file) = (house.server(listener), house.write("mail.eml", &odd(mark)));
        let login = format!("LOGIN=op1:{password}:{}", house.text("ca.pem"));
        let words = [&*script, &server, "op1@ship.example", "watch@ship.example", &file, "BODY=8BITMIME", &login];
        let tls = if listener == "submissions" { &["TLS"][..] } else { &[] };
        run(60, "python3", &[&words, tls].concat())
    };
    for listener in ["submission", "submissions"] {
        let output = submit(listener, PASSWORD, listener);
        assert!(output.status.success(), "{listener}: {}", told(&output));
        assert_unharmed(odd(listener).as_bytes(), &house.arrival(&format!("<{listener}@")), false);
        let output = submit(listener, "guessed", "wrong");
        assert!(told(&output).contains("535, b'5.7.8"), "{listener}: {}", told(&output));
    }
    house.stop(2);
}

/// Whether swaks can speak TLS.
fn swaks_has_tls() -> bool {
    let there = run(10, "perl", &["-e", "require Net::SSLeay"]).status.success();
    if !there {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "libnet-ssleay-perl is not installed");
        println!("skip: libnet-ssleay-perl is not installed");
    }
    there
}

#[test]
fn swaks_submits_over_tls_with_a_login() {
    if !have(&["swaks"]) || !swaks_has_tls() {
        return;
    }
    let house = House::new();
    let submit = |listener: &str, password: &str, mark: &str| {
        // swaks ends its data with a line end of its own.
        let mail = odd(mark).replace("\r\n", "\n");
        let data = format!("@{}", house.write("mail.eml", mail.strip_suffix('\n').expect("a line end")));
        let (server, authorities) = (house.server(listener), house.text("ca.pem"));
        let words = ["--server", &server, "--from", "op1@ship.example", "--to", "watch@ship.example", "--data", &data];
        let tls = if listener == "submissions" { "--tls-on-connect" } else { "--tls" };
        let login =
            [tls, "--tls-verify", "--tls-ca-path", &authorities, "--auth-user", "op1", "--auth-password", password];
        run(60, "swaks", &[&words[..], &login].concat())
    };
    for listener in ["submission", "submissions"] {
        let output = submit(listener, PASSWORD, listener);
        assert!(output.status.success(), "{listener}: {}", told(&output));
        assert_unharmed(odd(listener).as_bytes(), &house.arrival(&format!("<{listener}@")), false);
        let output = submit(listener, "guessed", "wrong");
        // Its own status for a login that failed.
        assert_eq!(output.status.code(), Some(28), "{listener}: {}", told(&output));
    }
    house.stop(2);
}

#[test]
fn mutt_submits_over_tls_with_a_login() {
    if !have(&["mutt"]) {
        return;
    }
    let house = House::new();
    let attached: Vec<u8> = (0..5000u32).map(|i| (i * i % 251) as u8).collect();
    std::fs::write(house.path("chart.bin"), &attached).expect("a file");
    house.write("body", "Vær: kuling fra nordøst.\n.\n..two\ntrailing blanks  \t \nFrom the log: 0800\n\n\n");
    let submit = |listener: &str, password: &str| {
        let (scheme, starttls) = if listener == "submissions" { ("smtps", "no") } else { ("smtp", "yes") };
        // Of the mechanisms offered it takes the best, SCRAM-SHA-256-PLUS, and then cannot: it never learns what binds to TLS.
        let settings = format!(
            "set smtp_authenticators = \"scram-sha-256\"\nset smtp_url = \"{scheme}://op1@{}\"\nset smtp_pass = \"{password}\"\nset ssl_starttls = {starttls}\nset ssl_force_tls = yes\n\
             set ssl_ca_certificates_file = \"{}\"\nset from = \"Op 1 <op1@ship.example>\"\nset hostname = \"ship.example\"\n\
             set charset = \"utf-8\"\nset send_charset = \"utf-8\"\nset use_8bitmime = yes\nset allow_8bit = yes\n\
             set copy = yes\nset mbox_type = Maildir\nset record = \"{}\"\n",
            house.server(listener),
            house.text("ca.pem"),
            house.text(listener),
        );
        let rc = house.write("rc", &settings);
        let words = format!(
            "mutt -n -F '{rc}' -s 'Vær i Tromsø' -a '{}' -- watch@ship.example < '{}'",
            house.text("chart.bin"),
            house.text("body")
        );
        run(60, "env", &["LC_ALL=C.UTF-8", &format!("HOME={}", house.text("")), "sh", "-c", &words])
    };
    for listener in ["submission", "submissions"] {
        let output = submit(listener, PASSWORD);
        assert!(output.status.success(), "{listener}: {}", told(&output));
        // What it keeps of what it has sent.
        let sent =
            [files(&house.path(&format!("{listener}/new"))), files(&house.path(&format!("{listener}/cur")))].concat();
        assert_eq!(sent.len(), 1, "{listener}");
        let text = String::from_utf8_lossy(&sent[0]).into_owned();
        assert!(text.contains("\n..two\n") && text.contains("8bit"), "{text}");
        let fields = fields(split(&sent[0]).0);
        let mark = fields.iter().find_map(|f| f.strip_prefix("Message-ID: ")).expect("a Message-ID").to_owned();
        // Its copy has a date of its own, a second later.
        let mail = house.arrival(&mark);
        let date = |text: &str| text.lines().find(|l| l.starts_with("Date: ")).expect("a date").trim_end().to_owned();
        let kept = text.replacen(&date(&text), &date(&String::from_utf8_lossy(&mail)), 1);
        assert_unharmed(kept.as_bytes(), &mail, true);
        let output = submit(listener, "guessed");
        assert!(!output.status.success(), "{listener}: {}", told(&output));
    }
    house.stop(2);
}
