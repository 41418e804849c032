//! The verbs that put a cluster together and change it: their arguments, and how what they plan is
//! shown and carried out.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::cli::{ConfigArgs, Format, load, load_text, read_bounded, read_secret};
use crate::config::failover::{FailoverMode, ReplicationAccount};
use crate::config::{Boot, Config};
use crate::tools::console::Console;
use crate::tools::edit::{self, Edit};
use crate::tools::plan::{Act, Plan, VerbError};
use crate::tools::promote::{self, Change};
use crate::tools::replicate::{self, Donor, Method, Overwrite, Wanted};
use crate::tools::scene::{Look, Scene};
use crate::tools::{rejoin, roster, tree};

/// The verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Show who replicates from whom
    #[command(subcommand)]
    Topology(TopologyVerb),
    /// Make a server a replica of the group's primary, its data included
    Replicate(ReplicateArgs),
    /// The same, with the data of the replica that has the least to do
    Clone(ReplicateArgs),
    /// Make another server the primary, whether the present one is well or dead
    Promote(ChangeArgs),
    /// Make another server the primary while the present one is well
    Switchover(ChangeArgs),
    /// Replace a primary that is dead
    Failover(ChangeArgs),
    /// Let a server that was away follow the primary again
    Rejoin(RejoinArgs),
    /// Make groups in the configuration file, and look at them
    #[command(subcommand)]
    Group(GroupVerb),
}

/// What to show of the topology.
#[derive(Debug, clap::Subcommand)]
pub enum TopologyVerb {
    /// All servers of a group as a tree
    Show {
        /// Which group, and how.
        #[command(flatten)]
        at: GroupArgs,
    },
}

/// Which group, and how to print.
#[derive(Debug, clap::Args)]
pub struct GroupArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The group; may be left out where there is one
    #[arg(long, short, value_name = "NAME")]
    pub group: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Whether to do what is planned.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Rehearsal {
    /// Say what would be done and why, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Who acts on servers.
#[derive(Debug, clap::Args)]
pub struct ActorArgs {
    /// The account that acts on servers, in place of the monitor's
    #[arg(long, value_name = "USER", requires = "password_file")]
    pub user: Option<String>,
    /// A file with its password, which only its owner may read
    #[arg(long, value_name = "FILE", requires = "user")]
    pub password_file: Option<PathBuf>,
}

/// Arguments of `replicate` and `clone`.
#[derive(Debug, clap::Args)]
pub struct ReplicateArgs {
    /// Which group, and how to print.
    #[command(flatten)]
    pub at: GroupArgs,
    /// The server: NAME where the group lists it, HOST:PORT or NAME=HOST:PORT
    #[arg(value_name = "SERVER")]
    pub target: String,
    /// The server to follow [default: the group's primary]
    #[arg(long, value_name = "SERVER")]
    pub from: Option<String>,
    /// How it gets its data
    #[arg(long, value_enum, default_value_t = Method::Auto)]
    pub seed: Method,
    /// Give up what the server has; it is lost
    #[arg(long)]
    pub overwrite: bool,
    /// Who acts.
    #[command(flatten)]
    pub actor: ActorArgs,
    /// Whether to act.
    #[command(flatten)]
    pub rehearsal: Rehearsal,
}

/// Arguments of `promote`, `switchover` and `failover`.
#[derive(Debug, clap::Args)]
pub struct ChangeArgs {
    /// Which group, and how to print.
    #[command(flatten)]
    pub at: GroupArgs,
    /// The server that is to be the primary [default: the best]
    #[arg(value_name = "SERVER")]
    pub to: Option<String>,
    /// Whether to act.
    #[command(flatten)]
    pub rehearsal: Rehearsal,
}

/// Arguments of `rejoin`.
#[derive(Debug, clap::Args)]
pub struct RejoinArgs {
    /// Which group, and how to print.
    #[command(flatten)]
    pub at: GroupArgs,
    /// The server
    #[arg(value_name = "SERVER")]
    pub target: String,
    /// Give up what it has, and copy the data anew
    #[arg(long)]
    pub rebuild: bool,
    /// Who acts.
    #[command(flatten)]
    pub actor: ActorArgs,
    /// Whether to act.
    #[command(flatten)]
    pub rehearsal: Rehearsal,
}

/// What to do with a group.
#[derive(Debug, clap::Subcommand)]
pub enum GroupVerb {
    /// Write a new group with one server into the configuration
    Create {
        /// Which file, and whether to write it.
        #[command(flatten)]
        file: FileArgs,
        /// Its name
        group: String,
        /// Its first server, the primary: NAME=HOST:PORT or HOST:PORT
        server: String,
        /// Where applications connect
        #[arg(long, value_name = "ADDRESS")]
        listen: String,
    },
    /// Add a server to a group
    Add {
        /// Which file, and whether to write it.
        #[command(flatten)]
        file: FileArgs,
        /// The group
        group: String,
        /// NAME=HOST:PORT or HOST:PORT
        server: String,
        /// Its share of reads relative to the others; 0 takes none [default: 100]
        #[arg(long)]
        weight: Option<u32>,
    },
    /// Take a server out of a group; its replication goes on
    Remove {
        /// Which file, and whether to write it.
        #[command(flatten)]
        file: FileArgs,
        /// The group
        group: String,
        /// Its name or address
        server: String,
    },
    /// Change a server's share of reads
    SetWeight {
        /// Which file, and whether to write it.
        #[command(flatten)]
        file: FileArgs,
        /// The group
        group: String,
        /// Its name or address
        server: String,
        /// Its share relative to the others; 0 takes none
        weight: u32,
    },
    /// Have pointsman keep a group: replace a primary that dies, let servers follow again
    Activate {
        /// Which file, and whether to write it.
        #[command(flatten)]
        file: FileArgs,
        /// The group
        group: String,
        /// Replace a dead primary only when an operator says so
        #[arg(long)]
        manual: bool,
    },
    /// Have pointsman change no server of a group
    Deactivate {
        /// Which file, and whether to write it.
        #[command(flatten)]
        file: FileArgs,
        /// The group
        group: String,
    },
    /// Say whether each server lives and replicates; 1 when one does not
    Health(RosterArgs),
    /// List the servers of a group with status, mode and weight
    Lookup(RosterArgs),
}

/// Which file to edit, and how.
#[derive(Debug, clap::Args)]
pub struct FileArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Whether to write.
    #[command(flatten)]
    pub rehearsal: Rehearsal,
}

/// Arguments of `group health` and `group lookup`.
#[derive(Debug, clap::Args)]
pub struct RosterArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The group
    pub group: String,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// What became of a verb: its exit code.
type Outcome = Result<u8, VerbError>;

// === impls ===

/// Carries a verb out, and prints what is worth telling; the exit code.
pub async fn run(verb: Verb) -> u8 {
    let format = verb.format();
    let outcome = match verb {
        Verb::Topology(TopologyVerb::Show { at }) => show(&at).await,
        Verb::Replicate(args) => replicate(&args, "replicate", Donor::Source).await,
        Verb::Clone(args) => replicate(&args, "clone", Donor::LeastLoaded).await,
        Verb::Promote(args) => change(&args, Change::Promote).await,
        Verb::Switchover(args) => change(&args, Change::Switchover).await,
        Verb::Failover(args) => change(&args, Change::Failover).await,
        Verb::Rejoin(args) => rejoin(&args).await,
        Verb::Group(verb) => group(verb).await,
    };
    outcome.unwrap_or_else(|error| {
        if format == Format::Json {
            let why = json!({"outcome": error.word(), "why": error.to_string()});
            print(format, String::new, || why);
        }
        let _ = writeln!(io::stderr(), "pointsman: {error}");
        error.exit_code()
    })
}

impl Verb {
    /// How it prints.
    fn format(&self) -> Format {
        match self {
            Self::Topology(TopologyVerb::Show { at }) => at.format,
            Self::Replicate(args) | Self::Clone(args) => args.at.format,
            Self::Promote(args) | Self::Switchover(args) | Self::Failover(args) => args.at.format,
            Self::Rejoin(args) => args.at.format,
            Self::Group(
                GroupVerb::Create { file, .. }
                | GroupVerb::Add { file, .. }
                | GroupVerb::Remove { file, .. }
                | GroupVerb::SetWeight { file, .. }
                | GroupVerb::Activate { file, .. }
                | GroupVerb::Deactivate { file, .. },
            ) => file.format,
            Self::Group(GroupVerb::Health(args) | GroupVerb::Lookup(args)) => args.format,
        }
    }
}

fn config(args: &ConfigArgs) -> Result<Config, VerbError> {
    load(&args.config).map_err(|error| VerbError::Usage(error.to_string()))
}

async fn show(at: &GroupArgs) -> Outcome {
    let tree = tree::show(&config(&at.config)?, at.group.as_deref()).await?;
    print(at.format, || tree.to_text(), || tree.to_json());
    Ok(0)
}

async fn replicate(args: &ReplicateArgs, verb: &'static str, donor: Donor) -> Outcome {
    let config = config(&args.at.config)?;
    let look = Look {
        group: args.at.group.as_deref(),
        account: actor(&args.actor)?,
        guest: Some(&args.target),
    };
    let scene = Scene::look(&config, &look).await?;
    let overwrite = if args.overwrite { Overwrite::Allow } else { Overwrite::Refuse };
    let wanted = Wanted { method: args.seed, overwrite };
    let servers = (args.from.as_deref(), args.target.as_str());
    let plan = replicate::plan(&scene, verb, servers, wanted, donor).await?;
    carry_out(&plan, &scene, args.at.format, args.rehearsal).await
}

async fn rejoin(args: &RejoinArgs) -> Outcome {
    let config = config(&args.at.config)?;
    let account = actor(&args.actor)?;
    let group = args.at.group.as_deref();
    let look = Look { group, account, guest: Some(&args.target) };
    let scene = Scene::look(&config, &look).await?;
    let plan = match rejoin::plan(&scene, &args.target).await {
        // What it has is given up only where it cannot follow with it.
        Err(VerbError::Refused(_)) if args.rebuild => {
            let wanted = Wanted { method: Method::Auto, overwrite: Overwrite::Allow };
            let servers = (None, args.target.as_str());
            replicate::plan(&scene, "rejoin", servers, wanted, Donor::LeastLoaded).await?
        }
        plan => plan?,
    };
    carry_out(&plan, &scene, args.at.format, args.rehearsal).await
}

async fn change(args: &ChangeArgs, change: Change) -> Outcome {
    let config = config(&args.at.config)?;
    let plan = promote::plan(&config, args.at.group.as_deref(), args.to.as_deref(), change).await?;
    let console = Console::of(&config.boot);
    carry_out(&plan, &console, args.at.format, args.rehearsal).await
}

async fn group(verb: GroupVerb) -> Outcome {
    let (file, group, edit) = match verb {
        GroupVerb::Health(args) => return roster(&args, Roster::Health).await,
        GroupVerb::Lookup(args) => return roster(&args, Roster::Lookup).await,
        GroupVerb::Create { file, group, server, listen } => {
            (file, group, Edit::Create { listen, server })
        }
        GroupVerb::Add { file, group, server, weight } => {
            (file, group, Edit::Add { server, weight })
        }
        GroupVerb::Remove { file, group, server } => (file, group, Edit::Remove { server }),
        GroupVerb::SetWeight { file, group, server, weight } => {
            (file, group, Edit::SetWeight { server, weight })
        }
        GroupVerb::Activate { file, group, manual } => {
            let mode = if manual { FailoverMode::Manual } else { FailoverMode::Auto };
            (file, group, Edit::SetMode(mode))
        }
        GroupVerb::Deactivate { file, group } => (file, group, Edit::SetMode(FailoverMode::Follow)),
    };
    if let Edit::Remove { server } = &edit {
        keeps_primary(&config(&file.config)?, &group, server).await?;
    }
    let (plan, boot) = edit_plan(&file.config.config, &group, &edit).await?;
    carry_out(&plan, &Console::of(&boot), file.format, file.rehearsal).await
}

/// Refuses to take the primary out of a group.
async fn keeps_primary(config: &Config, group: &str, server: &str) -> Result<(), VerbError> {
    let scene = Scene::look(config, &Look { group: Some(group), ..Look::default() }).await?;
    match scene.topology.primary_node() {
        Some(head) if *head.name == *server || *head.address == *server => Err(VerbError::Refused(
            format!("{server} is the primary: promote another server first"),
        )),
        Some(_) | None => Ok(()),
    }
}

/// Plans an edit of the file; nothing is planned that a start would refuse.
async fn edit_plan(path: &Path, group: &str, edit: &Edit) -> Result<(Plan, Boot), VerbError> {
    let unread = |error| VerbError::Usage(format!("cannot read {}: {error}", path.display()));
    let before = read_bounded(path).map_err(unread)?;
    let after = edit::edited(&before, group, edit)?;
    let config = load_text(path, &after).map_err(|error| {
        VerbError::Refused(format!("the configuration would not be valid any more: {error}"))
    })?;
    let mut plan = Plan::new("group", &Arc::from(group));
    if before != after {
        plan.notes = edit::changes(&before, &after);
        let place = Arc::from(path.display().to_string());
        let act = Act::Write(path.to_path_buf(), after);
        plan.push(&place, "change these lines".to_owned(), "the file says what is so", act);
        let is_new = matches!(edit, Edit::Create { .. });
        if Console::of(&config.boot).answers().await {
            match is_new {
                true => plan.notes.push("a pointsman that runs must be restarted".to_owned()),
                false => {
                    let act = Act::Console("RELOAD".to_owned());
                    let place = Arc::from("pointsman");
                    let what = "read the configuration again".to_owned();
                    plan.push(&place, what, "it runs with the old one", act);
                }
            }
        }
    }
    Ok((plan, config.boot))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Roster {
    Health,
    Lookup,
}

async fn roster(args: &RosterArgs, what: Roster) -> Outcome {
    let config = config(&args.config)?;
    let look = Look { group: Some(&args.group), ..Look::default() };
    let scene = Scene::look(&config, &look).await?;
    let (table, whole) = match what {
        Roster::Health => (roster::health(&scene), roster::is_whole(&scene)),
        Roster::Lookup => (roster::lookup(&scene), true),
    };
    print(args.format, || table.to_text(), || table.to_json());
    Ok(u8::from(!whole))
}

fn actor(args: &ActorArgs) -> Result<Option<ReplicationAccount>, VerbError> {
    let (Some(user), Some(file)) = (&args.user, &args.password_file) else { return Ok(None) };
    let password = read_secret(file)
        .map_err(|why| VerbError::Usage(format!("--password-file {}: {why}", file.display())))?;
    Ok(Some(ReplicationAccount { user: user.clone(), password }))
}

// === carrying out ===

/// What does the steps of a plan.
trait Hands {
    async fn act(&self, act: &Act) -> Result<String, VerbError>;
}

impl Hands for Scene {
    async fn act(&self, act: &Act) -> Result<String, VerbError> {
        Self::act(self, act).await
    }
}

impl Hands for Console {
    async fn act(&self, act: &Act) -> Result<String, VerbError> {
        Self::act(self, act).await
    }
}

/// Shows a plan and, unless it is rehearsed only, does it step by step.
async fn carry_out(
    plan: &Plan,
    hands: &impl Hands,
    format: Format,
    rehearsal: Rehearsal,
) -> Outcome {
    if format == Format::Text {
        print(format, || plan.to_text(), || Value::Null);
    }
    let mut told = Vec::new();
    let mut failure = None;
    if !rehearsal.dry_run {
        for (index, step) in plan.steps.iter().enumerate() {
            match hands.act(&step.act).await {
                Ok(said) => {
                    if format == Format::Text {
                        let line = || format!("{}. {}: {said}\n", index + 1, step.place);
                        print(format, line, || Value::Null);
                    }
                    told.push(said);
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
    }
    let outcome = match plan.steps.as_slice() {
        [] => "nothing to do",
        _ if rehearsal.dry_run => "planned",
        _ => "done",
    };
    // What failed is told by whoever shows errors.
    if format == Format::Json && failure.is_none() {
        print(format, String::new, || plan.to_json(outcome, &told));
    }
    match failure {
        None => Ok(0),
        // Something may have been changed by the steps before.
        Some(VerbError::Refused(why)) if !told.is_empty() => Err(VerbError::Failed(why)),
        Some(error) => Err(error),
    }
}

fn print(format: Format, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) {
    let text = match format {
        Format::Text => text(),
        Format::Json => format!("{}\n", json()),
    };
    let _ = io::stdout().write_all(text.as_bytes());
}
