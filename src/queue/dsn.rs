//! Delivery status notifications: who is told what, and the report as bytes.
//!
//! [`accept`](super::accept()) and [`outcome`](super::outcome) state what is due as a [`Report`]; the switch loads as much of the
//! subject's body as [`Report::returns`] asks for, calls [`build`], and lets the resulting [`Submission`] enter
//! [`accept`](super::accept()) like any other mail, in the same batch as the outcome it tells of. A message from `<>` never causes
//! one; what fails of it is told to the postmaster, by mail that can cause nothing further: it is from `<>`, with NOTIFY=NEVER. Clauses: RFC 3461 (who and when), RFC 3464 (format), RFC 6522 (multipart/report), RFC 6533 (UTF-8 forms), RFC 2852
//! (deliver-by), RFC 3834 (Auto-Submitted), RFC 6710 section 4.6 (a report has the priority of its subject).

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use super::record::MessageRecord;
use crate::mail::{
    BodyKind, DeliverBy, Envelope, Mailbox, MessageId, MtPriority, Notify, PeerName, Precedence, Receipt, Recipient,
    Release, Ret, Source, Status, Submission, Taken, header, original_recipient, unxtext,
};
use crate::time::{Now, Wall};

/// Most bytes of a subject's header that go back.
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// Most bytes of a field value that came from elsewhere.
const MAX_VALUE_BYTES: usize = 800;

/// RFC 3464 action.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Action {
    /// It will not be delivered by us.
    Failed,
    /// Not yet delivered; we go on.
    Delayed,
    /// In the mailbox.
    Delivered,
    /// Passed to a system that sends no reports.
    Relayed,
    /// Went on to several addresses behind an alias.
    Expanded,
}

impl Action {
    const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
            Self::Expanded => "expanded",
        }
    }
}

/// Whether a recipient with this NOTIFY gets a report of `action`. NOTIFY not given leads to the same reports as
/// FAILURE,DELAY; the two differ only in what is passed to the next hop.
pub const fn wants(notify: Option<Notify>, action: Action) -> bool {
    match (notify, action) {
        (None, Action::Failed | Action::Delayed) => true,
        (None, Action::Delivered | Action::Relayed | Action::Expanded) => false,
        (Some(n), Action::Failed) => n.failure,
        (Some(n), Action::Delayed) => n.delay,
        (Some(n), Action::Delivered | Action::Relayed | Action::Expanded) => n.success,
    }
}

/// What lies behind an action, for the words a person reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The next system refused, or no route exists.
    Refused,
    /// The lifetime or the deliver-by time ended.
    Expired,
    /// Sent over the air, but nobody confirmed before the lifetime ended.
    Unconfirmed,
    /// An operator cancelled it.
    Cancelled,
    /// Still trying.
    Waiting,
    /// Somebody took it.
    Taken,
}

/// One recipient of a report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// The address as in the envelope.
    pub address: Mailbox,
    /// ORCPT as given.
    pub orcpt: Option<String>,
    /// What happened.
    pub action: Action,
    /// Why.
    pub cause: Cause,
    /// RFC 3463 code.
    pub status: Status,
    /// The other system.
    pub remote: Option<String>,
    /// Its words, or ours.
    pub diagnostic: Option<String>,
    /// When it was last tried.
    pub last_attempt: Option<Wall>,
    /// Until when we go on; delayed only.
    pub retry_until: Option<Wall>,
}

impl Line {
    /// What a receipt says of one recipient, as a report says it.
    pub fn taken(recipient: &Recipient, receipt: &Receipt) -> Self {
        let Taken { relayed, status, by } = receipt.taken.clone();
        Self {
            address: recipient.address.clone(),
            orcpt: recipient.orcpt.clone(),
            action: if relayed { Action::Relayed } else { Action::Delivered },
            cause: Cause::Taken,
            status,
            remote: by,
            diagnostic: None,
            last_attempt: Some(receipt.at),
            retry_until: None,
        }
    }

    /// The receipt, of the first recipient, that says all that this says; `None` where none does.
    fn receipt(&self) -> Option<Receipt> {
        let relayed = match self.action {
            Action::Delivered => false,
            Action::Relayed => true,
            Action::Failed | Action::Delayed | Action::Expanded => return None,
        };
        let taken = Taken { relayed, status: self.status, by: self.remote.clone() };
        let silent = self.cause == Cause::Taken && self.diagnostic.is_none() && self.retry_until.is_none();
        let at = Receipt::time(self.last_attempt.and_then(Receipt::minute)?);
        (silent && taken.can_be_told()).then_some(Receipt { recipient: 0, taken, at })
    }
}

/// A notification that is due: what to tell about one message, to its sender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The subject.
    pub message: MessageId,
    /// Who gets the report: its sender, or the postmaster where that is `<>`.
    pub to: Mailbox,
    /// It is for the postmaster, because the subject is from `<>`.
    pub for_postmaster: bool,
    /// Who handed the subject in, as Received-From-MTA names it.
    pub received_from: Option<String>,
    /// ENVID as given.
    pub envid: Option<String>,
    /// RET as given.
    pub ret: Option<Ret>,
    /// BODY of the subject.
    pub body: BodyKind,
    /// Whether the subject was sent with SMTPUTF8: then the report may be too.
    pub smtputf8: bool,
    /// Whether the subject asked for protection: the report asks too, and returns no content (RFC 8689 5).
    pub require_tls: bool,
    /// Level of service of the subject, and so of the report.
    pub precedence: Precedence,
    /// Number the subject carries, and so the report.
    pub mt_priority: Option<MtPriority>,
    /// Deliver-by time of the subject.
    pub deliver_by: Option<DeliverBy>,
    /// When the subject was accepted here.
    pub arrival: Wall,
    /// The release its sender asked for (RFC 4865).
    pub release: Option<Release>,
    /// Bytes of the subject.
    pub size_bytes: u64,
    /// Who it is about.
    pub lines: Vec<Line>,
    /// Whether a neighbour could build it as well, as far as the queue knows: what becomes the report's source.
    pub source: Source,
    /// The neighbour that told it, where this node only puts its words into form.
    pub teller: Option<Teller>,
}

/// A neighbour whose words a report puts into form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Teller {
    /// Its name.
    pub peer: PeerName,
    /// Tells this report from others of the same minute about the same message; an atom of a Message-ID.
    pub reference: String,
}

/// How much of its subject a report returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Returned {
    /// All of it.
    Full,
    /// The header.
    Headers,
}

/// Who reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reporter {
    /// This node's name in mail.
    pub hostname: String,
    /// Who answers questions; the From of reports.
    pub postmaster: Mailbox,
    /// Largest message returned whole when RET=FULL asks for it; larger ones go back by their header.
    pub full_bytes: u64,
}

impl Report {
    /// The report about `record`, or `None` when there is nothing to tell or nobody to tell it to.
    pub fn about(record: &MessageRecord, lines: Vec<Line>) -> Option<Self> {
        let envelope = &record.envelope;
        let to = envelope.from.clone()?;
        (!lines.is_empty()).then(|| Self::of(record, to, lines))
    }

    /// The report to the postmaster about what failed of a message from `<>`, or `None` when nothing did.
    pub fn for_postmaster(record: &MessageRecord, reporter: &Reporter, lines: Vec<Line>) -> Option<Self> {
        let report = |lines| Self { for_postmaster: true, ..Self::of(record, reporter.postmaster.clone(), lines) };
        (!lines.is_empty()).then(|| report(lines))
    }

    fn of(record: &MessageRecord, to: Mailbox, lines: Vec<Line>) -> Self {
        let envelope = &record.envelope;
        Self {
            message: record.id,
            to,
            for_postmaster: false,
            received_from: handed_in_by(&record.source),
            envid: envelope.envid.clone(),
            ret: envelope.ret,
            body: envelope.body,
            smtputf8: envelope.smtputf8,
            require_tls: envelope.require_tls,
            precedence: record.precedence,
            mt_priority: envelope.mt_priority,
            deliver_by: envelope.deliver_by,
            arrival: record.accepted,
            release: record.release,
            size_bytes: record.size_bytes,
            source: source(record, &lines),
            teller: None,
            lines,
        }
    }

    /// How much of the subject's body [`build`] needs. The whole only when RET=FULL was asked, a failure is among the lines
    /// (RFC 3461 section 4.3), it is text and within bounds: bandwidth to a ship is dear.
    pub fn returns(&self, reporter: &Reporter) -> Returned {
        let failure = self.lines.iter().any(|l| l.action == Action::Failed);
        let text = self.body != BodyKind::BinaryMime;
        if self.ret == Some(Ret::Full) && failure && text && !self.require_tls && self.size_bytes <= reporter.full_bytes
        {
            Returned::Full
        } else {
            Returned::Headers
        }
    }

    fn action(&self) -> Action {
        self.lines.iter().map(|l| l.action).min().unwrap_or(Action::Failed)
    }
}

/// Writes a report as a message from `<>`. `subject` is the subject's body, whole or at least its header; when the store could
/// not give it, an empty slice, and the report goes without its third part.
pub fn build(now: Now, reporter: &Reporter, report: &Report, subject: &[u8]) -> Submission {
    let global = report.smtputf8;
    let returned = returned_part(reporter, report, subject);
    let status = delivery_status(reporter, report);
    let text = explanation(reporter, report);
    let boundary = boundary(report.message, &[text.as_bytes(), status.as_bytes(), returned.bytes]);

    let mut head = String::new();
    let action = report.action();
    let _ = write!(
        head,
        "From: Mail Delivery System <{}>\r\nTo: <{}>\r\nSubject: {}\r\nDate: {}\r\n",
        clean(reporter.postmaster.as_str(), global),
        clean(report.to.as_str(), global),
        headline(action, report),
        now.wall.rfc5322()
    );
    let reference = report.teller.as_ref().map(|t| format!(".{}", t.reference)).unwrap_or_default();
    let _ = write!(
        head,
        "Message-ID: <{:x}.{}.{}{reference}@{}>\r\n",
        now.wall.0,
        report.message,
        action.name(),
        reporter.hostname
    );
    if let Some(id) = header::message_id(subject).filter(|id| id.is_ascii() && id.len() < 250) {
        let _ = write!(head, "In-Reply-To: {id}\r\n");
    }
    head.push_str("Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n");
    let _ = write!(
        head,
        "Content-Type: multipart/report; report-type={};\r\n\tboundary=\"{boundary}\"\r\n\r\n",
        if global { "global-delivery-status" } else { "delivery-status" }
    );

    let mut out = head.into_bytes();
    let charset = if text.is_ascii() { "us-ascii" } else { "utf-8" };
    part(&mut out, &boundary, &format!("text/plain; charset={charset}"), text.as_bytes());
    let kind = if global { "message/global-delivery-status" } else { "message/delivery-status" };
    part(&mut out, &boundary, kind, status.as_bytes());
    if !returned.bytes.is_empty() {
        part(&mut out, &boundary, returned.kind, returned.bytes);
    }
    out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());

    let body = if out.is_ascii() { BodyKind::SevenBit } else { BodyKind::EightBitMime };
    let to = Recipient::plain(report.to.clone());
    // What cannot be told to the postmaster either is told to nobody.
    let notify = report.for_postmaster.then_some(Notify::NEVER);
    Submission {
        envelope: Envelope {
            from: None,
            recipients: vec![Recipient { notify, ..to }],
            envid: None,
            ret: None,
            mt_priority: report.mt_priority,
            body,
            smtputf8: global,
            require_tls: report.require_tls,
            deliver_by: None,
            expires: Wall::NEVER,
            auth: None,
        },
        precedence: report.precedence,
        source: report.source.clone(),
        body: Arc::from(out),
    }
}

/// RFC 3464 2.2.4. What a client calls itself is not kept; its address is.
fn handed_in_by(source: &Source) -> Option<String> {
    match source {
        Source::Smtp { address: Some(IpAddr::V4(address)), .. } => Some(format!("dns; [{address}]")),
        Source::Smtp { address: Some(IpAddr::V6(address)), .. } => Some(format!("dns; [IPv6:{address}]")),
        Source::Bearer { peer, .. } => Some(format!("x-aldis; {peer}")),
        Source::Smtp { address: None, .. } | Source::Switch | Source::Receipts { .. } => None,
    }
}

/// A report that somebody took the message says nothing but who and when to a neighbour that knows the message.
fn source(record: &MessageRecord, lines: &[Line]) -> Source {
    let Source::Bearer { peer, transfer, .. } = &record.source else { return Source::Switch };
    if record.expanded {
        // The neighbour knows other recipients, in another order.
        return Source::Switch;
    }
    let mut places: Vec<(u32, &Recipient)> = (0..).zip(&record.envelope.recipients).collect();
    let receipt = |line: &Line| {
        let of = |(_, r): &(u32, &Recipient)| {
            r.address == line.address && r.orcpt == line.orcpt && wants(r.notify, Action::Delivered)
        };
        let place = places.iter().position(of)?;
        Some(Receipt { recipient: places.remove(place).0, ..line.receipt()? })
    };
    match lines.iter().map(receipt).collect::<Option<Vec<Receipt>>>() {
        Some(receipts) => Source::Receipts { peer: peer.clone(), transfer: transfer.clone(), receipts },
        None => Source::Switch,
    }
}

struct ReturnedPart<'a> {
    kind: &'static str,
    bytes: &'a [u8],
}

fn returned_part<'a>(reporter: &Reporter, report: &Report, subject: &'a [u8]) -> ReturnedPart<'a> {
    let whole = u64::try_from(subject.len()) == Ok(report.size_bytes);
    match (report.returns(reporter), report.smtputf8) {
        (Returned::Full, true) if whole => ReturnedPart { kind: "message/global", bytes: subject },
        (Returned::Full, false) if whole => ReturnedPart { kind: "message/rfc822", bytes: subject },
        (Returned::Full | Returned::Headers, true) => {
            ReturnedPart { kind: "message/global-headers", bytes: header_of(subject) }
        }
        (Returned::Full | Returned::Headers, false) => {
            ReturnedPart { kind: "text/rfc822-headers", bytes: header_of(subject) }
        }
    }
}

/// The header with its empty line; a very long one is cut behind a whole field.
fn header_of(subject: &[u8]) -> &[u8] {
    let end = header::header_end(subject);
    if end <= MAX_HEADER_BYTES {
        return &subject[..end];
    }
    let cut = header::fields(subject).map(|f| f.raw.end).take_while(|at| *at <= MAX_HEADER_BYTES).last();
    &subject[..cut.unwrap_or(0)]
}

fn part(out: &mut Vec<u8>, boundary: &str, kind: &str, bytes: &[u8]) {
    out.extend_from_slice(format!("--{boundary}\r\nContent-Type: {kind}\r\n").as_bytes());
    if !bytes.is_ascii() {
        out.extend_from_slice(b"Content-Transfer-Encoding: 8bit\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// A boundary that occurs in none of the parts, the same for the same report.
fn boundary(message: MessageId, parts: &[&[u8]]) -> String {
    let mut n = 0_u64;
    loop {
        let candidate = format!("=_{message}_{n:x}");
        let needle = candidate.as_bytes();
        if !parts.iter().any(|p| p.windows(needle.len()).any(|w| w == needle)) {
            return candidate;
        }
        n += 1;
    }
}

fn delivery_status(reporter: &Reporter, report: &Report) -> String {
    let global = report.smtputf8;
    let mut out = String::new();
    if let Some(envid) = &report.envid {
        field(&mut out, "Original-Envelope-Id", &unxtext(envid), global);
    }
    let reporting = match &report.teller {
        None => format!("dns; {}", reporter.hostname),
        Some(teller) => format!("x-aldis; {}", teller.peer),
    };
    field(&mut out, "Reporting-MTA", &reporting, global);
    if report.teller.is_some() {
        // Put into this form here, of words that came over the air (RFC 3464, 2.2.3).
        field(&mut out, "DSN-Gateway", &format!("dns; {}", reporter.hostname), global);
    }
    if let Some(from) = &report.received_from {
        field(&mut out, "Received-From-MTA", from, global);
    }
    field(&mut out, "Arrival-Date", &report.arrival.rfc5322(), global);
    if let Some(release) = report.release {
        field(&mut out, "Future-Release-Request", &release.field(), global);
    }
    if let Some(by) = report.deliver_by {
        field(&mut out, "Deliver-By-Date", &by.deadline.rfc5322(), global);
    }
    for line in &report.lines {
        out.push_str("\r\n");
        if let Some(original) = line.orcpt.as_deref().and_then(original_recipient) {
            field(&mut out, "Original-Recipient", &original, global);
        }
        field(&mut out, "Final-Recipient", &typed_address(&line.address, global), global);
        field(&mut out, "Action", line.action.name(), global);
        field(&mut out, "Status", &line.status.to_string(), global);
        if let Some(remote) = &line.remote {
            field(&mut out, "Remote-MTA", &format!("dns; {remote}"), global);
        }
        if let Some(text) = &line.diagnostic {
            let kind = if text.as_bytes().first_chunk::<3>().is_some_and(|c| c.iter().all(u8::is_ascii_digit)) {
                "smtp"
            } else {
                "x-aldis"
            };
            field(&mut out, "Diagnostic-Code", &format!("{kind}; {text}"), global);
        }
        if let Some(at) = line.last_attempt {
            field(&mut out, "Last-Attempt-Date", &at.rfc5322(), global);
        }
        if report.teller.is_none() {
            field(&mut out, "Final-Log-Id", &report.message.to_string(), global);
        }
        if let (Action::Delayed, Some(until)) = (line.action, line.retry_until) {
            field(&mut out, "Will-Retry-Until", &until.rfc5322(), global);
        }
    }
    out
}

fn field(out: &mut String, name: &str, value: &str, global: bool) {
    let _ = write!(out, "{name}: {}\r\n", clean(value, global));
}

/// RFC 6533 section 3: a non-ASCII address has type utf-8, in clear where UTF-8 may stand, else as `\x{..}`.
fn typed_address(address: &Mailbox, global: bool) -> String {
    if !address.is_utf8() {
        return format!("rfc822; {address}");
    }
    if global {
        return format!("utf-8; {address}");
    }
    let mut out = String::from("utf-8; ");
    for c in address.as_str().chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            let _ = write!(out, "\\x{{{:X}}}", u32::from(c));
        }
    }
    out
}

/// Text from elsewhere on one line, within bounds, and without what the part may not hold.
fn clean(text: &str, global: bool) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_VALUE_BYTES));
    for c in text.chars() {
        let c = match c {
            c if c.is_control() => ' ',
            c if !c.is_ascii() && !global => '?',
            c => c,
        };
        if out.len() + c.len_utf8() > MAX_VALUE_BYTES {
            break;
        }
        out.push(c);
    }
    out.trim().to_string()
}

fn headline(action: Action, report: &Report) -> String {
    let what = match action {
        Action::Failed => "NOT DELIVERED",
        Action::Delayed => "Delayed, still being sent",
        Action::Delivered => "Delivered",
        Action::Relayed => "Relayed",
        Action::Expanded => "Delivered to a list",
    };
    let whose = if report.for_postmaster { "a message without a sender," } else { "your message" };
    format!("{what}: {whose} of {}", report.arrival.dtg())
}

/// The part a person reads: what happened to whom, in UTC, and what to do next.
fn explanation(reporter: &Reporter, report: &Report) -> String {
    let global = report.smtputf8;
    let mut out = String::new();
    let _ = write!(
        out,
        "This is the mail switch {}.\r\n\r\n{} was accepted here at {} (number {}, precedence {}).\r\nAll times are UTC.\r\n",
        clean(&reporter.hostname, global),
        if report.for_postmaster { "A message from <>, such as a report," } else { "Your message" },
        report.arrival.dtg(),
        report.message,
        report.precedence
    );
    if let Some(teller) = &report.teller {
        let _ = write!(out, "Node {} reports:\r\n", clean(&teller.peer.to_string(), global));
    }
    for line in &report.lines {
        let _ = write!(out, "\r\n  {}\r\n", clean(line.address.as_str(), global));
        for sentence in sentences(line, report.for_postmaster) {
            let _ = write!(out, "    {}\r\n", clean(&sentence, global));
        }
    }
    if report.for_postmaster {
        out.push_str("\r\nIt has no sender who could be told, so that you are. Its header stands below.\r\n");
        return out;
    }
    let _ = write!(out, "\r\nQuestions: {}\r\n", clean(reporter.postmaster.as_str(), global));
    out
}

fn sentences(line: &Line, for_postmaster: bool) -> Vec<String> {
    let by = line.remote.as_deref().map_or(String::new(), |r| format!(" by {r}"));
    let mut out = match (line.action, line.cause) {
        (Action::Delayed, _) => vec![
            "Not delivered yet. It stays in the queue and is sent as soon as a way opens.".to_string(),
            match line.retry_until {
                Some(until) => format!("It is tried until {}. You need not send it again.", until.dtg()),
                None => "You need not send it again.".to_string(),
            },
        ],
        (Action::Delivered, _) => vec!["Delivered to the mailbox.".to_string()],
        (Action::Relayed, _) => vec![format!("Taken over{by}, which sends no confirmations of its own.")],
        (Action::Expanded, _) => vec!["Sent on to the members behind this address.".to_string()],
        (Action::Failed, Cause::Expired) => vec![
            "Not delivered: its time ran out before a way opened.".to_string(),
            "Send it again if it still matters, with a later deadline or a higher precedence.".to_string(),
        ],
        (Action::Failed, Cause::Unconfirmed) => vec![
            "It was sent over the air, but no acknowledgement came in time. It may have been delivered.".to_string(),
            "Ask the recipient before you send it again.".to_string(),
        ],
        (Action::Failed, Cause::Cancelled) => vec![
            "Cancelled by an operator of this switch.".to_string(),
            "Ask the operator before you send it again.".to_string(),
        ],
        (Action::Failed, Cause::Refused | Cause::Waiting | Cause::Taken) => vec![
            format!("Refused{by}. Nothing more will be tried."),
            "Check the address and the reason below, then send it again.".to_string(),
        ],
    };
    if for_postmaster {
        // What its sender should do next is nobody's affair here.
        out.truncate(1);
    }
    if let Some(words) = &line.diagnostic {
        out.push(format!("Reason given: {words}"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::ByMode;

    #[test]
    fn notify_table_of_the_profile() {
        let n = |success, failure, delay| Some(Notify { success, failure, delay });
        for (notify, failed, delayed, success) in [
            (None, true, true, false),
            (Some(Notify::NEVER), false, false, false),
            (n(true, false, false), false, false, true),
            (n(false, true, false), true, false, false),
            (n(false, false, true), false, true, false),
            (n(true, true, true), true, true, true),
        ] {
            assert_eq!(wants(notify, Action::Failed), failed, "{notify:?}");
            assert_eq!(wants(notify, Action::Delayed), delayed, "{notify:?}");
            for action in [Action::Delivered, Action::Relayed, Action::Expanded] {
                assert_eq!(wants(notify, action), success, "{notify:?}");
            }
        }
    }

    #[test]
    fn a_failure_report_has_three_parts_with_every_field() {
        let out = text(&report(Some(Ret::Headers)), SUBJECT.as_bytes());
        for expected in [
            "From: Mail Delivery System <postmaster@ship.example>\r\n",
            "To: <ops@ship.example>\r\n",
            "Subject: NOT DELIVERED: your message of 231015Z NOV 26\r\n",
            "Date: Mon, 23 Nov 2026 11:00:00 +0000\r\n",
            "In-Reply-To: <1@ship.example>\r\n",
            "Auto-Submitted: auto-replied\r\n",
            "Content-Type: multipart/report; report-type=delivery-status;\r\n",
            "Content-Type: message/delivery-status\r\n\r\nOriginal-Envelope-Id: BS+1\r\nReporting-MTA: dns; ship.example\r\nReceived-From-MTA: dns; [192.0.2.9]\r\nArrival-Date: Mon, 23 Nov 2026 10:15:00 +0000\r\nDeliver-By-Date: Mon, 23 Nov 2026 14:15:00 +0000\r\n\r\n\
             Original-Recipient: rfc822; a+b=c@x\r\nFinal-Recipient: rfc822; cdr@redbase.example\r\nAction: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx.redbase.example\r\nDiagnostic-Code: smtp; 550 5.1.1 no such user\r\nLast-Attempt-Date: Mon, 23 Nov 2026 10:59:00 +0000\r\nFinal-Log-Id: 0000002A\r\n",
            "Content-Type: text/rfc822-headers\r\n\r\nMessage-ID: <1@ship.example>\r\nSubject: FUEL STATE\r\n\r\n",
        ] {
            assert!(out.contains(expected), "{expected:?} not in {out}");
        }
        assert!(!out.contains("FUEL 62"), "RET=HDRS returns no content");
        assert!(!out.contains("Will-Retry-Until"));
    }

    #[test]
    fn parts_are_what_a_mime_reader_finds() {
        let out = build(NOW, &reporter(), &report(Some(Ret::Full)), SUBJECT.as_bytes());
        let parsed = mail_parser::MessageParser::default().parse(&out.body[..]).expect("a message");
        assert_eq!(parsed.parts.len(), 4, "multipart and its three parts");
        let inner = parsed.attachments().find_map(mail_parser::MessagePart::message).expect("the returned message");
        assert_eq!(inner.subject(), Some("FUEL STATE"));
        assert_eq!(out.envelope.from, None);
        assert_eq!(out.source, Source::Switch);
        assert_eq!((out.precedence, out.envelope.mt_priority), (Precedence::Flash, MtPriority::new(3)));
        assert_eq!(out.envelope.body, BodyKind::SevenBit);
    }

    #[test]
    fn the_whole_subject_returns_only_for_a_failure_that_asked_for_it() {
        let full = |r: &Report| r.returns(&reporter()) == Returned::Full;
        assert!(full(&report(Some(Ret::Full))));
        assert!(!full(&report(None)), "headers by default: bandwidth is dear");
        assert!(!full(&report(Some(Ret::Headers))));
        let mut delayed = report(Some(Ret::Full));
        delayed.lines[0].action = Action::Delayed;
        assert!(!full(&delayed));
        let mut large = report(Some(Ret::Full));
        large.size_bytes = 1 << 30;
        assert!(!full(&large));
        let mut binary = report(Some(Ret::Full));
        binary.body = BodyKind::BinaryMime;
        assert!(!full(&binary));
        let mut protected = report(Some(Ret::Full));
        protected.require_tls = true;
        assert!(!full(&protected), "content that asked for protection does not come back");
        assert!(build(NOW, &reporter(), &protected, b"Subject: x\r\n\r\nb\r\n").envelope.require_tls);
    }

    #[test]
    fn what_nobody_can_be_told_the_postmaster_is_told_by_mail_that_causes_nothing() {
        let told = Report { to: reporter().postmaster, for_postmaster: true, ..report(None) };
        let out = build(NOW, &reporter(), &told, SUBJECT.as_bytes());
        assert_eq!(out.envelope.from, None);
        let to = &out.envelope.recipients[0];
        assert_eq!((to.address.as_str(), to.notify), ("postmaster@ship.example", Some(Notify::NEVER)));
        let out = text(&told, SUBJECT.as_bytes());
        assert!(out.contains("Subject: NOT DELIVERED: a message without a sender, of 231015Z NOV 26\r\n"), "{out}");
        assert!(out.contains("Status: 5.1.1\r\n") && out.contains("Reason given: 550 5.1.1 no such user"), "{out}");
        assert!(!out.contains("Your message") && !out.contains("send it again"), "{out}");
    }

    #[test]
    fn who_handed_a_message_in_is_named_as_far_as_it_is_known() {
        let smtp = |address: Option<&str>| Source::Smtp {
            listener: "relay".into(),
            address: address.map(|a| a.parse().expect("an address")),
            user: None,
        };
        for (source, want) in [
            (smtp(Some("192.0.2.9")), Some("dns; [192.0.2.9]")),
            (smtp(Some("2001:db8::9")), Some("dns; [IPv6:2001:db8::9]")),
            (smtp(None), None),
            (Source::Switch, None),
        ] {
            assert_eq!(handed_in_by(&source).as_deref(), want, "{source:?}");
        }
    }

    #[test]
    fn a_delay_report_says_until_when() {
        let mut r = report(None);
        r.lines[0].action = Action::Delayed;
        r.lines[0].cause = Cause::Waiting;
        r.lines[0].status = Status(4, 4, 1);
        r.lines[0].retry_until = Some(at("2026-11-28T10:15:00Z"));
        let out = text(&r, SUBJECT.as_bytes());
        assert!(out.contains("Action: delayed\r\nStatus: 4.4.1\r\n"));
        assert!(out.contains("Will-Retry-Until: Sat, 28 Nov 2026 10:15:00 +0000\r\n"));
        assert!(out.contains("It is tried until 281015Z NOV 26. You need not send it again."));
    }

    #[test]
    fn the_boundary_avoids_the_content() {
        let hostile = format!("Subject: x\r\n\r\n--=_{}_0\r\n--=_{}_1--\r\n", MessageId(42), MessageId(42));
        let mut r = report(Some(Ret::Full));
        r.size_bytes = hostile.len() as u64;
        let out = build(NOW, &reporter(), &r, hostile.as_bytes());
        let parsed = mail_parser::MessageParser::default().parse(&out.body[..]).expect("a message");
        assert_eq!(parsed.parts.len(), 4);
        assert!(String::from_utf8_lossy(&out.body).contains("boundary=\"=_0000002A_2\""));
    }

    #[test]
    fn foreign_words_cannot_add_fields() {
        let mut r = report(None);
        r.lines[0].diagnostic = Some(format!("550 no\r\nAction: delivered\r\n\r\nX: {}", "y".repeat(5000)));
        r.lines[0].orcpt = Some("rfc822;a+0D+0AAction:+20delivered".to_string());
        r.envid = Some("x+0Ay".to_string());
        r.lines[0].remote = Some("mx\r\nStatus: 2.0.0".to_string());
        let out = text(&r, b"");
        assert_eq!(out.matches("\r\nAction:").count(), 1);
        assert_eq!(out.matches("\r\nStatus:").count(), 1);
        assert!(out.lines().all(|l| l.len() < 998));
        assert!(!out.contains("text/rfc822-headers"), "no body, no third part");
    }

    #[test]
    fn eight_bit_headers_are_labelled() {
        let out = build(NOW, &reporter(), &report(None), b"Subject: caf\xc3\xa9\r\n\r\n");
        assert_eq!(out.envelope.body, BodyKind::EightBitMime);
        let out = String::from_utf8_lossy(&out.body).into_owned();
        assert!(out.contains("Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"), "{out}");
    }

    #[test]
    fn utf8_addresses_take_the_forms_of_6533() {
        let mut r = report(None);
        r.smtputf8 = true;
        r.lines[0].address = Mailbox::new("käpt'n@redbase.example");
        r.lines[0].orcpt = Some("utf-8;k\\x{E4}pt'n@redbase.example".to_string());
        let out = build(NOW, &reporter(), &r, "Subject: ä\r\n\r\n".as_bytes());
        assert!(out.envelope.smtputf8);
        let out = String::from_utf8_lossy(&out.body).into_owned();
        assert!(out.contains("report-type=global-delivery-status;"));
        assert!(out.contains("Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n"));
        assert!(out.contains("Final-Recipient: utf-8; käpt'n@redbase.example\r\n"));
        assert!(out.contains("Original-Recipient: utf-8; k\\x{E4}pt'n@redbase.example\r\n"));
        assert!(out.contains("Content-Type: message/global-headers\r\n"));
        r.smtputf8 = false;
        let out = text(&r, b"");
        assert!(out.is_ascii() && out.contains("Final-Recipient: utf-8; k\\x{E4}pt'n@redbase.example\r\n"));
    }

    const SUBJECT: &str = "Message-ID: <1@ship.example>\r\nSubject: FUEL STATE\r\n\r\nFUEL 62 PCT.\r\n";
    const NOW: Now = Now { at: crate::time::Instant::ZERO, wall: Wall::from_seconds(1_795_431_600), set: true };

    fn at(text: &str) -> Wall {
        Wall::parse_rfc3339(text).expect("a time")
    }

    fn reporter() -> Reporter {
        Reporter {
            hostname: "ship.example".into(),
            postmaster: Mailbox::new("postmaster@ship.example"),
            full_bytes: 64 * 1024,
        }
    }

    fn report(ret: Option<Ret>) -> Report {
        Report {
            message: MessageId(42),
            to: Mailbox::new("ops@ship.example"),
            for_postmaster: false,
            received_from: Some("dns; [192.0.2.9]".into()),
            envid: Some("BS+2B1".into()),
            ret,
            body: BodyKind::SevenBit,
            smtputf8: false,
            require_tls: false,
            precedence: Precedence::Flash,
            mt_priority: MtPriority::new(3),
            deliver_by: Some(DeliverBy { deadline: at("2026-11-23T14:15:00Z"), mode: ByMode::Return, trace: false }),
            arrival: at("2026-11-23T10:15:00Z"),
            release: None,
            size_bytes: SUBJECT.len() as u64,
            lines: vec![Line {
                address: Mailbox::new("cdr@redbase.example"),
                orcpt: Some("rfc822;a+2Bb+3Dc@x".into()),
                action: Action::Failed,
                cause: Cause::Refused,
                status: Status(5, 1, 1),
                remote: Some("mx.redbase.example".into()),
                diagnostic: Some("550 5.1.1 no such user".into()),
                last_attempt: Some(at("2026-11-23T10:59:00Z")),
                retry_until: None,
            }],
            source: Source::Switch,
            teller: None,
        }
    }

    fn text(report: &Report, subject: &[u8]) -> String {
        String::from_utf8(build(NOW, &reporter(), report, subject).body.to_vec()).expect("text")
    }
}
