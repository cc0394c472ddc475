//! Services that are offered as long as something exists.

use std::sync::Arc;

use p2pnode_services::config::{Service, ServiceName};

use super::{
    Hub,
    lines::Sink,
    offers::{Changes, Goal, Offered, TakenName},
};

/// A service that is offered as long as this exists.
#[derive(Debug)]
pub(crate) struct Offering {
    hub: Hub,
    offered: Arc<Offered>,
}

impl Drop for Offering {
    fn drop(&mut self) {
        self.hub.withdraw(&self.offered);
    }
}

impl Hub {
    /// Offers `service` as long as the returned value exists.
    ///
    /// # Errors
    /// If there is one of that name.
    pub(crate) fn offer(
        &self,
        service: Service,
        goal: Goal,
        sink: Option<Sink>,
    ) -> Result<Offering, TakenName> {
        let mut state = self.state();
        let offered = state.offers.add(Offered::new(service, goal, sink, false))?;
        self.offers_changed(state, &Changes::default());
        Ok(Offering {
            hub: self.clone(),
            offered,
        })
    }

    /// Ends the service of that name that a command offers.
    pub(crate) fn end_service(&self, name: &ServiceName) {
        let found = self.state().offers.get(name).cloned();
        if let Some(offered) = found.filter(|offered| !offered.is_configured) {
            self.withdraw(&offered);
        }
    }

    /// Another service may have its name by now.
    fn withdraw(&self, offered: &Arc<Offered>) {
        let mut state = self.state();
        let name = &offered.service.name;
        if !state
            .offers
            .get(name)
            .is_some_and(|it| Arc::ptr_eq(it, offered))
        {
            return;
        }
        state.offers.remove(name);
        let changes = Changes {
            ended: vec![name.clone()],
        };
        self.offers_changed(state, &changes);
    }
}
