//! A reduced message between two real nodes: what an operator is told of it, and what he can still have.

#[path = "common/lab.rs"]
mod lab;
#[path = "common/process.rs"]
mod process;

use lab::{KEY, Lab, contains};
use process::send;

const RULE: &str = "[[reduce]]\nname = \"hf\"\nbearers = [\"hf1\"]\nhold_attachments = \"1KiB\"\ndrop_html = true\n";

/// Status and words of a command to the ship.
fn aldis(lab: &Lab, words: &[&str]) -> (i32, String) {
    let socket = lab.socket("ship");
    let (status, out, err) = process::aldis(&[words, &["--socket", &socket.to_string_lossy()]].concat());
    (status, out + &err)
}

fn submit(lab: &Lab, message: &[u8]) {
    let id = send(lab.address("ship"), "<a@ship.example>", &[("b@shore.example", "")], message);
    assert!(!id.is_empty());
}

#[test]
fn an_operator_sees_what_was_left_out_writes_the_original_and_sends_the_part() {
    let mut lab = Lab::new();
    lab.link("hf1", &["shore", "ship"], |_| {});
    for name in ["ship", "shore"] {
        let profile = lab.pair_profile(name, KEY, if name == "ship" { RULE } else { "" });
        lab.start(name, &profile);
    }
    let file = "Y2hhcnQ=\r\n".repeat(300);
    let text = format!(
        "From: <a@ship.example>\r\nTo: <b@shore.example>\r\nSubject: chart\r\nMessage-ID: <chart@ship.example>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n\r\nThe chart.\r\n--m\r\nContent-Type: image/png; name=chart.png\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{file}--m--\r\n"
    );
    submit(&lab, text.as_bytes());
    let copy = lab.arrival("shore", "b", "Held back at mail.ship.example");
    assert!(contains(&copy, "The chart.") && !contains(&copy, "Y2hhcnQ="));
    lab.settle();

    let track = lab.request("ship", r#"{"command":"track","key":"<chart@ship.example>"}"#);
    let id = track["document"]["id"].as_str().expect("an id").to_owned();
    let lines = track["document"]["events"].as_array().expect("lines");
    let line = lines.iter().find(|line| line["event"] == "reduced").expect("a line");
    assert!(line["detail"].as_str().expect("words").contains("chart.png") && line["recipient"] == "b@shore.example");
    let (status, shown) = aldis(&lab, &["queue", "show", &id]);
    assert!(status == 0 && shown.contains("reduced      b@shore.example"), "{shown}");

    let path = lab.path("chart.eml");
    let written = aldis(&lab, &["queue", "original", &id, &path.to_string_lossy()]);
    assert_eq!(written.0, 0, "{}", written.1);
    let original = std::fs::read(&path).expect("written");
    assert!(original.ends_with(text.as_bytes()) && contains(&original, "Received: "));
    let again = aldis(&lab, &["queue", "original", &id, &path.to_string_lossy()]);
    assert_eq!(again.0, 1, "an existing file is left alone: {}", again.1);

    let (status, said) = aldis(&lab, &["queue", "fetch", &id, "7"]);
    assert!(status == 1 && said.contains("its parts are 1 to 2"), "{said}");
    let (status, said) = aldis(&lab, &["queue", "fetch", &id, "2"]);
    assert!(status == 0 && said.starts_with("fetch: "), "{said}");
    let part = lab.arrival("shore", "b", "[part 2 of 2] chart");
    assert!(contains(&part, &file) && contains(&part, "name=chart.png"));
    lab.settle();
    assert_eq!((lab.count("ship", "message-reduced"), lab.count("ship", "part-fetched")), (1, 1));
    // Mail that went whole is not kept.
    submit(&lab, b"Message-ID: <small@ship.example>\r\n\r\nshort\r\n");
    lab.arrival("shore", "b", "<small@ship.example>");
    lab.settle();
    let track = lab.request("ship", r#"{"command":"track","key":"<small@ship.example>"}"#);
    let small = track["document"]["id"].as_str().expect("an id").to_owned();
    let (status, said) = aldis(&lab, &["queue", "original", &small, &lab.path("small.eml").to_string_lossy()]);
    assert!(status == 1 && said.contains("went whole"), "{said}");
}
