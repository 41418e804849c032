//! The grammar of replies: says how far a server's bytes may be passed on unread, and stops at
//! the packets that carry state.
//!
//! Rows are never decoded and never held: a row of a gigabyte streams through in whatever
//! pieces it arrives. Column definitions pass as well. OK, EOF, ERR, prepare-OK and LOCAL
//! INFILE requests are reported, one by one, and only when they are wholly in the buffer.
//!
//! Sources: protocol pages "COM_QUERY Response", "COM_STMT_PREPARE Response", "COM_STMT_EXECUTE
//! Response"; MariaDB knowledge base "Result Set Packets" for its cached metadata.

use super::cursor::Cursor;
use super::flags::{Capabilities, MariadbCapabilities, Status};
use super::packet::{HEADER_LEN, MAX_PAYLOAD, header};
use super::reply::{self, Eof, PrepareOk};
use super::{Malformed, reply::Ok as OkPacket};

/// A packet that must be whole before it can be judged may be this long at most, so that a
/// server can not make us hold more (rows are never held).
pub const HELD_MAX: usize = 1024 * 1024;

/// What kind of reply a command has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// COM_QUERY, COM_PROCESS_INFO: OK, ERR, LOCAL INFILE or text rows; several results.
    Query,
    /// COM_STMT_PREPARE.
    Prepare,
    /// COM_STMT_EXECUTE: as a query, with binary rows, or an opened cursor.
    Execute,
    /// COM_STMT_FETCH: rows without definitions.
    Fetch,
    /// COM_FIELD_LIST: definitions without a count.
    FieldList,
    /// One OK, EOF or ERR packet.
    Simple,
    /// COM_STATISTICS: one packet of text.
    Statistics,
    /// COM_STMT_BULK_EXECUTE (MariaDB): as an execution.
    Bulk,
}

/// How far the buffer may be passed on, and why not further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    /// So many bytes at the head of the buffer may be passed on unchanged.
    pub forward: usize,
    /// What stands behind them.
    pub stop: Stop,
}

/// Why the walker stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The owner keeps `buf[forward..]` and calls again with more behind it.
    NeedMore,
    /// A packet to look at stands at `buf[forward..forward + len]`. The walker is past it: the
    /// next call begins with the byte behind it.
    Notable(Notable),
}

/// A packet that carries state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notable {
    /// Which one.
    pub kind: Kind,
    /// Its length on the wire, header included.
    pub len: usize,
    /// Its sequence number.
    pub seq: u8,
    /// Whether the command's reply ends with it.
    pub terminal: bool,
}

/// Which packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An OK packet, with its first byte: 0x00, or 0xFE where it ends rows.
    Ok {
        /// The first byte.
        header: u8,
    },
    /// An EOF packet.
    Eof,
    /// An ERR packet; it always ends the reply.
    Err,
    /// The answer to COM_STMT_PREPARE; the statement's id is in it.
    PrepareOk,
    /// The server asks for a file; the reply goes on after the client has sent it.
    LocalInfile,
    /// A packet that is reported only because it is the last: the text of COM_STATISTICS, or
    /// the last definition of a prepared statement where no EOF follows.
    Opaque,
}

/// Walks over the reply to one command.
#[derive(Debug, Clone)]
pub struct ReplyWalker {
    expect: Expect,
    caps: Capabilities,
    mariadb: MariadbCapabilities,
    state: State,
    /// Bytes of the current packet that have not been passed on yet.
    skip: usize,
    /// Whether the next packet continues one of [`MAX_PAYLOAD`] bytes.
    continues: bool,
    /// The sequence number that must come next; any at first, and after a file.
    seq: Option<u8>,
    /// The EOF packet after definitions is reported, whatever it says.
    watching: bool,
    /// How many columns the first rows have; 0 as long as no definitions came.
    columns: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The first packet of a result.
    First,
    /// Column definitions; so many are left.
    Definitions { left: u64 },
    /// The EOF packet after column definitions.
    DefinitionsEnd,
    /// Rows, or the definitions of a field list. `more` when another result follows whatever
    /// the end of the rows says: MySQL announces the one after OUT parameters only in the EOF
    /// before the rows (measured with 9.7; its client library knows this too).
    Rows { more: bool },
    /// Definitions of a prepared statement; `after` more in the block behind.
    Prepared { left: u64, after: u64 },
    /// The EOF packet after a block of them.
    PreparedEnd { after: u64 },
    /// The reply is over.
    Done,
}

enum Verdict {
    /// Undecided: more bytes are needed.
    More,
    /// The packet passes, in pieces; then comes the given state.
    Pass(State),
    /// The packet is reported; then comes the given state.
    Hold(Kind, State),
}

/// One packet, of which at least the header and the first payload byte have arrived.
struct Seen<'a> {
    len: usize,
    first: u8,
    /// Payload bytes that have arrived; may be fewer than `len`, or more.
    body: &'a [u8],
}

impl<'a> Seen<'a> {
    /// The payload, if it is all there.
    fn whole(&self) -> Result<Option<&'a [u8]>, Malformed> {
        if self.len > HELD_MAX {
            return Err(Malformed::new("packet of a reply too long to hold", 0));
        }
        Ok(self.body.get(..self.len))
    }

    /// A packet that starts with 0xFE and is no row. A row that starts so holds a value of
    /// 16 MiB or more, and fills its first packet.
    const fn ends_rows(&self) -> bool {
        self.first == reply::EOF && self.len < MAX_PAYLOAD
    }
}

impl ReplyWalker {
    /// A walker for the reply to one command, on a connection with these capabilities.
    #[must_use]
    pub const fn new(expect: Expect, caps: Capabilities, mariadb: MariadbCapabilities) -> Self {
        let state = match expect {
            Expect::Fetch | Expect::FieldList => State::Rows { more: false },
            Expect::Query
            | Expect::Prepare
            | Expect::Execute
            | Expect::Simple
            | Expect::Statistics
            | Expect::Bulk => State::First,
        };
        Self {
            expect,
            caps,
            mariadb,
            state,
            skip: 0,
            continues: false,
            seq: None,
            watching: false,
            columns: 0,
        }
    }

    /// The same walker, which also reports the EOF packet after definitions.
    #[must_use]
    pub const fn watching(mut self, watching: bool) -> Self {
        self.watching = watching;
        self
    }

    /// Whether it was told to watch.
    #[must_use]
    pub const fn is_watching(&self) -> bool {
        self.watching
    }

    /// How many columns the first rows have, once their definitions came.
    #[must_use]
    pub const fn columns(&self) -> Option<u32> {
        match self.columns {
            0 => None,
            columns => Some(columns),
        }
    }

    /// Whether the terminal packet has been reported.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether it stands between two packets: nothing of a further packet was passed on.
    #[must_use]
    pub const fn is_between_packets(&self) -> bool {
        self.skip == 0 && !self.continues
    }

    /// The sequence number that the next packet of the reply will have, once one was seen.
    #[must_use]
    pub const fn next_seq(&self) -> Option<u8> {
        self.seq
    }

    /// Walks over `buf`, which begins with the first byte that was neither forwarded nor
    /// reported yet.
    ///
    /// # Errors
    /// [`Malformed`] when the bytes are no reply to this command, when sequence numbers do not
    /// count up, and when bytes follow the end of the reply. Framing is lost then.
    pub fn advance(&mut self, buf: &[u8]) -> Result<Advance, Malformed> {
        let mut at = 0_usize;
        loop {
            if self.skip > 0 {
                let passed = self.skip.min(buf.len().saturating_sub(at));
                self.skip = self.skip.saturating_sub(passed);
                at = at.saturating_add(passed);
            }
            at = at.saturating_add(self.plain_count(buf.get(at..).unwrap_or_default()));
            at = at.saturating_add(self.plain_packets(buf.get(at..).unwrap_or_default()));
            let rest = buf.get(at..).unwrap_or_default();
            let Some((len, seq)) = header(rest) else {
                return self.need_more(at, rest);
            };
            if self.continues {
                self.pass(len, seq, at)?;
                continue;
            }
            if len == 0 {
                return Err(self.unexpected(at));
            }
            let body = rest.get(HEADER_LEN..).unwrap_or_default();
            let Some(&first) = body.first() else {
                return self.need_more(at, rest);
            };
            let seen = Seen { len, first, body };
            match self.judge(&seen)? {
                Verdict::More => return Ok(Advance { forward: at, stop: Stop::NeedMore }),
                Verdict::Pass(next) => {
                    self.pass(len, seq, at)?;
                    if let (State::Definitions { left }, 0) = (next, self.columns) {
                        self.columns = u32::try_from(left).unwrap_or(u32::MAX);
                    }
                    self.state = next;
                }
                Verdict::Hold(kind, next) => {
                    self.count(seq, at)?;
                    self.state = next;
                    if kind == Kind::LocalInfile {
                        self.seq = None;
                    }
                    let len = len.saturating_add(HEADER_LEN);
                    let terminal = next == State::Done;
                    let stop = Stop::Notable(Notable { kind, len, seq, terminal });
                    return Ok(Advance { forward: at, stop });
                }
            }
        }
    }

    /// Passes over the packet that holds the number of columns, if it is wholly there and as plain
    /// as nearly always: one byte.
    fn plain_count(&mut self, buf: &[u8]) -> usize {
        let rows = matches!(self.expect, Expect::Query | Expect::Execute | Expect::Bulk);
        if self.state != State::First || !rows || !self.is_between_packets() || self.is_flagged() {
            return 0;
        }
        let Some(&[1, 0, 0, seq, count @ 1..=0xFA]) = buf.first_chunk::<5>() else { return 0 };
        if self.count(seq, 0).is_err() {
            return 0;
        }
        if self.columns == 0 {
            self.columns = u32::from(count);
        }
        self.state = State::Definitions { left: u64::from(count) };
        HEADER_LEN.saturating_add(1)
    }

    /// Whether a byte behind the number of columns says if definitions follow.
    const fn is_flagged(&self) -> bool {
        self.caps.has(Capabilities::OPTIONAL_RESULTSET_METADATA)
            || self.mariadb.has(MariadbCapabilities::CACHE_METADATA)
    }

    /// Passes over the definitions and rows that are wholly there, a few instructions each:
    /// nearly all packets are such. Stops at whatever is not plainly one.
    fn plain_packets(&mut self, buf: &[u8]) -> usize {
        let (0, false, Some(mut expected)) = (self.skip, self.continues, self.seq) else {
            return 0;
        };
        let mut rest = buf;
        if let State::Definitions { mut left } = self.state {
            while left > 0
                && let Some(after) = plain_packet(rest, expected)
            {
                rest = after;
                expected = expected.wrapping_add(1);
                left = left.saturating_sub(1);
            }
            self.state = match left {
                0 => self.after_definitions(),
                _ => State::Definitions { left },
            };
        }
        if let State::Rows { .. } = self.state {
            while let Some(after) = plain_packet(rest, expected) {
                rest = after;
                expected = expected.wrapping_add(1);
            }
        }
        self.seq = Some(expected);
        buf.len().saturating_sub(rest.len())
    }

    fn need_more(&self, at: usize, rest: &[u8]) -> Result<Advance, Malformed> {
        if self.state == State::Done && !rest.is_empty() {
            return Err(self.unexpected(at));
        }
        Ok(Advance { forward: at, stop: Stop::NeedMore })
    }

    fn unexpected(&self, at: usize) -> Malformed {
        let what = match self.state {
            State::Done => "bytes after the end of a reply",
            _ => "packet that does not fit the reply",
        };
        Malformed::new(what, at)
    }

    fn pass(&mut self, len: usize, seq: u8, at: usize) -> Result<(), Malformed> {
        self.count(seq, at)?;
        self.skip = len.saturating_add(HEADER_LEN);
        self.continues = len == MAX_PAYLOAD;
        Ok(())
    }

    fn count(&mut self, seq: u8, at: usize) -> Result<(), Malformed> {
        if self.seq.is_some_and(|expected| expected != seq) {
            return Err(Malformed::new("sequence number of a reply", at));
        }
        self.seq = Some(seq.wrapping_add(1));
        Ok(())
    }

    fn judge(&self, seen: &Seen<'_>) -> Result<Verdict, Malformed> {
        if seen.first == reply::ERR {
            return self.judge_err(seen);
        }
        match self.state {
            rows @ State::Rows { .. } if !seen.ends_rows() => Ok(Verdict::Pass(rows)),
            State::Rows { more } => Ok(match self.judge_end_of_rows(seen)? {
                Verdict::Hold(kind, State::Done) if more => Verdict::Hold(kind, State::First),
                verdict => verdict,
            }),
            State::First => self.judge_first(seen),
            State::Definitions { left } => Ok(Verdict::Pass(match left {
                2.. => State::Definitions { left: left.saturating_sub(1) },
                _ => self.after_definitions(),
            })),
            State::DefinitionsEnd => self.judge_definitions_end(seen),
            State::Prepared { left, after } => self.judge_prepared(seen, left, after),
            State::PreparedEnd { after } => judge_prepared_end(seen, after),
            State::Done => Err(self.unexpected(0)),
        }
    }

    /// An error ends the reply, whatever came before, unless it is a progress report.
    fn judge_err(&self, seen: &Seen<'_>) -> Result<Verdict, Malformed> {
        if seen.len < 3 {
            return Err(Malformed::new("short ERR packet", 0));
        }
        let Some(&[_, low, high]) = seen.body.first_chunk::<3>() else {
            return Ok(Verdict::More);
        };
        if u16::from_le_bytes([low, high]) == reply::PROGRESS_REPORT {
            return Ok(Verdict::Pass(self.state));
        }
        Ok(match seen.whole()? {
            Some(_) => Verdict::Hold(Kind::Err, State::Done),
            None => Verdict::More,
        })
    }

    fn judge_first(&self, seen: &Seen<'_>) -> Result<Verdict, Malformed> {
        match (self.expect, seen.first) {
            (Expect::Statistics, _) => Ok(match seen.whole()? {
                Some(_) => Verdict::Hold(Kind::Opaque, State::Done),
                None => Verdict::More,
            }),
            (Expect::Prepare, reply::OK) => self.judge_prepare_ok(seen),
            (Expect::Simple, reply::OK | reply::EOF) => self.judge_end_of_rows(seen),
            (Expect::Query | Expect::Execute | Expect::Bulk, reply::OK) => self.judge_ok(seen),
            (Expect::Query | Expect::Execute | Expect::Bulk, reply::LOCAL_INFILE) => {
                Ok(match seen.whole()? {
                    Some(_) => Verdict::Hold(Kind::LocalInfile, State::First),
                    None => Verdict::More,
                })
            }
            (Expect::Query | Expect::Execute | Expect::Bulk, 1..=0xFD) => self.judge_count(seen),
            _ => Err(self.unexpected(0)),
        }
    }

    fn judge_ok(&self, seen: &Seen<'_>) -> Result<Verdict, Malformed> {
        let Some(payload) = seen.whole()? else {
            return Ok(Verdict::More);
        };
        let ok = OkPacket::parse(payload, self.caps)?;
        Ok(Verdict::Hold(Kind::Ok { header: seen.first }, self.after_result(ok.status)))
    }

    /// The last packet of rows, or the only one of a simple reply: an EOF packet has five
    /// bytes (one before 4.1), an OK packet has seven or more.
    fn judge_end_of_rows(&self, seen: &Seen<'_>) -> Result<Verdict, Malformed> {
        let Some(payload) = seen.whole()? else {
            return Ok(Verdict::More);
        };
        if seen.first == reply::EOF && seen.len < 6 {
            let eof = Eof::parse(payload, self.caps)?;
            return Ok(Verdict::Hold(Kind::Eof, self.after_result(eof.status)));
        }
        if seen.first == reply::EOF && !self.caps.has(Capabilities::DEPRECATE_EOF) {
            return Err(Malformed::new("long EOF packet", 0));
        }
        self.judge_ok(seen)
    }

    const fn after_result(&self, status: Status) -> State {
        match self.expect {
            Expect::Query | Expect::Execute | Expect::Bulk
                if status.has(Status::MORE_RESULTS_EXISTS) =>
            {
                State::First
            }
            Expect::Query
            | Expect::Prepare
            | Expect::Execute
            | Expect::Fetch
            | Expect::FieldList
            | Expect::Simple
            | Expect::Statistics
            | Expect::Bulk => State::Done,
        }
    }

    /// The packet that holds the number of columns. Behind the number, both families put a
    /// byte that says whether definitions follow, if that was negotiated.
    fn judge_count(&self, seen: &Seen<'_>) -> Result<Verdict, Malformed> {
        if seen.len > 10 {
            return Err(Malformed::new("number of columns", 0));
        }
        let Some(payload) = seen.whole()? else {
            return Ok(Verdict::More);
        };
        let mut cursor = Cursor::new(payload);
        let left = cursor.lenenc_int("number of columns")?;
        let follow = !self.is_flagged() || cursor.u8("metadata flag")? != 0;
        Ok(Verdict::Pass(match follow && left > 0 {
            true => State::Definitions { left },
            false => self.after_definitions(),
        }))
    }

    const fn after_definitions(&self) -> State {
        match self.caps.has(Capabilities::DEPRECATE_EOF) {
            true => State::Rows { more: false },
            false => State::DefinitionsEnd,
        }
    }

    /// The EOF after the definitions passes silently, unless a cursor was opened: then no rows
    /// follow, and it ends the reply. One that speaks of session trackers is reported: it is
    /// the owner's trackers that it speaks of.
    fn judge_definitions_end(&self, seen: &Seen<'_>) -> Result<Verdict, Malformed> {
        let Some(payload) = eof(seen)? else {
            return Ok(Verdict::More);
        };
        let status = Eof::parse(payload, self.caps)?.status;
        if self.expect == Expect::Execute && status.opens_cursor() {
            return Ok(Verdict::Hold(Kind::Eof, State::Done));
        }
        let more = status.has(Status::PS_OUT_PARAMS.with(Status::MORE_RESULTS_EXISTS));
        let rows = State::Rows { more };
        Ok(match self.watching || status.has(Status::SESSION_STATE_CHANGED) {
            true => Verdict::Hold(Kind::Eof, rows),
            false => Verdict::Pass(rows),
        })
    }

    fn judge_prepare_ok(&self, seen: &Seen<'_>) -> Result<Verdict, Malformed> {
        let Some(payload) = seen.whole()? else {
            return Ok(Verdict::More);
        };
        let ok = PrepareOk::parse(payload, self.caps)?;
        let next = match (u64::from(ok.params), u64::from(ok.columns)) {
            _ if !ok.metadata => State::Done,
            (0, 0) => State::Done,
            (0, columns) => State::Prepared { left: columns, after: 0 },
            (params, columns) => State::Prepared { left: params, after: columns },
        };
        Ok(Verdict::Hold(Kind::PrepareOk, next))
    }

    fn judge_prepared(&self, seen: &Seen<'_>, left: u64, after: u64) -> Result<Verdict, Malformed> {
        if left > 1 {
            return Ok(Verdict::Pass(State::Prepared { left: left.saturating_sub(1), after }));
        }
        if !self.caps.has(Capabilities::DEPRECATE_EOF) {
            return Ok(Verdict::Pass(State::PreparedEnd { after }));
        }
        if after > 0 {
            return Ok(Verdict::Pass(State::Prepared { left: after, after: 0 }));
        }
        Ok(match seen.whole()? {
            Some(_) => Verdict::Hold(Kind::Opaque, State::Done),
            None => Verdict::More,
        })
    }
}

/// What stands behind the packet at the head of `buf`, if that is wholly there, the next one,
/// and no OK, EOF, ERR or part of a longer one.
#[inline]
fn plain_packet(buf: &[u8], expected: u8) -> Option<&[u8]> {
    let &[a, b, c, seq, first] = buf.first_chunk::<5>()?;
    let (len, _) = header(&[a, b, c, seq])?;
    let plain = first < reply::EOF && seq == expected && 0 < len && len < MAX_PAYLOAD;
    if plain { buf.get(HEADER_LEN.saturating_add(len)..) } else { None }
}

fn judge_prepared_end(seen: &Seen<'_>, after: u64) -> Result<Verdict, Malformed> {
    Ok(match eof(seen)? {
        None => Verdict::More,
        Some(_) if after > 0 => Verdict::Pass(State::Prepared { left: after, after: 0 }),
        Some(_) => Verdict::Hold(Kind::Eof, State::Done),
    })
}

/// The payload of an EOF packet, if it is all there.
fn eof<'a>(seen: &Seen<'a>) -> Result<Option<&'a [u8]>, Malformed> {
    if seen.first != reply::EOF || seen.len > 5 {
        return Err(Malformed::new("EOF packet after definitions", 0));
    }
    seen.whole()
}

#[cfg(test)]
mod tests;
