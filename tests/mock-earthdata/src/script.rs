//! The fault rules in force, and how often each matched, hit and fired.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::Serialize;

use crate::faults::{Fault, FaultRule};
use crate::meter::RequestRecord;

/// See the module.
#[derive(Default)]
pub(crate) struct Script {
    rules: Vec<Entry>,
}

struct Entry {
    rule: FaultRule,
    matched: u64,
    hits: u64,
    fired: Arc<AtomicU64>,
}

/// How a rule is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleCount {
    /// The rule as one line.
    pub rule: String,
    /// Requests that fitted it, hit or not.
    pub matched: u64,
    /// Requests that its fault really happened to.
    pub fired: u64,
}

impl Script {
    pub(crate) fn new(rules: Vec<FaultRule>) -> Self {
        let mut script = Self::default();
        for rule in rules {
            script.add(rule);
        }
        script
    }

    pub(crate) fn add(&mut self, rule: FaultRule) {
        self.rules.push(Entry {
            rule,
            matched: 0,
            hits: 0,
            fired: Arc::default(),
        });
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    pub(crate) fn counts(&self) -> Vec<RuleCount> {
        let counts = self.rules.iter().map(|entry| RuleCount {
            rule: entry.rule.to_string(),
            matched: entry.matched,
            fired: entry.fired.load(Ordering::Acquire),
        });
        counts.collect()
    }

    /// The fault that a request is in for.
    pub(crate) fn hit(&mut self, request: &RequestRecord) -> Option<Hit> {
        for entry in &mut self.rules {
            let FaultRule { when, fault } = &entry.rule;
            // What has no range cannot get a wrong one.
            let ranged = !matches!(fault, Fault::IgnoreRange | Fault::WrongContentRange)
                || request.range.is_some();
            if !(ranged && fault.can_hit(request.op) && when.fits(request.op, &request.key)) {
                continue;
            }
            entry.matched += 1;
            if when.is_hit(entry.matched, entry.hits) {
                entry.hits += 1;
                return Some(Hit(Arc::new(Shot {
                    fault: fault.clone(),
                    rule: entry.fired.clone(),
                    done: AtomicBool::new(false),
                })));
            }
        }
        None
    }
}

/// A request's fault, on its way to where it happens.
#[derive(Clone)]
pub(crate) struct Hit(Arc<Shot>);

struct Shot {
    fault: Fault,
    rule: Arc<AtomicU64>,
    done: AtomicBool,
}

impl Hit {
    pub(crate) fn fault(&self) -> &Fault {
        &self.0.fault
    }

    /// It happens now. Counts once, however often it is said.
    pub(crate) fn fires(&self) {
        if !self.0.done.swap(true, Ordering::AcqRel) {
            self.0.rule.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Is it this fault? If so, it happens now.
    pub(crate) fn fires_if(&self, fault: &Fault) -> bool {
        let same = self.fault() == fault;
        if same {
            self.fires();
        }
        same
    }

    /// Waits out a stall before the answer; returns at once for any other fault.
    pub(crate) async fn stall(&self) {
        if let Fault::StallBefore(time) = self.fault() {
            self.fires();
            match time {
                Some(time) => tokio::time::sleep(*time).await,
                None => std::future::pending().await,
            }
        }
    }
}

/// Has the request this fault? If so, it happens now.
pub(crate) fn fires(hit: Option<&Hit>, fault: &Fault) -> bool {
    hit.is_some_and(|hit| hit.fires_if(fault))
}
