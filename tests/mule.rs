//! MULE payloads: the vectors of docs/mule.md, other readers of ASN.1 and zlib, and what is not a payload.

#[path = "common/process.rs"]
mod process;

use std::collections::BTreeSet;

use aldis::codec::mule::{self, BsmtpError, CompressedError, Letter, MuleError, Tagging, compressed};
use data_encoding::HEXLOWER;
use process::{have, root, run};
use proptest::prelude::*;

const LIMIT: usize = 1 << 20;

/// Form and bytes of each row of the page.
fn vectors() -> Vec<(String, Vec<u8>)> {
    let page = include_str!("../docs/mule.md");
    let (_, table) = page.split_once("| form | bytes |").expect("the table");
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        (cells[1].to_owned(), HEXLOWER.decode(cells[2].trim_matches('`').as_bytes()).expect("hex"))
    };
    table.lines().filter(|line| line.contains('`')).map(row).collect()
}

fn letter(text: &str) -> Letter {
    Letter::read(text.as_bytes()).expect("an envelope").0
}

/// A letter with every parameter, and a content of every octet.
fn full() -> (Letter, Vec<u8>) {
    let text = "<ops@ship.example> SIZE=4096 BODY=BINARYMIME RET=FULL ENVID=q+2B1 MT-PRIORITY=-4 BY=120;NT AUTH=<>\r\n\
        <watch@shore.example> NOTIFY=FAILURE,DELAY ORCPT=rfc822;watch@shore.example\r\n<\"a b\"@shore.example>\r\n\r\n";
    (letter(text), (0..4096u32).map(|i| (i ^ (i >> 8)) as u8).collect())
}

#[test]
fn every_vector_opens_to_the_same_letter() {
    let vectors = vectors();
    let [(_, text), wrapped @ ..] = &vectors[..] else { panic!("no vectors") };
    let (letter, length) = Letter::read(text).expect("an envelope");
    assert_eq!(wrapped.len(), 2);
    for (form, bytes) in wrapped {
        let opened = mule::decode(bytes, LIMIT).expect(form);
        assert_eq!((&opened.letter, &opened.content[..], opened.junk), (&letter, &text[length..], 0), "{form}");
        let stream = compressed::unwrap(bytes).expect(form).content;
        let tagging = if form == "explicit" { Tagging::Explicit } else { Tagging::Implicit };
        assert_eq!(&compressed::wrap(mule::CONTENT_TYPE, &stream, tagging), bytes, "{form}");
        assert_eq!(mule::decode(&[bytes, &b"junk"[..]].concat(), LIMIT).map(|o| o.junk), Ok(4));
    }
    assert_eq!(mule::pmul_priority(letter.mt_priority), 2);
}

#[test]
fn pyasn1_and_openssl_open_what_is_made() {
    if !have(&["python3", "openssl"]) {
        return;
    }
    if !run(60, "python3", &["-c", "import pyasn1"]).status.success() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "python3-pyasn1 is not installed");
        println!("skip: python3-pyasn1 is not installed");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let script = root().join("tests/peers/open_mule.py").display().to_string();
    let (long, content) = full();
    let letters = [(letter("<>\r\n<b@y>\r\n\r\n"), b"".to_vec()), (long, content)];
    for (tagging, name) in [(Tagging::Explicit, "explicit"), (Tagging::Implicit, "implicit")] {
        for (letter, content) in &letters {
            let path = directory.path().join("payload").display().to_string();
            std::fs::write(&path, mule::encode(letter, content, tagging).expect("made")).expect("written");
            let output = run(60, "python3", &[&script, name, &path]);
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            let text = [letter.write().expect("text"), content.clone()].concat();
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), HEXLOWER.encode(&text));

            let output = run(60, "openssl", &["asn1parse", "-inform", "DER", "-in", &path]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let tree = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(tree.matches("SEQUENCE").count(), 2, "{tree}");
            assert_eq!(tree.matches("OCTET STRING").count(), 1, "{tree}");
            // By this reader an implicit choice is a context tag and nothing more.
            let integers = if tagging == Tagging::Explicit { 2 } else { 0 };
            assert_eq!(tree.matches("INTEGER").count(), integers, "{tree}");
        }
        // The reader notices a structure of the other kind.
        let other = if name == "explicit" { "implicit" } else { "explicit" };
        let path = directory.path().join("payload").display().to_string();
        assert!(!run(60, "python3", &[&script, other, &path]).status.success());
    }
}

#[test]
fn what_cannot_be_opened_says_why() {
    let (letter, content) = full();
    let whole = mule::encode(&letter, &content, Tagging::Explicit).expect("made");
    assert_eq!(mule::decode(&whole, 4000), Err(MuleError::Compressed(CompressedError::TooLarge(4000))));
    let x400 = compressed::wrap(2, &compressed::deflate(b"x"), Tagging::Implicit);
    let named = mule::decode(&x400, LIMIT).expect_err("X.400");
    assert_eq!((named.name(), named.to_string().as_str()), ("content_type", "content type 2 is not mail (25)"));
    let headless = compressed::wrap(25, &compressed::deflate(b"<a@x>\r\n\r\nhi"), Tagging::Explicit);
    assert_eq!(mule::decode(&headless, LIMIT), Err(MuleError::Bsmtp(BsmtpError::NoRecipient)));
    for length in 0..whole.len() {
        assert_eq!(mule::decode(&whole[..length], LIMIT), Err(MuleError::Compressed(CompressedError::Cut)));
    }
    let bomb = compressed::wrap(25, &compressed::deflate(&vec![b'a'; 50 << 20]), Tagging::Explicit);
    assert!(bomb.len() < 60_000);
    assert_eq!(mule::decode(&bomb, LIMIT), Err(MuleError::Compressed(CompressedError::TooLarge(LIMIT))));
}

#[test]
fn a_damaged_payload_is_never_another_letter() {
    let (letter, _) = full();
    let content = b"Subject: noon\r\n\r\nAll well on board at noon, 57 10 N 11 20 E, wind NW 5, all well.\r\n".to_vec();
    let whole = mule::encode(&letter, &content, Tagging::Explicit).expect("made");
    let mut harmless = BTreeSet::new();
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(opened) = mule::decode(&damaged, LIMIT) {
            assert!(opened.letter == letter && opened.content == content, "bit {bit}");
            harmless.insert(bit / 8);
        }
    }
    // The level in zlib's header is only told.
    assert!(harmless.len() <= 3, "{harmless:?}");
}

proptest! {
    #[test]
    fn any_text_is_refused_or_comes_back(text in "(<[a-c@.\" ]{0,6}>( (SIZE|BODY|RET|BY|X|NOTIFY)(=[0-9A-Z;,]{0,4})?){0,2}\r?\n){0,3}\r?\n.{0,5}") {
        if let Ok((letter, length)) = Letter::read(text.as_bytes()) {
            let written = letter.write().expect("what was read can be written");
            let (again, _) = Letter::read(&written).expect("and read");
            prop_assert_eq!(again, letter);
            prop_assert!(length <= text.len());
        }
    }
}
