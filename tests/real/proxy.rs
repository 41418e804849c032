//! The proxy under test: the built program with a configuration and a state folder of its own.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pointsman::provider::Host;
use pointsman::provider::local::Cluster;
use pointsman::provider::ports::free_ports;
use pointsman::provider::replication::MONITOR;

use crate::servers::scratch;
use crate::wait;

/// The name of its configuration, in its folder.
const CONFIG_FILE: &str = "pointsman.toml";

/// A running proxy; killed when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Where it lives.
    host: Host,
    /// Where clients connect there.
    pub(crate) port: u16,
    /// Where the console listens.
    pub(crate) admin: u16,
    /// Where `/metrics` and `/readyz` are.
    pub(crate) http: u16,
    /// Folder with the configuration, the state and the log.
    pub(crate) dir: PathBuf,
    child: Child,
}

/// The program. Another build of it (release, for measurements) may be named.
pub(crate) fn program() -> OsString {
    std::env::var_os("POINTSMAN_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_pointsman").into())
}

impl Proxy {
    /// Starts a proxy in front of `cluster`, seeded with its primary, and waits until it is ready.
    /// `group` is further TOML for the group, e.g. `consistency = "eventual"`.
    pub(crate) async fn start(cluster: &Cluster, group: &str) -> Self {
        let seed = cluster.primary().expect("a primary").address();
        Self::with_config(&configuration(&[&seed], group))
            .await
            .unwrap_or_else(|why| panic!("{why}"))
    }

    /// Starts a proxy with a whole configuration, in which `{listen}` (or `{everywhere}`),
    /// `{admin}`, `{http}` and `{state}` stand for free addresses and the state folder; waits
    /// until it is ready.
    pub(crate) async fn with_config(config: &str) -> Result<Self, String> {
        Self::with_config_on(Host::default(), config).await
    }

    /// The same, not on loopback.
    pub(crate) async fn with_config_on(host: Host, config: &str) -> Result<Self, String> {
        Self::begin(host, config).wait_until(|status| status == 200).await
    }

    /// The same, without waiting for a primary: it only has to run.
    pub(crate) async fn without_primary(config: &str) -> Result<Self, String> {
        Self::begin(Host::default(), config).wait_until(|status| status > 0).await
    }

    fn begin(host: Host, config: &str) -> Self {
        let dir = scratch("proxy");
        std::fs::create_dir_all(&dir).expect("a folder for the proxy");
        let [port, admin, http] = free_ports().expect("free ports");
        let own = |port| SocketAddr::new(host.address, port).to_string();
        let config = config
            .replace("{listen}", &own(port))
            .replace("{everywhere}", &format!("0.0.0.0:{port}"))
            .replace("{admin}", &console(&host, admin, &dir))
            .replace("{http}", &own(http))
            .replace("{state}", &dir.display().to_string());
        let path = dir.join(CONFIG_FILE);
        std::fs::write(&path, config).expect("its configuration");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("its mode");
        let child = spawn(&host, &dir);
        Self { host, port, admin, http, dir, child }
    }

    /// Ends it as a crash does and starts it again with the state that it left behind; waits until
    /// it listens.
    pub(crate) async fn crash_and_start(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it has ended");
        self.start_again().await;
    }

    /// Starts it again after its end, with the state that it left behind.
    pub(crate) async fn start_again(&mut self) {
        self.child = spawn(&self.host, &self.dir);
        wait::until("the proxy to run again", || async { self.get("/healthz") }).await;
    }

    /// Where clients connect.
    pub(crate) fn at(&self) -> SocketAddr {
        SocketAddr::new(self.host.address, self.port)
    }

    /// Where the console listens: an address, or the path of a socket.
    pub(crate) fn console(&self) -> String {
        console(&self.host, self.admin, &self.dir)
    }

    /// The configuration that it runs with.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join(CONFIG_FILE)
    }

    /// Changes its configuration and has it read again.
    pub(crate) fn reload(&self, change: impl FnOnce(String) -> String) {
        let path = self.config();
        let text = std::fs::read_to_string(&path).expect("its configuration");
        std::fs::write(&path, change(text)).expect("a changed configuration");
        self.signal(rustix::process::Signal::HUP);
    }

    /// Its process, or the one that has taken over last.
    pub(crate) fn pid(&self) -> u32 {
        self.successor().unwrap_or_else(|| self.child.id())
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        self.try_signal(signal).expect("the proxy runs");
    }

    fn try_signal(&self, signal: rustix::process::Signal) -> rustix::io::Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a pid"), signal)
    }

    /// Has another process take over, and waits until it serves.
    pub(crate) async fn hand_over(&mut self) {
        let before = self.successor();
        self.signal(rustix::process::Signal::USR2);
        wait::until("another process to serve", || async {
            (self.successor() != before).then_some(())
        })
        .await;
    }

    /// The process that has taken over last.
    fn successor(&self) -> Option<u32> {
        let log = self.log();
        let (_, rest) = log.rsplit_once("another process serves from now on pid=")?;
        rest.split_whitespace().next()?.parse().ok()
    }

    /// Waits for the end of the process that was started, and answers its exit code.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        let end = std::time::Instant::now() + wait::PATIENCE;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.code();
            }
            assert!(std::time::Instant::now() < end, "it did not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// One HTTP request; answers status and body, or nothing when nobody listens.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect((self.host.address, self.http)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    /// The sum of the samples of a metric whose labels contain all of `labels`, each written as
    /// `name="value"`.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, body) = self.get("/metrics").expect("metrics");
        let samples = body.lines().filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            let (found, rest) = sample.split_once('{').unwrap_or((sample, ""));
            let wanted = found == name && labels.iter().all(|label| rest.contains(label));
            value.parse::<f64>().ok().filter(|_| wanted)
        });
        samples.sum()
    }

    /// Waits until it says of itself what is wanted, as an HTTP status.
    async fn wait_until(mut self, wanted: impl Fn(u16) -> bool) -> Result<Self, String> {
        let end = std::time::Instant::now() + wait::PATIENCE;
        loop {
            if self.get("/readyz").is_some_and(|(status, _)| wanted(status)) {
                return Ok(self);
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("the proxy ended ({status}):\n{}", self.log()));
            }
            if std::time::Instant::now() > end {
                return Err(format!("the proxy was not ready in time:\n{}", self.log()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A console listens for nobody on another host.
fn console(host: &Host, port: u16, dir: &Path) -> String {
    match host.address.is_loopback() {
        true => SocketAddr::new(host.address, port).to_string(),
        false => dir.join("console").display().to_string(),
    }
}

fn spawn(host: &Host, dir: &Path) -> Child {
    let log = File::options().create(true).append(true).open(dir.join("log")).expect("its log");
    let through = host.through.iter().map(OsString::from);
    let mut words = through.chain([program()]);
    Command::new(words.next().expect("a program"))
        .args(words)
        .args(["serve", "--config"])
        .arg(dir.join(CONFIG_FILE))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("its log"))
        .stderr(log)
        .spawn()
        .expect("the proxy starts")
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if self.successor().is_some() {
            let _ = self.try_signal(rustix::process::Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the proxy's log:\n{}", self.log());
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The smallest configuration for `seeds`, with `group` as further TOML for the group.
pub(crate) fn configuration(seeds: &[&str], group: &str) -> String {
    configuration_with(MONITOR, "", seeds, group)
}

/// The same with another account that observes, and further TOML for how it does.
pub(crate) fn configuration_with(
    (user, password): (&str, &str),
    monitor: &str,
    seeds: &[&str],
    group: &str,
) -> String {
    let seeds: Vec<String> = seeds.iter().map(|seed| format!("{seed:?}")).collect();
    format!(
        "admin = \"{{admin}}\"\nhttp = \"{{http}}\"\nstate_dir = \"{{state}}\"\n\n\
         [monitor]\nuser = \"{user}\"\npassword = \"{password}\"\ninterval = \"100ms\"\n{monitor}\n\n\
         [groups.main]\nlisten = \"{{listen}}\"\nseeds = [{}]\n{group}\n",
        seeds.join(", ")
    )
}
