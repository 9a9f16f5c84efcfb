//! Frames of a link and the keys that seal them. The layout is drawn in `docs/formats/linking.md`.

use dunlin_base::PeerId;
use dunlin_base::kdf::{hkdf_sha256, hmac_sha256, sha256};
use dunlin_base::keys::{AgreementKey, KeyError, SymmetricKey};
use dunlin_base::seal::{Nonce, open, seal};
use subtle_eq::equal;
use zeroize::Zeroizing;

use super::text::Secret;
use super::{Code, FRAME_BYTES_MAX, Reason, VERSION};

/// The kinds of frames.
const COMMIT: u8 = 1;
const OFFER: u8 = 2;
const OPEN: u8 = 3;
const PROOF: u8 = 4;
const WAIT: u8 = 5;
const DATA: u8 = 6;
const DONE: u8 = 7;
const REFUSE: u8 = 8;

/// Names a link towards those who know its secret, without showing it.
pub(super) type LinkId = [u8; 8];

/// A frame that was taken apart.
pub(super) enum Frame<'f> {
    Commit { version: u8, id: LinkId, commitment: [u8; 32] },
    Offer { ephemeral: [u8; 32], random: [u8; 32] },
    Open { ephemeral: [u8; 32], random: [u8; 32], mac: [u8; 32] },
    Proof { mac: [u8; 32] },
    Wait,
    Data(&'f [u8]),
    Done(&'f [u8]),
    Refuse(Reason),
}

impl<'f> Frame<'f> {
    /// Takes a frame apart; `None` for what is none.
    pub fn parse(frame: &'f [u8]) -> Option<Self> {
        if frame.len() > FRAME_BYTES_MAX {
            return None;
        }
        let (kind, body) = frame.split_first()?;
        Some(match *kind {
            COMMIT => {
                let (version, rest) = body.split_first()?;
                // A later version may say more; this much of it stays.
                let (id, rest) = rest.split_first_chunk()?;
                let commitment = *rest.first_chunk()?;
                if *version == VERSION && rest.len() != 32 {
                    return None;
                }
                Self::Commit { version: *version, id: *id, commitment }
            }
            OFFER => {
                let (ephemeral, random) = body.split_first_chunk()?;
                Self::Offer { ephemeral: *ephemeral, random: random.try_into().ok()? }
            }
            OPEN => {
                let (ephemeral, rest) = body.split_first_chunk()?;
                let (random, mac) = rest.split_first_chunk()?;
                Self::Open { ephemeral: *ephemeral, random: *random, mac: mac.try_into().ok()? }
            }
            PROOF => Self::Proof { mac: body.try_into().ok()? },
            WAIT if body.is_empty() => Self::Wait,
            DATA => Self::Data(body),
            DONE => Self::Done(body),
            REFUSE => {
                let [reason] = body else { return None };
                Self::Refuse(Reason::from_byte(*reason))
            }
            _ => return None,
        })
    }
}

pub(super) fn commit(id: &LinkId, commitment: &[u8; 32]) -> Vec<u8> {
    [&[COMMIT, VERSION], id.as_slice(), commitment].concat()
}

pub(super) fn offer(ephemeral: &[u8; 32], random: &[u8; 32]) -> Vec<u8> {
    [&[OFFER], ephemeral.as_slice(), random].concat()
}

pub(super) fn open_commitment(ephemeral: &[u8; 32], random: &[u8; 32], mac: &[u8; 32]) -> Vec<u8> {
    [&[OPEN], ephemeral.as_slice(), random, mac].concat()
}

pub(super) fn proof(mac: &[u8; 32]) -> Vec<u8> {
    [&[PROOF], mac.as_slice()].concat()
}

pub(super) fn wait() -> Vec<u8> {
    vec![WAIT]
}

pub(super) fn data(sealed: &[u8]) -> Vec<u8> {
    [&[DATA], sealed].concat()
}

pub(super) fn done(sealed: &[u8]) -> Vec<u8> {
    [&[DONE], sealed].concat()
}

pub(super) fn refuse(reason: Reason) -> Vec<u8> {
    vec![REFUSE, reason.to_byte()]
}

/// Names the link of `secret`.
pub(super) fn link_id(secret: &Secret) -> LinkId {
    *hkdf_sha256::<8>(secret.as_bytes(), b"dunlin/link/1 id")
}

/// What the new device commits to before it sees anything of the old one.
pub(super) fn commitment(ephemeral: &[u8; 32], random: &[u8; 32]) -> [u8; 32] {
    sha256(&[b"dunlin/link/1 commit", ephemeral, random])
}

/// All that both sides said and are.
pub(super) struct Transcript<'t> {
    pub id: &'t LinkId,
    pub old: &'t PeerId,
    pub new: &'t PeerId,
    pub commitment: &'t [u8; 32],
    pub old_ephemeral: &'t [u8; 32],
    pub old_random: &'t [u8; 32],
    pub new_ephemeral: &'t [u8; 32],
    pub new_random: &'t [u8; 32],
}

impl Transcript<'_> {
    fn hash(&self) -> [u8; 32] {
        let length = |peer: &PeerId| [u8::try_from(peer.as_bytes().len()).unwrap_or(u8::MAX)];
        sha256(&[
            b"dunlin/link/1",
            self.id,
            &length(self.old),
            self.old.as_bytes(),
            &length(self.new),
            self.new.as_bytes(),
            self.commitment,
            self.old_ephemeral,
            self.old_random,
            self.new_ephemeral,
            self.new_random,
        ])
    }
}

/// What both sides have agreed on.
pub(super) struct Session {
    pub old_mac: [u8; 32],
    new_mac: [u8; 32],
    pub to_new: Lane,
    pub to_old: Lane,
    pub code: Code,
}

impl Session {
    /// Agrees with the owner of `other`.
    pub fn agree(
        own: &AgreementKey,
        other: &[u8; 32],
        secret: &Secret,
        transcript: &Transcript<'_>,
    ) -> Result<Self, KeyError> {
        let shared = own.agree(other)?;
        let material = Zeroizing::new([shared.as_bytes().as_slice(), secret.as_bytes()].concat());
        let transcript = transcript.hash();
        let info = [b"dunlin/link/1 keys".as_slice(), &transcript].concat();
        let keys = hkdf_sha256::<136>(&material, &info);
        let key = |number: usize| {
            let bytes = keys.chunks(32).nth(number).unwrap_or_default();
            SymmetricKey::from_slice(bytes).unwrap_or_else(|| SymmetricKey::from_bytes([0; 32]))
        };
        let mac = |number| hmac_sha256(key(number).as_bytes(), &transcript);
        let code = keys.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes)).unwrap_or_default();
        Ok(Self {
            new_mac: mac(0),
            old_mac: mac(1),
            to_new: Lane { key: key(2), next: 0 },
            to_old: Lane { key: key(3), next: 0 },
            code: Code::of(code),
        })
    }

    pub fn new_mac(&self) -> &[u8; 32] {
        &self.new_mac
    }

    /// Whether the new device knows the secret and saw the same.
    pub fn is_new_mac(&self, mac: &[u8; 32]) -> bool {
        equal(&self.new_mac, mac)
    }

    /// Whether the old device knows the secret and saw the same.
    pub fn is_old_mac(&self, mac: &[u8; 32]) -> bool {
        equal(&self.old_mac, mac)
    }
}

/// One direction, whose frames are numbered.
pub(super) struct Lane {
    key: SymmetricKey,
    next: u64,
}

impl Lane {
    pub fn seal(&mut self, clear: &[u8]) -> Vec<u8> {
        let nonce = self.nonce();
        seal(&self.key, nonce, clear)
    }

    pub fn open(&mut self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let nonce = self.nonce();
        open(&self.key, nonce.as_bytes(), sealed).ok().map(Zeroizing::new)
    }

    fn nonce(&mut self) -> Nonce {
        let nonce = Nonce::of_counter(self.next);
        self.next = self.next.saturating_add(1);
        nonce
    }
}

/// Comparison that takes the same time wherever the difference is.
mod subtle_eq {
    use dunlin_base::keys::SymmetricKey;

    pub fn equal(one: &[u8; 32], other: &[u8; 32]) -> bool {
        SymmetricKey::from_bytes(*one) == SymmetricKey::from_bytes(*other)
    }
}
