//! The `aldis-sim` program.

use std::io::Write;
use std::process::ExitCode;

use aldis_sim::link_bench::{self, Cell};
use aldis_sim::scenario::Scenario;
use aldis_sim::storm::{self, Storm};
use aldis_sim::trace::Trace;
use aldis_sim::{check, demo, run};
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
    /// Runs a scenario with whole nodes in virtual time; exit 1 when an invariant was broken
    Run {
        /// The scenario, TOML
        scenario: std::path::PathBuf,
        /// Everything random follows from it
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// One JSON document instead of lines
        #[arg(long)]
        json: bool,
        /// Write every line of the trace here
        #[arg(long, value_name = "FILE")]
        trace: Option<std::path::PathBuf>,
    },
    /// Storms of seeds: random nets, traffic and mishaps with whole nodes; exit 1 when an invariant was broken
    Storm {
        /// What is drawn: mixed, calm, cuts, disks, silence, clocks, service, absence, crowd
        #[arg(long, default_value = "mixed", value_parser = parse_profile)]
        profile: storm::Profile,
        /// Most seeds
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first seed
        #[arg(long, default_value_t = 1)]
        first: u64,
        /// Derive the first seed from this commit id
        #[arg(long, value_name = "COMMIT", value_parser = parse_commit, conflicts_with = "first")]
        from_commit: Option<String>,
        /// Begin no further seed, and reduce no further, after this many seconds
        #[arg(long, value_name = "BUDGET")]
        seconds: Option<f64>,
        /// Fail when fewer seeds were run
        #[arg(long, default_value_t = 1)]
        at_least: u64,
        /// How many at once
        #[arg(long, default_value_t = 1)]
        jobs: usize,
        /// Write the scenarios of failing seeds here
        #[arg(long, value_name = "DIRECTORY")]
        keep: Option<std::path::PathBuf>,
        /// One JSON document instead of lines
        #[arg(long)]
        json: bool,
        /// Say how every seed went
        #[arg(long)]
        verbose: bool,
        /// Reduce the first seed, which fails, to a small scenario, and print that
        #[arg(long)]
        shrink: bool,
        /// Print the scenario of the first seed
        #[arg(long)]
        show: bool,
        /// Show instead that deliberate faults are caught: all, or the one named
        #[cfg(feature = "mutations")]
        #[arg(long, value_name = "FAULT", num_args = 0..=1, default_missing_value = "all")]
        mutations: Option<String>,
    },
    /// Reduces a scenario that breaks an invariant to a small one that breaks the same, and prints it
    Shrink {
        /// The scenario, TOML
        scenario: std::path::PathBuf,
        /// The seed under which it fails
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Print what was found after this many seconds
        #[arg(long, value_name = "BUDGET")]
        seconds: Option<f64>,
    },
    /// Measures the product on simulated links
    Bench {
        #[command(subcommand)]
        what: Bench,
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

#[derive(Subcommand)]
enum Bench {
    /// Time to deliver one message over HF, against the limit of an ideal code; exit 1 when a cell is over its bar
    Link {
        /// One JSON document instead of lines
        #[arg(long)]
        json: bool,
        /// Only this cell, RATE,BYTES,TURNAROUND,LOSS; may be given more than once [default: the nine cells of the bar]
        #[arg(long, value_parser = Cell::parse)]
        cell: Vec<Cell>,
        /// How many seeds
        #[arg(long, default_value_t = 200)]
        seeds: u64,
        /// The first seed: a single trial is run again with --first N --seeds 1
        #[arg(long, default_value_t = 1)]
        first: u64,
        /// How many trials at once
        #[arg(long, default_value_t = 1)]
        jobs: usize,
    },
}

fn run_scenario(path: &std::path::Path, seed: u64, json: bool, trace: Option<&std::path::Path>) -> ExitCode {
    let complain = |why: String| {
        eprintln!("aldis-sim: {}: {why}", path.display());
        ExitCode::from(2)
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return complain(error.to_string()),
    };
    let scenario = match Scenario::parse(&text) {
        Ok(scenario) => scenario,
        Err(problems) => return complain(problems.join("\n")),
    };
    let trace = match trace.map(std::fs::File::create) {
        None => Trace::hashed(),
        Some(Ok(file)) => Trace::written(Box::new(std::io::BufWriter::new(file))),
        Some(Err(error)) => return complain(format!("the trace cannot be written: {error}")),
    };
    let report = run::run(&scenario, seed, trace);
    let text = match json {
        true => serde_json::to_string(&report).expect("a report is plain data"),
        false => report.text(),
    };
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::from(u8::from(!report.problems.is_empty()))
}

fn shrink_scenario(path: &std::path::Path, seed: u64, seconds: Option<f64>) -> ExitCode {
    let text = std::fs::read_to_string(path).map_err(|error| vec![error.to_string()]);
    match text.and_then(|text| Storm::read(seed, &text)) {
        Ok(storm) => storm::command::shrink(&storm, seconds),
        Err(problems) => {
            eprintln!("aldis-sim: {}: {}", path.display(), problems.join("\n"));
            ExitCode::from(2)
        }
    }
}

fn bench_link(json: bool, cells: Vec<Cell>, seeds: &[u64], jobs: usize) -> ExitCode {
    let cells = if cells.is_empty() { link_bench::cells() } else { cells };
    let mut reports = Vec::new();
    for cell in cells {
        let report = cell.measure(seeds, jobs, |done| {
            if done % 50 == 0 {
                eprintln!("{} B, loss {}: {done} of {}", cell.payload_bytes, cell.loss, seeds.len());
            }
        });
        if !json {
            let _ = writeln!(std::io::stdout(), "{}", report.text());
        }
        reports.push(report);
    }
    let passed = reports.iter().all(|r| r.passed);
    if json {
        let document = serde_json::json!({ "schema": "aldis-sim.bench-link/1", "passed": passed, "cells": reports });
        let _ = writeln!(std::io::stdout(), "{document}");
    }
    ExitCode::from(u8::from(!passed))
}

fn parse_profile(name: &str) -> Result<storm::Profile, String> {
    let known = || storm::Profile::ALL.map(storm::Profile::name).join(", ");
    storm::Profile::parse(name).ok_or_else(|| format!("one of {}", known()))
}

fn parse_commit(id: &str) -> Result<String, String> {
    storm::base_of(id).map(|_| id.to_owned()).ok_or_else(|| "a commit id: at least twelve hex digits".into())
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
        Command::Run { scenario, seed, json, trace } => run_scenario(&scenario, seed, json, trace.as_deref()),
        Command::Storm {
            profile,
            seeds,
            first,
            from_commit,
            seconds,
            at_least,
            jobs,
            keep,
            json,
            verbose,
            shrink,
            show,
            #[cfg(feature = "mutations")]
            mutations,
        } => {
            let first = from_commit.as_deref().and_then(storm::base_of).unwrap_or(first);
            #[cfg(feature = "mutations")]
            if let Some(name) = mutations {
                return storm::command::prove(first, Some(name.as_str()).filter(|n| *n != "all"), json);
            }
            if show {
                let _ = writeln!(std::io::stdout(), "{}", Storm::new(first, profile).toml());
                return ExitCode::SUCCESS;
            }
            if shrink {
                return storm::command::shrink(&Storm::new(first, profile), seconds);
            }
            let commit = from_commit;
            let options = storm::command::Options {
                profile,
                first,
                commit,
                seeds,
                at_least,
                budget: seconds,
                jobs,
                keep,
                json,
                verbose,
            };
            storm::command::run(&options)
        }
        Command::Shrink { scenario, seed, seconds } => shrink_scenario(&scenario, seed, seconds),
        Command::Bench { what: Bench::Link { json, cell, seeds, first, jobs } } => {
            let seeds: Vec<u64> = (first..first.saturating_add(seeds.max(1))).collect();
            bench_link(json, cell, &seeds, jobs)
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
