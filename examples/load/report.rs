//! What a run gave: counts, times, and what it cost the server.

use std::time::Duration;

use serde::Serialize;

#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub events: usize,
    pub errors: usize,
    pub seconds: f64,
    pub events_per_second: f64,
    /// Milliseconds from the join to the result; in chat mode, what a token came later than it was
    /// due.
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub estimations: usize,
    pub bytes: u64,
    /// Seconds of processor time of the server, where its pid is known.
    pub server_cpu: Option<f64>,
    /// The server's peak memory, in MiB.
    pub server_peak_mib: Option<f64>,
}

impl Report {
    pub fn times(&mut self, mut times: Vec<Duration>) {
        times.sort_unstable();
        let at = |part: f64| {
            let index = (part * times.len() as f64) as usize;
            times.get(index.min(times.len().saturating_sub(1))).map_or(0.0, Duration::as_secs_f64)
                * 1e3
        };
        (self.p50_ms, self.p99_ms, self.p999_ms) = (at(0.5), at(0.99), at(0.999));
    }

    pub fn print(&self) {
        println!("events        {:>12}   errors {}", self.events, self.errors);
        println!("time          {:>12.3} s", self.seconds);
        println!("events/s      {:>12.0}", self.events_per_second);
        println!(
            "latency       {:>12.2} ms p50, {:.2} ms p99, {:.2} ms p99.9",
            self.p50_ms, self.p99_ms, self.p999_ms
        );
        println!("estimations   {:>12}", self.estimations);
        println!("received      {:>12} bytes", self.bytes);
        if let (Some(cpu), Some(peak)) = (self.server_cpu, self.server_peak_mib) {
            println!("server        {cpu:>12.2} s of CPU, {peak:.1} MiB at its peak");
        }
    }
}

/// The processor time of a process so far, in seconds, with that of its ended children. Linux only.
pub fn cpu_of(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may hold anything: state is field 3, utime 14, stime 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // Of a hundredth of a second, wherever Linux runs today.
    Some(ticks as f64 / 100.0)
}

/// A process' peak memory, in MiB. Linux only.
pub fn peak_of(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
