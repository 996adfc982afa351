//! A tag over a whole payload, and encryption where the peer's protection asks for it (link-rules C1, C2).
//!
//! The switch seals a coded payload once, before it is frozen (A1), and opens it after the last symbol has been put together.
//! Frames have tags of their own; this one makes the payload stand by itself: it may be pieced together from frames of weeks, of
//! several bearers, and under different keys. What it protects, and what not, is in `docs/security-link.md`.
//!
//! A sealed payload is the tag followed by the bytes. Nothing in it names a key: up to two are tried.

use core::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{Context, SHA256};
use ring::{hkdf, hmac};

use crate::mail::{LinkKey, Protection, TransferId};

/// Why a sealed payload was not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SealError {
    /// Too short to hold its tag.
    Short,
    /// Protection asks for a key and none was given.
    NoKey,
    /// Damaged, forged, sealed as another transfer, or sealed with a key this node does not hold.
    Mismatch,
}

/// Bytes [`seal`] adds.
pub const fn overhead(protection: Protection) -> usize {
    match protection {
        Protection::Off => DIGEST_BYTES,
        Protection::Mac | Protection::Aead => TAG_BYTES,
    }
}

/// Seals a payload as this transfer. The key is not used where protection is off.
///
/// Under `aead` one transfer id must never seal two different payloads with one key: that follows from the frozen payload (A1) and from
/// the persisted counter in the id (A2).
pub fn seal(protection: Protection, key: &LinkKey, id: &TransferId, payload: Vec<u8>) -> Vec<u8> {
    let mut bytes = payload;
    let tag = match protection {
        Protection::Off => digest(id, &bytes).to_vec(),
        Protection::Mac => mac(key, id, &bytes).to_vec(),
        Protection::Aead => Cipher::new(key, id).apply(&mut bytes).to_vec(),
    };
    bytes.splice(0..0, tag);
    bytes
}

/// Opens what [`seal`] made, with whichever of `keys` fits. Nothing of the payload comes out before its tag has been found right.
pub fn open(protection: Protection, keys: &[LinkKey], id: &TransferId, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let (tag, bytes) = sealed.split_at_checked(overhead(protection)).ok_or(SealError::Short)?;
    if protection == Protection::Off {
        return if same(tag, &digest(id, bytes)) { Ok(bytes.to_vec()) } else { Err(SealError::Mismatch) };
    }
    if keys.is_empty() {
        return Err(SealError::NoKey);
    }
    keys.iter()
        .find_map(|key| match protection {
            Protection::Off => None,
            Protection::Mac => same(tag, &mac(key, id, bytes)).then(|| bytes.to_vec()),
            Protection::Aead => Cipher::new(key, id).open(tag, bytes),
        })
        .ok_or(SealError::Mismatch)
}

/// Bytes of the tag: HMAC-SHA-256 truncated to 64 bits (RFC 2104, 5), or the 8-byte ICV of RFC 4106.
const TAG_BYTES: usize = 8;
/// Bytes of the digest where protection is off. It only catches damage.
const DIGEST_BYTES: usize = 4;

/// Names this use and its version in every derived key and every tag.
const LABEL: &[u8] = b"aldis payload seal 1";
/// In the nonce: sealed payloads. Frames derive other keys and carry other values here.
const DOMAIN_PAYLOAD: u8 = 1;

/// What a tag covers beside the bytes: label, origin, epoch, counter and key id, each of fixed length or preceded by it.
fn bound(id: &TransferId, key_id: u8) -> Vec<u8> {
    let origin = id.origin.0.as_bytes();
    let mut out = Vec::with_capacity(LABEL.len() + origin.len() + 13);
    out.extend_from_slice(LABEL);
    out.extend_from_slice(&(origin.len() as u32).to_be_bytes());
    out.extend_from_slice(origin);
    out.extend_from_slice(&id.epoch.to_be_bytes());
    out.extend_from_slice(&id.counter.to_be_bytes());
    out.push(key_id);
    out
}

/// 32 bytes for one purpose and one origin: stations that share a net key never seal under the same derived key.
fn derived(key: &LinkKey, purpose: &[u8], id: &TransferId) -> [u8; 32] {
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, LABEL);
    let info = [purpose, b"\0", id.origin.0.as_bytes()];
    let mut out = [0; 32];
    salt.extract(&key.secret)
        .expand(&info, hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut out))
        .expect("HKDF-SHA256 yields up to 8160 bytes");
    out
}

fn digest(id: &TransferId, bytes: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut context = Context::new(&SHA256);
    context.update(&bound(id, 0));
    context.update(bytes);
    prefix(context.finish().as_ref())
}

fn mac(key: &LinkKey, id: &TransferId, bytes: &[u8]) -> [u8; TAG_BYTES] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &derived(key, b"mac", id)));
    context.update(&bound(id, key.id));
    context.update(bytes);
    prefix(context.sign().as_ref())
}

/// AES-256-GCM with the nonce and the associated data of one transfer.
struct Cipher {
    key: LessSafeKey,
    nonce: [u8; 12],
    aad: Vec<u8>,
}

impl Cipher {
    fn new(key: &LinkKey, id: &TransferId) -> Self {
        let secret = UnboundKey::new(&AES_256_GCM, &derived(key, b"aead", id)).expect("AES-256 takes 32 bytes");
        let mut nonce = [0; 12];
        let [a, b, c, d] = id.epoch.to_be_bytes();
        let [e, f, g, h] = id.counter.to_be_bytes();
        nonce.copy_from_slice(&[a, b, c, d, e, f, g, h, key.id, DOMAIN_PAYLOAD, 0, 0]);
        Self { key: LessSafeKey::new(secret), nonce, aad: bound(id, key.id) }
    }

    /// Encrypts in place and returns the tag cut to eight bytes.
    fn apply(&self, bytes: &mut [u8]) -> [u8; TAG_BYTES] {
        let tag = self
            .key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(self.nonce), Aad::from(&self.aad), bytes)
            .expect("AES-GCM takes up to 64 GiB");
        prefix(tag.as_ref())
    }

    /// Decrypts and verifies with the encrypting half alone, because ring opens only with all 16 bytes of a tag.
    ///
    /// GCM encrypts by XOR with a keystream that depends on key and nonce only, so encrypting the ciphertext gives the plaintext back.
    /// Encrypting that plaintext once more gives the tag that belongs to it, whose first eight bytes must be the ones received. This is
    /// GCM decryption with the steps in another order: the tag is a function of key, nonce, associated data and ciphertext, and
    /// the ciphertext it is computed over here is the one received, bit for bit. The tag of the first pass is dropped unseen, and the
    /// plaintext leaves only when the tags agree.
    fn open(&self, tag: &[u8], ciphertext: &[u8]) -> Option<Vec<u8>> {
        let mut plaintext = ciphertext.to_vec();
        self.apply(&mut plaintext);
        let mut again = plaintext.clone();
        let expected = self.apply(&mut again);
        same(tag, &expected).then_some(plaintext)
    }
}

fn prefix<const N: usize>(full: &[u8]) -> [u8; N] {
    *full.first_chunk().expect("digests and tags are longer than their prefixes")
}

/// Compares without a branch that depends on where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |all, (x, y)| core::hint::black_box(all | (x ^ y)));
    a.len() == b.len() && core::hint::black_box(difference) == 0
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "the sealed payload is too short to hold its tag",
            Self::NoKey => "no key is configured for this peer",
            Self::Mismatch => "the payload is damaged, forged, or sealed with another key",
        })
    }
}

impl std::error::Error for SealError {}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    const ALL: [Protection; 3] = [Protection::Off, Protection::Mac, Protection::Aead];

    fn key(id: u8) -> LinkKey {
        LinkKey { id, secret: [id.wrapping_mul(17).wrapping_add(1); 32] }
    }

    fn transfer(counter: u32) -> TransferId {
        TransferId { origin: "ship".into(), epoch: 0x0102_0304, counter }
    }

    #[test]
    fn known_answers_hold() {
        // Computed apart from this code, with the HKDF, HMAC and AES-256-GCM of OpenSSL 3.0.
        for (protection, expected) in [
            (Protection::Off, "4ba822244655454c203632205043542e"),
            (Protection::Mac, "8bfa66d8853df7164655454c203632205043542e"),
            (Protection::Aead, "e76d2ecce673b7c489138779a15b72f8eb8a4c19"),
        ] {
            let sealed = seal(protection, &key(2), &transfer(7), b"FUEL 62 PCT.".to_vec());
            assert_eq!(HEXLOWER.encode(&sealed), expected, "{protection:?}");
        }
    }

    #[test]
    fn a_sealed_payload_opens_with_either_key_and_costs_what_is_said() {
        for protection in ALL {
            for sender in [key(0), key(1)] {
                let sealed = seal(protection, &sender, &transfer(7), b"payload".to_vec());
                assert_eq!(sealed.len(), 7 + overhead(protection));
                assert_eq!(open(protection, &[key(0), key(1)], &transfer(7), &sealed), Ok(b"payload".to_vec()));
            }
        }
    }

    #[test]
    fn only_aead_hides_the_bytes() {
        for protection in ALL {
            let sealed = seal(protection, &key(0), &transfer(7), b"a secret of some length".to_vec());
            let shown = sealed.windows(8).any(|w| w == b"a secret");
            assert_eq!(shown, protection != Protection::Aead, "{protection:?}");
        }
    }

    #[test]
    fn a_wrong_key_is_a_mismatch_and_none_is_no_key() {
        for protection in [Protection::Mac, Protection::Aead] {
            let sealed = seal(protection, &key(0), &transfer(7), b"payload".to_vec());
            assert_eq!(open(protection, &[key(1), key(2)], &transfer(7), &sealed), Err(SealError::Mismatch));
            let renumbered = LinkKey { id: 1, ..key(0) };
            assert_eq!(open(protection, &[renumbered], &transfer(7), &sealed), Err(SealError::Mismatch));
            assert_eq!(open(protection, &[], &transfer(7), &sealed), Err(SealError::NoKey));
        }
    }

    #[test]
    fn a_payload_cannot_pass_for_another_transfer_nor_under_another_protection() {
        let others =
            [transfer(8), TransferId { epoch: 1, ..transfer(7) }, TransferId { origin: "shore".into(), ..transfer(7) }];
        for protection in ALL {
            let sealed = seal(protection, &key(0), &transfer(7), b"payload".to_vec());
            for other in &others {
                assert_eq!(open(protection, &[key(0)], other, &sealed), Err(SealError::Mismatch));
            }
            for wrong in ALL.into_iter().filter(|p| *p != protection) {
                assert_eq!(open(wrong, &[key(0)], &transfer(7), &sealed), Err(SealError::Mismatch));
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_caught() {
        for protection in ALL {
            let sealed = seal(protection, &key(0), &transfer(7), b"the whole payload".to_vec());
            for bit in 0..sealed.len() * 8 {
                let mut bad = sealed.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(open(protection, &[key(0)], &transfer(7), &bad), Err(SealError::Mismatch), "bit {bit}");
            }
            for cut in 0..sealed.len() {
                assert!(open(protection, &[key(0)], &transfer(7), &sealed[..cut]).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn c1_stations_of_one_net_never_share_a_keystream() {
        let secret = vec![0; 64];
        let ship = seal(Protection::Aead, &key(0), &transfer(7), secret.clone());
        let shore = seal(Protection::Aead, &key(0), &TransferId { origin: "shore".into(), ..transfer(7) }, secret);
        assert_ne!(ship[TAG_BYTES..], shore[TAG_BYTES..]);
    }

    proptest! {
        #[test]
        fn any_payload_comes_back(payload in proptest::collection::vec(any::<u8>(), 0..500), mode in 0..3usize, counter: u32) {
            let sealed = seal(ALL[mode], &key(3), &transfer(counter), payload.clone());
            prop_assert_eq!(open(ALL[mode], &[key(1), key(3)], &transfer(counter), &sealed), Ok(payload));
        }

        #[test]
        fn invented_bytes_never_open(noise in proptest::collection::vec(any::<u8>(), 0..100), mode in 1..3usize) {
            prop_assert!(open(ALL[mode], &[key(1), key(3)], &transfer(1), &noise).is_err());
        }
    }
}
