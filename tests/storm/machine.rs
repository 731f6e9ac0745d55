//! A machine: real workers one after another, and an agent that only pretends to run payloads. It may be asked to
//! stop at any moment, its agent may die, and it may be cut off as if its power had failed; then it boots again.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ctxinit::clock::Deadline;
use ctxinit::context::site::Work;
use ctxinit::protocol::channel::Channel;
use ctxinit::protocol::{Fate, FromWorker, ToWorker};
use ctxinit::work::{Config, Credentials, Identity, Pace, run_at};

use crate::call::Life;
use crate::ledger::{LOCK, product};
use crate::random::Random;
use crate::server::World;

pub const PACE: Pace = Pace {
    lock: LOCK,
    connect: Duration::from_millis(300),
    call: Duration::from_millis(500),
    farewell: Duration::from_millis(600),
};
/// A worker bounds everything that it does to a few seconds at this pace; one that is silent for longer hangs.
const SILENCE: Duration = Duration::from_secs(60);
/// How often a machine looks whether it is still there.
const LOOK: Duration = Duration::from_millis(10);

/// What a machine does next, at one of the moments where it may end.
enum Turn {
    GoesOn,
    Stops,
    Dies,
}

/// The end of a life.
struct Over;

/// Whether every payload fails on it: it must end among the failed ones.
pub fn is_poison(id: u64) -> bool {
    id.is_multiple_of(29)
}

struct Agent {
    world: Arc<World>,
    life: Life,
    random: Random,
    channel: Option<Channel>,
}

/// Lives until the storm is over; returns the workers of all lives.
pub fn run(world: &Arc<World>, machine: u32) -> Vec<(Life, JoinHandle<i32>)> {
    let mut workers = Vec::new();
    for number in 1.. {
        let life = Life { machine, number };
        let (channel, theirs) = Channel::pair().unwrap();
        let config = config(world, life);
        workers.push((life, std::thread::spawn(move || run_at(PACE, config, theirs))));
        let random = Random::new(world.seed, &[2, machine.into(), number.into()]);
        let mut agent = Agent { world: world.clone(), life, random, channel: Some(channel) };
        while agent.cycle().is_ok() {}
        if world.is_over() {
            break;
        }
        std::thread::sleep(Random::new(world.seed, &[3, machine.into(), number.into()]).millis(0, 300));
    }
    workers
}

fn config(world: &World, life: Life) -> Config {
    let base = format!("http://{}/{}-{}/4.1", world.address, life.machine, life.number);
    let topos = format!(r#"{{"url": "{base}", "pool": "mc", "results": "mc.out"}}"#);
    Config {
        work: Work::Topos(serde_json::from_str(&topos).unwrap()),
        credentials: Credentials::default(),
        identity: Identity {
            hostname: format!("wn-{}", life.machine),
            vm_uuid: format!("vm-{}", life.machine),
            boot_id: format!("boot-{}", life.number),
            slot: 0,
        },
        ban_list: None,
    }
}

impl Agent {
    /// From a claim to the end of what came of it.
    fn cycle(&mut self) -> Result<(), Over> {
        if self.world.is_over() {
            return Err(self.stop());
        }
        self.turn(1)?;
        self.world.pool().ledger.claims(self.life);
        self.say(&ToWorker::Claim, b"")?;
        let pause = self.random.millis(0, 100);
        if self.random.percent(3) {
            self.wait(pause)?;
            self.turn(50)?;
        }
        match self.answer()? {
            FromWorker::Claimed(token) => self.work(token.id.parse().unwrap()),
            FromWorker::NoWork => {
                let mut pool = self.world.pool();
                pool.ledger.count("claims answered: no work");
                if !pool.ledger.was_empty(self.life) {
                    pool.ledger
                        .offence(format!("{:?} was told that there is no work, and nobody has said so", self.life));
                }
                drop(pool);
                let pause = self.random.millis(20, 100);
                self.wait(pause)
            }
            FromWorker::Fault { why } => {
                let mut pool = self.world.pool();
                pool.ledger.count("claims answered: fault");
                pool.ledger.told(self.life, &why);
                drop(pool);
                let pause = self.random.millis(20, 200);
                self.wait(pause)
            }
            other => self.odd(&other),
        }
    }

    fn work(&mut self, id: u64) -> Result<(), Over> {
        self.world.pool().ledger.run_begins(self.life, id);
        // Mostly short, and some longer than a lock.
        let calm = self.world.is_calm();
        let length = match self.random.below(20) {
            _ if calm => self.random.millis(0, 20),
            0..16 => self.random.millis(0, 40),
            16..19 => self.random.millis(100, 1500),
            _ => self.random.millis(1500, 8000),
        };
        let lost = match self.hear(length)? {
            None => false,
            Some(FromWorker::LeaseLost { .. }) => true,
            Some(other) => return self.odd(&other),
        };
        if lost {
            // A payload takes a moment to be stopped.
            let moment = self.random.millis(0, 30);
            std::thread::sleep(moment);
            self.world.pool().ledger.count("leases lost while a payload ran");
        }
        self.ended(id);
        if self.random.percent(2) && !calm {
            self.turn(100)?;
        }
        let why = "it failed".to_owned();
        match self.random.below(100) {
            _ if lost => self.say(&ToWorker::Release { why }, b"")?,
            _ if is_poison(id) => self.say(&ToWorker::Failed { why, again: true }, b"")?,
            0..3 if !calm => self.say(&ToWorker::Release { why }, b"")?,
            3..8 if !calm => self.say(&ToWorker::Failed { why, again: true }, b"")?,
            8..10 if !calm => self.say(&ToWorker::Failed { why, again: false }, b"")?,
            _ => self.say(&ToWorker::Finished, &product(self.life, id))?,
        }
        if self.random.percent(3) && !calm {
            let pause = self.random.millis(0, 100);
            self.wait(pause)?;
            self.turn(50)?;
        }
        loop {
            match self.answer()? {
                FromWorker::LeaseLost { .. } => {}
                FromWorker::Settled { fate, note } => {
                    self.check(id, fate, &note);
                    return Ok(());
                }
                other => return self.odd(&other),
            }
        }
    }

    fn ended(&self, id: u64) {
        self.world.pool().ledger.run_ends(self.life, id);
    }

    /// Whether what the worker says of a token is so.
    fn check(&self, id: u64, fate: Fate, note: &str) {
        let mut pool = self.world.pool();
        pool.ledger.told(self.life, note);
        let wrong = match fate {
            Fate::Completed => pool.tokens.contains_key(&id) || !pool.is_stored(id),
            Fate::Released => pool.has_lock(self.life, id),
            Fate::Failed => pool.tokens.contains_key(&id),
            Fate::Lost | Fate::Stranded => false,
        };
        pool.ledger.count(match fate {
            Fate::Completed => "fates: completed",
            Fate::Released => "fates: released",
            Fate::Failed => "fates: put aside",
            Fate::Lost => "fates: lost",
            Fate::Stranded => "fates: stranded",
        });
        if wrong && !pool.ledger.dead.contains(&self.life) {
            pool.ledger.offence(format!("{:?} says of token {id}: {fate:?} ({note})", self.life));
        }
    }

    fn say(&mut self, message: &ToWorker, body: &[u8]) -> Result<(), Over> {
        match self.channel.as_mut().map(|channel| channel.send(message, body)) {
            Some(Ok(())) => Ok(()),
            _ => self.odd(&"a worker that has gone"),
        }
    }

    /// What a message is owed.
    fn answer(&mut self) -> Result<FromWorker, Over> {
        match self.hear(SILENCE)? {
            Some(message) => Ok(message),
            None => self.odd(&"a worker that says nothing"),
        }
    }

    /// The next message; `None` at the limit.
    fn hear(&mut self, limit: Duration) -> Result<Option<FromWorker>, Over> {
        let deadline = Instant::now() + limit;
        loop {
            if self.is_dead() {
                self.channel = None;
                return Err(Over);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.channel.as_mut().map(|channel| channel.recv(Deadline::after(LOOK.min(left)))) {
                Some(Ok(Some((message, _)))) => return Ok(Some(message)),
                Some(Ok(None)) if left.is_zero() => return Ok(None),
                Some(Ok(None)) => {}
                Some(Err(_)) | None => return self.odd(&"a worker that has gone"),
            }
        }
    }

    /// Does nothing for a while.
    fn wait(&self, span: Duration) -> Result<(), Over> {
        let deadline = Instant::now() + span;
        while Instant::now() < deadline {
            if self.is_dead() {
                return Err(Over);
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    fn is_dead(&self) -> bool {
        self.world.pool().ledger.dead.contains(&self.life)
    }

    /// One of the moments where a machine may end, with this chance in percent.
    fn turn(&mut self, chance: u64) -> Result<(), Over> {
        let turn = match self.random.below(3) {
            _ if self.world.is_calm() || !self.random.percent(chance) => Turn::GoesOn,
            0 => Turn::Dies,
            _ => Turn::Stops,
        };
        match turn {
            Turn::GoesOn => Ok(()),
            Turn::Stops => Err(self.stop()),
            Turn::Dies => {
                self.world.pool().ledger.count("agents that died");
                self.channel = None;
                Err(Over)
            }
        }
    }

    /// Hears the worker out.
    fn stop(&mut self) -> Over {
        self.world.pool().ledger.count("machines asked to stop");
        let Some(mut channel) = self.channel.take() else { return Over };
        let deadline = Deadline::after(SILENCE);
        if channel.send(&ToWorker::Stop, b"").is_ok() {
            while let Ok(Some((_, _))) = channel.recv::<FromWorker>(deadline) {}
            if deadline.passed() {
                self.world.pool().ledger.offence(format!("{:?} does not stop", self.life));
            }
        }
        Over
    }

    fn odd<T>(&mut self, what: &dyn std::fmt::Debug) -> Result<T, Over> {
        if !self.is_dead() {
            self.world.pool().ledger.offence(format!("{:?}: {what:?}", self.life));
        }
        self.channel = None;
        Err(Over)
    }
}
