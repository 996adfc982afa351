//! The server side of one SMTP or LMTP connection.
//!
//! A listener's connection task makes a [`Session`], feeds it bytes and deadlines, writes what `poll_transmit` yields and answers
//! its questions. The session decides nothing but syntax, order and the static [`Policy`]; whether a password fits, a sender may
//! send or a recipient exists it asks, and the queue's commit stands behind the answer to [`Question::End`].
//!
//! After each call drain `poll_transmit`, then `poll_event`: bytes that precede a STARTTLS or a close are then already written.
//! One question is open at a time; what a pipelining client sends meanwhile is held, so replies keep their order. While
//! [`Session::wants_input`] is false the driver should stop reading.
//!
//! RFC 5321 4 (order), 2033 (LMTP), 2920 (PIPELINING), 3030 (CHUNKING), 3207 (STARTTLS), 4954 (AUTH), 6710 (MT-PRIORITY).
//! Mechanisms of AUTH: PLAIN (4616), EXTERNAL (4422 A), SCRAM-SHA-256 with and without channel binding ([`scram`]).

use std::collections::VecDeque;
use std::sync::Arc;

use super::burl::{IMAP_PORT, Url};
use super::command::{self, By, Command, Grammar, Mail, Rcpt};
use super::data::{Chunk, Dots, Flaws, Store};
use super::policy::{Claim, Kind, Peer, Policy};
use super::rate::Refusal;
use super::trace::{Protocol, TraceFacts};
use super::{Reply, header, policy, scram};
use crate::mail::{BodyKind, Envelope, MtPriority, Precedence, Recipient, Release, ReleaseAsked, Status, Terms};
use crate::time::{Duration, Instant, Now, Wall};

/// Octets of a command line, CRLF included.
const COMMAND_LINE: usize = 4096;
/// Octets of a line of an AUTH exchange (RFC 4954 4).
const AUTH_LINE: usize = 12_288;
/// Octets of one endless line that are read and dropped before the connection is cut.
const JUNK_LINE: usize = 1 << 20;
/// Unread input above which [`Session::wants_input`] says no.
const INPUT_HIGH: usize = 64 << 10;
/// Unread input at which a driver that does not listen loses the connection.
const INPUT_MAX: usize = 1 << 20;

/// Octets of a user's name in AUTH EXTERNAL.
const LONGEST_USER: usize = 512;

const PLUS: &str = "SCRAM-SHA-256-PLUS";
const SCRAM: &str = "SCRAM-SHA-256";
const EXTERNAL: &str = "EXTERNAL";
const PLAIN: &str = "PLAIN";

/// Names one question of one session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AskId(pub u64);

/// What a session wants from its driver.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Event {
    /// Somebody must decide; the session waits for [`Session::answer`] with this id.
    Ask {
        /// Goes with the answer.
        id: AskId,
        /// What is asked.
        question: Question,
    },
    /// The client may begin its TLS handshake now; go on with [`Session::handle_tls_started`] or drop the connection.
    StartTls,
    /// Close the connection once everything is written.
    Close,
}

/// What a session cannot know by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    /// Is this the user's password? [`Answer::Authenticated`] or [`Answer::Refuse`].
    Auth {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// What is known of a user who wants in by SCRAM? [`Answer::Verifier`], for one who does not exist too.
    Scram {
        /// The user, as the client spells it.
        user: String,
    },
    /// Who is it that a verified client certificate names? [`Answer::Authenticated`] or [`Answer::Refuse`].
    External {
        /// The names in the certificate, in lower case.
        names: Vec<String>,
        /// The user it wants to be; where it does not say, the certificate must name just one.
        user: Option<String>,
    },
    /// May this mail begin? [`Answer::Ok`], [`Answer::Priority`] or [`Answer::Refuse`].
    Mail {
        /// The command; its MT-PRIORITY is already capped to what the peer may set.
        mail: Box<Mail>,
        /// The authenticated user.
        user: Option<String>,
        /// The peer's network is trusted.
        trusted: bool,
    },
    /// Is this recipient served here? [`Answer::Ok`] or [`Answer::Refuse`].
    Rcpt {
        /// The command.
        rcpt: Box<Rcpt>,
        /// The authenticated user.
        user: Option<String>,
        /// The peer's network is trusted.
        trusted: bool,
        /// Recipients accepted so far in this transaction.
        accepted: usize,
        /// The MT-PRIORITY the transaction carries, and the size it declared.
        mt_priority: Option<MtPriority>,
        /// SIZE as declared.
        size: Option<u64>,
        /// The transaction must go nowhere unprotected; never so for mail from nobody (RFC 8689 5).
        require_tls: bool,
    },
    /// What does this URL stand for? [`Answer::Content`] or [`Answer::Refuse`].
    Fetch {
        /// The URL: at a trusted server, and made for this user to submit.
        url: Box<Url>,
        /// Octets that may be taken.
        most: u64,
    },
    /// Take custody of this message? [`Answer::Queued`], [`Answer::Ok`] or [`Answer::Refuse`]. A positive answer is a promise:
    /// it is given after the store's commit.
    End(Box<Transaction>),
}

/// A password; kept out of logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret")
    }
}

/// What was decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Yes, with the usual reply.
    Ok,
    /// No, with this reply.
    Refuse(Reply),
    /// To [`Question::Mail`]: yes, but the message carries this MT-PRIORITY (RFC 6710 4.1: told as `250 2.3.6 n`).
    Priority(MtPriority),
    /// To [`Question::Scram`]: go on with this.
    Verifier {
        /// The server's part of the nonce: fresh, printable, without commas.
        nonce: String,
        /// The user's verifier, or a decoy.
        verifier: scram::Verifier,
        /// The highest precedence the user may set; `None`: there is no such user, and nothing will be right.
        max_precedence: Option<Precedence>,
    },
    /// To [`Question::Auth`] and [`Question::External`]: yes.
    Authenticated {
        /// The name the session goes by from now on.
        user: String,
        /// The highest precedence this user may set.
        max_precedence: Precedence,
    },
    /// To [`Question::Fetch`]: this.
    Content(Vec<u8>),
    /// To [`Question::End`]: in custody, with this reply.
    Queued(Reply),
}

/// A whole message as the session received it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// The envelope, with the recipients that were accepted. `deliver_by` is not set and `expires` is never: both need a clock.
    pub envelope: Envelope,
    /// BY as given, with the moment it was given at.
    pub by: Option<(By, Instant)>,
    /// What was asked of this node alone.
    pub terms: Terms,
    /// The content: dot stuffing undone, every line ended by CRLF (unless the envelope says binary), no trace field of ours yet.
    pub body: Arc<[u8]>,
    /// Facts for the Received field.
    pub facts: TraceFacts,
    /// The peer is authenticated or its network is trusted: priority fields in the header may count.
    pub trusted: bool,
    /// Received fields the message carries.
    pub received_count: usize,
}

/// What is known of a TLS connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsFacts {
    /// `TLSv1.3`
    pub version: String,
    /// The cipher suite.
    pub cipher: String,
    /// What the connection exports for channel binding (RFC 9266), where it can: TLS 1.3.
    pub exporter: Option<[u8; 32]>,
    /// The names in the client's certificate, if it showed one that was verified.
    pub names: Vec<String>,
}

/// The server side of one connection.
#[derive(Debug)]
pub struct Session {
    policy: Arc<Policy>,
    peer: Peer,
    /// Civil time at a moment, once the driver has told it.
    civil: Option<(Instant, Wall)>,
    trusted: bool,
    tls: Option<TlsFacts>,
    hello: Option<Hello>,
    user: Option<(String, Precedence)>,
    transaction: Option<Transfer>,
    state: State,
    input: Input,
    eof: bool,
    outbox: Vec<u8>,
    events: VecDeque<Event>,
    next_ask: u64,
    errors: u32,
    auth_failures: u32,
    idle_at: Instant,
    total_at: Instant,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Hello {
    name: String,
    extended: bool,
}

/// A mail transaction from its MAIL on.
#[derive(Debug)]
struct Transfer {
    mail: Mail,
    at: Instant,
    recipients: Vec<Recipient>,
    /// Present once BDAT began.
    chunks: Option<Store>,
    /// A chunk was refused: only RSET or EHLO help.
    failed: bool,
}

/// What the next octet means.
#[derive(Debug)]
enum State {
    /// A command line.
    Command,
    /// The rest of a line that is too long already; octets dropped so far, and the reply it will get.
    Junk { dropped: usize, after_cr: bool, reply: Reply },
    /// The client's response to an AUTH challenge.
    AuthResponse(Login),
    /// Message content up to the dot.
    Data(Box<Dots>),
    /// Message content by count. `refused` when it is only read to stay in step.
    Chunk { chunk: Chunk, refused: Option<Reply> },
    /// A question is out.
    Asked { id: AskId, about: About, until: Instant },
    /// A reply is held back.
    Delayed { until: Instant, reply: Reply, close: bool },
    /// The TLS handshake.
    Handshake,
    /// Done.
    Closed,
}

/// What the client's next line of an AUTH exchange is.
#[derive(Debug)]
enum Login {
    /// All of PLAIN.
    Plain,
    /// All of EXTERNAL.
    External,
    /// SCRAM's first message.
    First { plus: bool },
    /// SCRAM's last message. Without a ceiling nothing will be right.
    Last(Box<scram::Exchange>, String, Option<Precedence>),
    /// An empty line after the server's last word.
    Done(String, Precedence),
}

#[derive(Debug)]
enum About {
    Auth,
    /// SCRAM's verifier; with it goes what the channel exports, where the client binds to it.
    Scram(Box<scram::First>, Option<[u8; 32]>),
    Mail {
        mail: Box<Mail>,
        lowered: bool,
    },
    Rcpt(Box<Rcpt>),
    /// The message ends with what comes.
    Fetch {
        last: bool,
    },
    /// Holds the memory claim until custody is settled; this many recipients want to know how it went, and by what it came.
    End(Claim, usize, Last),
}

/// By what a message came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Last {
    Dot,
    Chunk,
    Url,
}

impl Session {
    /// A session for a peer that just connected; the greeting is ready to be sent.
    pub fn new(now: Instant, policy: Arc<Policy>, peer: Peer) -> Self {
        let trusted = policy.trusts(peer.known_as());
        let mut session = Self {
            trusted,
            peer,
            civil: None,
            tls: peer.tls.then(TlsFacts::default),
            hello: None,
            user: None,
            transaction: None,
            state: State::Command,
            input: Input::default(),
            eof: false,
            outbox: Vec::new(),
            events: VecDeque::new(),
            next_ask: 0,
            errors: 0,
            auth_failures: 0,
            idle_at: now + policy.idle,
            total_at: now + policy.total,
            policy,
        };
        let protocol = if session.is_lmtp() { "LMTP" } else { "ESMTP" };
        let greeting = format!("{} {protocol}", session.policy.hostname);
        session.reply(&Reply::bare(220, greeting));
        session
    }

    /// Takes note of civil time, for what counts on it: without a set clock no release can be promised. Call it before bytes.
    pub fn tell_time(&mut self, now: Now) {
        self.civil = now.set.then_some((now.at, now.wall));
    }

    /// Takes bytes off the wire.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        match self.state {
            State::Closed => return,
            // Clear text after 220: either injected or a client that does not speak TLS. Nothing of it may count.
            State::Handshake => return self.close(),
            _ => {}
        }
        if bytes.is_empty() {
            return;
        }
        self.idle_at = now + self.policy.idle;
        self.input.extend(bytes);
        self.advance(now);
        if self.input.len() > INPUT_MAX {
            self.farewell(Reply::new(421, Status(4, 3, 2), "too much pipelined input"));
        }
    }

    /// Whether it goes on inside TLS.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// The handshake after [`Event::StartTls`] is done (or, with implicit TLS, its facts are known).
    pub fn handle_tls_started(&mut self, now: Instant, facts: TlsFacts) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.tls = Some(facts);
        if matches!(self.state, State::Handshake) {
            // RFC 3207 4.2: nothing learnt in clear survives.
            self.hello = None;
            self.transaction = None;
            self.user = None;
            self.input = Input::default();
            self.state = State::Command;
            self.idle_at = now + self.policy.idle;
        }
    }

    /// The client sends no more. What it sent is still answered.
    pub fn handle_eof(&mut self, now: Instant) {
        self.eof = true;
        self.advance(now);
    }

    /// Answers the question `id`; an answer to any other question is late and does nothing.
    pub fn answer(&mut self, now: Instant, id: AskId, answer: Answer) {
        if !matches!(&self.state, State::Asked { id: open, .. } if *open == id) {
            return;
        }
        let State::Asked { about, .. } = core::mem::replace(&mut self.state, State::Command) else { return };
        self.idle_at = now + self.policy.idle;
        match about {
            About::Auth => self.answer_auth(now, answer),
            About::Scram(first, exporter) => self.answer_scram(*first, exporter, answer),
            About::Mail { mail, lowered } => self.answer_mail(now, *mail, lowered, answer),
            About::Rcpt(rcpt) => self.answer_rcpt(*rcpt, answer),
            About::Fetch { last } => self.answer_fetch(now, last, answer),
            About::End(claim, recipients, last) => {
                drop(claim);
                let mut reply = match answer {
                    Answer::Queued(reply) | Answer::Refuse(reply) => reply,
                    Answer::Ok
                    | Answer::Priority(_)
                    | Answer::Authenticated { .. }
                    | Answer::Content(_)
                    | Answer::Verifier { .. } => Reply::new(250, Status(2, 0, 0), "message accepted"),
                };
                // RFC 4468 3.3 has a code of its own; a changed priority is told all the same.
                if last == Last::Url && reply.enhanced == Some(Status(2, 0, 0)) {
                    reply.enhanced = Some(Status(2, 5, 0));
                }
                self.conclude(recipients, &reply);
            }
        }
        self.advance(now);
    }

    /// Acts on every deadline at or before `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Closed => return,
            State::Asked { until, .. } => {
                if now >= *until {
                    self.farewell(Reply::new(421, Status(4, 3, 0), "no decision in time, try again later"));
                }
                return;
            }
            State::Delayed { until, reply, close } => {
                if now < *until {
                    return;
                }
                let (reply, close) = (reply.clone(), *close);
                self.state = State::Command;
                self.reply(&reply);
                self.idle_at = now + self.policy.idle;
                if close {
                    return self.farewell(Reply::new(421, Status(4, 7, 0), "too many failed logins"));
                }
                self.advance(now);
            }
            State::Command
            | State::Junk { .. }
            | State::AuthResponse(_)
            | State::Data(_)
            | State::Chunk { .. }
            | State::Handshake => {}
        }
        if matches!(self.state, State::Closed | State::Asked { .. } | State::Delayed { .. }) {
            return;
        }
        if now >= self.total_at {
            self.expire(Reply::new(421, Status(4, 4, 2), "session too long"));
        } else if now >= self.idle_at {
            self.expire(Reply::new(421, Status(4, 4, 2), "idle too long"));
        }
    }

    /// Bytes to write. Drain until `None` after each call, before the events.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        (!self.outbox.is_empty()).then(|| core::mem::take(&mut self.outbox))
    }

    /// What the driver has to do next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] next has work.
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Closed => None,
            State::Asked { until, .. } | State::Delayed { until, .. } => Some(until),
            State::Command
            | State::Junk { .. }
            | State::AuthResponse(_)
            | State::Data(_)
            | State::Chunk { .. }
            | State::Handshake => Some(self.idle_at.min(self.total_at)),
        }
    }

    /// Whether the driver should go on reading.
    pub fn wants_input(&self) -> bool {
        !self.eof && !matches!(self.state, State::Closed | State::Handshake) && self.input.len() < INPUT_HIGH
    }

    /// Bytes this session holds: unread input, content under way and unsent replies.
    pub fn buffered_bytes(&self) -> u64 {
        let content = match &self.state {
            State::Data(dots) => dots.store().held(),
            _ => self.transaction.as_ref().and_then(|t| t.chunks.as_ref()).map_or(0, Store::held),
        };
        content + self.input.len() as u64 + self.outbox.len() as u64
    }

    /// Whether nothing more will happen.
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Works through the input until more is needed, somebody must decide, or the session ends.
    fn advance(&mut self, now: Instant) {
        loop {
            let moved = match &self.state {
                State::Command => self.read_line(now, COMMAND_LINE),
                State::AuthResponse(_) => self.read_line(now, AUTH_LINE),
                State::Junk { .. } => self.read_junk(),
                State::Data(_) => self.read_data(now),
                State::Chunk { .. } => self.read_chunk(now),
                State::Handshake => false,
                State::Asked { .. } | State::Delayed { .. } | State::Closed => return,
            };
            if !moved {
                break;
            }
        }
        if self.eof {
            self.close();
        }
    }

    /// Takes one whole line, if there is one. False when more input is needed.
    fn read_line(&mut self, now: Instant, limit: usize) -> bool {
        // An initial response may make an AUTH command as long as a line of its exchange.
        let auth = self.input.starts_with_any_case(b"AUTH ");
        let limit = if auth { AUTH_LINE } else { limit };
        match self.input.line(limit) {
            Line::Whole(line) => {
                match self.state {
                    State::AuthResponse(_) => self.auth_response(now, &line),
                    _ => self.command(now, &line),
                }
                true
            }
            Line::Partial => false,
            Line::TooLong => {
                let detail = if auth || matches!(self.state, State::AuthResponse(_)) { 6 } else { 2 };
                let reply = Reply::new(500, Status(5, 5, detail), "line too long");
                self.state = State::Junk { dropped: 0, after_cr: false, reply };
                true
            }
        }
    }

    /// Drops the rest of an overlong line and answers it once, so that the session stays in step.
    fn read_junk(&mut self) -> bool {
        let State::Junk { dropped, after_cr, reply } = &mut self.state else { return false };
        let bytes = self.input.bytes();
        let mut end = None;
        for (i, b) in bytes.iter().enumerate() {
            if *after_cr && *b == b'\n' {
                end = Some(i + 1);
                break;
            }
            *after_cr = *b == b'\r';
        }
        let used = end.unwrap_or(bytes.len());
        *dropped += used;
        let too_much = *dropped > JUNK_LINE;
        let reply = reply.clone();
        self.input.consume(used);
        if too_much {
            self.farewell(Reply::new(421, Status(4, 7, 0), "endless line"));
            return false;
        }
        if end.is_none() {
            return false;
        }
        self.state = State::Command;
        self.error(&reply);
        true
    }

    fn command(&mut self, now: Instant, line: &[u8]) {
        let grammar = Grammar {
            utf8: self.transaction.as_ref().is_some_and(|t| t.mail.smtputf8),
            deliver_by: self.policy.deliver_by,
            lmtp: self.is_lmtp(),
            require_tls: self.tls.is_some(),
            future_release: self.future_release().is_some(),
            mtrk: !self.is_lmtp(),
        };
        match command::parse(line, grammar) {
            Ok(command) => self.obey(now, command),
            Err(reply) => {
                self.error(&reply);
                // After a BDAT that cannot be understood nobody knows how many octets of content follow.
                if line.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT")) {
                    self.close();
                }
            }
        }
    }

    fn obey(&mut self, now: Instant, command: Command) {
        match command {
            Command::Ehlo(name) => self.hello(now, name, true),
            Command::Helo(name) => self.hello(now, name, false),
            Command::StartTls => self.start_tls(),
            Command::Auth { mechanism, initial } => self.auth(now, &mechanism, initial),
            Command::Mail(mail) => self.mail(now, mail),
            Command::Rcpt(rcpt) => self.rcpt(now, rcpt),
            Command::Data => self.data(),
            Command::Bdat { size, last } => self.bdat(size, last),
            Command::Burl { url, last } => self.burl(now, &url, last),
            Command::Rset => {
                self.transaction = None;
                self.reply(&Reply::new(250, Status(2, 0, 0), "forgotten"));
            }
            Command::Noop => self.reply(&Reply::new(250, Status(2, 0, 0), "ok")),
            Command::Quit => {
                self.reply(&Reply::new(221, Status(2, 0, 0), "closing"));
                self.close();
            }
            Command::Vrfy => self.reply(&Reply::new(252, Status(2, 5, 2), "send some mail, I will try")),
            Command::Expn => self.reply(&Reply::new(502, Status(5, 5, 1), "no lists are shown")),
            Command::Help => {
                let hello = if self.is_lmtp() { "LHLO" } else { "EHLO HELO" };
                let text = format!("{hello} MAIL RCPT DATA BDAT BURL RSET NOOP QUIT VRFY HELP STARTTLS AUTH");
                self.reply(&Reply::new(214, Status(2, 0, 0), text));
            }
        }
    }

    fn hello(&mut self, now: Instant, name: String, extended: bool) {
        self.transaction = None;
        let mut reply = Reply::bare(250, self.policy.hostname.clone());
        if extended {
            reply.lines.extend(self.keywords(now));
        }
        self.hello = Some(Hello { name, extended });
        self.reply(&reply);
    }

    /// The EHLO keywords as they hold now.
    fn keywords(&self, now: Instant) -> Vec<String> {
        let mut out: Vec<String> =
            ["PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "CHUNKING", "BINARYMIME"]
                .map(str::to_owned)
                .into();
        out.push(format!("LIMITS RCPTMAX={}", self.policy.recipients));
        out.push(format!("SIZE {}", self.policy.message_bytes));
        out.push(format!("MT-PRIORITY {}", self.policy.mt_priority.name()));
        match self.policy.deliver_by {
            Some(0) => out.push("DELIVERBY".to_owned()),
            Some(least) => out.push(format!("DELIVERBY {least}")),
            None => {}
        }
        if !self.is_lmtp() {
            out.push("MTRK".to_owned());
        }
        if let (Some(longest), Some(wall)) = (self.future_release(), self.wall(now)) {
            out.push(format!("FUTURERELEASE {} {}", longest.as_secs(), wall.plus(longest).rfc3339_seconds()));
        }
        if self.tls.is_some() {
            out.push("REQUIRETLS".to_owned());
        }
        out.extend(self.burl_keyword());
        if self.policy.starttls && self.tls.is_none() {
            out.push("STARTTLS".to_owned());
        }
        let mechanisms = self.mechanisms();
        if !mechanisms.is_empty() {
            out.push(format!("AUTH {}", mechanisms.join(" ")));
        }
        out
    }

    /// BURL alone before AUTH, which it wants first; after it with the servers whose URLs are taken (RFC 4468 3.3).
    fn burl_keyword(&self) -> Option<String> {
        if self.policy.burl.is_empty() || self.policy.kind != Kind::Submission {
            return None;
        }
        let mut keyword = "BURL".to_owned();
        if self.user.is_some() {
            keyword.push_str(" imap");
            for (host, port) in &self.policy.burl {
                keyword.push_str(" imap://");
                keyword.push_str(host);
                if *port != IMAP_PORT {
                    keyword.push_str(&format!(":{port}"));
                }
            }
        }
        Some(keyword)
    }

    /// The mechanisms of AUTH on this line, best first: what a user here could succeed with. In clear there are none, but to this
    /// machine itself: a password in clear is not worth sending.
    fn mechanisms(&self) -> Vec<&'static str> {
        let clear = self.policy.auth_clear_loopback && self.peer.is_loopback();
        if !self.policy.auth || self.tls.is_none() && !clear {
            return Vec::new();
        }
        let known = self.policy.mechanisms;
        let named = self.tls.as_ref().is_some_and(|t| !t.names.is_empty());
        let all = [
            (PLUS, known.scram && self.exporter().is_some()),
            (SCRAM, known.scram),
            (EXTERNAL, known.external && named),
            (PLAIN, known.plain),
        ];
        all.into_iter().filter_map(|(name, may)| may.then_some(name)).collect()
    }

    fn exporter(&self) -> Option<[u8; 32]> {
        self.tls.as_ref().and_then(|t| t.exporter)
    }

    /// How far away a release may be; `None` where none can be asked for. Only submission may offer it (RFC 4865 3).
    fn future_release(&self) -> Option<Duration> {
        self.policy.future_release.filter(|_| self.policy.kind == Kind::Submission && self.civil.is_some())
    }

    fn wall(&self, now: Instant) -> Option<Wall> {
        self.civil.map(|(at, wall)| wall.plus(now.since(at)))
    }

    /// When a message may go whose sender wants it held, or why that cannot be.
    fn release(&self, now: Instant, mail: &Mail) -> Result<Option<Release>, Reply> {
        let Some(asked) = mail.hold else { return Ok(None) };
        let refuse = |why: &str| Err(Reply::new(501, Status(5, 5, 4), why));
        let (Some(longest), Some(wall)) = (self.future_release(), self.wall(now)) else {
            return refuse("no release can be promised now");
        };
        let at = match asked {
            ReleaseAsked::For(seconds) => wall.plus(Duration::from_secs(seconds.into())),
            ReleaseAsked::Until(at) => at,
        };
        if at > wall.plus(longest) {
            return refuse("held longer than is offered");
        }
        if mail.from.is_none() {
            return refuse("reports are not held");
        }
        if mail.by.is_some_and(|by| wall.0.saturating_add(by.seconds.saturating_mul(1000)) < at.0) {
            return refuse("to be delivered before its release");
        }
        Ok(Some(Release { at, asked }))
    }

    fn start_tls(&mut self) {
        if self.tls.is_some() {
            return self.error(&Reply::new(503, Status(5, 5, 1), "TLS is on"));
        }
        if !self.policy.starttls {
            return self.error(&Reply::new(502, Status(5, 5, 1), "STARTTLS is not offered"));
        }
        if self.input.len() > 0 {
            // Text behind STARTTLS in the same segment would be obeyed inside TLS: command injection.
            self.reply(&Reply::new(501, Status(5, 5, 1), "nothing may follow STARTTLS"));
            return self.close();
        }
        self.reply(&Reply::new(220, Status(2, 0, 0), "go ahead"));
        self.transaction = None;
        self.state = State::Handshake;
        self.events.push_back(Event::StartTls);
    }

    fn auth(&mut self, now: Instant, mechanism: &str, initial: Option<String>) {
        if !self.policy.auth {
            return self.error(&Reply::new(502, Status(5, 5, 1), "AUTH is not offered"));
        }
        if self.user.is_some() || self.transaction.is_some() || !self.hello.as_ref().is_some_and(|h| h.extended) {
            return self.error(&Reply::new(503, Status(5, 5, 1), "not now"));
        }
        if !self.mechanisms().contains(&mechanism) {
            return self.error(&Reply::new(504, Status(5, 5, 4), "mechanism not available"));
        }
        let login = match mechanism {
            PLUS => Login::First { plus: true },
            SCRAM => Login::First { plus: false },
            EXTERNAL => Login::External,
            _ => Login::Plain,
        };
        match initial {
            None => {
                self.reply(&Reply::bare(334, ""));
                self.state = State::AuthResponse(login);
            }
            Some(text) if text == "=" => self.login(now, login, b""),
            Some(text) => self.decode(now, login, text.as_bytes()),
        }
    }

    fn auth_response(&mut self, now: Instant, line: &[u8]) {
        let State::AuthResponse(login) = core::mem::replace(&mut self.state, State::Command) else { return };
        if line == b"*" {
            return self.error(&Reply::new(501, Status(5, 7, 0), "authentication cancelled"));
        }
        self.decode(now, login, line);
    }

    fn decode(&mut self, now: Instant, login: Login, text: &[u8]) {
        match data_encoding::BASE64.decode(text) {
            Ok(response) => self.login(now, login, &response),
            Err(_) => self.error(&Reply::new(501, Status(5, 5, 2), "not base64")),
        }
    }

    /// One message of the client, in whatever exchange is under way.
    fn login(&mut self, now: Instant, login: Login, response: &[u8]) {
        match login {
            Login::Plain => self.plain(now, response),
            Login::External => self.external(now, response),
            Login::First { plus } => self.scram_first(now, plus, response),
            Login::Last(exchange, user, ceiling) => self.scram_last(now, &exchange, user, ceiling, response),
            Login::Done(user, ceiling) if response.is_empty() => self.logged_in(user, ceiling),
            Login::Done(..) => self.error(&Reply::new(501, Status(5, 5, 2), "an empty response was due")),
        }
    }

    /// RFC 4422 A: the user's name, or nothing, which stands for whoever the certificate names.
    fn external(&mut self, now: Instant, response: &[u8]) {
        let names = self.tls.as_ref().map(|t| t.names.clone()).unwrap_or_default();
        match core::str::from_utf8(response) {
            Ok(user) if user.len() <= LONGEST_USER && !user.contains('\0') => {
                let user = (!user.is_empty()).then(|| user.to_owned());
                self.ask(now, Question::External { names, user }, About::Auth);
            }
            _ => self.error(&Reply::new(501, Status(5, 5, 2), "not a user's name")),
        }
    }

    fn scram_first(&mut self, now: Instant, plus: bool, response: &[u8]) {
        let Some(first) = scram::First::parse(response) else {
            return self.error(&Reply::new(501, Status(5, 5, 2), "not a SCRAM message"));
        };
        let plus_offered = self.mechanisms().contains(&PLUS);
        if !first.may_go_on(plus, plus_offered) {
            return self.auth_failed(now, wrong_login());
        }
        let exporter = self.exporter().filter(|_| plus);
        let question = Question::Scram { user: first.user().to_owned() };
        self.ask(now, question, About::Scram(Box::new(first), exporter));
    }

    fn answer_scram(&mut self, first: scram::First, exporter: Option<[u8; 32]>, answer: Answer) {
        match answer {
            Answer::Verifier { nonce, verifier, max_precedence } => {
                let user = first.user().to_owned();
                let exchange = scram::Exchange::new(first, &nonce, verifier, exporter);
                self.challenge(exchange.challenge());
                self.state = State::AuthResponse(Login::Last(Box::new(exchange), user, max_precedence));
            }
            Answer::Refuse(reply) => self.error(&reply),
            Answer::Ok
            | Answer::Priority(_)
            | Answer::Queued(_)
            | Answer::Content(_)
            | Answer::Authenticated { .. } => self.no_login_now(),
        }
    }

    fn scram_last(
        &mut self,
        now: Instant,
        exchange: &scram::Exchange,
        user: String,
        ceiling: Option<Precedence>,
        response: &[u8],
    ) {
        match (exchange.finish(response), ceiling) {
            (Ok(verdict), Some(ceiling)) => {
                self.challenge(&verdict);
                self.state = State::AuthResponse(Login::Done(user, ceiling));
            }
            (Err(scram::Refused::Malformed), _) => {
                self.error(&Reply::new(501, Status(5, 5, 2), "not a SCRAM message"));
            }
            (Err(scram::Refused::Wrong), _) | (Ok(_), None) => self.auth_failed(now, wrong_login()),
        }
    }

    fn challenge(&mut self, message: &str) {
        self.reply(&Reply::bare(334, data_encoding::BASE64.encode(message.as_bytes())));
    }

    /// RFC 4616: `[authzid] NUL authcid NUL password`. Nobody may act for somebody else here.
    fn plain(&mut self, now: Instant, response: &[u8]) {
        let mut parts = response.split(|b| *b == 0).map(|part| core::str::from_utf8(part).ok());
        let (authzid, user, password) = (parts.next().flatten(), parts.next().flatten(), parts.next().flatten());
        match (authzid, user, password, parts.next()) {
            (Some(authzid), Some(user), Some(password), None)
                if !user.is_empty() && !password.is_empty() && (authzid.is_empty() || authzid == user) =>
            {
                let question = Question::Auth { user: user.to_owned(), password: Secret(password.to_owned()) };
                self.ask(now, question, About::Auth);
            }
            _ => self.auth_failed(now, wrong_login()),
        }
    }

    fn answer_auth(&mut self, now: Instant, answer: Answer) {
        match answer {
            Answer::Authenticated { user, max_precedence } => self.logged_in(user, max_precedence),
            Answer::Refuse(reply) if reply.is_temporary() => self.reply(&reply),
            Answer::Refuse(reply) => self.auth_failed(now, reply),
            Answer::Ok | Answer::Priority(_) | Answer::Queued(_) | Answer::Content(_) | Answer::Verifier { .. } => {
                self.no_login_now()
            }
        }
    }

    fn logged_in(&mut self, user: String, ceiling: Precedence) {
        self.user = Some((user, ceiling));
        self.reply(&Reply::new(235, Status(2, 7, 0), "authenticated"));
    }

    fn no_login_now(&mut self) {
        self.reply(&Reply::new(454, Status(4, 7, 0), "authentication not possible now"));
    }

    /// Guessing is slowed by a wait and ended after a few tries.
    fn auth_failed(&mut self, now: Instant, reply: Reply) {
        self.auth_failures += 1;
        let close = self.auth_failures >= self.policy.auth_failures;
        self.state = State::Delayed { until: now + self.policy.auth_delay, reply, close };
    }

    fn mail(&mut self, now: Instant, mut mail: Box<Mail>) {
        if self.hello.is_none() {
            let text = if self.is_lmtp() { "LHLO first" } else { "EHLO first" };
            return self.error(&Reply::new(503, Status(5, 5, 1), text));
        }
        if self.transaction.is_some() {
            return self.error(&Reply::new(503, Status(5, 5, 1), "a transaction is open"));
        }
        if self.policy.tls_required && self.tls.is_none() {
            self.policy.refused.count(Refusal::TlsRequired);
            return self.error(&Reply::new(530, Status(5, 7, 0), "STARTTLS first"));
        }
        let needs_auth = self.policy.auth_required || self.policy.kind == Kind::Submission;
        if needs_auth && self.user.is_none() && !self.trusted {
            return self.error(&Reply::new(530, Status(5, 7, 0), "authentication required"));
        }
        mail.release = match self.release(now, &mail) {
            Ok(release) => release,
            Err(reply) => return self.error(&reply),
        };
        let size = mail.size.unwrap_or(0);
        // Before the cap is applied: the sender is told about the priority it asked for.
        let asked = mail.mt_priority;
        if asked.is_some_and(|p| size > self.policy.bytes_for(p)) {
            return self.reply(&Reply::new(552, Status(5, 7, 16), "too big for its priority"));
        }
        if size > self.policy.message_bytes {
            self.policy.refused.count(Refusal::Size);
            let text = format!("larger than {} octets", self.policy.message_bytes);
            return self.reply(&Reply::new(552, Status(5, 3, 4), text));
        }
        if size > self.policy.budget.free() || self.policy.budget.free() == 0 {
            return self.reply(&Reply::new(452, Status(4, 3, 1), "no room now"));
        }
        if let (Some(pace), Some(address), false) = (&self.policy.pace, self.peer.address, self.trusted)
            && !pace.take(now, address)
        {
            self.policy.refused.count(Refusal::MessageRate);
            return self.reply(&Reply::new(450, Status(4, 7, 1), "too many messages in a minute, try again later"));
        }
        mail.mt_priority = asked.map(|p| self.capped(p));
        let lowered = mail.mt_priority != asked;
        let question = Question::Mail { mail: mail.clone(), user: self.user_name(), trusted: self.trusted };
        self.ask(now, question, About::Mail { mail, lowered });
    }

    /// The MT-PRIORITY this peer gets when it asks for `asked` (RFC 6710 4.1: lowering is always allowed).
    fn capped(&self, asked: MtPriority) -> MtPriority {
        let ceiling = match &self.user {
            Some((_, ceiling)) => *ceiling,
            None if self.trusted => Precedence::Override,
            None => self.policy.max_precedence,
        };
        self.policy.mt_priority.capped(asked, ceiling)
    }

    fn answer_mail(&mut self, now: Instant, mut mail: Mail, lowered: bool, answer: Answer) {
        let changed = match answer {
            Answer::Refuse(reply) => return self.reply(&reply),
            Answer::Priority(value) => {
                let changed = lowered || mail.mt_priority != Some(value);
                mail.mt_priority = Some(value);
                changed
            }
            Answer::Ok
            | Answer::Authenticated { .. }
            | Answer::Content(_)
            | Answer::Queued(_)
            | Answer::Verifier { .. } => lowered,
        };
        let reply = match mail.mt_priority {
            Some(value) if changed => Reply::new(250, Status(2, 3, 6), format!("{value} is the priority granted")),
            _ => Reply::new(250, Status(2, 1, 0), "sender ok"),
        };
        self.transaction = Some(Transfer { mail, at: now, recipients: Vec::new(), chunks: None, failed: false });
        self.reply(&reply);
    }

    fn rcpt(&mut self, now: Instant, rcpt: Box<Rcpt>) {
        let (user, trusted) = (self.user_name(), self.trusted);
        let Some(transfer) = self.transaction.as_ref().filter(|t| t.chunks.is_none() && !t.failed) else {
            return self.error(&Reply::new(503, Status(5, 5, 1), "MAIL first"));
        };
        let accepted = transfer.recipients.len();
        if accepted >= self.policy.recipients {
            self.policy.refused.count(Refusal::Recipients);
            return self.reply(&Reply::new(452, Status(4, 5, 3), "too many recipients"));
        }
        let question = Question::Rcpt {
            rcpt: rcpt.clone(),
            user,
            trusted,
            accepted,
            mt_priority: transfer.mail.mt_priority,
            size: transfer.mail.size,
            require_tls: transfer.mail.require_tls && transfer.mail.from.is_some(),
        };
        self.ask(now, question, About::Rcpt(rcpt));
    }

    fn answer_rcpt(&mut self, rcpt: Rcpt, answer: Answer) {
        let reply = match answer {
            Answer::Refuse(reply) => reply,
            Answer::Ok
            | Answer::Priority(_)
            | Answer::Authenticated { .. }
            | Answer::Content(_)
            | Answer::Queued(_)
            | Answer::Verifier { .. } => {
                if let Some(transfer) = &mut self.transaction {
                    let Rcpt { to, notify, orcpt } = rcpt;
                    transfer.recipients.push(Recipient { address: to, notify, orcpt });
                }
                Reply::new(250, Status(2, 1, 5), "recipient ok")
            }
        };
        self.reply(&reply);
    }

    fn data(&mut self) {
        let Some(transfer) = &self.transaction else {
            return self.error(&Reply::new(503, Status(5, 5, 1), "MAIL first"));
        };
        if transfer.chunks.is_some() || transfer.failed {
            return self.error(&Reply::new(503, Status(5, 5, 1), "DATA cannot follow BDAT"));
        }
        if transfer.mail.body == BodyKind::BinaryMime {
            // RFC 3030 3: no dot can end what may hold anything.
            return self.error(&Reply::new(503, Status(5, 5, 1), "BODY=BINARYMIME needs BDAT"));
        }
        if transfer.recipients.is_empty() {
            // RFC 2033 4.2 names the code.
            let code = if self.is_lmtp() { 503 } else { 554 };
            return self.error(&Reply::new(code, Status(5, 5, 1), "no valid recipients"));
        }
        if self.policy.budget.free() == 0 {
            return self.reply(&Reply::new(452, Status(4, 3, 1), "no room now"));
        }
        self.state = State::Data(Box::new(Dots::new(self.policy.store(self.peer, BodyKind::SevenBit))));
        self.reply(&Reply::bare(354, "end with <CRLF>.<CRLF>"));
    }

    fn read_data(&mut self, now: Instant) -> bool {
        let State::Data(dots) = &mut self.state else { return false };
        if self.input.len() == 0 {
            return false;
        }
        let (used, ended) = dots.push(self.input.bytes());
        let endless = dots.wire() > self.policy.message_bytes.saturating_add(self.policy.overrun_bytes);
        self.input.consume(used);
        if endless {
            self.farewell(Reply::new(421, Status(4, 3, 4), "message far too big"));
        }
        if endless || !ended {
            return false;
        }
        if let State::Data(dots) = core::mem::replace(&mut self.state, State::Command) {
            self.end(now, dots.into_store(), Last::Dot);
        }
        true
    }

    fn bdat(&mut self, size: u64, last: bool) {
        let policy = Arc::clone(&self.policy);
        let bound = policy.message_bytes.saturating_add(policy.overrun_bytes);
        let mut refused = None;
        let mut received = 0;
        match &mut self.transaction {
            None => refused = Some(Reply::new(503, Status(5, 5, 1), "MAIL first")),
            Some(t) if t.failed => {
                refused = Some(Reply::new(503, Status(5, 5, 1), "an earlier chunk failed, RSET first"))
            }
            Some(t) if t.recipients.is_empty() => {
                refused = Some(Reply::new(554, Status(5, 5, 1), "no valid recipients"))
            }
            Some(t) => {
                let store = t.chunks.get_or_insert_with(|| policy.store(self.peer, t.mail.body));
                received = store.received();
                if received.saturating_add(size) > policy.message_bytes {
                    policy.refused.count(Refusal::Size);
                    refused = Some(Reply::new(552, Status(5, 3, 4), "message too big"));
                }
            }
        }
        if received.saturating_add(size) > bound {
            // Reading that much only to stay in step is not worth it.
            self.reply(&Reply::new(552, Status(5, 3, 4), "message far too big"));
            return self.close();
        }
        self.state = State::Chunk { chunk: Chunk::new(size, last), refused };
    }

    fn read_chunk(&mut self, now: Instant) -> bool {
        let State::Chunk { chunk, refused } = &mut self.state else { return false };
        let (bytes, complete) = chunk.take(self.input.bytes());
        let used = bytes.len();
        if refused.is_none()
            && let Some(store) = self.transaction.as_mut().and_then(|t| t.chunks.as_mut())
        {
            store.push(bytes);
        }
        self.input.consume(used);
        if !complete {
            return false;
        }
        let State::Chunk { chunk, refused } = core::mem::replace(&mut self.state, State::Command) else { return false };
        if let Some(reply) = refused {
            match chunk.last && self.is_lmtp() {
                true => self.last_chunk_refused(&reply),
                false => self.chunk_failed(&reply),
            }
            return true;
        }
        let Some(transfer) = &mut self.transaction else { return true };
        if chunk.last {
            if let Some(store) = transfer.chunks.take() {
                self.end(now, store, Last::Chunk);
            }
            return true;
        }
        let flaws = transfer.chunks.as_ref().map(Store::flaws).unwrap_or_default();
        match flaw_reply(flaws) {
            Some(reply) => self.chunk_failed(&reply),
            None => self.reply(&Reply::new(250, Status(2, 0, 0), "chunk ok")),
        }
        true
    }

    fn burl(&mut self, now: Instant, url: &str, last: bool) {
        if self.burl_keyword().is_none() {
            return self.error(&Reply::new(502, Status(5, 5, 1), "command not implemented"));
        }
        let Some((user, _)) = &self.user else {
            return self.error(&Reply::new(530, Status(5, 7, 0), "authenticate first"));
        };
        let policy = Arc::clone(&self.policy);
        let trusted = |url: &Url| policy.burl.iter().any(|(host, port)| host == url.host() && *port == url.port());
        let refused = match (&self.transaction, Url::parse(url)) {
            (None, _) => Err(Reply::new(503, Status(5, 5, 0), "MAIL first")),
            (Some(t), _) if t.failed => Err(Reply::new(503, Status(5, 5, 0), "an earlier part failed, RSET first")),
            (Some(t), _) if t.recipients.is_empty() => Err(Reply::new(554, Status(5, 5, 0), "no valid recipients")),
            (Some(_), Err(wrong)) => Err(Reply::new(554, Status(5, 5, 4), wrong)),
            (Some(_), Ok(url)) if !trusted(&url) => {
                Err(Reply::new(554, Status(5, 7, 8), "nothing is fetched from that server"))
            }
            (Some(_), Ok(url)) if !url.lets_submit(user) => {
                Err(Reply::new(554, Status(5, 7, 0), "that URL does not let you submit"))
            }
            (Some(_), Ok(url)) => Ok(url),
        };
        let url = match refused {
            Ok(url) => url,
            Err(reply) => return self.chunk_failed(&reply),
        };
        let Some(transfer) = &mut self.transaction else { return };
        let store = transfer.chunks.get_or_insert_with(|| policy.store(self.peer, transfer.mail.body));
        let most = policy.message_bytes.saturating_sub(store.received());
        self.ask(now, Question::Fetch { url: Box::new(url), most }, About::Fetch { last });
    }

    fn answer_fetch(&mut self, now: Instant, last: bool, answer: Answer) {
        let content = match answer {
            Answer::Content(content) => content,
            Answer::Refuse(reply) => return self.chunk_failed(&reply),
            Answer::Ok
            | Answer::Priority(_)
            | Answer::Authenticated { .. }
            | Answer::Queued(_)
            | Answer::Verifier { .. } => {
                return self.chunk_failed(&Reply::new(451, Status(4, 3, 0), "nothing was fetched"));
            }
        };
        let Some(transfer) = &mut self.transaction else { return };
        let Some(store) = &mut transfer.chunks else { return };
        store.push(&content);
        if last {
            if let Some(store) = transfer.chunks.take() {
                self.end(now, store, Last::Url);
            }
            return;
        }
        match fetched_flaw_reply(store.flaws()) {
            Some(reply) => self.chunk_failed(&reply),
            None => self.reply(&Reply::new(250, Status(2, 5, 0), "content taken")),
        }
    }

    fn chunk_failed(&mut self, reply: &Reply) {
        if let Some(transfer) = &mut self.transaction {
            transfer.failed = transfer.chunks.take().is_some() || transfer.failed;
        }
        // Chunks pipelined behind a failed one are no new errors of the client.
        if self.transaction.is_none() { self.error(reply) } else { self.reply(reply) }
    }

    /// LMTP: the last chunk ends the transaction whatever came before, with one answer per recipient, so with none when there is
    /// no recipient (RFC 2033 4.3).
    fn last_chunk_refused(&mut self, reply: &Reply) {
        match self.transaction.take().map_or(0, |t| t.recipients.len()) {
            0 => self.count_error(),
            recipients => self.conclude(recipients, reply),
        }
    }

    /// The content is whole: the last static checks, then the question of custody.
    fn end(&mut self, now: Instant, store: Store, last: Last) {
        let Some(transfer) = self.transaction.take() else { return };
        let wanting = transfer.recipients.len();
        let (flaws, bytes, claim) = store.finish();
        let wrong = if last == Last::Url { fetched_flaw_reply(flaws) } else { flaw_reply(flaws) };
        if let Some(reply) = wrong {
            if reply.enhanced == Some(Status(5, 3, 4)) {
                self.policy.refused.count(Refusal::Size);
            }
            self.conclude(wanting, &reply);
            // Whoever sends bare CR or LF inside DATA may be smuggling: what else it sent is not worth reading.
            if last == Last::Dot && (flaws.bare_cr || flaws.bare_lf) {
                self.close();
            }
            return;
        }
        let received_count = match self.inspect(&transfer, &bytes) {
            Ok(count) => count,
            Err(reply) => return self.conclude(wanting, &reply),
        };
        let facts = self.facts(transfer.mail.smtputf8);
        let believed = self.may_name_the_submitter();
        let Transfer { mail, at, recipients, .. } = transfer;
        let transaction = Transaction {
            envelope: Envelope {
                from: mail.from,
                recipients,
                envid: mail.envid,
                ret: mail.ret,
                mt_priority: mail.mt_priority,
                body: mail.body,
                smtputf8: mail.smtputf8,
                require_tls: mail.require_tls,
                deliver_by: None,
                expires: Wall::NEVER,
                auth: mail.auth.map(|auth| if believed { auth } else { "<>".to_owned() }),
            },
            by: mail.by.map(|by| (by, at)),
            terms: Terms { release: mail.release, tracking: mail.tracking },
            body: bytes.into(),
            facts,
            trusted: self.trusted || self.user.is_some(),
            received_count,
        };
        self.ask(now, Question::End(Box::new(transaction)), About::End(claim, wanting, last));
    }

    /// Checks of a whole message: size for its priority, loops, 8-bit header. The number of Received fields, if all is well.
    fn inspect(&self, transfer: &Transfer, bytes: &[u8]) -> Result<usize, Reply> {
        let mail = &transfer.mail;
        if mail.mt_priority.is_some_and(|p| bytes.len() as u64 > self.policy.bytes_for(p)) {
            return Err(Reply::new(552, Status(5, 7, 16), "too big for its priority"));
        }
        let (mut received, mut own) = (0, 0);
        for field in header::fields(bytes).filter(|f| f.is("Received")) {
            received += 1;
            own += usize::from(super::trace::names_host(field.value, &self.policy.hostname));
        }
        if received > self.policy.received_fields || own > self.policy.own_received_fields {
            return Err(Reply::new(554, Status(5, 4, 6), "mail loop"));
        }
        // Binary or not, a header has lines: fields of others are not to be smuggled into it.
        if mail.body == BodyKind::BinaryMime
            && has_odd_octets(bytes.get(..header::body_start(bytes)).unwrap_or_default())
        {
            return Err(Reply::new(550, Status(5, 6, 0), "bare CR or LF or NUL in the header"));
        }
        let raw = !bytes.get(..header::end(bytes)).unwrap_or_default().is_ascii();
        if raw && !mail.smtputf8 && !policy::among(&self.policy.raw_header, self.peer.known_as()) {
            return Err(Reply::new(554, Status(5, 6, 7), "8-bit octets in the header need SMTPUTF8"));
        }
        Ok(received)
    }

    /// RFC 4954 5: whose AUTH= goes on as it is. A mail client that has logged in may speak for itself, not for others.
    fn may_name_the_submitter(&self) -> bool {
        self.trusted || self.user.is_some() && self.policy.kind == Kind::Relay
    }

    fn facts(&self, utf8: bool) -> TraceFacts {
        let hello = self.hello.as_ref();
        TraceFacts {
            ehlo: hello.map(|h| h.name.clone()).unwrap_or_default(),
            address: self.peer.address,
            protocol: Protocol {
                lmtp: self.is_lmtp(),
                extended: hello.is_some_and(|h| h.extended),
                utf8,
                tls: self.tls.is_some(),
                auth: self.user.is_some(),
            },
            user: self.user_name(),
            tls: self.tls.clone(),
        }
    }

    fn user_name(&self) -> Option<String> {
        self.user.as_ref().map(|(name, _)| name.clone())
    }

    fn ask(&mut self, now: Instant, question: Question, about: About) {
        let id = AskId(self.next_ask);
        self.next_ask += 1;
        self.state = State::Asked { id, about, until: now + self.policy.answer };
        self.events.push_back(Event::Ask { id, question });
    }

    fn reply(&mut self, reply: &Reply) {
        reply.emit(&mut self.outbox);
        // Whoever answers 421 means to close (RFC 5321 3.8), whatever the question was.
        if reply.code == 421 {
            self.close();
        }
    }

    /// Answers for a whole message: once, or over LMTP once for each of its recipients. One decision stands behind all of them.
    fn conclude(&mut self, recipients: usize, reply: &Reply) {
        let times = if self.is_lmtp() { recipients } else { 1 };
        for _ in 0..times {
            self.reply(reply);
            if self.is_closed() {
                return;
            }
        }
    }

    fn is_lmtp(&self) -> bool {
        self.policy.kind == Kind::Lmtp
    }

    /// Answers a protocol error; too many of them end the session.
    fn error(&mut self, reply: &Reply) {
        self.count_error();
        if !self.is_closed() {
            self.reply(reply);
        }
    }

    fn count_error(&mut self) {
        self.errors += 1;
        if self.errors > self.policy.errors {
            self.farewell(Reply::new(421, Status(4, 7, 0), "too many errors"));
        }
    }

    /// A deadline passed. Inside a handshake nothing can be said in clear.
    fn expire(&mut self, reply: Reply) {
        if matches!(self.state, State::Handshake) { self.close() } else { self.farewell(reply) }
    }

    fn farewell(&mut self, reply: Reply) {
        if matches!(self.state, State::Closed) {
            return;
        }
        reply.emit(&mut self.outbox);
        self.close();
    }

    fn close(&mut self) {
        if matches!(self.state, State::Closed) {
            return;
        }
        self.state = State::Closed;
        self.transaction = None;
        self.input = Input::default();
        self.events.push_back(Event::Close);
    }
}

/// Whether text holds a CR or LF that is no line end, or a NUL.
fn has_odd_octets(text: &[u8]) -> bool {
    let before = core::iter::once(&0xff).chain(text);
    let after = text.iter().skip(1).chain([&0xff]);
    before.zip(text).zip(after).any(|((before, octet), after)| match octet {
        b'\r' => *after != b'\n',
        b'\n' => *before != b'\r',
        octet => *octet == 0,
    })
}

/// One reply for every wrong login, so that nothing more can be learnt from it.
fn wrong_login() -> Reply {
    Reply::new(535, Status(5, 7, 8), "authentication failed")
}

/// The reply to flawed content; `None` when it has no flaw.
fn flaw_reply(flaws: Flaws) -> Option<Reply> {
    let Flaws { bare_cr, bare_lf, nul, long_line, too_big, no_room } = flaws;
    if bare_cr || bare_lf {
        Some(Reply::new(550, Status(5, 5, 2), "bare CR or LF in the message"))
    } else if nul {
        Some(Reply::new(550, Status(5, 6, 0), "NUL in the message"))
    } else if too_big {
        Some(Reply::new(552, Status(5, 3, 4), "message too big"))
    } else if long_line {
        Some(Reply::new(554, Status(5, 6, 0), "line too long in the message"))
    } else if no_room {
        Some(Reply::new(452, Status(4, 3, 1), "no room now"))
    } else {
        None
    }
}

/// The same for content that was fetched: what no mail of lines may hold wants BINARYMIME (RFC 4468 3.3).
fn fetched_flaw_reply(flaws: Flaws) -> Option<Reply> {
    match flaws.bare_cr || flaws.bare_lf || flaws.nul {
        true => Some(Reply::new(554, Status(5, 6, 3), "the content is binary, BODY=BINARYMIME is needed")),
        false => flaw_reply(flaws),
    }
}

/// Unread bytes of the connection.
#[derive(Debug, Default)]
struct Input {
    bytes: Vec<u8>,
    start: usize,
    /// No CRLF ends before this offset.
    scanned: usize,
}

enum Line {
    Whole(Vec<u8>),
    Partial,
    TooLong,
}

impl Input {
    fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.scanned = self.scanned.saturating_sub(self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    fn consume(&mut self, n: usize) {
        self.start = (self.start + n).min(self.bytes.len());
        self.scanned = self.start;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(INPUT_HIGH);
            self.start = 0;
            self.scanned = 0;
        }
    }

    fn starts_with_any_case(&self, prefix: &[u8]) -> bool {
        self.bytes().get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
    }

    /// Takes a line that ends in CRLF; nothing else ends one.
    fn line(&mut self, limit: usize) -> Line {
        let from = self.scanned.max(self.start);
        let fresh = self.bytes.get(from..).unwrap_or_default();
        let end = fresh.windows(2).position(|w| w == b"\r\n").map(|i| from + i);
        let length = end.map_or(self.bytes.len(), |e| e + 2) - self.start;
        if length > limit {
            return Line::TooLong;
        }
        let Some(end) = end else {
            // The last octet may be a CR whose LF comes next.
            self.scanned = self.bytes.len().saturating_sub(1).max(self.start);
            return Line::Partial;
        };
        let line = self.bytes.get(self.start..end).unwrap_or_default().to_vec();
        self.consume(line.len() + 2);
        Line::Whole(line)
    }
}

#[cfg(test)]
mod tests {
    mod rules;

    use super::*;
    use crate::mail::Notify;
    use crate::smtp::policy::{Budget, Mechanisms};

    #[test]
    fn vectors_of_the_profile() {
        let mail = "MAIL FROM:<a@x.example>";
        for (lines, want) in [
            (vec![format!("{mail} MT-PRIORITY=+3")], vec!["501 5.5.2"]),
            (vec![format!("{mail} MT-PRIORITY=4")], vec!["250 2.3.6 -2"]),
            (vec![format!("{mail} SIZE=999999999 MT-PRIORITY=6")], vec!["552 5.7.16"]),
            (vec![format!("{mail} BY=0;R")], vec!["501 5.5.4"]),
            (vec![format!("{mail} BY=-5;N")], vec!["250 2.1.0"]),
            (vec![format!("{mail} BY=120;RT")], vec!["250 2.1.0"]),
            (vec![format!("{mail} HOLDFOR=60 HOLDUNTIL=2030-01-01T00:00:00Z")], vec!["555 5.5.4"]),
            (vec![mail.into(), "RCPT TO:<b@dest> NOTIFY=NEVER,SUCCESS".into()], vec!["250", "501"]),
            (vec![mail.into(), "RCPT TO:<b@dest> ORCPT=rfc822;a+2".into()], vec!["250", "501"]),
            (
                vec![mail.into(), "RCPT TO:<b@dest>".into(), "BDAT 3\r\nabcDATA".into()],
                vec!["250", "250", "250", "503"],
            ),
            (vec!["BDAT 4 LAST\r\nwxyzNOOP".into()], vec!["503", "250"]),
            (vec!["AUTH PLAIN =".into()], vec!["504 5.5.4"]),
            (vec![format!("{mail} REQUIRETLS")], vec!["555 5.5.4"]),
            (vec!["VRFY postmaster".into(), "EXPN staff".into(), "HELP".into()], vec!["252", "502", "214"]),
            (vec![mail.into(), "RCPT TO:<PostMaster>".into()], vec!["250", "250 2.1.5"]),
            (vec![mail.into(), mail.into()], vec!["250", "503 5.5.1"]),
            (vec!["RCPT TO:<b@dest>".into(), "DATA".into()], vec!["503 5.5.1", "503 5.5.1"]),
            (vec![mail.into(), "RSET".into(), "DATA".into()], vec!["250", "250", "503"]),
            (vec![mail.into(), "EHLO again.example".into(), "DATA".into()], vec!["250", "250", "503"]),
            (vec![mail.into(), "RCPT TO:<x@elsewhere>".into(), "DATA".into()], vec!["250", "550 5.7.1", "554 5.5.1"]),
            (vec![format!("{mail} SIZE=999999999")], vec!["552 5.3.4"]),
        ] {
            let mut w = World::new(|p| {
                p.precedence_bytes = [(Precedence::Override, 4096)].into();
                p.deliver_by = Some(0);
                p.auth = true;
            });
            w.say("EHLO probe.example\r\n");
            w.replies();
            w.say(&(lines.join("\r\n") + "\r\n"));
            let got = w.replies();
            assert_eq!(got.len(), want.len(), "{lines:?} -> {got:?}");
            for (got, want) in got.iter().zip(&want) {
                assert!(got.starts_with(want), "{lines:?}: {got:?}, wanted {want}");
            }
        }
    }

    #[test]
    fn requiretls_is_offered_inside_tls_alone() {
        let mut w = World::new(|p| p.starttls = true);
        w.say("EHLO probe.example\r\nMAIL FROM:<a@src> REQUIRETLS\r\nSTARTTLS\r\n");
        let got = w.replies();
        assert!(!got[1].contains("REQUIRETLS"), "{got:?}");
        assert!(got[2].starts_with("555 5.5.4"), "{got:?}");
        w.session.handle_tls_started(w.at, TlsFacts::default());
        w.say("EHLO probe.example\r\nMAIL FROM:<a@src> REQUIRETLS=yes\r\nMAIL FROM:<a@src> REQUIRETLS\r\n");
        w.say("RCPT TO:<b@dest>\r\nDATA\r\nx\r\n.\r\nMAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nDATA\r\nx\r\n.\r\n");
        let got = w.replies();
        assert!(got[0].contains("\n250-REQUIRETLS") || got[0].contains("\n250 REQUIRETLS"), "{got:?}");
        assert_eq!(codes(&got)[1..], [501, 250, 250, 354, 250, 250, 250, 354, 250]);
        assert_eq!(w.taken.iter().map(|t| t.envelope.require_tls).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn vectors_of_lmtp() {
        let mail = "MAIL FROM:<a@src>";
        let two = format!("{mail}\r\nRCPT TO:<b@dest>\r\nRCPT TO:<no@elsewhere>\r\nRCPT TO:<c@dest>");
        for (lines, want) in [
            // One answer for each recipient that was accepted, in their order, from one commit.
            (
                format!("{two}\r\nDATA\r\nSubject: x\r\n\r\nb\r\n.\r\nNOOP"),
                vec!["250", "250", "550", "250", "354", "250 2.0.0 queued", "250 2.0.0 queued", "250 2.0.0 ok"],
            ),
            (
                format!("{two}\r\nBDAT 3 LAST\r\nx\r\nNOOP"),
                vec!["250", "250", "550", "250", "250", "250", "250 2.0.0 ok"],
            ),
            (
                format!("{two}\r\nBDAT 1\r\nxBDAT 2 LAST\r\n\r\nNOOP"),
                vec!["250", "250", "550", "250", "250 2.0.0 chunk", "250", "250", "250 2.0.0 ok"],
            ),
            // A refusal of the content too.
            (format!("{two}\r\nDATA\r\n\0\r\n.\r\nNOOP"), vec!["250", "250", "550", "250", "354", "550", "550", "250"]),
            (format!("{two}\r\nBDAT 1 LAST\r\n\0NOOP"), vec!["250", "250", "550", "250", "550", "550", "250"]),
            // A chunk before the last is refused once; the last one for each recipient, and the transaction is over.
            (
                format!("{two}\r\nBDAT 1\r\n\0BDAT 1 LAST\r\nx{mail}"),
                vec!["250", "250", "550", "250", "550", "503", "503", "250 2.1.0"],
            ),
            // Without a recipient DATA is 503, and the last BDAT has no answer at all.
            (format!("{mail}\r\nRCPT TO:<no@elsewhere>\r\nDATA"), vec!["250", "550", "503"]),
            (
                format!("{mail}\r\nRCPT TO:<no@elsewhere>\r\nBDAT 4 LAST\r\nwxyzNOOP"),
                vec!["250", "550", "250 2.0.0 ok"],
            ),
            (
                format!("{mail}\r\nRCPT TO:<no@elsewhere>\r\nBDAT 4\r\nwxyzNOOP"),
                vec!["250", "550", "554", "250 2.0.0 ok"],
            ),
            ("EHLO x.example\r\nHELO x.example".into(), vec!["500 5.5.1", "500 5.5.1"]),
        ] {
            let mut w = World::new(|p| p.kind = Kind::Lmtp);
            w.say(&format!("{mail}\r\nLHLO probe.example\r\n"));
            let opening = w.replies();
            assert!(opening[0].ends_with("LMTP") && opening[1].starts_with("503 5.5.1"), "{opening:?}");
            for keyword in ["PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME", "CHUNKING", "SIZE "] {
                assert!(opening[2].contains(keyword), "{opening:?}");
            }
            assert!(!opening[2].contains("AUTH"), "{opening:?}");
            w.say(&format!("{lines}\r\n"));
            let got = w.replies();
            assert_eq!(got.len(), want.len(), "{lines:?} -> {got:?}");
            for (got, want) in got.iter().zip(&want) {
                assert!(got.starts_with(want), "{lines:?}: {got:?}, wanted {want}");
            }
            assert_eq!(w.budget.used(), 0);
            assert!(w.taken.iter().all(|t| t.envelope.recipients.len() == 2 && t.facts.protocol.keyword() == "LMTP"));
        }
        let mut w = World::open();
        w.say("LHLO x.example\r\n");
        assert!(w.replies()[0].starts_with("502"), "LMTP is not spoken on a relay listener");
    }

    #[test]
    fn lmtp_answers_that_come_too_late_or_say_no_are_given_for_each_recipient() {
        let text = "LHLO x.example\r\nMAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nRCPT TO:<c@dest>\r\nDATA\r\nx\r\n.\r\n";
        let mut w = World::new(|p| p.kind = Kind::Lmtp);
        w.refuse = Some(Reply::new(452, Status(4, 3, 1), "no room"));
        w.say(text);
        assert_eq!(codes(&w.replies())[6..], [452, 452]);
        w.refuse = Some(Reply::new(421, Status(4, 3, 2), "stopping"));
        w.say(text);
        assert_eq!(codes(&w.replies())[4..], [354, 421], "421 ends the session");
        assert!(w.closed);
    }

    #[test]
    fn a_message_comes_out_whole_with_its_envelope() {
        let mut w = World::new(|_| {});
        w.say("EHLO probe.example\r\nMAIL FROM:<a@src> RET=HDRS ENVID=q+2B1 BODY=8BITMIME MT-PRIORITY=-3\r\n");
        w.say("RCPT TO:<b@dest> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;o+2Bx@dest\r\nDATA\r\n");
        w.say("Subject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n");
        let got = w.replies();
        assert_eq!(codes(&got), [220, 250, 250, 250, 354, 250, 221]);
        assert!(got[2].starts_with("250 2.1.0"), "an untouched priority needs no 2.3.6: {got:?}");
        assert!(w.closed);
        let [t] = &w.taken[..] else { panic!("{:?}", w.taken) };
        assert_eq!(&*t.body, b"Subject: x\r\n\r\n.dot\r\n");
        let e = &t.envelope;
        assert_eq!(e.from.as_ref().map(|m| m.as_str()), Some("a@src"));
        assert_eq!((e.envid.as_deref(), e.ret), (Some("q+2B1"), Some(crate::mail::Ret::Headers)));
        assert_eq!(e.mt_priority, MtPriority::new(-3));
        assert_eq!(e.recipients[0].notify, Some(Notify { success: true, failure: false, delay: true }));
        assert_eq!(e.recipients[0].orcpt.as_deref(), Some("rfc822;o+2Bx@dest"));
        assert_eq!(e.expires, Wall::NEVER);
        assert_eq!(t.facts.protocol.keyword(), "ESMTP");
        assert_eq!(w.budget.used(), 0);
    }

    #[test]
    fn every_split_of_a_dialogue_gives_the_same_replies() {
        let wire = dialogue();
        let whole = {
            let mut w = World::new(|_| {});
            w.feed(&wire);
            w
        };
        assert!(whole.taken.len() >= 2);
        for step in [1, 2, 3, 7, 64] {
            let mut w = World::new(|_| {});
            for part in wire.chunks(step) {
                w.feed(part);
            }
            assert_eq!((&w.wire, &w.taken), (&whole.wire, &whole.taken), "in pieces of {step}");
        }
        for cut in 0..wire.len() {
            let mut w = World::new(|_| {});
            w.feed(&wire[..cut]);
            w.feed(&wire[cut..]);
            assert_eq!((&w.wire, &w.taken), (&whole.wire, &whole.taken), "cut at {cut}");
        }
    }

    #[test]
    fn late_answers_keep_the_order_of_replies() {
        let mut w = World::new(|_| {});
        w.slow = true;
        w.feed(&dialogue());
        let mut rounds = 0;
        while w.answer_held() {
            w.at += Duration::from_secs(60);
            rounds += 1;
        }
        assert!(rounds > 8);
        let mut quick = World::new(|_| {});
        quick.feed(&dialogue());
        assert_eq!((w.wire, w.taken), (quick.wire, quick.taken));
    }

    #[test]
    fn nothing_is_smuggled_through_data() {
        for seq in [
            &b"\n.\n"[..],
            b"\n.\r\n",
            b"\r\n.\n",
            b"\r.\r",
            b"\r.\n",
            b"\r.\r\n",
            b"\r\n.\r",
            b"\n.\r",
            b"\n\n.\r\n",
            b"\r\n\0.\r\n",
            b"\r\n.\0\r\n",
            b"\r\n. \r\n",
            b"\r\n.\r\r\n",
            b"\r\n.\t\r\n",
            b"\r\n.\x0b\r\n",
            b"\xc2\x85.\xc2\x85",
            b"\xe2\x80\xa8.\xe2\x80\xa8",
            b"\r\n.\n\r",
        ] {
            let mut w = World::open();
            w.say("MAIL FROM:<smug@src>\r\nRCPT TO:<b@dest>\r\nDATA\r\n");
            w.replies();
            w.feed(
                &[b"Subject: one\r\n\r\nfirst", seq, b"MAIL FROM:<e@src>\r\nRCPT TO:<b@dest>\r\nDATA\r\nx\r\n.\r\n"]
                    .concat(),
            );
            let got = w.replies();
            assert_eq!(got.len(), 1, "{seq:?}: {got:?}");
            let bare = !matches!(codes(&got)[..], [250]);
            assert_eq!(w.taken.len(), usize::from(!bare), "{seq:?}");
            if bare && !seq.contains(&0) {
                assert!(got[0].starts_with("550 5.5.2") && w.closed, "{seq:?}: {got:?}");
            }
            if bare && seq.contains(&0) {
                assert!(got[0].starts_with("550 5.6.0") && !w.closed, "{seq:?}: {got:?}");
            }
        }
    }

    #[test]
    fn chunks_are_counted_not_read() {
        let mut w = World::open();
        w.say("MAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nBDAT 16\r\nSubject: x\r\n\r\nab");
        w.say("BDAT 5\r\n\r\n.\r\nBDAT 0 LAST\r\nNOOP\r\n");
        assert_eq!(codes(&w.replies()), [250, 250, 250, 250, 250, 250]);
        assert_eq!(&*w.taken[0].body, b"Subject: x\r\n\r\nab\r\n.\r\n");
        // A refused chunk is swallowed to the octet, and only RSET helps.
        w.say("MAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nBDAT 5\r\nab\ncdBDAT 6 LAST\r\nNOOP\r\nNOOP\r\nMAIL FROM:<c@src>\r\nRSET\r\n");
        let got = w.replies();
        assert_eq!(codes(&got), [250, 250, 550, 503, 250, 503, 250], "{got:?}");
        w.say("MAIL FROM:<a@src>\r\nRCPT TO:<x@elsewhere>\r\nBDAT 28 LAST\r\nMAIL FROM:<evil@src.test>\r\n1NOOP\r\n");
        assert_eq!(codes(&w.replies()), [250, 550, 554, 250]);
        w.say("RSET\r\nMAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nBDAT 2\r\na\n");
        w.say(&"BDAT 3\r\nabc".repeat(100));
        let got = codes(&w.replies());
        assert_eq!(got[..4], [250, 250, 250, 550]);
        assert!(got.len() == 104 && got[4..].iter().all(|c| *c == 503), "pipelined chunks do not end the session");
        w.say("RSET\r\nBDAT 99999999999999999999999 LAST\r\n");
        assert_eq!(codes(&w.replies()), [250, 552]);
        assert!(w.closed);
    }

    #[test]
    fn size_is_enforced_while_receiving() {
        let small = |p: &mut Policy| {
            p.message_bytes = 1000;
            p.overrun_bytes = 1000;
        };
        let mut w = World::new(small);
        w.say("EHLO p.example\r\nMAIL FROM:<a@src> SIZE=10\r\nRCPT TO:<b@dest>\r\nDATA\r\n");
        w.feed(&b"0123456789\r\n".repeat(100));
        assert!(w.session.buffered_bytes() < 100);
        w.say(".\r\nNOOP\r\n");
        assert_eq!(codes(&w.replies())[4..], [354, 552, 250]);
        w.say("MAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nDATA\r\n");
        w.replies();
        w.feed(&b"0123456789\r\n".repeat(1000));
        assert_eq!(codes(&w.replies()), [421]);
        assert!(w.closed);
    }

    #[test]
    fn a_spent_budget_is_told_as_452() {
        let mut w = World::new(|p| p.budget = Arc::new(Budget::new(100_000)));
        w.say("EHLO p.example\r\nMAIL FROM:<a@src> SIZE=200000\r\nMAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nDATA\r\n");
        w.feed(&b"0123456789\r\n".repeat(20_000));
        w.say(".\r\n");
        let got = w.replies();
        assert_eq!(codes(&got), [220, 250, 452, 250, 250, 354, 452]);
        assert!(got[6].contains("4.3.1") && w.policy.budget.used() == 0);
    }

    #[test]
    fn custody_keeps_its_memory_claim_until_it_is_settled() {
        let mut w = World::open();
        w.say("MAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nDATA\r\n");
        w.slow = true;
        w.say("Subject: x\r\n\r\nbody\r\n.\r\n");
        assert!(w.budget.used() > 0);
        assert!(w.answer_held());
        assert_eq!(w.budget.used(), 0);
    }

    #[test]
    fn loops_and_raw_headers_are_refused() {
        for (head, want) in [
            ("Received: from a by b; now\r\n".repeat(101), "554 5.4.6"),
            ("Received: from a by b; now\r\n".repeat(100), "250"),
            ("Received: from a\r\n by MX.example with SMTP; now\r\n".repeat(5), "554 5.4.6"),
            ("Received: from a by mx.example; now\r\n".repeat(4), "250"),
            ("Subject: é\r\n".to_owned(), "554 5.6.7"),
        ] {
            let mut w = World::open();
            w.say("MAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nDATA\r\n");
            w.replies();
            w.say(&format!("{head}\r\nbody\r\n.\r\n"));
            let got = w.replies();
            assert!(got[0].starts_with(want), "{got:?}");
        }
    }

    #[test]
    fn text_behind_starttls_is_never_obeyed() {
        let mut w = World::new(|p| p.starttls = true);
        w.say("EHLO p.example\r\n");
        assert!(w.replies().iter().any(|r| r.contains("STARTTLS")));
        w.say("STARTTLS\r\nEHLO injected.example\r\nNOOP\r\n");
        assert_eq!(codes(&w.replies()), [501]);
        assert!(w.closed);

        let mut w = World::new(|p| p.starttls = true);
        w.say("EHLO p.example\r\nMAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nSTARTTLS\r\n");
        assert_eq!(codes(&w.replies()), [220, 250, 250, 250, 220]);
        assert!(w.tls_wanted);
        w.say("MAIL FROM:<x@y>\r\n");
        assert!(w.closed && w.replies().is_empty());
    }

    #[test]
    fn tls_wipes_what_was_learnt_in_clear() {
        let mut w = World::new(|p| {
            p.starttls = true;
            p.auth = true;
        });
        w.say("EHLO p.example\r\nMAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nSTARTTLS\r\n");
        let clear = w.replies();
        assert!(!clear[1].contains("AUTH"), "{clear:?}");
        w.session.handle_tls_started(w.at, TlsFacts::default());
        w.say("MAIL FROM:<a@src>\r\nEHLO p.example\r\nDATA\r\nSTARTTLS\r\n");
        let got = w.replies();
        assert_eq!(codes(&got), [503, 250, 503, 503]);
        assert!(got[1].contains("AUTH PLAIN") && !got[1].contains("STARTTLS"));
    }

    #[test]
    fn logins_are_checked_slowed_and_cut_off() {
        let tls = |p: &mut Policy| p.auth = true;
        let mut w = World::with_peer(tls, Peer { address: None, tls: true });
        w.say("AUTH PLAIN AGEAYg==\r\nEHLO p.example\r\n");
        assert_eq!(codes(&w.replies()), [220, 503, 250]);
        w.say("AUTH FOO\r\nAUTH PLAIN !!!!\r\nAUTH PLAIN\r\n");
        assert_eq!(codes(&w.replies()), [504, 501, 334]);
        w.say("*\r\nAUTH PLAIN\r\n%%%%\r\n");
        assert_eq!(codes(&w.replies()), [501, 334, 501]);
        w.say("AUTH PLAIN AG9wMUBub2RlLmV4YW1wbGUAczNjcmV0LU9uZQ==\r\nAUTH PLAIN AGEAYg==\r\nMAIL FROM:<a@src> MT-PRIORITY=6\r\n");
        let got = w.replies();
        assert_eq!(codes(&got), [235, 503, 250]);
        assert!(got[2].starts_with("250 2.3.6 2"), "capped at the user's ceiling: {got:?}");

        let mut w = World::with_peer(tls, Peer { address: None, tls: true });
        w.say("EHLO p.example\r\n");
        w.replies();
        for try_ in 1..=3 {
            w.say(if try_ == 2 { "AUTH PLAIN =\r\nNOOP\r\n" } else { "AUTH PLAIN AGEAYg==\r\nNOOP\r\n" });
            assert_eq!(w.replies(), Vec::<String>::new(), "the answer waits");
            w.jump();
            assert_eq!(codes(&w.replies()), if try_ < 3 { vec![535, 250] } else { vec![535, 421] });
        }
        assert!(w.closed);
    }

    const STORED: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const FIRST: &str = "biwsbj11c2VyLHI9ck9wck5HZndFYmVSV2diTkVrcU8=";
    const LAST: &str =
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn b64(text: &str) -> String {
        data_encoding::BASE64.encode(text.as_bytes())
    }

    /// A session inside TLS that exports these octets and saw a certificate of these names.
    fn inside_tls(exporter: Option<[u8; 32]>, names: &[&str]) -> World {
        let mut w = World::with_peer(
            |p| {
                p.auth = true;
                p.mechanisms = Mechanisms { plain: true, scram: true, external: true };
            },
            Peer { address: None, tls: true },
        );
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        w.session.handle_tls_started(w.at, TlsFacts { exporter, names, ..TlsFacts::default() });
        w
    }

    #[test]
    fn scram_goes_through_with_the_vector_of_rfc_7677() {
        let mut w = inside_tls(None, &[]);
        w.say("EHLO p.example\r\n");
        assert!(w.replies()[1].contains("AUTH SCRAM-SHA-256 PLAIN"));
        w.say(&format!("AUTH SCRAM-SHA-256 {FIRST}\r\n"));
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(w.replies(), [format!("334 {}", b64(challenge))]);
        w.say(&format!("{}\r\n", b64(LAST)));
        assert_eq!(w.replies(), [format!("334 {}", b64("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="))]);
        w.say("\r\nAUTH PLAIN AGEAYg==\r\nMAIL FROM:<a@src> MT-PRIORITY=6\r\n");
        let got = w.replies();
        assert_eq!(codes(&got), [235, 503, 250]);
        assert!(got[2].starts_with("250 2.3.6 4"), "capped at the user's ceiling: {got:?}");
        // Without an initial response, and all in one batch but for the waits.
        let mut w = inside_tls(None, &[]);
        w.say("EHLO p.example\r\nAUTH SCRAM-SHA-256\r\n");
        assert_eq!(w.replies().last().map(String::as_str), Some("334 "));
        w.say(&format!("{FIRST}\r\n{}\r\n\r\n", b64(LAST)));
        assert_eq!(codes(&w.replies()), [334, 334, 235]);
    }

    #[test]
    fn scram_that_goes_wrong_lets_nobody_in() {
        let wrong = b64(&LAST.replace("dHzb", "dHzc"));
        let (right, stranger) = (b64(LAST), b64("n,,n=nobody,r=rOprNGfwEbeRWgbNEkqO"));
        for (lines, want) in [
            (format!("{FIRST}\r\n{wrong}"), vec![334, 535]),
            // Who does not exist fails where a wrong password fails.
            (format!("{stranger}\r\n{right}"), vec![334, 535]),
            (format!("{FIRST}\r\n*"), vec![334, 501]),
            (format!("{FIRST}\r\n%%"), vec![334, 501]),
            (format!("{FIRST}\r\n{}", b64("c=biws")), vec![334, 501]),
            (format!("{FIRST}\r\n{right}\r\n*"), vec![334, 334, 501]),
            (format!("{FIRST}\r\n{right}\r\n{}", b64("more")), vec![334, 334, 501]),
            ("=".into(), vec![501]),
            (b64("nonsense"), vec![501]),
            (b64("n,a=admin,n=user,r=abc"), vec![535]),
            (b64("p=tls-exporter,,n=user,r=abc"), vec![535]),
        ] {
            let mut w = inside_tls(None, &[]);
            w.say("EHLO p.example\r\n");
            w.replies();
            w.say(&format!("AUTH SCRAM-SHA-256 {lines}\r\n"));
            if want.ends_with(&[535]) {
                w.jump();
            }
            assert_eq!(codes(&w.replies()), want, "{lines}");
            w.say("MAIL FROM:<a@src> MT-PRIORITY=9\r\n");
            assert!(w.replies()[0].starts_with("250 2.3.6 -2"), "{lines}");
        }
    }

    #[test]
    fn channel_binding_is_offered_where_the_connection_exports_and_its_denial_is_noticed() {
        let mut w = inside_tls(Some([7; 32]), &[]);
        w.say("EHLO p.example\r\n");
        assert!(w.replies()[1].contains("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN"));
        for (mechanism, first, want) in [
            ("SCRAM-SHA-256", "y,,n=user,r=abc", 535),
            ("SCRAM-SHA-256", "p=tls-exporter,,n=user,r=abc", 535),
            ("SCRAM-SHA-256-PLUS", "n,,n=user,r=abc", 535),
            ("SCRAM-SHA-256-PLUS", "y,,n=user,r=abc", 535),
            ("SCRAM-SHA-256-PLUS", "p=tls-unique,,n=user,r=abc", 535),
            ("SCRAM-SHA-256-PLUS", "p=tls-exporter,,n=user,r=abc", 334),
            ("SCRAM-SHA-256", "n,,n=user,r=abc", 334),
        ] {
            let mut w = inside_tls(Some([7; 32]), &[]);
            w.say("EHLO p.example\r\n");
            w.replies();
            w.say(&format!("AUTH {mechanism} {}\r\n", b64(first)));
            if want == 535 {
                w.jump();
            }
            assert_eq!(codes(&w.replies()), [want], "{mechanism} {first}");
        }
        let mut w = inside_tls(None, &[]);
        w.say(&format!("EHLO p.example\r\nAUTH SCRAM-SHA-256-PLUS {FIRST}\r\n"));
        assert_eq!(codes(&w.replies()), [220, 250, 504], "not offered");
    }

    #[test]
    fn external_takes_the_certificate_at_its_word_and_nobody_elses() {
        let mut w = inside_tls(None, &["op1@src"]);
        w.say("EHLO p.example\r\n");
        assert!(w.replies()[1].contains("AUTH SCRAM-SHA-256 EXTERNAL PLAIN"));
        w.say(&format!("AUTH EXTERNAL {}\r\n", b64("op2@src")));
        w.jump();
        w.say("AUTH EXTERNAL =\r\n");
        assert_eq!(codes(&w.replies()), [535, 235]);
        let mut w = inside_tls(None, &["op1@src"]);
        w.say(&format!(
            "EHLO p.example\r\nAUTH EXTERNAL\r\n\r\nEHLO again.example\r\nAUTH EXTERNAL {}\r\n",
            b64("op1@src")
        ));
        assert_eq!(codes(&w.replies()), [220, 250, 334, 235, 250, 503]);
        let mut w = inside_tls(None, &["op1@src"]);
        w.say(&format!("EHLO p.example\r\nAUTH EXTERNAL {}\r\nAUTH EXTERNAL {}\r\n", b64("op1@src"), b64("a\0b")));
        assert_eq!(codes(&w.replies()), [220, 250, 235, 503]);
        for names in [&[][..], &["a@src", "b@src"]] {
            let mut w = inside_tls(None, names);
            w.say("EHLO p.example\r\nAUTH EXTERNAL =\r\n");
            if !names.is_empty() {
                w.jump();
            }
            assert_eq!(codes(&w.replies()), [220, 250, if names.is_empty() { 504 } else { 535 }]);
        }
    }

    #[test]
    fn auth_in_clear_is_for_loopback_and_only_when_the_policy_says_so() {
        let rules = |p: &mut Policy| {
            p.auth = true;
            p.auth_clear_loopback = true;
        };
        let far = Peer { address: Some([192, 0, 2, 7].into()), tls: false };
        let near = Peer { address: Some([127, 0, 0, 1].into()), tls: false };
        for (peer, offered) in [(far, false), (near, true)] {
            let mut w = World::with_peer(rules, peer);
            w.say("EHLO p.example\r\nAUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n");
            let got = w.replies();
            assert_eq!(got[1].contains("AUTH"), offered);
            assert_eq!(codes(&got).last(), Some(if offered { &235 } else { &504 }));
        }
    }

    #[test]
    fn submission_needs_a_login_and_trusted_networks_do_not() {
        let far = Peer { address: Some([192, 0, 2, 7].into()), tls: false };
        let mut w = World::with_peer(|p| p.kind = Kind::Submission, far);
        w.say("EHLO p.example\r\nMAIL FROM:<a@src>\r\n");
        assert!(w.replies()[2].starts_with("530 5.7.0"));
        let trust = |p: &mut Policy| {
            p.kind = Kind::Submission;
            p.trust = vec![([192, 0, 2, 0].into(), 24)];
        };
        let mut w = World::with_peer(trust, far);
        w.say("EHLO p.example\r\nMAIL FROM:<a@src> MT-PRIORITY=9\r\n");
        assert!(w.replies()[2].starts_with("250 2.1.0"), "exact number kept");
    }

    #[test]
    fn burl_is_for_users_who_logged_in_and_for_urls_made_for_them() {
        let world = |kind| {
            World::new(|policy| {
                (policy.kind, policy.auth, policy.auth_clear_loopback) = (kind, true, true);
                policy.burl = vec![("imap.test".into(), 143), ("imap.test".into(), 1143)];
            })
        };
        let url = |uid: u32, user: &str| {
            format!(
                "imap://x@IMAP.test/INBOX/;uid={uid};urlauth=submit+{user}:internal:91354a473744909de610943775f92038"
            )
        };
        let told = |w: &mut World, text: &str| {
            w.say(text);
            w.replies()
        };
        let mut w = world(Kind::Relay);
        w.replies();
        assert!(!told(&mut w, "EHLO c\r\n")[0].contains("BURL"));
        assert!(told(&mut w, "BURL x\r\n")[0].starts_with("502 5.5.1"));

        let mut w = world(Kind::Submission);
        w.replies();
        assert!(told(&mut w, "EHLO c\r\n")[0].contains("\n250-BURL\n"));
        assert!(told(&mut w, &format!("BURL {} LAST\r\n", url(1, "us")))[0].starts_with("530 5.7.0"));
        // user "us", password "secret"
        assert!(told(&mut w, "AUTH PLAIN AHVzAHNlY3JldA==\r\n")[0].starts_with("235"));
        assert!(told(&mut w, "EHLO c\r\n")[0].contains("\n250-BURL imap imap://imap.test imap://imap.test:1143\n"));
        assert!(told(&mut w, &format!("BURL {} LAST\r\n", url(1, "us")))[0].starts_with("503 5.5.0"));
        for (line, want) in [
            ("BURL".to_owned(), "501 5.5.4"),
            (format!("BURL {} FIRST", url(1, "us")), "501 5.5.4"),
            ("BURL imap://imap.test/INBOX/;uid=1 LAST".to_owned(), "554 5.5.4"),
            (format!("BURL {} LAST", url(1, "you")), "554 5.7.0"),
            (format!("BURL {} LAST", url(1, "us").replace("IMAP.test", "127.0.0.1")), "554 5.7.8"),
            (format!("BURL {} LAST", url(1, "us").replace("IMAP.test", "imap.test:25")), "554 5.7.8"),
            (format!("BURL {} LAST", url(2, "us")), "554 5.6.6"),
            (format!("BURL {}", url(3, "us")), "554 5.6.3"),
            (format!("BURL {} LAST", url(3, "us")), "554 5.6.3"),
            (format!("BURL {} LAST", url(1, "us")), "250 2.5.0 queued"),
            (format!("BURL {}", url(1, "us").replace("IMAP.test", "imap.test:1143")), "250 2.5.0"),
        ] {
            told(&mut w, "RSET\r\nMAIL FROM:<us@dest>\r\nRCPT TO:<b@dest>\r\n");
            let replies = told(&mut w, &format!("{line}\r\n"));
            assert!(replies[0].starts_with(want), "{line}: {replies:?}");
        }
        assert_eq!(w.taken.len(), 1);
        assert_eq!(&*w.taken[0].body, b"Subject: fetched\r\n\r\n");
        // Head by URL, the rest by BDAT, or the other way round; and nothing after a part that failed.
        let replies = told(&mut w, "BDAT 6 LAST\r\nhello\n");
        assert!(replies[0].starts_with("550") || replies[0].starts_with("554"), "a bare LF: {replies:?}");
        told(&mut w, "RSET\r\nMAIL FROM:<us@dest>\r\nRCPT TO:<b@dest>\r\n");
        let replies = told(&mut w, &format!("BURL {}\r\nBDAT 7 LAST\r\nhello\r\n", url(1, "us")));
        assert!(replies[0].starts_with("250 2.5.0") && replies[1].starts_with("250 2.0.0"), "{replies:?}");
        assert_eq!(&*w.taken[1].body, b"Subject: fetched\r\n\r\nhello\r\n");
        told(&mut w, "MAIL FROM:<us@dest>\r\nRCPT TO:<b@dest>\r\n");
        let replies = told(&mut w, &format!("BURL {}\r\nBURL {} LAST\r\nDATA\r\n", url(2, "us"), url(1, "us")));
        assert!(replies[0].starts_with("554 5.6.6") && replies[1].starts_with("503 5.5.0"), "{replies:?}");
        told(&mut w, "RSET\r\nMAIL FROM:<us@dest>\r\n");
        assert!(told(&mut w, &format!("BURL {} LAST\r\n", url(1, "us")))[0].starts_with("554 5.5.0"));
        assert_eq!(w.taken.len(), 2);
    }

    #[test]
    fn binary_content_comes_by_bdat_alone_and_octet_for_octet() {
        let mail = "MAIL FROM:<a@src> BODY=BINARYMIME\r\nRCPT TO:<b@dest>\r\n";
        let mut w = World::new(|_| {});
        w.say("EHLO p.example\r\n");
        assert!(w.replies()[1].contains("CHUNKING\n250-BINARYMIME\n"));
        w.say(&format!("{mail}DATA\r\nRSET\r\n"));
        assert_eq!(codes(&w.replies()), [250, 250, 503, 250]);
        let body = b"S: x\r\n\r\na\nb\r\0\xff\r\n.\r\nNOOP";
        w.say(mail);
        for part in body.chunks(5) {
            w.feed(format!("BDAT {}\r\n", part.len()).as_bytes());
            w.feed(part);
        }
        w.say("BDAT 0 LAST\r\nNOOP\r\n");
        let got = codes(&w.replies());
        assert!(got.len() == body.len().div_ceil(5) + 4 && got.iter().all(|c| *c == 250), "{got:?}");
        assert_eq!((&*w.taken[0].body, w.taken[0].envelope.body), (&body[..], BodyKind::BinaryMime));
        // The header keeps the rules it always has; what is not declared binary too.
        for content in ["S: x\ny: z\r\n\r\nb", "S: x\r: z\r\n\r\nb", "S: \0\r\n\r\nb"] {
            w.say(&format!("{mail}BDAT {} LAST\r\n{content}", content.len()));
            assert_eq!(codes(&w.replies()), [250, 250, 550], "{content:?}");
        }
        w.say("MAIL FROM:<a@src> BODY=8BITMIME\r\nRCPT TO:<b@dest>\r\nBDAT 10 LAST\r\nS: x\r\n\r\na\nRSET\r\n");
        assert_eq!(codes(&w.replies()), [250, 250, 550, 250]);
        assert_eq!(w.taken.len(), 1);
    }

    #[test]
    fn tracking_is_taken_note_of_except_over_lmtp() {
        let mail = "MAIL FROM:<a@src> MTRK=VheLhqV/rCKJmplkGFwsyW59pYk=:900 ENVID=q1@src.example\r\n";
        let mut w = World::new(|_| {});
        w.say("EHLO p.example\r\n");
        assert!(w.replies()[1].contains("\n250 MTRK"));
        w.say(&format!("{mail}RCPT TO:<b@dest>\r\nDATA\r\nS: x\r\n\r\n.\r\n"));
        assert_eq!(codes(&w.replies()), [250, 250, 354, 250]);
        let tracking = w.taken[0].terms.tracking.clone().expect("kept");
        assert_eq!((tracking.certifier.as_str(), tracking.seconds), ("VheLhqV/rCKJmplkGFwsyW59pYk", Some(900)));
        let mut w = World::new(|p| p.kind = Kind::Lmtp);
        w.say(&format!("LHLO p.example\r\n{mail}"));
        assert_eq!(codes(&w.replies()), [220, 250, 555]);
    }

    #[test]
    fn a_later_release_is_for_submission_alone_and_within_what_is_offered() {
        let near = Peer { address: Some([127, 0, 0, 1].into()), tls: false };
        let wall = Wall::parse_rfc3339("2029-12-31T00:00:00Z").expect("valid");
        let open = |kind: Kind, set: bool| {
            let rules = |p: &mut Policy| {
                p.kind = kind;
                p.future_release = Some(Duration::from_secs(2 * 86_400));
                p.trust = vec![([127, 0, 0, 0].into(), 8)];
                p.deliver_by = Some(0);
            };
            let mut w = World::with_peer(rules, near);
            w.session.tell_time(Now { at: w.at, wall, set });
            w.say(if kind == Kind::Lmtp { "LHLO c.example\r\n" } else { "EHLO c.example\r\n" });
            let offered = w.replies()[1].contains("FUTURERELEASE 172800 2030-01-02T00:00:00Z");
            assert_eq!(offered, kind == Kind::Submission && set);
            w
        };
        for (kind, set) in [(Kind::Relay, true), (Kind::Lmtp, true), (Kind::Submission, false)] {
            let mut w = open(kind, set);
            w.say("MAIL FROM:<a@src> HOLDFOR=60\r\n");
            assert!(w.replies()[0].starts_with("555 5.5.4"), "{kind:?}");
        }
        for (parameters, want) in [
            ("HOLDFOR=60", "250"),
            ("HOLDFOR=172800", "250"),
            ("HOLDUNTIL=2030-01-02T00:00:00Z", "250"),
            ("HOLDUNTIL=2029-01-02T00:00:00Z", "250"),
            ("HOLDFOR=172801", "501 5.5.4"),
            ("HOLDUNTIL=2030-01-02T00:00:01Z", "501 5.5.4"),
            ("HOLDFOR=60 HOLDUNTIL=2030-01-01T00:00:00Z", "501 5.5.4"),
            ("HOLDFOR=60 BY=59;R", "501 5.5.4"),
            ("HOLDFOR=60 BY=-5;N", "501 5.5.4"),
            ("HOLDFOR=60 BY=60;R", "250"),
        ] {
            let mut w = open(Kind::Submission, true);
            w.say(&format!("MAIL FROM:<a@src> {parameters}\r\n"));
            assert!(w.replies()[0].starts_with(want), "{parameters}");
        }
        let mut w = open(Kind::Submission, true);
        w.say(
            "MAIL FROM:<> HOLDFOR=60\r\nMAIL FROM:<a@src> HOLDFOR=60\r\nRCPT TO:<b@dest>\r\nDATA\r\nS: x\r\n\r\n.\r\n",
        );
        assert_eq!(codes(&w.replies()), [501, 250, 250, 354, 250]);
        let release = Release { at: wall.plus(Duration::from_secs(60)), asked: ReleaseAsked::For(60) };
        assert_eq!(w.taken[0].terms.release, Some(release));
    }

    #[test]
    fn long_lines_are_answered_once_and_endless_ones_cut_the_session() {
        let mut w = World::open();
        w.say(&format!("NOOP {}\r\n", "x".repeat(505)));
        assert_eq!(codes(&w.replies()), [250]);
        w.say(&format!("NOOP {}\r\nNOOP\r\n", "y".repeat(100_000)));
        assert_eq!(codes(&w.replies()), [500, 250]);
        for _ in 0..100 {
            w.feed(&[b'z'; 65_536]);
            assert!(w.session.buffered_bytes() < 1 << 20);
        }
        assert_eq!(codes(&w.replies()), [421]);
        assert!(w.closed);
        let mut w = World::with_peer(|p| p.auth = true, Peer { address: None, tls: true });
        w.say(&format!("EHLO p.example\r\nAUTH PLAIN {}\r\nAUTH PLAIN {}\r\n", "A".repeat(20_000), "A".repeat(8_000)));
        let got = w.replies();
        assert!(got[2].starts_with("500 5.5.6"), "{got:?}");
    }

    #[test]
    fn odd_line_ends_in_commands_are_one_error() {
        let mut w = World::open();
        w.say("NOOP\n");
        assert!(w.replies().is_empty());
        w.say("\r\nNOOP\rMAIL FROM:<cr@src>\r\nNOOP\r\n");
        assert_eq!(codes(&w.replies()), [500, 500, 250]);
    }

    #[test]
    fn floods_of_errors_and_recipients_are_bounded() {
        let mut w = World::open();
        for _ in 0..300 {
            w.say("JUNK\r\n");
        }
        let got = codes(&w.replies());
        assert_eq!((got.len(), got.last()), (21, Some(&421)));
        let mut w = World::open();
        w.say("MAIL FROM:<a@src>\r\n");
        for n in 0..1010 {
            w.say(&format!("RCPT TO:<r{n}@dest>\r\n"));
        }
        let got = codes(&w.replies());
        assert_eq!(got.iter().filter(|c| **c == 452).count(), 10);
        assert!(!w.closed);
    }

    #[test]
    fn silence_and_slow_decisions_end_the_session() {
        let mut w = World::open();
        w.replies();
        assert_eq!(w.session.next_timeout(), Some(w.at + Duration::from_secs(300)));
        w.at += Duration::from_secs(299);
        w.session.handle_timeout(w.at);
        w.pump();
        assert!(!w.closed);
        w.jump();
        assert!(w.closed && w.replies()[0].starts_with("421 4.4.2"));

        let mut w = World::open();
        w.slow = true;
        w.say("MAIL FROM:<a@src>\r\n");
        w.jump();
        w.jump();
        assert!(w.closed && w.replies()[0].starts_with("421 4.3.0"));
        assert!(w.answer_held(), "the answer comes late");
        assert!(w.replies().is_empty());

        // A client that dribbles is not idle, but its time is up in the end.
        let mut w = World::open();
        w.say("MAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nDATA\r\n");
        w.replies();
        for _ in 0..100 {
            w.at += Duration::from_secs(60);
            w.session.handle_timeout(w.at);
            w.feed(b"x");
        }
        assert!(w.closed && w.replies()[0].starts_with("421 4.4.2"));
        assert_eq!(w.budget.used(), 0);
    }

    #[test]
    fn half_closed_clients_get_their_last_reply() {
        let mut w = World::open();
        w.slow = true;
        w.say("MAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nDATA\r\n");
        while w.answer_held() {}
        w.say("Subject: x\r\n\r\nb\r\n.\r\n");
        w.session.handle_eof(w.at);
        w.pump();
        assert!(!w.closed);
        assert!(w.answer_held());
        assert_eq!(codes(&w.replies()), [250, 250, 354, 250]);
        assert!(w.closed);
        let mut w = World::open();
        w.say("MAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nDATA\r\nhalf a mess");
        w.session.handle_eof(w.at);
        w.pump();
        assert!(w.closed && w.taken.is_empty() && w.budget.used() == 0);
    }

    #[test]
    fn nothing_runs_after_quit() {
        let mut w = World::open();
        w.say("QUIT\r\nNOOP\r\nNOOP\r\n");
        assert_eq!(codes(&w.replies()), [221]);
        assert!(w.closed);
    }

    #[test]
    fn a_driver_that_reads_on_while_a_question_is_out_is_stopped() {
        let mut w = World::open();
        w.slow = true;
        w.say("MAIL FROM:<a@src>\r\n");
        assert!(w.session.wants_input());
        for _ in 0..40 {
            w.feed(&b"NOOP\r\n".repeat(10_000));
        }
        assert!(!w.session.wants_input() && w.closed);
        assert!(w.session.buffered_bytes() < 1 << 20);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_input_never_panics_and_stays_bounded(
            lines in proptest::collection::vec(
                proptest::prop_oneof![
                    proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60),
                    proptest::sample::select(vec![
                        b"EHLO p.example\r\n".to_vec(), b"MAIL FROM:<a@src>\r\n".to_vec(), b"RCPT TO:<b@dest>\r\n".to_vec(),
                        b"DATA\r\n".to_vec(), b"BDAT 5 LAST\r\n".to_vec(), b"BDAT 3\r\n".to_vec(), b"RSET\r\n".to_vec(),
                        b".\r\n".to_vec(), b"\r\n".to_vec(), b"AUTH PLAIN\r\n".to_vec(), b"Subject: x\r\n".to_vec(),
                        b"STARTTLS\r\n".to_vec(), b"MAIL FROM:<a@src> SMTPUTF8 BODY=8BITMIME MT-PRIORITY=9\r\n".to_vec(),
                        b"MAIL FROM:<a@src> BODY=BINARYMIME\r\n".to_vec(), b"AUTH SCRAM-SHA-256\r\n".to_vec(),
                        format!("{FIRST}\r\n").into_bytes(), format!("{}\r\n", b64(LAST)).into_bytes(),
                    ]),
                ],
                0..40,
            ),
            cut in 1usize..50,
        ) {
            let rules = |p: &mut Policy| {
                p.message_bytes = 300;
                p.overrun_bytes = 300;
                p.auth = true;
                p.auth_clear_loopback = true;
                p.mechanisms = Mechanisms { plain: true, scram: true, external: true };
                p.auth_delay = Duration::ZERO;
                p.auth_failures = 100;
            };
            let wire = lines.concat();
            let mut whole = World::new(rules);
            whole.feed(&wire);
            let mut split = World::new(rules);
            for part in wire.chunks(cut) {
                split.feed(part);
                proptest::prop_assert!(split.session.buffered_bytes() < 20_000);
            }
            // Pieces and wholes differ only where a STARTTLS stands: text behind it in one segment is refused.
            if !whole.tls_wanted && !split.tls_wanted && !lines.iter().any(|l| l.starts_with(b"STARTTLS")) {
                proptest::prop_assert_eq!(&whole.wire, &split.wire);
                proptest::prop_assert_eq!(&whole.taken, &split.taken);
            }
            drop((whole, split));
        }
    }

    fn dialogue() -> Vec<u8> {
        let mut out =
            b"HELO probe\r\nMAIL FROM:<>\r\nRCPT TO:<x@elsewhere>\r\nRCPT TO:<b@dest>\r\nDATA\r\nS: 1\r\n\r\n".to_vec();
        out.extend_from_slice(b"..\r\n.x\r\nlast\r\n.\r\nEHLO probe\r\nWHAT\r\nMAIL FROM:<a@src> MT-PRIORITY=4\r\n");
        out.extend_from_slice(
            b"RCPT TO:<b@dest>\r\nRCPT TO:<c@dest>\r\nBDAT 10\r\nSubject: x\r\nBDAT 6 LAST\r\n\r\n\r\nz\r",
        );
        out.extend_from_slice(b"MAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nBDAT 9 LAST\r\nS: 2\r\n\r\nyNOOP\n\r\n");
        out.extend_from_slice(
            b"MAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nDATA\r\nS: 3\r\n\r\nbare\nlf\r\n.\r\nNOOP\r\n",
        );
        out
    }

    fn codes(replies: &[String]) -> Vec<u16> {
        replies.iter().map(|r| r[..3].parse().expect("code")).collect()
    }

    /// One session with a driver that knows its answers: `dest` is served, `elsewhere` is not, passwords of one letter are wrong.
    struct World {
        at: Instant,
        session: Session,
        policy: Arc<Policy>,
        budget: Arc<Budget>,
        wire: Vec<u8>,
        shown: usize,
        taken: Vec<Transaction>,
        held: VecDeque<(AskId, Answer)>,
        slow: bool,
        closed: bool,
        tls_wanted: bool,
        /// What every whole message is told instead of "queued".
        refuse: Option<Reply>,
    }

    impl World {
        fn new(rules: impl FnOnce(&mut Policy)) -> Self {
            Self::with_peer(rules, Peer { address: Some([127, 0, 0, 1].into()), tls: false })
        }

        fn with_peer(rules: impl FnOnce(&mut Policy), peer: Peer) -> Self {
            let budget = Arc::new(Budget::new(100 << 20));
            let mut policy = Policy::relay("mx.example", Arc::clone(&budget));
            rules(&mut policy);
            let policy = Arc::new(policy);
            let at = Instant::from_millis(1000);
            let session = Session::new(at, Arc::clone(&policy), peer);
            let mut world = Self {
                at,
                session,
                policy,
                budget,
                wire: Vec::new(),
                shown: 0,
                taken: Vec::new(),
                held: VecDeque::new(),
                slow: false,
                closed: false,
                tls_wanted: false,
                refuse: None,
            };
            world.pump();
            world
        }

        fn open() -> Self {
            let mut world = Self::new(|_| {});
            world.say("EHLO probe.example\r\n");
            world.replies();
            world
        }

        fn say(&mut self, text: &str) {
            self.feed(text.as_bytes());
        }

        fn feed(&mut self, bytes: &[u8]) {
            self.session.handle_bytes(self.at, bytes);
            self.pump();
        }

        fn pump(&mut self) {
            loop {
                while let Some(bytes) = self.session.poll_transmit() {
                    self.wire.extend(bytes);
                }
                match self.session.poll_event() {
                    None => return,
                    Some(Event::Close) => self.closed = true,
                    Some(Event::StartTls) => self.tls_wanted = true,
                    Some(Event::Ask { id, question }) => {
                        let answer = self.decide(question);
                        self.held.push_back((id, answer));
                        if !self.slow {
                            self.answer_one();
                        }
                    }
                }
            }
        }

        fn answer_one(&mut self) {
            if let Some((id, answer)) = self.held.pop_front() {
                self.session.answer(self.at, id, answer);
            }
        }

        fn answer_held(&mut self) -> bool {
            let any = !self.held.is_empty();
            self.answer_one();
            self.pump();
            any
        }

        fn decide(&mut self, question: Question) -> Answer {
            match question {
                Question::Auth { user, password } if password.0.len() > 1 => {
                    Answer::Authenticated { user, max_precedence: Precedence::Immediate }
                }
                Question::Auth { .. } => Answer::Refuse(Reply::new(535, Status(5, 7, 8), "no")),
                Question::Scram { user } => Answer::Verifier {
                    nonce: SERVER_NONCE.into(),
                    verifier: scram::Verifier::parse(STORED).expect("a verifier"),
                    max_precedence: (user == "user").then_some(Precedence::Flash),
                },
                Question::External { names, user } => match names.as_slice() {
                    [one] if user.as_ref().is_none_or(|u| u == one) => {
                        Answer::Authenticated { user: one.clone(), max_precedence: Precedence::Flash }
                    }
                    _ => Answer::Refuse(Reply::new(535, Status(5, 7, 8), "no")),
                },
                Question::Mail { .. } => Answer::Ok,
                Question::Fetch { url, .. } if url.text().contains("uid=1;") => {
                    Answer::Content(b"Subject: fetched\r\n\r\n".to_vec())
                }
                Question::Fetch { url, .. } if url.text().contains("uid=3;") => Answer::Content(b"\0\x01\n".to_vec()),
                Question::Fetch { .. } => Answer::Refuse(Reply::new(554, Status(5, 6, 6), "not there")),
                Question::Rcpt { rcpt, .. } => match rcpt.to.domain() {
                    "dest" | "" => Answer::Ok,
                    _ => Answer::Refuse(Reply::new(550, Status(5, 7, 1), "not here")),
                },
                Question::End(_) if self.refuse.is_some() => self.refuse.clone().map_or(Answer::Ok, Answer::Refuse),
                Question::End(transaction) => {
                    self.taken.push(*transaction);
                    Answer::Queued(Reply::new(250, Status(2, 0, 0), "queued"))
                }
            }
        }

        /// Goes to the next deadline.
        fn jump(&mut self) {
            if let Some(at) = self.session.next_timeout() {
                self.at = self.at.max(at);
                self.session.handle_timeout(self.at);
                self.pump();
            }
        }

        /// Replies since the last call, a multi-line one as one text.
        fn replies(&mut self) -> Vec<String> {
            let text = String::from_utf8(self.wire[self.shown..].to_vec()).expect("ascii");
            self.shown = self.wire.len();
            let mut out = Vec::new();
            let mut open = String::new();
            for line in text.split_terminator("\r\n") {
                assert!(line.len() <= 510);
                open.push_str(line);
                if line.as_bytes().get(3) == Some(&b'-') {
                    open.push('\n');
                } else {
                    out.push(core::mem::take(&mut open));
                }
            }
            out
        }
    }
}
