//! Etcd as operators run it: of three members that demand certificates and an account, one of which
//! is away now and then.

use pointsman::provider::replication::KEEPER;
use pointsman::provider::{Flavour, Host};

use crate::authority::{Authority, Names};
use crate::cluster::{loses_its_primary, several_with};
use crate::etcd::{ACCOUNT, Etcd, has_etcd};
use crate::kept::{prepared, standing};
use crate::ledger::{Ledger, Told};
use crate::proxy::{Proxy, configuration_with};
use crate::{servers, wait};

/// Members are started anew one after the other, and the primary dies when one is away.
#[tokio::test]
async fn writes_and_failovers_go_on_while_a_member_is_away() {
    if !has_etcd() || !servers::present(Flavour::Mariadb) {
        return;
    }
    let (cluster, mut etcd) = (prepared(Flavour::Mariadb).await, Etcd::secured(3).await);
    let proxies = several_with(&etcd, vec![Host::default(); 2], &cluster, "").await;
    let ledger = Ledger::open(&cluster, &proxies.iter().collect::<Vec<_>>()).await;
    ledger.more(50).await;
    for at in 0..etcd.members.len() {
        etcd.members[at].kill();
        // All leases were renewed meanwhile, or none would be left.
        wait::pass(2 * pointsman::config::cluster::Cluster::LEASE).await;
        ledger.more(50).await;
        etcd.members[at].start_again();
        etcd.wait_for(at).await;
    }
    let [unknown, denied] = ledger.told().since(&Told::default());
    assert!(unknown.is_empty() && denied.is_empty(), "{unknown:?} {denied:?}");

    etcd.members[0].kill();
    loses_its_primary(&cluster, &proxies, ledger).await;
    for proxy in &proxies {
        assert!(!proxy.log().contains(ACCOUNT.1), "a password in a log");
    }
}

/// A pointsman that does not believe the store, or that the store does not believe, says which
/// member that is and why, and writes nothing.
#[tokio::test]
async fn a_store_that_is_not_believed_is_named() {
    if !has_etcd() || !servers::present(Flavour::Mariadb) {
        return;
    }
    let (cluster, etcd) = (prepared(Flavour::Mariadb).await, Etcd::secured(1).await);
    let seed = cluster.primary().expect("a primary").address();
    let other = etcd.dir().join("other");
    std::fs::create_dir_all(&other).expect("a folder");
    let stranger = Authority::new("of others");
    stranger.write(&other, Names::Host("127.0.0.1"));
    std::fs::write(other.join("ca.pem"), &stranger.pem).expect("a file");
    let (right, wrong) = (etcd.dir().display().to_string(), other.display().to_string());
    let settings = etcd.settings();
    let ca = settings.replace(&format!("{right}/ca.pem"), &format!("{wrong}/ca.pem"));
    let own = settings
        .replace(&format!("{right}/cert.pem"), &format!("{wrong}/cert.pem"))
        .replace(&format!("{right}/key.pem"), &format!("{wrong}/key.pem"));
    let password = settings.replace(ACCOUNT.1, "another");
    // What a member says of a certificate comes after it has closed the connection.
    let why = ["UnknownIssuer", "", "authentication failed"];
    for (settings, why) in [ca, own, password].iter().zip(why) {
        let group = format!(
            "[groups.main.failover]\nmode = \"auto\"\nreplication_user = \"repl\"\n\
             replication_password = \"secret\"\n[cluster]\n{settings}\nid = \"pm1\"\n"
        );
        let config = configuration_with(KEEPER, "timeout = \"500ms\"", &[&seed], &group);
        let proxy = Proxy::without_primary(&config).await.unwrap_or_else(|why| panic!("{why}"));
        let named = |line: &&str| line.contains(etcd.endpoints()[0]) && line.contains(why);
        wait::until("it to be named", || async { proxy.log().lines().find(named).map(drop) }).await;
        let says = standing(&proxy).await.1;
        assert_eq!(says, "this pointsman has no lease in etcd yet");
        let log = proxy.log();
        assert!(!log.contains(ACCOUNT.1) && !log.contains("another"), "a password in a log");
    }
}
