//! A real etcd, of one member in clear text, or of several that demand certificates and an account.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use etcd_client::{
    Certificate, Client, ConnectOptions, Identity, Permission, PermissionType, TlsOptions,
};
use pointsman::provider::Host;
use pointsman::provider::ports::free_ports;
use rustix::process::{Pid, Signal, kill_process};

use crate::authority::{Authority, Names};
use crate::{servers, wait};

/// All members; killed when dropped.
#[derive(Debug)]
pub(crate) struct Etcd {
    pub(crate) members: Vec<Member>,
    dir: PathBuf,
    /// Who may ask, where not everybody may.
    account: Option<(&'static str, &'static str)>,
}

/// One process.
#[derive(Debug)]
pub(crate) struct Member {
    child: Child,
    host: Host,
    words: Vec<String>,
}

/// Whether there is an etcd to test with; under continuous integration there must be.
pub(crate) fn has_etcd() -> bool {
    let found = Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_ok();
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(found || !ci, "continuous integration tests with etcd: install etcd-server");
    if !found {
        eprintln!("SKIPPED: etcd is not installed");
    }
    found
}

/// Who administers an etcd, and who may read and write the keys of pointsman and nothing else.
const ROOT: (&str, &str) = ("root", "etcd-root-secret");
pub(crate) const ACCOUNT: (&str, &str) = ("pm", "etcd-secret");

impl Etcd {
    /// One member on this host.
    pub(crate) fn start_on(host: Host) -> Self {
        Self::start(&[host], None)
    }

    /// So many members on this one, which demand a certificate and an account.
    pub(crate) async fn secured(count: usize) -> Self {
        let etcd = Self::start(&vec![Host::default(); count], Some(ACCOUNT));
        let mut root = wait::until("etcd to have a leader", || async {
            let options = ConnectOptions::new().with_tls(etcd.tls());
            let mut root = Client::connect(etcd.endpoints(), Some(options)).await.ok()?;
            root.get("anything", None).await.ok()?;
            Some(root)
        })
        .await;
        let keys = Permission::new(PermissionType::Readwrite, "pointsman/").with_prefix();
        root.role_add(ACCOUNT.0).await.expect("a role");
        root.role_grant_permission(ACCOUNT.0, keys).await.expect("a permission");
        for ((user, password), role) in [(ROOT, ROOT.0), (ACCOUNT, ACCOUNT.0)] {
            root.user_add(user, password, None).await.expect("a user");
            root.user_grant_role(user, role).await.expect("a role");
        }
        root.auth_enable().await.expect("accounts count");
        etcd
    }

    fn start(hosts: &[Host], account: Option<(&'static str, &'static str)>) -> Self {
        let dir = servers::scratch("etcd");
        std::fs::create_dir_all(&dir).expect("a folder for etcd");
        if account.is_some() {
            let authority = Authority::new("of etcd");
            authority.write(&dir, Names::Host("127.0.0.1"));
            std::fs::write(dir.join("ca.pem"), &authority.pem).expect("a file");
        }
        let ports: Vec<[u16; 2]> =
            hosts.iter().map(|_| free_ports().expect("free ports")).collect();
        let peer = |at: usize| format!("http://{}:{}", hosts[at].address, ports[at][1]);
        let peers: Vec<String> = (0..hosts.len()).map(|at| format!("m{at}={}", peer(at))).collect();
        let member = |at: usize| {
            let scheme = if account.is_some() { "https" } else { "http" };
            let clients = format!("{scheme}://{}:{}", hosts[at].address, ports[at][0]);
            let mut words = vec![
                format!("--name=m{at}"),
                format!("--data-dir={}", dir.join(format!("m{at}")).display()),
                format!("--listen-client-urls={clients}"),
                format!("--advertise-client-urls={clients}"),
                format!("--listen-peer-urls={}", peer(at)),
                format!("--initial-advertise-peer-urls={}", peer(at)),
                format!("--initial-cluster={}", peers.join(",")),
            ];
            if account.is_some() {
                let file = |name| dir.join(name).display().to_string();
                words.push(format!("--cert-file={}", file("cert.pem")));
                words.push(format!("--key-file={}", file("key.pem")));
                words.push(format!("--trusted-ca-file={}", file("ca.pem")));
                words.push("--client-cert-auth".to_owned());
            }
            Member { child: spawn(&hosts[at], &words), host: hosts[at].clone(), words }
        };
        Self { members: (0..hosts.len()).map(member).collect(), dir, account }
    }

    /// Where clients connect.
    pub(crate) fn endpoints(&self) -> Vec<&str> {
        let all = self.members.iter().flat_map(|member| &member.words);
        all.filter_map(|word| word.strip_prefix("--listen-client-urls=")).collect()
    }

    /// What a configuration says of it, of `[cluster]`.
    pub(crate) fn settings(&self) -> String {
        let members = format!("etcd = {:?}", self.endpoints());
        let Some((user, password)) = self.account else { return members };
        let dir = self.dir.display();
        format!(
            "{members}\nuser = \"{user}\"\npassword = \"{password}\"\ntls_ca = \"{dir}/ca.pem\"\n\
             tls_certificate = \"{dir}/cert.pem\"\ntls_key = \"{dir}/key.pem\""
        )
    }

    /// Waits until a member that was started again answers, with what the others have.
    pub(crate) async fn wait_for(&self, at: usize) {
        wait::until("a member of etcd to answer", || async {
            let options = ConnectOptions::new().with_user(ACCOUNT.0, ACCOUNT.1);
            let options = options.with_tls(self.tls());
            let mut client = Client::connect([self.endpoints()[at]], Some(options)).await.ok()?;
            client.get("pointsman/anything", None).await.ok()?;
            Some(())
        })
        .await;
    }

    fn tls(&self) -> TlsOptions {
        let read = |name| std::fs::read(self.dir.join(name)).expect("a file");
        TlsOptions::new()
            .ca_certificate(Certificate::from_pem(read("ca.pem")))
            .identity(Identity::from_pem(read("cert.pem"), read("key.pem")))
    }

    /// Where its files are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Member {
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a pid"), signal).expect("etcd runs");
    }

    /// It ends as in a crash.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it has ended");
    }

    /// It is started again with what it has kept.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.host, &self.words);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn spawn(host: &Host, words: &[String]) -> Child {
    let mut all = host.through.iter().map(String::as_str).chain(["etcd"]);
    Command::new(all.next().expect("a program"))
        .args(all)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd starts")
}
