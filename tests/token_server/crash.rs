//! What must hold whatever happens: no token lost, none given out twice while it is locked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use crate::harness::{Server, ask, claim};

#[test]
fn forty_clients_draw_four_hundred_tokens_once_each() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(server.ask("POST", "p/tokens/", &form, b"ntokens=400").status, 202);
    let clients: Vec<Vec<u64>> = thread::scope(|scope| {
        let draw = || {
            let tokens = std::iter::from_fn(|| server.claim("p", 600).map(|(id, _)| id));
            tokens.collect::<Vec<u64>>()
        };
        let clients: Vec<_> = (0..40).map(|_| scope.spawn(draw)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let drawn: Vec<u64> = clients.concat();
    assert_eq!(drawn.len(), 400);
    assert_eq!(drawn.into_iter().collect::<BTreeSet<_>>(), (1..=400).collect());
}

/// What the clients know for certain when the server dies.
#[derive(Default)]
struct Known {
    /// Token and lock, from a 303, not yet completed.
    held: BTreeMap<u64, String>,
    /// Completed: the DELETE was answered 200.
    deleted: BTreeSet<u64>,
    /// The DELETE was sent, the answer never came.
    in_doubt: BTreeSet<u64>,
}

impl Known {
    fn settled(&self) -> usize {
        self.held.len() + self.deleted.len()
    }
}

#[test]
fn kill_9_amid_claims_and_completions_loses_nothing() {
    const TOKENS: u64 = 3000;
    let dir = tempfile::tempdir().unwrap();
    let known = Mutex::new(Known::default());
    let mut server = Server::start(dir.path());
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(server.ask("POST", "p/tokens/", &form, format!("ntokens={TOKENS}").as_bytes()).status, 202);

    for round in 1..=8 {
        let before = known.lock().unwrap().settled();
        work_until_killed(server, &known);
        let known = known.lock().unwrap();
        assert!(known.settled() > before, "round {round} did nothing");
        server = Server::start(dir.path());
        check(&server, &known, TOKENS);
    }

    // Whatever is left can be drawn once, and is none of what somebody holds.
    let known = known.into_inner().unwrap();
    let mut drawn = BTreeSet::new();
    while let Some((id, _)) = server.claim("p", 600) {
        assert!(drawn.insert(id), "token {id} was drawn twice");
        assert!(!known.held.contains_key(&id) && !known.deleted.contains(&id), "token {id} was not free");
    }
    assert!(!drawn.is_empty(), "the rounds left nothing to draw");
}

/// Sixteen clients claim, and complete every other token, until one of them kills the server: right after an
/// answer, when a server that answers too early has the most to lose.
fn work_until_killed(server: Server, known: &Mutex<Known>) {
    let port = server.port;
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                // A connection that fails is the end of the server.
                while let Ok(Some((id, uuid))) = claim(port, "p", 600) {
                    let number = answered.fetch_add(1, Ordering::Relaxed);
                    if number == 100 {
                        server.signal(Signal::SIGKILL);
                    }
                    let earlier = known.lock().unwrap().held.insert(id, uuid);
                    assert_eq!(earlier, None, "token {id} was given out twice");
                    if number.is_multiple_of(2) {
                        continue;
                    }
                    {
                        let mut known = known.lock().unwrap();
                        known.held.remove(&id);
                        known.in_doubt.insert(id);
                    }
                    let Ok(reply) = ask(port, "DELETE", &format!("p/tokens/{id}"), &[], b"") else { return };
                    assert_eq!(reply.status, 200);
                    let mut known = known.lock().unwrap();
                    known.in_doubt.remove(&id);
                    known.deleted.insert(id);
                }
            });
        }
    });
    assert_eq!(server.end(Signal::SIGKILL).code(), None);
}

fn check(server: &Server, known: &Known, tokens: u64) {
    let listing = server.get("p/tokens/").body;
    let present: BTreeSet<u64> =
        listing.lines().skip(1).map(|line| line.split('\t').next().unwrap().parse().unwrap()).collect();
    for id in 1..=tokens {
        if known.deleted.contains(&id) {
            assert!(!present.contains(&id), "token {id} came back");
        } else {
            assert!(present.contains(&id) || known.in_doubt.contains(&id), "token {id} is lost");
        }
    }
    for (id, uuid) in &known.held {
        let lock = server.get(&format!("p/locks/{uuid}"));
        assert_eq!(lock.status, 200, "the lock on token {id} is lost");
        assert!(lock.body.starts_with(&format!("TokenId: {id}\n")), "{}", lock.body);
    }
}
