//! One key for all names that a file system may take for one: those that differ in case, or in how
//! Unicode composes their characters.
//!
//! `canonical.txt` holds all canonical decompositions of Unicode 14 and, after an empty line, the
//! ranges of its combining characters. Names that differ only in the order of their combining
//! characters have one key too, which is stricter than Unicode.

use std::sync::LazyLock;

/// What `canonical.txt` holds.
struct Canonical {
    /// Characters and what each stands for, sorted.
    decomposed: Vec<(char, Vec<char>)>,
    /// Ranges of combining characters, sorted.
    combining: Vec<(char, char)>,
}

/// Hangul syllables are decomposed by arithmetic: the first, and how many there are.
const HANGUL: (u32, u32) = (0xac00, 11_172);

static CANONICAL: LazyLock<Canonical> = LazyLock::new(|| {
    let (decomposed, combining) =
        include_str!("canonical.txt").split_once("\n\n").unwrap_or_default();
    let pair = |text: &str, mark| {
        let (one, others) = text.split_once(mark)?;
        Some((hexadecimal(one)?, others.split('+').filter_map(hexadecimal).collect::<Vec<_>>()))
    };
    Canonical {
        decomposed: decomposed.split_whitespace().filter_map(|text| pair(text, '=')).collect(),
        combining: combining
            .split_whitespace()
            .filter_map(|text| pair(text, '-'))
            .filter_map(|(first, last)| Some((first, *last.first()?)))
            .collect(),
    }
});

/// What all names have in common that a file system may take for `name`.
pub(super) fn fold(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    let lower = decompose(name.chars()).flat_map(char::to_lowercase);
    let folded = lower.flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    let mut chars: Vec<char> = decompose(folded).collect();
    for run in chars.chunk_by_mut(|&one, &two| is_combining(one) && is_combining(two)) {
        run.sort_unstable();
    }
    chars.into_iter().collect()
}

/// Each character's canonical decomposition.
fn decompose(chars: impl Iterator<Item = char>) -> impl Iterator<Item = char> {
    chars.flat_map(|char| {
        let (mut left, mut done) = (vec![char], Vec::new());
        while let Some(char) = left.pop() {
            let known = &CANONICAL.decomposed;
            let syllable = u32::from(char).wrapping_sub(HANGUL.0);
            if syllable < HANGUL.1 {
                let (lead, vowel) = (0x1100 + syllable / 588, 0x1161 + syllable % 588 / 28);
                let tail = Some(0x11a7 + syllable % 28).filter(|&tail| tail > 0x11a7);
                let parts = [Some(lead), Some(vowel), tail];
                done.extend(parts.into_iter().flatten().filter_map(char::from_u32));
            } else if let Ok(at) = known.binary_search_by_key(&char, |(composed, _)| *composed) {
                left.extend(known[at].1.iter().rev());
            } else {
                done.push(char);
            }
        }
        done
    })
}

fn is_combining(char: char) -> bool {
    let ranges = &CANONICAL.combining;
    let after = ranges.partition_point(|&(first, _)| first <= char);
    after > 0 && char <= ranges[after - 1].1
}

fn hexadecimal(text: &str) -> Option<char> {
    u32::from_str_radix(text, 16).ok().and_then(char::from_u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_file_system_takes_for_one_have_one_key() {
        assert_eq!((CANONICAL.decomposed.len(), CANONICAL.combining.len()), (2061, 188));
        for (one, two) in [
            ("README", "readme"),
            ("caf\u{e9}", "CAFE\u{301}"),
            ("stra\u{df}e", "STRASSE"),
            ("\u{1e9e}", "ss"),
            ("\u{212b}", "a\u{30a}"),
            ("\u{3c3}\u{3c2}", "\u{3a3}\u{3a3}"),
            ("\u{ac01}", "\u{1100}\u{1161}\u{11a8}"),
            ("\u{ac00}", "\u{1100}\u{1161}"),
            ("\u{1e69}", "s\u{307}\u{323}"),
            ("\u{1f80}", "\u{3b1}\u{313}\u{345}"),
            ("\u{304c}", "\u{304b}\u{3099}"),
        ] {
            assert_eq!(fold(one), fold(two), "{one} {two}");
        }
    }

    #[test]
    fn names_of_any_language_that_differ_have_different_keys() {
        let names = [
            "caf\u{e9}",
            "caf\u{e8}",
            "cafe",
            "e",
            "e\u{301}",
            "\u{65e5}\u{672c}",
            "\u{65e5}",
            "\u{ac00}",
            "\u{ac01}",
            "\u{43c}\u{438}\u{440}",
            "\u{639}\u{631}\u{628}",
            "\u{939}\u{93f}",
            "\u{304c}",
            "\u{304b}",
            "\u{1f3a5}",
        ];
        let keys: std::collections::HashSet<_> = names.into_iter().map(fold).collect();
        assert_eq!(keys.len(), names.len());
    }
}
