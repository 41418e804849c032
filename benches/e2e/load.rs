//! The load: point selects by primary key from clients that know just enough of the protocol.
//!
//! All clients run on one thread and write raw bytes, so that a client costs little and the same
//! whatever is measured. The length of the answer is learnt from the first one, with the reply
//! walker; after that an answer is so many bytes that begin with the count of its columns.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use pointsman::config::tls::{ServerTls, ServerTlsMode};
use pointsman::protocol::auth::{Credential, Password};
use pointsman::protocol::flags::{Capabilities, MariadbCapabilities};
use pointsman::protocol::login::{LoginRequest, RsaPolicy};
use pointsman::protocol::packet;
use pointsman::protocol::walker::{Expect, ReplyWalker, Stop};
use pointsman::provider::replication::{APP, DATABASE};
use pointsman::reactor::Reactor;
use pointsman::tls::trust::{Demand, Trust};
use pointsman::upstream::dial::{Dialed, Target, dial};
use tokio::sync::{mpsc, oneshot};

use crate::fronts::Cpu;

/// Rows of the table, with keys from 1.
pub(crate) const ROWS: u32 = 10_000;
/// Time before the measurement begins.
const WARM_UP: Duration = Duration::from_millis(150);

/// How the statements are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// COM_QUERY.
    Text,
    /// COM_STMT_EXECUTE, prepared once a client.
    Prepared,
    /// COM_QUERY, in TLS with whoever answers.
    Tls,
}

impl Mode {
    pub(crate) const ALL: [Self; 3] = [Self::Text, Self::Prepared, Self::Tls];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Prepared => "prepared",
            Self::Tls => "tls",
        }
    }
}

/// What one measurement has shown.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    pub(crate) qps: f64,
    pub(crate) p50_micros: f64,
    pub(crate) p99_micros: f64,
    /// CPU of the proxy for each query, microseconds; 0 without a proxy.
    pub(crate) cpu_micros: f64,
}

struct Shared {
    stop: Cell<bool>,
    counting: Cell<bool>,
    done: Cell<u64>,
    latencies: RefCell<Histogram<u64>>,
}

/// Runs `clients` clients against a port of this machine and measures for `time`.
pub(crate) fn run(port: u16, clients: usize, mode: Mode, time: Duration, cpu: &Cpu) -> Figures {
    // The clients' thread has the proxy's own reactor; the time comes from another one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (stop, stopped) = oneshot::channel::<()>();
    let handle = runtime.handle().clone();
    let clock = std::thread::spawn(move || runtime.block_on(stopped));
    let context = handle.enter();
    let reactor = Reactor::new().expect("a reactor");
    let figures = reactor.block_on(measure(&reactor, port, clients, mode, time, cpu));
    drop((context, stop));
    let _ = clock.join();
    figures.expect("events")
}

async fn measure(
    reactor: &Rc<Reactor>,
    port: u16,
    clients: usize,
    mode: Mode,
    time: Duration,
    cpu: &Cpu,
) -> Figures {
    let shared = Rc::new(Shared {
        stop: Cell::new(false),
        counting: Cell::new(false),
        done: Cell::new(0),
        latencies: RefCell::new(Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("bounds")),
    });
    let (ended, mut all_ended) = mpsc::channel(clients.max(1));
    for number in 0..clients {
        let client = Client::connect(reactor, port, mode, number).await;
        let (shared, ended) = (shared.clone(), ended.clone());
        reactor.spawn(async move {
            client.drive(shared).await;
            let _ = ended.try_send(());
        });
    }
    drop(ended);
    tokio::time::sleep(WARM_UP).await;
    let (cpu_before, start) = (cpu.micros(), Instant::now());
    shared.counting.set(true);
    tokio::time::sleep(time).await;
    shared.counting.set(false);
    let (cpu_after, elapsed) = (cpu.micros(), start.elapsed());
    shared.stop.set(true);
    for _ in 0..clients {
        all_ended.recv().await.expect("a client ends well");
    }
    let done = shared.done.get().max(1) as f64;
    let latencies = shared.latencies.borrow();
    Figures {
        qps: done / elapsed.as_secs_f64(),
        p50_micros: latencies.value_at_quantile(0.5) as f64 / 1e3,
        p99_micros: latencies.value_at_quantile(0.99) as f64 / 1e3,
        cpu_micros: (cpu_after - cpu_before) / done,
    }
}

struct Client {
    dialed: Dialed,
    mode: Mode,
    statement: u32,
    seed: u32,
    request: Vec<u8>,
    reply: Vec<u8>,
    /// Length of an answer.
    expected: usize,
}

impl Client {
    async fn connect(reactor: &Rc<Reactor>, port: u16, mode: Mode, number: usize) -> Self {
        let request = LoginRequest {
            user: APP.0.as_bytes().to_vec(),
            credential: Credential::Password(Password::new(APP.1.as_bytes().to_vec())),
            database: Some(DATABASE.as_bytes().to_vec()),
            collation: 45,
            capabilities: Capabilities::PROTOCOL_41
                .with(Capabilities::SECURE_CONNECTION)
                .with(Capabilities::PLUGIN_AUTH)
                .with(Capabilities::CONNECT_WITH_DB)
                .with(Capabilities::TRANSACTIONS)
                .with(Capabilities::DEPRECATE_EOF),
            mariadb: MariadbCapabilities::default(),
            max_packet: 1 << 24,
            attributes: Vec::new(),
            rsa: RsaPolicy::AskServer,
            secure: false,
        };
        let address = format!("127.0.0.1:{port}");
        let tls = match mode {
            Mode::Text | Mode::Prepared => ServerTlsMode::Off,
            Mode::Tls => ServerTlsMode::SkipVerify,
        };
        let tls = ServerTls { mode: tls, ..ServerTls::default() };
        let target = Target {
            address: &address,
            timeout: Duration::from_secs(10),
            proxied: None,
            trust: Arc::new(Trust::new(&tls).expect("nothing to read")),
            demand: Demand::Nothing,
            compression: None,
            asks_start: false,
            setup: None,
            sandbox_will_do: false,
        };
        let dialed = dial(reactor, target, request).await.expect("a login");
        let seed = 0x9E37_79B9 ^ (u32::try_from(number).unwrap_or(0) + 1).wrapping_mul(0x85EB_CA6B);
        let (request, reply) = (Vec::new(), vec![0; 16 * 1024]);
        let mut client = Self { dialed, mode, statement: 0, seed, request, reply, expected: 0 };
        if mode == Mode::Prepared {
            client.put(b"\x16SELECT c FROM bench WHERE id=?");
            client.ask_and_walk(Expect::Prepare).await;
            let id = client.reply.get(5..9).and_then(|id| id.try_into().ok());
            client.statement = u32::from_le_bytes(id.expect("a statement's id"));
        }
        client.next_request();
        let expect = if mode == Mode::Prepared { Expect::Execute } else { Expect::Query };
        client.expected = client.ask_and_walk(expect).await;
        client
    }

    fn put(&mut self, payload: &[u8]) {
        self.request.clear();
        packet::write(&mut self.request, 0, payload);
    }

    /// Sends the request and reads the whole answer, by its grammar; says how long it is.
    async fn ask_and_walk(&mut self, expect: Expect) -> usize {
        self.dialed.stream.write_all(&self.request).await.expect("a write");
        let (caps, mariadb) = (self.dialed.capabilities, self.dialed.mariadb);
        let mut walker = ReplyWalker::new(expect, caps, mariadb);
        let (mut have, mut seen) = (0, 0);
        while !walker.is_done() {
            let advance = walker.advance(&self.reply[seen..have]).expect("a sound reply");
            seen += advance.forward;
            match advance.stop {
                Stop::Notable(notable) => seen += notable.len,
                Stop::NeedMore => {
                    let read = self.dialed.stream.read(&mut self.reply[have..]).await;
                    have += read.ok().filter(|read| *read > 0).expect("an answer");
                }
            }
        }
        assert!(have > 4 && self.reply[4] != 0xFF, "the server refused: {:?}", &self.reply[..have]);
        have
    }

    /// The next key, all as likely; written with the same number of digits.
    fn next_request(&mut self) {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 17;
        self.seed ^= self.seed << 5;
        let key = self.seed % ROWS + 1;
        self.request.clear();
        match self.mode {
            Mode::Text | Mode::Tls => {
                let sql = format!("\x03SELECT c FROM bench WHERE id={key}");
                packet::write(&mut self.request, 0, sql.as_bytes());
            }
            Mode::Prepared => {
                let mut payload = [0; 18];
                payload[0] = 0x17;
                payload[1..5].copy_from_slice(&self.statement.to_le_bytes());
                payload[6] = 1; // One iteration; no cursor before, no NULL after.
                payload[11] = 1; // The types follow: one MYSQL_TYPE_LONG.
                payload[12] = 3;
                payload[14..18].copy_from_slice(&key.to_le_bytes());
                packet::write(&mut self.request, 0, &payload);
            }
        }
    }

    async fn drive(mut self, shared: Rc<Shared>) {
        while !shared.stop.get() {
            self.next_request();
            let start = Instant::now();
            self.dialed.stream.write_all(&self.request).await.expect("a write");
            let mut have = 0;
            while have < self.expected {
                let read = self.dialed.stream.read(&mut self.reply[have..]).await;
                have += read.ok().filter(|read| *read > 0).expect("an answer");
            }
            assert_eq!((have, self.reply[4]), (self.expected, 1), "not the row that was asked for");
            if shared.counting.get() {
                shared.done.set(shared.done.get() + 1);
                let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                shared.latencies.borrow_mut().saturating_record(nanos);
            }
        }
    }
}
