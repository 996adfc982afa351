//! `aldis-sim check`: does the engine do what is known to be true of radios and of chance?
//!
//! Each case drives the engine and compares with a figure that was worked out elsewhere; the names are those of the validation
//! list in the design notes (V1 to V20). One file holds the cases about one thing.

use std::fmt;

use serde::Serialize;

mod access;
mod air;
mod coding;
mod determinism;
mod fading;
mod packet;
mod realtime;
mod silence;
mod transmission;

/// One thing measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Finding {
    /// Which case.
    pub case: &'static str,
    /// What was measured.
    pub what: String,
    /// What it should be.
    pub expected: f64,
    /// What it was.
    pub measured: f64,
    /// How far it may be off.
    pub tolerance: f64,
    /// How the expected figure is worked out; empty where it is a plain claim.
    pub formula: &'static str,
    /// How many draws, runs or cases the measured figure stands on.
    pub n: u64,
    /// Whether it is close enough.
    pub passed: bool,
}

impl Finding {
    fn new(case: &'static str, what: impl Into<String>, expected: f64, measured: f64, tolerance: f64) -> Self {
        let passed = (measured - expected).abs() <= tolerance;
        Self { case, what: what.into(), expected, measured, tolerance, formula: "", n: 1, passed }
    }

    /// Says by which formula the expected figure was worked out and on how many draws the measured one stands.
    fn by(self, formula: &'static str, n: u64) -> Self {
        Self { formula, n, ..self }
    }

    /// A claim that is true or false: counts violations, of which there may be none.
    fn none(case: &'static str, what: impl Into<String>, violations: u64) -> Self {
        Self::new(case, what, 0.0, violations as f64, 0.0)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passed { "pass" } else { "FAIL" };
        let Self { case, what, expected, measured, tolerance, .. } = self;
        let [expected, measured, tolerance] = [expected, measured, tolerance].map(|x| (x * 1e5).round() / 1e5);
        // Formulas are in the JSON; a line is for reading.
        write!(f, "{case:<4} {verdict}  {what}: expected {expected}, measured {measured}, tolerance {tolerance}")
    }
}

/// What `check --json` prints.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// Form of this document.
    pub schema: &'static str,
    /// Every finding, in order.
    pub findings: Vec<Finding>,
    /// How many passed.
    pub passed: usize,
    /// How many failed.
    pub failed: usize,
}

/// Runs every case, in the order of the list; `quick` with fewer draws where a case is about chance, and wider tolerances to match.
pub fn run(quick: bool) -> Report {
    let mut findings: Vec<Finding> = [
        air::cases(quick),
        access::cases(quick),
        coding::cases(quick),
        determinism::cases(),
        fading::cases(quick),
        packet::cases(),
        realtime::cases(quick),
        silence::cases(quick),
    ]
    .concat();
    findings.sort_by_key(|f| f.case[1..].parse::<u32>().unwrap_or(u32::MAX));
    let passed = findings.iter().filter(|f| f.passed).count();
    Report { schema: "aldis-sim-check/1", passed, failed: findings.len() - passed, findings }
}

fn three_sigma(p: f64, n: usize) -> f64 {
    3.0 * (p * (1.0 - p) / n as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_passes_quickly() {
        let report = run(true);
        let failed: Vec<String> = report.findings.iter().filter(|f| !f.passed).map(ToString::to_string).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        assert_eq!(report.passed, report.findings.len());
    }

    #[test]
    fn a_finding_outside_its_tolerance_fails() {
        assert!(Finding::new("V0", "x", 1.0, 1.1, 0.2).passed);
        assert!(!Finding::new("V0", "x", 1.0, 1.3, 0.2).passed);
        assert!(!Finding::new("V0", "x", 1.0, f64::INFINITY, 0.2).passed);
        assert!(!Finding::none("V0", "x", 1).passed);
    }
}
