//! What the checks of a message found, and the Authentication-Results field that says so (RFC 8601).

use core::fmt::Write;

/// The result of one check, in the words of RFC 8601 2.7.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// There was nothing to check.
    None,
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// It probably does not (SPF alone).
    SoftFail,
    /// Nothing is said, or what is said cannot be used.
    Neutral,
    /// Our own rules forbid to use what is there.
    Policy,
    /// It could not be found out now.
    TempError,
    /// It can never be found out: a record or a signature is wrong.
    PermError,
}

impl Outcome {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::Neutral => "neutral",
            Self::Policy => "policy",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// The result of one method for one thing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// `spf`, `dkim`, `dmarc` or `arc`.
    pub method: &'static str,
    /// How it went.
    pub outcome: Outcome,
    /// Why, for people; empty where the word says it all.
    pub reason: &'static str,
    /// What it is about: property and value.
    pub about: Vec<(&'static str, String)>,
}

impl Finding {
    /// A finding about nothing in particular.
    pub const fn new(method: &'static str, outcome: Outcome, reason: &'static str) -> Self {
        Self { method, outcome, reason, about: Vec::new() }
    }

    /// The same about `value`; nothing is added where that is empty.
    #[must_use]
    pub fn about(mut self, property: &'static str, value: &str) -> Self {
        if !value.is_empty() {
            self.about.push((property, value.to_owned()));
        }
        self
    }

    fn text(&self) -> String {
        let mut text = format!("{}={}", self.method, self.outcome.word());
        if !self.reason.is_empty() {
            let _ = write!(text, " ({})", self.reason);
        }
        for (property, value) in &self.about {
            let _ = write!(text, " {property}={}", plain(value));
        }
        text
    }
}

/// What a domain wants done with mail that fails DMARC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Wish {
    /// Nothing.
    #[default]
    None,
    /// To be looked at twice.
    Quarantine,
    /// To be refused.
    Reject,
}

impl Wish {
    /// The word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }
}

/// Why mail is not to be taken where a listener enforces DMARC (RFC 7489 6.6.1). All but the first are of the sender's making, and
/// would otherwise be ways round what a domain asks for. None of them comes of a DNS that does not answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// This domain in From asks for it, and neither SPF nor DKIM vouches for it.
    Policy(String),
    /// There are several From fields: who reads it sees one of them, whose domain may be any other (RFC 5322 3.6).
    SeveralFields,
    /// From names no domain that could be asked.
    NoDomain,
    /// From names more domains than are asked.
    ManyDomains,
    /// The header is larger than what is checked.
    Header,
    /// It took more questions to the DNS than one message may cost.
    Questions,
}

impl Refusal {
    /// What its sender is told.
    pub fn text(&self) -> String {
        match self {
            Self::Policy(domain) => {
                format!("refused as the DMARC policy of {domain} asks: neither SPF nor DKIM vouches for it")
            }
            Self::SeveralFields => "several From fields: nobody can vouch for them".to_owned(),
            Self::NoDomain => "From names no domain that could vouch for it".to_owned(),
            Self::ManyDomains => "From names more domains than are asked to vouch for it".to_owned(),
            Self::Header => "the header is too large to find out who vouches for it".to_owned(),
            Self::Questions => "it takes too many DNS lookups to find out who vouches for it".to_owned(),
        }
    }

    /// The same in the field, in fewer words.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Policy(_) => "neither SPF nor DKIM passed for this domain",
            Self::SeveralFields => "several From fields",
            Self::NoDomain => "no domain in From",
            Self::ManyDomains => "too many domains in From",
            Self::Header => "header too large",
            Self::Questions => "too many DNS lookups",
        }
    }

    /// The domain that asks for it; empty where none does.
    pub fn domain(&self) -> &str {
        match self {
            Self::Policy(domain) => domain,
            Self::SeveralFields | Self::NoDomain | Self::ManyDomains | Self::Header | Self::Questions => "",
        }
    }
}

/// What all checks of one message found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Results {
    /// In the order they are shown.
    pub findings: Vec<Finding>,
    /// Why it is not to be taken where DMARC is enforced.
    pub refusal: Option<Refusal>,
}

/// Longest line of a message (RFC 5322 2.1.1), less the name of a field and what ARC puts before the results.
const MOST_LINE: usize = 900;
/// Longest value shown bare, and shown in quotes, where each character may take two.
const MOST_VALUE: usize = 255;
const MOST_QUOTED: usize = 120;

impl Results {
    /// The outcome of a method: of several signatures the best, of several domains in From the worst.
    pub fn outcome(&self, method: &str) -> Option<Outcome> {
        let of = || self.findings.iter().filter(|f| f.method == method).map(|f| f.outcome);
        let order = match method {
            "dmarc" => [Outcome::Fail, Outcome::TempError],
            _ => [Outcome::Pass, Outcome::TempError],
        };
        order.into_iter().find(|wanted| of().any(|o| o == *wanted)).or_else(|| of().next())
    }

    /// Whether something could not be found out for the time being.
    pub fn incomplete(&self) -> bool {
        self.findings.iter().any(|f| f.outcome == Outcome::TempError)
    }

    /// The field, folded, its last line end included.
    pub fn field(&self, authserv_id: &str) -> Vec<u8> {
        let mut text = format!("Authentication-Results: {}", plain(authserv_id));
        if self.findings.is_empty() {
            text.push_str("; none");
        }
        for finding in &self.findings {
            let _ = write!(text, ";\r\n\t{}", finding.text());
        }
        text.push_str("\r\n");
        text.into_bytes()
    }

    /// The same on one line, for an ARC set; what would make that too long is left out.
    pub fn line(&self, authserv_id: &str) -> String {
        let mut text = plain(authserv_id);
        if self.findings.is_empty() {
            text.push_str("; none");
        }
        for finding in &self.findings {
            let more = finding.text();
            if text.len() + more.len() + 2 > MOST_LINE {
                break;
            }
            let _ = write!(text, "; {more}");
        }
        text
    }

    /// Method and word of each method, for logs: `spf=pass dkim=fail`.
    pub fn summary(&self) -> String {
        let mut methods: Vec<&str> = self.findings.iter().map(|f| f.method).collect();
        methods.dedup();
        let word = |method: &&str| Some(format!("{method}={}", self.outcome(method)?.word()));
        methods.iter().filter_map(word).collect::<Vec<_>>().join(" ")
    }
}

/// A value as the field may hold it: bare where it is a name or an address, else quoted. A peer's words cannot break out of it.
fn plain(value: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-._@+".contains(c);
    if !value.is_empty() && value.len() <= MOST_VALUE && value.chars().all(bare) {
        return value.to_owned();
    }
    let mut out = String::from("\"");
    for c in value.chars().take(MOST_QUOTED) {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => out.push('?'),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let dkim = |outcome, d: &str| Finding::new("dkim", outcome, "").about("header.d", d);
        Results {
            findings: vec![
                Finding::new("spf", Outcome::SoftFail, "").about("smtp.mailfrom", "a@x.example"),
                dkim(Outcome::Fail, "y.example"),
                dkim(Outcome::Pass, "x.example"),
                Finding::new("dmarc", Outcome::Fail, "no aligned pass").about("header.from", "x.example"),
            ],
            refusal: None,
        }
    }

    #[test]
    fn the_field_names_each_result_once_and_in_order() {
        assert_eq!(
            String::from_utf8_lossy(&results().field("mx.example")),
            "Authentication-Results: mx.example;\r\n\tspf=softfail smtp.mailfrom=a@x.example;\r\n\tdkim=fail header.d=y.example;\r\n\t\
             dkim=pass header.d=x.example;\r\n\tdmarc=fail (no aligned pass) header.from=x.example\r\n"
        );
        assert_eq!(results().summary(), "spf=softfail dkim=pass dmarc=fail");
        assert!(!results().incomplete());
        assert_eq!(Results::default().field("mx.example"), b"Authentication-Results: mx.example; none\r\n");
    }

    #[test]
    fn of_signatures_the_best_counts_and_of_authors_the_worst() {
        let found = |outcome, domain: &str| Finding::new("dmarc", outcome, "").about("header.from", domain);
        let mut two = results();
        two.findings.push(found(Outcome::Pass, "y.example"));
        assert_eq!(two.summary(), "spf=softfail dkim=pass dmarc=fail");
        two.findings.retain(|f| f.outcome != Outcome::Fail);
        two.findings.push(found(Outcome::TempError, "z.example"));
        assert_eq!((two.outcome("dmarc"), two.incomplete()), (Some(Outcome::TempError), true));
    }

    #[test]
    fn words_of_a_peer_stay_inside_their_quotes() {
        let odd = Finding::new("dkim", Outcome::Fail, "").about("header.d", "x\r\nBcc: y; dkim=pass \"\\\u{e9}");
        assert_eq!(odd.text(), "dkim=fail header.d=\"x??Bcc: y; dkim=pass \\\"\\\\?\"");
        let long = Results { findings: vec![odd.about("header.s", &"s".repeat(5000)); 20], ..Results::default() };
        assert!(long.line("mx.example").len() <= MOST_LINE && !long.line("mx.example").contains('\n'));
        assert!(long.field("mx.example").split(|b| *b == b'\n').all(|line| line.len() < 998));
    }
}
