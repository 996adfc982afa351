//! Trains a dictionary for the air codec and tells what it saves.
//!
//! ```text
//! cargo run --release --example train_dictionary -- DIR OUT [KIB | text | text3]
//! cargo run --release --example train_dictionary -- experience DICTIONARY OUT
//! cargo run --release --example train_dictionary -- experience3 DICTIONARY OUT
//! cargo run --release --example train_dictionary -- lore OUT TEXT:WEIGHT...
//! cargo run --release --example train_dictionary -- lexicon OUT DIR OTHERS
//! ```
//!
//! DIR holds messages as `*.eml` files with CRLF line ends; invented ones of further kinds are added to them. Every sixth message
//! is held out: the table printed compares dictionary sizes on those, trained on the others. OUT then gets the dictionary of KIB
//! kibibytes (default 110) trained on everything; with `text` or `text3` in the place of a size, one for the text model
//! (dictionary 2) or the mail model (dictionary 3). The same DIR gives the same OUT with the same zstd.
//!
//! The second form makes what the text model knows before it reads anything (`experience.zst`) from the text of dictionary 2, the third what the
//! mail model does from that of dictionary 3; the fourth what that model knows of English (`lore.zst`), the fifth its words (`lexicon.zst`).
//! docs/codec.md names the texts and counts.
//!
//! Never train from real users' mail: the dictionary is public, and phrases of its samples stand in it.

mod lexicon;
mod lore;
mod text;

use std::error::Error;
use std::path::PathBuf;

use aldis::codec::envelope::{self, AirEnvelope};
use aldis::codec::history::History;
use aldis::codec::mixing;
use aldis::codec::payload::{self, Choice, Options};
use aldis::mail::{BodyKind, Envelope, Mailbox, Notify, PeerName, Precedence, Recipient, Ret};
use aldis::time::{Duration, Wall};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(folder), Some(out)) = (arguments.next().map(PathBuf::from), arguments.next().map(PathBuf::from)) else {
        return Err(
            "usage: train_dictionary DIR OUT [KIB | text | text3], or experience, experience3, lore or lexicon as in main.rs"
                .into(),
        );
    };
    if folder.as_os_str() == "lore" {
        let texts: Vec<String> = arguments.map(|a| a.to_string_lossy().into_owned()).collect();
        let lore = lore::found_in(&texts)?;
        std::fs::write(&out, &lore)?;
        println!("{} bytes written, SHA-256 {}", lore.len(), sha256(&lore));
        return Ok(());
    }
    if folder.as_os_str() == "lexicon" {
        let counts = arguments.next().map(PathBuf::from).ok_or("which folder has the counts?")?;
        let others = arguments.next().ok_or("how many words that are in no list?")?.to_string_lossy().parse()?;
        let lexicon = lexicon::found_in(&counts, others)?;
        std::fs::write(&out, &lexicon)?;
        println!("{} bytes written, SHA-256 {}", lexicon.len(), sha256(&lexicon));
        return Ok(());
    }
    let size = arguments.next();
    if let Some(model @ ("experience" | "experience3")) = folder.to_str() {
        let to = size.ok_or("where should it be written?")?;
        let dictionary = std::fs::read(out)?;
        let experience = match model {
            "experience" => mixing::text::experience::found_from(&dictionary)?,
            _ => mixing::mail::experience::found_from(&dictionary)?,
        };
        std::fs::write(to, &experience)?;
        println!("{} bytes written, SHA-256 {}", experience.len(), sha256(&experience));
        return Ok(());
    }
    let edition = match size.as_deref().and_then(|s| s.to_str()) {
        Some("text") => Some(text::Edition::Second),
        Some("text3") => Some(text::Edition::Third),
        _ => None,
    };
    let kib: usize = size.filter(|_| edition.is_none()).map_or(Ok(110), |n| n.to_string_lossy().parse())?;
    let mut names: Vec<PathBuf> = std::fs::read_dir(folder)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    names.retain(|name| name.extension().is_some_and(|e| e == "eml"));
    names.sort();

    let mut chance = Chance(0x5eed);
    let mut collected = Vec::new();
    for name in &names {
        let body = std::fs::read(name)?;
        collected.push(Sample::of(&mut chance, body));
    }
    let invented = invent(&mut chance);
    println!("{} messages collected, {} invented", collected.len(), invented.len());

    if let Some(edition) = edition {
        let (whole, parted) = few(&collected, COLLECTED_WHOLE);
        let streams = few(&invented, INVENTED_WHOLE).0.into_iter().chain(whole).enumerate();
        // Files have no envelope.
        let bare = |i: usize| edition == text::Edition::Third && i % 2 == 1;
        let streams = streams.map(|(i, s)| match edition {
            _ if bare(i) => [&[0], s.body.as_slice()].concat(),
            text::Edition::Second => s.joint(),
            text::Edition::Third => envelope::beside::join(&s.envelope, &s.body),
        });
        let bodies: Vec<&[u8]> = parted.into_iter().map(|s| s.body.as_slice()).collect();
        let dictionary = text::dictionary(edition, &bodies, &streams.collect::<Vec<_>>())?;
        std::fs::write(&out, &dictionary)?;
        println!("{} bytes written, SHA-256 {}", dictionary.len(), sha256(&dictionary));
        return Ok(());
    }

    let (held_collected, kept_collected) = split(&collected);
    let (held_invented, kept_invented) = split(&invented);
    let kept: Vec<&Sample> = kept_collected.into_iter().chain(kept_invented).collect();
    println!("{:>22} {:>12} {:>12}", "mean bytes held out", "collected", "invented");
    let row = |name: &str, dictionary: Option<&[u8]>| {
        println!("{name:>22} {:>12.1} {:>12.1}", mean(&held_collected, dictionary), mean(&held_invented, dictionary));
    };
    let stored = |held: &[&Sample]| held.iter().map(|s| s.stored()).sum::<usize>() as f64 / held.len() as f64;
    println!("{:>22} {:>12.1} {:>12.1}", "stored", stored(&held_collected), stored(&held_invented));
    row("without", None);
    for size in [16, 32, 64, 96, 110] {
        let dictionary = train(&kept, size)?;
        row(&format!("with {size} KiB"), Some(&dictionary));
    }
    let all: Vec<&Sample> = collected.iter().chain(&invented).collect();
    let dictionary = train(&all, kib)?;
    std::fs::write(&out, &dictionary)?;
    println!("{} bytes written, SHA-256 {}", dictionary.len(), sha256(&dictionary));
    Ok(())
}

/// So many of each stand whole at the end of a dictionary for the text model.
const INVENTED_WHOLE: usize = 16;
const COLLECTED_WHOLE: usize = 40;

/// About so many, evenly, and the others.
fn few(samples: &[Sample], n: usize) -> (Vec<&Sample>, Vec<&Sample>) {
    let every = samples.len().div_ceil(n).max(1);
    let (few, others): (Vec<_>, Vec<_>) = samples.iter().enumerate().partition(|(i, _)| i % every == 0);
    (few.into_iter().map(|(_, s)| s).collect(), others.into_iter().map(|(_, s)| s).collect())
}

/// Every sixth, and the others.
fn split(samples: &[Sample]) -> (Vec<&Sample>, Vec<&Sample>) {
    let (held, kept): (Vec<_>, Vec<_>) = samples.iter().enumerate().partition(|(i, _)| i % 6 == 0);
    (held.into_iter().map(|(_, s)| s).collect(), kept.into_iter().map(|(_, s)| s).collect())
}

fn train(samples: &[&Sample], kib: usize) -> Result<Vec<u8>, Box<dyn Error>> {
    let joint: Vec<Vec<u8>> = samples.iter().map(|s| s.joint()).collect();
    Ok(zstd::dict::from_samples(&joint, kib * 1024)?)
}

fn mean(samples: &[&Sample], dictionary: Option<&[u8]>) -> f64 {
    let dictionary = dictionary.map_or(Choice::Without, Choice::Given);
    // A dictionary given by hand costs four bytes that a shipped one does not.
    let check = if dictionary == Choice::Without { 0 } else { 4 };
    let options = Options { dictionary, history: History::None };
    let total: usize = samples.iter().map(|s| payload::encode(&s.envelope, &s.body, &options).len() - check).sum();
    total as f64 / samples.len() as f64
}

fn sha256(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

struct Sample {
    envelope: Vec<u8>,
    body: Vec<u8>,
}

impl Sample {
    /// A message with the envelope its header suggests and the trace field a node puts on top.
    fn of(chance: &mut Chance, body: Vec<u8>) -> Self {
        let text = String::from_utf8_lossy(&body).replace("\r\n\t", " ").replace("\r\n ", " ");
        let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("").to_owned();
        let addresses = |field: String| -> Vec<Mailbox> {
            field
                .split(['<', '>', ',', ' '])
                .filter(|word| word.contains('@') && !word.starts_with('@'))
                .map(Mailbox::new)
                .collect()
        };
        let to = addresses(field("To: "));
        let from =
            if field("Auto-Submitted: ").is_empty() { addresses(field("From: ")).into_iter().next() } else { None };
        let recipients = if to.is_empty() { vec![Mailbox::new("watch@jfhq.example.mil")] } else { to };
        // Most messages have one recipient behind one peer.
        let behind = if chance.below(3) == 0 { recipients.len() } else { 1 };
        let detailed = chance.below(3) == 0;
        let precedence =
            chance.pick(&[Precedence::Routine, Precedence::Routine, Precedence::Priority, Precedence::Immediate]);
        let id = format!("{:08X}", chance.below(4000));
        let at = Wall::from_seconds(1_724_000_000 + i64::from(chance.below(90_000_000)));
        let air = AirEnvelope {
            envelope: Envelope {
                from: from.clone(),
                recipients: recipients
                    .iter()
                    .take(behind)
                    .map(|address| Recipient {
                        address: address.clone(),
                        notify: detailed.then_some(Notify { success: false, failure: true, delay: true }),
                        orcpt: detailed.then(|| format!("rfc822;{address}")),
                    })
                    .collect(),
                envid: detailed.then(|| format!("QQ{:X}", chance.below(1 << 30))),
                ret: detailed.then_some(Ret::Headers),
                mt_priority: (chance.below(2) == 0).then(|| precedence.mt_priority()),
                body: if body.is_ascii() { BodyKind::SevenBit } else { BodyKind::EightBitMime },
                smtputf8: false,
                require_tls: false,
                deliver_by: None,
                expires: at.plus(Duration::from_secs(5 * 86_400)),
                auth: None,
            },
            precedence,
            hops: vec![PeerName::from(chance.pick(&["ship", "shore", "node6", "hub"]))],
            serves: Vec::new(),
        };
        let node = chance.pick(&["gw.kestrel.navy.example.mil", "hf.hub.example.mil", "ship.example", "shore.example"]);
        let host = from.as_ref().map_or("localhost".to_owned(), |f| format!("mx.{}", f.domain()));
        let with = chance.pick(&["ESMTP", "ESMTPS", "ESMTPSA"]);
        let trace = format!(
            "Received: from {host} ({host} [10.{}.{}.{}])\r\n\tby {node} with {with} id {id};\r\n\t{}\r\n",
            chance.below(40),
            chance.below(255),
            chance.below(255),
            at.rfc5322()
        );
        let envelope = envelope::encode(&air).unwrap_or_default();
        Self { envelope, body: [trace.into_bytes(), body].concat() }
    }

    /// What is compressed: see `payload`.
    fn joint(&self) -> Vec<u8> {
        let stored = payload::encode_stored(&self.envelope, &self.body);
        stored.get(1..).unwrap_or_default().to_vec()
    }

    fn stored(&self) -> usize {
        payload::encode_stored(&self.envelope, &self.body).len()
    }
}

/// A small generator of its own, so that the samples are the same for ever.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(n.max(1))) as u32
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u32) as usize]
    }

    fn hex(&mut self, digits: usize) -> String {
        (0..digits).map(|_| char::from(b"0123456789abcdef"[self.below(16) as usize])).collect()
    }
}

const PEOPLE: [(&str, &str); 14] = [
    ("Master", "master@mv-aurora.example"),
    ("Chief Engineer", "engine@mv-aurora.example"),
    ("Fleet Operations", "ops@shore.example"),
    ("Crewing", "crew@shore.example"),
    ("BLUESHIP OPS", "ops@blueship.example"),
    ("REDBASE COMMAND", "cdr@redbase.example"),
    ("REDBASE INFO CELL", "info@redbase.example"),
    ("Watchkeeper", "watch@coast.example.org"),
    ("Field Camp 2", "camp2@field.example.org"),
    ("Logistics", "logistics@hq.example.org"),
    ("Dr. Maria Santos", "maria.santos@clinic.example.org"),
    ("Jens Holm", "jens.holm@example.com"),
    ("Weather Desk", "weather@met.example.net"),
    ("Administrator", "root@gateway.example.net"),
];

/// Messages of the kinds a radio switch carries besides what was collected.
fn invent(chance: &mut Chance) -> Vec<Sample> {
    let mut samples = Vec::new();
    for _ in 0..14 {
        for kind in [delivery_report, position, weather, reply, military, outlook, script, request] {
            let at = Wall::from_seconds(1_724_000_000 + i64::from(chance.below(90_000_000)));
            let message = kind(chance, at);
            samples.push(Sample::of(chance, message.replace("\r\n", "\n").replace('\n', "\r\n").into_bytes()));
        }
    }
    samples
}

fn two_people(chance: &mut Chance) -> ((&'static str, &'static str), (&'static str, &'static str)) {
    let from = chance.below(PEOPLE.len() as u32) as usize;
    let to = (from + 1 + chance.below(PEOPLE.len() as u32 - 1) as usize) % PEOPLE.len();
    (PEOPLE[from], PEOPLE[to])
}

/// A report in the form of RFC 3461 to 3464.
fn delivery_report(chance: &mut Chance, at: Wall) -> String {
    let ((_, to), (_, about)) = two_people(chance);
    let node = chance.pick(&["gw.kestrel.navy.example.mil", "hf.hub.example.mil", "ship.example", "shore.example"]);
    let (action, status, subject, words, diagnostic) = chance.pick(&[
        ("failed", "5.1.1", "Undelivered mail", "could not be delivered to", "smtp; 550 5.1.1 User unknown"),
        ("failed", "5.4.7", "Undelivered mail", "could not be delivered in time to", "x-aldis; delivery time expired"),
        ("delayed", "4.4.1", "Delayed mail", "has not yet been delivered to", "x-aldis; no answer from host"),
        ("delivered", "2.0.0", "Delivered mail", "was delivered to", "smtp; 250 2.0.0 Ok"),
        (
            "relayed",
            "2.0.0",
            "Relayed mail",
            "was relayed, and no further report may follow, to",
            "smtp; 250 2.0.0 Ok: queued",
        ),
        ("failed", "5.3.4", "Undelivered mail", "is too big for the bearer to", "x-aldis; message too big"),
    ]);
    let boundary = format!("{}/{node}", chance.hex(8));
    let date = at.rfc5322();
    let until = at.plus(Duration::from_secs(4 * 86_400)).rfc5322();
    let retry = if action == "delayed" { format!("Will-Retry-Until: {until}\n") } else { String::new() };
    let envid =
        if chance.below(2) == 0 { format!("Original-Envelope-Id: QQ{}\n", chance.hex(7)) } else { String::new() };
    format!(
        "From: Mail Delivery System <MAILER-DAEMON@{node}>\nTo: <{to}>\nSubject: {subject}\nDate: {date}\nMessage-ID: <{}.{}@{node}>\n\
         Auto-Submitted: auto-replied\nMIME-Version: 1.0\nContent-Type: multipart/report; report-type=delivery-status;\n\tboundary=\"{boundary}\"\n\n\
         This is a MIME-encapsulated message.\n\n--{boundary}\nContent-Type: text/plain; charset=us-ascii\n\n\
         This is the mail system at {node}.\n\nYour message {words}\n\n    <{about}>: {diagnostic}\n\n\
         --{boundary}\nContent-Type: message/delivery-status\n\n{envid}Reporting-MTA: dns; {node}\nArrival-Date: {date}\n\n\
         Original-Recipient: rfc822;{about}\nFinal-Recipient: rfc822; {about}\nAction: {action}\nStatus: {status}\n\
         Remote-MTA: dns; mx.{}\nDiagnostic-Code: {diagnostic}\nLast-Attempt-Date: {date}\n{retry}\n\
         --{boundary}\nContent-Type: text/rfc822-headers\n\nReceived: from [10.{}.0.{}] by {node} with ESMTP id {};\n\t{date}\nFrom: <{to}>\nTo: <{about}>\n\
         Subject: {}\nDate: {date}\nMessage-ID: <{}@{}>\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n--{boundary}--\n",
        chance.hex(8).to_uppercase(),
        at.seconds(),
        about.rsplit('@').next().unwrap_or_default(),
        chance.below(40),
        chance.below(255),
        chance.hex(8).to_uppercase(),
        chance.pick(&["Position report", "Fuel state", "Re: Spares", "Crew list", "LOGREQ", "Stores"]),
        chance.hex(16),
        to.rsplit('@').next().unwrap_or_default(),
    )
}

/// A noon report, hardly more than figures.
fn position(chance: &mut Chance, at: Wall) -> String {
    let ((name, from), (_, to)) = two_people(chance);
    let subject =
        chance.pick(&["Noon report", "POSREP", "Position report", "Fuel state", "DAILY STATUS", "ETA update"]);
    format!(
        "Message-ID: <{}@{}>\nDate: {}\nFrom: {name} <{from}>\nTo: {to}\nSubject: {subject}\nMIME-Version: 1.0\n\
         Content-Type: text/plain; charset=us-ascii\nContent-Transfer-Encoding: 7bit\n\nPOSITION: {:02}-{:02}.{}N {:03}-{:02}.{}W\nDTG: {}\nCOURSE: {:03} T\n\
         SPEED: {}.{} KTS\nDIST SAILED: {} NM\nDIST TO GO: {} NM\nETA: {}\nFUEL ROB: HFO {} MT, MDO {} MT\nFRESH WATER: {} MT\n\
         WIND: {} BFT {}\nSEA: {}\nVISIBILITY: GOOD\nALL WELL ON BOARD.\n",
        chance.hex(12),
        from.rsplit('@').next().unwrap_or_default(),
        at.rfc5322(),
        chance.below(70),
        chance.below(60),
        chance.below(10),
        chance.below(180),
        chance.below(60),
        chance.below(10),
        at.dtg(),
        chance.below(360),
        8 + chance.below(9),
        chance.below(10),
        chance.below(400),
        chance.below(4000),
        at.plus(Duration::from_secs(86_400 * 3)).dtg(),
        chance.below(900),
        chance.below(100),
        chance.below(200),
        chance.below(9),
        chance.pick(&["N", "NE", "E", "SE", "S", "SW", "W", "NW"]),
        chance.pick(&["SLIGHT", "MODERATE", "ROUGH", "CALM"]),
    )
}

fn weather(chance: &mut Chance, at: Wall) -> String {
    let ((name, from), (_, to)) = two_people(chance);
    let area = chance.pick(&["FISHER", "DOGGER", "VIKING", "FAEROES", "SOLE", "BISCAY", "NORTH UTSIRE", "AREA 3"]);
    format!(
        "Message-ID: <{}@met.example.net>\nDate: {}\nFrom: \"{name}\" <{from}>\nTo: <{to}>\nSubject: Weather {area} {}\nMIME-Version: 1.0\n\
         Content-Type: text/plain; charset=\"utf-8\"\nContent-Transfer-Encoding: 8bit\n\nGALE WARNING AND FORECAST ISSUED AT {}\n\n{area}:\n\
         WIND {} {} TO {}, OCCASIONALLY GALE {}. SEA STATE MODERATE OR ROUGH. RAIN THEN SHOWERS. VISIBILITY GOOD, OCCASIONALLY POOR.\n\n\
         OUTLOOK FOR THE FOLLOWING 24 HOURS:\nWIND VEERING {} AND DECREASING {}. TEMPERATURE {} °C. PRESSURE {} HPA, RISING SLOWLY.\n\nNEXT FORECAST AT {}Z.\n",
        chance.hex(10),
        at.rfc5322(),
        at.dtg(),
        at.dtg(),
        chance.pick(&["NORTHERLY", "SOUTHWESTERLY", "WESTERLY", "VARIABLE"]),
        3 + chance.below(3),
        5 + chance.below(3),
        8,
        chance.pick(&["NORTHWEST", "WEST", "EAST"]),
        3 + chance.below(3),
        chance.below(25),
        980 + chance.below(50),
        chance.below(24) * 100,
    )
}

/// A reply as Thunderbird writes it.
fn reply(chance: &mut Chance, at: Wall) -> String {
    let ((name, from), (other, to)) = two_people(chance);
    let earlier =
        format!("{}-{}-{}@{}", chance.hex(8), chance.hex(4), chance.hex(12), to.rsplit('@').next().unwrap_or_default());
    let subject =
        chance.pick(&["Spares for generator 2", "Crew change", "Medical advice", "Port agent", "Radio schedule"]);
    let line = chance.pick(&[
        "Thank you for your message. We will arrange this and come back to you tomorrow.",
        "Received with thanks, no objection.",
        "Please confirm the part number and the quantity needed.",
        "Agreed. Next contact on the usual frequency at 1800 UTC.",
        "Could you please send the list again? The attachment did not arrive.",
    ]);
    let quoted = chance.pick(&[
        "The pump failed again last night. We need the seal kit at the next port.",
        "Please advise the estimated time of arrival and the number of persons on board.",
        "Patient has had fever for two days, 38.9, no other complaints.",
        "The agent asks for the crew list and the last ten ports of call.",
    ]);
    format!(
        "Message-ID: <{}-{}-4{}-{}-{}@{}>\nDate: {}\nMIME-Version: 1.0\nUser-Agent: Mozilla Thunderbird\nSubject: Re: {subject}\nContent-Language: en-US\n\
         To: {other} <{to}>\nReferences: <{earlier}>\nFrom: {name} <{from}>\nIn-Reply-To: <{earlier}>\n\
         Content-Type: text/plain; charset=UTF-8; format=flowed\nContent-Transfer-Encoding: 7bit\n\nDear {other},\n\n{line}\n\nBest regards,\n{name}\n\n\
         On {}, {other} wrote:\n> Dear {name},\n>\n> {quoted}\n>\n> Kind regards,\n> {other}\n",
        chance.hex(8),
        chance.hex(4),
        chance.hex(3),
        chance.hex(4),
        chance.hex(12),
        from.rsplit('@').next().unwrap_or_default(),
        at.rfc5322(),
        at.rfc5322(),
    )
}

/// A formal message with the fields of RFC 6477.
fn military(chance: &mut Chance, at: Wall) -> String {
    let ((name, from), (other, to)) = two_people(chance);
    let (number, level) = chance.pick(&[
        (0, "deferred"),
        (1, "routine"),
        (2, "priority"),
        (3, "immediate"),
        (4, "flash"),
        (5, "override"),
    ]);
    let marking = chance.pick(&["UNCLASSIFIED", "UNCLASSIFIED", "RESTRICTED", "EXERCISE UNCLASSIFIED"]);
    format!(
        "From: {name} <{from}>\nTo: {other} <{to}>\nDate: {}\nMessage-ID: <{:06}.{}@{}>\nSubject: {}\n\
         SIO-Label: marking=\"{marking}\"; type=\":ess\"; label=\"MQ8CAQEGCisGAQQBgf1ZAQE=\"\nMMHS-Extended-Authorisation-Info: {}\n\
         MMHS-Primary-Precedence: {number} ({level})\nMMHS-Copy-Precedence: 1 (routine)\nMMHS-Subject-Indicator-Codes: LAA; QQX\n\
         MMHS-Message-Type: {}; identifier=\"GREY HERON\"\nMMHS-Originator-Reference: BS/OPS/{}\nMMHS-Message-Instructions: MINIMIZE CONSIDERED\n\
         MMHS-Handling-Instructions: PASS TO DUTY OFFICER\nMMHS-Originator-PLAD: {name}\nMMHS-Acp127-Message-Identifier: RXFPA {:04} {}\nMT-Priority: {}\n\
         MIME-Version: 1.0\nContent-Type: text/plain; charset=us-ascii\n\n{marking}\nSIC LAA/QQX\n1. {}\n2. FUEL {} PCT. NEXT RAS {}.\n3. {}\nBT\n",
        at.rfc5322(),
        chance.below(1_000_000),
        20_240_000 + chance.below(9999),
        from.rsplit('@').next().unwrap_or_default(),
        chance.pick(&["FUEL STATE", "SITREP", "OPTASK COMMS", "LOGREQ", "INTSUM", "RASREQ", "MOVREP"]),
        at.rfc5322(),
        chance.pick(&["exercise", "operation", "project", "drill"]),
        chance.below(1000),
        chance.below(10_000),
        at.dtg(),
        number * 2 - 4,
        chance.pick(&["NO CHANGE TO SITUATION.", "TASK COMPLETED.", "PROCEED AS ORDERED.", "REQUEST INSTRUCTIONS."]),
        chance.below(100),
        at.dtg(),
        chance.pick(&[
            "ACKNOWLEDGE.",
            "NO REPLY REQUIRED.",
            "REPORT WHEN COMPLETE.",
            "EMCON IN FORCE UNTIL FURTHER NOTICE."
        ]),
    )
}

/// Plain text from Outlook through Exchange.
fn outlook(chance: &mut Chance, at: Wall) -> String {
    let ((name, from), (other, to)) = two_people(chance);
    let subject =
        chance.pick(&["Stores order", "FW: Inspection", "RE: Certificate", "Meeting notes", "Passenger list"]);
    format!(
        "From: {name} <{from}>\nTo: {other} <{to}>\nCC: Operations <operations@hq.example.org>\nSubject: {subject}\nThread-Topic: {subject}\nThread-Index: Ad{}==\n\
         Date: {}\nMessage-ID: <{}@MBX{}.hq.example.org>\nAccept-Language: en-US\nContent-Language: en-US\nX-MS-Has-Attach:\nX-MS-TNEF-Correlator:\n\
         Content-Type: text/plain; charset=\"iso-8859-1\"\nContent-Transfer-Encoding: quoted-printable\nMIME-Version: 1.0\n\n\
         Hello {other},\n\nPlease find below the {} for {}. Let me know if anything is missing.\n\n{}\n\nBest regards\n{name}\n\n\
         -----Original Message-----\nFrom: {other} <{to}>\nSent: {}\nTo: {name} <{from}>\nSubject: {subject}\n\nAny news on this?\n",
        chance.hex(26).to_uppercase(),
        at.rfc5322(),
        chance.hex(32).to_uppercase(),
        chance.below(9),
        chance.pick(&["list", "order", "schedule", "summary", "figures"]),
        chance.pick(&["this week", "next week", "the next port", "camp 2", "March"]),
        chance.pick(&[
            "4 x filter, oil\r\n2 x belt, alternator\r\n12 x lamp, LED 24 V",
            "Total: 14 persons, 3 to sign off, 2 to sign on.",
            "The surveyor will attend at 0900 local time on arrival.",
        ]),
        at.dtg(),
    )
}

/// What scripts and test tools send.
fn script(chance: &mut Chance, at: Wall) -> String {
    let ((_, from), (_, to)) = two_people(chance);
    match chance.below(3) {
        0 => format!(
            "Content-Type: text/plain; charset=\"us-ascii\"\nMIME-Version: 1.0\nContent-Transfer-Encoding: 7bit\nSubject: {}\nFrom: {from}\nTo: {to}\n\
             Date: {}\nMessage-ID: <{}.{}.{}@{}>\n\n{}\n",
            chance.pick(&["backup ok", "disk space", "test", "GPS log", "Sensor report"]),
            at.rfc5322(),
            at.seconds(),
            chance.below(99_999),
            chance.hex(16),
            from.rsplit('@').next().unwrap_or_default(),
            chance.pick(&[
                "All checks passed.",
                "Filesystem /var is 91% full.",
                "hello",
                "battery 12.6 V, temperature 31 C, link ok"
            ]),
        ),
        1 => format!(
            "Date: {}\nTo: {to}\nFrom: {from}\nSubject: test {}\nMessage-Id: <{}.{:06}@{}>\nX-Mailer: swaks v20201014.0 jetmore.org/john/code/swaks/\n\n\
             This is a test mailing\n",
            at.rfc5322(),
            at.rfc5322(),
            at.seconds(),
            chance.below(99_999),
            from.rsplit('@').next().unwrap_or_default(),
        ),
        _ => format!(
            "From: {from}\nTo: {to}\nSubject: {}\nDate: {}\nMessage-ID: <{}@{}>\n\n{}\n",
            chance.pick(&["hello", "test message", "Radio check", "status", "QSL"]),
            at.rfc5322(),
            chance.hex(12),
            from.rsplit('@').next().unwrap_or_default(),
            chance.pick(&["Radio check, how do you read?", "Loud and clear.", "Test 1 2 3.", "Please acknowledge."]),
        ),
    }
}

/// Multipart with HTML, as webmail writes it.
fn request(chance: &mut Chance, at: Wall) -> String {
    let ((name, from), (other, to)) = two_people(chance);
    let boundary = format!("000000000000{}", chance.hex(16));
    let words = chance.pick(&[
        "Please send us 20 blankets and 5 boxes of dressings with the next flight.",
        "The road to the north is closed after heavy rain, we use the western track.",
        "Everyone here is well. The new antenna works fine.",
        "Can you confirm the payment to the port agent?",
    ]);
    format!(
        "MIME-Version: 1.0\nFrom: {name} <{from}>\nDate: {}\nMessage-ID: <CA+{}={}@mail.example.com>\nSubject: {}\nTo: {other} <{to}>\n\
         Content-Type: multipart/alternative; boundary=\"{boundary}\"\n\n--{boundary}\nContent-Type: text/plain; charset=\"UTF-8\"\n\nHi {other},\n\n{words}\n\nRegards,\n{name}\n\n\
         --{boundary}\nContent-Type: text/html; charset=\"UTF-8\"\nContent-Transfer-Encoding: quoted-printable\n\n<div dir=3D\"ltr\"><div>Hi {other},</div><div><br></div><div>{words}</div>\
         <div><br></div><div>Regards,</div><div>{name}</div></div>\n\n--{boundary}--\n",
        at.rfc5322(),
        chance.hex(20),
        chance.hex(12),
        chance.pick(&["Supplies", "Greetings from camp", "Road conditions", "Request", "Update"]),
    )
}
