//! Measuring: CPU, memory, the disk, and a table of it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Ticks a second in `/proc/*/stat`: 100 on every Linux, whatever the kernel's own (man 5 proc, `USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time of this process, to the nanosecond.
pub fn own_cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// CPU time of a process so far. Steps of 10 ms; nothing if there is none.
pub fn cpu_of(process: u32) -> Duration {
    let stat = Stat::read(&PathBuf::from(format!("/proc/{process}")));
    Duration::from_secs_f64(stat.map_or(0.0, |stat| stat.ticks) / TICKS_PER_SECOND)
}

/// Memory of this process that is in RAM, in bytes.
pub fn own_memory_bytes() -> u64 {
    memory_of(std::process::id())
}

/// CPU time of all processes of a program, with those of their children that have ended; of other users' as well.
pub fn cpu_of_program(name: &str) -> Duration {
    let is_it = |path: &PathBuf| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
    let ticks: f64 = processes().filter(is_it).filter_map(|path| Stat::read(&path)).map(|stat| stat.ticks).sum();
    Duration::from_secs_f64(ticks / TICKS_PER_SECOND)
}

/// Memory of a process that is in RAM, in bytes; nothing if there is none.
pub fn memory_of(process: u32) -> u64 {
    status_bytes(process, "VmRSS:")
}

/// The most memory a process ever had in RAM, in bytes, since [`forget_memory_peak`]; nothing if there is none.
pub fn memory_peak_of(process: u32) -> u64 {
    status_bytes(process, "VmHWM:")
}

/// The peak of a process's memory begins anew (man 5 proc, `clear_refs`).
pub fn forget_memory_peak(process: u32) -> io::Result<()> {
    fs::write(format!("/proc/{process}/clear_refs"), "5")
}

fn status_bytes(process: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// CPU time of a PostgreSQL server on this machine: of all its processes, those that have ended included.
///
/// It is found by a process of its that serves `database`, for PostgreSQL writes the name into its processes' titles.
/// Steps of 10 ms; what other users of the same server do counts as well. Nothing if the server is elsewhere.
pub fn cpu_of_server(database: &str) -> Option<Duration> {
    let stats: Vec<Stat> = processes().filter_map(|path| Stat::read(&path)).collect();
    let backend = processes().find(|path| serves(path, database))?;
    let postmaster = Stat::read(&backend)?.parent;
    let of_server = stats.iter().filter(|stat| stat.id == postmaster || stat.parent == postmaster);
    Some(Duration::from_secs_f64(of_server.map(|stat| stat.ticks).sum::<f64>() / TICKS_PER_SECOND))
}

/// CPU time of the PostgreSQL processes on this machine that serve `database` now, to the nanosecond.
pub fn cpu_of_backends(database: &str) -> Duration {
    let backends = processes().filter(|path| serves(path, database));
    let nanos = backends.filter_map(|path| {
        fs::read_to_string(path.join("schedstat")).ok()?.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn processes() -> impl Iterator<Item = PathBuf> {
    fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path())
}

fn serves(path: &Path, database: &str) -> bool {
    let title = fs::read(path.join("cmdline")).unwrap_or_default();
    title.starts_with(b"postgres: ") && title.windows(database.len()).any(|window| window == database.as_bytes())
}

/// A line of `/proc/<pid>/stat`.
#[derive(Debug, PartialEq)]
struct Stat {
    id: u32,
    parent: u32,
    /// In user and kernel mode, with those of its children that have ended.
    ticks: f64,
}

impl Stat {
    fn read(path: &Path) -> Option<Self> {
        Stat::parse(&fs::read_to_string(path.join("stat")).ok()?)
    }

    fn parse(line: &str) -> Option<Self> {
        // The name is in brackets and may hold anything, brackets included.
        let (head, rest) = line.rsplit_once(") ")?;
        let id = head.split_once(' ')?.0.parse().ok()?;
        // The first field after the name is the 3rd of the line: the parent is the 4th, the times the 14th to the 17th.
        let fields: Vec<_> = rest.split(' ').collect();
        let ticks = fields.get(11..15)?.iter().map(|ticks| ticks.parse::<f64>().unwrap_or(0.0)).sum();
        Some(Stat { id, parent: fields.get(1)?.parse().ok()?, ticks })
    }
}

/// How long things took, for their percentiles.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    pub fn add(&mut self, took: Duration) {
        self.0.push(took);
    }

    pub fn merge(&mut self, others: Latencies) {
        self.0.extend(others.0);
    }

    /// `share` in 0..=1 of them took no longer.
    pub fn percentile(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length is an index")]
        let place = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
        sorted.get(place).copied().unwrap_or_default()
    }
}

/// How long the disk of `dir` takes to keep 8 KiB for good, as a commit asks of it.
pub fn fdatasync_times(dir: &Path) -> io::Result<Latencies> {
    const TIMES: u64 = 200;
    const BLOCK: usize = 8192;
    let path = dir.join("fdatasync-probe");
    let probe = || {
        let file = File::create(&path)?;
        // Blocks that are there already, as in a write-ahead log: no growth to be kept as well.
        for block in 0..TIMES {
            file.write_all_at(&[0; BLOCK], block * BLOCK as u64)?;
        }
        file.sync_all()?;
        let mut times = Latencies::default();
        for block in 0..TIMES {
            let started = Instant::now();
            file.write_all_at(&[1; BLOCK], block * BLOCK as u64)?;
            rustix::fs::fdatasync(&file)?;
            times.add(started.elapsed());
        }
        Ok(times)
    };
    let times = probe();
    let _ = fs::remove_file(&path);
    times
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub fn as_float(number: u64) -> f64 {
    number as f64
}

pub fn mib(bytes: u64) -> f64 {
    (as_float(bytes) / 1024.0 / 1024.0 * 10.0).round() / 10.0
}

pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// A table for people: the first column to the left, numbers to the right.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let head: Vec<String> = head.iter().map(|&cell| cell.into()).collect();
    let mut text = String::new();
    for row in std::iter::once(&head).chain(rows) {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_after_its_name() {
        let line = "7 (a) b) (c) S 1 7 7 0 -1 4194560 900 0 0 0 10 20 3 4 20 0 1 0";
        assert_eq!(Stat::parse(line), Some(Stat { id: 7, parent: 1, ticks: 37.0 }));
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn this_process_uses_cpu_and_memory() {
        assert!(own_memory_bytes() > 0);
        assert!(own_cpu() > Duration::ZERO);
    }

    #[test]
    fn percentiles_are_of_the_sorted() {
        let mut latencies = Latencies::default();
        (1..=100).rev().for_each(|n| latencies.add(Duration::from_millis(n)));
        assert_eq!(latencies.percentile(0.0), Duration::from_millis(1));
        assert_eq!(latencies.percentile(0.99), Duration::from_millis(99));
        assert_eq!(Latencies::default().percentile(0.5), Duration::ZERO);
    }
}
