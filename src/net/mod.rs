//! The shell of the data path: sockets and tasks around [`crate::session::Session`].
//!
//! Does not know: SQL, what makes a session movable, how health judges a server, or what an
//! operator asks for. A client is accepted by [`listen`], handed to the least busy [`worker`],
//! logs in by [`entrance`], and is then driven by [`drive`] until it leaves.

mod barred;
mod copy;
pub mod drive;
pub mod entrance;
mod first_link;
pub mod group;
mod hangup;
mod kill;
mod life;
mod link;
pub mod listen;
mod obtain;
mod pool;
mod report;
mod seat;
mod transport;
mod verdict;
pub mod worker;
