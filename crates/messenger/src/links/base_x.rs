//! Bytes as a number in another base: what the blobs of links are written in.

/// Symbols of a base. Leading zero bytes become as many leading first symbols, and back.
pub(super) struct Alphabet(&'static [u8]);

/// The 58 symbols of Bitcoin: easy to tell apart, nothing to escape in a URL.
pub(super) const BASE58: Alphabet = Alphabet(b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz");

/// What QR codes have a short form for, without space, `%` and `+`.
pub(super) const QR: Alphabet = Alphabet(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789$*-.:/");

impl Alphabet {
    /// Writes `bytes` in symbols. The time grows with the square of their number: links have a limit.
    pub fn encode(&self, bytes: &[u8]) -> String {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let digits = change_base(bytes.iter().map(|byte| u32::from(*byte)), 256, self.base());
        let symbols = std::iter::repeat_n(0, zeros).chain(digits);
        symbols.filter_map(|digit| self.0.get(digit as usize)).map(|symbol| char::from(*symbol)).collect()
    }

    /// Reads symbols back; `None` when one is not of the alphabet.
    pub fn decode(&self, text: &str) -> Option<Vec<u8>> {
        let position = |symbol: u8| self.0.iter().position(|own| *own == symbol);
        let digits: Vec<u32> = text.bytes().map(|b| position(b)?.try_into().ok()).collect::<Option<_>>()?;
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        let bytes = change_base(digits.iter().copied(), self.base(), 256);
        Some(std::iter::repeat_n(0, zeros).chain(bytes.map(|byte| byte as u8)).collect())
    }

    const fn base(&self) -> u32 {
        self.0.len() as u32
    }
}

/// The digits of the same number in base `to`, largest first, without leading zeros. No base is above 256.
fn change_base(digits: impl Iterator<Item = u32>, from: u32, to: u32) -> impl Iterator<Item = u32> {
    let mut number: Vec<u32> = Vec::new();
    for digit in digits {
        let mut carry = digit;
        for place in &mut number {
            carry += *place * from;
            *place = carry % to;
            carry /= to;
        }
        while carry > 0 {
            number.push(carry % to);
            carry /= to;
        }
    }
    number.into_iter().rev()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_base58() {
        assert_eq!(BASE58.encode(b"Hello World!"), "2NEpo7TZRRrLZSi2U");
        assert_eq!(BASE58.decode("2NEpo7TZRRrLZSi2U").unwrap(), b"Hello World!");
        assert_eq!(BASE58.encode(&[0, 0, 0x28, 0x7f, 0xb4, 0xcd]), "11233QC4");
    }

    #[test]
    fn both_alphabets_give_back_what_they_took() {
        let samples: [&[u8]; 6] = [b"", &[0], &[0, 0, 1], &[255; 40], &[0, 255, 0], b"\x01\x00"];
        for bytes in samples {
            assert_eq!(BASE58.decode(&BASE58.encode(bytes)).unwrap(), bytes);
            assert_eq!(QR.decode(&QR.encode(bytes)).unwrap(), bytes);
        }
    }

    #[test]
    fn other_symbols_are_refused() {
        for text in ["0", "O", "I", "l", "a b", "é", "\u{0}"] {
            assert_eq!(BASE58.decode(text), None, "{text:?}");
        }
        for text in ["a", "A B", "%", "+", "!"] {
            assert_eq!(QR.decode(text), None, "{text:?}");
        }
    }
}
