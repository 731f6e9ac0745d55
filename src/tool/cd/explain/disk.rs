//! Which disk is the user's.

use super::{Known, Part};
use crate::disk::LABEL;
use crate::disk::policy::Need;

pub fn disk(known: &Known<'_>) -> Part {
    let need = known.policy.user_disk.need;
    let (without, whose) = match need {
        Need::None if known.of_image => {
            return Part::new("disk", vec!["none: the image takes no user's disk".to_owned()]);
        }
        Need::None | Need::Optional => ("no disk, or a bad one: jobs run without", "of an image that takes one, "),
        Need::Require => ("no disk, or a bad one: the machine ends with code 500", ""),
    };
    let wanted = known.site.user_disk.clone().unwrap_or_default();
    let which = wanted.uuid.map_or(format!("label {LABEL}"), |uuid| format!("UUID {uuid}"));
    let mut lines = vec![format!("{whose}the disk with {which}, ext4 or XFS, is the home of every job")];
    if wanted.format {
        lines.push("without one, the one disk whose first and last MiB are zero is formatted as it".to_owned());
    }
    lines.push(without.to_owned());
    Part::new("disk", lines)
}
