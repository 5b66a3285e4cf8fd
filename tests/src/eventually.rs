//! Waiting for what must come, with patience from `$FSI_TEST_PATIENCE` (seconds, 60 if it is not set).

use std::env;
use std::thread;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks until it is so; fails when patience is over.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < patience(), "{what}: not within {:?}", patience());
        thread::sleep(LOOK_EVERY);
    }
}

fn patience() -> Duration {
    let seconds = env::var("FSI_TEST_PATIENCE").ok().and_then(|value| value.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}
