//! Walking replication both ways: which servers belong to the group, and which are one and the
//! same under two addresses. Pure.

use std::sync::Arc;

use crate::health::assemble::{Member, is_source};
use crate::health::observation::{Attached, Seen};

/// Most servers of one group, whatever replication leads to.
pub const MEMBERS_MAX: usize = 64;

/// Addresses that live members name as their sources or replicas and that are not known yet.
/// Addresses are as servers see each other; they may be unreachable from here.
#[must_use]
pub fn unknown(members: &[Member]) -> Vec<Arc<str>> {
    let mut found: Vec<Arc<str>> = Vec::new();
    let mut note = |address: String| {
        let known = members.iter().any(|member| *member.address == *address)
            || found.iter().any(|known| **known == *address);
        if !known && members.len() + found.len() < MEMBERS_MAX {
            found.push(Arc::from(address));
        }
    };
    let present = || members.iter().filter(|member| member.gone.is_none());
    for seen in present().filter_map(|member| member.judgement.alive()) {
        for source in &seen.sources {
            if !present().any(|member| is_source(source, member)) {
                note(source.address());
            }
        }
        for replica in seen.replicas.iter().flatten() {
            if !present().any(|member| member.judgement.seen().is_some_and(|at| is(replica, at))) {
                note(replica.address());
            }
        }
    }
    found
}

/// Members that turned out to be another member under a second address: (the second, the first).
#[must_use]
pub fn twins(members: &[Member]) -> Vec<(usize, usize)> {
    let mut present: Vec<(usize, Arc<str>)> = Vec::new();
    let mut twins = Vec::new();
    for (index, member) in members.iter().enumerate() {
        if member.gone.is_some() {
            continue;
        }
        let Some(seen) = member.judgement.seen() else { continue };
        match present.iter().find(|(_, identity)| *identity == seen.identity) {
            Some((first, _)) => twins.push((index, *first)),
            None => present.push((index, seen.identity.clone())),
        }
    }
    twins
}

fn is(replica: &Attached, seen: &Seen) -> bool {
    replica.server_id != 0 && replica.server_id == seen.facts.server_id
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::config::RoleHint;
    use crate::health::fixture::{self, source};
    use crate::health::judge::{Hysteresis, Judgement};
    use crate::health::observation::Observation;

    fn member(address: &str, seen: Option<Seen>) -> Member {
        let mut judgement = Judgement::fresh();
        if let Some(seen) = seen {
            let now = Instant::now();
            let observation = Observation { began: now, ended: now, result: Ok(seen) };
            judgement.observe(observation, Hysteresis { fall: 1, rise: 1 });
        }
        Member {
            name: Arc::from(address),
            address: Arc::from(address),
            weight: 100,
            hint: RoleHint::Auto,
            gone: None,
            judgement,
        }
    }

    fn found(members: &[Member]) -> Vec<String> {
        unknown(members).iter().map(|address| address.to_string()).collect()
    }

    #[test]
    fn both_directions_are_walked_until_closed() {
        let mut replica = fixture::seen(2);
        replica.sources = vec![source(1)];
        let seed = member("10.0.0.2:3306", Some(replica.clone()));
        assert_eq!(found(std::slice::from_ref(&seed)), ["db1:3306"]);

        let mut primary = fixture::seen(1);
        primary.replicas = Some(vec![
            Attached { host: "db2".to_owned(), port: 3306, server_id: 2 },
            Attached { host: "db3".to_owned(), port: 3306, server_id: 3 },
        ]);
        let both = [seed, member("db1:3306", Some(primary))];
        assert_eq!(found(&both), ["db3:3306"], "server 2 is known by another address");

        let mut third = fixture::seen(3);
        third.sources = vec![source(1)];
        let [seed, head] = both;
        assert!(found(&[seed, head, member("db3:3306", Some(third))]).is_empty());
    }

    #[test]
    fn discovery_is_bounded() {
        let mut primary = fixture::seen(1);
        let replicas = (0..1000u16).map(|port| Attached {
            host: "db".to_owned(),
            port: 10_000 + port,
            server_id: 1000 + u32::from(port),
        });
        primary.replicas = Some(replicas.collect());
        assert_eq!(found(&[member("db1:3306", Some(primary))]).len(), MEMBERS_MAX - 1);
    }

    #[test]
    fn one_server_under_two_addresses_is_one() {
        let members = [
            member("localhost:3306", Some(fixture::seen(1))),
            member("db2:3306", Some(fixture::seen(2))),
            member("127.0.0.1:3306", Some(fixture::seen(1))),
            member("db4:3306", None),
        ];
        assert_eq!(twins(&members), [(2, 0)]);
    }
}
