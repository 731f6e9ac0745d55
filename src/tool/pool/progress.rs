//! `ctxtool pool progress`: how much is done, once or until nothing is left.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::client::{CallError, Client};
use super::screen::{Screen, bar};
use super::{PoolError, USAGE, nothing, pool_name};
use crate::context::site::PoolName;
use crate::status::words::duration;
use crate::tool::Outcome;

/// Between two looks: short at first, for a pool of a few quick tokens.
const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(5);
/// A server that does not answer for so long is gone; its machine may well be started anew within that.
const PATIENCE: Duration = Duration::from_secs(600);

/// Say how much of a pool is done, once or until nothing is left
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A token is done when it is in the pool no more; those that machines gave up on are in POOL.failed, and are told apart.

Examples:
  ctxtool pool progress mc --total 10000
  ctxtool pool progress mc --total 10000 --wait && ctxtool pool results mc-results -o results"
)]
pub(super) struct Progress {
    /// The pool
    #[arg(value_parser = pool_name)]
    pool: PoolName,
    /// How many tokens there were [default: as many as there are when it starts]
    #[arg(long, value_name = "N")]
    total: Option<u64>,
    /// Wait until no token is left
    #[arg(long)]
    wait: bool,
}

/// A pool at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
struct State {
    tokens: u64,
    locked: u64,
    failed: u64,
}

impl State {
    fn of(client: &Client, pool: &PoolName, failed: Option<&PoolName>) -> Result<Self, CallError> {
        // In this order: a token that fails in between is seen twice rather than never.
        let tokens = client.size(pool)?;
        let failed = failed.map_or(Ok(0), |failed| client.size(failed))?;
        let locked = if tokens > 0 { client.locked(pool)?.min(tokens) } else { 0 };
        Ok(Self { tokens, locked, failed })
    }

    fn done(self, total: u64) -> u64 {
        total.saturating_sub(self.tokens + self.failed)
    }

    /// One line, which tells everything.
    fn line(self, total: u64) -> String {
        let Self { tokens, locked, failed } = self;
        let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        format!(
            "{} {} of {total} done, {locked} running, {} waiting{failed}",
            bar(self.done(total), total),
            self.done(total),
            tokens - locked
        )
    }
}

pub(super) fn progress(client: &Client, options: &Progress) -> Result<Outcome, PoolError> {
    let pool = &options.pool;
    let failed = PoolName::try_from(format!("{pool}.failed")).ok();
    let began = Instant::now();
    let mut state = State::of(client, pool, failed.as_ref())?;
    let total = options.total.unwrap_or(state.tokens + state.failed);
    if state.tokens > total {
        let warnings =
            format!("{}: {} tokens, which is more than --total {total}\n", client.pool_url(pool), state.tokens);
        return Ok(Outcome { warnings, code: USAGE, ..Outcome::default() });
    }
    if total == 0 {
        return Ok(nothing(client, pool));
    }
    let was_empty = state.tokens + state.failed == 0;
    if options.wait {
        state = wait(client, pool, failed.as_ref(), total, state)?;
    }
    let mut text = state.line(total);
    if state.tokens == 0 {
        let took = if options.wait {
            format!(" after {}", duration(began.elapsed().as_millis() as u64))
        } else {
            String::new()
        };
        text += &format!("\nnothing is left{took}");
        if let Some(failed) = failed.filter(|_| state.failed > 0) {
            text += &format!("; the {} that failed are in {failed}", state.failed);
        }
    }
    // To the protocol, a pool that is empty and one that never was are the same.
    let warnings = if was_empty { nothing(client, pool).warnings } else { String::new() };
    Ok(Outcome { warnings, ..Outcome::from(text) })
}

/// Until the pool is empty. Outlives a server that is started anew.
fn wait(
    client: &Client,
    pool: &PoolName,
    failed: Option<&PoolName>,
    total: u64,
    first: State,
) -> Result<State, CallError> {
    let mut screen = Screen::new();
    let (mut state, mut pause, mut silent) = (first, SHORTEST, None::<Instant>);
    while state.tokens > 0 {
        sleep(pause);
        pause = (pause * 2).min(LONGEST);
        match State::of(client, pool, failed) {
            Ok(now) => {
                (state, silent) = (now, None);
                screen.show(state.line(total));
            }
            Err(error) if error.transient && silent.is_none_or(|since| since.elapsed() < PATIENCE) => {
                silent.get_or_insert_with(Instant::now);
                screen.show(error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_there_nor_failed_is_done() {
        let state = State { tokens: 5, locked: 2, failed: 1 };
        let line = state.line(10);
        assert_eq!(line, "[############..................]  40 % 4 of 10 done, 2 running, 3 waiting, 1 failed");
        assert_eq!(State { tokens: 9, locked: 0, failed: 9 }.done(10), 0, "failed ones of an earlier load");
    }
}
