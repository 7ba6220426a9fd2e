//! Single sysctls: numbers, and the id of this boot.

use super::buffer::{bytes, malformed};
use crate::error::{Error, Kind, Result};

/// An integer by its name; `None` if the kernel does not have it.
#[cfg(target_os = "freebsd")]
pub fn number(name: &str) -> Result<Option<i64>> {
    let Some(answer) = super::sysctl::named(name)? else { return Ok(None) };
    integer(name, &answer).map(Some)
}

/// A string that differs after each boot.
#[cfg(target_os = "freebsd")]
pub fn boot_id() -> Result<String> {
    match super::sysctl::named("kern.boot_id")? {
        Some(id) => Ok(random_id(&id)),
        None => time_of_boot(&super::sysctl::named("kern.boottime")?.unwrap_or_default()),
    }
}

/// The seconds since the boot (`CLOCK_MONOTONIC` of clock_gettime(2)).
#[cfg(target_os = "freebsd")]
pub fn uptime() -> u64 {
    u64::try_from(rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec).unwrap_or(0)
}

/// `kern.boot_id`: random, generated once for each boot (sysctl_bootid() of kern/kern_mib.c).
fn random_id(answer: &[u8]) -> String {
    answer.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The struct timeval of `kern.boottime`: seconds and microseconds since 1970. It changes when the clock is set; it is
/// for kernels without `kern.boot_id`.
pub fn time_of_boot(answer: &[u8]) -> Result<String> {
    match (answer.len(), bytes(answer, 0), bytes(answer, 8)) {
        (16, Some(seconds), Some(micros)) => {
            Ok(format!("{}.{:06}", i64::from_ne_bytes(seconds), i64::from_ne_bytes(micros)))
        }
        _ => Err(malformed("kern.boottime")),
    }
}

/// The number in the result of an integer sysctl. Those of 32 and 64 bits are signed (`kern.securelevel` is -1).
pub fn integer(name: &str, answer: &[u8]) -> Result<i64> {
    match *answer {
        [a] => Ok(i64::from(a)),
        [a, b] => Ok(i64::from(u16::from_ne_bytes([a, b]))),
        [a, b, c, d] => Ok(i64::from(i32::from_ne_bytes([a, b, c, d]))),
        _ => answer
            .try_into()
            .map(i64::from_ne_bytes)
            .map_err(|_| Error::new(Kind::Argument, format!("sysctl {name} is not an integer"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::recordings::BOOTTIME;
    use super::*;

    #[test]
    fn which_boot() {
        // sysctl(8) printed { sec = 1795387109, usec = 318318 }
        assert_eq!(time_of_boot(BOOTTIME).unwrap(), "1795387109.318318");
        assert!(time_of_boot(&BOOTTIME[..8]).is_err());
        assert_eq!(random_id(&[0, 0xa1]), "00a1");
    }

    #[test]
    fn integers() {
        let integer = |answer: &[u8]| integer("kern.one", answer);
        assert_eq!(integer(&(-1i32).to_ne_bytes()), Ok(-1));
        assert_eq!(integer(&(1u64 << 40).to_ne_bytes()), Ok(1 << 40));
        assert_eq!(integer(&[1]), Ok(1));
        assert_eq!(integer(&0xffffu16.to_ne_bytes()), Ok(0xffff));
        assert_eq!(integer(b"").unwrap_err().kind(), Kind::Argument);
        assert_eq!(integer(b"amd64").unwrap_err().message(), "sysctl kern.one is not an integer");
    }
}
