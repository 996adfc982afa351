//! The `aldis` program: parse the command line, do what it says, exit with its status.

use std::io;
use std::process::ExitCode;

use aldis::config::{self, RealFiles};
use aldis::node;
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
    /// Run a node until SIGTERM
    Run {
        #[command(flatten)]
        profile: cli::ProfileArgs,
    },
    #[command(flatten)]
    Ask(cli::Command),
}

fn main() -> ExitCode {
    match Line::parse().command {
        Program::Run { profile } => run(&profile),
        Program::Ask(command) => cli::execute(command, &mut io::stdout(), &mut io::stderr()).into(),
    }
}

fn run(args: &cli::ProfileArgs) -> ExitCode {
    match config::load(args.profile(), &args.set, &RealFiles) {
        Ok(checked) => {
            let filter = tracing_subscriber::EnvFilter::try_from_env("ALDIS_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
            for warning in &checked.warnings {
                tracing::warn!("{warning}");
            }
            node::run(checked.plan)
        }
        Err(problems) => {
            for problem in problems {
                eprintln!("{problem}");
            }
            ExitCode::from(1)
        }
    }
}
