//! A part that was held back, as a message of its own.

use super::{header, matches_any, mime};
use crate::mail::MessageId;
use crate::time::Wall;

/// Fields of the original that go with its part: who writes to whom, and how it is to be handled.
const KEPT: &[&str] = &["Cc", "From", "Importance", "MMHS-*", "Reply-To", "Sensitivity", "SIO-*", "To", "X-Priority"];

/// What the address of a request begins with.
const ASK: &str = "fetch+";

/// The address to which whoever wants a part of a message writes.
pub fn address(message: MessageId, part: usize, domain: &str) -> String {
    format!("{ASK}{message}.{part}@{domain}")
}

/// The message and its part that mail to this local part asks for.
pub fn asked(local: &str) -> Option<(MessageId, u32)> {
    let start = local.get(..ASK.len()).filter(|start| start.eq_ignore_ascii_case(ASK))?;
    let (message, part) = local[start.len()..].split_once('.')?;
    Some((MessageId::parse(message)?, part.parse().ok()?))
}

/// The message a part is taken from, and who takes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Original<'a> {
    /// Its bytes.
    pub message: &'a [u8],
    /// Address of whoever sends the part.
    pub sender: &'a str,
    /// The new message's id, without brackets.
    pub message_id: &'a str,
    /// When.
    pub at: Wall,
}

/// The part of this number as a message: header fields of the original, and the part's own header and content as they were.
pub fn fetch(original: &Original<'_>, number: usize) -> Result<Vec<u8>, String> {
    let message = original.message;
    let Some(tree) = mime::read(message) else { return Err("the message has no parts that can be told apart".into()) };
    let leaves = tree.leaves();
    let Some(part) = leaves.iter().find(|p| p.number == number).filter(|_| tree.is_multipart()) else {
        return Err(format!("the message has no part {number}; its parts are 1 to {}", leaves.len()));
    };
    let mut out = Vec::new();
    let mut put = |text: &str| out.extend_from_slice(text.as_bytes());
    put(&format!("Sender: <{}>\r\nDate: {}\r\n", original.sender, original.at.rfc5322()));
    put(&format!("Message-ID: <{}>\r\n", original.message_id));
    if let Some(id) = header::message_id(message) {
        put(&format!("In-Reply-To: {id}\r\nReferences: {id}\r\n"));
    }
    let subject = header::fields(message).find(|f| f.is("Subject"));
    put(&format!("Subject: [part {number} of {}]", leaves.len()));
    out.extend_from_slice(subject.map_or(&b""[..], |f| &message[f.value]));
    out.extend_from_slice(b"\r\n");
    for field in header::fields(message).filter(|f| matches_any(f.name, KEPT)) {
        out.extend_from_slice(message[field.raw].trim_ascii_end());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"MIME-Version: 1.0\r\n");
    let head = &message[part.whole.start..part.content.start];
    for field in header::fields(head).filter(|f| matches_any(f.name, &["Content-*"])) {
        out.extend_from_slice(head[field.raw].trim_ascii_end());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&message[part.content.clone()]);
    out.extend_from_slice(b"\r\n");
    Ok(out)
}
