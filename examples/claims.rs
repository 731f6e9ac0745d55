//! Load for a token server, for `scripts/bench`: so many clients, each with one kept connection, claim with locks.
//!
//! `claims URL POOL [--clients N] [--tokens N] [--secs S] [--complete]`, with URL as `http://127.0.0.1:8080/4.1`.
//! `--tokens` fills the pool first, `--complete` deletes each token after its claim. It ends when the pool is empty
//! or the time is over, and writes one line of JSON: claims a second, latencies in milliseconds, `duplicates` (tokens
//! that two clients got) and `errors` (replies that are neither 303 nor 404). Exit status 1 if there are any of these.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Barrier;
use std::time::{Duration, Instant};
use std::{env, thread};

/// A client has few frames and no recursion; a thousand default stacks would be 8 GB of addresses.
const STACK: usize = 128 << 10;

/// Far beyond any lock's use here: nothing comes back while it runs.
const LOCK_SECS: u32 = 3600;

/// What the original takes in one request.
const MAX_NUMBERS: u64 = 1_000_000;

fn main() -> ExitCode {
    match Options::parse(env::args().skip(1)).and_then(|options| run(&options).map_err(|error| error.to_string())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("claims: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    /// `127.0.0.1:8080`
    host: String,
    /// `/4.1/pools/mc`
    pool: String,
    clients: usize,
    tokens: u64,
    time: Duration,
    complete: bool,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let usage = "claims URL POOL [--clients N] [--tokens N] [--secs S] [--complete]";
        let (url, pool) = args.next().zip(args.next()).ok_or(usage)?;
        let (host, path) = url.strip_prefix("http://").ok_or("the URL is not http://")?.split_once('/').ok_or(usage)?;
        let mut options = Self {
            host: host.to_owned(),
            pool: format!("/{}/pools/{pool}", path.trim_end_matches('/')),
            clients: 40,
            tokens: 0,
            time: Duration::from_secs(10),
            complete: false,
        };
        while let Some(key) = args.next() {
            if key == "--complete" {
                options.complete = true;
                continue;
            }
            let number = args.next().and_then(|number| number.parse::<u64>().ok());
            let number = number.ok_or_else(|| format!("{key} needs a number"))?;
            match key.as_str() {
                "--clients" => options.clients = usize::try_from(number.clamp(1, 10_000)).unwrap_or(1),
                "--tokens" => options.tokens = number,
                "--secs" => options.time = Duration::from_secs(number),
                _ => return Err(format!("unknown option {key}; {usage}")),
            }
        }
        Ok(options)
    }
}

/// Whether nothing went wrong.
fn run(options: &Options) -> io::Result<bool> {
    fill(options)?;
    let start = Barrier::new(options.clients + 1);
    let (tallies, seconds) = thread::scope(|scope| {
        let clients: Vec<_> = (0..options.clients)
            .map(|number| {
                let client = || client(options, &start);
                thread::Builder::new().name(format!("client {number}")).stack_size(STACK).spawn_scoped(scope, client)
            })
            .collect::<Result<_, _>>()?;
        start.wait();
        let began = Instant::now();
        let tallies: Vec<Tally> = clients.into_iter().filter_map(|client| client.join().ok()).collect();
        io::Result::Ok((tallies, began.elapsed().as_secs_f64()))
    })?;
    Ok(report(options, &tallies, seconds))
}

fn fill(options: &Options) -> io::Result<()> {
    let mut left = options.tokens;
    while left > 0 {
        let count = left.min(MAX_NUMBERS);
        let form = format!("ntokens={count}&offset=1");
        let head = "Content-Type: application/x-www-form-urlencoded\r\n";
        let target = format!("{}/tokens/", options.pool);
        let reply = Connection::open(options)?.ask(&options.host, "POST", &target, head, form.as_bytes())?;
        if reply.status != 202 {
            return Err(io::Error::other(format!("{target} was answered {}", reply.status)));
        }
        left -= count;
    }
    Ok(())
}

#[derive(Default)]
struct Tally {
    tokens: Vec<u64>,
    /// Of claims that got a token.
    latencies: Vec<Duration>,
    errors: u64,
}

/// One client's life: claims until nothing is left or the time is over.
fn client(options: &Options, start: &Barrier) -> Tally {
    let mut tally = Tally::default();
    let connection = Connection::open(options);
    start.wait();
    if let Err(error) = connection.and_then(|connection| claim_all(options, connection, &mut tally)) {
        eprintln!("claims: {error}");
        tally.errors += 1;
    }
    tally
}

fn claim_all(options: &Options, mut connection: Connection, tally: &mut Tally) -> io::Result<()> {
    let next = format!("{}/nextToken?timeout={LOCK_SECS}&description=claims", options.pool);
    let began = Instant::now();
    while began.elapsed() < options.time {
        let asked = Instant::now();
        let reply = connection.ask(&options.host, "GET", &next, "Accept: text/plain\r\n", b"")?;
        let token = match (reply.status, reply.token) {
            (303, Some(token)) if reply.locked => token,
            (404, _) => break,
            _ => {
                tally.errors += 1;
                continue;
            }
        };
        tally.latencies.push(asked.elapsed());
        tally.tokens.push(token);
        if options.complete {
            let target = format!("{}/tokens/{token}", options.pool);
            let reply = connection.ask(&options.host, "DELETE", &target, "", b"")?;
            tally.errors += u64::from(reply.status != 200);
        }
    }
    Ok(())
}

struct Connection(BufReader<TcpStream>);

struct Reply {
    status: u16,
    /// The number at the end of `Location`.
    token: Option<u64>,
    /// There is a lock with a UUID.
    locked: bool,
}

impl Connection {
    fn open(options: &Options) -> io::Result<Self> {
        let stream = TcpStream::connect(&options.host)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn ask(&mut self, host: &str, method: &str, target: &str, headers: &str, body: &[u8]) -> io::Result<Reply> {
        let length = body.len();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: {length}\r\n\r\n");
        self.0.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        let nonsense = || io::Error::new(io::ErrorKind::InvalidData, "the reply is not HTTP/1.1");
        let status = self.line()?.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(nonsense)?;
        let mut reply = Reply { status, token: None, locked: false };
        let mut length = 0;
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().map_err(|_| nonsense())?;
            } else if name.eq_ignore_ascii_case("location") {
                reply.token = value.rsplit('/').next().and_then(|id| id.parse().ok());
            } else if name.eq_ignore_ascii_case("x-topos-lockurl") {
                reply.locked = value.rsplit('/').next().is_some_and(|uuid| uuid.len() == 36);
            }
        }
        io::copy(&mut self.0.by_ref().take(length), &mut io::sink())?;
        Ok(reply)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

fn report(options: &Options, tallies: &[Tally], seconds: f64) -> bool {
    let mut tokens: Vec<u64> = tallies.iter().flat_map(|tally| tally.tokens.iter().copied()).collect();
    let mut latencies: Vec<Duration> = tallies.iter().flat_map(|tally| tally.latencies.iter().copied()).collect();
    let errors: u64 = tallies.iter().map(|tally| tally.errors).sum();
    let claims = tokens.len();
    tokens.sort_unstable();
    tokens.dedup();
    let duplicates = claims - tokens.len();
    latencies.sort_unstable();
    let at = |share: f64| {
        let last = latencies.len().saturating_sub(1);
        latencies.get((last as f64 * share) as usize).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
    };
    println!(
        "{{\"clients\":{},\"claims\":{claims},\"seconds\":{seconds:.3},\"claims_per_second\":{:.0},\"p50_ms\":{:.3},\
         \"p99_ms\":{:.3},\"max_ms\":{:.3},\"duplicates\":{duplicates},\"errors\":{errors}}}",
        options.clients,
        claims as f64 / seconds,
        at(0.5),
        at(0.99),
        at(1.0),
    );
    duplicates == 0 && errors == 0 && tallies.len() == options.clients
}
