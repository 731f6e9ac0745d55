//! The guest's program: PID 1 of a machine, and the command by which people inside look at it.

use std::io::{self, Write};
use std::process::ExitCode;

use ctxinit::status::{self, Options};
use lexopt::prelude::*;

const HELP: &str = "\
ctxinit: guest contextualisation agent and init

As PID 1 (the kernel's /init or init=) it boots the machine: finds the context CD, runs the site's
prolog.sh, network, epilog.sh, forwards the log, works on tokens, and powers off with a reason.

Usage: ctxinit status [--wait] [--timeout SECONDS] [--json]

  status            phases of this boot, with their times, and why the machine ends
    --wait          until the boot is over (epilog done or skipped, or the machine ends)
    --timeout N     but for no longer than N seconds
    --json          the whole report, /run/ctxinit/report.json
  --help, --version

Exit codes of status: 0 all well, 2 no report, 3 a phase failed or the machine ends with a fault, 4 timeout.
Example: ctxinit status --wait --timeout 60 || logger -p user.err 'boot failed'
";

fn main() -> ExitCode {
    let command = parse();
    // The kernel hands words that it does not know to init, so `status` on its command line is no command. In a
    // container, where the first program is PID 1 too, it is.
    let is_init = std::env::args_os().next().is_some_and(|name| name == "/init");
    if std::process::id() == 1 && (is_init || !matches!(command, Ok(Command::Status(_) | Command::Print(_)))) {
        ctxinit::init::run();
    }
    let mut out = io::stdout().lock();
    let result = match command {
        Ok(Command::Status(options)) => status::run(options, &mut out),
        Ok(Command::Print(text)) => out.write_all(text.as_bytes()).map(|()| status::OK),
        Err(error) => writeln!(io::stderr(), "ctxinit: {error}\nTry 'ctxinit --help'.").map(|()| 1),
    };
    // A reader that went away (`ctxinit status | head`) is no failure of ours.
    ExitCode::from(result.map_or(0, |code| u8::try_from(code).unwrap_or(1)))
}

enum Command {
    Status(Options),
    Print(String),
}

fn parse() -> Result<Command, lexopt::Error> {
    let mut parser = lexopt::Parser::from_env();
    let mut options = None;
    while let Some(argument) = parser.next()? {
        match (argument, &mut options) {
            (Long("help") | Short('h'), _) => return Ok(Command::Print(HELP.to_owned())),
            (Long("version"), _) => {
                return Ok(Command::Print(format!("ctxinit {}\n", env!("CARGO_PKG_VERSION"))));
            }
            (Value(word), None) if word == "status" => options = Some(Options::default()),
            (Long("wait"), Some(options)) => options.wait = true,
            (Long("json"), Some(options)) => options.json = true,
            (Long("timeout"), Some(options)) => options.timeout = Some(parser.value()?.parse()?),
            (argument, _) => return Err(argument.unexpected()),
        }
    }
    options.map(Command::Status).ok_or_else(|| "no command given".into())
}
