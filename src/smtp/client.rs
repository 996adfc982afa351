//! The client side: hands one message after another to an SMTP or LMTP next hop.
//!
//! A delivery task makes a [`Session`], calls [`Session::deliver`], drives it like any core, and gets one [`Event::Done`] per message
//! with a result for each recipient. Then it may deliver again on the same connection or [`Session::quit`]. Nothing is sent onward
//! that could be read as something else: addresses are checked again, every leading dot is stuffed, line ends are CRLF.
//!
//! Whether TLS must be on, and who logs in how, the [`Config`] says; certificates are the driver's affair, which makes the handshake.
//! A hop that does not give what is asked for is left before anything of a message is said, and another host may be tried.
//!
//! RFC 5321, 2033 (LMTP), 2920, 3030, 3207, 3461, 3885, 4954, 6152, 6531, 6710 with 6758, 2852, 8689, 9422. Timeouts: RFC 5321 4.5.3.2.

mod fit;
mod login;
mod stuffer;

use core::num::NonZeroU32;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::Reply;
use super::reply::Reader;
use super::scram::client::Keys;
use crate::mail::{Envelope, Status, header as mail_header};
use crate::time::{Duration, Instant};

use fit::{Standing, fit, misfit, rcpt_line};
use login::{Exchange, LineFacts, Next, Offer};
use stuffer::Stuffer;

pub use login::{Login, Mechanism};
/// Commands in flight at once; keeps both sides' buffers from filling up against each other.
const WINDOW: usize = 64;
/// Content goes out in blocks of this size.
const BLOCK: usize = 64 << 10;

/// What the next hop speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialect {
    /// SMTP
    Smtp,
    /// LMTP (RFC 2033): a reply per recipient after the content.
    Lmtp,
}

/// How long to wait for what (RFC 5321 4.5.3.2). Slow links multiply them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// The greeting.
    pub greeting: Duration,
    /// EHLO, HELO, LHLO, STARTTLS and each step of AUTH.
    pub hello: Duration,
    /// MAIL and RSET.
    pub mail: Duration,
    /// RCPT
    pub rcpt: Duration,
    /// The 354.
    pub data_start: Duration,
    /// One block of content; the driver bounds each write with it, the session bounds their sum.
    pub data_block: Duration,
    /// The reply to the final dot.
    pub data_end: Duration,
    /// The 221.
    pub quit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |m: u64| Duration::from_secs(m * 60);
        Self {
            greeting: minutes(5),
            hello: minutes(5),
            mail: minutes(5),
            rcpt: minutes(5),
            data_start: minutes(2),
            data_block: minutes(3),
            data_end: minutes(10),
            quit: Duration::from_secs(10),
        }
    }
}

/// What is done about TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encryption {
    /// No STARTTLS.
    Off,
    /// STARTTLS where it is offered. After a failed handshake the driver connects again with it off.
    Opportunistic,
    /// Nothing is said of a message in clear.
    Required,
    /// The same, and the driver lets only a certificate pass that shows who the hop is.
    Verified,
}

impl Encryption {
    const fn is_required(self) -> bool {
        matches!(self, Self::Required | Self::Verified)
    }
}

/// How to speak to one next hop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Our name in EHLO.
    pub hello: String,
    /// SMTP or LMTP.
    pub dialect: Dialect,
    /// What is done about TLS.
    pub encryption: Encryption,
    /// How to log in, if so. Without a login there no message goes.
    pub login: Option<Login>,
    /// The hop is this machine: what is said in clear is read by nobody else.
    pub loopback: bool,
    /// Timeouts.
    pub timeouts: Timeouts,
}

/// Whether a message's sender would rather have it arrive in clear than not at all: its field says so, and the parameter REQUIRETLS,
/// which counts for more, does not (RFC 8689 5).
pub fn tls_is_optional(envelope: &Envelope, body: &[u8]) -> bool {
    !envelope.require_tls && mail_header::is_marked(body, "TLS-Required", "No")
}

impl Config {
    /// The usual settings.
    pub fn new(hello: impl Into<String>, dialect: Dialect) -> Self {
        let encryption = match dialect {
            Dialect::Smtp => Encryption::Opportunistic,
            Dialect::Lmtp => Encryption::Off,
        };
        let timeouts = Timeouts::default();
        Self { hello: hello.into(), dialect, encryption, login: None, loopback: false, timeouts }
    }
}

/// One message for this hop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// The envelope with the recipients that go this way.
    pub envelope: Envelope,
    /// The content, Received field on top, CRLF line ends, no dot stuffing.
    pub body: Arc<[u8]>,
    /// The value of MTRK, as it stands now.
    pub tracking: Option<String>,
    /// Seconds until `envelope.deliver_by`, as the clock says now; negative when it passed.
    pub by_seconds: Option<i64>,
}

/// What became of one recipient.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecipientResult {
    /// The hop took responsibility.
    Delivered {
        /// Its words.
        reply: String,
    },
    /// Try again later.
    Temporary {
        /// Why.
        status: Status,
        /// The hop's words, or ours.
        text: String,
    },
    /// Never.
    Permanent {
        /// Why.
        status: Status,
        /// The hop's words, or ours.
        text: String,
    },
}

/// What became of one delivery.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// One result per recipient, in the order of the envelope.
    pub results: Vec<RecipientResult>,
    /// The hop does DSN: it reports further by itself.
    pub dsn: bool,
    /// The hop does DELIVERBY: it was told of the deliver-by time.
    pub deliver_by: bool,
    /// TLS was on.
    pub tls: bool,
    /// The hop got as far as hearing about this message. While false another host of the same destination may be tried,
    /// whatever the results say.
    pub reached: bool,
    /// The hop answered something about this message, and not only that it closes. While false a connection kept from an earlier
    /// message has just gone stale: nothing but commands was sent, and another connection may be tried at once.
    pub answered: bool,
    /// The hop refused our login for good: the same once more is refused once more.
    pub login_refused: bool,
}

/// What a session tells its driver.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Event {
    /// Begin the TLS handshake now; go on with [`Session::handle_tls_started`].
    StartTls,
    /// Derive the keys of the login's password, which takes its time; go on with [`Session::handle_keys`].
    DeriveKeys {
        /// With this salt.
        salt: Vec<u8>,
        /// And so many iterations.
        iterations: NonZeroU32,
    },
    /// The message given to [`Session::deliver`] is settled.
    Done(Report),
    /// Close the connection once everything is written. An unsettled delivery was reported before.
    Close,
}

/// What the hop's EHLO offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Extensions {
    /// PIPELINING
    pub pipelining: bool,
    /// 8BITMIME
    pub eight_bit_mime: bool,
    /// SMTPUTF8
    pub smtputf8: bool,
    /// DSN
    pub dsn: bool,
    /// STARTTLS
    pub starttls: bool,
    /// MT-PRIORITY
    pub mt_priority: bool,
    /// SIZE was offered.
    pub size: bool,
    /// The largest message, when SIZE names one.
    pub size_limit: Option<u64>,
    /// DELIVERBY with its least number of seconds for mode R.
    pub deliver_by: Option<u32>,
    /// CHUNKING and BINARYMIME, of which neither is of use here without the other.
    pub binary_mime: bool,
    /// MTRK
    pub mtrk: bool,
    /// REQUIRETLS
    pub require_tls: bool,
    /// AUTH
    pub auth: Offer,
    /// LIMITS
    pub limits: Limits,
}

/// What LIMITS said (RFC 9422).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// MAILMAX: transactions on one connection.
    pub mails: Option<u32>,
    /// RCPTMAX: recipients of one transaction.
    pub recipients: Option<usize>,
    /// RCPTDOMAINMAX: their domains.
    pub domains: Option<usize>,
}

impl Limits {
    /// Reads one `NAME=value`; what is unknown or malformed limits nothing.
    fn take(&mut self, word: &str) {
        let Some((name, value)) = word.split_once('=') else { return };
        let Some(value) = value.parse::<u32>().ok().filter(|n| *n > 0) else { return };
        let size = usize::try_from(value).ok();
        match name.to_ascii_uppercase().as_str() {
            "MAILMAX" => self.mails = Some(value),
            "RCPTMAX" => self.recipients = size,
            "RCPTDOMAINMAX" => self.domains = size,
            _ => {}
        }
    }
}

impl Extensions {
    fn parse(reply: &Reply) -> Self {
        let mut out = Self::default();
        let (mut chunking, mut binary) = (false, false);
        for line in reply.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            let value = words.next();
            match keyword.as_str() {
                "PIPELINING" => out.pipelining = true,
                "8BITMIME" => out.eight_bit_mime = true,
                "SMTPUTF8" => out.smtputf8 = true,
                "DSN" => out.dsn = true,
                "STARTTLS" => out.starttls = true,
                "MT-PRIORITY" => out.mt_priority = true,
                "SIZE" => {
                    out.size = true;
                    out.size_limit = value.and_then(|v| v.parse().ok()).filter(|n| *n > 0);
                }
                "DELIVERBY" => out.deliver_by = Some(value.and_then(|v| v.parse().ok()).unwrap_or(0)),
                "CHUNKING" => chunking = true,
                "BINARYMIME" => binary = true,
                "MTRK" => out.mtrk = true,
                "REQUIRETLS" => out.require_tls = true,
                "AUTH" => value.into_iter().chain(words).for_each(|word| out.auth.take(word)),
                "LIMITS" => value.into_iter().chain(words).for_each(|word| out.limits.take(word)),
                _ => {}
            }
        }
        out.binary_mime = chunking && binary;
        out
    }
}

/// The client side of one connection.
#[derive(Debug)]
pub struct Session {
    config: Arc<Config>,
    state: State,
    tls: bool,
    /// What the TLS connection exports for channel binding, where it can.
    exporter: Option<[u8; 32]>,
    /// The login under way.
    login: Option<Exchange>,
    login_refused: bool,
    /// The hop took our login.
    logged_in: bool,
    offered: Extensions,
    reader: Reader,
    job: Option<Job>,
    /// Whether the hop still has a transaction open that must be forgotten first.
    dirty: bool,
    /// Transactions begun.
    mails: u32,
    expected: VecDeque<Expect>,
    outbox: Vec<u8>,
    events: VecDeque<Event>,
    deadline: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Up to the reply to EHLO.
    Opening,
    /// The TLS handshake.
    Handshake,
    /// Ready for a message, or busy with one.
    Open,
    /// QUIT is sent.
    Leaving,
    Closed,
}

/// The reply that comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Auth,
    Rset,
    Mail,
    /// The recipient with this index.
    Rcpt(usize),
    Data,
    /// After the content; LMTP: for this recipient.
    End(Option<usize>),
    Quit,
}

/// The message under way.
#[derive(Debug)]
struct Job {
    delivery: Delivery,
    results: Vec<Option<RecipientResult>>,
    /// Recipients the hop said yes to, of this transaction.
    accepted: Vec<usize>,
    /// Recipients for further transactions, because one may not have them all.
    later: VecDeque<usize>,
    /// Recipients the hop found too many for this transaction. Once it has taken the message for the others, they follow.
    surplus: Vec<usize>,
    /// Commands still to be sent.
    plan: VecDeque<Step>,
    /// Content as this hop gets it; set when the plan was made.
    content: Arc<[u8]>,
    mail: String,
    /// The content goes by BDAT.
    binary: bool,
    reached: bool,
    answered: bool,
    sending: Option<Stuffer>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Rset,
    Mail,
    Rcpt(usize),
    Data,
    Bdat,
}

impl Session {
    /// A session on a connection that was just made.
    pub fn new(now: Instant, config: Arc<Config>) -> Self {
        let deadline = Some(now + config.timeouts.greeting);
        Self {
            config,
            state: State::Opening,
            tls: false,
            exporter: None,
            login: None,
            login_refused: false,
            logged_in: false,
            offered: Extensions::default(),
            reader: Reader::default(),
            job: None,
            dirty: false,
            mails: 0,
            expected: [Expect::Greeting].into(),
            outbox: Vec::new(),
            events: VecDeque::new(),
            deadline,
        }
    }

    /// Gives the session a message. One at a time: wait for [`Event::Done`].
    pub fn deliver(&mut self, now: Instant, delivery: Delivery) {
        assert!(self.job.is_none(), "one delivery at a time");
        let results = vec![None; delivery.envelope.recipients.len()];
        self.job = Some(Job {
            content: Arc::clone(&delivery.body),
            delivery,
            results,
            accepted: Vec::new(),
            later: VecDeque::new(),
            surplus: Vec::new(),
            plan: VecDeque::new(),
            mail: String::new(),
            binary: false,
            reached: false,
            answered: false,
            sending: None,
        });
        match self.state {
            State::Open => self.begin(now),
            State::Opening | State::Handshake => {}
            State::Leaving | State::Closed => self.settle(Status(4, 4, 2), "connection is closed", false),
        }
    }

    /// Ends the session politely. With a message under way it only gives up.
    pub fn quit(&mut self, now: Instant) {
        match self.state {
            State::Open if self.job.is_none() && self.expected.is_empty() => {
                self.state = State::Leaving;
                self.outbox.extend_from_slice(b"QUIT\r\n");
                self.await_reply(now, Expect::Quit);
            }
            State::Closed => {}
            State::Opening | State::Handshake | State::Open | State::Leaving => self.fail("given up"),
        }
    }

    /// Takes bytes off the wire.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        let mut input = bytes;
        while !matches!(self.state, State::Closed) {
            if matches!(self.state, State::Handshake) {
                // Clear text after 220 may have been injected (RFC 3207 6).
                if !input.is_empty() {
                    self.fail("clear text where a TLS handshake was due");
                }
                return;
            }
            match self.reader.read(&mut input) {
                Ok(Some(reply)) => self.reply(now, reply, !input.is_empty()),
                Ok(None) => return,
                Err(_) => return self.fail("not an SMTP reply"),
            }
        }
    }

    /// The handshake is done: after [`Event::StartTls`], or before the greeting on a line that begins with TLS. `exporter` is what the
    /// connection exports for channel binding (RFC 9266).
    pub fn handle_tls_started(&mut self, now: Instant, exporter: Option<[u8; 32]>) {
        if self.state == State::Handshake {
            self.state = State::Opening;
            (self.tls, self.exporter) = (true, exporter);
            self.offered = Extensions::default();
            self.hello(now);
        } else if self.state == State::Opening && self.expected.front() == Some(&Expect::Greeting) {
            (self.tls, self.exporter) = (true, exporter);
        }
    }

    /// The keys asked for by [`Event::DeriveKeys`].
    pub fn handle_keys(&mut self, now: Instant, keys: &Keys) {
        if self.state == State::Opening
            && matches!(self.login, Some(Exchange::Deriving(_)))
            && let Some(exchange) = self.login.take()
        {
            self.login_next(now, exchange.derived(keys));
        }
    }

    /// The hop closed the connection.
    pub fn handle_eof(&mut self, _now: Instant) {
        self.fail("connection lost");
    }

    /// Acts on a deadline at or before `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|d| now >= d) {
            self.fail("no reply in time");
        }
    }

    /// Bytes to write. Drain until `None` after each call, before the events.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        if !self.outbox.is_empty() {
            return Some(core::mem::take(&mut self.outbox));
        }
        let job = self.job.as_mut()?;
        let stuffer = job.sending.as_mut()?;
        let block = stuffer.block(&job.content);
        if stuffer.done {
            job.sending = None;
        }
        block
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] next has work.
    pub const fn next_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// What the hop's EHLO offered.
    pub const fn extensions(&self) -> Extensions {
        self.offered
    }

    fn hello(&mut self, now: Instant) {
        let verb = match self.config.dialect {
            Dialect::Smtp => "EHLO",
            Dialect::Lmtp => "LHLO",
        };
        let line = format!("{verb} {}\r\n", self.config.hello);
        self.outbox.extend_from_slice(line.as_bytes());
        self.await_reply(now, Expect::Ehlo);
    }

    fn reply(&mut self, now: Instant, reply: Reply, more: bool) {
        let Some(expected) = self.expected.pop_front() else {
            // Unasked: a farewell, or a hop that lost count. Neither is one to go on with.
            return self.fail(&reply.one_line());
        };
        self.deadline = self.expected.front().map(|next| now + self.patience(*next));
        if reply.code == 421 && expected != Expect::Quit {
            self.closing(expected, &reply);
            return;
        }
        if let Some(job) = &mut self.job {
            job.answered = true;
        }
        match expected {
            Expect::Greeting if reply.code == 220 => self.hello(now),
            Expect::Ehlo if reply.code == 250 => {
                self.offered = Extensions::parse(&reply);
                self.opened(now);
            }
            Expect::Ehlo if reply.is_permanent() && self.config.dialect == Dialect::Smtp => {
                let line = format!("HELO {}\r\n", self.config.hello);
                self.outbox.extend_from_slice(line.as_bytes());
                self.await_reply(now, Expect::Helo);
            }
            Expect::Helo if reply.code == 250 => self.opened(now),
            Expect::Greeting | Expect::Ehlo | Expect::Helo => self.refuse_all(&reply),
            Expect::StartTls if reply.code == 220 => {
                if more || !self.reader.is_empty() {
                    // Somebody in between may have put it there, to have it taken for what the hop says inside TLS (RFC 3207 6).
                    return self.turn_away(Status(4, 7, 5), "clear text after the STARTTLS reply");
                }
                self.state = State::Handshake;
                self.deadline = Some(now + self.config.timeouts.hello);
                self.events.push_back(Event::StartTls);
            }
            Expect::StartTls if self.config.encryption.is_required() => {
                let text = format!("TLS is required, and the next hop does not begin it: {}", reply.one_line());
                self.turn_away(Status(4, 7, 10), &text);
            }
            // Opportunistic: no TLS is no reason to keep the mail.
            Expect::StartTls => self.begin_login(now),
            Expect::Auth => self.auth_reply(now, &reply),
            Expect::Rset => self.go_on(now),
            Expect::Mail => self.mail_reply(now, &reply),
            Expect::Rcpt(index) => self.rcpt_reply(now, index, &reply),
            Expect::Data => self.data_reply(now, &reply),
            Expect::End(index) => self.end_reply(now, index, &reply),
            Expect::Quit => self.close(),
        }
    }

    /// EHLO is through: TLS first where it is offered and wanted.
    fn opened(&mut self, now: Instant) {
        if self.tls || self.config.encryption == Encryption::Off {
            return self.begin_login(now);
        }
        if self.offered.starttls {
            self.outbox.extend_from_slice(b"STARTTLS\r\n");
            return self.await_reply(now, Expect::StartTls);
        }
        if self.config.encryption.is_required() {
            return self.turn_away(Status(4, 7, 10), "TLS is required, and the next hop does not offer STARTTLS");
        }
        self.begin_login(now);
    }

    /// TLS is as it will be: AUTH, where a login is set.
    fn begin_login(&mut self, now: Instant) {
        let config = Arc::clone(&self.config);
        let Some(login) = &config.login else { return self.begin_open(now) };
        let line = LineFacts { private: self.tls || config.loopback, exporter: self.exporter };
        let Some(choice) = login::choose(login, self.offered.auth, line) else {
            return self
                .turn_away(Status(4, 7, 4), "the next hop offers no way to log in that may be used on this line");
        };
        let (command, exchange) = choice.begin(login);
        self.login = Some(exchange);
        self.outbox.extend_from_slice(command.as_bytes());
        self.outbox.extend_from_slice(b"\r\n");
        self.await_reply(now, Expect::Auth);
    }

    fn auth_reply(&mut self, now: Instant, reply: &Reply) {
        let Some(exchange) = self.login.take() else { return self.fail("a reply to AUTH where none was due") };
        match reply.code {
            334 => {
                let text = reply.lines.first().map_or("", String::as_str);
                self.login_next(now, exchange.challenge(text));
            }
            235 if exchange.may_end() => {
                self.logged_in = true;
                self.begin_open(now);
            }
            235 => self.turn_away(Status(4, 7, 5), "the next hop took the login without proof that it knows the user"),
            _ => {
                self.login_refused = reply.is_permanent();
                self.turn_away(Status(4, 7, 8), &format!("the login was refused: {}", reply.one_line()));
            }
        }
    }

    fn login_next(&mut self, now: Instant, next: Next) {
        match next {
            Next::Say(message, exchange) => {
                self.login = Some(exchange);
                let line = data_encoding::BASE64.encode(message.as_bytes());
                self.outbox.extend_from_slice(line.as_bytes());
                self.outbox.extend_from_slice(b"\r\n");
                self.await_reply(now, Expect::Auth);
            }
            Next::Derive(challenged) => {
                let (salt, iterations) = challenged.cost();
                self.events.push_back(Event::DeriveKeys { salt: salt.to_vec(), iterations });
                self.login = Some(Exchange::Deriving(challenged));
                self.deadline = Some(now + self.config.timeouts.hello);
            }
            Next::Broken(why) => self.turn_away(Status(4, 7, 5), &format!("the next hop cannot be trusted: {why}")),
        }
    }

    fn begin_open(&mut self, now: Instant) {
        self.state = State::Open;
        if self.job.is_some() {
            self.begin(now);
        }
    }

    /// Plans the message under way for what this hop can do; what it cannot is settled without asking it.
    fn begin(&mut self, now: Instant) {
        let mut offered = self.offered;
        // It is worth something only from a hop that has shown who it is.
        offered.require_tls &= self.tls && self.config.encryption == Encryption::Verified;
        let Some(job) = &mut self.job else { return };
        let envelope = &job.delivery.envelope;
        if envelope.require_tls && envelope.from.is_some() && !offered.require_tls {
            // Another host of the same destination may do better (RFC 8689 4.2.1).
            job.answered = true;
            return self.settle(Status(5, 7, 30), "REQUIRETLS cannot be kept: the next hop does not offer it", true);
        }
        let is_final = self.config.dialect == Dialect::Lmtp;
        match fit(&job.delivery, offered, Standing { logged_in: self.logged_in, is_final }) {
            Ok(fitted) => {
                job.content = fitted.content;
                job.mail = fitted.mail;
                job.binary = fitted.binary;
            }
            Err((status, text)) => {
                (job.reached, job.answered) = (true, true);
                return self.settle(status, &text, true);
            }
        }
        for (recipient, result) in job.delivery.envelope.recipients.iter().zip(&mut job.results) {
            *result = misfit(&recipient.address, offered);
        }
        job.later = job.results.iter().enumerate().filter(|(_, r)| r.is_none()).map(|(i, _)| i).collect();
        if job.later.is_empty() {
            (job.reached, job.answered) = (true, true);
            return self.finish();
        }
        self.next_transaction(now);
    }

    /// Plans a transaction for as many of the remaining recipients as the hop takes at once (RFC 9422); ends the job without any.
    fn next_transaction(&mut self, now: Instant) {
        let (limits, dirty, spent) = (self.offered.limits, self.dirty, self.is_spent());
        let Some(job) = &mut self.job else { return };
        if job.later.is_empty() {
            return self.finish();
        }
        if spent && job.answered {
            return self.settle(Status(4, 5, 3), "the next hop takes no more mail on this connection", false);
        }
        job.accepted.clear();
        job.surplus.clear();
        let (mut batch, mut domains) = (Vec::new(), BTreeSet::new());
        while let Some(index) = job.later.front().copied() {
            let domain = job.delivery.envelope.recipients.get(index).map(|r| r.address.domain().to_ascii_lowercase());
            domains.extend(domain);
            let full = limits.recipients.is_some_and(|most| batch.len() >= most)
                || limits.domains.is_some_and(|most| domains.len() > most);
            if full {
                break;
            }
            batch.push(index);
            job.later.pop_front();
        }
        job.plan.extend(dirty.then_some(Step::Rset));
        job.plan.push_back(Step::Mail);
        job.plan.extend(batch.into_iter().map(Step::Rcpt));
        job.plan.push_back(if job.binary { Step::Bdat } else { Step::Data });
        self.go_on(now);
    }

    /// Whether the hop takes no further message on this connection. The driver makes another one then.
    pub fn is_spent(&self) -> bool {
        self.offered.limits.mails.is_some_and(|most| self.mails >= most)
    }

    /// Sends what the plan and the window allow.
    fn go_on(&mut self, now: Instant) {
        let window = if self.offered.pipelining { WINDOW } else { 1 };
        while self.expected.len() < window {
            let Some(job) = &mut self.job else { return };
            let Some(step) = job.plan.pop_front() else { return };
            if step == Step::Bdat && !self.expected.is_empty() {
                // Octets follow it at once: first it must be known that somebody wants them.
                job.plan.push_front(step);
                return;
            }
            let (line, expected) = match step {
                Step::Rset => ("RSET".to_owned(), Expect::Rset),
                Step::Mail => {
                    job.reached = true;
                    self.mails = self.mails.saturating_add(1);
                    (job.mail.clone(), Expect::Mail)
                }
                Step::Rcpt(index) => {
                    let Some(recipient) = job.delivery.envelope.recipients.get(index) else { continue };
                    (rcpt_line(recipient, &job.delivery, self.offered), Expect::Rcpt(index))
                }
                Step::Data => ("DATA".to_owned(), Expect::Data),
                Step::Bdat => {
                    let line = format!("BDAT {} LAST\r\n", job.content.len());
                    self.outbox.extend_from_slice(line.as_bytes());
                    job.sending = Some(Stuffer::verbatim());
                    self.dirty = true;
                    return self.await_end(now);
                }
            };
            self.dirty = match step {
                Step::Rset => false,
                Step::Mail | Step::Rcpt(_) | Step::Data | Step::Bdat => true,
            };
            self.outbox.extend_from_slice(line.as_bytes());
            self.outbox.extend_from_slice(b"\r\n");
            self.await_reply(now, expected);
        }
    }

    fn mail_reply(&mut self, now: Instant, reply: &Reply) {
        if !reply.is_positive() {
            let Some(job) = &mut self.job else { return };
            for result in job.results.iter_mut().filter(|r| r.is_none()) {
                *result = Some(refusal(reply));
            }
            // What is pipelined already gets its replies; the rest need not be said.
            job.plan.clear();
            job.later.clear();
            if self.expected.is_empty() {
                return self.finish();
            }
        }
        self.go_on(now);
    }

    fn rcpt_reply(&mut self, now: Instant, index: usize, reply: &Reply) {
        let Some(job) = &mut self.job else { return };
        if let Some(result) = job.results.get_mut(index)
            && result.is_none()
        {
            if reply.is_positive() {
                job.accepted.push(index);
            } else {
                if is_one_too_many(reply) && !job.accepted.is_empty() {
                    job.surplus.push(index);
                }
                *result = Some(match reply.code {
                    // RFC 5321 4.5.3.1.10: old hops say 552 where 452 is meant.
                    552 => RecipientResult::Temporary { status: Status(4, 5, 3), text: reply.one_line() },
                    _ => refusal(reply),
                });
            }
        }
        let later = &job.later;
        let settled = |(i, r): (usize, &Option<RecipientResult>)| r.is_some() || later.contains(&i);
        let nobody = job.accepted.is_empty() && job.results.iter().enumerate().all(settled);
        if nobody {
            job.plan.clear();
            if self.expected.is_empty() {
                return self.next_transaction(now);
            }
        }
        self.go_on(now);
    }

    fn data_reply(&mut self, now: Instant, reply: &Reply) {
        let Some(job) = &mut self.job else { return };
        if reply.code != 354 {
            for index in core::mem::take(&mut job.accepted) {
                if let Some(result) = job.results.get_mut(index) {
                    *result = Some(refusal(reply));
                }
            }
            return self.next_transaction(now);
        }
        // RFC 2920 3.1: a 354 though every recipient was refused is answered with a lone dot.
        let nobody = job.accepted.is_empty();
        job.sending = Some(if nobody { Stuffer::lone_dot() } else { Stuffer::default() });
        self.await_end(now);
    }

    /// The content is on its way: one reply to it, or over LMTP one for each recipient.
    fn await_end(&mut self, now: Instant) {
        let Some(job) = &mut self.job else { return };
        let waits: Vec<Option<usize>> = match self.config.dialect {
            Dialect::Lmtp => job.accepted.iter().copied().map(Some).collect(),
            Dialect::Smtp => vec![None],
        };
        let blocks = job.content.len() / BLOCK + 1;
        if waits.is_empty() {
            return self.finish_after_dot();
        }
        self.expected.extend(waits.into_iter().map(Expect::End));
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        let timeouts = self.config.timeouts;
        self.deadline = Some(now + timeouts.data_block.saturating_mul(blocks) + timeouts.data_end);
    }

    /// An LMTP hop that said 354 with no recipient sends no reply to the dot (RFC 2033 4.2): the connection is not worth keeping.
    fn finish_after_dot(&mut self) {
        self.finish();
        self.close();
    }

    fn end_reply(&mut self, now: Instant, index: Option<usize>, reply: &Reply) {
        let Some(job) = &mut self.job else { return };
        let early = job.sending.take().is_some();
        let settled = if reply.is_positive() && !early {
            RecipientResult::Delivered { reply: reply.one_line() }
        } else {
            refusal(reply)
        };
        let concerned: Vec<usize> = index.map_or_else(|| job.accepted.clone(), |i| vec![i]);
        for index in concerned {
            if let Some(result) = job.results.get_mut(index) {
                *result = Some(settled.clone());
            }
        }
        if early {
            // The hop answered before the end of the content: what it will make of the rest nobody knows.
            return self.fail("reply in the middle of the content");
        }
        if self.expected.is_empty() {
            // RFC 3030 2: after a chunk that failed only RSET helps.
            self.dirty = job.binary && !reply.is_positive();
            self.recall_surplus();
            self.next_transaction(now);
        }
    }

    /// The hop has taken the message: whom it found too many for one transaction it is asked about again in the next, at once (RFC 5321
    /// 4.5.3.1.10). Each such round hands the message over for somebody, so that they come to an end.
    fn recall_surplus(&mut self) {
        let spent = self.is_spent();
        let Some(job) = &mut self.job else { return };
        let results = &job.results;
        let taken = |i: &usize| matches!(results.get(*i), Some(Some(RecipientResult::Delivered { .. })));
        if spent || !job.accepted.iter().any(taken) {
            return;
        }
        for index in core::mem::take(&mut job.surplus) {
            if let Some(result) = job.results.get_mut(index) {
                *result = None;
                job.later.push_back(index);
            }
        }
    }

    /// 421: what it answers gets its words, and so does everything still open.
    fn closing(&mut self, expected: Expect, reply: &Reply) {
        if let (Expect::Rcpt(index), Some(job)) = (expected, &mut self.job)
            && let Some(result) = job.results.get_mut(index)
        {
            *result = Some(refusal(reply));
        }
        self.settle(reply.status(), &reply.one_line(), false);
        self.close();
    }

    /// The hop is not one to hand mail to as things are. Nothing of a message was said.
    fn turn_away(&mut self, status: Status, text: &str) {
        self.settle(status, text, false);
        self.close();
    }

    /// The hop does not talk to us at all.
    fn refuse_all(&mut self, reply: &Reply) {
        self.settle(reply.status(), &reply.one_line(), reply.is_permanent());
        self.close();
    }

    /// The connection is no longer of use.
    fn fail(&mut self, why: &str) {
        if self.state == State::Closed {
            return;
        }
        self.settle(Status(4, 4, 2), why, false);
        self.close();
    }

    /// Gives every open recipient the same result and reports.
    fn settle(&mut self, status: Status, text: &str, permanent: bool) {
        let Some(job) = &mut self.job else { return };
        for result in job.results.iter_mut().filter(|r| r.is_none()) {
            let text = text.to_owned();
            *result = Some(if permanent {
                RecipientResult::Permanent { status, text }
            } else {
                RecipientResult::Temporary { status: Status(4, status.1, status.2), text }
            });
        }
        self.finish();
    }

    fn finish(&mut self) {
        let Some(job) = self.job.take() else { return };
        self.deadline = None;
        let unsettled = || RecipientResult::Temporary { status: Status(4, 4, 2), text: "not settled".to_owned() };
        self.events.push_back(Event::Done(Report {
            results: job.results.into_iter().map(|r| r.unwrap_or_else(unsettled)).collect(),
            dsn: self.offered.dsn,
            deliver_by: self.offered.deliver_by.is_some(),
            tls: self.tls,
            reached: job.reached,
            answered: job.answered,
            login_refused: self.login_refused,
        }));
    }

    fn close(&mut self) {
        if self.state != State::Closed {
            self.state = State::Closed;
            self.deadline = None;
            self.expected.clear();
            self.events.push_back(Event::Close);
        }
    }

    fn await_reply(&mut self, now: Instant, expected: Expect) {
        if self.expected.is_empty() {
            self.deadline = Some(now + self.patience(expected));
        }
        self.expected.push_back(expected);
    }

    fn patience(&self, expected: Expect) -> Duration {
        let t = &self.config.timeouts;
        match expected {
            Expect::Greeting => t.greeting,
            Expect::Ehlo | Expect::Helo | Expect::StartTls | Expect::Auth => t.hello,
            Expect::Rset | Expect::Mail => t.mail,
            Expect::Rcpt(_) => t.rcpt,
            Expect::Data => t.data_start,
            Expect::End(_) => t.data_end,
            Expect::Quit => t.quit,
        }
    }
}

/// Whether a reply to RCPT finds nothing wrong but the number of recipients. Without an enhanced status its code alone says so.
fn is_one_too_many(reply: &Reply) -> bool {
    matches!(reply.code, 452 | 552)
        && reply.enhanced.is_none_or(|Status(_, subject, detail)| (subject, detail) == (5, 3))
}

/// What a reply that is no success means for a recipient. Codes that fit nowhere are worth another try.
fn refusal(reply: &Reply) -> RecipientResult {
    let (status, text) = (reply.status(), reply.one_line());
    if reply.is_permanent() {
        RecipientResult::Permanent { status, text }
    } else {
        let status = if reply.is_temporary() { status } else { Status(4, 5, 0) };
        RecipientResult::Temporary { status, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{BodyKind, ByMode, DeliverBy, Mailbox, MtPriority, Notify, Precedence, Recipient, Ret};
    use crate::smtp::server::{self, Answer, Question, TlsFacts, Transaction};
    use crate::smtp::{Budget, Peer, Policy};
    use crate::time::Wall;

    const FULL: &str = "250-hop\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250-SIZE 1000\r\n250 MT-PRIORITY STANAG4406\r\n";

    #[test]
    fn a_pipelining_hop_gets_the_envelope_in_one_batch_with_all_parameters() {
        let mut d = delivery(&["b@dest", "c@dest"], b"Subject: x\r\n\r\n.dot\r\ncaf\xc3\xa9");
        d.envelope.ret = Some(Ret::Headers);
        d.envelope.envid = Some("q+2B1".into());
        d.envelope.mt_priority = MtPriority::new(3);
        d.envelope.recipients[0].notify = Some(Notify::NEVER);
        d.envelope.recipients[1].notify = Some(Notify { success: true, failure: true, delay: false });
        d.envelope.recipients[1].orcpt = Some("rfc822;o+2Bx@dest".into());
        let mut h = Hop::new(Dialect::Smtp);
        h.session.deliver(h.at, d);
        h.gets("220 hop\r\n", "EHLO me.example\r\n");
        h.gets(
            FULL,
            "MAIL FROM:<a@src> SIZE=25 BODY=8BITMIME RET=HDRS ENVID=q+2B1 MT-PRIORITY=3\r\n\
             RCPT TO:<b@dest> NOTIFY=NEVER\r\nRCPT TO:<c@dest> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;o+2Bx@dest\r\nDATA\r\n",
        );
        h.gets("250 ok\r\n250 ok\r\n550 5.1.1 nobody\r\n", "");
        h.gets("354 go\r\n", "Subject: x\r\n\r\n..dot\r\ncafé\r\n.\r\n");
        h.gets("250 2.0.0 kept\r\n", "");
        let report = h.done();
        assert_eq!(report.results[0], RecipientResult::Delivered { reply: "250 2.0.0 kept".into() });
        assert_eq!(
            report.results[1],
            RecipientResult::Permanent { status: Status(5, 1, 1), text: "550 5.1.1 nobody".into() }
        );
        assert!(report.dsn && report.reached && !report.tls);
        // The connection serves the next message without RSET.
        h.session.deliver(h.at, delivery(&["b@dest"], b"x\r\n"));
        h.gets("", "MAIL FROM:<a@src> SIZE=3\r\nRCPT TO:<b@dest>\r\nDATA\r\n");
        h.gets("250 ok\r\n451 4.2.1 later\r\n354 go\r\n", ".\r\n");
        h.gets("554 no\r\n", "");
        assert!(matches!(&h.done().results[0], RecipientResult::Temporary { status: Status(4, 2, 1), .. }));
        h.session.quit(h.at);
        h.gets("", "QUIT\r\n");
        h.gets("221 bye\r\n", "");
        assert!(h.closed);
    }

    #[test]
    fn a_kept_connection_that_went_stale_is_told_from_a_hop_that_answered() {
        for (closing, answered) in [
            (vec![], false),
            (vec!["421 4.4.2 idle too long\r\n"], false),
            (vec!["250 ok\r\n"], true),
            (vec!["250 ok\r\n", "421 4.3.2 closing\r\n"], true),
            (vec!["451 4.3.0 not now\r\n"], true),
        ] {
            // Closed while it was used, or before that.
            for before in [false, true] {
                if before && answered {
                    continue;
                }
                let mut h = Hop::new(Dialect::Smtp);
                h.session.deliver(h.at, delivery(&["b@dest"], b"x\r\n"));
                for line in ["220 hop\r\n", "250 hop\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 kept\r\n"] {
                    h.session.handle_bytes(h.at, line.as_bytes());
                    h.drain();
                }
                assert!(h.done().answered);
                if !before {
                    h.session.deliver(h.at, delivery(&["b@dest"], b"x\r\n"));
                    h.gets("", "MAIL FROM:<a@src>\r\n");
                }
                for line in &closing {
                    h.session.handle_bytes(h.at, line.as_bytes());
                    h.drain();
                }
                h.session.handle_eof(h.at);
                if before {
                    h.session.deliver(h.at, delivery(&["b@dest"], b"x\r\n"));
                }
                assert!(!String::from_utf8_lossy(&h.drain()).contains("DATA"));
                let report = h.done();
                assert_eq!(report.answered, answered, "{closing:?}");
                assert!(matches!(report.results[0], RecipientResult::Temporary { .. }));
            }
        }
    }

    #[test]
    fn an_old_hop_is_spoken_to_step_by_step() {
        let mut d = delivery(&["b@dest", "c@dest"], b"Subject: x\r\n\r\nbody\r\n");
        d.envelope.ret = Some(Ret::Full);
        d.envelope.mt_priority = MtPriority::new(4);
        d.envelope.recipients[0].notify = Some(Notify::NEVER);
        let mut h = Hop::new(Dialect::Smtp);
        h.gets("220-old\r\n220 hop\r\n", "EHLO me.example\r\n");
        h.gets("502 what?\r\n", "HELO me.example\r\n");
        h.gets("250 hop\r\n", "");
        h.session.deliver(h.at, d);
        h.gets("", "MAIL FROM:<a@src>\r\n");
        h.gets("250 ok\r\n", "RCPT TO:<b@dest>\r\n");
        h.gets("552 too many\r\n", "RCPT TO:<c@dest>\r\n");
        h.gets("250 ok\r\n", "DATA\r\n");
        h.gets("354 go\r\n", "MT-Priority: 4\r\nSubject: x\r\n\r\nbody\r\n.\r\n");
        h.gets("250 kept\r\n", "");
        let report = h.done();
        assert!(!report.dsn);
        assert!(matches!(report.results[0], RecipientResult::Temporary { status: Status(4, 5, 3), .. }));
        assert!(matches!(report.results[1], RecipientResult::Delivered { .. }));
        // Nobody accepted: no DATA, and the next message begins with RSET.
        h.session.deliver(h.at, delivery(&["b@dest"], b"x\r\n"));
        h.gets("", "MAIL FROM:<a@src>\r\n");
        h.gets("250 ok\r\n", "RCPT TO:<b@dest>\r\n");
        h.gets("550 no\r\n", "");
        assert!(matches!(h.done().results[0], RecipientResult::Permanent { .. }));
        h.session.deliver(h.at, delivery(&["b@dest"], b"x\r\n"));
        h.gets("", "RSET\r\n");
        h.gets("250 ok\r\n", "MAIL FROM:<a@src>\r\n");
        h.gets("450 4.7.1 greylisted\r\n", "");
        assert!(matches!(h.done().results[0], RecipientResult::Temporary { status: Status(4, 7, 1), .. }));
    }

    #[test]
    fn whom_a_hop_found_too_many_for_one_transaction_it_is_asked_about_in_the_next_at_once() {
        let mail = "MAIL FROM:<a@src>\r\n";
        let rcpts = |who: &[&str]| who.iter().map(|w| format!("RCPT TO:<{w}@dest>\r\n")).collect::<String>();
        let to = ["b@dest", "c@dest", "d@dest", "e@dest"];
        let mut h = Hop::new(Dialect::Smtp);
        h.session.deliver(h.at, delivery(&to, b"x\r\n"));
        h.gets("220 hop\r\n", "EHLO me.example\r\n");
        h.gets("250-hop\r\n250 PIPELINING\r\n", &format!("{mail}{}DATA\r\n", rcpts(&["b", "c", "d", "e"])));
        // A mailbox that is full is another matter than a transaction that is.
        h.gets("250 ok\r\n250 ok\r\n452 4.5.3 too many\r\n452 4.2.2 full\r\n552 too many\r\n354 go\r\n", "x\r\n.\r\n");
        h.gets("250 2.0.0 kept\r\n", &format!("{mail}{}DATA\r\n", rcpts(&["c", "e"])));
        h.gets("250 ok\r\n250 ok\r\n452 4.5.3 too many\r\n354 go\r\n", "x\r\n.\r\n");
        h.gets("250 kept\r\n", &format!("{mail}{}DATA\r\n", rcpts(&["e"])));
        // One alone is not too many: it waits like any other.
        h.gets("250 ok\r\n452 4.5.3 too many\r\n503 5.5.1 nobody\r\n", "");
        let results = h.done().results;
        assert_eq!(results[0], RecipientResult::Delivered { reply: "250 2.0.0 kept".into() });
        assert_eq!(results[1], RecipientResult::Delivered { reply: "250 kept".into() });
        assert!(matches!(&results[2], RecipientResult::Temporary { status: Status(4, 2, 2), .. }));
        assert!(matches!(&results[3], RecipientResult::Temporary { status: Status(4, 5, 3), .. }));

        // Where the message itself is refused, or the connection is to carry no more, they wait as well.
        for (offer, end, first) in [
            ("250-hop\r\n250 PIPELINING\r\n", "451 4.3.0 later\r\n", Status(4, 3, 0)),
            ("250-hop\r\n250-PIPELINING\r\n250 LIMITS MAILMAX=1\r\n", "250 kept\r\n", Status(2, 0, 0)),
        ] {
            let mut h = Hop::new(Dialect::Smtp);
            h.session.deliver(h.at, delivery(&to[..2], b"x\r\n"));
            h.gets("220 hop\r\n", "EHLO me.example\r\n");
            h.gets(offer, &format!("{mail}{}DATA\r\n", rcpts(&["b", "c"])));
            h.gets("250 ok\r\n250 ok\r\n452 too many\r\n354 go\r\n", "x\r\n.\r\n");
            h.gets(end, "");
            let results = h.done().results;
            match &results[0] {
                RecipientResult::Delivered { .. } => assert_eq!(first, Status(2, 0, 0)),
                RecipientResult::Temporary { status, .. } => assert_eq!(*status, first),
                RecipientResult::Permanent { .. } => panic!("{results:?}"),
            }
            assert!(
                matches!(&results[1], RecipientResult::Temporary { text, .. } if text == "452 too many"),
                "{results:?}"
            );
        }
    }

    #[test]
    fn binary_mail_goes_octet_for_octet_where_it_can_and_as_lines_elsewhere() {
        let body = b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n\n.\r\n\0\xff";
        let binary = |to: &[&str]| {
            let mut d = delivery(to, body);
            d.envelope.body = BodyKind::BinaryMime;
            d
        };
        let sent = String::from_utf8_lossy(body).into_owned();
        let mut h = Hop::new(Dialect::Smtp);
        h.session.deliver(h.at, binary(&["b@dest", "c@dest"]));
        h.gets("220 hop\r\n", "EHLO me.example\r\n");
        let envelope = "MAIL FROM:<a@src> BODY=BINARYMIME\r\nRCPT TO:<b@dest>\r\nRCPT TO:<c@dest>\r\n";
        h.gets("250-hop\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 BINARYMIME\r\n", envelope);
        h.gets("250 ok\r\n250 ok\r\n", "");
        h.gets("550 5.1.1 no\r\n", &format!("BDAT {} LAST\r\n{sent}", body.len()));
        h.gets("451 4.3.0 not now\r\n", "");
        let report = h.done();
        assert!(matches!(report.results[0], RecipientResult::Temporary { status: Status(4, 3, 0), .. }));
        assert!(matches!(report.results[1], RecipientResult::Permanent { .. }));
        // After a chunk that failed only RSET helps; and where nobody is left, nothing is sent.
        h.session.deliver(h.at, binary(&["b@dest"]));
        h.gets("", "RSET\r\nMAIL FROM:<a@src> BODY=BINARYMIME\r\nRCPT TO:<b@dest>\r\n");
        h.gets("250 ok\r\n250 ok\r\n550 no\r\n", "");
        assert!(matches!(h.done().results[0], RecipientResult::Permanent { .. }));
        // Over LMTP each recipient has its answer.
        let mut h = Hop::new(Dialect::Lmtp);
        h.session.deliver(h.at, binary(&["b@dest", "c@dest"]));
        h.gets("220 hop\r\n", "LHLO me.example\r\n");
        h.gets("250-hop\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 BINARYMIME\r\n", envelope);
        h.gets("250 ok\r\n250 ok\r\n250 ok\r\n", &format!("BDAT {} LAST\r\n{sent}", body.len()));
        h.gets("250 kept\r\n452 4.2.2 full\r\n", "");
        let report = h.done();
        assert!(matches!(report.results[0], RecipientResult::Delivered { .. }));
        assert!(matches!(report.results[1], RecipientResult::Temporary { .. }));
        // BINARYMIME without CHUNKING is worth nothing.
        let mut h = Hop::new(Dialect::Smtp);
        h.session.deliver(h.at, binary(&["b@dest"]));
        h.gets("220 hop\r\n", "EHLO me.example\r\n");
        h.gets("250-hop\r\n250 BINARYMIME\r\n", "MAIL FROM:<a@src>\r\n");
        h.gets("250 ok\r\n", "RCPT TO:<b@dest>\r\n");
        h.gets("250 ok\r\n", "DATA\r\n");
        h.gets(
            "354 go\r\n",
            "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nCi4NCgD/\r\n.\r\n",
        );
        h.gets("250 kept\r\n", "");
        let mut signed = binary(&["b@dest"]);
        signed.body = [&b"DKIM-Signature: v=1\r\n"[..], body].concat().into();
        h.session.deliver(h.at, signed);
        h.gets("", "");
        assert!(matches!(h.done().results[0], RecipientResult::Permanent { status: Status(5, 6, 3), .. }));
    }

    #[test]
    fn tracking_goes_on_only_where_it_is_known_and_the_message_has_a_name() {
        for (offer, envid, want) in [
            ("250-hop\r\n250-DSN\r\n250 MTRK\r\n", true, "MAIL FROM:<a@src> ENVID=q1@src.example MTRK=x:7\r\n"),
            ("250-hop\r\n250-DSN\r\n250 MTRK\r\n", false, "MAIL FROM:<a@src>\r\n"),
            ("250-hop\r\n250 MTRK\r\n", true, "MAIL FROM:<a@src>\r\n"),
            ("250-hop\r\n250 DSN\r\n", true, "MAIL FROM:<a@src> ENVID=q1@src.example\r\n"),
        ] {
            let mut d = delivery(&["b@dest"], b"S: x\r\n\r\n");
            d.envelope.envid = envid.then(|| "q1@src.example".into());
            d.tracking = Some("x:7".into());
            let mut h = Hop::new(Dialect::Smtp);
            h.session.deliver(h.at, d);
            h.gets("220 hop\r\n", "EHLO me.example\r\n");
            h.gets(offer, want);
        }
    }

    #[test]
    fn a_hop_that_limits_recipients_gets_them_in_several_transactions() {
        let ehlo = |limits: &str| format!("250-hop\r\n250-PIPELINING\r\n250 LIMITS {limits}\r\n");
        let mut h = Hop::new(Dialect::Smtp);
        h.session.deliver(h.at, delivery(&["a@x", "b@x", "c@x"], b"S: x\r\n\r\n"));
        h.gets("220 hop\r\n", "EHLO me.example\r\n");
        h.gets(
            &ehlo("rcptmax=2 MAILMAX=3 X=0 RCPTDOMAINMAX=none"),
            "MAIL FROM:<a@src>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n",
        );
        h.gets("250 ok\r\n250 ok\r\n550 5.1.1 no\r\n354 go\r\n", "S: x\r\n\r\n.\r\n");
        h.gets("250 2.0.0 one\r\n", "MAIL FROM:<a@src>\r\nRCPT TO:<c@x>\r\nDATA\r\n");
        h.gets("250 ok\r\n250 ok\r\n354 go\r\n", "S: x\r\n\r\n.\r\n");
        h.gets("250 2.0.0 two\r\n", "");
        let report = h.done();
        assert_eq!(report.results[0], RecipientResult::Delivered { reply: "250 2.0.0 one".into() });
        assert!(matches!(report.results[1], RecipientResult::Permanent { .. }));
        assert_eq!(report.results[2], RecipientResult::Delivered { reply: "250 2.0.0 two".into() });
        assert!(!h.session.is_spent());
        h.session.deliver(h.at, delivery(&["a@x", "b@x", "c@x"], b"S: x\r\n\r\n"));
        h.gets("", "MAIL FROM:<a@src>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n");
        h.gets("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n", "S: x\r\n\r\n.\r\n");
        h.gets("250 kept\r\n", "");
        assert!(matches!(h.done().results[2], RecipientResult::Temporary { status: Status(4, 5, 3), .. }));
        assert!(h.session.is_spent());
        // One domain at a time; a refused transaction does not stop the next.
        let mut h = Hop::new(Dialect::Smtp);
        h.session.deliver(h.at, delivery(&["a@x", "b@X", "c@y"], b"S: x\r\n\r\n"));
        h.gets("220 hop\r\n", "EHLO me.example\r\n");
        h.gets(&ehlo("RCPTDOMAINMAX=1"), "MAIL FROM:<a@src>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@X>\r\nDATA\r\n");
        h.gets("250 ok\r\n550 no\r\n550 no\r\n", "");
        h.gets("554 nobody\r\n", "RSET\r\nMAIL FROM:<a@src>\r\nRCPT TO:<c@y>\r\nDATA\r\n");
        h.gets("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n", "S: x\r\n\r\n.\r\n");
        h.gets("250 kept\r\n", "");
        assert!(matches!(h.done().results[2], RecipientResult::Delivered { .. }));
    }

    #[test]
    fn lmtp_answers_for_each_recipient() {
        let mut h = Hop::new(Dialect::Lmtp);
        h.session.deliver(h.at, delivery(&["b@dest", "no@dest", "c@dest"], b"x\r\n"));
        h.gets("220 hop\r\n", "LHLO me.example\r\n");
        h.gets(
            "250-hop\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 8BITMIME\r\n",
            "MAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nRCPT TO:<no@dest>\r\nRCPT TO:<c@dest>\r\nDATA\r\n",
        );
        h.gets("250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n", "x\r\n.\r\n");
        h.gets("250 2.1.5 b has it\r\n", "");
        h.gets("452 4.2.2 c is full\r\n", "");
        let results = h.done().results;
        assert!(matches!(&results[0], RecipientResult::Delivered { reply } if reply.contains("b has it")));
        assert!(matches!(results[1], RecipientResult::Permanent { .. }));
        assert!(matches!(results[2], RecipientResult::Temporary { status: Status(4, 2, 2), .. }));
    }

    #[test]
    fn starttls_is_used_when_offered_and_nothing_clear_survives_it() {
        let mut h = Hop::new(Dialect::Smtp);
        h.session.deliver(h.at, delivery(&["b@dest"], b"x\r\n"));
        h.gets("220 hop\r\n", "EHLO me.example\r\n");
        h.gets("250-hop\r\n250-DSN\r\n250 STARTTLS\r\n", "STARTTLS\r\n");
        h.gets("220 go\r\n", "");
        assert!(h.tls_wanted);
        h.session.handle_tls_started(h.at, None);
        h.gets("", "EHLO me.example\r\n");
        h.gets("250 hop\r\n", "MAIL FROM:<a@src>\r\n");
        assert!(!h.session.extensions().dsn);

        let mut h = Hop::new(Dialect::Smtp);
        h.session.deliver(h.at, delivery(&["b@dest"], b"x\r\n"));
        h.gets("220 hop\r\n", "EHLO me.example\r\n");
        h.gets("250-hop\r\n250 STARTTLS\r\n", "STARTTLS\r\n");
        h.gets("220 go\r\n250 injected\r\n", "");
        assert!(h.closed && !h.tls_wanted);
        assert!(matches!(h.done().results[0], RecipientResult::Temporary { .. }));

        let mut h = Hop::new(Dialect::Smtp);
        h.session.deliver(h.at, delivery(&["b@dest"], b"x\r\n"));
        h.gets("220 hop\r\n", "EHLO me.example\r\n");
        h.gets("250-hop\r\n250 STARTTLS\r\n", "STARTTLS\r\n");
        h.gets("454 4.7.0 no key\r\n", "MAIL FROM:<a@src>\r\n");
    }

    #[test]
    fn what_a_hop_cannot_take_is_settled_without_asking_it() {
        type Change = fn(&mut Delivery);
        let cases: [(&str, Change, Status); 8] = [
            ("250 hop\r\n", |d| d.envelope.from = Some(Mailbox::new("тест@src")), Status(5, 6, 7)),
            (
                "250 hop\r\n",
                |d| {
                    d.envelope.smtputf8 = true;
                    d.body = "Subject: é\r\n\r\nx\r\n".as_bytes().into();
                },
                Status(5, 6, 9),
            ),
            ("250 hop\r\n", |d| d.envelope.recipients[0].address = Mailbox::new("你@dest"), Status(5, 6, 7)),
            ("250-hop\r\n250 SIZE 5\r\n", |_| {}, Status(5, 3, 4)),
            ("250 hop\r\n", |d| d.body = "DKIM-Signature: x\r\n\r\né\r\n".as_bytes().into(), Status(5, 6, 3)),
            ("250 hop\r\n", |d| d.envelope.recipients[0].address = Mailbox::new("b@dest>\r\nDATA"), Status(5, 1, 3)),
            ("250 hop\r\n", |d| d.envelope.from = Some(Mailbox::new("a@src\r\nRSET")), Status(5, 1, 7)),
            (
                "250 hop\r\n",
                |d| {
                    d.by_seconds = Some(60);
                    d.envelope.deliver_by = Some(DeliverBy { deadline: Wall(0), mode: ByMode::Return, trace: false });
                },
                Status(5, 4, 4),
            ),
        ];
        for (offer, change, want) in cases {
            let mut d = delivery(&["b@dest"], b"Subject: x\r\n\r\nbody\r\n");
            change(&mut d);
            let mut h = Hop::new(Dialect::Smtp);
            h.session.deliver(h.at, d);
            h.gets("220 hop\r\n", "EHLO me.example\r\n");
            h.gets(offer, "");
            match &h.done().results[0] {
                RecipientResult::Permanent { status, .. } => assert_eq!(*status, want),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_seven_bit_hop_gets_recoded_text() {
        let mut h = Hop::new(Dialect::Smtp);
        let body = "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\ncafé\r\n";
        let mut d = delivery(&["b@dest"], body.as_bytes());
        d.envelope.body = BodyKind::EightBitMime;
        h.session.deliver(h.at, d);
        h.gets("220 hop\r\n", "EHLO me.example\r\n");
        h.gets("250-hop\r\n250 PIPELINING\r\n", "MAIL FROM:<a@src>\r\nRCPT TO:<b@dest>\r\nDATA\r\n");
        h.session.handle_bytes(h.at, b"250 ok\r\n250 ok\r\n354 go\r\n");
        let wire = h.drain();
        assert!(wire.is_ascii());
        assert!(String::from_utf8_lossy(&wire).contains("quoted-printable\r\n\r\ncaf=C3=A9\r\n.\r\n"));
    }

    fn wants(encryption: Encryption, login: bool) -> Config {
        let login = login.then(|| Login {
            user: "tim".into(),
            password: Some(crate::smtp::server::Secret("tanstaaftanstaaf".into())),
            mechanisms: Mechanism::ALL.to_vec(),
            nonce: "abc".into(),
        });
        Config { encryption, login, ..Config::new("me.example", Dialect::Smtp) }
    }

    fn temporary(report: &Report) -> (Status, &str) {
        match &report.results[0] {
            RecipientResult::Temporary { status, text } => (*status, text),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn where_tls_is_required_nothing_is_said_of_a_message_without_it() {
        for encryption in [Encryption::Required, Encryption::Verified] {
            for script in [
                vec!["220 hop\r\n", "250 hop\r\n"],
                vec!["220 hop\r\n", "502 no\r\n", "250 hop\r\n"],
                vec!["220 hop\r\n", "250-hop\r\n250 STARTTLS\r\n", "454 4.7.0 not now\r\n"],
                vec!["220 hop\r\n", "250-hop\r\n250 STARTTLS\r\n", "220 go\r\n250 injected\r\n"],
            ] {
                let mut h = Hop::with(wants(encryption, true));
                h.session.deliver(h.at, delivery(&["b@dest"], b"x\r\n"));
                let mut said = Vec::new();
                for line in &script {
                    h.session.handle_bytes(h.at, line.as_bytes());
                    said.extend(h.drain());
                }
                let said = String::from_utf8_lossy(&said).into_owned();
                assert!(!said.contains("MAIL") && !said.contains("AUTH"), "{script:?}: {said}");
                let report = h.done();
                let (status, text) = temporary(&report);
                assert!(matches!(status, Status(4, 7, 5 | 10)), "{script:?}: {status} {text}");
                assert!(h.closed && !report.reached && !report.tls && !report.login_refused);
            }
        }
    }

    #[test]
    fn a_login_comes_before_the_message_and_the_server_has_to_prove_itself() {
        let begin = |offer: &str| {
            let mut h = Hop::with(wants(Encryption::Required, true));
            h.session.deliver(h.at, delivery(&["b@dest"], b"x\r\n"));
            // TLS from the first byte.
            h.session.handle_tls_started(h.at, Some([7; 32]));
            h.gets("220 hop\r\n", "EHLO me.example\r\n");
            h.session.handle_bytes(h.at, format!("250-hop\r\n250 AUTH {offer}\r\n").as_bytes());
            let said = String::from_utf8_lossy(&h.drain()).into_owned();
            (h, said)
        };
        let (mut h, said) = begin("PLAIN LOGIN");
        assert_eq!(said, "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n");
        h.gets("235 2.7.0 in\r\n", "MAIL FROM:<a@src> AUTH=<>\r\n");

        let first = data_encoding::BASE64.encode(b"p=tls-exporter,,n=tim,r=abc");
        let verifier = crate::smtp::scram::Verifier::derive("tanstaaftanstaaf", b"sixteen octets..", 4096);
        let exchange = |message: &[u8]| {
            let first = crate::smtp::scram::First::parse(message).expect("a first message");
            crate::smtp::scram::Exchange::new(first, "xyz", verifier.clone(), Some([7; 32]))
        };
        let (mut h, said) = begin("PLAIN SCRAM-SHA-256 SCRAM-SHA-256-PLUS");
        assert_eq!(said, format!("AUTH SCRAM-SHA-256-PLUS {first}\r\n"));
        let server = exchange(b"p=tls-exporter,,n=tim,r=abc");
        let challenge = data_encoding::BASE64.encode(server.challenge().as_bytes());
        h.session.handle_bytes(h.at, format!("334 {challenge}\r\n").as_bytes());
        let last = String::from_utf8(h.drain()).expect("ASCII");
        let last = data_encoding::BASE64.decode(last.trim_end().as_bytes()).expect("base64");
        let verdict = server.finish(&last).expect("the right password and channel");
        h.gets(&format!("334 {}\r\n", data_encoding::BASE64.encode(verdict.as_bytes())), "\r\n");
        h.gets("235 2.7.0 in\r\n", "MAIL FROM:<a@src> AUTH=<>\r\n");

        for (after, status, refused) in [
            ("235 2.7.0 in\r\n", Status(4, 7, 5), false),
            ("334 dj1BQUFB\r\n", Status(4, 7, 5), false),
            ("535 5.7.8 wrong\r\n", Status(4, 7, 8), true),
            ("454 4.7.0 later\r\n", Status(4, 7, 8), false),
        ] {
            let (mut h, _) = begin("SCRAM-SHA-256-PLUS");
            h.session.handle_bytes(h.at, format!("334 {challenge}\r\n").as_bytes());
            h.drain();
            h.session.handle_bytes(h.at, after.as_bytes());
            h.drain();
            let report = h.done();
            assert_eq!((temporary(&report).0, report.login_refused), (status, refused), "{after}");
            assert!(h.closed && !report.reached);
        }
        let (mut h, said) = begin("LOGIN CRAM-MD5");
        assert_eq!(said, "");
        let report = h.done();
        assert_eq!(temporary(&report).0, Status(4, 7, 4));
        assert!(h.closed && !report.reached);
        // Keys that come late or unasked do nothing.
        h.session.handle_keys(h.at, &Keys::derive("x", b"y", NonZeroU32::MIN));
        assert!(h.drain().is_empty());
    }

    #[test]
    fn mail_that_requires_tls_goes_only_to_a_hop_that_has_shown_who_it_is_and_keeps_the_promise() {
        for (encryption, offer, from, want) in [
            (Encryption::Verified, "250-hop\r\n250 REQUIRETLS\r\n", true, Some("MAIL FROM:<a@src> REQUIRETLS\r\n")),
            (Encryption::Verified, "250-hop\r\n250 DSN\r\n", true, None),
            (Encryption::Required, "250-hop\r\n250 REQUIRETLS\r\n", true, None),
            // A report is not lost over it (RFC 8689 5).
            (Encryption::Verified, "250-hop\r\n250 REQUIRETLS\r\n", false, Some("MAIL FROM:<> REQUIRETLS\r\n")),
            (Encryption::Required, "250-hop\r\n250 REQUIRETLS\r\n", false, Some("MAIL FROM:<>\r\n")),
        ] {
            let mut h = Hop::with(wants(encryption, false));
            let mut d = delivery(&["b@dest"], b"x\r\n");
            d.envelope.require_tls = true;
            d.envelope.from = d.envelope.from.filter(|_| from);
            h.session.deliver(h.at, d);
            h.gets("220 hop\r\n", "EHLO me.example\r\n");
            h.gets("250-hop\r\n250-REQUIRETLS\r\n250 STARTTLS\r\n", "STARTTLS\r\n");
            h.gets("220 go\r\n", "");
            h.session.handle_tls_started(h.at, None);
            h.gets("", "EHLO me.example\r\n");
            h.gets(offer, want.unwrap_or_default());
            if want.is_none() {
                let report = h.done();
                assert!(matches!(report.results[0], RecipientResult::Permanent { status: Status(5, 7, 30), .. }));
                assert!(!report.reached && !h.closed, "another host may be asked, and this one is well");
            }
        }
    }

    #[test]
    fn every_failure_of_a_hop_settles_the_message_once() {
        for (script, permanent, reached) in [
            (vec!["554 go away\r\n"], true, false),
            (vec!["421 busy\r\n"], false, false),
            (vec!["hello\r\n"], false, false),
            (vec!["220 hop\r\n", "421 4.3.2 closing\r\n"], false, false),
            (vec!["220 hop\r\n", "550 no\r\n", "550 no\r\n"], true, false),
            (vec!["220 hop\r\n", "250 hop\r\n", "553 5.1.8 bad sender\r\n"], true, true),
            (vec!["220 hop\r\n", "250 hop\r\n", "250 ok\r\n", "421 4.3.2 closing\r\n"], false, true),
            (vec!["220 hop\r\n", "250 hop\r\n", "250 ok\r\n", "250 ok\r\n", "554 5.6.0 no\r\n"], true, true),
            (
                vec!["220 hop\r\n", "250 hop\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "552 5.3.4 big\r\n"],
                true,
                true,
            ),
            (vec!["220 hop\r\n", "250 hop\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n250 early\r\n"], false, true),
        ] {
            let mut h = Hop::new(Dialect::Smtp);
            h.session.deliver(h.at, delivery(&["b@dest"], b"x\r\n"));
            for line in &script {
                h.session.handle_bytes(h.at, line.as_bytes());
                h.drain();
            }
            h.session.handle_eof(h.at);
            h.drain();
            let report = h.done();
            assert_eq!(h.reports, 1, "{script:?}");
            assert_eq!(
                matches!(report.results[0], RecipientResult::Permanent { .. }),
                permanent,
                "{script:?}: {report:?}"
            );
            assert!(!matches!(report.results[0], RecipientResult::Delivered { .. }));
            assert_eq!(report.reached, reached, "{script:?}");
        }
    }

    #[test]
    fn a_silent_hop_is_left_at_each_deadline() {
        let script = ["220 hop\r\n", "250 hop\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"];
        let minutes = [5, 5, 5, 5, 2, 13];
        for said in 0..=script.len() {
            let mut h = Hop::new(Dialect::Smtp);
            h.session.deliver(h.at, delivery(&["b@dest"], b"x\r\n"));
            for line in &script[..said] {
                h.session.handle_bytes(h.at, line.as_bytes());
                h.drain();
            }
            let deadline = h.session.next_timeout().expect("waits");
            assert_eq!(deadline.since(h.at), Duration::from_secs(minutes[said] * 60), "after {said} replies");
            h.session.handle_timeout(deadline - Duration::from_secs(1));
            assert!(h.drain().is_empty() && !h.closed);
            h.session.handle_timeout(deadline);
            h.drain();
            assert!(
                h.closed && matches!(h.done().results[0], RecipientResult::Temporary { status: Status(4, 4, 2), .. })
            );
            assert_eq!(h.session.next_timeout(), None);
        }
    }

    #[test]
    fn client_and_server_agree_back_to_back() {
        for (step, starttls, slow) in [(1, false, false), (7, true, false), (4096, false, true), (65_536, true, true)] {
            let mut pair = Pair::new(starttls, slow);
            let body = [b"Subject: x\r\n\r\n".to_vec(), b".line\r\n..\r\ncaf\xc3\xa9\r\n".repeat(4000)].concat();
            let mut first = delivery(&["b@dest", "x@elsewhere", "你好@dest"], &body);
            first.envelope.smtputf8 = true;
            first.envelope.body = BodyKind::EightBitMime;
            first.envelope.mt_priority = MtPriority::new(-3);
            first.envelope.envid = Some("e1".into());
            first.envelope.recipients[0].notify = Some(Notify { success: true, failure: false, delay: false });
            let many: Vec<String> = (0..300).map(|n| format!("r{n}@dest")).collect();
            let many: Vec<&str> = many.iter().map(String::as_str).collect();
            for d in [first, delivery(&many, b"Subject: y\r\n\r\nb\r\n")] {
                let asked = d.clone();
                let domains: Vec<String> =
                    d.envelope.recipients.iter().map(|r| r.address.domain().to_owned()).collect();
                pair.client.deliver(pair.at, d);
                let report = pair.run(step);
                let taken = pair.taken.pop().expect("taken");
                assert_eq!(taken.body, asked.body, "in steps of {step}");
                let served: Vec<Recipient> =
                    asked.envelope.recipients.iter().filter(|r| r.address.domain() == "dest").cloned().collect();
                let want = Envelope { recipients: served, ..asked.envelope };
                assert_eq!(taken.envelope, want);
                assert_eq!(report.results.len(), domains.len());
                for (domain, result) in domains.iter().zip(&report.results) {
                    match result {
                        RecipientResult::Delivered { .. } => assert_eq!(domain, "dest"),
                        RecipientResult::Permanent { status, .. } => {
                            assert_eq!((domain.as_str(), *status), ("elsewhere", Status(5, 7, 1)));
                        }
                        RecipientResult::Temporary { .. } => panic!("{result:?}"),
                    }
                }
                assert_eq!((report.dsn, report.tls), (true, starttls));
                assert_eq!(taken.facts.protocol.tls, starttls);
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_replies_never_panic_and_settle_at_the_end(
            lines in proptest::collection::vec(proptest::prop_oneof![
                proptest::collection::vec(proptest::prelude::any::<u8>(), 0..30),
                proptest::sample::select(vec![
                    b"220 hop\r\n".to_vec(), FULL.as_bytes().to_vec(), b"250 ok\r\n".to_vec(), b"354 go\r\n".to_vec(),
                    b"550 5.1.1 no\r\n".to_vec(), b"421 bye\r\n".to_vec(), b"250-STARTTLS\r\n250 x\r\n".to_vec(),
                    b"250-x\r\n250 AUTH SCRAM-SHA-256\r\n".to_vec(), b"250-x\r\n250 AUTH PLAIN\r\n".to_vec(),
                    b"334 cj1hYmN4eXoscz1XMjJaLGk9NDA5Ng==\r\n".to_vec(), b"334 !\r\n".to_vec(), b"235 in\r\n".to_vec(),
                ]),
            ], 0..20),
            lmtp in proptest::prelude::any::<bool>(),
            login in proptest::prelude::any::<bool>(),
        ) {
            let dialect = if lmtp { Dialect::Lmtp } else { Dialect::Smtp };
            let mut h = Hop::with(Config { dialect, loopback: true, ..wants(Encryption::Opportunistic, login) });
            h.session.deliver(h.at, delivery(&["b@dest", "c@dest"], b"x\r\n"));
            for line in lines {
                h.session.handle_bytes(h.at, &line);
                h.drain();
                if h.tls_wanted {
                    h.session.handle_tls_started(h.at, None);
                }
            }
            h.session.handle_eof(h.at);
            h.drain();
            proptest::prop_assert_eq!(h.reports, 1);
            proptest::prop_assert_eq!(h.done().results.len(), 2);
        }
    }

    fn delivery(to: &[&str], body: &[u8]) -> Delivery {
        Delivery {
            envelope: Envelope::plain(
                Some(Mailbox::new("a@src")),
                to.iter().map(|t| Recipient::plain(Mailbox::new(*t))).collect(),
                Wall::NEVER,
            ),
            body: body.into(),
            tracking: None,
            by_seconds: None,
        }
    }

    /// A session against a next hop whose lines the test speaks.
    struct Hop {
        at: Instant,
        session: Session,
        report: Option<Report>,
        reports: usize,
        closed: bool,
        tls_wanted: bool,
    }

    impl Hop {
        fn new(dialect: Dialect) -> Self {
            Self::with(Config::new("me.example", dialect))
        }

        fn with(config: Config) -> Self {
            let at = Instant::from_millis(5000);
            let session = Session::new(at, Arc::new(config));
            Self { at, session, report: None, reports: 0, closed: false, tls_wanted: false }
        }

        /// The hop says `line`; the session must answer with exactly `want`.
        fn gets(&mut self, line: &str, want: &str) {
            self.session.handle_bytes(self.at, line.as_bytes());
            let got = self.drain();
            assert_eq!(String::from_utf8_lossy(&got), want, "after {line:?}");
        }

        fn drain(&mut self) -> Vec<u8> {
            let mut out = Vec::new();
            while let Some(bytes) = self.session.poll_transmit() {
                out.extend(bytes);
            }
            while let Some(event) = self.session.poll_event() {
                match event {
                    Event::StartTls => self.tls_wanted = true,
                    Event::DeriveKeys { salt, iterations } => {
                        self.session.handle_keys(self.at, &Keys::derive("tanstaaftanstaaf", &salt, iterations));
                        out.extend(self.session.poll_transmit().unwrap_or_default());
                    }
                    Event::Close => self.closed = true,
                    Event::Done(report) => {
                        self.reports += 1;
                        self.report = Some(report);
                    }
                }
            }
            out
        }

        fn done(&mut self) -> Report {
            self.report.take().expect("a report")
        }
    }

    /// Client and server wired back to back.
    struct Pair {
        at: Instant,
        client: Session,
        server: server::Session,
        taken: Vec<Transaction>,
        slow: bool,
    }

    impl Pair {
        fn new(starttls: bool, slow: bool) -> Self {
            let at = Instant::from_millis(1);
            let mut policy = Policy::relay("mx.example", Arc::new(Budget::new(10 << 20)));
            policy.starttls = starttls;
            policy.max_precedence = Precedence::Routine;
            let peer = Peer { address: Some([192, 0, 2, 9].into()), tls: false };
            Self {
                at,
                client: Session::new(at, Arc::new(Config::new("me.example", Dialect::Smtp))),
                server: server::Session::new(at, Arc::new(policy), peer),
                taken: Vec::new(),
                slow,
            }
        }

        fn run(&mut self, step: usize) -> Report {
            let mut report = None;
            for _ in 0..100_000 {
                let mut idle = true;
                while let Some(bytes) = self.server.poll_transmit() {
                    idle = false;
                    bytes.chunks(step).for_each(|b| self.client.handle_bytes(self.at, b));
                }
                let mut tls = false;
                while let Some(event) = self.server.poll_event() {
                    idle = false;
                    match event {
                        server::Event::StartTls => tls = true,
                        server::Event::Close => panic!("server closed"),
                        server::Event::Ask { id, question } => {
                            if self.slow {
                                self.at += Duration::from_secs(2);
                            }
                            let answer = match question {
                                Question::Rcpt { rcpt, .. } if rcpt.to.domain() != "dest" => {
                                    Answer::Refuse(Reply::new(550, Status(5, 7, 1), "no relay"))
                                }
                                Question::End(t) => {
                                    self.taken.push(*t);
                                    Answer::Ok
                                }
                                Question::Auth { .. }
                                | Question::Fetch { .. }
                                | Question::Scram { .. }
                                | Question::External { .. }
                                | Question::Mail { .. }
                                | Question::Rcpt { .. } => Answer::Ok,
                            };
                            self.server.answer(self.at, id, answer);
                        }
                    }
                }
                while let Some(bytes) = self.client.poll_transmit() {
                    idle = false;
                    bytes.chunks(step).for_each(|b| self.server.handle_bytes(self.at, b));
                }
                while let Some(event) = self.client.poll_event() {
                    idle = false;
                    match event {
                        Event::StartTls => {
                            assert!(tls);
                            self.server.handle_tls_started(self.at, TlsFacts::default());
                            self.client.handle_tls_started(self.at, None);
                        }
                        Event::DeriveKeys { .. } => panic!("nobody logs in"),
                        Event::Done(r) => report = Some(r),
                        Event::Close => panic!("client closed"),
                    }
                }
                if let Some(report) = report {
                    return report;
                }
                assert!(!idle, "both sides wait");
            }
            panic!("no end");
        }
    }
}
