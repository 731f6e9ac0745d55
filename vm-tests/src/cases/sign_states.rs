//! An image that trusts one site: what is unsigned, changed, too old or for another image is not run, and each has a
//! word of its own.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::case::Case;
use crate::cd::Key;
use crate::machine::{Ended, Medium};
use crate::stage::{Stage, policy, policy_with};

/// As `stage::policy` has it.
const IMAGE: &str = "vm-tests";
const EXPIRES: &str = "2050-01-01";
const RUNS: &str = "the prolog runs";
/// The machine's clock: within the time of a signature, after it, and never set. A PC's clock has two digits for the
/// year, which Linux takes for 1970 to 2069.
const IN_TIME: &str = "base=2040-01-01";
const TOO_LATE: &str = "base=2060-01-01";
const NEVER_SET: &str = "base=1990-01-01";

pub const GOOD: Case = Case::new("sign-good", |stage| {
    let (key, cd) = (Key::make(&stage.dir)?, site_cd(stage)?);
    key.sign(&cd.image, IMAGE, EXPIRES)?;
    // The key lies in the image as minisign writes it, and its policy holds none.
    let policy = policy_with(json!({"signature": {"need": "require"}}));
    let machine = stage.tiny_with(&policy, &[("etc/ctxinit/site-keys/site.pub", &key.file)])?;
    let ended = machine.cd(&cd).qemu(["-rtc", IN_TIME]).run()?;
    ended.expect_console(&format!("prolog: {RUNS}"))?;
    ended.expect_end("200 the scripts are done, and no work source is named")?;
    ended.expect_report("/medium/signature/state", "good")?;
    ended.expect_report("/medium/signature/signer", key.id.as_str())?;
    ended.expect_report("/medium/signature/expires", "2050-01-01T00:00:00Z")?;
    let why = format!("signed by key {} for image {IMAGE} until 2050-01-01T00:00:00Z", key.id);
    ended.expect_report("/medium/signature/why", why)
});

pub const UNSIGNED: Case = Case::new("sign-unsigned", |stage| {
    let (key, cd) = (Key::make(&stage.dir)?, site_cd(stage)?);
    let ended = boot(stage, &cd, &required(&key), IN_TIME)?;
    refused(&ended, "unsigned", "there is no SHA256SUMS.minisig on the CD")
});

pub const BAD: Case = Case::new("sign-bad", |stage| {
    let (key, cd) = (Key::make(&stage.dir)?, site_cd(stage)?);
    key.sign(&cd.image, IMAGE, EXPIRES)?;
    flip(&cd.image)?;
    let ended = boot(stage, &cd, &required(&key), IN_TIME)?;
    refused(&ended, "bad", "prolog.sh is not what SHA256SUMS says")
});

pub const EXPIRED: Case = Case::new("sign-expired", |stage| {
    let (key, cd) = (Key::make(&stage.dir)?, site_cd(stage)?);
    key.sign(&cd.image, IMAGE, EXPIRES)?;
    let ended = boot(stage, &cd, &required(&key), TOO_LATE)?;
    let why = format!("key {} signed it until 2050-01-01T00:00:00Z, and the clock says 2060-01-01T00:0", key.id);
    refused(&ended, "expired", &why)
});

pub const CLOCK: Case = Case::new("sign-clock-not-set", |stage| {
    let (key, cd) = (Key::make(&stage.dir)?, site_cd(stage)?);
    key.sign(&cd.image, IMAGE, EXPIRES)?;
    let ended = boot(stage, &cd, &required(&key), NEVER_SET)?;
    refused(&ended, "expired", "the clock is not set (1990-01-01T00:0")
});

pub const FOREIGN: Case = Case::new("sign-foreign", |stage| {
    let (key, cd) = (Key::make(&stage.dir)?, site_cd(stage)?);
    key.sign(&cd.image, "another", EXPIRES)?;
    let ended = boot(stage, &cd, &required(&key), IN_TIME)?;
    refused(&ended, "foreign", &format!("key {} signed it for image another, and this is image {IMAGE}", key.id))
});

pub const WARN: Case = Case::new("sign-warn", |stage| {
    let (key, cd) = (Key::make(&stage.dir)?, site_cd(stage)?);
    key.sign(&cd.image, IMAGE, EXPIRES)?;
    flip(&cd.image)?;
    let policy = policy_with(json!({"signature": {"need": "warn", "keys": [key.public]}}));
    let ended = boot(stage, &cd, &policy, IN_TIME)?;
    ended.expect_console("prolog: uhe prolog runs")?;
    ended.expect_console_end("signature bad: prolog.sh is not what SHA256SUMS says")?;
    ended.expect_end("200 the scripts are done, and no work source is named")?;
    ended.expect_report("/medium/signature/state", "bad")
});

pub const BROKEN_KEY: Case = Case::new("sign-broken-key", |stage| {
    let broken = [("etc/ctxinit/site-keys/site.pub", "untrusted comment: by hand\nRWhatever\n")];
    let ended = stage.tiny_with(&policy(), &broken)?.cd(&site_cd(stage)?).run()?;
    ended.expect_end(
        "500 /etc/ctxinit/site-keys/site.pub:2: not a minisign public key (56 letters that begin with RW)",
    )?;
    ended.expect_phase("policy", Some("failed"))?;
    ended.expect_phase("medium", None)
});

fn required(key: &Key) -> Value {
    policy_with(json!({"signature": {"need": "require", "keys": [key.public]}}))
}

fn site_cd(stage: &Stage) -> Result<Medium, String> {
    // What a refused CD says of syslog must not be done either, nor its name taken.
    stage.cd(&[
        ("prolog.sh", &format!("[ \"$1\" = start ] && echo '{RUNS}'\n")),
        ("epilog.sh", "echo the epilog runs\n"),
        ("context.json", "{\"hostname\": \"from-the-cd\"}\n"),
    ])
}

fn boot(stage: &Stage, cd: &Medium, policy: &Value, clock: &str) -> Result<Ended, String> {
    stage.tiny(policy)?.cd(cd).qemu(["-rtc", clock]).run()
}

fn refused(ended: &Ended, state: &str, why: &str) -> Result<(), String> {
    ended.expect_console(&format!("ctxinit: end 500 the context CD: signature {state}: {why}"))?;
    ended.expect_report("/medium/signature/state", state)?;
    ended.expect_report("/hostname", json!(null))?;
    ended.expect_phase("medium", Some("failed"))?;
    ended.expect_phase("prolog", None)?;
    ended.expect_no_console("log runs")
}

/// One bit of `prolog.sh`, on the volume: it says `uhe prolog runs`.
fn flip(image: &Path) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", image.display());
    let mut bytes = fs::read(image).map_err(failed)?;
    let at = bytes.windows(RUNS.len()).position(|window| window == RUNS.as_bytes());
    let byte = at.and_then(|at| bytes.get_mut(at)).ok_or("no prolog on the volume")?;
    *byte ^= 1;
    fs::write(image, bytes).map_err(failed)
}
