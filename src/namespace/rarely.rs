//! What is asked ahead, ever more rarely while nothing of it gets used.

use tokio::time::Instant;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rarely {
    /// So many occasions are still let pass,
    left: u32,
    /// and so many were before the latest that was not.
    passed: u32,
    /// When the latest was asked for, until something of it was used.
    unused: Option<Instant>,
}

impl Rarely {
    /// Whether to ask on this occasion.
    pub(super) fn is_due(&mut self) -> bool {
        if self.is_used() {
            return true;
        }
        if self.left > 0 {
            self.left -= 1;
            return false;
        }
        self.passed = 2 * self.passed + 1;
        self.left = self.passed;
        true
    }

    /// Notes that this was asked for at `asked`.
    pub(super) fn asked(&mut self, asked: Instant) {
        self.unused = Some(asked);
    }

    /// Notes that memory answered with what was asked for at `asked`.
    pub(super) fn used(&mut self, asked: Instant) {
        if self.unused == Some(asked) {
            *self = Self::default();
        }
    }

    /// Whether something of the latest was used, or nothing asked for yet.
    pub(super) fn is_used(&self) -> bool {
        self.unused.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ever_more_rarely_until_it_is_used() {
        let mut rarely = Rarely::default();
        let asked = Instant::now();
        let mut due = |occasions: std::ops::Range<u32>| -> Vec<_> {
            let is_due = |_: &u32| {
                let is_due = rarely.is_due();
                rarely.asked(asked);
                is_due
            };
            occasions.filter(is_due).collect()
        };
        assert_eq!(due(0..40), [0, 1, 3, 7, 15, 31]);
        rarely.used(asked + std::time::Duration::from_secs(1));
        assert!(!rarely.is_used(), "another");
        rarely.used(asked);
        assert!(rarely.is_due() && rarely.is_used());
    }
}
