//! A keeper that agrees with others by the servers, with servers that say what a test wants.

use std::collections::BTreeSet;
use std::sync::Mutex;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::cluster::desk::Leader;
use crate::cluster::desk::fixture::{Clerk, by_servers};
use crate::config::failover::{Failover, FailoverMode};
use crate::config::units::Secret;
use crate::config::{Group, Monitor, RoleHint, Server};
use crate::failover::chair::Chair;
use crate::failover::execute::{Failed, MayAct};
use crate::failover::fixture::{STARTED, mariadb_at, report};
use crate::failover::hook::Hook;
use crate::failover::journal::JournalError;
use crate::failover::keeper::{Away, Ties};
use crate::failover::order::What;
use crate::failover::standing::{Check, Mode};
use crate::failover::survey::Patience;
use crate::health;
use crate::health::cell::{Publisher, cell};
use crate::health::observation::Source;
use crate::secrets::SecretError;
use crate::topology::NodeId;
use crate::topology::fixture::node;

/// Says what it is told to say, and does nothing.
#[derive(Debug, Clone, Default)]
struct Says(Arc<Mutex<Vec<Report>>>);

impl Surgeon for Says {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn seconds(&self) -> u64 {
        STARTED + 60
    }

    async fn survey(&self, _: &Topology, _: &Monitor, _: Patience<'_>) -> Vec<Report> {
        self.0.lock().expect("one thread").clone()
    }

    async fn perform(
        &self,
        _: Vec<Order>,
        _: &Topology,
        _: &[Report],
        _: &Monitor,
        _: &MayAct,
    ) -> Vec<Failed> {
        Vec::new()
    }

    fn recorded(&self) -> Result<Record, JournalError> {
        Ok(Record::default())
    }

    async fn write_down(&self, _: &Record) -> Result<(), JournalError> {
        Ok(())
    }

    async fn password(&self, _: String) -> Result<Secret, SecretError> {
        Ok(Secret::new("secret".to_owned()))
    }

    async fn ask_hook(&self, _: Hook) -> Result<(), String> {
        Ok(())
    }

    fn tell_hook(&self, _: Hook) {}
}

/// A keeper of three servers, and what it has to do with others.
struct Place {
    keeper: Keeper<Says>,
    clerk: Clerk,
    says: Says,
    settings: Arc<ArcSwap<Settings>>,
    _publisher: Publisher,
}

const NAMES: [&str; 3] = ["db1", "db2", "db3"];

fn settings(mode: FailoverMode) -> Settings {
    let server = |name: &str| Server {
        address: Arc::from(format!("{name}:3306")),
        name: Arc::from(name),
        weight: 100,
        role: RoleHint::Auto,
    };
    let group = Group {
        name: Arc::from("main"),
        servers: NAMES.map(server).into(),
        failover: Failover { mode, ..Failover::default() },
        ..Group::default()
    };
    Settings { group: Arc::new(group), monitor: Monitor::default() }
}

/// One whose record names the first server the primary, which all others follow.
fn place() -> Place {
    let nodes = (0..).zip(NAMES).map(|(id, name)| node(id, name)).collect();
    let topology = Topology { nodes, primary: Some(NodeId(0)), ..Topology::empty("main") };
    let (cell, publisher) = cell(topology);
    let health = health::Health { cell, commands: mpsc::channel(1).0 };
    let (desk, clerk) = by_servers();
    let ties = Ties {
        commands: mpsc::channel(1).1,
        unfinished: mpsc::channel(1).0,
        acknowledged: Arc::default(),
        kept: Arc::default(),
        desk: Some(desk),
        chair: Chair::default(),
    };
    let record = Record {
        epoch: 1,
        primary: Some("db1".to_owned()),
        members: NAMES.map(str::to_owned).into(),
        lives: NAMES.map(|name| (name.to_owned(), STARTED)).into(),
        well_at: STARTED + 60,
        ..Record::default()
    };
    let settings = Arc::new(ArcSwap::from_pointee(settings(FailoverMode::Auto)));
    let says = Says::default();
    *says.0.lock().expect("one thread") =
        vec![primary("0-1-9", false), replica(2, "0-1-9"), replica(3, "0-1-9")];
    let keeper = Keeper::new(settings.clone(), says.clone(), health, record, ties);
    Place { keeper, clerk, says, settings, _publisher: publisher }
}

fn primary(has: &str, is_closed: bool) -> Report {
    let mut told = mariadb_at(has);
    let closed = if is_closed { "ON" } else { "OFF" };
    told.variables.extend([
        ("server_id".to_owned(), "1".to_owned()),
        ("read_only".to_owned(), closed.to_owned()),
    ]);
    told.counters.insert("uptime".to_owned(), "60".to_owned());
    // It began with less.
    told.received = GtidSet::parse_mariadb("0-1-2").expect("a position");
    report(0, told)
}

fn replica(number: u16, has: &str) -> Report {
    let source = Source {
        host: "db1".to_owned(),
        port: 3306,
        server_id: 1,
        receiving: true,
        applying: true,
        by_gtid: true,
        ..Source::default()
    };
    let told = Told { sources: vec![source], ..mariadb_at(has) };
    report(number - 1, told)
}

/// What is known where this server is named, and this keeper acts by this leadership.
fn view(term: u64, primary: Option<&str>, number: Option<i64>) -> View {
    let leader = number.map(|number| Leader { id: "pm1".to_owned(), number, is_own: true });
    let sight = Sight { primary: primary.map(str::to_owned), ..Sight::default() };
    View { term, leader, sight: Some(sight), ..View::default() }
}

#[tokio::test]
async fn what_the_one_before_has_told_the_primary_may_close_it_after_another_has_taken_over() {
    let mut place = place();
    place.clerk.shows(view(1, Some("db1"), None));
    place.keeper.turn().await;
    place.clerk.shows(view(1, Some("db1"), Some(1)));
    place.keeper.turn().await;
    assert!(!place.keeper.record.closed, "{:?}", place.keeper.record);
    place.says.0.lock().expect("one thread")[0] = primary("0-1-9", true);
    for _ in 0..3 {
        place.keeper.look_at = Instant::now();
        place.keeper.turn().await;
    }
    let operation = place.keeper.record.operation.as_ref();
    let doing = place.keeper.keeping().load().doing.clone();
    assert!(operation.is_some_and(|at| at.is_reopening()), "{operation:?}: {doing}");
}

#[tokio::test]
async fn who_has_not_heard_from_a_majority_meanwhile_knows_nothing_of_what_is_lost() {
    let mut place = place();
    place.clerk.shows(view(1, Some("db1"), None));
    place.keeper.turn().await;
    place.keeper.record.lossless = true;
    place.keeper.vouched = Some(Instant::now());
    place.keeper.look_at = Instant::now() + LOOK_EVERY;
    place.clerk.shows(view(1, Some("db1"), None));
    place.keeper.turn().await;
    assert!(place.keeper.record.lossless, "it has heard all the time");
    // The time between was so short that it has not been seen.
    place.clerk.shows(view(2, Some("db1"), None));
    place.keeper.turn().await;
    assert_eq!((place.keeper.record.lossless, place.keeper.vouched), (false, None));
}

#[tokio::test]
async fn who_has_acted_all_the_time_knows_what_it_knew() {
    let mut place = place();
    place.clerk.shows(view(1, Some("db1"), Some(1)));
    place.keeper.turn().await;
    let look_at = Instant::now() + LOOK_EVERY;
    (place.keeper.record.lossless, place.keeper.look_at) = (true, look_at);
    place.keeper.vouched = Some(Instant::now());
    // Servers that are told to stop receiving say nothing for a while.
    place.clerk.hides();
    place.keeper.turn().await;
    assert_eq!(place.keeper.vouched, None);
    place.keeper.look_at = look_at;
    place.clerk.shows(view(2, Some("db1"), Some(1)));
    place.keeper.turn().await;
    assert!(place.keeper.record.lossless);
    place.clerk.hides();
    place.keeper.turn().await;
    place.clerk.shows(view(3, Some("db1"), Some(2)));
    place.keeper.turn().await;
    assert!(!place.keeper.record.lossless, "another may have acted");
}

#[tokio::test]
async fn who_has_not_kept_the_group_meanwhile_knows_nothing_of_what_is_lost() {
    let mut place = place();
    place.clerk.shows(view(1, Some("db1"), None));
    place.keeper.turn().await;
    place.keeper.record.lossless = true;
    place.settings.store(Arc::new(settings(FailoverMode::Follow)));
    place.keeper.turn().await;
    place.settings.store(Arc::new(settings(FailoverMode::Auto)));
    place.keeper.turn().await;
    assert!(!place.keeper.record.lossless);
}

#[tokio::test]
async fn commits_that_did_not_wait_have_to_reach_a_replica_each_time() {
    let mut place = place();
    let (server, leaves) = (Arc::from("db1"), Mode::Safe);
    let checks = [Check { server, required: "that", met: true, leaves, found: String::new() }];
    let loses_nothing = |keeper: &mut Keeper<Says>, has: &str| {
        let all = [primary(has, false), replica(2, "0-1-9"), replica(3, "0-1-9")];
        let head = all[0].told().expect("it tells").clone();
        keeper.loses_nothing(&checks, &all, &head)
    };
    assert!(loses_nothing(&mut place.keeper, "0-1-9"));
    place.keeper.record.lossless = true;
    assert!(loses_nothing(&mut place.keeper, "0-1-10"), "its commits wait");
    // Whether they did in between is not known.
    place.keeper.lose_sight();
    assert!(!loses_nothing(&mut place.keeper, "0-1-20"));
    // Nor of another that somebody else has opened.
    let sight = Sight { primary: Some("db2".to_owned()), ..Sight::default() };
    place.keeper.record.lossless = false;
    assert!(loses_nothing(&mut place.keeper, "0-1-9") || place.keeper.unguarded.is_some());
    let settings = place.settings.load_full();
    place.keeper.following(&settings, Some("db2".to_owned()), &sight);
    assert_eq!(place.keeper.unguarded, None);
}

#[tokio::test]
async fn what_was_ordered_of_a_former_leadership_ends_with_it() {
    let mut place = place();
    place.clerk.shows(view(1, Some("db1"), Some(1)));
    place.keeper.turn().await;
    let (reply, mut answer) = oneshot::channel();
    place.keeper.asked_by = Some(reply);
    place.clerk.shows(view(1, Some("db1"), Some(2)));
    place.keeper.turn().await;
    assert!(matches!(answer.try_recv(), Ok(Err(_))), "who waits is told so");
}

/// MariaDB says of a replica that was started anew that its source's id is 0 until it has connected
/// to it again (10.11, measured).
#[tokio::test]
async fn one_that_was_started_anew_and_has_not_reached_its_source_may_have_forgotten() {
    let mut place = place();
    place.clerk.shows(view(1, Some("db1"), None));
    place.keeper.turn().await;
    let mut anew = replica(3, "0-1-5");
    for told in anew.told.iter_mut() {
        told.started = told.started.map(|at| at + 600);
        told.sources.iter_mut().for_each(|at| (at.server_id, at.receiving) = (0, false));
    }
    let reports = [primary("0-1-9", false), replica(2, "0-1-8"), anew];
    let topology = place.keeper.health.cell.load();
    let head = topology.node(NodeId(0)).expect("it is there");
    place.keeper.asked_at = Instant::now();
    assert!(place.keeper.note_members(&reports, &topology, head, true).await);
    let Record { floor, lives, .. } = &place.keeper.record;
    assert_eq!(floor, "0-1-9", "noted of {lives:?}");
}

impl Place {
    /// The keeper, which acts or does not, looks once at a primary that takes writes.
    async fn notes(&mut self, reports: &[Report]) -> Record {
        let topology = self.keeper.health.cell.load();
        let head = topology.node(NodeId(0)).expect("it is there");
        self.keeper.asked_at = Instant::now();
        assert!(self.keeper.note_members(reports, &topology, head, true).await);
        self.keeper.record.clone()
    }
}

/// A replica of which both threads are stopped, in the life that was noted.
fn resting(number: u16, has: &str) -> Report {
    let mut report = replica(number, has);
    let told = report.told.iter_mut().flat_map(|told| &mut told.sources);
    told.for_each(|at| (at.receiving, at.receiver_stopped, at.applying) = (false, true, false));
    report
}

/// A replica that applies what a restart has left in its relay log.
fn rescued(number: u16, has: &str) -> Report {
    let mut report = resting(number, has);
    let told = report.told.iter_mut().flat_map(|told| &mut told.sources);
    told.for_each(|at| (at.applying, at.by_gtid) = (true, false));
    report
}

/// Who acts takes its life out of its record before it starts it, and nobody else would hear.
#[tokio::test]
async fn a_replica_that_rests_is_started_after_others_have_noted_what_it_may_forget() {
    let mut place = place();
    place.clerk.shows(view(1, Some("db1"), Some(1)));
    place.keeper.turn().await;
    let reports = [primary("0-1-9", false), replica(2, "0-1-8"), resting(3, "0-1-5")];
    assert_eq!(place.notes(&reports).await.floor, "0-1-9");
    let starts = [What::StartApplier, What::StartReceiver, What::StartReceiver];
    let orders = starts.into_iter().zip([2, 2, 1]);
    let orders: Vec<Order> =
        orders.map(|(what, node)| Order { node: NodeId(node), what }).collect();
    let left = |place: &Place| {
        let mut left = orders.clone();
        place.keeper.let_others_look(&mut left, &reports);
        left.iter().map(|order| order.node.0).collect::<Vec<_>>()
    };
    assert_eq!(left(&place), [1]);
    let company = place.keeper.company.as_mut().expect("it has some");
    company.resting.values_mut().for_each(|since| *since -= OTHERS_LOOK);
    place.notes(&reports).await;
    assert_eq!(left(&place), [2, 2, 1]);
    // It has run meanwhile.
    place.notes(&[primary("0-1-9", false), replica(3, "0-1-9")]).await;
    place.notes(&reports).await;
    assert_eq!(left(&place), [1]);
}

/// Each has a record of its own: another would have to know whom this one keeps out.
#[tokio::test]
async fn nobody_is_evicted_and_who_was_once_is_a_member_again() {
    let mut place = place();
    let own: BTreeSet<String> = ["pointsman_replica_3".to_owned()].into();
    place.keeper.record.members.remove("db3");
    place.keeper.record.locked.insert("db3".to_owned(), own.clone());
    place.keeper.record.accounts.insert("db3".to_owned(), own);
    assert!(place.keeper.record.is_evicted("db3"));
    place.clerk.shows(view(1, Some("db1"), Some(1)));
    place.keeper.turn().await;
    assert!(!place.keeper.record.is_evicted("db3"), "it may have been let in by another");
    let since = Instant::now() - Duration::from_secs(600);
    place.keeper.away.insert("db3".to_owned(), Away { since, answers: false });
    let settings = place.settings.load_full();
    assert_eq!(place.keeper.evictable(&settings), BTreeSet::new());
    // Nor by what it has noted of another primary's accounts.
    place.keeper.record.members.remove("db3");
    let sight = Sight { primary: Some("db2".to_owned()), ..Sight::default() };
    let record = place.keeper.following(&settings, Some("db2".to_owned()), &sight);
    assert!(!record.is_evicted("db3"));
}

#[tokio::test]
async fn what_was_rescued_under_another_leadership_is_wanted_and_says_nothing_of_now() {
    let mut place = place();
    let noted = BTreeMap::from([("db3".to_owned(), "0-1-12".to_owned())]);
    place.clerk.shows(view(1, Some("db1"), Some(1)));
    place.keeper.turn().await;
    place.keeper.record.rescued.clone_from(&noted);
    (place.keeper.vouched, place.keeper.look_at) =
        (Some(Instant::now()), Instant::now() + LOOK_EVERY);
    place.keeper.turn().await;
    assert_eq!(place.keeper.record.rescued, noted, "it has acted all the time");
    let sight = Sight { primary: Some("db1".to_owned()), ..Sight::default() };
    let settings = place.settings.load_full();
    assert!(place.keeper.inherit(&settings, &sight).await);
    let Record { rescued, floor, .. } = &place.keeper.record;
    assert_eq!((rescued.len(), floor.as_str()), (0, "0-1-12"));
}

#[tokio::test]
async fn one_that_another_may_have_told_to_apply_its_relay_log_may_have_more_than_it_tells() {
    let mut place = place();
    place.clerk.shows(view(1, Some("db1"), Some(1)));
    place.keeper.turn().await;
    let (head, other) = (primary("0-1-9", false), rescued(3, "0-1-5"));
    let topology = place.keeper.health.cell.load();
    let node = topology.node(NodeId(0)).expect("it is there");
    let back = |place: &Place, head: &Report| {
        place.keeper.returned((node, head.told().expect("it tells")), &[&other])
    };
    place.keeper.well_at = Some(Instant::now());
    assert_eq!(back(&place, &head), Return::Sound, "it was not started anew");
    let mut anew = head.clone();
    let uptime = ("uptime".to_owned(), "0".to_owned());
    anew.told.iter_mut().for_each(|told| told.counters.extend([uptime.clone()]));
    assert!(matches!(back(&place, &anew), Return::Unsure(why) if why.contains("db3")));
    // As long as the primary lives that has all of it; then it goes by GTID again.
    let record = place.notes(&[head, replica(2, "0-1-8"), other.clone()]).await;
    assert_eq!(record.rescued.get("db3").map(String::as_str), Some(""));
    assert_eq!(record.floor, "0-1-9");
    let record = place.notes(&[primary("0-1-9", false), replica(3, "0-1-8")]).await;
    assert_eq!(record.rescued.len(), 0);
}

/// The primary may die before it has sent again what a replica deletes.
#[tokio::test]
async fn who_may_be_about_to_delete_something_is_in_doubt_before() {
    let reports = [primary("0-1-9", false), replica(2, "0-1-9"), replica(3, "0-1-9")];
    for what in [What::StartApplier, What::StartReceiver, What::RestartReceiver, What::ByGtid] {
        let mut place = place();
        let orders = [Order { node: NodeId(1), what }];
        assert!(place.keeper.note_deletions(&orders, &reports).await);
        let lives = &place.keeper.record.lives;
        assert!(!lives.contains_key("db2") && lives.contains_key("db3"), "{orders:?}");
    }
}

/// In maintenance nobody would have it receive again, however late it stops.
#[tokio::test]
async fn who_has_not_answered_when_it_was_to_stop_receiving_may_stop_yet() {
    let mut place = place();
    place.clerk.shows(view(1, Some("db1"), Some(1)));
    place.keeper.turn().await;
    let topology = place.keeper.health.cell.load();
    let failed = |node, denied| Failed {
        order: Order { node: NodeId(node), what: What::StopReceiver },
        why: String::new(),
        denied,
    };
    place.keeper.note_unanswered(&[failed(1, false), failed(2, true)], &topology).await;
    place.keeper.record.cut_off = ["db2", "db3"].map(str::to_owned).into();
    place.keeper.look_at = Instant::now();
    place.keeper.turn().await;
    assert_eq!(place.keeper.record.cut_off, ["db2".to_owned()].into());
}
