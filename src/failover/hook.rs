//! Programs of the operator's that are run around a change of the primary.
//!
//! Does not know: when that is, and what it means that one says no.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Most that is read of what a program says, bytes.
const SAID_MAX: usize = 4096;

/// How long the last of it may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// A program to be run once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The program, by its absolute path, and its arguments. There is no shell between.
    pub argv: Vec<String>,
    /// What it is told, as variables of its environment.
    pub told: Vec<(&'static str, String)>,
    /// How long it may take before it is killed.
    pub patience: Duration,
}

impl Hook {
    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be started, ends with another status than 0 or does not end in time. The text
    /// has the first line of what it has said.
    pub async fn run(self) -> Result<(), String> {
        let Some((program, arguments)) = self.argv.split_first() else { return Ok(()) };
        let mut child = Command::new(program)
            .args(arguments)
            .envs(self.told)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // What it has started itself is to end with it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{program} cannot be started: {error}"))?;
        let Ok(ended) = timeout(self.patience, end(&mut child)).await else {
            kill_all(&child);
            let _ = child.wait().await;
            return Err(format!("{program} did not end within {:?}", self.patience));
        };
        let (status, said) = ended.map_err(|error| format!("{program}: {error}"))?;
        match status.success() {
            true => Ok(()),
            false if said.is_empty() => Err(format!("{program}: {status}")),
            false => Err(format!("{program}: {status}: {said}")),
        }
    }
}

/// Waits for its end; how that was, and the first line of what it has complained of. What it has
/// started may live on, and say more.
async fn end(child: &mut Child) -> std::io::Result<(std::process::ExitStatus, String)> {
    let (mut said, mut some) = (Vec::new(), [0; 1024]);
    let mut errors = child.stderr.take();
    let status = loop {
        let Some(pipe) = errors.as_mut() else { break child.wait().await? };
        tokio::select! {
            biased;
            read = pipe.read(&mut some) => match read? {
                0 => errors = None,
                count => said.extend(some[..count].iter().take(SAID_MAX - said.len())),
            },
            status = child.wait() => break status?,
        }
    };
    if let Some(pipe) = errors.as_mut()
        && let Ok(Ok(count)) = timeout(LAST_WORDS, pipe.read(&mut some)).await
    {
        said.extend(some[..count].iter().take(SAID_MAX - said.len()));
    }
    let said = String::from_utf8_lossy(&said);
    Ok((status, said.lines().next().unwrap_or_default().trim().to_owned()))
}

fn kill_all(child: &Child) {
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(group) = group.and_then(rustix::process::Pid::from_raw) {
        // It may have ended by itself meanwhile.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, patience: Duration) -> Hook {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        Hook { argv, told: vec![("POINTSMAN_GROUP", "main".to_owned())], patience }
    }

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn what_a_program_says_counts() {
        assert_eq!(shell("test $POINTSMAN_GROUP = main", LONG).run().await, Ok(()));
        let no = shell("echo 'a backup runs' >&2; echo more >&2; exit 3", LONG).run().await;
        assert_eq!(no, Err("/bin/sh: exit status: 3: a backup runs".to_owned()));
        let none = Hook { argv: vec!["/none/such".to_owned()], ..shell("", LONG) };
        let why = none.run().await.expect_err("there is none");
        assert!(why.starts_with("/none/such cannot be started: "), "{why}");
    }

    #[tokio::test]
    async fn what_it_has_started_and_how_much_it_says_is_no_matter() {
        let quick = Duration::from_secs(20);
        assert_eq!(shell("sleep 30 & exit 0", quick).run().await, Ok(()));
        let much = "i=0; while [ $i -lt 2000 ]; do echo 'much is said here' >&2; i=$((i+1)); done";
        assert_eq!(shell(much, quick).run().await, Ok(()));
    }

    #[tokio::test]
    async fn one_that_does_not_end_is_killed_with_what_it_has_started() {
        let waits = shell("sleep 1000 & echo $! >&2; wait", Duration::from_millis(200));
        let why = waits.run().await.expect_err("it does not end");
        assert_eq!(why, "/bin/sh did not end within 200ms");
    }
}
