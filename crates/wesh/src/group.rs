//! Groups: what their members share, and what is derived from it (`spec/wesh-protocol.md` §1.5 to §1.9, §2.2).

use std::fmt;

use dunlin_base::kdf::{hkdf_sha3_256, hkdf_sha256};
use dunlin_base::keys::{KeyError, SymmetricKey};
use dunlin_base::kv::{ReadError, Tx};
use dunlin_base::{AccountId, DeviceId, GroupId, MemberId, PublicKey, SecretKey, Signature};
use dunlin_proto::protocol as proto;
use rand_core::{CryptoRng, RngCore};
use zeroize::Zeroizing;

use crate::errors::{Code, Coded};
use crate::keys::{AccountKeys, GROUP_DEVICE_KEY, KeyStoreError, load_key, random_key, store_key};

const SECRET_SIG: &str = "secret_sig";
const LINK_KEY_SIG: &str = "link_key_sig";

/// What a group is for. Decides which keys are used in it and which events mean something.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum GroupKind {
    /// The devices of one account.
    Account,
    /// Two accounts that are contacts.
    Contact,
    /// Everybody who holds an invitation.
    MultiMember,
}

impl GroupKind {
    /// The number of the kind on the wire.
    pub const fn number(self) -> i32 {
        match self {
            Self::Account => proto::GroupType::Account as i32,
            Self::Contact => proto::GroupType::Contact as i32,
            Self::MultiMember => proto::GroupType::MultiMember as i32,
        }
    }

    /// The kind with this number on the wire.
    pub fn from_number(number: i32) -> Option<Self> {
        [Self::Account, Self::Contact, Self::MultiMember].into_iter().find(|kind| kind.number() == number)
    }
}

/// Why a `Group` message is not accepted (`spec/security.md` C9).
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// The public key is none.
    #[error("the group key is not usable: {0}")]
    PublicKey(#[source] KeyError),
    /// The kind is unknown. Perhaps a newer version knows it.
    #[error("groups of type {number} are not known")]
    UnknownKind {
        /// Which number came.
        number: i32,
    },
    /// A field has another length than the one it always has, or is missing.
    #[error("the field {field} has {found} bytes, not {expected}")]
    Length {
        /// Which field.
        field: &'static str,
        /// What it always has.
        expected: usize,
        /// What came.
        found: usize,
    },
    /// A field holds something else than what follows from the secret: two members would not meet.
    #[error("the field {field} contradicts the secret")]
    Contradiction {
        /// Which field.
        field: &'static str,
    },
    /// A signature by the group key is wrong. Whoever sent this did not get it from a member.
    #[error("the signature {field} is not by the group key")]
    Forged {
        /// Which signature.
        field: &'static str,
    },
}

impl Coded for GroupError {
    fn codes(&self) -> Vec<Code> {
        // The first one is put around whatever is wrong with a group.
        vec![
            Code::ErrDeserialization,
            match self {
                Self::PublicKey(_) => Code::ErrDeserialization,
                Self::UnknownKind { .. } => Code::ErrInvalidInput,
                Self::Length { field: SECRET_SIG, .. } => Code::ErrCryptoSignatureVerification,
                Self::Length { .. } => Code::ErrInvalidInput,
                Self::Contradiction { .. } => Code::ErrInvalidInput,
                Self::Forged { .. } => Code::ErrCryptoSignatureVerification,
            },
        ]
    }
}

/// A group, as a member knows it. Checked when built; shows none of its secrets.
#[derive(Clone)]
pub struct Group {
    id: GroupId,
    kind: GroupKind,
    secret: SymmetricKey,
    signing: SecretKey,
    link_key: SymmetricKey,
    /// Only multi-member groups have signatures by the group key.
    signatures: Option<Signatures>,
}

/// What the group key signed before it was dropped.
#[derive(Clone, Copy)]
struct Signatures {
    secret: Signature,
    link_key: Option<Signature>,
}

impl Group {
    /// The group of the devices of one account (`spec/wesh-protocol.md` §1.6).
    pub fn account(keys: &AccountKeys) -> Self {
        let id = GroupId::new(keys.account.public());
        Self::derive(id, GroupKind::Account, SymmetricKey::from_bytes(*keys.proof.seed()), None)
    }

    /// The group of this account and `other` (`spec/wesh-protocol.md` §1.5): both sides derive the same.
    ///
    /// # Errors
    /// [`KeyError::NotContributory`] when no secret can be shared with `other`.
    pub fn contact(keys: &AccountKeys, other: &AccountId) -> Result<Self, KeyError> {
        let pair = keys.contact_pair_key(other)?;
        let seeds = hkdf_sha256::<64>(pair.to_keypair_bytes().as_slice(), &[]);
        let (group, secret) = halves(&seeds);
        let id = GroupId::new(SecretKey::from_seed(*group).public());
        Ok(Self::derive(id, GroupKind::Contact, SymmetricKey::from_bytes(*secret), None))
    }

    /// Makes a new multi-member group (`spec/wesh-protocol.md` §1.7).
    ///
    /// The group key comes along to sign the first event of the log ([`crate::metadata::seal_by_group`]).
    /// It is used for nothing else, and nobody keeps it.
    pub fn new_multi_member(rng: &mut (impl RngCore + CryptoRng + ?Sized)) -> (Self, SecretKey) {
        let key = random_key(rng);
        let secret = SymmetricKey::from_bytes(*random_key(rng).seed());
        (Self::of_group_key(&key, secret), key)
    }

    fn of_group_key(key: &SecretKey, secret: SymmetricKey) -> Self {
        let id = GroupId::new(key.public());
        let link_key = link_key(&secret, &id);
        let signatures =
            Signatures { secret: key.sign(secret.as_bytes()), link_key: Some(key.sign(link_key.as_bytes())) };
        Self::derive(id, GroupKind::MultiMember, secret, Some(signatures))
    }

    /// Takes a group from outside, such as an invitation (`spec/security.md` C9).
    ///
    /// A multi-member group needs its `secret_sig`. `link_key_sig` is checked whenever it is there;
    /// `sign_pub` and `link_key` may be there only with the values that follow from the secret.
    ///
    /// # Errors
    /// [`GroupError`].
    pub fn from_proto(group: &proto::Group) -> Result<Self, GroupError> {
        let id = GroupId::from_bytes(&group.public_key).map_err(GroupError::PublicKey)?;
        let kind = GroupKind::from_number(group.group_type)
            .ok_or(GroupError::UnknownKind { number: group.group_type })?;
        let secret = SymmetricKey::from_slice(&group.secret).ok_or(GroupError::Length {
            field: "secret",
            expected: 32,
            found: group.secret.len(),
        })?;
        let signatures = match kind {
            GroupKind::Account | GroupKind::Contact => {
                absent(SECRET_SIG, &group.secret_sig)?;
                absent(LINK_KEY_SIG, &group.link_key_sig)?;
                None
            }
            GroupKind::MultiMember => Some(Signatures::from_proto(&id, &secret, group)?),
        };
        let group_made = Self::derive(id, kind, secret, signatures);
        same_or_absent("sign_pub", &group.sign_pub, group_made.sign_pub().as_bytes())?;
        same_or_absent("link_key", &group.link_key, group_made.link_key.as_bytes())?;
        Ok(group_made)
    }

    /// The message that makes a member of whoever receives it.
    pub fn to_proto(&self) -> proto::Group {
        let signature_bytes = |signature: Signature| signature.as_bytes().to_vec();
        proto::Group {
            public_key: self.id.as_bytes().to_vec(),
            secret: self.secret.as_bytes().to_vec(),
            secret_sig: self.signatures.map(|all| signature_bytes(all.secret)).unwrap_or_default(),
            group_type: self.kind.number(),
            sign_pub: Vec::new(),
            link_key: Vec::new(),
            link_key_sig: self
                .signatures
                .and_then(|all| all.link_key)
                .map(signature_bytes)
                .unwrap_or_default(),
        }
    }

    /// The message for a server that carries the group without being able to read it
    /// (`spec/wesh-protocol.md` §7.1).
    pub fn to_replica_proto(&self) -> proto::Group {
        proto::Group {
            secret: Vec::new(),
            secret_sig: Vec::new(),
            group_type: proto::GroupType::Undefined.into(),
            sign_pub: self.sign_pub().as_bytes().to_vec(),
            link_key: self.link_key.as_bytes().to_vec(),
            ..self.to_proto()
        }
    }

    fn derive(id: GroupId, kind: GroupKind, secret: SymmetricKey, signatures: Option<Signatures>) -> Self {
        let signing = SecretKey::from_seed(*secret.as_bytes());
        let link_key = link_key(&secret, &id);
        Self { id, kind, secret, signing, link_key, signatures }
    }

    /// What the group is for.
    pub fn kind(&self) -> GroupKind {
        self.kind
    }

    /// Identifies the group.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// The secret of the members: seals metadata events and message headers.
    pub fn secret(&self) -> &SymmetricKey {
        &self.secret
    }

    /// The key that signs log entries (`spec/wesh-protocol.md` §1.8). Every member has it.
    pub fn signing_key(&self) -> &SecretKey {
        &self.signing
    }

    /// The public half of [`Self::signing_key`], which proves entries to those without the secret.
    pub fn sign_pub(&self) -> PublicKey {
        self.signing.public()
    }

    /// The key that seals heads payloads and seeds their token (`spec/wesh-protocol.md` §1.9).
    pub fn link_key(&self) -> &SymmetricKey {
        &self.link_key
    }
}

impl Signatures {
    fn from_proto(id: &GroupId, secret: &SymmetricKey, group: &proto::Group) -> Result<Self, GroupError> {
        let by_secret = signature(SECRET_SIG, &group.secret_sig)?;
        verify(SECRET_SIG, id, secret, &by_secret)?;
        let by_link_key = match group.link_key_sig.as_slice() {
            [] => None,
            bytes => {
                let found = signature(LINK_KEY_SIG, bytes)?;
                verify(LINK_KEY_SIG, id, &link_key(secret, id), &found)?;
                Some(found)
            }
        };
        Ok(Self { secret: by_secret, link_key: by_link_key })
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("id", &self.id).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.kind == other.kind && self.secret == other.secret
    }
}

impl Eq for Group {}

/// The keys of this device's member of one group.
#[derive(Clone, Debug)]
pub struct OwnMember {
    /// The key of the member, the same on all devices of the account.
    pub member: SecretKey,
    /// The key of the device.
    pub device: SecretKey,
}

impl OwnMember {
    /// The keys of the account in `group` (`spec/wesh-protocol.md` §1.10).
    ///
    /// A multi-member group gets a device key of its own, drawn from `rng` and stored in `tx` when the
    /// group is first met.
    ///
    /// # Errors
    /// [`ReadError`], also when the stored device key is damaged.
    pub fn in_group(
        keys: &AccountKeys,
        group: &Group,
        tx: &mut Tx<'_>,
        rng: &mut (impl RngCore + CryptoRng + ?Sized),
    ) -> Result<Self, ReadError> {
        match group.kind {
            GroupKind::Account => Ok(Self { member: keys.account.clone(), device: keys.device.clone() }),
            GroupKind::Contact => Ok(Self { member: keys.account.clone(), device: keys.device.clone() }),
            GroupKind::MultiMember => Self::in_multi_member_group(keys, group.id, tx, rng).map_err(into_read),
        }
    }

    fn in_multi_member_group(
        keys: &AccountKeys,
        group: GroupId,
        tx: &mut Tx<'_>,
        rng: &mut (impl RngCore + CryptoRng + ?Sized),
    ) -> Result<Self, KeyStoreError> {
        let member = keys
            .member_key_in(group)
            .map_err(|source| KeyStoreError::Damaged { name: format!("memberSK_{group}"), source })?;
        let name = format!("{GROUP_DEVICE_KEY}{group}");
        if let Some(device) = load_key(tx, &name)? {
            return Ok(Self { member, device });
        }
        let device = random_key(rng);
        store_key(tx, &name, &device);
        Ok(Self { member, device })
    }

    /// Identifies the member.
    pub fn member_id(&self) -> MemberId {
        MemberId::new(self.member.public())
    }

    /// Identifies the device.
    pub fn device_id(&self) -> DeviceId {
        DeviceId::new(self.device.public())
    }
}

/// Damage is met by opening the engine again, like a store that cannot be read.
fn into_read(error: KeyStoreError) -> ReadError {
    match error {
        KeyStoreError::Read(error) => error,
        damage => ReadError(Box::new(damage)),
    }
}

fn link_key(secret: &SymmetricKey, id: &GroupId) -> SymmetricKey {
    SymmetricKey::from_bytes(*hkdf_sha3_256::<32>(secret.as_bytes(), id.as_bytes()))
}

/// Splits 64 derived bytes into two seeds.
fn halves(bytes: &[u8; 64]) -> (Zeroizing<[u8; 32]>, Zeroizing<[u8; 32]>) {
    let mut halves = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]));
    let (first, second) = bytes.split_at(32);
    halves.0.copy_from_slice(first);
    halves.1.copy_from_slice(second);
    halves
}

fn signature(field: &'static str, bytes: &[u8]) -> Result<Signature, GroupError> {
    Signature::from_slice(bytes).ok_or(GroupError::Length { field, expected: 64, found: bytes.len() })
}

fn verify(
    field: &'static str,
    id: &GroupId,
    signed: &SymmetricKey,
    signature: &Signature,
) -> Result<(), GroupError> {
    id.key().verify(signed.as_bytes(), signature).map_err(|_| GroupError::Forged { field })
}

fn absent(field: &'static str, bytes: &[u8]) -> Result<(), GroupError> {
    if bytes.is_empty() { Ok(()) } else { Err(GroupError::Length { field, expected: 0, found: bytes.len() }) }
}

fn same_or_absent(field: &'static str, bytes: &[u8], derived: &[u8; 32]) -> Result<(), GroupError> {
    match bytes.len() {
        0 => Ok(()),
        32 if bytes == derived => Ok(()),
        32 => Err(GroupError::Contradiction { field }),
        found => Err(GroupError::Length { field, expected: 32, found }),
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
