//! How servers are observed, and by which account.

use std::time::Duration;

use super::{Reader, SECOND};
use crate::config::units::Secret;
use crate::config::{Monitor, raw};

impl Reader<'_> {
    pub(super) fn monitor(&mut self, raw: &raw::Monitor) -> Monitor {
        let user = match &raw.user {
            Some(_) => self.text("monitor.user", raw.user.as_ref(), ""),
            None => {
                let allowed = "the name of the account that probes the servers";
                self.refuse("monitor.user", "nothing", allowed);
                String::new()
            }
        };
        let password = (raw.password.as_ref(), raw.password_file.as_ref());
        let password = self.password("monitor.password", password).unwrap_or_else(|| {
            if raw.password.is_none() && raw.password_file.is_none() {
                let allowed = "the account's password, or password_file = \"PATH\"";
                self.refuse("monitor.password", "nothing", allowed);
            }
            Secret::new(String::new())
        });
        let millis = Duration::from_millis;
        let usual = Monitor::default();
        Monitor {
            user,
            password,
            interval: self.duration(
                "monitor.interval",
                raw.interval.as_ref(),
                millis(50)..=60 * SECOND,
                usual.interval,
            ),
            timeout: self.duration(
                "monitor.timeout",
                raw.timeout.as_ref(),
                millis(50)..=60 * SECOND,
                usual.timeout,
            ),
            fall: self.count("monitor.fall", raw.fall.as_ref(), 1..=100, usual.fall),
            rise: self.count("monitor.rise", raw.rise.as_ref(), 1..=100, usual.rise),
        }
    }
}
