//! The real program as a process: started, found ready, killed.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// The program under test: the one just built, or another that `ALDIS_BIN` names, such as a release build.
pub fn aldis() -> String {
    std::env::var("ALDIS_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_aldis").to_owned())
}

/// How long a process may take to be ready or to end before it counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A node that said it is ready.
pub struct Running {
    /// The process: the node itself, or the program it runs under.
    pub child: Child,
    /// Where it takes mail.
    pub smtp: SocketAddr,
}

/// Starts `aldis run PROFILE`, under `wrapper` when that is not empty; its log is appended to `log`. An error is the status of a
/// process that ended before it was ready. One that does neither is killed, and the test fails.
pub fn start(wrapper: &[String], profile: &Path, log: &Path) -> Result<Running, ExitStatus> {
    let mut words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let profile = profile.to_str().expect("a plain path");
    let aldis = aldis();
    words.extend([&aldis, "run", profile]);
    let log_file = File::options().create(true).append(true).open(log).expect("the log opens");
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .env("ALDIS_LOG", "info")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log_file)
        .spawn()
        .expect("the program starts");
    let out = child.stdout.take().expect("piped");
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(out).read_line(&mut line);
        let _ = tell.send(line);
    });
    let line = match told.recv_timeout(PATIENCE) {
        Ok(line) => line,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            let _ = child.kill();
            panic!("neither ready nor ended after {PATIENCE:?}; log:\n{}", tail(log));
        }
    };
    let address = line.split_whitespace().find_map(|word| word.strip_prefix("relay=")?.parse().ok());
    match address {
        Some(smtp) => Ok(Running { child, smtp }),
        None => Err(ended(&mut child).unwrap_or_else(|| panic!("not ready and still running; log:\n{}", tail(log)))),
    }
}

/// Waits for the end of a process; one that does not end is killed, and `None` says so.
pub fn ended(child: &mut Child) -> Option<ExitStatus> {
    let step = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    while waited < PATIENCE {
        if let Some(status) = child.try_wait().expect("our own child") {
            return Some(status);
        }
        pause(step);
        waited += step;
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// Lets real time pass: other processes need it.
pub fn pause(time: Duration) {
    #[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
    std::thread::sleep(time);
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
