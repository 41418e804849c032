//! pointsman: a transparent proxy and keeper for MySQL and MariaDB.
//!
//! The modules, in reading order, lowest layer first (ARCHITECTURE.md is the map):
//! vocabulary ([`protocol`], [`topology`], [`config`]), decisions ([`router`], [`session`]),
//! and the shell around them.

pub mod accounts;
pub mod admin;
pub mod app;
pub mod cli;
pub mod cluster;
pub mod compression;
pub mod config;
pub mod control;
pub mod demo;
pub mod digests;
pub mod failover;
pub mod health;
pub mod metrics;
pub mod net;
pub mod protocol;
pub mod provider;
pub mod reactor;
pub mod router;
pub mod secrets;
pub mod session;
pub mod tls;
pub mod tools;
pub mod topology;
pub mod upstream;
