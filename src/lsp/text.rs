//! Places as an editor counts them: lines, and units of the encoding that was agreed on.

use std::path::{Path, PathBuf};

use lsp_types::{Position, PositionEncodingKind, Range, TextDocumentContentChangeEvent, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::lang::load::normal;
use crate::problem::Span;

/// What a column is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    Utf16,
    Utf32,
}

impl Encoding {
    /// Bytes where the client offers them, and else what every client speaks.
    pub fn agreed(offered: &[PositionEncodingKind]) -> Self {
        if offered.contains(&PositionEncodingKind::UTF8) { Encoding::Utf8 } else { Encoding::Utf16 }
    }

    pub fn kind(self) -> PositionEncodingKind {
        match self {
            Encoding::Utf8 => PositionEncodingKind::UTF8,
            Encoding::Utf16 => PositionEncodingKind::UTF16,
            Encoding::Utf32 => PositionEncodingKind::UTF32,
        }
    }

    fn units(self, char: char) -> usize {
        match self {
            Encoding::Utf8 => char.len_utf8(),
            Encoding::Utf16 => char.len_utf16(),
            Encoding::Utf32 => 1,
        }
    }
}

/// Where the lines of a text begin. Lines end as the protocol says: `\n`, `\r\n` or `\r`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    pub fn new(text: &str) -> Self {
        let bytes = text.as_bytes();
        let ends = bytes.iter().enumerate().filter(|(i, byte)| match byte {
            b'\n' => true,
            b'\r' => bytes.get(i + 1) != Some(&b'\n'),
            _ => false,
        });
        let starts = std::iter::once(0).chain(ends.map(|(i, _)| i + 1)).collect();
        Self { starts }
    }

    /// The line of a byte, from 0.
    pub fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at).saturating_sub(1)
    }

    /// The place of a byte; inside a character, of the character.
    pub fn position(&self, text: &str, at: usize, encoding: Encoding) -> Position {
        let at = floor(text, at);
        let line = self.line(at);
        let start = self.starts[line];
        let column: usize = text[start..at].chars().map(|char| encoding.units(char)).sum();
        Position { line: line as u32, character: column as u32 }
    }

    /// The byte of a place; behind the end of a line, the line's end; behind the last line, the text's end.
    pub fn byte(&self, text: &str, position: Position, encoding: Encoding) -> usize {
        let Some(start) = self.starts.get(position.line as usize).copied() else { return text.len() };
        let end = self.starts.get(position.line as usize + 1).copied().unwrap_or(text.len());
        let line = text[start..end].trim_end_matches(['\n', '\r']);
        let mut left = position.character as usize;
        for (i, char) in line.char_indices() {
            let units = encoding.units(char);
            if left < units {
                return start + i;
            }
            left -= units;
        }
        start + line.len()
    }

    pub fn range(&self, text: &str, span: Span, encoding: Encoding) -> Range {
        let place = |at| self.position(text, at, encoding);
        Range { start: place(span.start), end: place(span.end.max(span.start)) }
    }

    pub fn span(&self, text: &str, range: Range, encoding: Encoding) -> Span {
        let start = self.byte(text, range.start, encoding);
        Span::new(start, self.byte(text, range.end, encoding).max(start))
    }
}

/// The last byte at or before `at` at which a character begins.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The text after edits, one after the other.
pub fn edited(mut text: String, changes: Vec<TextDocumentContentChangeEvent>, encoding: Encoding) -> String {
    for change in changes {
        match change {
            TextDocumentContentChangeEvent::TextDocumentContentChangeWholeDocument(whole) => {
                text = whole.text
            }
            TextDocumentContentChangeEvent::TextDocumentContentChangePartial(part) => {
                let span = Lines::new(&text).span(&text, part.range, encoding);
                text.replace_range(span.start..span.end, &part.text);
            }
        }
    }
    text
}

/// What stands as it is in the path of a `file:` address.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The address of a file.
pub fn uri(path: &Path) -> Uri {
    let path = path.to_string_lossy().replace('\\', "/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    Uri(format!("file://{slash}{}", utf8_percent_encode(&path, PLAIN)))
}

/// The file of an address; none where it is no file.
pub fn path(uri: &Uri) -> Option<PathBuf> {
    let rest = uri.as_ref().strip_prefix("file://")?;
    let rest = rest.strip_prefix("localhost").unwrap_or(rest);
    let path = percent_decode_str(rest).decode_utf8().ok()?;
    // `/c:/models` is `c:/models`.
    let drive = path.as_bytes().get(2) == Some(&b':') && path.starts_with('/');
    Some(normal(Path::new(if drive { &path[1..] } else { &path })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lsp_types::TextDocumentContentChangePartial;

    #[test]
    fn columns_are_counted_in_the_agreed_unit() {
        // `é` is two bytes and one unit, `😀` four bytes and two units of UTF-16.
        let text = "aé😀b\r\nx\ry\nz";
        let check = |at: usize, encoding, line, character| {
            let lines = Lines::new(text);
            let position = lines.position(text, at, encoding);
            assert_eq!(position, Position { line, character }, "byte {at}");
            assert_eq!(lines.byte(text, position, encoding), at, "{position:?}");
        };
        check(0, Encoding::Utf16, 0, 0);
        check(3, Encoding::Utf16, 0, 2);
        check(7, Encoding::Utf16, 0, 4);
        check(7, Encoding::Utf8, 0, 7);
        check(7, Encoding::Utf32, 0, 3);
        check(8, Encoding::Utf16, 0, 5);
        check(10, Encoding::Utf16, 1, 0);
        check(12, Encoding::Utf16, 2, 0);
        check(14, Encoding::Utf16, 3, 0);
        check(15, Encoding::Utf16, 3, 1);
    }

    #[test]
    fn places_that_are_not_there_are_the_nearest_that_are() {
        let text = "a😀\nb";
        let byte =
            |line, character| Lines::new(text).byte(text, Position { line, character }, Encoding::Utf16);
        assert_eq!(byte(0, 2), 1, "inside a pair");
        assert_eq!(byte(0, 99), 5, "behind a line");
        assert_eq!(byte(9, 0), 7, "behind the text");
        assert_eq!(Lines::new(text).position(text, 3, Encoding::Utf16), Position { line: 0, character: 1 });
    }

    #[test]
    fn edits_apply_in_turn() {
        let part = |line, from, to, text: &str| {
            let at = |character| Position { line, character };
            #[expect(deprecated, reason = "the field is there")]
            TextDocumentContentChangeEvent::TextDocumentContentChangePartial(
                TextDocumentContentChangePartial {
                    range: Range { start: at(from), end: at(to) },
                    range_length: None,
                    text: text.into(),
                },
            )
        };
        let changes = vec![part(0, 1, 3, "bc"), part(0, 2, 3, "d\ne"), part(1, 1, 1, "!")];
        assert_eq!(edited("a😀".into(), changes, Encoding::Utf16), "abd\ne!");
    }

    #[test]
    fn files_have_addresses() {
        let check = |file: &str, address: &str| {
            assert_eq!(uri(Path::new(file)).as_ref(), address);
            assert_eq!(path(&Uri(address.into())), Some(PathBuf::from(file)));
        };
        check("/a/b c.hift", "file:///a/b%20c.hift");
        check("/é/#1?.hift", "file:///%C3%A9/%231%3F.hift");
        assert_eq!(path(&Uri("untitled:Untitled-1".into())), None);
        assert_eq!(path(&Uri("file:///c%3A/a.hift".into())), Some(PathBuf::from("c:/a.hift")));
        assert_eq!(path(&Uri("file:///a/%FF".into())), None);
    }
}
