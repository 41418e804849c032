//! How links to a group's servers are shared, bounded and compressed.

use std::time::Duration;

use super::{DAY, Reader, SECOND};
use crate::config::outcome::CommitOutcome;
use crate::config::raw::{self, Scalar};
use crate::config::{Links, ServerCompression};

impl Reader<'_> {
    /// How links to the group's servers are compressed.
    pub(super) fn server_compression(&mut self, name: &str, raw: &raw::Group) -> ServerCompression {
        let key = format!("groups.{name}.server_compression");
        let words = [ServerCompression::Off, ServerCompression::Zlib, ServerCompression::Zstd]
            .map(|method| (method.word(), method));
        self.word(&key, raw.server_compression.as_ref(), &words)
    }

    /// Whether lost commits are told their outcome.
    pub(super) fn commit_outcome(&mut self, name: &str, raw: &raw::Group) -> CommitOutcome {
        let key = format!("groups.{name}.commit_outcome");
        let words = CommitOutcome::ALL.map(|outcome| (outcome.word(), outcome));
        self.word(&key, raw.commit_outcome.as_ref(), &words)
    }

    /// How links to the group's servers are shared and bounded.
    pub(super) fn links(&mut self, name: &str, raw: &raw::Group) -> Links {
        let at = |key: &str| format!("groups.{name}.{key}");
        let usual = Links::default();
        let mut time = |key: &str, value: &Option<Scalar>, low: Duration, default: Duration| {
            self.duration(&at(key), value.as_ref(), low..=DAY, default)
        };
        let idle_release =
            time("idle_release", &raw.idle_release, Duration::ZERO, usual.idle_release);
        let queue_timeout =
            time("queue_timeout", &raw.queue_timeout, Duration::ZERO, usual.queue_timeout);
        let idle_timeout =
            time("link_idle_timeout", &raw.link_idle_timeout, SECOND, usual.idle_timeout);
        let max_age = time("link_max_age", &raw.link_max_age, SECOND, usual.max_age);
        let mut count = |key: &str, value: &Option<Scalar>, default: u32| {
            self.count(&at(key), value.as_ref(), 0..=100_000, default)
        };
        let max_per_server = count("max_server_links", &raw.max_server_links, usual.max_per_server);
        let max_per_user = count("max_user_links", &raw.max_user_links, usual.max_per_user);
        let keep = count("keep_links", &raw.keep_links, usual.keep);
        let multiplexing = match raw.multiplexing.as_ref() {
            Some(value) => self.flag(&at("multiplexing"), Some(value)),
            None => usual.multiplexing,
        };
        Links {
            multiplexing,
            idle_release,
            max_per_server,
            max_per_user,
            queue_timeout,
            idle_timeout,
            max_age,
            keep,
        }
    }
}
