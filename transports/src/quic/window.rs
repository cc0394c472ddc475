//! How many bytes of a connection a remote may have sent that were not read. Pure.
//!
//! What is granted cannot be taken back until as much was read. So a connection that carries begins with room for two streams, and
//! gets more as bytes are read on it. A remote whose bytes nobody reads never gets more.

use super::settings::FIRST_WINDOW;
use crate::net::budget::{CARRYING, Class, Room};

/// The window of a connection.
#[derive(Debug)]
pub(super) struct Window {
    class: Class,
    room: Room,
    /// The greatest that the remote was given.
    granted: u32,
    /// Bytes that were read since.
    read: u64,
}

impl Window {
    pub(super) const fn new(room: Room) -> Self {
        Self {
            class: Class::Stranger,
            room,
            granted: FIRST_WINDOW,
            read: 0,
        }
    }

    pub(super) const fn granted(&self) -> u32 {
        self.granted
    }

    /// The new window, if the class has another one.
    pub(super) fn set_class(&mut self, class: Class) -> Option<u32> {
        self.class = class;
        self.grow()
    }

    /// So many bytes were read: the new window, if they have earned one.
    pub(super) fn read(&mut self, bytes: usize) -> Option<u32> {
        self.read += bytes as u64;
        self.grow()
    }

    fn grow(&mut self) -> Option<u32> {
        let first = match self.class {
            Class::Stranger => return None,
            Class::Known => self.class.bytes(),
            Class::Carrying | Class::Serving => CARRYING,
        };
        let next = if self.granted < first {
            first
        } else if self.read >= self.granted.into() {
            self.granted.saturating_mul(2).min(self.class.bytes())
        } else {
            return None;
        };
        if next <= self.granted || self.room.is_short() {
            return None;
        }
        (self.granted, self.read) = (next, 0);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u32 = 1 << 20;

    fn window() -> (Window, Room) {
        let room = Room::unlimited();
        (Window::new(room.clone()), room)
    }

    #[test]
    fn a_window_doubles_each_time_that_as_much_was_read_and_never_where_nothing_is() {
        let (mut window, _) = window();
        assert_eq!(window.read(100 << 20), None, "a stranger's");
        let (mut window, _) = self::window();
        assert_eq!(window.set_class(Class::Known), Some(4 * MIB));
        assert_eq!(window.read(100 << 20), None, "all that its class has");
        assert_eq!(window.set_class(Class::Carrying), Some(8 * MIB));
        assert_eq!(
            window
                .read(8 << 20)
                .into_iter()
                .chain(window.read(0))
                .count(),
            1
        );
        assert_eq!(window.granted(), 16 * MIB);
        assert_eq!(window.read((16 << 20) - 1), None);
        assert_eq!(window.read(1), Some(32 * MIB));
        assert_eq!(window.read(1 << 30), None);
        assert_eq!(window.set_class(Class::Stranger), None);
        assert_eq!(window.set_class(Class::Carrying), None);
    }

    #[test]
    fn no_window_grows_while_memory_is_short() {
        let (mut window, room) = window();
        room.set(0);
        assert_eq!(window.set_class(Class::Carrying), None);
        room.set(1);
        assert_eq!(window.read(1), Some(8 * MIB));
        room.set(0);
        assert_eq!(window.read(8 << 20), None);
        room.set(1);
        assert_eq!(window.read(1), Some(16 * MIB));
    }
}
