//! Lengths of what is sealed (`spec/security.md` E10, §3.4; `docs/formats/message.md`).
//!
//! A sealed text is as long as the text, which tells much to who sees nothing else. So what is sealed is made
//! longer, up to the next bucket: zeros in an unknown field of the empty `ProtocolMetadata` that every
//! message and every metadata event carries. Go nodes ignore it, and it costs them nothing but the bytes.

use dunlin_base::seal::SEAL_OVERHEAD;

/// Sealed lengths up to which everything is made longer to one of a few; above, PADMÉ makes a length tell as
/// much as a floating-point number with a short mantissa, for at most an eighth more bytes.
pub const BUCKETS: [usize; 5] = [256, 512, 1024, 2048, 4096];

/// The tag of the padding, field 1000 of `ProtocolMetadata`, length-delimited.
const PAD_TAG: [u8; 2] = [0xc2, 0x3e];

/// How long a sealed text is made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Padding {
    /// Up to the next bucket. Whatever leaves this node is sealed so.
    #[default]
    Buckets,
    /// Not at all, and nothing else is added either, as Go nodes write: to compare with what they wrote.
    Bare,
}

/// The field of the outer message that holds the `ProtocolMetadata`, and is its last one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Carrier {
    /// Field 2 of `EncryptedMessage`.
    Message = 0x12,
    /// Field 4 of `GroupMetadata`.
    Metadata = 0x22,
}

impl Padding {
    /// Ends `clear`, a serialized message without its `ProtocolMetadata`, with that field.
    pub(crate) fn close(self, clear: &mut Vec<u8>, carrier: Carrier) {
        self.close_with(clear, carrier, &[]);
    }

    /// The same, where the `ProtocolMetadata` begins with the fields `within`.
    pub(crate) fn close_with(self, clear: &mut Vec<u8>, carrier: Carrier, within: &[u8]) {
        match self {
            Self::Buckets => clear.extend(padded_tail(clear.len(), carrier, within)),
            Self::Bare => {
                clear.push(carrier as u8);
                // A vector takes any number of bytes.
                let _ = prost::encode_length_delimiter(within.len(), clear);
                clear.extend_from_slice(within);
            }
        }
    }
}

/// The shortest bucket in which `sealed` bytes have room.
pub fn bucket_of(sealed: usize) -> usize {
    match BUCKETS.into_iter().find(|bucket| sealed <= *bucket) {
        Some(bucket) => bucket,
        None => {
            let exponent = sealed.ilog2();
            let mantissa = exponent.ilog2().saturating_add(1);
            sealed.next_multiple_of(1 << exponent.saturating_sub(mantissa))
        }
    }
}

/// The metadata field that makes a message of `before` bytes fill a bucket once it is sealed. A gap that no
/// field fills exactly moves to the next bucket.
fn padded_tail(before: usize, carrier: Carrier, within: &[u8]) -> Vec<u8> {
    let sealed = before.saturating_add(SEAL_OVERHEAD);
    let content = |bytes: usize| Some([within, &pads_of(bytes.checked_sub(within.len())?)?].concat());
    let mut bucket = bucket_of(sealed.saturating_add(within.len()));
    loop {
        let gap = bucket.saturating_sub(sealed);
        if let Some(tail) = field_of(&[carrier as u8], gap, content) {
            return tail;
        }
        bucket = bucket_of(bucket.saturating_add(1));
    }
}

/// Padding of exactly `bytes`, in one field or in two.
fn pads_of(bytes: usize) -> Option<Vec<u8>> {
    if bytes == 0 {
        return Some(Vec::new());
    }
    let zeros = |count| Some(vec![0; count]);
    if let Some(one) = field_of(&PAD_TAG, bytes, zeros) {
        return Some(one);
    }
    let mut two = [PAD_TAG.as_slice(), &[0]].concat();
    two.extend(field_of(&PAD_TAG, bytes.checked_sub(two.len())?, zeros)?);
    Some(two)
}

/// A length-delimited field of exactly `bytes`, whose content is made to measure; `None` if there is none,
/// since the length of its length jumps.
fn field_of(tag: &[u8], bytes: usize, content: impl Fn(usize) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    (1..=usize::BITS as usize / 7).find_map(|length_bytes| {
        let inner = bytes.checked_sub(tag.len())?.checked_sub(length_bytes)?;
        if prost::length_delimiter_len(inner) != length_bytes {
            return None;
        }
        let mut field = Vec::with_capacity(bytes);
        field.extend_from_slice(tag);
        prost::encode_length_delimiter(inner, &mut field).ok()?;
        field.extend(content(inner)?);
        Some(field)
    })
}

#[cfg(test)]
mod tests {
    use dunlin_proto::protocol::{EncryptedMessage, GroupMetadata, ProtocolMetadata};
    use prost::Message as _;

    use super::*;

    /// Whether `sealed` is one of the lengths of `spec/security.md` §3.4, found in another way than above.
    fn is_bucket(sealed: usize) -> bool {
        if sealed <= 4096 {
            return [256, 512, 1024, 2048, 4096].contains(&sealed);
        }
        let exponent = (sealed as f64).log2().floor();
        let kept = (exponent.log2().floor() + 1.0) as u32;
        sealed.trailing_zeros() >= exponent as u32 - kept
    }

    /// `spec/security.md` E10: every length of text lands on a bucket, and whoever knows nothing of padding reads
    /// the same text.
    #[test]
    fn padded_lengths() {
        let text = vec![0x61; 70_001];
        let mut most = 0.0_f64;
        for length in 0..=70_000 {
            let message = EncryptedMessage { plaintext: text[..length].to_vec(), protocol_metadata: None };
            let mut clear = message.encode_to_vec();
            let before = clear.len();
            Padding::Buckets.close(&mut clear, Carrier::Message);
            let sealed = clear.len() + SEAL_OVERHEAD;
            assert!(is_bucket(sealed), "a text of {length} bytes is sealed in {sealed}");
            if before > 4096 {
                most = most.max(clear.len() as f64 / before as f64);
            }
            let opened = EncryptedMessage::decode(clear.as_slice()).unwrap();
            assert_eq!(opened.plaintext, message.plaintext);
            assert_eq!(opened.protocol_metadata, Some(ProtocolMetadata::default()));
        }
        assert!(most <= 1.13, "{most}");
    }

    #[test]
    fn what_is_within_is_padded_too() {
        let within = [vec![0xd2, 0x3e, 40], vec![7; 40]].concat();
        for length in 0..=9_000 {
            let message = EncryptedMessage { plaintext: vec![0x61; length], protocol_metadata: None };
            for padding in [Padding::Buckets, Padding::Bare] {
                let mut clear = message.encode_to_vec();
                let before = clear.len();
                padding.close_with(&mut clear, Carrier::Message, &within);
                assert!(padding == Padding::Bare || is_bucket(clear.len() + SEAL_OVERHEAD));
                assert!(clear[before..].windows(within.len()).any(|window| window == within));
                assert_eq!(EncryptedMessage::decode(clear.as_slice()).unwrap().plaintext, message.plaintext);
            }
        }
    }

    #[test]
    fn metadata_is_padded_outside_its_signature() {
        for length in 0..=9_000 {
            let event = GroupMetadata {
                event_type: 1001,
                payload: vec![0x61; length],
                sig: vec![0x62; 64],
                protocol_metadata: None,
            };
            let mut clear = event.encode_to_vec();
            Padding::Buckets.close(&mut clear, Carrier::Metadata);
            assert!(is_bucket(clear.len() + SEAL_OVERHEAD));
            let opened = GroupMetadata::decode(clear.as_slice()).unwrap();
            assert_eq!((opened.payload, opened.sig), (event.payload, event.sig));
        }
    }

    #[test]
    fn lengths_of_the_specification() {
        let lengths =
            [(1, 256), (256, 256), (257, 512), (4096, 4096), (4097, 4352), (5000, 5120), (70_000, 71_680)];
        for (sealed, bucket) in lengths {
            assert_eq!(bucket_of(sealed), bucket);
        }
    }

    #[test]
    fn a_gap_is_filled_by_one_field_or_two() {
        assert!(pads_of(0).unwrap().is_empty());
        assert_eq!(pads_of(3).unwrap(), [0xc2, 0x3e, 0]);
        assert_eq!(pads_of(4).unwrap(), [0xc2, 0x3e, 1, 0]);
        for bytes in (3..1000).chain(16_300..16_500) {
            assert_eq!(pads_of(bytes).unwrap().len(), bytes);
        }
        // With a length of one byte a field has up to 130, with one of two at least 132.
        assert_eq!(pads_of(131).unwrap()[..5], [0xc2, 0x3e, 0, 0xc2, 0x3e]);
        assert_eq!([pads_of(1), pads_of(2)], [None, None]);
    }

    #[test]
    fn bare_is_what_go_writes() {
        let message = EncryptedMessage { plaintext: b"hello".to_vec(), protocol_metadata: None };
        let mut clear = message.encode_to_vec();
        Padding::Bare.close(&mut clear, Carrier::Message);
        let go = EncryptedMessage { protocol_metadata: Some(ProtocolMetadata::default()), ..message };
        assert_eq!(clear, go.encode_to_vec());
    }
}
