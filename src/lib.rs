//! Guest contextualisation: a small init and agent for virtual machines of grid and cloud sites.
//!
//! The life of a machine, phase by phase (`agent::phases` holds the same list as data):
//!
//! | phase | role | what happens |
//! |---|---|---|
//! | early | init | mounts, console, signals, power button |
//! | devices, image | agent | kernel modules, the image's root found and mounted read-only |
//! | policy, medium | agent | `image.json` read; the context CD found, read whole, unmounted |
//! | prolog | script | the site's `prolog.sh start`, before any interface is up |
//! | network, logging | agent, dhcp, logger | links, addresses, names; the log goes to the site |
//! | epilog | script | the site's `epilog.sh start` |
//! | hooks | script | the pilot framework's own `epilog.d/*.sh` |
//! | seal | agent | the image's directories are closed to writing |
//! | disk | agent | the user's disk is checked and mounted |
//! | work | worker, payload | tokens claimed, run as an unprivileged user, completed |
//! | end | agent, init | everything stopped in order, the reason told, power off |
//!
//! Each role is one process with one thread and one poll loop. `sys` is the only place with unsafe code.

pub mod agent;
pub mod ban;
pub mod cgroup;
pub mod clock;
pub mod config;
pub mod context;
pub mod devices;
pub mod disk;
pub mod guard;
pub mod ids;
pub mod image;
pub mod init;
pub mod launch;
pub mod logging;
pub mod mjf;
pub mod mounts;
pub mod network;
pub mod payload;
pub mod procfs;
pub mod protocol;
pub mod script;
pub mod starting;
pub mod status;
pub mod sys;
pub mod syslog;
pub mod text;
#[cfg(feature = "tool")]
pub mod tool;
pub mod verdict;
pub mod work;
