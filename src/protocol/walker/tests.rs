//! Whole replies, cut everywhere.

use super::*;
use crate::protocol::packet;
use proptest::prelude::*;

mod transcripts;

const OLD: Capabilities = Capabilities(512 | 8192);
const NEW: Capabilities = OLD.with(Capabilities::DEPRECATE_EOF);
const NONE: MariadbCapabilities = MariadbCapabilities(0);

const OK_END: &[u8] = b"\x00\x01\x00\x02\x00\x00\x00";
const OK_MORE: &[u8] = b"\x00\x01\x00\x0a\x00\x00\x00";
const EOF_END: &[u8] = b"\xfe\x00\x00\x02\x00";
const EOF_MORE: &[u8] = b"\xfe\x00\x00\x0a\x00";
const EOF_CURSOR: &[u8] = b"\xfe\x00\x00\x42\x00";
const EOF_INNER_CURSOR: &[u8] = b"\xfe\x00\x00\x4a\x00";
const ROWS_OK: &[u8] = b"\xfe\x00\x00\x02\x00\x00\x00";
const ROWS_OK_MORE: &[u8] = b"\xfe\x00\x00\x0a\x00\x00\x00";
const ERROR: &[u8] = b"\xff\x7a\x04#42S02Table 'a.b' doesn't exist";
const PROGRESS: &[u8] = b"\xff\xff\xff\x01\x01\x02\x10\x27\x00\x04copy";
const DEFINITION: &[u8] =
    b"\x03def\x00\x00\x00\x01c\x00\x0c\x3f\x00\x01\x00\x00\x00\x08\x81\0\0\0\0";
const FILE: &[u8] = b"\xfb/tmp/rows.csv";

const OK0: Kind = Kind::Ok { header: 0 };
const OKFE: Kind = Kind::Ok { header: 0xFE };

/// What an owner has seen: all bytes in order, and where the notable packets stood.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    bytes: Vec<u8>,
    notables: Vec<(usize, Notable)>,
}

struct Case {
    name: &'static str,
    expect: Expect,
    caps: Capabilities,
    mariadb: MariadbCapabilities,
    packets: Vec<Vec<u8>>,
    notables: Vec<(Kind, bool)>,
}

fn case(
    name: &'static str,
    expect: Expect,
    caps: Capabilities,
    packets: &[&[u8]],
    notables: &[(Kind, bool)],
) -> Case {
    let packets = packets.iter().map(|packet| packet.to_vec()).collect();
    Case { name, expect, caps, mariadb: NONE, packets, notables: notables.to_vec() }
}

fn wire(packets: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut seq = 1;
    for payload in packets {
        seq = packet::write(&mut out, seq, payload);
    }
    out
}

/// Feeds `chunks` as an owner would, who keeps what was not taken.
fn drive<'a>(
    mut walker: ReplyWalker,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Seen, Malformed> {
    let mut seen = Seen::default();
    let mut kept: Vec<u8> = Vec::new();
    for chunk in chunks {
        kept.extend_from_slice(chunk);
        let mut at = 0;
        loop {
            let Advance { forward, stop } = walker.advance(&kept[at..])?;
            seen.bytes.extend_from_slice(&kept[at..at + forward]);
            at += forward;
            match stop {
                Stop::NeedMore => break,
                Stop::Notable(notable) => {
                    seen.notables.push((seen.bytes.len(), notable));
                    seen.bytes.extend_from_slice(&kept[at..at + notable.len]);
                    at += notable.len;
                }
            }
        }
        kept.drain(..at);
    }
    assert!(kept.is_empty(), "bytes were kept at the end: {kept:?}");
    Ok(seen)
}

fn cases() -> Vec<Case> {
    let row: &[u8] = b"\x011\xfb\x03abc";
    let binary: &[u8] = b"\x00\x00\x01\x00\x00\x00";
    let prepared = |columns: u8, params: u8| vec![0, 7, 0, 0, 0, columns, 0, params, 0, 0, 0, 0];
    let (plain, params, columns, both) =
        (prepared(0, 0), prepared(0, 2), prepared(1, 0), prepared(2, 1));
    let def = DEFINITION;
    let mut cases = Vec::new();
    cases.extend([
        case("ok", Expect::Query, OLD, &[OK_END], &[(OK0, true)]),
        case("err", Expect::Query, OLD, &[ERROR], &[(Kind::Err, true)]),
        case(
            "text rows, EOF",
            Expect::Query,
            OLD,
            &[b"\x02", def, def, EOF_END, row, b"\xfb\xfb", EOF_END],
            &[(Kind::Eof, true)],
        ),
        case(
            "text rows, OK at the end",
            Expect::Query,
            NEW,
            &[b"\x02", def, def, row, row, ROWS_OK],
            &[(OKFE, true)],
        ),
        case("no rows", Expect::Query, NEW, &[b"\x01", def, ROWS_OK], &[(OKFE, true)]),
        case(
            "error among the rows",
            Expect::Query,
            OLD,
            &[b"\x01", def, EOF_END, row, ERROR],
            &[(Kind::Err, true)],
        ),
        case(
            "two results and an OK",
            Expect::Query,
            OLD,
            &[b"\x01", def, EOF_END, row, EOF_MORE, OK_MORE, b"\x01", def, EOF_END, EOF_END],
            &[(Kind::Eof, false), (OK0, false), (Kind::Eof, true)],
        ),
        case(
            "CALL by a prepared statement",
            Expect::Execute,
            NEW,
            &[b"\x01", def, binary, ROWS_OK_MORE, b"\x01", def, binary, ROWS_OK_MORE, OK_END],
            &[(OKFE, false), (OKFE, false), (OK0, true)],
        ),
        case(
            "OUT parameters of MySQL: more is said before the rows only",
            Expect::Execute,
            OLD,
            &[b"\x01", def, b"\xfe\x00\x00\x0a\x10", binary, EOF_END, OK_END],
            &[(Kind::Eof, false), (OK0, true)],
        ),
        case(
            "error in the second result",
            Expect::Query,
            NEW,
            &[OK_MORE, ERROR],
            &[(OK0, false), (Kind::Err, true)],
        ),
        case("progress reports", Expect::Query, OLD, &[PROGRESS, PROGRESS, OK_END], &[(OK0, true)]),
        case("bulk", Expect::Bulk, OLD, &[OK_END], &[(OK0, true)]),
        case(
            "binary rows",
            Expect::Execute,
            OLD,
            &[b"\x01", def, EOF_END, binary, binary, EOF_END],
            &[(Kind::Eof, true)],
        ),
        case(
            "an opened cursor",
            Expect::Execute,
            OLD,
            &[b"\x01", def, EOF_CURSOR],
            &[(Kind::Eof, true)],
        ),
        case(
            "a cursor of a procedure's own",
            Expect::Execute,
            OLD,
            &[b"\x01", def, EOF_INNER_CURSOR, binary, EOF_INNER_CURSOR, OK_END],
            &[(Kind::Eof, false), (OK0, true)],
        ),
        case("fetch", Expect::Fetch, OLD, &[binary, binary, EOF_CURSOR], &[(Kind::Eof, true)]),
        case("fetch, new", Expect::Fetch, NEW, &[binary, ROWS_OK], &[(OKFE, true)]),
        case("field list", Expect::FieldList, OLD, &[def, def, EOF_END], &[(Kind::Eof, true)]),
        case("field list, err", Expect::FieldList, OLD, &[ERROR], &[(Kind::Err, true)]),
    ]);
    cases.extend([
        case("simple ok", Expect::Simple, OLD, &[OK_END], &[(OK0, true)]),
        case("simple eof", Expect::Simple, NEW, &[EOF_END], &[(Kind::Eof, true)]),
        case("simple ok as eof", Expect::Simple, NEW, &[ROWS_OK], &[(OKFE, true)]),
        case("statistics", Expect::Statistics, OLD, &[b"Uptime: 1"], &[(Kind::Opaque, true)]),
        case("prepared", Expect::Prepare, OLD, &[&plain], &[(Kind::PrepareOk, true)]),
        case(
            "prepared, parameters",
            Expect::Prepare,
            OLD,
            &[&params, def, def, EOF_END],
            &[(Kind::PrepareOk, false), (Kind::Eof, true)],
        ),
        case(
            "prepared, columns",
            Expect::Prepare,
            NEW,
            &[&columns, def],
            &[(Kind::PrepareOk, false), (Kind::Opaque, true)],
        ),
        case(
            "prepared, both",
            Expect::Prepare,
            OLD,
            &[&both, def, EOF_END, def, def, EOF_END],
            &[(Kind::PrepareOk, false), (Kind::Eof, true)],
        ),
        case(
            "prepared, both, new",
            Expect::Prepare,
            NEW,
            &[&both, def, def, def],
            &[(Kind::PrepareOk, false), (Kind::Opaque, true)],
        ),
        case("prepare failed", Expect::Prepare, NEW, &[ERROR], &[(Kind::Err, true)]),
    ]);
    let mut cached = case(
        "cached metadata",
        Expect::Execute,
        NEW,
        &[b"\x02\x00", binary, ROWS_OK_MORE, b"\x01\x01", def, binary, ROWS_OK],
        &[(OKFE, false), (OKFE, true)],
    );
    cached.mariadb = MariadbCapabilities::CACHE_METADATA;
    let mut cached_old = case(
        "cached metadata, EOF",
        Expect::Execute,
        OLD,
        &[b"\x02\x00", EOF_END, binary, EOF_END],
        &[(Kind::Eof, true)],
    );
    cached_old.mariadb = MariadbCapabilities::CACHE_METADATA;
    cases.extend([cached, cached_old]);
    cases
}

#[test]
fn every_reply_is_the_same_however_it_is_cut() {
    for case in cases() {
        let wire = wire(&case.packets);
        let walker = || ReplyWalker::new(case.expect, case.caps, case.mariadb);
        let whole = drive(walker(), [&wire[..]]).expect(case.name);
        let kinds: Vec<_> =
            whole.notables.iter().map(|(_, seen)| (seen.kind, seen.terminal)).collect();
        assert_eq!(kinds, case.notables, "{}", case.name);
        assert_eq!(whole.bytes, wire, "{}", case.name);
        for cut in 0..wire.len() {
            let (head, tail) = wire.split_at(cut);
            let seen = drive(walker(), [head, tail]).expect(case.name);
            assert_eq!(seen, whole, "{} cut at {cut}", case.name);
        }
        let seen = drive(walker(), wire.chunks(1)).expect(case.name);
        assert_eq!(seen, whole, "{} byte by byte", case.name);
    }
}

#[test]
fn bytes_behind_the_end_are_refused() {
    for case in cases() {
        let mut wire = wire(&case.packets);
        wire.push(0);
        let walker = ReplyWalker::new(case.expect, case.caps, case.mariadb);
        assert!(drive(walker, [&wire[..]]).is_err(), "{}", case.name);
    }
}

#[test]
fn a_hole_in_the_sequence_is_refused() {
    for case in cases() {
        let mut wire = Vec::new();
        for (number, payload) in case.packets.iter().enumerate() {
            let seq = u8::try_from(number).unwrap();
            packet::write(&mut wire, if number == 0 { seq } else { seq + 1 }, payload);
        }
        let walker = ReplyWalker::new(case.expect, case.caps, case.mariadb);
        let refused = drive(walker, [&wire[..]]).is_err();
        assert_eq!(refused, case.packets.len() > 1, "{}", case.name);
    }
}

#[test]
fn after_a_file_the_sequence_goes_on_where_the_client_stopped() {
    let mut walker = ReplyWalker::new(Expect::Query, OLD, NONE);
    let mut wire = Vec::new();
    packet::write(&mut wire, 1, FILE);
    let asked = Notable { kind: Kind::LocalInfile, len: wire.len(), seq: 1, terminal: false };
    assert_eq!(walker.advance(&wire), Ok(Advance { forward: 0, stop: Stop::Notable(asked) }));
    let mut wire = Vec::new();
    packet::write(&mut wire, 9, OK_END);
    let done = Notable { kind: OK0, len: wire.len(), seq: 9, terminal: true };
    assert_eq!(walker.advance(&wire), Ok(Advance { forward: 0, stop: Stop::Notable(done) }));
    assert!(walker.is_done());
}

/// A row of more than 16 MiB that begins with 0xFE is a row, in each of its packets.
#[test]
fn a_huge_row_streams_through() {
    for caps in [OLD, NEW] {
        let value = MAX_PAYLOAD + 5;
        let mut row = vec![0xFE];
        row.extend_from_slice(&(value as u64).to_le_bytes());
        row.resize(row.len() + value, 0xFE);
        let mut packets = vec![b"\x01".to_vec(), DEFINITION.to_vec()];
        let end = if caps == OLD { EOF_END } else { ROWS_OK };
        if caps == OLD {
            packets.push(EOF_END.to_vec());
        }
        packets.extend([row, end.to_vec()]);
        let wire = wire(&packets);
        for size in [7919, 65536, wire.len()] {
            let walker = ReplyWalker::new(Expect::Query, caps, NONE);
            let seen = drive(walker, wire.chunks(size)).unwrap();
            assert!(seen.bytes == wire);
            assert_eq!(seen.notables.len(), 1);
            assert!(seen.notables[0].1.terminal);
        }
        // Nothing of the row is kept, however little has arrived.
        let mut walker = ReplyWalker::new(Expect::Query, caps, NONE);
        let begun = &wire[..wire.len() / 2];
        let all = Advance { forward: begun.len(), stop: Stop::NeedMore };
        assert_eq!(walker.advance(begun), Ok(all));
        assert!(!walker.is_between_packets());
    }
}

#[test]
fn a_row_whose_length_is_a_whole_packet_ends_with_an_empty_one() {
    let row = vec![b'r'; MAX_PAYLOAD];
    let wire = wire(&[b"\x01".to_vec(), DEFINITION.to_vec(), row, ROWS_OK.to_vec()]);
    let seen = drive(ReplyWalker::new(Expect::Query, NEW, NONE), wire.chunks(1 << 20)).unwrap();
    assert_eq!(seen.notables.len(), 1);
    assert!(seen.bytes == wire);
}

#[test]
fn what_is_no_reply_is_refused() {
    let refused: &[(Expect, Capabilities, &[&[u8]])] = &[
        (Expect::Query, OLD, &[b""]),
        (Expect::Query, OLD, &[EOF_END]),
        (Expect::Query, OLD, &[b"\xff\x01"]),
        (Expect::Query, OLD, &[b"\x00\x01"]),
        (Expect::Query, OLD, &[b"\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01"]),
        (Expect::Query, OLD, &[b"\x01", DEFINITION, DEFINITION]),
        (Expect::Query, OLD, &[b"\x01", DEFINITION, EOF_END, ROWS_OK]),
        (Expect::Simple, OLD, &[b"\x01"]),
        (Expect::Simple, OLD, &[FILE]),
        (Expect::Prepare, OLD, &[b"\x00\x01"]),
        (Expect::Prepare, OLD, &[FILE]),
        (Expect::Fetch, OLD, &[b""]),
    ];
    for (expect, caps, packets) in refused {
        let packets: Vec<_> = packets.iter().map(|payload| payload.to_vec()).collect();
        let wire = wire(&packets);
        let mut walker = ReplyWalker::new(*expect, *caps, NONE);
        let mut at = 0;
        let refused = loop {
            match walker.advance(&wire[at..]) {
                Err(_) => break true,
                Ok(Advance { stop: Stop::NeedMore, .. }) => break false,
                Ok(Advance { forward, stop: Stop::Notable(seen) }) => at += forward + seen.len,
            }
        };
        assert!(refused, "{expect:?} {packets:?}");
    }
}

#[test]
fn no_server_can_make_us_hold_much() {
    let declared = [&[0, 0, 0x20, 1][..], &[0xFF, 1, 4, b'x']].concat();
    for expect in [Expect::Query, Expect::Simple, Expect::Fetch, Expect::Prepare] {
        assert!(ReplyWalker::new(expect, OLD, NONE).advance(&declared).is_err(), "{expect:?}");
    }
    let text = [0, 0, 0x20, 1, b'U'];
    assert!(ReplyWalker::new(Expect::Statistics, OLD, NONE).advance(&text).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_and_cuts_do_not_matter(
        bytes: Vec<u8>, cut: usize, expect in 0_usize..8, caps: u32, mariadb: u32,
    ) {
        let expect = [
            Expect::Query, Expect::Prepare, Expect::Execute, Expect::Fetch,
            Expect::FieldList, Expect::Simple, Expect::Statistics, Expect::Bulk,
        ][expect];
        let new = || ReplyWalker::new(expect, Capabilities(caps), MariadbCapabilities(mariadb));
        let mut walker = new();
        if let Ok(Advance { forward, .. }) = walker.advance(&bytes) {
            prop_assert!(forward <= bytes.len());
            let cut = cut % (forward + 1);
            let mut other = new();
            let first = other.advance(&bytes[..cut]);
            if let Ok(Advance { forward: passed, stop: Stop::NeedMore }) = first {
                let rest = other.advance(&bytes[passed..]).unwrap();
                prop_assert_eq!(passed + rest.forward, forward);
            }
        }
    }
}
