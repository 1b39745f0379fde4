//! `hift explain`

use super::{Failure, print};
use crate::explain::{self, Explanation};
use crate::problem::{Fault, Problem};

#[derive(Debug, clap::Args)]
pub struct Explain {
    /// A code as it stands above a problem, whole or only its end, such as `unknown_key`; all of them by default
    code: Option<String>,
}

impl Explain {
    pub fn run(self) -> Result<(), Failure> {
        let Some(code) = self.code else {
            let width = explain::all().map(|own| own.code.len()).max().unwrap_or(0);
            let lines = explain::all().map(|own| format!("{:width$}  {}\n", own.code, own.line));
            return Ok(print(&lines.collect::<String>())?);
        };
        match explain::named(&code) {
            Ok(found) => {
                let texts: Vec<String> = found.into_iter().map(text).collect();
                Ok(print(&texts.join("\n"))?)
            }
            Err(meant) => {
                let message = format!("there is no code `{code}`");
                let problem = Problem::of(Fault::Usage, "hift::cli::no_code", message);
                Err(problem
                    .help(match meant {
                        Some(meant) => format!("did you mean `hift explain {meant}`?"),
                        None => "call `hift explain` for a list of all codes".to_owned(),
                    })
                    .into())
            }
        }
    }
}

/// As it is read on a terminal.
fn text(explanation: &Explanation) -> String {
    let Explanation { code, line, text, example } = explanation;
    let mut shown = format!("hift::{code}\n\n{line}\n\n{}", wrapped(text, 100));
    if let Some(example) = example {
        for (title, part) in [("Before", example.before), ("After", example.after)] {
            shown.push_str(&format!("\n{title}:\n\n"));
            part.lines().for_each(|line| shown.push_str(&format!("    {line}\n")));
        }
    }
    shown
}

/// Lines of at most so many characters, broken between words.
fn wrapped(text: &str, width: usize) -> String {
    let mut lines = String::new();
    let mut length = 0;
    for word in text.split(' ') {
        let own = word.chars().count();
        if length > 0 && length + 1 + own > width {
            lines.push('\n');
            length = 0;
        } else if length > 0 {
            lines.push(' ');
            length += 1;
        }
        lines.push_str(word);
        length += own;
    }
    lines.push('\n');
    lines
}
