//! Where a keeper sits while it looks and acts, so that another process that is to keep its group
//! knows when it does neither.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

/// The chair of one keeper.
#[derive(Debug, Clone, Default)]
pub struct Chair(Arc<Mutex<u64>>);

/// A chair that its keeper has left, and takes again when this is dropped.
#[derive(Debug)]
pub struct Left {
    _guard: Seat,
}

/// The keeper sits; the number rises with each time that it had to leave.
pub(super) type Seat = OwnedMutexGuard<u64>;

impl Chair {
    /// Has the keeper leave it when what it is doing has come to an end.
    pub async fn leave(&self) -> Left {
        let mut guard = self.sit().await;
        *guard += 1;
        Left { _guard: guard }
    }

    pub(super) async fn sit(&self) -> Seat {
        self.0.clone().lock_owned().await
    }
}
