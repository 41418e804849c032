//! The built program in front of the scripted server, and clients that speak bytes.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pointsman::protocol::flags::{Capabilities, MariadbCapabilities};
use pointsman::protocol::handshake::HandshakeResponse;
use pointsman::provider::ports::free_ports;

use crate::server::{OFFERED, read_packet};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The program under test, with one worker, so that every client is everybody's neighbour.
pub(crate) struct Proxy {
    port: u16,
    /// Where a PROXY protocol header is demanded.
    pub(crate) proxied: u16,
    dir: PathBuf,
    child: Child,
}

impl Proxy {
    pub(crate) fn start(server: SocketAddr) -> Self {
        let name = format!("pointsman-corpus-{}-{}", std::process::id(), server.port());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).expect("a folder");
        let [port, proxied] = free_ports().expect("free ports");
        let group = |name: &str, port: u16, more: &str| {
            format!(
                "[groups.{name}]\nlisten = \"127.0.0.1:{port}\"\nhandshake_timeout = \"5s\"\n\
                 hold = \"1s\"\nconnect_timeout = \"2s\"\n{more}\n\
                 [[groups.{name}.servers]]\naddress = \"{server}\"\n\n"
            )
        };
        let config = format!(
            "state_dir = \"{}\"\nworkers = 1\n\n[monitor]\nuser = \"monitor\"\npassword = \"m\"\n\
             interval = \"1s\"\ntimeout = \"900ms\"\n\n{}{}[[users]]\nname = \"app\"\n\
             password = \"\"\n\n[[users]]\nname = \"badlogin\"\npassword = \"\"\n",
            dir.display(),
            group("main", port, ""),
            group("proxied", proxied, "proxy_protocol_from = [\"127.0.0.1/32\"]"),
        );
        let path = dir.join("pointsman.toml");
        std::fs::write(&path, config).expect("its configuration");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("its mode");
        let log = std::fs::File::create(dir.join("log")).expect("its log");
        let child = Command::new(env!("CARGO_BIN_EXE_pointsman"))
            .args(["serve", "--config"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("its log"))
            .stderr(log)
            .spawn()
            .expect("the proxy starts");
        let mut proxy = Self { port, proxied, dir, child };
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", proxied)).is_err() {
            assert!(Instant::now() < end && proxy.is_alive(), "no listener:\n{}", proxy.log());
            std::thread::yield_now();
        }
        proxy
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Resident memory, KiB.
    pub(crate) fn resident(&self) -> i64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it is alive");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("its memory");
        line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
    }

    /// A connection on which nothing was said.
    pub(crate) fn connect(&self, port: Option<u16>) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", port.unwrap_or(self.port)));
        let stream = stream.expect("the proxy listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a bound");
        stream.set_write_timeout(Some(PATIENCE)).expect("a bound");
        stream
    }

    /// A connection that has been greeted.
    pub(crate) fn greeted(&self) -> TcpStream {
        let mut stream = self.connect(None);
        let greeting = read_packet(&mut stream);
        let fits = greeting.as_ref().is_some_and(|(seq, greeting)| *seq == 0 && greeting[0] == 10);
        assert!(fits, "no greeting: {greeting:?}\n{}", self.log());
        stream
    }

    /// A client that has logged in.
    pub(crate) fn client(&self, user: &str) -> TcpStream {
        let mut stream = self.greeted();
        stream.write_all(&response(user, "mysql_native_password")).expect("the response");
        let answer = read_packet(&mut stream);
        let fits = answer.as_ref().is_some_and(|(seq, answer)| *seq == 2 && answer[0] == 0);
        assert!(fits, "no login: {answer:?}\n{}", self.log());
        stream
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            eprintln!("the end of its log:\n{}", &log[log.len().saturating_sub(4000)..]);
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A client's handshake response with an empty password.
pub(crate) fn response(user: &str, plugin: &str) -> Vec<u8> {
    let mut out = Vec::new();
    HandshakeResponse {
        capabilities: OFFERED.without(Capabilities::CONNECT_WITH_DB) | Capabilities::LONG_PASSWORD,
        mariadb: MariadbCapabilities(0),
        max_packet: 1 << 24,
        collation: 45,
        user: user.as_bytes().to_vec(),
        auth: Vec::new(),
        database: None,
        plugin: Some(plugin.as_bytes().to_vec()),
        attributes: Vec::new(),
        zstd_level: 0,
    }
    .encode(&mut out, 1);
    out
}

/// Sends `bytes` and the end, and reads what comes until the other side closes too. A peer that
/// neither answers nor closes in time fails here.
pub(crate) fn provoke(mut stream: TcpStream, bytes: &[u8], what: &str) -> Vec<u8> {
    // It may have closed in the middle of it: that is an answer.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{what}: neither answered nor closed: {error}"),
    }
    answer
}
