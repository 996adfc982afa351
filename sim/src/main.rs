//! The `aldis-sim` program.

use std::io::Write;
use std::process::ExitCode;

use aldis_sim::check;
use clap::{Parser, Subcommand};

/// The laboratory of Aldis: simulated modems and channels.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures the simulator itself against known figures; exit 1 when one is off.
    Check {
        /// Fewer draws, wider tolerances.
        #[arg(long)]
        quick: bool,
        /// One JSON document instead of lines.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Check { quick, json } => {
            let report = check::run(quick);
            let mut text = String::new();
            if json {
                text.push_str(&serde_json::to_string_pretty(&report).expect("a report is plain data"));
            } else {
                report.findings.iter().for_each(|finding| text.push_str(&format!("{finding}\n")));
                text.push_str(&format!("{} passed, {} failed", report.passed, report.failed));
            }
            // A reader that has seen enough and gone is no reason to fail.
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::from(u8::from(report.failed > 0))
        }
    }
}
