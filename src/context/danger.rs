//! Names that no variable of a context may have, and why.
//!
//! A site's scripts run as root anyway: this is no wall against a site, but keeps a value that somebody typed into
//! a template from breaking every script of the machine in ways that nobody understands.

const FINDS: &str = "it says where shells find programs";
const READONLY: &str = "shells do not let it be set, and stop reading at it";
const OWN_MEANING: &str = "shells keep a value of their own in it";
const SHELL: &str = "it changes how a shell works";
const LOADER: &str = "it changes how the loader and the C library work";
const INTERPRETER: &str = "it changes what an interpreter runs";
const PLACE: &str = "a script's own place and user are in it";

/// In the order of the reasons.
const NAMES: &[(&str, &str)] = &[
    ("PATH", FINDS),
    ("EXECIGNORE", FINDS),
    // Bash's and its POSIX relatives' (bash(1), "Shell Variables"); an assignment ends a sourced file there.
    ("UID", READONLY),
    ("EUID", READONLY),
    ("PPID", READONLY),
    ("SHELLOPTS", READONLY),
    ("BASHOPTS", READONLY),
    ("GROUPS", OWN_MEANING),
    ("FUNCNAME", OWN_MEANING),
    ("DIRSTACK", OWN_MEANING),
    ("HISTCMD", OWN_MEANING),
    ("LINENO", OWN_MEANING),
    ("SECONDS", OWN_MEANING),
    ("RANDOM", OWN_MEANING),
    ("SRANDOM", OWN_MEANING),
    ("EPOCHSECONDS", OWN_MEANING),
    ("EPOCHREALTIME", OWN_MEANING),
    ("BASHPID", OWN_MEANING),
    ("PIPESTATUS", OWN_MEANING),
    ("SHLVL", OWN_MEANING),
    ("REPLY", OWN_MEANING),
    ("OPTARG", OWN_MEANING),
    ("OPTIND", OWN_MEANING),
    ("OPTERR", OWN_MEANING),
    ("_", OWN_MEANING),
    ("IFS", SHELL),
    ("ENV", SHELL),
    ("CDPATH", SHELL),
    ("GLOBIGNORE", SHELL),
    ("POSIXLY_CORRECT", SHELL),
    ("FUNCNEST", SHELL),
    ("TMOUT", SHELL),
    ("PROMPT_COMMAND", SHELL),
    ("PS0", SHELL),
    ("PS1", SHELL),
    ("PS2", SHELL),
    ("PS3", SHELL),
    ("PS4", SHELL),
    ("GCONV_PATH", LOADER),
    ("GETCONF_DIR", LOADER),
    ("GLIBC_TUNABLES", LOADER),
    ("HOSTALIASES", LOADER),
    ("LOCALDOMAIN", LOADER),
    ("LOCPATH", LOADER),
    ("MUSL_LOCPATH", LOADER),
    ("NLSPATH", LOADER),
    ("RES_OPTIONS", LOADER),
    ("RESOLV_HOST_CONF", LOADER),
    ("TZDIR", LOADER),
    ("OPENSSL_CONF", LOADER),
    ("OPENSSL_ENGINES", LOADER),
    ("OPENSSL_MODULES", LOADER),
    ("JAVA_TOOL_OPTIONS", INTERPRETER),
    ("JDK_JAVA_OPTIONS", INTERPRETER),
    ("_JAVA_OPTIONS", INTERPRETER),
    ("CLASSPATH", INTERPRETER),
    ("LUA_INIT", INTERPRETER),
    ("LUA_PATH", INTERPRETER),
    ("LUA_CPATH", INTERPRETER),
    // By name, as sites have NODE_NAME and its like for their nodes.
    ("NODE_OPTIONS", INTERPRETER),
    ("NODE_PATH", INTERPRETER),
    ("NODE_EXTRA_CA_CERTS", INTERPRETER),
    ("HOME", PLACE),
    ("SHELL", PLACE),
    ("PWD", PLACE),
    ("OLDPWD", PLACE),
    ("TMPDIR", PLACE),
    ("CONTEXT_DIR", PLACE),
];

const PREFIXES: &[(&str, &str)] = &[
    ("BASH_", SHELL),
    ("COMP_", SHELL),
    ("LD_", LOADER),
    ("MALLOC_", LOADER),
    ("PYTHON", INTERPRETER),
    ("PERL", INTERPRETER),
    ("RUBY", INTERPRETER),
];

/// Why a variable of this name would change how a shell, the loader or an interpreter works; `None` if it would not.
pub fn danger(name: &str) -> Option<&'static str> {
    let by_name = NAMES.iter().find(|(each, _)| *each == name);
    let by_prefix = || PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix));
    by_name.or_else(by_prefix).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_steer_are_known_and_others_are_not() {
        let steering = [
            "PATH",
            "IFS",
            "ENV",
            "BASH_ENV",
            "BASH_FUNC_ls%%",
            "SHELLOPTS",
            "BASHOPTS",
            "UID",
            "EUID",
            "PPID",
            "PS4",
            "LD_PRELOAD",
            "LD_AUDIT",
            "GLIBC_TUNABLES",
            "GCONV_PATH",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "PERL5OPT",
            "RUBYOPT",
            "NODE_OPTIONS",
            "JAVA_TOOL_OPTIONS",
            "EPOCHREALTIME",
            "HOME",
            "CONTEXT_DIR",
        ];
        for name in steering {
            assert!(danger(name).is_some(), "{name}");
        }
        let usual = [
            "ETH0_IP",
            "PATHS",
            "HOSTNAME",
            "MACHINEFEATURES",
            "NODE_NAME",
            "USER",
            "TZ",
            "LANG",
            "http_proxy",
            "IP",
            "LDAP_SERVER",
            "ENVIRONMENT",
            "UIDS",
            "TARGET",
            "DISK_ID",
            "BASHFUL",
            "_X",
            "_ctxinit",
            "SSL_CERT_FILE",
        ];
        for name in usual {
            assert_eq!(danger(name), None, "{name}");
        }
    }

    /// A name that a shell cannot set would end the reading of all variables: bash is asked.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a child of the test's own")]
    fn bash_reads_what_is_not_dangerous() {
        const LIST: &str = "compgen -v; compgen -A variable _";
        let Ok(names) = std::process::Command::new("bash").args(["-c", LIST]).env_clear().output() else { return };
        for name in String::from_utf8_lossy(&names.stdout).lines().filter(|name| danger(name).is_none()) {
            let script = format!("{name}=probe; [ \"${{{name}}}\" = probe ]");
            let set = std::process::Command::new("bash").args(["-c", &script]).env_clear().status().unwrap();
            assert!(set.success(), "{name}");
        }
    }
}
