//! What a device can do beyond what Go devices can (`docs/formats/context.md`, `spec/security.md` §3.1).
//!
//! A statement travels in field 1001 of an event 1 of its device, which Go skips, and carries a signature of its own: the
//! payload of an event 1 is the same in all groups in which a device has the same key, and the statement is for one.
//! What a device can do never becomes less, whatever comes in which order.

use dunlin_base::{DeviceId, GroupId, SecretKey, Signature};
use prost::Message;

/// The version of the statement that is written here.
const VERSION: u32 = 1;
/// Longest statement that is read: the longest that can be written, and room for what later versions add.
const CAPS_BYTES_MAX: usize = 4096;
/// Most suites of one statement.
const SUITES_MAX: usize = 64;
/// Bytes of a key for the encapsulation of keys, where there is one.
const KEM_KEY_BYTES: usize = 1216;
/// What a statement ends with: its signature, field 6.
const SIGNATURE_TAG: [u8; 2] = [0x32, 64];
const SIGNED_AS: &[u8] = b"weshx/caps/1";

/// What a device can do, a set of bits.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Features(u64);

impl Features {
    /// The device signs contexts: [`crate::context`].
    pub const CONTEXTS: Self = Self(1);
    /// It has done so in this group from the first: whatever is without one is not from here.
    pub const CONTEXTS_ALWAYS: Self = Self(2);

    /// The bits, those that are unknown here included.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// These bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Whether all of `others` are among these.
    pub const fn include(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// These and those.
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

/// What a device says it can do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Capabilities {
    /// The version of the statement.
    pub version: u32,
    /// The cipher suites that the device has for keys of the group; none so far.
    pub suites: Vec<u16>,
    /// What it can do.
    pub features: Features,
    /// The key with which others give it keys; none so far.
    pub kem_key: Vec<u8>,
    /// Later statements have higher numbers.
    pub seq: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Carrier {
    #[prost(bytes = "vec", optional, tag = "1001")]
    caps: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(uint32, repeated, tag = "2")]
    suites: Vec<u32>,
    #[prost(uint64, tag = "3")]
    features: u64,
    #[prost(bytes = "vec", tag = "4")]
    kem_key: Vec<u8>,
    #[prost(uint64, tag = "5")]
    seq: u64,
}

impl Capabilities {
    /// What a device of this version can do.
    pub(crate) fn current(features: Features, seq: u64) -> Self {
        Self { version: VERSION, suites: Vec::new(), features, kem_key: Vec::new(), seq }
    }

    /// The field that carries the statement of `device` for `group`, to be put behind the payload of an event 1.
    pub(crate) fn to_field(&self, group: &GroupId, device: &SecretKey) -> Vec<u8> {
        let wire = Wire {
            version: self.version,
            suites: self.suites.iter().map(|suite| u32::from(*suite)).collect(),
            features: self.features.bits(),
            kem_key: self.kem_key.clone(),
            seq: self.seq,
        };
        let said = wire.encode_to_vec();
        let signature = device.sign(&signed_bytes(group, &DeviceId::new(device.public()), &said));
        let caps = [said.as_slice(), &SIGNATURE_TAG, signature.as_bytes()].concat();
        Carrier { caps: Some(caps) }.encode_to_vec()
    }

    /// The statement of `device` for `group` in the payload of an event 1, and its bytes; none when there is none that is
    /// as it should be.
    pub(super) fn in_payload(payload: &[u8], group: &GroupId, device: &DeviceId) -> Option<(Self, Vec<u8>)> {
        let caps = Carrier::decode(payload).ok()?.caps.filter(|caps| caps.len() <= CAPS_BYTES_MAX)?;
        let (said, signature) = caps.split_at_checked(caps.len().checked_sub(66)?)?;
        let signature = Signature::from_slice(signature.strip_prefix(&SIGNATURE_TAG)?)?;
        device.key().verify(&signed_bytes(group, device, said), &signature).ok()?;
        let read = Self::decode(said)?;
        Some((read, caps))
    }

    /// A statement that was kept with its signature.
    pub(super) fn restore(caps: &[u8]) -> Option<Self> {
        Self::decode(caps.get(..caps.len().checked_sub(66)?)?)
    }

    fn decode(said: &[u8]) -> Option<Self> {
        let wire = Wire::decode(said).ok()?;
        let is_sound = wire.version > 0
            && wire.suites.len() <= SUITES_MAX
            && matches!(wire.kem_key.len(), 0 | KEM_KEY_BYTES);
        let suites = wire.suites.iter().map(|suite| u16::try_from(*suite)).collect::<Result<_, _>>().ok()?;
        is_sound.then_some(Self {
            version: wire.version,
            suites,
            features: Features(wire.features),
            kem_key: wire.kem_key,
            seq: wire.seq,
        })
    }
}

fn signed_bytes(group: &GroupId, device: &DeviceId, said: &[u8]) -> Vec<u8> {
    [SIGNED_AS, group.as_bytes(), device.as_bytes(), said].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(first: u8) -> GroupId {
        GroupId::new(SecretKey::from_seed([first; 32]).public())
    }

    #[test]
    fn a_statement_is_for_one_group_and_one_device() {
        let key = SecretKey::from_seed([5; 32]);
        let device = DeviceId::new(key.public());
        let caps = Capabilities::current(Features::CONTEXTS, 3);
        let field = caps.to_field(&group(1), &key);
        assert_eq!(field[..9], [0xca, 0x3e, 72, 0x08, 1, 0x18, 1, 0x28, 3]);
        assert_eq!(field[9..11], [0x32, 64]);
        let payload = [&[0x0a, 1, 7][..], &field].concat();
        let (read, kept) = Capabilities::in_payload(&payload, &group(1), &device).unwrap();
        assert_eq!((&read, Capabilities::restore(&kept).as_ref()), (&caps, Some(&caps)));

        assert_eq!(Capabilities::in_payload(&payload, &group(2), &device), None);
        let other = DeviceId::new(SecretKey::from_seed([6; 32]).public());
        assert_eq!(Capabilities::in_payload(&payload, &group(1), &other), None);
        let mut more = payload.clone();
        more[3 + 6] = 3;
        assert_eq!(Capabilities::in_payload(&more, &group(1), &device), None);
        assert_eq!(Capabilities::in_payload(&[0x0a, 1, 7], &group(1), &device), None);
    }

    #[test]
    fn statements_of_later_versions_are_read() {
        let key = SecretKey::from_seed([5; 32]);
        let device = DeviceId::new(key.public());
        let caps = Capabilities {
            version: 2,
            suites: vec![1, 0xffff],
            features: Features::from_bits(0x101),
            kem_key: vec![9; KEM_KEY_BYTES],
            seq: u64::MAX,
        };
        let field = caps.to_field(&group(1), &key);
        assert_eq!(
            Capabilities::in_payload(&field, &group(1), &device).map(|(read, _)| read),
            Some(caps.clone())
        );
        for unsound in [
            Capabilities { version: 0, ..caps.clone() },
            Capabilities { suites: vec![1; SUITES_MAX + 1], ..caps.clone() },
            Capabilities { kem_key: vec![1; 32], ..caps },
        ] {
            let field = unsound.to_field(&group(1), &key);
            assert_eq!(Capabilities::in_payload(&field, &group(1), &device), None);
        }
    }
}
