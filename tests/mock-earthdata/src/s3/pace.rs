//! Bandwidth: when the next bytes of a body may go.
//!
//! The times at which bytes are through lie on a schedule of their own, so that late timers do not add up.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::settings::Shape;

/// A body below its bandwidth may catch up what it missed in this time: timers are no finer than a millisecond, and on a
/// busy machine they come much later. From a real S3, what is on its way meanwhile waits in the socket.
const BURST: Duration = Duration::from_millis(50);

/// The most that goes at a time.
const MAX_PIECE: usize = 1024 * 1024;

/// What goes first. Packets come one by one: whoever waits for the first bytes of a body has them at once, and does not wait
/// for those behind.
const FIRST_PIECE: usize = 16 * 1024;

/// What is due so soon goes now: a timer would be late by more.
const SOON: Duration = Duration::from_micros(500);

/// On a link that bodies share, those of a millisecond: a new one is not to wait for much of the others.
const SHARED_PIECES: u64 = 1000;

/// A bandwidth, and until when it is used.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    bytes_per_second: u64,
    /// When the bytes sent so far are through.
    through: Instant,
}

impl Schedule {
    fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            through: Instant::now(),
        }
    }

    /// When `len` more bytes are through.
    fn add(&mut self, len: usize) -> Instant {
        let takes = Duration::from_secs_f64(len as f64 / self.bytes_per_second as f64);
        let earliest = Instant::now().checked_sub(BURST).unwrap_or(self.through);
        self.through = self.through.max(earliest) + takes;
        self.through
    }
}

/// The network of the client's machine, which all bodies share.
#[derive(Debug, Default)]
pub(crate) struct SharedLink(Mutex<Option<Schedule>>);

impl SharedLink {
    /// When `len` bytes are through on a link of this bandwidth, behind those that others have sent.
    fn add(&self, len: usize, bytes_per_second: u64) -> Instant {
        let mut schedule = self.0.lock();
        let schedule = schedule.get_or_insert_with(|| Schedule::new(bytes_per_second));
        schedule.bytes_per_second = bytes_per_second.max(1);
        schedule.add(len)
    }
}

/// When the next bytes may go.
pub(crate) struct Pace {
    own: Option<Schedule>,
    shared: Option<(Arc<SharedLink>, u64)>,
    sent: usize,
    /// When the bytes asked for last are through.
    through: Instant,
    sleep: Pin<Box<Sleep>>,
    /// The sleep is for the bytes at the head of the chunk.
    armed: bool,
}

impl Pace {
    /// For one body of this shape; none if nothing holds it up.
    pub(crate) fn new(shape: Shape, link: &Arc<SharedLink>) -> Option<Self> {
        let own = shape.bytes_per_second.map(Schedule::new);
        let shared = shape
            .link_bytes_per_second
            .map(|bandwidth| (Arc::clone(link), bandwidth));
        let now = Instant::now();
        (own.is_some() || shared.is_some()).then(|| Self {
            own,
            shared,
            sent: 0,
            through: now,
            sleep: Box::pin(sleep_until(now)),
            armed: false,
        })
    }

    /// The bytes that go at a time: a few at first, then as many as went before, up to those of 5 ms, within reason.
    /// Shorter ones cost a timer and a wake-up each; these are still small beside the buffers of a socket.
    pub(crate) fn piece(&self) -> usize {
        let own = self.own.map(|own| own.bytes_per_second / 200);
        let shared = self.shared.as_ref();
        let shared = shared.map(|(_, bandwidth)| bandwidth / SHARED_PIECES);
        let most = own.into_iter().chain(shared).min();
        let most = most.and_then(|most| usize::try_from(most).ok());
        let most = most.map_or(MAX_PIECE, |piece| piece.clamp(1024, MAX_PIECE));
        self.sent.max(FIRST_PIECE).min(most)
    }

    /// Returns when `len` bytes have had the time that they need.
    pub(crate) async fn wait(&mut self, len: usize) {
        poll_fn(|cx| self.poll(len, cx)).await;
    }

    /// Ready when `len` bytes have had the time that they need.
    pub(crate) fn poll(&mut self, len: usize, cx: &mut Context<'_>) -> Poll<()> {
        if !self.armed {
            let own = self.own.as_mut().map(|own| own.add(len));
            let shared = self.shared.as_ref();
            let shared = shared.map(|(link, bandwidth)| link.add(len, *bandwidth));
            self.through = own.max(shared).unwrap_or(self.through);
            self.sleep.as_mut().reset(self.through);
            self.armed = true;
        }
        if self.through > Instant::now() + SOON {
            ready!(self.sleep.as_mut().poll(cx));
        }
        self.armed = false;
        self.sent = self.sent.saturating_add(len);
        Poll::Ready(())
    }
}
