//! What became of the rows, from the JSON of an audit: as text, and in parts for the page.

use std::fmt::Write;

use serde_json::Value as Json;

use crate::units::Count;

/// What can have become of rows, with the place in an audit that counts them.
const FATES: [(&str, &str); 14] = [
    ("/cut", "were cut to max_length"),
    ("/split", "were split"),
    ("/pieces", "pieces more than rows, since rows were split"),
    ("/repeated", "come again, for the weights of the mix"),
    ("/dropped/filtered", "were left out by the filter"),
    ("/dropped/repeats", "were left out: the same as an earlier row"),
    ("/dropped/unmixed", "were left out by the weights of the mix"),
    ("/dropped/too_long", "were dropped: longer than max_length"),
    ("/dropped/empty", "were dropped: nothing in them"),
    ("/dropped/untrained", "were dropped: no token carries a loss"),
    ("/empty_responses", "have an empty response"),
    ("/lost_answers", "lost their answer to max_length, and count as having none"),
    ("/duplicates", "stand there more than once"),
    ("/leaked", "are held out and trained on"),
];

/// How many rows have met what.
pub fn fates(audit: &Json) -> impl Iterator<Item = (Count, &'static str)> {
    let met = |(place, what)| Some((audit.pointer(place)?.as_u64().filter(|n| *n > 0)?, what));
    FATES.into_iter().filter_map(met).map(|(n, what)| (Count(n), what))
}

/// The rows on one side of the holdout; None where there are none.
pub fn part(part: &Json) -> Option<String> {
    let count = |key: &str| Count(part[key].as_u64().unwrap_or(0));
    let (rows, tokens, trained, longest) =
        (count("rows"), count("tokens"), count("trained_tokens"), count("longest"));
    let mut text = format!("{rows} rows, {tokens} tokens, {trained} carry a loss, the longest has {longest}");
    if let Some(fill) = part["fill"].as_f64() {
        let _ = write!(text, "; packed into {}, {:.1} % full", count("sequences"), 100.0 * fill);
    }
    (rows.0 > 0).then_some(text)
}

/// How long rows are: in a sentence, and how many are at most so long and longer than those before.
pub fn lengths(part: &Json) -> Option<(String, Vec<(u64, u64)>)> {
    let lengths = &part["lengths"];
    let count = |key: &str| lengths[key].as_u64().map(Count);
    let (min, max, median) = (count("min")?, count("max")?, count("median")?);
    let bins = lengths["histogram"].as_array().into_iter().flatten();
    let bins = bins.filter_map(|bin| Some((bin["up_to"].as_u64()?, bin["rows"].as_u64()?))).collect();
    Some((format!("{min} to {max} tokens, half of the rows have up to {median}"), bins))
}

/// The messages of chats, by role.
pub fn turns(audit: &Json) -> Option<String> {
    let of_role = |(role, turns): (&String, &Json)| {
        let (all, learned) = (turns["all"].as_u64()?, turns["learned"].as_u64()?);
        Some(match learned {
            0 => format!("{} {role}", Count(all)),
            n if n == all => format!("{} {role}, all learned", Count(n)),
            n => format!("{} {role}, {} learned", Count(all), Count(n)),
        })
    };
    let turns: Vec<String> = audit["turns"].as_object()?.iter().filter_map(of_role).collect();
    (!turns.is_empty()).then(|| turns.join("; "))
}

/// What became of the rows, line by line.
pub fn text(name: &str, audit: &Json) -> String {
    let mut text = format!("data {name}\n");
    let mut line = |name: &str, what: &str| {
        let _ = writeln!(text, "  {name:<10} {what}");
    };
    line("read", &format!("{} rows", Count(audit["rows"].as_u64().unwrap_or(0))));
    let none = "no rows".to_string();
    line("train", &part(&audit["train"]).unwrap_or(none));
    if let Some((sentence, bins)) = lengths(&audit["train"]) {
        line("lengths", &sentence);
        histogram(&bins).iter().for_each(|bin| line("", bin));
    }
    if let Some(held_out) = part(&audit["holdout"]) {
        line("held out", &held_out);
    }
    if let Some(turns) = turns(audit) {
        line("turns", &turns);
    }
    for (n, what) in fates(audit) {
        line(&n.to_string(), what);
    }
    text
}

/// What became of the rows, for the beginning of a run.
pub fn brief(audit: &Json) -> String {
    let train = part(&audit["train"]).unwrap_or_else(|| "no rows".to_owned());
    let held_out = audit["holdout"]["rows"].as_u64().filter(|rows| *rows > 0);
    let held_out = held_out.map_or(String::new(), |rows| format!("; {} held out", Count(rows)));
    let fates: Vec<String> = fates(audit).map(|(n, what)| format!("{n} {what}")).collect();
    let fates = if fates.is_empty() { String::new() } else { format!("  rows       {}\n", fates.join("; ")) };
    format!("  data       {train}{held_out}\n{fates}")
}

/// A line with a bar for each length; none where all rows have about the same.
fn histogram(bins: &[(u64, u64)]) -> Vec<String> {
    const WIDTH: u64 = 32;
    let most = bins.iter().map(|(_, rows)| *rows).max().unwrap_or(0).max(1);
    let wide = |numbers: &mut dyn Iterator<Item = u64>| {
        numbers.map(|n| Count(n).to_string().chars().count()).max().unwrap_or(0)
    };
    let length = wide(&mut bins.iter().map(|bin| bin.0));
    let rows = wide(&mut bins.iter().map(|bin| bin.1));
    let line = |(up_to, n): &(u64, u64)| {
        // In eighths of a column, and never nothing where there is something.
        let eighths = (n * WIDTH * 8).div_ceil(most) as usize;
        let last = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
        let (up_to, n) = (Count(*up_to).to_string(), Count(*n).to_string());
        format!("up to {up_to:>length$}  {n:>rows$}  {}{last}", "█".repeat(eighths / 8))
    };
    if bins.len() < 2 { Vec::new() } else { bins.iter().map(line).collect() }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_happened_to_rows_is_told_and_nothing_else() {
        let bin = |up_to: u64, rows: u64| json!({ "up_to": up_to, "rows": rows });
        let bins = [bin(8, 1), bin(16, 1156), bin(512, 6576)];
        let audit = json!({
            "rows": 8000, "cut": 3, "split": 0, "duplicates": 1200, "dropped": { "filtered": 0, "empty": 2 },
            "turns": { "assistant": { "all": 5, "learned": 5 }, "user": { "all": 5, "learned": 0 } },
            "train": { "rows": 7733, "sequences": 100, "tokens": 9, "trained_tokens": 4, "longest": 23, "fill": 0.954,
                "lengths": { "min": 7, "median": 20, "max": 300, "histogram": bins } },
            "holdout": { "rows": 0, "lengths": null },
        });
        expect![[r#"
            data rows
              read       8,000 rows
              train      7,733 rows, 9 tokens, 4 carry a loss, the longest has 23; packed into 100, 95.4 % full
              lengths    7 to 300 tokens, half of the rows have up to 20
                         up to   8      1  ▏
                         up to  16  1,156  █████▊
                         up to 512  6,576  ████████████████████████████████
              turns      5 assistant, all learned; 5 user
              3          were cut to max_length
              2          were dropped: nothing in them
              1,200      stand there more than once
        "#]]
        .assert_eq(&text("rows", &audit));
        assert_eq!(
            brief(&audit),
            "  data       7,733 rows, 9 tokens, 4 carry a loss, the longest has 23; packed into 100, 95.4 % full\n  \
             rows       3 were cut to max_length; 2 were dropped: nothing in them; 1,200 stand there more than once\n"
        );
        assert_eq!(histogram(&[(8, 5)]), Vec::<String>::new());
        assert_eq!(text("none", &json!({})), "data none\n  read       0 rows\n  train      no rows\n");
    }
}
