//! AUTH as a client (RFC 4954): which mechanism, and its messages.
//!
//! The session asks [`choose`] once EHLO is through, sends what [`Choice::begin`] says, and hands each challenge to the
//! [`Exchange`]. No password goes over a line that others can read, and a server that has SCRAM must prove itself.

use super::super::scram::client::{Attempt, Challenged, Channel, Keys, Proof};
use super::super::server::Secret;
use data_encoding::BASE64;

/// A mechanism of AUTH, the better first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mechanism {
    /// SCRAM-SHA-256-PLUS
    ScramPlus,
    /// SCRAM-SHA-256
    Scram,
    /// EXTERNAL: by the certificate shown in the handshake.
    External,
    /// PLAIN
    Plain,
}

impl Mechanism {
    /// All of them, the better first.
    pub const ALL: [Self; 4] = [Self::ScramPlus, Self::Scram, Self::External, Self::Plain];

    /// Its name in AUTH.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ScramPlus => "SCRAM-SHA-256-PLUS",
            Self::Scram => "SCRAM-SHA-256",
            Self::External => "EXTERNAL",
            Self::Plain => "PLAIN",
        }
    }

    /// The mechanism of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name().eq_ignore_ascii_case(name))
    }
}

/// What the hop's EHLO said of AUTH.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offer([bool; 4]);

impl Offer {
    /// Takes note of one word after AUTH.
    pub fn take(&mut self, word: &str) {
        if let Some(offered) = Mechanism::parse(word).and_then(|m| self.0.get_mut(m as usize)) {
            *offered = true;
        }
    }

    /// Whether it is offered.
    pub fn has(self, mechanism: Mechanism) -> bool {
        self.0.get(mechanism as usize).copied().unwrap_or(false)
    }
}

/// How to log in at a hop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    /// Who; empty: whoever the certificate names.
    pub user: String,
    /// The password; for EXTERNAL alone there need be none.
    pub password: Option<Secret>,
    /// What may be used.
    pub mechanisms: Vec<Mechanism>,
    /// Our part of SCRAM's nonce: fresh for each session, printable, without commas.
    pub nonce: String,
}

/// What is known of the line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LineFacts {
    /// Nobody else can read it: TLS is on, or it does not leave this machine.
    pub private: bool,
    /// What it exports for channel binding.
    pub exporter: Option<[u8; 32]>,
}

/// A mechanism that both sides have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice(Mechanism, Channel);

/// The best mechanism that the hop offers, the profile allows and the line is fit for.
pub fn choose(login: &Login, offer: Offer, line: LineFacts) -> Option<Choice> {
    let may = |m: &Mechanism| match m {
        Mechanism::ScramPlus => login.password.is_some() && line.exporter.is_some(),
        Mechanism::Scram => login.password.is_some(),
        Mechanism::External => true,
        Mechanism::Plain => login.password.is_some() && line.private,
    };
    let mechanism = Mechanism::ALL.into_iter().find(|m| login.mechanisms.contains(m) && offer.has(*m) && may(m))?;
    let could_bind = login.mechanisms.contains(&Mechanism::ScramPlus);
    let channel = match (mechanism, line.exporter) {
        (Mechanism::ScramPlus, Some(exported)) => Channel::Exporter(exported),
        (Mechanism::Scram, Some(_)) if could_bind && !offer.has(Mechanism::ScramPlus) => Channel::NotOffered,
        _ => Channel::None,
    };
    Some(Choice(mechanism, channel))
}

impl Choice {
    /// The AUTH line without its end, and what comes after it.
    pub fn begin(self, login: &Login) -> (String, Exchange) {
        let Self(mechanism, channel) = self;
        let user = &login.user;
        let (initial, exchange) = match mechanism {
            Mechanism::ScramPlus | Mechanism::Scram => {
                let attempt = Attempt::new(user, &login.nonce, channel);
                (attempt.first(), Exchange::First(attempt))
            }
            Mechanism::External => (user.clone(), Exchange::Told),
            Mechanism::Plain => {
                let password = login.password.as_ref().map_or("", |p| p.0.as_str());
                (format!("\0{user}\0{password}"), Exchange::Told)
            }
        };
        let initial = if initial.is_empty() { "=".to_owned() } else { BASE64.encode(initial.as_bytes()) };
        (format!("AUTH {} {initial}", mechanism.name()), exchange)
    }
}

/// Where a login stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exchange {
    /// All is said.
    Told,
    /// SCRAM's first message is.
    First(Attempt),
    /// Keys are being derived.
    Deriving(Box<Challenged>),
    /// SCRAM's last message is said; the server must show this.
    Last(Proof),
}

/// What follows from a challenge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Say this, and go on so.
    Say(String, Exchange),
    /// Derive keys with what this costs first.
    Derive(Box<Challenged>),
    /// That was no challenge of this exchange, or not one of a server that knows us.
    Broken(&'static str),
}

impl Exchange {
    /// A 334 with this text.
    pub fn challenge(self, text: &str) -> Next {
        let Ok(message) = BASE64.decode(text.trim().as_bytes()) else {
            return Next::Broken("its challenge is not base64");
        };
        match self {
            Self::First(attempt) => match attempt.challenged(&message) {
                Some(challenged) => Next::Derive(Box::new(challenged)),
                None => {
                    Next::Broken("its challenge is none of SCRAM-SHA-256, or asks for more or less work than is right")
                }
            },
            Self::Last(proof) if proof.is_shown_by(&message) => Next::Say(String::new(), Self::Told),
            Self::Last(_) => Next::Broken("it could not prove that it knows the user"),
            Self::Told | Self::Deriving(_) => Next::Broken("a challenge where none was due"),
        }
    }

    /// The keys have been derived.
    pub fn derived(self, keys: &Keys) -> Next {
        match self {
            Self::Deriving(challenged) => {
                let (last, proof) = challenged.answer(keys);
                Next::Say(last, Self::Last(proof))
            }
            Self::Told | Self::First(_) | Self::Last(_) => Next::Broken("keys that nobody asked for"),
        }
    }

    /// Whether a 235 is in its place here. Where SCRAM was begun the server has shown itself before.
    pub const fn may_end(&self) -> bool {
        matches!(self, Self::Told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(mechanisms: &[Mechanism]) -> Login {
        let password = Some(Secret("tanstaaftanstaaf".into()));
        Login { user: "tim".into(), password, mechanisms: mechanisms.to_vec(), nonce: "abc".into() }
    }

    fn offer(words: &str) -> Offer {
        let mut offer = Offer::default();
        words.split(' ').for_each(|word| offer.take(word));
        offer
    }

    #[test]
    fn the_best_of_what_both_have_is_chosen_and_no_password_goes_in_clear() {
        let (clear, tls) =
            (LineFacts { private: false, exporter: None }, LineFacts { private: true, exporter: Some([7; 32]) });
        let old = LineFacts { private: true, exporter: None };
        let all = "PLAIN EXTERNAL SCRAM-SHA-256 scram-sha-256-plus LOGIN CRAM-MD5";
        for (mechanisms, offered, line, want) in [
            (&Mechanism::ALL[..], all, tls, Some((Mechanism::ScramPlus, Channel::Exporter([7; 32])))),
            (&Mechanism::ALL, all, old, Some((Mechanism::Scram, Channel::None))),
            (&Mechanism::ALL, "PLAIN SCRAM-SHA-256", tls, Some((Mechanism::Scram, Channel::NotOffered))),
            (&[Mechanism::Scram], all, tls, Some((Mechanism::Scram, Channel::None))),
            (&Mechanism::ALL, "PLAIN", tls, Some((Mechanism::Plain, Channel::None))),
            (&[Mechanism::External], all, clear, Some((Mechanism::External, Channel::None))),
            (&Mechanism::ALL, "PLAIN", clear, None),
            (&Mechanism::ALL, "LOGIN", tls, None),
            (&[Mechanism::ScramPlus], all, old, None),
            (&[Mechanism::Scram], "PLAIN", tls, None),
        ] {
            let choice = choose(&login(mechanisms), offer(offered), line);
            assert_eq!(choice, want.map(|(m, c)| Choice(m, c)), "{mechanisms:?} {offered}");
        }
    }

    #[test]
    fn plain_and_external_are_said_as_their_vectors_say() {
        let begin = |m, user: &str| Choice(m, Channel::None).begin(&Login { user: user.into(), ..login(&[]) });
        let plain = ("AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm".to_owned(), Exchange::Told);
        assert_eq!(begin(Mechanism::Plain, "tim"), plain);
        assert_eq!(begin(Mechanism::External, "").0, "AUTH EXTERNAL =");
        assert_eq!(begin(Mechanism::External, "peer@node.example").0, "AUTH EXTERNAL cGVlckBub2RlLmV4YW1wbGU=");
        assert!(!format!("{:?}", login(&[])).contains("tanstaaf"), "not for logs");
    }

    #[test]
    fn a_server_that_cannot_prove_itself_is_no_server_of_ours() {
        let (_, exchange) = Choice(Mechanism::Scram, Channel::None).begin(&login(&[]));
        assert!(!exchange.may_end(), "235 before anything was proven");
        let challenge = BASE64.encode(b"r=abcxyz,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let Next::Derive(challenged) = exchange.challenge(&challenge) else { panic!("a challenge") };
        let (salt, iterations) = challenged.cost();
        let keys = Keys::derive("tanstaaftanstaaf", salt, iterations);
        let Next::Say(last, after) = Exchange::Deriving(challenged).derived(&keys) else { panic!("an answer") };
        assert!(last.starts_with("c=biws,r=abcxyz,p=") && !after.may_end());
        assert!(matches!(after.clone().challenge(&BASE64.encode(&[7; 40])), Next::Broken(_)));
        assert!(matches!(after.challenge("!"), Next::Broken(_)));
        assert!(matches!(Exchange::Told.challenge(""), Next::Broken(_)));
    }
}
