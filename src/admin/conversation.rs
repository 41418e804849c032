//! One connection to the console: the login, then one command after the other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::admin::commands::AdminCommand;
use crate::admin::listen::{Door, Stream};
use crate::admin::parse::{self, ParseError, STATEMENT_LIMIT};
use crate::admin::smalltalk::{self, Answer, Asker};
use crate::admin::table::Table;
use crate::control::ControlError;
use crate::metrics::Outcome;
use crate::protocol::auth::{self, CACHING_SHA2, NATIVE, Password};
use crate::protocol::command::{self, Command};
use crate::protocol::errno::SqlError;
use crate::protocol::flags::{Capabilities, MariadbCapabilities, Status};
use crate::protocol::greet::{Account, Greet, Hello, Offer, Step};
use crate::protocol::packet::{self, Frame, HEADER_LEN};
use crate::protocol::reply::{self, Eof, Ok as OkPacket};
use crate::protocol::resultset::{self, Column};

/// Time for a login, delays for wrong passwords aside.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// An operator who is silent for longer has gone home.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Time for a client to take an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest packet of a login, bytes.
const LOGIN_LIMIT: usize = 64 * 1024;

/// What the console can do. No multi-statements, no TLS, no tracking, no prepared statements.
const CAPABILITIES: Capabilities = Capabilities(
    Capabilities::LONG_PASSWORD.0
        | Capabilities::FOUND_ROWS.0
        | Capabilities::LONG_FLAG.0
        | Capabilities::CONNECT_WITH_DB.0
        | Capabilities::IGNORE_SPACE.0
        | Capabilities::PROTOCOL_41.0
        | Capabilities::INTERACTIVE.0
        | Capabilities::TRANSACTIONS.0
        | Capabilities::SECURE_CONNECTION.0
        | Capabilities::MULTI_RESULTS.0
        | Capabilities::PLUGIN_AUTH.0
        | Capabilities::CONNECT_ATTRS.0
        | Capabilities::PLUGIN_AUTH_LENENC_CLIENT_DATA.0
        | Capabilities::DEPRECATE_EOF.0,
);

/// utf8mb4_general_ci.
const COLLATION: u8 = 45;

/// One connection.
#[derive(Debug)]
pub struct Conversation {
    door: Arc<Door>,
    asker: Asker,
    /// Whether nobody but the kernel sees what passes.
    local: bool,
    /// What the client said at its login.
    hello: Hello,
}

/// The bytes that have come and are not used yet.
struct Wire {
    stream: Box<dyn Stream>,
    unread: Vec<u8>,
}

/// Why a conversation ends.
#[derive(Debug, thiserror::Error)]
enum End {
    /// The client left, or the connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The client was silent, or slow, for too long.
    #[error("too slow")]
    Slow,
    /// What was sent is not the protocol, or the login was refused; the client has been told.
    #[error("{0}")]
    Refused(SqlError),
    /// The client said goodbye.
    #[error("goodbye")]
    Quit,
}

// === impls ===

impl Conversation {
    /// A conversation with the peer at `host`.
    #[must_use]
    pub fn new(door: Arc<Door>, id: u32, host: String, local: bool) -> Self {
        let version = format!("8.0.0-pointsman-{}", env!("CARGO_PKG_VERSION"));
        let asker = Asker { user: String::new(), host, id, version };
        Self { door, asker, local, hello: Hello::default() }
    }

    /// Talks until one side has enough.
    pub async fn run(mut self, stream: Box<dyn Stream>, mut shutdown: watch::Receiver<bool>) {
        let mut wire = Wire { stream, unread: Vec::new() };
        let ended = tokio::select! {
            ended = self.talk(&mut wire) => ended,
            _ = shutdown.wait_for(|stop| *stop) => return,
        };
        if let Err(end) = ended {
            tracing::debug!(peer = %self.asker.host, id = self.asker.id, %end, "console closed");
        }
    }

    /// Says that there are too many.
    pub async fn refuse(self, stream: Box<dyn Stream>) {
        let mut wire = Wire { stream, unread: Vec::new() };
        let error = SqlError::too_many_connections();
        let _ = wire.send(&error.packet(0, Capabilities::default())).await;
    }

    async fn talk(&mut self, wire: &mut Wire) -> Result<(), End> {
        self.login(wire).await?;
        loop {
            let payload = self.next_command(wire).await?;
            let answer = match command::parse(&payload, self.hello.capabilities) {
                Ok(Command::Quit) => return Err(End::Quit),
                Ok(command) => self.answer(command).await,
                Err(_) => self.error(&SqlError::malformed_packet()),
            };
            wire.send(&answer).await?;
        }
    }

    // --- login ---

    async fn login(&mut self, wire: &mut Wire) -> Result<(), End> {
        let fresh = || auth::nonce().map_err(|error| io::Error::other(error.to_string()));
        let offer = Offer {
            certificate: None,
            version: self.asker.version.clone().into_bytes(),
            connection_id: self.asker.id,
            capabilities: CAPABILITIES,
            mariadb: MariadbCapabilities::default(),
            collation: COLLATION,
            status: Status::AUTOCOMMIT,
            plugin: CACHING_SHA2.to_vec(),
            rsa: self.door.rsa.clone(),
            secure: self.local,
            switch_nonce: fresh()?,
        };
        let nonce = fresh()?;
        let (mut greet, greeting) = Greet::new(offer, nonce);
        wire.send(&greeting).await?;
        let step = loop {
            let packet = timeout(LOGIN_TIMEOUT, wire.packet(LOGIN_LIMIT));
            let (seq, payload) = packet.await.map_err(|_| End::Slow)??;
            let mut step = greet.on_packet(seq, &payload);
            if let Ok(Step::NeedAccount) = step {
                self.hello = greet.hello().clone();
                step = greet.account(self.account());
            }
            if let Ok(Step::CheckPassword(password)) = step {
                let wanted = self.door.password.reveal().as_bytes();
                let right = verify_slices_are_equal(password.expose(), wanted).is_ok();
                step = Ok(greet.checked(right && self.is_known()));
            }
            match step {
                Ok(Step::Send(bytes)) => wire.send(&bytes).await?,
                Ok(step) => break step,
                Err(error) => return self.turn_away(wire, greet.next_seq(), error).await,
            }
        };
        match step {
            Step::Done { mut send, .. } => {
                self.asker.user = self.door.user.clone();
                self.door.failures().forget();
                let seq = greet.next_seq();
                let ok = OkPacket { status: Status::AUTOCOMMIT, ..OkPacket::default() };
                ok.encode(&mut send, seq, reply::OK, self.hello.capabilities);
                tracing::info!(peer = %self.asker.host, id = self.asker.id, "console login");
                wire.send(&send).await
            }
            Step::Denied
            | Step::Send(_)
            | Step::Tls
            | Step::NeedAccount
            | Step::Relay
            | Step::Answer(_)
            | Step::CheckPassword(_) => {
                let user = String::from_utf8_lossy(&self.hello.user).into_owned();
                self.door.console.metrics.console_login_failed();
                tracing::warn!(peer = %self.asker.host, user, "console login refused");
                sleep(self.door.failures().add()).await;
                let error = SqlError::access_denied(&user, &self.asker.host, true);
                self.turn_away(wire, greet.next_seq(), error).await
            }
        }
    }

    async fn turn_away(&self, wire: &mut Wire, seq: u8, error: SqlError) -> Result<(), End> {
        wire.send(&error.packet(seq, self.hello.capabilities)).await?;
        Err(End::Refused(error))
    }

    fn is_known(&self) -> bool {
        self.hello.user == self.door.user.as_bytes()
    }

    /// The account in the plugin that the client began with, since the password is at hand for
    /// either; a client that began with a third one is switched to caching_sha2_password.
    fn account(&self) -> Account {
        let native = self.hello.plugin.as_deref() == Some(NATIVE);
        let password = self.door.password.reveal().as_bytes();
        match (self.is_known(), native) {
            (true, true) => Account::Native { double_sha1: Some(auth::double_sha1(password)) },
            (true, false) => {
                let cached = Some(Password::new(password.to_vec()));
                Account::CachingSha2 { cached, empty: false }
            }
            (false, true) => Account::Unknown { plugin: NATIVE.to_vec() },
            (false, false) => Account::Unknown { plugin: CACHING_SHA2.to_vec() },
        }
    }

    // --- commands ---

    async fn next_command(&self, wire: &mut Wire) -> Result<Vec<u8>, End> {
        let command = timeout(IDLE_TIMEOUT, wire.command(STATEMENT_LIMIT));
        let error = match command.await {
            Err(_) => SqlError::idle_timeout(),
            Ok(Err(End::Refused(error))) => error,
            Ok(other) => return other,
        };
        wire.send(&self.error(&error)).await?;
        Err(End::Refused(error))
    }

    async fn answer(&self, command: Command<'_>) -> Vec<u8> {
        match command {
            Command::Query { sql, .. } => self.query(&String::from_utf8_lossy(sql)).await,
            Command::Ping | Command::InitDb { .. } | Command::ResetConnection => self.fine(),
            Command::SetOption(_) | Command::FieldList { .. } => self.end_of_rows(),
            Command::Statistics => {
                let uptime = self.door.console.control.uptime().as_secs();
                let mut out = Vec::new();
                packet::write(&mut out, 1, format!("Uptime: {uptime}").as_bytes());
                out
            }
            Command::StmtPrepare { .. } => self.error(&SqlError::new(
                1295,
                b"HY000",
                "The console has no prepared statements; send the command as text",
            )),
            command if command.is_silent() => Vec::new(),
            _ => self.error(&SqlError::unknown_command()),
        }
    }

    async fn query(&self, text: &str) -> Vec<u8> {
        let command = match parse::parse(text) {
            Ok(command) => command,
            Err(error) => return self.no_command(text, error),
        };
        // A statement to be explained may hold personal data; the log has no business with it.
        let said: String = match command {
            AdminCommand::ExplainRoute { .. } => "EXPLAIN ROUTE".to_owned(),
            _ => parse::trim(text).chars().take(80).collect(),
        };
        let by = format!("{}@{} ({})", self.asker.user, self.asker.host, self.asker.id);
        let ran = self.door.console.run(command, &by).await;
        let outcome = if ran.is_ok() { Outcome::Ok } else { Outcome::Failed };
        self.door.console.metrics.console_command(outcome);
        match ran {
            Ok(table) => {
                tracing::info!(by, command = said, "console command");
                self.table(&table)
            }
            Err(why) => {
                tracing::warn!(by, command = said, %why, "console command refused");
                self.error(&to_error(&why))
            }
        }
    }

    /// Small talk, or an error that says what would be a command.
    fn no_command(&self, text: &str, error: ParseError) -> Vec<u8> {
        let refused = || self.error(&SqlError::syntax(error.to_string()));
        match &error {
            ParseError::Empty | ParseError::Arguments { .. } => refused(),
            ParseError::Unknown { .. } => match smalltalk::answer(parse::trim(text), &self.asker) {
                None => refused(),
                Some(Answer::Fine) => self.fine(),
                Some(Answer::Table(table)) => self.table(&table),
                Some(Answer::NoColumn(name)) => {
                    let text = format!("Unknown column '{name}' in 'field list'");
                    self.error(&SqlError::new(1054, b"42S22", text))
                }
                Some(Answer::NoVariable(name)) => {
                    let text = format!("Unknown system variable '{name}'");
                    self.error(&SqlError::new(1193, b"HY000", text))
                }
            },
        }
    }

    // --- packets ---

    fn error(&self, error: &SqlError) -> Vec<u8> {
        error.packet(1, self.hello.capabilities)
    }

    fn fine(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let ok = OkPacket { status: Status::AUTOCOMMIT, ..OkPacket::default() };
        ok.encode(&mut out, 1, reply::OK, self.hello.capabilities);
        out
    }

    fn end_of_rows(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let caps = self.hello.capabilities;
        if caps.has(Capabilities::DEPRECATE_EOF) {
            let ok = OkPacket { status: Status::AUTOCOMMIT, ..OkPacket::default() };
            ok.encode(&mut out, 1, reply::EOF, caps);
        } else {
            Eof { warnings: 0, status: Status::AUTOCOMMIT }.encode(&mut out, 1, caps);
        }
        out
    }

    fn table(&self, table: &Table) -> Vec<u8> {
        let column = |(at, name): (usize, &String)| match table.is_numeric(at) {
            true => Column::integer(name.clone()),
            false => Column::text(name.clone()),
        };
        let columns: Vec<Column> = table.columns.iter().enumerate().map(column).collect();
        let rows: Vec<Vec<Option<Vec<u8>>>> = table
            .rows
            .iter()
            .map(|row| row.iter().map(crate::admin::table::Cell::to_wire).collect())
            .collect();
        let mut out = Vec::new();
        let rows = rows.iter().map(Vec::as_slice);
        let caps = self.hello.capabilities;
        resultset::text(&mut out, 1, &columns, rows, caps, Status::AUTOCOMMIT);
        out
    }
}

/// The error that a client sees when an owner refuses.
fn to_error(error: &ControlError) -> SqlError {
    match error {
        ControlError::NoSession(id) => SqlError::new(1094, b"HY000", format!("{error} ({id})")),
        ControlError::NoGroup(_) | ControlError::Refused(_) | ControlError::NoAnswer(_) => {
            SqlError::general(error.to_string())
        }
    }
}

impl Wire {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        let written = timeout(WRITE_TIMEOUT, self.stream.write_all(bytes));
        Ok(written.await.map_err(|_| End::Slow)??)
    }

    /// Reads more; the end of the stream is an end of the conversation.
    async fn more(&mut self) -> Result<(), End> {
        match self.stream.read_buf(&mut self.unread).await? {
            0 => Err(End::Quit),
            _ => Ok(()),
        }
    }

    /// One packet of a login: its sequence number and its payload.
    async fn packet(&mut self, limit: usize) -> Result<(u8, Vec<u8>), End> {
        loop {
            if let Some((len, seq)) = packet::header(&self.unread) {
                if len > limit {
                    return Err(End::Refused(SqlError::packet_too_large()));
                }
                if let Some(payload) = self.unread.get(HEADER_LEN..HEADER_LEN + len) {
                    let payload = payload.to_vec();
                    self.unread.drain(..HEADER_LEN + len);
                    return Ok((seq, payload));
                }
            }
            self.more().await?;
        }
    }

    /// One whole command.
    async fn command(&mut self, limit: usize) -> Result<Vec<u8>, End> {
        loop {
            match packet::frame(&self.unread, limit) {
                Ok(Frame::Whole { wire_len, .. }) => {
                    let payload = packet::payload(&self.unread, wire_len).into_owned();
                    self.unread.drain(..wire_len);
                    return Ok(payload);
                }
                Ok(Frame::Incomplete) => self.more().await?,
                Ok(Frame::Oversized) => return Err(End::Refused(SqlError::packet_too_large())),
                Err(_) => return Err(End::Refused(SqlError::packets_out_of_order())),
            }
        }
    }
}

#[cfg(test)]
mod tests;
