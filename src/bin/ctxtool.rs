//! The builder's and the site's program: a thin dispatcher of what `ctxinit::tool` does.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ctxinit::text::printable;
use ctxinit::tool::{Outcome, cd, log, pool, report, token_server, work_check};

/// Tools for builders of images and for sites that run them
#[derive(Parser)]
#[command(name = "ctxtool", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// One line of `--help` each.
#[derive(Subcommand)]
enum Command {
    /// Begin, check, make, sign, verify and explain context CDs
    #[command(subcommand)]
    Cd(cd::Cd),
    /// Prove that nothing is missing in what a log server received; make and read spools
    #[command(subcommand)]
    Log(log::Log),
    /// Make, fill, watch and empty token pools, and fetch results
    Pool(pool::Pool),
    /// Serve token pools (ToPoS 4.1) from a directory, until SIGTERM
    TokenServer(token_server::Options),
    /// Try the payload of an image on a token here, before machines of a grid do it
    #[command(subcommand)]
    Work(work_check::Work),
    /// Show the report of a machine as a table, or make a page of it
    Report(report::Options),
}

const EXAMPLES: &str = "\
Examples: a context CD, plain and signed; a pool of three tokens, and what a machine asks of it; a page about a boot;
whether its whole log arrived
  ctxtool cd new my-site && ctxtool cd check my-site && ctxtool cd build my-site -o my-site.iso
  ctxtool cd keygen -o my-key
  ctxtool cd build my-site/ -o my-site.iso --sign my-key.key --image any --expires 90days
  ctxtool cd verify my-site.iso --key my-key.pub
  ctxtool token-server --dir pools &
  printf 'one\\ntwo\\nthree\\n' | ctxtool pool load demo -
  curl -i -H 'Accept: text/plain' 'http://127.0.0.1:8080/4.1/pools/demo/nextToken?timeout=300'
  ctxtool report report.json -o report.html
  ctxtool log check /var/log/grid/vms.log";

fn main() -> ExitCode {
    run(Cli::parse().command).unwrap_or_else(|error| {
        let error: Vec<String> = error.to_string().lines().map(printable).collect();
        // Not eprintln, which panics where standard error is closed.
        let _ = writeln!(io::stderr(), "ctxtool: {}", error.join("\n"));
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode, Box<dyn Error>> {
    let out = io::stdout().lock();
    match command {
        Command::Cd(what) => return answer(out, &cd::run(&what)?),
        Command::Log(what) => return answer(out, &log::run(&what)?),
        Command::Pool(what) => return answer(out, &pool::run(&what)?),
        Command::Work(what) => return answer(out, &work_check::run(&what)),
        Command::Report(options) => tell(out, &report::run(&options)?)?,
        Command::TokenServer(options) => {
            drop(out);
            token_server::run(&options)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn answer(out: impl Write, outcome: &Outcome) -> Result<ExitCode, Box<dyn Error>> {
    tell(io::stderr(), &outcome.warnings)?;
    if !outcome.text.is_empty() {
        tell(out, &format!("{}\n", outcome.text))?;
    }
    Ok(ExitCode::from(outcome.code))
}

/// A reader that went away (`ctxtool cd explain my-cd | head`) is no failure of ours.
fn tell(mut out: impl Write, text: &str) -> io::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
