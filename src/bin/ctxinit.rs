//! The guest's program: PID 1 of a machine, and the command by which people inside look at it.

use std::io::{self, Write};
use std::process::ExitCode;

use ctxinit::status::{self, Options, StatusError};
use lexopt::prelude::*;

const HELP: &str = "\
ctxinit: guest contextualisation agent and init

As PID 1 (the kernel's /init or init=) it boots the machine: finds the context CD, runs the site's
prolog.sh, network, epilog.sh, forwards the log, works on tokens, and powers off with a reason.

Usage: ctxinit status [--wait [--timeout SECONDS]] [--json]
       ctxinit explain [PHASE]

  status            phases of this boot with their times, scripts that failed, what was changed,
                    and why the machine ends
    --wait          until the boot is over (all phases before work done or skipped, or the machine ends)
    --timeout N     but for no longer than N seconds
    --json          the whole report, /run/ctxinit/report.json
  explain           why each phase ran, was skipped or failed, what its limit was, what its scripts
                    did, and what was changed; with PHASE (prolog, network ...) of that one alone
  --help, --version

Exit codes of status: 0 all well (so far), 2 no report, 3 a phase failed or the machine ends with a
fault, 4 the boot was not over in time; of both: 1 wrong usage.
Colours only on a terminal, and not where NO_COLOR is set.

Examples: ctxinit status --wait --timeout 60 || logger -p user.err 'boot failed'
          ctxinit explain prolog
";

fn main() -> ExitCode {
    let command = parse();
    // The kernel hands words that it does not know to init, so `status` on its command line is no command. In a
    // container, where the first program is PID 1 too, it is.
    let is_init = std::env::args_os().next().is_some_and(|name| name == "/init");
    if std::process::id() == 1 && (is_init || command.is_err()) {
        ctxinit::init::run();
    }
    let mut out = io::stdout().lock();
    let result = match command {
        Ok(Command::Status(options)) => status::run(options, &mut out),
        Ok(Command::Explain(phase)) => status::explain(phase.as_deref(), &mut out),
        Ok(Command::Print(text)) => out.write_all(text.as_bytes()).map(|()| status::OK).map_err(StatusError::Output),
        Err(error) => {
            let _ = writeln!(io::stderr(), "ctxinit: {error}\nTry 'ctxinit --help'.");
            return ExitCode::FAILURE;
        }
    };
    let code = result.unwrap_or_else(|error| match error {
        // A reader that went away (`ctxinit status | head`) is no failure of ours.
        StatusError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => status::OK,
        error => {
            let _ = writeln!(io::stderr(), "ctxinit: {error}");
            error.code()
        }
    });
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

enum Command {
    Status(Options),
    Explain(Option<String>),
    Print(String),
}

fn parse() -> Result<Command, lexopt::Error> {
    let mut parser = lexopt::Parser::from_env();
    match parser.next()? {
        Some(Long("help") | Short('h')) => Ok(Command::Print(HELP.to_owned())),
        Some(Long("version")) => Ok(Command::Print(format!("ctxinit {}\n", env!("CARGO_PKG_VERSION")))),
        Some(Value(word)) if word == "status" => status(&mut parser),
        Some(Value(word)) if word == "explain" => explain(&mut parser),
        Some(argument) => Err(argument.unexpected()),
        None => Err("no command given".into()),
    }
}

fn status(parser: &mut lexopt::Parser) -> Result<Command, lexopt::Error> {
    let mut options = Options { colour: ctxinit::text::in_colours(), ..Options::default() };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(Command::Print(HELP.to_owned())),
            Long("wait") => options.wait = true,
            Long("json") => options.json = true,
            Long("timeout") => options.timeout = Some(parser.value()?.parse()?),
            argument => return Err(argument.unexpected()),
        }
    }
    if options.timeout.is_some() && !options.wait {
        return Err("--timeout is a limit of --wait, which is not given".into());
    }
    Ok(Command::Status(options))
}

fn explain(parser: &mut lexopt::Parser) -> Result<Command, lexopt::Error> {
    let mut phase = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(Command::Print(HELP.to_owned())),
            Value(name) if phase.is_none() => phase = Some(name.string()?),
            argument => return Err(argument.unexpected()),
        }
    }
    Ok(Command::Explain(phase))
}
