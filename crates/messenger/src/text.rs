//! Names and texts of others, made safe to print.
//!
//! What somebody else wrote may try to move the cursor, to change colours, to turn the direction of the
//! line, or to look empty (`spec/security.md` Q4). Nothing that passed through here can do any of it, so
//! screens and terminals print it as it is.

use std::fmt;

/// Longest name that is sent or taken, in bytes (`spec/security.md` Q4).
pub const NAME_BYTES_MAX: usize = 1000;

/// Longest name that is shown, in characters: a line of a narrow terminal. What is longer ends in `…`.
pub const NAME_CHARS_MAX: usize = 64;

/// Longest text of a message, in bytes: twenty pages. A Go node takes an entry that carries it.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;

/// How a person or a group is called, safe to print and never empty.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DisplayName(String);

/// Why a name cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing visible is left of it.
    #[error("a name needs at least one visible character")]
    Empty,
    /// It is longer than others would show.
    #[error("a name has at most {NAME_CHARS_MAX} characters")]
    TooLong,
}

impl DisplayName {
    /// Takes a name that the user chose.
    ///
    /// # Errors
    /// [`NameError`] when nothing visible is left, or more than [`NAME_CHARS_MAX`] characters are.
    pub fn chosen(name: &str) -> Result<Self, NameError> {
        let clean = clean_name(name);
        if clean.chars().count() > NAME_CHARS_MAX {
            return Err(NameError::TooLong);
        }
        if clean.is_empty() { Err(NameError::Empty) } else { Ok(Self(clean)) }
    }

    /// Takes a name that somebody else sent; `None` when it is too long to be one or nothing visible is left.
    pub fn received(name: &str) -> Option<Self> {
        if name.len() > NAME_BYTES_MAX {
            return None;
        }
        let mut clean = clean_name(name);
        if let Some((end, _)) = clean.char_indices().nth(NAME_CHARS_MAX) {
            clean.truncate(end);
            clean.pop();
            clean.push('…');
        }
        (!clean.is_empty()).then_some(Self(clean))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DisplayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Names are private: they show only where somebody prints them on purpose.
impl fmt::Debug for DisplayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DisplayName(..)")
    }
}

/// Makes a text safe to print. Line ends and tabs stay, a text longer than [`TEXT_BYTES_MAX`] ends in `…`.
pub fn printable(text: &str) -> String {
    let (kept, cut) = match floor_char_boundary(text, TEXT_BYTES_MAX) {
        end if end < text.len() => (text.get(..end).unwrap_or_default(), true),
        _ => (text, false),
    };
    let keeps = |c: &char| matches!(c, '\n' | '\t') || !(c.is_control() || turns_direction(*c));
    let mut shown: String = kept.chars().filter(keeps).collect();
    if cut {
        shown.push('…');
    }
    shown
}

/// Removes what does not belong into a name; a line end or a tab becomes a space, and spaces do not repeat.
fn clean_name(name: &str) -> String {
    let visible = name.chars().map(|c| if c.is_whitespace() { ' ' } else { c });
    let kept: String =
        visible.filter(|c| !(c.is_control() || turns_direction(*c) || is_invisible(*c))).collect();
    kept.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Embeddings, overrides and isolates: they change how everything after them is laid out.
const fn turns_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Characters that take no room or look like a space. Joiners and variation selectors are not among them:
/// scripts and emoji need those.
const fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{00ad}'
            | '\u{034f}'
            | '\u{061c}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{17b4}'
            | '\u{17b5}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{2060}'..='\u{2065}'
            | '\u{206a}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'
    )
}

/// The last character boundary at or before `end`.
fn floor_char_boundary(text: &str, end: usize) -> usize {
    if end >= text.len() {
        return text.len();
    }
    (0..=end).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str) -> Option<String> {
        DisplayName::received(name).map(|name| name.to_string())
    }

    #[test]
    fn names_lose_what_could_deceive() {
        assert_eq!(shown("Zoë Müller").as_deref(), Some("Zoë Müller"));
        assert_eq!(shown("  line\nbreak\t ").as_deref(), Some("line break"));
        assert_eq!(shown("\u{202e}gnp.exe").as_deref(), Some("gnp.exe"));
        assert_eq!(shown("\u{1b}[31mred\u{7}").as_deref(), Some("[31mred"));
        assert_eq!(shown("\u{9b}2J").as_deref(), Some("2J"));
        assert_eq!(shown("a\u{200b}b\u{2066}c").as_deref(), Some("abc"));
        assert_eq!(shown("👩\u{200d}🚀").as_deref(), Some("👩\u{200d}🚀"));
    }

    #[test]
    fn a_name_without_anything_visible_is_none() {
        for name in ["", " ", "\u{3164}", "\u{200b}\u{200f}", "\n\t", "\u{2800} \u{2800}"] {
            assert_eq!(shown(name), None, "{name:?}");
            assert_eq!(DisplayName::chosen(name), Err(NameError::Empty));
        }
    }

    #[test]
    fn names_have_a_length() {
        let long = "ä".repeat(65);
        assert_eq!(shown(&"ä".repeat(64)).as_deref(), Some(&*"ä".repeat(64)));
        assert_eq!(shown(&long).map(|name| name.chars().count()), Some(64));
        assert!(shown(&long).unwrap().ends_with('…'));
        assert_eq!(shown(&"x".repeat(NAME_BYTES_MAX + 1)), None);
        assert_eq!(DisplayName::chosen(&long), Err(NameError::TooLong));
    }

    #[test]
    fn names_do_not_show_in_logs() {
        assert_eq!(format!("{:?}", DisplayName::chosen("Ann").unwrap()), "DisplayName(..)");
    }

    #[test]
    fn texts_keep_their_lines_and_lose_escape_sequences() {
        assert_eq!(printable("a\nb\tc"), "a\nb\tc");
        assert_eq!(printable("a\r\nb"), "a\nb");
        assert_eq!(printable("\u{1b}]0;title\u{7}\u{202e}x\u{9c}"), "]0;titlex");
        assert_eq!(printable("שלום \u{200f}123"), "שלום \u{200f}123");
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let text = "ä".repeat(TEXT_BYTES_MAX);
        let shown = printable(&text);
        assert_eq!(shown.len(), TEXT_BYTES_MAX + '…'.len_utf8());
        assert_eq!(printable(&"x".repeat(TEXT_BYTES_MAX)).len(), TEXT_BYTES_MAX);
    }
}
