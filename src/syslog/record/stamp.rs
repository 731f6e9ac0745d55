//! The time of a record, RFC 5424 6.2.3, in UTC and to the microsecond.

use std::time::{Duration, SystemTime};

/// The last second of year 9999: RFC 3339 has four digits.
pub const LAST_SECOND: Duration = Duration::from_secs(253_402_300_799);

/// Writes times down. Those of a flood have a second in common, whose calendar is looked up once.
#[derive(Debug, Default)]
pub struct Stamp {
    second: Option<u64>,
    text: Vec<u8>,
}

impl Stamp {
    /// Appends `2026-11-22T10:00:00.000001Z`; a time that has no such form, as the nearest one that has.
    pub fn push(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().min(LAST_SECOND);
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            let second = SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs());
            self.text = humantime::format_rfc3339_seconds(second).to_string().into_bytes();
            self.text.pop();
        }
        out.extend_from_slice(&self.text);
        let mut fraction = *b".000000Z";
        let mut micros = since.subsec_micros();
        for digit in fraction.iter_mut().skip(1).take(6).rev() {
            *digit += (micros % 10) as u8;
            micros /= 10;
        }
        out.extend_from_slice(&fraction);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_another_formatter() {
        let mut stamp = Stamp::default();
        for micros in [0, 1, 999_999, 1_000_000, 1_000_009, 1_795_341_600_123_456, 951_782_399_999_999, 5] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
            let mut out = Vec::new();
            stamp.push(&mut out, time);
            assert_eq!(String::from_utf8(out).unwrap(), humantime::format_rfc3339_micros(time).to_string());
        }
    }
}
