//! Parameters of COM_STMT_EXECUTE and of query attributes: where the null bitmap, the types
//! and the values are, and how an execution is rebuilt for another server.
//!
//! A client that executes again with the same types leaves them out (new_params_bound = 0).
//! A server that has not seen the earlier execution needs them, so they are remembered and
//! put back in ([`rebind`]).

use super::Malformed;
use super::command::byte;
use super::cursor::Cursor;
use super::flags::Capabilities;

/// The flag of COM_STMT_EXECUTE that says that a parameter count is present although the
/// statement has no parameters (MySQL 8.0.23).
pub const PARAMETER_COUNT_AVAILABLE: u8 = 0x08;
/// The flags that open a cursor: read-only, for update, scrollable.
pub const CURSOR_TYPES: u8 = 0x07;

/// An execution rebuilt for another server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebound {
    /// The whole payload, the command byte included.
    pub payload: Vec<u8>,
    /// The types block, when the client's own payload carried one: to be remembered and given
    /// as `known_types` later.
    pub types: Option<Vec<u8>>,
}

/// Where the parameter fields of a COM_STMT_EXECUTE payload are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    /// How many parameters the payload has, attributes included.
    count: usize,
    /// Offset of the new_params_bound flag.
    bound_at: usize,
    /// Whether the flag is 1.
    bound: bool,
    /// Where the types block ends; it starts behind the flag.
    types_end: usize,
}

/// The types block of a COM_STMT_EXECUTE payload, if it carries one.
///
/// # Errors
/// [`Malformed`] when the payload is no COM_STMT_EXECUTE or too short for its parameters.
pub fn types(
    payload: &[u8],
    param_count: u16,
    caps: Capabilities,
) -> Result<Option<&[u8]>, Malformed> {
    let Some(layout) = layout(payload, param_count, caps)? else {
        return Ok(None);
    };
    Ok(layout.bound.then(|| {
        let start = layout.bound_at.saturating_add(1);
        payload.get(start..layout.types_end).unwrap_or_default()
    }))
}

/// Whether a COM_STMT_EXECUTE payload asks for a cursor of any kind.
#[must_use]
pub fn wants_cursor(payload: Option<&[u8]>) -> bool {
    // Command, id, flags; the three lowest are cursors.
    payload.and_then(|payload| payload.get(5)).is_some_and(|flags| flags & 0x07 != 0)
}

/// The value of a statement's only parameter, when the payload names its type and that is an
/// integer, not negative. Behind the type nothing but the value follows.
#[must_use]
pub fn only_integer(payload: &[u8]) -> Option<u64> {
    // Command, id, flags, iterations, null bitmap, new_params_bound; then type and value.
    let &[nulls, bound, kind, _unsigned] = payload.get(10..)?.first_chunk::<4>()?;
    let value = payload.get(14..)?;
    let width: usize = match kind {
        0x01 => 1,
        0x02 => 2,
        0x03 | 0x09 => 4,
        0x08 => 8,
        _ => return None,
    };
    if nulls != 0 || bound != 1 || value.len() != width {
        return None;
    }
    let mut bytes = [0; 8];
    bytes.get_mut(..width)?.copy_from_slice(value);
    Some(u64::from_le_bytes(bytes))
}

/// Rebuilds the COM_STMT_EXECUTE `payload` (command byte included) for the statement `new_id`
/// of another server. `param_count` is that of the statement; `known_types` is the remembered
/// types block, to be inserted where the payload has none: `None` leaves it as it is.
///
/// # Errors
/// [`Malformed`] when the payload is no COM_STMT_EXECUTE, is too short for its parameters, or
/// when `known_types` does not describe as many parameters as the payload has.
pub fn rebind(
    payload: &[u8],
    new_id: u32,
    param_count: u16,
    known_types: Option<&[u8]>,
    caps: Capabilities,
) -> Result<Rebound, Malformed> {
    let layout = layout(payload, param_count, caps)?;
    let mut out = payload.to_vec();
    if let Some(id) = out.get_mut(1..5) {
        id.copy_from_slice(&new_id.to_le_bytes());
    }
    let Some(layout) = layout else {
        return Ok(Rebound { payload: out, types: None });
    };
    let start = layout.bound_at.saturating_add(1);
    if layout.bound {
        let types = payload.get(start..layout.types_end).unwrap_or_default().to_vec();
        return Ok(Rebound { payload: out, types: Some(types) });
    }
    if let Some(known) = known_types {
        let mut cursor = Cursor::new(known);
        skip_types(&mut cursor, layout.count, caps)?;
        if !cursor.is_empty() {
            return Err(Malformed::new("remembered parameter types", cursor.at()));
        }
        out.truncate(layout.bound_at);
        out.push(1);
        out.extend_from_slice(known);
        out.extend_from_slice(payload.get(start..).unwrap_or_default());
    }
    Ok(Rebound { payload: out, types: None })
}

/// `None` when the payload has no parameters at all.
fn layout(
    payload: &[u8],
    param_count: u16,
    caps: Capabilities,
) -> Result<Option<Layout>, Malformed> {
    let mut cursor = Cursor::new(payload);
    if cursor.u8("command byte")? != byte::STMT_EXECUTE {
        return Err(Malformed::new("command byte of COM_STMT_EXECUTE", 0));
    }
    cursor.skip(4, "statement id")?;
    let flags = cursor.u8("cursor flags")?;
    cursor.skip(4, "iteration count")?;
    let named = caps.has(Capabilities::QUERY_ATTRIBUTES);
    let counted = named && flags & PARAMETER_COUNT_AVAILABLE != 0;
    if param_count == 0 && !counted {
        return Ok(None);
    }
    let count = if named { count(&mut cursor)? } else { usize::from(param_count) };
    if count == 0 {
        return Ok(None);
    }
    cursor.skip(count.div_ceil(8), "null bitmap")?;
    let bound_at = cursor.at();
    let bound = cursor.u8("new_params_bound flag")? == 1;
    if bound {
        skip_types(&mut cursor, count, caps)?;
    }
    Ok(Some(Layout { count, bound_at, bound, types_end: cursor.at() }))
}

/// A parameter count: the protocol has 16 bits for those of a statement.
fn count(cursor: &mut Cursor<'_>) -> Result<usize, Malformed> {
    let at = cursor.at();
    let count = cursor.lenenc_int("parameter count")?;
    u16::try_from(count).map(usize::from).map_err(|_| Malformed::new("parameter count", at))
}

fn skip_types(cursor: &mut Cursor<'_>, count: usize, caps: Capabilities) -> Result<(), Malformed> {
    for _ in 0..count {
        cursor.skip(2, "parameter type")?;
        if caps.has(Capabilities::QUERY_ATTRIBUTES) {
            cursor.lenenc_str("parameter name")?;
        }
    }
    Ok(())
}

/// Passes over the parameter block of a COM_QUERY with CLIENT_QUERY_ATTRIBUTES (protocol page
/// "COM_QUERY"): the cursor stands at the statement's text then.
pub(super) fn skip_attributes(cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
    let count = count(cursor)?;
    let at = cursor.at();
    if cursor.lenenc_int("parameter set count")? != 1 {
        return Err(Malformed::new("parameter set count other than 1", at));
    }
    if count == 0 {
        return Ok(());
    }
    let nulls = cursor.take(count.div_ceil(8), "null bitmap")?;
    let at = cursor.at();
    if cursor.u8("new_params_bind flag")? != 1 {
        return Err(Malformed::new("query attributes without types", at));
    }
    let mut kinds = Vec::with_capacity(count.min(cursor.left()));
    for _ in 0..count {
        let [kind, _sign] = cursor.array("parameter type")?;
        cursor.lenenc_str("parameter name")?;
        kinds.push(kind);
    }
    for (number, kind) in kinds.into_iter().enumerate() {
        let bits = nulls.get(number / 8).copied().unwrap_or_default();
        if bits & (1_u8 << (number % 8)) == 0 {
            skip_value(cursor, kind)?;
        }
    }
    Ok(())
}

/// Passes over one binary value (protocol page "Binary Protocol Value").
fn skip_value(cursor: &mut Cursor<'_>, kind: u8) -> Result<(), Malformed> {
    match kind {
        // NULL
        6 => Ok(()),
        // TINY, BOOL
        1 | 244 => cursor.skip(1, "value of one byte"),
        // SHORT, YEAR
        2 | 13 => cursor.skip(2, "value of two bytes"),
        // LONG, FLOAT, INT24
        3 | 4 | 9 => cursor.skip(4, "value of four bytes"),
        // DOUBLE, LONGLONG
        5 | 8 => cursor.skip(8, "value of eight bytes"),
        // TIMESTAMP, DATE, TIME, DATETIME
        7 | 10 | 11 | 12 => {
            let len = cursor.u8("length of a temporal value")?;
            cursor.skip(usize::from(len), "temporal value")
        }
        // DECIMAL, VARCHAR, BIT, VECTOR, JSON, NEWDECIMAL, ENUM, SET, BLOBs, strings, GEOMETRY
        0 | 15 | 16 | 242 | 245..=255 => cursor.lenenc_str("string value").map(|_| ()),
        _ => Err(Malformed::new("unknown parameter type", cursor.at())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: Capabilities = Capabilities::PROTOCOL_41;
    const ATTRS: Capabilities = Capabilities(512 | 0x0800_0000);

    fn execute(flags: u8, rest: &[u8]) -> Vec<u8> {
        let mut payload = vec![0x17, 1, 0, 0, 0, flags, 1, 0, 0, 0];
        payload.extend_from_slice(rest);
        payload
    }

    #[test]
    fn only_the_id_changes_when_the_types_are_there() {
        let sent = execute(0, b"\x00\x01\x08\x00\xfd\x00AAAAAAAA\x02hi");
        let rebound = rebind(&sent, 0x0403_0201, 2, None, PLAIN).unwrap();
        assert_eq!(rebound.types.as_deref(), Some(&b"\x08\x00\xfd\x00"[..]));
        assert_eq!(&rebound.payload[1..5], &[1, 2, 3, 4]);
        assert_eq!(&rebound.payload[5..], &sent[5..]);
        assert_eq!(types(&sent, 2, PLAIN), Ok(Some(&b"\x08\x00\xfd\x00"[..])));
    }

    #[test]
    fn omitted_types_are_put_back_in() {
        let full = execute(1, b"\x00\x01\x08\x00\xfd\x00AAAAAAAA\x02hi");
        let short = execute(1, b"\x00\x00AAAAAAAA\x02hi");
        let rebound = rebind(&short, 1, 2, Some(b"\x08\x00\xfd\x00"), PLAIN).unwrap();
        assert_eq!(rebound, Rebound { payload: full, types: None });
        let as_is = rebind(&short, 1, 2, None, PLAIN).unwrap();
        assert_eq!(as_is, Rebound { payload: short, types: None });
    }

    #[test]
    fn types_that_do_not_fit_the_count_are_refused() {
        let short = execute(0, b"\x00\x00AAAAAAAA\x02hi");
        assert!(rebind(&short, 1, 2, Some(b"\x08\x00"), PLAIN).is_err());
        assert!(rebind(&short, 1, 2, Some(b"\x08\x00\xfd\x00\x01\x00"), PLAIN).is_err());
    }

    #[test]
    fn the_null_bitmap_grows_with_the_parameters() {
        let mut rest = vec![0xFF, 0x01, 1];
        rest.extend([6, 0].repeat(9));
        let sent = execute(0, &rest);
        assert_eq!(types(&sent, 9, PLAIN), Ok(Some(&[6, 0].repeat(9)[..])));
        assert!(types(&execute(0, &rest[..20]), 9, PLAIN).is_err());
    }

    #[test]
    fn query_attributes_bring_a_count_and_names() {
        // One parameter of the statement, one attribute named "id".
        let sent = execute(8, b"\x02\x00\x01\x08\x00\x00\xfe\x00\x02idAAAAAAAA\x01x");
        let rebound = rebind(&sent, 9, 1, None, ATTRS).unwrap();
        let block = rebound.types.unwrap();
        assert_eq!(block, b"\x08\x00\x00\xfe\x00\x02id");
        let short = execute(8, b"\x02\x00\x00AAAAAAAA\x01x");
        let put_back = rebind(&short, 1, 1, Some(&block), ATTRS).unwrap();
        assert_eq!(put_back.payload, sent);
        // A statement without parameters, and without attributes.
        let none = execute(8, b"\x00");
        assert_eq!(rebind(&none, 1, 0, None, ATTRS).unwrap().payload, none);
    }

    #[test]
    fn a_statement_without_parameters_has_only_its_id_changed() {
        let sent = execute(0, b"");
        assert_eq!(rebind(&sent, 1, 0, Some(b"zz"), PLAIN).unwrap().payload, sent);
    }

    #[test]
    fn other_commands_are_refused() {
        assert!(rebind(b"\x03SELECT 1 FROM t", 1, 0, None, PLAIN).is_err());
        assert!(rebind(b"", 1, 0, None, PLAIN).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>, count: u16, caps: u32, known: Vec<u8>) {
            if let Some(first) = bytes.first_mut() {
                *first = 0x17;
            }
            let _ = rebind(&bytes, 1, count, Some(&known), Capabilities(caps));
        }
    }
}
