//! Keys for root: refused unless the image allows them; then they replace what is there.

use serde_json::json;

use crate::case::Case;
use crate::stage::{policy, policy_with};

pub const REFUSED: Case = Case::new("nebula-keys-refused", |stage| {
    let cd = stage.cd(&[("context.sh", CONTEXT), ("root.pub", ROOT), ("prolog.sh", NOTHING)])?;
    let ended = stage.tiny(&policy())?.cd(&cd).run()?;
    ended.expect_console(
        "ctxinit: context.sh: SSH_PUBLIC_KEY, ROOT_PUBKEY: the image does not allow keys for root (accounts.root_ssh_keys)",
    )?;
    ended.expect_console(&format!("prolog: {}", stage.marker()))
});

pub const ALLOWED: Case = Case::new("nebula-keys-allowed", |stage| {
    let cd = stage.cd(&[("context.sh", CONTEXT), ("root.pub", ROOT), ("prolog.sh", INSTALLED)])?;
    let allowing = policy_with(json!({"accounts": {"root_ssh_keys": true}}));
    let old = ("root/.ssh/authorized_keys", "ssh-ed25519 OLD the image's own\n");
    let ended = stage.tiny_with(&allowing, &[old])?.cd(&cd).run()?;
    ended.expect_console("ctxinit: 2 keys for root, from SSH_PUBLIC_KEY, ROOT_PUBKEY")?;
    ended.expect_console(&format!("prolog: {}", stage.marker()))
});

const CONTEXT: &str = "ROOT_PUBKEY=root.pub\nSSH_PUBLIC_KEY='ssh-ed25519 AAAA joe@example.org\n'\n";
const ROOT: &str = "# the site's\nssh-rsa BBBB root@site\n";

const NOTHING: &str = r#"
[ "$1" = start ] || return 0
[ ! -e /root/.ssh ] && echo "RESULT nebula-keys-refused ok"
"#;

const INSTALLED: &str = r#"
[ "$1" = start ] || return 0
file=/root/.ssh/authorized_keys
[ "$(cat $file)" = "ssh-ed25519 AAAA joe@example.org
ssh-rsa BBBB root@site" ] && [ "$(stat -c %a/%u $file)" = 600/0 ] && [ "$(stat -c %a /root/.ssh)" = 700 ] &&
    echo "RESULT nebula-keys-allowed ok"
"#;
