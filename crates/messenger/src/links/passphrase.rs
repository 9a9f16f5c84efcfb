//! Links that nobody can use without a passphrase (`spec/messenger.md` §3.4).
//!
//! One key stream runs over the fields in a fixed order. The checksum is short on purpose: a guess cannot
//! be told from the truth by the link alone. That also means that nothing protects the link from being
//! changed; what comes out is checked like any other link.

use aes::Aes256;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use dunlin_proto::messenger::berty_link::{Encrypted, Kind};
use dunlin_proto::messenger::{BertyGroup, BertyId, BertyLink};
use dunlin_proto::protocol::Group;
use scrypt::Params;
use sha3::Shake256;
use sha3::digest::{ExtendableOutput, Update, XofReader};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::LinkError;

/// Bytes of the nonce.
pub const NONCE_BYTES: usize = 16;
/// Bytes of the checksum in links that are made here: one wrong passphrase in 256 gets by.
pub const CHECKSUM_BYTES: usize = 1;

/// Cost of the key: 2^15 rounds over 32 MiB, a tenth of a second.
const SCRYPT_LOG_N: u8 = 15;
const SCRYPT_R: u32 = 8;
const SCRYPT_P: u32 = 1;

/// Puts a contact or group link under a passphrase. The display name stays readable.
///
/// # Errors
/// [`LinkError::NotForSharing`] for links of other kinds, [`LinkError::Incomplete`] for one without content.
pub fn seal(
    link: &BertyLink,
    passphrase: &str,
    nonce: [u8; NONCE_BYTES],
    checksum_bytes: usize,
) -> Result<BertyLink, LinkError> {
    let mut stream = key_stream(passphrase, &nonce)?;
    let mut sealed = Encrypted { kind: link.kind, nonce: nonce.to_vec(), ..Encrypted::default() };
    sealed.checksum = checksum(link, checksum_bytes);
    match link.kind() {
        Kind::ContactInviteV1Kind => {
            let id = link.berty_id.as_ref().ok_or(LinkError::Incomplete)?;
            sealed.contact_public_rendezvous_seed = stream.over(&id.public_rendezvous_seed);
            sealed.contact_account_pk = stream.over(&id.account_pk);
            sealed.display_name.clone_from(&id.display_name);
        }
        Kind::GroupV1Kind => {
            let shown = link.berty_group.as_ref().ok_or(LinkError::Incomplete)?;
            let group = shown.group.as_ref().ok_or(LinkError::Incomplete)?;
            sealed.group_type = group.group_type;
            sealed.group_public_key = stream.over(&group.public_key);
            sealed.group_secret = stream.over(&group.secret);
            sealed.group_secret_sig = stream.over(&group.secret_sig);
            sealed.group_sign_pub = stream.over(&group.sign_pub);
            sealed.group_link_key_sig = stream.over(&group.link_key_sig);
            sealed.display_name.clone_from(&shown.display_name);
        }
        Kind::EncryptedV1Kind | Kind::MessageV1Kind | Kind::UnknownKind => {
            return Err(LinkError::NotForSharing);
        }
    }
    Ok(BertyLink { kind: Kind::EncryptedV1Kind.into(), encrypted: Some(sealed), ..BertyLink::default() })
}

/// Opens a link that is under a passphrase.
///
/// # Errors
/// [`LinkError::PasswordWrong`], unless the wrong one got by; [`LinkError::Damaged`] or
/// [`LinkError::OtherVersion`] when no passphrase can open it.
pub fn open(sealed: &Encrypted, passphrase: &str) -> Result<BertyLink, LinkError> {
    let nonce = sealed.nonce.as_slice().try_into().map_err(|_| LinkError::Damaged)?;
    let mut stream = key_stream(passphrase, &nonce)?;
    let name = sealed.display_name.clone();
    let mut link = BertyLink { kind: sealed.kind, ..BertyLink::default() };
    match sealed.kind() {
        Kind::ContactInviteV1Kind => {
            let public_rendezvous_seed = stream.over(&sealed.contact_public_rendezvous_seed);
            let account_pk = stream.over(&sealed.contact_account_pk);
            link.berty_id = Some(BertyId { public_rendezvous_seed, account_pk, display_name: name });
        }
        Kind::GroupV1Kind => {
            let group = Group {
                public_key: stream.over(&sealed.group_public_key),
                secret: stream.over(&sealed.group_secret),
                secret_sig: stream.over(&sealed.group_secret_sig),
                group_type: sealed.group_type,
                sign_pub: stream.over(&sealed.group_sign_pub),
                link_key: Vec::new(),
                link_key_sig: stream.over(&sealed.group_link_key_sig),
            };
            link.berty_group = Some(BertyGroup { group: Some(group), display_name: name });
        }
        Kind::EncryptedV1Kind | Kind::MessageV1Kind | Kind::UnknownKind => {
            return Err(LinkError::OtherVersion);
        }
    }
    let expected = checksum(&link, sealed.checksum.len());
    if bool::from(expected.ct_eq(&sealed.checksum)) { Ok(link) } else { Err(LinkError::PasswordWrong) }
}

/// A key stream that is used up field by field.
struct KeyStream(Ctr128BE<Aes256>);

impl KeyStream {
    fn over(&mut self, field: &[u8]) -> Vec<u8> {
        let mut changed = field.to_vec();
        self.0.apply_keystream(&mut changed);
        changed
    }
}

fn key_stream(passphrase: &str, nonce: &[u8; NONCE_BYTES]) -> Result<KeyStream, LinkError> {
    let mut key = Zeroizing::new([0; 32]);
    // The parameters are constants that scrypt accepts, and 32 bytes are not too many to derive.
    let params = Params::new(SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P, key.len()).map_err(|_| LinkError::Damaged)?;
    scrypt::scrypt(passphrase.as_bytes(), nonce, &params, &mut *key).map_err(|_| LinkError::Damaged)?;
    Ok(KeyStream(Ctr128BE::new((&*key).into(), nonce.into())))
}

/// The first `length` bytes of SHAKE256 over the fields in the clear. The signature of the link key is not
/// among them.
fn checksum(link: &BertyLink, length: usize) -> Vec<u8> {
    let mut hash = Shake256::default();
    if let Some(id) = &link.berty_id {
        hash.update(&id.public_rendezvous_seed);
        hash.update(&id.account_pk);
    }
    if let Some(BertyGroup { group: Some(group), .. }) = &link.berty_group {
        for field in [&group.public_key, &group.secret, &group.secret_sig, &group.sign_pub] {
            hash.update(field);
        }
    }
    let mut sum = vec![0; length];
    hash.finalize_xof().read(&mut sum);
    sum
}

#[cfg(test)]
mod tests {
    use super::super::wire;
    use super::*;

    /// `spec/messenger.md` §11.3: keys of half their length, passphrase `s3cur3`, nonce 00 01 … 0f.
    #[test]
    fn makes_the_link_of_the_specification() {
        let id =
            BertyId { public_rendezvous_seed: vec![1; 16], account_pk: vec![2; 16], ..BertyId::default() };
        let clear =
            BertyLink { kind: Kind::ContactInviteV1Kind.into(), berty_id: Some(id), ..BertyLink::default() };
        let nonce = std::array::from_fn(|i| i as u8);

        let sealed = seal(&clear, "s3cur3", nonce, CHECKSUM_BYTES).unwrap();

        let encrypted = sealed.encrypted.as_ref().unwrap();
        assert_eq!(
            hex::encode(&encrypted.contact_public_rendezvous_seed),
            "f2604d8712d75e3896470c3a613fa6b2"
        );
        assert_eq!(hex::encode(&encrypted.contact_account_pk), "cf2258103e80e9d26e404778a315926f");
        assert_eq!(encrypted.checksum, [0x2c]);
        let web = "https://berty.tech/id#enc/\
            TmuUnvFTcV5sKMsw6TugMVFjekNoGsUuSugA5HQjprKEDhiDwuXXbFQ7YY8z61wCeyh52bPbkqFk9qQaViW";
        let qr = "BERTY://PB/\
            HVTQHITJ2G7KZGO*Z5QU9*:B9M55FN*IVR*8K*G6/QB2:Z9EAK*O6RC/BUN4FR0Z/H6XKRT3NW8RUYT:H5A3J$.JA0WX7";
        assert_eq!(wire::to_web(&sealed).unwrap(), web);
        assert_eq!(wire::to_qr(&sealed).unwrap(), qr);
        assert_eq!(open(encrypted, "s3cur3").unwrap(), clear);
        assert_eq!(open(encrypted, "secure"), Err(LinkError::PasswordWrong));
    }

    #[test]
    fn a_nonce_of_another_length_is_damage() {
        let sealed =
            Encrypted { kind: Kind::ContactInviteV1Kind.into(), nonce: vec![0; 15], ..Encrypted::default() };
        assert_eq!(open(&sealed, "x"), Err(LinkError::Damaged));
    }
}
