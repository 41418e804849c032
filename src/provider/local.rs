//! A primary and its replicas as processes on this machine, each with a data directory of its own.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::app::tasks;
use crate::provider::ports::{Claim, claim};
use crate::provider::programs::{Install, Programs};
use crate::provider::replication::{self, Place, ROOT};
use crate::provider::server::{self, Condition, Server};
use crate::provider::state::{Entry, State};
use crate::provider::{Error, Flavour, Host, Lifetime, Relation, Spec, process};

/// How long a server that comes back may be nobody's replica.
const FOLLOWING: Duration = Duration::from_secs(20);
/// How long a server may take to come up, or to end.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How often a state that is waited for is looked at.
pub(super) const GLANCE: Duration = Duration::from_millis(25);
/// Longest path of a unix socket that every system takes.
const SOCKET_PATH: usize = 100;

/// A running sandbox. All methods take `&self`: what changes is in the processes and the folder.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    flavour: Flavour,
    programs: Programs,
    servers: Vec<Server>,
    /// Ends the servers when this process ends, whichever way; see [`Lifetime::Process`].
    guard: Option<Child>,
    /// Their ports are theirs also while they are down.
    _claims: Vec<Claim>,
}

impl Cluster {
    /// Starts what `spec` says and returns when every replica follows and acknowledges, or when all
    /// servers are up where none is to.
    ///
    /// # Errors
    /// When programs are missing, a server does not come up, or the folder is in use.
    pub async fn up(mut spec: Spec) -> Result<Self, Error> {
        if spec.relation == Relation::Strangers {
            let open = replication::as_installed(spec.flavour).iter();
            spec.options.extend(open.map(|option| (*option).to_owned()));
        }
        let programs = Programs::find(spec.flavour, spec.root.as_deref())?;
        let dir = std::path::absolute(&spec.dir).map_err(file("cannot find", &spec.dir))?;
        if dir.join("state.json").exists() {
            let what = format!("a sandbox lives in {}; take it down first", dir.display());
            return Err(Error::Refused(what));
        }
        std::fs::create_dir_all(&dir).map_err(file("cannot make", &dir))?;
        let claims = claim(spec.replicas + 1)?;
        let servers = lay_out(&dir, &claims, &spec.hosts)?;
        let guard = match spec.lifetime {
            Lifetime::Detached => None,
            Lifetime::Process => Some(guard(&dir)?),
        };
        let cluster =
            Self { dir, flavour: spec.flavour, programs, servers, guard, _claims: claims };
        cluster.write_state(&spec)?;
        cluster.fill_folders().await?;
        for server in &cluster.servers {
            cluster.spawn(server)?;
        }
        for server in &cluster.servers {
            cluster.wait_ready(server).await?;
        }
        if spec.relation == Relation::Strangers {
            return Ok(cluster);
        }
        let primary = cluster.primary()?;
        for replica in cluster.replicas()? {
            replica.run(&replication::follow(cluster.flavour, primary.at())).await?;
        }
        cluster.wait_acknowledging(spec.replicas).await?;
        Ok(cluster)
    }

    /// The sandbox that another command started in `dir`.
    ///
    /// # Errors
    /// When there is none.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let dir = std::path::absolute(dir).map_err(file("cannot find", dir))?;
        let state = State::read(&dir)?;
        let programs = Programs::find(state.flavour, state.root.as_deref())?;
        let servers = state.servers.iter().map(|entry| Server::new(&dir, entry)).collect();
        Ok(Self {
            dir,
            flavour: state.flavour,
            programs,
            servers,
            guard: None,
            _claims: Vec::new(),
        })
    }

    /// Family of the servers.
    #[must_use]
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The family's programs.
    #[must_use]
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// All servers, the first primary first.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The server called `name`.
    ///
    /// # Errors
    /// When there is none.
    pub fn server(&self, name: &str) -> Result<&Server, Error> {
        self.servers.iter().find(|server| server.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.servers.iter().map(|s| s.name.as_str()).collect();
            Error::Refused(format!("no server `{name}`; there are {}", names.join(", ")))
        })
    }

    /// The server that we made the primary last.
    ///
    /// # Errors
    /// When the state file is gone.
    pub fn primary(&self) -> Result<&Server, Error> {
        self.server(&State::read(&self.dir)?.primary)
    }

    /// The others.
    ///
    /// # Errors
    /// When the state file is gone.
    pub fn replicas(&self) -> Result<Vec<&Server>, Error> {
        let primary = State::read(&self.dir)?.primary;
        Ok(self.servers.iter().filter(|server| server.name != primary).collect())
    }

    /// Starts a server that is not running, with the role that it has now, and waits for it.
    ///
    /// # Errors
    /// When it runs already or does not come up.
    pub async fn start(&self, name: &str) -> Result<(), Error> {
        let server = self.server(name)?;
        if server.condition() != Condition::Dead {
            return Err(Error::Refused(format!("server {name} runs already")));
        }
        self.spawn(server)?;
        self.wait_ready(server).await
    }

    /// Stops a server in good order and waits until it is gone.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(&self, name: &str) -> Result<(), Error> {
        let server = self.server(name)?;
        server.signal(Signal::TERM);
        server.wait_gone().await
    }

    /// [`Cluster::stop`], then [`Cluster::start`].
    ///
    /// # Errors
    /// As those two.
    pub async fn restart(&self, name: &str) -> Result<(), Error> {
        self.stop(name).await?;
        self.start(name).await
    }

    /// Ends a server as a power failure would (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When there is no such server.
    pub async fn kill(&self, name: &str) -> Result<(), Error> {
        let server = self.server(name)?;
        server.signal(Signal::KILL);
        server.wait_gone().await
    }

    /// Stops a server in mid-breath (SIGSTOP): it still accepts connections and never answers.
    ///
    /// # Errors
    /// When there is no such server.
    pub fn freeze(&self, name: &str) -> Result<(), Error> {
        self.server(name)?.signal(Signal::STOP);
        Ok(())
    }

    /// Lets a frozen server go on (SIGCONT).
    ///
    /// # Errors
    /// When there is no such server.
    pub fn thaw(&self, name: &str) -> Result<(), Error> {
        self.server(name)?.signal(Signal::CONT);
        Ok(())
    }

    /// Makes `name` the primary by plain SQL, as an operator would do it: the old primary takes no
    /// more writes, the new one catches up, takes writes, and all others follow it.
    ///
    /// # Errors
    /// When a server does not answer or the new primary does not catch up in time.
    pub async fn switchover(&self, name: &str) -> Result<(), Error> {
        let old = self.primary()?;
        let new = self.server(name)?;
        if old.name == new.name {
            return Err(Error::Refused(format!("server {name} is the primary already")));
        }
        old.run(&[replication::step_down(self.flavour)]).await?;
        self.wait_applied(new, &old.ask(replication::position(self.flavour)).await?).await?;
        new.run(replication::become_primary(self.flavour)).await?;
        self.note_primary(&new.name)?;
        for server in self.servers.iter().filter(|server| server.name != new.name) {
            let before = replication::before_following(self.flavour).iter();
            let mut statements: Vec<String> = before.map(|text| (*text).to_owned()).collect();
            if server.name == old.name {
                let position = replication::carry_position(self.flavour);
                statements.extend(position.map(str::to_owned));
            }
            statements.extend(replication::follow(self.flavour, new.at()));
            server.run(&statements).await?;
        }
        Ok(())
    }

    /// Waits until a server other than the noted primary takes writes, which somebody else has made
    /// the primary, and notes it.
    ///
    /// # Errors
    /// When none does in time.
    pub async fn wait_replaced(&self) -> Result<&Server, Error> {
        let until = Instant::now() + PATIENCE;
        loop {
            for replica in self.replicas()? {
                let closed = replica.ask("SELECT @@global.read_only").await;
                if closed.is_ok_and(|closed| closed == "0") {
                    self.note_primary(&replica.name)?;
                    return Ok(replica);
                }
            }
            if Instant::now() > until {
                let state = "another server that takes writes".to_owned();
                return Err(Error::Timeout { seconds: PATIENCE.as_secs(), state });
            }
            sleep(GLANCE).await;
        }
    }

    fn note_primary(&self, name: &str) -> Result<(), Error> {
        let mut state = State::read(&self.dir)?;
        name.clone_into(&mut state.primary);
        state.write(&self.dir)
    }

    /// Waits until somebody has made a replica of a server, and it has applied what the primary has
    /// executed by then; false when nobody has for a while.
    ///
    /// # Errors
    /// When it does not get there in time.
    pub async fn wait_following(&self, server: &Server) -> Result<bool, Error> {
        let until = Instant::now() + FOLLOWING;
        // To wait for a position before would be in the way: MariaDB's `SET GLOBAL gtid_slave_pos`
        // does not return, nor does SHOW SLAVE STATUS, as long as a session is in MASTER_GTID_WAIT
        // (10.11, measured).
        while server.ask(replication::following(self.flavour)).await? != "1" {
            if Instant::now() > until {
                return Ok(false);
            }
            sleep(GLANCE).await;
        }
        let position = self.primary()?.ask(replication::position(self.flavour)).await?;
        self.wait_applied(server, &position).await?;
        Ok(true)
    }

    /// Waits until every replica that runs has applied what the primary has executed now.
    ///
    /// # Errors
    /// When one of them does not get there in time.
    pub async fn wait_caught_up(&self) -> Result<(), Error> {
        let position = self.primary()?.ask(replication::position(self.flavour)).await?;
        for replica in self.replicas()? {
            if replica.condition() == Condition::Running {
                self.wait_applied(replica, &position).await?;
            }
        }
        Ok(())
    }

    /// Waits until `replicas` of them acknowledge to the primary.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn wait_acknowledging(&self, replicas: usize) -> Result<(), Error> {
        let primary = self.primary()?;
        let until = Instant::now() + PATIENCE;
        loop {
            let clients = primary.ask(replication::acknowledging(self.flavour)).await?;
            if clients == replicas.to_string() {
                return Ok(());
            }
            if Instant::now() > until {
                let state = format!("{replicas} acknowledging replicas (there are {clients})");
                return Err(Error::Timeout { seconds: PATIENCE.as_secs(), state });
            }
            sleep(GLANCE).await;
        }
    }

    /// Kills all servers and removes the folder.
    ///
    /// # Errors
    /// When a server does not go away or the folder cannot be removed.
    pub async fn down(mut self) -> Result<(), Error> {
        for server in &self.servers {
            server.signal(Signal::KILL);
        }
        for server in &self.servers {
            server.wait_gone().await?;
        }
        if let Some(mut guard) = self.guard.take() {
            // It ends when its input does, finds nothing to kill, and removes the folder.
            drop(guard.stdin.take());
            let _ = guard.wait();
            return Ok(());
        }
        std::fs::remove_dir_all(&self.dir).map_err(file("cannot remove", &self.dir))
    }

    async fn wait_applied(&self, server: &Server, position: &str) -> Result<(), Error> {
        let seconds = PATIENCE.as_secs();
        let position = position.replace('\n', "");
        let answer = server.ask(&replication::wait_for(self.flavour, &position, seconds)).await?;
        if answer == "0" {
            return Ok(());
        }
        Err(Error::Timeout { seconds, state: format!("{} to apply {position}", server.name) })
    }

    fn write_state(&self, spec: &Spec) -> Result<(), Error> {
        let entry = |server: &Server| Entry {
            name: server.name.clone(),
            host: server.host.clone(),
            port: server.port,
            socket: server.socket.clone(),
            server_id: server.server_id,
            dsn: server.dsn(),
        };
        let state = State {
            flavour: spec.flavour,
            primary: "db1".to_owned(),
            servers: self.servers.iter().map(entry).collect(),
            durability: spec.durability,
            options: spec.options.clone(),
            root: spec.root.clone(),
        };
        state.write(&self.dir)
    }

    /// Makes one data directory with its accounts, and a copy of it for every other server.
    async fn fill_folders(&self) -> Result<(), Error> {
        let first = self.servers.first();
        let first = first.ok_or_else(|| Error::Refused("a cluster without servers".to_owned()))?;
        let temporary = temporary(first);
        let first = first.dir.join("data");
        let accounts = self.dir.join("accounts.sql");
        std::fs::write(&accounts, replication::accounts(self.flavour))
            .map_err(file("cannot write", &accounts))?;
        let server = [self.programs.server.as_slice(), &["--no-defaults".to_owned()]].concat();
        let mut common = self.programs.places.clone();
        common.push(format!("--datadir={}", first.display()));
        common.push(temporary);
        common.extend(run_as());
        let mut fill = [server.as_slice(), &common].concat();
        fill.push("--bootstrap".to_owned());
        fill.push("--innodb-log-file-size=8M".to_owned());
        match &self.programs.install {
            Install::Script(script) => {
                let mut make = [script.as_slice(), &["--no-defaults".to_owned()]].concat();
                make.extend(common.iter().cloned());
                make.push("--auth-root-authentication-method=normal".to_owned());
                make.push("--skip-test-db".to_owned());
                make.push("--innodb-log-file-size=8M".to_owned());
                finish(&make, None).await?;
                finish(&fill, Some(&accounts)).await?;
            }
            Install::Statements(files) => {
                std::fs::create_dir_all(&first).map_err(file("cannot make", &first))?;
                let all = self.dir.join("system.sql");
                write_together(&all, files, &accounts)?;
                finish(&fill, Some(&all)).await?;
            }
            Install::Server => {
                let mut make = [server.as_slice(), &common].concat();
                make.push("--initialize-insecure".to_owned());
                make.push(format!("--init-file={}", accounts.display()));
                finish(&make, None).await?;
                // The server's UUID; each makes its own when it first starts.
                let identity = first.join("auto.cnf");
                std::fs::remove_file(&identity).map_err(file("cannot remove", &identity))?;
            }
        }
        for other in self.servers.iter().skip(1) {
            let copy = ["cp", "-a", "--reflink=auto"].map(str::to_owned);
            let to = other.dir.join("data").display().to_string();
            finish(&[copy.as_slice(), &[first.display().to_string(), to]].concat(), None).await?;
        }
        Ok(())
    }

    /// Starts the process of `server` and notes its pid.
    fn spawn(&self, server: &Server) -> Result<(), Error> {
        let state = State::read(&self.dir)?;
        let place = Place {
            server_id: server.server_id,
            at: server.at(),
            read_only: state.primary != server.name,
            durability: state.durability,
        };
        let mut command = server.host.through.clone();
        command.extend(self.programs.server.iter().cloned());
        command.push("--no-defaults".to_owned());
        command.extend(self.programs.places.iter().cloned());
        command.extend(run_as());
        command.push(format!("--datadir={}", server.dir.join("data").display()));
        command.push(temporary(server));
        command.push(format!("--socket={}", server.socket.display()));
        command.push(format!("--pid-file={}", server.dir.join("server.pid").display()));
        command.push(format!("--log-error={}", server.error_log().display()));
        command.push(format!("--general-log-file={}", server.general_log().display()));
        // A file system of its own can be laid there.
        let logs = server.binary_logs();
        std::fs::create_dir_all(&logs).map_err(file("cannot make", &logs))?;
        command.push(format!("--log-bin={}", logs.join("binlog").display()));
        command.extend(replication::options(self.flavour, &place));
        command.extend(state.options);
        // MySQL refuses to start over the lock of a killed server whose pid is not collected yet.
        let mut lock = server.socket.clone().into_os_string();
        lock.push(".lock");
        let _ = std::fs::remove_file(lock);
        let pid = process::start(&command, &server.dir.join("console.log"))
            .map_err(file("cannot start the server of", &server.dir))?;
        let note = server.dir.join("pid");
        std::fs::write(&note, pid.to_string()).map_err(file("cannot write", &note))
    }

    /// Waits until `server` lets root in.
    async fn wait_ready(&self, server: &Server) -> Result<(), Error> {
        let until = Instant::now() + PATIENCE;
        let mut is_gone = false;
        loop {
            let refusal = match server.connect(ROOT).await {
                Ok(conn) => {
                    let _ = conn.disconnect().await;
                    return Ok(());
                }
                Err(refusal) => refusal,
            };
            // Once one that came up counted as ended for a moment, in a network of its own on a
            // busy machine. Why was not found out.
            let was_gone = std::mem::replace(&mut is_gone, server.condition() == Condition::Dead);
            let what = if is_gone && was_gone {
                "ended while it started".to_owned()
            } else if Instant::now() > until {
                format!("did not let anyone in within {} s: {refusal}", PATIENCE.as_secs())
            } else {
                sleep(GLANCE).await;
                continue;
            };
            return Err(Error::Server { name: server.name.clone(), what, log: server.log_end() });
        }
    }
}

/// Writes what makes the system tables, and then the accounts, as one file.
fn write_together(all: &Path, tables: &[PathBuf], accounts: &Path) -> Result<(), Error> {
    // What mariadb-install-db says first: root without a password, as a script of ours finds it.
    let mut sql = b"CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n".to_vec();
    for path in tables.iter().map(PathBuf::as_path).chain([accounts]) {
        sql.extend(std::fs::read(path).map_err(file("cannot read", path))?);
        sql.push(b'\n');
    }
    std::fs::write(all, sql).map_err(file("cannot write", all))
}

/// Names, folders and these ports for as many servers.
fn lay_out(dir: &Path, ports: &[Claim], hosts: &[Host]) -> Result<Vec<Server>, Error> {
    let mut servers = Vec::new();
    let hosts = hosts.iter().cloned().chain(std::iter::repeat_with(Host::default));
    for ((server_id, host), Claim { port, .. }) in (1u32..).zip(hosts).zip(ports) {
        let port = *port;
        let name = format!("db{server_id}");
        let folder = dir.join(&name);
        std::fs::create_dir_all(&folder).map_err(file("cannot make", &folder))?;
        let mut socket = folder.join("sock");
        if socket.as_os_str().len() > SOCKET_PATH {
            socket = std::env::temp_dir().join(format!("pointsman-{port}.sock"));
        }
        servers.push(Server { name, host, port, socket, server_id, dir: folder });
    }
    Ok(servers)
}

/// A shell that waits for the end of this process (its input closes then), kills every server of
/// `dir` and removes the folder. It needs nothing of us, so it works after a SIGKILL too.
fn guard(dir: &Path) -> Result<Child, Error> {
    use std::os::unix::process::CommandExt as _;
    let script = "cat >/dev/null
        for note in \"$0\"/*/pid; do
          pid=$(cat \"$note\") && grep -qF -- \"$0/\" /proc/$pid/cmdline && kill -9 $pid
        done 2>/dev/null
        for i in 1 2 3 4 5 6 7 8 9 10; do rm -rf \"$0\" && break; sleep 0.2; done 2>/dev/null";
    Command::new("/bin/sh")
        .args(["-c", script])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(file("cannot start the guard of", dir))
}

/// A server that starts removes every temporary table that it finds in its folder for them, also
/// those of other servers; the system's folder is everybody's, so each gets one of its own.
fn temporary(server: &Server) -> String {
    format!("--tmpdir={}", server.dir.display())
}

/// Servers refuse to run as root unless told to.
fn run_as() -> Option<String> {
    rustix::process::geteuid().is_root().then(|| "--user=root".to_owned())
}

/// Runs a program to its end, `input` as its standard input.
async fn finish(command: &[String], input: Option<&Path>) -> Result<(), Error> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| Error::Refused("an empty command line".to_owned()))?;
    let stdin = match input {
        Some(path) => Stdio::from(std::fs::File::open(path).map_err(file("cannot read", path))?),
        None => Stdio::null(),
    };
    let mut child = Command::new(program);
    child.args(arguments).stdin(stdin);
    let output = tasks::blocking(move || child.output())
        .await
        .map_err(file("cannot run", Path::new(program)))?;
    if output.status.success() {
        return Ok(());
    }
    let mut said = output.stdout;
    let _ = said.write_all(&output.stderr);
    let output = server::last_lines(&String::from_utf8_lossy(&said));
    Err(Error::Program { program: command.join(" "), output })
}

/// The error about a file, for `map_err`.
fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::File { what, path, source }
}
