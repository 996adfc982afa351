//! `aldis dkim record`: what a domain must publish so that others can verify what this node signs.

use super::document::{DkimRecord, DkimRecords};
use crate::config::Plan;

/// Octets of one string of a TXT record (RFC 1035 3.3).
const MOST_STRING: usize = 255;

/// The record of each key, in the order of the profile.
pub fn records(plan: &Plan) -> DkimRecords {
    let named = plan.dkim.iter().map(|signer| (signer.name.clone(), signer.record()));
    let records = named.map(|(key, (name, content))| DkimRecord { key, name, kind: "TXT", content });
    DkimRecords { schema: DkimRecords::SCHEMA, records: records.collect() }
}

/// The same as lines of a zone file: long texts in several strings, which readers put together.
pub fn zone(document: &DkimRecords) -> String {
    let mut text = String::new();
    for record in &document.records {
        let pieces: Vec<String> = record
            .content
            .as_bytes()
            .chunks(MOST_STRING)
            .map(|piece| format!("\"{}\"", String::from_utf8_lossy(piece)))
            .collect();
        text += &format!("{} IN TXT ( {} )\n", record.name, pieces.join(" "));
    }
    text
}
