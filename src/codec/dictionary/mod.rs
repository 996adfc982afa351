//! The dictionaries shipped with this program. A number once shipped never changes its bytes: payloads name it.
//!
//! `examples/train_dictionary` makes one; `docs/codec.md` lists them.

/// A trained dictionary.
#[derive(Debug)]
pub struct Dictionary {
    /// Its number on the air, 1..=13.
    pub number: u8,
    /// Its bytes: in the format of RFC 8878, section 5, or text and nothing else.
    pub bytes: &'static [u8],
    /// SHA-256 of the bytes, in hex.
    pub sha256: &'static str,
}

/// All shipped dictionaries, oldest first.
pub static SHIPPED: [Dictionary; 3] = [D1, D2, D3];

/// What is encoded with.
pub static NEWEST: &Dictionary = &SHIPPED[SHIPPED.len() - 1];

const D1: Dictionary = Dictionary {
    number: 1,
    bytes: include_bytes!("d1.dict"),
    sha256: "a13841a0efe96a1584636e06c5134935fd5ad1b27118b4fe1d453c00ec4805f2",
};

const D2: Dictionary = Dictionary {
    number: 2,
    bytes: include_bytes!("d2.dict"),
    sha256: "b4a3d57b63c95d4bc7d4db3120753d729746e1950c83ad55336189a205034e91",
};

const D3: Dictionary = Dictionary {
    number: 3,
    bytes: include_bytes!("d3.dict"),
    sha256: "f3be0ae3fbeeb8e4b25f35464e4c1258cd7f70e5a2fd6bb1a82eb50f5ceb1750",
};

/// A shipped dictionary by number.
pub fn shipped(number: u8) -> Option<&'static Dictionary> {
    SHIPPED.iter().find(|d| d.number == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_dictionaries_are_the_bytes_their_digest_names_and_their_numbers_are_their_own() {
        for (i, d) in SHIPPED.iter().enumerate() {
            let digest = ring::digest::digest(&ring::digest::SHA256, d.bytes);
            assert_eq!(data_encoding::HEXLOWER.encode(digest.as_ref()), d.sha256, "dictionary {}", d.number);
            assert_eq!(usize::from(d.number), i + 1);
            assert!(d.number < 14, "14 and 15 are for dictionaries given by hand");
        }
    }
}
