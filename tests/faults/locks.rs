//! Several pointsman that agree by locks on the servers, without an etcd: the one that acts dies,
//! freezes, or reaches nobody any more while the primary fails.

use mysql_async::prelude::Queryable as _;
use pointsman::app::tasks;
use pointsman::provider::local::Cluster;
use pointsman::provider::replication::{KEEPER, REPL};
use pointsman::provider::server::Server;
use pointsman::provider::{Flavour, Host};
use rustix::process::Signal;

use crate::cluster::{connected, is_1290, leader, make_marks, marked, stop, writes};
use crate::console::console_says;
use crate::kept::{epoch, follows, make_known, prepared_on, standing, wait_safe, writable};
use crate::ledger::Ledger;
use crate::network::{Network, is_entered};
use crate::proxy::{Proxy, configuration_with};
use crate::scene::times;
use crate::{servers, wait};

/// The hosts of the servers are 0 to 2, then come those of pointsman.
const PROXIES: [usize; 3] = [3, 4, 5];

/// Three servers and three pointsman, each on a host of its own.
struct Place {
    network: Network,
    cluster: Cluster,
    proxies: Vec<Proxy>,
}

/// What becomes of the one that acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It ends as in a crash, and is started again afterwards.
    Killed,
    /// It is stopped, and goes on when another one has brought the change to its end.
    Frozen,
    /// It reaches nobody until then.
    Parted,
}

/// Builds a place, or nothing where that cannot be; `test` is the whole name of the test.
async fn place(test: &str, flavour: Flavour, group: &str) -> Option<Place> {
    if !servers::present(flavour) || !is_entered(test) {
        return None;
    }
    let network = Network::of(6).await;
    let hosts = |numbers: &[usize]| -> Vec<Host> {
        numbers.iter().map(|number| network.host(*number)).collect()
    };
    let cluster = prepared_on(flavour, hosts(&[0, 1, 2])).await;
    make_known(&cluster).await;
    let list = cluster.servers().iter();
    let list: String = list
        .map(|server| format!("[[groups.main.servers]]\naddress = \"{}\"\n", server.address()))
        .collect();
    let mut proxies = Vec::new();
    for (number, host) in (1..).zip(hosts(&PROXIES)) {
        let (repl, password) = REPL;
        let settings = format!(
            "server_tls = \"off\"\n{group}\n{list}[groups.main.failover]\nmode = \"auto\"\n\
             anti_flap = \"0\"\nreplication_user = \"{repl}\"\n\
             replication_password = \"{password}\"\n[cluster]\nlocks = true\nid = \"pm{number}\"\n"
        );
        let config = configuration_with(KEEPER, "timeout = \"500ms\"", &[], &settings);
        let config = config.replace("seeds = []\n", "");
        let proxy = Proxy::with_config_on(host, &config).await;
        proxies.push(proxy.unwrap_or_else(|why| panic!("{why}")));
    }
    let acting = leader(&proxies).await;
    wait_safe(&cluster, &proxies[acting]).await;
    make_marks(&cluster).await;
    let place = Place { network, cluster, proxies };
    place.wait_noted().await;
    Some(place)
}

impl Place {
    /// Nothing gets from this pointsman to anybody, or from anybody to it.
    fn isolate(&self, proxy: usize) {
        let own = PROXIES[proxy];
        let others = (0..PROXIES[2] + 1).filter(|at| *at != own);
        others.for_each(|at| self.network.part(own, at));
    }

    /// Waits until each pointsman knows that a failover would lose nothing.
    async fn wait_noted(&self) {
        for proxy in &self.proxies {
            wait::until("each to have seen that all is well", || async {
                let text = std::fs::read_to_string(proxy.dir.join("keeper-main.json")).ok()?;
                let is_noted =
                    text.contains("\"lossless\": true") && text.contains("\"operation\": null");
                is_noted.then_some(())
            })
            .await;
        }
    }

    /// Waits until one of them has begun a stage of a change of the primary: which. It may be
    /// another than the one that acted before, where that one has lost a lock with the primary. The
    /// last stage may be over before it is seen: then it is who has brought it to its end.
    async fn wait_stage(&self, stage: &str) -> usize {
        let said = format!("\"stage\": \"{stage}\"");
        let done =
            |at: usize| self.proxies[at].metric("pointsman_failovers_total", &["outcome=\"done\""]);
        let before: Vec<f64> = (0..self.proxies.len()).map(done).collect();
        let is_there = |at: &usize| {
            let record = std::fs::read_to_string(self.proxies[*at].dir.join("keeper-main.json"));
            record.is_ok_and(|record| record.contains(&said)) || done(*at) > before[*at]
        };
        wait::until("a stage to begin", || async { (0..before.len()).find(is_there) }).await
    }

    fn server(&self, name: &str) -> &Server {
        self.cluster.server(name).expect("one of them")
    }

    /// The only server that takes writes.
    async fn head(&self) -> String {
        let heads = writable(&self.cluster).await;
        let [head] = heads.as_slice() else { panic!("{heads:?}") };
        head.name.clone()
    }
}

/// One failover, at a stage of which that becomes of the pointsman that acts. Whether the group is
/// whole afterwards: one that was killed may have what nobody has acknowledged.
async fn happens(place: &mut Place, ledger: &Ledger, fate: Fate, stage: &str) -> bool {
    let acting = leader(&place.proxies).await;
    wait_safe(&place.cluster, &place.proxies[acting]).await;
    place.wait_noted().await;
    ledger.more(30).await;
    let dead = place.head().await;
    ledger.take_gap();
    place.cluster.kill(&dead).await.expect("it is killed");
    let acting = place.wait_stage(stage).await;
    match fate {
        Fate::Killed => place.proxies[acting].signal(Signal::KILL),
        Fate::Frozen => stop(&place.proxies[acting]).await,
        Fate::Parted => place.isolate(acting),
    }
    ledger.more(50).await;
    println!("{fate:?} at {stage}: {:?} without a write", ledger.take_gap());
    let head = place.head().await;
    assert_ne!(head, dead);
    match fate {
        Fate::Killed => place.proxies[acting].start_again().await,
        Fate::Frozen => place.proxies[acting].signal(Signal::CONT),
        Fate::Parted => place.network.mend(),
    }
    for proxy in &place.proxies {
        writes(proxy).await;
    }
    place.cluster.start(&dead).await.expect("it comes back");
    make_known(&place.cluster).await;
    let head_port = place.server(&head).port;
    let is_whole = wait::until("the dead one to follow, or to stay out", || async {
        let (dead, acting) = (place.server(&dead), leader(&place.proxies).await);
        let says = standing(&place.proxies[acting]).await.1;
        let is_out = says.contains(&dead.address()) && says.contains("stays out");
        let follows = follows(place.cluster.flavour(), dead, head_port).await;
        (is_out || follows).then_some(!is_out)
    })
    .await;
    assert_eq!(place.head().await, head, "who was away changes nothing");
    ledger.hold().await;
    let audit = ledger.audit(&[place.server(&head)]).await;
    assert!(audit.is_sound(false), "{fate:?} at {stage}: {audit:?}");
    ledger.resume();
    is_whole
}

/// Lets it happen at each stage; once, or as often as asked.
async fn at_each_stage(test: &str, flavour: Flavour, fate: Fate) {
    let mut kept = None;
    for stage in (0..times().unwrap_or(1)).flat_map(|_| ["Revoke", "Establish", "Open"]) {
        let (mut now, mut ledger) = match kept.take() {
            Some(kept) => kept,
            None => {
                let Some(now) = place(test, flavour, "").await else { return };
                let proxies: Vec<&Proxy> = now.proxies.iter().collect();
                let ledger = Ledger::open(&now.cluster, &proxies).await;
                (now, ledger)
            }
        };
        match happens(&mut now, &ledger, fate, stage).await {
            true => kept = Some((now, ledger)),
            false => ledger.close().await,
        }
    }
    if let Some((_, mut ledger)) = kept {
        ledger.close().await;
    }
}

#[tokio::test]
async fn who_acts_is_killed_at_each_stage() {
    at_each_stage("locks::who_acts_is_killed_at_each_stage", Flavour::Mariadb, Fate::Killed).await;
}

#[tokio::test]
async fn who_acts_is_killed_at_each_stage_in_front_of_mysql() {
    let test = "locks::who_acts_is_killed_at_each_stage_in_front_of_mysql";
    at_each_stage(test, Flavour::Mysql, Fate::Killed).await;
}

#[tokio::test]
async fn who_acts_freezes_at_each_stage() {
    at_each_stage("locks::who_acts_freezes_at_each_stage", Flavour::Mariadb, Fate::Frozen).await;
}

#[tokio::test]
async fn who_acts_reaches_nobody_at_each_stage() {
    at_each_stage("locks::who_acts_reaches_nobody_at_each_stage", Flavour::Mariadb, Fate::Parted)
        .await;
}

/// The one that acts is killed while all is well: nobody notices, and the next one does all that a
/// keeper does.
#[tokio::test]
async fn a_killed_pointsman_is_replaced_and_writes_go_on_meanwhile() {
    let test = "locks::a_killed_pointsman_is_replaced_and_writes_go_on_meanwhile";
    let Some(mut place) = place(test, Flavour::Mariadb, "").await else { return };
    let first = leader(&place.proxies).await;
    let killed = place.proxies.remove(first);
    let mut ledger = Ledger::open(&place.cluster, &place.proxies.iter().collect::<Vec<_>>()).await;
    ledger.more(50).await;
    ledger.take_gap();
    killed.signal(Signal::KILL);
    let next = leader(&place.proxies).await;
    ledger.more(50).await;
    println!("{:?} without a write while another took over", ledger.take_gap());
    assert!(ledger.take_gap() < std::time::Duration::from_secs(2));
    wait_safe(&place.cluster, &place.proxies[next]).await;
    place.wait_noted().await;
    let before = place.head().await;
    // SWITCHOVER is for the one that acts.
    let answer = wait::until("a switchover", || async {
        // A replica may be too far behind for it, under load.
        let said = console_says(&place.proxies[next], "SWITCHOVER main").await;
        said.inspect_err(|refused| println!("{refused}")).ok()
    })
    .await;
    println!("{answer}; {:?} without a write", ledger.take_gap());
    ledger.more(50).await;
    let head = place.head().await;
    assert_ne!(head, before);
    for proxy in &place.proxies {
        writes(proxy).await;
    }
    ledger.close().await;
    ledger.check(&[place.server(&head)]).await;
}

/// One that was frozen for twenty seconds, in which the primary was replaced, sends what it was
/// told meanwhile to the next one, and changes nothing.
#[tokio::test]
async fn a_frozen_pointsman_wakes_up_and_forwards_nothing() {
    let test = "locks::a_frozen_pointsman_wakes_up_and_forwards_nothing";
    let Some(mut place) = place(test, Flavour::Mariadb, "").await else { return };
    let first = leader(&place.proxies).await;
    let frozen = place.proxies.remove(first);
    let mut ledger = Ledger::open(&place.cluster, &place.proxies.iter().collect::<Vec<_>>()).await;
    ledger.more(50).await;
    let mut early = connected(&frozen).await;
    early.query_drop("INSERT INTO marks VALUES ('early')").await.expect("it is answered");
    stop(&frozen).await;
    let begun = std::time::Instant::now();
    let sql = "INSERT INTO marks VALUES ('late')";
    let late = tasks::spawn("late", async move { early.query_drop(sql).await });
    let dead = place.head().await;
    place.cluster.kill(&dead).await.expect("it is killed");
    ledger.more(100).await;
    println!("{:?} without a write with a frozen keeper", ledger.take_gap());
    let next = leader(&place.proxies).await;
    let at = epoch(&place.proxies[next]);
    wait::until("twenty seconds", || async {
        (begun.elapsed() > std::time::Duration::from_secs(20)).then_some(())
    })
    .await;
    frozen.signal(Signal::CONT);
    late.await.expect("a task").expect("it waits for the new primary and is answered");
    assert_eq!(leader(&place.proxies).await, next);
    assert_eq!(epoch(&place.proxies[next]), at, "nothing was changed by who woke up");
    let head = place.head().await;
    assert_ne!(head, dead);
    ledger.more(20).await;
    ledger.close().await;
    assert!(marked(&place.cluster, "late").await.contains(&head));
    ledger.check(&[place.server(&head)]).await;
}

/// What comes to one that was stopped for longer than a lease is not sent to a primary, be that
/// alive and writable, as long as no majority says that it is one.
#[tokio::test]
async fn a_pointsman_that_wakes_up_sends_nothing_without_a_majority() {
    let test = "locks::a_pointsman_that_wakes_up_sends_nothing_without_a_majority";
    let Some(place) = place(test, Flavour::Mariadb, "hold = \"1s\"").await else { return };
    let head = place.head().await;
    let proxy = &place.proxies[0];
    let mut early = connected(proxy).await;
    early.query_drop("INSERT INTO marks VALUES ('early')").await.expect("it is answered");
    stop(proxy).await;
    let others = place.cluster.servers().iter().filter(|server| server.name != head);
    let others: Vec<&str> = others.map(|server| server.name.as_str()).collect();
    for other in &others {
        place.cluster.freeze(other).expect("it is frozen");
    }
    let sql = "INSERT INTO marks VALUES ('late')";
    let late = tasks::spawn("late", async move { early.query_drop(sql).await });
    let begun = std::time::Instant::now();
    wait::until("the lease to end", || async {
        (begun.elapsed() > std::time::Duration::from_secs(4)).then_some(())
    })
    .await;
    proxy.signal(Signal::CONT);
    let late = tokio::time::timeout(wait::PATIENCE, late).await.expect("it was sent to somebody");
    let refused = late.expect("a task").expect_err("no majority");
    assert!(is_1290(&refused, "majority of the servers"), "{refused}");
    for other in &others {
        place.cluster.thaw(other).expect("it goes on");
    }
    for proxy in &place.proxies {
        writes(proxy).await;
    }
    assert!(marked(&place.cluster, "late").await.is_empty());
}

/// The keeper is with the old primary where nobody else is: it sends nothing there any more, and
/// the other side goes on.
#[tokio::test]
async fn the_keeper_is_alone_with_the_primary() {
    let test = "locks::the_keeper_is_alone_with_the_primary";
    let Some(place) = place(test, Flavour::Mariadb, "hold = \"20s\"").await else { return };
    let alone = leader(&place.proxies).await;
    let others: Vec<usize> = (0..3).filter(|at| *at != alone).collect();
    let with = [&place.proxies[others[0]], &place.proxies[others[1]]];
    let mut ledger = Ledger::open(&place.cluster, &with).await;
    ledger.more(50).await;
    let former = place.head().await;
    let at = place.cluster.servers().iter().position(|server| server.name == former);
    let at = at.expect("it is one of them");
    let mut conn = connected(&place.proxies[alone]).await;
    conn.query_drop("INSERT INTO marks VALUES ('before')").await.expect("it is answered");
    ledger.take_gap();
    let near = [at, PROXIES[alone]];
    let far: Vec<usize> = (0..PROXIES[2] + 1).filter(|host| !near.contains(host)).collect();
    for (one, other) in near.iter().flat_map(|one| far.iter().map(move |other| (*one, *other))) {
        place.network.part(one, other);
    }
    ledger.more(50).await;
    println!("{:?} without a write after a partition", ledger.take_gap());
    let end = std::time::Instant::now() + wait::PATIENCE;
    loop {
        match conn.query_drop("INSERT INTO marks VALUES ('minority')").await {
            Ok(()) => assert!(std::time::Instant::now() < end, "it goes on by itself"),
            Err(refused) => {
                assert!(is_1290(&refused, "majority of the servers"), "{refused}");
                break;
            }
        }
    }
    place.network.mend();
    for proxy in &place.proxies {
        writes(proxy).await;
    }
    ledger.close().await;
    // The former one may stay out, with what it was sent last and nobody has acknowledged.
    let head = place.head().await;
    assert_ne!(head, former);
    assert!(marked(&place.cluster, "minority").await.is_empty());
    ledger.check(&[place.server(&head)]).await;
}
