//! Turns between an event loop and the other tasks of its thread.

/// Events in a row before others have their turn.
const EVENTS: u32 = 16;

/// What an event loop has handled.
///
/// A loop that always has a next event never waits. So the handshakes and the connections of its thread would not run as long as
/// strangers connect without end.
#[derive(Debug, Default)]
pub struct InARow(u32);

impl InARow {
    /// One more was handled. Now and then all tasks have a turn.
    pub async fn handled(&mut self) {
        self.0 += 1;
        if self.0 >= EVENTS {
            self.0 = 0;
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_runs_although_a_loop_always_has_a_next_event() {
        let task = tokio::spawn(async {});
        let (mut in_a_row, mut events) = (InARow::default(), 0);
        while !task.is_finished() {
            in_a_row.handled().await;
            events += 1;
        }
        assert_eq!(events, EVENTS);
    }
}
