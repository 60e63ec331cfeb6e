//! What the figures were measured on, and how quiet it was.

use std::{
    fmt, fs,
    hint::black_box,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

/// The machine, the software, and the noise around the measurement.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) processor: String,
    pub(super) processors: usize,
    pub(super) kernel: String,
    pub(super) commit: String,
    /// Whether the work tree differs from that commit.
    pub(super) modified: bool,
    /// Seconds since 1970.
    pub(super) time: u64,
    /// The processor that the measurement was pinned to.
    pub(super) pinned: Option<usize>,
    /// Share of processor time that others took just before.
    pub(super) busy_before: f64,
    /// The same just after.
    pub(super) busy_after: f64,
    /// Whether the benchmark itself was optimised: control and tables mean nothing otherwise.
    pub(super) optimised: bool,
}

impl Machine {
    pub(super) fn now(pinned: Option<usize>) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let models = cpuinfo.lines().filter_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
        let git = |args: &[&str]| {
            let output =
                Command::new("git").args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            output.status.success().then_some(text)
        };
        Self {
            processor: models.clone().next().unwrap_or("unknown").trim().to_owned(),
            processors: models.count(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            commit: git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".into()),
            modified: git(&["status", "--porcelain"]).is_some_and(|text| !text.is_empty()),
            time: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |time| time.as_secs()),
            pinned,
            busy_before: 0.0,
            busy_after: 0.0,
            optimised: !cfg!(debug_assertions),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} processors, Linux {}, commit {}{}, others took {:.0} % before and {:.0} % after",
            self.processor,
            self.processors,
            self.kernel,
            self.commit.get(..12).unwrap_or(&self.commit),
            if self.modified { " (modified)" } else { "" },
            self.busy_before * 100.0,
            self.busy_after * 100.0
        )
    }
}

/// Share of all processors' time that is not idle in a short while, during which this process sleeps.
pub(super) fn busy() -> f64 {
    let read = || -> Option<(u64, u64)> {
        let text = fs::read_to_string("/proc/stat").ok()?;
        let numbers: Vec<u64> =
            text.lines().next()?.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
        Some((numbers.iter().take(8).sum(), numbers.get(3)? + numbers.get(4)?))
    };
    let before = read();
    thread::sleep(Duration::from_millis(500));
    match before.zip(read()) {
        Some(((all, idle), (all_now, idle_now))) if all_now > all => {
            1.0 - (idle_now - idle) as f64 / (all_now - all) as f64
        }
        _ => f64::NAN,
    }
}

/// Nanoseconds of a load that misses every cache: a walk through 256 MiB in an order that nothing guesses.
pub(super) fn cache_miss() -> f64 {
    const LINES: usize = (256 << 20) / 64;
    const STEPS: u32 = 2_000_000;
    // One cycle through all lines (Sattolo's shuffle): each names the next.
    let mut next: Vec<[u32; 16]> = vec![[0; 16]; LINES];
    let mut order: Vec<u32> = (0..LINES as u32).collect();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for i in (1..LINES).rev() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(i, (random >> 33) as usize % i);
    }
    for pair in order.windows(2) {
        next[pair[0] as usize][0] = pair[1];
    }
    next[order[LINES - 1] as usize][0] = order[0];
    let mut at = order[0];
    let mut times: Vec<f64> = (0..5)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..STEPS {
                at = next[at as usize][0];
            }
            black_box(at);
            start.elapsed().as_nanos() as f64 / f64::from(STEPS)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
