//! When to refresh, and when to try again: the arithmetic of the manager, without its state.

use std::time::Duration;

/// Of the remaining life of new credentials, the share after which they are renewed.
const REFRESH_AT: f64 = 0.75;
/// Renewals are spread over this share of the life before that point.
const JITTER: f64 = 0.1;
/// The longest pause between two attempts while nobody waits.
const IDLE_CAP: Duration = Duration::from_secs(60);
/// The longest pause while somebody waits, and at most this share of how long they do: several attempts
/// must fit in.
const WAITED_FOR_CAP: Duration = Duration::from_secs(3);
const WAITED_FOR_SHARE: u32 = 8;
/// That share may not become shorter: readers who give up at once and come again must not make a storm of requests.
const WAITED_FOR_LEAST: Duration = Duration::from_millis(500);
/// Credentials that hardly live are not renewed more often.
const LEAST_PAUSE: Duration = Duration::from_secs(1);
/// The pause after the first failure, before jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Credentials this near to their end are not used for new requests: the request is signed here and
/// checked there, some milliseconds to a second later.
const LONGEST_MARGIN: Duration = Duration::from_secs(5);

/// How long after their arrival to renew credentials that live `remaining`; `random` in [0, 1).
pub(super) fn refresh_after(remaining: Duration, random: f64) -> Duration {
    let share = remaining.mul_f64(REFRESH_AT - JITTER * random);
    share.max(LEAST_PAUSE)
}

/// How long after their arrival credentials that live `remaining` are renewed at the latest.
pub(super) fn latest_refresh(remaining: Duration) -> Duration {
    remaining.mul_f64(REFRESH_AT)
}

/// How long before their end credentials that live `remaining` are no longer used: a twentieth of the
/// life, and at most [`LONGEST_MARGIN`].
pub(super) fn margin(remaining: Duration) -> Duration {
    (remaining / 20).min(LONGEST_MARGIN)
}

/// The pause after the `failures`-th failure in a row (from 1 on), while somebody waits this long for
/// the next success, or nobody does; `random` in [0, 1).
pub(super) fn pause(failures: u32, waited_for: Option<Duration>, random: f64) -> Duration {
    let cap = match waited_for {
        Some(wait) => (wait / WAITED_FOR_SHARE).clamp(WAITED_FOR_LEAST, WAITED_FOR_CAP),
        None => IDLE_CAP,
    };
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(cap).mul_f64(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_between_65_and_75_percent() {
        let hour = Duration::from_secs(3600);
        assert_eq!(refresh_after(hour, 0.0), Duration::from_secs(2700));
        assert_eq!(refresh_after(hour, 1.0), Duration::from_secs(2340));
        // As of an endpoint that hands out the same to their end.
        let least = Duration::from_secs(1);
        assert_eq!(refresh_after(Duration::from_millis(10), 1.0), least);
    }

    #[test]
    fn pauses_double_up_to_their_cap() {
        let most = |failures, waited_for| pause(failures, waited_for, 1.0);
        assert_eq!(most(1, None), Duration::from_millis(250));
        assert_eq!(most(4, None), Duration::from_secs(2));
        assert_eq!(most(30, None), Duration::from_secs(60));
        assert_eq!(pause(9, None, 0.0), Duration::ZERO);
        let wait = Some(Duration::from_secs(45));
        assert_eq!(most(4, wait), Duration::from_secs(2));
        assert_eq!(most(u32::MAX, wait), Duration::from_secs(3));
    }

    #[test]
    fn who_waits_for_a_short_time_sees_several_attempts() {
        let wait = Some(Duration::from_secs(4));
        assert_eq!(pause(30, wait, 1.0), Duration::from_millis(500));
    }

    #[test]
    fn who_does_not_wait_at_all_makes_no_storm() {
        for wait in [0, 1] {
            let wait = Some(Duration::from_secs(wait));
            assert_eq!(pause(30, wait, 1.0), Duration::from_millis(500));
        }
    }

    #[test]
    fn margins_fit_short_and_long_lives() {
        assert_eq!(margin(Duration::from_secs(5)), Duration::from_millis(250));
        assert_eq!(margin(Duration::from_secs(3600)), Duration::from_secs(5));
    }
}
