//! Memory goes back to the system when many names were forgotten: once the kernel has let go of a million
//! files, say, the process is about as small as it was before.

use std::time::Duration;

use crate::fs::Fs;
use crate::process;
use crate::sync::Weak;

/// So soon after names are forgotten.
const EVERY: Duration = Duration::from_secs(5);
/// Less is used again before anybody misses it.
const LEAST: u64 = 4 << 20;

/// Looks after it for as long as there is a mount.
pub(super) async fn memory_of_names(fs: Weak<Fs>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(fs) = fs.upgrade() else { return };
        let (now, most) = fs.bytes_of_names();
        if most - now < LEAST.max(most / 4) {
            continue;
        }
        let give_back = move || {
            fs.shrink_names();
            process::give_back_memory();
        };
        // Not on a thread that answers reads.
        let _ = tokio::task::spawn_blocking(give_back).await;
        tracing::debug!(most, now, "gave the memory of forgotten names back");
    }
}
