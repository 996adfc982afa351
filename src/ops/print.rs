//! Documents as an operator reads them. Everything printed is in the JSON too.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::document::{
    Emcon, EmconState, HostStatus, Minimize, MxStatus, PeerSilence, Peers, QueueAction, QueueList, QueueMessage,
    QueueShow, Refusal, Status, Track, WhatIf,
};
use crate::mail::Precedence;

/// The text for a document; the JSON itself, indented, where its schema is not known here.
pub fn document(value: &Value) -> String {
    let schema = value.get("schema").and_then(Value::as_str).unwrap_or("");
    let known = match schema {
        Refusal::SCHEMA => read(value, |r: Refusal| format!("refused: {}\n", r.problem)),
        Status::SCHEMA => read(value, status),
        QueueList::SCHEMA => read(value, queue_list),
        QueueShow::SCHEMA => read(value, queue_show),
        QueueAction::SCHEMA => read(value, |a: QueueAction| format!("{}: {}\n", a.action, one_line(&a.message))),
        Track::SCHEMA => read(value, track),
        Emcon::SCHEMA => read(value, emcon),
        WhatIf::SCHEMA => read(value, what_if),
        Minimize::SCHEMA => read(value, minimize),
        Peers::SCHEMA => read(value, |p: Peers| peers(p.peers)),
        _ => None,
    };
    known.unwrap_or_else(|| format!("{value:#}\n"))
}

/// One event of `watch` as a line: time, name, fields.
pub fn event(line: &str) -> String {
    let Ok(Value::Object(fields)) = serde_json::from_str(line) else { return line.escape_debug().to_string() };
    let word = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or("");
    let mut text = format!("{} {}", word("at"), word("event"));
    for (key, value) in fields.iter().filter(|(k, v)| !["schema", "at", "event"].contains(&k.as_str()) && !v.is_null())
    {
        // Strings stay quoted, so a peer's words cannot pass for a field or move the cursor.
        text += &format!(" {key}={value}");
    }
    text
}

fn read<T: DeserializeOwned>(value: &Value, print: impl FnOnce(T) -> String) -> Option<String> {
    serde_json::from_value(value.clone()).ok().map(print)
}

/// Next hops and their hosts; one without any says why.
fn hosts(kind: &str, hops: Vec<(String, Vec<HostStatus>, Option<String>)>) -> String {
    if hops.is_empty() {
        return String::new();
    }
    let mut rows = vec![row([kind, "HOST", "TLS", "STATE", "SERVED", "FAILED", "WHY"])];
    for (name, hosts, why) in hops {
        if let Some(why) = why {
            rows.push(vec![name.clone(), "-".into(), "-".into(), "-".into(), "-".into(), "-".into(), why]);
        }
        rows.extend(hosts.into_iter().map(|host| {
            let (served, failures) = (host.served.to_string(), host.failures.to_string());
            vec![name.clone(), host.host, host.tls, host.state, served, failures, host.why.unwrap_or_default()]
        }));
    }
    table(rows)
}

fn status(s: Status) -> String {
    let mut out = format!("{} {} {}\n", s.node, s.version, if s.ready { "ready" } else { "NOT READY" });
    if !s.clock_set {
        out += "clock NOT SET: nothing expires, windows stay silent\n";
    }
    let free = s.store.free_bytes >> 20;
    out += &format!("store {}, {free} MiB free\n", if s.store.healthy { "healthy" } else { "NOT HEALTHY" });
    let mut rows = vec![row(["LISTENER", "ADDRESS"])];
    rows.extend(s.listeners.into_iter().map(|l| vec![l.name, l.address]));
    out += &table(rows);
    out += &hosts("SMARTHOST", s.smarthosts.into_iter().map(|hop| (hop.name, hop.hosts, None)).collect());
    let named =
        |d: MxStatus| (if d.tls_optional { format!("{} (TLS optional)", d.domain) } else { d.domain }, d.hosts, d.why);
    out += &hosts("MX", s.mx.into_iter().map(named).collect());
    if !s.bearers.is_empty() {
        let mut rows = vec![row(["BEARER", "PEER", "EMCON", "SINCE", "AIR", "SENT", "SUPPRESSED", "REASON"])];
        rows.extend(s.bearers.into_iter().map(|b| {
            vec![
                b.name,
                b.peer,
                order(&b.emcon),
                b.emcon.since,
                format!("{:.1} s", b.air_s),
                format!("{} B", b.bytes_sent),
                b.suppressed.to_string(),
                format!("{} ({})", b.emcon.reason, b.emcon.author),
            ]
        }));
        out += &table(rows);
    }
    for path in s.paths {
        out += &format!("{} over {}: {}\n", path.peer, path.bearer, path.why);
    }
    if !s.links.is_empty() {
        let header = ["LINK", "PEER", "RATE", "WHY", "SNR", "LOSS", "TURNAROUND", "WAIT", "CHANGES", "READS"];
        let mut rows = vec![row(header)];
        rows.extend(s.links.into_iter().map(|l| {
            let told = |x: Option<f64>, unit: &str| x.map_or("-".into(), |x| format!("{x:.1} {unit}"));
            vec![
                l.bearer,
                l.peer,
                l.waveform,
                l.why,
                told(l.snr_db, "dB"),
                format!("{:.0} %", l.loss * 100.0),
                told(l.turnaround_s, "s"),
                format!("{:.1} s", l.wait_s),
                format!("{} in {}", l.rate_changes, l.transmissions),
                l.reads.unwrap_or_else(|| "-".into()),
            ]
        }));
        out += &table(rows);
    }
    for m in s.multicast {
        let state = if m.up { "up" } else { "DOWN" };
        out += &format!("{} {state}: {} going out, {} known, {} B held", m.bearer, m.sending, m.known, m.held_bytes);
        m.counts.iter().for_each(|(what, n)| out += &format!(", {what} {n}"));
        out.push('\n');
    }
    if !s.silent.is_empty() {
        out += &peers(s.silent);
    }
    let mut rows = vec![row(["QUEUE", "COUNT", "OLDEST"])];
    for level in Precedence::DESCENDING {
        if let Some(l) = s.queue.by_precedence.get(level.name()) {
            rows.push(vec![level.name().into(), l.count.to_string(), age(l.oldest_s)]);
        }
    }
    out + &table(rows)
}

fn queue_list(q: QueueList) -> String {
    if q.messages.is_empty() {
        return "nothing queued\n".into();
    }
    let mut rows = vec![row(["ID", "PRECEDENCE", "STATE", "SIZE", "SENDER", "RECIPIENTS", "WHY"])];
    rows.extend(q.messages.into_iter().map(|m| {
        let first = m.recipients.first().map_or("", |r| r.address.as_str());
        let recipients = match m.recipients.len() {
            0 | 1 => first.to_string(),
            n => format!("{first} +{}", n - 1),
        };
        vec![m.id, m.precedence, m.state, m.size_bytes.to_string(), path(&m.sender), recipients, m.why]
    }));
    let more = if q.more { "more were left off: --limit\n" } else { "" };
    table(rows) + more
}

fn queue_show(q: QueueShow) -> String {
    let m = &q.message;
    let mut out = format!("{}\n", one_line(m));
    for (name, value) in [
        ("message-id", m.message_id.clone().unwrap_or_default()),
        ("envid", q.envid.clone().unwrap_or_default()),
        ("sender", path(&m.sender)),
        ("mt-priority", m.mt_priority.map(|p| p.to_string()).unwrap_or_default()),
        ("size", format!("{} bytes", m.size_bytes)),
        ("source", q.source.clone()),
        ("accepted", m.accepted.clone()),
        ("expires", m.expires.clone()),
        ("reduced", q.reduced.join(", ")),
    ] {
        out += &format!("{name:<12} {value}\n");
    }
    let mut rows = vec![row(["RECIPIENT", "STATE", "BEARER", "ATTEMPTS", "NEXT", "LAST ERROR"])];
    rows.extend(m.recipients.iter().cloned().map(|r| {
        vec![
            r.address,
            r.state,
            r.bearer.unwrap_or_default(),
            r.attempts.to_string(),
            r.next_at.unwrap_or_default(),
            r.last_error.unwrap_or_default(),
        ]
    }));
    out + &table(rows)
}

fn one_line(m: &QueueMessage) -> String {
    let why = if m.why.is_empty() { String::new() } else { format!(" ({})", m.why) };
    format!("{} {} {}{why}", m.id, m.precedence, m.state)
}

fn track(t: Track) -> String {
    let mut rows = vec![row(["AT", "EVENT", "RECIPIENT", "BEARER", "ON AIR", "AIR", "DETAIL"])];
    rows.extend(t.events.into_iter().map(|e| {
        vec![
            e.at,
            e.event,
            e.recipient.unwrap_or_default(),
            e.bearer.unwrap_or_default(),
            if e.bytes_on_air == 0 { String::new() } else { format!("{} B", e.bytes_on_air) },
            if e.air_s == 0.0 { String::new() } else { format!("{:.1} s", e.air_s) },
            e.detail.unwrap_or_default(),
        ]
    }));
    let mut out = format!("{}\n{}", t.id, table(rows));
    if !t.predictions.is_empty() {
        let mut rows = vec![row(["EXPECTED FOR", "PEER", "BEARER", "AIR", "DELIVERED AT", "WHY"])];
        rows.extend(t.predictions.into_iter().map(|p| {
            vec![
                p.recipients.join(", "),
                p.peer,
                p.bearer.unwrap_or_default(),
                format!("{:.1} s", p.air_s),
                p.delivered_at.unwrap_or_else(|| "not known".into()),
                p.why,
            ]
        }));
        out += &table(rows);
    }
    out
}

fn emcon(e: Emcon) -> String {
    let mut rows = vec![row(["BEARER", "EMCON", "SINCE", "UNTIL", "CARRIER OFF", "SUPPRESSED", "REASON"])];
    rows.extend(e.bearers.into_iter().map(|b| {
        vec![
            b.name,
            order(&b.emcon),
            b.emcon.since,
            b.emcon.until.unwrap_or_else(|| "next order".into()),
            format!("within {:.1} s", b.carrier_off_s),
            b.suppressed.to_string(),
            format!("{} ({})", b.emcon.reason, b.emcon.author),
        ]
    }));
    table(rows)
}

fn what_if(w: WhatIf) -> String {
    let messages = |n: u64| if n == 1 { "1 message".to_owned() } else { format!("{n} messages") };
    let mut out = String::new();
    for b in w.bearers {
        let end = b.done_at.map_or_else(String::new, |at| format!(", the last across at {at}"));
        out += &format!("{} {} now: {}, {:.1} s on air{end}\n", b.name, w.state, messages(b.messages), b.air_s);
        let rows = b.levels.into_iter().map(|l| {
            vec![
                format!("  {}", l.precedence),
                messages(l.messages),
                format!("{} B", l.bytes),
                format!("{:.1} s", l.air_s),
            ]
        });
        out += &table(rows.collect());
        if b.reports > 0 {
            out += &format!("  reports to {}, {:.1} s on air\n", peers_in_words(b.reports), b.reports_air_s);
        }
    }
    for s in w.stays {
        out += &format!("stays: {} {}: {}\n", messages(s.messages), s.precedence, s.why.escape_debug());
    }
    out
}

fn peers_in_words(n: u64) -> String {
    if n == 1 { "1 peer".into() } else { format!("{n} peers") }
}

fn minimize(m: Minimize) -> String {
    if m.orders.is_empty() {
        return "no MINIMIZE\n".into();
    }
    let mut rows = vec![row(["BEARER", "MINIMUM", "FROM", "UNTIL", "REASON"])];
    rows.extend(m.orders.into_iter().map(|o| {
        let until = o.until.unwrap_or_else(|| "cleared".into());
        vec![o.bearer, o.minimum, o.from, until, format!("{} ({})", o.reason, o.author)]
    }));
    table(rows)
}

fn peers(peers: Vec<PeerSilence>) -> String {
    let mut rows = vec![row(["PEER", "SILENCE", "UNTIL", "HEARD", "SENT, NOT CONFIRMED", "READS", "REASON"])];
    rows.extend(peers.into_iter().map(|p| {
        let silence = match (p.silent, p.from) {
            (true, _) => "SILENT".into(),
            (false, Some(from)) => format!("silent from {from}"),
            (false, None) => "no".to_string(),
        };
        let why = if p.reason.is_empty() { String::new() } else { format!("{} ({})", p.reason, p.author) };
        let reads = p.reads.unwrap_or_else(|| "-".into());
        let (until, heard) = (p.until.unwrap_or_default(), p.heard.unwrap_or_default());
        vec![p.peer, silence, until, heard, p.sent.to_string(), reads, why]
    }));
    table(rows)
}

fn order(state: &EmconState) -> String {
    let mut now = state.state.to_uppercase();
    for window in &state.windows {
        now += &format!(" {} to {}", window.from, window.until);
    }
    match &state.next {
        Some(next) => format!("{now}, {} from {}", next.state, next.from.as_deref().unwrap_or("now")),
        None => now,
    }
}

fn path(sender: &str) -> String {
    if sender.is_empty() { "<>".into() } else { sender.to_string() }
}

fn age(seconds: u64) -> String {
    match seconds {
        0 => String::new(),
        s if s < 120 => format!("{s} s"),
        s if s < 7200 => format!("{} min", s / 60),
        s if s < 172_800 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(String::from).to_vec()
}

/// Columns two blanks apart. Control characters of a peer's words never reach the terminal.
pub fn table(rows: Vec<Vec<String>>) -> String {
    let clean = |cell: &String| cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect::<String>();
    let rows: Vec<Vec<String>> = rows.iter().map(|r| r.iter().map(clean).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, w)| format!("{cell:<w$}")).collect();
        out += cells.join("  ").trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emcon::{Order, State, Window};
    use crate::ops::Response;
    use crate::time::Wall;

    #[test]
    fn tables_align_and_let_no_control_character_through() {
        let text = table(vec![row(["A", "B"]), row(["long\u{1b}[2J", "x"])]);
        assert_eq!(text, "A         B\nlong?[2J  x\n");
    }

    #[test]
    fn an_event_reads_as_one_line() {
        let line = r#"{"schema":"aldis.event/1","at":"T","event":"key-up","bearer":"hf1","air_s":2.4,"by":null}"#;
        assert_eq!(event(line), "T key-up air_s=2.4 bearer=\"hf1\"");
        assert!(!event("\u{1b}[2J").contains('\u{1b}'));
    }

    #[test]
    fn a_refusal_reads_as_one_line_and_an_unknown_document_as_json() {
        assert_eq!(document(&Response::refused("no such message").document), "refused: no such message\n");
        assert!(document(&serde_json::json!({"schema": "aldis.later/9", "x": 1})).contains("\"x\": 1"));
    }

    #[test]
    fn an_order_of_silence_shows_when_the_carrier_is_surely_off() {
        let answer = serde_json::json!({"schema": Emcon::SCHEMA, "bearers": [{
            "name": "hf1", "suppressed": 3, "carrier_off_s": 5.4,
            "emcon": {"state": "silent", "since": "2026-11-23T10:15:00.000Z", "reason": "drill", "author": "uid 1000"}}]});
        let text = document(&answer);
        assert!(
            text.contains("SILENT") && text.contains("within 5.4 s") && text.contains("drill (uid 1000)"),
            "{text}"
        );
    }

    #[test]
    fn a_window_shows_when_the_bearer_may_transmit() {
        let at = |text: &str| Wall::parse_rfc3339(text).expect("a time");
        let window = Window { from: at("2026-11-23T18:00:00Z"), until: at("2026-11-23T18:20:00Z") };
        let ordered = Order {
            state: State::Window(vec![window]),
            since: at("2026-11-23T17:10:00Z"),
            from: None,
            until: None,
            base: None,
            reason: "sked 3".into(),
            author: "uid 1000".into(),
        };
        assert_eq!(
            order(&EmconState::of(Some(&ordered), None)),
            "WINDOW 2026-11-23T18:00:00.000Z to 2026-11-23T18:20:00.000Z"
        );
    }

    #[test]
    fn a_what_if_reads_as_a_sentence_a_level_and_what_stays() {
        let answer = serde_json::json!({"schema": WhatIf::SCHEMA, "state": "open", "bearers": [{
            "name": "hf1", "emcon": {"state": "silent", "since": "T", "reason": "r", "author": "a"}, "messages": 3, "bytes": 10085,
            "air_s": 41.2, "done_at": "T2", "reports": 1, "reports_air_s": 1.2, "levels": [
                {"precedence": "flash", "messages": 1, "bytes": 980, "air_s": 4.8},
                {"precedence": "routine", "messages": 2, "bytes": 9105, "air_s": 36.4}]}],
            "stays": [{"precedence": "routine", "messages": 1, "why": "held: \u{1b}[2J"}]});
        assert_eq!(
            document(&answer),
            "hf1 open now: 3 messages, 41.2 s on air, the last across at T2\n  flash    1 message   980 B   4.8 s\n  \
             routine  2 messages  9105 B  36.4 s\n  reports to 1 peer, 1.2 s on air\n\
             stays: 1 message routine: held: \\u{1b}[2J\n"
        );
    }

    #[test]
    fn a_history_ends_with_what_is_to_be_expected() {
        let answer = serde_json::json!({"schema": Track::SCHEMA, "id": "0000001A", "events": [], "predictions": [{
            "recipients": ["a@b"], "peer": "shore", "bearer": "hf1", "air_s": 12.0, "delivered_at": null, "why": "held by order"}]});
        let text = document(&answer);
        assert!(text.contains("EXPECTED FOR") && text.contains("12.0 s  not known     held by order"), "{text}");
    }
}
