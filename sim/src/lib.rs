//! The laboratory of Aldis: simulated modems, channels, disks and clocks around the real switch.
//!
//! One engine, two clocks: [`world`] steps the [`ether`] and its hosts in virtual time, [`bridge`] paces the same ether by the
//! machine's clock and puts its modems on ports for programs outside. `sim/README.md` says what is modelled and what is not.

pub mod bench;
pub mod bridge;
pub mod channel;
pub mod check;
pub mod client;
pub mod codec2;
pub mod demo;
pub mod disk;
pub mod ether;
pub mod fleet;
pub mod journal;
pub mod lab;
pub mod limit;
pub mod link_bench;
pub mod link_plot;
pub mod load;
pub mod memo;
pub mod modem;
pub mod mule_bench;
pub mod net_bench;
pub mod node;
pub mod output;
pub mod packet;
pub mod rate_bench;
pub mod rng;
pub mod run;
pub mod satcom;
pub mod scenario;
pub mod storm;
pub mod trace;
pub mod waveform;
pub mod world;
