//! How many tokens are worked on at once.

use crate::image::payload::Payload;

/// MiB.
const MIB: u64 = 1024 * 1024;

/// What a machine has for jobs.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Processors that it may use.
    pub cpus: u32,
    /// Bytes of memory that new programs can have; none if the kernel did not tell.
    pub memory: Option<u64>,
}

/// How many slots there are, and why not as many as the site asked for or as there are processors.
///
/// `alone` is why a job must be the only one, where it is so.
pub fn slots(wanted: Option<u32>, alone: Option<&str>, payload: &Payload, room: Room) -> (u32, Option<String>) {
    let asked = wanted.unwrap_or(room.cpus).max(1);
    if let Some(why) = alone
        && asked > 1
    {
        return (1, Some(format!("one slot and not {asked}: {why}")));
    }
    // The first is made whatever the image asks: a job that gets less memory than it may have can still do its work.
    let job = u64::from(payload.memory_mb) * MIB;
    let fit = room.memory.map_or(u64::MAX, |memory| memory / job).max(1);
    match u32::try_from(fit) {
        Ok(fit) if fit < asked => {
            let (memory, job) = (room.memory.unwrap_or_default() / MIB, payload.memory_mb);
            (fit, Some(format!("{fit} slots and not {asked}: jobs of {job} MiB in {memory} MiB of free memory")))
        }
        _ => (asked, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::policy::Policy;

    #[test]
    fn as_many_as_processors_unless_something_is_in_the_way() {
        let payload = Payload { memory_mb: 256, ..Policy::unread().payload };
        let room = |cpus, mib: u64| Room { cpus, memory: Some(mib * MIB) };
        let cases = [
            (None, None, room(4, 4096), 4, None),
            (None, None, room(1, 4096), 1, None),
            (Some(7), None, room(2, 4096), 7, None),
            (Some(1), None, room(64, 100_000), 1, None),
            (None, None, Room { cpus: 3, memory: None }, 3, None),
            (None, None, room(4, 1023), 3, Some("3 slots and not 4: jobs of 256 MiB in 1023 MiB of free memory")),
            (Some(9), None, room(4, 512), 2, Some("2 slots and not 9: jobs of 256 MiB in 512 MiB of free memory")),
            (None, None, room(4, 10), 1, Some("1 slots and not 4: jobs of 256 MiB in 10 MiB of free memory")),
            (None, None, room(1, 10), 1, None),
            (None, Some("a disk"), room(4, 4096), 1, Some("one slot and not 4: a disk")),
            (Some(2), Some("a disk"), room(1, 4096), 1, Some("one slot and not 2: a disk")),
            (None, Some("a disk"), room(1, 4096), 1, None),
        ];
        for (wanted, alone, room, count, why) in cases {
            let found = slots(wanted, alone, &payload, room);
            assert_eq!(found, (count, why.map(str::to_owned)), "{wanted:?} {alone:?} {room:?}");
        }
    }
}
