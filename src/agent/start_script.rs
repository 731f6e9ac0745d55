//! OpenNebula's `START_SCRIPT`: the site's third script, between network and epilog.
//!
//! It is a program of its own and not sourced: its `#!` line counts, and it sees the variables of `context.sh` in its
//! environment. Its limits are the epilog's.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use super::runner::{Done, Due, Fault, machine_fault};
use super::{Agent, scripts};
use crate::clock::Deadline;
use crate::context::opennebula::{START_SCRIPT, StartScript};
use crate::script::{CONTEXT_DIR, Script, Way};

/// The script itself, in memory, for root alone.
const PATH: &str = "/run/ctxinit/start-script";

/// Whether there is one.
pub fn due(agent: &Agent) -> Due {
    match &agent.start_script {
        Some(StartScript { name, .. }) => Due::Run(format!("context.sh has {name}")),
        None => match agent.variables.iter().find(|variable| START_SCRIPT.contains(&variable.name.as_str())) {
            Some(variable) => Due::Skip(format!("{} of context.sh is empty", variable.name)),
            None => Due::Skip("no START_SCRIPT in a context.sh".to_owned()),
        },
    }
}

/// Runs it to its end.
pub fn run(agent: &mut Agent, deadline: Deadline) -> Result<Done, Fault> {
    let Some(StartScript { name, text }) = agent.start_script.take() else { return Ok(Done::Next(String::new())) };
    write(&text).map_err(|error| machine_fault(format!("{PATH}: {error}")))?;
    let script = Script {
        // A fault of it is to be looked for in context.sh.
        name,
        tag: "start-script".to_owned(),
        path: PATH.to_owned(),
        dir: CONTEXT_DIR.to_owned(),
        way: Way::Executed,
        limits: agent.policy.scripts.epilog,
    };
    let ended = scripts::run(agent, &script, "start", deadline);
    // It may hold what was for it alone.
    let _ = fs::remove_file(PATH);
    ended.map(Done::Next)
}

fn write(text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(PATH)?;
    file.write_all(text)
}
