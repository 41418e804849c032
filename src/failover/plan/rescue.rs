//! What members that were started anew, or stopped, have received and not applied: whether it is
//! all there, and how it gets into their tables before they are asked for it.

use super::{Facts, still};
use crate::failover::candidate::Orphans;
use crate::failover::order::{Order, What};
use crate::failover::report::{Report, Told};
use crate::topology::Flavour;
use crate::topology::gtid::GtidSet;

/// What can be said of what a member has received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// It tells all of it, or has it in a relay log that it applies when it is told to.
    All,
    /// These are to be done first.
    After(Vec<Order>),
    /// It is on its way into the tables.
    Soon(String),
    /// It may be gone, or stays where it is; why.
    Lost(String),
}

/// `former` is the primary that has failed.
pub(super) fn hear(former: &str, report: &Report, told: &Told, facts: &Facts<'_>) -> Heard {
    let noted = facts.record.rescued.get(&*report.name);
    let noted = noted.and_then(|text| GtidSet::parse(told.flavour, text));
    let noted = noted.filter(|set| !set.is_empty());
    let [source] = told.sources.as_slice() else {
        return unless_forgotten(former, report, told, facts);
    };
    // Started anew on the way, it may receive.
    let after = |what| Heard::After(still(report, told, what));
    if noted.as_ref().is_some_and(|noted| told.applied.contains(noted)) {
        return if source.by_gtid { Heard::All } else { after(What::ByGtid) };
    }
    if source.applier_failed && noted.is_some() {
        let (name, error) = (&report.name, &source.error);
        return Heard::Lost(format!("{name} cannot apply what is in its relay log: {error}"));
    }
    if let Some(Ok(relay)) = &told.relay
        && let Some(next) = &relay.next
        && !source.applier_failed
    {
        // What it tells of a life in which it was not stopped, or told before.
        let wanted = noted.as_ref().unwrap_or(&told.received);
        let is_whole =
            noted.is_some() || !told.may_have_forgotten(facts.record.lives.get(&*report.name));
        let mut has = relay.received.clone();
        has.union(&told.applied);
        if is_whole && has.contains(wanted) || facts.lossy {
            return after(What::Rescue(next.clone()));
        }
    }
    let is_noted = facts.record.rescued.contains_key(&*report.name);
    match noted {
        // Whether it was told to is not known where several agree by the servers.
        None if facts.orphans == Orphans::MayLead
            && !is_noted
            && !source.by_gtid
            && told.flavour == Flavour::MariaDb
            && !matches!(told.relay, Some(Ok(_))) =>
        {
            Heard::Lost(told_by_another(&report.name))
        }
        None => unless_forgotten(former, report, told, facts),
        Some(_) if source.applying && !source.by_gtid => {
            let name = &report.name;
            Heard::Soon(format!("{name} applies what it had received before it was started"))
        }
        Some(noted) => {
            Heard::Lost(format!("{} had received {noted}, and has lost it", report.name))
        }
    }
}

/// What is said of a server of which only another pointsman knows what it has received.
pub(in crate::failover) fn told_by_another(name: &str) -> String {
    format!(
        "{name} does not go by GTID, as if another pointsman had told it to apply what it had \
         received, and does not tell what that was (failover.max_loss = \"some\" accepts that)"
    )
}

fn unless_forgotten(former: &str, report: &Report, told: &Told, facts: &Facts<'_>) -> Heard {
    if !told.may_have_forgotten(facts.record.lives.get(&*report.name)) {
        return Heard::All;
    }
    let (who, why) = match (told.flavour, &told.relay) {
        (Flavour::MariaDb, Some(Err(why))) => ("MariaDB may have", format!(" ({why})")),
        (Flavour::MariaDb, Some(Ok(_))) if !told.keeps_relay_log() => {
            let why = "its relay log is not written through to the disk: sync_relay_log is not 1";
            ("MariaDB, or a crash of its host, may have", format!(" ({why})"))
        }
        (Flavour::MariaDb, _) => ("MariaDB has", String::new()),
        (Flavour::MySql, _) => ("relay_log_recovery has", String::new()),
    };
    Heard::Lost(format!(
        "{} was started anew since {former} was last seen, and {who} deleted what it had received \
         and not applied{why}: it may have been acknowledged (failover.max_loss = \"some\" accepts \
         that)",
        report.name
    ))
}
