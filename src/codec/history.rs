//! Messages that both ends hold, as context of the next one.
//!
//! A node keeps of each message that it and a peer both have its [`text_of`]; the switch decides which these are (`switch/context.rs`).
//! Here are the pure parts: what of a message is kept, by what name a payload speaks of it, and which of those at hand are worth naming
//! ([`choose`]). `docs/codec.md`, "History", has the format; the bytes that [`text_of`] gives are part of it.

use std::collections::BTreeSet;

use crate::mail::header;

use super::parts;

/// Bytes kept of one message.
pub const MAX_TEXT_BYTES: usize = 16 * 1024;
/// Messages one payload may name.
pub const MAX_NAMED: usize = 4;

/// What one payload's coding knows of earlier messages.
#[derive(Clone, Copy, Debug, Default)]
pub enum History<'a> {
    /// Nothing.
    #[default]
    None,
    /// These, given by hand at both ends, oldest first.
    Given(&'a [&'a [u8]]),
    /// Those that a node and its peer both hold: the encoder names all of these, the decoder those that the payload names.
    Link(&'a [Kept<'a>]),
}

/// What is kept of a message that both ends hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept<'a> {
    /// What payloads call it.
    pub name: Name,
    /// Its [`text_of`].
    pub text: &'a [u8],
}

/// The name of a message that crossed the link, as the sender of the payload that names it sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name(u16);

/// Set where the sender of the payload was the message's receiver.
const RECEIVED: u16 = 0x8000;

impl Name {
    /// Of the transfer with this counter in the present epoch of whoever sent it.
    pub const fn new(received: bool, counter: u32) -> Self {
        Self(counter as u16 & !RECEIVED | if received { RECEIVED } else { 0 })
    }

    /// Its bytes in a payload.
    pub const fn to_bytes(self) -> [u8; 2] {
        self.0.to_be_bytes()
    }

    /// The name of these bytes.
    pub const fn from_bytes(bytes: [u8; 2]) -> Self {
        Self(u16::from_be_bytes(bytes))
    }
}

/// What is kept of a message: its header and its bodies that are text, decoded; what is attached is left out.
pub fn text_of(body: &[u8]) -> Vec<u8> {
    let mut text = parts::text_of(body).unwrap_or_else(|| body[..body.len().min(MAX_TEXT_BYTES)].to_vec());
    text.truncate(MAX_TEXT_BYTES);
    text
}

/// Which of the texts at hand (oldest first) are worth naming with a message, by index; what matters most comes last.
pub fn choose(body: &[u8], texts: &[&[u8]]) -> Vec<usize> {
    let message = Marks::of(body);
    let marks: Vec<Marks> = texts.iter().map(|text| Marks::of(text)).collect();
    let newest = || (0..texts.len()).rev();
    let same = |a: &Option<String>, b: &Option<String>| a.is_some() && a == b;
    let parent = |i: &usize| marks[*i].id.is_some() && message.answers.last() == marks[*i].id.as_ref();
    let thread = |i: &usize| {
        let known = marks[*i].id.as_ref().is_some_and(|id| message.answers.contains(id));
        known
            || same(&marks[*i].subject, &message.subject)
            || marks[*i].answers.iter().any(|id| message.answers.contains(id))
    };
    let sender = |i: &usize| same(&marks[*i].from, &message.from);
    let ranked = newest().filter(parent).chain(newest().filter(thread)).chain(newest().filter(sender));
    let mut chosen = Vec::new();
    for i in ranked {
        if chosen.len() < MAX_NAMED && !chosen.contains(&i) {
            chosen.push(i);
        }
    }
    chosen.reverse();
    chosen
}

/// What of a header tells which messages belong together.
#[derive(Debug, Default)]
struct Marks {
    id: Option<String>,
    /// What it answers, the message itself last.
    answers: Vec<String>,
    subject: Option<String>,
    from: Option<String>,
}

/// Identifiers taken from one header at most.
const MAX_ANSWERS: usize = 64;

impl Marks {
    fn of(message: &[u8]) -> Self {
        let mut marks = Self { id: header::message_id(message), ..Self::default() };
        let mut parents = Vec::new();
        let mut seen = BTreeSet::new();
        for field in header::fields(message) {
            let value = || String::from_utf8_lossy(&message[field.value.clone()]).into_owned();
            if field.is("References") {
                marks.answers.extend(ids(&value()));
            } else if field.is("In-Reply-To") {
                parents.extend(ids(&value()));
            } else if field.is("Subject") && seen.insert("subject") {
                marks.subject = Some(subject(&value())).filter(|s| !s.is_empty());
            } else if field.is("From") && seen.insert("from") {
                marks.from = Some(value().trim().to_lowercase()).filter(|f| !f.is_empty());
            }
        }
        // The one that is answered stands last in References, and in In-Reply-To alone where there are none.
        marks.answers.extend(parents.into_iter().take(1));
        let skip = marks.answers.len().saturating_sub(MAX_ANSWERS);
        marks.answers.drain(..skip);
        marks
    }
}

/// The identifiers in a field, brackets included.
fn ids(value: &str) -> Vec<String> {
    value
        .split_inclusive('>')
        .filter_map(|part| part.find('<').map(|at| part[at..].split_whitespace().collect::<String>()))
        .filter(|id| id.ends_with('>'))
        .collect()
}

/// A subject without the marks of answers and forwarded mail, in small letters.
fn subject(value: &str) -> String {
    let mut rest = value.trim();
    while let Some((mark, behind)) = rest.split_once(':') {
        if mark.is_empty() || mark.chars().count() > 4 || !mark.chars().all(char::is_alphabetic) {
            break;
        }
        rest = behind.trim_start();
    }
    rest.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(id: &str, from: &str, subject: &str, more: &str) -> Vec<u8> {
        format!("Message-ID: <{id}@x>\r\nFrom: {from}\r\nSubject: {subject}\r\n{more}\r\ntext of {id}\r\n").into_bytes()
    }

    #[test]
    fn the_parent_comes_last_and_before_it_its_thread_and_then_what_the_same_sender_wrote() {
        let mails = [
            mail("old", "Ann <a@x>", "Stores", ""),
            mail("root", "Bob <b@x>", "Fuel", ""),
            mail("noise", "Cid <c@x>", "Weather", ""),
            mail("parent", "Bob <b@x>", "AW: Fuel", "References: <root@x>\r\n"),
            mail("new", "ann <A@x>", "Charts", ""),
        ];
        let texts: Vec<&[u8]> = mails.iter().map(Vec::as_slice).collect();
        let reply = mail(
            "r",
            "Ann <a@x>",
            "RE: AW: Fuel",
            "References: <root@x>\r\n <parent@x>\r\nIn-Reply-To: <parent@x>\r\n",
        );
        assert_eq!(choose(&reply, &texts), [0, 4, 1, 3]);
        let unrelated = mail("u", "Dan <d@x>", "Nothing", "");
        assert_eq!(choose(&unrelated, &texts), [0; 0]);
        let subject_alone = mail("s", "Dan <d@x>", "Re: fuel", "");
        assert_eq!(choose(&subject_alone, &texts), [1, 3]);
        assert_eq!(choose(&reply, &[]), [0; 0]);
        let many: Vec<&[u8]> = vec![&mails[0]; 9];
        assert_eq!(choose(&reply, &many), [5, 6, 7, 8]);
    }

    #[test]
    fn what_is_kept_of_a_message_is_its_header_and_its_text() {
        let plain = mail("p", "Ann <a@x>", "Stores", "");
        assert_eq!(text_of(&plain), plain);
        let coded = b"Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\
            Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe an alle an Bord und an Land\r\n--b\r\n\
            Content-Type: application/x-thing\r\nContent-Transfer-Encoding: base64\r\n\r\n\
            AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4v\r\n--b--\r\n";
        let text = text_of(coded);
        let expected = "Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\
            Content-Transfer-Encoding: quoted-printable\r\n\r\nGrüße an alle an Bord und an Land\r\n--b\r\n\
            Content-Type: application/x-thing\r\nContent-Transfer-Encoding: base64\r\n\r\n\r\n--b--\r\n";
        assert_eq!(String::from_utf8_lossy(&text), expected);
        assert_eq!(text_of(&vec![b'x'; 100_000]).len(), MAX_TEXT_BYTES);
    }

    #[test]
    fn names_tell_who_sent_what_apart() {
        assert_eq!(Name::new(false, 0x1_8005).to_bytes(), [0x00, 0x05]);
        assert_eq!(Name::new(true, 5).to_bytes(), [0x80, 0x05]);
        assert_eq!(Name::from_bytes([0x80, 0x05]), Name::new(true, 0x8005));
    }

    #[test]
    fn subjects_lose_their_marks_and_nothing_else() {
        for (given, kept) in [
            ("Re: Fwd: A  b", "a b"),
            ("AW:x", "x"),
            ("Report: fuel", "report: fuel"),
            (" : x", ": x"),
            ("Re:", ""),
            ("é: y", "y"),
        ] {
            assert_eq!(subject(given), kept, "{given}");
        }
        assert_eq!(ids(" <a@x>\r\n <b@\r\n x> junk <c"), ["<a@x>", "<b@x>"]);
    }
}
