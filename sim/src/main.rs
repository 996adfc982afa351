//! The `aldis-sim` program.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aldis::time::Duration;
use aldis_sim::codec2::audio;
use aldis_sim::codec2::modem::Mode;
use aldis_sim::codec2::sweep;
use aldis_sim::link_bench::{self, Cell, CellReport};
use aldis_sim::link_plot;
use aldis_sim::load::{self, Way, flash::Moment};
use aldis_sim::mule_bench::{self, Carrier};
use aldis_sim::net_bench;
use aldis_sim::output::{self, Chronicle, Progress};
use aldis_sim::satcom;
use aldis_sim::scenario::Scenario;
use aldis_sim::storm::{self, Storm};
use aldis_sim::trace::Trace;
use aldis_sim::{bridge, check, demo, rate_bench, run};
use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
        dir: Option<PathBuf>,
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
        scenario: PathBuf,
        /// Everything random follows from it
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// One JSON document instead of lines
        #[arg(long)]
        json: bool,
        /// Write every line of the trace here
        #[arg(long, value_name = "FILE")]
        trace: Option<PathBuf>,
        /// Write what was on the air here, as pcapng for Wireshark
        #[arg(long, value_name = "FILE")]
        pcap: Option<PathBuf>,
        /// Write a page with pictures of the run here
        #[arg(long, value_name = "FILE.html")]
        report: Option<PathBuf>,
    },
    /// Puts the modems of a scenario on terminals or TCP ports, in real time, until Ctrl-C or the scenario's end
    Bridge {
        /// The scenario, TOML
        scenario: std::path::PathBuf,
        /// Terminals and sockets appear here [default: a temporary directory]
        #[arg(long, value_name = "DIRECTORY")]
        dir: Option<std::path::PathBuf>,
        /// How fast time runs, e.g. 20x
        #[arg(long, default_value = "1x", value_parser = parse_speed)]
        speed: f64,
        /// Everything random follows from it
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// One JSON document per event
        #[arg(long)]
        json: bool,
    },
    /// Measures a modem nobody here wrote: FreeDV's, out of libcodec2
    Codec2 {
        #[command(subcommand)]
        what: Codec2,
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

/// A path that fades in some way, or not at all; by a name of its own, or clap would take it for an option that may be missing.
type FadingPath = Option<audio::Spread>;

#[derive(Subcommand)]
enum Codec2 {
    /// Packets lost by signal-to-noise ratio, sample by sample, beside what the block model foretells
    Sweep {
        /// datac0, datac1 or datac3
        #[arg(long, value_parser = |name: &str| Mode::parse(name).ok_or("known: datac0, datac1, datac3"))]
        mode: Mode,
        /// awgn, or a fading path: mpg, mpp, mpd
        #[arg(long, default_value = "mpp", value_parser = audio::path)]
        channel: FadingPath,
        /// Packets at each ratio
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        frames: u64,
        /// Everything random follows from it
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// One JSON document instead of lines
        #[arg(long)]
        json: bool,
        /// Draw the curves here
        #[arg(long, value_name = "FILE")]
        svg: Option<std::path::PathBuf>,
    },
}

fn codec2_sweep(options: &sweep::Options, json: bool, svg: Option<&std::path::Path>) -> ExitCode {
    let report = sweep::run(options, |point| {
        if !json {
            let _ = writeln!(std::io::stdout(), "{}", point.text());
        }
    });
    let report = match report {
        Ok(report) => report,
        Err(why) => {
            eprintln!("aldis-sim: {why}");
            return ExitCode::from(2);
        }
    };
    let text = match json {
        true => serde_json::to_string(&report).expect("a report is plain data"),
        false => report.text(),
    };
    let _ = writeln!(std::io::stdout(), "{text}");
    if let Some(path) = svg
        && let Err(error) = std::fs::write(path, report.svg())
    {
        eprintln!("aldis-sim: {}: {error}", path.display());
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}

#[derive(Subcommand)]
enum Bench {
    /// What one message for all stations of a net costs; exit 1 when it is over its bars
    Net {
        /// One JSON document instead of lines
        #[arg(long)]
        json: bool,
        /// How many receivers
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(2..=15))]
        receivers: u16,
        /// Share of cells lost on every link
        #[arg(long, default_value_t = 0.1)]
        loss: f64,
        /// Frames that the payload fills
        #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=400))]
        frames: u64,
        /// How many seeds
        #[arg(long, default_value_t = 50)]
        seeds: u64,
        /// How many trials at once
        #[arg(long, default_value_t = 1)]
        jobs: usize,
    },
    /// One message by MULE over P_MUL on an HF link, and by Aldis on the same
    Mule {
        /// One JSON document instead of lines
        #[arg(long)]
        json: bool,
        /// Bytes of the message
        #[arg(long, default_value_t = 10_240, value_parser = clap::value_parser!(u32).range(64..=1_000_000))]
        bytes: u32,
        /// Share of cells lost both ways; may be given again [default: 0 and 0.05]
        #[arg(long)]
        loss: Vec<f64>,
        /// Longest PDU; may be given again [default: 232, 496 and 1024]
        #[arg(long, value_parser = clap::value_parser!(u16).range(64..))]
        pdu: Vec<u16>,
        /// How many seeds
        #[arg(long, default_value_t = 50)]
        seeds: u64,
        /// How many trials at once
        #[arg(long, default_value_t = 1)]
        jobs: usize,
    },
    /// One message to a group over a satellite, by Aldis mode and by MULE, against the limit of an ideal code; exit 1 when a cell is over its bar
    Satcom {
        /// One JSON document instead of lines
        #[arg(long)]
        json: bool,
        /// Only this cell, RATE,RECEIVERS,apart,LOSS or RATE,RECEIVERS,together,LOSS or RATE,RECEIVERS,rain; may be given more than
        /// once [default: the cells of docs/satcom.md]
        #[arg(long, value_parser = satcom::Cell::parse)]
        cell: Vec<satcom::Cell>,
        /// How many seeds
        #[arg(long, default_value_t = 20)]
        seeds: u64,
        /// How many trials at once
        #[arg(long, default_value_t = 1)]
        jobs: usize,
    },
    /// Time to deliver one message over HF, against the limit of an ideal code; exit 1 when a cell is over its bar
    Link {
        /// One JSON document instead of lines
        #[arg(long)]
        json: bool,
        /// Only this cell, RATE,BYTES,TURNAROUND,LOSS; may be given more than once [default: the 135 cells of the limit tables]
        #[arg(long, value_parser = Cell::parse)]
        cell: Vec<Cell>,
        /// How many seeds
        #[arg(long, default_value_t = 200)]
        seeds: u64,
        /// Only this seed: one trial again
        #[arg(long)]
        seed: Option<u64>,
        /// How many trials at once
        #[arg(long, default_value_t = 1)]
        jobs: usize,
        /// Do not measure: take what an earlier run printed with --json; may be given more than once
        #[arg(long, value_name = "FILE", conflicts_with_all = ["cell", "seed"])]
        from: Vec<PathBuf>,
        /// Draw the ratios as SVG into this file
        #[arg(long, value_name = "FILE")]
        plot: Option<PathBuf>,
    },
    /// What frames laid out by the link and interleavers chosen by it gain, beside limits recomputed for each
    Gains {
        /// Measure nothing: only the limits where an answer is wanted after every second or third transmission
        /// [default cells: 10 and 100 KiB at 75 and 300 bit/s]
        #[arg(long)]
        answers: bool,
        /// One JSON document instead of lines
        #[arg(long)]
        json: bool,
        /// Only this cell, RATE,BYTES,TURNAROUND,LOSS; may be given more than once [default: 1 and 10 KiB at 2 s]
        #[arg(long, value_parser = Cell::parse)]
        cell: Vec<Cell>,
        /// How many seeds
        #[arg(long, default_value_t = 50)]
        seeds: u64,
        /// How many trials at once
        #[arg(long, default_value_t = 1)]
        jobs: usize,
    },
    /// Much mail one way: goodput against the long-run limit; exit 1 when it is under its bar
    Bulk {
        /// Encoded bytes
        #[arg(long, default_value_t = 1_000_000)]
        bytes: u64,
        #[command(flatten)]
        load: Load,
    },
    /// Both ends loaded at once, against one way after the other; exit 1 when it takes longer than its bar
    TwoWay {
        /// Encoded bytes at each end
        #[arg(long, default_value_t = 10_240)]
        bytes: u64,
        #[command(flatten)]
        load: Load,
    },
    /// Many small messages to one peer: where every byte on the air goes; exit 1 when a bar is broken
    Texts {
        /// Encoded bytes of each
        #[arg(long, default_value_t = 600)]
        bytes: u64,
        /// How many
        #[arg(long, default_value_t = 20)]
        messages: usize,
        #[command(flatten)]
        load: Load,
    },
    /// What choosing the rate brings, against every fixed rate over the same sky; exit 1 when a scenario is below a bar
    Rate {
        /// One JSON document instead of lines
        #[arg(long)]
        json: bool,
        /// Only this scenario; may be given more than once [default: five shipped ones]
        #[arg(long, value_name = "FILE")]
        scenario: Vec<PathBuf>,
        /// How many seeds
        #[arg(long, default_value_t = 5)]
        seeds: u64,
        /// The first of them
        #[arg(long, default_value_t = 1)]
        first: u64,
        /// Virtual minutes of each run [default: the scenario's]
        #[arg(long)]
        minutes: Option<u64>,
        /// Leave the fixed rates out, and say of every run of the choice how it went
        #[arg(long, conflicts_with = "json")]
        chosen: bool,
        /// How many trials at once
        #[arg(long, default_value_t = 1)]
        jobs: usize,
    },
    /// FLASH handed in among ROUTINE: time to the air, and what is sent twice for it; exit 1 when a bar is broken
    Flash {
        #[command(flatten)]
        load: Load,
    },
}

/// On which links a load is measured.
#[derive(clap::Args)]
struct Load {
    /// Only this link, RATE,INTERLEAVER,TURNAROUND,LOSS such as 2400,S,2,0.05; may be given more than once [default: those of the docs]
    #[arg(long, value_parser = Way::parse)]
    link: Vec<Way>,
    /// How many seeds
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Only this seed
    #[arg(long)]
    seed: Option<u64>,
    /// How many at once
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// One JSON document instead of lines
    #[arg(long)]
    json: bool,
}

impl Load {
    /// Measures every link, in lines as they come or in one document; exit 1 when one did not pass.
    fn measure<R: serde::Serialize>(
        &self,
        usual: Vec<Way>,
        measure: impl Fn(&Way, &[u64]) -> Vec<R>,
        line: impl Fn(&R) -> (bool, String),
    ) -> ExitCode {
        let seeds: Vec<u64> = self.seed.map_or_else(|| (1..=self.seeds.max(1)).collect(), |seed| vec![seed]);
        let ways = if self.link.is_empty() { &usual } else { &self.link };
        let mut reports = Vec::new();
        for way in ways {
            for report in measure(way, &seeds) {
                match self.json {
                    true => eprintln!("{}", line(&report).1),
                    false => drop(writeln!(std::io::stdout(), "{}", line(&report).1)),
                }
                reports.push(report);
            }
        }
        let failed = reports.iter().filter(|report| !line(report).0).count();
        match self.json {
            true => drop(writeln!(std::io::stdout(), "{}", serde_json::to_string(&reports).expect("plain data"))),
            false => drop(writeln!(std::io::stdout(), "{} passed, {failed} failed", reports.len() - failed)),
        }
        ExitCode::from(u8::from(failed > 0))
    }
}

/// Losses a load is measured at.
const LOSSES: [f64; 3] = [0.0, 0.05, 0.2];

fn bench(what: Bench) -> ExitCode {
    match what {
        Bench::Link { json, cell, seeds, seed, jobs, from, plot } => {
            let seeds: Vec<u64> = seed.map_or_else(|| (1..=seeds.max(1)).collect(), |seed| vec![seed]);
            let reports = match from.is_empty() {
                true => Ok(measure_links(json, cell, &seeds, jobs)),
                false => read_links(&from),
            };
            reports.and_then(|reports| bench_link(json, &reports, plot.as_deref())).unwrap_or_else(|why| {
                eprintln!("aldis-sim: {why}");
                ExitCode::from(2)
            })
        }
        Bench::Gains { answers: true, json, cell, .. } => {
            let cells = if cell.is_empty() { link_bench::answer_cells() } else { cell };
            let limits: Vec<_> = cells.iter().map(Cell::answer_limits).collect();
            let text = match json {
                true => serde_json::to_string(&limits).expect("plain data"),
                false => limits.iter().map(link_bench::AnswerLimits::text).collect::<Vec<_>>().join("\n"),
            };
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Bench::Gains { answers: false, json, cell, seeds, jobs } => {
            let cells = if cell.is_empty() { link_bench::gain_cells() } else { cell };
            let seeds: Vec<u64> = (1..=seeds.max(1)).collect();
            let measured = cells.iter().map(|cell| {
                let gains = cell.gains(&seeds, jobs);
                match json {
                    true => eprintln!("{}", gains.text()),
                    false => drop(writeln!(std::io::stdout(), "{}", gains.text())),
                }
                gains
            });
            let measured: Vec<_> = measured.collect();
            if json {
                let _ = writeln!(std::io::stdout(), "{}", serde_json::to_string(&measured).expect("plain data"));
            }
            ExitCode::SUCCESS
        }
        Bench::Net { json, receivers, loss, frames, seeds, jobs } => {
            let seeds: Vec<u64> = (1..=seeds.max(1)).collect();
            let report = net_bench::Case { receivers, loss, frames }.measure(&seeds, jobs);
            let text = match json {
                true => serde_json::to_string(&report).expect("plain data"),
                false => report.text(),
            };
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::from(u8::from(!report.passed))
        }
        Bench::Mule { json, bytes, loss, pdu, seeds, jobs } => {
            let seeds: Vec<u64> = (1..=seeds.max(1)).collect();
            let losses = if loss.is_empty() { vec![0.0, 0.05] } else { loss };
            let pdus = if pdu.is_empty() { vec![232, 496, 1024] } else { pdu };
            let carriers: Vec<_> = pdus.into_iter().map(|pdu| Carrier::Mule(pdu.into())).collect();
            let carriers = || carriers.iter().copied().chain([Carrier::Aldis]);
            let cases = losses.iter().flat_map(|loss| carriers().map(|carrier| (*loss, carrier)));
            let measured = cases.map(|(loss, carrier)| {
                let report = mule_bench::Case { bytes: bytes as usize, loss, carrier }.measure(&seeds, jobs);
                if !json {
                    let _ = writeln!(std::io::stdout(), "{}", report.text());
                }
                report
            });
            let measured: Vec<_> = measured.collect();
            if json {
                let _ = writeln!(std::io::stdout(), "{}", serde_json::to_string(&measured).expect("plain data"));
            }
            ExitCode::SUCCESS
        }
        Bench::Satcom { json, cell, seeds, jobs } => bench_satcom(json, cell, seeds, jobs),
        Bench::Rate { json, scenario, seeds, first, minutes, chosen, jobs } => {
            bench_rate(json, chosen, &scenario, first..=first.saturating_add(seeds.max(1) - 1), minutes, jobs)
        }
        Bench::Bulk { bytes, load } => load.measure(
            load::bulk::ways(&LOSSES),
            |way, seeds| vec![load::bulk::measure(way, bytes, seeds, load.jobs)],
            |report| (report.passed, report.text()),
        ),
        Bench::TwoWay { bytes, load } => load.measure(
            load::two_way::ways(&LOSSES),
            |way, seeds| vec![load::two_way::measure(way, bytes, seeds, load.jobs)],
            |report| (report.passed, report.text()),
        ),
        Bench::Texts { bytes, messages, load } => load.measure(
            vec![Way::new(300, "L", 2.0, 0.0), Way::new(300, "S", 2.0, 0.0), Way::new(300, "L", 2.0, 0.05)],
            |way, seeds| seeds.iter().map(|seed| load::texts::measure(way, messages, bytes, *seed)).collect(),
            |report| (report.passed, report.text()),
        ),
        Bench::Flash { load } => load.measure(
            load::flash::ways(&[0.0, 0.05]),
            |way, seeds| {
                [Moment::Keyed, Moment::Listening].map(|m| load::flash::measure(way, m, seeds, load.jobs)).into()
            },
            |report| (report.passed, report.text()),
        ),
    }
}

fn bench_satcom(json: bool, cells: Vec<satcom::Cell>, seeds: u64, jobs: usize) -> ExitCode {
    let cells = if cells.is_empty() { satcom::Cell::table() } else { cells };
    let seeds: Vec<u64> = (1..=seeds.max(1)).collect();
    let mut reports = Vec::new();
    if !json {
        let _ = writeln!(std::io::stdout(), "{}", satcom::HEADING);
    }
    for cell in cells {
        let report = cell.measure(&seeds, jobs);
        match json {
            true => eprintln!("{}", report.text()),
            false => drop(writeln!(std::io::stdout(), "{}", report.text())),
        }
        reports.push(report);
    }
    let failed = reports.iter().filter(|report| !report.passed).count();
    let passed = reports.len() - failed;
    let text = match json {
        true => {
            let document = serde_json::json!({
                "schema": "aldis-sim.bench-satcom/1", "passed": passed, "failed": failed, "cells": reports,
            });
            document.to_string()
        }
        false => format!("{passed} passed, {failed} failed"),
    };
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::from(u8::from(failed > 0))
}

fn bench_rate(
    json: bool,
    chosen: bool,
    files: &[PathBuf],
    seeds: RangeInclusive<u64>,
    minutes: Option<u64>,
    jobs: usize,
) -> ExitCode {
    let read = |path: &PathBuf| std::fs::read_to_string(path).map_err(|e| wrong(path, e));
    let texts: Result<Vec<String>, String> = match files {
        [] => Ok(rate_bench::SCENARIOS.iter().map(ToString::to_string).collect()),
        files => files.iter().map(read).collect(),
    };
    let scenarios = texts.and_then(|texts| {
        texts.iter().map(|text| Scenario::parse(text).map_err(|problems| problems.join("\n"))).collect()
    });
    let scenarios: Vec<Scenario> = match scenarios {
        Ok(scenarios) => scenarios,
        Err(why) => {
            eprintln!("aldis-sim: {why}");
            return ExitCode::from(2);
        }
    };
    let seeds: Vec<u64> = seeds.collect();
    let mut reports = Vec::new();
    for scenario in &scenarios {
        let duration = minutes.map_or(scenario.duration, |m| Duration::from_secs(m * 60));
        if chosen {
            for seed in &seeds {
                let trial = rate_bench::trial(scenario, *seed, duration, None);
                let _ = writeln!(std::io::stdout(), "{}: seed {seed}: {}", scenario.name, trial.text());
            }
            continue;
        }
        let report = rate_bench::measure(scenario, &seeds, duration, jobs);
        match json {
            true => eprintln!("{}", report.text()),
            false => drop(writeln!(std::io::stdout(), "{}", report.text())),
        }
        reports.push(report);
    }
    if json {
        let _ = writeln!(std::io::stdout(), "{}", serde_json::to_string(&reports).expect("plain data"));
    }
    ExitCode::from(u8::from(reports.iter().any(|r| !r.passed)))
}

/// What `run` writes and how.
struct Outputs {
    json: bool,
    trace: Option<PathBuf>,
    pcap: Option<PathBuf>,
    report: Option<PathBuf>,
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> String {
    format!("{}: {why}", path.display())
}

fn create(path: &Option<PathBuf>) -> Result<Option<(&Path, File)>, String> {
    let Some(path) = path else { return Ok(None) };
    File::create(path).map(|file| Some((path.as_path(), file))).map_err(|e| wrong(path, e))
}

fn run_scenario(path: &Path, seed: u64, outputs: &Outputs) -> ExitCode {
    match run_and_write(path, seed, outputs) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("aldis-sim: {why}");
            ExitCode::from(2)
        }
    }
}

/// True when no invariant was broken.
fn run_and_write(path: &Path, seed: u64, outputs: &Outputs) -> Result<bool, String> {
    let text = std::fs::read_to_string(path).map_err(|e| wrong(path, e))?;
    let beside = path.parent().unwrap_or(Path::new("."));
    let scenario = Scenario::parse_in(&text, beside).map_err(|problems| wrong(path, problems.join("\n")))?;
    if scenario.codec2.is_some() {
        return Err(wrong(path, "a real modem needs real time: `aldis-sim bridge` plays this scenario"));
    }
    // Before the run: nobody wants to learn after an hour that a file cannot be written.
    let (trace, pcap, page) = (create(&outputs.trace)?, create(&outputs.pcap)?, create(&outputs.report)?);
    let trace = trace.map_or_else(Trace::hashed, |(_, file)| Trace::written(Box::new(BufWriter::new(file))));
    let watched = pcap.is_some() || page.is_some();
    let mut bar = Progress::on_terminal();
    let (report, lab) = run::run_watched(&scenario, seed, trace, watched, &mut |at, end| bar.show(at, end));
    bar.finish();
    if watched {
        let chronicle = Chronicle::of(&scenario, &report, &lab);
        if let Some((path, file)) = pcap {
            output::pcapng::write(&chronicle, &mut BufWriter::new(file)).map_err(|e| wrong(path, e))?;
        }
        if let Some((path, mut file)) = page {
            file.write_all(output::report::page(&chronicle).as_bytes()).map_err(|e| wrong(path, e))?;
        }
    }
    let text = match outputs.json {
        true => serde_json::to_string(&report).expect("a report is plain data"),
        false => report.text(),
    };
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(report.problems.is_empty())
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

fn bench_link(json: bool, reports: &[CellReport], plot: Option<&Path>) -> Result<ExitCode, String> {
    let passed = reports.iter().filter(|r| r.passed).count();
    match json {
        true => drop(writeln!(std::io::stdout(), "{}", serde_json::to_string(reports).expect("plain data"))),
        false => {
            let hashes: String = reports.iter().map(|r| r.trace_hash.as_str()).collect();
            let hash = aldis_sim::trace::short_digest(hashes.as_bytes());
            drop(writeln!(std::io::stdout(), "{passed} passed, {} failed; {hash}", reports.len() - passed));
        }
    }
    if let Some(path) = plot {
        std::fs::write(path, link_plot::svg(reports)).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(ExitCode::from(u8::from(passed < reports.len())))
}

/// Measures cells, telling of each when it is done.
fn measure_links(json: bool, cells: Vec<Cell>, seeds: &[u64], jobs: usize) -> Vec<CellReport> {
    let cells = if cells.is_empty() { link_bench::cells() } else { cells };
    let mut reports = Vec::new();
    for cell in &cells {
        let report = cell.measure(seeds, jobs, |_| {});
        match json {
            true => eprintln!("{} of {}: {}", reports.len() + 1, cells.len(), report.text()),
            false => drop(writeln!(std::io::stdout(), "{}", report.text())),
        }
        reports.push(report);
    }
    reports
}

/// What earlier runs printed, in order.
fn read_links(files: &[PathBuf]) -> Result<Vec<CellReport>, String> {
    let mut reports = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let more: Vec<CellReport> = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        reports.extend(more);
    }
    Ok(reports)
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
        Command::Run { scenario, seed, json, trace, pcap, report } => {
            run_scenario(&scenario, seed, &Outputs { json, trace, pcap, report })
        }
        Command::Bridge { scenario, dir, speed, seed, json } => {
            bridge::command::run(&bridge::command::Options { scenario, directory: dir, speed, seed, json })
        }
        Command::Codec2 { what: Codec2::Sweep { mode, channel, frames, seed, json, svg } } => {
            let options = sweep::Options { frames, seed, ..sweep::Options::new(mode, channel) };
            codec2_sweep(&options, json, svg.as_deref())
        }
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
        Command::Bench { what } => bench(what),
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
