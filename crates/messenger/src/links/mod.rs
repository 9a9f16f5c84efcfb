//! Links and QR codes: how people and groups are passed around.
//!
//! ```
//! use dunlin_messenger::links::{Link, LinkError};
//!
//! let text = "https://berty.tech/id#contact/oZBLFpbGYAEhTMNpRbBTor8mrdkr4uy4phZgcAvR7rYsbgy37aXG33PVKHZF3nfqgRjjbBx\
//!             o5H3akgB47N8jSuH1mpybSJL/name=Ann";
//! let Link::Contact(contact) = Link::parse(text)? else { panic!("it is one") };
//! assert_eq!(contact.name.unwrap().as_str(), "Ann");
//! assert!(matches!(Link::parse("https://example.org/ann"), Err(LinkError::WrongHost)));
//! # Ok::<(), LinkError>(())
//! ```
//!
//! Two layers: [`wire`] turns text into protobuf and back and makes every link of the existing network
//! again, byte for byte. [`Link`] is what can be used: its keys are keys and its signatures are right
//! (`spec/security.md` C9). A group link holds the secret of the group: whoever has it can read and join
//! for ever.

mod base_x;
pub mod passphrase;
pub mod wire;

use data_encoding::BASE64URL_NOPAD;
use dunlin_base::keys::KeyError;
use dunlin_base::{AccountId, EntryId, GroupId};
use dunlin_proto::messenger::berty_link::{Encrypted, Kind};
use dunlin_proto::messenger::{BertyGroup, BertyId, BertyLink, berty_link};
use dunlin_proto::protocol::GroupType;
use dunlin_wesh::contact::Contact;
use dunlin_wesh::group::{Group, GroupError, GroupKind};

use crate::text::DisplayName;

/// Why a link cannot be used. Each says it in a sentence; nothing was changed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The text is something else.
    #[error("this is no link: links begin with https://berty.tech/id# or BERTY://PB/")]
    NoLink,
    /// The text is longer than any link.
    #[error("this is too long for a link")]
    TooLong,
    /// It leads elsewhere.
    #[error("this link leads somewhere else: links of contacts and groups begin with https://berty.tech/id#")]
    WrongHost,
    /// A kind or form that nobody has told us of.
    #[error("the link comes from another version: links of this kind are not known here")]
    OtherVersion,
    /// It stops before its end, or a part is empty.
    #[error("a part of the link is missing: copy it as a whole")]
    Incomplete,
    /// Characters are wrong or missing.
    #[error("the link is damaged: some of its characters are wrong or missing")]
    Damaged,
    /// A field has not the length that it always has.
    #[error("the link is damaged: its {field} has {found} bytes instead of {expected}")]
    Length {
        /// Which field.
        field: &'static str,
        /// What it always has.
        expected: usize,
        /// What came.
        found: usize,
    },
    /// The account key is none.
    #[error("the link is damaged: {0}")]
    Key(KeyError),
    /// The group is not as its members would give it away.
    #[error("the link is damaged: {0}")]
    Group(GroupError),
    /// Only contacts and groups of several members can be passed around.
    #[error("the link leads to something that cannot be shared")]
    NotForSharing,
    /// Ask the user, then try again.
    #[error("the link is protected: it needs its passphrase")]
    PasswordNeeded,
    /// Ask the user again.
    #[error("the passphrase is wrong, or the link is damaged")]
    PasswordWrong,
}

/// A link that can be used.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "a link lives for one call")]
pub enum Link {
    /// A person to ask.
    Contact(ContactLink),
    /// A group to join.
    Group(GroupLink),
    /// A contact or a group, under a passphrase.
    Encrypted(EncryptedLink),
    /// A message on the device where the link was made.
    Message(MessageLink),
}

/// Leads to a person.
#[derive(Clone, Eq, PartialEq)]
pub struct ContactLink {
    /// Where the requests of the account are received.
    pub seed: [u8; 32],
    /// The account.
    pub account: AccountId,
    /// How whoever made the link calls the account.
    pub name: Option<DisplayName>,
}

/// Leads into a group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupLink {
    /// The group, with its secret.
    pub group: Group,
    /// How whoever made the link calls the group.
    pub name: Option<DisplayName>,
}

/// Leads to whoever knows the passphrase.
#[derive(Clone, Debug, PartialEq)]
pub struct EncryptedLink {
    /// The name, which is not protected.
    pub name: Option<DisplayName>,
    sealed: Encrypted,
}

impl Eq for EncryptedLink {}

/// Leads to a message of a local account.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MessageLink {
    /// The folder of the account on its device.
    pub account: String,
    /// The conversation.
    pub group: GroupId,
    /// The message.
    pub entry: EntryId,
}

impl Link {
    /// Reads either form, with or without white space around it.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn parse(text: &str) -> Result<Self, LinkError> {
        Self::from_wire(&wire::from_text(text.trim())?)
    }

    /// Reads a link that may be protected; an empty passphrase is none.
    ///
    /// # Errors
    /// [`LinkError::PasswordNeeded`] and [`LinkError::PasswordWrong`] among others.
    pub fn parse_with(text: &str, passphrase: &str) -> Result<Self, LinkError> {
        match Self::parse(text)? {
            Self::Encrypted(_) if passphrase.is_empty() => Err(LinkError::PasswordNeeded),
            Self::Encrypted(link) => link.open(passphrase),
            open => Ok(open),
        }
    }

    /// Checks what [`wire`] read.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn from_wire(link: &BertyLink) -> Result<Self, LinkError> {
        wire::check_form(link)?;
        match (link.kind(), link) {
            (Kind::ContactInviteV1Kind, BertyLink { berty_id: Some(id), .. }) => {
                ContactLink::from_wire(id).map(Self::Contact)
            }
            (Kind::GroupV1Kind, BertyLink { berty_group: Some(group), .. }) => {
                GroupLink::from_wire(group).map(Self::Group)
            }
            (Kind::EncryptedV1Kind, BertyLink { encrypted: Some(sealed), .. }) => {
                EncryptedLink::from_wire(sealed).map(Self::Encrypted)
            }
            (Kind::MessageV1Kind, BertyLink { berty_message_ref: Some(message), .. }) => {
                MessageLink::from_wire(message).map(Self::Message)
            }
            _ => Err(LinkError::Incomplete),
        }
    }

    /// The link as protobuf.
    pub fn to_wire(&self) -> BertyLink {
        match self {
            Self::Contact(link) => BertyLink {
                kind: Kind::ContactInviteV1Kind.into(),
                berty_id: Some(link.to_wire()),
                ..BertyLink::default()
            },
            Self::Group(link) => BertyLink {
                kind: Kind::GroupV1Kind.into(),
                berty_group: Some(link.to_wire()),
                ..BertyLink::default()
            },
            Self::Encrypted(link) => BertyLink {
                kind: Kind::EncryptedV1Kind.into(),
                encrypted: Some(link.sealed.clone()),
                ..BertyLink::default()
            },
            Self::Message(link) => BertyLink {
                kind: Kind::MessageV1Kind.into(),
                berty_message_ref: Some(link.to_wire()),
                ..BertyLink::default()
            },
        }
    }

    /// The form for chats and the web.
    pub fn web(&self) -> String {
        // A checked link has the form that this asks for.
        wire::to_web(&self.to_wire()).unwrap_or_default()
    }

    /// The form for QR codes: use their alphanumeric mode.
    pub fn qr(&self) -> String {
        wire::to_qr(&self.to_wire()).unwrap_or_default()
    }

    /// Puts the link under a passphrase. `nonce` comes from the system's random source, and is used once.
    ///
    /// # Errors
    /// [`LinkError::NotForSharing`] unless it leads to a contact or a group; [`LinkError::PasswordNeeded`]
    /// when the passphrase is empty.
    pub fn protect(&self, passphrase: &str, nonce: [u8; passphrase::NONCE_BYTES]) -> Result<Self, LinkError> {
        if passphrase.is_empty() {
            return Err(LinkError::PasswordNeeded);
        }
        let sealed = passphrase::seal(&self.to_wire(), passphrase, nonce, passphrase::CHECKSUM_BYTES)?;
        Self::from_wire(&sealed)
    }
}

impl ContactLink {
    fn from_wire(id: &BertyId) -> Result<Self, LinkError> {
        let seed = exactly("rendezvous seed", &id.public_rendezvous_seed)?;
        let key: [u8; 32] = exactly("account key", &id.account_pk)?;
        let account = AccountId::from_bytes(&key).map_err(LinkError::Key)?;
        Ok(Self { seed, account, name: DisplayName::received(&id.display_name) })
    }

    fn to_wire(&self) -> BertyId {
        BertyId {
            public_rendezvous_seed: self.seed.to_vec(),
            account_pk: self.account.as_bytes().to_vec(),
            display_name: text_of(self.name.as_ref()),
        }
    }

    /// The account as a contact request names it. The metadata is the name as contacts introduce themselves.
    pub fn to_contact(&self) -> Contact {
        let metadata = self.name.as_ref().map(crate::app_message::introduction).unwrap_or_default();
        Contact { account: self.account, seed: Some(self.seed), metadata }
    }
}

/// The seed lets people send requests; it is nobody's business but theirs.
impl std::fmt::Debug for ContactLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContactLink").field("account", &self.account).finish_non_exhaustive()
    }
}

impl GroupLink {
    fn from_wire(shown: &BertyGroup) -> Result<Self, LinkError> {
        let group = shown.group.as_ref().ok_or(LinkError::Incomplete)?;
        if group.secret.is_empty() || group.secret_sig.is_empty() {
            return Err(LinkError::Incomplete);
        }
        let group = Group::from_proto(group).map_err(LinkError::Group)?;
        if group.kind() != GroupKind::MultiMember {
            return Err(LinkError::NotForSharing);
        }
        Ok(Self { group, name: DisplayName::received(&shown.display_name) })
    }

    fn to_wire(&self) -> BertyGroup {
        BertyGroup { group: Some(self.group.to_proto()), display_name: text_of(self.name.as_ref()) }
    }
}

impl EncryptedLink {
    fn from_wire(sealed: &Encrypted) -> Result<Self, LinkError> {
        exactly::<{ passphrase::NONCE_BYTES }>("nonce", &sealed.nonce)?;
        Ok(Self { name: DisplayName::received(&sealed.display_name), sealed: sealed.clone() })
    }

    /// Whether a group is behind it, rather than a contact.
    pub fn is_group(&self) -> bool {
        self.sealed.group_type == i32::from(GroupType::MultiMember)
    }

    /// Opens the link. Takes a tenth of a second.
    ///
    /// # Errors
    /// [`LinkError::PasswordWrong`], also when what comes out is no key: a short checksum lets some wrong
    /// passphrases by.
    pub fn open(&self, passphrase: &str) -> Result<Link, LinkError> {
        let clear = passphrase::open(&self.sealed, passphrase)?;
        Link::from_wire(&clear).map_err(|error| match error {
            LinkError::Key(_) | LinkError::Group(GroupError::PublicKey(_) | GroupError::Forged { .. }) => {
                LinkError::PasswordWrong
            }
            other => other,
        })
    }
}

impl MessageLink {
    fn from_wire(message: &berty_link::BertyMessageRef) -> Result<Self, LinkError> {
        let group = BASE64URL_NOPAD.decode(message.group_pk.as_bytes()).map_err(|_| LinkError::Damaged)?;
        let group = GroupId::from_bytes(&group).map_err(LinkError::Key)?;
        let entry = EntryId::from_cid_text(&message.message_id).ok_or(LinkError::Damaged)?;
        Ok(Self { account: message.account_id.clone(), group, entry })
    }

    fn to_wire(&self) -> berty_link::BertyMessageRef {
        berty_link::BertyMessageRef {
            account_id: self.account.clone(),
            group_pk: BASE64URL_NOPAD.encode(self.group.as_bytes()),
            message_id: self.entry.to_string(),
        }
    }
}

fn exactly<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], LinkError> {
    bytes.try_into().map_err(|_| LinkError::Length { field, expected: N, found: bytes.len() })
}

fn text_of(name: Option<&DisplayName>) -> String {
    name.map(|name| name.as_str().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
