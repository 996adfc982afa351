//! The client's side of SCRAM: who we are, that we know the password, and whether the server knows its part of it too.
//!
//! An [`Attempt`] says who wants in; the server's challenge makes it [`Challenged`]; with the [`Keys`] of the password comes the last
//! message, and a [`Proof`] by which the server's own last word is judged. Deriving keys is dear, so that is left to the caller.

use core::num::NonZeroU32;

use data_encoding::BASE64;
use ring::pbkdf2;

use super::{KEY, LEAST_ITERATIONS, MOST_ITERATIONS, MOST_SALT, hash, is_nonce, mac, same};

/// What SCRAM needs of a password, for one salt and cost. Whoever has it can log in.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    client: [u8; KEY],
    server: [u8; KEY],
}

impl core::fmt::Debug for Keys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Derives them. Takes its time: tens of milliseconds at the usual cost.
    pub fn derive(password: &str, salt: &[u8], iterations: NonZeroU32) -> Self {
        let mut salted = [0; KEY];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password.as_bytes(), &mut salted);
        Self { client: mac(&salted, b"Client Key"), server: mac(&salted, b"Server Key") }
    }
}

/// What is said of channel binding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Channel {
    /// Nothing here can bind.
    None,
    /// It could, and the server does not offer it. A server that did knows by this that somebody changed its offer.
    NotOffered,
    /// Bound to what this connection exports (RFC 9266).
    Exporter([u8; KEY]),
}

/// An exchange before the server's first message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    bare: String,
    nonce: String,
    channel: Channel,
}

impl Attempt {
    /// Begins as `user`. `nonce` is fresh, printable and without commas.
    pub fn new(user: &str, nonce: &str, channel: Channel) -> Self {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Self { bare: format!("n={user},r={nonce}"), nonce: nonce.to_owned(), channel }
    }

    /// Our first message.
    pub fn first(&self) -> String {
        format!("{}{}", self.header(), self.bare)
    }

    const fn header(&self) -> &'static str {
        match self.channel {
            Channel::None => "n,,",
            Channel::NotOffered => "y,,",
            Channel::Exporter(_) => "p=tls-exporter,,",
        }
    }

    /// Reads the server's first message; `None` when it is none, is not about this attempt, or asks for too little or too much work.
    pub fn challenged(self, message: &[u8]) -> Option<Challenged> {
        let text = core::str::from_utf8(message).ok()?;
        // A mandatory extension (`m=`) would stand first, and none is known.
        let mut parts = text.split(',');
        let nonce = parts.next()?.strip_prefix("r=")?;
        let salt = BASE64.decode(parts.next()?.strip_prefix("s=")?.as_bytes()).ok()?;
        let iterations = parts.next()?.strip_prefix("i=")?;
        let plain = iterations.bytes().all(|b| b.is_ascii_digit());
        let iterations: NonZeroU32 = iterations.parse().ok().filter(|_| plain)?;
        let ours = is_nonce(nonce) && nonce.len() > self.nonce.len() && nonce.starts_with(&self.nonce);
        let sound = ours
            && !salt.is_empty()
            && salt.len() <= MOST_SALT
            && (LEAST_ITERATIONS..=MOST_ITERATIONS).contains(&iterations.get());
        sound.then(|| Challenged {
            nonce: nonce.to_owned(),
            challenge: text.to_owned(),
            salt,
            iterations,
            attempt: self,
        })
    }
}

/// An exchange that waits for the keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Challenged {
    attempt: Attempt,
    nonce: String,
    challenge: String,
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

impl Challenged {
    /// What the keys are to be derived with.
    pub fn cost(&self) -> (&[u8], NonZeroU32) {
        (&self.salt, self.iterations)
    }

    /// Our last message, and what the server's must show.
    pub fn answer(&self, keys: &Keys) -> (String, Proof) {
        let mut binding = self.attempt.header().as_bytes().to_vec();
        if let Channel::Exporter(exported) = self.attempt.channel {
            binding.extend_from_slice(&exported);
        }
        let claim = format!("c={},r={}", BASE64.encode(&binding), self.nonce);
        let said = format!("{},{},{claim}", self.attempt.bare, self.challenge);
        let mut proof = mac(&hash(&keys.client), said.as_bytes());
        for (byte, mask) in proof.iter_mut().zip(keys.client) {
            *byte ^= mask;
        }
        (format!("{claim},p={}", BASE64.encode(&proof)), Proof(mac(&keys.server, said.as_bytes())))
    }
}

/// What only a server can say that knows the user's verifier.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proof([u8; KEY]);

impl Proof {
    /// Whether the server's last message shows it.
    pub fn is_shown_by(&self, message: &[u8]) -> bool {
        let value = core::str::from_utf8(message).ok().and_then(|text| text.split(',').next()?.strip_prefix("v="));
        let shown = value.and_then(|v| BASE64.decode(v.as_bytes()).ok()).and_then(|v| <[u8; KEY]>::try_from(v).ok());
        shown.is_some_and(|shown| same(&shown, &self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Exchange, First, Verifier};
    use super::*;

    const CHALLENGE: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn attempt() -> Attempt {
        Attempt::new("user", "rOprNGfwEbeRWgbNEkqO", Channel::None)
    }

    #[test]
    fn the_vector_of_rfc_7677_comes_out_octet_for_octet() {
        let first = attempt();
        assert_eq!(BASE64.encode(first.first().as_bytes()), "biwsbj11c2VyLHI9ck9wck5HZndFYmVSV2diTkVrcU8=");
        let challenged = first.challenged(CHALLENGE.as_bytes()).expect("a challenge");
        let (salt, iterations) = challenged.cost();
        let keys = Keys::derive("pencil", salt, iterations);
        let (last, proof) = challenged.answer(&keys);
        assert_eq!(
            last,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(proof.is_shown_by(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        for wrong in ["v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", "v=", "", "e=invalid-proof", "v=6rri"] {
            assert!(!proof.is_shown_by(wrong.as_bytes()), "{wrong}");
        }
        assert!(!format!("{keys:?}").contains("client"), "not for logs");
    }

    #[test]
    fn a_challenge_that_is_not_ours_or_of_another_cost_is_refused() {
        for bad in [
            "",
            "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=xOprNGfwEbeRWgbNEkqO%hvY,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqO%hvY,s=,i=4096",
            "r=rOprNGfwEbeRWgbNEkqO%hvY,s=W22Z,i=4095",
            "r=rOprNGfwEbeRWgbNEkqO%hvY,s=W22Z,i=2000001",
            "r=rOprNGfwEbeRWgbNEkqO%hvY,s=W22Z,i=+4096",
            "r=rOprNGfwEbeRWgbNEkqO%hvY,s=W22Z",
            "m=x,r=rOprNGfwEbeRWgbNEkqO%hvY,s=W22Z,i=4096",
            "r=rOprNGfwEbeRWgbNEkqO%h vY,s=W22Z,i=4096",
        ] {
            assert_eq!(attempt().challenged(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(attempt().challenged(b"\xff"), None);
    }

    #[test]
    fn both_sides_agree_with_and_without_a_channel_and_disagree_where_one_is_wrong() {
        let verifier = Verifier::derive("pencil", b"sixteen octets..", 4096);
        let (here, elsewhere) = ([7; 32], [8; 32]);
        for (channel, at_server, password, fits) in [
            (Channel::None, None, "pencil", true),
            (Channel::NotOffered, None, "pencil", true),
            (Channel::Exporter(here), Some(here), "pencil", true),
            (Channel::Exporter(here), Some(elsewhere), "pencil", false),
            (Channel::None, None, "pen", false),
        ] {
            let attempt = Attempt::new("a=b,c", "abc", channel);
            let first = First::parse(attempt.first().as_bytes()).expect("a first message");
            assert_eq!(first.user(), "a=b,c");
            let exchange = Exchange::new(first, "xyz", verifier.clone(), at_server);
            let challenged = attempt.challenged(exchange.challenge().as_bytes()).expect("a challenge");
            let (salt, iterations) = challenged.cost();
            let (last, proof) = challenged.answer(&Keys::derive(password, salt, iterations));
            let verdict = exchange.finish(last.as_bytes());
            assert_eq!(verdict.is_ok(), fits, "{channel:?} {password}");
            assert!(verdict.is_err() || verdict.is_ok_and(|v| proof.is_shown_by(v.as_bytes())));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_message_of_a_server_makes_it_panic(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80),
            text in "r=abc[ -~]{0,8},s=[A-Za-z0-9+/=]{0,12},i=[0-9]{0,10}(,[ -~]{0,5})?",
        ) {
            let attempt = Attempt::new("user", "abc", Channel::NotOffered);
            let _ = attempt.clone().challenged(&bytes);
            if let Some(challenged) = attempt.challenged(text.as_bytes()) {
                let keys = Keys { client: [1; KEY], server: [2; KEY] };
                let (_, proof) = challenged.answer(&keys);
                proptest::prop_assert!(!proof.is_shown_by(&bytes));
            }
        }
    }
}
