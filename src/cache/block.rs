//! One block: its memory, and what is known of each sector.
//!
//! A sector goes from not held to absent (memory is reserved for it) to claimed (by one `Fill`, its
//! only writer) to present, and never back from present. Readers touch present sectors only. These
//! changes happen under the lock, so what a writer wrote before it published a sector is seen by
//! whoever finds it present: this is what the unsafe code here rests on.

use std::mem::ManuallyDrop;
use std::time::Duration;

use tokio::time::Instant;

use super::Status;
use super::budget::Reservation;
use super::memory::Memory;
use super::sectors::{SECTOR, Sectors};
use crate::request::Awaited;
use crate::s3::{ByteRange, Error};
use crate::sync::{Arc, Mutex, lock, oneshot};

/// How long a failure answers for the bytes that it concerns: the kernel repeats a failed read-ahead
/// as a read of its own, and one `read(2)` must not pay two deadlines.
const FAILURE_LASTS: Duration = Duration::from_secs(2);

pub(super) struct Block {
    /// Given back on drop.
    memory: ManuallyDrop<Memory>,
    state: Mutex<State>,
}

struct State {
    /// For the sectors that are held.
    reservation: Reservation,
    held: Sectors,
    present: Sectors,
    claimed: Sectors,
    /// The same by claim, each with whether somebody waits for it.
    claims: Vec<(Sectors, Arc<Awaited>)>,
    /// Nothing is claimed any more: whoever asks the cache now gets another block, and the two would
    /// fetch the same.
    evicted: bool,
    failure: Option<(Error, Instant)>,
    /// What somebody has waited for until his time was over, and until when nobody begins to.
    late: Option<(Sectors, Instant)>,
    waiters: Vec<Waiter>,
}

/// Somebody who waits until none of these sectors is claimed any more.
struct Waiter {
    wanted: Sectors,
    settled: oneshot::Sender<()>,
}

impl State {
    fn status(&self, wanted: Sectors) -> Status {
        let missing = wanted.without(self.present);
        if missing.is_empty() {
            return Status::Present;
        }
        if missing.without(self.claimed).is_empty() {
            return Status::OnTheWay;
        }
        match &self.failure {
            Some((error, until)) if Instant::now() < *until => Status::Failed(error.clone()),
            _ => Status::Absent,
        }
    }

    /// Whether somebody waits for some of these.
    fn is_awaited(&self, sectors: Sectors) -> bool {
        let waits = |it: &Waiter| !it.settled.is_closed() && !it.wanted.and(sectors).is_empty();
        self.waiters.iter().any(waits)
    }

    /// Notes that these are not claimed any more.
    fn unclaim(&mut self, sectors: Sectors) {
        self.claimed = self.claimed.without(sectors);
        for (claim, _) in &mut self.claims {
            *claim = claim.without(sectors);
        }
        self.claims.retain(|(claim, _)| !claim.is_empty());
        // Blocks stay for long.
        if self.claims.is_empty() {
            self.claims = Vec::new();
        }
    }

    /// Those who can go on, to be told outside the lock.
    fn settled(&mut self) -> Vec<Waiter> {
        let claimed = self.claimed;
        let over = |waiter: &mut Waiter| {
            waiter.settled.is_closed() || waiter.wanted.and(claimed).is_empty()
        };
        self.waiters.extract_if(.., over).collect()
    }
}

fn tell(settled: Vec<Waiter>) {
    for waiter in settled {
        // Whoever is gone need not know.
        let _ = waiter.settled.send(());
    }
}

impl Block {
    /// A block in `memory` that holds the bytes that `reservation` is for, `part`; see [`Block::lacks`].
    pub(super) fn new(memory: Memory, part: ByteRange, reservation: Reservation) -> Self {
        let held = Sectors::touched(part);
        reservation.memories().hold(reservation.bytes());
        Self {
            memory: ManuallyDrop::new(memory),
            state: Mutex::new(State {
                reservation,
                held,
                present: Sectors::default(),
                claimed: Sectors::default(),
                claims: Vec::new(),
                evicted: false,
                failure: None,
                late: None,
                waiters: Vec::new(),
            }),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.memory.len()
    }

    /// Bytes that it holds.
    pub(super) fn held(&self) -> u64 {
        lock(&self.state).reservation.bytes()
    }

    /// How many bytes must be reserved before `part` can be claimed.
    pub(super) fn lacks(&self, part: ByteRange) -> u64 {
        let held = lock(&self.state).held;
        Sectors::touched(part).without(held).bytes(self.len())
    }

    /// Holds `part`, too, with a reservation for what it lacked.
    pub(super) fn hold(&self, part: ByteRange, reservation: Reservation) {
        reservation.memories().hold(reservation.bytes());
        let mut state = lock(&self.state);
        state.held = state.held.or(Sectors::touched(part));
        state.reservation.join(reservation);
    }

    /// Evicts it, unless it is being filled. Who has it pinned can read what is present.
    pub(super) fn evict(&self) -> bool {
        let mut state = lock(&self.state);
        let evicted = state.claimed.is_empty();
        state.evicted |= evicted;
        evicted
    }

    pub(super) fn status(&self, part: ByteRange) -> Status {
        let state = lock(&self.state);
        let wanted = Sectors::touched(part);
        let missing = wanted.without(state.present);
        let is_late = |(late, until): &(Sectors, Instant)| {
            Instant::now() < *until && !missing.and(*late).is_empty()
        };
        match state.late.as_ref().is_some_and(is_late) {
            true => Status::Failed(Error::TimedOut),
            false => state.status(wanted),
        }
    }

    /// Waits until nothing of `part` is claimed; never answers [`Status::OnTheWay`].
    pub(super) async fn settled(&self, part: ByteRange) -> Status {
        let wanted = Sectors::touched(part);
        loop {
            let settled = {
                let mut state = lock(&self.state);
                if wanted.and(state.claimed).is_empty() {
                    return state.status(wanted);
                }
                let (sender, receiver) = oneshot::channel();
                state.waiters.push(Waiter {
                    wanted,
                    settled: sender,
                });
                receiver
            };
            self.hurry(part);
            // An error says that the block is gone, which it is not while `self` is here.
            drop(settled.await);
        }
    }

    /// Notes that somebody's time was over before `part` was there.
    pub(super) fn came_late(&self, part: ByteRange) {
        let late = (Sectors::touched(part), Instant::now() + FAILURE_LASTS);
        lock(&self.state).late = Some(late);
    }

    /// Tells whoever has claimed some of `part` that somebody waits for it.
    pub(super) fn hurry(&self, part: ByteRange) {
        let wanted = Sectors::touched(part);
        let claims: Vec<_> = {
            let state = lock(&self.state);
            let claims = state.claims.iter();
            let of_wanted = claims.filter(|(claim, _)| !claim.and(wanted).is_empty());
            of_wanted.map(|(_, awaited)| Arc::clone(awaited)).collect()
        };
        claims.iter().for_each(|awaited| awaited.set());
    }

    /// Claims the sectors of `part` that are held and absent, as runs of bytes; nothing of a block that
    /// was evicted. Whether somebody waits for them is told by `awaited`.
    pub(super) fn claim(&self, part: ByteRange, awaited: &Arc<Awaited>) -> Vec<ByteRange> {
        let mut state = lock(&self.state);
        if state.evicted {
            return Vec::new();
        }
        if matches!(&state.failure, Some((_, until)) if Instant::now() < *until) {
            return Vec::new();
        }
        state.failure = None;
        let wanted = Sectors::touched(part).and(state.held);
        let absent = wanted.without(state.present).without(state.claimed);
        if absent.is_empty() {
            return Vec::new();
        }
        state.claimed = state.claimed.or(absent);
        state.claims.push((absent, Arc::clone(awaited)));
        let is_awaited = state.is_awaited(absent);
        drop(state);
        if is_awaited {
            awaited.set();
        }
        absent.runs(self.len()).collect()
    }

    /// Writes into sectors that the caller has claimed, and publishes nothing.
    ///
    /// # Safety
    /// The caller is the `Fill` that claimed every sector of `offset..offset + bytes.len()`.
    pub(super) unsafe fn put(&self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        assert!(end <= self.len(), "a write past the end of a block");
        let start = usize::try_from(offset).expect("at most BLOCK");
        // SAFETY: within the allocation (asserted); nobody else writes here (the caller's claim), nobody
        // reads before the sector is published.
        unsafe {
            let to = self.memory.as_ptr().add(start);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }

    /// Lets readers have the sectors of `from..end` that are whole. Up to where they are.
    ///
    /// # Safety
    /// The caller is the `Fill` that claimed every sector of `from..end`, and has put all bytes of it.
    pub(super) unsafe fn publish(&self, from: u64, end: u64) -> u64 {
        let whole_to = if end == self.len() {
            end
        } else {
            end - end % SECTOR
        };
        if let Some(whole) = ByteRange::new(from, whole_to) {
            let sectors = Sectors::touched(whole);
            let mut state = lock(&self.state);
            debug_assert!(
                sectors.without(state.claimed).is_empty(),
                "written without a claim"
            );
            state.unclaim(sectors);
            state.present = state.present.or(sectors);
            let settled = state.settled();
            drop(state);
            tell(settled);
        }
        whole_to.max(from)
    }

    /// Gives claimed sectors back as absent, with the failure to remember if there was one.
    pub(super) fn release(&self, part: ByteRange, failure: Option<&Error>) {
        let mut state = lock(&self.state);
        state.unclaim(Sectors::touched(part));
        if let Some(error) = failure {
            state.failure = Some((error.clone(), Instant::now() + FAILURE_LASTS));
        }
        let settled = state.settled();
        drop(state);
        tell(settled);
    }

    /// Bytes that are present.
    pub(super) fn bytes(&self, part: ByteRange) -> &[u8] {
        let wanted = Sectors::touched(part);
        let present = lock(&self.state).present;
        assert!(
            wanted.without(present).is_empty(),
            "bytes read before they are present"
        );
        assert!(part.end() <= self.len(), "bytes read past the end");
        let at = |offset| usize::try_from(offset).expect("at most BLOCK");
        // SAFETY: within the allocation; these sectors are present, so they are initialised, and no one
        // writes to them as long as the block lives.
        unsafe {
            let from = self.memory.as_ptr().add(at(part.start()));
            std::slice::from_raw_parts(from, at(part.len()))
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: taken once, and not used below.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };
        let state = self
            .state
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let held = state.reservation.bytes();
        state.reservation.memories().give(memory, held);
    }
}
