//! Entities: runs of tagged words, right only as a whole.
//!
//! The rules are those of seqeval's default mode, which are those of `conlleval` for the tags `B-`, `I-`, `E-`, `S-` and `O`:
//! an `I-` that follows nothing of its kind begins an entity, too. Source: seqeval 1.2.2, `get_entities`.

use std::collections::HashSet;

use super::{f1, share};

/// How many entities there are, were found, and were found right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entities {
    names: Vec<String>,
    wanted: u64,
    found: u64,
    right: u64,
}

impl Entities {
    /// `names`: of the classes, such as `B-PER`.
    pub fn new(names: &[String]) -> Self {
        Self { names: names.to_vec(), wanted: 0, found: 0, right: 0 }
    }

    /// Adds a row of words: the class that was right for each, and the one that was given.
    pub fn add(&mut self, row: &[[usize; 2]]) {
        let spans = |side: usize| -> HashSet<(&str, usize, usize)> {
            spans(row.iter().map(|word| self.names.get(word[side]).map_or("O", String::as_str))).collect()
        };
        let (wanted, found) = (spans(0), spans(1));
        let right = wanted.intersection(&found).count() as u64;
        let (n_wanted, n_found) = (wanted.len() as u64, found.len() as u64);
        self.wanted += n_wanted;
        self.found += n_found;
        self.right += right;
    }

    pub fn precision(&self) -> f64 {
        share(self.right as f64, self.found as f64)
    }

    pub fn recall(&self) -> f64 {
        share(self.right as f64, self.wanted as f64)
    }

    pub fn f1(&self) -> f64 {
        f1(self.right as f64, self.found as f64, self.wanted as f64)
    }
}

/// Kind, first and last word of each entity.
fn spans<'t>(tags: impl Iterator<Item = &'t str>) -> impl Iterator<Item = (&'t str, usize, usize)> {
    let mut before = ('O', "");
    let mut begin = 0;
    // The end of the row ends the last entity.
    tags.chain(["O"]).enumerate().filter_map(move |(at, tag)| {
        let now = split(tag);
        let ended = ends(before, now).then_some((before.1, begin, at.saturating_sub(1)));
        if begins(before, now) {
            begin = at;
        }
        before = now;
        ended
    })
}

/// `B-PER` to its letter and its kind; where tags are letters alone, all are of one kind.
fn split(tag: &str) -> (char, &str) {
    let mut rest = tag.chars();
    let letter = rest.next().unwrap_or('O');
    let rest = rest.as_str();
    let kind = rest.split_once('-').map_or(rest, |(_, kind)| kind);
    (letter, if kind.is_empty() { "_" } else { kind })
}

/// Whether an entity ends between two words.
fn ends(before: (char, &str), now: (char, &str)) -> bool {
    match (before.0, now.0) {
        ('E' | 'S', _) | ('B' | 'I', 'B' | 'S' | 'O') => true,
        ('O' | '.', _) => false,
        _ => before.1 != now.1,
    }
}

/// Whether an entity begins between two words.
fn begins(before: (char, &str), now: (char, &str)) -> bool {
    match (before.0, now.0) {
        (_, 'B' | 'S') | ('E' | 'S' | 'O', 'E' | 'I') => true,
        (_, 'O' | '.') => false,
        _ => before.1 != now.1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["O", "B-PER", "I-PER", "B-LOC", "I-LOC"];

    /// Precision, recall and F1, from seqeval 1.2.2.
    fn check(rows: &[(&[usize], &[usize])], expected: [f64; 3]) {
        let mut entities = Entities::new(&NAMES.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        for (right, given) in rows {
            let row: Vec<[usize; 2]> =
                right.iter().zip(*given).map(|(right, given)| [*right, *given]).collect();
            entities.add(&row);
        }
        let found = [entities.precision(), entities.recall(), entities.f1()];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{rows:?}: {found} is not {expected}");
        }
    }

    #[test]
    fn entities_are_counted_as_seqeval_does() {
        check(&[(&[0, 1, 2, 0, 3], &[0, 1, 2, 0, 3])], [1.0, 1.0, 1.0]);
        check(&[(&[1, 2, 2, 0], &[1, 2, 0, 0]), (&[0, 3, 4], &[0, 3, 4])], [0.5, 0.5, 0.5]);
        check(
            &[(&[0, 2, 2, 4, 0, 3], &[0, 1, 2, 4, 4, 3])],
            [0.6666666666666666, 0.6666666666666666, 0.6666666666666666],
        );
        check(&[(&[1, 1, 2, 0, 3, 3], &[1, 2, 2, 0, 3, 4])], [0.0, 0.0, 0.0]);
        check(&[(&[0, 0], &[0, 3])], [0.0, 0.0, 0.0]);
        check(
            &[(&[1, 2, 4, 4], &[1, 2, 3, 4]), (&[3, 0, 4, 0], &[4, 0, 4, 2])],
            [0.8, 1.0, 0.888888888888889],
        );
    }
}
