//! Generated texts against references: BLEU, NIST and ROUGE.

use std::collections::{HashMap, HashSet};

use super::{f1, share};

use crate::lang::pipeline::Metric;

/// Texts with their references, by the metrics that are of texts.
pub fn metrics(texts: &[(String, Vec<String>)], wanted: &[Metric]) -> Vec<(Metric, f64)> {
    let value = |metric| match metric {
        Metric::ExactMatch => exact_match(texts),
        Metric::Bleu => bleu(texts),
        Metric::Nist => nist(texts),
        Metric::Rouge1 => rouge_n(texts, 1),
        Metric::Rouge2 => rouge_n(texts, 2),
        Metric::RougeL => rouge_l(texts),
        Metric::Loss | Metric::Perplexity | Metric::Accuracy | Metric::F1 | Metric::MacroF1 => f64::NAN,
        Metric::Matthews | Metric::Pearson | Metric::Spearman => f64::NAN,
        Metric::EntityF1 | Metric::EntityPrecision | Metric::EntityRecall => f64::NAN,
    };
    // The language allows no others in a stage that writes texts.
    wanted.iter().map(|metric| (*metric, value(*metric))).collect()
}

/// The orders of n-grams that BLEU counts.
const ORDERS: usize = 4;

/// Corpus BLEU, 0 to 100, of texts that have one reference or more each.
///
/// Sources: Papineni et al. 2002, "BLEU"; tokens, smoothing and the length of the nearest reference as in sacrebleu 2
/// with its defaults (`13a`, `exp`).
pub fn bleu(texts: &[(String, Vec<String>)]) -> f64 {
    let (mut right, mut total) = ([0_u64; ORDERS], [0_u64; ORDERS]);
    let (mut length, mut wanted) = (0_usize, 0_usize);
    for (text, references) in texts {
        let own = tokens_13a(text);
        let references: Vec<Vec<String>> = references.iter().map(|text| tokens_13a(text)).collect();
        length += own.len();
        wanted += references.iter().map(Vec::len).min_by_key(|n| (n.abs_diff(own.len()), *n)).unwrap_or(0);
        for n in 1..=ORDERS {
            let mut most: HashMap<&[String], u64> = HashMap::new();
            for reference in &references {
                for (gram, count) in grams(reference, n) {
                    let most = most.entry(gram).or_default();
                    *most = count.max(*most);
                }
            }
            for (gram, count) in grams(&own, n) {
                total[n - 1] += count;
                right[n - 1] += count.min(most.get(gram).copied().unwrap_or(0));
            }
        }
    }
    if right.iter().all(|n| *n == 0) || total.contains(&0) {
        return 0.0;
    }
    let mut smooth = 1.0;
    let mut logs = 0.0;
    for (right, total) in right.into_iter().zip(total) {
        let precision = match right {
            0 => {
                smooth *= 2.0;
                1.0 / (smooth * total as f64)
            }
            right => right as f64 / total as f64,
        };
        logs += precision.ln() / ORDERS as f64;
    }
    let brevity = if length < wanted { 1.0 - wanted as f64 / length as f64 } else { 0.0 };
    100.0 * (brevity + logs).exp()
}

/// The longest n-grams that NIST counts.
const NIST_ORDERS: usize = 5;

/// Corpus NIST, from 0 on: what the n-grams in common tell, in bits, as rare ones tell more.
///
/// Sources: Doddington 2002, "Automatic Evaluation of Machine Translation Quality Using N-gram Co-Occurrence Statistics"; of
/// several references the one that fits best, as in nltk 3's `corpus_nist`; tokens as BLEU's.
pub fn nist(texts: &[(String, Vec<String>)]) -> f64 {
    let tokens = |(text, references): &(String, Vec<String>)| {
        (tokens_13a(text), references.iter().map(|text| tokens_13a(text)).collect::<Vec<_>>())
    };
    let texts: Vec<(Vec<String>, Vec<Vec<String>>)> = texts.iter().map(tokens).collect();
    let references = || texts.iter().flat_map(|(_, references)| references);
    let words = references().map(Vec::len).sum::<usize>() as f64;
    let mut seen: HashMap<&[String], u64> = HashMap::new();
    for (reference, n) in references().flat_map(|reference| (1..=NIST_ORDERS).map(move |n| (reference, n))) {
        grams(reference, n).into_iter().for_each(|(gram, count)| *seen.entry(gram).or_default() += count);
    }
    // What the last word tells, given those before it.
    let information = |gram: &[String]| {
        let before = seen.get(&gram[..gram.len() - 1]).map_or(words, |count| *count as f64);
        (before / seen[gram] as f64).ln() / std::f64::consts::LN_2
    };
    let (mut length, mut wanted, mut sum) = (0, 0, 0.0);
    let longest = texts.iter().map(|(own, _)| own.len()).max().unwrap_or(0);
    for n in 1..=NIST_ORDERS.min(longest) {
        let (mut told, mut total) = (0.0, 0);
        for (own, references) in &texts {
            let counts = grams(own, n);
            let all = counts.values().sum::<u64>();
            let of = |reference: &Vec<String>| {
                let theirs = grams(reference, n);
                let mut met = HashSet::new();
                let common = own.windows(n).filter(|gram| met.insert(*gram)).filter_map(|gram| {
                    let common = counts[gram].min(*theirs.get(gram)?);
                    Some(common as f64 * information(gram))
                });
                // In the order of the text and by natural logarithms, as nltk does: of two references that fit alike, the last
                // digit of the sum decides which one's length counts. An empty sum would be -0, which is less than 0.
                (common.fold(0.0, |sum: f64, bits| sum + bits), reference.len())
            };
            let best = references.iter().map(of).max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let (bits, len) = best.unwrap_or_default();
            told += bits;
            total += all;
            length += own.len();
            wanted += len;
        }
        sum += share(told, total as f64);
    }
    // Texts of two thirds of the length count half.
    let ratio = share(length as f64, wanted as f64);
    let brevity = match ratio {
        0.0 => 0.0,
        ratio if ratio < 1.0 => (0.5_f64.ln() / 1.5_f64.ln().powi(2) * ratio.ln().powi(2)).exp(),
        _ => 1.0,
    };
    sum * brevity
}

/// How often each run of `n` tokens occurs.
fn grams(tokens: &[String], n: usize) -> HashMap<&[String], u64> {
    let mut grams = HashMap::new();
    tokens.windows(n).for_each(|gram| *grams.entry(gram).or_default() += 1);
    grams
}

/// The tokens of mteval-v13a, as sacrebleu makes them.
fn tokens_13a(text: &str) -> Vec<String> {
    let text = text.trim_end().replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    let text = text.replace("&quot;", "\"").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
    let text = format!(" {text} ");
    // Punctuation but for apostrophe, comma, dash and full stop stands alone.
    let alone = |c: char| matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/');
    let apart: String =
        text.chars().map(|c| if alone(c) { format!(" {c} ") } else { c.to_string() }).collect();
    let is_stop = |c: char| c == '.' || c == ',';
    let digit = |c: char| c.is_ascii_digit();
    // Full stops and commas, unless a digit comes before; unless one comes behind; dashes behind digits.
    let apart = pairs(&apart, |a, b| !digit(a) && is_stop(b), |a, b| format!("{a} {b} "));
    let apart = pairs(&apart, |a, b| is_stop(a) && !digit(b), |a, b| format!(" {a} {b}"));
    let apart = pairs(&apart, |a, b| digit(a) && b == '-', |a, b| format!("{a} {b} "));
    apart.split_whitespace().map(str::to_string).collect()
}

/// Replaces pairs of characters from left to right; what was replaced is not looked at again.
fn pairs(text: &str, is: impl Fn(char, char) -> bool, write: impl Fn(char, char) -> String) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut result = String::with_capacity(text.len() + 16);
    let mut at = 0;
    while at < characters.len() {
        match characters[at..] {
            [a, b, ..] if is(a, b) => {
                result.push_str(&write(a, b));
                at += 2;
            }
            _ => {
                result.push(characters[at]);
                at += 1;
            }
        }
    }
    result
}

/// ROUGE-N's F1, 0 to 1: the mean over all texts of the best over their references.
///
/// Sources: Lin 2004, "ROUGE"; words as in rouge-score 0.1 without stemming.
pub fn rouge_n(texts: &[(String, Vec<String>)], n: usize) -> f64 {
    mean(texts, |text, reference| {
        let (own, wanted) = (grams(text, n), grams(reference, n));
        let common: u64 = own.iter().map(|(gram, n)| *n.min(wanted.get(gram).unwrap_or(&0))).sum();
        let count = |words: &[String]| (words.len() + 1).saturating_sub(n) as f64;
        f1(common as f64, count(text), count(reference))
    })
}

/// ROUGE-L's F1, 0 to 1: of the longest common subsequence.
pub fn rouge_l(texts: &[(String, Vec<String>)]) -> f64 {
    mean(texts, |text, reference| {
        let mut longest = vec![0_usize; reference.len() + 1];
        for word in text {
            let mut diagonal = 0;
            for (j, other) in reference.iter().enumerate() {
                let above = longest[j + 1];
                longest[j + 1] = if word == other { diagonal + 1 } else { above.max(longest[j]) };
                diagonal = above;
            }
        }
        f1(longest[reference.len()] as f64, text.len() as f64, reference.len() as f64)
    })
}

fn mean(texts: &[(String, Vec<String>)], score: impl Fn(&[String], &[String]) -> f64) -> f64 {
    let best = |(text, references): &(String, Vec<String>)| {
        let words = plain_words(text);
        references.iter().map(|reference| score(&words, &plain_words(reference))).fold(0.0, f64::max)
    };
    share(texts.iter().map(best).sum(), texts.len() as f64)
}

/// Small letters and digits of ASCII; everything else separates.
fn plain_words(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let words = text.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit());
    words.filter(|word| !word.is_empty()).map(str::to_string).collect()
}

/// The share of texts that are, but for white space around them, one of their references.
pub fn exact_match(texts: &[(String, Vec<String>)]) -> f64 {
    let is_one = |(text, references): &&(String, Vec<String>)| {
        references.iter().any(|reference| reference.trim() == text.trim())
    };
    share(texts.iter().filter(is_one).count() as f64, texts.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_those_of_sacrebleu() {
        let check = |text: &str, expected: &str| assert_eq!(tokens_13a(text).join(" "), expected, "{text}");
        check("The cat sat.", "The cat sat .");
        check("It's 3.14, or 1,000,000: \"yes\" (no)!", "It's 3.14 , or 1,000,000 : \" yes \" ( no ) !");
        check("a-b 5-6 x,y 7,8.", "a-b 5 - 6 x , y 7,8 .");
        check("x &amp; y &lt;z&gt; {a} [b] a/b c'd", "x & y < z > { a } [ b ] a / b c'd");
        check("end\n-\nline one-\ntwo", "end line onetwo");
        check("Über...naïve, 50%-60% $5.00.", "Über . . . naïve , 50 % -60 % $ 5.00 .");
    }

    #[test]
    fn bits_in_common_are_counted_as_nltk_does() {
        // nltk 3.10's `corpus_nist` of the same tokens.
        let check = |texts: &[(&str, &[&str])], expected: f64| {
            let own = |references: &[&str]| references.iter().map(|text| text.to_string()).collect();
            let texts: Vec<(String, Vec<String>)> =
                texts.iter().map(|(text, references)| (text.to_string(), own(references))).collect();
            assert!((nist(&texts) - expected).abs() < 1e-9, "{texts:?}: {} is not {expected}", nist(&texts));
        };
        check(
            &[
                ("the cat is on the mat", &["the cat sat on the mat", "there is a cat on the mat"]),
                (
                    "hello there general kenobi, you are bold",
                    &["hello there general kenobi! you are a bold one"],
                ),
            ],
            3.253147452481604,
        );
        check(
            &[
                ("the picture is taken by me today", &["the picture the picture by me"]),
                (
                    "this is a fine test of things",
                    &["this is a test of things, which are fine", "a fine test"],
                ),
            ],
            3.123900933416345,
        );
        check(&[("a b c d e", &["f g h i j"])], 0.0);
        check(&[("", &["f g"])], 0.0);
        check(&[("a b c d e", &["a b c d e f g h i j"])], 0.4381789214398759);
    }

    #[test]
    fn texts_are_measured_as_sacrebleu_and_rouge_score_do() {
        // sacrebleu 2.6's `corpus_bleu`, rouge-score 0.1.2's `score_multi`.
        let check = |texts: &[(&str, &[&str])], expected: [f64; 4]| {
            let own = |references: &[&str]| references.iter().map(|text| text.to_string()).collect();
            let texts: Vec<(String, Vec<String>)> =
                texts.iter().map(|(text, references)| (text.to_string(), own(references))).collect();
            let found = [bleu(&texts), rouge_n(&texts, 1), rouge_n(&texts, 2), rouge_l(&texts)];
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-9, "{texts:?}: {found} is not {expected}");
            }
        };
        check(
            &[
                ("the cat is on the mat", &["the cat sat on the mat", "there is a cat on the mat"]),
                (
                    "hello there general kenobi, you are bold",
                    &["hello there general kenobi! you are a bold one"],
                ),
            ],
            [32.726440802592336, 0.8541666666666667, 0.6571428571428571, 0.8541666666666667],
        );
        check(
            &[
                ("the picture is taken by me today", &["the picture the picture by me"]),
                (
                    "this is a fine test of things",
                    &["this is a test of things, which are fine", "a fine test"],
                ),
            ],
            [27.289878165104234, 0.7451923076923077, 0.4675324675324676, 0.6826923076923077],
        );
        check(&[("a b c d e", &["f g h i j"])], [0.0, 0.0, 0.0, 0.0]);
        check(
            &[
                (
                    "Zingari is a family friendly coffee shop.",
                    &[
                        "Zingari is a family-friendly coffee shop.",
                        "The coffee shop Zingari is family friendly.",
                    ],
                ),
                (
                    "Blue Spice is cheap, near Crowne Plaza Hotel.",
                    &["Near Crowne Plaza Hotel, Blue Spice is cheap."],
                ),
                ("one two", &["one two"]),
            ],
            [36.777484652466406, 1.0, 0.9523809523809524, 0.8333333333333334],
        );
    }
}
