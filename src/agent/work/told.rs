//! What is told of a token that is out of our hands.

use super::super::job::Ended;
use super::super::report::TokenReport;
use crate::payload::outcome::Outcome;
use crate::protocol::{Fate, Token};

/// For the report.
pub fn report(token: Token, start_ms: u64, ended: Ended, fate: Fate, note: String) -> TokenReport {
    let Ended { name, outcome, result, .. } = ended;
    TokenReport {
        id: token.id,
        job: name,
        start_ms,
        millis: outcome.wall_millis,
        end: outcome.end.to_string(),
        reason: outcome.end.coded(),
        fate,
        note,
        result_bytes: result.map_or(0, |result| result.len() as u64),
        usage: outcome.usage,
        left_behind: outcome.left_behind,
        // The site's log has every line; the report says what a failure said last.
        tail: if fate == Fate::Completed { Vec::new() } else { outcome.tail },
    }
}

/// The line that people watch for.
pub fn log(token: &Token, ended: &Ended, fate: Fate, note: &str) {
    let Outcome { end, wall_millis: millis, left_behind, .. } = &ended.outcome;
    let id = &token.id;
    let left = match left_behind {
        0 => String::new(),
        1 => ", 1 process left behind and killed".to_owned(),
        count => format!(", {count} processes left behind and killed"),
    };
    let fate = match fate {
        Fate::Completed => {
            let bytes = ended.result.as_ref().map_or(0, Vec::len);
            return log::info!("token {id}: completed, {millis} ms, result {bytes} bytes{left}");
        }
        Fate::Released => "released",
        Fate::Failed => "failed for good",
        Fate::Lost => "lost",
        Fate::Stranded => "stranded",
    };
    log::warn!("token {id}: {fate}, {millis} ms, {end} ({}){left}; {note}", end.coded());
}
