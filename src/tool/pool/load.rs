//! `ctxtool pool load`: tokens into a pool, in batches, and what is known of each when one fails.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::batch::{batches, lines};
use super::client::{CallError, Client};
use super::screen::{Screen, bar};
use super::{PoolError, USAGE, at, name, pool_name};
use crate::ban::owner::Owner;
use crate::context::site::PoolName;
use crate::text::count;
use crate::tool::Outcome;

/// Put tokens into a pool: the lines of a file, or files
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Load {
    /// The pool; it comes into being with its first token
    #[arg(value_parser = pool_name)]
    pool: PoolName,
    /// A file with one token a line, or - for standard input; with --files any number of files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Each file is one token, and keeps its name
    #[arg(long = "files", conflicts_with_all = ["count_lines", "from_line"])]
    whole_files: bool,
    /// The tokens' media type, which may name their owner [default: text/plain, and of files application/octet-stream]
    #[arg(long = "type", value_name = "TYPE", value_parser = media_type)]
    kind: Option<String>,
    /// Load nothing unless there are exactly so many tokens in the file
    #[arg(long, value_name = "N")]
    count_lines: Option<u64>,
    /// Begin at this line: to go on where an earlier load ended
    #[arg(long, value_name = "N", default_value_t = 1)]
    from_line: u64,
}

/// It becomes a header. An owner that no machine can read is refused by each that has a ban list, at a lease a time.
fn media_type(text: &str) -> Result<String, String> {
    let ok = text.contains('/') && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if !ok {
        return Err(format!("{text:?} is not a media type, such as text/plain"));
    }
    match Owner::of_media_type(text.as_bytes()) {
        Owner::Unreadable(why) => Err(format!("no machine can read its owner: {why}")),
        Owner::Known(_) | Owner::Unknown => Ok(text.to_owned()),
    }
}

const HELP: &str = "\
Blank lines are left out. A token is bytes: whatever the machines' payload understands. If a load fails half way, the
message says which lines are in the pool, which may be, and how to go on.

Examples:
  seq 10000 | ctxtool pool load mc -
  ctxtool pool load mc seeds.txt --count-lines 10000
  ctxtool pool load mc --files runs/*.cfg --type 'application/json'";

pub(super) fn load(client: &Client, options: &Load) -> Result<Outcome, PoolError> {
    if options.whole_files {
        return load_files(client, options);
    }
    let [file] = options.files.as_slice() else {
        return Ok(usage("one file of lines at a time; with --files each file is a token"));
    };
    let kind = options.kind.as_deref().unwrap_or("text/plain");
    if !kind.to_ascii_lowercase().starts_with("text/") {
        return Ok(usage("lines are sent as text/*, and so is their --type; files are of any type"));
    }
    let text = read(file)?;
    let all = lines(&text).count() as u64;
    if let Some(wanted) = options.count_lines.filter(|wanted| *wanted != all) {
        let warnings = format!("{}: {}, and not {wanted}; nothing was loaded\n", file.display(), count(all, "token"));
        return Ok(Outcome { warnings, code: 1, ..Outcome::default() });
    }
    let total = lines(&text).filter(|(number, _)| *number >= options.from_line).count() as u64;
    if total == 0 {
        let from = if options.from_line > 1 { format!(" from line {} on", options.from_line) } else { String::new() };
        let warnings = format!("{}: no token{from}; nothing was loaded\n", file.display());
        return Ok(Outcome { warnings, code: 1, ..Outcome::default() });
    }
    let mut loaded = 0;
    {
        let mut screen = Screen::new();
        for batch in batches(&text, options.from_line) {
            screen.show(format!("{} {loaded} of {total}", bar(loaded, total)));
            client
                .post_lines(&options.pool, kind, &batch.body)
                .map_err(|error| half(&options.pool, loaded, (batch.first, batch.last), error))?;
            loaded += batch.tokens;
        }
    }
    Ok(said(client, &options.pool, loaded))
}

fn load_files(client: &Client, options: &Load) -> Result<Outcome, PoolError> {
    let kind = options.kind.as_deref().unwrap_or("application/octet-stream");
    let total = options.files.len() as u64;
    let mut loaded = 0;
    {
        let mut screen = Screen::new();
        for path in &options.files {
            screen.show(format!("{} {loaded} of {total}", bar(loaded, total)));
            let value = read(path).map_err(|error| half_files(&options.pool, loaded, &error))?;
            // It becomes a header, and some day a file again.
            let base = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            client.put(&options.pool, &name::safe(&base, "0"), kind, &value).map_err(|error| {
                let perhaps = if error.unsure { ", which may be in as well" } else { "" };
                half_files(&options.pool, loaded, &format!("{}{perhaps}: {error}", path.display()))
            })?;
            loaded += 1;
        }
    }
    Ok(said(client, &options.pool, loaded))
}

fn read(path: &Path) -> Result<Vec<u8>, PoolError> {
    if path == Path::new("-") {
        let mut text = Vec::new();
        io::stdin().lock().read_to_end(&mut text).map_err(at("-"))?;
        return Ok(text);
    }
    fs::read(path).map_err(at(path))
}

/// What is in the pool when a batch fails, and how to go on.
fn half(pool: &PoolName, loaded: u64, (first, last): (u64, u64), error: CallError) -> PoolError {
    let before = format!("{pool}: {} in the pool", are(loaded, "token"));
    let (these, next) = if error.unsure {
        let again = format!("if they are not, begin at {first} again");
        (
            format!("; lines {first} to {last} may be in or not"),
            format!("--from-line {} goes on behind them; {again}", last + 1),
        )
    } else {
        (format!("; lines from {first} on are not"), format!("--from-line {first} goes on there"))
    };
    PoolError::Half(format!("{before}{these}: {error}\n{next}"))
}

fn half_files(pool: &PoolName, loaded: u64, why: &impl std::fmt::Display) -> PoolError {
    PoolError::Half(format!("{pool}: {} in the pool, in the order given; then {why}", are(loaded, "file")))
}

fn are(number: u64, what: &str) -> String {
    format!("{} {}", count(number, what), if number == 1 { "is" } else { "are" })
}

fn said(client: &Client, pool: &PoolName, loaded: u64) -> Outcome {
    let loaded = format!("{pool}: {} loaded", count(loaded, "token"));
    // Machines may be at work on them already, so this proves nothing; but a surprise is seen at once.
    match client.size(pool) {
        Ok(now) => Outcome::from(format!("{loaded}; it has {now} now")),
        // All of them are in: who is told of a failure would load them once more.
        Err(error) => {
            let warnings = format!("{pool}: how many it has now is not known: {error}\n");
            Outcome { warnings, ..Outcome::from(loaded) }
        }
    }
}

fn usage(why: &str) -> Outcome {
    Outcome { warnings: format!("ctxtool pool load: {why}\n"), code: USAGE, ..Outcome::default() }
}
