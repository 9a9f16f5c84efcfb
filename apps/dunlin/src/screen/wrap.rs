//! Lines that fit a width.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// Columns of a tab; texts are not tables.
const TAB: &str = "    ";

/// Breaks a text into lines of at most `width` columns: at its own line ends, between words, and inside a
/// word only if it is longer than a line.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    text.split('\n').flat_map(|line| wrap_line(&line.replace('\t', TAB), width)).collect()
}

fn wrap_line(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split_inclusive(' ') {
        // The space after a word may hang over the edge; it is cut off there.
        let columns = word.trim_end_matches(' ').width();
        if used + columns > width && columns <= width {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        for letter in word.graphemes(true) {
            let columns = letter.width();
            if used + columns > width && letter != " " {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push_str(letter);
            used += columns;
        }
    }
    lines.push(line);
    lines.iter().map(|line| line.trim_end_matches(' ').to_owned()).collect()
}

/// The beginning of a text, so that it takes at most `width` columns; `…` stands for what is missing.
pub fn shorten(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut used = 1;
    for letter in text.graphemes(true) {
        used += letter.width();
        if used > width {
            break;
        }
        short.push_str(letter);
    }
    if width > 0 {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaks_between_words() {
        assert_eq!(wrap("the tide turns at noon", 10), ["the tide", "turns at", "noon"]);
        assert_eq!(wrap("a\n\nb", 10), ["a", "", "b"]);
        assert_eq!(wrap("", 10), [""]);
    }

    #[test]
    fn breaks_a_long_word_only_when_it_must() {
        assert_eq!(wrap("see abcdefghijkl", 8), ["see abcd", "efghijkl"]);
        assert_eq!(wrap("abc", 0), ["a", "b", "c"]);
    }

    #[test]
    fn counts_columns_and_not_letters() {
        assert_eq!(wrap("渡り鳥が渡る", 6), ["渡り鳥", "が渡る"]);
        assert_eq!(wrap("👩‍🚀👩‍🚀👩‍🚀", 4), ["👩‍🚀👩‍🚀", "👩‍🚀"]);
        assert_eq!(shorten("渡り鳥", 5), "渡り…");
        assert_eq!(shorten("Ben", 3), "Ben");
        assert_eq!(shorten("Benno", 3), "Be…");
        assert_eq!(shorten("Ben", 0), "");
    }

    #[test]
    fn no_line_is_wider_than_asked() {
        let text = "Grüße, 渡り鳥! https://example.org/a/very/long/path?x=1 👩‍🚀 end";
        for width in 2..40 {
            assert!(wrap(text, width).iter().all(|line| line.width() <= width), "{width}");
        }
    }
}
