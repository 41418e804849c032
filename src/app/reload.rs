//! The configuration, read again while the process runs: all of it holds, or nothing does.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::app::{App, GroupTls, notify};
use crate::cli;
use crate::config::{Config, Group};
use crate::control::ReloadRequest;
use crate::failover::keeper;
use crate::health;
use crate::metrics::Outcome;
use crate::net::group::GroupHandle;

impl App {
    /// Reads the file again and applies it, or refuses it whole.
    pub(super) async fn reload(&mut self, reply: ReloadRequest) {
        notify(&[sd_notify::NotifyState::Reloading]);
        let result = self.try_reload().await;
        match &result {
            Ok(done) => {
                self.metrics.reloaded(Outcome::Ok);
                tracing::info!("{done}");
            }
            Err(why) => {
                self.metrics.reloaded(Outcome::Failed);
                tracing::error!("the configuration was not reloaded: {why}");
            }
        }
        notify(&[sd_notify::NotifyState::Ready]);
        let _ = reply.send(result);
    }

    async fn try_reload(&mut self) -> Result<String, String> {
        let config = cli::load(&self.config_path).map_err(|error| error.to_string())?;
        let running = self.control.config();
        if config.boot != running.boot {
            return Err("console, HTTP, logs, workers or state_dir changed: these need a \
                        restart; nothing was applied"
                .to_owned());
        }
        let pairs = pair_groups(&self.groups, &running, &config)?;
        // All that can fail comes before anything is applied.
        let mut read = Vec::new();
        for (handle, group) in &pairs {
            let tls = GroupTls::read(group, &config.boot.state_dir);
            read.push(tls.map_err(|why| format!("group {}: {why}", handle.name))?);
        }
        let told = pairs.into_iter().zip(read).zip(&self.keepers);
        for (((handle, group), tls), keeper) in told {
            let monitor = config.monitor.clone();
            keeper.store(Arc::new(keeper::Settings { group: group.clone(), monitor }));
            handle.tls.store(tls.offer);
            handle.trust.store(Arc::new(tls.trust));
            let monitor = config.monitor.clone();
            let told = group.clone();
            let reloaded =
                handle.health.ask(move |reply| health::Command::Reload(told, monitor, reply)).await;
            reloaded.map_err(|why| format!("group {}: {why}", handle.name))?;
            handle.accounts.reconfigure(group.clone(), config.monitor.clone());
            handle.settings.store(group);
            // Links of before, which other rules believed, are handed on no more.
            handle.accounts_at.fetch_add(1, Ordering::Relaxed);
        }
        self.drain_timeout = config.boot.drain_timeout;
        self.control.set_config(config);
        Ok("configuration reloaded".to_owned())
    }
}

type Paired = Vec<(Arc<GroupHandle>, Arc<Group>)>;

/// The running groups with their new settings; what cannot change while they run is refused.
fn pair_groups(
    handles: &[Arc<GroupHandle>],
    running: &Config,
    next: &Config,
) -> Result<Paired, String> {
    if running.groups.len() != next.groups.len() {
        return Err(
            "groups were added or removed: that needs a restart; nothing was applied".to_owned()
        );
    }
    let mut pairs = Vec::new();
    for (handle, before) in handles.iter().zip(&running.groups) {
        let after = next.groups.iter().find(|group| group.name == before.name);
        let Some(after) = after else {
            return Err(format!(
                "group {} is gone or renamed: that needs a restart; nothing was applied",
                before.name
            ));
        };
        if after.listen != before.listen {
            return Err(format!(
                "groups.{}.listen changed: that needs a restart; nothing was applied",
                before.name
            ));
        }
        let by_locks = running.boot.cluster.as_ref().is_some_and(|cluster| cluster.locks);
        let places = |group: &Group| -> Vec<(Arc<str>, Arc<str>)> {
            let servers = group.servers.iter();
            servers.map(|server| (server.name.clone(), server.address.clone())).collect()
        };
        if by_locks && places(after) != places(before) {
            return Err(format!(
                "groups.{}.servers changed, of which a majority decides (cluster.locks): that \
                 needs a restart of all pointsman; nothing was applied",
                before.name
            ));
        }
        pairs.push((handle.clone(), after.clone()));
    }
    Ok(pairs)
}
