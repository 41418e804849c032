//! What operators say about changes beforehand: by MAINTENANCE, and by programs of theirs.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use pointsman::provider::Flavour;
use rustix::process::Signal;

use crate::console::{console, console_says};
use crate::kept::{kept, standing, wait_safe, writable};
use crate::ledger::Ledger;
use crate::{kept, servers, wait};

/// Waits until the keeper's row of SHOW CLUSTER has these words.
async fn says(proxy: &crate::proxy::Proxy, words: &str) {
    wait::until(words, || async { standing(proxy).await.1.contains(words).then_some(()) }).await;
}

#[tokio::test]
async fn in_maintenance_nothing_changes_but_by_an_operators_word() {
    for flavour in servers::flavours() {
        let (cluster, mut proxy) = kept(flavour, "").await;
        let told = console(&proxy, "MAINTENANCE ON main").await;
        assert!(told.contains("before MAINTENANCE OFF main"), "{told}");
        assert_eq!(proxy.metric("pointsman_keeper_maintenance", &[]), 1.0);
        // It outlives the process, and what an operator stops stays stopped.
        proxy.crash_and_start().await;
        says(&proxy, "nothing is set up before MAINTENANCE OFF main").await;
        let mut ledger = Ledger::open(&cluster, &[&proxy]).await;
        ledger.more(20).await;
        let replica = cluster.replicas().expect("two replicas")[0];
        replica.run(&["SET GLOBAL read_only = 0"]).await.expect("it is opened");
        let primary = cluster.primary().expect("a primary").name.clone();
        // With nothing on its way it has nothing of its own afterwards.
        ledger.hold().await;
        cluster.kill(&primary).await.expect("it is killed");
        says(&proxy, "MAINTENANCE is ON; FAILOVER main replaces it").await;
        let names: Vec<&String> = writable(&cluster).await.iter().map(|at| &at.name).collect();
        assert_eq!(names, [&replica.name], "as the operator has left it");
        let told = console(&proxy, "FAILOVER main").await;
        assert!(told.contains("takes the writes in place of"), "{told}");
        ledger.resume();
        ledger.more(20).await;
        cluster.start(&primary).await.expect("it comes back");
        says(&proxy, "nothing is set up before MAINTENANCE OFF main").await;
        console(&proxy, "MAINTENANCE OFF").await;
        wait_safe(&cluster, &proxy).await;
        assert_eq!(proxy.metric("pointsman_keeper_maintenance", &[]), 0.0);
        ledger.close().await;
        ledger.check(&cluster.servers().iter().collect::<Vec<_>>()).await;
    }
}

/// The replicas that were kept from receiving while it was looked at receive again, also where
/// another process has to see to it; a server that an operator has taken out stays as it is.
#[tokio::test]
async fn a_primary_that_is_started_anew_in_maintenance_goes_on_with_what_followed_it() {
    for flavour in servers::flavours() {
        let (cluster, mut proxy) = kept(flavour, "").await;
        let mut ledger = Ledger::open(&cluster, &[&proxy]).await;
        ledger.more(20).await;
        ledger.hold().await;
        console(&proxy, "MAINTENANCE ON main").await;
        let primary = cluster.primary().expect("a primary");
        let [follows, stands] = cluster.replicas().expect("two replicas")[..] else { panic!() };
        let (stop, forget) = match flavour {
            Flavour::Mariadb => ("STOP SLAVE IO_THREAD", ["STOP SLAVE", "RESET SLAVE ALL"]),
            Flavour::Mysql => ("STOP REPLICA IO_THREAD", ["STOP REPLICA", "RESET REPLICA ALL"]),
        };
        stands.run(&forget).await.expect("it follows nobody");
        stands.run(&["SET GLOBAL read_only = 0"]).await.expect("it is opened");
        let receives = async || {
            wait::until("the replica to receive again", || async {
                kept::follows(flavour, follows, primary.port).await.then_some(())
            })
            .await;
        };
        // It receives from the server's next life before the keeper has looked at that.
        proxy.signal(Signal::STOP);
        cluster.stop(&primary.name).await.expect("it is stopped");
        cluster.start(&primary.name).await.expect("it comes back");
        receives().await;
        proxy.signal(Signal::CONT);
        wait::until("the replica to be told so", || async {
            proxy.log().contains("told to receive again").then_some(())
        })
        .await;
        receives().await;

        // Another process finds that the one before has stopped it.
        follows.run(&[stop]).await.expect("it stops");
        let path = proxy.dir.join("keeper-main.json");
        let noted = std::fs::read_to_string(&path).expect("the record");
        let mut noted: serde_json::Value = serde_json::from_str(&noted).expect("the record");
        noted["cut_off"] = serde_json::json!([follows.address()]);
        std::fs::write(&path, noted.to_string()).expect("the record");
        // One that replicates from nowhere is found by its address only.
        let config = std::fs::read_to_string(proxy.config()).expect("its configuration");
        let [one, both] = [&[primary][..], &[primary, follows]].map(|servers| {
            let listed = servers.iter().map(|server| format!("{:?}", server.address()));
            format!("seeds = [{}]", listed.collect::<Vec<_>>().join(", "))
        });
        std::fs::write(proxy.config(), config.replace(&one, &both)).expect("its configuration");
        proxy.crash_and_start().await;
        receives().await;
        ledger.resume();
        ledger.more(20).await;
        ledger.close().await;
        let is_open = stands.ask("SELECT @@global.read_only").await.expect("it answers");
        assert_eq!(is_open, "0", "{flavour:?}: as the operator has left it");
        assert!(!kept::follows(flavour, stands, primary.port).await);
    }
}

fn program(path: &Path, script: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{script}\n")).expect("a program");
    let all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, all).expect("it may be executed");
}

/// They are the same whatever the servers are.
#[tokio::test]
async fn programs_of_the_operators_are_asked_before_and_told_afterwards() {
    let Some(flavour) = servers::flavours().into_iter().next() else { return };
    let dir = servers::scratch("hooks");
    std::fs::create_dir_all(&dir).expect("a folder");
    let file = |name: &str| dir.join(name);
    let (no, told) = (file("no"), file("told"));
    program(&file("ask"), &format!("test ! -e {0} || {{ cat {0} >&2; exit 1; }}", no.display()));
    let words = "$POINTSMAN_GROUP $POINTSMAN_CHANGE $POINTSMAN_FORMER $POINTSMAN_HEIR $1";
    program(&file("tell"), &format!("echo \"{words}\" >> {}", told.display()));
    let hooks = format!(
        "anti_flap = \"0\"\npre_hook = {:?}\npost_hook = [{:?}, \"an argument\"]",
        file("ask").display().to_string(),
        file("tell").display().to_string(),
    );
    let (cluster, proxy) = kept(flavour, &hooks).await;
    let former = cluster.primary().expect("a primary").address();
    std::fs::write(&no, "a backup runs\n").expect("a file");
    let refused = console_says(&proxy, "SWITCHOVER").await.expect_err("it may not be");
    assert!(refused.to_string().contains("the pre_hook says no: "), "{refused}");
    assert!(refused.to_string().ends_with("a backup runs'"), "{refused}");
    let replica = cluster.replicas().expect("two replicas")[0];
    std::fs::remove_file(&no).expect("it is gone");
    console(&proxy, &format!("SWITCHOVER TO '{}'", replica.address())).await;
    let lines = |count: usize| {
        let told = told.clone();
        wait::until("the other program", move || {
            let text = std::fs::read_to_string(&told).unwrap_or_default();
            async move { (text.lines().count() == count).then_some(text) }
        })
    };
    let line = format!("main switchover {former} {} an argument\n", replica.address());
    assert_eq!(lines(1).await, line);

    wait_safe(&cluster, &proxy).await;
    std::fs::write(&no, "a backup runs\n").expect("a file");
    cluster.kill(&replica.name).await.expect("it is killed");
    says(&proxy, "the pre_hook says no: ").await;
    std::fs::remove_file(&no).expect("it is gone");
    let line = format!("main failover {} ", replica.address());
    let all = lines(2).await;
    assert!(all.lines().nth(1).is_some_and(|text| text.starts_with(&line)), "{all}");
    std::fs::remove_dir_all(&dir).expect("it is not needed any more");
}
