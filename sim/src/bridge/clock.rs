//! The one place that ties virtual time to the machine's clock.

use aldis::time::{Duration, Instant};

/// Virtual time tied to the machine's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
    speed: f64,
}

impl Clock {
    /// A clock that stands at zero now and runs `speed` times as fast as the machine's.
    pub fn start(speed: f64) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "real time: the one place that ties virtual time to the machine's"
        )]
        let start = std::time::Instant::now();
        Self { start, speed }
    }

    /// Virtual time now.
    pub fn now(&self) -> Instant {
        Instant((self.start.elapsed().as_secs_f64() * self.speed * 1e9) as u64)
    }

    /// How fast it runs.
    pub fn speed(&self) -> f64 {
        self.speed
    }

    /// When the machine's clock will be at virtual time `at`.
    pub(crate) fn real(&self, at: Instant) -> tokio::time::Instant {
        let after = Duration::from_nanos(at.0).as_secs_f64() / self.speed;
        // Rounded up: a timer that fires early would only fire again.
        tokio::time::Instant::from_std(self.start + std::time::Duration::from_secs_f64(after + 1e-6))
    }
}
