//! Batches as they go: a bar on a terminal, a line every few seconds elsewhere.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::time::Instant;

use super::Ended;
use super::client::Client;

/// Between two looks at what goes on.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two lines where no bar can be.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// A server that is being started again is back by then.
const PATIENCE: Duration = Duration::from_secs(60);

/// Shows some batches until nothing of them is on its way any more, and returns them as they are then. A server that
/// is away for up to a minute is asked again: the batches go on when it is back.
///
/// # Errors
/// When there is no such batch, or the server stays away.
pub async fn watch(client: &Client, ids: &[String]) -> anyhow::Result<Vec<Value>> {
    let mut views = vec![Value::Null; ids.len()];
    let mut progress = Progress::new();
    let mut answered = Instant::now();
    loop {
        for (view, id) in views.iter_mut().zip(ids) {
            if *view != Value::Null && is_over(view) {
                continue;
            }
            let begun = *view != Value::Null;
            match client.get(&format!("/v1/batches/{id}")).await {
                Ok(found) => (*view, answered) = (found, Instant::now()),
                Err(error) if begun && answered.elapsed() < PATIENCE => progress.say(&format!("asking again: {error}")),
                Err(error) => {
                    return Err(error).context("the batch goes on by itself; `vestnik batches watch` looks again");
                }
            }
        }
        progress.show(&views);
        if views.iter().all(is_over) {
            progress.end();
            return Ok(views);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How far some batches are, shown to whoever looks.
pub struct Progress {
    /// On a terminal.
    bar: Option<ProgressBar>,
    /// Elsewhere: what was said last, and when.
    said: Option<(String, Instant)>,
}

impl Progress {
    #[expect(clippy::new_without_default, reason = "it looks for a terminal")]
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30} {pos} of {len}  {wide_msg}");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Progress { bar, said: None }
    }

    /// Whether it is a bar; else lines are said every few seconds.
    pub fn is_bar(&self) -> bool {
        self.bar.is_some()
    }

    pub fn show(&mut self, views: &[Value]) {
        match &self.bar {
            Some(bar) => {
                let sums = Sums::of(views);
                bar.set_length(sums.accepted);
                bar.set_position(sums.accepted - sums.in_flight);
                bar.set_message(sums.details());
            }
            None => self.say_now_and_then(&in_one_line(views)),
        }
    }

    fn say(&mut self, text: &str) {
        let text = text.lines().next().unwrap_or_default().to_owned();
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None => self.say_now_and_then(&text),
        }
    }

    fn say_now_and_then(&mut self, text: &str) {
        if let Some((said, at)) = &self.said
            && (at.elapsed() < LINE_EVERY || said == text)
        {
            return;
        }
        // Where standard error is gone, nobody wants to know.
        let _ = writeln!(std::io::stderr(), "{text}");
        self.said = Some((text.to_owned(), Instant::now()));
    }

    pub fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

fn is_over(view: &Value) -> bool {
    view["inFlight"] == 0
}

/// Well, if the providers took all of it.
pub fn ended(views: &[Value]) -> Ended {
    let sums = Sums::of(views);
    let taken: u64 = ["sent", "delivered", "read"].iter().filter_map(|status| sums.settled.get(*status)).sum();
    if taken == sums.accepted { Ended::Well } else { Ended::Badly }
}

/// `612 of 1000 ended: 590 sent, 22 failed; 85 a second, 5 s left`.
pub fn in_one_line(views: &[Value]) -> String {
    let sums = Sums::of(views);
    let details = sums.details();
    let before = if details.is_empty() { "" } else { ": " };
    format!("{} of {} ended{before}{details}", sums.accepted - sums.in_flight, sums.accepted)
}

/// Several batches as one.
#[derive(Default)]
struct Sums {
    accepted: u64,
    in_flight: u64,
    settled: BTreeMap<String, u64>,
    rate: f64,
    seconds_left: u64,
    /// What they do, but for running and being over.
    states: Vec<String>,
}

impl Sums {
    fn of(views: &[Value]) -> Sums {
        let mut sums = Sums::default();
        for view in views {
            let number = |name: &str| view[name].as_u64().unwrap_or_default();
            sums.accepted += number("accepted");
            sums.in_flight += number("inFlight");
            for (status, count) in view["settled"].as_object().into_iter().flatten() {
                *sums.settled.entry(status.clone()).or_default() += count.as_u64().unwrap_or_default();
            }
            if number("inFlight") > 0 {
                sums.rate += view["ratePerSecond"].as_f64().unwrap_or_default();
                sums.seconds_left = sums.seconds_left.max(number("secondsLeft"));
            }
            let state = view["state"].as_str().unwrap_or_default();
            if !["", "running", "finished"].contains(&state) && !sums.states.iter().any(|known| known == state) {
                sums.states.push(state.to_owned());
            }
        }
        sums
    }

    fn details(&self) -> String {
        let settled = self.settled.iter().map(|(status, count)| format!("{count} {status}"));
        let mut parts = vec![settled.collect::<Vec<_>>().join(", ")];
        parts.extend((self.rate > 0.0).then(|| format!("{:.0} a second, {} left", self.rate, time(self.seconds_left))));
        parts.extend(self.states.iter().cloned());
        parts.retain(|part| !part.is_empty());
        parts.join("; ")
    }
}

/// `45 s`, `12 min`, `3 h 20 min`.
pub fn time(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) | (0, 1) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn batches_are_summed_in_one_line() {
        let running = json!({ "accepted": 1000, "inFlight": 388, "settled": { "sent": 590, "failed": 22 },
                              "ratePerSecond": 85.4, "secondsLeft": 5, "state": "running" });
        let one = std::slice::from_ref(&running);
        assert_eq!(in_one_line(one), "612 of 1000 ended: 22 failed, 590 sent; 85 a second, 5 s left");
        let paused = json!({ "accepted": 10, "inFlight": 10, "settled": {}, "state": "paused" });
        assert_eq!(in_one_line(std::slice::from_ref(&paused)), "0 of 10 ended: paused");
        assert_eq!(
            in_one_line(&[running.clone(), paused]),
            "612 of 1010 ended: 22 failed, 590 sent; 85 a second, 5 s left; paused"
        );
        assert_eq!(ended(&[running]), Ended::Badly);
        let well = json!({ "accepted": 3, "inFlight": 0, "settled": { "sent": 2, "read": 1 }, "state": "finished" });
        assert_eq!(
            (in_one_line(std::slice::from_ref(&well)), ended(std::slice::from_ref(&well))),
            ("3 of 3 ended: 1 read, 2 sent".into(), Ended::Well)
        );
    }

    #[test]
    fn times_are_short() {
        assert_eq!([7, 119, 120, 12_000].map(time), ["7 s", "119 s", "2 min", "3 h 20 min"]);
    }
}
