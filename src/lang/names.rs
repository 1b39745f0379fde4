//! Names that a reader may have meant, and lists of names in a sentence.

/// Names that are compared with a word, at most.
const MAX_CANDIDATES: usize = 200;

/// Names that a sentence lists, at most.
const MAX_LISTED: usize = 40;

/// The candidate that is most like `word`, if one is like it at all: a slip of the pen, another case, a
/// singular or plural.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['_', '-'], "");
    let wanted = plain(word);
    // No candidate is as long, and the comparison takes long.
    if wanted.is_empty() || wanted.len() > 64 {
        return None;
    }
    candidates
        .into_iter()
        .take(MAX_CANDIDATES)
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| {
            *distance <= (wanted.len().min(candidate.len()).max(2)) / 2 && *distance <= 3
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
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
    use super::nearest;

    #[test]
    fn a_slip_of_the_pen_is_found_and_a_stranger_is_not() {
        let check = |word, found| assert_eq!(nearest(word, ["micro_batch", "epochs", "rate", "KiB"]), found);
        check("micro_btach", Some("micro_batch"));
        check("microBatch", Some("micro_batch"));
        check("epoch", Some("epochs"));
        check("kib", Some("KiB"));
        check("learning", None);
        check("x", None);
        check("", None);
    }
}
