//! Every metric family by name, with its help text and labels. docs/operating.md lists them too.

use prometheus::Opts;

/// One family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// Its full name.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// Names of its labels, in the order in which values are given.
    pub labels: &'static [&'static str],
}

/// What kind of number a family holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bounds.
    Histogram,
}

impl Family {
    /// Name and help in the form that the prometheus crate takes.
    #[must_use]
    pub fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }
}

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family { name, help, kind: Kind::Counter, labels }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, help, kind: Kind::Gauge, labels }
}

/// Declares the families and the list of them all in one go, so that none can be forgotten.
macro_rules! families {
    ($($id:ident = $family:expr;)*) => {
        $(#[doc = "See its help text."] pub const $id: Family = $family;)*
        /// Every family.
        pub const ALL: &[Family] = &[$($id),*];
    };
}

families! {
    QUERIES = counter("pointsman_queries_total", &["group", "server", "class"],
        "Commands answered by a server.");
    QUERY_DURATION = Family {
        name: "pointsman_query_duration_seconds",
        help: "Time from a command's last byte to the end of its answer, holds and waits included.",
        kind: Kind::Histogram,
        labels: &["group", "server", "class"],
    };
    ROUTES = counter("pointsman_route_total", &["group", "reason"],
        "Routing decisions by reason.");
    CLIENTS = gauge("pointsman_client_connections", &["group"],
        "Clients connected now.");
    CLIENTS_TOTAL = counter("pointsman_client_connections_total", &["group"],
        "Client connections accepted.");
    CLIENT_ERRORS = counter("pointsman_client_connection_errors_total", &["group", "kind"],
        "Client connections that ended other than by the client's wish.");
    LOGINS_FAILED = counter("pointsman_logins_failed_total", &["group"],
        "Logins refused: unknown account, wrong password, host not allowed.");
    LINKS = gauge("pointsman_server_links", &["group", "server"],
        "Open connections to a server.");
    LINKS_IDLE = gauge("pointsman_server_links_idle", &["group", "server"],
        "Open connections to a server that no session holds.");
    LINKS_TAKEN = counter("pointsman_links_taken_total", &["group", "server", "how"],
        "Links that sessions got: their own again, another session's (reset), a new one.");
    LINK_WAITS = counter("pointsman_link_waits_total", &["group", "server", "outcome"],
        "Requests that queued for a link to a server, by how the wait ended.");
    LINK_WAIT_SECONDS = counter("pointsman_link_wait_seconds_total", &["group", "server"],
        "Time that requests queued for a link to a server.");
    LINK_ERRORS = counter("pointsman_server_link_errors_total", &["group", "server", "kind"],
        "Connections to a server that failed or were lost.");
    RETRIES = counter("pointsman_retries_total", &["group", "kind"],
        "Commands sent again where the client noticed nothing.");
    TRANSACTION_REPLAYS = counter("pointsman_transaction_replays_total", &["group", "outcome"],
        "Open transactions that were done again on another primary.");
    LOST_COMMITS = counter("pointsman_lost_commits_total", &["group", "outcome"],
        "Commits whose answer was lost with their server, by what had become of them.");
    HOLDS = counter("pointsman_holds_total", &["group", "outcome"],
        "Requests that waited for a primary, by how the wait ended.");
    HOLD_SECONDS = counter("pointsman_hold_seconds_total", &["group"],
        "Time that requests spent waiting for a primary.");
    PINS = gauge("pointsman_pins", &["group", "cause"],
        "Sessions that may not move to another server, by cause.");
    REPLICA_WAITS = counter("pointsman_replica_waits_total", &["group", "outcome"],
        "Waits for a replica to apply what the session has written, by how they ended.");
    BYTES = counter("pointsman_bytes_total", &["group", "direction"],
        "Bytes of the MySQL protocol that passed.");
    ERRORS = counter("pointsman_errors_total", &["group", "server", "class"],
        "Errors that servers answered, by what they mean.");
    SERVER_ROLE = gauge("pointsman_server_role", &["group", "server", "role"],
        "1 for the role that a server has, 0 for the others.");
    SERVER_CONDITION = gauge("pointsman_server_condition", &["group", "server", "condition"],
        "1 for the condition that a server is in, 0 for the others.");
    SERVER_TRANSPORT = gauge("pointsman_server_transport", &["group", "server", "transport"],
        "1 for what lies between pointsman and a server, 0 for the others: clear, unverified, \
         verified.");
    SERVER_LAG = gauge("pointsman_server_lag_seconds", &["group", "server"],
        "How far a replica is behind; absent while that is not known.");
    SERVER_WEIGHT = gauge("pointsman_server_weight", &["group", "server"],
        "Share of reads relative to the siblings.");
    SERVER_APPLYING = gauge("pointsman_server_applying", &["group", "server"],
        "1 while a server's applier runs without an error.");
    TOPOLOGY_GENERATION = gauge("pointsman_topology_generation", &["group"],
        "Grows with every change of roles, conditions, weights or members.");
    TOPOLOGY_HAS_PRIMARY = gauge("pointsman_topology_has_primary", &["group"],
        "1 while the group has a primary.");
    KEEPER_MODE = gauge("pointsman_keeper_mode", &["group", "mode"],
        "1 for how the group is kept, 0 for the others: follow, manual, auto.");
    KEEPER_STANDING = gauge("pointsman_keeper_standing", &["group", "standing"],
        "1 for what may be promised of a failover, as its keeper saw it last, 0 for the others: \
         safe, degraded, unmanaged.");
    KEEPER_EPOCH = gauge("pointsman_keeper_epoch", &["group"],
        "Grows with every primary; 0 while none is known or the group is not kept.");
    KEEPER_MAINTENANCE = gauge("pointsman_keeper_maintenance", &["group"],
        "1 while an operator works on the group: no failover by itself, nothing is set up.");
    FAILOVERS = counter("pointsman_failovers_total", &["group", "outcome"],
        "Failovers that the keeper began, by how they ended.");
    SWITCHOVERS = counter("pointsman_switchovers_total", &["group", "outcome"],
        "Switchovers that operators ordered, by how they ended.");
    LAST_FAILOVER = gauge("pointsman_last_failover_time_seconds", &["group"],
        "When the last failover was over, seconds since 1970; absent where there was none.");
    CLUSTER_LEADER = gauge("pointsman_cluster_leader", &["group"],
        "1 while this pointsman is the one of several that keeps the group, else 0.");
    CLUSTER_LEASE = gauge("pointsman_cluster_lease_seconds", &["group"],
        "How much longer statements may be sent to the primary, where several pointsman agree.");
    KEEPER_HELD = counter("pointsman_keeper_held_seconds_total", &["group"],
        "Time in which nobody could write by the keeper's word.");
    BUILD_INFO = gauge("pointsman_build_info", &["version"],
        "1; the version is in the label.");
    CONFIG_RELOADS = counter("pointsman_config_reloads_total", &["outcome"],
        "Reloads of the configuration.");
    DRAINING = gauge("pointsman_draining", &[],
        "1 while the process finishes running work and takes nothing new.");
    CONSOLE_COMMANDS = counter("pointsman_console_commands_total", &["outcome"],
        "Commands given at the console.");
    CONSOLE_LOGINS = counter("pointsman_console_logins_failed_total", &[],
        "Logins refused at the console.");
    PROCESS_MEMORY = gauge("process_resident_memory_bytes", &[],
        "Resident memory.");
    PROCESS_CPU = counter("process_cpu_seconds_total", &[],
        "CPU time of user and system.");
    PROCESS_FDS = gauge("process_open_fds", &[],
        "Open file descriptors.");
    PROCESS_MAX_FDS = gauge("process_max_fds", &[],
        "Most file descriptors that may be open.");
    PROCESS_THREADS = gauge("process_threads", &[],
        "Threads.");
    PROCESS_START = gauge("process_start_time_seconds", &[],
        "When the process started, seconds since 1970.");
}
