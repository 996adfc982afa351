//! The only way in: a [`Submission`] becomes a message, in one batch that either becomes durable whole or leaves no trace.
//!
//! The switch calls [`accept()`] for SMTP transactions, for payloads heard over the air and for its own reports alike, commits the
//! batch, and only then promises anything (250, the bearer's acknowledgement). Clauses: link-rules A2, A3, A5, A7, A8, D6; RFC 6710
//! and RFC 6758 (which number counts), RFC 6477 (MMHS), RFC 2852 (a deadline that returns shortens the life).

use std::fmt;

use super::dsn::{self, Action, Cause, Line, Report};
use super::ids::Ids;
use super::outcome;
use super::record::{MessageRecord, MessageState, RecipientRecord, TrackEntry};
use super::retry::{PEER_LIFETIME, Table};
use super::store::{Batch, Change, Condition, SeenKey, UNDATED};
use crate::mail::{
    BodyRef, ByMode, Envelope, MessageId, MtPriority, Outcome, PeerName, Precedence, PriorityPolicy, Recipient,
    RecipientState, Release, Source, Status, Submission, Terms, header,
};
use crate::time::{Duration, Now, Wall};

/// No message lives longer here, whatever it or its peer says: what a peer can make this node keep is bounded.
pub const LONGEST_LIFE: Duration = Duration::from_secs(90 * 86_400);
/// Duplicate keys stay at least this long beyond the message (A3).
const LEAST_SEEN_MARGIN: Duration = Duration::from_secs(86_400);

/// What this node does with mail, as far as the queue is concerned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Attempt, warning and expiry times.
    pub retry: Table,
    /// Level of a message that states none (D6: ROUTINE in shipped profiles).
    pub default: Precedence,
    /// Whether MMHS precedence fields count when nothing else states a precedence.
    pub mmhs: bool,
    /// How long finished messages stay for `track` and late acknowledgements, and duplicate keys beyond message expiry.
    pub keep_done: Duration,
}

/// What the source of a submission may ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Authority {
    /// Whether header fields that set precedence are believed.
    pub trusted: bool,
    /// Highest precedence honoured.
    pub ceiling: Precedence,
}

/// What routing and policy say about one recipient at the moment of acceptance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// To be sent.
    Due {
        /// The next hop is a peer over the air, which may be silent for days.
        over_air: bool,
    },
    /// Kept for an operator.
    Held {
        /// What the operator is told.
        why: String,
    },
    /// Refused at once; the sender gets a report.
    Fail {
        /// Code of the report.
        status: Status,
        /// Its words.
        text: String,
    },
}

/// Which statement of precedence counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stated {
    /// The MAIL parameter.
    Parameter,
    /// The MT-Priority field.
    Field,
    /// The MMHS precedence fields.
    Mmhs,
    /// None: the default of the profile.
    Nothing,
}

/// The precedence chosen for a transaction; see [`choose`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// Level of service. Where MMHS gives recipients different ones it is the highest: the message goes once, and a message of its own for
    /// each level would cost its airtime again.
    pub level: Precedence,
    /// The number it carries on; `None` when nothing stated one.
    pub mt_priority: Option<MtPriority>,
    /// What counted.
    pub stated: Stated,
    /// The source asked for more than its ceiling (reply 2.3.6 with the new number first).
    pub lowered: bool,
}

/// Chooses the precedence of a transaction that starts at this node: MAIL parameter, then exactly one valid MT-Priority field
/// of a trusted source, then MMHS, then the default; never above the ceiling, and never rounding the number. `numbers` says what
/// numbers mean.
pub fn choose(
    policy: &Policy,
    numbers: PriorityPolicy,
    authority: Authority,
    envelope: &Envelope,
    body: &[u8],
) -> Choice {
    let field = || authority.trusted.then(|| header::mt_priority_field(body)).flatten().map(|n| (n, Stated::Field));
    if let Some((number, stated)) = envelope.mt_priority.map(|n| (n, Stated::Parameter)).or_else(field) {
        let granted = numbers.capped(number, authority.ceiling);
        let level = numbers.level(granted).min(authority.ceiling);
        return Choice { level, mt_priority: Some(granted), stated, lowered: granted < number };
    }
    if let Some(wanted) = policy.mmhs.then(|| mmhs_level(policy, envelope, body)).flatten() {
        let level = wanted.min(authority.ceiling);
        let mt_priority = Some(level.mt_priority());
        return Choice { level, mt_priority, stated: Stated::Mmhs, lowered: level < wanted };
    }
    let level = policy.default.min(authority.ceiling);
    Choice { level, mt_priority: None, stated: Stated::Nothing, lowered: false }
}

/// The highest level of a recipient: those in To have the primary precedence, all others the copy precedence or, without one, the primary.
fn mmhs_level(policy: &Policy, envelope: &Envelope, body: &[u8]) -> Option<Precedence> {
    let primary = header::mmhs_primary_precedence(body).map(header::MmhsPrecedence::level);
    let copy = header::mmhs_copy_precedence(body).map(header::MmhsPrecedence::level).or(primary)?;
    let action = header::recipients_in(body, "To");
    let level = |r: &Recipient| match action.contains(&header::canonical(&r.address)) {
        true => primary.unwrap_or(policy.default),
        false => copy,
    };
    envelope.recipients.iter().map(level).max()
}

/// When a message accepted at `accepted` ceases to be worth sending. What the message states (`stated`, or a deadline that
/// returns) holds in both directions; without a statement the table does, and at least [`PEER_LIFETIME`] over the air (A5).
pub fn lifetime(policy: &Policy, level: Precedence, over_air: bool, envelope: &Envelope, accepted: Wall) -> Wall {
    let returns = envelope.deliver_by.filter(|by| by.mode == ByMode::Return).map_or(Wall::NEVER, |by| by.deadline);
    let stated = envelope.expires.min(returns);
    if stated != Wall::NEVER {
        return stated.min(accepted.plus(LONGEST_LIFE));
    }
    #[cfg(feature = "mutations")]
    if over_air && crate::mutation::is(crate::mutation::Mutation::ExpireEarly) {
        return accepted.plus(Duration::from_secs(3600));
    }
    let table = policy.retry.level(level).expire;
    accepted.plus(if over_air { table.max(PEER_LIFETIME) } else { table })
}

/// Whether a message that came over the air has been at `own` before: its hop trace (nodes that forwarded it, this visit not
/// included) names this node. Such a recipient fails with 5.4.6 (A8).
pub fn seen_twice(trace: &[PeerName], own: &PeerName) -> bool {
    trace.contains(own)
}

/// What a new message gives the switch.
#[derive(Clone, PartialEq, Debug)]
pub struct Accepted {
    /// Its id.
    pub id: MessageId,
    /// It, for the scheduler, once the batch is durable.
    pub record: MessageRecord,
    /// To commit. [`Conflict`](super::CommitError::Conflict) means this transfer was accepted before: answer as if accepted, keep nothing.
    pub batch: Batch,
    /// What its sender must be told at once. Build it and [`append`](Batch::append) its batch to this one.
    pub report: Option<Report>,
}

/// A submission that cannot become a message: a fault of the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotAMessage {
    /// It has no recipients.
    NoRecipients,
    /// There is not one decision per recipient.
    Undecided,
}

impl fmt::Display for NotAMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRecipients => "a submission needs recipients",
            Self::Undecided => "a submission needs one decision per recipient",
        })
    }
}

impl std::error::Error for NotAMessage {}

/// Turns a submission into a message, see [`accept_on`]: its sender asked for nothing of this node alone.
pub fn accept(
    now: Now,
    policy: &Policy,
    authority: Authority,
    ids: &mut Ids,
    submission: Submission,
    decisions: Vec<Decision>,
) -> Result<Accepted, NotAMessage> {
    accept_on(now, policy, authority, ids, submission, decisions, &Terms::default())
}

/// Turns a submission into a message. `decisions` stand in envelope order.
///
/// Mail from the LAN gets its precedence by [`choose`] and its expiry by [`lifetime`]. Mail from a peer or from this switch keeps
/// the precedence it came with; a peer's absolute expiry holds here too. While the clock is not set (A7) a life that nobody
/// stated is left open; [`outcome::wake`](super::outcome::wake) dates the message once the clock is.
///
/// A message to be released later (RFC 4865) is held until [`outcome::let_go`](super::outcome::let_go); its life begins then.
pub fn accept_on(
    now: Now,
    policy: &Policy,
    authority: Authority,
    ids: &mut Ids,
    submission: Submission,
    decisions: Vec<Decision>,
    terms: &Terms,
) -> Result<Accepted, NotAMessage> {
    if submission.envelope.recipients.is_empty() {
        return Err(NotAMessage::NoRecipients);
    }
    if decisions.len() != submission.envelope.recipients.len() {
        return Err(NotAMessage::Undecided);
    }
    let submission = at_its_level(policy, authority, submission);
    Ok(enter(now, policy, ids, submission, decisions, terms, Kinship::default()))
}

/// The submission with the precedence it is served at here, and the number it carries on.
pub(super) fn at_its_level(policy: &Policy, authority: Authority, mut submission: Submission) -> Submission {
    if let Source::Smtp { .. } = submission.source {
        let numbers = PriorityPolicy::default();
        let choice = choose(policy, numbers, authority, &submission.envelope, &submission.body);
        submission.precedence = choice.level;
        submission.envelope.mt_priority = choice.mt_priority;
    }
    submission
}

/// How a message stands to the others that came of the same submission.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kinship {
    /// The first of them, if this is another.
    pub(super) parent: Option<MessageId>,
    /// Its recipients are not those of the submission.
    pub(super) expanded: bool,
}

/// Makes the message, once its precedence is known.
pub(super) fn enter(
    now: Now,
    policy: &Policy,
    ids: &mut Ids,
    submission: Submission,
    decisions: Vec<Decision>,
    terms: &Terms,
    kinship: Kinship,
) -> Accepted {
    let release = terms.release.filter(|release| now.set && release.at > now.wall);
    let begins = release.map_or(now.wall, |release| release.at);
    let Submission { mut envelope, precedence, source, body } = submission;
    let over_air = decisions.iter().any(|d| matches!(d, Decision::Due { over_air: true }));
    match source {
        Source::Smtp { .. } if now.set => {
            envelope.expires = lifetime(policy, precedence, over_air, &envelope, begins);
        }
        Source::Switch | Source::Receipts { .. } if now.set => {
            envelope.expires = lifetime(policy, precedence, over_air, &envelope, now.wall);
        }
        Source::Bearer { .. } if now.set => envelope.expires = envelope.expires.min(now.wall.plus(LONGEST_LIFE)),
        Source::Smtp { .. } | Source::Switch | Source::Receipts { .. } | Source::Bearer { .. } => {}
    }

    let mut batch = Batch::default();
    if let (Source::Bearer { transfer, .. }, None) = (&source, kinship.parent) {
        let key = SeenKey::Transfer(transfer.clone());
        // A clock that is not set may be decades behind: what it would say has passed when it is.
        let until = match now.set {
            true => envelope.expires.max(now.wall).plus(policy.keep_done.max(LEAST_SEEN_MARGIN)),
            false => UNDATED,
        };
        batch.conditions.push(Condition::SeenAbsent(key.clone()));
        batch.changes.push(Change::Seen(key, until));
        #[cfg(feature = "mutations")]
        if crate::mutation::is(crate::mutation::Mutation::DropDedupe) {
            batch.conditions.clear();
        }
    }

    let (id, body_ref) = (ids.message(), ids.body());
    batch.changes.extend(ids.cover());
    let recipients: Vec<_> = decisions.into_iter().map(|d| recipient(now, body_ref, d, release)).collect();
    let mut record = MessageRecord {
        id,
        parent: kinship.parent,
        precedence,
        source,
        state: MessageState::Queued,
        recipients,
        message_id: header::message_id(&body),
        size_bytes: u64::try_from(body.len()).unwrap_or(u64::MAX),
        accepted: now.wall,
        lease: None,
        reduced: Vec::new(),
        release: terms.release,
        tracking: terms.tracking.clone(),
        expanded: kinship.expanded,
        envelope,
    };
    record.state = state_of(&record);
    let report = Report::about(&record, refusals(now, &record));
    if record.state != MessageState::Done {
        batch.changes.push(Change::Body(body_ref, body));
    }
    batch.changes.push(Change::Message(Box::new(record.clone())));
    batch.changes.push(Change::Track(id, accepted_line(now, &record)));
    Accepted { id, record, batch, report }
}

fn recipient(now: Now, body: BodyRef, decision: Decision, release: Option<Release>) -> RecipientRecord {
    let state = match (decision, release) {
        (Decision::Due { .. }, Some(release)) => RecipientState::Held { why: outcome::until_release(release) },
        (decision, _) => state_by(now, decision),
    };
    RecipientRecord { state, body, attempts: 0, last_error: None, delay_reported: false }
}

fn state_by(now: Now, decision: Decision) -> RecipientState {
    match decision {
        Decision::Due { .. } => RecipientState::Due { next_at: now.wall },
        Decision::Held { why } => RecipientState::Held { why },
        Decision::Fail { status, text } => {
            RecipientState::Final { outcome: Outcome::Failed { status, diagnostic: text }, at: now.wall }
        }
    }
}

pub(super) fn refusals(now: Now, record: &MessageRecord) -> Vec<Line> {
    let mut lines = Vec::new();
    for (to, r) in record.envelope.recipients.iter().zip(&record.recipients) {
        let RecipientState::Final { outcome: Outcome::Failed { status, diagnostic }, .. } = &r.state else { continue };
        if dsn::wants(to.notify, Action::Failed) {
            lines.push(Line {
                address: to.address.clone(),
                orcpt: to.orcpt.clone(),
                action: Action::Failed,
                cause: Cause::Refused,
                status: *status,
                remote: None,
                diagnostic: Some(diagnostic.clone()),
                last_attempt: Some(now.wall),
                retry_until: None,
            });
        }
    }
    lines
}

fn accepted_line(now: Now, record: &MessageRecord) -> TrackEntry {
    let from = match &record.source {
        Source::Smtp { listener, .. } => format!("from listener {listener}"),
        Source::Bearer { peer, transfer, .. } => format!("from peer {peer}, transfer {transfer}"),
        Source::Switch | Source::Receipts { .. } => "report of this switch".to_string(),
    };
    TrackEntry {
        at: now.wall,
        event: "accepted".to_string(),
        recipient: None,
        bearer: None,
        bytes_on_air: 0,
        air_s: 0.0,
        detail: Some(format!("{from}, {}", record.precedence)),
    }
}

/// The state that follows from the recipients' (the table in [`crate::queue`]).
pub(super) fn state_of(record: &MessageRecord) -> MessageState {
    let mut held = false;
    for r in &record.recipients {
        match r.state {
            RecipientState::Due { .. } | RecipientState::OnAir { .. } => return MessageState::Queued,
            RecipientState::Held { .. } => held = true,
            RecipientState::Final { .. } => {}
        }
    }
    if held { MessageState::Held } else { MessageState::Done }
}

impl Batch {
    /// Adds another batch, so that both become durable together or not at all.
    pub fn append(&mut self, other: Self) {
        self.conditions.extend(other.conditions);
        self.changes.extend(other.changes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{DeliverBy, Mailbox, Notify, Recipient, ReleaseAsked, TransferId};
    use crate::queue::Opened;
    use crate::time::Instant;

    const STANAG: PriorityPolicy = PriorityPolicy::Stanag4406;
    const ANY: Authority = Authority { trusted: true, ceiling: Precedence::Override };
    const CAPPED: Authority = Authority { trusted: false, ceiling: Precedence::Routine };

    #[test]
    fn the_parameter_wins_over_the_field_and_the_field_over_mmhs() {
        let body = b"MT-Priority: 3\r\nMMHS-Primary-Precedence: 5\r\nTo: a@x.example\r\n\r\n";
        let mut e = envelope(&["a@x.example"]);
        e.mt_priority = MtPriority::new(-1);
        let c = choose(&policy(), STANAG, ANY, &e, body);
        assert_eq!((c.stated, c.mt_priority, c.level), (Stated::Parameter, MtPriority::new(-1), Precedence::Priority));
        e.mt_priority = None;
        let c = choose(&policy(), STANAG, ANY, &e, body);
        assert_eq!((c.stated, c.mt_priority, c.level), (Stated::Field, MtPriority::new(3), Precedence::Flash));
        let untrusted = Authority { trusted: false, ..ANY };
        let c = choose(&policy(), STANAG, untrusted, &e, body);
        assert_eq!((c.stated, c.mt_priority, c.level), (Stated::Mmhs, MtPriority::new(6), Precedence::Override));
        let c = choose(&policy(), STANAG, ANY, &e, b"Subject: x\r\n\r\n");
        assert_eq!((c.stated, c.mt_priority, c.level), (Stated::Nothing, None, Precedence::Routine));
    }

    #[test]
    fn mmhs_gives_a_message_the_highest_precedence_of_its_recipients() {
        let body = b"To: REDBASE <cdr@redbase.example>\r\nCc: info@redbase.example\r\nMMHS-Primary-Precedence: 3 (immediate)\r\nMMHS-Copy-Precedence: routine\r\n\r\n";
        let mut e = envelope(&["cdr@REDBASE.example", "info@redbase.example", "blind@redbase.example"]);
        let c = choose(&policy(), STANAG, ANY, &e, body);
        assert_eq!((c.level, c.mt_priority), (Precedence::Immediate, MtPriority::new(2)));
        let primary_only = b"To: cdr@redbase.example\r\nMMHS-Primary-Precedence: FLASH\r\n\r\n";
        assert_eq!(choose(&policy(), STANAG, ANY, &e, primary_only).level, Precedence::Flash);
        e.recipients.remove(0);
        assert_eq!(choose(&policy(), STANAG, ANY, &e, body).level, Precedence::Routine, "copies alone");
        let off = Policy { mmhs: false, ..policy() };
        assert_eq!(choose(&off, STANAG, ANY, &e, body).level, Precedence::Routine);
    }

    #[test]
    fn d6_nobody_gets_more_than_the_ceiling_and_no_number_is_rounded() {
        for (ceiling, asked, granted, lowered) in [
            (Precedence::Priority, 4, 0, true),
            (Precedence::Routine, 6, -2, true),
            (Precedence::Routine, -3, -3, false),
            (Precedence::Flash, 3, 3, false),
            (Precedence::Flash, 5, 4, true),
            (Precedence::Override, 6, 6, false),
            (Precedence::Routine, -9, -9, false),
        ] {
            let mut e = envelope(&["a@x.example"]);
            e.mt_priority = MtPriority::new(asked);
            let c = choose(&policy(), STANAG, Authority { trusted: false, ceiling }, &e, b"");
            assert_eq!((c.mt_priority, c.lowered), (MtPriority::new(granted), lowered), "{ceiling} {asked}");
        }
        let c = choose(&policy(), STANAG, CAPPED, &envelope(&["a@x.example"]), b"MMHS-Primary-Precedence: 4\r\n\r\n");
        assert_eq!((c.level, c.mt_priority, c.lowered), (Precedence::Routine, MtPriority::new(-2), true));
    }

    #[test]
    fn numbers_mean_what_the_listener_says_and_go_on_as_they_came() {
        let chosen = |numbers, ceiling, number| {
            let mut e = envelope(&["a@x.example"]);
            e.mt_priority = MtPriority::new(number);
            let c = choose(&policy(), numbers, Authority { trusted: false, ceiling }, &e, b"");
            (c.level, c.mt_priority.map(MtPriority::get), c.lowered)
        };
        use Precedence::{Deferred, Flash, Immediate, Override, Priority};
        assert_eq!(chosen(PriorityPolicy::Mixer, Override, 1), (Flash, Some(1), false));
        assert_eq!(chosen(PriorityPolicy::Mixer, Override, -3), (Priority, Some(-3), false));
        assert_eq!(chosen(PriorityPolicy::Mixer, Immediate, 3), (Priority, Some(0), true));
        assert_eq!(chosen(PriorityPolicy::Nsep, Override, 9), (Override, Some(9), false));
        // Where the policy has no level so low, the ceiling holds all the same.
        assert_eq!(chosen(PriorityPolicy::Nsep, Deferred, -9), (Deferred, Some(-9), false));
    }

    #[test]
    fn one_batch_holds_body_message_reservation_and_history() {
        let mut ids = Ids::open(&Opened::default());
        let a = take(&mut ids, smtp(envelope(&["a@x.example"])), vec![Decision::Due { over_air: false }]);
        let kinds: Vec<_> = a.batch.changes.iter().map(kind).collect();
        assert_eq!(kinds, ["setting", "body", "message", "track"]);
        assert!(a.batch.conditions.is_empty());
        assert_eq!(a.record.state, MessageState::Queued);
        assert_eq!(a.record.message_id.as_deref(), Some("<1@x>"));
        assert_eq!(a.record.envelope.expires, T0.plus(Duration::from_secs(5 * 86_400)));
        ids.committed(&a.batch);
        let b = take(&mut ids, smtp(envelope(&["a@x.example"])), vec![Decision::Due { over_air: false }]);
        assert_eq!(b.batch.changes.iter().map(kind).collect::<Vec<_>>(), ["body", "message", "track"]);
        assert!(b.id > a.id);
    }

    #[test]
    fn a5_lives_follow_the_table_the_air_and_what_the_message_asked() {
        let hours = |level, over_air, by: Option<(i64, ByMode)>, expires: Option<i64>| {
            let mut e = envelope(&["a@x.example"]);
            e.expires = expires.map_or(Wall::NEVER, |h| T0.plus(Duration::from_secs(h as u64 * 3600)));
            e.deliver_by = by.map(|(h, mode)| DeliverBy {
                deadline: T0.plus(Duration::from_secs(h as u64 * 3600)),
                mode,
                trace: false,
            });
            lifetime(&policy(), level, over_air, &e, T0).since(T0).as_secs() / 3600
        };
        assert_eq!(hours(Precedence::Flash, false, None, None), 6);
        assert_eq!(hours(Precedence::Flash, true, None, None), 120, "a silent peer gets five days");
        assert_eq!(hours(Precedence::Deferred, true, None, None), 168);
        assert_eq!(hours(Precedence::Flash, true, Some((2, ByMode::Return)), None), 2);
        assert_eq!(hours(Precedence::Flash, false, Some((12, ByMode::Return)), None), 12, "precedence never shortens");
        assert_eq!(hours(Precedence::Flash, true, Some((2, ByMode::Notify)), None), 120);
        assert_eq!(hours(Precedence::Routine, true, None, Some(3)), 3);
        assert_eq!(hours(Precedence::Routine, true, Some((9, ByMode::Return)), Some(7)), 7);
        assert_eq!(hours(Precedence::Routine, true, None, Some(24 * 365)), 24 * 90);
    }

    #[test]
    fn a3_a_transfer_is_remembered_longer_than_its_message_lives() {
        let mut ids = Ids::open(&Opened::default());
        let mut e = envelope(&["a@x.example"]);
        e.expires = T0.plus(Duration::from_secs(86_400));
        e.mt_priority = MtPriority::new(3);
        let a = take(&mut ids, heard(e.clone()), vec![Decision::Due { over_air: false }]);
        let key = SeenKey::Transfer(transfer());
        assert_eq!(a.batch.conditions, [Condition::SeenAbsent(key.clone())]);
        let until = a.batch.changes.iter().find_map(|c| match c {
            Change::Seen(k, until) if *k == key => Some(*until),
            _ => None,
        });
        assert!(until.is_some_and(|u| u >= e.expires.plus(Duration::from_secs(86_400))));
        assert_eq!(a.record.envelope.expires, e.expires, "a peer's absolute expiry holds");
        assert_eq!(a.record.envelope.mt_priority, MtPriority::new(3));
        assert_eq!(a.record.precedence, Precedence::Immediate, "the level it travelled with");
    }

    #[test]
    fn what_came_before_the_clock_was_set_is_not_forgotten_when_it_is() {
        let unset = Now { set: false, wall: Wall::from_seconds(60), ..NOW };
        let mut ids = Ids::open(&Opened::default());
        let due = vec![Decision::Due { over_air: false }];
        let a = accept(unset, &policy(), ANY, &mut ids, heard(envelope(&["a@x.example"])), due).expect("ok");
        assert!(a.batch.changes.iter().any(|c| matches!(c, Change::Seen(_, until) if *until == UNDATED)));
    }

    #[test]
    fn without_a_clock_no_life_is_made_up() {
        let unset = Now { set: false, wall: Wall::from_seconds(60), ..NOW };
        let mut ids = Ids::open(&Opened::default());
        let s = smtp(envelope(&["a@x.example"]));
        let a = accept(unset, &policy(), ANY, &mut ids, s, vec![Decision::Due { over_air: true }]).expect("accepted");
        assert_eq!(a.record.envelope.expires, Wall::NEVER);
        let mut e = envelope(&["a@x.example"]);
        e.expires = T0;
        let a = accept(unset, &policy(), ANY, &mut ids, heard(e), vec![Decision::Due { over_air: true }]).expect("ok");
        assert_eq!(a.record.envelope.expires, T0);
    }

    #[test]
    fn refused_recipients_are_reported_and_held_ones_wait() {
        let mut ids = Ids::open(&Opened::default());
        let fail = || Decision::Fail { status: Status(5, 4, 6), text: "routing loop".into() };
        let mut e = envelope(&["a@x.example", "b@x.example", "c@x.example"]);
        e.recipients[2].notify = Some(Notify::NEVER);
        let held = Decision::Held { why: "no route".into() };
        let a = take(&mut ids, smtp(e.clone()), vec![fail(), held, fail()]);
        assert_eq!(a.record.state, MessageState::Held);
        let report = a.report.expect("a report");
        assert_eq!(report.lines.len(), 1);
        assert_eq!((report.lines[0].status, report.to.as_str()), (Status(5, 4, 6), "ops@ship.example"));

        let all = take(&mut ids, smtp(e.clone()), vec![fail(), fail(), fail()]);
        assert_eq!(all.record.state, MessageState::Done);
        assert!(!all.batch.changes.iter().any(|c| kind(c) == "body"), "nothing refers to the body");

        e.from = None;
        assert_eq!(take(&mut ids, smtp(e), vec![fail(), fail(), fail()]).report, None, "never about <>");
    }

    #[test]
    fn a_submission_must_be_whole() {
        let mut ids = Ids::open(&Opened::default());
        let none = accept(NOW, &policy(), ANY, &mut ids, smtp(envelope(&[])), vec![]);
        assert_eq!(none.err(), Some(NotAMessage::NoRecipients));
        let undecided = accept(NOW, &policy(), ANY, &mut ids, smtp(envelope(&["a@x.example"])), vec![]);
        assert_eq!(undecided.err(), Some(NotAMessage::Undecided));
    }

    #[test]
    fn a8_a_message_that_was_here_before_is_recognised() {
        let trace: Vec<PeerName> = ["ship", "shore"].map(PeerName::from).into();
        assert!(seen_twice(&trace, &"ship".into()));
        assert!(!seen_twice(&trace, &"sub".into()));
    }

    const T0: Wall = Wall::from_seconds(1_795_431_600);
    const NOW: Now = Now { at: Instant::ZERO, wall: T0, set: true };

    fn policy() -> Policy {
        Policy {
            retry: Table::shipped(),
            default: Precedence::Routine,
            mmhs: true,
            keep_done: Duration::from_secs(7 * 86_400),
        }
    }

    fn envelope(to: &[&str]) -> Envelope {
        Envelope::plain(
            Some(Mailbox::new("ops@ship.example")),
            to.iter().map(|a| Recipient::plain(Mailbox::new(*a))).collect(),
            Wall::NEVER,
        )
    }

    fn smtp(envelope: Envelope) -> Submission {
        let source = Source::Smtp { listener: "relay".into(), address: None, user: None };
        Submission { envelope, precedence: Precedence::Deferred, source, body: b"Message-ID: <1@x>\r\n\r\n"[..].into() }
    }

    fn transfer() -> TransferId {
        TransferId { origin: "shore".into(), epoch: 7, counter: 3 }
    }

    #[test]
    fn mail_to_be_released_later_is_held_until_then_and_lives_from_then_on() {
        let at = T0.plus(Duration::from_secs(48 * 3600));
        let release = Release { at, asked: ReleaseAsked::For(48 * 3600) };
        let terms = Terms { release: Some(release), tracking: None };
        let take = |now: Now| {
            let held = Decision::Held { why: "the route says hold".into() };
            let decisions = vec![Decision::Due { over_air: false }, held];
            let submission = smtp(envelope(&["a@x.example", "b@x.example"]));
            let mut ids = Ids::open(&Opened::default());
            accept_on(now, &policy(), ANY, &mut ids, submission, decisions, &terms).expect("a message").record
        };
        let record = take(NOW);
        assert_eq!((record.state, record.due(), record.release), (MessageState::Held, None, Some(release)));
        assert_eq!(record.begun(), at);
        assert_eq!(record.envelope.expires, at.plus(policy().retry.level(record.precedence).expire));
        let gone = outcome::let_go(Now { wall: at, ..NOW }, &policy(), &record).expect("it goes").record;
        assert_eq!((gone.state, gone.due()), (MessageState::Queued, Some(at)));
        assert!(matches!(&gone.recipients[1].state, RecipientState::Held { why } if why == "the route says hold"));
        // A time that has passed is none.
        assert_eq!(take(Now { wall: at, ..NOW }).state, MessageState::Queued);
    }

    fn heard(envelope: Envelope) -> Submission {
        let source = Source::Bearer { peer: "shore".into(), transfer: transfer(), hops: Vec::new() };
        Submission { source, precedence: Precedence::Immediate, ..smtp(envelope) }
    }

    fn take(ids: &mut Ids, submission: Submission, decisions: Vec<Decision>) -> Accepted {
        accept(NOW, &policy(), ANY, ids, submission, decisions).expect("accepted")
    }

    fn kind(change: &Change) -> &'static str {
        match change {
            Change::Body(..) => "body",
            Change::DropBody(_) => "drop body",
            Change::Message(_) => "message",
            Change::DropMessage(_) => "drop message",
            Change::Seen(..) => "seen",
            Change::Transfer(_) => "transfer",
            Change::DropTransfer(_) => "drop transfer",
            Change::Link(..) => "link",
            Change::Setting(..) => "setting",
            Change::Epoch(_) => "epoch",
            Change::Track(..) => "track",
            Change::Purge { .. } => "purge",
        }
    }
}
