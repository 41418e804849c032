//! `pointsman promote`, `switchover` and `failover`: the keeper of the running proxy is asked.

use crate::config::Config;
use crate::tools::console::{Console, Shown};
use crate::tools::plan::{Act, Plan, VerbError};
use crate::tools::scene::one_group;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A primary that is well hands over; a dead one is replaced.
    Promote,
    /// A primary that is well hands over.
    Switchover,
    /// A dead one is replaced.
    Failover,
}

// === impls ===

impl Change {
    /// The verb.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Switchover => "switchover",
            Self::Failover => "failover",
        }
    }
}

/// Plans a change of the primary, to the server `to` where one is named.
///
/// # Errors
/// When no proxy runs, or its keeper would refuse.
pub async fn plan(
    config: &Config,
    group: Option<&str>,
    to: Option<&str>,
    change: Change,
) -> Result<Plan, VerbError> {
    let group = one_group(config, group)?;
    let console = Console::of(&config.boot);
    let shown = console.servers(&group.name).await?;
    let mut plan = Plan::new(change.word(), &group.name);
    let head = shown.iter().find(|server| server.role == "primary");
    let named = to.map(|to| {
        let is_it = |server: &&Shown| server.server == to || server.address == to;
        let known = || shown.iter().map(|at| at.server.as_str()).collect::<Vec<_>>().join(", ");
        shown.iter().find(is_it).ok_or_else(|| {
            VerbError::Usage(format!("group {} has no server {to:?}: {}", group.name, known()))
        })
    });
    let named = named.transpose()?;
    let is_well = head.is_some_and(|head| head.condition != "down");
    if let (Some(head), Some(named)) = (head, named)
        && head.server == named.server
        && is_well
    {
        plan.notes.push(format!("{} takes the writes already", named.server));
        return Ok(plan);
    }
    let (command, why) = match (change, is_well) {
        (Change::Failover, _) | (Change::Promote, false) => {
            if let Some(named) = named.filter(|_| change == Change::Promote) {
                let best = "the replica that has received most takes its place";
                plan.notes.push(format!("the primary is dead: {best}, {} or not", named.server));
            }
            (format!("FAILOVER {}", group.name), "its primary is dead")
        }
        (Change::Switchover, _) | (Change::Promote, true) => {
            let to = named.map(|named| format!(" TO '{}'", named.server)).unwrap_or_default();
            let command = format!("SWITCHOVER {}{to}", group.name);
            let explained = console.run(&format!("EXPLAIN {command}")).await?;
            plan.notes.push(explained);
            (command, "it is well, and another is to take the writes")
        }
    };
    let place = head.map_or_else(|| group.name.clone(), |head| head.server.as_str().into());
    plan.push(&place, command.clone(), why, Act::Console(command));
    Ok(plan)
}
