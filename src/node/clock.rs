//! The one place where the machine's clocks are read.
//!
//! Monotonic time starts at zero with the node. Civil time is read afresh at every call, so that a step of the system clock
//! reaches the switch as what it is; a demo runs both faster by the same factor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant as StdInstant, SystemTime, UNIX_EPOCH};

use crate::time::{Duration, Instant, Now, Wall};

/// A running clock; cheap to clone, shared by all of a node's drivers (and by the simulated modems of a demo).
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: StdInstant,
    start_wall: Wall,
    speed: f64,
    trusted: bool,
    kernel: Kernel,
}

/// What the kernel says of its clock. Asking costs a system call, which whoever moves bytes would pay for each few of them.
#[derive(Debug)]
struct Kernel {
    synchronised: AtomicBool,
    /// Real nanoseconds after the start at which it is asked again.
    again: AtomicU64,
}

/// For how long it is believed.
const BELIEVED: Duration = Duration::from_millis(100);

impl Clock {
    /// The machine's clock. `trusted` is an operator's word that civil time is right (A7).
    pub fn real(trusted: bool) -> Self {
        Self::scaled(1.0, trusted)
    }

    /// A clock that runs `speed` times as fast as the machine's; for demos and simulations only.
    pub fn scaled(speed: f64, trusted: bool) -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the place")]
        let start = StdInstant::now();
        let kernel = Kernel { synchronised: AtomicBool::new(false), again: AtomicU64::new(0) };
        Self(Arc::new(Inner { start, start_wall: system_wall(), speed: speed.max(0.001), trusted, kernel }))
    }

    /// Monotonic time since the clock started.
    pub fn at(&self) -> Instant {
        let real = self.0.start.elapsed().as_nanos() as f64;
        Instant((real * self.0.speed) as u64)
    }

    /// What a core is handed.
    pub fn now(&self) -> Now {
        let at = self.at();
        let wall = if self.0.speed == 1.0 { system_wall() } else { self.0.start_wall.plus(at.since(Instant::ZERO)) };
        Now { at, wall, set: self.0.trusted || self.synchronised() }
    }

    fn synchronised(&self) -> bool {
        let Inner { start, kernel, .. } = &*self.0;
        let now = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if now >= kernel.again.load(Ordering::Relaxed) {
            kernel.synchronised.store(kernel_synchronised(), Ordering::Relaxed);
            kernel.again.store(now.saturating_add(BELIEVED.as_nanos() as u64), Ordering::Relaxed);
        }
        kernel.synchronised.load(Ordering::Relaxed)
    }

    /// The real time until `deadline`, zero when it has passed.
    pub fn real_until(&self, deadline: Instant) -> Duration {
        deadline.since(self.at()).div_f64(self.0.speed)
    }

    /// The real time that a span of this clock takes.
    pub fn real_span(&self, span: Duration) -> Duration {
        span.div_f64(self.0.speed)
    }
}

fn system_wall() -> Wall {
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    let now = SystemTime::now();
    match now.duration_since(UNIX_EPOCH) {
        Ok(d) => Wall(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)),
        Err(e) => Wall(-i64::try_from(e.duration().as_millis()).unwrap_or(i64::MAX)),
    }
}

/// Whether the kernel calls its clock synchronised (adjtimex, as set by timesyncd, chrony, ntpd or a GPS daemon).
fn kernel_synchronised() -> bool {
    #[expect(unsafe_code, reason = "plain data structure, read-only call; there is no safe wrapper")]
    // SAFETY: `timex` is plain old data for which all zeros is valid, and modes = 0 makes the call read-only.
    let (state, status) = unsafe {
        let mut timex: libc::timex = core::mem::zeroed();
        (libc::adjtimex(&mut timex), timex.status)
    };
    state >= 0 && state != libc::TIME_ERROR && status & libc::STA_UNSYNC == 0
}
