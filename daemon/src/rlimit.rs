//! The limit of files, and so of sockets, that this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as the system allows, and returns it; `None`: no limit.
///
/// A process often starts with 1024, for programs that use select(2). These programs do not.
#[must_use]
pub fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => maximum,
        // The limit stays as it was.
        Err(_) => current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_high_as_the_system_allows() {
        let raised = raise();
        assert_eq!(getrlimit(Resource::Nofile).current, raised);
        assert_eq!(raise(), raised);
    }
}
