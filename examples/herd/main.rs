//! A thousand machines that boot together, against one token server: for `scripts/bench`, and for docs/work.md.
//!
//! `herd CTXTOOL [--machines N] [--tasks N] [--late SECS] [--task-ms N]`: each machine is the real worker, with its own
//! connections, and takes N tokens one after the other. With `--late` the server starts that much after the machines.
//! It writes one line of JSON; exit status 1 if a token was given out twice, lost, or a machine got none.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a stop watch is a program of its own")]
#![allow(clippy::disallowed_methods, reason = "it waits for its own child")]

mod machines;

use std::process::ExitCode;
use std::time::Duration;

use machines::{Outcome, Plan};

fn main() -> ExitCode {
    match plan(std::env::args().skip(1)).and_then(|plan| machines::run(&plan)) {
        Ok(figures) => {
            println!("{figures}");
            if figures.right() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            eprintln!("herd: {why}");
            ExitCode::FAILURE
        }
    }
}

fn plan(mut words: impl Iterator<Item = String>) -> Outcome<Plan> {
    let mut plan = Plan {
        ctxtool: words
            .next()
            .ok_or("usage: herd CTXTOOL [--machines N] [--tasks N] [--late SECS] [--task-ms N]")?
            .into(),
        machines: 1000,
        tasks: 10,
        late: Duration::ZERO,
        task: Duration::ZERO,
    };
    while let Some(word) = words.next() {
        let number = words.next().ok_or(format!("{word} needs a number"))?.parse()?;
        match word.as_str() {
            "--machines" => plan.machines = number,
            "--tasks" => plan.tasks = number,
            "--late" => plan.late = Duration::from_secs(number),
            "--task-ms" => plan.task = Duration::from_millis(number),
            other => return Err(format!("{other} is unknown").into()),
        }
    }
    Ok(plan)
}
