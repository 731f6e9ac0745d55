//! The builder's and the site's program: a thin dispatcher of what `ctxinit::tool` does.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ctxinit::tool::token_server;

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
    /// Serve token pools (ToPoS 4.1) from a directory, until SIGTERM
    TokenServer(token_server::Options),
}

const EXAMPLES: &str = "\
Example: a pool of three tokens, and what a machine does with it
  ctxtool token-server --dir pools &
  printf 'one\\ntwo\\nthree\\n' | curl -H 'Content-Type: text/plain' --data-binary @- \\
      http://127.0.0.1:8080/4.1/pools/demo/tokens/
  curl -i -H 'Accept: text/plain' 'http://127.0.0.1:8080/4.1/pools/demo/nextToken?timeout=300'";

fn main() -> ExitCode {
    let outcome: Result<(), Box<dyn Error>> = match Cli::parse().command {
        Command::TokenServer(options) => token_server::run(&options).map_err(Into::into),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    // Not eprintln, which panics where standard error is closed.
    let _ = writeln!(io::stderr(), "ctxtool: {error}");
    ExitCode::FAILURE
}
