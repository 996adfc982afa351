//! The server side of one SMTP connection.
//!
//! A listener's connection task makes a [`Session`], feeds it bytes and deadlines, writes what `poll_transmit` yields and answers
//! its questions. The session decides nothing but syntax, order and the static [`Policy`]; whether a password fits, a sender may
//! send or a recipient exists it asks, and the queue's commit stands behind the answer to [`Question::End`].
//!
//! After each call drain `poll_transmit`, then `poll_event`: bytes that precede a STARTTLS or a close are then already written.
//! One question is open at a time; what a pipelining client sends meanwhile is held, so replies keep their order. While
//! [`Session::wants_input`] is false the driver should stop reading.
//!
//! RFC 5321 4 (order), 2920 (PIPELINING), 3030 (CHUNKING), 3207 (STARTTLS), 4954 (AUTH), 6710 (MT-PRIORITY).

use std::collections::VecDeque;
use std::sync::Arc;

use super::command::{self, By, Command, Grammar, Mail, Rcpt};
use super::data::{Chunk, Dots, Flaws, Store};
use super::policy::{Claim, Kind, Peer, Policy};
use super::trace::{Protocol, TraceFacts};
use super::{Reply, header};
use crate::mail::{Envelope, MtPriority, Precedence, Recipient, Status};
use crate::time::{Instant, Wall};

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
    /// To [`Question::Auth`]: yes.
    Authenticated {
        /// The name the session goes by from now on.
        user: String,
        /// The highest precedence this user may set.
        max_precedence: Precedence,
    },
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
    /// The content: dot stuffing undone, every line ended by CRLF, no trace field of ours yet.
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
}

/// The server side of one connection.
#[derive(Debug)]
pub struct Session {
    policy: Arc<Policy>,
    peer: Peer,
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
    AuthResponse,
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

#[derive(Debug)]
enum About {
    Auth,
    Mail {
        mail: Box<Mail>,
        lowered: bool,
    },
    Rcpt(Box<Rcpt>),
    /// Holds the memory claim until custody is settled.
    End(Claim),
}

impl Session {
    /// A session for a peer that just connected; the greeting is ready to be sent.
    pub fn new(now: Instant, policy: Arc<Policy>, peer: Peer) -> Self {
        let trusted = peer.address.is_some_and(|a| policy.trusts(a));
        let mut session = Self {
            trusted,
            peer,
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
        let greeting = format!("{} ESMTP", session.policy.hostname);
        session.reply(&Reply::bare(220, greeting));
        session
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
            About::Mail { mail, lowered } => self.answer_mail(now, *mail, lowered, answer),
            About::Rcpt(rcpt) => self.answer_rcpt(*rcpt, answer),
            About::End(claim) => {
                drop(claim);
                let reply = match answer {
                    Answer::Queued(reply) | Answer::Refuse(reply) => reply,
                    Answer::Ok | Answer::Priority(_) | Answer::Authenticated { .. } => {
                        Reply::new(250, Status(2, 0, 0), "message accepted")
                    }
                };
                self.reply(&reply);
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
            | State::AuthResponse
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
            | State::AuthResponse
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
                State::AuthResponse => self.read_line(now, AUTH_LINE),
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
                    State::AuthResponse => self.auth_response(now, &line),
                    _ => self.command(now, &line),
                }
                true
            }
            Line::Partial => false,
            Line::TooLong => {
                let detail = if auth || matches!(self.state, State::AuthResponse) { 6 } else { 2 };
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
            Command::Ehlo(name) => self.hello(name, true),
            Command::Helo(name) => self.hello(name, false),
            Command::StartTls => self.start_tls(),
            Command::Auth { mechanism, initial } => self.auth(now, &mechanism, initial),
            Command::Mail(mail) => self.mail(now, mail),
            Command::Rcpt(rcpt) => self.rcpt(now, rcpt),
            Command::Data => self.data(),
            Command::Bdat { size, last } => self.bdat(size, last),
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
                let text = "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY HELP STARTTLS AUTH";
                self.reply(&Reply::new(214, Status(2, 0, 0), text));
            }
        }
    }

    fn hello(&mut self, name: String, extended: bool) {
        self.transaction = None;
        let mut reply = Reply::bare(250, self.policy.hostname.clone());
        if extended {
            reply.lines.extend(self.keywords());
        }
        self.hello = Some(Hello { name, extended });
        self.reply(&reply);
    }

    /// The EHLO keywords as they hold now.
    fn keywords(&self) -> Vec<String> {
        let mut out: Vec<String> =
            ["PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "CHUNKING"].map(str::to_owned).into();
        out.push(format!("SIZE {}", self.policy.message_bytes));
        out.push("MT-PRIORITY STANAG4406".to_owned());
        match self.policy.deliver_by {
            Some(0) => out.push("DELIVERBY".to_owned()),
            Some(least) => out.push(format!("DELIVERBY {least}")),
            None => {}
        }
        if self.policy.starttls && self.tls.is_none() {
            out.push("STARTTLS".to_owned());
        }
        if self.may_auth() {
            out.push("AUTH PLAIN".to_owned());
        }
        out
    }

    /// Whether AUTH PLAIN is allowed on this line: a password in clear is not worth sending.
    fn may_auth(&self) -> bool {
        let clear = self.policy.auth_clear_loopback && self.peer.is_loopback();
        self.policy.auth && (self.tls.is_some() || clear)
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
        if mechanism != "PLAIN" || !self.may_auth() {
            return self.error(&Reply::new(504, Status(5, 5, 4), "mechanism not available"));
        }
        match initial {
            None => {
                self.reply(&Reply::bare(334, ""));
                self.state = State::AuthResponse;
            }
            Some(text) if text == "=" => self.plain(now, b""),
            Some(text) => self.decode_plain(now, text.as_bytes()),
        }
    }

    fn auth_response(&mut self, now: Instant, line: &[u8]) {
        self.state = State::Command;
        if line == b"*" {
            return self.error(&Reply::new(501, Status(5, 7, 0), "authentication cancelled"));
        }
        self.decode_plain(now, line);
    }

    fn decode_plain(&mut self, now: Instant, text: &[u8]) {
        match data_encoding::BASE64.decode(text) {
            Ok(response) => self.plain(now, &response),
            Err(_) => self.error(&Reply::new(501, Status(5, 5, 2), "not base64")),
        }
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
            _ => self.auth_failed(now, Reply::new(535, Status(5, 7, 8), "authentication failed")),
        }
    }

    fn answer_auth(&mut self, now: Instant, answer: Answer) {
        match answer {
            Answer::Authenticated { user, max_precedence } => {
                self.user = Some((user, max_precedence));
                self.reply(&Reply::new(235, Status(2, 7, 0), "authenticated"));
            }
            Answer::Refuse(reply) if reply.is_temporary() => self.reply(&reply),
            Answer::Refuse(reply) => self.auth_failed(now, reply),
            Answer::Ok | Answer::Priority(_) | Answer::Queued(_) => {
                self.reply(&Reply::new(454, Status(4, 7, 0), "authentication not possible now"));
            }
        }
    }

    /// Guessing is slowed by a wait and ended after a few tries.
    fn auth_failed(&mut self, now: Instant, reply: Reply) {
        self.auth_failures += 1;
        let close = self.auth_failures >= self.policy.auth_failures;
        self.state = State::Delayed { until: now + self.policy.auth_delay, reply, close };
    }

    fn mail(&mut self, now: Instant, mut mail: Box<Mail>) {
        if self.hello.is_none() {
            return self.error(&Reply::new(503, Status(5, 5, 1), "EHLO first"));
        }
        if self.transaction.is_some() {
            return self.error(&Reply::new(503, Status(5, 5, 1), "a transaction is open"));
        }
        let needs_auth = self.policy.auth_required || self.policy.kind == Kind::Submission;
        if needs_auth && self.user.is_none() && !self.trusted {
            return self.error(&Reply::new(530, Status(5, 7, 0), "authentication required"));
        }
        let size = mail.size.unwrap_or(0);
        // Before the cap is applied: the sender is told about the priority it asked for.
        let asked = mail.mt_priority;
        if asked.is_some_and(|p| size > self.policy.bytes_for(p.precedence())) {
            return self.reply(&Reply::new(552, Status(5, 7, 16), "too big for its priority"));
        }
        if size > self.policy.message_bytes {
            let text = format!("larger than {} octets", self.policy.message_bytes);
            return self.reply(&Reply::new(552, Status(5, 3, 4), text));
        }
        if size > self.policy.budget.free() || self.policy.budget.free() == 0 {
            return self.reply(&Reply::new(452, Status(4, 3, 1), "no room now"));
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
        if asked.precedence() > ceiling { ceiling.mt_priority() } else { asked }
    }

    fn answer_mail(&mut self, now: Instant, mut mail: Mail, lowered: bool, answer: Answer) {
        let changed = match answer {
            Answer::Refuse(reply) => return self.reply(&reply),
            Answer::Priority(value) => {
                let changed = lowered || mail.mt_priority != Some(value);
                mail.mt_priority = Some(value);
                changed
            }
            Answer::Ok | Answer::Authenticated { .. } | Answer::Queued(_) => lowered,
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
            return self.reply(&Reply::new(452, Status(4, 5, 3), "too many recipients"));
        }
        let question = Question::Rcpt {
            rcpt: rcpt.clone(),
            user,
            trusted,
            accepted,
            mt_priority: transfer.mail.mt_priority,
            size: transfer.mail.size,
        };
        self.ask(now, question, About::Rcpt(rcpt));
    }

    fn answer_rcpt(&mut self, rcpt: Rcpt, answer: Answer) {
        let reply = match answer {
            Answer::Refuse(reply) => reply,
            Answer::Ok | Answer::Priority(_) | Answer::Authenticated { .. } | Answer::Queued(_) => {
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
        if transfer.recipients.is_empty() {
            return self.error(&Reply::new(554, Status(5, 5, 1), "no valid recipients"));
        }
        if self.policy.budget.free() == 0 {
            return self.reply(&Reply::new(452, Status(4, 3, 1), "no room now"));
        }
        self.state = State::Data(Box::new(Dots::new(Store::new(self.policy.bounds(), &self.policy.budget))));
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
            self.end(now, dots.into_store(), true);
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
                let store = t.chunks.get_or_insert_with(|| Store::new(policy.bounds(), &policy.budget));
                received = store.received();
                if received.saturating_add(size) > policy.message_bytes {
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
            self.chunk_failed(&reply);
            return true;
        }
        let Some(transfer) = &mut self.transaction else { return true };
        if chunk.last {
            if let Some(store) = transfer.chunks.take() {
                self.end(now, store, false);
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

    fn chunk_failed(&mut self, reply: &Reply) {
        if let Some(transfer) = &mut self.transaction {
            transfer.failed = transfer.chunks.take().is_some() || transfer.failed;
        }
        if reply.code == 503 { self.error(reply) } else { self.reply(reply) }
    }

    /// The content is whole: the last static checks, then the question of custody.
    fn end(&mut self, now: Instant, store: Store, by_dot: bool) {
        let Some(transfer) = self.transaction.take() else { return };
        let (flaws, bytes, claim) = store.finish();
        if let Some(reply) = flaw_reply(flaws) {
            self.reply(&reply);
            // Whoever sends bare CR or LF inside DATA may be smuggling: what else it sent is not worth reading.
            if by_dot && (flaws.bare_cr || flaws.bare_lf) {
                self.close();
            }
            return;
        }
        let received_count = match self.inspect(&transfer, &bytes) {
            Ok(count) => count,
            Err(reply) => return self.reply(&reply),
        };
        let facts = self.facts(transfer.mail.smtputf8);
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
                deliver_by: None,
                expires: Wall::NEVER,
            },
            by: mail.by.map(|by| (by, at)),
            body: bytes.into(),
            facts,
            trusted: self.trusted || self.user.is_some(),
            received_count,
        };
        self.ask(now, Question::End(Box::new(transaction)), About::End(claim));
    }

    /// Checks of a whole message: size for its priority, loops, 8-bit header. The number of Received fields, if all is well.
    fn inspect(&self, transfer: &Transfer, bytes: &[u8]) -> Result<usize, Reply> {
        let mail = &transfer.mail;
        if mail.mt_priority.is_some_and(|p| bytes.len() as u64 > self.policy.bytes_for(p.precedence())) {
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
        let raw = !bytes.get(..header::end(bytes)).unwrap_or_default().is_ascii();
        if raw && !mail.smtputf8 && !self.policy.raw_header {
            return Err(Reply::new(554, Status(5, 6, 7), "8-bit octets in the header need SMTPUTF8"));
        }
        Ok(received)
    }

    fn facts(&self, utf8: bool) -> TraceFacts {
        let hello = self.hello.as_ref();
        TraceFacts {
            ehlo: hello.map(|h| h.name.clone()).unwrap_or_default(),
            address: self.peer.address,
            protocol: Protocol {
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

    /// Answers a protocol error; too many of them end the session.
    fn error(&mut self, reply: &Reply) {
        self.errors += 1;
        if self.errors > self.policy.errors {
            return self.farewell(Reply::new(421, Status(4, 7, 0), "too many errors"));
        }
        self.reply(reply);
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
