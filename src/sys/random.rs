//! Random bytes of the kernel.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};

/// `N` random bytes, good for transaction numbers and jitter.
///
/// From /dev/urandom, because getrandom(2) may block for long in a machine that just booted.
///
/// # Errors
/// Those of open(2) and read(2) on /dev/urandom.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// From 0 to 1, for pauses that must differ from machine to machine. Never fails and needs no descriptor: the
/// standard library's hash keys come from the kernel.
pub fn fraction() -> f64 {
    let random = (RandomState::new().hash_one(0_u8) >> 32) as u32;
    f64::from(random) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_draws_differ() {
        assert_ne!(super::bytes::<16>().unwrap(), super::bytes::<16>().unwrap());
    }
}
