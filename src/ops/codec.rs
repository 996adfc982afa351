//! `aldis codec`: the air codec on files, for measurements and for opening what was kept of a damaged link.
//!
//! A pure function of the files it is given: no state, no network, and a profile only where `explain` is given one. OUT is the
//! exact link payload of a message without envelope and frames.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::codec::explain::{Cost, explain};
use crate::codec::history::History;
use crate::codec::payload::{Choice, Options};
use crate::codec::{decode_file_payload, encode_file_payload};
use crate::config;
use crate::units::Bps;

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
    /// A dictionary both ends hold, instead of the shipped one
    #[arg(long, value_name = "FILE", conflicts_with = "newest")]
    dict: Option<PathBuf>,
    /// With the newest dictionary and model, as to a peer that has said that it reads them
    #[arg(long)]
    newest: bool,
    /// Earlier messages both ends hold: the *.eml of this folder in the order of their names
    #[arg(long, value_name = "DIRECTORY")]
    history: Option<PathBuf>,
}

/// Does it; the error is in an operator's words. Of `explain` the answer is returned.
pub fn execute(command: &CodecCommand) -> Result<Option<CodecExplain>, String> {
    let (input, shared) = match command {
        CodecCommand::Encode { files } | CodecCommand::Decode { files } => (&files.input, &files.shared),
        CodecCommand::Explain(args) => (&args.input, &args.shared),
    };
    let bytes = read(input)?;
    let dictionary = shared.dict.as_deref().map(read).transpose()?;
    let history = shared.history.as_deref().map(messages).transpose()?.unwrap_or_default();
    let history: Vec<&[u8]> = history.iter().map(Vec::as_slice).collect();
    let shipped = if shared.newest { Choice::Newest } else { Options::for_any_peer().dictionary };
    let options =
        Options { dictionary: dictionary.as_deref().map_or(shipped, Choice::Given), history: History::Given(&history) };
    let (output, files) = match command {
        CodecCommand::Encode { files } => (encode_file_payload(&bytes, &options), files),
        CodecCommand::Decode { files } => {
            let cannot = |e| format!("{} cannot be decoded: {e}", input.display());
            (decode_file_payload(&bytes, MOST, &options).map_err(cannot)?, files)
        }
        CodecCommand::Explain(args) => return explained(&bytes, &options, args).map(Some),
    };
    fs::write(&files.output, output).map_err(|e| format!("cannot write {}: {e}", files.output.display()))?;
    Ok(None)
}

fn rate(text: &str) -> Result<Bps, String> {
    Bps::parse(text).ok_or_else(|| "a rate such as 300bps or 9.6kbps".into())
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
            shared: Shared { dict: None, newest: false, history: history.then(|| path("history")) },
        };
        for history in [false, true] {
            let out = format!("out{history}");
            execute(&CodecCommand::Encode { files: files("in", &out, history) }).expect("encoded");
            execute(&CodecCommand::Decode { files: files(&out, "back", history) }).expect("decoded");
            assert_eq!(fs::read(path("back")).expect("read"), mail);
        }
        let size = |name: &str| fs::metadata(path(name)).expect("there").len();
        assert!(size("outtrue") < size("outfalse") && size("outfalse") < mail.len() as u64);
        let sent = encode_file_payload(mail, &Options::for_any_peer());
        assert_eq!(fs::read(path("outfalse")).expect("read"), sent, "what a node would send");
        let mut newest = files("in", "newest", false);
        newest.shared.newest = true;
        execute(&CodecCommand::Encode { files: newest }).expect("encoded");
        execute(&CodecCommand::Decode { files: files("newest", "back", false) }).expect("every node reads it");
        assert_eq!(fs::read(path("back")).expect("read"), mail);
        assert!(execute(&CodecCommand::Decode { files: files("in", "x", false) }).is_err(), "mail is no payload");
    }

    #[test]
    fn explain_says_what_a_payload_takes_at_a_rate() {
        let folder = tempfile::tempdir().expect("a folder");
        let input = folder.path().join("in");
        fs::write(&input, b"Subject: fuel\r\n\r\nThe lighter comes alongside at 0615.\r\n").expect("written");
        let shared = Shared { dict: None, newest: false, history: None };
        let args = ExplainArgs { input, shared, rate: vec![Bps(80)], config: None, json: false };
        let command = CodecCommand::Explain(args.clone());
        let explained = execute(&command).expect("explained").expect("an answer");
        assert_eq!(explained.message_bytes, 55);
        assert_eq!(explained.bearers.len(), 1);
        assert!((explained.bearers[0].air_s * 10.0 - explained.payload_bytes as f64).abs() < 1e-6);
        assert!(explained.text().starts_with("SECTION"));
        let missing = ExplainArgs { config: Some(folder.path().join("none")), ..args };
        assert!(execute(&CodecCommand::Explain(missing)).is_err());
    }
}
