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
use crate::context::shell::Variable;
use crate::script::{CONTEXT_DIR, Script, Way};

/// The script itself, in memory, for root alone.
const PATH: &str = "/run/ctxinit/start-script";
/// APP-NAME of what it prints.
const TAG: &str = "start-script";

/// Whether there is one.
pub fn due(agent: &Agent) -> Due {
    match &agent.start_script {
        Some(StartScript { name, .. }) => Due::Run(format!("context.sh has {name}")),
        None => match agent.variables.iter().find(|variable| is_script(variable)) {
            Some(variable) => Due::Skip(format!("{} of context.sh is empty", variable.name)),
            None => Due::Skip("no START_SCRIPT in a context.sh".to_owned()),
        },
    }
}

fn is_script(variable: &Variable) -> bool {
    START_SCRIPT.contains(&variable.name.as_str())
}

/// Runs it to its end.
pub fn run(agent: &mut Agent, deadline: Deadline) -> Result<Done, Fault> {
    let Some(StartScript { name, text }) = agent.start_script.take() else { return Ok(Done::Next(String::new())) };
    write(&text).map_err(|error| machine_fault(format!("{PATH}: {error}")))?;
    let script = Script {
        // A fault of it is to be looked for in context.sh.
        name,
        tag: TAG.to_owned(),
        path: PATH.to_owned(),
        dir: CONTEXT_DIR.to_owned(),
        way: Way::Executed,
        environment: environment(&agent.variables),
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

/// The variables, but for the script itself and for what the kernel takes in no environment.
fn environment(variables: &[Variable]) -> Vec<(String, String)> {
    // MAX_ARG_STRLEN: 32 pages for name, `=`, value and a NUL.
    const LONGEST: usize = 131_072;
    let fits = |variable: &&Variable| {
        let fits = variable.name.len() + variable.value.len() + 2 <= LONGEST;
        if !fits {
            log::warn!("context.sh:{}: {}: too long for the environment of {TAG}", variable.line, variable.name);
        }
        fits
    };
    let own = |variable: &&Variable| !is_script(variable);
    let pair = |variable: &Variable| (variable.name.clone(), variable.value.clone());
    variables.iter().filter(own).filter(fits).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_holds_what_fits() {
        let variable =
            |name: &str, length| Variable { name: name.to_owned(), value: "x".repeat(length), ..Variable::default() };
        let all = [variable("A", 1), variable("START_SCRIPT", 1), variable("B", 131_069), variable("C", 131_070)];
        let names: Vec<_> = environment(&all).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["A", "B"]);
    }
}
