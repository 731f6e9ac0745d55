//! The power button: an input device, as without udev and logind nobody else listens.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

use crate::devices::entries;

/// linux/input-event-codes.h
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
/// struct input_event on a 64-bit kernel: two words of time, type, code, value.
const EVENT: usize = 24;

/// Every input device: the ACPI button's number is not known, and a keyboard's power key is as good.
pub fn buttons() -> Vec<File> {
    let open =
        |path: &String| OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path).ok();
    entries("/dev/input").iter().filter(|path| path.contains("/event")).filter_map(open).collect()
}

/// Whether a power key went down. A device that is gone is forgotten.
pub fn pressed(buttons: &mut Vec<File>) -> bool {
    let mut any = false;
    buttons.retain_mut(|button| {
        let mut events = [0; EVENT * 64];
        match button.read(&mut events) {
            Ok(length) => {
                any |= events.get(..length).unwrap_or_default().chunks_exact(EVENT).any(is_power_key);
                true
            }
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        }
    });
    any
}

fn is_power_key(event: &[u8]) -> bool {
    let [.., t0, t1, c0, c1, v0, v1, v2, v3] = *event else { return false };
    let (kind, code) = (u16::from_ne_bytes([t0, t1]), u16::from_ne_bytes([c0, c1]));
    let value = i32::from_ne_bytes([v0, v1, v2, v3]);
    kind == EV_KEY && code == KEY_POWER && value == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        [&[0; 16][..], &kind.to_ne_bytes(), &code.to_ne_bytes(), &value.to_ne_bytes()].concat()
    }

    #[test]
    fn only_a_power_key_that_goes_down_counts() {
        assert!(is_power_key(&event(EV_KEY, KEY_POWER, 1)));
        assert!(!is_power_key(&event(EV_KEY, KEY_POWER, 0)));
        assert!(!is_power_key(&event(EV_KEY, 30, 1)));
        assert!(!is_power_key(&event(0, KEY_POWER, 1)));
        assert!(!is_power_key(&[1, 2, 3]));
    }
}
