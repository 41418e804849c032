//! Faults of a catalogue against real servers under load: what dies, freezes, fills up, or does not
//! reach the rest any more, and what a group must be afterwards.
//!
//! Each happens once here, to one family by turns; `scripts/faults` lets each happen to both as
//! often as asked and writes down what came of it.

mod acknowledged;
#[path = "../real/authority.rs"]
#[allow(dead_code, reason = "it offers what other tests need")]
mod authority;
mod busy;
#[path = "../real/clients.rs"]
#[allow(dead_code, reason = "it offers what other tests need")]
mod clients;
mod cluster;
mod consent;
#[path = "../real/console.rs"]
mod console;
mod etcd;
mod evictions;
mod keeper;
mod kept;
mod ledger;
mod locks;
mod members;
mod minorities;
mod network;
mod partitions;
mod primaries;
mod proxies;
#[path = "../real/proxy.rs"]
#[allow(dead_code, reason = "it offers what other tests need")]
mod proxy;
mod replicas;
mod rescues;
mod scene;
#[path = "../real/servers.rs"]
#[allow(dead_code, reason = "it offers what other tests need")]
mod servers;
mod stages;
mod switchovers;
#[path = "../real/wait.rs"]
mod wait;
