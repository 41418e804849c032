//! The few errors that we speak ourselves, with the codes and SQLSTATEs that drivers know.
//!
//! None of them is a code that drivers repeat a statement for by themselves, except where the
//! statement provably did not run (1205, 1213).

use super::flags::Capabilities;
use super::reply::Err;

/// Longer texts are cut: servers send at most 512 bytes (MYSQL_ERRMSG_SIZE).
const MESSAGE_MAX: usize = 512;

/// An error for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlError {
    /// The error number.
    pub code: u16,
    /// The SQLSTATE.
    pub state: [u8; 5],
    /// What happened, where, and what to do next.
    pub message: String,
}

impl SqlError {
    /// An error of any code.
    #[must_use]
    pub fn new(code: u16, state: &[u8; 5], message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > MESSAGE_MAX {
            let end = (0..=MESSAGE_MAX).rev().find(|&at| message.is_char_boundary(at));
            message.truncate(end.unwrap_or_default());
        }
        Self { code, state: *state, message }
    }

    /// 1040: no room for another connection, or a buffer is full. Close after it.
    #[must_use]
    pub fn too_many_connections() -> Self {
        Self::new(1040, b"08004", "Too many connections")
    }

    /// 1043: the login's packets do not fit. Close after it.
    #[must_use]
    pub fn bad_handshake(why: &str) -> Self {
        Self::new(1043, b"08S01", format!("Bad handshake: {why}"))
    }

    /// 1045: wrong user, password or host, in the server's own words.
    #[must_use]
    pub fn access_denied(user: &str, host: &str, using_password: bool) -> Self {
        let using = if using_password { "YES" } else { "NO" };
        let text = format!("Access denied for user '{user}'@'{host}' (using password: {using})");
        Self::new(1045, b"28000", text)
    }

    /// 1698: the same where no password was expected (MariaDB, unix_socket).
    #[must_use]
    pub fn access_denied_no_password(user: &str, host: &str) -> Self {
        Self::new(1698, b"28000", format!("Access denied for user '{user}'@'{host}'"))
    }

    /// 1047: a command that is not known or not carried out.
    #[must_use]
    pub fn unknown_command() -> Self {
        Self::new(1047, b"08S01", "Unknown command")
    }

    /// 1053: pointsman drains. Close after it.
    #[must_use]
    pub fn shutdown() -> Self {
        Self::new(1053, b"08S01", "Server shutdown in progress")
    }

    /// 1094: KILL names a connection that does not exist.
    #[must_use]
    pub fn no_such_thread(id: u64) -> Self {
        Self::new(1094, b"HY000", format!("Unknown thread id: {id}"))
    }

    /// 1105: data sent ahead for a parameter is longer than the server's `variable` allows.
    #[must_use]
    pub fn long_data_too_long(variable: &str) -> Self {
        let text = format!(
            "Parameter of prepared statement which is set through mysql_send_long_data() is \
             longer than '{variable}' bytes"
        );
        Self::new(1105, b"HY000", text)
    }

    /// 1105 with HY000: anything else that is ours.
    #[must_use]
    pub fn general(message: impl Into<String>) -> Self {
        Self::new(1105, b"HY000", message)
    }

    /// 1153: a packet above the limit. Close after it.
    #[must_use]
    pub fn packet_too_large() -> Self {
        Self::new(1153, b"08S01", "Got a packet bigger than 'max_allowed_packet' bytes")
    }

    /// 1156: sequence numbers do not count up. Close after it.
    #[must_use]
    pub fn packets_out_of_order() -> Self {
        Self::new(1156, b"08S01", "Got packets out of order")
    }

    /// 1205: waited in vain; nothing was executed.
    #[must_use]
    pub fn wait_timeout(what: &str) -> Self {
        Self::new(1205, b"HY000", format!("Wait timeout exceeded: {what}; nothing was executed"))
    }

    /// 1064: a statement that the console does not understand.
    #[must_use]
    pub fn syntax(message: impl Into<String>) -> Self {
        Self::new(1064, b"42000", message)
    }

    /// 1243: the statement id is not known.
    #[must_use]
    pub fn unknown_statement(id: u32, command: &str) -> Self {
        let text = format!("Unknown prepared statement handler ({id}) given to {command}");
        Self::new(1243, b"HY000", text)
    }

    /// 1251: the client can not speak the login that the account needs. Close after it.
    #[must_use]
    pub fn unsupported_authentication(why: &str) -> Self {
        let text =
            format!("Client does not support authentication protocol requested by server; {why}");
        Self::new(1251, b"08004", text)
    }

    /// 1835: a packet that does not fit its command. Close after it.
    #[must_use]
    pub fn malformed_packet() -> Self {
        Self::new(1835, b"HY000", "Malformed communication packet")
    }

    /// 3159: the client must come by TLS (MySQL; MariaDB says 1045). Close after it.
    #[must_use]
    pub fn secure_transport_required() -> Self {
        let text = "Connections using insecure transport are prohibited while \
                    --require_secure_transport=ON.";
        Self::new(3159, b"HY000", text)
    }

    /// 4031: the session was idle for too long. Close after it.
    #[must_use]
    pub fn idle_timeout() -> Self {
        let text = "The client was disconnected by the server because of inactivity. See \
                    wait_timeout and interactive_timeout for configuring this behavior.";
        Self::new(4031, b"HY000", text)
    }

    /// The ERR packet, framed. Without CLIENT_PROTOCOL_41 (before the login is read, that is)
    /// it has no SQLSTATE.
    #[must_use]
    pub fn packet(&self, seq: u8, caps: Capabilities) -> Vec<u8> {
        let mut out = Vec::new();
        let message = self.message.as_bytes();
        Err { code: self.code, state: Some(self.state), message }.encode(&mut out, seq, caps);
        out
    }
}

impl std::fmt::Display for SqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = String::from_utf8_lossy(&self.state);
        write!(f, "ERROR {} ({state}): {}", self.code, self.message)
    }
}

impl std::error::Error for SqlError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_the_login_there_is_no_state() {
        let packet = SqlError::too_many_connections().packet(0, Capabilities::default());
        assert_eq!(&packet[..8], b"\x17\0\0\0\xff\x10\x04T");
        let packet = SqlError::too_many_connections().packet(2, Capabilities::PROTOCOL_41);
        assert_eq!(&packet[..14], b"\x1d\0\0\x02\xff\x10\x04#08004T");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let error = SqlError::general("ä".repeat(400));
        assert_eq!(error.message.len(), 512);
        let error = SqlError::general(format!("a{}", "ä".repeat(400)));
        assert_eq!(error.message.len(), 511);
    }
}
