//! The first credentials, for somebody who waits for them at a terminal.

use std::time::Duration;

use tokio::time::sleep;

use super::manager::{Credentials, Error, Manager};
use crate::sync::Arc;

/// How long a mount tries to get its first credentials: together with the first answer of the bucket
/// less than the 30 s within which it says that it cannot.
pub const FIRST_CREDENTIALS: Duration = Duration::from_secs(17);
/// After so long without credentials, the user is told what is being waited for.
const SLOW: Duration = Duration::from_secs(3);

/// Waits as [`Manager::first`] does; `say` tells the user, if that takes long, what for.
///
/// # Errors
/// The failure.
pub async fn first_or_say(
    manager: &Manager,
    patience: Duration,
    say: impl FnOnce(&str),
) -> Result<Arc<Credentials>, Error> {
    let slow = async {
        sleep(SLOW).await;
        let endpoint = manager.endpoint();
        say(&format!("waiting for credentials from {endpoint} ..."));
        std::future::pending().await
    };
    tokio::select! {
        first = manager.first(patience) => first,
        never = slow => never,
    }
}
