//! What an IMAP server says to a node that fetches what a BURL stands for: bounded, it ends, and content is what stood on the wire.
#![no_main]

use aldis::smtp::burl::Url;
use aldis::smtp::urlfetch::{Credentials, Outcome, Step, UrlFetch};
use libfuzzer_sys::fuzz_target;

const URL: &str = "imap://j@h/INBOX/;uid=1;urlauth=submit+j:internal:91354a473744909de610943775f92038";
const MOST: u64 = 4096;

fuzz_target!(|data: &[u8]| {
    // Whatever is taken for a URL may stand in a quoted string of IMAP.
    if let Some(url) = std::str::from_utf8(data).ok().and_then(|text| Url::parse(text).ok()) {
        assert!(url.text().bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\'));
        let _ = url.lets_submit("j");
    }
    let Some((how, said)) = data.split_first() else { return };
    let credentials = Credentials { user: "submit".into(), password: "secret".into() };
    let mut fetch = UrlFetch::new(URL, credentials, how & 1 == 1, MOST);
    for part in said.chunks(usize::from(how >> 1) + 1) {
        fetch.handle_bytes(part);
        while fetch.poll_transmit().is_some() {}
        match fetch.step() {
            Step::Read => {}
            Step::StartTls => fetch.tls_started(),
            Step::Done(Outcome::Content(content)) => {
                assert!(content.len() as u64 <= MOST);
                assert!(content.is_empty() || said.windows(content.len()).any(|w| w == content));
                return;
            }
            Step::Done(_) => return,
        }
    }
    fetch.handle_eof();
    assert!(matches!(fetch.step(), Step::Done(_)));
});
