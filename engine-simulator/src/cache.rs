//! The prefix cache: blocks of tokens, chained by hash, each chain begun by the request's salt.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Cached blocks in order of use; the oldest goes first when room is needed.
pub(crate) struct PrefixCache {
    block_size: usize,
    capacity: usize,
    blocks: HashMap<u64, u64>,
    by_use: BTreeMap<u64, u64>,
    clock: u64,
}

impl PrefixCache {
    pub(crate) fn new(block_size: usize, capacity: usize) -> Self {
        Self {
            block_size: block_size.max(1),
            capacity,
            blocks: HashMap::new(),
            by_use: BTreeMap::new(),
            clock: 0,
        }
    }

    /// Tokens of the longest cached prefix, in whole blocks. The last token is never taken from the cache, as in vLLM.
    pub(crate) fn lookup(&mut self, salt: Option<&str>, tokens: &[u64]) -> usize {
        let reusable = tokens.len().saturating_sub(1);
        let mut found = 0;
        for (block, hash) in self.chain(salt, tokens) {
            if block > reusable || !self.blocks.contains_key(&hash) {
                break;
            }
            self.touch(hash);
            found = block;
        }
        found
    }

    /// Keeps every whole block of the tokens.
    pub(crate) fn insert(&mut self, salt: Option<&str>, tokens: &[u64]) {
        for (_, hash) in self.chain(salt, tokens) {
            self.touch(hash);
        }
        while self.blocks.len() > self.capacity {
            let Some((_, hash)) = self.by_use.pop_first() else {
                break;
            };
            self.blocks.remove(&hash);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.blocks.clear();
        self.by_use.clear();
    }

    /// For each whole block, the tokens up to its end and the hash of the chain up to it.
    fn chain(&self, salt: Option<&str>, tokens: &[u64]) -> Vec<(usize, u64)> {
        let mut parent = hash_of(&salt);
        let mut end = 0usize;
        tokens
            .chunks_exact(self.block_size)
            .map(|block| {
                parent = hash_of(&(parent, block));
                end = end.saturating_add(block.len());
                (end, parent)
            })
            .collect()
    }

    fn touch(&mut self, hash: u64) {
        self.clock = self.clock.saturating_add(1);
        if let Some(before) = self.blocks.insert(hash, self.clock) {
            self.by_use.remove(&before);
        }
        self.by_use.insert(self.clock, hash);
    }
}

/// A hash that is the same in every process.
pub(crate) fn hash_of<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_hits_under_its_salt_only() {
        let mut cache = PrefixCache::new(4, 100);
        let tokens: Vec<u64> = (0..10).collect();
        cache.insert(Some("a"), &tokens);
        assert_eq!(cache.lookup(Some("a"), &tokens), 8);
        assert_eq!(cache.lookup(Some("b"), &tokens), 0);
        assert_eq!(cache.lookup(None, &tokens), 0);
        assert_eq!(cache.lookup(Some("a"), &[0, 1, 2, 3, 9, 9, 9, 9, 9]), 4);
    }

    #[test]
    fn the_last_token_is_computed_anew() {
        let mut cache = PrefixCache::new(4, 100);
        cache.insert(None, &[1, 2, 3, 4]);
        assert_eq!(cache.lookup(None, &[1, 2, 3, 4]), 0);
        assert_eq!(cache.lookup(None, &[1, 2, 3, 4, 5]), 4);
    }

    #[test]
    fn the_oldest_block_makes_room() {
        let mut cache = PrefixCache::new(1, 2);
        cache.insert(None, &[1, 2]);
        cache.insert(None, &[7]);
        assert_eq!(cache.lookup(None, &[7, 0]), 1);
        assert_eq!(cache.lookup(None, &[1, 2, 0]), 0);
        cache.clear();
        assert_eq!(cache.lookup(None, &[7, 0]), 0);
    }
}
