//! The built-in functions of both families, and what calling one may do.
//!
//! A name that is not here is a stored or loadable function as far as routing is concerned, so
//! each entry says from which version on a family has it: before that version the same name
//! could be somebody's own function. Keywords that may stand before a parenthesis are here too.

use crate::router::Dialect;
use crate::router::keyword::key;
use crate::topology::Flavour;

/// What calling a function may do, or tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Depends on its arguments and on reproducible session settings only.
    Pure,
    /// Another value at each call (time, chance), but no trace.
    Volatile,
    /// Tells about the previous statement.
    Diagnostics,
    /// Reads or sets LAST_INSERT_ID.
    LastInsertId,
    /// Answers about one host or one connection.
    HostLocal,
    /// The connection's own number, to be virtualised.
    ConnectionId,
    /// Takes user-level locks.
    TakesLock,
    /// Asks for or releases user-level locks.
    UserLock,
    /// Releases all of them.
    ReleasesAllLocks,
    /// Writes.
    Writes,
    /// Reads state of the connection that wrote.
    SessionReading,
    /// A keyword, not a function.
    Keyword,
    /// JSON_TABLE: pure in a FROM clause; elsewhere MariaDB calls a stored function.
    TableFunction,
    /// POINT: pure with two arguments; else MariaDB calls a stored function.
    Point,
    /// Another geometry by its parts: pure with arguments; else a stored function.
    Constructor,
}

/// Names that share a family, a first version and an effect.
struct Group {
    my_sql: u32,
    maria_db: u32,
    effect: Effect,
    names: &'static str,
}

const ALWAYS: u32 = 0;
const NEVER: u32 = u32::MAX;

const GROUPS: &[Group] = &[
    both(
        Effect::Keyword,
        "and or not xor in exists between like rlike regexp div select from where having by on \
         using join as union except all distinct distinctrow case when then else interval binary \
         index key group partition straight_join for values sql_calc_found_rows high_priority \
         decimal dec numeric varchar varbinary float double real int integer bigint smallint \
         tinyint mediumint over with",
    ),
    both(
        Effect::Pure,
        "abs acos adddate addtime aes_decrypt aes_encrypt ascii asin atan atan2 avg bin bit_and \
         bit_count bit_length bit_or bit_xor cast ceil ceiling char char_length character_length \
         charset coalesce coercibility collation compress concat concat_ws conv convert \
         convert_tz cos cot count crc32 cume_dist current_role current_user database date \
         date_add date_format date_sub datediff day dayname dayofmonth dayofweek dayofyear \
         default degrees dense_rank elt exp export_set extract extractvalue field find_in_set \
         first_value floor format from_base64 from_days from_unixtime get_format greatest \
         group_concat hex hour if ifnull inet6_aton inet6_ntoa inet_aton inet_ntoa insert instr \
         is_ipv4 is_ipv4_compat is_ipv4_mapped is_ipv6 isnull lag last_day last_value lcase lead \
         least left length ln locate log log10 log2 lower lpad ltrim make_set makedate maketime \
         match max md5 microsecond mid min minute mod month monthname name_const nth_value ntile \
         nullif oct octet_length ord percent_rank period_add period_diff pi position pow power \
         quarter quote radians rank regexp_instr regexp_replace regexp_substr repeat replace \
         reverse right round row row_number rpad rtrim schema sec_to_time second sha sha1 sha2 \
         sign sin soundex space sqrt std stddev stddev_pop stddev_samp str_to_date strcmp \
         subdate substr substring substring_index subtime sum tan time time_format time_to_sec \
         timediff timestamp timestampadd timestampdiff to_base64 to_days to_seconds trim \
         truncate ucase uncompress uncompressed_length unhex updatexml upper var_pop var_samp \
         variance week weekday weekofyear weight_string year yearweek",
    ),
    both(
        Effect::Pure,
        "json_array json_array_append json_array_insert json_arrayagg json_contains \
         json_contains_path json_depth json_extract json_insert json_keys json_length json_merge \
         json_merge_patch json_merge_preserve json_object json_objectagg json_quote json_remove \
         json_replace json_search json_set json_type json_unquote json_valid \
         json_value",
    ),
    both(
        Effect::Pure,
        "st_area st_asbinary st_asgeojson st_astext st_aswkb st_aswkt st_buffer st_centroid \
         st_contains st_convexhull st_crosses st_difference st_dimension st_disjoint st_distance \
         st_distance_sphere st_endpoint st_envelope st_equals st_exteriorring \
         st_geomcollfromtext st_geomcollfromwkb st_geometrycollectionfromtext \
         st_geometrycollectionfromwkb st_geometryfromtext st_geometryfromwkb st_geometryn \
         st_geometrytype st_geomfromgeojson st_geomfromtext st_geomfromwkb st_interiorringn \
         st_intersection st_intersects st_isclosed st_isempty st_issimple st_length \
         st_linefromtext st_linefromwkb st_linestringfromtext st_linestringfromwkb \
         st_numgeometries st_numinteriorrings st_numpoints st_overlaps st_pointfromtext \
         st_pointfromwkb st_pointn st_polyfromtext st_polyfromwkb st_polygonfromtext \
         st_polygonfromwkb st_srid st_startpoint st_symdifference st_touches st_union st_within \
         st_x st_y mbrcontains mbrdisjoint mbrequals mbrintersects mbroverlaps mbrtouches \
         mbrwithin",
    ),
    both(
        Effect::Volatile,
        "benchmark curdate current_date current_time current_timestamp curtime localtime \
         localtimestamp now rand sleep sysdate unix_timestamp utc_date utc_time utc_timestamp \
         uuid",
    ),
    both(Effect::TableFunction, "json_table"),
    both(Effect::Point, "point"),
    both(
        Effect::Constructor,
        "geometrycollection linestring multilinestring multipoint multipolygon polygon",
    ),
    both(Effect::Diagnostics, "found_rows row_count"),
    both(Effect::LastInsertId, "last_insert_id"),
    both(Effect::ConnectionId, "connection_id"),
    both(
        Effect::HostLocal,
        "load_file uuid_short user session_user system_user version master_pos_wait",
    ),
    both(Effect::TakesLock, "get_lock"),
    both(Effect::UserLock, "release_lock is_free_lock is_used_lock"),
    both(Effect::ReleasesAllLocks, "release_all_locks"),
    mysql(ALWAYS, Effect::Keyword, "lateral"),
    mysql(80_031, Effect::Keyword, "intersect"),
    maria(ALWAYS, Effect::Keyword, "intersect"),
    mysql(
        80_000,
        Effect::Pure,
        "any_value bin_to_uuid format_bytes format_pico_time grouping gtid_subset gtid_subtract \
         icu_version is_uuid json_overlaps json_pretty json_schema_valid \
         json_schema_validation_report json_storage_free json_storage_size regexp_like \
         statement_digest statement_digest_text uuid_to_bin validate_password_strength \
         geomcollection mbrcoveredby mbrcovers st_buffer_strategy st_collect st_frechetdistance \
         st_geohash st_geomcollfromtxt st_hausdorffdistance st_interiorringn st_isvalid \
         st_latfromgeohash st_latitude st_lineinterpolatepoint st_lineinterpolatepoints \
         st_longfromgeohash st_longitude st_makeenvelope st_mlinefromtext st_mlinefromwkb \
         st_mpointfromtext st_mpointfromwkb st_mpolyfromtext st_mpolyfromwkb \
         st_multilinestringfromtext st_multilinestringfromwkb st_multipointfromtext \
         st_multipointfromwkb st_multipolygonfromtext st_multipolygonfromwkb \
         st_numinteriorring st_pointatdistance st_pointfromgeohash st_simplify st_swapxy \
         st_transform st_validate",
    ),
    mysql(
        90_000,
        Effect::Pure,
        "from_vector string_to_vector to_vector vector_dim vector_to_string",
    ),
    mysql(ALWAYS, Effect::Volatile, "random_bytes"),
    mysql(
        ALWAYS,
        Effect::HostLocal,
        "ps_current_thread_id ps_thread_id roles_graphml source_pos_wait \
         wait_for_executed_gtid_set wait_until_sql_thread_after_gtids",
    ),
    maria(
        ALWAYS,
        Effect::Pure,
        "add_months area asbinary astext aswkb aswkt boundary buffer centroid chr column_add \
         column_check column_create column_delete column_exists column_get column_json \
         column_list contains convexhull crosses decode decode_histogram decode_oracle degrees \
         des_decrypt des_encrypt dimension disjoint encode encrypt endpoint envelope equals \
         exteriorring geomcollfromtext geomcollfromwkb geometrycollectionfromtext \
         geometrycollectionfromwkb geometryfromtext geometryfromwkb geometryn geometrytype \
         geomfromtext geomfromwkb glength interiorringn intersects isclosed isempty isring \
         issimple json_compact json_detailed json_exists json_loose json_query lengthb \
         linefromtext linefromwkb linestringfromtext linestringfromwkb lpad_oracle ltrim_oracle \
         mbrequal median mlinefromtext mlinefromwkb mpointfromtext mpointfromwkb mpolyfromtext \
         mpolyfromwkb multilinestringfromtext multilinestringfromwkb multipointfromtext \
         multipointfromwkb multipolygonfromtext multipolygonfromwkb numgeometries \
         numinteriorrings numpoints nvl nvl2 old_password overlaps password percentile_cont \
         percentile_disc pointfromtext pointfromwkb pointn pointonsurface polyfromtext \
         polyfromwkb polygonfromtext polygonfromwkb replace_oracle rpad_oracle rtrim_oracle \
         srid st_boundary st_isring st_pointonsurface st_relate startpoint substr_oracle to_char \
         touches trim_oracle value within x y",
    ),
    maria(100_700, Effect::Pure, "crc32c json_equals json_normalize natural_sort_key sformat"),
    maria(100_900, Effect::Pure, "json_overlaps"),
    maria(100_600, Effect::Pure, "json_pretty"),
    maria(110_000, Effect::Pure, "format_pico_time"),
    maria(110_100, Effect::Pure, "json_schema_valid"),
    maria(
        110_400,
        Effect::Pure,
        "json_array_intersect json_key_value json_object_filter_keys json_object_to_array",
    ),
    maria(
        110_700,
        Effect::Pure,
        "vec_distance_cosine vec_distance_euclidean vec_fromtext vec_totext",
    ),
    maria(110_800, Effect::Pure, "format_bytes vec_distance"),
    maria(101_000, Effect::Volatile, "random_bytes"),
    maria(100_600, Effect::Volatile, "sys_guid"),
    maria(
        ALWAYS,
        Effect::HostLocal,
        "binlog_gtid_pos master_gtid_wait wsrep_last_seen_gtid wsrep_last_written_gtid \
         wsrep_sync_wait_upto_gtid",
    ),
    maria(ALWAYS, Effect::Writes, "nextval setval"),
    maria(ALWAYS, Effect::SessionReading, "lastval"),
    // Loadable, but with known effects: they take locks of the session.
    mysql(
        ALWAYS,
        Effect::TakesLock,
        "service_get_read_locks service_get_write_locks version_tokens_lock_exclusive \
         version_tokens_lock_shared",
    ),
    mysql(ALWAYS, Effect::UserLock, "service_release_locks version_tokens_unlock"),
];

const fn both(effect: Effect, names: &'static str) -> Group {
    Group { my_sql: ALWAYS, maria_db: ALWAYS, effect, names }
}

const fn mysql(since: u32, effect: Effect, names: &'static str) -> Group {
    Group { my_sql: since, maria_db: NEVER, effect, names }
}

const fn maria(since: u32, effect: Effect, names: &'static str) -> Group {
    Group { my_sql: NEVER, maria_db: since, effect, names }
}

/// One name of a group; `length` 0 is an empty slot.
#[derive(Clone, Copy)]
struct Slot {
    key: u64,
    offset: u16,
    length: u8,
    group: u8,
}

const SLOTS: usize = 2048;

const fn slot_of(key: u64) -> usize {
    (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 53) as usize
}

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
#[expect(clippy::cast_possible_truncation, reason = "groups and names are short")]
const fn build() -> [Slot; SLOTS] {
    let mut table = [Slot { key: 0, offset: 0, length: 0, group: 0 }; SLOTS];
    let mut group = 0;
    while group < GROUPS.len() {
        let names = GROUPS[group].names.as_bytes();
        let mut start = 0;
        while start < names.len() {
            let mut end = start;
            while end < names.len() && names[end] != b' ' {
                end += 1;
            }
            if end > start {
                let (_, tail) = names.split_at(start);
                let (name, _) = tail.split_at(end - start);
                let key = key(name);
                let mut at = slot_of(key);
                while table[at].length != 0 {
                    at = (at + 1) % SLOTS;
                }
                table[at] = Slot {
                    key,
                    offset: start as u16,
                    length: (end - start) as u8,
                    group: group as u8,
                };
            }
            start = end + 1;
        }
        group += 1;
    }
    table
}

const TABLE: &[Slot; SLOTS] = &build();

/// What an unqualified, unquoted `name(` does under this dialect; `None` when it is no
/// built-in there. `name_key` is the key of `name`.
pub(crate) fn effect(name: &[u8], name_key: u64, dialect: &Dialect) -> Option<Effect> {
    let first = slot_of(name_key);
    for step in 0..SLOTS {
        let slot = TABLE.get((first + step) % SLOTS)?;
        if slot.length == 0 {
            return None;
        }
        if slot.key != name_key {
            continue;
        }
        let group = GROUPS.get(usize::from(slot.group))?;
        let start = usize::from(slot.offset);
        let own = group.names.as_bytes().get(start..start + usize::from(slot.length))?;
        let since = match dialect.flavour {
            Flavour::MySql => group.my_sql,
            Flavour::MariaDb => group.maria_db,
        };
        if since <= dialect.version && own.eq_ignore_ascii_case(name) {
            return Some(group.effect);
        }
    }
    None
}

/// Every name that a family has at a version, for tests against a live server.
pub fn names(flavour: Flavour, version: u32) -> impl Iterator<Item = (&'static str, Effect)> {
    GROUPS
        .iter()
        .filter(move |group| match flavour {
            Flavour::MySql => group.my_sql <= version,
            Flavour::MariaDb => group.maria_db <= version,
        })
        .flat_map(|group| group.names.split(' ').map(|name| (name, group.effect)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::tests::dialect;

    fn of(name: &str, flavour: Flavour) -> Option<Effect> {
        effect(name.as_bytes(), key(name.as_bytes()), &dialect(flavour))
    }

    #[test]
    fn every_name_is_found_again_under_its_family() {
        for flavour in [Flavour::MySql, Flavour::MariaDb] {
            for (name, effect) in names(flavour, dialect(flavour).version) {
                assert_eq!(of(name, flavour), Some(effect), "{name} {flavour:?}");
            }
        }
    }

    #[test]
    fn a_name_of_the_other_family_is_nobodys_built_in() {
        assert_eq!(of("nvl", Flavour::MySql), None);
        assert_eq!(of("any_value", Flavour::MariaDb), None);
        assert_eq!(of("CoUnT", Flavour::MySql), Some(Effect::Pure));
        assert_eq!(of("my_func", Flavour::MariaDb), None);
        assert_eq!(of("vec_distance", Flavour::MariaDb), None);
    }
}
