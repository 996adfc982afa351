//! The address a message was first sent to, as ORCPT carries it and as header fields name it (RFC 3461 4.2, RFC 3464 2.3.1).

use super::Recipient;

/// What the field Original-Recipient says, `type; address` in clear, of an ORCPT; `None` where it has not that form.
pub fn original_recipient(orcpt: &str) -> Option<String> {
    let (kind, address) = orcpt.split_once(';')?;
    Some(format!("{kind}; {}", unxtext(address)))
}

/// The field as a line for whoever delivers to a mailbox and to nobody else (RFC 8098 2.3). Where the address needs letters that a header
/// may not hold, it stays as it was given.
pub fn original_recipient_line(recipient: &Recipient) -> Option<String> {
    let orcpt = recipient.orcpt.as_deref()?;
    let clear = original_recipient(orcpt)?;
    let value = if clear.is_ascii() { clear } else { orcpt.replacen(';', "; ", 1) };
    let fits = value.is_ascii() && value.len() < 900 && !value.chars().any(char::is_control);
    fits.then(|| format!("Original-Recipient: {value}\r\n"))
}

/// RFC 3461 section 4: `+HH` back to its octet. What does not decode to readable text stays as it is.
pub fn unxtext(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(b) = rest.next() {
        if b != b'+' {
            bytes.push(b);
            continue;
        }
        let (Some(high), Some(low)) = (rest.next().and_then(nibble), rest.next().and_then(nibble)) else {
            return text.to_string();
        };
        bytes.push(high << 4 | low);
    }
    match String::from_utf8(bytes) {
        Ok(decoded) if !decoded.chars().any(char::is_control) => decoded,
        _ => text.to_string(),
    }
}

fn nibble(b: u8) -> Option<u8> {
    char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Mailbox;

    #[test]
    fn xtext_vectors() {
        assert_eq!(unxtext("a+2Bb+3Dc@x"), "a+b=c@x");
        assert_eq!(unxtext("a+2bb"), "a+b");
        assert_eq!(unxtext("a+2"), "a+2");
        assert_eq!(unxtext("a+ZZ"), "a+ZZ");
        assert_eq!(unxtext("a+0D"), "a+0D");
    }

    #[test]
    fn a_mailbox_is_told_for_whom_its_mail_was_first_meant() {
        for (orcpt, want) in [
            (Some("rfc822;a+2Bb+3Dc@x"), Some("rfc822; a+b=c@x")),
            (Some("rfc822;a+0D+0AX:y@x"), Some("rfc822; a+0D+0AX:y@x")),
            (Some("utf-8;k\\x{E4}pt'n@x"), Some("utf-8; k\\x{E4}pt'n@x")),
            (Some("rfc822;k+C3+A4@x"), Some("rfc822; k+C3+A4@x")),
            (Some("utf-8;k\u{e4}@x"), None),
            (Some("nothing"), None),
            (None, None),
        ] {
            let recipient = Recipient { orcpt: orcpt.map(str::to_owned), ..Recipient::plain(Mailbox::new("b@x")) };
            let want = want.map(|value| format!("Original-Recipient: {value}\r\n"));
            assert_eq!(original_recipient_line(&recipient), want, "{orcpt:?}");
        }
    }
}
