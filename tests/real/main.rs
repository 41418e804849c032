//! Tests against real servers: MariaDB as the system has it, MySQL from the folder that
//! `scripts/server-folder` makes.
//!
//! Where a server family is missing its tests say so and pass; under continuous integration
//! (`CI=true`) a missing family fails them.

mod administration;
mod authority;
#[path = "../chance/mod.rs"]
mod chance;
mod clients;
mod compression;
mod console;
mod daemon;
mod differential;
mod drivers;
mod failover;
mod faults;
mod freshness;
mod health;
mod logins;
mod logs;
mod memory;
mod orchestration;
mod pins;
#[allow(dead_code, reason = "it offers what the tests of the data path need")]
mod proxy;
mod raw;
mod sandbox;
mod servers;
mod settings;
mod sharing;
mod statements;
mod tls;
mod tls_servers;
mod wait;
