//! Delimited frames: an unsigned varint length, then that many bytes.

/// Longest varint that is accepted: a 64-bit value in ten groups of seven bits.
const VARINT_BYTES_MAX: usize = 10;

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The announced length is above the limit of the protocol. Close the stream.
    #[error("a frame of {announced} bytes was announced, {limit} are allowed")]
    TooLong {
        /// What the prefix says.
        announced: u64,
        /// What the protocol allows.
        limit: usize,
    },
    /// The length prefix is not a varint of at most 64 bits in its shortest form. Close the stream.
    #[error("the length prefix is malformed")]
    Prefix,
}

/// Appends the frame of `body` to `out`.
pub fn write_frame(out: &mut Vec<u8>, body: &[u8]) {
    let mut buffer = unsigned_varint::encode::u64_buffer();
    out.extend_from_slice(unsigned_varint::encode::u64(body.len() as u64, &mut buffer));
    out.extend_from_slice(body);
}

/// The first part of a stream and what follows it.
pub type Split<'b, T> = (T, &'b [u8]);

/// Takes the first frame off `bytes`: `Ok(None)` while more bytes are needed, otherwise its body and
/// what follows.
///
/// The length is compared with `limit` as soon as the prefix is there, before any body byte is
/// (`spec/security.md` N1).
///
/// # Errors
/// [`FrameError`]; nothing that follows on this stream can be understood.
pub fn split_frame(bytes: &[u8], limit: usize) -> Result<Option<Split<'_, &[u8]>>, FrameError> {
    let Some((length, rest)) = split_length(bytes, limit)? else { return Ok(None) };
    Ok(rest.split_at_checked(length))
}

/// Takes a length prefix off `bytes`: `Ok(None)` while more bytes are needed.
///
/// # Errors
/// [`FrameError`].
pub fn split_length(bytes: &[u8], limit: usize) -> Result<Option<Split<'_, usize>>, FrameError> {
    let (length, rest) = match unsigned_varint::decode::u64(bytes) {
        Ok(parsed) => parsed,
        Err(unsigned_varint::decode::Error::Insufficient) if bytes.len() < VARINT_BYTES_MAX => {
            return Ok(None);
        }
        Err(_) => return Err(FrameError::Prefix),
    };
    // The decoder drops what does not fit 64 bits; the tenth group has room for one.
    let used = bytes.len().saturating_sub(rest.len());
    if used == VARINT_BYTES_MAX && bytes.get(used.saturating_sub(1)).is_none_or(|last| *last > 1) {
        return Err(FrameError::Prefix);
    }
    match usize::try_from(length) {
        Ok(fits) if fits <= limit => Ok(Some((fits, rest))),
        _ => Err(FrameError::TooLong { announced: length, limit }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prefixes at and around every edge, for a limit of 2,048.
    #[test]
    fn frame_lengths() {
        type Case<'b> = (&'b [u8], Result<Option<usize>, FrameError>);
        let cases: [Case<'_>; 10] = [
            (&[], Ok(None)),
            (&[0x80], Ok(None)),
            (&[0x00], Ok(Some(0))),
            (&[0x80, 0x10], Ok(Some(2048))),
            (&[0x81, 0x10], Err(FrameError::TooLong { announced: 2049, limit: 2048 })),
            (&[0x80, 0x80, 0x80, 0x80, 0x10], Err(FrameError::TooLong { announced: 1 << 32, limit: 2048 })),
            (
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
                Err(FrameError::TooLong { announced: u64::MAX, limit: 2048 }),
            ),
            (&[0xff; 10], Err(FrameError::Prefix)),
            (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x0a], Err(FrameError::Prefix)),
            (&[0x80, 0x00], Err(FrameError::Prefix)),
        ];
        for (bytes, expected) in cases {
            let got = split_length(bytes, 2048).map(|parsed| parsed.map(|(length, _)| length));
            assert_eq!(got, expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn frames_survive_any_split() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &[7; 300]);
        write_frame(&mut bytes, b"next");
        for end in 0..302 {
            assert_eq!(split_frame(&bytes[..end], 2048), Ok(None));
        }
        let (body, rest) = split_frame(&bytes, 2048).unwrap().unwrap();
        assert_eq!(body, [7; 300]);
        assert_eq!(split_frame(rest, 2048).unwrap().unwrap(), (&b"next"[..], &b""[..]));
    }
}
