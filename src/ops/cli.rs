//! The command line, save `run`: what each command is called, what it takes, and how its answer is printed.
//!
//! Exit status: 0 done, 1 refused or a problem found, 2 wrong usage, 3 no node. With `--json` exactly one document goes to
//! standard output.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use data_encoding::BASE64;
use serde::Serialize;

use super::client::{self, AskError};
use super::codec::{self, CodecCommand};
use super::document::{Check, Explain, PasswordHash, QueueOriginal, QueueRead, Refusal};
use super::print::{document, event, table};
use super::{BearerChoice, EmconWord, Request, dkim, password, route};
use crate::config::{self, Checked, Problem, RealFiles};
use crate::mail::{MessageId, Precedence};
use crate::time::Wall;

/// Where a profile is looked for when none is named.
pub const DEFAULT_PROFILE: &str = "/etc/aldis/aldis.toml";

/// Exit status: a refusal, or a problem was found.
pub const REFUSED: u8 = 1;
/// Exit status: wrong usage.
pub const USAGE: u8 = 2;
/// Exit status: no node answers.
pub const NO_NODE: u8 = 3;

/// Which profile, with what changed.
#[derive(Args, Clone, PartialEq, Debug)]
pub struct ProfileArgs {
    /// The profile [default: /etc/aldis/aldis.toml]
    #[arg(value_name = "PROFILE")]
    pub path: Option<PathBuf>,
    /// The same by name
    #[arg(long = "profile", value_name = "PROFILE", conflicts_with = "path")]
    pub named: Option<PathBuf>,
    /// Override any key, e.g. listener.relay.address=127.0.0.1:0; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl ProfileArgs {
    /// The profile's path.
    pub fn profile(&self) -> &Path {
        self.path.as_deref().or(self.named.as_deref()).unwrap_or(Path::new(DEFAULT_PROFILE))
    }
}

/// Which node to ask.
#[derive(Args, Clone, PartialEq, Debug)]
pub struct NodeArgs {
    /// The node's control socket
    #[arg(long, value_name = "PATH", conflicts_with = "profile")]
    socket: Option<PathBuf>,
    /// The node's profile, which names the socket [default: /etc/aldis/aldis.toml]
    #[arg(long, value_name = "PROFILE")]
    profile: Option<PathBuf>,
    /// As given to `aldis run`, where it moves the socket
    #[arg(long = "set", value_name = "KEY=VALUE", conflicts_with = "socket")]
    set: Vec<String>,
}

/// How to answer.
#[derive(Args, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Output {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Every command but `run`.
#[derive(Subcommand, Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "doc comments here are help texts; flattened and plain arguments need none")]
pub enum Command {
    /// Check a profile and report every problem at once
    Check {
        #[command(flatten)]
        profile: ProfileArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Print every effective value of a profile and where it came from
    Explain {
        #[command(flatten)]
        profile: ProfileArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Say where mail to an address goes and what RCPT is answered, from the profile alone
    Route {
        /// The recipient
        address: String,
        /// The sender, to see what becomes of it
        #[arg(long, value_name = "ADDRESS")]
        from: Option<String>,
        /// The listener it comes by, or peer:NAME, for rules that apply there
        #[arg(long, value_name = "NAME")]
        listener: Option<String>,
        /// The profile [default: /etc/aldis/aldis.toml]
        #[arg(long, value_name = "PROFILE", default_value = DEFAULT_PROFILE, hide_default_value = true)]
        profile: PathBuf,
        /// Override any key, as with `aldis run`
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Encode a message as the air carries it, or decode it again
    Codec {
        #[command(subcommand)]
        command: CodecCommand,
    },
    /// Hash a password read from standard input, for [[user]] password_hash
    HashPassword {
        /// Make a verifier for SCRAM-SHA-256, which clients prefer, instead of an Argon2 hash
        #[arg(long)]
        scram: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Keys that sign mail
    Dkim {
        #[command(subcommand)]
        command: DkimCommand,
    },
    /// Show how a node is
    Status {
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Look at the queue and change what is in it
    Queue {
        #[command(subcommand)]
        command: QueueCommand,
    },
    /// Show the history of a message, also after delivery, and what is to be expected of it before
    Track {
        /// Queue id, Message-ID or ENVID
        key: String,
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Print every event from now on, one line each, until interrupted
    Watch {
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Order silence on a bearer, or lift it
    Emcon {
        #[command(subcommand)]
        command: EmconCommand,
    },
    /// Impose MINIMIZE on a bearer, or lift it
    Minimize {
        #[command(subcommand)]
        command: MinimizeCommand,
    },
    /// Say which neighbours keep silence: what goes to them goes blind
    Peer {
        #[command(subcommand)]
        command: PeerCommand,
    },
}

/// `aldis dkim`
#[derive(Subcommand, Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "doc comments here are help texts; flattened and plain arguments need none")]
pub enum DkimCommand {
    /// Print the DNS record of each key of a profile, as a line of a zone file
    Record {
        #[command(flatten)]
        profile: ProfileArgs,
        #[command(flatten)]
        output: Output,
    },
}

/// `aldis queue`
#[derive(Subcommand, Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "doc comments here are help texts; flattened and plain arguments need none")]
pub enum QueueCommand {
    /// List messages, highest precedence first
    List {
        /// Only this level
        #[arg(long, value_parser = level)]
        precedence: Option<Precedence>,
        /// Only what is held
        #[arg(long)]
        held: bool,
        /// How many at most
        #[arg(long, default_value_t = 1000)]
        limit: usize,
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Show one message
    Show {
        #[arg(value_parser = id)]
        id: MessageId,
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Keep a message until it is released
    Hold {
        #[arg(value_parser = id)]
        id: MessageId,
        /// Why
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Let a held message go
    Release {
        #[arg(value_parser = id)]
        id: MessageId,
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Try a message at once, at a higher level of service if one is given
    Expedite {
        #[arg(value_parser = id)]
        id: MessageId,
        /// The new level
        #[arg(long, value_parser = level)]
        precedence: Option<Precedence>,
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Send a part that was held back of a message to whoever got the reduced copy
    Fetch {
        #[arg(value_parser = id)]
        id: MessageId,
        /// Its number, as the note in its place says
        part: u32,
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Write a message as it was accepted to a new file, while it is queued or after a reduced copy of it went out
    Original {
        #[arg(value_parser = id)]
        id: MessageId,
        /// The file
        file: PathBuf,
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        output: Output,
    },
    /// End a message; its sender is told
    Cancel {
        #[arg(value_parser = id)]
        id: MessageId,
        /// Why
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        output: Output,
    },
}

/// `aldis emcon`
#[derive(Subcommand, Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "doc comments here are help texts; flattened and plain arguments need none")]
pub enum EmconCommand {
    /// Show the orders in force
    Show {
        /// A bearer, or all
        #[arg(default_value = "all", value_parser = bearer)]
        bearer: BearerChoice,
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Give an order; it is stored before it is reported
    Set {
        /// A bearer, or all
        #[arg(value_parser = bearer)]
        bearer: BearerChoice,
        /// open, silent, restricted:LEVEL, window or ack-only
        #[arg(value_parser = word)]
        state: EmconWord,
        /// Why
        #[arg(long)]
        reason: String,
        /// From when (RFC 3339); before that the present order stands. While the clock is not set, what this order forbids is forbidden at once
        #[arg(long, value_parser = time)]
        from: Option<Wall>,
        /// Until when (RFC 3339); then what was allowed before returns as far as this order allows it too. A window, which needs both times, ends in silence
        #[arg(long, value_parser = time)]
        until: Option<Wall>,
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Say what would go if an order were given now, and change nothing
    WhatIf {
        /// open, silent, restricted:LEVEL, window or ack-only
        #[arg(value_parser = word)]
        state: EmconWord,
        /// A bearer, or all
        #[arg(default_value = "all", value_parser = bearer)]
        bearer: BearerChoice,
        /// From when (RFC 3339), as with an order
        #[arg(long, value_parser = time)]
        from: Option<Wall>,
        /// Until when (RFC 3339), as with an order
        #[arg(long, value_parser = time)]
        until: Option<Wall>,
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        output: Output,
    },
}

/// `aldis minimize`
#[derive(Subcommand, Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "doc comments here are help texts; flattened and plain arguments need none")]
pub enum MinimizeCommand {
    /// Show the orders in force and to come
    Show {
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Refuse mail below a level
    Set {
        /// A bearer, or all
        #[arg(value_parser = bearer)]
        bearer: BearerChoice,
        /// The lowest level still taken
        #[arg(value_parser = level)]
        minimum: Precedence,
        /// Why
        #[arg(long)]
        reason: String,
        /// From when (RFC 3339)
        #[arg(long, value_parser = time)]
        from: Option<Wall>,
        /// Until when (RFC 3339)
        #[arg(long, value_parser = time)]
        until: Option<Wall>,
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        output: Output,
    },
    /// End MINIMIZE
    Clear {
        /// A bearer, or all
        #[arg(default_value = "all", value_parser = bearer)]
        bearer: BearerChoice,
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        output: Output,
    },
}

/// `aldis peer`
#[derive(Subcommand, Clone, PartialEq, Debug)]
#[expect(missing_docs, reason = "doc comments here are help texts; flattened and plain arguments need none")]
pub enum PeerCommand {
    /// Show which neighbours are taken for silent, and why
    Show {
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Take a neighbour for silent
    Silent {
        /// Its name
        name: String,
        /// Why
        #[arg(long)]
        reason: String,
        /// From when (RFC 3339)
        #[arg(long, value_parser = time)]
        from: Option<Wall>,
        /// Until when (RFC 3339); otherwise until `aldis peer heard`
        #[arg(long, value_parser = time)]
        until: Option<Wall>,
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Take a neighbour for silent no longer
    Heard {
        /// Its name
        name: String,
        /// Why
        #[arg(long, default_value = "heard")]
        reason: String,
        #[command(flatten)]
        node: NodeArgs,
        #[command(flatten)]
        output: Output,
    },
}

fn level(text: &str) -> Result<Precedence, String> {
    Precedence::parse(text).ok_or_else(|| "one of override, flash, immediate, priority, routine, deferred".into())
}

fn id(text: &str) -> Result<MessageId, String> {
    MessageId::parse(text).ok_or_else(|| "a queue id: up to 16 hexadecimal digits".into())
}

fn bearer(text: &str) -> Result<BearerChoice, String> {
    BearerChoice::parse(text).ok_or_else(|| "a bearer's name, or all".into())
}

fn word(text: &str) -> Result<EmconWord, String> {
    EmconWord::parse(text).ok_or_else(|| "one of open, silent, restricted:LEVEL, window, ack-only".into())
}

fn time(text: &str) -> Result<Wall, String> {
    Wall::parse_rfc3339(text).ok_or_else(|| "a time such as 2026-11-23T10:15:00Z".into())
}

/// Does what the command says; the result is the exit status.
pub fn execute(command: Command, out: &mut impl Write, err: &mut impl Write) -> u8 {
    let mut say = Speaker { out, err };
    let (node, output, request) = match command {
        Command::Check { profile, output } => return check(&mut say, &profile, output),
        Command::Explain { profile, output } => return explain(&mut say, &profile, output),
        Command::Route { address, from, listener, profile, set, output } => {
            let asked = route::Asked { address, from, listener };
            return route(&mut say, &asked, &profile, &set, output);
        }
        Command::Codec { command } => return codec(&mut say, &command),
        Command::HashPassword { scram, output } => return hash_password(&mut say, scram, output),
        Command::Dkim { command: DkimCommand::Record { profile, output } } => {
            return dkim_record(&mut say, &profile, output);
        }
        Command::Status { node, output } => (node, output, Request::Status),
        Command::Watch { node, output } => return watch(&mut say, &node, output),
        Command::Track { key, node, output } => (node, output, Request::Track { key }),
        Command::Queue { command: QueueCommand::Original { id, file, node, output } } => {
            return original(&mut say, id, &file, &node, output);
        }
        Command::Queue { command } => queue(command),
        Command::Emcon { command } => match emcon(command) {
            Ok(asked) => asked,
            Err(why) => return say.usage(&why),
        },
        Command::Minimize { command } => minimize(command),
        Command::Peer { command } => peer(command),
    };
    ask(&mut say, &node, output, &request)
}

fn queue(command: QueueCommand) -> (NodeArgs, Output, Request) {
    match command {
        QueueCommand::List { precedence, held, limit, node, output } => {
            (node, output, Request::QueueList { precedence, held, limit })
        }
        QueueCommand::Show { id, node, output } => (node, output, Request::QueueShow { id }),
        QueueCommand::Hold { id, reason, node, output } => (node, output, Request::QueueHold { id, reason }),
        QueueCommand::Release { id, node, output } => (node, output, Request::QueueRelease { id }),
        QueueCommand::Expedite { id, precedence, node, output } => {
            (node, output, Request::QueueExpedite { id, precedence })
        }
        QueueCommand::Fetch { id, part, node, output } => (node, output, Request::QueueFetch { id, part }),
        QueueCommand::Original { id, node, output, .. } => (node, output, Request::QueueRead { id, from: 0 }),
        QueueCommand::Cancel { id, reason, node, output } => (node, output, Request::QueueCancel { id, reason }),
    }
}

fn emcon(command: EmconCommand) -> Result<(NodeArgs, Output, Request), String> {
    Ok(match command {
        EmconCommand::Show { bearer, node, output } => (node, output, Request::EmconShow { bearer }),
        EmconCommand::Set { bearer, state, reason, from, until, node, output } => {
            state.state(from, until)?;
            (node, output, Request::EmconSet { bearer, state, reason, from, until })
        }
        EmconCommand::WhatIf { state, bearer, from, until, node, output } => {
            state.state(from, until)?;
            (node, output, Request::EmconWhatIf { bearer, state, from, until })
        }
    })
}

fn minimize(command: MinimizeCommand) -> (NodeArgs, Output, Request) {
    match command {
        MinimizeCommand::Show { node, output } => (node, output, Request::MinimizeShow),
        MinimizeCommand::Set { bearer, minimum, reason, from, until, node, output } => {
            (node, output, Request::MinimizeSet { bearer, minimum, reason, from, until })
        }
        MinimizeCommand::Clear { bearer, node, output } => (node, output, Request::MinimizeClear { bearer }),
    }
}

fn peer(command: PeerCommand) -> (NodeArgs, Output, Request) {
    match command {
        PeerCommand::Show { node, output } => (node, output, Request::PeerShow),
        PeerCommand::Silent { name, reason, from, until, node, output } => {
            (node, output, Request::PeerSilent { peer: name, reason, from, until })
        }
        PeerCommand::Heard { name, reason, node, output } => (node, output, Request::PeerHeard { peer: name, reason }),
    }
}

fn check<O: Write, E: Write>(say: &mut Speaker<'_, O, E>, args: &ProfileArgs, output: Output) -> u8 {
    let (problems, warnings, sharing) = match config::load(args.profile(), &args.set, &RealFiles) {
        Ok(Checked { plan, warnings, .. }) => (Vec::new(), warnings, config::sharing(&plan)),
        Err(problems) => (problems, Vec::new(), Vec::new()),
    };
    let ok = problems.is_empty();
    if output.json {
        say.json(&Check { schema: Check::SCHEMA, ok, problems, warnings, sharing });
    } else {
        for problem in &problems {
            say.line(&problem.to_string());
        }
        for warning in &warnings {
            say.line(&format!("warning: {}", warning.warning()));
        }
        sharing.iter().for_each(|bearer| say.line(&bearer.to_string()));
        say.line(&match problems.len() {
            0 => format!("{}: ok", args.profile().display()),
            1 => "1 problem".into(),
            n => format!("{n} problems"),
        });
    }
    if ok { 0 } else { REFUSED }
}

fn explain<O: Write, E: Write>(say: &mut Speaker<'_, O, E>, args: &ProfileArgs, output: Output) -> u8 {
    let (values, sharing) = match config::explain(args.profile(), &args.set) {
        Ok(explained) => explained,
        Err(problems) => return say.problems(problems, output),
    };
    if output.json {
        say.json(&Explain { schema: Explain::SCHEMA, values, sharing });
    } else {
        say.text(&table(values.into_iter().map(|v| vec![v.key, v.value, v.origin]).collect()));
        sharing.iter().for_each(|bearer| say.line(&bearer.to_string()));
    }
    0
}

fn route<O: Write, E: Write>(
    say: &mut Speaker<'_, O, E>,
    asked: &route::Asked,
    profile: &Path,
    set: &[String],
    output: Output,
) -> u8 {
    let plan = match config::check(profile, set) {
        Ok(plan) => plan,
        Err(problems) => return say.problems(problems, output),
    };
    match route::explain(&plan, asked) {
        Ok(explained) => {
            match output.json {
                true => say.json(&explained),
                false => say.text(&route::text(&explained)),
            }
            if explained.answers.relay.code < 400 { 0 } else { REFUSED }
        }
        Err(why) => say.refuse(&why, REFUSED, output),
    }
}

fn codec<O: Write, E: Write>(say: &mut Speaker<'_, O, E>, command: &CodecCommand) -> u8 {
    let json = matches!(command, CodecCommand::Explain(args) if args.json);
    match codec::execute(command) {
        Ok(None) => {}
        Ok(Some(codec::Answer::Explained(explained))) if json => say.json(&explained),
        Ok(Some(codec::Answer::Explained(explained))) => say.text(&explained.text()),
        Ok(Some(codec::Answer::Trained(said))) => say.text(&said),
        Err(why) => return say.refuse(&why, REFUSED, Output { json }),
    }
    0
}

fn hash_password<O: Write, E: Write>(say: &mut Speaker<'_, O, E>, scram: bool, output: Output) -> u8 {
    let make = if scram { password::scram } else { password::hash };
    let hashed = password::read().map_err(|e| e.to_string()).and_then(|p| make(&p));
    match hashed {
        Ok(password_hash) if output.json => say.json(&PasswordHash { schema: PasswordHash::SCHEMA, password_hash }),
        Ok(password_hash) => say.line(&password_hash),
        Err(why) => return say.refuse(&why, REFUSED, output),
    }
    0
}

fn dkim_record<O: Write, E: Write>(say: &mut Speaker<'_, O, E>, profile: &ProfileArgs, output: Output) -> u8 {
    let plan = match config::check(profile.profile(), &profile.set) {
        Ok(plan) => plan,
        Err(problems) => return say.problems(problems, output),
    };
    if plan.dkim.is_empty() {
        return say.refuse("the profile has no [[dkim]] table", REFUSED, output);
    }
    let document = dkim::records(&plan);
    match output.json {
        true => say.json(&document),
        false => say.text(&dkim::zone(&document)),
    }
    0
}

fn socket(node: &NodeArgs) -> Result<PathBuf, Vec<Problem>> {
    match &node.socket {
        Some(socket) => Ok(socket.clone()),
        None => {
            let profile = node.profile.as_deref().unwrap_or(Path::new(DEFAULT_PROFILE));
            config::socket(profile, &node.set, &RealFiles)
        }
    }
}

fn watch<O: Write, E: Write>(say: &mut Speaker<'_, O, E>, node: &NodeArgs, output: Output) -> u8 {
    let socket = match socket(node) {
        Ok(socket) => socket,
        Err(problems) => return say.problems(problems, output),
    };
    let watched = client::watch(&socket, |line| {
        let text = if output.json { line.to_string() } else { event(line) };
        writeln!(say.out, "{text}").and_then(|()| say.out.flush()).is_ok()
    });
    match watched {
        Ok(()) => 0,
        Err(e) => say.refuse(&format!("{}: {e}", socket.display()), NO_NODE, output),
    }
}

fn ask<O: Write, E: Write>(say: &mut Speaker<'_, O, E>, node: &NodeArgs, output: Output, request: &Request) -> u8 {
    let socket = match socket(node) {
        Ok(socket) => socket,
        Err(problems) => return say.problems(problems, output),
    };
    match client::ask(&socket, request) {
        Ok(response) if output.json => {
            say.json(&response.document);
            response.exit
        }
        Ok(response) => {
            let text = document(&response.document);
            if response.ok {
                say.text(&text)
            } else {
                say.complain(text.trim_end())
            }
            response.exit
        }
        Err(e @ (AskError::NoNode(_) | AskError::Lost(_))) => {
            say.refuse(&format!("{}: {e}", socket.display()), NO_NODE, output)
        }
        Err(e @ AskError::Garbled(_)) => say.refuse(&e.to_string(), REFUSED, output),
    }
}

/// Writes a message to a file that did not exist, piece by piece.
fn original<O: Write, E: Write>(
    say: &mut Speaker<'_, O, E>,
    id: MessageId,
    file: &Path,
    node: &NodeArgs,
    output: Output,
) -> u8 {
    let socket = match socket(node) {
        Ok(socket) => socket,
        Err(problems) => return say.problems(problems, output),
    };
    let mut bytes = Vec::new();
    loop {
        let response = match client::ask(&socket, &Request::QueueRead { id, from: bytes.len() as u64 }) {
            Ok(response) => response,
            Err(e) => return say.refuse(&format!("{}: {e}", socket.display()), NO_NODE, output),
        };
        let read = serde_json::from_value::<QueueRead>(response.document.clone());
        let Ok((size_bytes, piece)) = read
            .map_err(|_| ())
            .and_then(|r| BASE64.decode(r.base64.as_bytes()).map(|p| (r.size_bytes, p)).map_err(|_| ()))
        else {
            let why = serde_json::from_value::<Refusal>(response.document).map(|r| r.problem);
            return say.refuse(&why.unwrap_or_else(|_| "the node's answer makes no sense".into()), REFUSED, output);
        };
        bytes.extend_from_slice(&piece);
        if bytes.len() as u64 >= size_bytes || piece.is_empty() {
            break;
        }
    }
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    if let Err(e) = written.and_then(|mut f| f.write_all(&bytes)) {
        return say.refuse(&format!("{}: {e}", file.display()), REFUSED, output);
    }
    let (size_bytes, shown) = (bytes.len() as u64, file.display().to_string());
    match output.json {
        true => say.json(&QueueOriginal {
            schema: QueueOriginal::SCHEMA.into(),
            id: id.to_string(),
            size_bytes,
            file: shown,
        }),
        false => say.line(&format!("{shown}: {id} as it was accepted, {size_bytes} bytes")),
    }
    0
}

/// Writes to the two standard streams. A closed pipe is the reader's own decision, hence no error.
struct Speaker<'s, O, E> {
    out: &'s mut O,
    err: &'s mut E,
}

impl<O: Write, E: Write> Speaker<'_, O, E> {
    fn text(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes());
    }

    fn line(&mut self, line: &str) {
        let _ = writeln!(self.out, "{line}");
    }

    fn json(&mut self, document: &impl Serialize) {
        if let Ok(text) = serde_json::to_string_pretty(document) {
            self.line(&text);
        }
    }

    fn complain(&mut self, line: &str) {
        let _ = writeln!(self.err, "aldis: {line}");
    }

    fn usage(&mut self, why: &str) -> u8 {
        self.complain(why);
        USAGE
    }

    fn refuse(&mut self, problem: &str, exit: u8, output: Output) -> u8 {
        if output.json {
            self.json(&Refusal { schema: Refusal::SCHEMA.into(), problem: problem.into() });
        } else {
            self.complain(problem);
        }
        exit
    }

    fn problems(&mut self, problems: Vec<Problem>, output: Output) -> u8 {
        if output.json {
            let (warnings, sharing) = (Vec::new(), Vec::new());
            self.json(&Check { schema: Check::SCHEMA, ok: false, problems, warnings, sharing });
        } else {
            for problem in &problems {
                self.complain(&problem.to_string());
            }
        }
        REFUSED
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::emcon::State;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Line::try_parse_from(std::iter::once("aldis").chain(line.split(' '))).map(|l| l.command)
    }

    fn run(line: &str) -> (u8, String, String) {
        let command = parse(line).unwrap_or_else(|e| panic!("{e}"));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = execute(command, &mut out, &mut err);
        (exit, String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"))
    }

    #[test]
    fn the_command_line_is_consistent_in_itself() {
        use clap::CommandFactory;
        Line::command().debug_assert();
    }

    #[test]
    fn commands_become_the_requests_they_name() {
        let Ok(Command::Emcon { command }) =
            parse("emcon set hf1 restricted:flash --reason drill --until 2026-11-23T10:15:00Z")
        else {
            panic!("not parsed")
        };
        let (_, _, request) = emcon(command).expect("sensible");
        assert_eq!(
            request,
            Request::EmconSet {
                bearer: BearerChoice::One("hf1".into()),
                state: EmconWord::State(State::Restricted(Precedence::Flash)),
                reason: "drill".into(),
                from: None,
                until: Wall::parse_rfc3339("2026-11-23T10:15:00Z"),
            }
        );
        let Ok(Command::Emcon { command }) = parse("emcon what-if restricted:flash") else { panic!("not parsed") };
        let (_, _, request) = emcon(command).expect("sensible");
        let state = EmconWord::State(State::Restricted(Precedence::Flash));
        assert_eq!(request, Request::EmconWhatIf { bearer: BearerChoice::All, state, from: None, until: None });
        for bad in [
            "emcon what-if loud",
            "emcon set hf1 loud --reason x",
            "emcon set all silent",
            "queue show nothex",
            "minimize set all loud --reason x",
        ] {
            let error = parse(bad).err().unwrap_or_else(|| panic!("{bad} was taken"));
            assert_eq!(error.exit_code(), i32::from(USAGE), "{bad}");
        }
    }

    #[test]
    fn a_window_without_its_times_is_wrong_usage() {
        assert_eq!(run("emcon set all window --reason x --socket /nonexistent").0, USAGE);
        assert_eq!(run("emcon what-if window --socket /nonexistent").0, USAGE);
    }

    #[test]
    fn no_node_is_status_3_and_one_document() {
        let (exit, out, _) = run("status --socket /nonexistent/aldis.sock --json");
        assert_eq!(exit, NO_NODE);
        let document: serde_json::Value = serde_json::from_str(&out).expect("one document");
        assert_eq!(document["schema"], Refusal::SCHEMA);
        let (exit, out, err) = run("queue list --socket /nonexistent/aldis.sock");
        assert_eq!((exit, out.as_str()), (NO_NODE, ""));
        assert!(err.contains("no node"), "{err}");
    }

    #[test]
    fn check_of_a_missing_profile_is_a_problem_with_its_file() {
        let (exit, out, _) = run("check /nonexistent.toml --json");
        assert_eq!(exit, REFUSED);
        let document: serde_json::Value = serde_json::from_str(&out).expect("one document");
        assert_eq!(document["problems"][0]["file"], "/nonexistent.toml");
        assert_eq!(run("explain --profile /nonexistent.toml").0, REFUSED);
    }

    #[test]
    fn an_answer_is_printed_and_its_exit_status_passed_on() {
        use std::io::{BufRead, BufReader};
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
        let node = std::thread::spawn(move || {
            let mut requests = Vec::new();
            for response in
                [super::super::Response::refused("no such message"), super::super::Response::refused("again")]
            {
                let (stream, _) = listener.accept().expect("a client");
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).expect("a request");
                requests.push(serde_json::from_str::<Request>(&line).expect("a request"));
                (&stream).write_all(response.line().as_bytes()).expect("answered");
            }
            requests
        });
        let (exit, out, err) = run(&format!("queue release 1A --socket {}", socket.display()));
        assert_eq!((exit, out.as_str(), err.as_str()), (REFUSED, "", "aldis: refused: no such message\n"));
        let (exit, out, _) = run(&format!("track <a@b> --json --socket {}", socket.display()));
        assert_eq!(exit, REFUSED);
        assert!(out.contains("\"problem\": \"again\""), "{out}");
        let requests = node.join().expect("served");
        assert_eq!(requests, [Request::QueueRelease { id: MessageId(26) }, Request::Track { key: "<a@b>".into() }]);
    }
}
