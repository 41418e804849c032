//! Runs a case on one side, and looks into the logs after each step.

use std::collections::BTreeMap;

use pointsman::protocol::flags::{Capabilities, MariadbCapabilities, Status};
use pointsman::protocol::walker::Expect;
use pointsman::protocol::{reply, session_track};
use pointsman::provider::replication::{APP, MONITOR, REPL, ROOT};

use super::client::{As, Client, Parameter, Reply, show};
use super::script::{self, Case, Place, Step};
use crate::logs::{Logged, Tail};
use crate::wait;

/// One of the two sides.
#[derive(Debug)]
pub(super) struct Side<'a> {
    pub(super) port: u16,
    /// The letter that its markers begin with.
    pub(super) mark: char,
    /// The primary's name in the cluster.
    pub(super) primary: &'a str,
    /// Who else takes the session's links.
    pub(super) rivals: Rivals,
    /// The ports of all servers, wherever this side's statements run.
    pub(super) servers: &'a [u16],
}

/// Other clients, in a state of their own, that take the links which a session has given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rivals {
    /// There are none.
    None,
    /// Two, after each step.
    Staying,
    /// One that is new each time, and has had no link before, after every few steps.
    Passing,
}

impl Side<'_> {
    /// It is the server itself, with which the proxy is compared.
    fn is_direct(&self) -> bool {
        self.mark == 'd'
    }
}

/// What became of a step.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) reply: Reply,
    /// It ran where it should not.
    pub(super) misroute: Option<String>,
}

/// The run of one case.
struct Run<'a> {
    side: &'a Side<'a>,
    case: &'a Case,
    capabilities: Capabilities,
    mariadb: MariadbCapabilities,
    sessions: Vec<Option<Client>>,
    ids: Vec<Option<u32>>,
    /// Markers of prepared statements, by session and name.
    markers: BTreeMap<(usize, String), String>,
    /// Where each session's last statement ran.
    last: BTreeMap<usize, String>,
    /// What they have told in this step.
    logged: Vec<Logged>,
    file: Vec<u8>,
    rivals: Vec<Client>,
}

/// Steps between two rivals that pass.
const PASSING: usize = 5;

/// What a rival does first, so that what it leaves on a link would show.
const RIVAL_STATE: [&str; 2] = [
    "SET SESSION sql_mode='ANSI_QUOTES', time_zone='+05:00', sql_select_limit=1",
    "SET @a='leaked', @v='leaked', @x='leaked', @n='leaked'",
];

/// Root's connection to the server at `port`.
pub(super) fn root(port: u16) -> Client {
    let who = As {
        user: ROOT.0.to_owned(),
        password: ROOT.1.to_owned(),
        schema: None,
        capabilities: Capabilities::default(),
        mariadb: MariadbCapabilities::default(),
        collation: 45,
    };
    Client::connect(port, &who).expect("root may log in")
}

/// Runs a statement of a case's setup as root.
pub(super) fn as_root(root: &mut Client, case: &Case, sql: &str) {
    let sql = script::expand(sql, "", &case.schema(), &[]);
    let payload = root.query(&sql, &[]);
    root.send(&payload);
    let reply = root.receive(Expect::Query, b"");
    if let Some(error) = reply.error() {
        panic!("setup of {} {}: {}: {error}", case.table, case.schema(), show(&sql));
    }
}

/// Runs a case.
pub(super) async fn case(
    side: &Side<'_>,
    case: &Case,
    capabilities: Capabilities,
    tails: &mut [Tail],
) -> Vec<Outcome> {
    let (capabilities, mariadb) = negotiated(case, capabilities);
    let mut run = Run {
        side,
        case,
        capabilities,
        mariadb,
        sessions: Vec::new(),
        ids: Vec::new(),
        markers: BTreeMap::new(),
        last: BTreeMap::new(),
        logged: Vec::new(),
        file: Vec::new(),
        rivals: Vec::new(),
    };
    let mut outcomes = Vec::new();
    for (number, step) in case.steps.iter().enumerate() {
        run.look(tails);
        run.logged.clear();
        outcomes.push(run.step(number, step, tails).await);
        run.let_rivals_work(number);
    }
    outcomes
}

fn negotiated(case: &Case, base: Capabilities) -> (Capabilities, MariadbCapabilities) {
    let (mut caps, mut mariadb) = (base, MariadbCapabilities::default());
    for (add, name) in &case.flags {
        let flag = match name.as_str() {
            "found_rows" => Capabilities::FOUND_ROWS,
            "no_schema" => Capabilities::NO_SCHEMA,
            "ignore_space" => Capabilities::IGNORE_SPACE,
            "interactive" => Capabilities::INTERACTIVE,
            "local_files" => Capabilities::LOCAL_FILES,
            "multi_statements" => Capabilities::MULTI_STATEMENTS,
            "attributes" => Capabilities::QUERY_ATTRIBUTES,
            "optional_metadata" => Capabilities::OPTIONAL_RESULTSET_METADATA,
            "expired" => Capabilities::CAN_HANDLE_EXPIRED_PASSWORDS,
            "extended_metadata" => {
                mariadb = mariadb.with(MariadbCapabilities::EXTENDED_METADATA);
                Capabilities::default()
            }
            "cache_metadata" => {
                mariadb = mariadb.with(MariadbCapabilities::CACHE_METADATA);
                Capabilities::default()
            }
            "bulk" => {
                mariadb = mariadb.with(MariadbCapabilities::STMT_BULK_OPERATIONS);
                Capabilities::default()
            }
            "unit_results" => {
                mariadb = mariadb.with(MariadbCapabilities::BULK_UNIT_RESULTS);
                Capabilities::default()
            }
            "progress" => {
                mariadb = mariadb.with(MariadbCapabilities::PROGRESS);
                Capabilities::default()
            }
            _ => panic!("{}: no flag {name:?}", case.table),
        };
        caps = if *add { caps.with(flag) } else { caps.without(flag) };
    }
    (caps, mariadb)
}

fn ask(client: &mut Client, sql: &str) -> Reply {
    let payload = client.query(sql.as_bytes(), &[]);
    client.send(&payload);
    let reply = client.receive(Expect::Query, b"");
    assert!(reply.error().is_none(), "{sql}: {reply:?}");
    reply
}

/// Whether a row of the process list, or a transaction of InnoDB's status, is in this state and has
/// the text in its statement.
fn shows(reply: &Reply, state: &str, text: &str) -> bool {
    reply.packets.iter().any(|(_, packet)| {
        let packet = String::from_utf8_lossy(packet);
        // The last deadlock, long gone, stands above the transactions.
        let now = packet.split_once("\nTRANSACTIONS\n").map_or(&*packet, |(_, now)| now);
        let mut each = now.split("---TRANSACTION");
        each.any(|one| one.contains(state) && one.contains(text))
    })
}

impl Run<'_> {
    fn marker(&self, number: usize) -> String {
        format!("/*{}{:03}.{number:02}*/", self.side.mark, self.case.number)
    }

    /// Takes what the logs have got since the last look.
    fn look(&mut self, tails: &mut [Tail]) {
        let ours = [ROOT.0, MONITOR.0, REPL.0];
        for tail in tails {
            let news = tail.more().into_iter();
            self.logged.extend(news.filter(|entry| !ours.contains(&entry.user.as_str())));
        }
    }

    /// The account that cases use unless they name another.
    fn app(&self) -> As {
        As {
            user: APP.0.to_owned(),
            password: APP.1.to_owned(),
            schema: Some(self.case.schema()),
            capabilities: self.capabilities,
            mariadb: self.mariadb,
            collation: 45,
        }
    }

    fn open(&mut self, session: usize, user: &str, password: &str) -> Result<(), Vec<u8>> {
        let who = As { user: user.to_owned(), password: password.to_owned(), ..self.app() };
        while self.sessions.len() <= session {
            self.sessions.push(None);
            self.ids.push(None);
        }
        let client = Client::connect(self.side.port, &who)?;
        self.ids[session] = Some(client.id);
        self.sessions[session] = Some(client);
        Ok(())
    }

    /// Each rival takes a link to the primary and one to a replica, if it gets any, and gives
    /// them up again.
    fn let_rivals_work(&mut self, number: usize) {
        let count = match self.side.rivals {
            Rivals::None => return,
            Rivals::Passing if !number.is_multiple_of(PASSING) => return,
            Rivals::Passing => 1,
            Rivals::Staying => 2,
        };
        while self.rivals.len() < count {
            let who = self.app();
            let mut rival = Client::connect(self.side.port, &who).expect("a rival may log in");
            for sql in RIVAL_STATE {
                ask(&mut rival, sql);
            }
            self.rivals.push(rival);
        }
        for rival in &mut self.rivals {
            for sql in ["SELECT 1 FOR UPDATE", "SELECT 'rival' FROM DUAL"] {
                ask(rival, sql);
            }
        }
        if self.side.rivals == Rivals::Passing {
            self.rivals.clear();
        }
    }

    fn client(&mut self, session: usize) -> &mut Client {
        if !self.sessions.get(session).is_some_and(Option::is_some) {
            let opened = self.open(session, APP.0, APP.1);
            opened.unwrap_or_else(|why| panic!("{}: login: {}", self.case.title, show(&why)));
        }
        self.sessions[session].as_mut().expect("opened")
    }

    async fn step(&mut self, number: usize, step: &Step, tails: &mut [Tail]) -> Outcome {
        let marker = self.marker(number);
        let find = step.words.iter().find_map(|word| word.strip_prefix("find="));
        let schema = self.case.schema();
        let needle = match (find, step.verb.as_str()) {
            (Some(find), _) => find.replace("$S", &schema),
            (None, "execute" | "bulk") => {
                let name = step.words.first().cloned().unwrap_or_default();
                self.markers.get(&(step.session, name)).cloned().unwrap_or_default()
            }
            (None, _) => marker.clone(),
        };
        let body = script::expand(&step.body, &marker, &schema, &self.ids);
        if step.verb == "await" {
            self.come_to(&step.words, &String::from_utf8_lossy(&body)).await;
            return Outcome::default();
        }
        let reply = self.act(step, marker, body);
        self.look(tails);
        let reply = self.without_own_ids(reply);
        let misroute = self.misroute(step, &needle);
        Outcome { reply, misroute }
    }

    /// Waits until the statement with `text` in it sleeps, or waits for a row's lock, on one of
    /// the servers. That a server has logged it says only that it has been read.
    async fn come_to(&self, words: &[String], text: &str) {
        // Not INNODB_TRX: who looks there more than ten times a second sees what was there first.
        let (asked, state) = match words {
            [word] if word == "sleep" => ("SHOW FULL PROCESSLIST", "User sleep"),
            [word] if word == "lock" => ("SHOW ENGINE INNODB STATUS", "LOCK WAIT"),
            _ => panic!("{}: await sleep> or await lock>", self.case.table),
        };
        let mut roots: Vec<Client> = self.side.servers.iter().map(|port| root(*port)).collect();
        wait::until(&format!("{state}: {text}"), || {
            let is_there = |root| shows(&ask(root, asked), state, text);
            let there = roots.iter_mut().any(is_there);
            async move { there.then_some(()) }
        })
        .await;
    }

    fn act(&mut self, step: &Step, marker: String, body: Vec<u8>) -> Reply {
        let words: Vec<&str> = step.words.iter().map(String::as_str).collect();
        let text = String::from_utf8_lossy(&body).into_owned();
        let name = words.first().copied().unwrap_or_default();
        match step.verb.as_str() {
            "open" => {
                let (user, password) = text.split_once(' ').expect("user and password");
                return match self.open(step.session, user, password) {
                    Ok(()) => Reply::default(),
                    Err(payload) => Reply { packets: vec![(0, payload)], broken: false },
                };
            }
            "quit" => {
                self.client(step.session).send(&[1]);
                self.sessions[step.session] = None;
                return Reply::default();
            }
            "drop" => {
                self.sessions[step.session] = None;
                return Reply::default();
            }
            "file" => {
                self.file = body;
                return Reply::default();
            }
            "prepare" => {
                self.markers.insert((step.session, name.to_owned()), marker.clone());
            }
            _ => {}
        }
        let file = std::mem::take(&mut self.file);
        let marked = |body: &[u8]| {
            let named = step.body.contains("$M") || words.contains(&"nomark");
            if named { body.to_vec() } else { [marker.as_bytes(), b" ", body].concat() }
        };
        let steps = self.case.steps.iter();
        let asked = steps.clone().any(|step| step.body.contains("session_track_transaction_info"));
        let client = self.client(step.session);
        let capabilities = client.capabilities;
        let mut sent = true;
        let expect = match step.verb.as_str() {
            "query" | "send" | "attributes" => {
                let attributes = words.iter().filter_map(|word| word.split_once('='));
                let attributes: Vec<_> = attributes.filter(|(name, _)| *name != "find").collect();
                let payload = client.query(&marked(&body), &attributes);
                sent = client.send(&payload);
                if step.verb == "send" {
                    return Reply::default();
                }
                Expect::Query
            }
            "recv" => Expect::Query,
            "prepare" => {
                sent = client.send(&[b"\x16".as_slice(), &marked(&body)].concat());
                let reply = client.receive(Expect::Prepare, b"");
                client.keep_statement(name, &reply);
                let reply = settled(reply, Expect::Prepare, capabilities, asked);
                return broken_unless(sent, reply);
            }
            "execute" => {
                let (cursor, typed) = (words.contains(&"cursor"), !words.contains(&"untyped"));
                let payload = client.execution(name, cursor, typed, &parameters(&body));
                sent = client.send(&payload);
                Expect::Execute
            }
            "bulk" => {
                let payload = bulk(client, name, &body);
                sent = client.send(&payload);
                Expect::Bulk
            }
            "fetch" => {
                let rows: u32 = text.parse().expect("a number of rows");
                let id = client.statement(name).to_le_bytes();
                sent = client.send(&[b"\x1C".as_slice(), &id, &rows.to_le_bytes()].concat());
                Expect::Fetch
            }
            "reset" => {
                let id = client.statement(name).to_le_bytes();
                sent = client.send(&[b"\x1A".as_slice(), &id].concat());
                Expect::Simple
            }
            "close" | "long" => {
                let id = client.statement(name).to_le_bytes();
                if step.verb == "close" {
                    client.send(&[b"\x19".as_slice(), &id].concat());
                } else {
                    let parameter: u16 = words[1].parse().expect("a parameter's number");
                    let parameter = parameter.to_le_bytes();
                    client.send(&[b"\x18".as_slice(), &id, &parameter, &body].concat());
                }
                return Reply::default();
            }
            "changeuser" => {
                let mut parts = text.split(' ');
                let mut part = || parts.next().unwrap_or_default();
                return client.change_user(part(), part(), part());
            }
            "closed" => {
                let closed = client.is_closed();
                // On the direct side the server itself shows that the case is wrong.
                assert!(closed || !self.side.is_direct(), "{}: it stays open", self.case.title);
                return Reply { packets: Vec::new(), broken: closed };
            }
            "greeting" => return greeting(client),
            "init" => {
                sent = client.send(&[b"\x02", body.as_slice()].concat());
                Expect::Simple
            }
            "fields" => {
                let (table, wild) = text.split_once(' ').unwrap_or((&text, ""));
                sent = client.send(format!("\x04{table}\0{wild}").as_bytes());
                Expect::FieldList
            }
            "option" => {
                let option: u16 = text.parse().expect("an option");
                client.send(&[b"\x1B".as_slice(), &option.to_le_bytes()].concat());
                let reply = client.receive(Expect::Simple, b"");
                let mut reply = settled(reply, Expect::Simple, capabilities, asked);
                // It repeats how many warnings the statement before had on its server.
                match reply.packets.last_mut().map(|(_, payload)| payload.as_mut_slice()) {
                    Some([0xFE, warnings @ .., _, _]) if warnings.len() == 2 => warnings.fill(0),
                    Some([0xFE, _, _, _, _, low, high, ..]) => [*low, *high] = [0, 0],
                    _ => {}
                }
                return reply;
            }
            "ping" => {
                client.send(&[0x0E]);
                let reply = client.receive(Expect::Simple, b"");
                return settled(reply, Expect::Simple, capabilities, asked);
            }
            "resetconn" => {
                sent = client.send(&[0x1F]);
                Expect::Simple
            }
            "processkill" => {
                let id: u32 = text.parse().expect("an id");
                sent = client.send(&[b"\x0C".as_slice(), &id.to_le_bytes()].concat());
                Expect::Simple
            }
            "raw" => {
                sent = client.send(&body);
                Expect::Simple
            }
            "statistics" => {
                client.send(&[0x09]);
                let mut reply = client.receive(Expect::Statistics, b"");
                // Its numbers are its own; what they are called is not.
                for (_, payload) in &mut reply.packets {
                    payload.retain(|byte| !byte.is_ascii_digit());
                }
                return reply;
            }
            verb => panic!("{}:{}: no verb {verb:?}", self.case.table, step.line),
        };
        let reply = settled(client.receive(expect, &file), expect, capabilities, asked);
        broken_unless(sent, reply)
    }

    /// Errors that name one of the case's sessions, without its number.
    fn without_own_ids(&self, mut reply: Reply) -> Reply {
        if let Some((_, payload)) = reply.packets.last_mut()
            && payload.first() == Some(&0xFF)
        {
            for (n, id) in self.ids.iter().enumerate() {
                let number = format!("thread {}", id.unwrap_or(0)).into_bytes();
                if payload.ends_with(&number) {
                    payload.truncate(payload.len() - number.len());
                    payload.extend_from_slice(format!("thread $ID{n}").as_bytes());
                }
            }
        }
        reply
    }

    /// Says what is wrong with where the step ran.
    fn misroute(&mut self, step: &Step, needle: &str) -> Option<String> {
        const EXECUTED: [&str; 4] = ["Query", "Execute", "Field List", "Init DB"];
        let mut ran: Vec<String> = Vec::new();
        for entry in &self.logged {
            if EXECUTED.contains(&entry.command.as_str()) && entry.text.contains(needle) {
                ran.push(entry.server.clone());
            }
        }
        let last = self.last.get(&step.session).cloned();
        if let Some(server) = ran.last() {
            self.last.insert(step.session, server.clone());
        }
        if self.side.is_direct() || step.place == Place::Unseen {
            return None;
        }
        let primary = self.side.primary;
        let all = |is: &dyn Fn(&String) -> bool| !ran.is_empty() && ran.iter().all(is);
        let first = ran.first().cloned();
        let right = match step.place {
            Place::Primary => all(&|server| server == primary),
            // Among rivals the next link may be another server's: the answer is carried.
            Place::Replica if self.side.rivals != Rivals::None => all(&|server| server != primary),
            Place::SameAsLast if self.side.rivals != Rivals::None => !ran.is_empty(),
            Place::Replica => all(&|server| server != primary && Some(server) == first.as_ref()),
            Place::SameAsLast => last.is_some() && all(&|server| Some(server) == last.as_ref()),
            Place::RefusedThenPrimary => {
                // The logs are read one after the other, so their order tells nothing.
                ran.len() == 2 && ran.iter().filter(|server| *server == primary).count() == 1
            }
            Place::Unseen => true,
        };
        (!right).then(|| format!("expected {:?} (last {last:?}), ran on {ran:?}", step.place))
    }
}

fn broken_unless(sent: bool, mut reply: Reply) -> Reply {
    reply.broken |= !sent;
    reply
}

/// What a driver learns at the login.
fn greeting(client: &Client) -> Reply {
    let hello = &client.greeting;
    // TLS and compression end at the proxy, which offers its own.
    let capabilities = hello
        .capabilities
        .without(Capabilities::SSL)
        .without(Capabilities::COMPRESS)
        .without(Capabilities::ZSTD_COMPRESSION)
        .without(Capabilities::OPTIONAL_RESULTSET_METADATA)
        .without(Capabilities::MULTI_FACTOR_AUTHENTICATION);
    // Which server sends which definitions is not the client's to remember.
    let mariadb = hello.mariadb.without(MariadbCapabilities::CACHE_METADATA);
    let text = format!(
        "{} {:?} {:?} {:?} {} {}",
        show(&hello.version),
        capabilities,
        mariadb,
        hello.status,
        hello.collation,
        show(&hello.plugin)
    );
    let packets = vec![(0, text.into_bytes()), (1, welcome(client))];
    Reply { packets, broken: false }
}

/// The OK packet of the login. What MariaDB 11.4 and later prove by it depends on the nonce; and
/// 11.8 begins with the values of the variables that it will report, which the proxy leaves out
/// as older servers do.
fn welcome(client: &Client) -> Vec<u8> {
    let mut packet = Vec::new();
    let Ok(ok) = reply::Ok::parse(&client.welcome, client.capabilities) else {
        return client.welcome.clone();
    };
    let mut tracks = Vec::new();
    for change in session_track::changes(ok.tracks).flatten() {
        if !matches!(change, session_track::Change::Variable { .. }) {
            session_track::push(&mut tracks, &change);
        }
    }
    let info: &[u8] = if ok.info.first() == Some(&1) { b"a proof" } else { ok.info };
    let status = match tracks.is_empty() {
        true => ok.status.without(Status::SESSION_STATE_CHANGED),
        false => ok.status,
    };
    let settled = reply::Ok { info, status, tracks: &tracks, ..ok };
    settled.encode(&mut packet, 0, 0, client.capabilities);
    packet.split_off(4)
}

/// `1, 'x', NULL, LONG`.
fn parameters(body: &[u8]) -> Vec<Parameter> {
    if body.is_empty() {
        return Vec::new();
    }
    let word = |word: &[u8]| match word.trim_ascii() {
        b"NULL" => Parameter::Null,
        b"LONG" => Parameter::Long,
        [b'\'', text @ .., b'\''] => Parameter::Text(text.to_vec()),
        number => {
            let number = String::from_utf8_lossy(number);
            Parameter::Integer(number.parse().unwrap_or_else(|_| panic!("parameter {number}")))
        }
    };
    body.split(|byte| *byte == b',').map(word).collect()
}

/// COM_STMT_BULK_EXECUTE with rows of one integer each, `1, 2, 3`; with a result for each row
/// where that was agreed on.
fn bulk(client: &Client, name: &str, body: &[u8]) -> Vec<u8> {
    let mut payload = vec![0xFA];
    payload.extend_from_slice(&client.statement(name).to_le_bytes());
    let by_unit = client.mariadb.has(MariadbCapabilities::BULK_UNIT_RESULTS);
    let flags: u16 = if by_unit { 128 | 64 } else { 128 };
    payload.extend_from_slice(&flags.to_le_bytes());
    payload.extend_from_slice(&[0x08, 0]);
    for parameter in parameters(body) {
        let Parameter::Integer(value) = parameter else { panic!("integers only") };
        payload.push(0);
        payload.extend_from_slice(&value.to_le_bytes());
    }
    payload
}

/// The reply without what is free: a statement's id is a number of the server's choice, and
/// the variables in one block of changes come in no particular order.
fn settled(mut reply: Reply, expect: Expect, capabilities: Capabilities, asked: bool) -> Reply {
    if let (Expect::Prepare, Some((_, payload))) = (expect, reply.packets.first_mut())
        && payload.first() == Some(&0)
    {
        payload[1..5].fill(0);
    }
    for (_, payload) in &mut reply.packets {
        without_statement_id(payload);
        if payload.first() == Some(&0xFF) {
            continue;
        }
        if matches!(payload.first(), Some(0 | 0xFE)) {
            settle_changes(payload, capabilities, asked);
            // In an EOF packet, which carries no changes, the flag that tells of some has no
            // meaning; MariaDB sets it for clients without trackers too, now and then.
            if payload.len() == 5 && payload.first() == Some(&0xFE) {
                payload[4] &= !0x40;
            }
        }
    }
    reply
}

/// `handler (17) given` and `statement (17) has`, in an error and where it is listed.
fn without_statement_id(payload: &mut Vec<u8>) {
    for before in [b"Unknown prepared statement handler (".as_slice(), b"The statement ("] {
        if let Some(start) = memchr::memmem::find(payload, before) {
            let at = start + before.len();
            let digits = payload[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            payload.drain(at..at + digits);
            if payload[0] != 0xFF {
                // The length of the text stands in front of it.
                payload[start - 1] -= u8::try_from(digits).expect("a number");
            }
        }
    }
}

/// Puts the changes of an OK packet in order. `asked`: the client asked for the transaction's
/// state; where it did not, MySQL 9.7 tells of it all the same at the begin and the end of a
/// transaction (and sets the flag with nothing behind it in a chain), which MariaDB and the
/// proxy do not.
fn settle_changes(payload: &mut Vec<u8>, capabilities: Capabilities, asked: bool) {
    let Ok(ok) = reply::Ok::parse(payload, capabilities) else { return };
    if !capabilities.has(Capabilities::SESSION_TRACK) {
        return;
    }
    let (mut variables, mut rest) = (Vec::new(), Vec::new());
    for change in session_track::changes(ok.tracks).flatten() {
        let mut bytes = Vec::new();
        session_track::push(&mut bytes, &change);
        match change {
            session_track::Change::Variable { .. } => variables.push(bytes),
            session_track::Change::TransactionState(_) if !asked => {}
            _ => rest.push(bytes),
        }
    }
    variables.sort();
    let tracks = [variables.concat(), rest.concat()].concat();
    let status = match tracks.is_empty() {
        true => ok.status.without(Status::SESSION_STATE_CHANGED),
        false => ok.status,
    };
    let mut packet = Vec::new();
    let settled = reply::Ok { tracks: &tracks, status, ..ok };
    settled.encode(&mut packet, 0, payload[0], capabilities);
    *payload = packet.split_off(4);
}

/// The first packets that differ, for a reader.
pub(super) fn difference(direct: &Reply, proxied: &Reply) -> String {
    let mut lines = Vec::new();
    let count = direct.packets.len().max(proxied.packets.len());
    for n in 0..count {
        let (one, other) = (direct.packets.get(n), proxied.packets.get(n));
        if one != other && lines.len() < 6 {
            let packet = |packet: Option<&(u8, Vec<u8>)>| match packet {
                Some((seq, payload)) => format!("[{seq}] {}", show(payload)),
                None => "nothing".to_owned(),
            };
            lines.push(format!("    packet {n} direct  {}", packet(one)));
            lines.push(format!("    packet {n} proxied {}", packet(other)));
        }
    }
    if direct.broken != proxied.broken {
        lines.push(format!("    closed: direct {}, proxied {}", direct.broken, proxied.broken));
    }
    lines.join("\n")
}
