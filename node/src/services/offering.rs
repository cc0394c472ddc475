//! Services that are offered as long as something exists.

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
    name: ServiceName,
}

impl Drop for Offering {
    fn drop(&mut self) {
        self.hub.withdraw(&self.name);
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
        let name = service.name.clone();
        let mut state = self.state();
        state.offers.add(Offered::new(service, goal, sink, false))?;
        self.offers_changed(state, &Changes::default());
        Ok(Offering {
            hub: self.clone(),
            name,
        })
    }

    fn withdraw(&self, name: &ServiceName) {
        let mut state = self.state();
        state.offers.remove(name);
        let changes = Changes {
            ended: vec![name.clone()],
        };
        self.offers_changed(state, &changes);
    }
}
