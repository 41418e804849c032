//! A group as it is found now, and acting on its servers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{Instant, interval};

use crate::config::failover::ReplicationAccount;
use crate::config::{Config, Group, Monitor, RoleHint, Server, address};
use crate::failover::ackers::Accounts;
use crate::failover::execute::{self, MayAct};
use crate::failover::keeper;
use crate::failover::order::Order;
use crate::failover::report::{Report, Told, told_by};
use crate::failover::survey::{PATIENCE, survey};
use crate::health::connect::open;
use crate::health::observation::Failure;
use crate::secrets;
use crate::tls::trust::Trust;
use crate::tools::console::Console;
use crate::tools::discover::discover;
use crate::tools::plan::{Act, VerbError};
use crate::tools::salvage::{self, Salvage};
use crate::tools::seed::{self, Seeding};
use crate::topology::gtid::GtidSet;
use crate::topology::{Condition, Node, NodeId, Promotion, Role, Topology};

/// How long a new replica may take until it follows and has caught up.
const FOLLOWING: Duration = Duration::from_secs(120);
/// How often that is looked at.
const GLANCE: Duration = Duration::from_millis(200);

/// What to look at, and as whom.
#[derive(Debug, Clone, Default)]
pub struct Look<'a> {
    /// The group; may be left out where there is one.
    pub group: Option<&'a str>,
    /// Who asks and orders in place of the monitor's account.
    pub account: Option<ReplicationAccount>,
    /// A server that is not to be the primary, in the group or new to it: `NAME`, `ADDRESS` or
    /// `NAME=ADDRESS`.
    pub guest: Option<&'a str>,
}

/// A group as it was found.
#[derive(Debug)]
pub struct Scene {
    /// Its configuration.
    pub group: Arc<Group>,
    /// Who asks and orders.
    pub account: Monitor,
    /// By which servers are believed.
    pub trust: Arc<Trust>,
    /// Its servers, the guest among them.
    pub topology: Topology,
    /// What they told.
    pub reports: Vec<Report>,
    /// The proxy that may run in front of it.
    pub console: Console,
    pub(super) state_dir: PathBuf,
}

/// A server and what it told.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Where it is.
    pub node: &'a Node,
    /// What it told.
    pub told: &'a Told,
}

// === impls ===

/// The group of this name, or the only one.
///
/// # Errors
/// When there is no such group, or several and none is named.
pub fn one_group<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Arc<Group>, VerbError> {
    match (name, config.groups.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(VerbError::Usage("there are several groups: name one".to_owned())),
        (Some(name), groups) => {
            groups.iter().find(|group| &*group.name == name).ok_or_else(|| no_group(name))
        }
    }
}

/// The configuration has no such group.
#[must_use]
pub fn no_group(name: &str) -> VerbError {
    VerbError::Usage(format!("the configuration has no group {name:?}"))
}

/// Reads `NAME`, `ADDRESS` or `NAME=ADDRESS`: name and address, each where it was given.
///
/// # Errors
/// When the address is none.
pub fn name_and_address(text: &str) -> Result<(Option<&str>, Option<&str>), VerbError> {
    let (name, address) = match text.split_once('=') {
        Some((name, address)) => (Some(name), Some(address)),
        None if address::is_server(text) => (None, Some(text)),
        None => (Some(text), None),
    };
    if let Some(wrong) = address.filter(|address| !address::is_server(address)) {
        let form = address::SERVER_FORM;
        return Err(VerbError::Usage(format!("{wrong:?} is no server's address: {form}")));
    }
    Ok((name, address))
}

impl Scene {
    /// Finds the servers of a group and asks each of them. None is changed.
    ///
    /// # Errors
    /// When group or guest are not known.
    pub async fn look(config: &Config, look: &Look<'_>) -> Result<Self, VerbError> {
        let mut group = Group::clone(one_group(config, look.group)?);
        let guest = look.guest.map(|text| guest(&mut group, text)).transpose()?;
        let account = match &look.account {
            Some(ReplicationAccount { user, password }) => {
                Monitor { user: user.clone(), password: password.clone(), ..config.monitor.clone() }
            }
            None => config.monitor.clone(),
        };
        let group = Arc::new(group);
        let trust = Arc::new(ArcSwap::from_pointee(Trust::new(&group.server_tls)?));
        let mut topology = Topology::clone(&*discover(&group, &account, &trust).await);
        if let Some((name, Some(address))) = guest {
            let known = topology.nodes.iter().any(|node| node.address == address);
            if !known {
                topology.nodes.push(unseen(topology.nodes.len(), name, address));
            }
        }
        let trust = trust.load_full();
        let reports = survey(&topology, &account, &trust, &|_| Some(PATIENCE)).await;
        let state_dir = config.boot.state_dir.clone();
        let console = Console::of(&config.boot);
        Ok(Self { group, account, trust, topology, reports, console, state_dir })
    }

    /// The server of this name or address.
    ///
    /// # Errors
    /// When there is none, or it does not answer.
    pub fn member(&self, text: &str) -> Result<Member<'_>, VerbError> {
        let (name, address) = name_and_address(text)?;
        let is_it = |node: &&Node| match address {
            Some(address) => *node.address == *address,
            None => Some(&*node.name) == name,
        };
        let node = self.topology.nodes.iter().find(is_it).ok_or_else(|| {
            let group = &self.group.name;
            VerbError::Usage(format!(
                "group {group} has no server {text:?}: name one of it, or its address"
            ))
        })?;
        self.asked(node)
    }

    /// The server that takes the writes, or the one that `from` says others are to follow.
    ///
    /// # Errors
    /// When nobody does, or it does not answer.
    pub fn source(&self, from: Option<&str>) -> Result<Member<'_>, VerbError> {
        match (from, self.topology.primary_node()) {
            (Some(from), _) => self.member(from),
            (None, Some(primary)) => self.asked(primary),
            (None, None) => {
                let (group, why) = (&self.group.name, &self.topology.no_primary_why);
                Err(VerbError::Refused(format!(
                    "group {group} has no primary: {why}; --from names the server to start from"
                )))
            }
        }
    }

    fn asked<'a>(&'a self, node: &'a Node) -> Result<Member<'a>, VerbError> {
        let report = self.reports.iter().find(|report| report.node == node.id);
        match report.map(|report| &report.told) {
            Some(Ok(told)) => Ok(Member { node, told }),
            Some(Err(why)) => Err(VerbError::Refused(format!(
                "{} does not let {} in: {why}",
                node.name, self.account.user
            ))),
            None => Err(VerbError::Refused(format!("{} was not asked", node.name))),
        }
    }

    /// The accounts by which servers of this group replicate: the operator's, or those that the
    /// keeper makes, whose password is made where there is none yet.
    ///
    /// # Errors
    /// When the password cannot be read or kept.
    pub fn accounts(&self) -> Result<Accounts, VerbError> {
        if let Some(stated) = &self.group.failover.replication {
            return Ok(Accounts::Shared(stated.clone()));
        }
        let file = keeper::password_file(&self.group.name);
        let password = secrets::load(&self.state_dir, &file);
        let password = password.map_err(|error| VerbError::Refused(error.to_string()))?;
        Ok(Accounts::OwnEach(password))
    }

    /// Does one thing of a plan; what came of it, in words.
    ///
    /// # Errors
    /// When it was not done.
    pub async fn act(&self, act: &Act) -> Result<String, VerbError> {
        match act {
            Act::Tell(order) => self.tell(order.clone()).await,
            Act::Save(salvage) => self.save(salvage).await,
            Act::Seed(seeding) => self.seed(seeding).await,
            Act::Await { replica, source } => self.wait_following(*replica, *source).await,
            Act::Console(_) | Act::Write(..) => self.console.act(act).await,
        }
    }

    async fn tell(&self, order: Order) -> Result<String, VerbError> {
        let orders = vec![order];
        let (topology, reports) = (&self.topology, &self.reports);
        let may_act: MayAct = Arc::new(|| true);
        let failed =
            execute::perform(orders, topology, reports, &self.account, &self.trust, &may_act);
        match failed.await.into_iter().next() {
            Some(failed) => Err(VerbError::Failed(failed.why)),
            None => Ok("done".to_owned()),
        }
    }

    /// Writes what only one server has to a file.
    async fn save(&self, salvage: &Salvage) -> Result<String, VerbError> {
        let failed = |why: Failure| VerbError::Failed(format!("{}: {why}", salvage.from));
        let mut server = open(&salvage.from, &self.account, &self.trust).await.map_err(failed)?;
        let logs = server.ask("SHOW BINARY LOGS").await.map_err(failed)?;
        let first = logs.first().and_then(|row| row.text(0)).unwrap_or_default();
        salvage::save(salvage, first, &self.state_dir).await
    }

    /// Copies data to a server that has none and follows nobody, and looks whether that is still so
    /// afterwards: what it would have received from somewhere else is no part of the copy.
    async fn seed(&self, seeding: &Seeding) -> Result<String, VerbError> {
        let only = |node: &Node| (node.id == seeding.replica).then_some(PATIENCE);
        let told = async || {
            let reports = survey(&self.topology, &self.account, &self.trust, &only).await;
            told_by(&reports, seeding.replica).cloned().ok_or_else(|| {
                VerbError::Failed(format!("{} does not answer any more", seeding.to))
            })
        };
        let before = told().await?;
        if !before.executed.is_empty() || !before.sources.is_empty() {
            let (to, has) = (&seeding.to, &before.executed);
            let why = format!("{to} is not empty any more: it has {has}; nothing was copied");
            return Err(VerbError::Failed(why));
        }
        let done = seed::seed(seeding, &self.state_dir).await?;
        if !told().await?.sources.is_empty() {
            let to = &seeding.to;
            return Err(VerbError::Failed(format!(
                "somebody else has made {to} replicate while it was given its data: run this \
                 again with --overwrite"
            )));
        }
        Ok(done)
    }

    /// Waits until a server follows another one and has applied what that had at first.
    async fn wait_following(&self, replica: NodeId, source: NodeId) -> Result<String, VerbError> {
        let (node, name) = match (self.topology.node(source), self.topology.node(replica)) {
            (Some(node), Some(replica)) => (node, &replica.name),
            _ => return Err(VerbError::Failed("a server has gone".to_owned())),
        };
        let asked = |node: &Node| [replica, source].contains(&node.id).then_some(PATIENCE);
        let until = Instant::now() + FOLLOWING;
        let mut glances = interval(GLANCE);
        let (mut wanted, mut last) = (None::<GtidSet>, "it did not answer".to_owned());
        while Instant::now() < until {
            glances.tick().await;
            let reports = survey(&self.topology, &self.account, &self.trust, &asked).await;
            let (Some(head), Some(told)) = (told_by(&reports, source), told_by(&reports, replica))
            else {
                continue;
            };
            let wanted = wanted.get_or_insert_with(|| head.executed.clone());
            let follows = told.link_to(node, Some(head));
            last = match follows {
                None => format!("it does not follow {}", node.name),
                Some(at) if at.applier_failed => {
                    return Err(VerbError::Failed(format!("{name} cannot apply: {}", at.error)));
                }
                Some(at) if !at.receiving || !at.applying => {
                    format!("it is not connected: {}", at.error)
                }
                Some(_) if !told.executed.contains(wanted) => {
                    format!("it lacks {}", wanted.subtract(&told.executed))
                }
                Some(_) => return Ok(format!("it follows, and has {}", told.executed)),
            };
        }
        let seconds = FOLLOWING.as_secs();
        Err(VerbError::Failed(format!("waited {seconds} s in vain for {name}: {last}")))
    }
}

/// Keeps the guest from being taken for the primary; its name, and its address where it is known.
fn guest(group: &mut Group, text: &str) -> Result<(Arc<str>, Option<Arc<str>>), VerbError> {
    let (name, address) = name_and_address(text)?;
    let is_it = |server: &&mut Server| match address {
        Some(address) => *server.address == *address,
        None => Some(&*server.name) == name,
    };
    if let Some(listed) = group.servers.iter_mut().find(is_it) {
        listed.role = RoleHint::Replica;
        return Ok((listed.name.clone(), Some(listed.address.clone())));
    }
    let shown: Arc<str> = Arc::from(name.or(address).unwrap_or_default());
    let address = address.map(Arc::<str>::from);
    match &address {
        Some(address) if !group.servers.is_empty() => group.servers.push(Server {
            address: address.clone(),
            name: shown.clone(),
            weight: 0,
            role: RoleHint::Replica,
        }),
        _ => {}
    }
    Ok((shown, address))
}

/// A server of which nothing is known yet.
fn unseen(index: usize, name: Arc<str>, address: Arc<str>) -> Node {
    Node {
        id: NodeId(u16::try_from(index).unwrap_or(u16::MAX)),
        name,
        address,
        role: Role::Unknown,
        condition: Condition::Suspect,
        weight: 0,
        lag: None,
        promotion: Promotion::Usual,
        applying: false,
        alike: true,
        read_only: false,
        applied: GtidSet::default(),
        observed_at: None,
        started: None,
        probed: false,
        facts: None,
        leaving: false,
        trouble: String::new(),
    }
}
