//! The proxy in front of the sandbox: a child process of the same program, with a configuration of
//! its own, watched through its HTTP address.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::demo::Error;
use crate::provider::local::Cluster;
use crate::provider::ports::free_ports;
use crate::provider::process;
use crate::provider::replication::KEEPER;
use crate::provider::server;

/// How long the proxy may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer that is read, bytes.
const ANSWER_LIMIT: u64 = 4 << 20;

/// A running proxy.
#[derive(Debug)]
pub struct Front {
    /// The one address that clients know.
    pub dsn: String,
    admin: u16,
    http: u16,
    dir: PathBuf,
}

impl Front {
    /// Starts the proxy with one server as its seed and returns when it is ready.
    ///
    /// # Errors
    /// When it does not get ready; with the end of its log.
    pub async fn start(cluster: &Cluster) -> Result<Self, Error> {
        let dir = folder(cluster);
        let [listen, admin, http] = free_ports()?;
        let seed = cluster.primary()?.address();
        let config = configuration([listen, admin, http], &dir, &seed);
        let program = std::env::current_exe().map_err(system("finding our own program"))?;
        let path = dir.join("pointsman.toml");
        std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::write(&path, config))
            .map_err(system("writing the proxy's configuration"))?;
        let command = [&program, Path::new("serve"), Path::new("--config"), &path]
            .map(|word| word.to_string_lossy().into_owned());
        let pid = process::start(&command, &dir.join("log")).map_err(system("the proxy"))?;
        std::fs::write(dir.join("pid"), pid.to_string()).map_err(system("the proxy's pid"))?;
        let front =
            Self { dsn: server::dsn((Ipv4Addr::LOCALHOST, listen).into()), admin, http, dir };
        front.wait_ready(pid).await?;
        front.wait_safe(pid).await?;
        Ok(front)
    }

    /// Ends the proxy in front of `cluster`, if one runs.
    pub fn end(cluster: &Cluster) {
        let dir = folder(cluster);
        let note = std::fs::read_to_string(dir.join("pid")).unwrap_or_default();
        if let Ok(pid) = note.trim().parse() {
            process::signal(pid, &dir.display().to_string(), Signal::KILL);
        }
    }

    /// What `/metrics` says now; empty when it does not answer.
    pub async fn metrics(&self) -> String {
        match get(self.http, "/metrics").await {
            Ok((200, body)) => body,
            Ok(_) | Err(_) => String::new(),
        }
    }

    /// What someone needs who goes on with it, and how to end it.
    #[must_use]
    pub fn addresses(&self, cluster: &Cluster) -> Vec<String> {
        let dir = self.dir.display();
        let admin = self.admin;
        vec![
            "left running:".to_owned(),
            format!("  DSN      {}", self.dsn),
            format!(
                "  admin    mariadb -h127.0.0.1 -P{admin} -uadmin -p\"$(cat {dir}/admin-password)\""
            ),
            format!("  metrics  http://127.0.0.1:{}/metrics", self.http),
            format!("  log      {dir}/log"),
            format!(
                "to end it: kill $(cat {dir}/pid); pointsman sandbox down --dir {}",
                cluster.dir().display()
            ),
        ]
    }

    async fn wait_ready(&self, pid: u32) -> Result<(), Error> {
        self.wait(pid, "ready", "/readyz", |_| true).await
    }

    /// Waits until its keeper has seen that a failover would lose nothing.
    async fn wait_safe(&self, pid: u32) -> Result<(), Error> {
        let safe = |metrics: &str| {
            let mut lines =
                metrics.lines().filter(|at| at.starts_with("pointsman_keeper_standing"));
            lines.any(|line| line.contains("\"safe\"") && line.ends_with(" 1"))
        };
        self.wait(pid, "safe", "/metrics", safe).await
    }

    /// Waits until what it answers under `path` is this.
    async fn wait(
        &self,
        pid: u32,
        state: &str,
        path: &str,
        is_it: impl Fn(&str) -> bool,
    ) -> Result<(), Error> {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = get(self.http, path).await;
            if matches!(&answer, Ok((200, body)) if is_it(body)) {
                return Ok(());
            }
            let status = answer.map(|(status, _)| status);
            let what = if !process::is_alive(pid, &self.dir.display().to_string()) {
                "ended while it started".to_owned()
            } else if Instant::now() > until {
                format!("was not {state} after {} s: {status:?}", PATIENCE.as_secs())
            } else {
                sleep(Duration::from_millis(25)).await;
                continue;
            };
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            return Err(Error::Proxy { what, log: server::last_lines(&log) });
        }
    }
}

/// Where the proxy's files are; below the sandbox, so that they end with it.
fn folder(cluster: &Cluster) -> PathBuf {
    cluster.dir().join("proxy")
}

fn configuration([listen, admin, http]: [u16; 3], dir: &Path, seed: &str) -> String {
    let (user, password) = KEEPER;
    let dir = dir.display();
    format!(
        "admin = \"127.0.0.1:{admin}\"\n\
         http = \"127.0.0.1:{http}\"\n\
         state_dir = \"{dir}\"\n\n\
         [monitor]\n\
         user = \"{user}\"\n\
         password = \"{password}\"\n\
         interval = \"100ms\"\n\
         timeout = \"500ms\"\n\n\
         [groups.main]\n\
         listen = \"127.0.0.1:{listen}\"\n\
         seeds = [\"{seed}\"]\n\
         commit_outcome = \"known\"\n\n\
         [groups.main.failover]\n\
         mode = \"auto\"\n"
    )
}

/// One HTTP request; answers status and body.
async fn get(port: u16, path: &str) -> io::Result<(u16, String)> {
    let request = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(ANSWER_LIMIT).read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        Ok((status, body.to_owned()))
    };
    match tokio::time::timeout(Duration::from_secs(2), request).await {
        Ok(result) => result,
        Err(late) => Err(late.into()),
    }
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::System { what, source }
}
