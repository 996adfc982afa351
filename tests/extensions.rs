//! SMTP extensions from end to end between real nodes: binary mail, mail for later, tracking.

#[path = "common/lab.rs"]
mod lab;
#[path = "common/process.rs"]
mod process;

use std::net::SocketAddr;
use std::time::Duration;

use lab::{Lab, contains, split};
use process::{Client, message, wait_for};

/// What no mail of lines may hold, and what would end one.
const PHOTO: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\n.\r\n\r\n.\r\nQUIT\r\n\rMAIL FROM:<x@y>\r\n\xff\n";

fn with_photo(id: &str) -> Vec<u8> {
    let head = format!(
        "From: <ops@ship.example>\r\nTo: <watch@shore.example>\r\nSubject: {id}\r\nMessage-ID: <{id}@ship.example>\r\n\
         MIME-Version: 1.0\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    );
    [head.as_bytes(), PHOTO].concat()
}

/// Hands in binary mail by BDAT, in chunks; the last reply.
fn submit_binary(address: SocketAddr, to: &str, message: &[u8]) -> String {
    let mut client = Client::connect(address);
    assert!(client.say("EHLO client.test").starts_with("250"));
    assert!(client.say("MAIL FROM:<ops@ship.example> BODY=BINARYMIME").starts_with("250"));
    assert!(client.say(&format!("RCPT TO:<{to}>")).starts_with("250"));
    for part in message.chunks(100) {
        client.send(&[format!("BDAT {}\r\n", part.len()).as_bytes(), part].concat());
        assert!(client.reply().starts_with("250"));
    }
    client.say("BDAT 0 LAST")
}

/// The photo in a mailbox, decoded from what a reader of lines gets.
fn photo_in(mail: &[u8]) -> Vec<u8> {
    let (head, body) = split(mail);
    let head = String::from_utf8_lossy(head).into_owned();
    assert!(head.contains("Content-Transfer-Encoding: base64") && !head.contains("binary"), "{head}");
    let packed: Vec<u8> = body.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    data_encoding::BASE64.decode(&packed).expect("base64")
}

#[test]
fn binary_mail_crosses_the_air_as_it_is_and_is_base64_in_the_mailbox() {
    let lab = Lab::pair();
    let reply = submit_binary(lab.address("ship"), "watch@shore.example", &with_photo("photo.1"));
    assert!(reply.starts_with("250"), "{reply}");
    let mail = lab.arrival("shore", "watch", "photo.1@ship.example");
    assert_eq!(photo_in(&mail), PHOTO);
    // What is signed stays as it is: its reader can still check it.
    let signed = [b"DKIM-Signature: v=1; d=ship.example; b=x\r\n".to_vec(), with_photo("photo.2")].concat();
    assert!(submit_binary(lab.address("ship"), "watch@shore.example", &signed).starts_with("250"));
    let mail = lab.arrival("shore", "watch", "photo.2@ship.example");
    assert!(mail.ends_with(&signed), "{}", String::from_utf8_lossy(&mail));
    lab.settle();
    assert_eq!(lab.mailbox("shore", "watch").len(), 2);
}

#[test]
fn binary_mail_goes_to_an_smtp_server_as_it_is() {
    let mut lab = Lab::new();
    let lan = lab.profile("lan", &[("lan.example", "local")], &[], "");
    lab.start("lan", &lan);
    let onward = format!("smtp:{}", lab.address("lan"));
    let ship = lab.profile("ship", &[("ship.example", "local"), ("lan.example", &onward)], &[], "");
    lab.start("ship", &ship);
    let signed = [b"DKIM-Signature: v=1; d=ship.example; b=x\r\n".to_vec(), with_photo("photo.3")].concat();
    assert!(submit_binary(lab.address("ship"), "clerk@lan.example", &signed).starts_with("250"));
    let mail = lab.arrival("lan", "clerk", "photo.3@ship.example");
    assert!(mail.ends_with(&signed), "no node may touch it: {}", String::from_utf8_lossy(&mail));
}

#[test]
fn mail_for_later_waits_over_a_restart_and_its_report_says_that_it_did() {
    let mut lab = Lab::new();
    let limits = "[limits]\nfuture_release_per_user = 1\n";
    let profile = lab.profile("ship", &[("ship.example", "local")], &[], limits);
    let profile = profile.replace("kind = \"relay\"", "kind = \"submission\"");
    lab.start("ship", &profile);
    let submit = |lab: &Lab, from: &str| {
        let mut client = Client::connect(lab.address("ship"));
        assert!(client.say("EHLO client.test").starts_with("250"));
        client.submit(from, &[("watch@ship.example", " NOTIFY=SUCCESS")], &message("later", "Not yet."))
    };
    // Twenty seconds by the test's clock: enough for a restart.
    let reply = submit(&lab, "<ops@ship.example> HOLDFOR=1000");
    assert!(reply.starts_with("250"), "{reply}");
    let id = reply.split_whitespace().last().expect("a queue id");
    let again = submit(&lab, "<ops@ship.example> HOLDFOR=1000");
    assert!(again.starts_with("552 5.2.2"), "one at a time: {again}");
    let far = submit(&lab, "<ops@ship.example> HOLDFOR=604801");
    assert!(far.starts_with("501 5.5.4"), "{far}");
    let held = lab.request("ship", r#"{"command":"queue-list","held":true}"#).to_string();
    assert!(held.contains(id), "{held}");
    lab.stop("ship");
    lab.start("ship", &profile);
    assert!(lab.mailbox("ship", "watch").is_empty(), "it waits");
    let reply = submit(&lab, "<ops@ship.example> HOLDFOR=1000");
    assert!(reply.starts_with("552 5.2.2"), "counted after a restart: {reply}");
    let mail = lab.arrival("ship", "watch", "later@ship.example");
    assert!(contains(&mail, "Not yet."));
    let report = lab.arrival("ship", "ops", "delivery-status");
    assert!(contains(&report, "\r\nArrival-Date: ") && contains(&report, "\r\nFuture-Release-Request: for;1000\r\n"));
    lab.settle();
    assert_eq!(lab.mailbox("ship", "watch").len(), 1);
    // What has gone no longer counts.
    wait_for("room for another", Duration::from_secs(10), || {
        submit(&lab, "<ops@ship.example> HOLDFOR=86400").starts_with("250").then_some(())
    });
}
