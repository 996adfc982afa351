//! What a mail client hands in at the end of DATA.

use std::sync::Arc;

use aldis::mail::{BodyKind, Envelope, Mailbox, Precedence, Recipient};
use aldis::smtp::server::Transaction;
use aldis::smtp::trace::{Protocol, TraceFacts};
use aldis::time::Wall;

/// The transaction of a trusted client that speaks ESMTP: mail from an address to some, at a level if it names one.
pub fn transaction(
    from: &str,
    recipients: Vec<Recipient>,
    level: Option<Precedence>,
    kind: BodyKind,
    body: impl Into<Arc<[u8]>>,
) -> Transaction {
    let envelope = Envelope {
        from: Some(Mailbox::new(from)),
        recipients,
        envid: None,
        ret: None,
        mt_priority: level.map(Precedence::mt_priority),
        body: kind,
        smtputf8: false,
        require_tls: false,
        deliver_by: None,
        expires: Wall::NEVER,
        auth: None,
    };
    let facts = TraceFacts {
        ehlo: "client.example".into(),
        address: None,
        protocol: Protocol { extended: true, ..Protocol::default() },
        user: None,
        tls: None,
    };
    let terms = Default::default();
    Transaction { envelope, by: None, terms, body: body.into(), facts, trusted: true, received_count: 0 }
}
