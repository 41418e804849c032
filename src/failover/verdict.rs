//! What has become of a primary that does not answer here.
//!
//! That it does not answer says little: the network between may be broken, or this machine. Its
//! replicas hear from it every second; only if none of them does either is it dead.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::failover::record::Record;
use crate::failover::report::{Report, Told, is_at, told_by};
use crate::health::observation::{FailureKind, Source};
use crate::topology::gtid::GtidSet;
use crate::topology::{Node, NodeId, Topology};

/// The verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It answers, and be it with a refusal.
    Alive,
    /// It lives and has no room for one more connection.
    Saturated(String),
    /// It does not answer here, and these servers hear from it.
    Unreachable(Vec<String>),
    /// Nobody answers: it may be us.
    Isolated,
    /// It does not answer here, and nobody who answers hears from it.
    Dead(String),
}

/// What a primary is that did not answer for a while, and does again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Return {
    /// It has all that it had.
    Sound,
    /// These servers have received from it what it does not have any more: a crash has cost it
    /// commits that it had told clients of.
    Behind(Vec<String>),
    /// It was started anew, and who may know more does not answer, or has forgotten it.
    Unsure(String),
}

/// Judges a primary that answers again, of which it is not known what it has gone through.
/// `since_well` is how long ago it was seen to be well, the `record` says who may have acknowledged
/// its commits, and what may have been deleted since.
#[must_use]
pub fn returned(
    (node, primary): (&Node, &Told),
    others: &[&Report],
    record: &Record,
    since_well: Duration,
) -> Return {
    let was_started = primary.may_have_started_within(since_well);
    let forgets = was_started && primary.deletes_at_start();
    let (mut behind, mut unsure) = (Vec::new(), None);
    for report in others.iter().filter(|report| record.members.contains(&*report.name)) {
        let name = &report.name;
        let rescued = record.rescued.get(&**name);
        let rescued = rescued.and_then(|text| GtidSet::parse(primary.flavour, text));
        let rescued = rescued.filter(|set| !set.is_empty());
        match &report.told {
            Ok(told) => {
                // What who follows nobody, or another, has more than it is that server's own.
                let may_follow = told.may_follow(primary);
                let lacks = rescued.as_ref().is_some_and(|all| !primary.executed.contains(all));
                if told.is_ahead_of(node, primary) || lacks {
                    behind.push(name.to_string());
                } else if was_started && may_follow && told.has_more_than(primary) {
                    let what = "has received what this one has not";
                    unsure = Some(format!("{name} {what}, and does not tell yet from whom"));
                } else if rescued.is_none()
                    && forgets
                    && may_follow
                    && told.may_have_forgotten(record.lives.get(&**name))
                {
                    unsure = Some(format!(
                        "{name} was started anew, too, and MariaDB has deleted what it had \
                         received and not applied: it may have been acknowledged \
                         (failover.max_loss = \"some\" accepts that)"
                    ));
                }
            }
            Err(why) if was_started => {
                unsure = Some(format!("{name}, which may know more, says nothing: {why}"));
            }
            Err(_) => {}
        }
    }
    let floor = GtidSet::parse(primary.flavour, &record.floor).unwrap_or_default();
    if was_started && !primary.executed.contains(&floor) {
        unsure = Some(format!(
            "it has lost some of {floor}, which may have been acknowledged, and nobody else has it \
             (failover.max_loss = \"some\" accepts that)"
        ));
    }
    match unsure {
        _ if !behind.is_empty() => Return::Behind(behind),
        Some(why) => Return::Unsure(why),
        None => Return::Sound,
    }
}

/// What clients were told of and a server has not executed; `None` for nothing. A primary that
/// was started anew lacks some where its settings had it acknowledge what was not on its disk, or
/// delete at its start what no replica had received. `acknowledged` are the newest of these
/// writes, as GTIDs.
#[must_use]
pub fn lacks(told: &Told, acknowledged: &str) -> Option<GtidSet> {
    let acknowledged = GtidSet::parse(told.flavour, acknowledged)?;
    let lacking = acknowledged.subtract(&told.executed);
    (!lacking.is_empty()).then_some(lacking)
}

/// Which of the others have received from anybody what this primary has not, and neither follow it
/// nor receive now: heirs that were not opened, and those that were turned to one.
#[must_use]
pub fn beyond(primary: &Told, others: &[&Report], members: &BTreeSet<String>) -> Vec<String> {
    let of_group = others.iter().filter(|report| members.contains(&*report.name));
    let has_more = |told: &Told| {
        let stands = !told.follows(primary) && !told.receives();
        stands && !primary.executed.contains(&told.received_from_others())
    };
    let found = of_group.filter(|report| report.told().is_some_and(has_more));
    found.map(|report| report.name.to_string()).collect()
}

/// Why a server may not be the primary any more that was it when that was last known. Another one
/// is opened only after a majority of all servers was turned away from it: where a majority still
/// follows it, none was; where all others answer, none is open that is not seen.
#[must_use]
pub fn contested(
    primary: &Node,
    reports: &[Report],
    (all, majority): (&[String], usize),
) -> Option<String> {
    let head = told_by(reports, primary.id)?;
    let of = |name: &String| reports.iter().find(|report| *report.name == **name);
    // The id is that of whom it was connected to last.
    let is_now = |source: &Source| source.receiving || source.address() == *primary.address;
    let follows = |told: &Told| told.link_to(primary, Some(head)).is_some_and(is_now);
    let names_it = |name: &&String| match of(name) {
        Some(report) if report.node == primary.id => head.sources.is_empty(),
        Some(report) => report.told().is_some_and(follows),
        None => false,
    };
    if all.iter().filter(names_it).count() >= majority {
        return None;
    }
    let mut others = all.iter().filter(|name| ***name != *primary.name);
    others.find_map(|name| match of(name).and_then(Report::told) {
        None => Some(format!("{name}, which does not answer, may have taken its place")),
        Some(told) if told.sources.is_empty() && !told.is_read_only() => {
            Some(format!("{name} takes writes, too"))
        }
        Some(_) => None,
    })
}

/// The same reports, in which those who hear from another server do not hear: that says nothing of
/// the primary.
#[must_use]
pub fn heard(primary: NodeId, topology: &Topology, reports: &[Report]) -> Vec<Report> {
    let is_another = |source: &Source| {
        let others = topology.nodes.iter().filter(|node| node.id != primary);
        let mut others = others.map(|node| (node, told_by(reports, node.id)));
        others.any(|(node, told)| is_at(source, node, told))
    };
    let mut all = reports.to_vec();
    for told in all.iter_mut().filter_map(|report| report.told.as_mut().ok()) {
        let elsewhere = told.sources.iter_mut().filter(|source| is_another(source));
        elsewhere.for_each(|source| source.receiving = false);
    }
    all
}

/// Judges a primary by what it and the others say. One that is `leaving`, by its own words, and
/// takes no connection is as good as dead, though those that replicate hear from it to the last
/// (MySQL: for 9 s).
#[must_use]
pub fn judge(primary: NodeId, leaving: bool, reports: &[Report]) -> Verdict {
    let failure = match reports.iter().find(|report| report.node == primary) {
        Some(Report { told: Err(failure), .. }) => failure,
        Some(Report { told: Ok(_), .. }) => return Verdict::Alive,
        None => return Verdict::Isolated,
    };
    if !failure.kind.counts() {
        return match failure.kind {
            FailureKind::Overloaded => Verdict::Saturated(failure.to_string()),
            _ => Verdict::Alive,
        };
    }
    let others = reports.iter().filter(|report| report.node != primary);
    let answering: Vec<&Report> = others.filter(|report| report.told.is_ok()).collect();
    if answering.is_empty() {
        return Verdict::Isolated;
    }
    let hears = |report: &&&Report| report.told().is_some_and(Told::receives);
    let hearing: Vec<String> =
        answering.iter().filter(hears).map(|report| report.name.to_string()).collect();
    if hearing.is_empty() {
        Verdict::Dead(failure.to_string())
    } else if leaving && failure.kind == FailureKind::Unreachable {
        Verdict::Dead(format!("it shuts down: {failure}"))
    } else {
        Verdict::Unreachable(hearing)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::failover::fixture::{self, STARTED, noted};
    use crate::health::observation::Failure;
    use crate::topology::Flavour;
    use crate::topology::fixture::node;

    const SINCE_WELL: Duration = Duration::from_secs(5);

    fn silent(node: u16, kind: FailureKind) -> Report {
        let failure = Failure::new(kind, "it says nothing");
        Report { node: NodeId(node), name: Arc::from(format!("db{node}")), told: Err(failure) }
    }

    fn replica(node: u16, receiving: bool) -> Report {
        let sources = vec![Source { receiving, ..Source::default() }];
        let told = Told { sources, ..fixture::told(Flavour::MariaDb) };
        Report { name: Arc::from(format!("db{node}")), ..fixture::report(node, told) }
    }

    fn verdict(primary: Report, others: &[Report]) -> Verdict {
        let mut reports = vec![primary];
        reports.extend_from_slice(others);
        judge(NodeId(1), false, &reports)
    }

    #[test]
    fn only_who_nobody_hears_from_is_dead() {
        let gone = || silent(1, FailureKind::Timeout);
        let hears = Verdict::Unreachable(vec!["db3".to_owned()]);
        assert_eq!(verdict(gone(), &[replica(2, false), replica(3, true)]), hears);
        let dead = Verdict::Dead("it says nothing".to_owned());
        assert_eq!(verdict(gone(), &[replica(2, false), replica(3, false)]), dead);
        // Who is silent, too, cannot hear for us.
        let silent_too = silent(2, FailureKind::Unreachable);
        assert_eq!(verdict(gone(), &[silent_too.clone(), replica(3, false)]), dead);
        assert_eq!(verdict(gone(), &[silent_too]), Verdict::Isolated);
    }

    #[test]
    fn who_hears_from_another_server_does_not_hear_from_the_primary() {
        let nodes = vec![node(1, "db1"), node(2, "db2"), node(3, "db3")];
        let (address, topology) =
            (nodes[1].address.clone(), Topology { nodes, ..Topology::empty("main") });
        let (host, port) = address.split_once(':').expect("host and port");
        let mut chained = replica(3, true);
        let told = chained.told.as_mut().expect("it tells");
        told.sources[0].host = host.to_owned();
        told.sources[0].port = port.parse().expect("a port");
        let reports = [silent(1, FailureKind::Timeout), replica(2, false), chained];
        assert!(matches!(judge(NodeId(1), false, &reports), Verdict::Unreachable(_)));
        let heard = heard(NodeId(1), &topology, &reports);
        assert!(matches!(judge(NodeId(1), false, &heard), Verdict::Dead(_)));
    }

    #[test]
    fn a_primary_of_before_is_none_while_another_may_have_been_opened() {
        let all = ["db1", "db2", "db3"].map(str::to_owned);
        let primary = node(1, "db1");
        let why = |others: [Report; 2]| {
            let [second, third] = others;
            let mut head = Told { sources: Vec::new(), ..fixture::told(Flavour::MariaDb) };
            head.variables.insert("server_id".to_owned(), "1".to_owned());
            let head = Report { told: Ok(head), ..replica(1, false) };
            contested(&primary, &[head, second, third], (&all, 2))
        };
        let follows = |node, host: &str| {
            let source = Source { host: host.to_owned(), port: 3306, ..Source::default() };
            let told = Told { sources: vec![source], ..fixture::told(Flavour::MariaDb) };
            Report { told: Ok(told), ..replica(node, true) }
        };
        let alone = |value: &str| {
            let mut told = fixture::told(Flavour::MariaDb);
            told.variables.insert("read_only".to_owned(), value.to_owned());
            Report { told: Ok(told), ..replica(2, false) }
        };
        let silent = || silent(2, FailureKind::Timeout);
        assert_eq!(why([silent(), follows(3, "db1")]), None, "a majority follows it still");
        // MariaDB tells the id of the former one until it has connected to the next.
        let mut turned = follows(3, "db2");
        turned.told.iter_mut().flat_map(|told| &mut told.sources).for_each(|at| at.server_id = 1);
        assert!(why([silent(), turned]).is_some_and(|why| why.contains("db2")));
        // Its commits are acknowledged by one that has been turned to it.
        assert!(why([silent(), follows(3, "db2")]).is_some_and(|why| why.contains("db2")));
        assert_eq!(why([alone("ON"), follows(3, "db2")]), None, "it was not opened");
        assert!(why([alone("OFF"), follows(3, "db2")]).is_some());
    }

    #[test]
    fn who_says_that_it_shuts_down_and_takes_no_connection_is_dead() {
        let judged =
            |leaving, kind| judge(NodeId(1), leaving, &[silent(1, kind), replica(2, true)]);
        let hears = Verdict::Unreachable(vec!["db2".to_owned()]);
        let dead = Verdict::Dead("it shuts down: it says nothing".to_owned());
        assert_eq!(judged(true, FailureKind::Unreachable), dead);
        assert_eq!(judged(false, FailureKind::Unreachable), hears);
        assert_eq!(judged(true, FailureKind::Timeout), hears, "it takes connections still");
        assert_eq!(judged(true, FailureKind::Denied), Verdict::Alive);
    }

    /// A server that was started so many seconds ago, with all that it has.
    fn told(uptime: u64, position: &str) -> Told {
        let counters = [("uptime".to_owned(), uptime.to_string())].into();
        Told { counters, ..fixture::mariadb_at(position) }
    }

    /// A link to this server, which has not connected yet.
    fn from(host: &str) -> Source {
        Source { host: host.to_owned(), port: 3306, ..Source::default() }
    }

    #[test]
    fn a_primary_that_comes_back_with_less_than_it_gave_is_none() {
        let record = noted(["db2", "db3"].into_iter(), "");
        let has = |node, position| {
            let told = Told { sources: vec![from("db1")], ..told(60, position) };
            Report { told: Ok(told), ..replica(node, true) }
        };
        let back = |uptime, primary, others: &[Report]| {
            let others: Vec<&Report> = others.iter().collect();
            returned((&node(1, "db1"), &told(uptime, primary)), &others, &record, SINCE_WELL)
        };
        let both = [has(2, "0-1-8"), has(3, "0-1-9")];
        assert_eq!(back(1, "0-1-9", &both), Return::Sound);
        assert_eq!(back(1, "0-1-8", &both), Return::Behind(vec!["db3".to_owned()]));
        // A former primary may have transactions of its own.
        let mut former = has(3, "0-1-9");
        former.told.iter_mut().for_each(|told| told.sources.clear());
        assert_eq!(back(1, "0-1-8", &[has(2, "0-1-8"), former]), Return::Sound);
        // What another server has of its own is not asked here.
        assert_eq!(back(1, "0-1-8", &[has(2, "0-1-8"), has(4, "0-1-9")]), Return::Sound);
        // Unless it may be from here, by another name for this server.
        let mut alias = has(3, "0-1-9");
        alias.told.iter_mut().for_each(|told| told.sources = vec![from("primary.local")]);
        let alias = [has(2, "0-1-8"), alias];
        assert!(matches!(back(1, "0-1-8", &alias), Return::Unsure(why) if why.contains("db3")));
        assert_eq!(back(9, "0-1-8", &alias), Return::Sound);
        let one = [silent(2, FailureKind::Timeout), has(3, "0-1-8")];
        assert_eq!(back(9, "0-1-8", &one), Return::Sound);
        assert!(matches!(back(1, "0-1-8", &one), Return::Unsure(_)));
        // Neither it nor the replica may have what the replica has acknowledged last.
        let mut anew = has(3, "0-1-8");
        anew.told.iter_mut().for_each(|told| told.started = Some(STARTED + 59));
        let anew = [has(2, "0-1-8"), anew];
        assert!(matches!(back(1, "0-1-8", &anew), Return::Unsure(_)));
        assert_eq!(back(9, "0-1-8", &anew), Return::Sound);
        let mut keeps = told(1, "0-1-8");
        keeps.counters.insert("rpl_status".to_owned(), "AUTH_MASTER".to_owned());
        let anew: Vec<&Report> = anew.iter().collect();
        let kept = returned((&node(1, "db1"), &keeps), &anew, &record, SINCE_WELL);
        assert_eq!(kept, Return::Sound);
    }

    #[test]
    fn a_primary_that_has_lost_what_a_replica_has_forgotten_is_in_doubt() {
        let has = Report { told: Ok(told(60, "0-1-8")), ..replica(2, true) };
        let back = |uptime, floor| {
            returned(
                (&node(1, "db1"), &told(uptime, "0-1-8")),
                &[&has],
                &noted(["db2"].into_iter(), floor),
                SINCE_WELL,
            )
        };
        assert_eq!(back(1, "0-1-8"), Return::Sound);
        assert!(matches!(back(1, "0-1-9"), Return::Unsure(why) if why.contains("0-1-9")));
        assert_eq!(back(9, "0-1-9"), Return::Sound, "it was not started anew");
    }

    #[test]
    fn a_primary_that_has_lost_what_clients_were_told_of_is_in_doubt() {
        let lost = |acknowledged| lacks(&told(1, "0-1-8,3-1-2"), acknowledged);
        assert_eq!(lost(""), None);
        assert_eq!(lost("0-1-8,0-1-7,3-1-1"), None);
        assert_eq!(
            lost("3-1-1,0-1-7,0-1-9").map(|lost| lost.to_string()).as_deref(),
            Some("0-1-9")
        );
    }

    #[test]
    fn an_heir_that_was_not_opened_may_have_more_than_a_primary_that_comes_back() {
        let names = ["db2".to_owned(), "db3".to_owned()].into();
        let heir = |position, sources| {
            let told = Told { sources, ..told(60, position) };
            Report { told: Ok(told), ..replica(2, false) }
        };
        let follows = || vec![Source { receiving: true, ..Source::default() }];
        let elsewhere = || vec![Source { server_id: 7, ..Source::default() }];
        let found = |report: &Report| beyond(&told(1, "0-1-8"), &[report], &names);
        assert_eq!(found(&heir("0-1-9", Vec::new())), ["db2"]);
        assert_eq!(found(&heir("0-1-9", elsewhere())), ["db2"], "it was turned to another heir");
        assert_eq!(found(&heir("0-1-8", Vec::new())), Vec::<String>::new());
        // What follows it may be ahead of what it has told.
        assert_eq!(found(&heir("0-1-9", follows())), Vec::<String>::new());
    }

    #[test]
    fn who_answers_is_alive_whatever_it_answers() {
        let others = [replica(2, false)];
        assert_eq!(verdict(replica(1, false), &others), Verdict::Alive);
        assert_eq!(verdict(silent(1, FailureKind::Denied), &others), Verdict::Alive);
        let full = Verdict::Saturated("it says nothing".to_owned());
        assert_eq!(verdict(silent(1, FailureKind::Overloaded), &others), full);
    }
}
