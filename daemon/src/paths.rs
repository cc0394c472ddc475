//! Where a program keeps its files by default
//! ([XDG base directories](https://specifications.freedesktop.org/basedir-spec/latest/),
//! [systemd.exec(5)](https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html#RuntimeDirectory=)).

use std::{collections::BTreeMap, path::PathBuf};

/// The variables that name directories.
pub(crate) const VARIABLES: [&str; 5] = [
    "HOME",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
];

/// The directories of one program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    /// For files that must survive restarts, such as the key; or why there is no such directory.
    pub state: Result<PathBuf, String>,
    /// For files that live as long as the process, such as sockets.
    pub runtime: Result<PathBuf, String>,
}

impl Directories {
    /// The directories of `program`, given the environment and whether the user is root.
    ///
    /// Where a service manager has made directories, those: `$STATE_DIRECTORY` and `$RUNTIME_DIRECTORY`.
    /// For root: `/var/lib/PROGRAM` and `/run/PROGRAM`, regardless of the environment, since `sudo` may pass on that of a user.
    /// For other users: `$XDG_STATE_HOME/PROGRAM`, or `~/.local/state/PROGRAM`; and `$XDG_RUNTIME_DIR/PROGRAM`, or the state
    /// directory where a session has none.
    #[must_use]
    pub(crate) fn new(program: &str, env: &BTreeMap<String, String>, root: bool) -> Self {
        // The specifications ask to ignore relative paths.
        let absolute = |name: &str| {
            let path = PathBuf::from(env.get(name)?);
            path.is_absolute().then_some(path)
        };
        // Of several, separated by colons, the first is the unit's main one.
        let managed = |name: &str| {
            let path = PathBuf::from(env.get(name)?.split(':').next()?);
            path.is_absolute().then_some(path)
        };
        let state = managed("STATE_DIRECTORY")
            .or_else(|| root.then(|| PathBuf::from("/var/lib").join(program)))
            .or_else(|| absolute("XDG_STATE_HOME").map(|state| state.join(program)))
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state").join(program)))
            .ok_or_else(|| {
                "has no default here, because neither XDG_STATE_HOME nor HOME is set; set one, or give the path"
                    .to_owned()
            });
        let runtime = managed("RUNTIME_DIRECTORY")
            .or_else(|| root.then(|| PathBuf::from("/run").join(program)))
            .or_else(|| absolute("XDG_RUNTIME_DIR").map(|runtime| runtime.join(program)))
            .map_or_else(|| state.clone(), Ok);
        Self { state, runtime }
    }

    /// The directories of the running process, whose environment is `env`.
    #[must_use]
    pub(crate) fn of_process(program: &str, env: &BTreeMap<String, String>) -> Self {
        Self::new(program, env, rustix::process::geteuid().is_root())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn directories(env: &[(&str, &str)], root: bool) -> Directories {
        let env = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Directories::new("demo", &env, root)
    }

    #[test]
    fn root_ignores_the_environment() {
        let found = directories(
            &[("XDG_STATE_HOME", "/home/ann/state"), ("HOME", "/home/ann")],
            true,
        );
        assert_eq!(found.state.unwrap(), PathBuf::from("/var/lib/demo"));
        assert_eq!(found.runtime.unwrap(), PathBuf::from("/run/demo"));
    }

    #[test]
    fn the_directories_of_a_service_manager_come_first() {
        let env = [
            ("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"),
            ("RUNTIME_DIRECTORY", "/run/a"),
            ("HOME", "/h"),
        ];
        for root in [true, false] {
            let found = directories(&env, root);
            assert_eq!(found.state.unwrap(), PathBuf::from("/var/lib/a"));
            assert_eq!(found.runtime.unwrap(), PathBuf::from("/run/a"));
        }
        let found = directories(&[("STATE_DIRECTORY", ":x"), ("HOME", "/h")], false);
        assert_eq!(found.state.unwrap(), PathBuf::from("/h/.local/state/demo"));
    }

    #[test]
    fn a_user_has_the_xdg_directories_or_their_fallbacks() {
        let found = directories(
            &[
                ("XDG_STATE_HOME", "/s"),
                ("XDG_RUNTIME_DIR", "/r"),
                ("HOME", "/h"),
            ],
            false,
        );
        assert_eq!(found.state.unwrap(), PathBuf::from("/s/demo"));
        assert_eq!(found.runtime.unwrap(), PathBuf::from("/r/demo"));

        let found = directories(&[("XDG_STATE_HOME", "relative"), ("HOME", "/h")], false);
        assert_eq!(found.state.unwrap(), PathBuf::from("/h/.local/state/demo"));
        assert_eq!(
            found.runtime.unwrap(),
            PathBuf::from("/h/.local/state/demo")
        );
    }

    #[test]
    fn without_any_home_the_error_names_the_variables() {
        let found = directories(&[("XDG_STATE_HOME", ""), ("HOME", "")], false);
        assert!(found.state.unwrap_err().contains("HOME"));
        assert!(found.runtime.is_err());
    }
}
