//! A fault rule as one line, `OPS:KEY:WHEN:FAULT`: see [`FaultRule`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::faults::{Fault, FaultRule, Ops, When};

/// A line that is not a fault rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseFaultError {
    line: String,
    reason: String,
}

impl fmt::Display for ParseFaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not OPS:KEY:WHEN:FAULT: {}",
            self.line, self.reason
        )
    }
}

impl std::error::Error for ParseFaultError {}

impl FromStr for FaultRule {
    type Err = ParseFaultError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        parse(line.trim()).map_err(|reason| ParseFaultError {
            line: line.to_owned(),
            reason,
        })
    }
}

fn parse(line: &str) -> Result<FaultRule, String> {
    // The key may have colons, nothing else may.
    let (ops, rest) = line.split_once(':').ok_or("too few fields")?;
    let (rest, fault) = rest.rsplit_once(':').ok_or("too few fields")?;
    let (key, when) = rest.rsplit_once(':').ok_or("too few fields")?;
    let rule = parse_when(FaultRule::on(parse_ops(ops)?).key(key), when)?;
    Ok(rule.fault(parse_fault(fault)?))
}

fn parse_ops(text: &str) -> Result<Ops, String> {
    if text == "any" {
        return Ok(Ops::ANY);
    }
    let mut ops = Ops::from([]);
    for name in text.split('+') {
        match name {
            "list" => ops.list = true,
            "head" => ops.head = true,
            "get" => ops.get = true,
            _ => return Err(format!("no operation {name:?}")),
        }
    }
    Ok(ops)
}

fn parse_when(mut rule: When, text: &str) -> Result<When, String> {
    let (skip, rest) = text.split_once('+').unwrap_or(("0", text));
    let (times, every) = rest.split_once('/').unwrap_or((rest, "1"));
    rule = rule.skip(number(skip)?);
    if times != "*" {
        rule = rule.times(number(times)?);
    }
    match number(every)? {
        0 => Err("each 0th is none".to_owned()),
        every => Ok(rule.every(every)),
    }
}

fn parse_fault(text: &str) -> Result<Fault, String> {
    let (name, argument) = match text.split_once('=') {
        Some((name, argument)) => (name, Some(argument)),
        None => (text, None),
    };
    let needed = || argument.ok_or_else(|| format!("{name} needs a value"));
    let bytes = || number(needed()?);
    let fault = match name {
        "flip-byte" => return Ok(Fault::FlipByte(argument.map(number).transpose()?)),
        "other-region" => return Ok(Fault::OtherRegion(needed()?.to_owned())),
        "reset-after" => return Ok(Fault::ResetAfter(bytes()?)),
        "cut-after" => return Ok(Fault::CutAfter(bytes()?)),
        "extra-bytes" => return Ok(Fault::ExtraBytes(bytes()?)),
        "trickle" => return Ok(Fault::Trickle(bytes()?)),
        "stall-before" => return Ok(Fault::StallBefore(argument.map(seconds).transpose()?)),
        "stall-after" => {
            let (bytes, time) = match needed()?.split_once(',') {
                Some((bytes, time)) => (bytes, Some(seconds(time)?)),
                None => (needed()?, None),
            };
            return Ok(Fault::StallAfter(number(bytes)?, time));
        }
        _ => plain(name).ok_or_else(|| format!("no fault {name:?}"))?,
    };
    match argument {
        None => Ok(fault),
        Some(_) => Err(format!("{name} takes no value")),
    }
}

/// The faults that need no value, by name.
const PLAIN: [(&str, Fault); 21] = [
    ("slow-down", Fault::SlowDown),
    ("internal-error", Fault::InternalError),
    ("access-denied", Fault::AccessDenied),
    ("explicit-deny", Fault::ExplicitDeny),
    ("expired", Fault::Expired),
    ("invalid-request", Fault::InvalidRequest),
    ("time-too-skewed", Fault::TimeTooSkewed),
    ("archived", Fault::Archived),
    ("changed-etag", Fault::ChangedEtag),
    ("missing-etag", Fault::MissingEtag),
    ("wrong-content-range", Fault::WrongContentRange),
    ("ignore-range", Fault::IgnoreRange),
    ("not-xml", Fault::NotXml),
    ("cut-xml", Fault::CutXml),
    ("empty-page", Fault::EmptyPage),
    ("repeat-token", Fault::RepeatToken),
    ("loop-token", Fault::LoopToken),
    ("unordered", Fault::Unordered),
    ("hostile-keys", Fault::HostileKeys),
    ("hostile-fields", Fault::HostileFields),
    ("reset-before", Fault::ResetBefore),
];

fn plain(name: &str) -> Option<Fault> {
    let mut faults = PLAIN.iter();
    faults
        .find(|(one, _)| *one == name)
        .map(|(_, fault)| fault.clone())
}

fn number(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a whole number"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("{text:?} is not a number of seconds"))
}

impl fmt::Display for FaultRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let When {
            ops,
            key,
            skip,
            times,
            every,
        } = &self.when;
        if *ops == Ops::ANY {
            f.write_str("any")?;
        } else {
            let names = [("list", ops.list), ("head", ops.head), ("get", ops.get)];
            let names = names.iter().filter(|(_, there)| *there);
            let names: Vec<&str> = names.map(|(name, _)| *name).collect();
            f.write_str(&names.join("+"))?;
        }
        write!(f, ":{key}:")?;
        if *skip > 0 {
            write!(f, "{skip}+")?;
        }
        match times {
            Some(times) => write!(f, "{times}")?,
            None => f.write_str("*")?,
        }
        if *every > 1 {
            write!(f, "/{every}")?;
        }
        write!(f, ":{}", self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FlipByte(Some(offset)) => write!(f, "flip-byte={offset}"),
            Self::FlipByte(None) => f.write_str("flip-byte"),
            Self::OtherRegion(region) => write!(f, "other-region={region}"),
            Self::ResetAfter(bytes) => write!(f, "reset-after={bytes}"),
            Self::CutAfter(bytes) => write!(f, "cut-after={bytes}"),
            Self::ExtraBytes(bytes) => write!(f, "extra-bytes={bytes}"),
            Self::Trickle(rate) => write!(f, "trickle={rate}"),
            Self::StallBefore(None) => f.write_str("stall-before"),
            Self::StallBefore(Some(time)) => write!(f, "stall-before={}", time.as_secs_f64()),
            Self::StallAfter(bytes, None) => write!(f, "stall-after={bytes}"),
            Self::StallAfter(bytes, Some(time)) => {
                write!(f, "stall-after={bytes},{}", time.as_secs_f64())
            }
            plain => {
                let name = PLAIN.iter().find(|(_, one)| one == plain);
                f.write_str(name.map_or("", |(name, _)| name))
            }
        }
    }
}
