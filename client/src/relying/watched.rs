//! Files that are read again when they change.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// What tells one state of a file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    changed_seconds: i64,
    changed_nanos: i64,
}

/// Something made from files. It is made again when one of them has another stamp.
pub(crate) struct Watched<T> {
    paths: Vec<PathBuf>,
    state: Mutex<State<T>>,
}

struct State<T> {
    stamps: Option<Vec<Option<Stamp>>>,
    value: Option<Arc<T>>,
}

impl<T> Watched<T> {
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        Self {
            paths,
            state: Mutex::new(State {
                stamps: None,
                value: None,
            }),
        }
    }

    /// The current value. When the files have changed and `load` fails, what was loaded before stays in use as long as it
    /// is `usable`: a credential that is being replaced may be unreadable for a moment.
    pub(crate) fn get<E>(&self, load: impl FnOnce() -> Result<T, E>, usable: impl Fn(&T) -> bool) -> Result<Arc<T>, E> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps: Vec<_> = self.paths.iter().map(stamp).collect();
        let unchanged = state.stamps.as_ref() == Some(&stamps);
        let kept = state.value.clone().filter(|value| usable(value));
        if let (true, Some(value)) = (unchanged, &kept) {
            return Ok(value.clone());
        }
        match load() {
            Ok(value) => {
                let value = Arc::new(value);
                // Stamps from before the reading: a change in between is seen the next time.
                *state = State {
                    stamps: Some(stamps),
                    value: Some(value.clone()),
                };
                Ok(value)
            }
            Err(error) => kept.ok_or(error),
        }
    }
}

fn stamp(path: &PathBuf) -> Option<Stamp> {
    // Links are followed: Kubernetes replaces mounted secrets by pointing a link elsewhere.
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        inode: metadata.ino(),
        length: metadata.len(),
        changed_seconds: metadata.ctime(),
        changed_nanos: metadata.ctime_nsec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{read_secret, replace_secret};

    #[test]
    fn is_read_again_when_it_changes_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let watched = Watched::new(vec![path.clone()]);
        let mut loads = 0;
        let mut get = |usable: bool| {
            watched
                .get(
                    || {
                        loads += 1;
                        read_secret(&path, 16).map(|bytes| bytes.to_vec())
                    },
                    |_| usable,
                )
                .map(|value| (value.to_vec(), loads))
        };
        assert!(get(true).is_err());
        replace_secret(&path, b"one").unwrap();
        assert_eq!(get(true).unwrap(), (b"one".to_vec(), 2));
        assert_eq!(get(true).unwrap(), (b"one".to_vec(), 2));
        replace_secret(&path, b"two").unwrap();
        assert_eq!(get(true).unwrap(), (b"two".to_vec(), 3));
        assert_eq!(
            get(false).unwrap(),
            (b"two".to_vec(), 4),
            "what is not usable is read again"
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!(get(true).unwrap().0, b"two", "kept while usable");
        assert!(get(false).is_err());
    }
}
