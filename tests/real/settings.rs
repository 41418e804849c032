//! Settings that a client gives the primary: new sessions find them wherever they read.

use std::io::Write as _;
use std::net::TcpStream;

use mysql_async::prelude::Queryable as _;
use pointsman::protocol::flags::Capabilities;
use pointsman::protocol::session_track::{self, Change};
use pointsman::protocol::{packet, reply};
use pointsman::provider::Flavour;
use pointsman::provider::replication::{APP, MONITOR, ROOT};

use crate::proxy::Proxy;
use crate::{clients, raw, servers, wait};

const ASK: &str = "SELECT GROUP_CONCAT('abcdefghij') FROM (SELECT 1) AS one";

#[tokio::test]
async fn a_setting_of_the_primary_holds_for_reads_of_new_sessions() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 1).await;
        let proxy = Proxy::start(&cluster, "").await;
        let replica = cluster.replicas().expect("replicas").remove(0);
        let label = format!("server=\"{}\"", replica.address());
        let on_replica = || proxy.metric("pointsman_queries_total", &[&label]);
        wait::until("a read on the replica", || async {
            let mut conn = clients::connect(proxy.port, APP).await;
            let found: Option<String> = conn.query_first(ASK).await.expect("a read");
            assert_eq!(found.as_deref(), Some("abcdefghij"), "{flavour:?}");
            (on_replica() > 0.0).then_some(())
        })
        .await;

        let mut admin = clients::connect(proxy.port, ROOT).await;
        for length in [5, 6, 7] {
            let set = format!("SET GLOBAL group_concat_max_len = {length}");
            admin.query_drop(&set).await.expect("a setting");
            let before = on_replica();
            let mut conn = clients::connect(proxy.port, APP).await;
            let found: Option<String> = conn.query_first(ASK).await.expect("a read");
            assert_eq!(found.expect("a value").len(), length, "{flavour:?}");
            assert!(on_replica() <= before, "{flavour:?}: a replica that has another value read");
        }

        replica.run(&["SET GLOBAL group_concat_max_len = 7"]).await.expect("the same there");
        let before = on_replica();
        wait::until("reads on the replica again", || async {
            let mut conn = clients::connect(proxy.port, APP).await;
            let found: Option<String> = conn.query_first(ASK).await.expect("a read");
            assert_eq!(found.as_deref(), Some("abcdefg"), "{flavour:?}");
            (on_replica() > before).then_some(())
        })
        .await;
        assert!(proxy.log().contains("other settings"), "{}", proxy.log());
    }
}

/// What a new session that knows of trackers is told of its SET NAMES, in no order (MariaDB has
/// that of its memory), and without MySQL's count of statements.
fn told(port: u16) -> Vec<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    raw::login_with(&mut stream, ROOT, None, Capabilities::SESSION_TRACK).expect("a login");
    let mut out = Vec::new();
    packet::write(&mut out, 0, b"\x03SET NAMES latin1");
    stream.write_all(&out).expect("a query");
    let (_, payload) = raw::read_packet(&mut stream).expect("an answer");
    let caps = Capabilities::PROTOCOL_41.with(Capabilities::SESSION_TRACK);
    let ok = reply::Ok::parse(&payload, caps).expect("an OK packet");
    let mut told: Vec<String> = session_track::changes(ok.tracks)
        .map(|change| change.expect("a change"))
        .filter(|change| !matches!(change, Change::Variable { name: b"statement_id", .. }))
        .map(|change| format!("{change:?}"))
        .collect();
    told.sort();
    told
}

#[tokio::test]
async fn a_session_begins_with_the_trackers_that_its_server_has() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 0).await;
        let primary = cluster.primary().expect("a primary");
        primary.run(&["SET GLOBAL session_track_system_variables = '*'"]).await.expect("all");
        let proxy = Proxy::start(&cluster, "").await;
        let all = told(proxy.port);
        assert_eq!(all, told(primary.port), "{flavour:?}");
        let mut admin = clients::connect(proxy.port, ROOT).await;
        for value in ["'character_set_client'", "''", "DEFAULT"] {
            let set = format!("SET GLOBAL session_track_system_variables = {value}");
            admin.query_drop(&set).await.expect("a setting");
            let some = told(proxy.port);
            assert_eq!(some, told(primary.port), "{flavour:?} {value}");
            // By default they tell of character sets, and SET NAMES changes nothing else.
            assert!(some.len() < all.len() || value == "DEFAULT", "{flavour:?} {value}");
        }
    }
}

#[tokio::test]
async fn a_session_begins_with_changed_settings_however_slowly_they_are_observed() {
    for flavour in servers::flavours() {
        let cluster = servers::own(flavour, 0).await;
        let primary = cluster.primary().expect("a primary");
        let proxy = Proxy::start(&cluster, "").await;
        let usual = told(proxy.port);
        let mut admin = clients::connect(proxy.port, ROOT).await;

        // The next connection of the monitor, which probes, answers nothing for so long.
        let mut direct = primary.connect(ROOT).await.expect("root may log in");
        let slow = "SET GLOBAL init_connect = 'DO IF(GET_LOCK(''first'', 0), SLEEP(1.5), 0)'";
        direct.query_drop(slow).await.expect("a setting");
        let ask =
            format!("SELECT id FROM information_schema.processlist WHERE user = '{}'", MONITOR.0);
        let probing: Vec<u64> = direct.query(ask).await.expect("the monitor's connections");
        assert!(!probing.is_empty());
        for id in probing {
            // It may have gone by itself.
            let _ = direct.query_drop(format!("KILL {id}")).await;
        }

        let set = "SET GLOBAL session_track_system_variables = ''";
        admin.query_drop(set).await.expect("a setting");
        let none = told(proxy.port);
        assert_eq!(none, told(primary.port), "{flavour:?}");
        assert!(none.len() < usual.len(), "{flavour:?}: {none:?}");
    }
}

/// MariaDB serves nothing from its query cache to a session whose transactions are tracked.
#[tokio::test]
async fn mariadb_serves_sessions_from_its_query_cache() {
    for flavour in servers::flavours() {
        if flavour != Flavour::Mariadb {
            continue;
        }
        let cluster = servers::own(flavour, 0).await;
        let proxy = Proxy::start(&cluster, "").await;
        let mut first = clients::connect(proxy.port, ROOT).await;
        for sql in [
            "CREATE DATABASE cached",
            "CREATE TABLE cached.t (a INT)",
            "INSERT INTO cached.t VALUES (1)",
            "SET GLOBAL query_cache_size = 1048576",
            "SET GLOBAL query_cache_type = ON",
            "SET SESSION query_cache_type = ON",
        ] {
            first.query_drop(sql).await.expect(sql);
        }
        let mut second = clients::connect(proxy.port, ROOT).await;
        let mut hits = 0;
        for conn in [&mut first, &mut second] {
            for _ in 0..2 {
                let found: Option<i32> = conn.query_first("SELECT a FROM cached.t").await.unwrap();
                assert_eq!(found, Some(1));
            }
            let ask = "SHOW GLOBAL STATUS LIKE 'Qcache_hits'";
            let counted: Option<(String, u64)> = conn.query_first(ask).await.expect("a status");
            let counted = counted.expect("a count").1;
            assert!(counted > hits, "served from the cache {counted} times");
            hits = counted;
        }
    }
}
