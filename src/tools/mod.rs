//! Commands for a cluster that need no proxy: looking at it, and putting it together.
//!
//! A verb that changes something makes a [`plan`] first, which says what it will do and why, and
//! then carries it out step by step. Each step can be done twice without harm, and a verb whose
//! work is done finds nothing to do.
//!
//! Does not know: client sessions, how statements are routed, the insides of a running proxy.

pub mod check;
mod choose;
pub mod console;
mod discover;
pub mod edit;
mod inspect;
pub mod plan;
pub mod preflight;
pub mod promote;
pub mod rejoin;
pub mod replicate;
pub mod roster;
mod salvage;
pub mod scene;
mod seed;
pub mod tree;
