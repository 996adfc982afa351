//! What the codec makes of mail, beside what others make of it: mean bytes per class, all columns on the same messages in the same run.
//!
//! `cargo bench --bench codec` prints the table of docs/codec.md; `-- --json` prints it for programs, `-- --each N` sets messages per class.
//! Every column carries the whole message with its envelope and what its own format adds.

mod corpus;
mod lzhuf;

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use aldis::codec::dictionary;
use aldis::codec::envelope::{self, AirEnvelope};
use aldis::codec::history::History;
use aldis::codec::payload::{self, Choice, Options};
use aldis::mail::{BodyKind, Envelope, Mailbox, Precedence, Recipient};
use aldis::time::{Duration, Wall};
use corpus::{Class, Mail};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let json = arguments.iter().any(|a| a == "--json");
    let each = arguments.iter().skip_while(|a| *a != "--each").nth(1).and_then(|n| n.parse().ok()).unwrap_or(12);
    let only = arguments.iter().skip_while(|a| *a != "--dump").nth(1);
    let mut classes = corpus::invented(each);
    classes.extend(corpus::aside());
    let real = corpus::found(&crates());
    if real.mails.is_empty() {
        eprintln!("no real mail found: Cargo has not unpacked mail-parser here");
    } else {
        classes.push(real);
    }
    if let Some(folder) = only {
        dump(&classes, folder).expect("the folder can be written");
        return;
    }
    let rows: Vec<Row> = classes.iter().map(Row::of).collect();
    if json {
        let rows: Vec<serde_json::Value> = rows.iter().map(Row::json).collect();
        println!("{}", serde_json::Value::Array(rows));
        return;
    }
    print!("| class | messages | bytes |");
    COLUMNS.iter().for_each(|(name, _)| print!(" {name} |"));
    print!(" Aldis / MULE | Aldis / PPMd |\n|---|---|---|");
    println!("{}", "---|".repeat(COLUMNS.len() + 2));
    for row in &rows {
        row.print();
    }
    time(&classes);
}

/// Where Cargo unpacks crates.
fn crates() -> PathBuf {
    let home = std::env::var_os("CARGO_HOME")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"), PathBuf::from);
    let sources = home.join("registry/src");
    let folder = std::fs::read_dir(&sources).ok().and_then(|mut entries| entries.next()?.ok());
    folder.map_or(sources, |entry| entry.path())
}

type Column = fn(&Mail) -> usize;

const COLUMNS: [(&str, Column); 10] = [
    ("Aldis", |mail| aldis(mail, Choice::Newest).len()),
    ("Aldis, dictionary 2", |mail| aldis(mail, Choice::Shipped(2)).len()),
    ("Aldis, dictionary 1", |mail| aldis(mail, Choice::Shipped(1)).len()),
    ("MULE", mule),
    ("gzip", |mail| gzip(&bsmtp(mail))),
    ("LZHUF", |mail| lzhuf::coded_len(&bsmtp(mail))),
    ("zstd-19", |mail| zstd(mail, &[])),
    ("zstd-19, dictionary 1", |mail| zstd(mail, dictionary::SHIPPED[0].bytes)),
    ("brotli-11", brotli),
    ("PPMd primed", ppmd),
];

struct Row<'a> {
    class: &'a Class,
    bytes: f64,
    means: Vec<f64>,
}

impl<'a> Row<'a> {
    fn of(class: &'a Class) -> Self {
        let mean = |of: &dyn Fn(&Mail) -> usize| {
            class.mails.iter().map(of).sum::<usize>() as f64 / class.mails.len().max(1) as f64
        };
        let means = COLUMNS.iter().map(|(_, column)| mean(column)).collect();
        Self { class, bytes: mean(&|mail| mail.body.len()), means }
    }

    fn mean(&self, name: &str) -> f64 {
        COLUMNS.iter().position(|(n, _)| *n == name).map_or(0.0, |i| self.means[i])
    }

    fn print(&self) {
        print!("| {} | {} | {:.0} |", self.class.name, self.class.mails.len(), self.bytes);
        self.means.iter().for_each(|mean| print!(" {mean:.1} |"));
        let aldis = self.mean("Aldis");
        println!(" {:.3} | {:.3} |", aldis / self.mean("MULE"), aldis / self.mean("PPMd primed"));
    }

    fn json(&self) -> serde_json::Value {
        let mut row =
            serde_json::json!({ "class": self.class.name, "messages": self.class.mails.len(), "bytes": self.bytes });
        for ((name, _), mean) in COLUMNS.iter().zip(&self.means) {
            row[*name] = (*mean).into();
        }
        row
    }
}

/// The slowest message of each class, both ways.
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn time(classes: &[Class]) {
    for class in classes {
        let slowest = class.mails.iter().map(|mail| {
            let start = Instant::now();
            let payload = aldis(mail, Choice::Newest);
            let coded = start.elapsed();
            let start = Instant::now();
            let history = history(mail);
            let options = Options { dictionary: Choice::Newest, history: History::Given(&history) };
            let (_, body) = payload::decode(&payload, 1 << 20, &options).expect("decodes");
            assert!(body == mail.body, "comes back");
            (coded, start.elapsed())
        });
        let (coded, decoded) = slowest.fold(Default::default(), |(a, b), (c, d)| (c.max(a), d.max(b)));
        eprintln!("{}: slowest encoded in {} ms, decoded in {} ms", class.name, coded.as_millis(), decoded.as_millis());
    }
}

fn envelope(mail: &Mail) -> Vec<u8> {
    let envelope = Envelope {
        from: Some(Mailbox::new(&*mail.from)),
        recipients: mail.to.iter().map(|to| Recipient::plain(Mailbox::new(&**to))).collect(),
        envid: None,
        ret: None,
        mt_priority: None,
        body: if mail.body.is_ascii() { BodyKind::SevenBit } else { BodyKind::EightBitMime },
        smtputf8: false,
        require_tls: false,
        deliver_by: None,
        // Five days after it came in, as a node sets it.
        expires: came_in(&mail.body).plus(Duration::from_secs(5 * 86_400)),
        auth: None,
    };
    let air = AirEnvelope { envelope, precedence: Precedence::Routine, hops: vec!["shore".into()], serves: Vec::new() };
    envelope::encode(&air).expect("an envelope within bounds")
}

/// When the first date of its header was.
fn came_in(body: &[u8]) -> Wall {
    let message = mail_parser::MessageParser::default().parse_headers(body);
    let date = message.as_ref().and_then(|m| m.received().and_then(|r| r.date()).or_else(|| m.date().copied()));
    Wall::from_seconds(date.map_or(1_790_000_000, |date| date.to_timestamp()))
}

fn history(mail: &Mail) -> Vec<&[u8]> {
    mail.parent.iter().map(Vec::as_slice).collect()
}

fn aldis(mail: &Mail, dictionary: Choice<'_>) -> Vec<u8> {
    let history = history(mail);
    payload::encode(&envelope(mail), &mail.body, &Options { dictionary, history: History::Given(&history) })
}

/// The message in the payload of RFC 8494, before compression.
fn bsmtp(mail: &Mail) -> Vec<u8> {
    let body = if mail.body.is_ascii() { "" } else { " BODY=8BITMIME" };
    let mut out = format!("<{}>{body}\r\n", mail.from).into_bytes();
    for to in &mail.to {
        out.extend(format!("<{to}>\r\n").bytes());
    }
    out.extend(b"\r\n");
    out.extend(&mail.body);
    out
}

/// zlib in the structure of STANAG 4406 annex E, as RFC 8494 has it.
fn mule(mail: &Mail) -> usize {
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    zlib.write_all(&bsmtp(mail)).expect("to memory");
    let content = zlib.finish().expect("to memory").len();
    // Tag and length of each of the octet string, its tag, and the two sequences; five bytes each for the two choices.
    let head = |length: usize| {
        1 + if length < 128 {
            1
        } else if length < 256 {
            2
        } else {
            3
        }
    };
    let string = content + head(content);
    let info = string + head(string) + 5;
    let all = info + head(info) + 5;
    all + head(all)
}

fn gzip(input: &[u8]) -> usize {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(input).expect("to memory");
    gzip.finish().expect("to memory").len()
}

fn zstd(mail: &Mail, dictionary: &[u8]) -> usize {
    let mut coder = zstd::bulk::Compressor::with_dictionary(19, dictionary).expect("a coder");
    coder.include_contentsize(false).expect("an option");
    coder.include_checksum(false).expect("an option");
    coder.compress(&payload::encode_stored(&envelope(mail), &mail.body)[1..]).expect("compresses").len()
}

fn brotli(mail: &Mail) -> usize {
    let parameters = brotli::enc::BrotliEncoderParams { quality: 11, lgwin: 22, ..Default::default() };
    let mut out = Vec::new();
    let joint = payload::encode_stored(&envelope(mail), &mail.body);
    brotli::BrotliCompress(&mut &joint[1..], &mut out, &parameters).expect("to memory");
    out.len()
}

/// Order 5, having read the last 60 KB of dictionary 1 and the history.
fn ppmd(mail: &Mail) -> usize {
    let primer = dictionary::SHIPPED[0].bytes;
    let mut before = primer[primer.len() - 60_000..].to_vec();
    history(mail).iter().for_each(|message| before.extend(*message));
    let coded = |input: &[u8]| {
        let mut coder = ppmd_rust::Ppmd7Encoder::new(Vec::new(), 5, 16 << 20).expect("a coder");
        coder.write_all(input).expect("to memory");
        coder.finish(false).expect("to memory").len()
    };
    let joint = payload::encode_stored(&envelope(mail), &mail.body);
    let both = [&before, &joint[1..]].concat();
    // The codec id, and the length, for which zstd and brotli have an end mark.
    coded(&both) - coded(&before) + 3
}

fn dump(classes: &[Class], folder: &str) -> std::io::Result<()> {
    for class in classes {
        let folder = PathBuf::from(folder).join(class.name.replace([' ', ',', '\''], "-"));
        std::fs::create_dir_all(&folder)?;
        for (i, mail) in class.mails.iter().enumerate() {
            std::fs::write(folder.join(format!("{i:03}.eml")), &mail.body)?;
            if let Some(parent) = &mail.parent {
                std::fs::write(folder.join(format!("{i:03}-parent.eml")), parent)?;
            }
        }
    }
    Ok(())
}
