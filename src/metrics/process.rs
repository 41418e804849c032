//! What the kernel says about this process, under the names that every exporter uses.
//!
//! Source: proc(5). A file that cannot be read leaves its metrics out.

use std::fs;

use crate::metrics::families as known;
use crate::metrics::sheet::Sheet;

/// Clock ticks of /proc are hundredths of a second on every Linux platform (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;

/// Adds the metrics of the process.
pub(super) fn add(sheet: &mut Sheet) {
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        if let Some(kib) = field(&status, "VmRSS:") {
            sheet.add(known::PROCESS_MEMORY, &[], kib * 1024.0);
        }
        if let Some(threads) = field(&status, "Threads:") {
            sheet.add(known::PROCESS_THREADS, &[], threads);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The directory itself is open while it is being read.
        let open = open.count().saturating_sub(1);
        sheet.add(known::PROCESS_FDS, &[], f64::from(u32::try_from(open).unwrap_or(u32::MAX)));
    }
    if let Ok(limits) = fs::read_to_string("/proc/self/limits")
        && let Some(most) = field(&limits, "Max open files")
    {
        sheet.add(known::PROCESS_MAX_FDS, &[], most);
    }
    let Ok(stat) = fs::read_to_string("/proc/self/stat") else { return };
    let Some((cpu, start)) = times(&stat) else { return };
    sheet.add(known::PROCESS_CPU, &[], cpu);
    if let Ok(system) = fs::read_to_string("/proc/stat")
        && let Some(boot) = field(&system, "btime")
    {
        sheet.add(known::PROCESS_START, &[], boot + start);
    }
}

/// CPU time, and the start counted from boot, both in seconds. The command's name (field 2) may
/// contain spaces and brackets, so fields are counted from the last closing bracket.
fn times(stat: &str) -> Option<(f64, f64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    let (user, system, start) = (ticks(11)?, ticks(12)?, ticks(19)?);
    Some(((user + system) / TICKS_PER_SECOND, start / TICKS_PER_SECOND))
}

/// The first number after `key` on the line that begins with it.
fn field(text: &str, key: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 1 1 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 3 0 1200 1 1 1";
        assert_eq!(times(stat), Some((2.0, 12.0)));
        assert_eq!(times("7 (a"), None);
    }

    #[test]
    fn fields_are_found_by_their_line() {
        assert_eq!(field("VmPeak: 9 kB\nVmRSS:\t 1234 kB\n", "VmRSS:"), Some(1234.0));
        assert_eq!(field("Max open files    1024   4096  files\n", "Max open files"), Some(1024.0));
        assert_eq!(field("VmRSS: x\n", "VmRSS:"), None);
    }
}
