//! Edits of a text: what a fix takes out and puts in, so that the rest keeps its layout.

use crate::problem::{Edit, Span};

use super::source::Sources;

/// Takes out what stands at a place: with its line, where nothing else stands on it, and else with the white
/// space beside it.
pub(super) fn removal(text: &str, span: Span) -> Edit {
    let is_space = |c: char| matches!(c, ' ' | '\t');
    let before = text[..span.start].trim_end_matches(is_space).len();
    let behind = text.len() - text[span.end..].trim_start_matches(is_space).len();
    let leads = before == 0 || text[..before].ends_with(['\n', '\r']);
    let line_end = ["\r\n", "\n", "\r"].into_iter().find(|end| text[behind..].starts_with(end));
    let removed = match (leads, line_end) {
        (true, Some(end)) => Span::new(before, behind + end.len()),
        (true, None) => Span::new(span.start, behind),
        (false, _) => Span::new(before, span.end),
    };
    Edit { span: removed, text: String::new() }
}

/// Puts an entry at the end of a block, whose span ends in the closing brace.
fn appended(text: &str, block: Span, entry: &str) -> Option<Edit> {
    let brace = block.end.checked_sub(1).filter(|at| text[*at..].starts_with('}'))?;
    let line = text[..brace].rfind('\n').map_or(0, |at| at + 1);
    let indent = &text[line..brace];
    if line > block.start && indent.trim().is_empty() {
        let indent = format!("{indent}    ");
        return Some(Edit { span: Span::new(line, line), text: format!("{indent}{entry}\n") });
    }
    let spaced = text[..brace].ends_with(' ');
    Some(Edit { span: Span::new(brace, brace), text: format!("{}{entry} ", if spaced { "" } else { " " }) })
}

/// Takes out what stands at a place of all sources.
pub(super) fn remove(sources: &Sources, span: Span) -> Option<Edit> {
    let (i, own) = sources.locate(span);
    let Edit { span, text } = removal(&sources.get(i)?.text, own);
    Some(Edit { span: sources.place(i, span), text })
}

/// Puts an entry at the end of a block of any source.
pub(super) fn append(sources: &Sources, block: Span, entry: &str) -> Option<Edit> {
    let (i, own) = sources.locate(block);
    let Edit { span, text } = appended(&sources.get(i)?.text, own, entry)?;
    Some(Edit { span: sources.place(i, span), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(text: &str, edit: Edit) -> String {
        format!("{}{}{}", &text[..edit.span.start], edit.text, &text[edit.span.end..])
    }

    #[test]
    fn what_is_taken_out_leaves_no_gap() {
        let check = |text: &str, left: &str| {
            let start = text.find('X').expect("X marks what is taken out");
            assert_eq!(apply(text, removal(text, Span::new(start, start + 1))), left);
        };
        check("a\n  X\nb\n", "a\nb\n");
        check("a\n  X  # why\nb\n", "a\n  # why\nb\n");
        check("a X b", "a b");
        check("{ X }", "{ }");
        check("a,X\n", "a,\n");
        check("X\r\nb", "b");
    }

    #[test]
    fn what_is_put_in_follows_the_layout() {
        let check = |text: &str, with: &str| {
            let edit = appended(text, Span::new(0, text.len()), "b = 2").expect("it ends in a brace");
            assert_eq!(apply(text, edit), with);
        };
        check("x {\n    a = 1\n}", "x {\n    a = 1\n    b = 2\n}");
        check("x { a = 1 }", "x { a = 1 b = 2 }");
        check("x {}", "x { b = 2 }");
        assert_eq!(appended("x { a = 1", Span::new(0, 9), "b = 2"), None);
    }
}
