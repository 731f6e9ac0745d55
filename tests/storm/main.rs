//! A storm over the work side: real workers against an exact token pool, while calls, answers, the server and the
//! machines themselves fail at random. [`ledger`] says what must hold at every step; at the end, with everybody
//! honest again, every token is completed and nothing stays locked.
//!
//! `STORM_SECS` makes it longer, `STORM_SEED` repeats one: each machine and each of its calls draws the same again,
//! though threads are never timed alike.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod call;
mod ledger;
mod machine;
mod pool;
mod random;
mod server;

use std::env;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ledger::LOCK;
use random::Random;
use server::World;

/// More than the processors of any machine that tests: most of them wait.
const MACHINES: u32 = 24;
/// For what is left when the storm is over. It takes a second or two on a machine that does nothing else.
const DRAIN: Duration = Duration::from_secs(60);

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}: {value:?} is no number")))
}

#[test]
fn no_result_is_lost_and_no_token_is_run_by_two_in_a_storm() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("STORM_SEED").unwrap_or(now.as_nanos() as u64);
    let span = Duration::from_secs(number("STORM_SECS").unwrap_or(20));
    println!("STORM_SEED={seed}");
    let world = World::start(seed);
    world.pool().add(100);
    let machines: Vec<_> = (0..MACHINES)
        .map(|machine| {
            let world = world.clone();
            std::thread::spawn(move || machine::run(&world, machine))
        })
        .collect();
    chaos(&world, span);
    calm(&world);
    let workers: Vec<_> = machines.into_iter().flat_map(|machine| machine.join().unwrap()).collect();
    for (life, worker) in workers {
        // 1 is a worker whose agent died.
        let code = worker.join().unwrap_or(-1);
        if !(0..=1).contains(&code) {
            world.pool().ledger.offence(format!("the worker of {life:?} ended with {code}"));
        }
    }
    judge(&world);
}

/// Crashes, power cuts, people, and new work.
fn chaos(world: &Arc<World>, span: Duration) {
    let mut random = Random::new(world.seed, &[4]);
    let end = Instant::now() + span;
    let mut dry = 0;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
        if random.percent(2) {
            world.crash(random.millis(0, 700));
        }
        if random.percent(7) {
            let end = Instant::now() + random.millis(300, 7000);
            world.partitions.lock().unwrap().insert(random.below(MACHINES.into()) as u32, end);
            world.pool().ledger.count("machines partitioned");
        }
        let mut pool = world.pool();
        if random.percent(6) {
            let machine = random.below(MACHINES.into()) as u32;
            // The one that has made calls last.
            let life = pool.ledger.seen.iter().filter(|life| life.machine == machine).max().copied();
            life.into_iter().for_each(|life| pool.ledger.cut(life));
        }
        if random.percent(10) {
            pool.break_lock(random.next());
        }
        if random.percent(2) {
            pool.cancel(random.next());
        }
        // The pool is empty now and then, for a while.
        dry = if pool.tokens.len() < 20 { dry + 1 } else { 0 };
        if dry > 8 {
            pool.add(80);
        }
    }
}

/// Everybody is honest again, for long enough that every lock runs out that nobody holds.
fn calm(world: &World) {
    world.calm.store(true, Ordering::SeqCst);
    let end = Instant::now() + DRAIN;
    let least = Instant::now() + LOCK * 3 / 2;
    while Instant::now() < least || (Instant::now() < end && !world.pool().tokens.is_empty()) {
        std::thread::sleep(Duration::from_millis(20));
    }
    world.over.store(true, Ordering::SeqCst);
}

fn judge(world: &World) {
    let mut pool = world.pool();
    let now = Instant::now();
    let locked: Vec<_> = pool.tokens.iter().filter(|(_, token)| token.lock(now).is_some()).map(|(id, _)| *id).collect();
    let left: Vec<_> = pool.tokens.keys().copied().collect();
    let unstored: Vec<u64> = pool.ledger.completed.keys().copied().filter(|id| !pool.is_stored(*id)).collect();
    let gone = pool.ledger.completed.len() + pool.ledger.cancelled.len() + pool.failed.len();
    let added = pool.ledger.added;
    let poison = pool.ledger.completed.keys().copied().filter(|id| machine::is_poison(*id)).collect();
    let lists = [
        ("still locked", locked),
        ("left undone", left),
        ("completed without a result", unstored),
        ("completed though every payload fails on them", poison),
    ];
    for (what, ids) in lists {
        if !ids.is_empty() {
            pool.ledger.offence(format!("tokens {what}: {ids:?}"));
        }
    }
    if gone as u64 != added {
        pool.ledger.offence(format!("{gone} tokens ended of {added}"));
    }
    for (what, count) in &pool.ledger.counts {
        println!("{count:8} {what}");
    }
    // A storm that nothing happened in proves nothing.
    for what in [
        "tokens completed",
        "renewals",
        "crashes of the server",
        "machines cut off",
        "answers dropped",
        "leases lost while a payload ran",
    ] {
        if !pool.ledger.counts.contains_key(what) {
            pool.ledger.offence(format!("no {what} in this storm"));
        }
    }
    let offences = &pool.ledger.offences;
    let first: Vec<_> = offences.iter().take(20).map(String::as_str).collect();
    assert!(offences.is_empty(), "STORM_SEED={}: {} offences\n{}", world.seed, offences.len(), first.join("\n"));
}
