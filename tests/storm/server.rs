//! The server around the pool: it loses calls and answers, is late, lies about its health, and crashes.

use std::collections::HashMap;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};

use crate::call::{self, Life};
use crate::pool::{Answer, Pool};
use crate::random::Random;

/// For a call, at [`crate::machine::PACE`]: an answer that takes longer is not heard.
const TOO_LATE: (u64, u64) = (700, 1100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Slow,
    DropsBefore,
    DropsAfter,
    ResetsBefore,
    ResetsAfter,
    SaysBefore(u16),
    SaysAfter(u16),
    LateBefore,
    LateAfter,
    /// The answer is cut off in its headers.
    Truncates,
}

impl Fault {
    const NAMES: [(Self, &'static str); 10] = [
        (Self::Slow, "calls slow"),
        (Self::DropsBefore, "calls dropped"),
        (Self::DropsAfter, "answers dropped"),
        (Self::ResetsBefore, "calls reset"),
        (Self::ResetsAfter, "answers reset"),
        (Self::SaysBefore(503), "calls answered 5xx"),
        (Self::SaysAfter(500), "calls done and answered 5xx"),
        (Self::LateBefore, "calls late"),
        (Self::LateAfter, "answers late"),
        (Self::Truncates, "answers cut off"),
    ];

    /// Every fourth call is slow, every tenth goes wrong.
    fn draw(random: &mut Random) -> Self {
        if random.percent(25) {
            return Self::Slow;
        }
        if !random.percent(14) {
            return Self::None;
        }
        Self::NAMES[1 + random.below(9) as usize].0
    }

    fn name(self) -> Option<&'static str> {
        Self::NAMES.iter().find(|(fault, _)| *fault == self).map(|(_, name)| *name)
    }
}

/// What all threads of a storm share.
pub struct World {
    pub seed: u64,
    pub address: SocketAddr,
    began: Instant,
    pool: Mutex<Pool>,
    /// From now on the server is honest and nobody dies.
    pub calm: AtomicBool,
    /// The storm is over; who is idle leaves.
    pub over: AtomicBool,
    /// Crashes so far: an answer that was due before one is never sent.
    epoch: AtomicU64,
    up_again: Mutex<Instant>,
    /// Machines that nothing comes through to, nor from, until then.
    pub partitions: Mutex<HashMap<u32, Instant>>,
    /// Calls so far, of each life.
    calls: Mutex<HashMap<Life, u64>>,
    /// Calls that are under way.
    pub busy: AtomicU64,
}

impl World {
    pub fn start(seed: u64) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let world = Arc::new(Self {
            seed,
            began: Instant::now(),
            address: listener.local_addr().unwrap(),
            pool: Mutex::default(),
            calm: AtomicBool::new(false),
            over: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            up_again: Mutex::new(Instant::now()),
            partitions: Mutex::default(),
            calls: Mutex::default(),
            busy: AtomicU64::new(0),
        });
        let server = world.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let world = server.clone();
                std::thread::spawn(move || {
                    world.busy.fetch_add(1, Ordering::SeqCst);
                    let _ = world.serve(stream);
                    world.busy.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        world
    }

    pub fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap()
    }

    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Every connection dies with what is under way on it; nobody gets through for a while. The pool stays.
    pub fn crash(&self, span: Duration) {
        *self.up_again.lock().unwrap() = Instant::now() + span;
        self.epoch.fetch_add(1, Ordering::SeqCst);
        let mut pool = self.pool();
        pool.ledger.crashed = Some(Instant::now() + span);
        pool.ledger.count("crashes of the server");
    }

    fn is_apart(&self, life: Life) -> bool {
        !self.is_calm() && self.partitions.lock().unwrap().get(&life.machine).is_some_and(|end| Instant::now() < *end)
    }

    /// A connection; `None` where it ends without an answer.
    fn serve(&self, stream: TcpStream) -> Option<()> {
        let epoch = self.epoch.load(Ordering::SeqCst);
        let crashed = || self.epoch.load(Ordering::SeqCst) != epoch;
        if Instant::now() < *self.up_again.lock().unwrap() {
            return None;
        }
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let (life, call) = match call::read(&mut reader)? {
            Ok(call) => call,
            Err(nonsense) => {
                self.pool().ledger.offence(nonsense);
                return None;
            }
        };
        let arrived = Instant::now();
        let number = {
            let mut calls = self.calls.lock().unwrap();
            let number = calls.entry(life).or_default();
            *number += 1;
            *number
        };
        let mut random = Random::new(self.seed, &[1, life.machine.into(), life.number.into(), number]);
        let fault = if self.is_calm() { Fault::None } else { Fault::draw(&mut random) };
        {
            let mut pool = self.pool();
            pool.ledger.called(life, call.kind(), fault.name(), self.began.elapsed());
            fault.name().into_iter().for_each(|name| pool.ledger.count(name));
            if matches!(call.kind(), "locks" | "release") {
                pool.ledger.looks(life);
            }
        }
        if self.is_apart(life) {
            std::thread::sleep(Duration::from_millis(TOO_LATE.0));
            return None;
        }
        match fault {
            Fault::DropsBefore => return None,
            Fault::ResetsBefore => return reset(&stream),
            Fault::SaysBefore(_) => return send(&stream, &ill(&mut random), usize::MAX),
            Fault::Slow => std::thread::sleep(random.millis(0, 60)),
            Fault::LateBefore => std::thread::sleep(random.millis(TOO_LATE.0, TOO_LATE.1)),
            _ => {}
        }
        let heard = matches!(fault, Fault::None | Fault::Slow | Fault::LateBefore | Fault::LateAfter);
        // Told once, so that what counts as heard is what is sent.
        let apart = crashed() || self.is_apart(life);
        let answer = {
            let mut pool = self.pool();
            // A machine that is cut off has sent its last; it may have been the last thing that the server did, too.
            if pool.ledger.dead.contains(&life) || crashed() && random.percent(50) {
                return None;
            }
            pool.act(life, &call, arrived, heard && !apart)
        };
        if fault == Fault::LateAfter {
            std::thread::sleep(random.millis(TOO_LATE.0, TOO_LATE.1));
        }
        if apart || crashed() || self.is_apart(life) || self.pool().ledger.dead.contains(&life) {
            return None;
        }
        match fault {
            Fault::DropsAfter => None,
            Fault::ResetsAfter => reset(&stream),
            Fault::SaysAfter(_) => send(&stream, &ill(&mut random), usize::MAX),
            Fault::Truncates => send(&stream, &answer, random.below(60) as usize),
            _ => send(&stream, &answer, usize::MAX),
        }
    }
}

/// What the server or a proxy in front of it says.
fn ill(random: &mut Random) -> Answer {
    let status = [500, 502, 503, 504, 429][random.below(5) as usize];
    (status, "Content-Type: text/html\r\n".to_owned(), b"<html><h1>Sorry".into())
}

fn reset(stream: &TcpStream) -> Option<()> {
    let _ = setsockopt(stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
    None
}

fn send(mut stream: &TcpStream, (status, headers, body): &Answer, most: usize) -> Option<()> {
    let mut answer = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend(body);
    answer.truncate(most);
    stream.write_all(&answer).ok()
}
