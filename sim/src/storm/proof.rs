//! The proof that the judges can fail: every deliberate fault, the weather that brings it to light, and how soon it must be caught.

use aldis::mutation::Mutation;

use super::{Profile, Storm, kind};

/// A fault, where it is looked for, and within how many seeds it must be caught.
#[derive(Clone, Copy, Debug)]
pub struct Bar {
    /// The fault.
    pub fault: Mutation,
    /// The weather.
    pub profile: Profile,
    /// Most seeds.
    pub seeds: u64,
}

/// How a fault fared.
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
pub struct Proof {
    /// Its name.
    pub fault: &'static str,
    /// What is wrong with a node that has it.
    pub about: &'static str,
    /// The weather.
    pub profile: &'static str,
    /// Within how many seeds it must be caught.
    pub bar: u64,
    /// The seed that caught it.
    pub seed: Option<u64>,
    /// How many seeds that took.
    pub seeds: u64,
    /// Which judge caught it.
    pub by: Option<String>,
    /// In words.
    pub problem: Option<String>,
}

/// The bar of every fault.
pub fn bars() -> Vec<Bar> {
    let bar = |fault: &Mutation| {
        use Mutation as M;
        let (profile, seeds) = match fault {
            M::SkipSync | M::SkipDirectorySync | M::PromiseEarly | M::ReuseCounter => (Profile::Cuts, 30),
            M::DropDedupe => (Profile::Cuts, 300),
            M::ConfirmFailed => (Profile::Disks, 100),
            M::KeyInSilence | M::ForgetOrder | M::KeepKeyed => (Profile::Silence, 30),
            M::OverrunWindow => (Profile::Silence, 60),
            M::TrustUnsetClock => (Profile::Clocks, 200),
            M::IgnorePrecedence => (Profile::Service, 30),
            M::FlipBit | M::DeliverTwice | M::CutShort | M::KeepTransfer => (Profile::Calm, 5),
            M::ExpireEarly => (Profile::Absence, 30),
            M::GiveUp => (Profile::Calm, 30),
        };
        Bar { fault: *fault, profile, seeds }
    };
    Mutation::ALL.iter().map(bar).collect()
}

impl Bar {
    /// Runs seeds from `first` on until the fault is caught, at most as many as the bar says.
    pub fn prove(&self, first: u64) -> Proof {
        let mut proof = Proof {
            fault: self.fault.name(),
            about: self.fault.about(),
            profile: self.profile.name(),
            bar: self.seeds,
            seed: None,
            seeds: 0,
            by: None,
            problem: None,
        };
        for seed in first..first.saturating_add(self.seeds) {
            proof.seeds += 1;
            let storm = Storm::new(seed, self.profile);
            // Caught is a seed that fails with the fault and passes without it.
            if let Some(problem) = storm.clone().with(self.fault).problems().into_iter().next()
                && storm.problems().is_empty()
            {
                proof.seed = Some(seed);
                proof.by = Some(kind(&problem).to_owned());
                proof.problem = Some(problem);
                break;
            }
        }
        proof
    }
}
