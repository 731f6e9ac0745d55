//! Structured data (RFC 5424, 6.3): what the kernel and the agent say of a record.

use super::escape::{dangerous, push_number, push_octal};
use super::{Audit, Record, Sender};

/// A job's name comes from a pool; the agent's own are far shorter.
const MAX_JOB: usize = 64;
/// Whose work it is; the audit records have it whole.
const MAX_OWNER: usize = 512;
/// A UUID; where there is none, the boot id stands for it.
const MAX_VM: usize = 36;
/// Of the boot id as much as tells one life of a machine from the others.
const MAX_BOOT: usize = 8;
/// Of one value of an audit record, bytes: a person's name is never cut, a command may be.
const MAX_VALUE: usize = 1280;
/// Where the audit record's values end at the latest; the text still has room then.
const MAX_DATA: usize = 6000;
/// RFC 5424, 7.3.1: counts from 1 to this, then from 1 again.
pub const MAX_SEQUENCE: u64 = 2_147_483_647;

/// The machine's own parameters, which every record has.
pub fn origin(vm: &str, boot: &str) -> Vec<u8> {
    let mut out = Vec::new();
    push_param(&mut out, "vm", vm, MAX_VM);
    push_param(&mut out, "boot", boot, MAX_BOOT);
    out
}

/// What a job's records say of it: its name, and whose it is if somebody said.
pub fn job(name: &str, owner: &str) -> Vec<u8> {
    let mut out = Vec::new();
    push_param(&mut out, "job", name, MAX_JOB);
    if !owner.is_empty() {
        push_param(&mut out, "owner", owner, MAX_OWNER);
    }
    out
}

/// Our element, that of audit records, `timeQuality` and `meta`.
///
/// 32473 is the enterprise number for examples (RFC 5612): the project has none of its own. The zone is always known, as
/// times are in UTC.
pub fn push_data(out: &mut Vec<u8>, record: &Record<'_>, origin: &[u8], number: u64, synced: bool) {
    if !origin.is_empty() || record.sender.is_some() || record.job.is_some() {
        out.extend_from_slice(b"[ctxinit@32473");
        out.extend_from_slice(origin);
        if let Some(Sender { uid, pid }) = record.sender {
            push_digits(out, b" uid=\"", uid.into());
            push_digits(out, b" pid=\"", pid.into());
        }
        if let Some(facility) = record.claimed {
            push_digits(out, b" claimed=\"", facility.into());
        }
        out.extend_from_slice(record.job.unwrap_or_default());
        out.push(b']');
    }
    if let Some(Audit { data, .. }) = record.audit {
        out.extend_from_slice(b"[audit@32473");
        for (name, value) in data {
            // Escaped, a value takes four times its length at most.
            let room = MAX_DATA.saturating_sub(out.len()) / 4;
            push_param(out, name, value, MAX_VALUE.min(room));
        }
        out.push(b']');
    }
    push_digits(out, b"[timeQuality tzKnown=\"1\" isSynced=\"", synced.into());
    push_digits(out, b"][meta sequenceId=\"", (number.max(1) - 1) % MAX_SEQUENCE + 1);
    out.push(b']');
}

/// The value of a parameter that was begun, and its end.
fn push_digits(out: &mut Vec<u8>, before: &[u8], value: u64) {
    out.extend_from_slice(before);
    push_number(out, value);
    out.push(b'"');
}

/// ` name="value"`, the value at most so many bytes of it. RFC 5424, 6.3.3: three characters are escaped there.
fn push_param(out: &mut Vec<u8>, name: &str, value: &str, most: usize) {
    [" ", name, "=\""].iter().for_each(|piece| out.extend_from_slice(piece.as_bytes()));
    let kept = value.char_indices().take_while(|(at, c)| at + c.len_utf8() <= most);
    for (_, c) in kept {
        match c {
            '"' | '\\' | ']' => out.extend_from_slice(&[b'\\', c as u8]),
            c if !dangerous(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            c => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_octal(out, byte)),
        }
    }
    out.push(b'"');
}
