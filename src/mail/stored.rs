//! How the store keeps an [`Envelope`]: its fields one after the other, as ever, with what came later told by flags.
//!
//! Stores of before REQUIRETLS have a boolean where the flags are: the same byte. AUTH stands at the end, and only where a flag says so:
//! an envelope is not the last thing in a record, so nothing can be read from its absence.

use std::fmt;

use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Envelope;

/// Fields that are always there.
const FIELDS: usize = 9;

const SMTPUTF8: u8 = 1;
const REQUIRE_TLS: u8 = 2;
const AUTH: u8 = 4;

impl Serialize for Envelope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { from, recipients, envid, ret, mt_priority, body, smtputf8, require_tls, deliver_by, expires, auth } =
            self;
        let flags = [(*smtputf8, SMTPUTF8), (*require_tls, REQUIRE_TLS), (auth.is_some(), AUTH)];
        let flags = flags.into_iter().filter(|(set, _)| *set).fold(0, |sum, (_, flag)| sum | flag);
        let mut out = serializer.serialize_tuple(FIELDS + usize::from(auth.is_some()))?;
        out.serialize_element(from)?;
        out.serialize_element(recipients)?;
        out.serialize_element(envid)?;
        out.serialize_element(ret)?;
        out.serialize_element(mt_priority)?;
        out.serialize_element(body)?;
        out.serialize_element(&flags)?;
        out.serialize_element(deliver_by)?;
        out.serialize_element(expires)?;
        if let Some(auth) = auth {
            out.serialize_element(auth)?;
        }
        out.end()
    }
}

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_tuple(FIELDS + 1, Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Envelope;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fields of an envelope")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<Envelope, A::Error> {
        let (from, recipients, envid) = (next(&mut fields)?, next(&mut fields)?, next(&mut fields)?);
        let (ret, mt_priority, body) = (next(&mut fields)?, next(&mut fields)?, next(&mut fields)?);
        let flags: u8 = next(&mut fields)?;
        let (deliver_by, expires) = (next(&mut fields)?, next(&mut fields)?);
        let auth = if flags & AUTH != 0 { Some(next(&mut fields)?) } else { None };
        let (smtputf8, require_tls) = (flags & SMTPUTF8 != 0, flags & REQUIRE_TLS != 0);
        Ok(Envelope {
            from,
            recipients,
            envid,
            ret,
            mt_priority,
            body,
            smtputf8,
            require_tls,
            deliver_by,
            expires,
            auth,
        })
    }
}

fn next<'de, A: SeqAccess<'de>, T: Deserialize<'de>>(fields: &mut A) -> Result<T, A::Error> {
    fields.next_element()?.ok_or_else(|| A::Error::custom("an envelope ends too early"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{BodyKind, DeliverBy, Mailbox, MtPriority, Recipient, Ret, ReversePath};
    use crate::time::Wall;

    /// As stores of before REQUIRETLS have it.
    #[derive(Serialize)]
    struct Old {
        from: ReversePath,
        recipients: Vec<Recipient>,
        envid: Option<String>,
        ret: Option<Ret>,
        mt_priority: Option<MtPriority>,
        body: BodyKind,
        smtputf8: bool,
        deliver_by: Option<DeliverBy>,
        expires: Wall,
    }

    fn envelope() -> Envelope {
        let recipients = vec![Recipient::plain(Mailbox::new("b@dest.example"))];
        let plain = Envelope::plain(Some(Mailbox::new("a@src.example")), recipients, Wall(7));
        Envelope { envid: Some("q".into()), mt_priority: MtPriority::new(3), smtputf8: true, ..plain }
    }

    #[test]
    fn an_old_envelope_and_one_without_what_came_later_are_the_same_bytes() {
        let Envelope { from, recipients, envid, ret, mt_priority, body, smtputf8, deliver_by, expires, .. } =
            envelope();
        let old = Old { from, recipients, envid, ret, mt_priority, body, smtputf8, deliver_by, expires };
        let old = postcard::to_stdvec(&old).expect("postcard");
        assert_eq!(postcard::to_stdvec(&envelope()).expect("postcard"), old);
        assert_eq!(postcard::from_bytes::<Envelope>(&old), Ok(envelope()));
    }

    #[test]
    fn what_follows_an_envelope_is_read_whatever_the_envelope_has() {
        for (auth, require_tls) in
            [(None, false), (None, true), (Some("<>"), false), (Some("e+3Dmc2@example.com"), true)]
        {
            let envelope = Envelope { auth: auth.map(str::to_owned), require_tls, ..envelope() };
            let bytes = postcard::to_stdvec(&(&envelope, 0xABCD_u32)).expect("postcard");
            assert_eq!(postcard::from_bytes::<(Envelope, u32)>(&bytes), Ok((envelope, 0xABCD)));
        }
    }
}
