//! What the kernel says of processes.

use std::{
    collections::HashMap,
    fs::{self, File},
    os::unix::fs::FileExt,
};

/// Piece of memory that is read at once; more than any needle, so that none is missed between two.
const PIECE: usize = 1 << 20;

/// All processes below `pid`, parents before their children. Ids as this process sees them.
#[must_use]
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some((_, parent)) = state(child) {
            children.entry(parent).or_default().push(child);
        }
    }
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        found.extend(children.remove(parent).unwrap_or_default());
        next += 1;
    }
    found.split_off(1)
}

/// Whether the process is there and not a zombie.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    state(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// State and parent.
fn state(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

/// Where a needle was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which of the needles.
    pub needle: usize,
    /// The mapping, as the kernel names it.
    pub mapping: String,
}

/// Looks for `needles` in all memory of a process that can be read.
///
/// # Errors
/// The process's memory may not be read, or it is gone.
pub fn scan_memory(pid: u32, needles: &[Vec<u8>]) -> std::io::Result<Vec<Finding>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let longest = needles.iter().map(Vec::len).max().unwrap_or(1).max(1);
    let mut findings = Vec::new();
    let mut buffer = vec![0; PIECE];
    let mut readable = 0u64;
    for line in maps.lines() {
        let Some((start, end)) = readable_range(line) else {
            continue;
        };
        let mut at = start;
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
            // Pages of devices and of the kernel cannot be read, whatever the mapping says.
            let Ok(read) = memory.read_at(&mut buffer[..length], at) else {
                break;
            };
            readable += read as u64;
            for (needle, bytes) in needles.iter().enumerate() {
                if contains(&buffer[..read], bytes) {
                    findings.push(Finding {
                        needle,
                        mapping: line.to_owned(),
                    });
                }
            }
            if read < length || at + read as u64 >= end {
                break;
            }
            at += (read - (longest - 1)) as u64;
        }
    }
    assert!(readable > 1 << 20, "no memory of process {pid} could be read");
    Ok(findings)
}

fn readable_range(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    if !fields.next()?.starts_with('r') {
        return None;
    }
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some((number(start)?, number(end)?))
}

/// Whether `needle` is in `hay`.
#[must_use]
pub fn contains(hay: &[u8], needle: &[u8]) -> bool {
    let Some((first, rest)) = needle.split_first() else {
        return true;
    };
    let mut hay = hay;
    while let Some(at) = hay.iter().position(|byte| byte == first) {
        hay = &hay[at + 1..];
        if hay.starts_with(rest) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_memory_is_found() {
        let here = std::hint::black_box(format!("needle-{}", 41 + 1).into_bytes());
        let found = scan_memory(std::process::id(), std::slice::from_ref(&here)).unwrap();
        assert!(!found.is_empty());
        assert!(contains(b"aab", b"ab") && !contains(b"aab", b"ba") && contains(b"", b""));
    }

    #[test]
    fn this_process_is_alive_and_has_no_such_child() {
        assert!(is_alive(std::process::id()));
        assert!(!descendants(std::process::id()).contains(&1));
    }
}
