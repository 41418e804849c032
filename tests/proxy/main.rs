//! The built program on loopback in front of a scripted server: no real server is needed.

mod corpus;
mod proxy;
mod server;
