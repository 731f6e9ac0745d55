//! The director: runs the phases in order, starts every other role, writes the report.

mod audit;
mod bans;
mod boot;
mod console;
mod disk;
pub mod end;
mod ending;
pub mod events;
mod firewall;
mod guard;
pub(crate) mod hooks;
mod job;
mod left;
pub mod logger;
mod medium;
pub(crate) mod nebula;
mod network;
pub mod notice;
pub mod output;
pub mod patience;
pub(crate) mod phases;
mod platform;
pub mod report;
mod roles;
mod runner;
mod scripts;
mod spool;
mod start_script;
mod work;
mod worker;

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;

use crate::context::opennebula::StartScript;
use crate::context::shell::Variable;
use crate::context::site::Site;
use crate::devices::Devices;
use crate::disk::UserDisk;
use crate::guard::device::Device;
use crate::image::payload::Payload;
use crate::image::policy::Policy;
use crate::image::root::Initramfs;
use crate::logging;

use events::Events;
use notice::Notice;
use phases::PHASES;
use report::{Details, PhaseReport, Report, Spent};
use scripts::Scripts;

/// Everything that the phases share.
pub struct Agent {
    /// Signals and output.
    pub events: Events,
    /// What happened so far.
    pub report: Report,
    /// Of the phase that runs, for the report.
    pub details: Details,
    /// What the site says; empty until the CD is read, and without one.
    pub site: Site,
    /// What the image allows; the defaults until it is read. Its `payload` is what holds for payloads here, as the site
    /// tightened it.
    pub policy: Policy,
    /// What the image allows payloads, whatever the site says.
    allowed: Payload,
    /// Of `context.sh`, for scripts.
    variables: Vec<Variable>,
    /// What ctxinit wrote into resolv.conf last.
    resolv_conf: Option<String>,
    /// The site's script for the time after the network.
    start_script: Option<StartScript>,
    /// What payloads find in their environment by the site's word.
    features: Vec<(String, String)>,
    /// What the site says about its time, and what it hears of the machine.
    platform: platform::Platform,
    /// The CD's ban list.
    ban_list: bans::OnCd,
    /// Over what scripts change; none where the initramfs is the image.
    guard: Option<guard::Guard>,
    /// That the image lies on, until the guard takes it.
    image_device: Option<Device>,
    /// Of the user, once it is mounted and for as long as it is good.
    user_disk: Option<UserDisk>,
    devices: Option<Devices>,
    initramfs: Option<Initramfs>,
    dhcp: Vec<network::Client>,
    /// The rules that are in force; none where the image wants none.
    firewall: Option<firewall::Firewall>,
    scripts: Scripts,
    notices: File,
}

/// The life of the agent; `notices` is its line to init, `start_ms` the kernel's time when that began. Returns an
/// exit code.
pub fn run(notices: OwnedFd, start_ms: u64) -> i32 {
    let mut notices = File::from(notices);
    logging::to_console_and_logger();
    let events = match Events::new() {
        Ok(events) => events,
        Err(error) => {
            let verdict = crate::verdict::Verdict::machine_fault(format!("the agent cannot take signals: {error}"));
            let _ = writeln!(notices, "{}", Notice::End(verdict));
            return 1;
        }
    };
    // Roles are world-searchable here, the report is world-readable; everything private has its own mode.
    let _ = fs::create_dir_all("/run/ctxinit");
    let mut agent = Agent {
        events,
        report: Report::new(),
        details: Details::default(),
        site: Site::default(),
        policy: Policy::unread(),
        allowed: Policy::unread().payload,
        variables: Vec::new(),
        resolv_conf: None,
        start_script: None,
        features: Vec::new(),
        platform: platform::Platform::default(),
        ban_list: None,
        guard: None,
        image_device: None,
        user_disk: None,
        devices: None,
        initramfs: None,
        dhcp: Vec::new(),
        firewall: None,
        scripts: Scripts::default(),
        notices,
    };
    let version = format!("ctxinit {}", env!("CARGO_PKG_VERSION"));
    phases::record(&mut agent, PhaseReport::done("early", start_ms, Spent::now(), version));
    runner::run(PHASES, &mut agent, end::asked, phases::record, end::end);
    0
}

/// The phases that a machine can have, in their order.
pub fn phase_names() -> Vec<&'static str> {
    let director = PHASES.iter().map(|phase| phase.name);
    ["early"].into_iter().chain(director).chain(["end"]).collect()
}

impl Agent {
    fn tell_init(&mut self, notice: &Notice) {
        if let Err(error) = writeln!(self.notices, "{notice}") {
            log::error!("init does not hear: {error}");
        }
    }
}
