//! QR codes in a terminal: two modules in each character cell.

use qrcode::types::{Color, QrError};
use qrcode::{EcLevel, QrCode};

/// Modules of empty space around the code. The standard asks for four.
pub const QUIET_MAX: usize = 4;
/// Phones read a code with less space too.
pub const QUIET_MIN: usize = 1;

/// A QR code.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Qr {
    /// Row by row; true is dark.
    modules: Vec<bool>,
    side: usize,
}

impl Qr {
    /// Encodes a link; `None` when it is too long. A link of the form `BERTY://PB/` takes the alphanumeric
    /// mode, which makes the code a third smaller. Little error correction is needed on a screen.
    pub fn of(link: &str) -> Option<Self> {
        let encoded: Result<QrCode, QrError> =
            QrCode::with_error_correction_level(link.as_bytes(), EcLevel::L);
        let code = encoded.ok()?;
        let side = code.width();
        let modules = code.into_colors().into_iter().map(|module| module == Color::Dark).collect();
        Some(Self { modules, side })
    }

    /// Columns and rows that it takes with so much space around it.
    pub fn size(&self, quiet: usize) -> (usize, usize) {
        let side = self.side + 2 * quiet;
        (side, side.div_ceil(2))
    }

    /// The lines of the code, to be shown dark on light.
    pub fn lines(&self, quiet: usize) -> Vec<String> {
        let (columns, rows) = self.size(quiet);
        let line = |row: usize| {
            let cell = |column: usize| match (
                self.is_dark(column, 2 * row, quiet),
                self.is_dark(column, 2 * row + 1, quiet),
            ) {
                (false, false) => ' ',
                (true, false) => '▀',
                (false, true) => '▄',
                (true, true) => '█',
            };
            (0..columns).map(cell).collect()
        };
        (0..rows).map(line).collect()
    }

    /// The code as text. On a terminal, the colours are set; elsewhere it is right where text is light on dark.
    pub fn for_output(&self, coloured: bool) -> String {
        let mut text = String::new();
        for line in self.lines(QUIET_MAX) {
            if coloured {
                text.push_str("\u{1b}[30;107m");
                text.push_str(&line);
                text.push_str("\u{1b}[0m");
            } else {
                text.extend(line.chars().map(inverted));
            }
            text.push('\n');
        }
        text
    }

    /// Whether a module is dark; outside the code all are light.
    fn is_dark(&self, column: usize, row: usize, quiet: usize) -> bool {
        let inside = |position: usize| position.checked_sub(quiet).filter(|position| *position < self.side);
        let (Some(column), Some(row)) = (inside(column), inside(row)) else { return false };
        self.modules.get(row * self.side + column).copied().unwrap_or(false)
    }
}

/// The cell with light and dark exchanged.
fn inverted(cell: char) -> char {
    match cell {
        ' ' => '█',
        '▀' => '▄',
        '▄' => '▀',
        _ => ' ',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As long as the link of somebody called "Ann of the harbour".
    const LINK: &str = "BERTY://PB/5FUD0CK7LR37.YQGHB7V4E*YW1J4*ADXVRVK$EJZBTJPOVGPT2AWGA7QWVJD20QZ.ZK0A5XK\
                        R:GJR2PJ*Q0LT5Q0QGPAOL8KB0WJ5A1J69Z3XQ7AFP0EF5J5T3";

    #[test]
    fn a_contact_link_fits_a_terminal_of_24_rows() {
        let (columns, rows) = Qr::of(LINK).unwrap().size(QUIET_MIN);
        assert!(columns <= 40 && rows <= 21, "{columns}x{rows}");
    }

    #[test]
    fn lines_are_whole() {
        let qr = Qr::of(LINK).unwrap();
        let (columns, rows) = qr.size(QUIET_MAX);
        let lines = qr.lines(QUIET_MAX);
        assert_eq!(lines.len(), rows);
        assert!(lines.iter().all(|line| line.chars().count() == columns));
        assert_eq!(lines.first().unwrap().trim(), "");
    }

    #[test]
    fn too_long_is_none() {
        assert_eq!(Qr::of(&"A".repeat(5_000)), None);
    }
}
