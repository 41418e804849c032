//! In which order the replicas would be promoted.
//!
//! What a replica has received counts first, applied or not: an acknowledged transaction may be
//! there and nowhere else. Preferences come after that. A server with transactions of its own is
//! never promoted, and where two have received what the other has not, nobody is.

use std::sync::Arc;

use crate::failover::report::{Report, Told};
use crate::health::observation::Source;
use crate::topology::gtid::GtidSet;
use crate::topology::{Node, NodeId, Promotion, Topology};

/// A replica's place in the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranked {
    /// Which server.
    pub node: NodeId,
    /// The operator's name for it.
    pub name: Arc<str>,
    /// Its place, from 1, or why it can be nobody's source.
    pub place: Result<usize, String>,
    /// What the operator wants of it.
    pub promotion: Promotion,
    /// It has received transactions that it has not applied.
    pub must_drain: bool,
}

/// Why a server that could be promoted is not.
const NEVER: &str = "the configuration says that it is never the primary (role = \"replica\")";

impl Ranked {
    /// Its place among those that may be promoted.
    ///
    /// # Errors
    /// Why it may not be.
    pub fn may_lead(&self) -> Result<usize, String> {
        match self.promotion {
            Promotion::Never => self.place.clone().and_then(|_| Err(NEVER.to_owned())),
            Promotion::Usual | Promotion::Preferred => self.place.clone(),
        }
    }
}

/// Whether a server that follows nobody may be promoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphans {
    /// It may not: it is new there, or a former primary.
    Stay,
    /// It may where it takes no writes: it may be an heir whose keeper has not come to open it.
    MayLead,
}

/// Ranks all servers of a group but the primary, and those out that follow nobody.
#[must_use]
pub fn rank(reports: &[Report], topology: &Topology) -> Vec<Ranked> {
    rank_with(reports, topology, Orphans::Stay)
}

/// Ranks all servers of a group but the primary. Those that are never to be promoted come behind
/// those that may be, and those without a place last.
#[must_use]
pub fn rank_with(reports: &[Report], topology: &Topology, orphans: Orphans) -> Vec<Ranked> {
    let told: Vec<(&Report, &Told)> = reports
        .iter()
        .filter_map(|report| report.told.as_ref().ok().map(|told| (report, told)))
        .collect();
    let ranked_as = |report, place| ranked_as(report, topology, place);
    let (mut able, mut out) = (Vec::new(), Vec::new());
    for report in reports.iter().filter(|report| Some(report.node) != topology.primary) {
        match objection(report, &told, topology, orphans) {
            Ok(told) => able.push((report, told)),
            Err(why) => out.push(ranked_as(report, Err(why))),
        }
    }
    let lacks = |told: &Told, other: &Told| !told.received.contains(&other.received_from_others());
    let behind = |told: &Told| able.iter().filter(|(_, other)| lacks(told, other)).count();
    let mut order: Vec<(usize, &Report, &Told)> =
        able.iter().map(|(report, told)| (behind(told), *report, *told)).collect();
    let mut ranked: Vec<Ranked> = if let Some((_, first, _)) = order.first()
        && order.iter().all(|(behind, ..)| *behind > 0)
    {
        let name = &first.name;
        let why = format!(
            "it and others have each received what the other has not: compare {name} with them"
        );
        order.iter().map(|(_, report, _)| ranked_as(report, Err(why.clone()))).collect()
    } else {
        // A server of a later version cannot be the source of an older one.
        order.sort_by_key(|(behind, report, told)| {
            let promotion = promotion(report, topology);
            let (never, usual) = (promotion == Promotion::Never, promotion != Promotion::Preferred);
            (never, *behind, told.version, usual, must_drain(told), report.node)
        });
        let places = order.iter().enumerate();
        places.map(|(at, (_, report, _))| ranked_as(report, Ok(at + 1))).collect()
    };
    ranked.extend(out);
    ranked
}

fn ranked_as(report: &Report, topology: &Topology, place: Result<usize, String>) -> Ranked {
    let must_drain = report.told.as_ref().is_ok_and(must_drain);
    let promotion = promotion(report, topology);
    Ranked { node: report.node, name: report.name.clone(), place, promotion, must_drain }
}

fn promotion(report: &Report, topology: &Topology) -> Promotion {
    topology.node(report.node).map_or_else(Promotion::default, |node| node.promotion)
}

fn must_drain(told: &Told) -> bool {
    !told.applied.contains(&told.received)
}

/// What it told, if nothing speaks against its promotion.
fn objection<'a>(
    report: &'a Report,
    all: &[(&Report, &Told)],
    topology: &Topology,
    orphans: Orphans,
) -> Result<&'a Told, String> {
    let told = report.told.as_ref().map_err(|why| format!("it does not answer: {why}"))?;
    let is_orphan = told.sources.is_empty();
    if is_orphan && (orphans == Orphans::Stay || !told.is_read_only()) {
        return Err("it does not replicate".to_owned());
    }
    if told.sources.len() > 1 {
        return Err("it replicates from several servers".to_owned());
    }
    if told.has_no_room {
        return Err("there is no room on its disk".to_owned());
    }
    if !told.goes_by_gtid() {
        return Err("it does not ask for its transactions by GTID".to_owned());
    }
    for name in ["log_bin", "log_slave_updates", "log_replica_updates"] {
        if told.variables.get(name).is_some_and(|value| matches!(value.as_str(), "OFF" | "0")) {
            return Err(format!("{name} is off there: others could not replicate from it"));
        }
    }
    let others: Vec<&Told> =
        all.iter().filter(|(at, _)| at.node != report.node).map(|(_, told)| *told).collect();
    let mut known = GtidSet::default();
    let silent = |node: &&Node| !all.iter().any(|(at, _)| at.node == node.id);
    topology.nodes.iter().filter(silent).for_each(|node| known.union(&node.applied));
    let followed = if is_orphan { Some(as_if_followed(report, told, topology)) } else { None };
    match followed.as_ref().unwrap_or(told).errant(&others, &known) {
        none if none.is_empty() => Ok(told),
        errant => Err(format!("it has transactions of its own: {errant}")),
    }
}

/// What a server told, as if it still followed all others: what they have written it has from them.
fn as_if_followed(report: &Report, told: &Told, topology: &Topology) -> Told {
    let others = topology.nodes.iter().filter(|node| node.id != report.node);
    let source = |node: &Node| {
        let facts = node.facts.as_ref()?;
        let server_uuid = facts.server_uuid.to_string();
        Some(Source { server_id: facts.server_id, server_uuid, ..Source::default() })
    };
    Told { sources: others.filter_map(source).collect(), ..told.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::fixture;
    use crate::health::observation::{Failure, FailureKind, Source};
    use crate::topology::Flavour;
    use crate::topology::fixture::node;
    use crate::topology::gtid::MariaDbState;

    /// A replica of server 1, with what it has received, applied, and has in its history.
    fn replica(node: u16, received: &str, applied: &str, history: &str) -> Report {
        let set = |text| GtidSet::parse_mariadb(text).expect("a position");
        let source = Source { server_id: 1, by_gtid: true, ..Source::default() };
        let told = Told {
            version: 101_119,
            variables: [("gtid_strict_mode".to_owned(), "ON".to_owned())].into(),
            executed: set(applied),
            history: MariaDbState::parse(history).expect("a state"),
            received: set(received),
            applied: set(applied),
            sources: vec![source],
            ..fixture::told(Flavour::MariaDb)
        };
        fixture::report(node, told)
    }

    /// Names in their order, with what speaks against them.
    fn order(reports: &[Report]) -> Vec<String> {
        order_in(&Topology { primary: Some(NodeId(0)), ..Topology::empty("main") }, reports)
    }

    fn order_in(topology: &Topology, reports: &[Report]) -> Vec<String> {
        let word = |at: Ranked| match at.may_lead() {
            Ok(place) => {
                format!("{place} {}{}", at.name, if at.must_drain { " drain" } else { "" })
            }
            Err(why) => format!("- {}: {why}", at.name),
        };
        rank(reports, topology).into_iter().map(word).collect()
    }

    /// A primary, and servers of which this is wanted.
    fn wanted(promotions: &[Promotion]) -> Topology {
        let mut nodes = vec![node(0, "db1")];
        for (id, promotion) in (1u16..).zip(promotions) {
            nodes.push(Node { promotion: *promotion, ..node(id, &format!("db{}", id + 1)) });
        }
        Topology { primary: Some(NodeId(0)), nodes, ..Topology::empty("main") }
    }

    #[test]
    fn a_preferred_server_comes_first_among_those_that_have_as_much() {
        let topology = wanted(&[Promotion::Usual, Promotion::Preferred, Promotion::Preferred]);
        let reports = [
            replica(1, "0-1-9", "0-1-9", "0-1-9"),
            replica(2, "0-1-9", "0-1-8", "0-1-8"),
            replica(3, "0-1-8", "0-1-8", "0-1-8"),
        ];
        assert_eq!(order_in(&topology, &reports), ["1 db3 drain", "2 db2", "3 db4"]);
    }

    #[test]
    fn a_server_without_room_on_its_disk_is_not_promoted() {
        let mut full = replica(1, "0-1-9", "0-1-9", "0-1-9");
        full.told.as_mut().expect("it tells").has_no_room = true;
        let reports = [full, replica(2, "0-1-9", "0-1-9", "0-1-9")];
        assert_eq!(order(&reports), ["1 db3", "- db2: there is no room on its disk"]);
    }

    #[test]
    fn a_server_that_is_never_to_be_the_primary_is_not_whatever_it_has() {
        let topology = wanted(&[Promotion::Never, Promotion::Usual]);
        let reports =
            [replica(1, "0-1-9", "0-1-9", "0-1-9"), replica(2, "0-1-8", "0-1-8", "0-1-8")];
        let ranked = rank(&reports, &topology);
        assert_eq!(order_in(&topology, &reports), ["1 db3", &format!("- db2: {NEVER}")]);
        // It can follow another one all the same.
        assert_eq!(ranked[1].place, Ok(2));
    }

    #[test]
    fn who_has_received_most_comes_first_applied_or_not() {
        let reports = [
            replica(1, "0-1-8", "0-1-8", "0-1-8"),
            replica(2, "0-1-9", "0-1-5", "0-1-5"),
            replica(3, "0-1-9", "0-1-9", "0-1-9"),
        ];
        assert_eq!(order(&reports), ["1 db4", "2 db3 drain", "3 db2"]);
    }

    #[test]
    fn who_has_written_itself_is_not_promoted() {
        let reports =
            [replica(1, "0-1-8", "0-1-8", "0-1-8,0-2-9"), replica(2, "0-1-7", "0-1-7", "0-1-7")];
        let why = "- db2: it has transactions of its own: 0-2-9";
        assert_eq!(order(&reports), ["1 db3", why]);
        // A former primary that is the only one left has written what came before.
        assert_eq!(order(&[replica(1, "0-1-9", "0-1-9", "0-1-9,0-2-8")]), ["1 db2"]);
        // Or what the others have from it.
        let reports = [
            replica(1, "0-1-9", "0-1-9", "0-1-9,0-2-8"),
            replica(2, "0-1-9", "0-1-9", "0-1-9,0-2-8"),
        ];
        assert_eq!(order(&reports), ["1 db2", "2 db3"]);
    }

    #[test]
    fn an_heir_that_was_not_opened_may_be_one_again() {
        let mut heir = replica(1, "0-1-9", "0-1-9", "0-1-9");
        let told = heir.told.as_mut().expect("it tells");
        told.sources.clear();
        let closed = |told: &mut Told, value: &str| {
            told.variables.insert("read_only".to_owned(), value.to_owned());
        };
        closed(told, "ON");
        let topology = Topology { nodes: vec![node(0, "db1")], ..wanted(&[]) };
        let first = |reports: &[Report], orphans| {
            let ranked = rank_with(reports, &topology, orphans);
            ranked.first().map(|at| (at.name.to_string(), at.may_lead().is_ok()))
        };
        let reports = [heir.clone(), replica(2, "0-1-8", "0-1-8", "0-1-8")];
        assert_eq!(first(&reports, Orphans::MayLead), Some(("db2".to_owned(), true)));
        assert_eq!(first(&reports, Orphans::Stay), Some(("db3".to_owned(), true)));
        heir.told.iter_mut().for_each(|told| closed(told, "OFF"));
        let reports = [heir, replica(2, "0-1-8", "0-1-8", "0-1-8")];
        assert_eq!(first(&reports, Orphans::MayLead), Some(("db3".to_owned(), true)));
    }

    #[test]
    fn what_a_silent_server_was_seen_to_have_is_nobody_s_own() {
        let (one, two) =
            ("3e11fa47-71ca-11e1-9e33-c80aa9429561", "3e11fa47-71ca-11e1-9e33-c80aa9429562");
        let set = |text: &str| GtidSet::parse_mysql(text).expect("a set");
        let source = Source { server_uuid: one.to_owned(), by_gtid: true, ..Source::default() };
        let executed = set(&format!("{one}:1-9,{two}:1-3"));
        let told = Told {
            executed: executed.clone(),
            received: executed.clone(),
            applied: executed,
            sources: vec![source],
            ..fixture::told(Flavour::MySql)
        };
        let others = [];
        assert_eq!(told.errant(&others, &GtidSet::default()), format!("{two}:1-3"));
        assert_eq!(told.errant(&others, &set(&format!("{two}:1-2"))), format!("{two}:3"));
        assert_eq!(told.errant(&others, &set(&format!("{two}:1-5"))), "");
    }

    #[test]
    fn nobody_is_promoted_where_each_has_received_what_the_other_has_not() {
        let reports =
            [replica(1, "0-1-8,1-1-2", "", "0-1-8"), replica(2, "0-1-7,1-1-3", "", "0-1-7")];
        assert!(order(&reports).iter().all(|word| word.contains("each received")));
    }

    #[test]
    fn a_later_version_yields_to_an_older_one() {
        let mut newer = replica(1, "0-1-8", "0-1-8", "0-1-8");
        if let Ok(told) = &mut newer.told {
            told.version = 110_809;
        }
        assert_eq!(order(&[newer, replica(2, "0-1-8", "0-1-8", "0-1-8")]), ["1 db3", "2 db2"]);
    }

    #[test]
    fn whoever_cannot_be_a_source_has_no_place_and_a_reason() {
        let change = |change: fn(&mut Told)| {
            let mut report = replica(1, "0-1-8", "0-1-8", "0-1-8");
            report.told.iter_mut().for_each(change);
            order(&[report]).remove(0)
        };
        assert!(change(|told| told.sources.clear()).contains("does not replicate"));
        let second = |told: &mut Told| told.sources.push(Source::default());
        assert!(change(second).contains("several"));
        assert!(change(|told| told.sources[0].by_gtid = false).contains("by GTID"));
        let off = |told: &mut Told| {
            told.variables.insert("log_slave_updates".to_owned(), "OFF".to_owned());
        };
        assert!(change(off).contains("log_slave_updates is off"));
        let refused = Failure::new(FailureKind::Unreachable, "refused");
        let silent = Report { told: Err(refused), ..replica(1, "", "", "") };
        assert_eq!(order(&[silent]), ["- db2: it does not answer: refused"]);
    }
}
