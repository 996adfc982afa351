//! Scripted SMTP servers for tests: they offer what they are told to, and tell what they saw.

#![allow(dead_code, reason = "every test binary takes its own part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// EHLO of one that offers STARTTLS.
pub const OFFERS_TLS: &str = "250-hop\r\n250 STARTTLS\r\n";

/// What a scripted hop does.
#[derive(Clone)]
pub struct Script {
    pub greeting: &'static str,
    /// Lines of EHLO in clear, and inside TLS.
    pub clear: &'static str,
    pub inside: &'static str,
    /// What follows 220 of STARTTLS in the same segment.
    pub injected: &'static str,
    /// What AUTH is answered.
    pub auth: &'static str,
    /// What the first MAIL, and every RCPT, is answered.
    pub first_mail: &'static str,
    pub rcpt: &'static str,
    pub tls: Option<Arc<ServerConfig>>,
}

impl Script {
    /// One without TLS that takes everything.
    pub fn new() -> Self {
        Self {
            greeting: "220 hop ESMTP\r\n",
            clear: "250-hop\r\n250 8BITMIME\r\n",
            inside: "250-hop\r\n250 8BITMIME\r\n",
            injected: "",
            auth: "535 5.7.8 no\r\n",
            first_mail: "250 ok\r\n",
            rcpt: "250 ok\r\n",
            tls: None,
        }
    }
}

/// A scripted hop and the commands it saw, with `tls ` before those inside TLS; `open` at the beginning and `shut` at the end of each
/// connection. What it was sent between DATA and the dot stands among them as well, each as one text behind `mail `.
pub struct Hop {
    pub address: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Hop {
    /// Runs a script where there is room.
    pub fn new(script: Script) -> Self {
        Self::at("127.0.0.1:0", script)
    }

    /// Runs it at an address.
    pub fn at(address: &str, script: Script) -> Self {
        let listener = TcpListener::bind(address).expect("a loopback socket");
        let address = listener.local_addr().expect("bound").to_string();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let (told, mails) = (seen.clone(), Arc::new(Mutex::new(0)));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (told, script, mails) = (told.clone(), script.clone(), mails.clone());
                let note = move |line: String| told.lock().expect("whole").push(line);
                note(format!("open {}", stream.peer_addr().map(|a| a.ip().to_string()).unwrap_or_default()));
                std::thread::spawn(move || {
                    let _ = converse(stream, &script, &mails, &note);
                    note("shut".into());
                });
            }
        });
        Self { address, seen }
    }

    /// What it saw.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("whole").clone()
    }

    /// What it saw that begins so, when there is so much of it.
    pub fn wait(&self, beginning: &str, times: usize) -> Vec<String> {
        let seen = || self.seen().into_iter().filter(|s| s.starts_with(beginning)).collect::<Vec<_>>();
        super::process::wait_for(beginning, Duration::from_secs(60), || Some(seen()).filter(|s| s.len() >= times))
    }

    /// How many of what it saw begin so.
    pub fn count(&self, beginning: &str) -> usize {
        self.seen().iter().filter(|s| s.starts_with(beginning)).count()
    }

    /// Nothing of a message, and no login, was said where others can read it.
    pub fn assert_nothing_in_clear(&self) {
        let seen = self.seen();
        assert!(seen.iter().any(|s| s.starts_with("EHLO")), "{seen:?}");
        assert!(!seen.iter().any(|s| s.starts_with("MAIL") || s.starts_with("AUTH")), "{seen:?}");
    }
}

fn converse(mut stream: TcpStream, script: &Script, mails: &Mutex<u32>, note: &dyn Fn(String)) -> std::io::Result<()> {
    stream.write_all(script.greeting.as_bytes())?;
    if !script.greeting.starts_with("220") {
        // Whoever is turned away may say QUIT, or just go.
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let _ = BufReader::new(stream).read_line(&mut String::new());
        return Ok(());
    }
    let mut lines = BufReader::new(stream);
    if !talk(&mut lines, script, script.clear, "", mails, note)? {
        return Ok(());
    }
    let Some(config) = &script.tls else { return Ok(()) };
    let connection = ServerConnection::new(config.clone()).map_err(std::io::Error::other)?;
    let mut lines = BufReader::new(StreamOwned::new(connection, lines.into_inner()));
    talk(&mut lines, script, script.inside, "tls ", mails, note).map(|_| ())
}

/// True when TLS is to begin.
fn talk<S: Read + Write>(
    lines: &mut BufReader<S>,
    script: &Script,
    ehlo: &str,
    mark: &str,
    mails: &Mutex<u32>,
    note: &dyn Fn(String),
) -> std::io::Result<bool> {
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Ok(false);
        }
        note(format!("{mark}{}", line.trim_end()));
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let reply = match verb.as_str() {
            "EHLO" => ehlo.to_owned(),
            "STAR" => format!("220 go\r\n{}", script.injected),
            "AUTH" => script.auth.to_owned(),
            "MAIL" => {
                let mut mails = mails.lock().expect("whole");
                *mails += 1;
                if *mails == 1 { script.first_mail } else { "250 ok\r\n" }.to_owned()
            }
            "RCPT" => script.rcpt.to_owned(),
            "DATA" => {
                lines.get_mut().write_all(b"354 go\r\n")?;
                let mut text = b"mail ".to_vec();
                while !text.ends_with(b"\r\n.\r\n") {
                    if lines.read_until(b'\n', &mut text)? == 0 {
                        return Ok(false);
                    }
                }
                note(String::from_utf8_lossy(&text).into_owned());
                "250 2.0.0 kept\r\n".to_owned()
            }
            "QUIT" => {
                lines.get_mut().write_all(b"221 bye\r\n")?;
                return Ok(false);
            }
            _ => "250 ok\r\n".to_owned(),
        };
        lines.get_mut().write_all(reply.as_bytes())?;
        lines.get_mut().flush()?;
        if reply.starts_with("421") {
            return Ok(false);
        }
        if verb == "STAR" {
            return Ok(true);
        }
    }
}
