//! Values of options: seconds, durations, sizes, modes.

use std::time::Duration;

use bytesize::ByteSize;

use crate::network::is_region;

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: u32 = text
        .parse()
        .map_err(|_| "a whole number of seconds is needed".to_owned())?;
    Ok(Duration::from_secs(seconds.into()))
}

/// An option without a value, when it comes from the environment.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match &*text.trim().to_ascii_lowercase() {
        "1" | "true" | "t" | "yes" | "y" | "on" => Ok(true),
        "0" | "false" | "f" | "no" | "n" | "off" => Ok(false),
        _ => Err("it must be 1 or 0".to_owned()),
    }
}

pub(super) fn operation_timeout(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err("at least 1 second is needed".to_owned()),
        timeout => Ok(timeout),
    }
}

/// `90`, `60s`, `2h 30min`, `inf`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match text.trim() {
        "inf" | "infinite" => Ok(Duration::MAX),
        plain if plain.bytes().all(|b| b.is_ascii_digit()) => seconds(plain),
        text => humantime::parse_duration(text).map_err(|e| format!("{e}; try 60s, 2h, 0 or inf")),
    }
}

/// Less than this holds too few blocks to stream with.
const LEAST_MEMORY: ByteSize = ByteSize::mib(16);

pub(super) fn memory_limit(text: &str) -> Result<u64, String> {
    let size: ByteSize = text
        .trim()
        .parse()
        .map_err(|e| format!("{e}; try 512MiB or 2GiB"))?;
    if size < LEAST_MEMORY {
        return Err(format!("at least {LEAST_MEMORY} is needed"));
    }
    Ok(size.as_u64())
}

/// `us-west-2`
pub(super) fn region(text: &str) -> Result<String, String> {
    match is_region(text) {
        true => Ok(text.to_owned()),
        false => Err("the name of an AWS region is needed, for instance us-west-2".to_owned()),
    }
}

pub(super) fn user(text: &str) -> Result<u32, String> {
    let number = text.parse();
    number.map_err(|_| "a number is needed, as `id -u NAME` tells it".to_owned())
}

pub(super) fn group(text: &str) -> Result<u32, String> {
    let number = text.parse();
    number.map_err(|_| "a number is needed, as `getent group NAME` tells it".to_owned())
}

pub(super) fn mode(text: &str) -> Result<u16, String> {
    match u16::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("octal permission bits are needed, for instance 0444".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_durations_and_modes() {
        assert_eq!(memory_limit("2GiB"), Ok(2 << 30));
        assert!(memory_limit("1MiB").is_err() && memory_limit("lots").is_err());
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("inf"), Ok(Duration::MAX));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert!(duration("soon").is_err());
        assert_eq!(mode("0440"), Ok(0o440));
        assert!(mode("888").is_err() && mode("7777").is_err());
        assert_eq!((user("7"), group("7")), (Ok(7), Ok(7)));
        assert!(user("nobody").is_err_and(|why| why.contains("id -u")));
        assert!(group("-1").is_err_and(|why| why.contains("getent group")));
        assert!(operation_timeout("0").is_err());
        assert!(region("us-west-2").is_ok() && region("").is_err() && region("x.y/").is_err());
    }
}
