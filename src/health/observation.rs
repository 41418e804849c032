//! What one probe of one server found out, as plain values.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::topology::ServerFacts;
use crate::topology::gtid::GtidSet;

/// "Server shutdown in progress".
const SHUTDOWN: u16 = 1053;

/// One probe: when it ran and what came of it.
#[derive(Debug, Clone)]
pub struct Observation {
    /// When it began; all that it reports was true at this moment or later.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
    /// What was seen, or why nothing was.
    pub result: Result<Seen, Failure>,
}

/// What a server answered.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Greeting and variables.
    pub facts: Arc<ServerFacts>,
    /// Tells servers apart under whatever address they were reached: the UUID on MySQL, server
    /// id with host name and port on MariaDB.
    pub identity: Arc<str>,
    /// When it was started at the latest, by [`latest_start`]; `None` where that is not known.
    pub started: Option<Instant>,
    /// `read_only` or `super_read_only`.
    pub read_only: bool,
    /// All that it has executed, its own writes included.
    pub executed: GtidSet,
    /// What it has applied of its source's history. On MariaDB this leaves out local writes,
    /// which would make it look ahead of where it is.
    pub replicated: GtidSet,
    /// The servers that it is configured to replicate from, threads running or not.
    pub sources: Vec<Source>,
    /// The servers that replicate from it; `None` when this probe did not ask.
    pub replicas: Option<Vec<Attached>>,
    /// What could not be found out although the server answers (a missing privilege).
    pub note: String,
}

/// A server's link to one that it replicates from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// As given to CHANGE MASTER / CHANGE REPLICATION SOURCE.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The source's `server_id`; 0 while it never connected.
    pub server_id: u32,
    /// The source's `server_uuid`; empty on MariaDB, or while it never connected.
    pub server_uuid: String,
    /// The receiving thread is connected.
    pub receiving: bool,
    /// The receiving thread does not run, and will not connect by itself.
    pub receiver_stopped: bool,
    /// It does not run because the source lacks what it asks for (1236, MySQL 8 and later 13114).
    pub refused: bool,
    /// The applying thread runs.
    pub applying: bool,
    /// The applying thread has stopped at an error.
    pub applier_failed: bool,
    /// The last receiver or applier error; empty when there is none.
    pub error: String,
    /// The account by which it replicates.
    pub user: String,
    /// It asks for transactions by GTID, not by file and offset.
    pub by_gtid: bool,
    /// `Seconds_Behind_Master`; a fallback only.
    pub seconds_behind: Option<u64>,
    /// Up to where it has read its source's binary logs; `None` before it has read any.
    pub read: Option<LogPlace>,
}

/// A place in one server's binary logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPlace {
    /// The name of the file, which ends with a dot and its number.
    pub file: String,
    /// Bytes from the beginning of that file.
    pub at: u64,
}

/// A server that replicates from the observed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Its address as the observed server knows it; may be unreachable from here.
    pub host: String,
    /// Its port as it reported it.
    pub port: u16,
    /// Its `server_id`.
    pub server_id: u32,
}

/// Why a probe saw nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// The error in words, for operators.
    pub text: String,
    /// The server's error number, where it was the server that said no.
    pub errno: Option<u16>,
}

/// Kinds of failed probes, by what they say about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection, or it broke, or the server is shutting down.
    Unreachable,
    /// It has said that it shuts down, and takes no connection any more.
    Leaving,
    /// No answer in time; a frozen server still accepts connections and sends no greeting.
    Timeout,
    /// Whoever answers has not proved to be the server, or offers no TLS where it is wanted.
    Untrusted,
    /// 1040, 1203, 1226, 1129: it lives and has no room (or no patience) for us.
    Overloaded,
    /// It lives and does not let the monitor account in, or not see what it must.
    Denied,
    /// It lives and answered something that the probe does not understand.
    Puzzling,
}

/// When a server was started at the latest that says at this moment that it has been up for so
/// long, in whole seconds: the seconds of its clock, less the second in which it was started. So it
/// was started up to two seconds before, and never later.
#[must_use]
pub fn latest_start(told_at: Instant, uptime: Duration) -> Option<Instant> {
    told_at.checked_sub(uptime)?.checked_add(Duration::from_secs(1))
}

impl Failure {
    /// A failure with its words.
    #[must_use]
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), errno: None }
    }

    /// The failure that a server's error packet is.
    #[must_use]
    pub fn refused(errno: u16, message: &[u8]) -> Self {
        let text = format!("{errno}: {}", String::from_utf8_lossy(message));
        Self { kind: FailureKind::of_errno(errno), text, errno: Some(errno) }
    }

    /// Whether the server has said that it shuts down.
    #[must_use]
    pub fn is_goodbye(&self) -> bool {
        self.errno == Some(SHUTDOWN)
    }

    /// What this is on the way to a server that has said goodbye.
    #[must_use]
    pub fn after_goodbye(self) -> Self {
        match self.kind {
            FailureKind::Unreachable => {
                Self { kind: FailureKind::Leaving, text: format!("it shuts down: {self}"), ..self }
            }
            _ => self,
        }
    }
}

impl FailureKind {
    /// Whether this counts against the server's life. What a server *answers* never does: a
    /// wrong monitor password must not empty a cluster. Who is not believed has not answered as
    /// the server, and no link could be had of it.
    #[must_use]
    pub fn counts(self) -> bool {
        match self {
            Self::Unreachable | Self::Leaving | Self::Timeout | Self::Untrusted => true,
            Self::Overloaded | Self::Denied | Self::Puzzling => false,
        }
    }

    /// The kind of a server's error packet.
    #[must_use]
    pub fn of_errno(errno: u16) -> Self {
        match errno {
            1040 | 1129 | 1203 | 1226 => Self::Overloaded,
            1044 | 1045 | 1130 | 1142 | 1143 | 1227 | 1251 | 1698 | 1862 | 3118 | 4151 => {
                Self::Denied
            }
            // Shutdown in progress, normal shutdown, connection killed.
            SHUTDOWN | 1077 | 1079 | 1927 => Self::Unreachable,
            _ => Self::Puzzling,
        }
    }
}

impl LogPlace {
    /// Whether nothing lies between it and an earlier place, or the same one. Places of different
    /// servers say nothing of one another.
    #[must_use]
    pub fn reaches(&self, other: &Self) -> bool {
        let parts = |file: &'_ str| {
            let (name, number) = file.rsplit_once('.')?;
            Some((name.to_owned(), number.parse::<u64>().ok()?))
        };
        match (parts(&self.file), parts(&other.file)) {
            (Some((name, number)), Some((base, from))) if name == base => {
                (number, self.at) >= (from, other.at)
            }
            _ => false,
        }
    }
}

impl Source {
    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        address(&self.host, self.port)
    }
}

impl Attached {
    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        address(&self.host, self.port)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `host:port`, with brackets around a v6 address.
fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_was_not_started_later_than_at_the_latest() {
        let base = Instant::now();
        let tenths = |count: u64| Duration::from_millis(100 * count);
        for started in 0..20 {
            for told_at in started..60 {
                // As a server reckons: whole seconds of its clock, and of the note of its start.
                let uptime = tenths(told_at).as_secs() - tenths(started).as_secs();
                let latest = latest_start(base + tenths(told_at), Duration::from_secs(uptime));
                let latest = latest.expect("a time") - base;
                assert!(latest >= tenths(started), "{started} {told_at}");
                assert!(latest < tenths(started + 20), "{started} {told_at}");
            }
        }
    }
}
