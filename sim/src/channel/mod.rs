//! What a path does to the bytes of a transmission: from fixed loss figures to a fading sky.
//!
//! [`Loss`] says how one directed link loses; [`Passage`] is one transmission on it. The models without a clock (cells, bits,
//! blocks, patterns) count from the transmission's first byte. Those with one, a [`Script`] and a [`Sky`], have a signal-to-noise
//! ratio at every instant, which hangs on seed, link and instant alone: in whatever order it is asked for, and whoever else is on
//! the air, it is the same. `docs/sim-channel.md` gives the formulas, the figures and where they come from.

use std::sync::Arc;

pub mod anchor;
mod fade;
pub(crate) mod normal;
mod passage;
mod preset;
mod script;
mod sky;
mod wander;

pub use anchor::Anchor;
pub use fade::Tap;
pub use passage::{Arrived, Passage, Preamble, Span};
pub use preset::{PRESETS, Preset};
pub use script::{Script, State};
pub use sky::{Fading, Interference, Mean, Path, Sky, Wander};
pub use wander::Wandering;

/// How a link loses bytes.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum Loss {
    /// Nothing is lost.
    #[default]
    Ideal,
    /// The transmission is cut from its start into cells; each is lost on its own with probability `p`.
    Cells {
        /// Bytes of a cell.
        bytes: u32,
        /// Probability that a cell is lost.
        p: f64,
        /// What a lost cell becomes.
        damage: Damage,
    },
    /// Cells lost in bursts: a two-state chain that steps once per cell and loses every cell in its bad state. It starts each
    /// transmission in its stationary state.
    Gilbert {
        /// Bytes of a cell.
        bytes: u32,
        /// Probability of going from good to bad.
        bad: f64,
        /// Probability of going from bad to good.
        good: f64,
        /// What a lost cell becomes.
        damage: Damage,
    },
    /// Cells lost by a fixed pattern, the same in every transmission; after its end it begins anew.
    Pattern {
        /// Bytes of a cell.
        bytes: u32,
        /// Which cells are lost.
        lost: Arc<[bool]>,
        /// What a lost cell becomes.
        damage: Damage,
    },
    /// Independent bit errors.
    Bits {
        /// Bit error ratio.
        ber: f64,
    },
    /// Whole interleaver blocks are lost on their own with probability `p`, as garbage.
    Blocks {
        /// Probability that a block is lost.
        p: f64,
    },
    /// What a script says for each span of virtual time: a signal-to-noise ratio, a share of blocks lost, or nothing at all.
    Script {
        /// The spans.
        script: Arc<Script>,
        /// What a failed block becomes.
        wreck: Wreck,
    },
    /// A fading path: the effective signal-to-noise ratio over each block against what the waveform needs.
    Sky {
        /// The path's figures.
        sky: Arc<Sky>,
        /// What a failed block becomes.
        wreck: Wreck,
    },
}

/// What the receiver gets in place of a lost cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Damage {
    /// Garbage of the same length.
    #[default]
    Garbage,
    /// Nothing: what follows moves up.
    Deleted,
}

/// What the receiver gets in place of a failed block.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Wreck {
    /// Bit error ratio inside a failed block.
    pub ber: f64,
    /// Share of failed blocks of which only a beginning comes out.
    pub truncated: f64,
}

impl Default for Wreck {
    /// One bit in twenty is wrong: no frame of ten bytes or more is likely to survive. None is cut short.
    fn default() -> Self {
        Self { ber: 0.05, truncated: 0.0 }
    }
}
