//! Servers for tests: a seen server in one line.

use std::sync::Arc;

use crate::health::observation::{Seen, Source};
use crate::topology::gtid::GtidSet;
use crate::topology::{Flavour, ServerFacts, Transport};

/// A lone writable MariaDB with this server id.
pub(crate) fn seen(server_id: u32) -> Seen {
    Seen {
        facts: Arc::new(ServerFacts {
            flavour: Flavour::MariaDb,
            version: 101_119,
            version_text: Arc::from("5.5.5-10.11.19-MariaDB"),
            capabilities: 0,
            mariadb_capabilities: 0,
            collation: 45,
            status: 2,
            auth_plugin: Arc::from("mysql_native_password"),
            server_id,
            server_uuid: Arc::from(""),
            max_allowed_packet: 1 << 24,
            wait_timeout: 28_800,
            interactive_timeout: 28_800,
            storage_engine: "InnoDB".into(),
            query_cache: false,
            session_defaults: "".into(),
            trackers: "".into(),
            sql_mode: Arc::from(""),
            max_connections: 151,
            require_secure_transport: false,
            init_connect: false,
            transport: Transport::Clear,
            sees_us_as: Arc::from("localhost"),
        }),
        identity: Arc::from(format!("{server_id}@db:{server_id}")),
        started: None,
        read_only: false,
        executed: gtid("0-1-10"),
        replicated: gtid("0-1-10"),
        sources: Vec::new(),
        replicas: None,
        note: String::new(),
    }
}

/// A MariaDB position.
pub(super) fn gtid(text: &str) -> GtidSet {
    GtidSet::parse_mariadb(text).expect("invariant: tests write well-formed positions")
}

/// A running link to the server `db<server_id>:3306`.
pub(super) fn source(server_id: u32) -> Source {
    Source {
        read: None,
        host: format!("db{server_id}"),
        port: 3306,
        server_id,
        server_uuid: String::new(),
        receiving: true,
        receiver_stopped: false,
        applying: true,
        refused: false,
        applier_failed: false,
        by_gtid: true,
        user: "repl".to_owned(),
        error: String::new(),
        seconds_behind: Some(0),
    }
}
