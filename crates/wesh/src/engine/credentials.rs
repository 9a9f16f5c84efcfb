//! Having an issuer confirm what belongs to the account ([`crate::credentials`]).

use dunlin_base::AccountId;
use dunlin_base::kv::{Read, ReadError};

use super::{Ctx, Engine};
use crate::credentials::{CredentialFilter, Verification, VerificationError};
use crate::errors::{Code, Coded};
use crate::metadata::{Credential, Event as MetadataKind};

/// Why a step of a verification was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The issuer or the caller is to blame.
    #[error(transparent)]
    Verification(#[from] VerificationError),
}

impl Coded for CredentialError {
    fn codes(&self) -> Vec<Code> {
        match self {
            Self::Read(_) => vec![Code::ErrInternal, Code::ErrDbRead],
            Self::Verification(error) => error.codes(),
        }
    }
}

impl Engine {
    /// Begins to have the issuer at `service` confirm something about this account, which people reach by
    /// `link`. Answers with the address to get from the issuer. One begun before is forgotten.
    ///
    /// # Errors
    /// [`VerificationError::OtherAccount`] or [`VerificationError::TooLong`].
    pub fn begin_verification(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        account: &AccountId,
        service: &str,
        link: &str,
    ) -> Result<String, VerificationError> {
        if *account != self.account_id() {
            return Err(VerificationError::OtherAccount);
        }
        let verification = Verification::begin(service, link, ctx.rng)?;
        let url = verification.challenge_url();
        self.verification = Some(verification);
        Ok(url)
    }

    /// Takes the issuer's reply; answers with the address that the user has to open.
    ///
    /// # Errors
    /// [`VerificationError`].
    pub fn answer_verification(&self, status: u16, reply: &[u8]) -> Result<String, VerificationError> {
        let verification = self.verification.as_ref().ok_or(VerificationError::NotBegun)?;
        verification.answer(&self.keys.account, status, reply)
    }

    /// Takes the address to which the issuer sent the user, and registers the credential in it. Ends the
    /// verification.
    ///
    /// # Errors
    /// [`CredentialError`]; nothing changed then.
    pub fn complete_verification(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        callback: &str,
    ) -> Result<Credential, CredentialError> {
        let verification = self.verification.as_ref().ok_or(VerificationError::NotBegun)?;
        let credential = verification.complete(callback, ctx.now)?;
        let account = self.account_group();
        let event = MetadataKind::credential_registered(&self.active(&account)?.own, credential.clone());
        self.append_event(ctx, &account, &event)?;
        self.verification = None;
        self.finish(ctx)?;
        Ok(credential)
    }

    /// What was confirmed about this account, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn credentials(
        &self,
        read: &dyn Read,
        filter: &CredentialFilter,
    ) -> Result<Vec<Credential>, ReadError> {
        let mut credentials = self.active(&self.account_group())?.index.credentials(read)?;
        credentials.retain(|credential| filter.shows(credential));
        Ok(credentials)
    }
}
