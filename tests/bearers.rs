//! Routes that name bearers, and mail that asks for protection, between whole nodes with two radios.

#[path = "common/lab.rs"]
mod lab;
#[path = "common/process.rs"]
mod process;

use std::time::Duration;

use lab::{End, KEY, Lab};
use process::{ask, have, root, run, send, wait_for};

/// Ship and shore, joined by `hf1` and by `hf2`, which alone is protected.
fn two_radios(at_ship: &str) -> Lab {
    let mut lab = Lab::new();
    for link in ["hf1", "hf2"] {
        lab.link(link, &["shore", "ship"], |_| {});
    }
    for (name, more) in [("ship", at_ship), ("shore", "")] {
        let profile = profile(&lab, name, "hf2", more);
        lab.start(name, &profile);
    }
    lab
}

/// The profile of one of them; one of its radios is protected.
fn profile(lab: &Lab, name: &str, protected: &str, more: &str) -> String {
    let (peer, station) = if name == "ship" { ("shore", 1) } else { ("ship", 0) };
    let (own, far) = (format!("{name}.example"), format!("{peer}.example"));
    let end = End { link: "hf1", peer, station, key: KEY };
    let first = lab.profile(name, &[(&own, "local"), (&far, &format!("peer:{peer}"))], &[end], "");
    let (head, bearer) = first.split_once("[[bearer]]").expect("a bearer");
    let radio = |link: &str| {
        let own = format!("net = \"{link}\"\nprotected = {}\nemcon", link == protected);
        format!("[[bearer]]{}", bearer.replace("hf1", link).replace("emcon", &own))
    };
    format!("{head}{}{}{more}", radio("hf1"), radio("hf2"))
}

/// The messages that wait at ship for an address.
fn waiting(lab: &Lab, to: &str) -> Vec<String> {
    let (_, list) = ask(&lab.socket("ship"), &["queue", "list"]);
    let all = list["messages"].as_array().cloned().unwrap_or_default();
    let to = all.iter().filter(|m| m["recipients"].as_array().is_some_and(|r| r.iter().any(|r| r["address"] == to)));
    to.filter_map(|m| m["id"].as_str().map(str::to_owned)).collect()
}

/// The bearers that a message's history names.
fn carried_by(lab: &Lab, id: &str) -> Vec<String> {
    let (_, track) = ask(&lab.socket("ship"), &["track", id]);
    let events = track["events"].as_array().cloned().unwrap_or_default();
    let mut bearers: Vec<String> = events.iter().filter_map(|e| e["bearer"].as_str().map(str::to_owned)).collect();
    bearers.sort();
    bearers.dedup();
    bearers
}

fn order(lab: &Lab, bearer: &str, state: &str) {
    let (code, told) = ask(&lab.socket("ship"), &["emcon", "set", bearer, state, "--reason", "drill"]);
    assert_eq!(code, 0, "{told}");
}

/// A listener where REQUIRETLS can be asked for.
fn tls_listener() -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    let files = tempfile::tempdir().expect("a directory").keep();
    let write = |name: &str, text: String| {
        std::fs::write(files.join(name), text).expect("a file");
        files.join(name).display().to_string()
    };
    let (certificate, key) = (write("cert.pem", certificate), write("key.pem", key.serialize_pem()));
    run(10, "chmod", &["600", &key]);
    format!(
        "[[listener]]\nname = \"tls\"\nkind = \"relay\"\naddress = \"127.0.0.1:0\"\ntrust = [\"127.0.0.0/8\"]\n\
         tls = {{ certificate = \"{certificate}\", key = \"{key}\" }}\n"
    )
}

/// Hands in mail that must be protected; what is refused.
fn submit_protected(lab: &Lab, to: &str, mark: &str) -> String {
    let (script, file) = (root().join("tests/peers/submit.py").display().to_string(), lab.path("mail.eml"));
    std::fs::write(&file, process::message(mark, "Text.")).expect("a file");
    let (file, address) = (file.display().to_string(), lab.listener("ship", "tls").to_string());
    let output = run(60, "python3", &[&*script, &address, "ops@ship.example", to, &file, "REQUIRETLS"]);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The report that mail for an address could not be protected.
fn failed(lab: &Lab, user: &str, to: &str) -> String {
    wait_for(to, Duration::from_secs(60), || {
        let of = |mail: &Vec<u8>| {
            let text = String::from_utf8_lossy(mail).into_owned();
            let line = format!("Final-Recipient: rfc822; {to}\r\nAction: failed\r\nStatus: 5.7.30");
            text.contains(&line).then_some(text)
        };
        lab.mailbox("ship", user).iter().find_map(of)
    })
}

#[test]
fn a_route_that_names_a_bearer_waits_for_it_and_goes_over_no_other() {
    let route = "[[route]]\nmatch = \"captain@shore.example\"\nto = \"peer:shore\"\nbearers = [\"hf2\"]\n";
    let lab = two_radios(route);
    order(&lab, "hf2", "silent");
    let to = [("watch@shore.example", ""), ("captain@shore.example", "")];
    send(lab.address("ship"), "<ops@ship.example>", &to, &process::message("both", "Text."));
    // Its copies need not go the same way, and each is a message of its own.
    lab.arrival("shore", "watch", "both");
    let [id] = &waiting(&lab, "captain@shore.example")[..] else { panic!("it waits") };
    assert!(lab.mailbox("shore", "captain").is_empty());
    let (code, why) = ask(&lab.socket("ship"), &["track", id]);
    assert!(code == 0 && !carried_by(&lab, id).contains(&"hf1".to_owned()), "{why}");
    // Not even urgent mail takes the other way.
    let urgent = [("captain@shore.example", "")];
    send(lab.address("ship"), "<ops@ship.example> MT-PRIORITY=6", &urgent, &process::message("flash", "Text."));
    send(
        lab.address("ship"),
        "<ops@ship.example>",
        &[("watch@shore.example", "")],
        &process::message("after", "Text."),
    );
    lab.arrival("shore", "watch", "after");
    assert!(lab.mailbox("shore", "captain").is_empty());

    let waited = waiting(&lab, "captain@shore.example");
    assert_eq!(waited.len(), 2, "{waited:?}");
    order(&lab, "hf2", "open");
    lab.arrival("shore", "captain", "both");
    lab.arrival("shore", "captain", "flash");
    lab.settle();
    for id in &waited {
        assert_eq!(carried_by(&lab, id), ["hf2"], "{id}");
    }
}

#[test]
fn mail_that_waits_for_a_bearer_that_protects_no_more_is_returned_for_that_reason() {
    if !have(&["python3"]) {
        return;
    }
    let more = "[[route]]\nmatch = \"captain@shore.example\"\nto = \"peer:shore\"\nbearers = [\"hf2\"]\n".to_owned()
        + &tls_listener();
    let mut lab = two_radios(&more);
    order(&lab, "hf2", "silent");
    assert_eq!(submit_protected(&lab, "captain@shore.example", "waits"), "");
    assert_eq!(waiting(&lab, "captain@shore.example").len(), 1);
    lab.stop("ship");
    // Now the other radio is the protected one, which the route does not name.
    let profile = profile(&lab, "ship", "hf1", &more);
    lab.start("ship", &profile);
    order(&lab, "hf2", "open");
    failed(&lab, "ops", "captain@shore.example");
    lab.settle();
    assert!(lab.mailbox("shore", "captain").is_empty());
}

#[test]
fn requiretls_holds_for_each_copy_that_an_alias_makes() {
    if !have(&["python3"]) {
        return;
    }
    let more = r#"
[[route]]
match = "captain@shore.example"
to = "peer:shore"
bearers = ["hf1"]

[[route]]
match = "clerk@lan.example"
to = "smtp:127.0.0.1:9"

[[alias]]
address = "crew@ship.example"
to = ["jack@ship.example", "watch@shore.example", "captain@shore.example", "clerk@lan.example"]

[[alias]]
address = "bare@ship.example"
to = ["captain@shore.example"]

[[alias]]
address = "news@ship.example"
to = ["desk@shore.example", "captain@shore.example"]
owner = "owner@ship.example"
"#;
    let lab = two_radios(&format!("{more}\n{}", tls_listener()));
    let submit = |to: &str, mark: &str| submit_protected(&lab, to, mark);
    // Where the only way protects nothing, RCPT says so, behind an alias too.
    assert!(submit("bare@ship.example", "bare").contains("550 5.7.30"));
    assert_eq!(submit("crew@ship.example", "crew"), "");
    assert_eq!(submit("news@ship.example", "news"), "");
    lab.arrival("ship", "jack", "crew");
    lab.arrival("shore", "watch", "crew");
    lab.arrival("shore", "desk", "news");
    // Each copy that could not be protected is reported to whom reports go, and went nowhere.
    for (user, mark) in
        [("ops", "captain@shore.example"), ("ops", "clerk@lan.example"), ("owner", "captain@shore.example")]
    {
        let report = failed(&lab, user, mark);
        assert!(!report.contains("Text."), "what must be protected is in no report: {report}");
    }
    lab.settle();
    assert!(lab.mailbox("shore", "captain").is_empty());
}
