//! A message as one next hop can take it: re-coded where that is allowed, with the parameters the hop knows, or why it cannot go.

use std::borrow::Cow;
use std::sync::Arc;

use super::super::{command, header, seven_bit, trace};
use super::{Delivery, Extensions, RecipientResult};
use crate::mail::{BodyKind, ByMode, DeliverBy, Mailbox, Recipient, Ret, Status};

/// A message as one hop gets it.
pub struct Fitted {
    pub content: Arc<[u8]>,
    pub mail: String,
    /// By BDAT, octet for octet.
    pub binary: bool,
}

/// Turns a message into what the hop can take, or says why that is impossible.
pub fn fit(delivery: &Delivery, offered: Extensions) -> Result<Fitted, (Status, String)> {
    let envelope = &delivery.envelope;
    let mut content: Cow<'_, [u8]> = Cow::Borrowed(&delivery.body);
    let utf8_sender = envelope.from.as_ref().is_some_and(Mailbox::is_utf8);
    let utf8_header = !content.get(..header::end(&content)).unwrap_or_default().is_ascii();
    if !offered.smtputf8 {
        if utf8_sender {
            return Err((Status(5, 6, 7), "the sender's address needs SMTPUTF8, which the next hop lacks".to_owned()));
        }
        if envelope.smtputf8 && utf8_header {
            return Err((Status(5, 6, 9), "the header needs SMTPUTF8, which the next hop lacks".to_owned()));
        }
    }
    if envelope.from.as_ref().is_some_and(|m| command::mailbox(m.as_str(), true).is_none()) {
        return Err((Status(5, 1, 7), "malformed sender address".to_owned()));
    }
    let binary = envelope.body == BodyKind::BinaryMime && offered.binary_mime;
    if envelope.body == BodyKind::BinaryMime && !binary {
        let lines = seven_bit::without_binary(&content, offered.eight_bit_mime);
        content = lines.map_err(|why| (Status(5, 6, 3), why.text().to_owned()))?.into();
    }
    if !offered.mt_priority
        && let Cow::Owned(changed) = trace::priority_for_plain_hop(&content, envelope.mt_priority)
    {
        content = changed.into();
    }
    let eight_bit = !content.is_ascii();
    if eight_bit && !offered.eight_bit_mime && !binary {
        content = seven_bit::convert(&content).map_err(|why| (Status(5, 6, 3), why.text().to_owned()))?.into();
    }
    let size = content.len() as u64;
    if let Some(limit) = offered.size_limit.filter(|limit| size > *limit) {
        return Err((Status(5, 3, 4), format!("larger than the {limit} octets the next hop takes")));
    }
    let mut mail = format!("MAIL FROM:<{}>", envelope.from.as_ref().map_or("", Mailbox::as_str));
    if offered.size {
        mail.push_str(&format!(" SIZE={size}"));
    }
    if binary {
        mail.push_str(" BODY=BINARYMIME");
    } else if offered.eight_bit_mime && (eight_bit || envelope.body == BodyKind::EightBitMime) {
        mail.push_str(" BODY=8BITMIME");
    }
    if offered.smtputf8 && (envelope.smtputf8 || utf8_sender || envelope.recipients.iter().any(|r| r.address.is_utf8()))
    {
        mail.push_str(" SMTPUTF8");
    }
    if offered.dsn {
        match envelope.ret {
            Some(Ret::Full) => mail.push_str(" RET=FULL"),
            Some(Ret::Headers) => mail.push_str(" RET=HDRS"),
            None => {}
        }
        if let Some(envid) = envelope.envid.as_deref().filter(|e| command::is_xtext(e)) {
            mail.push_str(&format!(" ENVID={envid}"));
            // Who asks after the message names it by its ENVID.
            if let Some(tracking) = delivery.tracking.as_deref().filter(|_| offered.mtrk) {
                mail.push_str(&format!(" MTRK={tracking}"));
            }
        }
    }
    if let (true, Some(value)) = (offered.mt_priority, envelope.mt_priority) {
        mail.push_str(&format!(" MT-PRIORITY={value}"));
    }
    if envelope.require_tls && offered.require_tls {
        mail.push_str(" REQUIRETLS");
    }
    if let (Some(by), Some(seconds)) = (envelope.deliver_by, delivery.by_seconds) {
        mail.push_str(&by_parameter(by, seconds, offered)?);
    }
    let content = match content {
        Cow::Borrowed(_) => Arc::clone(&delivery.body),
        Cow::Owned(bytes) => bytes.into(),
    };
    Ok(Fitted { content, mail, binary })
}

/// RFC 2852 4: mode R only goes where it can be kept, mode N goes anywhere.
fn by_parameter(by: DeliverBy, seconds: i64, offered: Extensions) -> Result<String, (Status, String)> {
    let trace = if by.trace { "T" } else { "" };
    let seconds = seconds.clamp(-999_999_999, 999_999_999);
    match (by.mode, offered.deliver_by) {
        (ByMode::Return, _) if seconds <= 0 => Err((Status(5, 4, 7), "delivery time expired".to_owned())),
        (ByMode::Return, Some(least)) if seconds >= i64::from(least) => Ok(format!(" BY={seconds};R{trace}")),
        (ByMode::Return, _) => Err((Status(5, 4, 4), "the next hop cannot keep the delivery time".to_owned())),
        (ByMode::Notify, Some(_)) => Ok(format!(" BY={seconds};N{trace}")),
        (ByMode::Notify, None) => Ok(String::new()),
    }
}

/// Why an address cannot be given to this hop, if so.
pub fn misfit(address: &Mailbox, offered: Extensions) -> Option<RecipientResult> {
    let permanent = |status, text: &str| Some(RecipientResult::Permanent { status, text: text.to_owned() });
    let postmaster = address.as_str().eq_ignore_ascii_case("postmaster");
    if !postmaster && command::mailbox(address.as_str(), true).is_none() {
        return permanent(Status(5, 1, 3), "malformed recipient address");
    }
    if address.is_utf8() && !offered.smtputf8 {
        return permanent(Status(5, 6, 7), "the recipient's address needs SMTPUTF8, which the next hop lacks");
    }
    None
}

pub fn rcpt_line(recipient: &Recipient, offered: Extensions) -> String {
    let mut line = format!("RCPT TO:<{}>", recipient.address);
    if !offered.dsn {
        return line;
    }
    if let Some(notify) = recipient.notify {
        line.push_str(&format!(" NOTIFY={}", notify.words()));
    }
    if let Some(orcpt) = recipient.orcpt.as_deref().filter(|o| command::is_orcpt(o, offered.smtputf8)) {
        line.push_str(&format!(" ORCPT={orcpt}"));
    }
    line
}
