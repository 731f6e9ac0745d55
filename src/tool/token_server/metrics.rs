//! What the server counts of itself, in Prometheus' text format 0.0.4.
//!
//! Labels have few values, so that no client can make the page grow: routes and methods by name, and the hundred
//! largest pools.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The `Content-Type` of the page.
pub(super) const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Pools with a line of their own at most.
pub(super) const MAX_POOLS: usize = 100;

/// Seconds: from a commit on a fast disk to a client's usual patience.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Requests in a commit, up to the largest.
const SIZES: [f64; 12] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 96.0, 128.0, 160.0, 192.0, 256.0];

/// How often which value was seen.
pub(super) struct Histogram {
    bounds: [f64; 12],
    /// One for each bound and one beyond them.
    counts: [AtomicU64; 13],
    /// In millionths.
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: [f64; 12]) -> Self {
        Self { bounds, counts: Default::default(), sum: AtomicU64::new(0) }
    }

    fn add(&self, value: f64) {
        let bucket = self.bounds.iter().position(|bound| value <= *bound).unwrap_or(self.bounds.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((value * 1e6) as u64, Ordering::Relaxed);
    }

    fn write(&self, page: &mut Page, name: &str, help: &str) {
        page.head(name, "histogram", help);
        let mut total = 0;
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            total += count.load(Ordering::Relaxed);
            page.line(&format!("{name}_bucket"), &[("le", &bound.to_string())], total);
        }
        total += self.counts[self.bounds.len()].load(Ordering::Relaxed);
        page.line(&format!("{name}_bucket"), &[("le", "+Inf")], total);
        page.line(&format!("{name}_sum"), &[], self.sum.load(Ordering::Relaxed) as f64 / 1e6);
        page.line(&format!("{name}_count"), &[], total);
    }
}

/// The writer's commits.
pub(super) struct Commits {
    sizes: Histogram,
    seconds: Histogram,
    failed: AtomicU64,
}

impl Default for Commits {
    fn default() -> Self {
        Self { sizes: Histogram::new(SIZES), seconds: Histogram::new(SECONDS), failed: AtomicU64::new(0) }
    }
}

impl Commits {
    pub(super) fn count(&self, requests: usize, time: Duration, succeeded: bool) {
        self.sizes.add(requests as f64);
        self.seconds.add(time.as_secs_f64());
        self.failed.fetch_add(u64::from(!succeeded), Ordering::Relaxed);
    }
}

/// Everything that is not the database's.
pub(super) struct Metrics {
    /// By route, method and status.
    requests: Mutex<BTreeMap<(&'static str, &'static str, u16), u64>>,
    claims: Histogram,
    /// Now.
    pub(super) connections: AtomicU64,
    /// Since the start.
    pub(super) accepted: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Mutex::default(),
            claims: Histogram::new(SECONDS),
            connections: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    /// Counts an answered request; the time of one that handed out a token goes into the histogram of claims.
    pub(super) fn count(&self, route: &'static str, method: &str, status: u16, time: Duration) {
        const METHODS: [&str; 5] = ["GET", "HEAD", "PUT", "POST", "DELETE"];
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry((route, method, status)).or_default() += 1;
        if route == "nextToken" && status == 303 {
            self.claims.add(time.as_secs_f64());
        }
    }

    /// The page: what was counted, and what `census` found in the pools.
    pub(super) fn page(&self, commits: &Commits, census: &Census) -> String {
        let mut page = Page(String::new());
        page.head("topos_requests_total", "counter", "Requests answered.");
        for ((route, method, status), count) in self.requests.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let labels = [("route", *route), ("method", *method), ("status", &status.to_string())];
            page.line("topos_requests_total", &labels, *count);
        }
        self.claims.write(&mut page, "topos_claim_seconds", "Time to answer a claim that got a token.");
        commits.sizes.write(&mut page, "topos_commit_requests", "Requests that shared one commit.");
        commits.seconds.write(&mut page, "topos_commit_seconds", "Time of a commit, with the work inside.");
        let failed = commits.failed.load(Ordering::Relaxed);
        page.single("topos_commits_failed_total", "counter", "Commits that failed, as on a full disk.", failed);
        let now = self.connections.load(Ordering::Relaxed);
        page.single("topos_connections", "gauge", "Open connections.", now);
        let accepted = self.accepted.load(Ordering::Relaxed);
        page.single("topos_connections_total", "counter", "Connections accepted.", accepted);
        census.write(&mut page);
        page.0
    }
}

/// What is in the pools.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Census {
    pub(super) pools: u64,
    pub(super) tokens: i64,
    /// Live ones.
    pub(super) locks: i64,
    /// The largest pools: name, tokens, live locks. Empty for who must not know names.
    pub(super) largest: Vec<(String, i64, i64)>,
}

impl Census {
    fn write(&self, page: &mut Page) {
        page.single("topos_pools", "gauge", "Pools that were ever written to.", self.pools);
        page.single("topos_tokens", "gauge", "Tokens in all pools.", self.tokens);
        page.single("topos_locks", "gauge", "Live locks in all pools.", self.locks);
        page.head("topos_pool_tokens", "gauge", "Tokens in a pool; the hundred largest pools.");
        for (pool, tokens, _) in &self.largest {
            page.line("topos_pool_tokens", &[("pool", pool)], tokens);
        }
        page.head("topos_pool_locks", "gauge", "Live locks in a pool; the hundred largest pools.");
        for (pool, _, locks) in &self.largest {
            page.line("topos_pool_locks", &[("pool", pool)], locks);
        }
    }
}

/// Text under construction. No label needs escapes: routes, numbers, and pools' names, which have no odd characters.
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect::<Vec<_>>().join(",");
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        self.line(name, &[], value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_become_lines() {
        let metrics = Metrics::default();
        metrics.count("nextToken", "GET", 303, Duration::from_millis(2));
        metrics.count("nextToken", "GET", 303, Duration::from_secs(60));
        metrics.count("nextToken", "GET", 404, Duration::from_secs(1));
        metrics.count("tokens", "BREW", 405, Duration::ZERO);
        let commits = Commits::default();
        commits.count(40, Duration::from_millis(1), true);
        commits.count(1, Duration::from_millis(1), false);
        let census = Census { pools: 2, tokens: 7, locks: 1, largest: vec![("mc".to_owned(), 7, 1)] };
        let page = metrics.page(&commits, &census);
        for line in [
            "# TYPE topos_requests_total counter",
            "topos_requests_total{route=\"nextToken\",method=\"GET\",status=\"303\"} 2",
            "topos_requests_total{route=\"tokens\",method=\"other\",status=\"405\"} 1",
            "topos_claim_seconds_bucket{le=\"0.001\"} 0",
            "topos_claim_seconds_bucket{le=\"0.0025\"} 1",
            "topos_claim_seconds_bucket{le=\"30\"} 1",
            "topos_claim_seconds_bucket{le=\"+Inf\"} 2",
            "topos_claim_seconds_sum 60.002",
            "topos_claim_seconds_count 2",
            "topos_commit_requests_bucket{le=\"32\"} 1",
            "topos_commit_requests_bucket{le=\"64\"} 2",
            "topos_commit_requests_sum 41",
            "topos_commits_failed_total 1",
            "topos_connections 0",
            "topos_tokens 7",
            "topos_pool_tokens{pool=\"mc\"} 7",
            "topos_pool_locks{pool=\"mc\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }
}
