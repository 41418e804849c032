//! Who may acknowledge the primary's commits, and how a replica is kept from it that has been away
//! for long.
//!
//! A failover that loses nothing must ask everybody who may have acknowledged anything: one that is
//! dead for good would stand in the way of all of them. So it is evicted. Its account is locked on
//! the primary and its connections there are ended, so that it cannot acknowledge any more (V12);
//! once another member has all that the primary's binary log held by then, nobody needs to ask it.
//! When it is back it is a member again first, and let in after that.
//!
//! The accounts are locked by statements that are not in the binary log, on the primary, and on
//! whoever is about to become it. One that was would wait for an acknowledgement, and until it has
//! one MySQL lets nobody log in: no replica that could give it, either (9.7, measured).

use std::collections::BTreeSet;

use crate::config::failover::ReplicationAccount;
use crate::config::units::Secret;
use crate::failover::record::Record;
use crate::failover::report::{Made, Report, Told};
use crate::failover::standing;
use crate::health::observation::LogPlace;
use crate::topology::gtid::GtidSet;
use crate::topology::{Flavour, Node};

/// The name of the account that was made for all replicas before each had one of its own; what
/// comes after it in the name of one is an underscore and the server's `server_id`: 28 characters
/// at most, of which both families take 32.
pub const OWN_ACCOUNT: &str = "pointsman_replica";

/// By which accounts servers replicate.
#[derive(Debug, Clone)]
pub enum Accounts {
    /// All by this one, which the operator has stated.
    Shared(ReplicationAccount),
    /// Each by one of its own, all of them with this password.
    OwnEach(Secret),
}

/// A server that is on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// Its name.
    pub server: String,
    /// What the primary had when it could not log in any more; `None` before that is known.
    pub end: Option<End>,
}

/// What a primary has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// All that it has executed. On MariaDB that is what is in its binary log.
    pub executed: GtidSet,
    /// Where its binary log ends, on MySQL: there a commit that was just acknowledged is in the log
    /// before it counts as executed.
    pub written: Option<LogPlace>,
}

/// What is to be done about who may acknowledge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write this down.
    Note(Box<Record>),
    /// Keep this server from logging in at the primary, by these accounts.
    LockOut(String, BTreeSet<String>),
    /// Let servers log in by these accounts.
    LetIn(BTreeSet<String>),
    /// Look again soon: another one has to have what the server may have acknowledged that is on
    /// its way out.
    Wait,
}

/// What the steps go by.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What is known of the group.
    pub record: &'a Record,
    /// The server that takes the writes, and what it has told.
    pub primary: (&'a Node, &'a Told),
    /// What all servers have just told.
    pub reports: &'a [Report],
    /// Who has been away for long enough.
    pub late: &'a BTreeSet<String>,
    /// Who was evicted while it answered, and is not let in yet.
    pub resting: &'a BTreeSet<String>,
    /// Who is on its way out.
    pub leaving: Option<&'a Leaving>,
}

// === impls ===

/// The account of the server with this `server_id`.
#[must_use]
pub fn own_account(server_id: u32) -> String {
    format!("{OWN_ACCOUNT}_{server_id}")
}

/// Whether an account is one that pointsman makes.
#[must_use]
pub fn is_ours(user: &str) -> bool {
    user.strip_prefix(OWN_ACCOUNT).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// The accounts by which a server may log in at a primary that has `made` these: those that it
/// uses, and those that it may be told to use before it is asked next. `stated` is the operator's.
#[must_use]
pub fn accounts_of(told: &Told, made: Option<&Made>, stated: Option<&str>) -> BTreeSet<String> {
    let own = own_account(told.server_id());
    let is_made = made.is_some_and(|made| made.open.contains(&own) || made.locked.contains(&own));
    let shared = (!is_made).then(|| OWN_ACCOUNT.to_owned());
    let used = told.sources.iter().map(|source| source.user.clone());
    used.chain([own]).chain(shared).chain(stated.map(str::to_owned)).collect()
}

/// Whether a server that follows nobody else does not receive from the primary.
#[must_use]
pub fn is_away(report: &Report, (node, head): (&Node, &Told)) -> bool {
    match &report.told {
        Err(failure) => failure.kind.counts(),
        Ok(told) => told.link_to(node, Some(head)).is_some_and(|link| !link.receiving),
    }
}

/// The accounts to lock for this server to be kept out, and nobody else with it.
///
/// # Errors
/// Why there are none.
pub fn lockable(record: &Record, server: &str) -> Result<BTreeSet<String>, String> {
    let Some(users) = record.accounts.get(server) else {
        return Err("it is not known by which account it replicates".to_owned());
    };
    if let Some(user) = users.iter().find(|user| !is_ours(user)) {
        return Err(format!("it replicates by {user}, which is not its own"));
    }
    let others = record.accounts.iter().filter(|(name, _)| *name != server);
    let mut others = others.filter(|(name, _)| record.members.contains(*name));
    let shared = others.find_map(|(name, theirs)| Some((name, theirs.intersection(users).next()?)));
    match shared {
        Some((name, user)) => Err(format!("{name} replicates by the same account, {user}")),
        None => Ok(users.clone()),
    }
}

/// The next step; `None` while there is none.
#[must_use]
pub fn next(facts: &Facts<'_>) -> Option<Step> {
    comes_back(facts).or_else(|| goes(facts))
}

/// Who is back is a member first, and let in after that.
fn comes_back(facts: &Facts<'_>) -> Option<Step> {
    let Facts { record, primary: (node, head), .. } = facts;
    for report in facts.reports.iter().filter(|report| report.told.is_ok()) {
        let name = &*report.name;
        if record.is_evicted(name) && !facts.resting.contains(name) {
            let mut record = Record::clone(record);
            record.members.insert(name.to_owned());
            return Some(Step::Note(Box::new(record)));
        }
    }
    let locked = head.made.as_ref().map(|made| &made.locked)?;
    // Nobody else has to be answered by one that is on its way out.
    let stays = |name: &&String| **name != *node.name && !facts.late.contains(*name);
    for name in record.members.iter().filter(stays) {
        let was_locked = record.locked.get(name);
        let is_back = facts.reports.iter().any(|at| *at.name == **name && at.told.is_ok());
        let users = was_locked.or_else(|| record.accounts.get(name)).filter(|_| is_back);
        let shut: BTreeSet<String> = users.into_iter().flatten().cloned().collect();
        let shut: BTreeSet<String> = shut.intersection(locked).cloned().collect();
        if !shut.is_empty() {
            return Some(Step::LetIn(shut));
        }
        if was_locked.is_some() && is_back {
            let mut record = Record::clone(record);
            record.locked.remove(name);
            return Some(Step::Note(Box::new(record)));
        }
    }
    None
}

/// Who has been away for long is kept out, and is no member once another has what it may have
/// acknowledged.
fn goes(facts: &Facts<'_>) -> Option<Step> {
    let Facts { record, primary: (node, head), .. } = facts;
    let made = head.made.as_ref()?;
    let is_late = |name: &&String| **name != *node.name && facts.late.contains(*name);
    let mut late = record.members.iter().filter(is_late);
    let (name, users) = late.find_map(|name| Some((name, lockable(record, name).ok()?)))?;
    // Without as many as a commit waits for nothing would be acknowledged any more.
    let remaining: Vec<&Told> = remaining(facts, name).collect();
    let are_enough = standing::acknowledgements(head) <= remaining.len() as u64;
    if !are_enough || !standing::acknowledging(head) {
        return None;
    }
    if record.locked.get(name) != Some(&users) {
        let mut record = Record::clone(record);
        record.locked.insert(name.clone(), users);
        return Some(Step::Note(Box::new(record)));
    }
    let leaving = facts.leaving.filter(|leaving| leaving.server == *name);
    let Some(leaving) = leaving.filter(|_| users.is_disjoint(&made.open)) else {
        return Some(Step::LockOut(name.clone(), users));
    };
    let is_covered = leaving.end.as_ref().is_some_and(|end| {
        let reads = |told: &&Told| {
            let read = told.link_to(node, Some(head)).and_then(|link| link.read.as_ref());
            let written = end.written.as_ref();
            told.received.contains(&end.executed)
                && written.is_none_or(|end| read.is_some_and(|read| read.reaches(end)))
        };
        remaining.iter().any(reads)
    });
    if !is_covered {
        return Some(Step::Wait);
    }
    let mut record = Record::clone(record);
    record.members.remove(name);
    Some(Step::Note(Box::new(record)))
}

/// The members that acknowledge the primary's commits, without this one and whoever is kept out.
fn remaining<'a>(facts: &Facts<'a>, leaving: &str) -> impl Iterator<Item = &'a Told> {
    let Facts { record, primary: (node, head), reports, .. } = *facts;
    let counts = move |report: &&Report| {
        let name = &*report.name;
        name != leaving && record.members.contains(name) && !record.locked.contains_key(name)
    };
    let acknowledges = move |told: &&Told| acknowledges(told, (node, head));
    reports.iter().filter(counts).filter_map(Report::told).filter(acknowledges)
}

/// Whether a server acknowledges the primary's commits, as far as it tells.
#[must_use]
pub fn acknowledges(told: &Told, (node, head): (&Node, &Told)) -> bool {
    let link = told.link_to(node, Some(head));
    link.is_some_and(|link| link.receiving) && standing::gives(told)
}

impl End {
    /// What this primary has; `None` where it has not told all of that.
    #[must_use]
    pub fn of(head: &Told) -> Option<Self> {
        let written = match head.flavour {
            Flavour::MariaDb => None,
            Flavour::MySql => Some(head.written.clone()?),
        };
        Some(Self { executed: head.executed.clone(), written })
    }
}

impl Accounts {
    /// The account that a server is to use from now on in place of this one of another's, which it
    /// follows the primary by; `None` where that is its own, or that is not made yet.
    #[must_use]
    pub fn instead_of(&self, user: &str, told: &Told, head: &Told) -> Option<ReplicationAccount> {
        let Self::OwnEach(password) = self else { return None };
        let own = own_account(told.server_id());
        let is_made = head.made.as_ref().is_some_and(|made| made.open.contains(&own));
        let differs = user != own && is_made && told.server_id() != 0;
        differs.then(|| ReplicationAccount { user: own, password: password.clone() })
    }

    /// The account by which this server is to follow that one. Its own may not be made there yet,
    /// where an earlier version has made one for all.
    #[must_use]
    pub fn of(&self, told: &Told, head: &Told) -> ReplicationAccount {
        match self {
            Self::Shared(account) => account.clone(),
            Self::OwnEach(password) => {
                let own = own_account(told.server_id());
                let made = head.made.as_ref();
                let is_open = |user: &str| made.is_some_and(|made| made.open.contains(user));
                let is_locked = made.is_some_and(|made| made.locked.contains(&own));
                let user = match !is_open(&own) && !is_locked && is_open(OWN_ACCOUNT) {
                    true => OWN_ACCOUNT.to_owned(),
                    false => own,
                };
                ReplicationAccount { user, password: password.clone() }
            }
        }
    }

    /// The accounts that are to be made for these servers; none where the operator has stated one.
    #[must_use]
    pub fn made_for<'a>(&self, servers: impl Iterator<Item = &'a Told>) -> Vec<ReplicationAccount> {
        match self {
            Self::Shared(_) => Vec::new(),
            Self::OwnEach(password) => {
                let users = servers.map(|told| own_account(told.server_id()));
                let with = |user| ReplicationAccount { user, password: password.clone() };
                users.map(with).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::fixture::{mariadb_at, report};
    use crate::health::observation::{Failure, FailureKind, Source};
    use crate::topology::fixture::node;

    /// db1 takes the writes, db2 and db3 replicate from it, and db2 has been away for long.
    struct Group {
        record: Record,
        reports: Vec<Report>,
        late: BTreeSet<String>,
        resting: BTreeSet<String>,
        leaving: Option<Leaving>,
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn place(at: u64) -> LogPlace {
        LogPlace { file: "binlog.000007".to_owned(), at }
    }

    fn end(at: u64) -> Option<End> {
        let executed = GtidSet::parse_mariadb("0-1-9").expect("a position");
        Some(End { executed, written: Some(place(at)) })
    }

    fn replica(id: u32, read: u64) -> Told {
        let source = Source {
            host: "db1".to_owned(),
            port: 3306,
            server_id: 1,
            receiving: true,
            applying: true,
            user: own_account(id),
            read: Some(place(read)),
            ..Source::default()
        };
        let on = ["read_only", "rpl_semi_sync_slave_enabled"];
        let mut told = Told { sources: vec![source], ..mariadb_at("0-1-9") };
        told.variables = on.map(|name| (name.to_owned(), "ON".to_owned())).into();
        told.variables.insert("server_id".to_owned(), id.to_string());
        told
    }

    impl Group {
        fn new() -> Self {
            let made = Made { open: (1..=3).map(own_account).collect(), locked: BTreeSet::new() };
            let mut head = Told { made: Some(made), ..mariadb_at("0-1-9") };
            head.variables.insert("server_id".to_owned(), "1".to_owned());
            head.counters.insert("rpl_semi_sync_master_clients".to_owned(), "1".to_owned());
            head.written = Some(place(900));
            let mut dead = report(1, replica(2, 100));
            dead.told = Err(Failure::new(FailureKind::Unreachable, "refused"));
            let own = |id: u32| (format!("db{id}"), BTreeSet::from([own_account(id)]));
            Self {
                record: Record {
                    members: names(&["db1", "db2", "db3"]),
                    accounts: (1..=3).map(own).collect(),
                    ..Record::default()
                },
                reports: vec![report(0, head), dead, report(2, replica(3, 900))],
                late: names(&["db2"]),
                resting: BTreeSet::new(),
                leaving: None,
            }
        }

        fn head(&mut self) -> &mut Told {
            self.reports[0].told.as_mut().expect("it answers")
        }

        fn next(&self) -> Option<Step> {
            let head = self.reports[0].told().expect("it answers");
            next(&Facts {
                record: &self.record,
                primary: (&node(0, "db1"), head),
                reports: &self.reports,
                late: &self.late,
                resting: &self.resting,
                leaving: self.leaving.as_ref(),
            })
        }

        /// Writes down what is to be.
        fn note(&mut self) {
            match self.next() {
                Some(Step::Note(record)) => self.record = *record,
                other => panic!("nothing is written down: {other:?}"),
            }
        }
    }

    #[test]
    fn who_is_away_is_locked_out_covered_and_no_member_in_this_order() {
        let mut group = Group::new();
        let users = names(&[&own_account(2)]);
        group.note();
        assert_eq!(group.record.locked["db2"], users);
        assert!(group.record.members.contains("db2"), "it may acknowledge still");
        let out = Some(Step::LockOut("db2".to_owned(), users.clone()));
        assert_eq!(group.next(), out);
        // That it is locked is not enough: its connections may have been there before.
        group.head().made = Some(Made { open: names(&[]), locked: users.clone() });
        assert_eq!(group.next(), out);
        group.leaving = Some(Leaving { server: "db2".to_owned(), end: None });
        assert_eq!(group.next(), Some(Step::Wait));
        group.leaving = Some(Leaving { server: "db2".to_owned(), end: end(901) });
        assert_eq!(group.next(), Some(Step::Wait), "db3 has only read up to 900");
        let executed = GtidSet::parse_mariadb("0-1-10").expect("a position");
        let far = Some(End { executed, written: None });
        group.leaving = Some(Leaving { server: "db2".to_owned(), end: far });
        assert_eq!(group.next(), Some(Step::Wait), "db3 has received up to 9");
        let still = Made { open: users.clone(), locked: users };
        let shut = group.head().made.replace(still);
        group.leaving = Some(Leaving { server: "db2".to_owned(), end: end(900) });
        assert_eq!(group.next(), out, "somebody is connected");
        group.head().made = shut;
        group.note();
        assert_eq!(group.record.members, names(&["db1", "db3"]));
        assert!(group.record.is_evicted("db2"));
        assert_eq!(group.next(), None);
    }

    #[test]
    fn who_is_back_is_a_member_before_it_is_let_in() {
        let mut group = Group::new();
        let users = names(&[&own_account(2)]);
        group.record.locked.insert("db2".to_owned(), users.clone());
        group.record.members.remove("db2");
        group.head().made = Some(Made { open: names(&[]), locked: users.clone() });
        group.late.clear();
        assert_eq!(group.next(), None, "it is dead");
        group.reports[1].told = Ok(replica(2, 100));
        group.resting = names(&["db2"]);
        assert_eq!(group.next(), None, "it has answered when it was evicted");
        group.resting.clear();
        group.note();
        assert!(group.record.members.contains("db2") && !group.record.locked.is_empty());
        assert_eq!(group.next(), Some(Step::LetIn(users.clone())));
        group.head().made = Some(Made { open: users, locked: names(&[]) });
        group.note();
        assert!(group.record.locked.is_empty());
        assert_eq!(group.next(), None);
    }

    #[test]
    fn the_last_one_is_not_evicted_nor_one_without_an_account_of_its_own() {
        let mut group = Group::new();
        group.reports[2].told = Err(Failure::new(FailureKind::Timeout, "no answer"));
        group.late.insert("db3".to_owned());
        assert_eq!(group.next(), None);
        let mut group = Group::new();
        group.head().counters.clear();
        assert_eq!(group.next(), None, "nobody acknowledges");
        let mut group = Group::new();
        group.record.accounts.insert("db2".to_owned(), names(&["repl"]));
        assert_eq!(group.next(), None);
        let why = lockable(&group.record, "db2").expect_err("it is shared");
        assert_eq!(why, "it replicates by repl, which is not its own");
        let both = names(&[OWN_ACCOUNT]);
        group.record.accounts.insert("db2".to_owned(), both.clone());
        group.record.accounts.insert("db3".to_owned(), both);
        assert!(lockable(&group.record, "db2").is_err_and(|why| why.contains("db3 replicates")));
        group.record.accounts.remove("db2");
        assert!(lockable(&group.record, "db2").is_err_and(|why| why.contains("not known")));
    }

    #[test]
    fn an_account_that_may_be_used_before_the_next_look_counts() {
        let none = Told { sources: Vec::new(), ..replica(2, 0) };
        let made = Made { open: names(&[&own_account(2)]), locked: names(&[]) };
        assert_eq!(accounts_of(&none, Some(&made), None), names(&[&own_account(2)]));
        let stated = accounts_of(&none, Some(&made), Some("repl"));
        assert_eq!(stated, names(&["repl", &own_account(2)]));
        let early = accounts_of(&none, None, None);
        assert_eq!(early, names(&[OWN_ACCOUNT, &own_account(2)]));
        assert!(own_account(u32::MAX).len() <= 32 && is_ours(&own_account(7)));
        assert!(is_ours(OWN_ACCOUNT) && !is_ours("pointsman_replicator"));
    }

    #[test]
    fn a_place_in_a_log_is_reached_by_file_and_offset() {
        let at = |file: &str, at| LogPlace { file: file.to_owned(), at };
        assert!(at("b.000010", 4).reaches(&at("b.000009", 900)));
        assert!(at("b.1000000", 4).reaches(&at("b.999999", 900)));
        assert!(!at("b.000009", 899).reaches(&at("b.000009", 900)));
        assert!(!at("c.000010", 4).reaches(&at("b.000009", 900)), "of another server");
    }
}
