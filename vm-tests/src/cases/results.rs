//! Where results and failed tokens go: into a directory of the site, and aside.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::case::Case;
use crate::guest::Job;
use crate::site::{Site, WORK};
use crate::stage::{Stage, policy};

pub const DIRECTORY: Case = Case::new("results-directory", directory).with_payload(payload);

/// A file system of the site, with a directory for the worker's user; and what lies there once all is over.
const EPILOG: &str = r#"
if [ "$1" = start ]; then
    mkdir /run/results && mount -t tmpfs -o mode=0700,uid=65542,gid=65542 none /run/results
else
    for file in /run/results/* /run/results/.p*; do
        [ -e "$file" ] && echo "stored: $(stat -c '%a %u' "$file") $(cat "$file")"
    done
    [ -e password ] || echo "the password is gone"
    umount /run/results
fi
"#;

/// One token is worked, its result lies in the directory; the other fails once, which is once too often here, and lies in
/// the pool of those that failed. The site's password has served and is gone before the first payload runs.
fn directory(stage: &Stage) -> Result<(), String> {
    let site = Site::start(stage)?;
    site.fill(&["results-directory", "results-directory poison"])?;
    let mut context: Value = serde_json::from_str(&site.context()).map_err(|error| error.to_string())?;
    let topos = &mut context["work"]["topos"];
    topos["results"] = json!({"directory": "/run/results"});
    topos["lease_limit"] = json!(1);
    // By http nothing is shown, so the file of the authorities stands for it.
    topos["ca"] = json!("password");
    context["cd"] = json!({"secret": ["password"]});
    let cd = stage.cd(&[("context.json", &context.to_string()), ("epilog.sh", EPILOG), ("password", "geheim\n")])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    ended.expect_end("200 1 of 2 tokens completed")?;
    ended.expect_console("epilog: stored: 640 65542 a result")?;
    ended.expect_console("epilog: the password is gone")?;
    ended.expect_report("/tokens/1/fate", "failed")?;
    ended.expect_console("ctxinit: token 2: failed for good, ")?;
    let left = [site.values(WORK)?, site.values(&format!("{WORK}.failed"))?];
    let expected = [vec![], vec!["results-directory poison".to_owned()]];
    if left != expected {
        return Err(format!("expected the pools {expected:?}, found {left:?}"));
    }
    let free = site.tokens(&format!("{WORK}.failed"))?.iter().all(|token| !token.locked);
    if free { Ok(()) } else { Err("the failed token is locked".to_owned()) }
}

fn payload(job: &Job) -> Result<ExitCode, String> {
    std::fs::write(&job.result, "a result").map_err(|error| format!("{}: {error}", job.result))?;
    let poison = job.words.first().is_some_and(|word| word == "poison");
    Ok(if poison { ExitCode::from(3) } else { ExitCode::SUCCESS })
}
