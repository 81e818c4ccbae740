//! Tokens and deterministic answers.

use crate::cache::hash_of;

/// Longest token in bytes of letters and digits.
const LONGEST: usize = 7;

const WORDS: &[&str] = &[
    "the",
    "cloister",
    "garden",
    "holds",
    "a",
    "quiet",
    "well",
    "and",
    "its",
    "water",
    "is",
    "clear",
    "stone",
    "arches",
    "keep",
    "shade",
    "while",
    "bells",
    "count",
    "hours",
    "of",
    "work",
    "no",
    "letter",
    "leaves",
    "unsealed",
    "each",
    "guest",
    "has",
    "one",
    "key",
    "doors",
    "open",
    "in",
    "turn",
    "light",
    "falls",
    "on",
    "old",
    "walls",
    "simulated",
    "voices",
    "read",
];

/// Splits text into tokens: a run of letters or digits with the space before it, in parts of at most seven bytes, or
/// one other character.
pub(crate) fn tokenize(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut start = 0;
    let mut letters = 0usize;
    for (at, c) in text.char_indices() {
        let joins = c.is_alphanumeric() && letters < LONGEST && (letters > 0 || text.get(start..at) == Some(" "));
        if at > start && !joins {
            tokens.extend(text.get(start..at));
            start = at;
            letters = 0;
        }
        if c.is_alphanumeric() {
            letters = letters.saturating_add(c.len_utf8());
        }
    }
    tokens.extend(text.get(start..).filter(|rest| !rest.is_empty()));
    tokens
}

/// The tokens as the batch and the prefix cache see them.
pub(crate) fn token_ids(text: &str) -> Vec<u64> {
    tokenize(text).into_iter().map(hash_of).collect()
}

/// Token number `index` of the answer that `seed` stands for.
pub(crate) fn word(seed: u64, index: u32) -> String {
    let choice = usize::try_from(hash_of(&(seed, index)) % WORDS.len() as u64).unwrap_or_default();
    let word = WORDS.get(choice).copied().unwrap_or("simulated");
    match index {
        0 => word.to_owned(),
        index if index % 13 == 12 => ".".to_owned(),
        _ => format!(" {word}"),
    }
}

/// Length in tokens of an answer to which nothing gives a length.
pub(crate) fn natural_length(seed: u64) -> u32 {
    16 + u32::try_from(hash_of(&(seed, "length")) % 112).unwrap_or_default()
}

/// Cuts a prepared text (JSON) into tokens of a few characters.
pub(crate) fn pieces(text: &str) -> Vec<String> {
    tokenize(text).into_iter().map(ToOwned::to_owned).collect()
}

/// Cuts the tokens at the first stop string. Returns whether there was one.
pub(crate) fn cut_at_stop(pieces: &mut Vec<String>, stops: &[String]) -> bool {
    let text = pieces.concat();
    let Some(at) = stops
        .iter()
        .filter(|stop| !stop.is_empty())
        .filter_map(|stop| text.find(stop.as_str()))
        .min()
    else {
        return false;
    };
    let mut left = at;
    pieces.retain_mut(|piece| {
        let kept = piece.len().min(left);
        left = left.saturating_sub(kept);
        piece.truncate(kept);
        kept > 0
    });
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_join_to_the_text() {
        for text in [
            "",
            " ",
            "one two  three",
            "a{\"b\":12345678901}\n",
            "Ünïcödé wörds müssen",
            "  x",
        ] {
            assert_eq!(tokenize(text).concat(), text);
        }
        assert_eq!(tokenize("one two."), ["one", " two", "."]);
    }

    #[test]
    fn a_longer_text_begins_with_the_tokens_of_a_shorter_one() {
        let short = token_ids("the first sentence.\n");
        assert!(token_ids("the first sentence.\nand more").starts_with(&short));
    }

    #[test]
    fn a_stop_string_cuts_inside_a_token() {
        let mut pieces = vec!["one".to_owned(), " two".to_owned(), " three".to_owned()];
        assert!(cut_at_stop(&mut pieces, &["wo t".to_owned()]));
        assert_eq!(pieces.concat(), "one t");
        assert!(!cut_at_stop(&mut pieces, &["zz".to_owned(), String::new()]));
    }
}
