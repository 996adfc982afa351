//! An SMTP client that knows exactly what it was promised.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What became of one submission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// The 250 to the final dot was read: the node has it now.
    Promised,
    /// Another answer was read: the client keeps it.
    Refused(String),
    /// The connection broke before the final dot was sent: the node cannot have it.
    NotSent,
    /// The connection broke after the final dot and before its answer: nobody knows.
    Unknown,
}

/// A place inside a submission, told as it is passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// MAIL is sent.
    Mail,
    /// Half of the content is sent.
    Content,
    /// The final dot is sent; its answer is not read yet.
    Dot,
}

/// How long one answer may take before the node counts as hung.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that says EHLO and then submits one message after the other.
pub struct Client {
    stream: TcpStream,
}

impl Client {
    /// Connects and greets.
    pub fn open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream };
        client.expect("", '2')?;
        client.expect("EHLO client.example\r\n", '2')?;
        Ok(client)
    }

    /// Submits one message. A node that answers nothing at all for long is a failure of the test, not a broken connection.
    pub fn submit(&mut self, from: &str, to: &str, priority: i8, message: &[u8]) -> Told {
        self.submit_telling(from, to, priority, message, |_| ())
    }

    /// The same; `passed` hears of each moment and may hold the submission up there.
    pub fn submit_telling(
        &mut self,
        from: &str,
        to: &str,
        priority: i8,
        message: &[u8],
        mut passed: impl FnMut(Moment),
    ) -> Told {
        let steps = [
            (format!("MAIL FROM:<{from}> BODY=8BITMIME MT-PRIORITY={priority}\r\n"), '2'),
            (format!("RCPT TO:<{to}> NOTIFY=NEVER\r\n"), '2'),
            ("DATA\r\n".to_owned(), '3'),
        ];
        for (line, wanted) in steps {
            let sent = self.stream.write_all(line.as_bytes());
            if line.starts_with("MAIL") {
                passed(Moment::Mail);
            }
            match sent.and_then(|()| self.answer()) {
                Ok(answer) if answer.starts_with(wanted) => {}
                Ok(answer) => return Told::Refused(answer),
                Err(error) => return broken(&error, Told::NotSent),
            }
        }
        let mut data = Vec::with_capacity(message.len() + 16);
        for line in message.split_inclusive(|b| *b == b'\n') {
            if line.first() == Some(&b'.') {
                data.push(b'.');
            }
            data.extend(line);
        }
        let (first, second) = data.split_at(data.len() / 2);
        let first = self.stream.write_all(first);
        passed(Moment::Content);
        if let Err(error) = first.and_then(|()| self.stream.write_all(second)) {
            return broken(&error, Told::NotSent);
        }
        let dot = self.stream.write_all(b".\r\n");
        passed(Moment::Dot);
        match dot.and_then(|()| self.answer()) {
            Ok(answer) if answer.starts_with("250") => Told::Promised,
            Ok(answer) => Told::Refused(answer),
            Err(error) => broken(&error, Told::Unknown),
        }
    }

    fn expect(&mut self, line: &str, wanted: char) -> io::Result<String> {
        self.stream.write_all(line.as_bytes())?;
        let answer = self.answer()?;
        if line.is_empty() && !answer.starts_with(wanted) {
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, answer));
        }
        Ok(answer)
    }

    /// The last line of the next answer.
    fn answer(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            if self.stream.read(&mut byte)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            line.push(byte[0]);
            if byte[0] == b'\n' {
                if line.get(3) != Some(&b'-') {
                    return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
                }
                line.clear();
            }
        }
    }
}

fn broken(error: &io::Error, told: Told) -> Told {
    let hung = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
    assert!(!hung, "no answer within {PATIENCE:?}: the node hangs");
    told
}
