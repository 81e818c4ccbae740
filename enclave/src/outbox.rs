//! Sealed bytes on their way out. A reader never holds up the engine: what it does not take waits here, within bounds, and
//! beyond them its answer is cut. Nothing but ciphertext ever gets here, so it may outlive the lease.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::Notify;

/// Why an answer stops where it is: nothing more can be sealed, or nobody takes it, or it is too far behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer was cut")]
pub(crate) struct Cut;

/// Bytes that all answers together may have waiting.
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicUsize::new(bytes),
        })
    }

    fn take(&self, bytes: usize) -> bool {
        let take = |left: usize| left.checked_sub(bytes);
        self.left
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take)
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.left.fetch_add(bytes, Ordering::AcqRel);
    }
}

/// A piece of M2.
struct Piece {
    bytes: Bytes,
    /// To be sent at the next tick, not before: its time tells nothing of its content.
    paced: bool,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Piece>,
    queued: usize,
    finished: bool,
    cut: bool,
    reader_gone: bool,
}

struct Shared {
    state: Mutex<State>,
    budget: Arc<Budget>,
    /// Something came, or the end did.
    filled: Notify,
    /// Something was taken, or the reader went.
    taken: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clear(&self, state: &mut State) {
        self.budget.give_back(state.queued);
        state.queued = 0;
        state.queue.clear();
    }
}

/// The side of whoever seals.
pub(crate) struct Outbox(Arc<Shared>);

/// Whether anybody takes the answer.
pub(crate) struct Reader(Arc<Shared>);

/// The side of the response's body.
pub(crate) struct Inbox(Arc<Shared>);

/// An empty queue, counted against `budget`.
pub(crate) fn outbox(budget: &Arc<Budget>) -> (Outbox, Inbox) {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        budget: Arc::clone(budget),
        filled: Notify::new(),
        taken: Notify::new(),
    });
    (Outbox(Arc::clone(&shared)), Inbox(shared))
}

impl Outbox {
    /// Queues sealed bytes; never waits. At most `limit` bytes may wait with them.
    ///
    /// # Errors
    /// [`Cut`] when the reader is gone, and when there is no room for them: nothing more is taken then.
    pub(crate) fn push(&self, bytes: Bytes, paced: bool, limit: usize) -> Result<(), Cut> {
        let mut state = self.0.lock();
        let room = state.queued.saturating_add(bytes.len()) <= limit;
        if state.cut || state.reader_gone || !room || !self.0.budget.take(bytes.len()) {
            state.cut = true;
            self.0.clear(&mut state);
            self.0.filled.notify_one();
            return Err(Cut);
        }
        state.queued = state.queued.saturating_add(bytes.len());
        state.queue.push_back(Piece { bytes, paced });
        self.0.filled.notify_one();
        Ok(())
    }

    /// What tells when the reader is gone.
    pub(crate) fn reader(&self) -> Reader {
        Reader(Arc::clone(&self.0))
    }

    /// The answer is complete: waits until the reader has all of it, at most `deadline` in all. Then what is left is erased.
    ///
    /// # Errors
    /// [`Cut`] when the reader did not take all of it.
    pub(crate) async fn deliver(self, deadline: Duration) -> Result<(), Cut> {
        self.0.lock().finished = true;
        self.0.filled.notify_one();
        let drained = tokio::time::timeout(deadline, self.drained()).await;
        drained.unwrap_or(Err(Cut))
    }

    async fn drained(&self) -> Result<(), Cut> {
        loop {
            let taken = self.0.taken.notified();
            {
                let state = self.0.lock();
                if state.cut || (state.reader_gone && state.queued > 0) {
                    return Err(Cut);
                }
                if state.queued == 0 {
                    return Ok(());
                }
            }
            taken.await;
        }
    }
}

impl Reader {
    /// Resolves when the reader is gone.
    pub(crate) async fn gone(&self) {
        loop {
            let taken = self.0.taken.notified();
            if self.0.lock().reader_gone {
                return;
            }
            taken.await;
        }
    }
}

impl Drop for Outbox {
    /// Whatever ends the sealing, an answer that is not complete is never taken for one.
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if !state.finished || state.queued > 0 {
            state.cut = true;
            self.0.clear(&mut state);
        }
        self.0.filled.notify_one();
    }
}

impl Inbox {
    /// The next sealed bytes and whether they wait for a tick; `None` after the last.
    pub(crate) async fn next(&mut self) -> Option<Result<(Bytes, bool), Cut>> {
        loop {
            let filled = self.0.filled.notified();
            {
                let mut state = self.0.lock();
                if state.cut {
                    return Some(Err(Cut));
                }
                if let Some(piece) = state.queue.pop_front() {
                    state.queued = state.queued.saturating_sub(piece.bytes.len());
                    self.0.budget.give_back(piece.bytes.len());
                    self.0.taken.notify_one();
                    return Some(Ok((piece.bytes, piece.paced)));
                }
                if state.finished {
                    return None;
                }
            }
            filled.await;
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.reader_gone = true;
        self.0.clear(&mut state);
        self.0.taken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn piece(length: usize) -> Bytes {
        Bytes::from(vec![0; length])
    }

    fn left(budget: &Budget) -> usize {
        budget.left.load(Ordering::Acquire)
    }

    #[tokio::test]
    async fn pieces_arrive_in_order_and_then_the_end() {
        let budget = Budget::new(100);
        let (outbox, mut inbox) = outbox(&budget);
        outbox.push(Bytes::from_static(b"one"), false, 10).unwrap();
        outbox.push(Bytes::from_static(b"two"), true, 10).unwrap();
        assert_eq!(left(&budget), 94);
        let delivered = tokio::spawn(outbox.deliver(LONG));
        assert_eq!(inbox.next().await, Some(Ok((Bytes::from_static(b"one"), false))));
        assert_eq!(inbox.next().await, Some(Ok((Bytes::from_static(b"two"), true))));
        assert_eq!(delivered.await.unwrap(), Ok(()));
        assert_eq!(inbox.next().await, None);
        assert_eq!(left(&budget), 100);
    }

    #[tokio::test]
    async fn a_reader_that_is_too_far_behind_is_cut_and_holds_nothing() {
        let budget = Budget::new(100);
        let (outbox, mut inbox) = outbox(&budget);
        outbox.push(piece(10), false, 10).unwrap();
        assert_eq!(outbox.push(piece(1), false, 10), Err(Cut));
        assert_eq!(left(&budget), 100);
        assert_eq!(outbox.push(piece(1), false, 10), Err(Cut), "nothing after a gap");
        assert_eq!(inbox.next().await, Some(Err(Cut)));
    }

    #[tokio::test]
    async fn all_answers_together_are_bounded() {
        let budget = Budget::new(15);
        let (first, _one) = outbox(&budget);
        let (second, _two) = outbox(&budget);
        first.push(piece(10), false, 10).unwrap();
        assert_eq!(second.push(piece(6), false, 10), Err(Cut));
        drop(first);
        assert_eq!(left(&budget), 15);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_too_long_in_all_is_cut() {
        let budget = Budget::new(100);
        let (outbox, mut inbox) = outbox(&budget);
        outbox.push(piece(3), false, 10).unwrap();
        outbox.push(piece(3), false, 10).unwrap();
        let delivered = tokio::spawn(outbox.deliver(Duration::from_secs(60)));
        assert!(inbox.next().await.unwrap().is_ok());
        assert_eq!(delivered.await.unwrap(), Err(Cut));
        assert_eq!(left(&budget), 100);
        assert_eq!(inbox.next().await, Some(Err(Cut)));
    }

    #[tokio::test]
    async fn an_answer_that_is_dropped_half_way_is_no_answer() {
        let (outbox, mut inbox) = outbox(&Budget::new(100));
        outbox.push(piece(3), false, 10).unwrap();
        drop(outbox);
        assert_eq!(inbox.next().await, Some(Err(Cut)));
    }

    #[tokio::test]
    async fn a_reader_that_goes_is_noticed() {
        let budget = Budget::new(100);
        let (outbox, inbox) = outbox(&budget);
        outbox.push(piece(3), false, 10).unwrap();
        drop(inbox);
        outbox.reader().gone().await;
        assert_eq!(outbox.push(piece(1), false, 10), Err(Cut));
        assert_eq!(outbox.deliver(LONG).await, Err(Cut));
        assert_eq!(left(&budget), 100);
    }
}
