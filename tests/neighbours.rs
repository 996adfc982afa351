//! The mail servers that a gateway meets, before and behind two nodes and their link: Postfix, Exim, OpenSMTPD, each on both sides;
//! and mutt. TLS, eight-bit mail, international addresses, reports; every message as it was sent.

#[path = "common/lab.rs"]
mod lab;
#[path = "common/process.rs"]
mod process;
#[path = "common/server.rs"]
mod server;

use std::path::PathBuf;
use std::time::Duration;

use lab::{End, KEY, Lab, assert_unharmed, contains, files, split};
use mail_parser::{MessageParser, MimeHeaders};
use process::{free_port, have, root, run, send, wait_for};
use server::{PeerServer, may_start, open_to_all};

/// Mail with what transports like to spoil.
const ODD: &str = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\
    X-Folded: one\r\n\ttwo\r\n   three\r\nX-Empty:\r\nsUbJeCt: odd case  two spaces\r\n\
    From: ops@near.example\r\nTo: clerk@office.example\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n\
    Message-ID: <odd.2@near.example>\r\n\r\n.\r\n..two\r\n. three\r\ntrailing blanks  \t \r\nMalmö Ålesund Ærø\r\n\
    From the log: 0800\r\n\r\n-- \r\nend\r\n\r\n\r\n";
/// The same for addresses and fields of RFC 6531.
const INTERNATIONAL: &str = "From: Jøran <jøran@near.example>\r\nTo: Åse <åse@office.example>\r\nSubject: vær i Tromsø\r\n\
    Date: Mon, 23 Nov 2026 10:00:00 +0000\r\nMessage-ID: <utf8.2@near.example>\r\nMIME-Version: 1.0\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nKuling fra nordøst.\r\n";

/// A mail server of other make.
#[derive(Clone, Copy, PartialEq)]
enum Make {
    Postfix,
    Exim,
    OpenSmtpd,
}

impl Make {
    fn script(self) -> &'static str {
        match self {
            Self::Postfix => "postfix.sh",
            Self::Exim => "exim.sh",
            Self::OpenSmtpd => "opensmtpd.sh",
        }
    }

    /// Where `tests/run` has unpacked it; Postfix is installed.
    fn unpacked(self) -> PathBuf {
        root().join("target/peers").join(if self == Self::Exim { "exim" } else { "opensmtpd" })
    }

    /// Whether it can run here: they all want root.
    fn here(self) -> bool {
        let there = match self {
            Self::Postfix => have(&["postfix", "postconf", "python3"]),
            Self::Exim | Self::OpenSmtpd => have(&["unshare", "python3"]) && self.unpacked().join("unpacked").exists(),
        };
        if !there {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{} is not unpacked", self.script());
            println!("skip: {} is not unpacked", self.script());
        }
        there && may_start(self.script())
    }
}

/// One that runs until the test ends.
struct Neighbour {
    make: Make,
    directory: PathBuf,
    port: u16,
    _server: PeerServer,
}

impl Neighbour {
    /// `domain` is its own; all other mail goes to `next`.
    fn start(lab: &Lab, make: Make, name: &str, port: u16, domain: &str, next: u16) -> Self {
        let (directory, own): (_, &[&str]) =
            (lab.path(name), if make == Make::Postfix { &["both", domain] } else { &[domain] });
        let file = |name: &str| lab.path(name).display().to_string();
        let unpacked = make.unpacked().display().to_string();
        let settings =
            [format!("ROOT={unpacked}"), format!("CERT={}", file("cert.pem")), format!("KEY={}", file("key.pem"))];
        let (at, next) = (port.to_string(), next.to_string());
        let words: Vec<&str> = [&*at].iter().chain(own).chain(&[&*next]).copied().collect();
        let server = PeerServer::start(make.script(), &directory, &settings, &words);
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let answers = || std::net::TcpStream::connect(address).ok();
        wait_for("a mail server that answers", Duration::from_secs(30), answers);
        Self { make, directory, port, _server: server }
    }

    fn mailbox(&self) -> Vec<Vec<u8>> {
        files(&self.directory.join(if self.make == Make::Postfix { "mail/box/new" } else { "box/new" }))
    }

    fn arrival(&self, mark: &str) -> Vec<u8> {
        wait_for(mark, Duration::from_secs(90), || self.mailbox().into_iter().find(|mail| contains(mail, mark)))
    }
}

/// near (a server) - ship (a node) ~ shore (a node) - far (a server).
struct House {
    near: Neighbour,
    far: Neighbour,
    lab: Lab,
}

impl House {
    fn new(make: Make) -> Self {
        let mut lab = Lab::new();
        open_to_all(&lab.path(""));
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        std::fs::write(lab.path("cert.pem"), certificate.pem()).expect("a file");
        std::fs::write(lab.path("key.pem"), key.serialize_pem()).expect("a file");
        lab.link("hf1", &["shore", "ship"], |_| {});
        let (near, far) = (free_port(), free_port());
        for (name, peer, station, domain, port) in
            [("ship", "shore", 1, "near.example", near), ("shore", "ship", 0, "office.example", far)]
        {
            let onward = format!("smtp:127.0.0.1:{port}");
            let end = End { link: "hf1", peer, station, key: KEY };
            let own = format!("{name}.example");
            let tls = "[[listener]]\nname = \"tls\"\nkind = \"relay\"\naddress = \"127.0.0.1:0\"\ntrust = [\"127.0.0.0/8\"]\n\
                       tls = { certificate = \"cert.pem\", key = \"key.pem\" }\n";
            // Five minutes are six seconds here.
            let soon = "\n[retry.routine]\nafter = [\"30s\"]\nwarn = \"5min\"\n\n[retry.priority]\nafter = [\"30s\"]\nwarn = \"5min\"\n";
            let more = if name == "shore" { format!("{tls}{soon}") } else { tls.to_owned() };
            let routes = [(&*own, "local"), (domain, &*onward), ("*", &*format!("peer:{peer}"))];
            let profile = lab.profile(name, &routes, &[end], &more);
            lab.start(name, &profile);
        }
        let [ship, shore] = ["ship", "shore"].map(|name| lab.listener(name, "tls").port());
        let near = Neighbour::start(&lab, make, "near", near, "near.example", ship);
        let far = Neighbour::start(&lab, make, "far", far, "office.example", shore);
        Self { near, far, lab }
    }

    /// Hands a message to the server on this side.
    fn submit(&self, from: &str, to: &str, mail: &str, options: &[&str]) {
        let file = self.lab.path("submitted.eml");
        std::fs::write(&file, mail).expect("a file");
        let script = root().join("tests/peers/submit.py").display().to_string();
        let (target, file) = (format!("127.0.0.1:{}", self.near.port), file.display().to_string());
        let words: Vec<&str> =
            [&*script, &target, from, to, &file].into_iter().chain(options.iter().copied()).collect();
        let output = run(60, "python3", &words);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The `Received` field that one host wrote, on one line and in small letters.
fn received_by(mail: &[u8], host: &str) -> String {
    let fields = lab::fields(split(mail).0);
    let lines = fields.iter().map(|field| field.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase());
    let by = format!("by {host} ");
    lines.filter(|l| l.starts_with("received:")).find(|l| l.contains(&by)).expect("a Received field of this host")
}

/// Eight-bit mail that asks for a report goes all the way, inside TLS, and the far server's report comes all the way back.
fn mail_and_its_report_go_through(house: &House, host: &str) {
    let options = ["BODY=8BITMIME", "RET=HDRS", "ENVID=QQ314160", "NOTIFY=SUCCESS,FAILURE"];
    house.submit("ops@near.example", "clerk@office.example", ODD, &options);
    let mail = house.far.arrival("odd.2@near.example");
    assert_unharmed(ODD.as_bytes(), &mail, true);
    let ours = received_by(&mail, "mail.ship.example");
    assert!(ours.contains("with esmtps"), "from the server to the node inside TLS: {ours}");
    if house.far.make != Make::OpenSmtpd {
        let theirs = String::from_utf8_lossy(split(&mail).0).to_lowercase();
        let hop =
            theirs.split("received:").find(|f| f.contains("mail.shore.example") && f.contains(&format!("by {host}")));
        assert!(hop.is_some_and(|f| f.contains("esmtps")), "from the node to the server inside TLS: {theirs}");
    }
    let report = house.near.arrival("delivery-status");
    let text = String::from_utf8_lossy(&report).to_lowercase();
    assert!(text.contains("action: delivered") && text.contains("clerk@office.example"), "{text}");
    // OpenSMTPD's reports have no Original-Envelope-Id.
    assert!(house.far.make == Make::OpenSmtpd || text.contains("original-envelope-id: qq314160"), "{text}");
    house.lab.settle();
    assert_eq!((house.far.mailbox().len(), house.near.mailbox().len()), (1, 1), "one copy, one report");
}

/// Submits a message to somebody of the far server's, and gives the report that comes back about it, in small letters.
fn reported(house: &House, to: &str, notify: &str, action: &str) -> String {
    let id = format!("{action}.2@near.example");
    let options = ["BODY=8BITMIME", "RET=HDRS", "ENVID=QQ314161", notify];
    house.submit("ops@near.example", to, &ODD.replace("odd.2@near.example", &id), &options);
    let report = String::from_utf8_lossy(&house.near.arrival(&format!("Action: {action}"))).to_lowercase();
    let told = |words: &str| assert!(report.contains(words), "{words}: {report}");
    told(&format!("final-recipient: rfc822; {to}"));
    told("original-envelope-id: qq314161");
    told(&format!("message-id: <{id}>"));
    assert!(!report.contains("trailing blanks"), "RET=HDRS: {report}");
    report
}

/// Who is not there is reported failed, in the words of the far server; nobody is told of what nobody asked about.
fn a_failure_is_reported(house: &House) {
    let report = reported(house, "nobody@office.example", "NOTIFY=FAILURE", "failed");
    assert!(report.contains("status: 5.") && report.contains("diagnostic-code: smtp; 550 "), "{report}");
    let silent = ODD.replace("odd.2@near.example", "silent.2@near.example");
    house.submit("ops@near.example", "nobody@office.example", &silent, &["BODY=8BITMIME", "NOTIFY=NEVER"]);
    house.lab.settle();
    assert!(!house.near.mailbox().iter().any(|mail| contains(mail, "silent.2@near.example")));
}

/// Who is put off is reported delayed. The message still waits then.
fn a_delay_is_reported(house: &House) {
    let report = reported(house, "later@office.example", "NOTIFY=DELAY,FAILURE", "delayed");
    for words in ["status: 4.", "diagnostic-code: smtp; 45", "will-retry-until: "] {
        assert!(report.contains(words), "{words}: {report}");
    }
}

fn international_mail_goes_through(house: &House) {
    house.submit("jøran@near.example", "åse@office.example", INTERNATIONAL, &["SMTPUTF8", "BODY=8BITMIME"]);
    let mail = house.far.arrival("utf8.2@near.example");
    assert_unharmed(INTERNATIONAL.as_bytes(), &mail, true);
    assert!(received_by(&mail, "mail.ship.example").contains("with utf8smtps"), "{}", String::from_utf8_lossy(&mail));
}

#[test]
fn postfix_before_and_behind_the_link() {
    if !Make::Postfix.here() {
        return;
    }
    let house = House::new(Make::Postfix);
    mail_and_its_report_go_through(&house, "postfix.test");
    international_mail_goes_through(&house);
    a_failure_is_reported(&house);
    // One that does not know RFC 3461: the last that does tells what it knows.
    let configuration = house.far.directory.join("etc").display().to_string();
    run(10, "postconf", &["-c", &configuration, "smtpd_discard_ehlo_keywords=dsn"]);
    run(10, "postfix", &["-c", &configuration, "reload"]);
    let report = reported(&house, "clerk@office.example", "NOTIFY=SUCCESS", "relayed");
    assert!(report.contains("status: 2."), "{report}");
    house.far.arrival("relayed.2@near.example");
    a_delay_is_reported(&house);
}

#[test]
fn exim_before_and_behind_the_link() {
    if !Make::Exim.here() {
        return;
    }
    let house = House::new(Make::Exim);
    mail_and_its_report_go_through(&house, "exim.test");
    international_mail_goes_through(&house);
    a_failure_is_reported(&house);
    a_delay_is_reported(&house);
}

#[test]
fn opensmtpd_before_and_behind_the_link() {
    if !Make::OpenSmtpd.here() {
        return;
    }
    let house = House::new(Make::OpenSmtpd);
    mail_and_its_report_go_through(&house, "smtpd.test");
    // It does not know RFC 6531: what needs it comes back and says so.
    let mail = INTERNATIONAL.as_bytes();
    send(house.lab.address("ship"), "<ops@ship.example> SMTPUTF8 BODY=8BITMIME", &[("åse@office.example", "")], mail);
    let report = house.lab.arrival("ship", "ops", "delivery-status");
    let text = String::from_utf8_lossy(&report).into_owned();
    assert!(text.contains("Action: failed") && text.contains("Status: 5.6.9"), "{text}");
    house.lab.settle();
    assert_eq!(house.far.mailbox().len(), 1, "nothing but what came before");
    a_failure_is_reported(&house);
}

#[test]
fn mail_that_mutt_writes_arrives_with_its_attachment() {
    if !have(&["mutt"]) {
        return;
    }
    let lab = Lab::pair();
    let settings = format!(
        "set smtp_url = \"smtp://{}\"\nset ssl_starttls = no\nset ssl_force_tls = no\nset from = \"Ops <ops@ship.example>\"\nset copy = no\n\
         set charset = \"utf-8\"\nset send_charset = \"utf-8\"\nset hostname = \"ship.example\"\nset use_8bitmime = yes\n\
         set allow_8bit = yes\n",
        lab.address("ship")
    );
    let attached: Vec<u8> = (0..5000u32).map(|i| (i * i % 251) as u8).collect();
    let text = "Vær: kuling fra nordøst.\n.\n..\nFrom the log: 0800\n";
    let [rc, body, file] =
        [("rc", settings.as_bytes()), ("body", text.as_bytes()), ("chart.bin", &attached)].map(|(name, bytes)| {
            std::fs::write(lab.path(name), bytes).expect("a file");
            lab.path(name).display().to_string()
        });
    let words = format!("mutt -n -F '{rc}' -s 'Vær i Tromsø' -a '{file}' -- watch@shore.example < '{body}'");
    let output = run(60, "env", &["LC_ALL=C.UTF-8", &format!("HOME={}", lab.path("").display()), "sh", "-c", &words]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mail = lab.arrival("shore", "watch", "chart.bin");
    let parsed = MessageParser::default().parse(&mail).expect("a message");
    assert_eq!(parsed.subject(), Some("Vær i Tromsø"));
    assert_eq!(parsed.body_text(0).as_deref().map(|t| t.replace("\r\n", "\n")).as_deref(), Some(text));
    let attachment = parsed.attachment(0).expect("an attachment");
    assert_eq!(attachment.attachment_name(), Some("chart.bin"));
    assert_eq!(attachment.contents(), attached);
}
