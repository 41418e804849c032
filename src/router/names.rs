//! Names of system variables and tables that do not mean the same on every server.

/// The name inside of quotes, or the name itself.
pub(crate) fn unquoted(name: &[u8]) -> &[u8] {
    match name {
        [b'`', inside @ .., b'`'] | [b'"', inside @ .., b'"'] => inside,
        _ => name,
    }
}

fn is_one_of(name: &[u8], list: &[&str]) -> bool {
    list.iter().any(|entry| entry.as_bytes().eq_ignore_ascii_case(name))
}

fn has_prefix(name: &[u8], list: &[&str]) -> bool {
    list.iter().any(|prefix| {
        name.get(..prefix.len()).is_some_and(|p| p.eq_ignore_ascii_case(prefix.as_bytes()))
    })
}

/// Schemas whose contents belong to one host. A session whose default schema is one of these
/// reads on the primary, since its unqualified names are of one host as well.
#[must_use]
pub fn is_host_local_schema(name: &[u8]) -> bool {
    is_one_of(name, &["mysql", "sys", "performance_schema", "information_schema"])
}

/// Tables of information_schema that say the same on every server that has caught up.
pub(crate) fn is_shared_information_schema_table(name: &[u8]) -> bool {
    is_one_of(
        name,
        &[
            "tables",
            "columns",
            "statistics",
            "schemata",
            "key_column_usage",
            "table_constraints",
            "referential_constraints",
            "check_constraints",
            "views",
            "routines",
            "parameters",
            "triggers",
            "partitions",
            "character_sets",
            "collations",
            "collation_character_set_applicability",
            "engines",
            "keywords",
            "sql_functions",
            "column_privileges",
            "table_privileges",
            "schema_privileges",
            "user_privileges",
            "view_table_usage",
            "view_routine_usage",
            "column_statistics",
            "st_geometry_columns",
            "st_spatial_reference_systems",
            "st_units_of_measure",
            "applicable_roles",
            "enabled_roles",
            "administrable_role_authorizations",
            "role_table_grants",
            "role_column_grants",
            "role_routine_grants",
            "tables_extensions",
            "columns_extensions",
            "schemata_extensions",
            "table_constraints_extensions",
            "geometry_columns",
            "spatial_ref_sys",
            "periods",
            "key_period_usage",
        ],
    )
}

/// Whether a pattern of SHOW STATUS is about one connection or the server at large, so that
/// what the session has done on other servers changes nothing.
pub(crate) fn is_plain_status(pattern: &[u8]) -> bool {
    has_prefix(
        pattern,
        &[
            "aborted",
            "compression",
            "connections",
            "current_tls",
            "innodb",
            "max_used",
            "rpl",
            "slave",
            "ssl",
            "threads",
            "tls",
            "uptime",
            "wsrep",
        ],
    )
}

/// Whether a pattern of SHOW STATUS is about the query cache, which counts reads.
pub(crate) fn is_query_cache_status(pattern: &[u8]) -> bool {
    has_prefix(pattern, &["qcache"])
}

/// Session variables that every link of a session has alike. Without `session.` in front
/// only those of the list count, since a global variable can be read that way too.
pub(crate) fn is_session_variable(name: &[u8], scoped: bool) -> bool {
    if is_host_local_variable(name) {
        return false;
    }
    scoped
        || has_prefix(name, &["character_set_c", "character_set_r", "collation_c", "lc_", "sql_"])
        || is_one_of(
            name,
            &[
                "autocommit",
                "time_zone",
                "tx_isolation",
                "transaction_isolation",
                "foreign_key_checks",
                "unique_checks",
                "group_concat_max_len",
                "max_execution_time",
                "max_statement_time",
                "div_precision_increment",
                "timestamp",
                "in_transaction",
                "optimizer_switch",
                "query_cache_type",
                "default_week_format",
                "max_sort_length",
                "block_encryption_mode",
                "storage_engine",
                "default_storage_engine",
                "completion_type",
            ],
        )
}

/// Variables whose value is a property of one host or of one connection.
fn is_host_local_variable(name: &[u8]) -> bool {
    has_prefix(
        name,
        &[
            "gtid",
            "server_",
            "innodb_",
            "performance_schema",
            "rpl_",
            "slave_",
            "replica_",
            "relay_",
            "log_bin",
            "report_",
            "wsrep_",
            "version",
            "group_replication",
            "super_read_only",
            "sql_log_bin",
            "sql_slave",
            "sql_replica",
            "ssl_",
            "tls_",
            "pseudo_",
            "rand_seed",
            "thread_",
            "binlog_",
            "session_track_",
        ],
    ) || is_one_of(
        name,
        &[
            "hostname",
            "port",
            "socket",
            "read_only",
            "transaction_read_only",
            "tx_read_only",
            "last_gtid",
            "insert_id",
            "datadir",
            "basedir",
            "tmpdir",
            "pid_file",
            "plugin_dir",
            "statement_id",
            "proxy_user",
            "external_user",
            "skip_replication",
            "last_commit_time",
            "resource_group",
        ],
    )
}

/// Variables that only replay of a binary log sets: one-shot values, or writes that leave no
/// trace for the replicas.
pub(crate) fn is_replay_variable(name: &[u8]) -> bool {
    has_prefix(name, &["pseudo_"])
        || is_one_of(
            name,
            &[
                "timestamp",
                "insert_id",
                "last_insert_id",
                "identity",
                "rand_seed1",
                "rand_seed2",
                "gtid_next",
                "gtid_domain_id",
                "gtid_seq_no",
                "server_id",
                "sql_log_bin",
                "skip_replication",
                "original_commit_timestamp",
                "original_server_version",
                "immediate_server_version",
            ],
        )
}

/// Variables whose assignment without a scope concerns the next transaction only.
pub(crate) fn is_next_transaction_variable(name: &[u8]) -> bool {
    is_one_of(
        name,
        &["tx_isolation", "tx_read_only", "transaction_isolation", "transaction_read_only"],
    )
}

/// Variables whose change may alter who is primary, or what replicates.
pub(crate) fn is_topology_variable(name: &[u8]) -> bool {
    has_prefix(name, &["group_replication", "rpl_semi_sync", "wsrep_"])
        || is_one_of(
            name,
            &[
                "read_only",
                "super_read_only",
                "offline_mode",
                "gtid_slave_pos",
                "gtid_purged",
                "server_id",
            ],
        )
}
