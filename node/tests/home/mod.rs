//! A program from outside, in a home of its own: the file that includes this has its `PROGRAM`, and the variable of its key file.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output},
};

use tempfile::TempDir;

pub const PEER: &str = "12D3KooWHimNhb4ENT14zc2axbSMiBe7CKUHTyLDxUmNGqf77WXt";
pub const OTHER: &str = "12D3KooWGrWn9wdGcHi6Ut1ZQTvw9YwMRGZNhpLBgyCxHbNrpjKi";

/// A home of its own, so that no test touches the user's files or another test's.
pub struct Home(TempDir);

/// What a command has printed, and its exit code.
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(crate::PROGRAM);
        command
            .env_clear()
            .env("HOME", self.0.path())
            // The default of root is outside of the home.
            .env(crate::KEY_FILE, self.path("state/identity.key"))
            .current_dir(self.0.path());
        command
    }

    /// Runs the program with arguments that have no blanks.
    pub fn run(&self, args: &str) -> Finished {
        let args = args.replace("$PEER", PEER).replace("$OTHER", OTHER);
        finished(self.command().args(args.split(' ')).output().unwrap())
    }

    /// Each line is `ARGUMENTS => PART | PART`: wrong usage, and what is said of it.
    #[track_caller]
    pub fn refuses(&self, lines: &[&str]) {
        for line in lines {
            let line = line.replace("$PEER", PEER).replace("$OTHER", OTHER);
            let (args, parts) = line.split_once(" => ").unwrap();
            self.run(args)
                .is_usage(&parts.split(" | ").collect::<Vec<_>>());
        }
    }
}

/// Takes the output of a command that has ended.
pub fn finished(output: Output) -> Finished {
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Finished {
    /// One line on stderr that holds all of `parts`, nothing on stdout, and exit code 2.
    #[track_caller]
    pub fn is_usage(&self, parts: &[&str]) {
        assert_eq!(self.code, Some(2), "{}", self.stderr);
        assert_eq!(self.stdout, "");
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
        assert!(self.stderr.starts_with("error: "), "{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "{part}: {}", self.stderr);
        }
    }

    #[track_caller]
    pub fn stdout_of_success(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        assert_eq!(self.stderr, "");
        self.stdout
    }
}
