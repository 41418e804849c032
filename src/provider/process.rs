//! Processes by their pid: start one that outlives us, signal it, see whether it lives.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Starts `command` in a process group of its own, detached from us, its output appended to `log`;
/// answers its pid. It becomes a child of init, which collects it when it ends.
///
/// # Errors
/// When no shell can be started or it answers no pid.
pub fn start(command: &[String], log: &Path) -> io::Result<u32> {
    let shell = Command::new("/bin/sh")
        .args(["-c", "\"$@\" </dev/null >>\"$0\" 2>&1 & echo $!"])
        .arg(log)
        .args(command)
        .stdin(Stdio::null())
        .process_group(0)
        .output()?;
    let answer = String::from_utf8_lossy(&shell.stdout);
    answer.trim().parse().map_err(|_| io::Error::other(format!("the shell answered {answer:?}")))
}

/// Sends `signal` to `pid` if that is still the process whose command line contains `mark`; a pid
/// may have gone to someone else. Answers whether it was sent.
pub fn signal(pid: u32, mark: &str, signal: Signal) -> bool {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if !String::from_utf8_lossy(&command).contains(mark) {
        return false;
    }
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// Whether `pid` runs (a zombie does not) and its command line contains `mark`. One that is still
/// giving back its memory has no command line any more, and counts as running until that is done.
#[must_use]
pub fn is_alive(pid: u32, mark: &str) -> bool {
    if matches!(state(pid), None | Some('Z' | 'X')) {
        return false;
    }
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.is_empty() || String::from_utf8_lossy(&command).contains(mark)
}

/// Whether `pid` is stopped by a signal (frozen).
#[must_use]
pub fn is_stopped(pid: u32) -> bool {
    state(pid) == Some('T')
}

/// The state letter of `/proc/PID/stat`, see proc(5).
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
