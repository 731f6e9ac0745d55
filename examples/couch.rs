//! The load of `examples/claims.rs` on a server that speaks CouchDB's protocol, as a client of PiCaS makes it.
//!
//! `couch URL DATABASE [--clients N] [--tokens N] [--secs S]`, with URL as `http://127.0.0.1:5984`. It makes the database
//! and fills it; then each client asks the view of what is to do for 100 documents, takes one by chance, and claims it by
//! writing its own name into it; a conflict is another client's luck. One line of JSON as that of `claims`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own")]

use std::process::ExitCode;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::Agent;

/// As many as a client of PiCaS chooses from.
const CHOICE: usize = 100;
/// In one request.
const BULK: u64 = 5_000;

struct Options {
    url: String,
    clients: u64,
    tokens: u64,
    time: Duration,
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options).map_err(|error| error.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("couch: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, String> {
    let usage = "couch URL DATABASE [--clients N] [--tokens N] [--secs S]";
    let mut args = std::env::args().skip(1);
    let (url, database) = args.next().zip(args.next()).ok_or(usage)?;
    let url = format!("{}/{database}", url.trim_end_matches('/'));
    let mut options = Options { url, clients: 40, tokens: 1000, time: Duration::from_secs(10) };
    while let Some(key) = args.next() {
        let number = args.next().and_then(|number| number.parse().ok()).ok_or(usage)?;
        match key.as_str() {
            "--clients" => options.clients = number,
            "--tokens" => options.tokens = number,
            "--secs" => options.time = Duration::from_secs(number),
            _ => return Err(usage.to_owned()),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<(), ureq::Error> {
    let agent = Agent::new_with_defaults();
    fill(&agent, options)?;
    // The first question makes the server build the view.
    todo(&agent, &options.url)?;
    let start = Barrier::new(options.clients as usize + 1);
    let (tallies, seconds) = thread::scope(|scope| {
        let start = &start;
        let clients: Vec<_> = (0..options.clients).map(|n| scope.spawn(move || client(options, n, start))).collect();
        start.wait();
        let begun = Instant::now();
        let tallies: Vec<Tally> = clients.into_iter().filter_map(|client| client.join().ok()).collect();
        (tallies, begun.elapsed().as_secs_f64())
    });
    let mut latencies: Vec<Duration> = tallies.iter().flat_map(|tally| tally.latencies.iter().copied()).collect();
    latencies.sort_unstable();
    let count = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    let at = |share: f64| {
        let last = latencies.len().saturating_sub(1);
        latencies.get((last as f64 * share) as usize).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
    };
    let figures = json!({
        "clients": options.clients, "claims": latencies.len(), "seconds": seconds,
        "claims_per_second": (latencies.len() as f64 / seconds).round(),
        "p50_ms": at(0.5), "p99_ms": at(0.99),
        "conflicts": count(|tally| tally.conflicts), "errors": count(|tally| tally.errors),
    });
    println!("{figures}");
    Ok(())
}

/// A new database with the view and the documents.
fn fill(agent: &Agent, options: &Options) -> Result<(), ureq::Error> {
    let put = |url: &str, value: &Value| agent.put(url).content_type("application/json").send(value.to_string());
    agent.put(&options.url).send_empty()?;
    let map = "function(doc) { if (doc.type == 'token' && doc.lock == 0 && doc.done == 0) emit(doc._id, doc); }";
    put(&format!("{}/_design/Monitor", options.url), &json!({"views": {"todo": {"map": map}}}))?;
    let mut left = 0..options.tokens;
    loop {
        let docs: Vec<Value> = left.by_ref().take(BULK as usize).map(document).collect();
        if docs.is_empty() {
            return Ok(());
        }
        let url = format!("{}/_bulk_docs", options.url);
        agent.post(&url).content_type("application/json").send(json!({"docs": docs}).to_string())?;
    }
}

fn document(number: u64) -> Value {
    json!({"_id": format!("token_{number}"), "type": "token", "lock": 0, "done": 0, "hostname": "", "scrub_count": 0,
        "input": number.to_string()})
}

#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    conflicts: u64,
    errors: u64,
}

/// One client's life: claims until nothing is left or the time is over.
fn client(options: &Options, number: u64, start: &Barrier) -> Tally {
    // A connection of its own that is kept, and every status as an answer.
    let agent: Agent = Agent::config_builder().http_status_as_error(false).build().into();
    let mut tally = Tally::default();
    let mut chance = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    start.wait();
    let begun = Instant::now();
    while begun.elapsed() < options.time {
        let asked = Instant::now();
        let Ok(mut rows) = todo(&agent, &options.url) else {
            tally.errors += 1;
            continue;
        };
        if rows.is_empty() {
            break;
        }
        // xorshift: which one is of no importance but that others take others.
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        let mut document = rows.swap_remove(chance as usize % rows.len())["value"].take();
        document["lock"] = json!(1);
        document["hostname"] = json!(format!("client-{number}"));
        let url = format!("{}/{}", options.url, document["_id"].as_str().unwrap_or_default());
        match agent.put(&url).content_type("application/json").send(document.to_string()).map(|reply| reply.status()) {
            Ok(status) if status.is_success() => tally.latencies.push(asked.elapsed()),
            Ok(status) if status == 409 => tally.conflicts += 1,
            _ => tally.errors += 1,
        }
    }
    tally
}

fn todo(agent: &Agent, url: &str) -> Result<Vec<Value>, ureq::Error> {
    let mut reply = agent.get(format!("{url}/_design/Monitor/_view/todo?limit={CHOICE}")).call()?;
    let text = reply.body_mut().with_config().limit(64 << 20).read_to_string()?;
    let mut reply: Value = serde_json::from_str(&text).unwrap_or_default();
    Ok(reply["rows"].as_array_mut().map(std::mem::take).unwrap_or_default())
}
