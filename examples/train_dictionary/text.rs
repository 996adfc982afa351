//! A dictionary for the text model: no tables, only text, in the order it is read; what is most like the mail of a radio link comes last.
//!
//! `texts/` holds words, phrases of mail in nine languages and the shapes of mail programs' messages.

use std::collections::BTreeSet;
use std::path::Path;

/// Every name once, with an address as such names have.
fn named(names: &str) -> String {
    let lines: Vec<Vec<&str>> = names.lines().map(|line| line.split(' ').collect()).collect();
    let (first, last): (Vec<&str>, Vec<&str>) = (lines[..3].concat(), lines[3..].concat());
    let plain = |name: &str| name.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_lowercase();
    const HOSTS: [&str; 8] = [
        "gmail.com",
        "example.org",
        "outlook.com",
        "navy.example.mil",
        "example.de",
        "yahoo.com",
        "example.co.uk",
        "hq.example.int",
    ];
    let mut out = String::new();
    for i in 0..first.len().max(last.len()) {
        let (given, name) = (first[i % first.len()], last[i * 7 % last.len()]);
        let (g, n) = (plain(given), plain(name));
        let local = match i % 6 {
            0 | 1 => format!("{g}.{n}"),
            2 => format!("{}.{n}", g.get(..1).unwrap_or_default()),
            3 => format!("{}{n}", g.get(..1).unwrap_or_default()),
            4 => g.clone(),
            _ => n.clone(),
        };
        let field = ["From", "To", "Cc", "To"][i % 4];
        out.push_str(&format!("{field}: {given} {name} <{local}@{}>\n", HOSTS[i % HOSTS.len()]));
    }
    out
}

/// Which of the dictionaries for a text model.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Edition {
    /// Dictionary 2.
    Second,
    /// Dictionary 3: no list of words, more shapes, and the language of forces.
    Third,
}

/// The dictionary: words, phrases in shapes, what is new in each of the messages, and some of the coded streams whole.
pub fn dictionary(edition: Edition, messages: &[&[u8]], streams: &[Vec<u8>]) -> std::io::Result<Vec<u8>> {
    let texts = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/train_dictionary/texts");
    let text = |name: &str| std::fs::read_to_string(texts.join(format!("{name}.txt")));
    // English last: most mail is in it.
    const LANGUAGES: [&str; 14] =
        ["tr", "pt", "pl", "it", "es", "no", "nl", "fr", "de", "en1", "en2", "en3", "en4", "forces"];
    let (mut dictionary, languages, files): (_, _, &[&str]) = match edition {
        Edition::Second => (text("words")?, &LANGUAGES[1..13], &["mails"]),
        Edition::Third => (String::new(), &LANGUAGES[..], &["mails", "mails3"]),
    };
    let mut paragraphs = Vec::new();
    for language in languages {
        paragraphs.extend(text(language)?.lines().map(str::to_owned));
    }
    let mails = files.iter().map(|name| text(name)).collect::<Result<String, _>>()?;
    let shapes: Vec<&str> = mails.split("== ").filter_map(|shape| shape.split_once('\n')).map(|(_, s)| s).collect();
    if edition == Edition::Third {
        dictionary.push_str(&named(&text("names")?));
    }
    let mut writer = Writer { edition, chance: 0x5eed, paragraphs: paragraphs.into_iter() };
    let mut known = BTreeSet::new();
    for _ in 0..ROUNDS {
        for shape in &shapes {
            let message = writer.fill(shape);
            dictionary.push_str(&novel(&message, &mut known));
        }
    }
    dictionary.extend(writer.paragraphs.by_ref().map(|p| p + "\n"));
    for message in messages {
        let message = String::from_utf8_lossy(message).replace("\r\n", "\n");
        dictionary.push_str(&novel(&message, &mut known));
    }
    let mut dictionary = dictionary.replace('\n', "\r\n").into_bytes();
    dictionary.extend(streams.concat());
    Ok(dictionary)
}

/// So often every shape is filled.
const ROUNDS: usize = 2;

/// The lines of a message whose like, figures apart, have not come yet; the rest is known already and would only cost time.
fn novel(message: &str, known: &mut BTreeSet<String>) -> String {
    let mut new = String::new();
    for line in message.lines() {
        let shape: String = line.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        // A field or a mark that returns is what the next line follows on, so the short ones stay.
        if line.len() <= KEPT || known.insert(shape) {
            new.push_str(line);
            new.push('\n');
        }
    }
    new
}

/// Lines up to this length are kept however often they come.
const KEPT: usize = 12;

const PEOPLE: [(&str, &str, &str); 24] = [
    ("Anna Schmidt", "anna.schmidt", "example.de"),
    ("John Carter", "jcarter", "example.com"),
    ("Marie Dubois", "m.dubois", "example.fr"),
    ("Operations Centre", "ops", "hq.example.org"),
    ("Lars Hansen", "lars.hansen", "example.no"),
    ("Support Team", "support", "example.net"),
    ("Col. R. Thompson", "r.thompson", "army.example.mil"),
    ("Radio Room", "radio", "ship.example.org"),
    ("Giulia Rossi", "g.rossi", "example.it"),
    ("Duty Officer", "duty.officer", "navy.example.mil"),
    ("Piotr Nowak", "pnowak", "example.pl"),
    ("Sarah O'Brien", "sarah", "gmail.com"),
    ("Carlos Fernández", "cfernandez", "example.es"),
    ("Logistics", "logistics", "field.example.int"),
    ("Webmaster", "webmaster", "www.example.com"),
    ("Dr. Ahmed Hassan", "ahmed.hassan", "clinic.example.org"),
    ("Jan de Vries", "jan", "example.nl"),
    ("admin", "root", "mail.example.net"),
    ("CTG 441.01", "ctg441", "fleet.example.mil"),
    ("Emma Wilson", "emma.wilson", "outlook.com"),
    ("Master MV Horizon", "master.horizon", "vessel.example.com"),
    ("Kim Nguyen", "kim.nguyen", "yahoo.com"),
    ("Info", "info", "example.eu"),
    ("Supply Officer", "g4.supply", "brigade.example.mil"),
];

const SUBJECTS: [&str; 24] = [
    "Meeting on Thursday",
    "Status report",
    "Order confirmation",
    "Weekly update",
    "Question about the invoice",
    "SITREP 014",
    "Medical advice requested",
    "Spare parts",
    "Your message of yesterday",
    "Crew list and ETA",
    "Re-supply convoy",
    "Test",
    "Urgent: water shortage",
    "Travel arrangements",
    "New version available",
    "Weather forecast",
    "Daily intelligence summary",
    "Minutes of meeting",
    "LOGREQ",
    "Security notice",
    "Invitation",
    "Holiday photos",
    "Request for information",
    "Position report",
];

/// Fills shapes.
struct Writer {
    edition: Edition,
    chance: u64,
    paragraphs: std::vec::IntoIter<String>,
}

impl Writer {
    fn below(&mut self, n: u64) -> u64 {
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.chance >> 33) % n.max(1)
    }

    fn some(&mut self, from: &[u8], length: usize) -> String {
        (0..length).map(|_| char::from(from[self.below(from.len() as u64) as usize])).collect()
    }

    /// The next paragraph, which is said once only, wrapped or in one line.
    fn paragraph(&mut self) -> String {
        let text = self.paragraphs.next().unwrap_or_else(|| "Regards,".into());
        if self.below(3) == 0 { text } else { wrapped(&text, 72) }
    }

    fn fill(&mut self, shape: &str) -> String {
        let people: Vec<_> = (0..3).map(|_| PEOPLE[self.below(PEOPLE.len() as u64) as usize]).collect();
        let address = |i: usize| format!("{}@{}", people[i].1, people[i].2);
        let subject = SUBJECTS[self.below(SUBJECTS.len() as u64) as usize];
        let mut fixed = std::collections::BTreeMap::<&str, String>::new();
        let mut out = String::new();
        let mut rest = shape;
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let Some((key, after)) = after.split_once('}').filter(|(key, _)| is_key(key)) else {
                out.push('{');
                rest = after;
                continue;
            };
            rest = after;
            let (first, digits) = key.split_at(1);
            let length = digits.parse().unwrap_or(0);
            let boundary = self.edition == Edition::Third && BOUNDARIES.iter().any(|mark| out.ends_with(mark));
            let word = match key {
                _ if boundary => match fixed.get(key) {
                    Some(known) => known.clone(),
                    None => {
                        let made = match first {
                            "v" => self.uuid().to_uppercase(),
                            "x" => self.some(b"0123456789abcdef", length),
                            _ => self.some(LETTERS, length),
                        };
                        fixed.entry(key).or_insert(made).clone()
                    }
                },
                "n" => people[0].0.to_owned(),
                "m" => people[1].0.to_owned(),
                "n2" => people[2].0.to_owned(),
                "a" => address(0),
                "b" => address(1),
                "c" => address(2),
                "e" => people[0].2.to_owned(),
                "h" => format!("{}.{}", HOSTS[self.below(HOSTS.len() as u64) as usize], people[1].2),
                "S" => subject.to_owned(),
                "S1" => subject.split(' ').next().unwrap_or_default().to_lowercase(),
                "P" => (0..2 + self.below(3)).map(|_| self.paragraph()).collect::<Vec<_>>().join("\n\n"),
                "Q" => wrapped(&self.paragraph(), 70).lines().map(|l| format!("> {l}\n")).collect(),
                "W" => {
                    (0..2).map(|_| WORD_OPEN.to_owned() + &self.paragraph() + WORD_CLOSE).collect::<Vec<_>>().join("\n")
                }
                "W1" => self.paragraphs.next().unwrap_or_default(),
                "d" | "o" | "o2" => fixed.entry(key).or_insert_with(|| self.date()).clone(),
                "i" => format!("{}.{}.{}.{}", 1 + self.below(220), self.below(255), self.below(255), self.below(255)),
                "t" => format!("17{:08}", self.below(100_000_000)),
                "u" => self.uuid(),
                "v" if !boundary => self.uuid().to_uppercase(),
                _ if first == "x" => self.some(b"0123456789abcdef", length),
                "j" => fixed.entry(key).or_insert_with(|| self.part()).clone(),
                // A part's boundary returns.
                "X24" | "X20" | "X10" | "X8" => {
                    fixed.entry(key).or_insert_with(|| self.some(b"0123456789ABCDEF", length)).clone()
                }
                _ if first == "X" => self.some(b"0123456789ABCDEF", length),
                _ if first == "s" => self.some(LETTERS, length),
                _ => {
                    let (low, high) = key.split_once('-').unwrap_or(("1", "9"));
                    let (low, high) = (low.parse().unwrap_or(1), high.parse().unwrap_or(9));
                    (low + self.below(high - low + 1)).to_string()
                }
            };
            out.push_str(&word);
        }
        out.push_str(rest);
        out
    }

    /// The end of a boundary as programs in Java write it.
    fn part(&mut self) -> String {
        format!("{}_{}.17{:011}", self.below(9_000_000), self.below(2_000_000_000), self.below(100_000_000_000))
    }

    fn uuid(&mut self) -> String {
        let hex = b"0123456789abcdef";
        let parts = [8, 4, 4, 4, 12].map(|length| self.some(hex, length));
        parts.join("-")
    }

    fn date(&mut self) -> String {
        const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        const ZONES: [&str; 8] =
            ["+0000", "+0200", "+0100", "-0400", "-0700", "+0000 (UTC)", "+0200 (CEST)", "-0500 (EST)"];
        format!(
            "{}, {} {} 202{} {:02}:{:02}:{:02} {}",
            DAYS[self.below(7) as usize],
            1 + self.below(28),
            MONTHS[self.below(12) as usize],
            3 + self.below(5),
            self.below(24),
            self.below(60),
            self.below(60),
            ZONES[self.below(8) as usize],
        )
    }
}

/// What stands before the part of a boundary that is drawn.
const BOUNDARIES: [&str; 5] = ["000000000000", "Apple-Mail=_", "------------", "b1_", "b1=_"];
const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

const HOSTS: [&str; 10] = ["mail", "mx1", "smtp", "mx.lan", "gw", "relay", "mta2", "smtp-out", "mailgate", "ws12"];
const WORD_OPEN: &str = "<p class=\"MsoNormal\"><span style=\"font-size:11.0pt;font-family:&quot;Calibri&quot;,sans-serif;mso-fareast-language:EN-US\">";
const WORD_CLOSE: &str =
    "<o:p></o:p></span></p>\n<p class=\"MsoNormal\"><span lang=\"EN-GB\"><o:p>&nbsp;</o:p></span></p>";

/// Whether what stands in braces is one of ours and not of a style sheet.
fn is_key(key: &str) -> bool {
    let (letters, digits) = key.split_at(key.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(key.len()));
    letters.len() <= 1
        && (!digits.is_empty() || !letters.is_empty())
        && digits.chars().all(|c| c.is_ascii_digit() || c == '-')
}

fn wrapped(text: &str, width: usize) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        if column > 0 {
            let fits = column + 1 + word.len() <= width;
            out.push(if fits { ' ' } else { '\n' });
            column = if fits { column + 1 } else { 0 };
        }
        out.push_str(word);
        column += word.len();
    }
    out
}
