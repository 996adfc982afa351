//! The configuration as its callers see it: text in, plan or problems out.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::plan::{KeyingPlan, ListenerKind};
use super::*;
use crate::emcon::State;
use crate::mail::{Hop, Mailbox, Precedence, Protection};
use crate::time::Duration;
use crate::units::Bps;

/// One of everything, every key written.
const FULL: &str = r#"
[node]
name = "ship"
hostname = "ship.example"
state_dir = "state"
socket = "run/aldis.sock"
socket_mode = "0660"
postmaster = "postmaster@ship.example"
clock = "trusted"

[limits]
message = "10MiB"
recipients = 500
sessions = 100
sessions_per_address = 20
session_idle = "2min"
session_total = "1h"
session_errors = 10
received_fields = 30
in_flight = "64MiB"
active_messages = 100
disk_floor = "10MiB"
deliveries = 4
connect_timeout = "45s"
command_timeout = "8min"
data_timeout = "7min"
final_timeout = "15min"
keep_done = "7d"
future_release = 50
future_release_per_user = 5

[[listener]]
name = "relay"
kind = "relay"
address = "127.0.0.1:2525"
tls = { certificate = "tls/cert.pem", key = "tls/key.pem", implicit = false, client_ca = "tls/cert.pem" }
auth = true
auth_required = false
trust = ["127.0.0.0/8", "::1/128"]
max_precedence = "routine"
future_release = "never"
check = ["spf", "dkim", "dmarc", "arc"]
dmarc_reject = true
sign = true
seal = "rsa"
tls_required = true
max_size = "5MiB"
max_recipients = 200
sessions_per_address = 10
sessions_per_minute = 60
messages_per_minute = 120
mt_priority = "MIXER"
max_size_by_precedence = { override = "4KiB", flash = "64KiB", immediate = "1MiB", priority = "2MiB", routine = "4MiB", deferred = "5MiB" }
raw_header = ["192.0.2.0/24"]
normalize = ["192.0.2.7/32"]
answer_within = "2min"
deliver_by_min = "90s"
socket_mode = "0600"

[dns]
servers = ["192.0.2.53", "[::1]:5353"]
timeout = "1s"
attempts = 3
cache = 100

[checks]
authserv_id = "mx.ship.example"
within = "5s"
pause = "30s"
at_once = 4
signatures = 3
lookups = 50
authors = 2
arc_sets = 10
header = "64KiB"

[[dkim]]
name = "rsa"
domain = "Ship.example"
selector = "r1"
key = "keys/dkim.pem"
headers = ["From", "Subject"]
oversigned = ["From"]
canonicalization = "relaxed/simple"

[[user]]
name = "op1@ship.example"
password_hash = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQxMjM0NTY$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
certificate = "Op1@ship.example"
max_precedence = "flash"

[[route]]
match = "ship.example"
to = "local"

[[route]]
match = "*"
to = "peer:shore"

[[route]]
match = "far.example"
to = "smarthost:far"

[[route]]
match = "*.example"
to = "mx"

[mx]
tls = "required"
dane = true
trust_anchor = "anchor.key"
mta_sts = true
ca = "tls/cert.pem"
mta_sts_port = 8443
port = 2525
hosts = 5
addresses = 3
answers = 20
loopback = true
domains = 50
lookup_timeout = "20s"
hello = "relay.ship.example"
source_address = "192.0.2.1"
connections = 3
messages_per_connection = 20
recipients = 60
interval = "1s"
back_off = "3min"
connect_timeout = "20s"
command_timeout = "7min"
data_timeout = "5min"
final_timeout = "13min"

[[smarthost]]
name = "far"
hosts = ["mail.far.example:465", "[2001:db8::1]:465"]
tls = "verified"
implicit_tls = true
ca = "tls/cert.pem"
server_name = "mail.far.example"
pins = ["00:01:02:03:04:05:06:07:08:09:0a:0b:0c:0d:0e:0f:10:11:12:13:14:15:16:17:18:19:1a:1b:1c:1d:1e:1f"]
certificate = "tls/cert.pem"
key = "tls/key.pem"
user = "ship"
password_file = "keys/far.password"
mechanisms = ["SCRAM-SHA-256-PLUS", "EXTERNAL"]
hello = "relay.ship.example"
source_address = "192.0.2.1"
connections = 2
messages_per_connection = 10
recipients = 50
max_size = "1MiB"
interval = "10s"
back_off = "2min"
connect_timeout = "1min"
command_timeout = "6min"
data_timeout = "4min"
final_timeout = "12min"

[local]
maildir = "mail"
users = ["postmaster", "op1"]

[retry.override]
[retry.flash]
after = ["10s"]
warn = "5min"
expire = "3h"
[retry.immediate]
[retry.priority]
[retry.routine]
[retry.deferred]

[precedence]
default = "routine"
mmhs = false
two_bearers = "immediate"

[[alias]]
address = "ops@ship.example"
to = ["op1@ship.example", "@shore.example"]
keep = false
owner = "op1@ship.example"

[[rewrite]]
name = "inside"
direction = "in"
what = "envelope"
match = "ship.test"
to = "ship.example"
at = ["relay", "peer:shore"]
signed = true

[[peer]]
name = "shore"
station = 2
silent = [{ from = "2026-11-23T18:00:00Z", until = "2026-11-24T06:00:00Z" }]
protection = "mac"
dictionary = true
keys = [{ id = 0, file = "keys/shore.key" }, { id = 1, hex = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f" }]

[[bearer]]
name = "hf1"
kind = "serial"
device = "/dev/ttyS0"
baud = 38400
keying = { socket = "run/key.sock" }
modem = "simulated"
rate = "2400bps"
interleaver = "S"
turnaround = "500ms"
station = 1
peers = ["shore"]
emcon = "restricted:flash"
max_transmission = "20s"
max_transmission_routine = "60s"
max_payload = "256KiB"
max_air = "12h"
on_excess = "hold"
protected = false
cost = "2s"
net = "fleet"
carrier_stuck_after = "3min"
[bearer.carry]
override = {}
flash = {}
immediate = {}
priority = {}
routine = { payload = "8KiB", air = "90s" }
deferred = {}

[[peer]]
name = "fleet1"
protocol = "mule"
addresses = ["10.1.1.2", "10.1.1.3"]
node = "10.1.1.20"
group = "239.1.1.11"
ack_ranges = false
ack_entry_id = "self"
silent = false

[[bearer]]
name = "sat1"
kind = "pmul"
interface = "10.1.1.1"
node = "10.1.1.10"
groups = ["239.1.1.10", "239.1.1.11"]
data_port = 3753
ack_port = 3754
join = "igmp"
ttl = 4
peers = ["fleet1"]
emcon = "open"
rate = "64kbps"
delay = "300ms"
mtu = 1400
max_pdu = "1000B"
checksum = "internet"
tagging = "implicit"
max_payload = "1MiB"
max_air = "1h"
on_excess = "hold"
protected = false
dscp = { override = 46, flash = 46, immediate = 26, priority = 26, routine = 0, deferred = 8 }
[bearer.carry]
routine = { payload = "64KiB" }
[bearer.timers]
round_trip = "700ms"
repeat = "5s"
back_off = "200%"
longest = "10min"
gather = "100ms"
ack_delay = "200ms"
quiet = "1s"
ack_again = "6s"
unidentified = "10min"
silent_interval = "40s"
silent_repeats = 2
[bearer.dynamic]
control_group = "239.1.1.1"
pool = ["239.2.3.0/30", "239.2.4.9"]
request_port = 3751
announce_port = 3752
use = "always"
wait_for_reject = "3s"
announce_delay = "2s"
announce_count = 3
most_tries = 4
most_joined = 5
idle = "10min"

[[peer]]
name = "fleet2"
station = 200
keys = [{ id = 0, hex = "5a6b7c8d5a6b7c8d5a6b7c8d5a6b7c8d5a6b7c8d5a6b7c8d5a6b7c8d5a6b7c8d" }]

[[bearer]]
name = "sat2"
kind = "multicast"
interface = "10.1.1.1"
group = "239.1.1.20"
port = 4756
join = "static"
ttl = 4
station = 7
peers = ["fleet2"]
emcon = "silent"
receive_only = true
rate = "64kbps"
delay = "300ms"
mtu = 1400
max_payload = "256KiB"
max_air = "1h"
on_excess = "hold"
protected = true
dscp = { override = 46 }
[bearer.carry]
routine = { payload = "64KiB" }

[codec]
dictionary = "site.dict"

[[reduce]]
name = "large"
bearers = ["hf1"]
over = "64KiB"
up_to = "priority"
strip_headers = ["trace", "vanity", "X-Ours*"]
drop_html = true
hold_attachments = "32KiB"
signed = true
"#;

/// Published, hence worthless.
const SIGNING_KEY: &str = include_str!("../../tests/data/dkim-test-key.pem");

const SMALL: &str = "[node]\nname = \"a\"\n[[route]]\nmatch = \"*\"\nto = \"hold\"\n";

#[test]
fn a_full_profile_becomes_its_plan() {
    let checked = disk(FULL).load(&[]).unwrap_or_else(|p| panic!("{p:#?}"));
    let plan = checked.plan;
    assert_eq!(plan.node.state_dir, PathBuf::from("/etc/aldis/state"));
    assert_eq!(plan.node.socket_mode, 0o660);
    assert!(plan.node.clock_trusted);
    assert_eq!(plan.limits.message_bytes, 10 << 20);
    assert_eq!(plan.listeners[0].kind, ListenerKind::Relay);
    assert_eq!(plan.listeners[0].trust.len(), 2);
    assert_eq!(plan.users["op1@ship.example"].max_precedence, Precedence::Flash);
    assert_eq!(plan.directory.routes.hop(&Mailbox::new("x@else.where")), Some(&Hop::Peer("shore".into())));
    assert_eq!(plan.retry[&Precedence::Flash].after, [Duration::from_secs(10)]);
    assert_eq!(plan.retry[&Precedence::Routine].after.len(), 3);
    assert!(!plan.precedence.mmhs);
    assert_eq!(plan.precedence.two_bearers, Some(Precedence::Immediate));
    let rule = &plan.reduce[0];
    assert!(
        rule.applies(&"hf1".into(), 64 << 10, Precedence::Priority) && rule.rule.fields.contains(&"X-Ours*".into())
    );
    assert!(!rule.applies(&"hf1".into(), 64 << 10, Precedence::Immediate));
    assert!(
        !rule.applies(&"hf1".into(), 65_535, Precedence::Routine)
            && !rule.applies(&"x".into(), 1 << 20, Precedence::Routine)
    );
    assert_eq!((plan.bearers[0].cost, &*plan.bearers[0].net), (Duration::from_secs(2), "fleet"));
    assert_eq!(plan.peers[0].protection, Protection::Mac);
    assert_eq!(plan.peers[0].keys.iter().map(|k| k.id).collect::<Vec<_>>(), [0, 1]);
    let bearer = &plan.bearers[0];
    assert_eq!(bearer.keying, KeyingPlan::Socket("/etc/aldis/run/key.sock".into()));
    assert_eq!(bearer.waveform.rate, Bps(2400));
    assert_eq!(bearer.waveform.preamble, Duration::from_millis(600));
    assert_eq!(bearer.waveform.frame_bytes, 262);
    assert_eq!(bearer.waveform.turnaround, Duration::from_millis(500));
    assert_eq!(bearer.emcon, State::Restricted(Precedence::Flash));
}

#[test]
fn a_smarthost_and_the_bounds_of_a_listener_are_what_the_profile_says() {
    let checked = disk(FULL).load(&[]).unwrap_or_else(|p| panic!("{p:#?}"));
    let plan = &checked.plan;
    assert_eq!(plan.directory.routes.hop(&Mailbox::new("x@far.example")), Some(&Hop::Smarthost("far".into())));
    let far = plan.smarthost("far").expect("there");
    assert!(far.is_verified() && far.implicit && far.hosts.len() == 2);
    assert_eq!(far.trust.pins.iter().next().map(|p| p[31]), Some(31));
    let login = far.login.as_ref().expect("a login");
    assert_eq!((login.user.as_str(), login.mechanisms.len()), ("ship", 2));
    assert_eq!(login.password.as_ref().map(|p| p.0.as_str()), Some("s3cret One"));
    assert!(!format!("{plan:?}").contains("s3cret One"), "not for logs");
    assert!(checked.effective.iter().all(|e| !e.value.contains("s3cret")));
    let m = &far.manner;
    assert_eq!((m.connections, m.messages, m.recipients, far.most_bytes), (2, 10, 50, Some(1 << 20)));
    let t = m.waits.timeouts;
    assert_eq!([t.greeting, t.rcpt, t.data_block, t.data_end].map(|d| d.as_secs()), [360, 360, 240, 720]);
    let (rest, t) = (plan.limits.waits.connect, plan.limits.waits.timeouts);
    assert_eq!([rest, t.greeting, t.rcpt, t.data_block, t.data_end].map(|d| d.as_secs()), [45, 480, 480, 420, 900]);
    let relay = &plan.listeners[0];
    assert!(relay.tls_required);
    assert_eq!((relay.message_bytes, relay.recipients, relay.sessions_per_address), (5 << 20, 200, 10));
    assert_eq!((relay.sessions_per_minute, relay.messages_per_minute), (Some(60), Some(120)));

    let least = "[[smarthost]]\nname = \"far\"\nhosts = [\"192.0.2.9:25\"]\n";
    let small = format!("{}{least}", SMALL.replace("\"hold\"", "\"smarthost:far\""));
    let checked = disk(&small).load(&[]).unwrap_or_else(|p| panic!("{p:#?}"));
    let far = checked.plan.smarthost("far").expect("there");
    assert_eq!((far.encryption, far.login.is_none()), (crate::smtp::client::Encryption::Opportunistic, true));
    let t = far.manner.waits.timeouts;
    assert_eq!(t, crate::smtp::client::Timeouts { data_start: t.mail, ..Default::default() });
    assert_eq!(checked.plan.limits.waits, far.manner.waits);
    let with = |more: &str| disk(&format!("{small}{more}")).load(&[]);
    let implicit = with("implicit_tls = true\n").expect("sound").plan;
    assert_eq!(implicit.smarthosts[0].encryption, crate::smtp::client::Encryption::Required);
    let warned = with("user = \"a\"\npassword_file = \"keys/far.password\"\n").expect("sound").warnings;
    assert!(warned.iter().any(|w| w.key == "smarthost.far.mechanisms"), "{warned:#?}");
}

#[test]
fn a_smarthost_that_could_not_work_or_would_not_protect_is_told_where_it_stands() {
    let password = "password_file = \"keys/far.password\"";
    for (from, to, key, words) in [
        (
            "to = \"smarthost:far\"",
            "to = \"smarthost:near\"",
            "route.\"far.example\".to",
            "no [[smarthost]] named near",
        ),
        ("[\"mail.far.example:465\", \"[2001:db8::1]:465\"]", "[]", "smarthost.far.hosts", "0 hosts"),
        ("\"[2001:db8::1]:465\"", "\"mail.far.example:465\"", "smarthost.far.hosts", "twice"),
        ("\"[2001:db8::1]:465\"", "\"127.0.0.1:2525\"", "smarthost.far.hosts", "own listener"),
        ("\"[2001:db8::1]:465\"", "\"mail.far.example\"", "smarthost.far.hosts", "is not one"),
        ("tls = \"verified\"", "tls = \"sometimes\"", "smarthost.far.tls", "is not one"),
        ("tls = \"verified\"", "tls = \"required\"", "smarthost.far.ca", "no certificate is checked"),
        ("tls = \"verified\"", "tls = \"required\"", "smarthost.far.pins", "no certificate is checked"),
        ("tls = \"verified\"", "tls = \"off\"", "smarthost.far.implicit_tls", "no TLS"),
        ("ca = \"tls/cert.pem\"\nserver", "ca = \"tls/none.pem\"\nserver", "smarthost.far.ca", "cannot read"),
        ("ca = \"tls/cert.pem\"\nserver", "server", "smarthost.far.server_name", "pins alone"),
        ("pins = [\"00:", "pins = [\"zz:", "smarthost.far.pins", "is not one"),
        ("key = \"tls/key.pem\"\nuser", "user", "smarthost.far.certificate", "without its key"),
        (password, "password_file = \"keys/none\"", "smarthost.far.password_file", "cannot read"),
        (password, "password_file = \"keys/open.password\"", "smarthost.far.password_file", "mode is 0644"),
        (password, "password_file = \"keys/empty.password\"", "smarthost.far.password_file", "no password"),
        (password, "", "smarthost.far.mechanisms", "needs a password"),
        ("user = \"ship\"", "", "smarthost.far.password_file", "nobody"),
        ("[\"SCRAM-SHA-256-PLUS\", \"EXTERNAL\"]", "[]", "smarthost.far.mechanisms", "empty"),
        ("[\"SCRAM-SHA-256-PLUS\", \"EXTERNAL\"]", "[\"LOGIN\"]", "smarthost.far.mechanisms", "is not one"),
        ("recipients = 50\nmax_size", "recipients = 0\nmax_size", "smarthost.far.recipients", "out of range"),
        ("back_off = \"2min\"", "back_off = \"0s\"", "smarthost.far.back_off", "is not one"),
        ("max_size = \"5MiB\"", "max_size = \"11MiB\"", "listener.relay.max_size", "more than limits.message"),
        (
            "max_recipients = 200",
            "max_recipients = 501",
            "listener.relay.max_recipients",
            "more than limits.recipients",
        ),
        ("sessions_per_address = 10", "sessions_per_address = 21", "listener.relay.sessions_per_address", "more than"),
        ("sessions_per_minute = 60", "sessions_per_minute = 0", "listener.relay.sessions_per_minute", "out of range"),
    ] {
        assert!(FULL.contains(from), "{from}");
        let problems = disk(&FULL.replacen(from, to, 1)).load(&[]).expect_err(to);
        assert!(
            problems.iter().any(|p| p.key == key && p.problem.contains(words)),
            "{to}: wanted {key} {words:?}, got {problems:#?}"
        );
        assert!(problems.iter().all(|p| p.line > 0), "{to}: {problems:#?}");
    }
    let bare = FULL.lines().filter(|l| !l.starts_with("tls = {")).collect::<Vec<_>>().join("\n");
    let problems = disk(&bare).load(&[]).expect_err("no TLS");
    assert!(problems.iter().any(|p| p.key == "listener.relay.tls_required"), "{problems:#?}");
}

#[test]
fn mail_by_mx_goes_as_the_profile_says() {
    let plan = disk(FULL).load(&[]).unwrap_or_else(|p| panic!("{p:#?}")).plan;
    assert_eq!(plan.directory.hop(&Mailbox::new("x@Else.example")), Some(Hop::Mx("else.example".into())));
    let mx = &plan.mx;
    assert!(mx.dane && mx.mta_sts && mx.may_verify() && plan.asks_for_mx());
    assert_eq!(
        (mx.trust_anchor.as_deref(), mx.ca.as_deref()),
        (Some(ANCHOR), Some(Path::new("/etc/aldis/tls/cert.pem")))
    );
    assert_eq!((mx.port, mx.mta_sts_port, mx.domains, mx.within.as_secs()), (2525, 8443, 50, 20));
    assert_eq!(mx.bounds, crate::smtp::mx::Bounds { hosts: 5, addresses: 3, answers: 20, loopback: true });
    let m = &mx.manner;
    assert_eq!((m.connections, m.messages, m.recipients, m.back_off.as_secs()), (3, 20, 60, 180));

    // Nothing of it unless it is asked for.
    let small = disk(SMALL).load(&[]).unwrap_or_else(|p| panic!("{p:#?}")).plan;
    assert!(!small.asks_for_mx() && !small.mx.may_verify() && small.mx.port == 25);
    let warned = disk(&format!("{SMALL}[mx]\n[dns]\n")).load(&[]).expect("sound").warnings;
    let told: Vec<&str> = warned.iter().map(|w| w.key.as_str()).filter(|k| ["mx", "dns"].contains(k)).collect();
    assert_eq!(told.len(), 2, "{warned:#?}");
    let asking = SMALL.replace("\"hold\"", "\"mx\"");
    let warned = disk(&format!("{asking}[mx]\n[dns]\n")).load(&[]).expect("sound").warnings;
    assert!(warned.iter().all(|w| !["mx", "dns"].contains(&w.key.as_str())), "{warned:#?}");

    for (from, to, key, words) in [
        ("tls = \"required\"\ndane", "tls = \"verified\"\ndane", "mx.tls", "is not one"),
        ("tls = \"required\"\ndane", "tls = \"off\"\ndane", "mx.tls", "no TLS"),
        ("dane = true", "dane = false", "mx.trust_anchor", "nothing is proven"),
        ("anchor.key", "none.key", "mx.trust_anchor", "cannot read"),
        ("anchor.key", "tls/cert.pem", "mx.trust_anchor", "no DNSKEY"),
        ("anchor.key", "relative.key", "mx.trust_anchor", "no DNSKEY"),
        ("mta_sts = true", "mta_sts = false", "mx.ca", "no certificate is checked"),
        ("ca = \"tls/cert.pem\"\nmta", "mta", "mx.mta_sts", "no authority"),
        ("ca = \"tls/cert.pem\"\nmta", "ca = \"site.dict\"\nmta", "mx.ca", "no certificates"),
        ("port = 2525\nhosts", "port = 0\nhosts", "mx.port", "out of range"),
        ("hosts = 5", "hosts = 1", "mx.hosts", "out of range"),
        ("addresses = 3", "addresses = 1", "mx.addresses", "out of range"),
        ("answers = 20", "answers = 1001", "mx.answers", "out of range"),
        ("domains = 50", "domains = 9", "mx.domains", "out of range"),
        ("lookup_timeout = \"20s\"", "lookup_timeout = \"6min\"", "mx.lookup_timeout", "is not one"),
        ("to = \"mx\"", "to = \"mx\"\nbearers = [\"hf1\"]", "route.\"*.example\".bearers", "only what goes to a peer"),
    ] {
        assert!(FULL.contains(from), "{from}");
        let problems = disk(&FULL.replacen(from, to, 1)).load(&[]).expect_err(to);
        assert!(
            problems.iter().any(|p| p.key == key && p.problem.contains(words)),
            "{to}: wanted {key} {words:?}, got {problems:#?}"
        );
    }
}

#[test]
fn a_small_profile_gets_safe_defaults() {
    let plan = disk(SMALL).load(&[]).unwrap_or_else(|p| panic!("{p:#?}")).plan;
    assert_eq!(plan.node.hostname, "a");
    assert_eq!(plan.node.socket, PathBuf::from("/etc/aldis/state/aldis.sock"));
    assert_eq!(plan.node.socket_mode, 0o600);
    assert_eq!(plan.node.postmaster, Mailbox::new("postmaster@a"));
    assert!(!plan.node.clock_trusted);
    assert_eq!(plan.local.maildir, PathBuf::from("/etc/aldis/state/maildir"));
    assert_eq!(plan.precedence.default, Precedence::Routine);
    assert_eq!(plan.retry.len(), 6);
}

#[test]
fn every_problem_is_reported_at_once_where_it_stands() {
    let broken = FULL
        .replace("clock = \"trusted\"", "clock = \"sundial\"")
        .replace("recipients = 500", "recipients = 5")
        .replace("kind = \"relay\"", "kind = \"rely\"")
        .replace("mmhs = false", "mhms = false")
        .replace("rate = \"2400bps\"", "rate = \"2401bps\"")
        .replace("to = \"peer:shore\"", "to = \"peer:sea\"")
        .replace("session_idle = \"2min\"", "session_idle = 120");
    let problems = disk(&broken).load(&[]).expect_err("broken");
    let line = |needle: &str| broken.lines().position(|l| l.contains(needle)).expect("written") + 1;
    for (key, needle, allowed) in [
        ("node.clock", "sundial", "kernel, trusted"),
        ("limits.recipients", "recipients = 5", "100"),
        ("limits.session_idle", "session_idle = 120", "90s"),
        ("listener.relay.kind", "rely", "relay, submission, lmtp"),
        ("precedence.mhms", "mhms", "default, mmhs, two_bearers"),
        ("bearer.hf1.rate", "2401bps", "75bps, 150bps"),
        ("route.*.to", "peer:sea", "shore"),
    ] {
        let problem = problems.iter().find(|p| p.key == key).unwrap_or_else(|| panic!("{key} in {problems:#?}"));
        assert_eq!((problem.file.as_str(), problem.line), ("/etc/aldis/x.toml", line(needle)), "{key}");
        assert!(problem.column > 0 && problem.allowed.contains(allowed), "{problem}");
    }
    assert_eq!(problems.len(), 7, "{problems:#?}");
}

#[test]
fn tables_that_do_not_fit_together_are_told() {
    for (from, to, key, words) in [
        ("station = 2", "station = 1", "peer.shore.station", "also that of"),
        ("station = 2", "station = 16", "peer.shore.station", "16"),
        ("peers = [\"shore\"]", "peers = []", "peer.shore", "on no bearer"),
        ("peers = [\"shore\"]", "peers = [\"sea\"]", "bearer.hf1.peers", "no [[peer]] named sea"),
        ("name = \"shore\"", "name = \"ship\"", "peer.ship.name", "own name"),
        ("baud = 38400", "baud = 2400", "bearer.hf1.baud", "cannot keep"),
        ("interleaver = \"S\"", "interleaver = \"VL\"", "bearer.hf1.interleaver", "no interleaver"),
        ("{ socket = \"run/key.sock\" }", "\"lines\"", "bearer.hf1.keying", "not how"),
        ("modem = \"simulated\"", "modem = \"imagined\"", "bearer.hf1.modem", "no built-in sheet"),
        ("modem = \"simulated\"", "modem = \"own/sheet.toml\"", "bearer.hf1.modem", "cannot read"),
        ("emcon = \"restricted:flash\"", "emcon = \"loud\"", "bearer.hf1.emcon", "\"loud\""),
        (
            "max_transmission_routine = \"60s\"",
            "max_transmission_routine = \"10s\"",
            "bearer.hf1.max_transmission_routine",
            "shorter",
        ),
        ("max_transmission = \"20s\"", "max_transmission = \"1s\"", "bearer.hf1.max_transmission", "preamble"),
        ("carrier_stuck_after = \"3min\"", "carrier_stuck_after = \"30s\"", "bearer.hf1.carrier_stuck_after", "alarm"),
        ("protection = \"mac\"", "protection = \"mac\"\nnote = 1", "peer.shore.note", "unknown key"),
        ("id = 1", "id = 0", "peer.shore.keys", "both keys"),
        ("hex = \"00", "hex = \"zz", "peer.shore.keys.1.hex", "hexadecimal"),
        ("keys/shore.key", "keys/open.key", "peer.shore.keys.0.file", "used by others"),
        ("keys/shore.key", "keys/none.key", "peer.shore.keys.0.file", "cannot read"),
        ("key = \"tls/key.pem\"", "key = \"tls/other.pem\"", "listener.relay.tls.key", "does not go with"),
        (
            "certificate = \"tls/cert.pem\"",
            "certificate = \"tls/none.pem\"",
            "listener.relay.tls.certificate",
            "cannot read",
        ),
        ("$argon2id$", "$1$", "user.op1@ship.example.password_hash", "Argon2"),
        ("\"Op1@ship.example\"", "\"*.ship.example\"", "user.op1@ship.example.certificate", "is not one"),
        ("future_release = \"never\"", "future_release = \"1d\"", "listener.relay.future_release", "submission alone"),
        (
            "client_ca = \"tls/cert.pem\"",
            "client_ca = \"tls/key.pem\"",
            "listener.relay.tls.client_ca",
            "no certificates",
        ),
        ("client_ca = \"tls/cert.pem\"", "client_ca = \"tls/no.pem\"", "listener.relay.tls.client_ca", "cannot read"),
        ("maildir = \"mail\"", "maildir = \"state\"", "local.maildir", "state_dir"),
        ("users = [\"postmaster\", \"op1\"]", "users = [\"op1\"]", "node.postmaster", "no mailbox"),
        ("to = \"local\"", "to = \"smtp:127.0.0.1:2525\"", "route.\"ship.example\".to", "leads back"),
        ("match = \"*\"", "match = \"ship.example\"", "route.\"ship.example\"", "named"),
        ("warn = \"5min\"", "warn = \"3h\"", "retry.flash.warn", "before expiry"),
        ("in_flight = \"64MiB\"", "in_flight = \"1MiB\"", "limits.in_flight", "less than one message"),
        ("sessions_per_address = 20", "sessions_per_address = 101", "limits.sessions_per_address", "more than"),
        (
            "auth = true\nauth_required = false",
            "auth = false\nauth_required = true",
            "listener.relay.auth_required",
            "not offered",
        ),
    ] {
        assert!(FULL.contains(from), "{from}");
        // A scope's own path quotes names that hold dots; user names do too.
        let problems = disk(&FULL.replacen(from, to, 1)).load(&[]).expect_err(to);
        let plain = |k: &str| k.replace('"', "");
        assert!(
            problems.iter().any(|p| plain(&p.key) == plain(key) && p.problem.contains(words)),
            "{to}: wanted {key} {words:?}, got {problems:#?}"
        );
        assert!(problems.iter().all(|p| p.line > 0), "{to}: {problems:#?}");
    }
}

#[test]
fn lmtp_keeps_off_port_25_and_offers_no_passwords() {
    let listener = |port: u16, more: &str| {
        disk(&format!("{SMALL}[[listener]]\nname = \"l\"\nkind = \"lmtp\"\naddress = \"127.0.0.1:{port}\"\n{more}"))
            .load(&[])
    };
    let checked = listener(24, "trust = [\"127.0.0.0/8\"]\n").expect("sound");
    assert_eq!(checked.plan.listeners.last().map(|l| l.kind), Some(ListenerKind::Lmtp));
    for (port, more, key) in [(25, "", "listener.l.address"), (24, "auth = true\n", "listener.l.auth")] {
        let problems = listener(port, more).expect_err(key);
        assert_eq!((problems.len(), problems[0].key.as_str()), (1, key), "{problems:#?}");
    }
}

#[test]
fn a_listener_on_a_path_speaks_lmtp_and_is_nobody_elses() {
    let listener = |kind: &str, address: &str, more: &str| {
        let table = format!("[[listener]]\nname = \"l\"\nkind = \"{kind}\"\naddress = \"{address}\"\n{more}");
        disk(&format!("{SMALL}{table}")).load(&[])
    };
    let plan = listener("lmtp", "run/lmtp.sock", "").expect("sound").plan;
    let last = plan.listeners.last().expect("one");
    assert_eq!((last.address.to_string().as_str(), last.socket_mode), ("/etc/aldis/run/lmtp.sock", 0o660));
    assert!(last.address.is_loopback() && last.address.net().is_none());
    let tls = "tls = { certificate = \"tls/cert.pem\", key = \"tls/key.pem\" }\n";
    let problems = listener("lmtp", "run/lmtp.sock", tls).expect_err("TLS");
    assert!(problems.iter().any(|p| p.key == "listener.l.tls" && p.problem.contains("needs no TLS")), "{problems:#?}");
    let long = format!("/{}", "x".repeat(107));
    for (kind, address, more) in [
        ("relay", "run/relay.sock", ""),
        ("submission", "/run/submission.sock", ""),
        ("lmtp", "lmtp.sock", ""),
        ("lmtp", long.as_str(), ""),
        ("lmtp", "state/aldis.sock", ""),
        ("lmtp", "/run/a.sock", "[[listener]]\nname = \"m\"\nkind = \"lmtp\"\naddress = \"/run/a.sock\"\n"),
    ] {
        let problems = listener(kind, address, more).expect_err(address);
        assert!(problems.len() == 1 && problems[0].key.ends_with(".address"), "{kind} {address}: {problems:#?}");
    }
}

#[test]
fn rules_of_a_listener_are_within_bounds_and_where_they_apply() {
    let listener = |kind: &str, more: &str| {
        let table = format!("[[listener]]\nname = \"l\"\nkind = \"{kind}\"\naddress = \"127.0.0.1:0\"\n{more}\n");
        disk(&format!("{SMALL}{table}")).load(&[])
    };
    let of = |kind: &str, more: &str| listener(kind, more).expect("sound").plan.listeners.pop().expect("one");
    assert_eq!(of("submission", "").answer, Duration::from_secs(110));
    assert_eq!((of("relay", "").answer, of("relay", "").deliver_by_min), (Duration::from_secs(300), 0));
    let sizes = of("relay", "max_size_by_precedence = { flash = \"4KiB\" }").precedence_bytes;
    assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [(Precedence::Flash, 4096)]);
    for (kind, line, key) in [
        ("relay", "mt_priority = \"STANAG\"", "mt_priority"),
        ("relay", "max_size_by_precedence = { flash = \"1023B\" }", "max_size_by_precedence.flash"),
        ("relay", "max_size_by_precedence = { flash = \"26MiB\" }", "max_size_by_precedence.flash"),
        ("relay", "max_size_by_precedence = { urgent = \"1MiB\" }", "max_size_by_precedence.urgent"),
        ("submission", "raw_header = [\"192.0.2.0/24\"]", "raw_header"),
        ("relay", "normalize = [\"192.0.2.1\"]", "normalize"),
        ("submission", "answer_within = \"120s\"", "answer_within"),
        ("relay", "answer_within = \"4s\"", "answer_within"),
        ("lmtp", "deliver_by_min = \"1s\"", "deliver_by_min"),
        ("relay", "deliver_by_min = \"1500ms\"", "deliver_by_min"),
    ] {
        let problems = listener(kind, line).expect_err(line);
        let key = format!("listener.l.{key}");
        assert!(problems.len() == 1 && problems[0].key == key, "{kind} {line}: {problems:#?}");
    }
    for (fields, sound) in [(24, false), (25, true), (1000, true), (1001, false)] {
        let loaded = disk(&format!("{SMALL}[limits]\nreceived_fields = {fields}\n")).load(&[]);
        assert_eq!(loaded.is_ok(), sound, "{fields}");
    }
    assert_eq!(disk(SMALL).load(&[]).expect("sound").plan.limits.received_fields, 100);
}

#[test]
fn a_user_has_a_password_of_either_kind_or_a_certificate_of_its_own() {
    let users = |more: &str| disk(&format!("{FULL}{more}")).load(&[]);
    let verifier = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    let scram = format!("[[user]]\nname = \"op2\"\npassword_hash = \"{verifier}\"\n");
    let plan = users(&format!("{scram}[[user]]\nname = \"op3\"\ncertificate = \"op3.example\"\n")).expect("sound").plan;
    let password = |user: &str| plan.users[user].password.as_ref();
    assert!(password("op2").is_some_and(|p| p.fits("pencil") && !p.fits("pen") && p.verifier().is_some()));
    assert!(password("op3").is_none() && password("op1@ship.example").is_some_and(|p| p.verifier().is_none()));
    assert_eq!(plan.users["op1@ship.example"].certificate.as_deref(), Some("op1@ship.example"));
    let told = users("[[user]]\nname = \"op2\"\n").expect_err("nothing to log in with");
    assert_eq!(told[0].key, "user.op2");
    let told = users("[[user]]\nname = \"op2\"\ncertificate = \"op1@Ship.example\"\n").expect_err("named twice");
    assert_eq!(told[0].key, "user.op2.certificate");
    assert!(super::scram_verifier("Malmö", &[0; 16]).is_err());
    assert!(super::scram_verifier("pencil", &[0; 16]).is_ok_and(|v| super::Password::parse(&v).is_some()));
}

#[test]
fn burl_names_its_servers_and_never_says_its_password_in_clear() {
    let with = |burl: &str| {
        let listener = "[[listener]]\nname = \"s\"\nkind = \"submission\"\naddress = \"127.0.0.1:587\"\n";
        disk(&format!("{SMALL}{listener}burl = {{ password_file = \"keys/far.password\", {burl} }}\n")).load(&[])
    };
    let plan = with("servers = [\"IMAP.ship.example\", \"[::1]:1143\"], ca = \"tls/cert.pem\"").expect("sound").plan;
    let burl = plan.listeners.last().and_then(|l| l.burl.clone()).expect("there is one");
    assert_eq!(burl.servers, [("imap.ship.example".to_owned(), 143), ("[::1]".to_owned(), 1143)]);
    assert_eq!((&*burl.credentials.user, &*burl.credentials.password), ("submit", "s3cret One"));
    assert!(with("servers = [\"localhost\", \"127.0.0.1:1143\"], encryption = \"off\"").is_ok());
    for (burl, key) in [
        ("servers = [], ca = \"tls/cert.pem\"", "servers"),
        ("servers = [\"a b\"], ca = \"tls/cert.pem\"", "servers"),
        ("servers = [\"h:0\"], ca = \"tls/cert.pem\"", "servers"),
        ("servers = [\"h\"]", "encryption"),
        ("servers = [\"h\"], encryption = \"off\"", "encryption"),
        ("servers = [\"localhost\"], encryption = \"off\", ca = \"tls/cert.pem\"", "encryption"),
        ("servers = [\"h\"], ca = \"tls/key.pem\"", "ca"),
        ("servers = [\"h\"], pins = [\"00\"]", "pins"),
        ("servers = [\"h\"], ca = \"tls/cert.pem\", user = \"\"", "user"),
    ] {
        let problems = with(burl).expect_err(burl);
        assert_eq!(problems[0].key, format!("listener.s.burl.{key}"), "{burl}: {problems:#?}");
    }
    let relay =
        "[[listener]]\nname = \"r\"\nkind = \"relay\"\naddress = \"127.0.0.1:2526\"\nburl = { servers = [\"h\"] }\n";
    let problems = disk(&format!("{SMALL}{relay}")).load(&[]).expect_err("a relay");
    assert_eq!(problems[0].key, "listener.r.burl");
}

#[test]
fn passwords_in_clear_are_refused_beyond_loopback() {
    let open = "[[listener]]\nname = \"s\"\nkind = \"submission\"\naddress = \"0.0.0.0:587\"\n";
    let problems = disk(&format!("{SMALL}{open}")).load(&[]).expect_err("in clear");
    assert_eq!(problems[0].key, "listener.s.tls");
    let loopback = open.replace("0.0.0.0", "127.0.0.1");
    let plan = disk(&format!("{SMALL}{loopback}")).load(&[]).expect("loopback is the machine itself").plan;
    assert_eq!(plan.listeners.last().and_then(|l| l.future_release), Some(Duration::from_secs(7 * 86_400)));
    for (value, sound) in [("60d", true), ("never", true), ("61d", false), ("0s", false), ("soon", false)] {
        let loaded = disk(&format!("{SMALL}{loopback}future_release = \"{value}\"\n")).load(&[]);
        assert_eq!(loaded.is_ok(), sound, "{value}");
    }
}

#[test]
fn set_overrides_any_key_and_is_remembered() {
    let sets = ["listener.relay.address=127.0.0.1:0", "bearer.hf1.rate=75bps", "route.*.to=hold", "node.name=12"];
    let checked = disk(FULL).load(&sets.map(String::from)).unwrap_or_else(|p| panic!("{p:#?}"));
    assert_eq!(checked.plan.listeners[0].address.port(), Some(0));
    assert_eq!(checked.plan.bearers[0].waveform.rate, Bps(75));
    assert_eq!(&*checked.plan.node.name.0, "12");
    let origin = |key: &str| checked.effective.iter().find(|e| e.key == key).map(|e| (e.origin.as_str(), e.source));
    assert_eq!(origin("listener.relay.address"), Some(("--set", "set")));
    assert_eq!(origin("listener.relay.kind"), Some(("/etc/aldis/x.toml:34", "profile")));
    let problems = disk(FULL).load(&["listener.relais.address=x".into(), "node.nmae=x".into()]).expect_err("wrong");
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems.iter().all(|p| p.file == "--set"), "{problems:#?}");
}

#[test]
fn explain_names_defaults_and_sheet_values_and_hides_secrets() {
    let effective = disk(FULL).load(&[]).expect("sound").effective;
    let of = |key: &str| effective.iter().find(|e| e.key == key).unwrap_or_else(|| panic!("{key}"));
    assert_eq!(of("bearer.hf1.waveform.frame").value, "262B");
    assert_eq!(of("bearer.hf1.waveform.frame").source, "sheet");
    assert!(of("bearer.hf1.waveform.frame").origin.starts_with("sheet simulated:"));
    assert_eq!(of("retry.deferred.expire").source, "default");
    assert_eq!(of("peer.shore.keys.1.hex").value, "(secret)");
    assert!(effective.iter().all(|e| !e.value.contains("argon2") && !e.value.contains("0001020304")));
}

#[test]
fn who_takes_one_payload_together_is_told_and_who_does_not_and_why() {
    let net = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    let keys = |hex: &str| format!("keys = [{{ id = 0, hex = \"{hex}\" }}]");
    let more = |name: &str, station: u8, protection: &str, hex: &str| {
        let keys = keys(hex);
        format!("\n[[peer]]\nname = \"{name}\"\nstation = {station}\nprotection = \"{protection}\"\n{keys}\n")
    };
    let (before, after) = FULL.split_once("keys = [{ id = 0, file").expect("shore has keys");
    let shore = format!("{before}{}{}", keys(net), &after[after.find('\n').expect("a line")..]);
    let said = |names: &str, tables: &str| {
        let text = format!("{}{tables}", shore.replace("peers = [\"shore\"]", &format!("peers = [{names}]")));
        let plan = disk(&text).load(&[]).expect("sound").plan;
        sharing(&plan).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    // One peer alone has nobody to share with.
    assert_eq!(said("\"shore\"", ""), Vec::<String>::new());
    let own = net.replace("1e1f", "1e2f");
    let (tug, pilot, buoy) =
        (more("tug", 9, "mac", net), more("pilot", 10, "mac", &own), more("buoy", 11, "aead", net));
    assert_eq!(
        said("\"shore\", \"tug\", \"pilot\", \"buoy\"", &format!("{tug}{pilot}{buoy}")),
        [
            "bearer hf1: a message for several of shore, tug goes once; pilot apart, its first key is not that of shore; \
          buoy apart, it has protection aead, shore has mac"
        ]
    );
    assert_eq!(
        said("\"shore\", \"pilot\"", &pilot),
        ["bearer hf1: every peer gets a payload of its own; pilot apart, its first key is not that of shore"]
    );
}

#[test]
fn the_published_key_is_warned_about_and_a_key_that_is_none_refused() {
    let hex = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    let example = data_encoding::HEXLOWER.encode(EXAMPLE_KEY);
    let warnings = disk(&FULL.replace(hex, &example)).load(&[]).expect("allowed").warnings;
    assert!(warnings.iter().any(|w| w.problem.contains("example key") && w.line > 0), "{warnings:#?}");
    disk(&FULL.replace(hex, &"00".repeat(32))).load(&[]).expect_err("no key");
}

#[test]
fn silence_of_peers_and_how_mail_goes_into_it_are_read_with_their_units() {
    use super::plan::Silences;
    let plan = disk(&format!("{FULL}\n[blind.flash]\ntarget = \"99%\"\nwindows = 5\n")).load(&[]).expect("sound").plan;
    assert!(matches!(&plan.peers[0].silent, Silences::Windows(w) if w.len() == 1));
    assert_eq!(plan.peers[0].assumed_loss, 0.1);
    let (flash, routine) = (plan.blind[&Precedence::Flash], plan.blind[&Precedence::Routine]);
    assert_eq!((flash.target, flash.windows, flash.every), (0.99, 5, Duration::from_secs(900)));
    assert!((routine.target - 0.999).abs() < 1e-12);
    assert_eq!((routine.windows, routine.every), (2, Duration::from_secs(7200)));
    let listed = "silent = [{ from = \"2026-11-23T18:00:00Z\", until = \"2026-11-24T06:00:00Z\" }]";
    for (silent, sound) in [
        ("silent = true", true),
        ("silent = false", true),
        ("silent = \"now and then\"", false),
        ("silent = [{ from = \"2026-11-23T18:00:00Z\", until = \"2026-11-23T06:00:00Z\" }]", false),
        ("assumed_loss = \"60%\"", false),
        ("assumed_loss = 0.1", false),
        ("receipts = \"verbatim\"", true),
        ("receipts = \"both\"", false),
    ] {
        assert_eq!(disk(&FULL.replace(listed, silent)).load(&[]).is_ok(), sound, "{silent}");
    }
    disk(&format!("{FULL}\n[blind.flash]\ntarget = \"100%\"\n")).load(&[]).expect_err("nothing is certain");
}

#[test]
fn the_reader_asks_for_exactly_the_keys_of_the_schema() {
    // What only a submission listener has.
    let submission = "[[listener]]\nname = \"s\"\nkind = \"submission\"\naddress = \"127.0.0.1:587\"\n\
                      burl = { servers = [\"h\"], password_file = \"keys/far.password\", ca = \"tls/cert.pem\" }\n";
    let full = FULL.replace("keying = { socket = \"run/key.sock\" }", "keying = { socket = \"k\" }");
    let disk = disk(&format!("{full}\n{submission}"));
    let mut reader = Reader::default();
    let root = tree::parse("x", &disk.profile).expect("TOML");
    let context = profile::Context { directory: Path::new("/etc/aldis"), files: &disk };
    assert!(profile::build(&mut reader, &context, &root).is_some(), "{:#?}", reader.problems);
    for section in schema::SECTIONS {
        for key in section.keys {
            assert!(reader.asked.contains(&(section.name, key.name)), "[{}] {} is never read", section.name, key.name);
        }
    }
    for (section, key) in &reader.asked {
        let known = *section == schema::ROOT.name
            || schema::SECTIONS.iter().any(|s| s.name == *section && s.key(key).is_some());
        assert!(known, "[{section}] {key} is read but not in the schema");
    }
}

#[test]
fn a_node_runs_without_a_dictionary_that_cannot_be_read_and_says_so() {
    let plan = disk(FULL).load(&[]).expect("sound").plan;
    assert!(plan.peers[0].dictionary && plan.codec.dictionary.is_some_and(|d| d.bytes().len() == 65));
    let checked = disk(&FULL.replace("site.dict", "gone.dict")).load(&[]).expect("it can be run");
    assert_eq!(checked.plan.codec.dictionary, None);
    let told = |w: &&Problem| w.key == "codec.dictionary" && w.problem.contains("coded without it");
    assert_eq!(checked.warnings.iter().filter(told).count(), 1, "{:#?}", checked.warnings);
    let alone = disk(&FULL.replace("[codec]\ndictionary = \"site.dict\"", "")).load(&[]).expect_err("nothing to share");
    assert_eq!(alone[0].key, "peer.shore.dictionary");
}

#[test]
fn rules_of_reduction_that_cannot_apply_are_told() {
    let with = |more: &str| disk(&format!("{FULL}{more}")).load(&[]).err().unwrap_or_default();
    let rule = |name: &str, more: &str| format!("[[reduce]]\nname = \"{name}\"\n{more}\n");
    assert_eq!(with(&rule("small", "bearers = [\"hf1\"]\ndrop_html = true")), [], "the earlier one begins at 64 KiB");
    assert_eq!(with(&rule("small", "bearers = [\"hf1\"]\nscale_images = \"1280px\"")), []);
    for (more, key, words) in [
        ("bearers = [\"hf2\"]\ndrop_html = true", "reduce.r.bearers", "no [[bearer]] named hf2"),
        ("bearers = []\ndrop_html = true", "reduce.r.bearers", "no bearer"),
        ("bearers = [\"hf1\"]", "reduce.r", "leaves nothing out"),
        ("bearers = [\"hf1\"]\ndrop_html = true\nover = \"65KiB\"", "reduce.r", "never applies: reduce.large"),
        ("bearers = [\"hf1\"]\nstrip_headers = [\"Subject\"]", "reduce.r.strip_headers", "Subject"),
        ("bearers = [\"hf1\"]\nhold_attachments = \"sometimes\"", "reduce.r.hold_attachments", "sometimes"),
        ("bearers = [\"hf1\"]\nscale_images = \"63px\"", "reduce.r.scale_images", "63px"),
    ] {
        let told = with(&rule("r", more));
        let [problem] = told.as_slice() else { panic!("{more}: {told:#?}") };
        assert!(problem.key == key && problem.problem.contains(words), "{more}: {problem:#?}");
    }
}

#[test]
fn addresses_that_lead_nowhere_are_told_where_they_stand() {
    let with = |more: &str| disk(&format!("{FULL}{more}")).load(&[]).err().unwrap_or_default();
    let alias = |address: &str, rest: &str| format!("[[alias]]\naddress = \"{address}\"\n{rest}\n");
    let rewrite = |rest: &str| format!("[[rewrite]]\nname = \"r\"\ndirection = \"out\"\n{rest}\n");
    let route = |rest: &str| format!("[[route]]\nmatch = \"a@b.example\"\n{rest}\n");
    for sound in [
        alias("@ship.example", "to = [\"op1@ship.example\"]"),
        alias("@old.example", "to = [\"@ship.example\"]") + &alias("@ship.example", "to = [\"op1@ship.example\"]"),
        alias("op1@ship.example", "to = [\"x@shore.example\"]\nkeep = true"),
        rewrite("match = \"a.example\"\nto = \"b.example\"\nat = [\"peer:shore\"]"),
        route("to = \"peer:shore\"\nbearers = [\"hf1\"]\nmin_precedence = \"flash\"\nmax_precedence = \"flash\""),
    ] {
        assert_eq!(with(&sound), [], "{sound}");
    }
    let round = alias("a@x.example", "to = [\"b@x.example\"]") + &alias("b@x.example", "to = [\"a@x.example\"]");
    for (more, key, words) in [
        (round, "alias.a@x.example.to", "circle"),
        (alias("a@x.example", "to = [\"a@x.example\"]"), "alias.a@x.example.to", "circle"),
        (alias("@x.example", "to = [\"@X.example\"]"), "alias.@x.example.to", "leads to itself"),
        (alias("a@x.example", "to = []"), "alias.a@x.example.to", "empty"),
        (alias("a@x.example", "to = [\"gone@ship.example\"]"), "alias.a@x.example.to", "no such mailbox"),
        (
            alias("gone@ship.example", "to = [\"op1@ship.example\"]\nkeep = true"),
            "alias.gone@ship.example.to",
            "no such mailbox",
        ),
        (
            alias("a@x.example", "to = [\"op1@ship.example\"]\nowner = \"gone@ship.example\""),
            "alias.a@x.example.owner",
            "no such mailbox",
        ),
        (
            alias("OPS@ship.example", "to = [\"op1@ship.example\"]"),
            "alias.OPS@ship.example.address",
            "also the address of",
        ),
        (alias("a b@x.example", "to = [\"op1@ship.example\"]"), "alias.a b@x.example.address", "is not one"),
        (
            rewrite("match = \"a.example\"\nto = \"b.example\"\nat = [\"peer:nobody\"]"),
            "rewrite.r.at",
            "no mail passes",
        ),
        (rewrite("match = \"a.example\"\nto = \"A.example\""), "rewrite.r.to", "is what it matches"),
        (route("to = \"local\"\nbearers = [\"hf1\"]"), "route.a@b.example.bearers", "only what goes to a peer"),
        (route("to = \"peer:shore\"\nbearers = [\"hf2\"]"), "route.a@b.example.bearers", "no [[bearer]] named hf2"),
        (
            route("to = \"peer:shore\"\nmin_precedence = \"flash\"\nmax_precedence = \"routine\""),
            "route.a@b.example.min_precedence",
            "above",
        ),
    ] {
        let told = with(&more);
        let plain = |key: &str| key.replace('"', "");
        let found = told.iter().find(|p| plain(&p.key) == key && p.problem.contains(words));
        assert!(found.is_some_and(|p| p.line > 0), "{more}: wanted {key} {words:?}, got {told:#?}");
    }
}

#[test]
fn arbitrary_text_and_overrides_never_panic() {
    use proptest::prelude::*;
    proptest!(|(text in "(?s).{0,200}", set in ".{0,40}", cut in 0usize..FULL.len())| {
        let _ = disk(&text).load(std::slice::from_ref(&set));
        let head = FULL.get(..cut).unwrap_or(FULL);
        let _ = disk(head).load(&[set]);
    });
}

struct Disk {
    profile: String,
    files: BTreeMap<PathBuf, File>,
}

impl Disk {
    fn load(&self, overrides: &[String]) -> Result<Checked, Vec<Problem>> {
        load(Path::new("/etc/aldis/x.toml"), overrides, self)
    }
}

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<File> {
        if path == Path::new("/etc/aldis/x.toml") {
            return Ok(File { bytes: self.profile.clone().into_bytes(), mode: 0o600 });
        }
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A trusted key as dnssec-keygen writes it.
const ANCHOR: &str = "; This is a key-signing key, keyid 32802, for example.\nexample. IN DNSKEY 257 3 13 \
    qri0Ajp+h/XuQ6W5LaBD5/chcTV7+TBs8nTBhuJoCPvSDfuNk1HIcEd5 DBpC8YX7KjQC3BT/2IxYRMsZnXF/+Q==\n";

fn disk(profile: &str) -> Disk {
    static CERTIFICATES: std::sync::OnceLock<[String; 3]> = std::sync::OnceLock::new();
    let [certificate, key, other] = CERTIFICATES.get_or_init(|| {
        let one = rcgen::generate_simple_self_signed(["ship.example".to_string()]).expect("a certificate");
        let other = rcgen::generate_simple_self_signed(["ship.example".to_string()]).expect("a certificate");
        [one.cert.pem(), one.signing_key.serialize_pem(), other.signing_key.serialize_pem()]
    });
    let digits = "a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90\n".to_string();
    let (password, empty) = ("s3cret One\n".to_string(), "\n".to_string());
    let files = [
        ("tls/cert.pem", certificate, 0o644),
        ("tls/key.pem", key, 0o600),
        ("tls/other.pem", other, 0o600),
        ("keys/shore.key", &digits, 0o600),
        ("keys/open.key", &digits, 0o644),
        ("keys/dkim.pem", &SIGNING_KEY.to_owned(), 0o600),
        ("keys/open.pem", &SIGNING_KEY.to_owned(), 0o640),
        ("site.dict", &digits, 0o644),
        ("anchor.key", &ANCHOR.to_owned(), 0o644),
        ("relative.key", &ANCHOR.replace("example.", "example"), 0o644),
        ("keys/far.password", &password, 0o600),
        ("keys/open.password", &password, 0o644),
        ("keys/empty.password", &empty, 0o600),
    ]
    .map(|(path, text, mode)| (Path::new("/etc/aldis").join(path), File { bytes: text.clone().into_bytes(), mode }));
    Disk { profile: profile.into(), files: files.into() }
}

#[test]
fn what_vouches_for_mail_is_read_and_checked() {
    let plan = disk(FULL).load(&[]).unwrap_or_else(|p| panic!("{p:#?}")).plan;
    let servers = plan.dns.servers.as_ref().expect("written");
    assert_eq!(servers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.53:53", "[::1]:5353"]);
    let (listener, signer) = (&plan.listeners[0].vetting, &plan.dkim[0]);
    assert!(listener.checks.arc && listener.dmarc_reject && listener.sign && plan.checks_mail());
    assert_eq!((listener.seal.as_deref(), &*signer.domain, &*signer.selector), (Some("rsa"), "ship.example", "r1"));
    assert_eq!((plan.checks.within, plan.checks.bounds.signatures), (Duration::from_secs(5), 3));
    // Nothing of it unless it is asked for.
    let small = disk(SMALL).load(&[]).unwrap_or_else(|p| panic!("{p:#?}")).plan;
    assert!(!small.checks_mail() && small.dkim.is_empty() && small.checks.authserv_id == "a");
    for (from, to, key, words) in [
        (
            "check = [\"spf\", \"dkim\", \"dmarc\", \"arc\"]",
            "check = [\"dmarc\", \"arc\"]",
            "listener.relay.check",
            "DMARC",
        ),
        ("check = [\"spf\", \"dkim\", \"dmarc\", \"arc\"]", "check = [\"dkom\"]", "listener.relay.check", "dkom"),
        ("\"dmarc\", \"arc\"]", "\"arc\"]", "listener.relay.dmarc_reject", "not checked"),
        ("\"dmarc\", \"arc\"]", "\"dmarc\"]", "listener.relay.seal", "where it was checked"),
        ("seal = \"rsa\"", "seal = \"ras\"", "listener.relay.seal", "no [[dkim]] named ras"),
        ("keys/dkim.pem", "keys/none.pem", "dkim.rsa.key", "cannot read"),
        ("keys/dkim.pem", "keys/open.pem", "dkim.rsa.key", "can be used by others"),
        ("keys/dkim.pem", "keys/shore.key", "dkim.rsa.key", "no private key"),
        ("keys/dkim.pem", "tls/key.pem", "dkim.rsa.key", "neither RSA"),
        ("headers = [\"From\", \"Subject\"]", "headers = [\"Received\"]", "dkim.rsa.headers", "changes under way"),
        ("\"relaxed/simple\"", "\"relaxed\"", "dkim.rsa.canonicalization", "is not one"),
        ("domain = \"Ship.example\"", "domain = \"ship example\"", "dkim.rsa.domain", "is not one"),
        ("servers = [\"192.0.2.53\", ", "servers = [\"dns.example\", ", "dns.servers", "is not one"),
        ("within = \"5s\"", "within = \"5min\"", "checks.within", "is not one"),
    ] {
        assert!(FULL.contains(from), "{from}");
        let changed = FULL.replacen(from, to, 1);
        let problems = disk(&changed).load(&[]).expect_err(to);
        let problem = problems.iter().find(|p| p.key == key).unwrap_or_else(|| panic!("{to}: {key} in {problems:#?}"));
        assert!(problem.problem.contains(words) && problem.line > 0, "{problem}");
    }
    let again = FULL.find("[[dkim]]").expect("written");
    let (table, _) = FULL[again..].split_once("\n\n").expect("more follows");
    let twice = format!("{FULL}\n{}\n", table.replace("name = \"rsa\"", "name = \"second\""));
    let problems = disk(&twice).load(&[]).expect_err("one place for two keys");
    assert!(
        problems.iter().any(|p| p.key == "dkim.second.selector" && p.problem.contains("also the record")),
        "{problems:#?}"
    );
    let bare = FULL.replace(table, "");
    let problems = disk(&bare).load(&[]).expect_err("no key");
    assert!(problems.iter().any(|p| p.key == "listener.relay.sign"), "{problems:#?}");
}

#[test]
fn a_bearer_may_choose_among_the_waveforms_of_a_modem_that_can_be_told() {
    let with = |rate: &str| {
        let profile = FULL.replace("rate = \"2400bps\"", rate);
        assert_ne!(profile, FULL);
        disk(&profile).load(&[])
    };
    let fixed = disk(FULL).load(&[]).unwrap_or_else(|p| panic!("{p:#?}")).plan;
    assert!(fixed.bearers[0].choices.is_empty());
    let letter = "S";
    let plan = with("rate = [\"300bps\", \"600bps\", \"2400bps\"]").unwrap_or_else(|p| panic!("{p:#?}")).plan;
    let bearer = &plan.bearers[0];
    let rates: Vec<u32> = bearer.choices.iter().map(|c| c.waveform.rate.0).collect();
    assert_eq!(rates, [300, 600, 2400]);
    assert!(
        bearer
            .choices
            .iter()
            .all(|c| c.waveform.interleaver == letter && c.waveform.turnaround == bearer.waveform.turnaround)
    );
    assert_eq!((bearer.waveform.rate, bearer.choices[0].anchor_db), (Bps(300), 1.0));
    let first =
        with("first_rate = \"600bps\"\nrate = [\"300bps\", \"600bps\"]").unwrap_or_else(|p| panic!("{p:#?}")).plan;
    assert_eq!(first.bearers[0].waveform.rate, Bps(600));
    for (rate, part) in [
        ("rate = [\"300bps\", \"301bps\"]", "has no 301bps"),
        ("rate = \"2400bps\"\nfirst_rate = \"300bps\"", "the rate is fixed"),
        ("rate = [\"300bps\"]\nfirst_rate = \"600bps\"", "not among the rates allowed"),
        ("rate = \"quick\"", "is not one"),
    ] {
        let problems = with(rate).expect_err(rate);
        assert!(problems.iter().any(|p| format!("{p:?}").contains(part)), "{rate}: {problems:#?}");
    }
    let lines = FULL.replace("rate = \"2400bps\"", "rate = \"auto\"");
    let by_lines = lines.replace("modem = \"simulated\"", "modem = \"v24-generic\"");
    let problems = disk(&by_lines).load(&[]).expect_err("lines carry no words");
    assert!(
        problems.iter().any(|p| format!("{p:?}").contains("cannot be told what to transmit with")),
        "{problems:#?}"
    );
}

#[test]
fn d5_a_level_carries_no_more_than_its_bounds_in_bytes_and_in_air() {
    let long = FULL.replace("interleaver = \"S\"", "interleaver = \"L\"").replace("air = \"90s\"", "air = \"30s\"");
    let bearer = disk(&long).load(&[]).unwrap_or_else(|p| panic!("{p:#?}")).plan.bearers.remove(0);
    // 2400 bit/s, long interleaver: 1 KiB is one block after the preamble.
    assert_eq!(bearer.predicted_air(1024), Duration::from_millis(9600));
    assert_eq!(bearer.predicted_air(4096), Duration::from_secs(24));
    assert!(bearer.carries(Precedence::Routine, 4096).is_ok());
    assert!(bearer.carries(Precedence::Routine, 9000).expect_err("too big").contains("8192"));
    assert!(bearer.carries(Precedence::Routine, 8000).expect_err("too long").contains("s on the air"));
    assert!(bearer.carries(Precedence::Flash, 9000).is_ok());
    assert!(bearer.carries(Precedence::Flash, 300_000).is_err());
    assert!(bearer.hold_excess);
}

#[test]
fn c3_two_bearers_to_one_peer_need_nets_of_two_names() {
    let second = "[[bearer]]\nname = \"hf2\"\nnet = \"fleet\"\ndevice = \"/dev/ttyS1\"\nkeying = { socket = \"run/key2.sock\" }\n\
                  modem = \"simulated\"\nrate = \"2400bps\"\ninterleaver = \"S\"\nstation = 1\npeers = [\"shore\"]\n";
    let other = "[[peer]]\nname = \"camp\"\nstation = 3\nprotection = \"mac\"\nkeys = [{ id = 0, hex = \"5a6b7c8d5a6b7c8d5a6b7c8d5a6b7c8d5a6b7c8d5a6b7c8d5a6b7c8d5a6b7c8d\" }]\n";
    let problems = |second: &str| disk(&format!("{FULL}{other}{second}")).load(&[]).err().unwrap_or_default();
    let net = |problems: &[Problem]| problems.iter().any(|p| p.key == "bearer.hf2.net" && p.problem.contains("shore"));
    let everybody = second.replace("[\"shore\"]", "[\"shore\", \"camp\"]");
    assert!(net(&problems(&everybody)), "{:#?}", problems(&everybody));
    let named = everybody.replace("\"fleet\"", "\"west\"");
    assert_eq!(problems(&named), [], "another name will do");
    let unnamed = everybody.replace("net = \"fleet\"\n", "");
    assert_eq!(problems(&unnamed), [], "so will none beside one that has a name");
    let apart = second.replace("[\"shore\"]", "[\"camp\"]");
    assert_eq!(problems(&apart), [], "peers of their own may share a name");
}

#[test]
fn a_net_and_its_mule_peers_fit_each_other_and_the_rest() {
    let plan = disk(FULL).load(&[]).expect("sound").plan;
    let (pmul, mule) = (&plan.pmul[0], &plan.mules[0]);
    let net = &pmul.net;
    assert_eq!((pmul.node.to_string(), mule.node.to_string()), ("10.1.1.10".into(), "10.1.1.20".into()));
    assert_eq!((pmul.timers.repeat, pmul.timers.silent_repeats), (Duration::from_secs(5), 2));
    let dynamic = pmul.dynamic.as_ref().expect("it has a table");
    let machine = &dynamic.machine;
    let made: Vec<String> = machine.pool.iter().map(ToString::to_string).collect();
    assert_eq!(made, ["239.2.3.0", "239.2.3.1", "239.2.3.2", "239.2.3.3", "239.2.4.9"]);
    assert_eq!((dynamic.always, machine.most_tries, machine.wait_for_reject), (true, 4, Duration::from_secs(3)));
    assert_eq!(net.control.as_ref().map(|c| (c.group, c.ports)), Some((machine.control, [3751, 3752])));
    assert_eq!(machine.agreed, net.groups);
    assert_eq!(pmul.agreed(mule).map(|g| g.to_string()).as_deref(), Some("239.1.1.11"));
    assert_eq!((net.dscp[&Precedence::Flash], net.carry[&Precedence::Routine].payload_bytes), (46, 64 << 10));
    let second = "\n[[bearer]]\nname = \"sat2\"\nkind = \"pmul\"\ninterface = \"10.2.1.1\"\ngroups = [\"239.1.1.10\"]\n\
                  rate = \"64kbps\"\npeers = [\"fleet1\"]\n";
    for (from, to, key, words) in [
        ("interface = \"10.1.1.1\"\n", "", "bearer.sat1.interface", "missing"),
        ("[\"239.1.1.10\", \"239.1.1.11\"]", "[\"10.1.1.10\"]", "bearer.sat1.groups", "is not one"),
        ("[\"239.1.1.10\", \"239.1.1.11\"]", "[]", "bearer.sat1.groups", "nothing could be"),
        ("max_pdu = \"1000B\"", "max_pdu = \"1400B\"", "bearer.sat1.max_pdu", "do not fit"),
        ("max_pdu = \"1000B\"", "max_pdu = \"64B\"\nx = 1", "bearer.sat1.x", "unknown key"),
        ("protected = false\ndscp", "protected = true\ndscp", "bearer.sat1.protected", "REQUIRETLS"),
        ("ack_port = 3754", "ack_port = 3753", "bearer.sat1.ack_port", "is data_port"),
        ("peers = [\"fleet1\"]", "peers = [\"fleet1\", \"shore\"]", "bearer.sat1.peers", "is an Aldis peer"),
        ("peers = [\"fleet1\"]", "peers = [\"fleet1\", \"fleet1\"]", "bearer.sat1.peers", "stands in"),
        ("peers = [\"fleet1\"]", "peers = [\"fleet9\"]", "bearer.sat1.peers", "no [[peer]] named fleet9"),
        ("peers = [\"shore\"]", "peers = [\"shore\", \"fleet1\"]", "bearer.hf1.peers", "no serial line"),
        ("group = \"239.1.1.11\"", "group = \"239.1.1.12\"", "peer.fleet1.group", "is no group of"),
        ("[\"10.1.1.2\", \"10.1.1.3\"]", "[]", "peer.fleet1.addresses", "no datagram"),
        ("node = \"10.1.1.20\"", "node = \"10.1.1.10\"", "peer.fleet1.node", "also the node of"),
        ("quiet = \"1s\"", "quiet = \"1ms\"", "bearer.sat1.timers.quiet", "without a pause"),
        ("[bearer.timers]", &format!("{second}[bearer.timers]"), "bearer.sat2.groups", "also a group of"),
        ("join = \"igmp\"", "join = \"static\"", "bearer.sat1.join", "the node's only with igmp"),
        ("join = \"static\"", "join = \"igmp\"", "bearer.sat2.join", "joins there too"),
        ("control_group = \"239.1.1.1\"", "", "bearer.sat1.dynamic.control_group", "missing"),
        ("\"239.2.4.9\"", "\"239.2.3.1\"", "bearer.sat1.dynamic.pool", "stands in it twice"),
        ("\"239.2.4.9\"", "\"239.2.3.1/30\"", "bearer.sat1.dynamic.pool", "is not one"),
        ("\"239.2.4.9\"", "\"239.8.0.0/16\"", "bearer.sat1.dynamic.pool", "is not one"),
        ("\"239.2.4.9\"", "\"10.2.4.9\"", "bearer.sat1.dynamic.pool", "is not one"),
        ("[\"239.2.3.0/30\", \"239.2.4.9\"]", "[]", "bearer.sat1.dynamic.pool", "no group to ask for"),
        ("\"239.2.4.9\"", "\"239.8.0.0/22\"", "bearer.sat1.dynamic.pool", "1028 groups"),
        ("\"239.2.4.9\"", "\"239.1.1.10\"", "bearer.sat1.dynamic", "one of the bearer's groups"),
        ("\"239.2.4.9\"", "\"239.1.1.20\"", "bearer.sat2.group", "one group carries one of the two"),
        (
            "control_group = \"239.1.1.1\"",
            "control_group = \"239.2.4.9\"",
            "bearer.sat1.dynamic.control_group",
            "in the pool",
        ),
        ("announce_port = 3752", "announce_port = 3751", "bearer.sat1.dynamic.announce_port", "is request_port"),
        ("request_port = 3751", "request_port = 3754", "bearer.sat1.dynamic", "port 3754 is data_port or ack_port"),
        ("port = 4756", "port = 3752", "bearer.sat2.interface", "has port 3752"),
        (
            "wait_for_reject = \"3s\"",
            "wait_for_reject = \"1ms\"",
            "bearer.sat1.dynamic.wait_for_reject",
            "without a pause",
        ),
        ("most_joined = 5", "most_joined = 0", "bearer.sat1.dynamic.most_joined", "out of range"),
        ("use = \"always\"", "use = \"never\"", "bearer.sat1.dynamic.use", "is not"),
        (
            "\"239.1.1.11\"\nack_ranges = false\nack_entry_id = \"self\"\nsilent = false",
            "\"dynamic\"\nsilent = true",
            "peer.fleet1.group",
            "nobody joins",
        ),
    ] {
        assert!(FULL.contains(from), "{from}");
        let problems = disk(&FULL.replacen(from, to, 1)).load(&[]).expect_err(to);
        assert!(
            problems.iter().any(|p| p.key == key && p.problem.contains(words)),
            "{to}: wanted {key} {words:?}, got {problems:#?}"
        );
    }
    let aldis = &plan.multicast[0];
    assert_eq!((aldis.station, aldis.group()), (7, "239.1.1.20:4756".to_owned()));
    assert!(plan.only_receives(&"sat2".into()) && !plan.only_receives(&"sat1".into()));
    let third = "[[peer]]\nname = \"fleet3\"\nstation = 200\nprotection = \"mac\"\nkeys = [{ id = 1, hex = \"5a6b7c8d5a6b7c8d5a6b7c8d5a6b7c8d5a6b7c8d5a6b7c8d5a6b7c8d5a6b7c8d\" }]\n";
    let with_third = FULL.replace("[codec]", &format!("{third}[codec]"));
    let both = "peers = [\"fleet2\", \"fleet3\"]";
    for (from, to, key, words) in [
        ("group = \"239.1.1.20\"", "group = \"239.1.1.10\"", "bearer.sat2.group", "one group carries one of the two"),
        ("port = 4756", "port = 3753", "bearer.sat2.interface", "has port 3753"),
        ("peers = [\"fleet2\"]", both, "peer.fleet3.station", "is also that of"),
        ("peers = [\"fleet2\"]", both, "peer.fleet3.keys", "other keys or protection"),
        ("peers = [\"fleet2\"]", both, "bearer.sat2.protected", "would go to fleet3 in clear"),
        ("peers = [\"fleet2\"]", "peers = [\"fleet2\", \"fleet1\"]", "bearer.sat2.peers", "speaks MULE"),
        ("peers = [\"fleet2\"]", "peers = [\"fleet2\", \"shore\"]", "bearer.sat2.peers", "is reached over"),
        ("peers = [\"shore\"]", "peers = [\"shore\", \"fleet3\"]", "peer.fleet3.station", "beyond what frames"),
        ("to = \"peer:shore\"", "to = \"peer:fleet2\"", "route.*.to", "only receives"),
        ("ttl = 4\nstation", "ttl = 4\nx = 1\nstation", "bearer.sat2.x", "unknown key"),
        ("join = \"static\"", "join = \"igmp\"", "bearer.sat2.join", "joining a group radiates"),
        ("emcon = \"silent\"\nreceive", "emcon = \"open\"\nreceive", "bearer.sat2.emcon", "only receives"),
        ("max_payload = \"256KiB\"\nmax_air = \"1h\"", "max_payload = \"3MiB\"", "bearer.sat2.max_payload", "is not"),
        (
            "max_payload = \"256KiB\"\nmax_air = \"1h\"",
            "max_payload = \"2MiB\"",
            "bearer.sat2.max_payload",
            "do not fit into mtu",
        ),
    ] {
        assert!(with_third.contains(from), "{from}");
        let problems = disk(&with_third.replacen(from, to, 1)).load(&[]).expect_err(to);
        assert!(
            problems.iter().any(|p| p.key == key && p.problem.contains(words)),
            "{to}: wanted {key} {words:?}, got {problems:#?}"
        );
    }
    let without = FULL
        .split_once("[bearer.dynamic]")
        .and_then(|(head, rest)| Some(head.to_owned() + "\n[[peer]]" + rest.split_once("[[peer]]")?.1));
    let without =
        without.expect("a table, and a peer behind it").replace("group = \"239.1.1.11\"", "group = \"dynamic\"");
    let problems = disk(&without).load(&[]).expect_err("no pool");
    assert!(
        problems.iter().any(|p| p.key == "peer.fleet1.group" && p.problem.contains("no dynamic groups")),
        "{problems:#?}"
    );
    for (mtu, most) in [(1412, 2400 << 10), (1411, 511 << 10)] {
        let text = FULL.replace("max_payload = \"256KiB\"\n", "");
        let at = text.find("kind = \"multicast\"").expect("there");
        let text = format!("{}{}", &text[..at], text[at..].replacen("mtu = 1400", &format!("mtu = {mtu}"), 1));
        assert_eq!(disk(&text).load(&[]).expect("sound").plan.multicast[0].net.max_payload_bytes, most, "{mtu}");
    }
    let large =
        FULL.replace("max_pdu = \"1000B\"", "max_pdu = \"64B\"").replace("payload = \"1MiB\"", "payload = \"4MiB\"");
    let problems = disk(&large).load(&[]).expect_err("too many pieces");
    assert!(problems.iter().any(|p| p.key == "bearer.sat1.max_payload"), "{problems:#?}");
}
