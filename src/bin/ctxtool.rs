//! The builder's and the site's program: a thin dispatcher of what `ctxinit::tool` does.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ctxinit::tool::{cd, timeline, token_server};

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
    /// Make context CDs
    #[command(subcommand)]
    Cd(Cd),
    /// Serve token pools (ToPoS 4.1) from a directory, until SIGTERM
    TokenServer(token_server::Options),
    /// Show the phases of a boot as a table, and draw them
    Timeline(timeline::Timeline),
}

#[derive(Subcommand)]
enum Cd {
    /// Build a context CD from a directory
    Build(cd::Build),
}

const EXAMPLES: &str = "\
Examples: a context CD; a pool of three tokens, and what a machine asks of it; a picture of a boot
  ctxtool cd build my-site/ -o my-site.iso
  ctxtool token-server --dir pools &
  printf 'one\\ntwo\\nthree\\n' | curl -H 'Content-Type: text/plain' --data-binary @- \\
      http://127.0.0.1:8080/4.1/pools/demo/tokens/
  curl -i -H 'Accept: text/plain' 'http://127.0.0.1:8080/4.1/pools/demo/nextToken?timeout=300'
  ctxtool timeline report.json -o timeline.svg";

fn main() -> ExitCode {
    let outcome = run(Cli::parse().command);
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    // Not eprintln, which panics where standard error is closed.
    let _ = writeln!(io::stderr(), "ctxtool: {error}");
    ExitCode::FAILURE
}

fn run(command: Command) -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout().lock();
    match command {
        Command::Cd(Cd::Build(options)) => writeln!(out, "{}", cd::build(&options)?)?,
        Command::Timeline(options) => out.write_all(timeline::run(&options)?.as_bytes())?,
        Command::TokenServer(options) => {
            drop(out);
            token_server::run(&options)?;
        }
    }
    Ok(())
}
