//! What every request carries down the layers, so that each of them can be fair and bounded.

use std::time::Duration;

use tokio::time::Instant;

/// Why bytes or names are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A program waits for the answer.
    Demand,
    /// A guess: gives way to demand for memory and for connections.
    Prefetch,
}

/// Until when an answer is of use, and to whom.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The moment at which the operation fails, whatever the network does.
    pub deadline: Instant,
    /// Who waits.
    pub class: Class,
}

impl Request {
    /// A request on behalf of a program that waits, to be answered within `timeout`.
    pub fn demand(timeout: Duration) -> Self {
        Self {
            deadline: Instant::now() + timeout,
            class: Class::Demand,
        }
    }

    /// The same deadline, but as a guess that gives way to demand.
    pub fn as_prefetch(self) -> Self {
        Self {
            class: Class::Prefetch,
            ..self
        }
    }
}
