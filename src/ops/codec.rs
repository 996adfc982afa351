//! `aldis codec`: the air codec on files, for measurements and for opening what was kept of a damaged link.
//!
//! A pure function of the files it is given: no state, no network, and a profile only where `explain` is given one. OUT is the
//! exact link payload of a message without envelope and frames.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::codec::explain::{Cost, explain};
use crate::codec::history::History;
use crate::codec::payload::{Choice, Options};
use crate::codec::train;
use crate::codec::{decode_file_payload, encode_file_payload};
use crate::config;
use crate::units::{Bps, Bytes};

use super::document::{CodecAir, CodecCost, CodecExplain, CodecSection};
use super::print::table;

/// Largest file read or written.
const MOST: usize = 256 << 20;

/// What to do.
#[derive(Subcommand, Clone, PartialEq, Debug)]
pub enum CodecCommand {
    /// Write the link payload of a message
    Encode {
        #[command(flatten)]
        files: Files,
    },
    /// Write the message of a link payload
    Decode {
        #[command(flatten)]
        files: Files,
    },
    /// Say what each section of a message costs, how it is coded, and how long that takes
    Explain(ExplainArgs),
    /// Make a dictionary of a site's own mail, for --dict at both ends; phrases of the mail stand in it
    Train(TrainArgs),
}

/// From what.
#[derive(Args, Clone, PartialEq, Debug)]
pub struct TrainArgs {
    /// A Maildir, or a folder of *.eml
    #[arg(value_name = "MAILDIR")]
    maildir: PathBuf,
    /// The dictionary to write
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Its size, from 4KiB to 128KiB
    #[arg(long, value_name = "N", default_value = "64KiB", value_parser = dictionary_size)]
    size: Bytes,
}

/// What there is to say afterwards.
#[derive(Debug)]
pub enum Answer {
    /// What `explain` found.
    Explained(CodecExplain),
    /// What `train` made, for people.
    Trained(String),
}

/// Of what.
#[derive(Args, Clone, PartialEq, Debug)]
pub struct ExplainArgs {
    /// The message
    #[arg(value_name = "IN")]
    input: PathBuf,
    #[command(flatten)]
    shared: Shared,
    /// Say how long the payload takes at this rate, such as 300bps; may be given again
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Vec<Bps>,
    /// Say how long it takes on the bearers of this profile
    #[arg(long, value_name = "PROFILE")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// With which files.
#[derive(Args, Clone, PartialEq, Debug)]
pub struct Files {
    /// What to read
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// What to write
    #[arg(value_name = "OUT")]
    output: PathBuf,
    #[command(flatten)]
    shared: Shared,
}

/// What both ends hold.
#[derive(Args, Clone, PartialEq, Debug)]
struct Shared {
    /// A dictionary both ends hold, read behind the shipped one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["newest", "any_peer"])]
    dict: Option<PathBuf>,
    /// With what every node reads, as to a peer of which nothing is known
    #[arg(long)]
    any_peer: bool,
    /// With the newest dictionary and model: the default
    #[arg(long, hide = true, conflicts_with = "any_peer")]
    newest: bool,
    /// Earlier messages both ends hold: the *.eml of this folder in the order of their names
    #[arg(long, value_name = "DIRECTORY")]
    history: Option<PathBuf>,
}

/// Does it; the error is in an operator's words.
pub fn execute(command: &CodecCommand) -> Result<Option<Answer>, String> {
    match command {
        CodecCommand::Encode { files } => {
            let message = read(&files.input)?;
            files.write(&files.shared.with(|options| Ok(encode_file_payload(&message, options)))?)
        }
        CodecCommand::Decode { files } => {
            let payload = read(&files.input)?;
            let cannot = |e| format!("{} cannot be decoded: {e}", files.input.display());
            files.write(&files.shared.with(|options| decode_file_payload(&payload, MOST, options).map_err(cannot))?)
        }
        CodecCommand::Explain(args) => {
            let message = read(&args.input)?;
            let explained = args.shared.with(|options| explained(&message, options, args))?;
            Ok(Some(Answer::Explained(explained)))
        }
        CodecCommand::Train(args) => trained(args).map(|said| Some(Answer::Trained(said))),
    }
}

impl Files {
    fn write(&self, bytes: &[u8]) -> Result<Option<Answer>, String> {
        fs::write(&self.output, bytes).map_err(|e| format!("cannot write {}: {e}", self.output.display()))?;
        Ok(None)
    }
}

impl Shared {
    /// Runs with what these files give.
    fn with<T>(&self, run: impl FnOnce(&Options<'_>) -> Result<T, String>) -> Result<T, String> {
        let dictionary = self.dict.as_deref().map(read).transpose()?;
        let history = self.history.as_deref().map(messages).transpose()?.unwrap_or_default();
        let history: Vec<&[u8]> = history.iter().map(Vec::as_slice).collect();
        let shipped = if self.any_peer { Options::for_any_peer().dictionary } else { Choice::Newest };
        let dictionary = dictionary.as_deref().map_or(shipped, Choice::Given);
        run(&Options { dictionary, history: History::Given(&history) })
    }
}

fn rate(text: &str) -> Result<Bps, String> {
    Bps::parse(text).ok_or_else(|| "a rate such as 300bps or 9.6kbps".into())
}

fn dictionary_size(text: &str) -> Result<Bytes, String> {
    let sized = Bytes::parse(text).filter(|size| usize::try_from(size.0).is_ok_and(|n| train::SIZES.contains(&n)));
    sized.ok_or_else(|| "a size from 4KiB to 128KiB".into())
}

/// Makes a dictionary of the messages in a folder.
fn trained(args: &TrainArgs) -> Result<String, String> {
    let mut files = Vec::new();
    for folder in [args.maildir.clone(), args.maildir.join("cur"), args.maildir.join("new")] {
        let within_maildir = folder != args.maildir;
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(_) if within_maildir => continue,
            Err(e) => return Err(format!("cannot read {}: {e}", folder.display())),
        };
        let paths = entries.flatten().map(|entry| entry.path());
        files.extend(paths.filter(|p| p.is_file() && (within_maildir || p.extension().is_some_and(|e| e == "eml"))));
    }
    // By name: names in a Maildir begin with the time.
    files.sort_by(|a, b| a.file_name().cmp(&b.file_name()).then_with(|| a.cmp(b)));
    let newest = files.len().saturating_sub(MOST_TRAINED);
    let messages = files[newest..].iter().map(|file| head(file)).collect::<Result<Vec<_>, _>>()?;
    let size = usize::try_from(args.size.0).map_err(|_| "the size is too large")?;
    let trained = train::train(&messages, size).map_err(|e| format!("{}: {e}", args.maildir.display()))?;
    fs::write(&args.output, &trained.dictionary).map_err(|e| format!("cannot write {}: {e}", args.output.display()))?;
    let mean = |bytes: usize| bytes as f64 / trained.measured.max(1) as f64;
    Ok(format!(
        "{} bytes written, made from {} messages\n\
         {} of them held out on trial: {:.0} bytes each, {:.0} with the shipped dictionary, {:.0} with this one behind it\n\
         phrases and addresses of this mail stand in the file in the clear: guard it like the mail\n",
        trained.dictionary.len(),
        trained.messages,
        trained.measured,
        mean(trained.plain_bytes),
        mean(trained.without_bytes),
        mean(trained.with_bytes),
    ))
}

/// The newest so many messages are learned from, and of each so many bytes are read.
const MOST_TRAINED: usize = 20_000;
const MOST_OF_EACH: u64 = 64 * 1024;

fn head(path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |e| format!("cannot read {}: {e}", path.display());
    let mut head = Vec::new();
    fs::File::open(path).map_err(cannot)?.take(MOST_OF_EACH).read_to_end(&mut head).map_err(cannot)?;
    Ok(head)
}

fn explained(message: &[u8], options: &Options<'_>, args: &ExplainArgs) -> Result<CodecExplain, String> {
    let explained = explain(&[], message, options);
    let payload_bytes = explained.payload_bytes;
    let mut bearers: Vec<CodecAir> = args
        .rate
        .iter()
        .map(|rate| CodecAir { bearer: rate.to_string(), air_s: rate.airtime(payload_bytes as u64).as_secs_f64() })
        .collect();
    if let Some(profile) = &args.config {
        let plan = config::check(profile, &[]).map_err(|problems| {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            format!("{} is no sound profile: {}", profile.display(), problems.join("; "))
        })?;
        bearers.extend(plan.bearers.iter().map(|bearer| CodecAir {
            bearer: bearer.id.to_string(),
            air_s: bearer.predicted_air(payload_bytes as u64).as_secs_f64(),
        }));
    }
    let costs = |costs: Vec<Cost>| -> Vec<CodecCost> {
        costs.into_iter().map(|c| CodecCost { coding: c.coding, bytes: c.bytes }).collect()
    };
    let section = |s: crate::codec::explain::Section| CodecSection {
        name: s.name,
        bytes: s.bytes,
        payload_bytes: s.coded_bytes,
        coding: s.coding,
        otherwise: costs(s.otherwise),
    };
    Ok(CodecExplain {
        schema: CodecExplain::SCHEMA,
        message_bytes: message.len(),
        payload_bytes,
        coding: explained.coding,
        otherwise: costs(explained.otherwise),
        sections: explained.sections.into_iter().map(section).collect(),
        bearers,
    })
}

impl CodecExplain {
    /// The same for people.
    pub fn text(&self) -> String {
        let row = |name: &str, bytes: usize, coded: usize, coding: &str, otherwise: &[CodecCost]| {
            let otherwise: Vec<String> = otherwise.iter().map(|c| format!("{} {}", c.bytes, c.coding)).collect();
            vec![name.to_owned(), bytes.to_string(), coded.to_string(), coding.to_owned(), otherwise.join("; ")]
        };
        let heads = ["SECTION", "BYTES", "PAYLOAD", "CODED BY", "OTHERWISE"].map(str::to_owned).to_vec();
        let sections = self.sections.iter().map(|s| row(&s.name, s.bytes, s.payload_bytes, &s.coding, &s.otherwise));
        let whole = row("message", self.message_bytes, self.payload_bytes, &self.coding, &self.otherwise);
        let mut text = table([heads].into_iter().chain(sections).chain([whole]).collect());
        if !self.bearers.is_empty() {
            text.push('\n');
            let heads = ["BEARER", "SECONDS"].map(str::to_owned).to_vec();
            let bearers = self.bearers.iter().map(|b| vec![b.bearer.clone(), format!("{:.1}", b.air_s)]);
            text += &table([heads].into_iter().chain(bearers).collect());
        }
        text
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let bytes = fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    match bytes.len() <= MOST {
        true => Ok(bytes),
        false => Err(format!("{} is larger than {MOST} bytes", path.display())),
    }
}

fn messages(folder: &Path) -> Result<Vec<Vec<u8>>, String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("cannot read {}: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "eml")).collect();
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::repertoire::Repertoire;

    #[test]
    fn what_is_encoded_decodes_to_the_same_bytes_and_history_makes_it_smaller() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let mail = b"Subject: fuel\r\n\r\nThe lighter with the blue pendant comes alongside at 0615, berth seven.\r\n";
        fs::write(path("in"), mail).expect("written");
        fs::create_dir(path("history")).expect("made");
        fs::write(path("history").join("1.eml"), mail).expect("written");
        let files = |input: &str, output: &str, history: bool| Files {
            input: path(input),
            output: path(output),
            shared: Shared { dict: None, any_peer: false, newest: false, history: history.then(|| path("history")) },
        };
        for history in [false, true] {
            let out = format!("out{history}");
            execute(&CodecCommand::Encode { files: files("in", &out, history) }).expect("encoded");
            execute(&CodecCommand::Decode { files: files(&out, "back", history) }).expect("decoded");
            assert_eq!(fs::read(path("back")).expect("read"), mail);
        }
        let size = |name: &str| fs::metadata(path(name)).expect("there").len();
        assert!(size("outtrue") < size("outfalse") && size("outfalse") < mail.len() as u64);
        let sent = encode_file_payload(mail, &Options::for_peer(Repertoire::own(false)));
        assert_eq!(fs::read(path("outfalse")).expect("read"), sent, "what a node sends to one like it");
        let mut any = files("in", "any", false);
        any.shared.any_peer = true;
        execute(&CodecCommand::Encode { files: any }).expect("encoded");
        assert_eq!(fs::read(path("any")).expect("read"), encode_file_payload(mail, &Options::for_any_peer()));
        execute(&CodecCommand::Decode { files: files("any", "back", false) }).expect("every node reads it");
        assert_eq!(fs::read(path("back")).expect("read"), mail);
        assert!(execute(&CodecCommand::Decode { files: files("in", "x", false) }).is_err(), "mail is no payload");
    }

    #[test]
    fn explain_says_what_a_payload_takes_at_a_rate() {
        let folder = tempfile::tempdir().expect("a folder");
        let input = folder.path().join("in");
        fs::write(&input, b"Subject: fuel\r\n\r\nThe lighter comes alongside at 0615.\r\n").expect("written");
        let shared = Shared { dict: None, any_peer: false, newest: false, history: None };
        let args = ExplainArgs { input, shared, rate: vec![Bps(80)], config: None, json: false };
        let command = CodecCommand::Explain(args.clone());
        let Ok(Some(Answer::Explained(explained))) = execute(&command) else { panic!("explained") };
        assert_eq!(explained.message_bytes, 55);
        assert_eq!(explained.bearers.len(), 1);
        assert!((explained.bearers[0].air_s * 10.0 - explained.payload_bytes as f64).abs() < 1e-6);
        assert!(explained.text().starts_with("SECTION"));
        let missing = ExplainArgs { config: Some(folder.path().join("none")), ..args };
        assert!(execute(&CodecCommand::Explain(missing)).is_err());
    }

    #[test]
    fn a_maildir_gives_a_dictionary_that_both_ends_can_use_and_too_few_messages_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for part in ["cur", "new"] {
            fs::create_dir(path(part)).expect("made");
        }
        let mail = |i: usize| {
            let words: Vec<String> = (0..20).map(|k| format!("kvartal{:x}", (i * 97 + k).pow(3) % 9973)).collect();
            format!("Subject: Uke {i}\n\nMelding fra Ytre Stasjon, vakt {}.\n{}\n", i % 5, words.join(" "))
        };
        let args = TrainArgs { maildir: folder.path().into(), output: path("dict"), size: Bytes(4096) };
        let train = CodecCommand::Train(args);
        fs::write(path("cur").join("100.a"), mail(0)).expect("written");
        let error = execute(&train).expect_err("one message");
        assert!(error.contains("1 messages are too few"), "{error}");
        for i in 1..60 {
            let part = if i < 40 { "cur" } else { "new" };
            fs::write(path(part).join(format!("{}.a", 100 + i)), mail(i)).expect("written");
        }
        let Ok(Some(Answer::Trained(said))) = execute(&train) else { panic!("trained") };
        assert!(said.contains("60 messages") && said.contains("6 of them"), "{said}");
        fs::write(path("in"), mail(61).replace('\n', "\r\n")).expect("written");
        let shared =
            |dict: Option<&str>| Shared { dict: dict.map(path), any_peer: false, newest: false, history: None };
        let files = |a: &str, b: &str, dict| Files { input: path(a), output: path(b), shared: shared(dict) };
        execute(&CodecCommand::Encode { files: files("in", "out", Some("dict")) }).expect("encoded");
        execute(&CodecCommand::Decode { files: files("out", "back", Some("dict")) }).expect("decoded");
        assert_eq!(fs::read(path("back")).expect("read"), fs::read(path("in")).expect("read"));
        assert!(execute(&CodecCommand::Decode { files: files("out", "x", None) }).is_err(), "without it");
    }
}
