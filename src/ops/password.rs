//! Reads a password and hashes it for `[[user]] password_hash`.

use std::io::{self, BufRead, Write};

use argon2::Argon2;
use argon2::password_hash::PasswordHasher;
use ring::rand::{SecureRandom, SystemRandom};
use rustix::termios::{LocalModes, OptionalActions, isatty, tcgetattr, tcsetattr};

use crate::config;

/// Argon2id with the defaults of its specification's second recommended option: 19 MiB, two passes.
pub fn hash(password: &str) -> Result<String, String> {
    Argon2::default().hash_password(password.as_bytes()).map(|h| h.to_string()).map_err(|e| e.to_string())
}

/// A verifier for SCRAM-SHA-256, with a salt of its own.
pub fn scram(password: &str) -> Result<String, String> {
    let mut salt = [0; 16];
    SystemRandom::new().fill(&mut salt).map_err(|_| "the system gives no random numbers".to_owned())?;
    config::scram_verifier(password, &salt)
}

/// One line from standard input; a terminal is asked, without echo.
pub fn read() -> io::Result<String> {
    let stdin = io::stdin();
    let mut line = String::new();
    if isatty(&stdin) {
        write!(io::stderr(), "Password: ")?;
        let before = tcgetattr(&stdin)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &quiet)?;
        let read = stdin.lock().read_line(&mut line);
        tcsetattr(&stdin, OptionalActions::Flush, &before)?;
        writeln!(io::stderr())?;
        read?;
    } else {
        stdin.lock().read_line(&mut line)?;
    }
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty password"));
    }
    Ok(password.to_string())
}

#[cfg(test)]
mod tests {
    use argon2::Params;
    use argon2::password_hash::CustomizedPasswordHasher;

    use super::*;

    fn fits(text: &str, password: &str) -> bool {
        config::Password::parse(text).is_some_and(|p| p.fits(password))
    }

    #[test]
    fn a_hash_verifies_its_password_and_no_other() {
        for make in [hash, scram] {
            let text = make("s3cret-One").expect("made");
            assert!(fits(&text, "s3cret-One") && !fits(&text, "s3cret-one"));
            assert_ne!(text, make("s3cret-One").expect("made"), "salted");
        }
    }

    #[test]
    fn hashes_of_any_form_are_evaluated_as_they_were_made() {
        for (algorithm, version, length) in
            [("argon2d", 0x10, 16), ("argon2i", 0x13, 64), ("argon2id", 0x13, 32), ("argon2id", 0x10, 24)]
        {
            let params = Params::new(64, 3, 2, Some(length)).expect("sound");
            let made = Argon2::default();
            let made = made.hash_password_customized(b"pencil", b"some salt", Some(algorithm), Some(version), params);
            let text = made.expect("hashed").to_string();
            assert!(fits(&text, "pencil") && !fits(&text, "pen"), "{text}");
        }
    }
}
