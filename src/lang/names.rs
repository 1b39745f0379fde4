//! Names that a reader may have meant, and lists of names in a sentence.

/// Names that are compared with a word, at most.
const MAX_CANDIDATES: usize = 200;

/// Names that a sentence lists, at most.
const MAX_LISTED: usize = 40;

/// The candidate that is most like `word`, if one is like it at all: a slip of the pen, another case, a
/// singular or plural.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['_', '-'], "");
    let wanted = plain(word);
    // No candidate is as long, and the comparison takes long.
    if wanted.is_empty() || wanted.len() > 64 {
        return None;
    }
    candidates
        .into_iter()
        .take(MAX_CANDIDATES)
        .filter_map(|candidate| {
            let shorter = wanted.len().min(candidate.len());
            let allowed = (shorter.max(2) / 2).min(3).min(shorter.max(1) - 1);
            Some((distance(&wanted, &plain(candidate), allowed)?, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The candidate that is meant without any doubt: another case, or a slip of the pen in a word that is long
/// enough, and nothing else is as near.
pub(super) fn sure<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['_', '-'], "");
    let wanted = plain(word);
    let allowed = match wanted.chars().count() {
        // No candidate is as long, and the comparison takes long.
        0 | 65.. => return None,
        1..4 => 0,
        4..8 => 1,
        _ => 2,
    };
    // A missing plural and exchanged letters leave no doubt even in a short word.
    let letters = |text: &str| {
        let mut letters: Vec<char> = text.chars().collect();
        letters.sort_unstable();
        letters
    };
    let is_close = |candidate: &str| {
        let plural =
            wanted.strip_suffix('s') == Some(candidate) || candidate.strip_suffix('s') == Some(&wanted);
        wanted.len() > 2 && (plural || letters(&wanted) == letters(candidate))
    };
    let mut near: Vec<(usize, &str)> = candidates
        .into_iter()
        .take(MAX_CANDIDATES)
        .filter(|candidate| *candidate != word)
        .filter_map(|candidate| Some((distance(&wanted, &plain(candidate), allowed.max(1))?, candidate)))
        .filter(|(distance, candidate)| *distance <= allowed || is_close(&plain(candidate)))
        .collect();
    near.sort_unstable();
    near.dedup();
    match near.as_slice() {
        [(_, only)] => Some(only),
        [(first, meant), (second, _), ..] if first < second => Some(meant),
        _ => None,
    }
}

/// How many slips of the pen lie between two words, if no more than `allowed`.
fn distance(one: &str, other: &str, allowed: usize) -> Option<usize> {
    // Each slip makes a word one letter longer at the most.
    let apart = one.chars().count().abs_diff(other.chars().count());
    let distance = (apart <= allowed).then(|| strsim::damerau_levenshtein(one, other))?;
    (distance <= allowed).then_some(distance)
}

/// `a`, `b` and `c`.
pub(super) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>, conjunction: &str) -> String {
    let mut names = names.into_iter();
    let mut listed: Vec<String> = names.by_ref().take(MAX_LISTED).map(|name| format!("`{name}`")).collect();
    let rest = names.count();
    listed.extend((rest > 0).then(|| format!("{rest} more")));
    joined(&listed, conjunction)
}

pub(super) fn joined(parts: &[String], conjunction: &str) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} {conjunction} {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::{nearest, sure};

    #[test]
    fn only_what_leaves_no_doubt_is_sure() {
        let check =
            |word, found| assert_eq!(sure(word, ["micro_batch", "epochs", "eps", "GB", "GiB"]), found);
        check("micro_btach", Some("micro_batch"));
        check("microBatch", Some("micro_batch"));
        check("epoch", Some("epochs"));
        check("gb", Some("GB"));
        check("epz", None);
        check("batch", None);
        check("ep", None);
        assert_eq!(sure("stf", ["sft", "dpo"]), Some("sft"));
        assert_eq!(sure("row", ["rows", "raw"]), Some("rows"));
        assert_eq!(sure("steps", ["stepz", "stepx"]), None);
    }

    #[test]
    fn a_slip_of_the_pen_is_found_and_a_stranger_is_not() {
        let check = |word, found| assert_eq!(nearest(word, ["micro_batch", "epochs", "rate", "KiB"]), found);
        check("micro_btach", Some("micro_batch"));
        check("microBatch", Some("micro_batch"));
        check("epoch", Some("epochs"));
        check("kib", Some("KiB"));
        check("learning", None);
        check("x", None);
        check("G", None);
        check("", None);
    }
}
