//! The `aldis` program: parse the command line, do what it says, exit with its status.

use std::io;
use std::process::ExitCode;

use aldis::ops::cli;
use clap::{Parser, Subcommand};

/// A mail switch for radio and satcom
#[derive(Parser)]
#[command(version, max_term_width = 100, subcommand_required = true)]
struct Line {
    #[command(subcommand)]
    command: Program,
}

#[derive(Subcommand)]
enum Program {
    #[command(flatten)]
    Ask(cli::Command),
}

fn main() -> ExitCode {
    match Line::parse().command {
        Program::Ask(command) => cli::execute(command, &mut io::stdout(), &mut io::stderr()).into(),
    }
}
