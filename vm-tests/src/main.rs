//! Cases that boot a real kernel in QEMU.
//!
//! A case is one file in `cases/` with two halves. The host half makes a site (context CD, token pool, syslog
//! receiver), boots a machine with `scripts/vm` and looks at what became of it. The guest half is the payload or the
//! scripts that run inside; it says `RESULT <case> ok` last, and only if everything that it saw was right. The exit
//! status of QEMU proves nothing.
//!
//! Most cases boot an initramfs that is the whole image: busybox and this program, built static. The first one boots
//! the Debian image that a site would get.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool, and a payload with output")]
#![allow(clippy::disallowed_methods, reason = "not a role of the guest: nobody else waits for its children")]

mod case;
mod cases;
mod cd;
mod disk;
mod features;
mod guest;
mod http;
mod lines;
mod log_check;
mod machine;
mod probe;
mod process;
mod qmp;
mod report;
mod runner;
mod services;
mod site;
mod stage;
mod syslog;

use std::process::ExitCode;

use case::Case;

const USAGE: &str = "\
Boots a machine in QEMU for each case, and says what is wrong with it.

usage: cargo run -p vm-tests -- [--list] [--jobs N] [FILTER...]

  --list     names of the cases, and nothing else
  --jobs N   so many machines at once (default 2: TCG takes a processor for each)
  FILTER     only cases whose name contains one of these words

Takes what scripts/setup and scripts/build have made. Exit status: 0 all passed, 1 one did not, 2 wrong usage.";

fn main() -> ExitCode {
    // As process 1 of a machine it is what was there before ctxinit.
    if let Some(errno) = probe::unclean::become_ctxinit() {
        println!("vm-tests: no unclean start: {errno}");
        return ExitCode::FAILURE;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    // Inside a machine this same program is the payload, or a process that a payload leaves behind.
    if let Some((guest::ARGUMENT, rest)) = words.split_first().map(|(word, rest)| (word.as_str(), rest)) {
        return guest::main(rest);
    }
    match parse(&words) {
        Ok(Wanted::Help) => println!("{USAGE}"),
        Ok(Wanted::List(cases)) => cases.iter().for_each(|case| println!("{}", case.name)),
        Ok(Wanted::Run(cases, jobs)) => return runner::run(&cases, jobs),
        Err(why) => {
            eprintln!("vm-tests: {why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

enum Wanted {
    Help,
    List(Vec<&'static Case>),
    Run(Vec<&'static Case>, usize),
}

fn parse(words: &[String]) -> Result<Wanted, String> {
    let (mut list, mut jobs, mut filters) = (false, 2, Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--list" => list = true,
            "--jobs" => {
                let number = words.next().and_then(|number| number.parse().ok()).filter(|&jobs| jobs > 0);
                jobs = number.ok_or("--jobs needs a number from 1")?;
            }
            "-h" | "--help" => return Ok(Wanted::Help),
            option if option.starts_with('-') => return Err(format!("unknown option {option}")),
            filter => filters.push(filter),
        }
    }
    let named = |case: &&Case| filters.is_empty() || filters.iter().any(|filter| case.name.contains(filter));
    let whole = |case: &&Case| filters.contains(&case.name);
    let cases: Vec<&Case> = cases::ALL.iter().filter(named).chain(cases::ON_DEMAND.iter().filter(whole)).collect();
    match cases.is_empty() {
        true => Err(format!("no case has a name with {}", filters.join(" or "))),
        false if list => Ok(Wanted::List(cases)),
        false => Ok(Wanted::Run(cases, jobs)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(words: &[&str]) -> Result<Vec<&'static str>, String> {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        match parse(&words)? {
            Wanted::List(cases) | Wanted::Run(cases, _) => Ok(cases.iter().map(|case| case.name).collect()),
            Wanted::Help => Ok(Vec::new()),
        }
    }

    #[test]
    fn filters_choose_cases() {
        assert_eq!(names(&[]).unwrap().len(), cases::ALL.len());
        assert_eq!(names(&["--list", "whole"]).unwrap(), ["whole-slice"]);
        assert!(names(&["--jobs", "1", "whole", "prolog"]).unwrap().len() > 2);
        assert_eq!(names(&["nothing-like-it"]).unwrap_err(), "no case has a name with nothing-like-it");
        assert!(names(&["--jobs", "0"]).is_err() && names(&["--job"]).is_err());
    }
}
