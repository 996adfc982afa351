//! `aldis codec`: the air codec on files, for measurements and for opening what was kept of a damaged link.
//!
//! A pure function of the files it is given: no profile, no state, no network. OUT is the exact link payload of a message without
//! envelope and frames.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::codec::payload::{Choice, Options};
use crate::codec::{decode_file_payload, encode_file_payload};

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
    /// A dictionary both ends hold, instead of the shipped one
    #[arg(long, value_name = "FILE")]
    dict: Option<PathBuf>,
    /// Earlier messages both ends hold: the *.eml of this folder in the order of their names
    #[arg(long, value_name = "DIRECTORY")]
    history: Option<PathBuf>,
}

/// Does it; the error is in an operator's words.
pub fn execute(command: &CodecCommand) -> Result<(), String> {
    let (CodecCommand::Encode { files } | CodecCommand::Decode { files }) = command;
    let input = read(&files.input)?;
    let dictionary = files.dict.as_deref().map(read).transpose()?;
    let history = files.history.as_deref().map(messages).transpose()?.unwrap_or_default();
    let history: Vec<&[u8]> = history.iter().map(Vec::as_slice).collect();
    let options =
        Options { dictionary: dictionary.as_deref().map_or(Choice::Newest, Choice::Given), history: &history };
    let output = match command {
        CodecCommand::Encode { .. } => encode_file_payload(&input, &options),
        CodecCommand::Decode { .. } => decode_file_payload(&input, MOST, &options)
            .map_err(|e| format!("{} cannot be decoded: {e}", files.input.display()))?,
    };
    fs::write(&files.output, output).map_err(|e| format!("cannot write {}: {e}", files.output.display()))
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
            dict: None,
            history: history.then(|| path("history")),
        };
        for history in [false, true] {
            let out = format!("out{history}");
            execute(&CodecCommand::Encode { files: files("in", &out, history) }).expect("encoded");
            execute(&CodecCommand::Decode { files: files(&out, "back", history) }).expect("decoded");
            assert_eq!(fs::read(path("back")).expect("read"), mail);
        }
        let size = |name: &str| fs::metadata(path(name)).expect("there").len();
        assert!(size("outtrue") < size("outfalse") && size("outfalse") < mail.len() as u64);
        assert!(execute(&CodecCommand::Decode { files: files("in", "x", false) }).is_err(), "mail is no payload");
    }
}
