//! The composition root: every shared part is built here once and handed to those that need it.

pub mod tasks;
