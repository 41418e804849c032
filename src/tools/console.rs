//! The console of a proxy that runs by the same configuration.

use std::time::Duration;

use tokio::time::timeout;

use crate::admin::password;
use crate::config::tls::{ServerTls, ServerTlsMode};
use crate::config::units::Secret;
use crate::config::{Boot, Monitor};
use crate::health::connect::{Connection, open};
use crate::protocol::answer::Answer;
use crate::secrets;
use crate::tls::trust::Trust;
use crate::tools::edit;
use crate::tools::plan::{Act, VerbError};

/// How long a command may take; a change of the primary takes longest.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the console may take to let us in.
const LOGIN: Duration = Duration::from_secs(3);

/// Where the console is, and how to log in there.
#[derive(Debug, Clone)]
pub struct Console {
    /// Its address; `None` where the configuration has none.
    address: Option<String>,
    user: String,
    /// Its password, or why it is not known.
    password: Result<Secret, String>,
}

/// How a server stands, as the running proxy shows it.
#[derive(Debug)]
pub(super) struct Shown {
    /// Its name.
    pub(super) server: String,
    /// Where it listens.
    pub(super) address: String,
    /// `primary`, `replica` or `unknown`.
    pub(super) role: String,
    /// `up`, `down` and others.
    pub(super) condition: String,
}

// === impls ===

impl Console {
    /// The console of this configuration. A password that was not made yet is not made now: then no
    /// proxy has been started by it.
    #[must_use]
    pub fn of(boot: &Boot) -> Self {
        let password = match &boot.admin_password {
            Some(password) => Ok(password.clone()),
            None => secrets::read(&boot.state_dir.join(password::FILE_NAME))
                .map_err(|error| error.to_string()),
        };
        let address = boot.admin.as_ref().map(ToString::to_string);
        Self { address, user: boot.admin_user.clone(), password }
    }

    /// Whether a proxy runs and lets us in.
    pub async fn answers(&self) -> bool {
        self.log_in().await.is_ok()
    }

    /// Has a command carried out; the first value of its answer.
    ///
    /// # Errors
    /// When no proxy answers, or it refuses.
    pub async fn run(&self, command: &str) -> Result<String, VerbError> {
        let answer = self.ask(command).await?;
        let row = answer.first().and_then(|row| row.text(0));
        Ok(row.unwrap_or_else(|| "done".to_owned()))
    }

    /// Does one thing of a plan that concerns no server.
    ///
    /// # Errors
    /// When it was not done.
    pub async fn act(&self, act: &Act) -> Result<String, VerbError> {
        match act {
            Act::Console(command) => self.run(command).await,
            Act::Write(path, text) => edit::write(path, text).await,
            Act::Tell(_) | Act::Save(_) | Act::Seed(_) | Act::Await { .. } => {
                Err(VerbError::Failed("no server is known here".to_owned()))
            }
        }
    }

    /// Asks one question.
    ///
    /// # Errors
    /// When no proxy answers, or it refuses.
    pub async fn ask(&self, command: &str) -> Result<Answer, VerbError> {
        let mut console = self.log_in().await.map_err(VerbError::Refused)?;
        let answer = timeout(PATIENCE, console.ask(command)).await.map_err(|_| {
            let seconds = PATIENCE.as_secs();
            VerbError::Failed(format!("the console did not answer {command} in {seconds} s"))
        })?;
        answer.map_err(|failure| {
            let said = format!("the running pointsman says to {command}: {failure}");
            match failure.errno {
                // It has refused; otherwise nobody knows.
                Some(_) => VerbError::Refused(said),
                None => VerbError::Failed(said),
            }
        })
    }

    /// The servers of a group as the running proxy sees them.
    ///
    /// # Errors
    /// When no proxy answers.
    pub(super) async fn servers(&self, group: &str) -> Result<Vec<Shown>, VerbError> {
        let answer = self.ask("SHOW SERVERS").await?;
        let of_group = answer.rows().filter(|row| row.named(&["group"]).as_deref() == Some(group));
        let read = of_group.map(|row| {
            let text = |name| row.named(&[name]).unwrap_or_default();
            Shown {
                server: text("server"),
                address: text("address"),
                role: text("role"),
                condition: text("condition"),
            }
        });
        Ok(read.collect())
    }

    async fn log_in(&self) -> Result<Connection, String> {
        let advice = "start `pointsman serve` with this configuration, and `admin` in it";
        let Some(address) = &self.address else {
            return Err(format!("the configuration has no console: {advice}"));
        };
        let password = self.password.clone().map_err(|why| format!("{why}; {advice}"))?;
        // It is on this machine, whatever servers are spoken to in.
        let clear = ServerTls { mode: ServerTlsMode::Off, ..ServerTls::default() };
        let trust = Trust::new(&clear).map_err(|error| error.to_string())?;
        let account = Monitor { user: self.user.clone(), password, ..Monitor::default() };
        match timeout(LOGIN, open(address, &account, &trust)).await {
            Ok(Ok(console)) => Ok(console),
            Ok(Err(why)) => Err(format!("no pointsman answers at {address}: {why}; {advice}")),
            Err(_) => Err(format!("no pointsman answers at {address} in time; {advice}")),
        }
    }
}
