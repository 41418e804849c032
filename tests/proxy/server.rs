//! A server that plays a script: it lets everybody in, answers the monitor like a primary
//! without replicas, and answers `case_N` with the N-th of the replies that it was given.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pointsman::protocol::flags::{Capabilities, MariadbCapabilities, Status};
use pointsman::protocol::handshake::Greeting;
use pointsman::protocol::{packet, reply, writer};

/// A bad reply: raw bytes, and whether the server closes behind them.
pub(crate) type Bad = (Vec<u8>, bool);

/// The script: what is bad about the server.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Replies by number.
    pub(crate) replies: Mutex<Vec<Bad>>,
    /// The greeting of the next connection, once.
    pub(crate) greeting: Mutex<Option<Vec<u8>>>,
    /// The answer to the next login of the user `badlogin`.
    pub(crate) login: Mutex<Option<Vec<u8>>>,
    connections: AtomicUsize,
}

/// A definition of one column.
const COLUMN: &[u8] = b"\x03def\0\0\0\x01a\0\x0c\x2d\0\x14\0\0\0\xfd\0\0\0\0\0";

/// Starts the server; it ends with the process.
pub(crate) fn start(script: Arc<Script>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let script = script.clone();
            std::thread::spawn(move || serve(stream, &script));
        }
    });
    address
}

/// The capabilities that it offers.
pub(crate) const OFFERED: Capabilities = Capabilities(
    Capabilities::PROTOCOL_41.0
        | Capabilities::TRANSACTIONS.0
        | Capabilities::SECURE_CONNECTION.0
        | Capabilities::PLUGIN_AUTH.0
        | Capabilities::CONNECT_WITH_DB.0
        | Capabilities::MULTI_STATEMENTS.0
        | Capabilities::MULTI_RESULTS.0
        | Capabilities::PS_MULTI_RESULTS.0
        | Capabilities::LOCAL_FILES.0
        | Capabilities::SESSION_TRACK.0,
);

fn serve(mut stream: TcpStream, script: &Script) -> Option<()> {
    let number = script.connections.fetch_add(1, Ordering::Relaxed);
    let bad = script.greeting.lock().unwrap_or_else(PoisonError::into_inner).take();
    let mut out = Vec::new();
    if let Some(bad) = bad {
        return stream.write_all(&bad).ok();
    }
    let greeting = Greeting {
        version: b"5.5.5-10.11.19-MariaDB".to_vec(),
        connection_id: u32::try_from(number).ok()? + 1,
        nonce: [b'n'; 20],
        capabilities: OFFERED | Capabilities::LONG_PASSWORD,
        mariadb: MariadbCapabilities(0),
        collation: 45,
        status: Status::AUTOCOMMIT,
        plugin: b"mysql_native_password".to_vec(),
    };
    greeting.encode(&mut out);
    stream.write_all(&out).ok()?;
    let (seq, login) = read_packet(&mut stream)?;
    if login.windows(8).any(|window| window == b"badlogin") {
        let bad = script.login.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(bad) = bad {
            return stream.write_all(&bad).ok();
        }
    }
    stream.write_all(&ok(seq.wrapping_add(1))).ok()?;
    loop {
        let (_, command) = read_packet(&mut stream)?;
        let text = String::from_utf8_lossy(command.get(1..)?).into_owned();
        let number = text.split("case_").nth(1).and_then(|rest| rest.trim().parse().ok());
        if let Some(number) = number {
            let reply: usize = number;
            let replies = script.replies.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let (bytes, closes) = replies.get(reply)?;
            stream.write_all(bytes).ok()?;
            // As the answer to a preparation many are merely unfinished.
            if *closes || command.first() == Some(&0x16) {
                return None;
            }
            continue;
        }
        match command.first()? {
            0x01 => return None,
            0x18 | 0x19 => continue,
            0x09 => stream.write_all(b"\x02\0\0\x01Up").ok()?,
            0x04 => stream.write_all(b"\x05\0\0\x01\xfe\0\0\x02\0").ok()?,
            0x03 => answer(&mut stream, &text)?,
            0x16 => stream.write_all(b"\x0c\0\0\x01\0\x01\0\0\0\0\0\0\0\0\0\0").ok()?,
            _ => stream.write_all(&ok(1)).ok()?,
        }
    }
}

fn answer(stream: &mut TcpStream, sql: &str) -> Option<()> {
    let reply = if sql.starts_with("SHOW") {
        rows(1, None)
    } else if sql.contains("@@global.server_id") {
        let row = ["1", "", "0", "0-1-1", "", "16777216", "28800", "28800", "", "m@localhost"];
        rows(12, Some(&[&row[..], &["host", "3306"]].concat()))
    } else if sql.starts_with("SELECT") {
        rows(1, Some(&["1"]))
    } else if sql.starts_with("LOAD DATA LOCAL") {
        stream.write_all(b"\x02\0\0\x01\xfbx").ok()?;
        loop {
            let (seq, part) = read_packet(stream)?;
            if part.is_empty() {
                break ok(seq.wrapping_add(1));
            }
        }
    } else {
        ok(1)
    };
    stream.write_all(&reply).ok()
}

/// An OK packet.
pub(crate) fn ok(seq: u8) -> Vec<u8> {
    let mut out = Vec::new();
    reply::Ok { status: Status::AUTOCOMMIT, ..reply::Ok::default() }
        .encode(&mut out, seq, 0, OFFERED);
    out
}

/// A text result set of at most one row.
pub(crate) fn rows(columns: u8, row: Option<&[&str]>) -> Vec<u8> {
    let mut out = Vec::new();
    let end = reply::Eof { warnings: 0, status: Status::AUTOCOMMIT };
    let mut seq = packet::write(&mut out, 1, &[columns]);
    for _ in 0..columns {
        seq = packet::write(&mut out, seq, COLUMN);
    }
    seq = end.encode(&mut out, seq, OFFERED);
    if let Some(row) = row {
        seq = writer::packet(&mut out, seq, |out| {
            row.iter().for_each(|value| writer::lenenc_str(out, value.as_bytes()));
        });
    }
    end.encode(&mut out, seq, OFFERED);
    out
}

/// One packet; nothing at the end of the connection.
pub(crate) fn read_packet(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).ok()?;
    let (len, seq) = packet::header(&header)?;
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).ok()?;
    Some((seq, payload))
}
