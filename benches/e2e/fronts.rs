//! What stands between the clients and the primary: nothing, HAProxy, the bare forwarder, or
//! pointsman; and how much CPU it uses.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pointsman::provider::local::Cluster;
use pointsman::provider::ports::free_ports;
use pointsman::provider::replication::MONITOR;

/// Longest wait for a front to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// One way to the servers.
pub(crate) struct Front {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    pub(crate) cpu: Cpu,
    child: Option<Child>,
}

/// The CPU time of a process, all threads together; none for no process.
pub(crate) struct Cpu(Option<u32>);

impl Cpu {
    /// User and system time so far, microseconds. The scheduler's own count: what `stat` and
    /// `times` report is the same, cut to ticks of 10 ms.
    pub(crate) fn micros(&self) -> f64 {
        let Some(pid) = self.0 else { return 0.0 };
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
        let nanos = threads.flatten().filter_map(|thread| {
            let schedstat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            schedstat.split(' ').next()?.parse::<u64>().ok()
        });
        nanos.sum::<u64>() as f64 / 1e3
    }
}

impl Front {
    pub(crate) fn direct(cluster: &Cluster) -> Self {
        let port = cluster.primary().expect("a primary").port;
        Self { name: "direct", port, cpu: Cpu(None), child: None }
    }

    /// Debian's HAProxy in TCP mode with as many threads as pointsman has workers.
    pub(crate) fn haproxy(cluster: &Cluster, dir: &Path) -> Self {
        let [port] = free_ports().expect("a free port");
        let server = cluster.primary().expect("a primary").address();
        let config = format!(
            "global\n  nbthread 2\n  maxconn 4000\n\
             defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  \
             timeout server 1h\n\
             listen bench\n  bind 127.0.0.1:{port}\n  server primary {server}\n"
        );
        let path = dir.join("haproxy.cfg");
        std::fs::write(&path, config).expect("HAProxy's configuration");
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&path);
        Self::start("haproxy", port, command, &dir.join("haproxy.log"))
    }

    /// This very program, forwarding.
    pub(crate) fn forwarder(cluster: &Cluster, dir: &Path) -> Self {
        let [port] = free_ports().expect("a free port");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.arg("--forward").arg(format!("127.0.0.1:{port}"));
        command.arg(cluster.primary().expect("a primary").address());
        Self::start("forwarder", port, command, &dir.join("forwarder.log"))
    }

    /// A pointsman; `alone` knows the primary only, so that all runs where HAProxy runs it. Its
    /// name may stand for further [settings].
    pub(crate) fn pointsman(
        name: &'static str,
        program: &Path,
        cluster: &Cluster,
        dir: &Path,
        alone: bool,
    ) -> Self {
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir).expect("a folder for pointsman");
        let [port, http] = free_ports().expect("free ports");
        let primary = cluster.primary().expect("a primary").address();
        let servers = match alone {
            true => format!("\n[[groups.main.servers]]\naddress = \"{primary}\"\n"),
            false => format!("seeds = [\"{primary}\"]\n"),
        };
        let further = settings(name);
        let (user, password) = MONITOR;
        let config = format!(
            "http = \"127.0.0.1:{http}\"\nstate_dir = {dir:?}\nworkers = 2\n\n\
             [monitor]\nuser = \"{user}\"\npassword = \"{password}\"\n\n\
             [groups.main]\nlisten = \"127.0.0.1:{port}\"\n{further}{servers}",
            dir = dir.display().to_string(),
        );
        let path = dir.join("pointsman.toml");
        std::fs::write(&path, config).expect("pointsman's configuration");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("its mode");
        let mut command = Command::new(program);
        command.arg("serve").arg("--config").arg(&path);
        let front = Self::start(name, port, command, &dir.join("log"));
        wait("pointsman to be ready", || is_ready(http));
        front
    }

    fn start(name: &'static str, port: u16, mut command: Command, log: &PathBuf) -> Self {
        let log = std::fs::File::create(log).expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let front = Self { name, port, cpu: Cpu(Some(child.id())), child: Some(child) };
        wait(name, || TcpStream::connect(("127.0.0.1", port)).is_ok());
        front
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a front's pointsman is told besides. The others are told nothing: an older build may not
/// know it.
fn settings(name: &str) -> &'static str {
    match name {
        "encrypted" => "server_tls = \"skip-verify\"\n",
        // Each session keeps its links.
        "unshared" => "multiplexing = false\n",
        // Links go to the pool after each statement, and come back.
        "eager" => "idle_release = \"0\"\n",
        // Many clients take turns on these, with a reset at each.
        "few" => "max_server_links = 8\n",
        _ => "",
    }
}

fn is_ready(http: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", http))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

fn wait(what: &str, mut is_there: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_there() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
