//! What a domain's web server and DNS say of MTA-STS: no panic, no more than 64 KiB, the same verdict whether a response comes whole or in
//! pieces, and no host named by a policy that its text does not name.

#![no_main]

use aldis::security::sts::{MOST_BODY, Mode, Policy, body, id};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input).into_owned();
    if let Some(id) = id(&[text]) {
        assert!((1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric()));
    }
    let whole = body(input, true);
    if let Ok(Some(text)) = &whole {
        assert!(text.len() <= MOST_BODY);
    }
    // A prefix that is said to be all there is all there, whatever follows.
    for cut in (0..input.len()).step_by(input.len() / 16 + 1) {
        if let Ok(Some(early)) = body(&input[..cut], false) {
            assert_eq!(body(input, false), Ok(Some(early)));
        }
    }
    if let Ok(policy) = Policy::parse(input) {
        let lower = input.to_ascii_lowercase();
        let said = |name: &[u8]| lower.windows(name.len()).any(|part| part == name);
        for host in ["mx.far.test", "far.test", "a.b.far.test"] {
            let wild = host.split_once('.').map_or(String::new(), |(_, above)| format!("*.{above}"));
            assert!(!policy.names(host) || said(host.as_bytes()) || said(wild.as_bytes()));
        }
        assert!(policy.mode == Mode::None || said(b"mx"));
    }
});
