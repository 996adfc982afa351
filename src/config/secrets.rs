//! Certificates, keys and password hashes a profile names: whether they can be used, and whether others can read them.

use std::path::Path;

use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use rustls::crypto::ring::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Files;
use super::plan::TlsPlan;
use super::reader::{Reader, join};
use crate::security::dkim;
use crate::smtp::scram::{self, Verifier};
use crate::smtp::server::Secret;

/// The link key of the shipped profiles. Published, hence worthless: `check` warns about it.
pub const EXAMPLE_KEY: &[u8; 32] = b"ALDIS EXAMPLE KEY, NEVER USE IT!";

/// What is kept of a user's password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Password {
    /// An Argon2 PHC string: for PLAIN.
    Argon2(String),
    /// For SCRAM, and for PLAIN.
    Scram(Verifier),
}

impl Password {
    /// Reads either form.
    pub fn parse(text: &str) -> Option<Self> {
        let phc = PasswordHash::new(text).is_ok_and(|h| h.algorithm.as_str().starts_with("argon2") && h.hash.is_some());
        match phc {
            true => Some(Self::Argon2(text.to_owned())),
            false => Verifier::parse(text).map(Self::Scram),
        }
    }

    /// Whether this is the password. Takes its time: tens of milliseconds.
    pub fn fits(&self, password: &str) -> bool {
        match self {
            Self::Argon2(text) => argon2_fits(text, password).unwrap_or(false),
            Self::Scram(verifier) => verifier.fits(password),
        }
    }

    /// Its verifier for SCRAM, if it is one.
    pub const fn verifier(&self) -> Option<&Verifier> {
        match self {
            Self::Scram(verifier) => Some(verifier),
            Self::Argon2(_) => None,
        }
    }
}

/// What glibc hands out in one piece that it gives back to the system at once when it is freed: more than 32 MiB. Smaller ones it
/// keeps: a few dozen guesses of a stranger's, on several threads, left half a gigabyte behind.
const GIVEN_BACK: usize = 33 << 20;

/// Whether an Argon2 string was made of this password; `None` where it cannot be evaluated.
fn argon2_fits(text: &str, password: &str) -> Option<bool> {
    let hash = PasswordHash::new(text).ok()?;
    let (salt, wanted) = (hash.salt?, hash.hash?);
    let algorithm = Algorithm::try_from(hash.algorithm.as_str()).ok()?;
    let version = hash.version.map_or(Ok(Version::default()), Version::try_from).ok()?;
    let params = Params::try_from(&hash).ok()?;
    let blocks = params.block_count();
    // Room that is never touched takes no memory.
    let mut memory = Vec::with_capacity(blocks.max(GIVEN_BACK / Block::SIZE));
    memory.resize(blocks, Block::new());
    let mut found = vec![0; wanted.len()];
    let maker = Argon2::new(algorithm, version, params);
    maker.hash_password_into_with_memory(password.as_bytes(), &salt, &mut found, &mut memory).ok()?;
    // Compared in constant time.
    Some(Output::new(&found).ok()? == wanted)
}

/// The verifier of a password, for `[[user]] password_hash`.
pub fn scram_verifier(password: &str, salt: &[u8]) -> Result<String, String> {
    if !scram::is_plain_password(password) {
        return Err("a password for SCRAM is printable ASCII: other letters have more than one form".into());
    }
    Ok(Verifier::derive(password, salt, scram::USUAL_ITERATIONS).to_string())
}

/// 64 hexadecimal digits as 32 bytes.
pub fn key_text(text: &str) -> Result<[u8; 32], String> {
    let digits = text.trim();
    data_encoding::HEXLOWER_PERMISSIVE
        .decode(digits.as_bytes())
        .ok()
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .ok_or_else(|| "is not 64 hexadecimal digits".into())
}

/// The key in a file that nobody but its owner can read.
pub fn key_file(reader: &mut Reader, files: &dyn Files, key: &str, path: &Path) -> Option<[u8; 32]> {
    let text = |bytes| String::from_utf8(bytes).map_err(|_| "is not text".into()).and_then(|text| key_text(&text));
    secret_file(reader, files, key, path, "a file of 64 hexadecimal digits, mode 0600", text)
}

/// The key that signs mail, in such a file.
pub fn signing_key(reader: &mut Reader, files: &dyn Files, key: &str, path: &Path) -> Option<dkim::Key> {
    let form = "a PEM file, mode 0600: RSA of 2048 bits or more, or Ed25519";
    secret_file(reader, files, key, path, form, |bytes| dkim::Key::from_pem(&bytes))
}

/// The password in such a file: its first line.
pub fn password_file(reader: &mut Reader, files: &dyn Files, key: &str, path: &Path) -> Option<Secret> {
    let password = |bytes| {
        let text = String::from_utf8(bytes).unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        let sound = !line.is_empty() && line.len() <= 512 && !line.contains('\0');
        sound.then(|| Secret(line.to_owned())).ok_or_else(|| "holds no password".to_owned())
    };
    secret_file(reader, files, key, path, "a file with the password on its first line, mode 0600", password)
}

fn secret_file<T>(
    reader: &mut Reader,
    files: &dyn Files,
    key: &str,
    path: &Path,
    form: &str,
    parse: impl FnOnce(Vec<u8>) -> Result<T, String>,
) -> Option<T> {
    let file = match files.read(path) {
        Ok(file) => file,
        Err(e) => {
            reader.problem(key, format!("cannot read {}: {e}", path.display()), form);
            return None;
        }
    };
    if file.mode & 0o077 != 0 {
        let problem = format!("{} can be used by others: its mode is {:04o}", path.display(), file.mode & 0o777);
        reader.problem(key, problem, form);
    }
    match parse(file.bytes) {
        Ok(secret) => Some(secret),
        Err(why) => {
            reader.problem(key, format!("{} {why}", path.display()), form);
            None
        }
    }
}

/// Refuses a key that is none, and warns about the published one.
pub fn check_key(reader: &mut Reader, key: &str, secret: &[u8; 32]) {
    if secret.iter().all(|b| Some(b) == secret.first()) {
        reader.problem(key, "every byte of this key is the same", "64 random hexadecimal digits: openssl rand -hex 32");
    }
    if secret == EXAMPLE_KEY {
        reader.warn(
            key,
            "this is the published example key: anyone can read and forge",
            "your own: openssl rand -hex 32",
        );
    }
}

/// A SHA-256 fingerprint in hexadecimal, colons or none, or in base64.
pub fn fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    let base64 = || data_encoding::BASE64.decode(text.as_bytes()).ok()?.try_into().ok();
    key_text(&digits).ok().or_else(base64)
}

/// Whether certificate and key can be read and belong together, and the authorities of clients can be read.
pub fn check_tls(reader: &mut Reader, files: &dyn Files, at: &str, plan: &TlsPlan) {
    check_identity(reader, files, at, &plan.certificate, &plan.key);
    if let Some(path) = &plan.client_ca {
        check_authorities(reader, files, &join(at, "client_ca"), path);
    }
}

/// Whether a file holds certificates of authorities.
pub fn check_authorities(reader: &mut Reader, files: &dyn Files, at: &str, path: &Path) {
    match files.read(path) {
        Err(e) => reader.problem(at, format!("cannot read {}: {e}", path.display()), "a PEM file"),
        Ok(file) => {
            let authorities = CertificateDer::pem_slice_iter(&file.bytes).collect::<Result<Vec<_>, _>>();
            let mut roots = rustls::RootCertStore::empty();
            let sound = authorities
                .is_ok_and(|list| !list.is_empty() && list.into_iter().all(|authority| roots.add(authority).is_ok()));
            if !sound {
                let problem = format!("{} holds no certificates of authorities", path.display());
                reader.problem(at, problem, "a PEM file");
            }
        }
    }
}

/// Whether certificate and key can be read and belong together.
pub fn check_identity(reader: &mut Reader, files: &dyn Files, at: &str, certificate_path: &Path, key_path: &Path) {
    let mut load = |key: &str, path: &Path| match files.read(path) {
        Ok(file) => Some(file),
        Err(e) => {
            reader.problem(&join(at, key), format!("cannot read {}: {e}", path.display()), "a PEM file");
            None
        }
    };
    let certificate = load("certificate", certificate_path);
    let key = load("key", key_path);
    let chain: Option<Vec<CertificateDer<'static>>> = certificate.and_then(|file| {
        let chain: Option<Vec<_>> = CertificateDer::pem_slice_iter(&file.bytes).collect::<Result<_, _>>().ok();
        let chain = chain.filter(|c| !c.is_empty());
        if chain.is_none() {
            let problem = format!("{} holds no certificate", certificate_path.display());
            reader.problem(&join(at, "certificate"), problem, "a PEM file, the server's certificate first");
        }
        chain
    });
    let key = key.and_then(|file| {
        if file.mode & 0o007 != 0 {
            let warning = format!("{} can be read by every user of this machine", key_path.display());
            reader.warn(&join(at, "key"), warning, "mode 0600 or 0640");
        }
        let key = PrivateKeyDer::from_pem_slice(&file.bytes).ok();
        if key.is_none() {
            reader.problem(&join(at, "key"), format!("{} holds no private key", key_path.display()), "a PEM file");
        }
        key
    });
    if let (Some(chain), Some(key)) = (chain, key)
        && let Err(e) = CertifiedKey::from_der(chain, key, &default_provider())
    {
        reader.problem(&join(at, "key"), format!("does not go with the certificate: {e}"), "the certificate's own key");
    }
}
