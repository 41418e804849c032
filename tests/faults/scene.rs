//! A kept group under load, something that happens to it, and what is looked at afterwards; as
//! often as asked, with a record of each time.

use std::io::Write as _;
use std::time::Duration;

use pointsman::config::outcome::CommitOutcome;
use pointsman::provider::Flavour;
use pointsman::provider::local::Cluster;
use pointsman::provider::server::Server;

use crate::kept::{self, follows, standing, wait_safe, writable};
use crate::ledger::{Audit, Ledger, Told, WRITERS};
use crate::network::{Network, is_entered, run};
use crate::proxy::Proxy;
use crate::{servers, wait};

/// What a fault is, and what may come of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// Its number in the catalogue.
    pub(crate) number: u8,
    /// Who takes the writes afterwards.
    pub(crate) head: Head,
    /// What clients may be told of.
    pub(crate) told: Bounds,
    /// Further TOML of the group.
    pub(crate) group: &'static str,
    /// TOML of its failover.
    pub(crate) failover: &'static str,
    /// TOML of what observes it.
    pub(crate) monitor: &'static str,
    /// A group is not used again.
    pub(crate) once: bool,
    /// How many clients write.
    pub(crate) writers: usize,
}

/// Who takes the writes after a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    Another,
    TheSame,
    Either,
}

/// What clients may be told of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bounds {
    /// Nothing.
    Nothing,
    /// That the outcome of what was on its way is unknown, unless such outcomes are found out.
    Unknown,
    /// That something was not done, or that its outcome is unknown.
    Refusals,
}

impl Fault {
    /// One after which another server takes the writes, and of which clients notice nothing but
    /// the outcome of what was on its way.
    pub(crate) const fn deadly(number: u8) -> Self {
        let failover = "anti_flap = \"0\"";
        let (head, told) = (Head::Another, Bounds::Unknown);
        Self {
            number,
            head,
            told,
            group: "",
            failover,
            monitor: "timeout = \"500ms\"",
            once: false,
            writers: WRITERS,
        }
    }

    /// One that nobody notices. What is slow is not taken for dead: probes have their usual time.
    pub(crate) const fn harmless(number: u8) -> Self {
        Self { head: Head::TheSame, told: Bounds::Nothing, monitor: "", ..Self::deadly(number) }
    }

    /// Lets it happen as often as asked: half of the times where the outcome of lost
    /// commits is found out, half of them where it is not. A group is used again as long as all
    /// its servers are in it.
    pub(crate) async fn happens(self, how: impl AsyncFn(&mut Scene)) {
        self.happens_in(false, how).await;
    }

    /// The same, each server and the proxy on a host of its own; `test` is the whole name of the
    /// test that calls it.
    pub(crate) async fn happens_apart(self, test: &str, how: impl AsyncFn(&mut Scene)) {
        if is_entered(test) {
            self.happens_in(true, how).await;
        }
    }

    /// The same on one host that has nothing to do with this one, mounts included.
    pub(crate) async fn happens_inside(self, test: &str, how: impl AsyncFn(&mut Scene)) {
        if is_entered(test) {
            run("ip", &["link", "set", "lo", "up"]);
            self.happens_in(false, how).await;
        }
    }

    /// The families to which it happens.
    fn families(self) -> Vec<Flavour> {
        let mut families = servers::flavours();
        if times().is_none() {
            let turn = usize::from(self.number) % families.len().max(1);
            families.rotate_left(turn);
            families.truncate(1);
        }
        families
    }

    async fn happens_in(self, apart: bool, how: impl AsyncFn(&mut Scene)) {
        for flavour in self.families() {
            // Each family has another half of a single time.
            let first = usize::from(self.number) + usize::from(flavour == Flavour::Mysql);
            for known in [false, true] {
                let runs = (0..times().unwrap_or(1))
                    .filter(|run| (run + first).is_multiple_of(2) == known);
                let mut scene: Option<Scene> = None;
                for _ in runs {
                    let mut now = match scene.take() {
                        Some(scene) => scene,
                        None => Scene::begin(flavour, self, known, apart).await,
                    };
                    scene = now.run(&how).await.then_some(now);
                }
                if let Some(mut scene) = scene {
                    scene.ledger.close().await;
                }
            }
        }
    }
}

/// The number of the proxy's host.
pub(crate) const PROXY: usize = 3;

/// How often each fault happens to each family; once to one of them where `POINTSMAN_TIMES` does
/// not say.
pub(crate) fn times() -> Option<usize> {
    let times = std::env::var_os("POINTSMAN_TIMES")?;
    Some(times.to_string_lossy().parse().expect("a number"))
}

/// A kept group, and clients.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) proxy: Proxy,
    pub(crate) ledger: Ledger,
    network: Option<Network>,
    fault: Fault,
    known: bool,
    /// An operator has said that something may be lost.
    is_lossy: bool,
}

impl Scene {
    async fn begin(flavour: Flavour, fault: Fault, known: bool, apart: bool) -> Self {
        let network = if apart { Some(Network::of(4).await) } else { None };
        let host = |number| network.as_ref().map(|network| network.host(number));
        let cluster = kept::prepared_on(flavour, (0..PROXY).filter_map(host).collect()).await;
        let primary = cluster.primary().expect("a primary");
        primary.run(&["CREATE TABLE app.once (id BIGINT PRIMARY KEY)"]).await.expect("a table");
        let mut group = fault.group.to_owned();
        if known {
            primary.run(&CommitOutcome::MAKE_TABLE).await.expect("the table of witnesses");
            group.push_str("\ncommit_outcome = \"known\"");
        }
        if apart {
            kept::make_known(&cluster).await;
            group.push_str("\nserver_tls = \"off\"");
        }
        let keeps = format!("{group}\n[groups.main.failover]\nmode = \"auto\"\n{}", fault.failover);
        let host = host(PROXY).unwrap_or_default();
        let proxy = kept::in_front_on(host, &cluster, fault.monitor, &keeps).await;
        let ledger = Ledger::open_with(&cluster, &[&proxy], fault.writers).await;
        ledger.more(100).await;
        Self { cluster, proxy, ledger, network, fault, known, is_lossy: false }
    }

    /// The network between the hosts, of which those of the servers come first.
    pub(crate) fn network(&self) -> &Network {
        self.network.as_ref().expect("it happens apart")
    }

    /// The server that takes the writes.
    pub(crate) async fn head(&self) -> &Server {
        let heads = writable(&self.cluster).await;
        let [head] = heads.as_slice() else { panic!("one takes writes: {heads:?}") };
        head
    }

    /// The others, in the order of their names.
    pub(crate) async fn replicas(&self) -> Vec<&Server> {
        let head = &self.head().await.name;
        self.cluster.servers().iter().filter(|server| server.name != *head).collect()
    }

    /// The server that takes the writes is killed, and comes back when they have gone on for a
    /// while without it; its name.
    pub(crate) async fn lose_head_for_a_while(&self) -> String {
        let dead = self.head().await.name.clone();
        self.cluster.kill(&dead).await.expect("it is killed");
        self.ledger.more(100).await;
        self.cluster.start(&dead).await.expect("it comes back");
        dead
    }

    /// The operator says that something may be lost, until writes go on.
    pub(crate) async fn accept_loss(&mut self) {
        self.is_lossy = true;
        let (strict, lossy) = ("mode = \"auto\"", "mode = \"auto\"\nmax_loss = \"some\"");
        self.proxy.reload(|text| text.replace(strict, lossy));
        self.ledger.more(1).await;
        self.proxy.reload(|text| text.replace(lossy, strict));
    }

    /// Runs it once, looks at everything, and writes it down; whether the group is whole.
    async fn run(&mut self, how: &impl AsyncFn(&mut Self)) -> bool {
        let (told, head) = (self.ledger.told(), self.head().await.name.clone());
        self.ledger.take_gap();
        how(self).await;
        self.ledger.more(50).await;
        let gap = self.ledger.take_gap();
        let strangers = self.settle().await;
        self.ledger.hold().await;
        let members = self.cluster.servers().iter();
        let members: Vec<&Server> =
            members.filter(|server| !strangers.contains(&server.name)).collect();
        let audit = self.ledger.audit(&members).await;
        let now = self.ledger.told();
        let replaced = self.head().await.name != head;
        self.record(&told, &now, gap, replaced, &strangers, &audit);
        assert!(audit.is_sound(self.is_lossy), "{:?}: {audit:?}", self.fault);
        self.judge(&told, &now, replaced);
        self.ledger.check_idlers().await;
        // What was lost once would be missed each time.
        let is_whole = strangers.is_empty() && !self.fault.once && !self.is_lossy;
        self.ledger.resume();
        if !is_whole {
            self.ledger.close().await;
        }
        is_whole
    }

    /// Waits until one server takes writes and all others follow it, or stay out with something of
    /// their own; answers the names of these.
    pub(crate) async fn settle(&self) -> Vec<String> {
        let strangers = wait::until("one primary that all others follow", || async {
            let heads = writable(&self.cluster).await;
            let [head] = heads.as_slice() else { return None };
            let says = standing(&self.proxy).await.1;
            let mut strangers = Vec::new();
            for server in self.cluster.servers().iter().filter(|at| at.name != head.name) {
                let out = says.contains("stays out") && says.contains(&server.address());
                let follows = follows(self.cluster.flavour(), server, head.port).await;
                // One that was mended may not have been looked at since.
                match (out, follows) {
                    (true, true) if !self.fault.once => {}
                    (true, _) => strangers.push(server.name.clone()),
                    (false, true) => {}
                    (false, false) => return None,
                }
            }
            Some(strangers)
        })
        .await;
        if strangers.is_empty() && !self.fault.once {
            wait_safe(&self.cluster, &self.proxy).await;
        }
        strangers
    }

    /// Whether clients were told of no more than the fault may cost.
    fn judge(&self, before: &Told, now: &Told, replaced: bool) {
        let fault = self.fault;
        match fault.head {
            Head::Another => assert!(replaced, "{fault:?}"),
            Head::TheSame => assert!(!replaced, "{fault:?}"),
            Head::Either => {}
        }
        let [unknown, denied] = now.since(before);
        let may_be_unknown = match fault.told {
            Bounds::Nothing => false,
            Bounds::Unknown => !self.known,
            Bounds::Refusals => true,
        };
        assert!(may_be_unknown || unknown.is_empty(), "{fault:?}: {unknown:?}");
        assert!(fault.told == Bounds::Refusals || denied.is_empty(), "{fault:?}: {denied:?}");
    }

    /// Adds a line to the file that `POINTSMAN_RECORD` names.
    fn record(
        &self,
        before: &Told,
        now: &Told,
        gap: Duration,
        replaced: bool,
        strangers: &[String],
        audit: &Audit,
    ) {
        let [unknown, denied] = now.since(before);
        let line = format!(
            "{}\t{:?}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\n",
            self.fault.number,
            self.cluster.flavour(),
            if self.known { "known" } else { "unknown" },
            now.count() - before.count(),
            unknown.len(),
            denied.len(),
            gap.as_millis(),
            if replaced { "replaced" } else { "as before" },
            strangers.len(),
            audit.words(),
        );
        print!("{line}");
        for (id, why) in unknown.iter().chain(&denied) {
            println!("  row {id}: {why}");
        }
        let Some(path) = std::env::var_os("POINTSMAN_RECORD") else { return };
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.expect("the record").write_all(line.as_bytes()).expect("the record");
    }
}
