//! The manager as a credentials provider of the AWS SDK.

use aws_credential_types::provider::{ProvideCredentials, error::CredentialsError, future};
use secrecy::ExposeSecret;

use super::manager::{Credentials, Manager};

/// Hands out what the manager holds, waiting for it as [`Manager::current`] does. To be used with
/// `IdentityCache::no_cache()`: the SDK's own cache throws the old value away before it has a new
/// one.
impl ProvideCredentials for Manager {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            let current = self.current().await;
            let current = current.map_err(CredentialsError::provider_error)?;
            Ok(current.for_sdk())
        })
    }
}

impl Credentials {
    /// As the SDK's code that signs wants them. No expiry is told to it, since the manager watches it
    /// on a better clock.
    pub(crate) fn for_sdk(&self) -> aws_credential_types::Credentials {
        aws_credential_types::Credentials::new(
            self.access_key_id.clone(),
            self.secret_access_key.expose_secret(),
            Some(self.session_token.expose_secret().to_owned()),
            None,
            "s3credentials",
        )
    }
}
