//! What is done to a message as it comes in by a listener that asks for it: its DKIM signatures, SPF, DMARC and ARC chain are
//! checked, it is signed, and its ARC chain goes on. RFC 6376, 7208, 9989, 8617, 8601.
//!
//! Everything here is computed from bytes; who asks the DNS is the caller, who hands [`vet`] a way to verify. The switch hands the
//! work out, `node/` does it, and the simulator does it without DNS. A check that cannot be done costs no mail: it says `temperror`.

use std::net::IpAddr;
use std::sync::Arc;

use mail_auth::common::crypto::Algorithm;
use mail_auth::dkim::DkimError;
use mail_auth::dmarc::Policy;
use mail_auth::{
    ArcOutput, AuthenticatedMessage, DkimOutput, DkimResult, DmarcOutput, DmarcResult, Error, SpfOutput, SpfResult,
};
use mail_parser::{HeaderName, MessageParser};

use super::dkim::Signer;
use super::results::{Finding, Outcome, Refusal, Results, Wish};

/// Which checks a listener asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checks {
    /// Whether the client may send for the domain of MAIL (RFC 7208).
    pub spf: bool,
    /// Whether the signatures hold (RFC 6376).
    pub dkim: bool,
    /// Whether either is of the domain in From (RFC 9989); needs both.
    pub dmarc: bool,
    /// Whether the chain of those who handed it on holds (RFC 8617).
    pub arc: bool,
}

impl Checks {
    /// Whether there is any.
    pub const fn any(self) -> bool {
        self.spf || self.dkim || self.dmarc || self.arc
    }
}

/// What one message may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// DKIM signatures that are looked at.
    pub signatures: usize,
    /// Sets of an ARC chain.
    pub arc_sets: usize,
    /// Octets of the header.
    pub header_bytes: usize,
    /// DNS look-ups.
    pub lookups: u32,
    /// Domains in From that are asked.
    pub authors: usize,
}

/// Fields of a header that is checked.
const MOST_FIELDS: usize = 2000;
/// Fields one signature may name.
const MOST_SIGNED: usize = 200;
/// Octets of a name and of one label of it, as the DNS has room for them with `_dmarc.` before (RFC 1035 2.3.4).
const MOST_DOMAIN: usize = 246;
const MOST_LABEL: usize = 63;

/// A message, and what is wanted.
#[derive(Debug)]
pub struct Vet {
    /// As it came in.
    pub arrived: Arc<[u8]>,
    /// As it is stored, less what is put on top of it here and the trace field; the same where nothing was mended.
    pub stored: Arc<[u8]>,
    /// Who sent it; `None` on a Unix socket.
    pub client: Option<IpAddr>,
    /// The name it gave.
    pub helo: String,
    /// The address in MAIL; empty for `<>`.
    pub sender: String,
    /// What is checked.
    pub checks: Checks,
    /// Within these bounds.
    pub bounds: Bounds,
    /// Who we are in Authentication-Results.
    pub authserv_id: String,
    /// Who we are to those whose records ask (`%{r}`).
    pub hostname: String,
    /// Keys it may be signed with: those for its domain do; `None`: it is not to be signed.
    pub signers: Option<Vec<Arc<Signer>>>,
    /// The key that goes on with its ARC chain.
    pub sealer: Option<Arc<Signer>>,
}

/// What became of it.
#[derive(Debug)]
pub struct Vetted {
    /// What was found; `None`: nothing was checked.
    pub results: Option<Results>,
    /// Fields for the top of the message, above the trace field.
    pub top: Vec<u8>,
    /// Fields right above the stored message, below the trace field.
    pub signatures: Vec<u8>,
    /// What was done about a signature.
    pub signed: Signed,
    /// Whether the ARC chain goes on.
    pub sealed: bool,
    /// Bounds that were met, by the names of their keys.
    pub bounded: Vec<&'static str>,
    /// Nobody was asked, because nobody had answered a moment ago.
    pub skipped: bool,
}

/// What was done about a signature.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Signed {
    /// None was wanted.
    Unasked,
    /// By so many keys of this domain.
    By(String, usize),
    /// None could be made of it, and why.
    Not(String),
    /// A key did not work.
    Failed(String),
}

/// What the DNS made of a message. What is `None` though it was asked for took too long.
#[derive(Debug, Default)]
pub struct Verified<'m> {
    /// Of the client.
    pub spf: Option<SpfOutput>,
    /// Of each signature that was left, in their order.
    pub dkim: Option<Vec<DkimOutput<'m>>>,
    /// Of each of the [`authors`], in their order.
    pub dmarc: Option<Vec<DmarcOutput>>,
    /// Of the chain.
    pub arc: Option<ArcOutput<'m>>,
    /// The bound on look-ups was met: nothing of this counts.
    pub exhausted: bool,
}

/// Does it. `verify` is called once, where anything is to be checked, with the message less what no DNS is asked about, and with
/// `beside`, which lives as long as what it finds.
pub fn vet<B>(
    vet: &Vet,
    beside: &B,
    verify: impl for<'m> FnOnce(&'m AuthenticatedMessage<'m>, &'m B) -> Verified<'m>,
) -> Vetted {
    let mut out = Vetted {
        results: None,
        top: Vec::new(),
        signatures: Vec::new(),
        signed: Signed::Unasked,
        sealed: false,
        bounded: Vec::new(),
        skipped: false,
    };
    if vet.checks.any() {
        check(vet, beside, verify, &mut out);
    }
    if let Some(signers) = &vet.signers {
        (out.signed, out.signatures) = sign(signers, &vet.stored);
    }
    out
}

/// The same where nothing can be asked: every check of the DNS is a `temperror`.
pub fn without_dns(work: &Vet) -> Vetted {
    vet(work, &(), |_, ()| Verified::default())
}

fn check<B>(
    vet: &Vet,
    beside: &B,
    verify: impl for<'m> FnOnce(&'m AuthenticatedMessage<'m>, &'m B) -> Verified<'m>,
    out: &mut Vetted,
) {
    let Some(mut message) = AuthenticatedMessage::parse(&vet.arrived) else {
        return finish(vet, unusable(vet.checks, Refusal::NoDomain), None, out);
    };
    if message.body_offset() > vet.bounds.header_bytes || message.raw_parsed_headers().len() > MOST_FIELDS {
        out.bounded.push("header");
        return finish(vet, unusable(vet.checks, Refusal::Header), None, out);
    }
    let screened = screen(&mut message, vet.bounds, &mut out.bounded);
    let message = message;
    if vet.checks.dmarc && authors(&message).len() > vet.bounds.authors {
        out.bounded.push("authors");
    }
    let verified = verify(&message, beside);
    if verified.exhausted {
        out.bounded.push("lookups");
        return finish(vet, unusable(vet.checks, Refusal::Questions), None, out);
    }
    let results = results(vet, &message, &verified, screened);
    let chain = verified.arc.filter(|arc| match arc.result() {
        DkimResult::Pass => true,
        DkimResult::None => message.as_headers.is_empty() && !message.has_arc_errors,
        DkimResult::Fail(_) | DkimResult::Neutral(_) | DkimResult::PermError(_) | DkimResult::TempError(_) => false,
    });
    finish(vet, results, chain.as_ref(), out);
}

/// Puts the results on top, with the next ARC set where there is a chain to go on with.
fn finish(vet: &Vet, results: Results, chain: Option<&ArcOutput<'_>>, out: &mut Vetted) {
    let mut top = results.field(&vet.authserv_id);
    if let (Some(sealer), Some(chain)) = (&vet.sealer, chain)
        && chain.sets().len() < vet.bounds.arc_sets
        && let Some(message) = AuthenticatedMessage::parse(&vet.stored)
        && let Ok(Some(set)) = sealer.seal(&message, &results.line(&vet.authserv_id), chain)
    {
        top.extend(set);
        out.sealed = true;
    }
    out.top = top;
    out.results = Some(results);
}

/// What the DNS need not be asked about.
#[derive(Default)]
struct Screened {
    dkim: Vec<Finding>,
    arc: Option<Finding>,
}

/// Takes out what is not to be verified: signatures beyond the bound, those whose algorithm is broken, lists without end.
fn screen(message: &mut AuthenticatedMessage<'_>, bounds: Bounds, bounded: &mut Vec<&'static str>) -> Screened {
    let mut screened = Screened::default();
    message.dkim_headers.retain(|header| {
        let signature = &header.header;
        let refused = match () {
            // RFC 8301 3.1
            () if signature.a == Algorithm::RsaSha1 => (Outcome::Policy, "rsa-sha1 is not secure"),
            () if signature.h.len() > MOST_SIGNED => (Outcome::PermError, "too many fields signed"),
            () => return true,
        };
        let finding = Finding::new("dkim", refused.0, refused.1);
        screened.dkim.push(finding.about("header.d", &signature.d).about("header.s", &signature.s));
        false
    });
    let over = message.dkim_headers.len() + message.errors.len() > bounds.signatures;
    if over {
        message.dkim_headers.truncate(bounds.signatures);
        message.errors.truncate(bounds.signatures);
        screened.dkim.truncate(bounds.signatures);
        screened.dkim.push(Finding::new("dkim", Outcome::Policy, "further signatures not looked at"));
        bounded.push("signatures");
    }
    for header in &mut message.dkim_headers {
        // Nobody is sent a report, and no third party is asked to vouch for a signature.
        header.header.r = false;
        header.header.atps = None;
    }
    let longest = message.ams_headers.len().max(message.as_headers.len()).max(message.aar_headers.len());
    if longest > bounds.arc_sets {
        bounded.push("arc_sets");
        screened.arc = Some(Finding::new("arc", Outcome::Fail, "chain too long"));
    } else if message.ams_headers.iter().any(|h| h.header.h.len() > MOST_SIGNED || h.header.a == Algorithm::RsaSha1)
        || message.as_headers.iter().any(|h| h.header.a == Algorithm::RsaSha1)
    {
        screened.arc = Some(Finding::new("arc", Outcome::Fail, "signature not acceptable"));
    } else if message.ams_headers.is_empty() && !(message.as_headers.is_empty() && message.aar_headers.is_empty()) {
        screened.arc = Some(Finding::new("arc", Outcome::Fail, "broken chain"));
    }
    if screened.arc.is_some() {
        message.ams_headers.clear();
    }
    screened
}

fn results(vet: &Vet, message: &AuthenticatedMessage<'_>, verified: &Verified<'_>, screened: Screened) -> Results {
    let mut findings = Vec::new();
    if vet.checks.spf {
        findings.push(spf(vet, verified.spf.as_ref()));
    }
    if vet.checks.dkim {
        let before = findings.len();
        match &verified.dkim {
            Some(outputs) => findings.extend(outputs.iter().map(dkim)),
            None if message.dkim_headers.is_empty() => findings.extend(malformed(message)),
            None => findings.push(late("dkim")),
        }
        findings.extend(screened.dkim);
        if findings.len() == before {
            findings.push(Finding::new("dkim", Outcome::None, ""));
        }
    }
    let mut refusal = None;
    if vet.checks.dmarc {
        refusal = unclear(vet, message);
        match (&refusal, &verified.dmarc) {
            (Some(unclear), _) => findings.push(Finding::new("dmarc", Outcome::PermError, unclear.reason())),
            (None, Some(outputs)) => {
                findings.extend(outputs.iter().map(dmarc));
                refusal = strictest(outputs.iter().map(|o| (o.domain(), wish(o), is_failed(o))));
            }
            (None, None) => findings.push(late("dmarc")),
        }
    }
    if vet.checks.arc {
        let found = verified.arc.as_ref().map_or_else(|| late("arc"), arc);
        let nothing = message.ams_headers.is_empty() && message.as_headers.is_empty() && !message.has_arc_errors;
        findings.push(match screened.arc {
            Some(refused) => refused,
            None if nothing => Finding::new("arc", Outcome::None, ""),
            None => found,
        });
    }
    Results { findings, refusal }
}

/// The domains in From, in their order, each once and in the form the DNS is asked for: each has its own say about the message (RFC 7489
/// 6.6.1).
pub fn authors(message: &AuthenticatedMessage<'_>) -> Vec<String> {
    let mut domains: Vec<String> = Vec::new();
    for address in &message.from {
        let Some((_, domain)) = address.rsplit_once('@') else { continue };
        let domain = mail_auth::common::to_a_label(domain.strip_suffix('.').unwrap_or(domain)).into_owned();
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    domains
}

/// Whether a name can be looked up at all: one that cannot would be answered by nobody's policy.
fn can_be_asked(domain: &str) -> bool {
    domain.len() <= MOST_DOMAIN && domain.split('.').all(|label| (1..=MOST_LABEL).contains(&label.len()))
}

/// Why no domain can be held to account for a message; nothing of this depends on what the DNS says.
fn unclear(vet: &Vet, message: &AuthenticatedMessage<'_>) -> Option<Refusal> {
    let is_from = |name: &[u8]| name.eq_ignore_ascii_case(b"From");
    if message.raw_parsed_headers().iter().filter(|(name, _)| is_from(name)).count() > 1 {
        return Some(Refusal::SeveralFields);
    }
    let authors = authors(message);
    if authors.len() > vet.bounds.authors {
        return Some(Refusal::ManyDomains);
    }
    (authors.is_empty() || !authors.iter().all(|domain| can_be_asked(domain))).then_some(Refusal::NoDomain)
}

/// A stranger's domain as a reply may hold it.
fn printable(domain: &str) -> String {
    domain.chars().take(255).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

fn late(method: &'static str) -> Finding {
    Finding::new(method, Outcome::TempError, "no answer in time")
}

fn unusable(checks: Checks, refusal: Refusal) -> Results {
    let asked = [("spf", checks.spf), ("dkim", checks.dkim), ("dmarc", checks.dmarc), ("arc", checks.arc)];
    let asked = asked.into_iter().filter(|(_, asked)| *asked);
    let findings = asked.map(|(method, _)| Finding::new(method, Outcome::PermError, refusal.reason())).collect();
    Results { findings, refusal: Some(refusal).filter(|_| checks.dmarc) }
}

fn malformed<'f>(message: &'f AuthenticatedMessage<'_>) -> impl Iterator<Item = Finding> + 'f {
    let of_dkim = message.errors.iter().filter(|h| matches!(h.header, Error::Dkim(_)));
    of_dkim.map(|h| Finding::new("dkim", Outcome::Neutral, reason(&h.header)))
}

fn spf(vet: &Vet, output: Option<&SpfOutput>) -> Finding {
    let finding = match output {
        _ if vet.client.is_none() => Finding::new("spf", Outcome::None, "no address of a client"),
        None => late("spf"),
        Some(output) => {
            let outcome = match output.result() {
                SpfResult::Pass => Outcome::Pass,
                SpfResult::Fail => Outcome::Fail,
                SpfResult::SoftFail => Outcome::SoftFail,
                SpfResult::Neutral => Outcome::Neutral,
                SpfResult::TempError => Outcome::TempError,
                SpfResult::PermError => Outcome::PermError,
                SpfResult::None => Outcome::None,
            };
            Finding::new("spf", outcome, "")
        }
    };
    match vet.sender.as_str() {
        "" => finding.about("smtp.helo", &vet.helo),
        sender => finding.about("smtp.mailfrom", sender),
    }
}

fn dkim(output: &DkimOutput<'_>) -> Finding {
    let (outcome, why) = outcome_of(output.result());
    let finding = Finding::new("dkim", outcome, why);
    let Some(signature) = output.signature() else { return finding };
    let b = data_encoding::BASE64.encode(signature.b.get(..6).unwrap_or_default());
    finding.about("header.d", &signature.d).about("header.s", &signature.s).about("header.b", &b)
}

fn arc(output: &ArcOutput<'_>) -> Finding {
    let (outcome, why) = match outcome_of(output.result()) {
        // A chain holds or does not (RFC 8617 5.2).
        (Outcome::Neutral | Outcome::PermError, why) => (Outcome::Fail, why),
        found => found,
    };
    Finding::new("arc", outcome, why)
}

/// What a domain wants done with mail that nobody vouches for.
fn wish(output: &DmarcOutput) -> Wish {
    match output.policy() {
        Policy::Reject => Wish::Reject,
        Policy::Quarantine => Wish::Quarantine,
        Policy::None | Policy::Unspecified => Wish::None,
    }
}

/// The first domain that wants the message refused and that nobody vouches for.
fn strictest<'d>(mut said: impl Iterator<Item = (&'d str, Wish, bool)>) -> Option<Refusal> {
    let (domain, ..) = said.find(|(_, wish, failed)| *failed && *wish == Wish::Reject)?;
    Some(Refusal::Policy(printable(domain)))
}

fn is_failed(output: &DmarcOutput) -> bool {
    matches!(output.result(), DmarcResult::Fail(_))
}

fn dmarc(output: &DmarcOutput) -> Finding {
    let (outcome, why) = match output.result() {
        DmarcResult::Pass => (Outcome::Pass, ""),
        DmarcResult::Fail(_) => (Outcome::Fail, "neither SPF nor DKIM passed for this domain"),
        DmarcResult::TempError(_) => (Outcome::TempError, "dns error"),
        DmarcResult::PermError(_) => (Outcome::PermError, "no usable record"),
        DmarcResult::None => (Outcome::None, ""),
    };
    let finding = Finding::new("dmarc", outcome, why).about("header.from", output.domain());
    match outcome {
        Outcome::None => finding,
        _ => finding.about("policy.dmarc", wish(output).word()),
    }
}

/// A signature that was made and does not hold has failed, be it of the header or of the body (RFC 8601 2.7.1).
fn outcome_of(result: &DkimResult) -> (Outcome, &'static str) {
    match result {
        DkimResult::Pass => (Outcome::Pass, ""),
        DkimResult::None => (Outcome::None, ""),
        DkimResult::Fail(e) => (Outcome::Fail, reason(e)),
        DkimResult::Neutral(e) if is_body_hash(e) => (Outcome::Fail, reason(e)),
        DkimResult::Neutral(e) => (Outcome::Neutral, reason(e)),
        DkimResult::PermError(e) => (Outcome::PermError, reason(e)),
        DkimResult::TempError(e) => (Outcome::TempError, reason(e)),
    }
}

fn is_body_hash(error: &Error) -> bool {
    use mail_auth::arc::ArcError;
    matches!(error, Error::Dkim(DkimError::FailedBodyHashMatch) | Error::Arc(ArcError::FailedBodyHashMatch))
}

fn reason(error: &Error) -> &'static str {
    use mail_auth::DnsError;
    use mail_auth::arc::ArcError;
    use mail_auth::common::crypto::CryptoError;
    match error {
        Error::Dns(DnsError::Resolver(_)) => "dns error",
        Error::Dns(DnsError::RecordNotFound(_)) => "no key",
        Error::Dns(DnsError::InvalidRecordType) | Error::ParseError => "no usable key record",
        Error::Dkim(DkimError::RevokedPublicKey) => "key revoked",
        Error::Dkim(DkimError::FailedAuidMatch) => "identity is not of the domain",
        Error::Dkim(DkimError::SignatureLength) | Error::Arc(ArcError::SignatureLength) => {
            "covers a part of the body only"
        }
        Error::Dkim(DkimError::SignatureExpired) | Error::Arc(ArcError::SignatureExpired) => "expired",
        Error::Dkim(DkimError::UnsupportedAlgorithm) => "unknown algorithm",
        Error::Dkim(DkimError::UnsupportedCanonicalization) => "unknown canonicalization",
        Error::Dkim(DkimError::UnsupportedKeyType) => "unknown type of key",
        Error::Dkim(DkimError::UnsupportedVersion) => "unknown version",
        e if is_body_hash(e) => "body was changed",
        Error::Crypto(CryptoError::IncompatibleAlgorithms) => "key of another algorithm",
        Error::Crypto(_) => "signature does not fit",
        Error::Arc(ArcError::ChainTooLong) => "chain too long",
        Error::Arc(_) => "broken chain",
        _ => "malformed",
    }
}

/// Signs for the domain in From, with every key there is for it.
fn sign(signers: &[Arc<Signer>], message: &[u8]) -> (Signed, Vec<u8>) {
    let domain = match author_domain(message) {
        Ok(domain) => domain,
        Err(why) => return (Signed::Not(why.to_owned()), Vec::new()),
    };
    let mut fields = Vec::new();
    let mut count = 0;
    for signer in signers.iter().filter(|s| s.domain == domain) {
        match signer.sign(message) {
            Ok(field) => fields.extend(field),
            Err(why) => return (Signed::Failed(format!("{}: {why}", signer.name)), Vec::new()),
        }
        count += 1;
    }
    match count {
        0 => (Signed::Not("no key for the domain in From".to_owned()), fields),
        _ => (Signed::By(domain, count), fields),
    }
}

/// The domain of the first address in From, in lower case. A message with several From fields has no author that counts.
fn author_domain(message: &[u8]) -> Result<String, &'static str> {
    let parsed = MessageParser::new().with_address_headers().parse_headers(message).ok_or("no header")?;
    if parsed.headers().iter().filter(|h| h.name == HeaderName::From).count() > 1 {
        return Err("several From fields");
    }
    let first = parsed.from().and_then(|from| from.first()).and_then(|a| a.address());
    let (_, domain) = first.and_then(|a| a.rsplit_once('@')).ok_or("no address in From")?;
    Ok(domain.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(message: &[u8], checks: Checks) -> Vet {
        let message: Arc<[u8]> = message.into();
        Vet {
            arrived: message.clone(),
            stored: message,
            client: Some("192.0.2.1".parse().expect("an address")),
            helo: "c.example".into(),
            sender: "a@x.example".into(),
            checks,
            bounds: Bounds { signatures: 3, arc_sets: 5, header_bytes: 4096, lookups: 10, authors: 2 },
            authserv_id: "mx.example".into(),
            hostname: "mx.example".into(),
            signers: None,
            sealer: None,
        }
    }

    const ALL: Checks = Checks { spf: true, dkim: true, dmarc: true, arc: true };
    const SIGNATURE: &str =
        "DKIM-Signature: v=1; a=rsa-sha256; d=x.example; s=s; c=relaxed/relaxed; h=from; bh=AAAA; b=AAAA\r\n";

    #[test]
    fn without_dns_everything_that_is_there_is_a_temporary_error() {
        let message = format!("{SIGNATURE}From: a@x.example\r\n\r\nb\r\n");
        let vetted = without_dns(&work(message.as_bytes(), ALL));
        let results = vetted.results.expect("checked");
        assert_eq!(results.summary(), "spf=temperror dkim=temperror dmarc=temperror arc=none");
        assert!(results.incomplete() && results.refusal.is_none() && vetted.bounded.is_empty());
        assert!(vetted.top.starts_with(b"Authentication-Results: mx.example;\r\n\tspf=temperror"));
        let plain = without_dns(&work(b"From: a@x.example\r\n\r\nb\r\n", Checks { dkim: true, ..Checks::default() }));
        assert_eq!(plain.results.expect("checked").summary(), "dkim=none");
        assert!(without_dns(&work(b"From: a@x.example\r\n\r\n", Checks::default())).results.is_none());
    }

    #[test]
    fn bounds_hold_and_are_told() {
        let many = format!("{}From: a@x.example\r\n\r\nb\r\n", SIGNATURE.repeat(9));
        let mut seen = 0;
        let vetted = vet(&work(many.as_bytes(), ALL), &(), |message, ()| {
            seen = message.dkim_headers.len();
            Verified::default()
        });
        assert_eq!((seen, vetted.bounded.as_slice()), (3, &["signatures"][..]));
        let large = format!("X: {}\r\nFrom: a@x.example\r\n\r\nb\r\n", "x".repeat(5000));
        let vetted = vet(&work(large.as_bytes(), ALL), &(), |_, ()| panic!("it is not to be verified"));
        assert_eq!(vetted.bounded, ["header"]);
        assert_eq!(vetted.results.expect("checked").outcome("spf"), Some(Outcome::PermError));
        let vetted = vet(&work(many.as_bytes(), ALL), &(), |_, ()| Verified { exhausted: true, ..Verified::default() });
        assert_eq!(vetted.bounded, ["signatures", "lookups"]);
    }

    #[test]
    fn broken_algorithms_are_not_even_looked_up() {
        let message = format!("{}From: a@x.example\r\n\r\nb\r\n", SIGNATURE.replace("sha256", "sha1"));
        let vetted = vet(&work(message.as_bytes(), Checks { dkim: true, ..Checks::default() }), &(), |message, ()| {
            assert!(message.dkim_headers.is_empty());
            Verified { dkim: Some(Vec::new()), ..Verified::default() }
        });
        assert_eq!(vetted.results.expect("checked").summary(), "dkim=policy");
    }

    #[test]
    fn a_domain_cannot_end_a_line_of_a_reply() {
        assert_eq!(printable("x\r\n250 ok.\u{e9}.example"), "x??250?ok.?.example");
    }

    /// What the listener is told of a message, where the DNS says `outputs` of its authors.
    fn refusal(message: &[u8], outputs: Vec<DmarcOutput>) -> Option<Refusal> {
        let verified = |dmarc| Verified { dmarc, ..Verified::default() };
        vet(&work(message, ALL), &(), |_, ()| verified(Some(outputs))).results.expect("checked").refusal
    }

    #[test]
    fn what_the_sender_made_unclear_does_not_get_past_what_domains_ask() {
        let several = b"From: a@x.example\r\nfrom: b@y.example\r\n\r\nb\r\n";
        assert_eq!(refusal(several, vec![DmarcOutput::default()]), Some(Refusal::SeveralFields));
        let many = b"From: a@x.example, b@y.example, c@z.example\r\n\r\nb\r\n";
        assert_eq!(refusal(many, Vec::new()), Some(Refusal::ManyDomains));
        for none in ["", "From: \"a@x.example\" <nobody>\r\n", "From: undisclosed:;\r\n", "From: a@x..example\r\n"] {
            assert_eq!(
                refusal(format!("{none}To: b@y.example\r\n\r\nb\r\n").as_bytes(), Vec::new()),
                Some(Refusal::NoDomain)
            );
        }
        let large = format!("X: {}\r\nFrom: a@x.example\r\n\r\nb\r\n", "x".repeat(5000));
        assert_eq!(refusal(large.as_bytes(), Vec::new()), Some(Refusal::Header));
        let exhausted = vet(&work(b"From: a@x.example\r\n\r\nb\r\n", ALL), &(), |_, ()| Verified {
            exhausted: true,
            ..Verified::default()
        });
        assert_eq!(exhausted.results.expect("checked").refusal, Some(Refusal::Questions));
        let undone = without_dns(&work(several, Checks { dmarc: false, ..ALL }));
        assert_eq!(undone.results.expect("checked").refusal, None, "nobody asked for DMARC");
    }

    #[test]
    fn of_several_authors_each_is_asked_and_the_strictest_counts() {
        let message = b"From: A <a@X.example>, b@y.example., c@x.example\r\n\r\nb\r\n";
        let parsed = AuthenticatedMessage::parse(message).expect("a header");
        assert_eq!(authors(&parsed), ["x.example", "y.example"]);
        let vouched = ("x.example", Wish::Reject, false);
        let refused = Some(Refusal::Policy("y.example".into()));
        assert_eq!(strictest([vouched, ("y.example", Wish::Reject, true)].into_iter()), refused);
        assert_eq!(strictest([vouched, ("y.example", Wish::Quarantine, true)].into_iter()), None);
        assert_eq!(strictest([vouched, ("y.example", Wish::Reject, false)].into_iter()), None);
        assert_eq!(refusal(message, vec![DmarcOutput::default()]), None, "it takes an answer");
    }

    #[test]
    fn only_one_author_can_be_signed_for() {
        assert_eq!(author_domain(b"From: A <a@Ship.Example>, b@y.example\r\n\r\n"), Ok("ship.example".into()));
        for message in
            [&b"From: a@x.example\r\nFrom: b@y.example\r\n\r\n"[..], b"To: x\r\n\r\n", b"From: nobody\r\n\r\n"]
        {
            assert!(author_domain(message).is_err(), "{}", String::from_utf8_lossy(message));
        }
        let none = sign(&[], b"From: a@x.example\r\n\r\n");
        assert_eq!(none, (Signed::Not("no key for the domain in From".into()), Vec::new()));
    }
}
