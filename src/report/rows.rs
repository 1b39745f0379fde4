//! Rows as the model will see them, the loss mask shown.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use crate::data::{Cached, Entry, Preview};
use crate::units::Bytes;

/// What carries a loss stands in brackets, or in green where there are colours.
pub fn rows(previews: &[Preview], colour: bool) -> String {
    let mut text = String::new();
    for (idx, preview) in previews.iter().enumerate() {
        let _ = writeln!(text, "row {}", idx + 1);
        for segment in &preview.segments {
            let trained = segment.tokens.iter().filter(|token| token.trained).count();
            let _ = match &segment.class {
                Some(class) => writeln!(text, "  {} tokens, class `{class}`", segment.tokens.len()),
                None => writeln!(text, "  {} tokens, {trained} carry a loss", segment.tokens.len()),
            };
            text.push_str("  ");
            let mut inside = false;
            for token in &segment.tokens {
                // Tokens with a class stand in brackets of their own.
                if token.class.is_some() && inside {
                    text.push_str(if colour { "\x1b[0m" } else { "]" });
                    inside = false;
                }
                if token.trained != inside {
                    text.push_str(match (colour, token.trained) {
                        (true, true) => "\x1b[32m",
                        (true, false) => "\x1b[0m",
                        (false, true) => "[",
                        (false, false) => "]",
                    });
                    inside = token.trained;
                }
                text.push_str(&token.text.replace('\n', "⏎\n  "));
                if let Some(class) = &token.class {
                    text.push_str(&format!(" = {class}"));
                }
            }
            if inside {
                text.push_str(if colour { "\x1b[0m" } else { "]" });
            }
            text.push_str("\n  ids ");
            let ids: Vec<String> = segment.tokens.iter().map(|token| token.id.to_string()).collect();
            text.push_str(&ids.join(" "));
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

/// Whether the rows were tokenised now or before, and what has changed since.
pub fn cached(cached: &Cached) -> String {
    match cached {
        Cached::Off => String::new(),
        Cached::Read => "  cache      the tokens were there\n".to_owned(),
        Cached::Made(changed) if changed.is_empty() => "  cache      tokenised and kept\n".to_owned(),
        Cached::Made(changed) => {
            let mut text = "  cache      tokenised anew:\n".to_owned();
            changed.iter().for_each(|change| text += &format!("             {change}\n"));
            text
        }
    }
}

/// What the token cache holds.
pub fn cache(folder: &Path, entries: &[Entry]) -> String {
    let mut text = String::new();
    for entry in entries {
        let key: String = entry.key.chars().take(12).collect();
        // Minutes are as fine as anyone needs.
        let unused = Duration::from_secs(entry.unused_for / 60 * 60);
        let _ = writeln!(
            text,
            "{key}  {:>11}  used {} ago  {}",
            Bytes(entry.bytes),
            humantime::format_duration(unused),
            entry.files.join(" ")
        );
    }
    let bytes = Bytes(entries.iter().map(|entry| entry.bytes).sum());
    let datasets = if entries.len() == 1 { "dataset" } else { "datasets" };
    let _ = writeln!(text, "{} {datasets} in {}, {bytes}", entries.len(), folder.display());
    text
}
