//! What a keeper waits for, and what operators order.

use mysql_async::prelude::Queryable as _;
use pointsman::app::tasks;
use pointsman::provider::Flavour;
use pointsman::provider::local::Cluster;
use pointsman::provider::replication::{self, APP, KEEPER, ROOT};
use pointsman::provider::server::Server;
use tokio::sync::watch;

use crate::console::{console, console_says};
use crate::kept::{DURABLE, follows, kept, kept_in, standing, wait_old, wait_safe, writable};
use crate::ledger::{Ledger, Told};
use crate::proxy::{Proxy, configuration_with};
use crate::{clients, servers, wait};

#[tokio::test]
async fn a_failover_that_could_lose_something_waits_for_an_operator() {
    for flavour in servers::flavours() {
        let (cluster, proxy) = kept(flavour, "").await;
        let replica = cluster.replicas().expect("two replicas")[0];
        let primary = cluster.primary().expect("a primary");
        // Either replica may be the only one that has what was acknowledged last.
        cluster.kill(&replica.name).await.expect("it is killed");
        cluster.kill(&primary.name).await.expect("it is killed");
        wait::until("the keeper to say why it waits", || async {
            standing(&proxy).await.1.contains("which may have acknowledged").then_some(())
        })
        .await;
        assert!(writable(&cluster).await.is_empty());
        // The replica comes back: with all that it had received, on MySQL.
        cluster.start(&replica.name).await.expect("it comes back");
        match flavour {
            Flavour::Mysql => {
                wait::until("a new primary", || async {
                    (writable(&cluster).await.len() == 1).then_some(())
                })
                .await;
            }
            Flavour::Mariadb => {
                wait::until("the keeper to say what is still in doubt", || async {
                    standing(&proxy).await.1.contains("MariaDB has deleted").then_some(())
                })
                .await;
                assert!(writable(&cluster).await.is_empty());
                cluster.start(&primary.name).await.expect("it comes back");
                // It, too, deletes something when it is started.
                wait::until("the keeper to say what an operator can do", || async {
                    let says = standing(&proxy).await.1;
                    says.contains("max_loss = \"some\" accepts that").then_some(())
                })
                .await;
                let mode = "mode = \"auto\"";
                let lossy = format!("{mode}\nmax_loss = \"some\"");
                proxy.reload(|strict| strict.replace(mode, &lossy));
                wait_safe(&cluster, &proxy).await;
                assert_eq!(writable(&cluster).await[0].name, primary.name);
            }
        }
    }
}

/// Its option file makes no commit wait, as is usual: the keeper has made them wait.
#[tokio::test]
async fn a_primary_that_was_started_between_two_probes_acknowledges_nothing_alone() {
    for flavour in servers::flavours() {
        let (off, waited) = match flavour {
            Flavour::Mariadb => ("rpl-semi-sync-master-enabled", "RPL_SEMI_SYNC_MASTER_YES_TX"),
            Flavour::Mysql => ("rpl-semi-sync-source-enabled", "RPL_SEMI_SYNC_SOURCE_YES_TX"),
        };
        let looks = match flavour {
            Flavour::Mariadb => "COM_SHOW_SLAVE_STATUS",
            Flavour::Mysql => "COM_SHOW_REPLICA_STATUS",
        };
        let off = format!("--loose-{off}=0");
        let options: Vec<&str> = DURABLE.iter().copied().chain([&*off]).collect();
        let cluster = servers::own_with(flavour, 2, &options).await;
        let primary = cluster.primary().expect("a primary");
        let account = replication::keeper_account(flavour);
        let table = "CREATE TABLE app.t (id INT PRIMARY KEY, port INT)".to_owned();
        let statements = account.into_iter().chain([table]).collect::<Vec<_>>();
        primary.run(&statements).await.expect("the keeper's account");
        cluster.wait_caught_up().await.expect("replicas have it");
        // Replicas that were started after the primary was seen last may have forgotten something,
        // and one start is told from another where seconds lie between them.
        wait_old(&cluster, 5).await;
        // Nothing but a client looks at a server in time.
        let group = "[groups.main.failover]\nmode = \"auto\"\n";
        let config = configuration_with(KEEPER, "", &[&primary.address()], group);
        let config = config.replace("interval = \"100ms\"", "interval = \"60s\"");
        let proxy = Proxy::with_config(&config).await.unwrap_or_else(|why| panic!("{why}"));
        // The client comes at once, or the keeper has looked at the server before.
        for id in [1, 2] {
            wait_safe(&cluster, &proxy).await;
            // What it says may be older than its last order, after which a replica is in doubt.
            wait::until("the keeper to note that commits wait, and who lives", || async {
                let noted = std::fs::read_to_string(proxy.dir.join("keeper-main.json")).ok()?;
                let noted: serde_json::Value = serde_json::from_str(&noted).ok()?;
                let lives = |server: &Server| noted["lives"].get(server.address()).is_some();
                let is_head = |server: &Server| noted["primary"] == server.address();
                // MySQL keeps what it has received.
                let all = flavour == Flavour::Mysql
                    || cluster.servers().iter().all(|at| lives(at) || is_head(at));
                (noted["lossless"] == true && all).then_some(())
            })
            .await;
            cluster.kill(&primary.name).await.expect("it is killed");
            cluster.start(&primary.name).await.expect("it comes back");
            wait::until("a look at the server, where one is to be", || async {
                let looked = servers::status(primary, flavour, looks).await;
                (id == 1 || looked != "0").then_some(())
            })
            .await;
            let mut conn = clients::connect(proxy.port, APP).await;
            conn.query_drop(format!("INSERT INTO t VALUES ({id}, @@port)")).await.expect("a write");
            // Where a replica has received more than what has come back, it takes the write.
            let sql = format!("SELECT port FROM t WHERE id = {id}");
            let port: Option<u16> = conn.query_first(sql).await.expect("it is read");
            let mut all = cluster.servers().iter();
            let wrote = all.find(|server| Some(server.port) == port).expect("it has a port");
            let waited = servers::status(wrote, flavour, waited).await;
            assert_ne!(waited, "0", "{flavour:?}: nobody has acknowledged row {id}");
        }
    }
}

/// Waits until all others replicate from this server and nobody else takes writes.
async fn wait_led_by(cluster: &Cluster, head: &Server) {
    let flavour = cluster.flavour();
    wait::until("one primary that all others follow", || async {
        let heads = writable(cluster).await;
        let mut led = heads.len() == 1 && heads[0].name == head.name;
        for server in cluster.servers().iter().filter(|server| server.name != head.name) {
            led = led && follows(flavour, server, head.port).await;
        }
        led.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_switchover_there_and_back_is_noticed_by_no_client() {
    for flavour in servers::flavours() {
        let (cluster, proxy) = kept(flavour, "").await;
        let mut ledger = Ledger::open(&cluster, &[&proxy]).await;
        ledger.more(200).await;
        let first = cluster.primary().expect("a primary");
        let second = cluster.replicas().expect("two replicas")[0];
        for to in [second, first] {
            let order = format!("SWITCHOVER main TO '{}'", to.address());
            // On a busy machine what has come back never catches up with all of them.
            ledger.hold().await;
            wait::until("a switchover that is not refused for a lag", || async {
                let explained = console_says(&proxy, &format!("EXPLAIN {order}")).await;
                let behind = |error: &mysql_async::Error| error.to_string().contains(" s behind");
                assert!(explained.as_ref().err().is_none_or(behind), "{explained:?}");
                explained.ok()
            })
            .await;
            ledger.resume();
            ledger.more(20).await;
            ledger.take_gap();
            let told = console(&proxy, &order).await;
            assert!(told.starts_with(&format!("{} takes the writes", to.address())), "{told}");
            ledger.more(200).await;
            println!("{flavour:?}: {:?} without a write in a switchover", ledger.take_gap());
            println!("{flavour:?}: {told}");
            wait_led_by(&cluster, to).await;
            wait_safe(&cluster, &proxy).await;
        }
        ledger.more(50).await;
        ledger.close().await;
        ledger.check(&cluster.servers().iter().collect::<Vec<_>>()).await;
        let [unknown, denied] = ledger.told().since(&Told::default());
        println!("{flavour:?}: {} acknowledged", ledger.count());
        assert!(unknown.is_empty() && denied.is_empty(), "{unknown:?} {denied:?}");
        let done = proxy.metric("pointsman_switchovers_total", &["outcome=\"done\""]);
        assert_eq!(done, 2.0);
        wait::until("the keeper to say that it is safe", || async {
            let safe = proxy.metric("pointsman_keeper_standing", &["standing=\"safe\""]);
            (safe == 1.0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_transaction_that_does_not_end_in_time_is_done_again_on_the_new_primary() {
    for flavour in servers::flavours() {
        let (cluster, proxy) = kept(flavour, "").await;
        let primary = cluster.primary().expect("a primary");
        primary.run(&["CREATE TABLE app.ledger (id BIGINT, KEY (id))"]).await.expect("a table");
        let mut conn = clients::connect(proxy.port, APP).await;
        conn.query_drop("BEGIN").await.expect("a transaction");
        conn.query_drop("INSERT INTO ledger VALUES (1)").await.expect("a row");
        let told = console(&proxy, "SWITCHOVER").await;
        assert!(told.contains("takes the writes in place of"), "{told}");
        conn.query_drop("INSERT INTO ledger VALUES (2)").await.expect("it goes on");
        conn.query_drop("COMMIT").await.expect("a commit on the new primary");
        wait_safe(&cluster, &proxy).await;
        for server in cluster.servers() {
            wait::until("every server to have what was committed", || async {
                let ids = "SELECT GROUP_CONCAT(id ORDER BY id) FROM app.ledger";
                server.ask(ids).await.is_ok_and(|ids| ids == "1,2").then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_keeper_that_was_killed_in_the_middle_of_a_switchover_goes_on() {
    for flavour in servers::flavours() {
        let (cluster, mut proxy) = kept(flavour, "").await;
        let primary = cluster.primary().expect("a primary");
        primary.run(&["CREATE TABLE app.ledger (id BIGINT, KEY (id))"]).await.expect("a table");
        let heir = cluster.replicas().expect("two replicas")[0];
        cluster.wait_caught_up().await.expect("replicas have it");
        let mut locks = mysql_async::Conn::new(heir.opts(ROOT)).await.expect("a session");
        locks.query_drop("LOCK TABLES app.ledger READ").await.expect("a lock");
        let mut conn = clients::connect(proxy.port, APP).await;
        conn.query_drop("INSERT INTO ledger VALUES (1)").await.expect("a row");
        let order = format!("SWITCHOVER main TO '{}'", heir.address());
        let ordered = console_says(&proxy, &order);
        let killed = async {
            wait::until("the heir to be waited for", || async {
                standing(&proxy).await.1.contains("applying what was received").then_some(())
            })
            .await;
        };
        // The answer to the order is lost with the proxy.
        tokio::select! {
            answer = ordered => panic!("it is over too soon: {answer:?}"),
            () = killed => {}
        }
        proxy.crash_and_start().await;
        drop((locks, conn));
        wait_led_by(&cluster, heir).await;
        let mut conn = clients::connect(proxy.port, APP).await;
        conn.query_drop("INSERT INTO ledger VALUES (2)").await.expect("writes go on");
        wait_safe(&cluster, &proxy).await;
        for server in cluster.servers() {
            wait::until("every server to have both", || async {
                let ids = server.ask("SELECT GROUP_CONCAT(id ORDER BY id) FROM app.ledger").await;
                ids.is_ok_and(|ids| ids == "1,2").then_some(())
            })
            .await;
        }
    }
}

/// What replicas have received while they were asked is no more than the primary has by then.
#[tokio::test]
async fn a_keeper_that_starts_while_others_write_keeps_the_primary() {
    for flavour in servers::flavours() {
        let (cluster, mut proxy) = kept(flavour, "").await;
        let primary = cluster.primary().expect("a primary");
        primary.run(&["CREATE TABLE app.t (a INT)"]).await.expect("a table");
        let (stop, stopped) = watch::channel(false);
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let (options, stopped) = (primary.opts(ROOT), stopped.clone());
                tasks::spawn("writer", async move {
                    let mut conn = mysql_async::Conn::new(options).await.expect("a login");
                    while !*stopped.borrow() {
                        conn.query_drop("INSERT INTO app.t VALUES (1)").await.expect("a write");
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            proxy.crash_and_start().await;
            wait_safe(&cluster, &proxy).await;
        }
        stop.send_replace(true);
        for writer in writers {
            writer.await.expect("nobody closes the primary");
        }
        assert!(!proxy.log().contains("is dead"), "{flavour:?}");
        assert_eq!(writable(&cluster).await[0].name, primary.name);
    }
}

#[tokio::test]
async fn in_manual_mode_a_dead_primary_is_replaced_when_an_operator_says_so() {
    for flavour in servers::flavours() {
        let (cluster, proxy) = kept_in("manual", flavour, "").await;
        let mut ledger = Ledger::open(&cluster, &[&proxy]).await;
        ledger.more(100).await;
        let refused = console_says(&proxy, "FAILOVER main").await.expect_err("it lives");
        assert!(refused.to_string().contains("is not dead"), "{refused}");
        let dead = cluster.primary().expect("a primary");
        cluster.kill(&dead.name).await.expect("it is killed");
        wait::until("the keeper to say what it waits for", || async {
            standing(&proxy).await.1.contains("waiting for FAILOVER main").then_some(())
        })
        .await;
        assert!(writable(&cluster).await.is_empty());
        let told = console(&proxy, "FAILOVER main").await;
        assert!(told.contains("takes the writes in place of"), "{told}");
        ledger.more(100).await;
        ledger.close().await;
        let heads = writable(&cluster).await;
        let [head] = heads.as_slice() else { panic!("{heads:?}") };
        assert_ne!(head.name, dead.name);
        let others = cluster.servers().iter().filter(|server| server.name != dead.name);
        ledger.check(&others.collect::<Vec<_>>()).await;
        let mode = proxy.metric("pointsman_keeper_mode", &["mode=\"manual\""]);
        let done = proxy.metric("pointsman_failovers_total", &["outcome=\"done\""]);
        assert_eq!((mode, done), (1.0, 1.0));
    }
}

#[tokio::test]
async fn a_switchover_to_a_server_that_cannot_have_everything_is_refused_or_undone() {
    for flavour in servers::flavours() {
        let (cluster, proxy) = kept(flavour, "").await;
        let primary = cluster.primary().expect("a primary");
        let replicas = cluster.replicas().expect("two replicas");
        let refusal = |to: String| {
            let (proxy, order) = (&proxy, format!("SWITCHOVER main TO '{to}'"));
            async move { console_says(proxy, &order).await.expect_err(&to).to_string() }
        };
        assert!(refusal(primary.address()).await.contains("is the primary already"));
        assert!(refusal("db9".to_owned()).await.contains("there is no server"));
        cluster.kill(&replicas[1].name).await.expect("it is killed");
        assert!(refusal(replicas[1].address()).await.contains("does not answer"));
        cluster.start(&replicas[1].name).await.expect("it comes back");
        wait_led_by(&cluster, primary).await;
        wait_safe(&cluster, &proxy).await;

        let mut ledger = Ledger::open(&cluster, &[&proxy]).await;
        ledger.more(50).await;
        // Its applier waits for the lock: it lives and receives, and gets no further.
        let mut locks = mysql_async::Conn::new(replicas[0].opts(ROOT)).await.expect("a session");
        locks.query_drop("LOCK TABLES app.ledger READ").await.expect("a lock");
        let why = refusal(replicas[0].address()).await;
        println!("{flavour:?}: {why}");
        assert!(why.contains("has not executed all of it") || why.contains("behind"), "{why}");
        ledger.more(50).await;
        println!("{flavour:?}: {:?} without a write, undone", ledger.take_gap());
        drop(locks);
        wait_led_by(&cluster, primary).await;
        wait_safe(&cluster, &proxy).await;
        ledger.close().await;
        ledger.check(&cluster.servers().iter().collect::<Vec<_>>()).await;
        let [unknown, denied] = ledger.told().since(&Told::default());
        assert!(unknown.is_empty() && denied.is_empty(), "{unknown:?} {denied:?}");
    }
}

/// An event as its server shows it: `sql_mode`, time zone, statement.
async fn event(server: &Server, name: &str) -> (String, String, String) {
    let mut conn = server.connect(ROOT).await.expect("root");
    let show = format!("SHOW CREATE EVENT app.{name}");
    let row: mysql_async::Row = conn.query_first(show).await.expect("an event").expect("a row");
    let text = |at: usize| row.get::<String, _>(at).expect("a text");
    (text(1), text(2), text(3))
}

#[tokio::test]
async fn events_that_run_go_on_where_writes_do() {
    for flavour in servers::flavours() {
        let (cluster, proxy) = kept(flavour, "anti_flap = \"0\"").await;
        let primary = cluster.primary().expect("a primary");
        let events = [
            "SET SESSION sql_mode = 'ANSI_QUOTES', time_zone = '+03:00'",
            "CREATE DEFINER = 'app'@'%' EVENT app.tick ON SCHEDULE EVERY 1 HOUR \
             ON COMPLETION PRESERVE COMMENT 'x' DO DELETE FROM app.\"t\"",
            "CREATE EVENT app.off ON SCHEDULE EVERY 1 HOUR DISABLE DO DO 0",
        ];
        primary.run(&events).await.expect("two events");
        let ran = event(primary, "tick").await;
        wait::until("the keeper to note which one runs", || async {
            let noted = std::fs::read_to_string(proxy.dir.join("keeper-main.json")).ok()?;
            noted.contains("`app`.`tick`").then_some(())
        })
        .await;
        console(&proxy, "SWITCHOVER").await;
        for _ in 0..2 {
            wait::until("the event to run on the new primary", || async {
                let heads = writable(&cluster).await;
                let [head] = heads.as_slice() else { return None };
                (event(head, "tick").await == ran).then_some(())
            })
            .await;
            wait_safe(&cluster, &proxy).await;
            let head = writable(&cluster).await[0];
            let off = event(head, "off").await.2;
            assert!(off.contains(" DISABLE"), "{off}");
            for other in cluster.servers().iter().filter(|server| server.name != head.name) {
                wait::until("it to rest on replicas", || async {
                    (event(other, "tick").await.2 != ran.2).then_some(())
                })
                .await;
            }
            cluster.kill(&head.name).await.expect("it is killed");
            wait::until("another primary", || async {
                let heads = writable(&cluster).await;
                (heads.len() == 1 && heads[0].name != head.name).then_some(())
            })
            .await;
            cluster.start(&head.name).await.expect("it comes back");
        }
    }
}
