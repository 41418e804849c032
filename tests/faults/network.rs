//! A network of one's own: a test runs again in a network namespace and is the router there between
//! hosts, each of them a namespace too. What gets lost is lost in the router, so that either end
//! sees nothing but silence.

use std::fs::{read_link, write};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use pointsman::provider::Host;

use crate::wait;

/// Set in the run that is the router.
const ROUTER: &str = "POINTSMAN_TEST_ROUTER";

/// Numbers for networks: what lives in a former one may not have ended yet.
static NEXT: AtomicU8 = AtomicU8::new(1);

/// Runs a test again as the router of a network of its own, by its whole name; true in that run.
pub(crate) fn is_entered(test: &str) -> bool {
    if std::env::var_os(ROUTER).is_some() {
        return true;
    }
    if !unshare().arg("true").status().expect("unshare(1) of util-linux").success() {
        eprintln!("SKIPPED: this system lets nobody here make a network namespace");
        return false;
    }
    let program = std::env::current_exe().expect("this program");
    let mut again = unshare();
    again.arg(program).args([test, "--exact", "--nocapture"]).env(ROUTER, "1");
    let ended = again.status().expect("unshare(1) of util-linux");
    assert!(ended.success(), "{test} in a network of its own: {ended}");
    false
}

/// What makes a network namespace, with mounts of its own, and runs in it what is added.
fn unshare() -> Command {
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    unshare.args(["--net", "--mount", "--"]);
    unshare
}

/// Hosts, and the way between them.
#[derive(Debug)]
pub(crate) struct Network {
    machines: Vec<Machine>,
    /// Numbers of rules.
    rules: AtomicU32,
}

/// A network namespace, which ends with the process that holds it.
#[derive(Debug)]
struct Machine {
    holder: Child,
    address: Ipv4Addr,
}

impl Network {
    /// So many hosts that reach one another; this process reaches them all, whatever is cut.
    pub(crate) async fn of(count: u8) -> Self {
        assert!(std::env::var_os(ROUTER).is_some(), "only inside a network of its own");
        run("ip", &["link", "set", "lo", "up"]);
        write("/proc/sys/net/ipv4/ip_forward", "1").expect("a router forwards");
        let network = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut machines = Vec::new();
        for number in 1..=count {
            machines.push(Machine::new(network, number).await);
        }
        Self { machines, rules: AtomicU32::new(1) }
    }

    /// A host, from 0.
    pub(crate) fn host(&self, number: usize) -> Host {
        let machine = &self.machines[number];
        let pid = machine.holder.id().to_string();
        let through = ["nsenter", "--target", &pid, "--net", "--"].map(str::to_owned).to_vec();
        Host { address: machine.address.into(), through }
    }

    /// From now on nothing gets from one host to the other; the other way is left as it is.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        let number = self.rules.fetch_add(1, Ordering::Relaxed);
        let [from, to] = [from, to].map(|at| self.machines[at].address.to_string());
        let rule = ["rule", "add", "pref", &number.to_string(), "from", &from, "to", &to];
        run("ip", &[&rule[..], &["blackhole"]].concat());
    }

    /// Nothing gets from either to the other.
    pub(crate) fn part(&self, one: usize, other: usize) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// All ways are open again.
    pub(crate) fn mend(&self) {
        for number in 1..self.rules.swap(1, Ordering::Relaxed) {
            run("ip", &["rule", "del", "pref", &number.to_string()]);
        }
    }
}

impl Machine {
    async fn new(network: u8, number: u8) -> Self {
        // It ends when its input does, which this process holds.
        let mut holder = unshare();
        holder.arg("cat").stdin(Stdio::piped()).stdout(Stdio::null());
        let holder = holder.spawn().expect("unshare(1) of util-linux");
        let pid = holder.id().to_string();
        let own = read_link("/proc/self/ns/net").expect("a namespace");
        wait::until("a namespace", || async {
            let its = read_link(format!("/proc/{pid}/ns/net")).ok()?;
            (its != own).then_some(())
        })
        .await;
        let wire = format!("wire{network}.{number}");
        let here = Ipv4Addr::new(10, network, number, 1);
        let address = Ipv4Addr::new(10, network, number, 2);
        let ends = ["link", "add", &wire, "type", "veth", "peer", "name", "wire", "netns", &pid];
        run("ip", &ends);
        run("ip", &["address", "add", &format!("{here}/24"), "dev", &wire]);
        run("ip", &["link", "set", &wire, "up"]);
        let inside = |arguments: &[&str]| {
            let enter = ["--target", &pid, "--net", "--", "ip"];
            run("nsenter", &[&enter[..], arguments].concat());
        };
        inside(&["link", "set", "lo", "up"]);
        inside(&["address", "add", &format!("{address}/24"), "dev", "wire"]);
        inside(&["link", "set", "wire", "up"]);
        inside(&["route", "add", "default", "via", &here.to_string()]);
        Self { holder, address }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Runs a program that must do what it is told.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let ended = Command::new(program).args(arguments).output();
    let ended = ended.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{program} {}: {said}", arguments.join(" "));
}
