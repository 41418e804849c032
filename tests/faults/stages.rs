//! The pointsman that acts ends, freezes, or reaches nobody any more at each stage of a failover,
//! as soon as it has written down that the stage is begun.

use etcd_client::{Client, EventType};
use pointsman::app::tasks;
use rustix::process::Signal;
use tokio::sync::oneshot;

use crate::cluster::{leader, stop};
use crate::kept::{epoch, follows, writable};
use crate::ledger::Ledger;
use crate::minorities::{Site, site};
use crate::proxy::Proxy;
use crate::scene::times;
use crate::wait;

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It ends as in a crash, and is started again afterwards.
    Killed,
    /// It is stopped, and goes on when another one has brought the change to its end.
    Frozen,
    /// It reaches nobody until then.
    Parted,
}

/// The stages, as the record has them; the last is that nothing is under way any more, and all that
/// was left has still to follow.
const STAGES: [&str; 5] = ["Revoke", "Drain", "Establish", "Open", DONE];
const DONE: &str = "Done";

/// Waits until the record in etcd says that this stage is begun, or that the epoch after this one
/// is; `ready` when it is looked at.
async fn begun(endpoint: String, stage: &'static str, epoch: f64, ready: oneshot::Sender<()>) {
    let mut client = Client::connect([endpoint], None).await.expect("etcd");
    let mut changes = client.watch("pointsman/groups/main/record", None).await.expect("a watch");
    ready.send(()).expect("somebody waits");
    let said = match stage {
        DONE => format!("\"epoch\":{}", epoch + 1.0),
        stage => format!("\"stage\":\"{stage}\""),
    };
    while let Some(seen) = changes.message().await.expect("etcd answers") {
        let is_it = |event: &etcd_client::Event| {
            let text = event.kv().and_then(|kv| kv.value_str().ok()).unwrap_or_default();
            event.event_type() == EventType::Put && text.contains(&said)
        };
        if seen.events().iter().any(is_it) {
            return;
        }
    }
}

/// One failover, in which that becomes of the pointsman that acts.
async fn happens(site: &mut Site, ledger: &Ledger, fate: Fate, stage: &'static str) {
    let acting = leader(&site.proxies).await;
    let before = epoch(&site.proxies[acting]);
    ledger.more(30).await;
    let heads = writable(&site.cluster).await;
    let [dead] = heads.as_slice() else { panic!("{heads:?}") };
    let (ready, is_ready) = oneshot::channel();
    let endpoint = site.etcd.endpoints()[0].to_owned();
    let begun = tasks::spawn("stage", begun(endpoint, stage, before, ready));
    is_ready.await.expect("a watch");
    ledger.take_gap();
    site.cluster.kill(&dead.name).await.expect("it is killed");
    begun.await.expect("a task");
    match fate {
        Fate::Killed => site.proxies[acting].signal(Signal::KILL),
        Fate::Frozen => stop(&site.proxies[acting]).await,
        Fate::Parted => site.isolate(acting),
    }
    ledger.more(50).await;
    println!("{fate:?} at {stage}: {:?} without a write", ledger.take_gap());
    let heads = writable(&site.cluster).await;
    let [head] = heads.as_slice() else { panic!("{heads:?}") };
    assert_ne!(head.name, dead.name);
    match fate {
        Fate::Killed => site.proxies[acting].start_again().await,
        Fate::Frozen => site.proxies[acting].signal(Signal::CONT),
        Fate::Parted => site.network.mend(),
    }
    let agreed = |proxies: &[Proxy]| {
        let epochs: Vec<f64> = proxies.iter().map(epoch).collect();
        epochs.iter().all(|at| *at == epochs[0] && *at > before)
    };
    wait::until("all to agree", || async { agreed(&site.proxies).then_some(()) }).await;
    let after = epoch(&site.proxies[0]);
    site.cluster.start(&dead.name).await.expect("it comes back");
    wait::until("the dead one to follow", || async {
        follows(site.cluster.flavour(), dead, head.port).await.then_some(())
    })
    .await;
    assert_eq!(epoch(&site.proxies[0]), after, "who was away changes nothing");
    let now = writable(&site.cluster).await;
    assert_eq!(now.iter().map(|at| &at.name).collect::<Vec<_>>(), [&head.name]);
    ledger.hold().await;
    let audit = ledger.audit(&[head]).await;
    assert!(audit.is_sound(false), "{fate:?} at {stage}: {audit:?}");
    ledger.resume();
}

/// Lets it happen at each stage; once, or as often as asked.
async fn at_each_stage(test: &str, fate: Fate) {
    let Some(mut site) = site(test, 3, "").await else { return };
    let mut ledger = Ledger::open(&site.cluster, &site.proxies.iter().collect::<Vec<_>>()).await;
    for stage in (0..times().unwrap_or(1)).flat_map(|_| STAGES) {
        happens(&mut site, &ledger, fate, stage).await;
    }
    ledger.close().await;
}

#[tokio::test]
async fn who_acts_is_killed_at_each_stage() {
    at_each_stage("stages::who_acts_is_killed_at_each_stage", Fate::Killed).await;
}

#[tokio::test]
async fn who_acts_freezes_at_each_stage() {
    at_each_stage("stages::who_acts_freezes_at_each_stage", Fate::Frozen).await;
}

#[tokio::test]
async fn who_acts_reaches_nobody_at_each_stage() {
    at_each_stage("stages::who_acts_reaches_nobody_at_each_stage", Fate::Parted).await;
}
