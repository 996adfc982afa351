//! Servers of other make, each started and stopped by a script under tests/peers in a directory of its own.

use std::path::{Path, PathBuf};

use super::process::{root, run};

/// Whether this user may start servers whose masters want root. With `CI=true` it must; elsewhere it is a printed skip.
pub fn may_start(program: &str) -> bool {
    let may = run(10, "id", &["-u"]).stdout.trim_ascii() == b"0";
    if !may {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{program} needs root");
        println!("skip: {program} needs root");
    }
    may
}

/// Lets the users that such servers run as reach a directory of the test's.
pub fn open_to_all(directory: &Path) {
    run(10, "chmod", &["755", &directory.display().to_string()]);
}

/// One that runs until it is dropped; its log is shown where the test has failed.
pub struct PeerServer {
    script: PathBuf,
    directory: PathBuf,
}

impl PeerServer {
    /// Runs `SCRIPT start DIRECTORY WORDS...` with `settings` (`NAME=value`) in its environment.
    pub fn start(script: &str, directory: &Path, settings: &[String], words: &[&str]) -> Self {
        let server = Self { script: root().join("tests/peers").join(script), directory: directory.to_owned() };
        server.say(settings, &[&["start", &*directory.display().to_string()], words].concat());
        server
    }

    fn say(&self, settings: &[String], words: &[&str]) {
        let script = self.script.display().to_string();
        let settings = settings.iter().map(String::as_str);
        let words: Vec<&str> = settings.chain(["bash", &script]).chain(words.iter().copied()).collect();
        let output = run(60, "env", &words);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for PeerServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in ["log", "spool/mainlog", "spool/paniclog"] {
                eprintln!("{}", std::fs::read_to_string(self.directory.join(log)).unwrap_or_default());
            }
        }
        let (script, directory) = (self.script.display().to_string(), self.directory.display().to_string());
        run(60, "bash", &[&script, "stop", &directory]);
    }
}
