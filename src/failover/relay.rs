//! What lies in the relay log of a replica of MariaDB of which both threads are stopped.
//!
//! It was acknowledged, perhaps by this server alone, and is deleted by the next start of a thread
//! (V6). It is still there after a restart that starts none (`skip_slave_start`), and can be
//! applied from the first transaction on that is not in the tables, if the server is told its file
//! and offset and not to go by GTID meanwhile (V8). What was received in part only is not committed
//! then; none of that was acknowledged. The numbers of transactions are the source's.
//!
//! Measured on 10.11.19: a restart opens a new file, in which nothing stands but how it is to be
//! read; any start of a receiver by GTID deletes all files and begins with number 1. So who has
//! transactions in an earlier file and nothing in the last one has received nothing since it was
//! started, and deleted nothing.

use crate::failover::report::Told;
use crate::health::observation::LogPlace;
use crate::topology::gtid::GtidSet;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// The first transaction that is not applied; `None` where all are.
    pub next: Option<LogPlace>,
    /// Up to where it was received, as a whole.
    pub received: GtidSet,
    /// It is all that was received before the server was started, and nothing was received since.
    pub outlived: bool,
}

/// An event, as SHOW RELAYLOG EVENTS tells of it.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// Its offset in the file, bytes.
    pub at: u64,
    /// `Event_type`.
    pub kind: &'a str,
    /// `Info`.
    pub info: &'a str,
}

/// Reads one relay log, file by file.
#[derive(Debug)]
pub struct Reader {
    applied: GtidSet,
    file: String,
    /// Something of the source stands in this file.
    has_content: bool,
    open: Option<Open>,
    next: Option<LogPlace>,
    received: GtidSet,
    trouble: Option<String>,
}

/// A transaction of which not all was read yet.
#[derive(Debug)]
struct Open {
    gtid: GtidSet,
    place: LogPlace,
    /// It is one statement, and has no end of its own.
    is_single: bool,
}

// === impls ===

impl Relay {
    /// The same where it was found on this server: one that does not write its relay log through to
    /// the disk may have lost the end of it with its host, which nobody could see.
    #[must_use]
    pub fn on(self, told: &Told) -> Self {
        Self { outlived: self.outlived && told.keeps_relay_log(), ..self }
    }
}

impl Reader {
    /// Begins; `applied` is what is in the tables.
    #[must_use]
    pub fn new(applied: &GtidSet) -> Self {
        Self {
            applied: applied.clone(),
            file: String::new(),
            has_content: false,
            open: None,
            next: None,
            received: GtidSet::default(),
            trouble: None,
        }
    }

    /// Goes on with this file.
    pub fn on_file(&mut self, file: &str) {
        file.clone_into(&mut self.file);
        self.has_content = false;
    }

    /// Takes the next event.
    pub fn on_event(&mut self, event: Event<'_>) {
        // How the file is to be read is written by the server itself; so is that there is another.
        if event.kind == "Start_encryption" || event.kind == "Format_desc" && event.at == 4 {
            return;
        }
        self.has_content = true;
        match (event.kind, &self.open) {
            ("Gtid", _) => self.begins(event),
            ("Xid" | "XA_prepare", Some(_)) => self.ends(),
            (kind, Some(open)) if kind.starts_with("Query") => {
                let is_end = event.info.ends_with("COMMIT") || event.info.ends_with("ROLLBACK");
                if open.is_single || is_end {
                    self.ends();
                }
            }
            _ => {}
        }
    }

    fn begins(&mut self, event: Event<'_>) {
        let text = event.info.split("GTID ").nth(1).and_then(|rest| rest.split(' ').next());
        let Some(gtid) = text.and_then(GtidSet::parse_mariadb) else {
            self.trouble = Some(format!("{:?} is no transaction's number", event.info));
            return;
        };
        // A receiver that connects again goes on in the midst of a transaction, without this.
        if let Some(open) = &self.open {
            let (first, place) = (&open.gtid, &open.place.file);
            self.trouble = Some(format!("{first} has no end in {place}"));
        }
        let place = LogPlace { file: self.file.clone(), at: event.at };
        let is_single = !event.info.starts_with("BEGIN") && !event.info.starts_with("XA");
        self.open = Some(Open { gtid, place, is_single });
    }

    fn ends(&mut self) {
        let Some(Open { gtid, place, .. }) = self.open.take() else { return };
        match (self.applied.contains(&gtid), &self.next) {
            (false, None) => self.next = Some(place),
            (true, Some(next)) => {
                // It would be applied once more.
                self.trouble = Some(format!("{gtid} is applied, and stands behind {next:?}"));
            }
            (true, None) | (false, Some(_)) => {}
        }
        self.received.union(&gtid);
    }

    /// What was found, once the last file is read.
    ///
    /// # Errors
    /// Why it cannot be applied.
    pub fn finish(self) -> Result<Relay, String> {
        match self.trouble {
            Some(trouble) => Err(trouble),
            None => Ok(Relay {
                outlived: !self.has_content && !self.received.is_empty(),
                next: self.next,
                received: self.received,
            }),
        }
    }
}

/// The name of the relay log that follows this one; `None` where it has no number.
#[must_use]
pub fn following(file: &str) -> Option<String> {
    let (name, number) = file.rsplit_once('.')?;
    let next = number.parse::<u64>().ok()?.checked_add(1)?;
    Some(format!("{name}.{next:0width$}", width = number.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> GtidSet {
        GtidSet::parse_mariadb(text).expect("a position")
    }

    /// Its name, and offset, type and text of each of its events.
    type File = (&'static str, &'static [(u64, &'static str, &'static str)]);

    /// Files with their events, as they were shown by MariaDB 10.11.
    const FILES: &[File] = &[
        (
            "relay.000004",
            &[
                (4, "Format_desc", "Server ver: 10.11.19-MariaDB-log, Binlog ver: 4"),
                (256, "Rotate", "b.000001;pos=4"),
                (295, "Format_desc", "Server ver: 10.11.19-MariaDB-log, Binlog ver: 4"),
                (547, "Gtid_list", "[]"),
                (611, "Gtid_list", "[0-1-6]"),
                (654, "Gtid", "GTID 0-1-7"),
                (696, "Query", "alter user a account lock"),
                (789, "Gtid", "BEGIN GTID 0-1-8 cid=12"),
                (831, "Annotate_rows", "insert into t values (11)"),
                (883, "Table_map", "table_id: 18 (app.t)"),
                (926, "Write_rows_v1", "table_id: 18 flags: STMT_END_F"),
                (964, "Xid", "COMMIT /* xid=149 */"),
                (995, "Gtid", "BEGIN GTID 0-1-9"),
            ],
        ),
        (
            "relay.000005",
            &[
                (4, "Format_desc", "Server ver: 10.11.19-MariaDB-log, Binlog ver: 4"),
                (256, "Format_desc", "Server ver: 10.11.19-MariaDB-log, Binlog ver: 4"),
                (508, "Query", "use `app`; insert into m values (1)"),
                (600, "Query", "COMMIT"),
                (640, "Gtid", "BEGIN GTID 0-1-10"),
                (700, "Query", "use `app`; insert into m values (2)"),
            ],
        ),
        ("relay.000006", &[(4, "Format_desc", "Server ver: 10.11.19-MariaDB-log")]),
    ];

    fn read(applied: &str, files: &[File]) -> Result<Relay, String> {
        let mut reader = Reader::new(&set(applied));
        for (file, events) in files {
            reader.on_file(file);
            for (at, kind, info) in *events {
                reader.on_event(Event { at: *at, kind, info });
            }
        }
        reader.finish()
    }

    fn next(found: &Relay) -> Option<(&str, u64)> {
        found.next.as_ref().map(|next| (next.file.as_str(), next.at))
    }

    #[test]
    fn what_is_not_applied_begins_where_its_first_transaction_does() {
        let found = read("0-1-7", FILES).expect("it can be applied");
        assert_eq!(next(&found), Some(("relay.000004", 789)));
        // What has no end was not acknowledged.
        assert_eq!(found.received, set("0-1-9"));
        assert!(found.outlived);
        let found = read("0-1-8", FILES).expect("it can be applied");
        assert_eq!(next(&found), Some(("relay.000004", 995)), "over the end of a file");
        let found = read("0-1-9", FILES).expect("all is applied");
        assert_eq!((next(&found), found.outlived), (None, true));
    }

    #[test]
    fn who_has_received_since_the_start_or_has_nothing_may_have_deleted_something() {
        let found = read("0-1-7", &FILES[..2]).expect("it can be applied");
        assert!(!found.outlived, "the last file is not new");
        assert!(!read("0-1-7", &FILES[2..]).expect("nothing").outlived);
    }

    #[test]
    fn what_was_applied_in_another_order_is_not_applied_again() {
        let mixed: File = (
            "relay.000004",
            &[
                (4, "Format_desc", ""),
                (256, "Gtid", "BEGIN GTID 0-1-8"),
                (300, "Xid", "COMMIT"),
                (340, "Gtid", "BEGIN GTID 1-1-3"),
                (380, "Xid", "COMMIT"),
            ],
        );
        let files = [mixed];
        assert!(read("0-1-7,1-1-3", &files).is_err_and(|why| why.contains("1-1-3 is applied")));
        assert_eq!(read("0-1-7,1-1-2", &files).expect("both").received, set("0-1-8,1-1-3"));
        assert!(read("0-1-7", &[("relay.1", &[(9, "Gtid", "GTID x")])]).is_err());
    }

    #[test]
    fn files_are_counted() {
        assert_eq!(following("a.b.000009").as_deref(), Some("a.b.000010"));
        assert_eq!(following("b.999999").as_deref(), Some("b.1000000"));
        assert_eq!(following("b"), None);
    }
}
