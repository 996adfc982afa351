//! The `aldis-sim` program.

use std::io::Write;
use std::process::ExitCode;

use aldis_sim::{check, demo};
use clap::{Parser, Subcommand};

/// The laboratory of Aldis: simulated modems, channels, and a demonstration with two whole nodes
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Ship and shore over two simulated HF modems: sends a sample message, then waits for yours
    Demo {
        /// How fast time runs, e.g. 20x
        #[arg(long, default_value = "1x", value_parser = parse_speed)]
        speed: f64,
        /// End when the sample is delivered: exit 0, or 1 when it is not within the limit
        #[arg(long)]
        once: bool,
        /// Keep profiles, stores and mailboxes here [default: a temporary directory]
        #[arg(long, value_name = "DIRECTORY")]
        dir: Option<std::path::PathBuf>,
        /// One JSON document per event
        #[arg(long)]
        json: bool,
        /// With --once: real seconds the sample may take [default: 600 divided by the speed, at least 60]
        #[arg(long, value_name = "SECONDS")]
        limit: Option<u64>,
    },
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

fn parse_speed(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix(['x', 'X']).unwrap_or(text);
    match number.parse::<f64>() {
        Ok(speed) if (0.1..=1000.0).contains(&speed) => Ok(speed),
        _ => Err("a factor from 0.1x to 1000x, such as 20x".into()),
    }
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Demo { speed, once, dir, json, limit } => {
            let filter = tracing_subscriber::EnvFilter::try_from_env("ALDIS_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
            let seconds = limit.unwrap_or_else(|| ((600.0 / speed) as u64).max(60));
            let limit = std::time::Duration::from_secs(seconds);
            demo::run(&demo::Options { speed, once, directory: dir, json, limit })
        }
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
