//! `aldis-sim storm`: many seeds on several threads, within a budget, and what there is to say about those that fail.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::{Profile, Storm, kind};

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The weather.
    pub profile: Profile,
    /// The first seed.
    pub first: u64,
    /// The commit it was derived from, to be named.
    pub commit: Option<String>,
    /// Most seeds.
    pub seeds: u64,
    /// Fewer are a failure.
    pub at_least: u64,
    /// Real seconds after which no further seed is begun.
    pub budget: Option<f64>,
    /// How many at once.
    pub jobs: usize,
    /// Where scenarios of failing seeds are written.
    pub keep: Option<PathBuf>,
    /// One JSON document instead of lines.
    pub json: bool,
    /// Say how every seed went.
    pub verbose: bool,
}

/// A seed that failed.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct Failure {
    seed: u64,
    kind: String,
    problems: Vec<String>,
    again: String,
}

/// What a run of many seeds came to.
#[derive(Clone, PartialEq, Debug, Serialize)]
struct Summary {
    schema: &'static str,
    profile: &'static str,
    commit: Option<String>,
    first: u64,
    seeds: u64,
    at_least: u64,
    virtual_s: f64,
    messages: u64,
    failures: Vec<Failure>,
    passed: bool,
}

/// Most failing seeds told in full.
const TOLD: usize = 10;

/// Runs the seeds; exit 1 when one failed or fewer than required were run.
#[expect(clippy::disallowed_methods, reason = "the budget is the machine's time; no result depends on it")]
pub fn run(options: &Options) -> ExitCode {
    let begun = std::time::Instant::now();
    let over = || options.budget.is_some_and(|most| begun.elapsed().as_secs_f64() >= most);
    let next = AtomicU64::new(0);
    let done = Mutex::new((0_u64, 0.0, 0_u64, Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while !over() {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= options.seeds {
                        return;
                    }
                    let seed = options.first.wrapping_add(number);
                    let storm = Storm::new(seed, options.profile);
                    let began = begun.elapsed();
                    let result = storm.run();
                    if options.verbose {
                        let took = (begun.elapsed() - began).as_secs_f64();
                        eprintln!("seed {seed}: {took:.3} s, {} problems", problems(&result).len());
                    }
                    let mut done = done.lock().expect("no thread panics while it counts");
                    done.0 += 1;
                    if let Ok(report) = &result {
                        done.1 += report.virtual_s;
                        done.2 += report.messages.len() as u64;
                    }
                    let problems = problems(&result);
                    if let Some(first) = problems.first() {
                        let failure = Failure {
                            seed,
                            kind: kind(first).to_owned(),
                            again: format!(
                                "aldis-sim storm --profile {} --first {seed} --seeds 1",
                                options.profile.name()
                            ),
                            problems,
                        };
                        tell(options, &storm, &failure, done.3.len());
                        done.3.push(failure);
                    }
                }
            });
        }
    });
    let (seeds, virtual_s, messages, mut failures) = done.into_inner().expect("no thread panicked");
    failures.sort_by_key(|f: &Failure| f.seed);
    let passed = failures.is_empty() && seeds >= options.at_least;
    let summary = Summary {
        schema: "aldis-sim.storm/1",
        profile: options.profile.name(),
        commit: options.commit.clone(),
        first: options.first,
        seeds,
        at_least: options.at_least,
        virtual_s,
        messages,
        failures,
        passed,
    };
    let text = if options.json {
        serde_json::to_string(&summary).expect("a summary is plain data")
    } else {
        let commit = summary.commit.as_ref().map(|c| format!(" of commit {c}")).unwrap_or_default();
        let few = if seeds < options.at_least {
            format!(", fewer than the {} required", options.at_least)
        } else {
            String::new()
        };
        format!(
            "{seeds} seeds from {}{commit}, profile {}, {} messages, {:.0} h of virtual time, {:.1} s: {} failed{few}",
            options.first,
            summary.profile,
            messages,
            virtual_s / 3600.0,
            begun.elapsed().as_secs_f64(),
            summary.failures.len()
        )
    };
    let _ = writeln!(std::io::stdout(), "{text}");
    ExitCode::from(u8::from(!passed))
}

fn problems(result: &Result<crate::run::RunReport, Vec<String>>) -> Vec<String> {
    match result {
        Ok(report) => report.problems.clone(),
        Err(problems) => problems.clone(),
    }
}

fn tell(options: &Options, storm: &Storm, failure: &Failure, before: usize) {
    if before < TOLD {
        let commit = options.commit.as_ref().map(|c| format!(" (commit {c})")).unwrap_or_default();
        eprintln!("seed {}{commit} FAILED: {}", failure.seed, failure.problems.join("\n    "));
        eprintln!("    again: {}\n    smaller: {} --shrink", failure.again, failure.again);
    }
    if let Some(folder) = &options.keep {
        let path = folder.join(format!("{}-{}.toml", options.profile.name(), failure.seed));
        let kept = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, storm.toml()));
        match kept {
            Ok(()) => eprintln!("    kept: aldis-sim run {} --seed {}", path.display(), failure.seed),
            Err(why) => eprintln!("    {} cannot be written: {why}", path.display()),
        }
    }
}

/// Reduces a failing storm, within a budget of real seconds, and prints what is left.
#[expect(clippy::disallowed_methods, reason = "the budget is the machine's time; what is found earlier is printed")]
pub fn shrink(storm: &Storm, budget: Option<f64>) -> ExitCode {
    let begun = std::time::Instant::now();
    let go_on = |step: &str| {
        if !step.is_empty() {
            eprintln!("{step}");
        }
        budget.is_none_or(|most| begun.elapsed().as_secs_f64() < most)
    };
    match storm.shrink(go_on) {
        Some((small, runs)) => {
            eprintln!("after {runs} runs: {}", small.problems().join("\n    "));
            let _ = writeln!(std::io::stdout(), "{}", small.toml());
            ExitCode::from(1)
        }
        None => {
            eprintln!("it does not fail");
            ExitCode::SUCCESS
        }
    }
}

/// Shows that every deliberate fault is caught; exit 1 when one is not.
#[cfg(feature = "mutations")]
pub fn prove(first: u64, only: Option<&str>, json: bool) -> ExitCode {
    let bars = super::proof::bars();
    let chosen = bars.iter().filter(|bar| only.is_none_or(|name| bar.fault.name() == name));
    let mut proofs = Vec::new();
    for bar in chosen {
        let proof = bar.prove(first);
        if !json {
            let verdict = match (&proof.seed, &proof.by) {
                (Some(seed), Some(by)) => format!("caught after {} by {by} (seed {seed})", proof.seeds),
                _ => "NOT CAUGHT".to_owned(),
            };
            let _ = writeln!(
                std::io::stdout(),
                "{:<22} {:<8} within {:<4} {verdict}",
                proof.fault,
                proof.profile,
                proof.bar
            );
        }
        proofs.push(proof);
    }
    let passed = !proofs.is_empty() && proofs.iter().all(|p| p.seed.is_some());
    if json {
        let document = serde_json::json!({ "schema": "aldis-sim.mutations/1", "passed": passed, "faults": proofs });
        let _ = writeln!(std::io::stdout(), "{document}");
    }
    ExitCode::from(u8::from(!passed))
}
