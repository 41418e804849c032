//! How the process ends: clients finish what they are at, as long as they may.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{App, notify, tasks};
use crate::net::worker::{Message, WorkerHandle};

/// How long others may take to be told that this pointsman leaves.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long closed clients may take to be gone.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);
/// How often clients that may stay are counted.
const GLANCE: Duration = Duration::from_millis(100);

/// Why the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It was told to.
    Told,
    /// Another process serves in its place.
    Succeeded,
}

/// What the process is told by signals.
#[derive(Debug)]
pub(super) struct Signals {
    /// Read the configuration again.
    pub(super) hangup: Signal,
    /// Let another process take over.
    pub(super) succession: Signal,
    /// End.
    pub(super) end: EndSignals,
}

/// The signals that tell a process to end.
#[derive(Debug)]
pub(super) struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from here on.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            succession: signal(SignalKind::user_defined2())?,
            end: EndSignals {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
            },
        })
    }
}

impl EndSignals {
    /// Waits for one of them.
    pub(super) async fn come(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl App {
    /// Stops accepting, lets clients finish what they are at, and closes the rest when
    /// `drain_timeout` is over, or at once when it is told to end again.
    pub(super) async fn end(self, why: End, signals: &mut EndSignals) {
        drop(self.listeners);
        self.draining.send_replace(true);
        match why {
            End::Told => notify(&[sd_notify::NotifyState::Stopping]),
            End::Succeeded => {
                self.closing.send_replace(true);
                see_off(&self.workers, self.drain_timeout, signals).await;
            }
        }
        tracing::info!(timeout = ?self.drain_timeout, "draining: no new clients");
        self.control.begin_drain();
        self.metrics.set_draining(true);
        for worker in &self.workers {
            let _ = worker.messages.send(Message::Drain).await;
        }
        let joined = tasks::join(self.threads);
        tokio::pin!(joined);
        let over = tokio::select! {
            () = &mut joined => None,
            () = tokio::time::sleep(self.drain_timeout) => Some("drain_timeout is over"),
            () = signals.come() => Some("told to end again"),
        };
        if let Some(why) = over {
            tracing::warn!(clients = clients(&self.workers), "{why}: closing the rest");
            for worker in &self.workers {
                let _ = worker.messages.send(Message::Close).await;
            }
            let _ = tokio::time::timeout(CLOSED_WITHIN, &mut joined).await;
        }
        self.closing.send_replace(true);
        self.stop.send_replace(true);
        for company in self.company {
            let _ = tokio::time::timeout(GOODBYE, company).await;
        }
        tracing::info!("bye");
    }
}

/// Another process takes new clients: those that are here may stay until they leave by themselves.
async fn see_off(workers: &[WorkerHandle], as_long_as: Duration, signals: &mut EndSignals) {
    let gone = async {
        let mut glances = tokio::time::interval(GLANCE);
        while clients(workers) > 0 {
            glances.tick().await;
        }
    };
    tokio::select! {
        () = gone => {}
        () = tokio::time::sleep(as_long_as) => {}
        () = signals.come() => {}
    }
}

fn clients(workers: &[WorkerHandle]) -> usize {
    workers.iter().map(WorkerHandle::clients).sum()
}
