//! The servers' general logs: on which server did a statement of a client run?

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use pointsman::provider::local::Cluster;
use pointsman::provider::server::Server;

/// One statement of a client, as a server logged it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    /// The server's name in the cluster.
    pub(crate) server: String,
    /// The account that ran it.
    pub(crate) user: String,
    /// The server's word for the command: `Query`, `Execute`, `Prepare` ...
    pub(crate) command: String,
    /// The text.
    pub(crate) text: String,
}

/// Every statement in the logs of `cluster` whose text contains `marker`, run by a client. What
/// replication ran is left out: its threads never connected.
pub(crate) fn find(cluster: &Cluster, marker: &str) -> Vec<Logged> {
    let mut found = Vec::new();
    for server in cluster.servers() {
        let entries = read(&server.name, &server.general_log());
        found.extend(entries.into_iter().filter(|entry| entry.text.contains(marker)));
    }
    found
}

/// The names of the servers on which statements with `marker` were executed; preparing one is not
/// executing it.
pub(crate) fn where_ran(cluster: &Cluster, marker: &str) -> Vec<String> {
    let ran = |entry: &Logged| entry.command == "Query" || entry.command == "Execute";
    find(cluster, marker).into_iter().filter(ran).map(|entry| entry.server).collect()
}

fn read(server: &str, path: &Path) -> Vec<Logged> {
    // Tests send bytes that are not UTF-8 too.
    let text = std::fs::read(path).unwrap_or_default();
    parse(server, &String::from_utf8_lossy(&text))
}

/// Reads a server's log on from where it was left.
#[derive(Debug)]
pub(crate) struct Tail {
    server: String,
    path: PathBuf,
    offset: u64,
    users: BTreeMap<u64, String>,
}

impl Tail {
    /// From the end of what is there now; threads that connected before are known.
    pub(crate) fn new(server: &Server) -> Self {
        let (offset, users) = (0, BTreeMap::new());
        let mut tail =
            Self { server: server.name.clone(), path: server.general_log(), offset, users };
        tail.more();
        tail
    }

    /// What clients have sent since the last call.
    pub(crate) fn more(&mut self) -> Vec<Logged> {
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            file.read_to_end(&mut bytes)
        });
        read.expect("the general log");
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.offset += u64::try_from(whole).expect("a length");
        parse_on(&self.server, &String::from_utf8_lossy(&bytes[..whole]), &mut self.users)
    }
}

fn parse(server: &str, log: &str) -> Vec<Logged> {
    parse_on(server, log, &mut BTreeMap::new())
}

fn parse_on(server: &str, log: &str, users: &mut BTreeMap<u64, String>) -> Vec<Logged> {
    let mut entries: Vec<Logged> = Vec::new();
    let mut skipping = true;
    for line in log.lines() {
        let Some((thread, command, text)) = head(line) else {
            // A statement may have line ends in it.
            if let Some(entry) = entries.last_mut().filter(|_| !skipping) {
                entry.text.push('\n');
                entry.text.push_str(line);
            }
            continue;
        };
        skipping = true;
        match command {
            "Connect" => {
                let user = text.split('@').next().unwrap_or_default();
                users.insert(thread, user.to_owned());
            }
            _ => {
                let Some(user) = users.get(&thread) else { continue };
                let (server, user) = (server.to_owned(), user.clone());
                let (command, text) = (command.to_owned(), text.to_owned());
                entries.push(Logged { server, user, command, text });
                skipping = false;
            }
        }
    }
    entries
}

/// Thread, command and text of a line that begins an entry: a time (or nothing, where MariaDB
/// logs several in one second), the thread's number and the command, and the text, parted by tabs.
fn head(line: &str) -> Option<(u64, &str, &str)> {
    const COMMANDS: &[&str] = &[
        "Connect",
        "Query",
        "Execute",
        "Prepare",
        "Init DB",
        "Quit",
        "Close stmt",
        "Reset stmt",
        "Field List",
        "Change user",
        "Reset connection",
        "Ping",
        "Fetch",
        "Long Data",
        "Statistics",
        "Set option",
        "Kill",
        "Shutdown",
        "Binlog Dump",
        "Binlog Dump GTID",
        "Register Slave",
        "Register Replica",
    ];
    let mut from = 0;
    for _ in 0..3 {
        let rest = line.get(from..)?;
        let field = rest.split('\t').next()?;
        if let Some((thread, command)) = field.trim_start().split_once(' ')
            && let Ok(thread) = thread.parse()
            && COMMANDS.contains(&command)
        {
            let text = rest.get(field.len() + 1..).unwrap_or_default();
            return Some((thread, command, text));
        }
        from += field.len() + 1;
    }
    None
}

#[test]
fn general_logs_of_both_families_are_read() {
    let mariadb = "261123  5:07:38\t    12 Connect\tapp@127.0.0.1 on app using TCP/IP\n\
        \t\t    12 Query\tSELECT 1 /* m1 */\n\
        \t\t    12 Query\tSELECT 2,\n  'two\tlines' /* m2 */\n\
        261123  5:07:39\t     8 Query\tCREATE TABLE t (a INT) /* m3 */\n\
        \t\t    12 Prepare\tSELECT ? /* m4 */\n\t\t    12 Execute\tSELECT 1 /* m4 */\n\
        \t\t    12 Quit\t\n";
    let entries = parse("db1", mariadb);
    let texts: Vec<&str> = entries.iter().map(|entry| entry.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "SELECT 1 /* m1 */",
            "SELECT 2,\n  'two\tlines' /* m2 */",
            "SELECT ? /* m4 */",
            "SELECT 1 /* m4 */",
            ""
        ]
    );
    assert!(entries.iter().all(|entry| entry.user == "app"));

    let mysql = "2026-11-23T05:00:10.844221Z\t   15 Connect\troot@127.0.0.1 on  using TCP/IP\n\
        2026-11-23T05:00:10.844222Z\t   15 Query\tSELECT 1\n";
    let entries = parse("db1", mysql);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].user, "root");
}
