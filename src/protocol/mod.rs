//! The MySQL client/server protocol as values and pure machines.
