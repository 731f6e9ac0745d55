//! `ctxtool pool list`: the tokens of a pool, for people and for programs.

use std::fmt::Write;

use serde::Serialize;

use super::answer::Row;
use super::client::Client;
use super::{PoolError, nothing, pool_name};
use crate::context::site::PoolName;
use crate::text::{count, in_colours, printable};
use crate::tool::Outcome;

/// From so many tries on, a token is likely to be the fault.
const SUSPICIOUS: u64 = 5;
const BLUE: &str = "\x1b[34m";
const YELLOW: &str = "\x1b[33m";
const OFF: &str = "\x1b[0m";

/// List the tokens of a pool: who holds which, for how long, and how often it was tried
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ctxtool pool list mc
  ctxtool pool list mc --json | jq '[.[] | select(.tries > 3)] | length'

LEFT is when a lock ends unless its holder renews it; LOCKED BY is what the holder says of itself.")]
pub(super) struct List {
    /// The pool
    #[arg(value_parser = pool_name)]
    pool: PoolName,
    /// As JSON: a list of {id, size, type, name, created, tries, locked, left, holder}
    #[arg(long)]
    json: bool,
}

/// A token, as it is printed.
#[derive(Serialize)]
struct Token<'a> {
    id: &'a str,
    size: Option<u64>,
    r#type: &'a str,
    name: &'a str,
    created: &'a str,
    tries: Option<u64>,
    locked: bool,
    left: &'a str,
    holder: &'a str,
}

impl<'a> From<&'a Row> for Token<'a> {
    fn from(row: &'a Row) -> Self {
        Self {
            id: &row.id,
            size: row.size(),
            r#type: &row.kind,
            name: &row.name,
            created: &row.created,
            tries: row.tries(),
            locked: row.locked(),
            left: &row.left,
            holder: &row.holder,
        }
    }
}

pub(super) fn list(client: &Client, options: &List) -> Result<Outcome, PoolError> {
    let rows = client.tokens(&options.pool)?;
    let mut outcome = if rows.is_empty() { nothing(client, &options.pool) } else { Outcome::default() };
    if options.json {
        let tokens: Vec<Token<'_>> = rows.iter().map(Token::from).collect();
        outcome.text = serde_json::to_string_pretty(&tokens).unwrap_or_default();
    } else if !rows.is_empty() {
        outcome.text = table(&rows, in_colours());
    }
    Ok(outcome)
}

fn table(rows: &[Row], coloured: bool) -> String {
    let number = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
    let cells = |row: &Row| {
        let [left, holder, name, kind] = [&row.left, &row.holder, &row.name, &row.kind]
            .map(|text| if text.is_empty() { "-".to_owned() } else { printable(text) });
        [row.id.clone(), number(row.size()), number(row.tries()), left, holder, name, kind]
    };
    let heads = ["TOKEN", "BYTES", "TRIES", "LEFT", "LOCKED BY", "NAME", "TYPE"].map(str::to_owned);
    let mut widths = heads.clone().map(|head| head.len());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(cells(row)) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    let mut line = |cells: [String; 7], colour: &str| {
        let mut text = String::new();
        for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let _ = if at < 4 { write!(text, "{cell:>width$}  ") } else { write!(text, "{cell:width$}  ") };
        }
        let (on, off) = if coloured && !colour.is_empty() { (colour, OFF) } else { ("", "") };
        let _ = writeln!(out, "{on}{}{off}", text.trim_end());
    };
    line(heads, "");
    for row in rows {
        let tired = row.tries().is_some_and(|tries| tries >= SUSPICIOUS);
        line(
            cells(row),
            if tired {
                YELLOW
            } else if row.locked() {
                BLUE
            } else {
                ""
            },
        );
    }
    let locked = rows.iter().filter(|row| row.locked()).count();
    let _ = write!(out, "{}, {locked} locked", count(rows.len() as u64, "token"));
    out
}

#[cfg(test)]
mod tests {
    use super::super::answer::listing;
    use super::*;

    #[test]
    fn a_table_is_aligned_and_foreign_text_steers_nothing() {
        let body = r#"[{"Name": "1", "Size": "9 B", "Leases": "12", "Timeout": "0:04:59", "LockDescription": "vm\u001b[31m",
            "Content-Type": "text/plain"}, {"Name": "1000", "Original Name": "a.cfg"}]"#;
        let rows = listing(body.as_bytes(), 9999).unwrap();
        let expected = "\
TOKEN  BYTES  TRIES     LEFT  LOCKED BY     NAME   TYPE
    1      9     12  0:04:59  vm\\u{1b}[31m  -      text/plain
 1000      ?      ?        -  -             a.cfg  -
2 tokens, 1 locked";
        assert_eq!(table(&rows, false), expected);
        assert!(table(&rows, true).contains("\x1b[33m    1"));
    }
}
