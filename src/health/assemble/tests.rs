//! Small clusters, told step by step.

use super::*;
use crate::health::fixture::{self, gtid, source};
use crate::health::judge::{Hysteresis, SignalKind};
use crate::health::observation::{Failure, FailureKind, Observation, Source};

const LIMITS: Hysteresis = Hysteresis { fall: 3, rise: 1 };

/// A cluster under observation; server ids are 1, 2, 3 ... for the ids 0, 1, 2 ...
struct Cluster {
    members: Vec<Member>,
    overrides: Overrides,
    trail: Trail,
    topology: Topology,
    now: Instant,
}

/// What a server says in one probe.
#[derive(Clone, Copy)]
enum Says {
    /// Replicates from the server with this id, `read_only` on.
    Follows(u32),
    /// The same with `read_only` off.
    FollowsWritable(u32),
    /// Does not replicate, writable.
    Writable,
    /// The same with more history than any other.
    Promoted,
    /// Does not replicate, read-only.
    ReadOnly,
    /// Writable; told to replicate from the server with this id, which it has not reached.
    Told(u32),
    /// Replicates from both, `read_only` off.
    FollowsBoth(u32, u32),
    /// Writable and without any history.
    Blank,
    /// Does not answer.
    Nothing,
    /// 1045.
    Denied,
}

use Says::{
    Blank, Denied, Follows, FollowsBoth, FollowsWritable, Nothing, Promoted, ReadOnly, Told,
    Writable,
};

impl Cluster {
    fn new(size: u32) -> Self {
        let members = (1..=size).map(|id| Member {
            name: Arc::from(format!("db{id}")),
            address: Arc::from(format!("db{id}:3306")),
            weight: 100,
            hint: RoleHint::Auto,
            gone: None,
            judgement: Judgement::fresh(),
        });
        Self {
            members: members.collect(),
            overrides: Overrides::default(),
            trail: Trail::default(),
            topology: Topology::empty("main"),
            now: Instant::now(),
        }
    }

    /// A primary db1 with the replicas db2 and db3.
    fn settled() -> Self {
        let mut cluster = Self::new(3);
        cluster.hear(&[(1, Writable), (2, Follows(1)), (3, Follows(1))]);
        assert_eq!(cluster.primary(), Some("db1"));
        cluster
    }

    /// One probe a line, in this order, with a topology after each.
    fn hear(&mut self, probes: &[(u32, Says)]) {
        for (id, says) in probes {
            self.now += Duration::from_millis(500);
            let mut seen = fixture::seen(*id);
            let result = match says {
                Follows(of) | FollowsWritable(of) => {
                    seen.sources = vec![source(*of)];
                    seen.read_only = matches!(says, Follows(_));
                    Ok(seen)
                }
                FollowsBoth(one, other) => {
                    seen.sources = vec![source(*one), source(*other)];
                    Ok(seen)
                }
                Writable => Ok(seen),
                Told(of) => {
                    seen.sources = vec![Source { server_id: 0, ..source(*of) }];
                    Ok(seen)
                }
                Promoted => {
                    seen.executed = gtid("0-3-20");
                    Ok(seen)
                }
                ReadOnly => {
                    seen.read_only = true;
                    Ok(seen)
                }
                Blank => {
                    seen.executed = GtidSet::default();
                    seen.replicated = GtidSet::default();
                    Ok(seen)
                }
                Nothing => Err(Failure::new(FailureKind::Unreachable, "connection refused")),
                Denied => Err(Failure::new(FailureKind::Denied, "access denied")),
            };
            let member = &mut self.members[*id as usize - 1];
            let observation = Observation { began: self.now, ended: self.now, result };
            member.judgement.observe(observation, LIMITS);
            self.assemble();
        }
    }

    fn assemble(&mut self) {
        let input = Input {
            members: &self.members,
            overrides: &self.overrides,
            trail: &self.trail,
            now: self.now,
        };
        self.topology = assemble(&self.topology, &input);
        let primaries =
            self.topology.nodes.iter().filter(|node| node.role == Role::Primary).count();
        assert!(primaries <= 1, "two primaries in generation {}", self.topology.generation);
        assert_eq!(self.topology.primary.is_none(), !self.topology.no_primary_why.is_empty());
    }

    fn primary(&self) -> Option<&str> {
        self.topology.primary_node().map(|node| &*node.name)
    }

    fn why(&self) -> &str {
        &self.topology.no_primary_why
    }

    fn node(&self, id: usize) -> &Node {
        &self.topology.nodes[id - 1]
    }
}

#[test]
fn roles_come_from_replication() {
    let cluster = Cluster::settled();
    let roles: Vec<Role> = cluster.topology.nodes.iter().map(|node| node.role).collect();
    assert_eq!(roles, [Role::Primary, Role::Replica, Role::Replica]);

    let mut writable_replica = Cluster::new(2);
    writable_replica.hear(&[(2, FollowsWritable(1)), (1, ReadOnly)]);
    assert_eq!(writable_replica.primary(), None, "a writable replica is still a replica");
    assert!(writable_replica.why().contains("db1 does not replicate and is read_only"));
    writable_replica.hear(&[(1, Writable)]);
    assert_eq!(writable_replica.primary(), Some("db1"));
}

#[test]
fn a_lone_writable_server_is_the_primary() {
    let mut cluster = Cluster::new(1);
    cluster.assemble();
    assert_eq!(cluster.why(), "waiting for the first probe of db1");
    cluster.hear(&[(1, Blank)]);
    assert_eq!(cluster.primary(), Some("db1"));
    cluster.hear(&[(1, ReadOnly)]);
    assert_eq!(cluster.primary(), None);
}

#[test]
fn nobody_is_primary_before_the_others_are_known() {
    let mut cluster = Cluster::new(3);
    cluster.hear(&[(3, Writable)]);
    assert_eq!(cluster.primary(), None, "db3 may be a stranger");
    cluster.hear(&[(2, Follows(1))]);
    assert_eq!(cluster.why(), "waiting for the first probe of db1");
    cluster.hear(&[(1, Writable)]);
    assert_eq!(cluster.primary(), Some("db1"), "it has a replica attached, db3 has none");

    let mut early = Cluster::new(3);
    early.hear(&[(2, Follows(1)), (1, Writable)]);
    assert_eq!(early.primary(), Some("db1"), "with a replica attached there is no doubt");
}

#[test]
fn a_switchover_by_plain_sql_is_followed() {
    let mut cluster = Cluster::settled();
    let steps = [
        // old: SET GLOBAL read_only=1
        ((1, ReadOnly), None),
        // new: STOP SLAVE; RESET SLAVE ALL
        ((2, ReadOnly), None),
        ((1, ReadOnly), None),
        ((3, Follows(1)), None),
        // new: SET GLOBAL read_only=0, while the old one is still there
        ((2, Writable), Some("db2")),
        ((1, ReadOnly), Some("db2")),
        // old: CHANGE MASTER TO new; the other replica follows
        ((1, Follows(2)), Some("db2")),
        ((3, Follows(2)), Some("db2")),
    ];
    let mut generation = cluster.topology.generation;
    for ((id, says), expected) in steps {
        cluster.hear(&[(id, says)]);
        assert_eq!(cluster.primary(), expected);
        assert!(cluster.topology.generation >= generation);
        generation = cluster.topology.generation;
        if let Some(primary) = cluster.topology.primary_node() {
            assert!(!primary.read_only, "writes would go to a read-only server");
        }
        let last = cluster.topology.last_primary().map(|node| &*node.name);
        assert_eq!(last, Some(expected.unwrap_or("db1")), "what it had is still known");
    }
    let roles: Vec<Role> = cluster.topology.nodes.iter().map(|node| node.role).collect();
    assert_eq!(roles, [Role::Replica, Role::Primary, Role::Replica]);
}

#[test]
fn a_primary_that_a_client_made_read_only_stays_while_all_others_follow_it() {
    let closed = || {
        let mut cluster = Cluster::settled();
        let now = cluster.now;
        cluster.members[0].judgement.signal(SignalKind::SetReadOnly, now);
        cluster.hear(&[(1, ReadOnly), (2, Follows(1)), (3, Follows(1)), (1, ReadOnly)]);
        assert_eq!(cluster.primary(), Some("db1"));
        assert!(cluster.node(1).read_only);
        cluster
    };
    let mut opened = closed();
    opened.hear(&[(1, Writable), (1, ReadOnly)]);
    assert_eq!(opened.primary(), None, "this time nobody of ours has done it");

    let mut promoted = closed();
    promoted.hear(&[(2, ReadOnly)]);
    assert_eq!(promoted.primary(), None, "db2 is meant to take its place");
    promoted.hear(&[(2, Promoted)]);
    assert_eq!(promoted.primary(), Some("db2"));
    promoted.hear(&[(2, Nothing), (2, Nothing), (2, Nothing)]);
    assert_eq!(promoted.primary(), None, "db1 is not the one to go back to");

    let mut unseen = closed();
    unseen.hear(&[(3, Nothing), (3, Nothing), (3, Nothing)]);
    assert_eq!(unseen.primary(), None, "db3 may be the one that takes writes");

    let mut restarted = closed();
    restarted.hear(&[(1, Nothing), (1, ReadOnly)]);
    assert_eq!(restarted.primary(), None);

    let mut alone = Cluster::new(1);
    alone.hear(&[(1, Writable)]);
    let now = alone.now;
    alone.members[0].judgement.signal(SignalKind::SetReadOnly, now);
    alone.hear(&[(1, ReadOnly)]);
    assert_eq!(alone.primary(), Some("db1"));
}

#[test]
fn a_replica_of_the_primary_that_follows_another_server_too_is_a_replica() {
    for both in [FollowsBoth(9, 1), FollowsBoth(1, 9)] {
        let mut cluster = Cluster::new(2);
        cluster.hear(&[(1, Writable), (2, both)]);
        assert_eq!(cluster.primary(), Some("db1"));
        assert_eq!(cluster.node(2).role, Role::Replica);
    }
}

#[test]
fn a_primary_that_was_told_of_a_source_nobody_reaches_stays_while_all_others_follow_it() {
    let mut told = Cluster::settled();
    told.hear(&[(1, Told(9))]);
    assert_eq!(told.primary(), Some("db1"));
    told.hear(&[(1, FollowsWritable(9))]);
    assert_eq!(told.primary(), Some("db1"), "it replicates from elsewhere");

    let mut discovered = Cluster::new(4);
    discovered.hear(&[(1, Writable), (2, Follows(1)), (3, Follows(1)), (4, Nothing)]);
    discovered.hear(&[(1, Told(4)), (4, Nothing)]);
    assert_eq!(discovered.primary(), Some("db1"), "nobody has ever seen db4");
    discovered.hear(&[(4, Writable)]);
    assert_eq!(discovered.primary(), None, "there it is, and db1 has been told to follow it");

    let mut handed_over = Cluster::settled();
    handed_over.hear(&[(1, Told(2))]);
    assert_eq!(handed_over.primary(), None, "db2 is known, and meant to take its place");

    let mut left = Cluster::settled();
    left.hear(&[(1, Told(9)), (3, Writable)]);
    assert_eq!(left.primary(), None, "db3 does not follow it any more");

    let mut anew = Cluster::new(3);
    anew.hear(&[(1, Told(9)), (2, Follows(1)), (3, Follows(1))]);
    assert_eq!(anew.primary(), None, "it has not been the primary before");
}

#[test]
fn of_two_writable_servers_never_both() {
    // The one with replicas wins, whatever else.
    let mut cluster = Cluster::new(3);
    cluster.hear(&[(1, Writable), (2, Follows(3)), (3, Writable)]);
    assert_eq!(cluster.primary(), Some("db3"));

    // Alike and none before: nobody, and the sentence names both.
    let mut alike = Cluster::new(2);
    alike.hear(&[(1, Writable), (2, Writable)]);
    assert_eq!(alike.primary(), None);
    let why = alike.why();
    assert!(why.contains("db1") && why.contains("db2") && why.contains("both writable"), "{why}");
    alike.members[1].hint = RoleHint::Primary;
    alike.assemble();
    assert_eq!(alike.primary(), Some("db2"));

    // A replica that is reset beside a working primary changes nothing.
    let mut cluster = Cluster::new(2);
    cluster.hear(&[(1, Writable), (2, Follows(1)), (2, Writable)]);
    assert_eq!(cluster.primary(), Some("db1"));
}

#[test]
fn a_dead_primary_is_kept_until_down_and_then_missed() {
    let mut cluster = Cluster::settled();
    cluster.hear(&[(1, Nothing), (2, Follows(1)), (1, Nothing)]);
    assert_eq!(cluster.primary(), Some("db1"));
    assert_eq!(cluster.node(1).condition, Condition::Suspect);
    cluster.hear(&[(1, Nothing)]);
    assert_eq!(cluster.primary(), None);
    assert_eq!(cluster.node(1).condition, Condition::Down);
    assert_eq!(cluster.node(1).role, Role::Primary, "operators see which one is missed");
    cluster.hear(&[(2, Follows(1)), (3, Follows(1)), (2, Follows(1))]);
    assert_eq!(cluster.why(), "the primary db1 is down since 1 s: connection refused");

    // Someone promotes db3, and db1 comes back writable with db2 still attached to it.
    cluster.hear(&[(3, Writable)]);
    assert_eq!(cluster.primary(), Some("db3"));
    cluster.hear(&[(1, Writable)]);
    assert_eq!(cluster.primary(), None, "equal histories: contradictory");
    assert!(cluster.why().contains("db1 has replicas attached"), "{}", cluster.why());
}

#[test]
fn the_longer_history_wins_over_attached_replicas() {
    // db3 was promoted and written to; db1 comes back writable, db2 still points to it.
    let mut cluster = Cluster::settled();
    cluster.hear(&[(1, Nothing), (1, Nothing), (1, Nothing), (3, Promoted)]);
    assert_eq!(cluster.primary(), Some("db3"));
    cluster.hear(&[(1, Writable)]);
    assert_eq!(cluster.primary(), Some("db3"));

    // db1 froze for a moment; meanwhile db3 was promoted, written to, and db2 moved.
    let mut cluster = Cluster::settled();
    cluster.hear(&[(1, Nothing), (3, Promoted), (2, Follows(3)), (1, Writable)]);
    assert_eq!(cluster.primary(), Some("db3"));

    // At start nothing is remembered: attached replicas against a longer history is no answer.
    let mut cluster = Cluster::new(3);
    cluster.hear(&[(3, Promoted), (2, Follows(1)), (1, Writable)]);
    assert_eq!(cluster.primary(), None);
}

#[test]
fn an_old_primary_that_returns_does_not_take_over() {
    let mut cluster = Cluster::settled();
    cluster.hear(&[(1, Nothing), (1, Nothing), (1, Nothing)]);
    cluster.hear(&[(3, Writable), (2, Follows(3)), (1, Writable)]);
    assert_eq!(cluster.primary(), Some("db3"));
    assert_eq!(cluster.node(1).role, Role::Unknown);
}

#[test]
fn an_empty_stranger_is_not_promoted_while_the_primary_is_read_only() {
    let mut cluster = Cluster::settled();
    cluster.hear(&[(3, Blank), (1, ReadOnly)]);
    assert_eq!(cluster.primary(), None);
    assert!(cluster.why().contains("db1 does not replicate and is read_only"));
}

#[test]
fn a_wrong_monitor_password_bans_nobody() {
    let mut cluster = Cluster::settled();
    let before = cluster.topology.generation;
    for _ in 0..5 {
        cluster.hear(&[(1, Denied), (2, Denied), (3, Denied)]);
    }
    assert_eq!(cluster.primary(), Some("db1"));
    assert!(cluster.topology.nodes.iter().all(|node| node.condition == Condition::Up));
    assert!(cluster.node(2).trouble.starts_with("access denied"));
    assert_eq!(cluster.topology.generation, before);
}

#[test]
fn circular_replication_has_no_primary() {
    let mut cluster = Cluster::new(2);
    cluster.hear(&[(1, FollowsWritable(2)), (2, FollowsWritable(1))]);
    assert_eq!(cluster.primary(), None);
    assert!(cluster.why().contains("db1 replicates from db2:3306"), "{}", cluster.why());
}

#[test]
fn a_group_may_hang_below_another_cluster() {
    let mut cluster = Cluster::new(2);
    cluster.hear(&[(1, FollowsWritable(77)), (2, Follows(1))]);
    assert_eq!(cluster.primary(), Some("db1"), "its source is no member");
}

#[test]
fn an_operators_wish_survives_probes() {
    let mut cluster = Cluster::settled();
    cluster.overrides.drained.insert("db2".to_owned());
    cluster.overrides.weights.insert("db3".to_owned(), 7);
    cluster.hear(&[(2, Follows(1)), (3, Follows(1)), (2, Nothing), (2, Follows(1))]);
    assert_eq!(cluster.node(2).condition, Condition::Draining);
    assert_eq!(cluster.node(3).weight, 7);
    cluster.overrides.excluded.insert("db1".to_owned());
    cluster.hear(&[(1, Writable)]);
    assert_eq!(cluster.primary(), None);
    assert_eq!(cluster.why(), "the primary db1 is excluded by an operator's command");
    cluster.overrides.excluded.clear();
    cluster.hear(&[(1, Writable)]);
    assert_eq!(cluster.primary(), Some("db1"));
}

#[test]
fn generations_count_changes_not_probes() {
    let mut cluster = Cluster::settled();
    let settled = cluster.topology.generation;
    for _ in 0..10 {
        cluster.hear(&[(1, Writable), (2, Follows(1)), (3, Follows(1))]);
    }
    assert_eq!(cluster.topology.generation, settled);
    cluster.hear(&[(2, Nothing)]);
    assert_eq!(cluster.topology.generation, settled + 1);
}

#[test]
fn positions_and_lag_follow_roles() {
    let mut cluster = Cluster::settled();
    let began = cluster.now;
    cluster.trail.push(began, gtid("0-1-10"));
    cluster.trail.push(began + Duration::from_millis(100), gtid("0-1-50"));
    cluster.hear(&[(2, Follows(1))]);
    assert_eq!(cluster.node(2).lag, Some(Duration::from_millis(400)), "it is at 0-1-10");
    assert_eq!(cluster.node(1).lag, Some(Duration::ZERO));
    // Without any known position of the primary the server's own figure must do.
    cluster.trail.clear();
    cluster.hear(&[(2, Follows(1))]);
    assert_eq!(cluster.node(2).lag, Some(Duration::ZERO));
}

#[test]
fn a_stopped_applier_is_shown() {
    let mut cluster = Cluster::settled();
    let mut seen = fixture::seen(2);
    let mut link = source(1);
    link.applying = false;
    link.error = "1062 duplicate entry".to_owned();
    seen.sources = vec![link];
    let observation = Observation { began: cluster.now, ended: cluster.now, result: Ok(seen) };
    cluster.members[1].judgement.observe(observation, LIMITS);
    let before = cluster.topology.generation;
    cluster.assemble();
    assert!(!cluster.node(2).applying);
    assert_eq!(cluster.node(2).trouble, "1062 duplicate entry");
    assert!(cluster.topology.generation > before);
}

#[test]
fn a_removed_server_leaves_a_tombstone() {
    let mut cluster = Cluster::settled();
    cluster.members[1].gone = Some("removed from the configuration".to_owned());
    cluster.hear(&[(1, Writable)]);
    let tombstone = cluster.node(2);
    assert_eq!((tombstone.condition, tombstone.role), (Condition::Excluded, Role::Unknown));
    assert_eq!(cluster.primary(), Some("db1"));
}

#[test]
fn an_appointed_server_that_may_have_been_started_anew_takes_no_writes_by_itself() {
    let mut cluster = Cluster::settled();
    let appoint = |at| Appointment::Server("db1".to_owned(), at);
    cluster.overrides.appointment = appoint(cluster.now);
    cluster.hear(&[(1, Writable)]);
    assert_eq!(cluster.primary(), Some("db1"));
    cluster.hear(&[(1, Nothing)]);
    assert_eq!((cluster.primary(), cluster.node(1).role), (None, Role::Primary));
    assert!(cluster.why().starts_with("db1 has not answered"), "{}", cluster.why());
    let began = cluster.now;
    let started = Some(began + Duration::from_secs(1));
    let seen = Seen { started, ..fixture::seen(1) };
    let observation = Observation { began, ended: began, result: Ok(seen) };
    cluster.members[0].judgement.observe(observation, LIMITS);
    cluster.assemble();
    assert_eq!(cluster.primary(), None);
    assert!(cluster.why().contains("started anew"), "{}", cluster.why());
    cluster.overrides.appointment = appoint(began + Duration::from_secs(2));
    cluster.assemble();
    assert_eq!(cluster.primary(), Some("db1"));
}

#[test]
fn a_primary_that_is_given_up_counts_as_down_though_it_answers() {
    let mut cluster = Cluster::settled();
    let why = "replacing db1";
    cluster.overrides.appointment = Appointment::Replacing("db1".to_owned(), why.to_owned());
    cluster.hear(&[(1, Writable)]);
    assert_eq!((cluster.primary(), cluster.node(1).condition), (None, Condition::Down));
    assert_eq!(cluster.why(), why);
    assert_eq!(cluster.node(2).condition, Condition::Up);
}
