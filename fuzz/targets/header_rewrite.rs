//! Any message under a rule of rewriting: nothing but addresses changes, and the inverse rule gives it back; never a panic.
#![no_main]

use aldis::mail::Mailbox;
use aldis::route::{is_signed, rewritten};
use libfuzzer_sys::fuzz_target;

fn to(from: &'static str, to: &'static str) -> impl FnMut(&Mailbox) -> Option<Mailbox> {
    move |address| (address.domain() == from).then(|| Mailbox::new(format!("{}@{to}", address.local())))
}

fuzz_target!(|data: &[u8]| {
    let _ = is_signed(data);
    // A fuzzer finds one letter sooner than a domain; the other one must not be there before.
    let inner = b"inner.test";
    if data.windows(inner.len()).any(|w| w.eq_ignore_ascii_case(inner)) {
        return;
    }
    if let Some((there, changed)) = rewritten(data, &mut to("a", "inner.test")) {
        assert_eq!(there.len(), data.len() + changed * (inner.len() - 1));
        let (back, again) = rewritten(&there, &mut to("inner.test", "a")).expect("what was changed can be found");
        assert_eq!((back.as_slice(), again), (data, changed));
    }
});
