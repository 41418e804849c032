//! Clusters for tests: one of each family that all tests share, and one of one's own for a test
//! that kills, freezes or switches.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use pointsman::provider::local::Cluster;
use pointsman::provider::programs::{MARIADB_ROOT, Programs};
use pointsman::provider::server::Server;
use pointsman::provider::{Flavour, Host, Lifetime, Relation, Spec};

/// The shared clusters, built by the first test that asks. They are never dropped: their guard
/// ends them with this process.
static SHARED: Mutex<Vec<(Flavour, &'static Cluster)>> = Mutex::new(Vec::new());

/// Numbers for folders.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The families that can be tested here: both, or MariaDB with a word about the other.
pub(crate) fn flavours() -> Vec<Flavour> {
    let both = [Flavour::Mariadb, Flavour::Mysql];
    both.into_iter().filter(|flavour| present(*flavour)).collect()
}

/// Whether `flavour` can be tested here.
pub(crate) fn present(flavour: Flavour) -> bool {
    match Programs::find(flavour, root(flavour).as_deref()) {
        Ok(_programs) => true,
        Err(missing) => {
            let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
            assert!(!ci, "continuous integration tests both families: {missing}");
            eprintln!("SKIPPED for {flavour:?}: {missing}");
            false
        }
    }
}

/// The cluster of `flavour` that all tests share: a primary and two replicas, general logs on.
/// Tests leave its servers as they found them.
pub(crate) fn shared(flavour: Flavour) -> &'static Cluster {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, cluster)) = shared.iter().find(|(have, _)| *have == flavour) {
        return cluster;
    }
    // A runtime of its own, on a thread of its own: the caller may be inside one.
    let cluster = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(own(flavour, 2))
    });
    let cluster: &'static Cluster = Box::leak(Box::new(cluster.join().expect("servers")));
    shared.push((flavour, cluster));
    cluster
}

/// A cluster for one test alone, which may do to it what it likes; ends with this process at the
/// latest.
pub(crate) async fn own(flavour: Flavour, replicas: usize) -> Cluster {
    own_with(flavour, replicas, &[]).await
}

/// As [`own`], with further server options.
pub(crate) async fn own_with(flavour: Flavour, replicas: usize, options: &[&str]) -> Cluster {
    own_on(flavour, replicas, options, Vec::new()).await
}

/// As [`own_with`], on these hosts.
pub(crate) async fn own_on(
    flavour: Flavour,
    replicas: usize,
    options: &[&str],
    hosts: Vec<Host>,
) -> Cluster {
    let options = options.iter().chain(&["--general-log=1"]);
    let spec = Spec {
        replicas,
        lifetime: Lifetime::Process,
        options: options.map(|option| (*option).to_owned()).collect(),
        hosts,
        root: root(flavour),
        ..Spec::new(flavour, scratch("servers"))
    };
    match Cluster::up(spec).await {
        Ok(cluster) => cluster,
        Err(error) => panic!("{flavour:?} did not come up: {error}"),
    }
}

/// Servers for one test alone that have nothing to do with one another yet.
pub(crate) async fn strangers(flavour: Flavour, count: usize) -> Cluster {
    let spec = Spec {
        replicas: count - 1,
        lifetime: Lifetime::Process,
        relation: Relation::Strangers,
        root: root(flavour),
        ..Spec::new(flavour, scratch("servers"))
    };
    Cluster::up(spec).await.unwrap_or_else(|error| panic!("{flavour:?} did not come up: {error}"))
}

/// A cluster of one's own of the newer MariaDB, with these plugins; `None`, with a word about it,
/// where there is none.
pub(crate) async fn own_newer_mariadb(replicas: usize, plugins: &[&str]) -> Option<Cluster> {
    let root = newer_mariadb()?.0;
    let load = plugins.iter().map(|plugin| format!("--plugin-load-add={plugin}"));
    let spec = Spec {
        replicas,
        lifetime: Lifetime::Process,
        options: load.chain(["--general-log=1".to_owned()]).collect(),
        root: Some(root),
        ..Spec::new(Flavour::Mariadb, scratch("servers"))
    };
    Some(Cluster::up(spec).await.unwrap_or_else(|error| panic!("MariaDB 11: {error}")))
}

/// The folder of a newer MariaDB than the system's, and its programs.
pub(crate) fn newer_mariadb() -> Option<(PathBuf, Programs)> {
    let root = root(Flavour::Mariadb).unwrap_or_else(|| MARIADB_ROOT.into());
    match Programs::find(Flavour::Mariadb, Some(&root)) {
        Ok(programs) => Some((root, programs)),
        Err(missing) => {
            let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
            assert!(!ci, "continuous integration tests it: {missing}");
            eprintln!("SKIPPED for a newer MariaDB: {missing}");
            None
        }
    }
}

/// A status variable of the server.
pub(crate) async fn status(server: &Server, flavour: Flavour, name: &str) -> String {
    status_if_told(server, flavour, name).await.expect("a status variable")
}

/// The same; `None` where the connection is ended meanwhile, as those to a former primary are.
pub(crate) async fn status_if_told(
    server: &Server,
    flavour: Flavour,
    name: &str,
) -> Option<String> {
    let schema = match flavour {
        Flavour::Mariadb => "information_schema",
        Flavour::Mysql => "performance_schema",
    };
    let sql =
        format!("SELECT variable_value FROM {schema}.global_status WHERE variable_name = '{name}'");
    server.ask(&sql).await.ok()
}

/// A folder name that nobody else uses; nothing is made.
pub(crate) fn scratch(what: &str) -> PathBuf {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("pointsman-{what}-{}-{number}", std::process::id()))
}

/// The folder of the family's programs, when not at the usual place.
fn root(flavour: Flavour) -> Option<PathBuf> {
    let name = match flavour {
        Flavour::Mariadb => "POINTSMAN_MARIADB_ROOT",
        Flavour::Mysql => "POINTSMAN_MYSQL_ROOT",
    };
    std::env::var_os(name).map(|root| Path::new(&root).to_path_buf())
}
