//! Every table and key a profile or a modem sheet may hold: one list, from which unknown keys are told, defaults taken,
//! problems worded and the pages under docs/profile checked.

/// What a key is when it is not written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fallback {
    /// It must be written.
    Required,
    /// This value, as it would be written.
    Is(&'static str),
    /// Worked out from other keys, as described.
    Derived(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What may be written, for people.
    pub form: &'static str,
    /// What holds otherwise.
    pub fallback: Fallback,
    /// Whether its value must not be shown.
    pub secret: bool,
}

/// One table.
#[derive(Debug)]
pub struct Section {
    /// Its name as it is written between brackets.
    pub name: &'static str,
    /// Whether it may stand more than once (`[[name]]`).
    pub many: bool,
    /// Its keys.
    pub keys: &'static [Key],
}

impl Section {
    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|k| k.name == name)
    }
}

const fn must(name: &'static str, form: &'static str) -> Key {
    Key { name, form, fallback: Fallback::Required, secret: false }
}

const fn or(name: &'static str, form: &'static str, value: &'static str) -> Key {
    Key { name, form, fallback: Fallback::Is(value), secret: false }
}

const fn from(name: &'static str, form: &'static str, how: &'static str) -> Key {
    Key { name, form, fallback: Fallback::Derived(how), secret: false }
}

const fn hidden(key: Key) -> Key {
    Key { secret: true, ..key }
}

/// One key for each level of precedence.
const fn each_level(form: &'static str, how: &'static str) -> [Key; 6] {
    [
        from("override", form, how),
        from("flash", form, how),
        from("immediate", form, how),
        from("priority", form, how),
        from("routine", form, how),
        from("deferred", form, how),
    ]
}

const NAME: &str = "letters, digits, - and _, at most 32";
const DURATION: &str = "a duration: 200ms, 90s, 15min, 6h, 5d";
const LEVEL: &str = "deferred, routine, priority, immediate, flash, override";
const BYTES: &str = "a size: 512B, 64KiB, 25MiB, 1GiB";
const TIME: &str = "a time in UTC: 2026-11-23T10:15:00Z";
const NETWORKS: &str = "a list of networks: [\"127.0.0.0/8\", \"::1/128\"]";
const YES_NO: &str = "true, false";
const PROTOCOL: &str = "aldis, mule";
const RATE: &str = "an integer, 1 to 100000, or unlimited";
const KIND: &str = "serial, pmul, multicast";
const ADDRESS: &str = "an IPv4 address: 10.1.1.1";

/// The whole profile; its keys are the tables.
pub static ROOT: Section = Section {
    name: "",
    many: false,
    keys: &[
        must("node", "the [node] table"),
        from("limits", "the [limits] table", "every default"),
        from("listener", "[[listener]] tables", "none"),
        from("user", "[[user]] tables", "none"),
        from("route", "[[route]] tables", "none"),
        from("smarthost", "[[smarthost]] tables", "none"),
        from("mx", "the [mx] table", "every default"),
        from("alias", "[[alias]] tables", "none"),
        from("rewrite", "[[rewrite]] tables", "none"),
        from("local", "the [local] table", "every default"),
        from("retry", "the [retry.LEVEL] tables", "every default"),
        from("precedence", "the [precedence] table", "every default"),
        from("blind", "the [blind.LEVEL] tables", "every default"),
        from("peer", "[[peer]] tables", "none"),
        from("bearer", "[[bearer]] tables", "none"),
        from("reduce", "[[reduce]] tables", "none"),
        from("codec", "the [codec] table", "every default"),
        from("dns", "the [dns] table", "every default"),
        from("checks", "the [checks] table", "every default"),
        from("dkim", "[[dkim]] tables", "none"),
    ],
};

/// `[node]`
pub static NODE: Section = Section {
    name: "node",
    many: false,
    keys: &[
        must("name", NAME),
        from("hostname", "a host name or address literal", "node.name"),
        or("state_dir", "a directory", "state"),
        from("socket", "a path of at most 107 bytes", "aldis.sock in state_dir"),
        or("socket_mode", "an octal mode as a string: 0600, 0660", "0600"),
        from("postmaster", "local@domain", "postmaster@ node.hostname"),
        or("clock", "kernel, trusted", "kernel"),
        #[cfg(feature = "mutations")]
        or("mutation", "none, or the name of a deliberate fault", "none"),
    ],
};

/// `[limits]`
pub static LIMITS: Section = Section {
    name: "limits",
    many: false,
    keys: &[
        or("message", "a size of at least 64KiB: 25MiB", "25MiB"),
        or("recipients", "an integer, 100 to 10000", "1000"),
        or("sessions", "an integer, 1 to 100000", "200"),
        or("sessions_per_address", "an integer, 1 to 100000", "50"),
        or("session_idle", DURATION, "5min"),
        or("session_total", DURATION, "2h"),
        or("session_errors", "an integer, 1 to 1000", "20"),
        or("received_fields", "an integer, 25 to 1000", "100"),
        or("in_flight", BYTES, "256MiB"),
        or("active_messages", "an integer, 10 to 1000000", "2000"),
        or("disk_floor", BYTES, "64MiB"),
        or("deliveries", "an integer, 1 to 1000", "20"),
        or("connect_timeout", DURATION, "30s"),
        or("command_timeout", DURATION, "5min"),
        or("data_timeout", DURATION, "3min"),
        or("final_timeout", DURATION, "10min"),
        or("keep_done", DURATION, "14d"),
        or("future_release", "an integer, 0 to 100000", "1000"),
        or("future_release_per_user", "an integer, 0 to 100000", "100"),
        or("history", "a size of at most 1MiB: 256KiB; 0B for none", "256KiB"),
        or("alias_depth", "an integer, 1 to 50", "10"),
        or("copies", "an integer, 100 to 100000", "5000"),
    ],
};

/// `[[listener]]`
pub static LISTENER: Section = Section {
    name: "listener",
    many: true,
    keys: &[
        must("name", NAME),
        must("kind", "relay, submission, lmtp"),
        must("address", "an IP address and port: 127.0.0.1:2525, [::1]:2525; for lmtp also a path: run/lmtp.sock"),
        or("socket_mode", "an octal mode as a string: 0600, 0660", "0660"),
        from("tls", "a table { certificate, key, implicit, client_ca }", "no TLS"),
        from("auth", YES_NO, "true for submission"),
        from("auth_required", YES_NO, "true for submission"),
        or("trust", NETWORKS, "[]"),
        or("max_precedence", LEVEL, "routine"),
        from("future_release", "a duration of at most 60d, or never", "7d for submission, never otherwise"),
        or("check", "a list of spf, dkim, dmarc and arc", "[]"),
        or("dmarc_reject", YES_NO, "false"),
        or("sign", YES_NO, "false"),
        from("seal", "the name of a [[dkim]] table with an RSA key", "no seal"),
        from("burl", "a table { servers, user, password_file, encryption, ca, pins }", "no BURL"),
        or("tls_required", YES_NO, "false"),
        from("max_size", "a size of at least 64KiB: 25MiB", "limits.message"),
        from("max_recipients", "an integer, 100 to 10000", "limits.recipients"),
        from("sessions_per_address", "an integer, 1 to 100000", "limits.sessions_per_address"),
        or("sessions_per_minute", RATE, "unlimited"),
        or("messages_per_minute", RATE, "unlimited"),
        or("mt_priority", "STANAG4406, MIXER, NSEP", "STANAG4406"),
        from(
            "max_size_by_precedence",
            "a table { override, flash, immediate, priority, routine, deferred }",
            "max_size",
        ),
        or("raw_header", NETWORKS, "[]"),
        or("normalize", NETWORKS, "[]"),
        from("answer_within", "a duration, 5s to 10min", "110s for submission, 5min otherwise"),
        or("deliver_by_min", "a duration, 0s to 1d", "0s"),
    ],
};

/// `listener.max_size_by_precedence`: its keys are the levels.
pub static SIZES: Section = Section {
    name: "listener.max_size_by_precedence",
    many: false,
    keys: &each_level("a size of at least 1KiB: 256KiB", "max_size of the listener"),
};

/// `listener.burl`
pub static BURL: Section = Section {
    name: "listener.burl",
    many: false,
    keys: &[
        must("servers", "a list of HOST or HOST:PORT, as they stand in URLs"),
        or("user", "a name of at most 128 characters", "submit"),
        must("password_file", "a file with the password on its first line, mode 0600"),
        or("encryption", "starttls, implicit, off", "starttls"),
        from("ca", "a PEM file of authorities", "none"),
        or("pins", "a list of SHA-256 fingerprints of public keys", "[]"),
    ],
};

/// `listener.tls`
pub static TLS: Section = Section {
    name: "listener.tls",
    many: false,
    keys: &[
        must("certificate", "a PEM file, the server's certificate first"),
        must("key", "a PEM file"),
        or("implicit", YES_NO, "false"),
        from("client_ca", "a PEM file of the authorities of client certificates", "none are asked for"),
    ],
};

/// `[dns]`
pub static DNS: Section = Section {
    name: "dns",
    many: false,
    keys: &[
        from(
            "servers",
            "a list of addresses, with a port or 53: [\"192.0.2.53\", \"127.0.0.1:5353\"]",
            "those of /etc/resolv.conf",
        ),
        or("timeout", "a duration, 100ms to 30s", "2s"),
        or("attempts", "an integer, 1 to 5", "2"),
        or("cache", "an integer, 0 to 100000", "1024"),
    ],
};

/// `[checks]`
pub static CHECKS: Section = Section {
    name: "checks",
    many: false,
    keys: &[
        from("authserv_id", "a host name", "node.hostname"),
        or("within", "a duration, 1s to 60s", "10s"),
        or("pause", "a duration, 0s to 10min", "60s"),
        or("at_once", "an integer, 1 to 16", "8"),
        or("signatures", "an integer, 1 to 20", "5"),
        or("lookups", "an integer, 10 to 1000", "100"),
        or("authors", "an integer, 1 to 10", "4"),
        or("arc_sets", "an integer, 1 to 50", "20"),
        or("header", "a size, 4KiB to 1MiB", "128KiB"),
    ],
};

/// `[[dkim]]`
pub static DKIM: Section = Section {
    name: "dkim",
    many: true,
    keys: &[
        must("name", NAME),
        must("domain", "a domain"),
        must("selector", "a DNS label, or several with dots between"),
        must("key", "a PEM file, mode 0600: RSA of 2048 bits or more, or Ed25519"),
        from("headers", "a list of names of header fields, at most 40", "the fields below"),
        from("oversigned", "a list of names of header fields, at most 40", "From, Reply-To, Subject, Date, To, Cc"),
        or("canonicalization", "HEADER/BODY, each simple or relaxed", "relaxed/relaxed"),
    ],
};

/// `[[user]]`
pub static USER: Section = Section {
    name: "user",
    many: true,
    keys: &[
        must("name", "at most 128 printable characters, no blanks"),
        hidden(from(
            "password_hash",
            "an Argon2 PHC string or a SCRAM-SHA-256 verifier, as aldis hash-password prints them",
            "none; certificate is needed then",
        )),
        from("certificate", "a mail address or host name in the user's certificate", "none"),
        or("max_precedence", LEVEL, "priority"),
    ],
};

/// `[[route]]`
pub static ROUTE: Section = Section {
    name: "route",
    many: true,
    keys: &[
        must("match", "an address, a domain, *.domain or *"),
        must("to", "local, hold, refuse, mx, smtp:HOST:PORT, smarthost:NAME, lmtp:PATH, lmtp:HOST:PORT, peer:NAME"),
        or("bearers", "a list of names of [[bearer]] tables", "[]"),
        from("min_precedence", LEVEL, "none"),
        from("max_precedence", LEVEL, "none"),
    ],
};

/// `[[smarthost]]`
pub static SMARTHOST: Section = Section {
    name: "smarthost",
    many: true,
    keys: &[
        must("name", NAME),
        must("hosts", "a list of HOST:PORT"),
        or("tls", "off, opportunistic, required, verified", "opportunistic"),
        or("implicit_tls", YES_NO, "false"),
        from("ca", "a PEM file of the authorities of its certificate", "none"),
        from("server_name", "a host name", "the host in hosts"),
        or("pins", "a list of SHA-256 of public keys, in hexadecimal or base64", "[]"),
        from("certificate", "a PEM file", "none is shown"),
        from("key", "a PEM file", "none"),
        from("user", "at most 128 printable characters", "no login"),
        from("password_file", "a file that holds the password, readable by its owner alone", "none"),
        from(
            "mechanisms",
            "a list of SCRAM-SHA-256-PLUS, SCRAM-SHA-256, EXTERNAL, PLAIN",
            "all but EXTERNAL with a password, none without",
        ),
        from("hello", "a host name or address literal", "node.hostname"),
        from("source_address", "an IP address of this machine", "chosen by the system"),
        or("connections", "an integer, 1 to 100", "5"),
        or("messages_per_connection", "an integer, 1 to 10000", "100"),
        or("recipients", "an integer, 1 to 1000", "100"),
        from("max_size", "a size of at least 1KiB", "no bound but its own SIZE"),
        or("interval", DURATION, "0s"),
        or("back_off", DURATION, "5min"),
        or("connect_timeout", DURATION, "30s"),
        or("command_timeout", DURATION, "5min"),
        or("data_timeout", DURATION, "3min"),
        or("final_timeout", DURATION, "10min"),
    ],
};

/// `[mx]`
pub static MX: Section = Section {
    name: "mx",
    many: false,
    keys: &[
        or("tls", "off, opportunistic, required", "opportunistic"),
        or("dane", YES_NO, "false"),
        from("trust_anchor", "a file of DNSKEY records", "the keys of the root"),
        or("mta_sts", YES_NO, "false"),
        from("ca", "a PEM file of the authorities of certificates", "none; mta_sts needs it"),
        or("mta_sts_port", "an integer, 1 to 65535", "443"),
        or("port", "an integer, 1 to 65535", "25"),
        or("hosts", "an integer, 2 to 50", "10"),
        or("addresses", "an integer, 2 to 20", "4"),
        or("answers", "an integer, 10 to 1000", "100"),
        or("loopback", YES_NO, "false"),
        or("domains", "an integer, 10 to 100000", "1000"),
        or("lookup_timeout", "a duration, 1s to 5min", "30s"),
        from("hello", "a host name or address literal", "node.hostname"),
        from("source_address", "an IP address of this machine", "chosen by the system"),
        or("connections", "an integer, 1 to 100", "5"),
        or("messages_per_connection", "an integer, 1 to 10000", "100"),
        or("recipients", "an integer, 1 to 1000", "100"),
        or("interval", DURATION, "0s"),
        or("back_off", DURATION, "5min"),
        or("connect_timeout", DURATION, "30s"),
        or("command_timeout", DURATION, "5min"),
        or("data_timeout", DURATION, "3min"),
        or("final_timeout", DURATION, "10min"),
    ],
};

/// `[[alias]]`
pub static ALIAS: Section = Section {
    name: "alias",
    many: true,
    keys: &[
        must("address", "an address, or @domain"),
        must("to", "a list of addresses, or of @domain for the same local part there"),
        or("keep", YES_NO, "false"),
        from("owner", "local@domain", "none"),
    ],
};

/// `[[rewrite]]`
pub static REWRITE: Section = Section {
    name: "rewrite",
    many: true,
    keys: &[
        must("name", NAME),
        must("direction", "in, out"),
        or("what", "both, envelope, headers", "both"),
        must("match", "an address, a domain, *.domain or *"),
        must("to", "a domain, or an address"),
        or("at", "a list of listeners and peer:NAME for in, of what routes have as to for out", "[]"),
        or("signed", YES_NO, "false"),
    ],
};

/// `[local]`
pub static LOCAL: Section = Section {
    name: "local",
    many: false,
    keys: &[
        from("maildir", "a directory", "maildir in node.state_dir"),
        or("users", "a list of local parts; empty takes any", "[]"),
        or("separator", "one of + - _ = #, or empty for none", "+"),
    ],
};

/// `[retry]`: its keys are the levels.
pub static RETRY: Section =
    Section { name: "retry", many: false, keys: &each_level("a [retry.LEVEL] table", "every default") };

/// `[retry.LEVEL]`; the defaults depend on the level.
pub static RETRY_LEVEL: Section = Section {
    name: "retry.LEVEL",
    many: false,
    keys: &[
        from("after", "a list of durations, the last repeats: [\"30s\", \"1min\"]", "by level"),
        from("warn", DURATION, "by level"),
        from("expire", DURATION, "by level"),
    ],
};

/// `[precedence]`
pub static PRECEDENCE: Section = Section {
    name: "precedence",
    many: false,
    keys: &[
        or("default", LEVEL, "routine"),
        or("mmhs", YES_NO, "true"),
        or("two_bearers", "deferred, routine, priority, immediate, flash, override, never", "flash"),
    ],
};

/// `[blind]`: its keys are the levels.
pub static BLIND: Section =
    Section { name: "blind", many: false, keys: &each_level("a [blind.LEVEL] table", "every default") };

/// `[blind.LEVEL]`; the defaults depend on the level.
pub static BLIND_LEVEL: Section = Section {
    name: "blind.LEVEL",
    many: false,
    keys: &[
        or("target", "a share from 50% to 99.9999%", "99.9%"),
        from("windows", "an integer, 1 to 20", "by level"),
        from("every", DURATION, "by level"),
    ],
};

/// `[[peer]]`
pub static PEER: Section = Section {
    name: "peer",
    many: true,
    keys: &[
        must("name", NAME),
        or("protocol", PROTOCOL, "aldis"),
        must("station", "an integer, 0 to 15; 0 to 255 on bearers of kind multicast"),
        or("protection", "off, mac, aead", "aead"),
        from("keys", "a list of one or two { id, file } or { id, hex }", "none"),
        or("silent", "true, false, or a list of { from, until }", "false"),
        or("assumed_loss", "a share from 0% to 50%", "10%"),
        or("receipts", "digest, verbatim", "digest"),
        or("dictionary", YES_NO, "false"),
    ],
};

/// An element of `peer.silent`
pub static PEER_SILENT: Section =
    Section { name: "peer.silent", many: true, keys: &[must("from", TIME), must("until", TIME)] };

/// An element of `peer.keys`
pub static PEER_KEY: Section = Section {
    name: "peer.keys",
    many: true,
    keys: &[
        must("id", "an integer, 0 to 3"),
        from("file", "a file of 64 hexadecimal digits, readable by its owner alone", "hex"),
        hidden(from("hex", "64 hexadecimal digits", "file")),
    ],
};

/// `[[bearer]]`
pub static BEARER: Section = Section {
    name: "bearer",
    many: true,
    keys: &[
        must("name", NAME),
        or("kind", KIND, "serial"),
        must("device", "a tty: /dev/ttyS0"),
        or("baud", "an integer, 50 to 4000000", "19200"),
        from("keying", "\"lines\" or { socket = \"PATH\" }", "what the modem's sheet says"),
        must("modem", "the name of a built-in sheet, or a path to one"),
        must("rate", "a rate of the modem's sheet: 2400bps; a list of them, or auto"),
        from(
            "interleaver",
            "an interleaver of that rate: S, L; where the rate is chosen, a list of them or auto",
            "auto",
        ),
        from("first_rate", "a rate that may be chosen: 300bps", "300bps, or the next faster one allowed"),
        from("turnaround", DURATION, "what the modem's sheet says"),
        must("station", "an integer, 0 to 15"),
        must("peers", "a list of names of [[peer]] tables"),
        or("emcon", "open, silent, ack-only, restricted:LEVEL", "silent"),
        or("max_transmission", "a duration of at most 127.5s", "30s"),
        or("max_transmission_routine", "a duration of at most 127.5s", "127.5s"),
        or("max_payload", "a size, 1KiB to 511KiB", "511KiB"),
        or("max_air", DURATION, "1d"),
        from("carry", "the [bearer.carry.LEVEL] tables", "max_payload and max_air"),
        or("on_excess", "return, hold", "return"),
        or("protected", YES_NO, "false"),
        or("cost", DURATION, "0s"),
        or("net", NAME, "none"),
        or("carrier_stuck_after", DURATION, "5min"),
    ],
};

/// `bearer.carry`: its keys are the levels.
pub static CARRY: Section = Section {
    name: "bearer.carry",
    many: false,
    keys: &each_level("a table of { payload, air }", "max_payload and max_air"),
};

/// One level of `bearer.carry`
pub static CARRY_LEVEL: Section = Section {
    name: "bearer.carry.LEVEL",
    many: false,
    keys: &[from("payload", "a size of at most max_payload", "max_payload"), from("air", DURATION, "max_air")],
};

/// `[codec]`
pub static CODEC: Section = Section {
    name: "codec",
    many: false,
    keys: &[or("dictionary", "a file that aldis codec train made, at most 256 KiB; or none", "none")],
};

/// `[[reduce]]`
pub static REDUCE: Section = Section {
    name: "reduce",
    many: true,
    keys: &[
        must("name", NAME),
        must("bearers", "a list of names of [[bearer]] tables"),
        or("over", BYTES, "0B"),
        or("up_to", LEVEL, "routine"),
        or(
            "strip_headers",
            "a list of trace, vanity and names of fields, with * at the end for any that begin so",
            "[]",
        ),
        or("drop_html", YES_NO, "false"),
        or("hold_attachments", "a size: 32KiB, or never", "never"),
        or("scale_images", "pixels, 64px to 8192px, or never", "never"),
        or("fetch_by_mail", YES_NO, "true"),
        or("signed", YES_NO, "false"),
    ],
};

/// `bearer.keying` as a table
pub static KEYING: Section = Section { name: "bearer.keying", many: false, keys: &[must("socket", "a path")] };

/// `[[peer]]` with `protocol = "mule"`
pub static PEER_MULE: Section = Section {
    name: "peer-mule",
    many: true,
    keys: &[
        must("name", NAME),
        must("protocol", PROTOCOL),
        must("addresses", "a list of IPv4 addresses"),
        from("node", ADDRESS, "the first of addresses"),
        from("group", "a group of its bearer, or dynamic", "the first of its bearer's groups"),
        or("ack_ranges", YES_NO, "true"),
        or("ack_entry_id", "originator, self", "originator"),
        or("silent", "true, false, or a list of { from, until }", "false"),
    ],
};

/// `[[bearer]]` of kind `pmul`
pub static BEARER_PMUL: Section = Section {
    name: "bearer-pmul",
    many: true,
    keys: &[
        must("name", NAME),
        must("kind", KIND),
        must("interface", ADDRESS),
        from("node", ADDRESS, "interface"),
        must("groups", "a list of multicast addresses: [\"239.1.1.10\"]"),
        or("data_port", "an integer, 1 to 65535", "2753"),
        or("ack_port", "an integer, 1 to 65535", "2754"),
        or("join", "static, igmp", "static"),
        or("ttl", "an integer, 1 to 255", "16"),
        from("dscp", "the [bearer.dscp] table", "0 for every level"),
        must("peers", "a list of names of [[peer]] tables"),
        or("emcon", "open, silent, ack-only, restricted:LEVEL", "silent"),
        must("rate", "a bit rate of at least 75bps: 64kbps"),
        or("delay", "a duration of at most 60s", "270ms"),
        or("mtu", "an integer, 128 to 65535", "1500"),
        from("max_pdu", "a size, 64B to 28 bytes less than mtu", "28 bytes less than mtu"),
        or("checksum", "fletcher, internet", "fletcher"),
        or("tagging", "explicit, implicit", "explicit"),
        or("max_payload", "a size, 1KiB to 32MiB", "4MiB"),
        or("max_air", DURATION, "1d"),
        from("carry", "the [bearer.carry.LEVEL] tables", "max_payload and max_air"),
        or("on_excess", "return, hold", "return"),
        or("protected", "false", "false"),
        from("timers", "the [bearer.timers] table", "from rate, delay, max_pdu and the number of peers"),
        from("dynamic", "the [bearer.dynamic] table", "no dynamic groups"),
    ],
};

/// `[[bearer]]` of kind `multicast`
pub static BEARER_MULTICAST: Section = Section {
    name: "bearer-multicast",
    many: true,
    keys: &[
        must("name", NAME),
        must("kind", KIND),
        must("interface", ADDRESS),
        must("group", "a multicast address: 239.1.1.20"),
        or("port", "an integer, 1 to 65535", "2756"),
        or("join", "static, igmp", "static"),
        or("ttl", "an integer, 1 to 255", "16"),
        from("dscp", "the [bearer.dscp] table", "0 for every level"),
        must("station", "an integer, 0 to 255"),
        must("peers", "a list of names of [[peer]] tables"),
        or("emcon", "open, silent, ack-only, restricted:LEVEL", "silent"),
        or("receive_only", YES_NO, "false"),
        must("rate", "a bit rate of at least 75bps: 64kbps"),
        or("delay", "a duration of at most 60s", "270ms"),
        or("mtu", "an integer, 256 to 65535", "1500"),
        from("max_payload", "a size, 1KiB to 2400KiB", "2400KiB, or 511KiB where mtu is below 1412"),
        or("max_air", DURATION, "1d"),
        from("carry", "the [bearer.carry.LEVEL] tables", "max_payload and max_air"),
        or("on_excess", "return, hold", "return"),
        or("protected", YES_NO, "false"),
    ],
};

/// `[bearer.dscp]`: its keys are the levels.
pub static DSCP: Section =
    Section { name: "bearer-pmul.dscp", many: false, keys: &each_level("an integer, 0 to 63", "0") };

/// `[bearer.timers]`
pub static TIMERS: Section = Section {
    name: "bearer-pmul.timers",
    many: false,
    keys: &[
        from("round_trip", DURATION, "derived"),
        from("repeat", DURATION, "derived"),
        or("back_off", "a share from 100% to 1000%", "150%"),
        or("longest", DURATION, "1h"),
        from("gather", DURATION, "derived"),
        from("ack_delay", DURATION, "derived"),
        from("quiet", DURATION, "derived"),
        from("ack_again", DURATION, "derived"),
        or("unidentified", DURATION, "30min"),
        from("silent_interval", DURATION, "derived"),
        or("silent_repeats", "an integer, 0 to 1000", "4"),
    ],
};

/// `[bearer.dynamic]`
pub static DYNAMIC: Section = Section {
    name: "bearer-pmul.dynamic",
    many: false,
    keys: &[
        must("control_group", "a multicast address: 239.1.1.1"),
        must("pool", "a list of multicast addresses, or of blocks: [\"239.2.3.0/28\"]; at most 1024"),
        or("request_port", "an integer, 1 to 65535", "2751"),
        or("announce_port", "an integer, 1 to 65535", "2752"),
        or("use", "needed, always", "needed"),
        from("wait_for_reject", DURATION, "derived"),
        from("announce_delay", DURATION, "derived"),
        or("announce_count", "an integer, 1 to 100", "5"),
        or("most_tries", "an integer, 1 to 1000", "8"),
        or("most_joined", "an integer, 1 to 1000", "16"),
        or("idle", DURATION, "30min"),
    ],
};

/// A modem's sheet.
pub static SHEET: Section = Section {
    name: "sheet",
    many: false,
    keys: &[
        must("name", NAME),
        must("title", "a line for people"),
        must("keying", "lines, socket"),
        must("can_abort", YES_NO),
        must("buffer", BYTES),
        must("tail_bits", "an integer, 0 to 10000"),
        must("turnaround", DURATION),
        or("selects_waveform", YES_NO, "false"),
        must("symbol_rate", "symbols a second, 1 to 100000"),
        must("waveform", "[[waveform]] tables"),
    ],
};

/// `[[waveform]]` of a sheet
pub static WAVEFORM: Section = Section {
    name: "sheet.waveform",
    many: true,
    keys: &[
        must("rate", "a bit rate: 2400bps"),
        must("frame", "a size, 32B to 1023B"),
        must("interleavers", "a table of { preamble, block } in symbols"),
        from("snr", "a ratio in 3 kHz: 12dB, -4.5dB", "none: this rate is not chosen by itself"),
    ],
};

/// An interleaver of a waveform
pub static INTERLEAVER: Section = Section {
    name: "sheet.waveform.interleavers",
    many: true,
    keys: &[must("preamble", "symbols, 1 to 1000000"), must("block", "symbols, 1 to 1000000")],
};

/// Every table, in the order of the documentation.
pub static SECTIONS: [&Section; 39] = [
    &NODE,
    &LIMITS,
    &LISTENER,
    &SIZES,
    &TLS,
    &DNS,
    &CHECKS,
    &DKIM,
    &BURL,
    &USER,
    &ROUTE,
    &SMARTHOST,
    &MX,
    &ALIAS,
    &REWRITE,
    &LOCAL,
    &RETRY,
    &RETRY_LEVEL,
    &PRECEDENCE,
    &BLIND,
    &BLIND_LEVEL,
    &PEER,
    &PEER_KEY,
    &PEER_SILENT,
    &PEER_MULE,
    &BEARER,
    &CARRY,
    &CARRY_LEVEL,
    &KEYING,
    &BEARER_PMUL,
    &BEARER_MULTICAST,
    &DSCP,
    &TIMERS,
    &DYNAMIC,
    &REDUCE,
    &CODEC,
    &SHEET,
    &WAVEFORM,
    &INTERLEAVER,
];
