//! Storms: scenarios drawn from seeds, whole nets of whole nodes under everything that may befall them, judged after every step, then
//! healed and asked for progress. `docs/simulation-testing.md` says what is drawn and what is judged.
//!
//! A seed and a profile are a scenario, and a scenario under its seed is a run: the same everywhere, for ever. What fails is reduced by
//! [`Storm::shrink`] to a scenario that a person can read. Called by `aldis-sim storm` and by the tests.

pub mod command;
mod make;
#[cfg(feature = "mutations")]
pub mod proof;
mod shrink;

use std::panic::{AssertUnwindSafe, catch_unwind};

#[cfg(feature = "mutations")]
use aldis::mutation::Mutation;

use crate::run::{self, RunReport};
use crate::scenario::{Scenario, raw};
use crate::trace::Trace;

/// What kind of weather is drawn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Profile {
    /// Everything, in random combinations.
    Mixed,
    /// Lossy paths and many stations, and no mishap.
    Calm,
    /// Power cuts and crashes, mostly in the middle of an operation of a disk.
    Cuts,
    /// Disks that are full or fail.
    Disks,
    /// Orders of silence of all kinds, with crashes.
    Silence,
    /// Clocks that are wrong, lost, stepped.
    Clocks,
    /// Much traffic of all levels, with an operator's hand in it.
    Service,
    /// Hours of absence.
    Absence,
    /// A hundred stations for an hour.
    Crowd,
    /// Two bearers between all, of which one or the other goes away, is closed or breaks.
    Bearers,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 10] = [
        Self::Mixed,
        Self::Calm,
        Self::Cuts,
        Self::Disks,
        Self::Silence,
        Self::Clocks,
        Self::Service,
        Self::Absence,
        Self::Crowd,
        Self::Bearers,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::Calm => "calm",
            Self::Cuts => "cuts",
            Self::Disks => "disks",
            Self::Silence => "silence",
            Self::Clocks => "clocks",
            Self::Service => "service",
            Self::Absence => "absence",
            Self::Crowd => "crowd",
            Self::Bearers => "bearers",
        }
    }

    /// The profile of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }
}

/// One scenario with its seed, and with a deliberate fault if there is to be one.
#[derive(Clone, Debug)]
pub struct Storm {
    seed: u64,
    raw: raw::Scenario,
    #[cfg(feature = "mutations")]
    fault: Option<Mutation>,
}

impl Storm {
    /// The storm of this seed.
    pub fn new(seed: u64, profile: Profile) -> Self {
        Self {
            seed,
            raw: make::scenario(seed, profile),
            #[cfg(feature = "mutations")]
            fault: None,
        }
    }

    /// A scenario that somebody wrote, to be run and reduced like any other.
    pub fn read(seed: u64, text: &str) -> Result<Self, Vec<String>> {
        let raw: raw::Scenario = toml::from_str(text).map_err(|e| vec![e.to_string().trim_end().to_owned()])?;
        Scenario::read(raw.clone())?;
        Ok(Self {
            seed,
            raw,
            #[cfg(feature = "mutations")]
            fault: None,
        })
    }

    /// The same on nodes with a deliberate fault.
    #[cfg(feature = "mutations")]
    pub fn with(self, fault: Mutation) -> Self {
        Self { fault: Some(fault), ..self }
    }

    /// The scenario as a file for `aldis-sim run`.
    pub fn toml(&self) -> String {
        toml::to_string(&self.raw).expect("plain strings and numbers")
    }

    /// Runs it. A panic is a problem like any other.
    pub fn run(&self) -> Result<RunReport, Vec<String>> {
        let scenario = Scenario::read(self.raw.clone())?;
        let setup = run::setup(&scenario, self.seed);
        #[cfg(feature = "mutations")]
        let setup = crate::lab::Setup { mutation: self.fault, ..setup };
        catch_unwind(AssertUnwindSafe(|| run::run_with(&scenario, setup, Trace::hashed()))).map_err(|cause| {
            let words = cause.downcast_ref::<String>().cloned();
            let words = words.or_else(|| cause.downcast_ref::<&str>().map(ToString::to_string));
            vec![format!("panic: {}", words.unwrap_or_default())]
        })
    }

    /// What is wrong with it; empty when nothing is.
    pub fn problems(&self) -> Vec<String> {
        self.run().map_or_else(|problems| problems, |report| report.problems)
    }

    /// The smallest scenario that still fails in the same way, and how many runs that took. `go_on` hears what became smaller (nothing
    /// when a run brought nothing) and says whether to try further.
    pub fn shrink(&self, go_on: impl FnMut(&str) -> bool) -> Option<(Self, usize)> {
        shrink::shrink(self, go_on)
    }
}

/// The kind of a problem: its first word.
pub fn kind(problem: &str) -> &str {
    problem.split_once(':').map_or(problem, |(kind, _)| kind)
}

/// The first seed of a run that belongs to a commit: the same for everybody who tests it.
pub fn base_of(commit: &str) -> Option<u64> {
    u64::from_str_radix(commit.get(..12)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_a_sound_scenario_that_can_be_written_and_read() {
        for profile in Profile::ALL {
            let seeds = if profile == Profile::Crowd { 2 } else { 300 };
            for seed in 0..seeds {
                let storm = Storm::new(seed, profile);
                let scenario = Scenario::read(storm.raw.clone());
                let scenario =
                    scenario.unwrap_or_else(|p| panic!("{} {seed}: {p:?}\n{}", profile.name(), storm.toml()));
                assert_eq!(Scenario::parse(&storm.toml()), Ok(scenario), "{} {seed}", profile.name());
            }
        }
    }

    #[test]
    fn a_storm_runs_twice_the_same_and_from_its_file() {
        let storm = Storm::new(3, Profile::Mixed);
        let hash = |storm: &Storm| storm.run().map(|report| report.trace_hash);
        let once = hash(&storm);
        assert_eq!(hash(&storm), once);
        assert_eq!(hash(&Storm::read(3, &storm.toml()).expect("reads")), once);
    }

    #[test]
    fn a_commit_gives_a_base() {
        assert_eq!(base_of("00000000000fffffffffffffffffffffffffffff"), Some(15));
        assert_eq!(base_of("short"), None);
    }
}
