//! What every request carries down the layers, so that each of them can be fair and bounded.

use std::time::Duration;

use tokio::time::Instant;

use crate::sync::{Arc, Semaphore};

/// Why bytes or names are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A program waits for the answer.
    Demand,
    /// A guess: gives way to demand for memory and for connections.
    Prefetch,
}

/// Until when an answer is of use, and to whom.
#[derive(Clone, Debug)]
pub struct Request {
    /// The moment at which the operation fails, whatever the network does.
    pub deadline: Instant,
    /// Who waits.
    pub class: Class,
    /// For a guess: whether somebody has come to wait for it.
    awaited: Option<Arc<Awaited>>,
    /// For a guess: whether its answer is so long that even then it must leave room to others.
    pub is_long: bool,
}

/// Whether somebody waits for what was asked for as a guess. From then on it need not give way any more.
#[derive(Debug)]
pub struct Awaited(
    /// Without permits, and closed once somebody waits.
    Semaphore,
);

impl Default for Awaited {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

impl Awaited {
    /// Notes that somebody waits.
    pub fn set(&self) {
        self.0.close();
    }

    /// Waits until somebody does.
    async fn is_set(&self) {
        // It has no permits to give: this ends by an error.
        let _ = self.0.acquire().await;
    }
}

impl Request {
    /// A request on behalf of a program that waits, to be answered within `timeout`.
    pub fn demand(timeout: Duration) -> Self {
        Self {
            deadline: Instant::now() + timeout,
            class: Class::Demand,
            awaited: None,
            is_long: false,
        }
    }

    /// The same deadline, but as a guess that gives way to demand.
    pub fn as_prefetch(&self) -> Self {
        Self {
            class: Class::Prefetch,
            ..self.clone()
        }
    }

    /// The same, for which somebody may come to wait.
    pub fn until_awaited(&self, awaited: &Arc<Awaited>, is_long: bool) -> Self {
        Self {
            awaited: Some(Arc::clone(awaited)),
            is_long,
            ..self.clone()
        }
    }

    /// Waits until somebody waits for this guess, which may be never.
    pub async fn is_awaited(&self) {
        match &self.awaited {
            Some(awaited) => awaited.is_set().await,
            None => std::future::pending().await,
        }
    }
}
