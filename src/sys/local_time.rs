//! Local time, by the C library: it knows /etc/localtime and the variable TZ.

use nix::libc;

/// A moment as a clock on the wall shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// 0-11.
    pub month: u8,
    /// 1-31.
    pub day: u8,
    /// 0-23.
    pub hour: u8,
    /// 0-59.
    pub minute: u8,
    /// 0-60.
    pub second: u8,
}

/// What the clock showed so many seconds after 1970 began.
pub fn at(unix_secs: i64) -> Local {
    // SAFETY: a struct of integers and a pointer that may be null.
    let mut broken: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live objects. localtime_r reads the environment, which nothing here changes.
    unsafe { libc::localtime_r(&raw const unix_secs, &raw mut broken) };
    let small = |number: libc::c_int| u8::try_from(number).unwrap_or(0);
    Local {
        month: small(broken.tm_mon),
        day: small(broken.tm_mday),
        hour: small(broken.tm_hour),
        minute: small(broken.tm_min),
        second: small(broken.tm_sec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_time_in_greenwich() {
        // Where tests run the zone is UTC, or one that is whole hours apart: minute and second are the same.
        let Local { minute, second, .. } = at(3723);
        assert_eq!((minute, second), (2, 3));
    }
}
