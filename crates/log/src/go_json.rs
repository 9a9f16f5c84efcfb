//! JSON text as Go's `encoding/json` writes it, where signatures and addresses depend on each byte.

/// Appends `text` as a JSON string.
///
/// Go escapes more than JSON asks for: `<`, `>`, `&`, U+2028 and U+2029 (`spec/ipfs-log.md` §8, point 2).
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain_from = 0;
    for (at, character) in text.char_indices() {
        if !is_escaped(character) {
            continue;
        }
        out.push_str(text.get(plain_from..at).unwrap_or_default());
        push_escape(out, character);
        plain_from = at.saturating_add(character.len_utf8());
    }
    out.push_str(text.get(plain_from..).unwrap_or_default());
    out.push('"');
}

fn is_escaped(character: char) -> bool {
    matches!(character, '\0'..='\x1f' | '"' | '\\' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}')
}

fn push_escape(out: &mut String, character: char) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        other => {
            const DIGITS: [char; 16] =
                ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
            out.push_str("\\u");
            let code = u32::from(other);
            for shift in [12, 8, 4, 0] {
                let digit = (code >> shift) & 0xf;
                out.extend(usize::try_from(digit).ok().and_then(|at| DIGITS.get(at)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        let cases = [
            ("", r#""""#),
            ("plain åäö 😀 \u{7f}", "\"plain åäö 😀 \u{7f}\""),
            ("\"quoted\" \\ / 'x'", r#""\"quoted\" \\ / 'x'""#),
            ("<b>&</b>", r#""\u003cb\u003e\u0026\u003c/b\u003e""#),
            ("a\u{2028}b\u{2029}c", r#""a\u2028b\u2029c""#),
            ("\x08\x0c\n\r\t\0\x01\x0b\x1f", r#""\b\f\n\r\t\u0000\u0001\u000b\u001f""#),
        ];
        for (text, expected) in cases {
            let mut out = String::new();
            push_string(&mut out, text);
            assert_eq!(out, expected);
        }
    }
}
