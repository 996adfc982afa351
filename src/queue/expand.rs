//! One submission, several messages: what the addresses of its recipients lead to.
//!
//! The switch states the copies an [`Expansion`] makes of a submission; [`accept_all`] turns them into messages of one batch. Copies that
//! differ in more than their recipients (level of service, bearers, return path, tracking) become messages of their own; for the rest
//! it stays one. Clauses: RFC 3461 5.2.7 (reports about aliases and lists), RFC 3885 3.2 (tracking), RFC 6710 4.5 (aliases keep the
//! number), RFC 5321 3.9 (a list's return path).

use std::sync::Arc;

use super::accept::{self, Accepted, Authority, Decision, Kinship, NotAMessage, Policy};
use super::dsn::{Action, Cause, Line, Report};
use super::ids::Ids;
use super::record::{MessageRecord, TrackEntry};
use super::store::{Batch, Change};
use crate::mail::{
    BearerId, Envelope, Mailbox, MessageId, Notify, Precedence, Recipient, Source, Status, Submission, Terms,
};
use crate::time::Now;

/// What sets a copy apart from others of its submission.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Apart {
    /// It is served at this level at least.
    pub least: Option<Precedence>,
    /// And at this level at most.
    pub most: Option<Precedence>,
    /// The bearers that may carry it; empty: any.
    pub bearers: Vec<BearerId>,
    /// It is one of several that an alias makes: nobody may ask after it (RFC 3885).
    pub untracked: bool,
    /// The list that sends it on, and who is told what comes of it.
    pub list: Option<(Mailbox, Mailbox)>,
}

impl Apart {
    fn level(&self, level: Precedence) -> Precedence {
        let raised = self.least.map_or(level, |least| level.max(least));
        self.most.map_or(raised, |most| raised.min(most))
    }
}

/// One copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Copied {
    /// For whom, with the DSN parameters as they go on.
    pub recipient: Recipient,
    /// What becomes of it.
    pub decision: Decision,
    /// What sets it apart.
    pub apart: Apart,
}

/// What the recipients of a submission lead to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Expansion {
    /// The copies, in envelope order as far as there is one.
    pub copies: Vec<Copied>,
    /// Recipients as they were given of which the sender may be told at once, and what.
    pub told: Vec<(Recipient, Action)>,
    /// The copies' recipients are others than the submission's, or stand elsewhere.
    pub changed: bool,
    /// For the history: a recipient as it was given, and where its mail goes instead.
    pub led: Vec<(Mailbox, String)>,
}

impl Expansion {
    /// The recipients as they stand.
    pub fn plain(envelope: &Envelope, decide: impl Fn(&Recipient) -> Decision) -> Self {
        let copy = |r: &Recipient| Copied { recipient: r.clone(), decision: decide(r), apart: Apart::default() };
        Self { copies: envelope.recipients.iter().map(copy).collect(), ..Self::default() }
    }
}

/// NOTIFY for each of several copies: word of success is given once, by whoever makes them (RFC 3461 5.2.7.3 c).
pub fn without_success(notify: Option<Notify>) -> Option<Notify> {
    notify.map(|n| Notify { success: false, ..n })
}

/// What a submission gives the switch.
#[derive(Clone, PartialEq, Debug)]
pub struct Entered {
    /// The messages, for the scheduler, once the batch is durable.
    pub records: Vec<MessageRecord>,
    /// To commit, see [`Accepted::batch`].
    pub batch: Batch,
    /// What senders must be told at once.
    pub reports: Vec<Report>,
}

/// Turns a submission into as many messages as its copies need.
pub fn accept_all(
    now: Now,
    policy: &Policy,
    authority: Authority,
    ids: &mut Ids,
    submission: Submission,
    expansion: Expansion,
    terms: &Terms,
) -> Result<Entered, NotAMessage> {
    let submission = accept::at_its_level(policy, authority, submission);
    accept_chosen(now, policy, ids, submission, expansion, terms)
}

/// The same for a submission that has its precedence, and the number it carries on.
pub fn accept_chosen(
    now: Now,
    policy: &Policy,
    ids: &mut Ids,
    submission: Submission,
    expansion: Expansion,
    terms: &Terms,
) -> Result<Entered, NotAMessage> {
    let Expansion { copies, told, changed, led } = expansion;
    if copies.is_empty() {
        return Err(NotAMessage::NoRecipients);
    }
    let groups = grouped(copies, submission.precedence, terms.tracking.is_some());
    let expanded = changed || groups.len() > 1;
    let mut entered = Entered { records: Vec::new(), batch: Batch::default(), reports: Vec::new() };
    let mut lines: Vec<Line> = told.iter().map(|(to, action)| at_once(now, to, *action)).collect();
    let mut parent: Option<MessageId> = None;
    for group in groups {
        let (copy, terms, list) = group.of(&submission, terms);
        let kinship = Kinship { parent, expanded };
        let Accepted { id, record, batch, report } =
            accept::enter(now, policy, ids, copy, group.decisions, &terms, kinship);
        match list {
            true => entered.reports.extend(report),
            false => lines.extend(accept::refusals(now, &record)),
        }
        parent = parent.or(Some(id));
        entered.batch.append(batch);
        entered.records.push(record);
    }
    entered.batch.changes.extend(history(now, &entered.records, led));
    let original = |record: &MessageRecord| {
        let subject = MessageRecord { envelope: submission.envelope.clone(), ..record.clone() };
        Report::about(&subject, lines)
    };
    let report = entered.records.first().and_then(original);
    entered.reports.extend(report);
    Ok(entered)
}

/// What the histories of the messages say of each other, and of the addresses they were made for.
fn history(now: Now, records: &[MessageRecord], led: Vec<(Mailbox, String)>) -> Vec<Change> {
    let Some((first, others)) = records.split_first() else { return Vec::new() };
    let line = |of: MessageId, event: &str, recipient: Option<String>, detail: String| {
        let (at, event, detail) = (now.wall, event.to_owned(), Some(detail));
        Change::Track(of, TrackEntry { at, event, recipient, bearer: None, bytes_on_air: 0, air_s: 0.0, detail })
    };
    let led =
        led.into_iter().map(|(given, to)| line(first.id, "alias", Some(given.to_string()), format!("goes to {to}")));
    let mut lines: Vec<Change> = led.collect();
    if !others.is_empty() {
        let ids: Vec<String> = others.iter().map(|r| r.id.to_string()).collect();
        let detail = format!("copies of other levels, bearers or return paths go as {}", ids.join(", "));
        lines.push(line(first.id, "parted", None, detail));
        lines.extend(others.iter().map(|r| line(r.id, "parted", None, format!("from {}", first.id))));
    }
    lines
}

/// Copies of one message.
struct Group {
    level: Precedence,
    apart: Apart,
    recipients: Vec<Recipient>,
    decisions: Vec<Decision>,
}

impl Group {
    /// The message they are copies of, with what its sender asked of this node, and whether a list sends it.
    fn of(&self, submission: &Submission, terms: &Terms) -> (Submission, Terms, bool) {
        let recipients = self.recipients.clone();
        let smtputf8 = submission.envelope.smtputf8 || recipients.iter().any(|r| r.address.is_utf8());
        let mut envelope = Envelope { recipients, smtputf8, ..submission.envelope.clone() };
        let mut body = submission.body.clone();
        if let Some((list, owner)) = &self.apart.list {
            (envelope.envid, envelope.ret, envelope.auth) = (None, None, None);
            // Reports keep coming from nobody, so that none is ever answered.
            envelope.from = envelope.from.map(|_| owner.clone());
            body = passed(list, &body);
        }
        let mut source = submission.source.clone();
        if let (Source::Bearer { hops, .. }, Some(_)) = (&mut source, &self.apart.list) {
            // It is the list's own mail, and may go back the way the other came.
            hops.clear();
        }
        let tracking = terms.tracking.clone().filter(|_| !self.apart.untracked);
        let copy = Submission { envelope, precedence: self.level, source, body };
        (copy, Terms { release: terms.release, tracking }, self.apart.list.is_some())
    }
}

fn grouped(copies: Vec<Copied>, level: Precedence, tracked: bool) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for Copied { recipient, decision, apart } in copies {
        let level = apart.level(level);
        let apart = Apart { least: None, most: None, untracked: apart.untracked && tracked, ..apart };
        match groups.iter_mut().find(|g| g.level == level && g.apart == apart) {
            Some(group) => {
                group.recipients.push(recipient);
                group.decisions.push(decision);
            }
            None => groups.push(Group { level, apart, recipients: vec![recipient], decisions: vec![decision] }),
        }
    }
    // What comes of the sender's own message is told under the id of the first.
    groups.sort_by_key(|group| group.apart.list.is_some());
    groups
}

/// The message with the mark by which a list knows its own mail again.
fn passed(list: &Mailbox, body: &[u8]) -> Arc<[u8]> {
    [format!("Delivered-To: {list}\r\n").as_bytes(), body].concat().into()
}

fn at_once(now: Now, to: &Recipient, action: Action) -> Line {
    Line {
        address: to.address.clone(),
        orcpt: to.orcpt.clone(),
        action,
        cause: Cause::Taken,
        status: Status(2, 1, 5),
        remote: None,
        diagnostic: None,
        last_attempt: Some(now.wall),
        retry_until: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{BodyKind, MtPriority, RecipientState, Tracking};
    use crate::queue::retry::Table;
    use crate::queue::store::Opened;
    use crate::time::{Duration, Instant, Wall};

    const NOW: Now = Now { at: Instant(0), wall: Wall(1_000_000), set: true };

    fn recipient(address: &str) -> Recipient {
        let notify = Some(Notify { success: true, failure: true, delay: false });
        Recipient { address: Mailbox::new(address), notify, orcpt: None }
    }

    fn copy(address: &str, apart: Apart) -> Copied {
        Copied { recipient: recipient(address), decision: Decision::Due { over_air: false }, apart }
    }

    fn entered(copies: Vec<Copied>, told: Vec<(Recipient, Action)>) -> Entered {
        let envelope = Envelope {
            from: Some(Mailbox::new("a@b")),
            recipients: vec![recipient("x@y")],
            envid: Some("env".into()),
            ret: None,
            mt_priority: MtPriority::new(3),
            body: BodyKind::SevenBit,
            smtputf8: false,
            require_tls: false,
            deliver_by: None,
            expires: Wall::NEVER,
            auth: None,
        };
        let source = Source::Smtp { listener: "relay".into(), address: None, user: None };
        let body = b"Subject: x\r\n\r\n".as_slice().into();
        let submission = Submission { envelope, precedence: Precedence::Routine, source, body };
        let policy = Policy {
            retry: Table::shipped(),
            default: Precedence::Routine,
            mmhs: true,
            keep_done: Duration::from_secs(60),
        };
        let authority = Authority { trusted: true, ceiling: Precedence::Override };
        let opened = Opened { epoch: 1, next_message: 1, next_body: 1, ..Opened::default() };
        let tracking = Some(Tracking { certifier: "VheLhqV".into(), seconds: None });
        let terms = Terms { release: None, tracking };
        let expansion = Expansion { copies, told, changed: true, led: Vec::new() };
        accept_all(NOW, &policy, authority, &mut Ids::open(&opened), submission, expansion, &terms).expect("messages")
    }

    fn to(record: &MessageRecord) -> Vec<&str> {
        record.envelope.recipients.iter().map(|r| r.address.as_str()).collect()
    }

    #[test]
    fn copies_alike_are_one_message_and_others_are_parted() {
        let list = Some((Mailbox::new("l@y"), Mailbox::new("owner@y")));
        let entered = entered(
            vec![
                copy("list@y", Apart { list, untracked: true, ..Apart::default() }),
                copy("one@y", Apart::default()),
                copy("slow@y", Apart { most: Some(Precedence::Routine), ..Apart::default() }),
                copy("same@y", Apart { least: Some(Precedence::Priority), ..Apart::default() }),
                copy("many@y", Apart { untracked: true, ..Apart::default() }),
                copy("sat@y", Apart { bearers: vec!["sat".into()], ..Apart::default() }),
            ],
            vec![(recipient("x@y"), Action::Expanded)],
        );
        let records = &entered.records;
        let parted: Vec<Vec<&str>> = records.iter().map(to).collect();
        assert_eq!(parted, [vec!["one@y", "same@y"], vec!["slow@y"], vec!["many@y"], vec!["sat@y"], vec!["list@y"]]);
        // The number is the sender's, whatever the level of service here.
        assert!(records.iter().all(|r| r.envelope.mt_priority == MtPriority::new(3) && r.expanded));
        let levels: Vec<Precedence> = records.iter().map(|r| r.precedence).collect();
        use Precedence::{Flash, Routine};
        assert_eq!(levels, [Flash, Routine, Flash, Flash, Flash]);
        let tracked: Vec<bool> = records.iter().map(|r| r.tracking.is_some()).collect();
        assert_eq!(tracked, [true, true, false, true, false]);
        let list = records.last().expect("the list's");
        assert_eq!((list.envelope.from.as_ref().map(Mailbox::as_str), &list.envelope.envid), (Some("owner@y"), &None));
        let [report] = entered.reports.as_slice() else { panic!("{:?}", entered.reports) };
        assert_eq!((report.to.as_str(), report.envid.as_deref(), report.lines.len()), ("a@b", Some("env"), 1));
        let bodies = entered.batch.changes.iter().filter(|c| matches!(c, Change::Body(..))).count();
        assert_eq!(bodies, records.len());
    }

    #[test]
    fn what_fails_at_once_is_one_report_and_that_of_a_list_its_owners() {
        let fails = Decision::Fail { status: Status(5, 1, 1), text: "no".into() };
        let list = Some((Mailbox::new("l@y"), Mailbox::new("owner@y")));
        let failing = |address: &str, apart| Copied { decision: fails.clone(), ..copy(address, apart) };
        let entered = entered(
            vec![
                failing("gone@y", Apart::default()),
                failing("slow@y", Apart { most: Some(Precedence::Routine), ..Apart::default() }),
                failing("member@y", Apart { list, ..Apart::default() }),
                copy("fine@y", Apart::default()),
            ],
            Vec::new(),
        );
        let told: Vec<(&str, usize)> = entered.reports.iter().map(|r| (r.to.as_str(), r.lines.len())).collect();
        assert_eq!(told, [("owner@y", 1), ("a@b", 2)]);
        let fine = &entered.records[0].recipients[1];
        assert!(matches!(fine.state, RecipientState::Due { .. }));
    }
}
