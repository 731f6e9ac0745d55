//! `ctxtool pool drain`: what nobody works on is deleted; what is held stays, or is freed.

use super::client::Client;
use super::screen::Screen;
use super::{PoolError, USAGE, nothing, pool_name};
use crate::context::site::PoolName;
use crate::text::count;
use crate::tool::Outcome;

/// Delete the tokens of a pool that nobody holds; or free those that are held
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each token is locked before it is deleted, so that none is taken from a machine that works on it. With --locks nothing is
deleted: all locks are broken, and the machines that held them stop that work without a result.

Examples:
  ctxtool pool drain mc          (says what would be done)
  ctxtool pool drain mc --yes
  ctxtool pool drain mc --locks --yes"
)]
pub(super) struct Drain {
    /// The pool
    #[arg(value_parser = pool_name)]
    pool: PoolName,
    /// Break all locks instead, so that their tokens are handed out again at once
    #[arg(long)]
    locks: bool,
    /// Do it, and do not only say what would be done
    #[arg(long)]
    yes: bool,
}

pub(super) fn drain(client: &Client, options: &Drain) -> Result<Outcome, PoolError> {
    let pool = &options.pool;
    let (tokens, locked) = (client.size(pool)?, client.locked(pool)?);
    if tokens == 0 {
        return Ok(nothing(client, pool));
    }
    if !options.yes {
        let what = match options.locks {
            true => format!("{} would be broken", count(locked, "lock")),
            false => format!(
                "{} would be deleted, {locked} that are held would stay",
                count(tokens.saturating_sub(locked), "token")
            ),
        };
        let warnings = format!("{pool}: {what}; nothing was done, --yes does it\n");
        return Ok(Outcome { warnings, code: USAGE, ..Outcome::default() });
    }
    if options.locks {
        client.free_all(pool)?;
        return Ok(Outcome::from(format!("{pool}: {} broken", count(locked, "lock"))));
    }
    let mut deleted = 0;
    let mut screen = Screen::new();
    while let Some(id) = client.take(pool)? {
        deleted += u64::from(client.delete(pool, &id)?);
        screen.show(format!("{} deleted", count(deleted, "token")));
    }
    drop(screen);
    let held = client.locked(pool)?;
    Ok(Outcome::from(format!("{pool}: {} deleted, {held} held and left alone", count(deleted, "token"))))
}
