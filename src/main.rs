//! The `pointsman` command.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

use pointsman::cli::{self, Cli, Command, EXIT_USAGE};
use pointsman::{demo, provider};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve(args) => match cli::load(&args.config.config) {
            Ok(_config) => failed("serve: this build has no data path", 1),
            Err(error) => failed(error, EXIT_USAGE),
        },
        Command::CheckConfig(args) => match cli::load(&args.config) {
            Ok(_config) => {
                let _ = writeln!(io::stdout(), "{}: good", args.config.display());
                ExitCode::SUCCESS
            }
            Err(error) => failed(error, EXIT_USAGE),
        },
        Command::Sandbox(args) => match block_on(provider::cli::run(args)) {
            Ok(Ok(())) => ExitCode::SUCCESS,
            Ok(Err(error)) => failed(error, 1),
            Err(error) => failed(error, 1),
        },
        Command::Demo(args) => match block_on(demo::run(args)) {
            Ok(Ok(0)) => ExitCode::SUCCESS,
            Ok(Ok(_errors_were_shown)) => ExitCode::from(1),
            Ok(Err(error)) => failed(error, 1),
            Err(error) => failed(error, 1),
        },
        Command::Completions { shell } => {
            cli::completions(shell, &mut io::stdout());
            ExitCode::SUCCESS
        }
        Command::Version => {
            let _ = writeln!(io::stdout(), "pointsman {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
    }
}

/// Runs a command that waits for things, on this thread.
fn block_on<F: Future>(command: F) -> io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(command))
}

/// Says why, and answers the exit code.
fn failed(why: impl std::fmt::Display, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "pointsman: {why}");
    ExitCode::from(code)
}
