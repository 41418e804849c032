//! A client of bare packets: for what no driver shows, above all what is said before, after and
//! outside of a login.

use std::io::{Read, Write};

use pointsman::protocol::auth::{Credential, Password};
use pointsman::protocol::flags::{Capabilities, MariadbCapabilities};
use pointsman::protocol::login::{Login, LoginRequest, LoginStep, RsaPolicy};
use pointsman::protocol::{packet, reply};

/// A refusal: number, SQLSTATE, text.
pub(crate) type Refusal = (u16, String, String);

/// One packet: its sequence number and payload; `None` when the peer has closed.
pub(crate) fn read_packet(stream: &mut impl Read) -> Option<(u8, Vec<u8>)> {
    let mut header = [0; packet::HEADER_LEN];
    stream.read_exact(&mut header).ok()?;
    let (len, seq) = packet::header(&header)?;
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).ok()?;
    Some((seq, payload))
}

/// Logs in as `account`, to no database unless one is named.
pub(crate) fn login(
    stream: &mut (impl Read + Write),
    account: (&str, &str),
    database: Option<&str>,
) -> Result<(), Refusal> {
    login_with(stream, account, database, Capabilities(0))
}

/// The same with further capabilities.
pub(crate) fn login_with(
    stream: &mut (impl Read + Write),
    account: (&str, &str),
    database: Option<&str>,
    more: Capabilities,
) -> Result<(), Refusal> {
    let password = Password::new(account.1.as_bytes().to_vec());
    let mut login = Login::new(LoginRequest {
        user: account.0.as_bytes().to_vec(),
        credential: Credential::Password(password),
        database: database.map(|name| name.as_bytes().to_vec()),
        collation: 45,
        capabilities: Capabilities::PROTOCOL_41
            .with(Capabilities::PLUGIN_AUTH)
            .with(Capabilities::SECURE_CONNECTION)
            .with(Capabilities::TRANSACTIONS)
            .with(Capabilities::CONNECT_WITH_DB)
            .with(more),
        mariadb: MariadbCapabilities(0),
        max_packet: 1 << 24,
        attributes: Vec::new(),
        rsa: RsaPolicy::AskServer,
        secure: false,
    });
    loop {
        let closed = || (0, String::new(), "closed".to_owned());
        let (seq, payload) = read_packet(stream).ok_or_else(closed)?;
        match login.on_packet(seq, &payload).expect("the server speaks the protocol") {
            LoginStep::Send(bytes) => stream.write_all(&bytes).map_err(|_| closed())?,
            LoginStep::Wait => {}
            LoginStep::Done { .. } => return Ok(()),
            LoginStep::Refused(error) => return Err(refusal(&error)),
            other @ (LoginStep::Tls(_) | LoginStep::Ask(_)) => panic!("{other:?}"),
        }
    }
}

/// The parts of an ERR payload.
pub(crate) fn refusal(payload: &[u8]) -> Refusal {
    assert_eq!(payload.first(), Some(&0xFF), "{}", String::from_utf8_lossy(payload));
    let code = reply::Err::code_of(payload);
    let state = match payload.get(3) {
        Some(b'#') => String::from_utf8_lossy(&payload[4..9]).into_owned(),
        _ => String::new(),
    };
    (code, state, String::from_utf8_lossy(reply::Err::message_of(payload)).into_owned())
}

/// Runs a statement that answers OK or one row with one column; the value, or nothing for OK.
pub(crate) fn ask(stream: &mut (impl Read + Write), sql: &str) -> Result<Option<String>, Refusal> {
    let mut bytes = Vec::new();
    packet::write(&mut bytes, 0, &[b"\x03", sql.as_bytes()].concat());
    let closed = || (0, String::new(), "closed".to_owned());
    stream.write_all(&bytes).map_err(|_| closed())?;
    let (_, head) = read_packet(stream).ok_or_else(closed)?;
    match head.first() {
        Some(0x00) => return Ok(None),
        Some(0xFF) => return Err(refusal(&head)),
        _ => {}
    }
    // Column, EOF, row, EOF.
    let mut rest = (0..4).map(|_| read_packet(stream).map(|(_, payload)| payload));
    let row = rest.nth(2).flatten().ok_or_else(closed)?;
    rest.next().flatten().ok_or_else(closed)?;
    Ok(Some(String::from_utf8_lossy(row.get(1..).unwrap_or_default()).into_owned()))
}
