//! Forward without download: mail that lies at a real Dovecot is submitted by its URL (RFC 4468, 4467).

#[path = "common/lab.rs"]
mod lab;
#[path = "common/process.rs"]
mod process;
#[path = "common/server.rs"]
mod server;

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use aldis::config::scram_verifier;
use lab::{Lab, assert_unharmed, contains, split};
use process::{free_port, have, root, run, wait_for};
use server::{PeerServer, may_start, open_to_all};

const MAIL: &str = "From: jack@ship.example\r\nTo: watch@shore.example\r\nSubject: weather\r\nMessage-ID: <burl.1@ship.example>\r\n\
    Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Transfer-Encoding: 8bit\r\n\r\n.\r\n..\r\n{3}\r\nKuling fra nordøst.\r\n";

/// A Dovecot with certificates of the test's.
fn dovecot(lab: &Lab, port: u16, door: u16) -> PeerServer {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    std::fs::write(lab.path("cert.pem"), certificate.pem()).expect("a file");
    std::fs::write(lab.path("key.pem"), key.serialize_pem()).expect("a file");
    let file = |name: &str| lab.path(name).display().to_string();
    let settings = [format!("CERT={}", file("cert.pem")), format!("KEY={}", file("key.pem")), format!("DOOR={door}")];
    let server = PeerServer::start("dovecot.sh", &lab.path("dovecot"), &settings, &[&port.to_string()]);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_for("Dovecot", Duration::from_secs(30), || TcpStream::connect(address).ok());
    server
}

#[test]
fn mail_at_dovecot_is_submitted_by_its_url() {
    if !have(&["dovecot", "python3"]) || !may_start("Dovecot") {
        return;
    }
    let mut lab = Lab::new();
    open_to_all(&lab.path(""));
    // The node goes to Dovecot through a door that counts.
    let (port, door) = (free_port(), free_port());
    let _dovecot = dovecot(&lab, port, door);
    let secret = lab.path("submit.password");
    std::fs::write(&secret, "secret\n").expect("a file");
    run(10, "chmod", &["600", &secret.display().to_string()]);
    let verifier = scram_verifier("secret", b"salt of this test").expect("a verifier");
    let more = format!(
        "[[listener]]\nname = \"submission\"\nkind = \"submission\"\naddress = \"127.0.0.1:0\"\n\
         burl = {{ servers = [\"localhost:{door}\"], password_file = \"submit.password\", ca = \"cert.pem\" }}\n\n\
         [[user]]\nname = \"jack\"\npassword_hash = \"{verifier}\"\n"
    );
    let profile = lab.profile("ship", &[("ship.example", "local")], &[], &more);
    lab.start("ship", &profile);

    let file = lab.path("mail.eml");
    std::fs::write(&file, MAIL).expect("a file");
    let script = root().join("tests/peers/burl.py").display().to_string();
    let submission = lab.listener("ship", "submission").port().to_string();
    let words = [&*script, &port.to_string(), &door.to_string(), &submission, &file.display().to_string()];
    let output = run(120, "python3", &words);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    let url = format!("after AUTH: imap imap://localhost:{door}");
    for want in [
        "before AUTH: BURL",
        &url,
        "whole: 250 2.5.0 queued",
        "part and tail: 250 2.0.0 queued",
        "for another: 554 5.7.0",
        "changed: 554 5.6.6",
        "elsewhere: 554 5.7.8",
        "without URLAUTH: 554 5.5.4",
        "revoked: 554 5.6.6",
        "made again: 250 2.5.0 queued",
    ] {
        assert!(told.lines().any(|line| line.starts_with(want)), "{want}?\n{told}");
    }
    // What is refused for its words alone is refused without a connection to anybody.
    for (name, times) in
        [("whole", 1), ("for another", 0), ("changed", 1), ("elsewhere", 0), ("without URLAUTH", 0), ("revoked", 1)]
    {
        let line = format!("{name} came {times} times");
        assert!(told.lines().any(|l| l == line), "{line}?\n{told}");
    }
    lab.settle();
    let mailbox = lab.mailbox("ship", "watch");
    assert_eq!(mailbox.len(), 3);
    let tail = "Sent from the ship.\r\n";
    let (with_tail, whole): (Vec<_>, Vec<_>) = mailbox.iter().partition(|mail| contains(split(mail).1, tail));
    assert_unharmed(format!("{MAIL}{tail}").as_bytes(), with_tail[0], false);
    assert_eq!((whole.len(), with_tail.len()), (2, 1));
    whole.iter().for_each(|mail| assert_unharmed(MAIL.as_bytes(), mail, false));
}
