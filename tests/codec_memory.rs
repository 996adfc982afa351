//! What coding one message takes of memory, model and copy at work included: measured in a process of its own.
#![cfg(target_os = "linux")]

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Of a whole process, the program as it is built for tests included, which alone takes some ten.
const MOST_KIB: u64 = 72 * 1024;

#[test]
fn coding_one_message_takes_at_most_72_mib_either_way() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, message) in [("short", short()), ("long", long()), ("attached", attached())] {
        let path = |suffix: &str| folder.path().join(format!("{name}.{suffix}"));
        std::fs::write(path("eml"), &message).expect("written");
        let encoding = peak_kib("encode", &path("eml"), &path("air"));
        let decoding = peak_kib("decode", &path("air"), &path("back"));
        assert!(std::fs::read(path("back")).expect("decoded") == message, "{name} comes back");
        eprintln!("{name}, {} bytes: {encoding} KiB to encode, {decoding} to decode", message.len());
        assert!(encoding <= MOST_KIB && decoding <= MOST_KIB, "{name}: {encoding} and {decoding} KiB");
    }
}

/// The most that a run had in memory.
fn peak_kib(command: &str, from: &Path, to: &Path) -> u64 {
    let mut child = Command::new(env!("CARGO_BIN_EXE_aldis"))
        .args(["codec", command])
        .args([from, to])
        .spawn()
        .expect("the program starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let words = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).map(str::split_whitespace);
        peak = words.and_then(|mut words| words.next()?.parse().ok()).unwrap_or(peak);
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            assert!(status.success(), "{command} {}", from.display());
            return peak;
        }
        #[expect(clippy::disallowed_methods, reason = "another process is watched")]
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn lines(bytes: usize) -> Vec<u8> {
    const WORDS: [&str; 12] =
        ["convoy", "harbour", "fuel", "the", "of", "weather", "request", "report", "north", "arrived", "repair", "and"];
    let mut state = 7u64;
    let mut text = Vec::new();
    while text.len() < bytes {
        for _ in 0..10 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.extend_from_slice(WORDS[(state >> 33) as usize % WORDS.len()].as_bytes());
            text.extend_from_slice(format!(" {} ", (state >> 40) % 1000).as_bytes());
        }
        text.extend_from_slice(b"\r\n");
    }
    text.truncate(bytes);
    text
}

fn short() -> Vec<u8> {
    [b"From: a@ship.example\r\nTo: b@shore.example\r\nSubject: stores\r\n\r\n".as_slice(), &lines(5_000)].concat()
}

fn long() -> Vec<u8> {
    [b"From: a@ship.example\r\nTo: b@shore.example\r\nSubject: log\r\n\r\n".as_slice(), &lines(100 * 1024)].concat()
}

/// A file that holds deflated text, in base64.
fn attached() -> Vec<u8> {
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(&lines(220 * 1024)).expect("to memory");
    let coded = data_encoding::BASE64.encode(&zlib.finish().expect("to memory"));
    let mut mail = b"From: a@ship.example\r\nTo: b@shore.example\r\nSubject: file\r\nMIME-Version: 1.0\r\n\
        Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        .to_vec();
    for line in coded.as_bytes().chunks(76) {
        mail.extend_from_slice(line);
        mail.extend_from_slice(b"\r\n");
    }
    mail
}
