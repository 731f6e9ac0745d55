//! The numeric users of the roles. No account in the image is needed or looked up.
//!
//! systemd's table of uid ranges leaves 65536-524287 to nobody, and Debian gives subordinate ids from
//! 100000 on, so these collide neither with an image's accounts nor with its containers.

/// The process that collects and forwards the log.
pub const LOGGER: u32 = 65541;
/// The process that talks to the token pool.
pub const WORKER: u32 = 65542;
/// The process that talks to the DHCP server.
pub const DHCP: u32 = 65543;
/// The first process of a job's pid namespace, once it has started the payload.
pub const KEEPER: u32 = 65544;
/// The processes that check and format the user's disk.
pub const DISK: u32 = 65545;
/// The processes that read the site's Machine/Job Features and write the outputs.
pub const PLATFORM: u32 = 65546;

/// Payload users, one a job, never used twice in the life of a machine.
pub const PAYLOAD: std::ops::Range<u32> = 66000..100_000;
