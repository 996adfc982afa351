//! What a submission listener mends before a message is taken (RFC 6409 8): a relay must never do this.

use std::borrow::Cow;

use super::{header, trace};
use crate::time::Wall;

/// Adds Date and Message-ID where they are missing and drops Bcc. `unique` makes the Message-ID one of a kind at this host.
pub fn complete<'a>(body: &'a [u8], hostname: &str, wall: Wall, unique: &str) -> Cow<'a, [u8]> {
    let has = |name: &str| header::fields(body).any(|f| f.is(name));
    let mut added = String::new();
    if !has("Date") {
        added.push_str(&format!("Date: {}\r\n", wall.rfc5322()));
    }
    if !has("Message-ID") {
        added.push_str(&format!("Message-ID: <{unique}@{hostname}>\r\n"));
    }
    let open = header::without(body, |f| f.is("Bcc"));
    if added.is_empty() {
        return open;
    }
    trace::prepend(added.as_bytes(), &open).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_fields_are_added_and_blind_copies_hidden() {
        let wall = Wall::parse_rfc3339("2026-11-23T10:15:00Z").expect("valid");
        let out = complete(
            b"From: <a@x.example>\r\nBcc: <s@x.example>,\r\n <t@x.example>\r\n\r\nb\r\n",
            "mx.example",
            wall,
            "u1",
        );
        assert_eq!(
            String::from_utf8_lossy(&out),
            "Date: Mon, 23 Nov 2026 10:15:00 +0000\r\nMessage-ID: <u1@mx.example>\r\nFrom: <a@x.example>\r\n\r\nb\r\n"
        );
        let whole = b"date: x\r\nmessage-id: <y>\r\n\r\nBcc: body\r\n";
        assert!(matches!(complete(whole, "mx.example", wall, "u2"), Cow::Borrowed(b) if b == whole));
    }
}
