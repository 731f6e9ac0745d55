//! What a context takes away from payloads, beside what the image allows them.

use super::super::finding::Finding;
use super::super::finding::Level::{Error, Hint};
use super::settings::Settings;
use crate::context::payload::Tightening;
use crate::image::policy::Policy;

/// Adds what the image would refuse; without the image, that this is not known.
pub fn check(settings: &Settings, image: Option<&Policy>, findings: &mut Vec<Finding>) {
    let Some(site) = settings.site.as_ref().filter(|site| site.payload != Tightening::default()) else { return };
    match image.map(|image| image.payload.tightened(&site.payload)) {
        Some(Ok(_)) => {}
        Some(Err(all)) => findings.extend(all.iter().map(|fault| settings.about_key(Error, fault.key, &fault.why))),
        None => {
            let what =
                "only with --image can be seen whether the image allows this: it must not be more than the image's";
            findings.push(settings.about_key(Hint, "payload", what));
        }
    }
}
