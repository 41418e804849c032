//! The `pointsman` command.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

use pointsman::cli::{self, CheckArgs, Cli, Command, EXIT_USAGE, Format, ServeArgs, verbs};
use pointsman::failover::standing::Mode;
use pointsman::tools::preflight::Level;
use pointsman::{app, demo, provider, tools};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    match cli.command {
        Command::Serve(args) => serve(args),
        Command::CheckConfig(args) => match cli::load(&args.config) {
            Ok(_config) => {
                let _ = writeln!(io::stdout(), "{}: good", args.config.display());
                ExitCode::SUCCESS
            }
            Err(error) => failed(error, EXIT_USAGE),
        },
        Command::Check(args) => check(&args),
        Command::Verb(verb) => match block_on(verbs::run(verb)) {
            Ok(code) => ExitCode::from(code),
            Err(error) => failed(error, 1),
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

/// Reads the configuration, sets up what is the process's own (limits, logs), and runs.
fn serve(args: ServeArgs) -> ExitCode {
    let config = match cli::load(&args.config.config) {
        Ok(config) => config,
        Err(error) => return failed(error, EXIT_USAGE),
    };
    let filter = args.log.as_deref().unwrap_or(&config.boot.log_filter);
    if let Err(why) = cli::init_logs(config.boot.log_format, filter) {
        return failed(format_args!("--log: {why}"), EXIT_USAGE);
    }
    cli::set_limits();
    match block_on(app::run(config, args.config.config, args.take_over)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => failed(error, 1),
        Err(error) => failed(error, 1),
    }
}

/// Prints what was found: 0 where nothing would be lost and every replica can replicate, else 1.
fn check(args: &CheckArgs) -> ExitCode {
    let config = match cli::load(&args.config.config) {
        Ok(config) => config,
        Err(error) => return failed(error, EXIT_USAGE),
    };
    let findings = match block_on(tools::check::run(&config, args.group.as_deref())) {
        Ok(Ok(findings)) => findings,
        Ok(Err(error)) => return failed(&error, error.exit_code()),
        Err(error) => return failed(error, 1),
    };
    let text = match args.format {
        Format::Text => findings.table.to_text(),
        Format::Json => format!("{}\n", findings.table.to_json()),
    };
    let _ = io::stdout().write_all(text.as_bytes());
    let good = findings.mode == Mode::Safe && findings.level < Level::Fail;
    ExitCode::from(u8::from(!good))
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
