//! One file a case, or a few cases that differ in one word.

mod agent_dies;
mod attempts;
mod audit_trail;
mod bad_context;
mod bad_image;
mod bans;
mod cd_new;
mod clock_step;
mod console_shell;
mod daemon;
mod dhcp_silent;
mod dirty;
mod end_reasons;
mod firewall;
mod firewall_inbound;
pub mod fork_bomb;
mod guard_device;
mod guard_good;
mod guard_hostile;
pub mod hepix;
mod hooks_order;
mod judges;
mod log;
mod medium_absent;
mod medium_faults;
mod medium_kinds;
mod medium_late;
mod medium_secret;
mod medium_unsigned;
mod mjf;
mod nebula_bad_network;
mod nebula_context;
mod nebula_guard;
mod nebula_keys;
mod nebula_relatives;
mod no_cd;
mod no_console;
mod paused;
mod payload_fails;
mod payload_policy;
mod payload_view;
mod payload_walls;
mod pilot_panda;
mod pilot_work_queue;
mod pilots;
mod power_button;
mod prolog_fails;
mod prolog_hangs;
mod report_same;
mod results;
mod script_bombs;
mod script_daemons;
mod script_faults;
mod script_output;
mod script_stopped;
mod server_late;
mod sign_states;
mod slots;
mod spool;
mod stop_rules;
mod three_buses;
mod truncated_cd;
mod two_cds;
mod user_disk;
mod whole_slice;
mod work_ends;
mod work_picas;

use crate::case::Case;

/// Those that run only when they are named whole: they say what others do.
pub const ON_DEMAND: &[Case] = &[judges::CASE];

/// Those that take longest come first, so that the last one does not run alone for long.
pub const ALL: &[Case] = &[
    hepix::CASE,
    attempts::MUTATIONS,
    attempts::WHOLE,
    attempts::ALONE,
    whole_slice::CASE,
    guard_hostile::REVERT,
    guard_good::CASE,
    guard_device::CASE,
    nebula_guard::CASE,
    guard_hostile::REFUSE,
    guard_hostile::REPORT,
    bans::REFRESH,
    stop_rules::DEADLINE,
    slots::TOGETHER,
    slots::GRACE,
    stop_rules::DRAIN,
    stop_rules::MAX_TASKS,
    stop_rules::LATE,
    server_late::CASE,
    work_ends::NO_WORK,
    work_ends::REFUSED,
    work_ends::NONSENSE,
    work_ends::HTML,
    work_ends::GONE,
    work_picas::CASE,
    log::FLOOD,
    spool::POWER_CUT,
    spool::FULL,
    log::REQUIRED_LATE,
    log::TLS,
    log::KILLED,
    log::AWAY,
    log::REQUIRED,
    cd_new::CASE,
    user_disk::KEEPS,
    user_disk::XFS,
    user_disk::FORMAT,
    user_disk::NO_SOURCE,
    dhcp_silent::CASE,
    script_bombs::CASE,
    fork_bomb::CASE,
    script_output::CASE,
    prolog_hangs::CASE,
    script_daemons::CASE,
    hooks_order::CONTINUE,
    hooks_order::STOP,
    hooks_order::NO_CD,
    script_faults::CONTINUE,
    script_faults::STOP,
    script_stopped::CASE,
    daemon::CASE,
    payload_fails::CASE,
    results::DIRECTORY,
    end_reasons::CASE,
    console_shell::CASE,
    console_shell::UNASKED,
    end_reasons::NOT_STARTED,
    dirty::FROZEN,
    dirty::HELD,
    mjf::HTTP,
    mjf::FILES,
    pilots::FIZZLED,
    pilots::DONE,
    pilots::FAILED,
    pilots::TOO_LONG,
    pilots::SAID,
    pilots::STOPPED,
    pilots::NOT_STARTED,
    pilot_work_queue::CASE,
    pilot_panda::CASE,
    payload_policy::TIGHTENED,
    payload_view::TINY,
    payload_view::DEBIAN,
    payload_view::ALONE,
    payload_view::SETUID,
    payload_view::CONTAINERS,
    payload_walls::CASE,
    bans::LISTED,
    bans::BROKEN,
    audit_trail::CASE,
    clock_step::CASE,
    agent_dies::CASE,
    power_button::POWER_BUTTON,
    power_button::CTRL_ALT_DEL,
    paused::ROBBED,
    paused::ALONE,
    paused::BRIEF,
    nebula_context::CASE,
    nebula_relatives::VAC,
    nebula_relatives::STRATUSLAB,
    firewall_inbound::CASE,
    firewall::METADATA,
    firewall::LISTED,
    firewall::FLUSHED,
    firewall::MISSING,
    firewall::INCOMPLETE,
    firewall::OFF,
    nebula_keys::ALLOWED,
    nebula_keys::REFUSED,
    nebula_bad_network::CARD,
    nebula_bad_network::MASK,
    nebula_bad_network::GATEWAY,
    no_console::CASE,
    report_same::CASE,
    three_buses::VIRTIO,
    three_buses::SCSI,
    three_buses::IDE,
    medium_late::INSERTED,
    medium_late::DRIVE_PLUGGED,
    medium_late::DISK_PLUGGED,
    medium_faults::SLOW,
    medium_faults::PASSING,
    medium_faults::BAD_SECTOR,
    medium_secret::CANARY,
    medium_secret::EJECT,
    medium_secret::NO_TRAY,
    medium_secret::MISSING,
    medium_faults::WRONG_MAGIC,
    medium_faults::SHORT,
    medium_faults::UNKNOWN_DISK,
    medium_faults::TOO_LARGE,
    medium_absent::EMPTY,
    medium_absent::EMPTY_DRIVES,
    medium_absent::EMPTY_REQUIRED,
    medium_absent::WRITABLE,
    medium_absent::NOCLOUD,
    medium_kinds::VFAT,
    medium_kinds::UDF,
    medium_kinds::PLAIN,
    medium_kinds::JOLIET,
    medium_unsigned::REQUIRED,
    medium_unsigned::WARNED,
    prolog_fails::CASE,
    no_cd::OPTIONAL,
    no_cd::REQUIRED,
    two_cds::CASE,
    user_disk::NOT_BLANK,
    user_disk::NOT_ALLOWED,
    user_disk::GROWN,
    user_disk::REPAIRED,
    user_disk::BROKEN,
    user_disk::REQUIRED,
    user_disk::TWO,
    user_disk::POWER_BUTTON,
    user_disk::LEFT,
    user_disk::TOOL_BUTTON,
    spool::DAMAGED,
    spool::TWO,
    truncated_cd::CASE,
    bad_context::UNKNOWN_KEY,
    bad_context::BAD_VALUE,
    bad_context::BAD_VARIABLES,
    payload_policy::LOOSENED,
    bad_image::CASE,
    sign_states::GOOD,
    sign_states::UNSIGNED,
    sign_states::BAD,
    sign_states::EXPIRED,
    sign_states::CLOCK,
    sign_states::FOREIGN,
    sign_states::WARN,
    sign_states::BROKEN_KEY,
];
