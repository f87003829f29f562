//! What a measurement reads from the system: CPU and memory of processes, and the disk's own speed.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// CPU time a process has used so far, user and system; with `with_children`, of its ended children, too.
pub fn cpu_of(pid: u32, with_children: bool) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("no process {pid}"))?;
    // The name, in parentheses, may hold anything: fields are counted behind it (proc_pid_stat(5)).
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .skip(11)
        .take(4)
        .filter_map(|field| field.parse().ok())
        .collect();
    let ticks: u64 = fields.iter().take(if with_children { 4 } else { 2 }).sum();
    // Linux reports ticks of 1/100 s to user space on every architecture we run on.
    Ok(Duration::from_millis(ticks * 10))
}

/// CPU time of every process called `name`, their ended children included.
pub fn cpu_of_all(name: &str) -> Duration {
    let Ok(processes) = fs::read_dir("/proc") else { return Duration::ZERO };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name))
        .filter_map(|pid| cpu_of(pid, true).ok())
        .sum()
}

/// Memory of a process that is in RAM, in bytes.
pub fn memory_of(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("no process {pid}"))?;
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok());
    kib.map(|kib: u64| kib * 1024).context("/proc tells no VmRSS")
}

/// How long the disk under `dir` takes to make 4 KiB durable: appended and fdatasynced, `times` over.
pub fn fdatasync_times(dir: &Path, times: usize) -> anyhow::Result<Latencies> {
    let path = dir.join(".fdatasync-probe");
    let mut file = File::create(&path).with_context(|| format!("cannot write in {}", dir.display()))?;
    let mut latencies = Latencies::default();
    for _ in 0..times {
        let started = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        latencies.add(started.elapsed());
    }
    drop(file);
    fs::remove_file(&path)?;
    Ok(latencies)
}

/// Times of many, to take percentiles of.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    pub fn add(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    pub fn merge(&mut self, others: Latencies) {
        self.0.extend(others.0);
    }

    /// The smallest time that `percent` of all do not exceed; nothing of none.
    pub fn percentile(&mut self, percent: f64) -> Duration {
        self.0.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a place in a list, clamped to it"
        )]
        let place = ((percent / 100.0 * self.0.len() as f64).ceil() as usize).clamp(1, self.0.len().max(1)) - 1;
        self.0.get(place).copied().unwrap_or_default()
    }
}

/// Milliseconds with two digits behind the point.
pub fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_added() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(99.0), Duration::ZERO);
        (1..=100).rev().for_each(|ms| latencies.add(Duration::from_millis(ms)));
        assert_eq!(latencies.percentile(50.0), Duration::from_millis(50));
        assert_eq!(latencies.percentile(99.0), Duration::from_millis(99));
        assert_eq!(latencies.percentile(100.0), Duration::from_millis(100));
    }

    #[test]
    fn our_own_figures_can_be_read() {
        assert!(memory_of(std::process::id()).expect("we are") > 100_000);
        cpu_of(std::process::id(), false).expect("we are");
    }
}
