//! What has become of a primary that does not answer here.
//!
//! That it does not answer says little: the network between may be broken, or this machine. Its
//! replicas hear from it every second; only if none of them does either is it dead.

use crate::failover::report::Report;
use crate::health::observation::FailureKind;
use crate::topology::NodeId;

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

/// Judges a primary by what it and the others say.
#[must_use]
pub fn judge(primary: NodeId, reports: &[Report]) -> Verdict {
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
    let hears = |report: &&&Report| {
        report.told().is_some_and(|told| told.sources.iter().any(|source| source.receiving))
    };
    let hearing: Vec<String> =
        answering.iter().filter(hears).map(|report| report.name.to_string()).collect();
    if hearing.is_empty() {
        Verdict::Dead(failure.to_string())
    } else {
        Verdict::Unreachable(hearing)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::failover::report::Told;
    use crate::health::observation::{Failure, Source};
    use crate::topology::Flavour;
    use crate::topology::gtid::{GtidSet, MariaDbState};

    fn silent(node: u16, kind: FailureKind) -> Report {
        let failure = Failure::new(kind, "it says nothing");
        Report { node: NodeId(node), name: Arc::from(format!("db{node}")), told: Err(failure) }
    }

    fn replica(node: u16, receiving: bool) -> Report {
        let told = Told {
            flavour: Flavour::MariaDb,
            version: 0,
            variables: BTreeMap::new(),
            counters: BTreeMap::new(),
            executed: GtidSet::default(),
            history: MariaDbState::default(),
            received: GtidSet::default(),
            applied: GtidSet::default(),
            sources: vec![Source { receiving, ..Source::default() }],
        };
        Report { node: NodeId(node), name: Arc::from(format!("db{node}")), told: Ok(told) }
    }

    fn verdict(primary: Report, others: &[Report]) -> Verdict {
        let mut reports = vec![primary];
        reports.extend_from_slice(others);
        judge(NodeId(1), &reports)
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
    fn who_answers_is_alive_whatever_it_answers() {
        let others = [replica(2, false)];
        assert_eq!(verdict(replica(1, false), &others), Verdict::Alive);
        assert_eq!(verdict(silent(1, FailureKind::Denied), &others), Verdict::Alive);
        let full = Verdict::Saturated("it says nothing".to_owned());
        assert_eq!(verdict(silent(1, FailureKind::Overloaded), &others), full);
    }
}
