//! Mail to measure the codec on: what made the dictionaries knows nothing of it.
//!
//! Other authors, people, domains, mail programs and sentences than in `examples/dictionary/` and the trainer; sentences are drawn without
//! repetition. Never tune on it. [`found`] adds real messages where Cargo has unpacked a crate that brings some for its tests.

mod sentences;
mod shapes;

use std::path::Path;

/// One message of a class.
pub struct Mail {
    /// Who sent it.
    pub from: String,
    /// To whom.
    pub to: Vec<String>,
    /// Header and body.
    pub body: Vec<u8>,
    /// What both ends hold already: the message it answers.
    pub parent: Option<Vec<u8>>,
}

/// Messages of one kind.
pub struct Class {
    /// Its name in the table.
    pub name: &'static str,
    /// The messages.
    pub mails: Vec<Mail>,
}

/// All invented classes, the same at every run.
pub fn invented(each: usize) -> Vec<Class> {
    let class = |name, make: fn(&mut Draw) -> Mail| {
        let mut draw = Draw(0x0DD5_EED5 ^ each as u64);
        Class { name, mails: (0..each).map(|_| make(&mut draw)).collect() }
    };
    vec![
        class("short text, military headers", shapes::military),
        class("text of 5 KB", shapes::long_text),
        class("HTML of 5 KB", shapes::html),
        class("reply quoting a delivered message", shapes::reply),
        class("first contact, other language", shapes::foreign),
    ]
}

/// Ten messages each of three classes, written before dictionary 3 and in the manner of none of the others: letters, reports, newsletters, with the
/// header fields and HTML that programs write. No dictionary and no weight was made of them.
pub fn aside() -> Vec<Class> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/corpus/aside");
    let class = |name, folder: std::path::PathBuf| {
        let mail = |number| {
            let body = std::fs::read(folder.join(format!("{number:02}.eml"))).expect("part of the sources");
            Mail { from: "someone@example.edu".into(), to: vec!["another@example.edu".into()], body, parent: None }
        };
        Class { name, mails: (0..10).map(mail).collect() }
    };
    vec![
        class("set aside: military", folder.join("mil")),
        class("set aside: letters and reports", folder.join("long")),
        class("set aside: HTML", folder.join("html")),
    ]
}

/// Real messages in the test data of crates that Cargo has unpacked; empty where there are none.
pub fn found(sources: &Path) -> Class {
    let mut mails = Vec::new();
    for folder in ["mail-parser-0.11.9/resources/eml/thirdparty", "mail-parser-0.11.9/resources/eml/legacy"] {
        let Ok(entries) = std::fs::read_dir(sources.join(folder)) else { continue };
        let mut names: Vec<_> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
        names.sort();
        for name in names.iter().filter(|name| name.extension().is_some_and(|e| e == "eml")) {
            let Ok(bytes) = std::fs::read(name) else { continue };
            // Mail on the wire has CRLF; the files of this folder are kept with LF.
            let body: Vec<u8> = bytes
                .iter()
                .enumerate()
                .flat_map(|(i, b)| match b {
                    b'\n' if i == 0 || bytes[i - 1] != b'\r' => vec![b'\r', b'\n'],
                    b => vec![*b],
                })
                .collect();
            if (300..16_000).contains(&body.len()) {
                let from = "someone@example.edu".into();
                mails.push(Mail { from, to: vec!["another@example.edu".into()], body, parent: None });
            }
        }
    }
    Class { name: "real mail of a parser's tests", mails }
}

/// Chance of its own.
pub struct Draw(u64);

impl Draw {
    /// Less than `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn drawn(&mut self, set: &str, n: usize) -> String {
        (0..n).map(|_| char::from(set.as_bytes()[self.below(set.len())])).collect()
    }

    fn hex(&mut self, n: usize) -> String {
        self.drawn("0123456789abcdef", n)
    }

    fn base64(&mut self, n: usize) -> String {
        self.drawn("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", n)
    }

    /// Some of the sentences in any order, none twice, their slots filled.
    fn sentences(&mut self, of: &[&str], n: usize) -> Vec<String> {
        let mut left: Vec<&str> = of.to_vec();
        (0..n.min(left.len()))
            .map(|_| {
                let at = self.below(left.len());
                let sentence = left.swap_remove(at);
                self.filled(sentence)
            })
            .collect()
    }

    fn filled(&mut self, sentence: &str) -> String {
        let mut out = String::new();
        for c in sentence.chars() {
            match c {
                '#' => out.push_str(&(1 + self.below(9)).to_string()),
                '~' => out.push_str(self.one(&sentences::THINGS)),
                '^' => out.push_str(self.one(&sentences::PLACES)),
                '|' => out.push_str(self.one(&sentences::PEOPLE)),
                c => out.push(c),
            }
        }
        out
    }
}
