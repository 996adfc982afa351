//! The text model after any history: any bytes decode to the length asked for, and what was coded comes back.
#![no_main]

use std::sync::LazyLock;

use aldis::codec::mixing::text::{Model, decode, encode};
use libfuzzer_sys::fuzz_target;

static PRIMED: LazyLock<Model> = LazyLock::new(|| Model::primed(b"From: ops@ship.example\r\nSubject: <b>Fuel</b>\r\n\r\n> Thank you.\r\n"));

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else { return };
    let (history, input) = rest.split_at(usize::from(first).min(rest.len()));
    let mut model = PRIMED.clone();
    model.recall(history);
    let coded = encode(model.clone(), input);
    assert!(coded.len() <= input.len() + input.len() / 2 + 8);
    assert_eq!(decode(model.clone(), &coded, input.len()), input);
    assert_eq!(decode(model, input, history.len()).len(), history.len());
});
